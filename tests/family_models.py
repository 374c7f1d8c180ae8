"""A small model of each family of encoders, as Hugging Face stores it, with large random weights."""

from __future__ import annotations

from typing import Any

import numpy as np

from bertsym.array import Array

UNITS, HIDDEN, EMBEDDING, LABELS = 12, 20, 8, 3
_SIZES = {
    "num_hidden_layers": 2,
    "hidden_size": UNITS,
    "intermediate_size": HIDDEN,
    "num_attention_heads": 3,
    "vocab_size": 53,
    "max_position_embeddings": 40,
    "layer_norm_eps": 1e-12,
    "hidden_dropout_prob": 0.1,
    "attention_probs_dropout_prob": 0.1,
    "hidden_act": "gelu",
}

#: model_type -> config.json
CONFIGS: dict[str, dict[str, Any]] = {
    "bert": {**_SIZES, "type_vocab_size": 2, "pad_token_id": 0},
    "ernie": {**_SIZES, "type_vocab_size": 4, "hidden_act": "relu", "pad_token_id": 0},
    "roberta": {**_SIZES, "type_vocab_size": 1, "layer_norm_eps": 1e-5, "pad_token_id": 1},
    "distilbert": {
        "n_layers": 2,
        "dim": UNITS,
        "hidden_dim": HIDDEN,
        "n_heads": 3,
        "vocab_size": 53,
        "max_position_embeddings": 40,
        "activation": "gelu",
        "dropout": 0.1,
        "attention_dropout": 0.1,
        "pad_token_id": 0,
    },
    "electra": {**_SIZES, "type_vocab_size": 2, "embedding_size": EMBEDDING, "pad_token_id": 0},
    "albert": {
        **_SIZES,
        "type_vocab_size": 2,
        "embedding_size": EMBEDDING,
        "hidden_act": "gelu_new",
        "num_hidden_groups": 1,
        "inner_group_num": 1,
        "pad_token_id": 0,
    },
    "mpnet": {**_SIZES, "relative_attention_num_buckets": 32, "pad_token_id": 1},
}
for _model_type, _config in CONFIGS.items():
    _config["model_type"] = _model_type

#: task -> ending of the name of transformers' class
ENDINGS = {
    "classification": "ForSequenceClassification",
    "tagging": "ForTokenClassification",
    "qa": "ForQuestionAnswering",
    "masked_lm": "ForMaskedLM",
}
#: model_type -> beginning of the names of transformers' classes
CLASSES = {
    "bert": "Bert",
    "ernie": "Ernie",
    "roberta": "Roberta",
    "distilbert": "DistilBert",
    "electra": "Electra",
    "albert": "Albert",
    "mpnet": "MPNet",
}

_Shapes = dict[str, tuple[int, ...]]
_BERT_LAYER: _Shapes = {
    "attention.self.query": (UNITS, UNITS),
    "attention.self.key": (UNITS, UNITS),
    "attention.self.value": (UNITS, UNITS),
    "attention.output.dense": (UNITS, UNITS),
    "attention.output.LayerNorm": (UNITS,),
    "intermediate.dense": (HIDDEN, UNITS),
    "output.dense": (UNITS, HIDDEN),
    "output.LayerNorm": (UNITS,),
}
_LAYERS: dict[str, _Shapes] = {
    "distilbert": {
        "attention.q_lin": (UNITS, UNITS),
        "attention.k_lin": (UNITS, UNITS),
        "attention.v_lin": (UNITS, UNITS),
        "attention.out_lin": (UNITS, UNITS),
        "sa_layer_norm": (UNITS,),
        "ffn.lin1": (HIDDEN, UNITS),
        "ffn.lin2": (UNITS, HIDDEN),
        "output_layer_norm": (UNITS,),
    },
    "albert": {
        "attention.query": (UNITS, UNITS),
        "attention.key": (UNITS, UNITS),
        "attention.value": (UNITS, UNITS),
        "attention.dense": (UNITS, UNITS),
        "attention.LayerNorm": (UNITS,),
        "ffn": (HIDDEN, UNITS),
        "ffn_output": (UNITS, HIDDEN),
        "full_layer_layer_norm": (UNITS,),
    },
    "mpnet": {
        "attention.attn.q": (UNITS, UNITS),
        "attention.attn.k": (UNITS, UNITS),
        "attention.attn.v": (UNITS, UNITS),
        "attention.attn.o": (UNITS, UNITS),
        "attention.LayerNorm": (UNITS,),
        "intermediate.dense": (HIDDEN, UNITS),
        "output.dense": (UNITS, HIDDEN),
        "output.LayerNorm": (UNITS,),
    },
}
_LAYER_PREFIXES = {
    "distilbert": ["transformer.layer.0", "transformer.layer.1"],
    "albert": ["encoder.albert_layer_groups.0.albert_layers.0"],
}
# names of dense layers and LayerNorms, without those of the layers
_OTHERS: dict[str, _Shapes] = {
    "electra": {"embeddings.LayerNorm": (EMBEDDING,), "embeddings_project": (UNITS, EMBEDDING)},
    "albert": {
        "embeddings.LayerNorm": (EMBEDDING,),
        "encoder.embedding_hidden_mapping_in": (UNITS, EMBEDDING),
        "pooler": (UNITS, UNITS),
    },
    "distilbert": {"embeddings.LayerNorm": (UNITS,)},
}
_OTHERS_OF_BERT: _Shapes = {"embeddings.LayerNorm": (UNITS,), "pooler.dense": (UNITS, UNITS)}

_ROBERTA_CLASSIFIER: _Shapes = {"classifier.dense": (UNITS, UNITS), "classifier.out_proj": (LABELS, UNITS)}
_CLASSIFIERS: dict[str, _Shapes] = {
    "roberta": _ROBERTA_CLASSIFIER,
    "mpnet": _ROBERTA_CLASSIFIER,
    "electra": _ROBERTA_CLASSIFIER,
    "distilbert": {"pre_classifier": (UNITS, UNITS), "classifier": (LABELS, UNITS)},
}
_ROBERTA_MASKED_LM = ("lm_head.dense", "lm_head.layer_norm", "lm_head.bias")
_BERT_MASKED_LM = ("cls.predictions.transform.dense", "cls.predictions.transform.LayerNorm", "cls.predictions.bias")
# names of the dense layer, the LayerNorm and the last bias
_MASKED_LM = {
    "roberta": _ROBERTA_MASKED_LM,
    "mpnet": _ROBERTA_MASKED_LM,
    "distilbert": ("vocab_transform", "vocab_layer_norm", "vocab_projector.bias"),
    "electra": ("generator_predictions.dense", "generator_predictions.LayerNorm", "generator_lm_head.bias"),
    "albert": ("predictions.dense", "predictions.LayerNorm", "predictions.bias"),
}


def encoder_weights(model_type: str) -> dict[str, Array]:
    """The weights of the encoder and its pooler, where the family has one."""
    config = CONFIGS[model_type]
    width = config.get("embedding_size", UNITS)
    tables = {"word_embeddings": config["vocab_size"], "position_embeddings": config["max_position_embeddings"]}
    if "type_vocab_size" in config:
        tables["token_type_embeddings"] = config["type_vocab_size"]
    shapes: _Shapes = {f"embeddings.{name}.weight": (rows, width) for name, rows in tables.items()}
    if model_type == "mpnet":
        shapes["encoder.relative_attention_bias.weight"] = 32, config["num_attention_heads"]
    parts = dict(_OTHERS.get(model_type, _OTHERS_OF_BERT))
    for prefix in _LAYER_PREFIXES.get(model_type, ["encoder.layer.0", "encoder.layer.1"]):
        parts.update({f"{prefix}.{name}": shape for name, shape in _LAYERS.get(model_type, _BERT_LAYER).items()})
    return _draw({**shapes, **_with_biases(parts)})


def head_weights(model_type: str, task: str) -> dict[str, Array]:
    """The weights of the head of a class, without copies of tied weights."""
    if task == "classification":
        return _draw(_with_biases(_CLASSIFIERS.get(model_type, {"classifier": (LABELS, UNITS)})))
    if task == "tagging":
        return _draw(_with_biases({"classifier": (LABELS, UNITS)}))
    if task == "qa":
        return _draw(_with_biases({"qa_outputs": (2, UNITS)}))
    config = CONFIGS[model_type]
    width = config.get("embedding_size", UNITS)
    dense, norm, bias = _MASKED_LM.get(model_type, _BERT_MASKED_LM)
    return _draw({**_with_biases({dense: (width, UNITS), norm: (width,)}), bias: (config["vocab_size"],)})


def _with_biases(parts: _Shapes) -> _Shapes:
    """Shapes of weight and bias of dense layers and LayerNorms."""
    shapes: _Shapes = {}
    for name, shape in parts.items():
        shapes[f"{name}.weight"], shapes[f"{name}.bias"] = shape, shape[:1]
    return shapes


def _draw(shapes: _Shapes) -> dict[str, Array]:
    rng = np.random.default_rng(0)
    return {
        name: (rng.normal(0, 0.4, shape) + (1 if "norm" in name.lower() and name.endswith("weight") else 0)).astype(
            np.float32
        )
        for name, shape in shapes.items()
    }
