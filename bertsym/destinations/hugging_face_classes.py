"""Which class of transformers computes what a bundle computes."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

from bertsym.bundle import Bundle
from bertsym.encoders.catalogue import HEAD_TRANSFORM
from bertsym.encoders.config import BertConfig
from bertsym.encoders.graph_heads import head_dropout
from bertsym.errors import ModelError
from bertsym.families import ACTIVATIONS, FAMILIES, Family, HeadClass
from bertsym.sources.task_heads import KEPT_SETTINGS

#: kind of task -> class of its head, without the prefix of the family
_CLASSES = {
    "classification": "SequenceClassification",
    "multilabel": "SequenceClassification",
    "regression": "SequenceClassification",
    "tagging": "TokenClassification",
    "qa": "QuestionAnswering",
    "masked_lm": "MaskedLM",
}
_PROBLEM_TYPES = {
    "classification": "single_label_classification",
    "multilabel": "multi_label_classification",
    "regression": "regression",
}


@dataclass(frozen=True)
class TransformersClass:
    """A class of transformers for a bundle, and the head that it has."""

    name: str  #: such as ``BertForSequenceClassification``
    family: Family
    model_type: str
    head: HeadClass | None  #: None for the encoder alone


def choose_class(bundle: Bundle) -> TransformersClass:
    """Choose the class that computes exactly what a bundle computes.

    Raises ModelError if there is none, with a command that makes a bundle that has one.
    """
    signature, family = bundle.signature, FAMILIES[bundle.config.family]
    model_type, prefix = _model_type(bundle, family)
    if signature.embedding is not None:
        raise ModelError(
            f"{bundle.prefix}: ends in a sentence embedding ({signature.embedding}), which no class of transformers "
            "computes; --as sentence-transformers, the default, does"
        )
    if not bundle.has_head:
        return encoder_class(bundle)
    if not signature.trained or signature.task is None:
        raise ModelError(f"{bundle.prefix}: has an untrained head; bertsym graft --head none removes it")
    name = f"{prefix}For{_CLASSES[signature.task]}"
    head = family.heads[name]
    nodes = {node.name for node in bundle.graph().nodes}
    has_transform = HEAD_TRANSFORM in nodes
    if signature.length is not None and head.reads != "sequence":
        raise _no_class(bundle, name, f"the head reads all {signature.length} tokens at once")
    if signature.output != head.reads:
        raise _no_class(bundle, name, f"the head reads {signature.output}, and that of {name} reads {head.reads}")
    if has_transform != head.has_transform:
        ours, theirs = (("one layer", "two layers")[has] for has in (has_transform, head.has_transform))
        raise _no_class(bundle, name, f"the head has {ours}, and that of {name} has {theirs}")
    activation = head.activation or bundle.config.activation
    if has_transform and f"{HEAD_TRANSFORM}-{activation}" not in nodes:
        raise _no_class(bundle, name, f"the activation of the head is not {activation}, that of {name}")
    return TransformersClass(name, family, model_type, head)


def encoder_class(bundle: Bundle) -> TransformersClass:
    """Return the class of a bundle's encoder alone."""
    family = FAMILIES[bundle.config.family]
    model_type, prefix = _model_type(bundle, family)
    return TransformersClass(f"{prefix}Model", family, model_type, None)


def _model_type(bundle: Bundle, family: Family) -> tuple[str, str]:
    """The ``model_type`` and the prefix of the classes: those of the source, or else the first of the family."""
    declared = bundle.manifest["source"].get("model_type")
    model_type = declared if declared in family.model_types else next(iter(family.model_types))
    return model_type, family.model_types[model_type]


def _no_class(bundle: Bundle, name: str, why: str) -> ModelError:
    return ModelError(
        f"{bundle.prefix}: {name} can't express this model: {why}; finetune --head family trains a head that it has"
    )


def written_config(bundle: Bundle, family: Family) -> BertConfig:
    """The config of the encoder that is written: that of the bundle, with the rows that transformers has in addition.

    In a RoBERTa of transformers the first token reads the row of positions after that of the padding, and there is a
    token type. GluonNLP has neither the rows before the first token nor token types; they are written as zeros.
    """
    config = bundle.config
    if family.starts_after_padding and not config.position_offset:
        config = dataclasses.replace(config, position_offset=bundle.signature.pad_id + 1)
    if "token_type_vocab_size" in family.keys and not config.token_type_vocab_size:
        config = dataclasses.replace(config, token_type_vocab_size=1)
    return config


def config_document(bundle: Bundle, chosen: TransformersClass) -> dict[str, Any]:
    """Return config.json for the class.

    Raises ModelError for a setting that the family's config.json does not have.
    """
    family, signature = chosen.family, bundle.signature
    config = written_config(bundle, family)
    values = {**config.to_dict(), "max_length": config.position_rows, "embedding_size": config.embedding_width}
    values["activation"] = next(theirs for theirs, ours in ACTIVATIONS.items() if ours == config.activation)
    for field, needed in family.settings.items():
        if getattr(config, field) != needed:
            raise ModelError(
                f"{bundle.prefix}: {field} is {getattr(config, field)}, but a {family.title} in transformers always "
                f"has {needed}"
            )
    document: dict[str, Any] = {"architectures": [chosen.name], "model_type": chosen.model_type}
    document.update({key: values[field] for field, (key, _) in family.keys.items()})
    document.update({key: value for key, value in family.supported.items() if key != "is_decoder"})
    document["pad_token_id"] = signature.pad_id
    document["torch_dtype"] = "float32"
    if chosen.head is not None:
        document.update(_head_settings(bundle, chosen.head))
    return document


def _head_settings(bundle: Bundle, head: HeadClass) -> dict[str, Any]:
    signature = bundle.signature
    settings: dict[str, Any] = {}
    if signature.task in _PROBLEM_TYPES:
        settings["problem_type"] = _PROBLEM_TYPES[signature.task]
    if signature.task not in ("qa", "masked_lm"):
        count = signature.output_shape[-1]
        assert isinstance(count, int)
        names = signature.class_names or tuple(f"LABEL_{i}" for i in range(count))
        settings["id2label"] = {str(i): name for i, name in enumerate(names)}
        settings["label2id"] = {name: i for i, name in enumerate(names)}
    if head.dropout is not None:
        settings[head.dropout[0]] = head_dropout(bundle.graph())
    if signature.task == "regression":
        # Without it, sentence-transformers' CrossEncoder applies a sigmoid to one output.
        applied = "activation.Sigmoid" if signature.task_settings.get("sigmoid") else "linear.Identity"
        settings["sentence_transformers"] = {"activation_fn": f"torch.nn.modules.{applied}"}
    if signature.task_settings or signature.max_length != bundle.config.max_length:
        settings[KEPT_SETTINGS] = {
            "task": signature.task,
            "class_names": list(signature.class_names),
            "max_length": signature.max_length,
            "task_settings": dict(signature.task_settings),
        }
    return settings
