"""Hugging Face BERT: config.json, safetensors (one file or sharded), vocab.txt or tokenizer.json."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from bertsym.bundle import file_digest
from bertsym.encoders.config import BertConfig
from bertsym.errors import ModelError
from bertsym.json_reader import JsonValue, read_json
from bertsym.sources.hugging_face_folder import find_folder, find_weights
from bertsym.sources.hugging_face_tokenizer import read_tokenizer
from bertsym.sources.mapping import WeightNames, map_weights, resolve_names
from bertsym.sources.pretrained import Pretrained, TaskHead, TrainedHead
from bertsym.sources.safetensors_file import SafetensorsFiles
from bertsym.sources.sentence_transformers import read_modules
from bertsym.sources.task_heads import read_head
from bertsym.sources.weight_names import HUGGING_FACE, printable
from bertsym.text.vocabulary import check_vocabulary_size

# our field -> (key of config.json, default; None where the key is required)
_SIZES: dict[str, tuple[str, int | None]] = {
    "num_layers": ("num_hidden_layers", None),
    "units": ("hidden_size", None),
    "hidden_size": ("intermediate_size", None),
    "num_heads": ("num_attention_heads", None),
    "vocab_size": ("vocab_size", None),
    "max_length": ("max_position_embeddings", 512),
    "token_type_vocab_size": ("type_vocab_size", 2),
}
_NUMBERS: dict[str, tuple[str, float]] = {
    "dropout": ("hidden_dropout_prob", 0.1),
    "attention_dropout": ("attention_probs_dropout_prob", 0.1),
    "layer_norm_eps": ("layer_norm_eps", 1e-12),
}
# key -> the only supported value, which is also the default of transformers; model_type has no default
_SUPPORTED: dict[str, Any] = {
    "model_type": "bert",
    "position_embedding_type": "absolute",
    "is_decoder": False,
    "add_cross_attention": False,
}
# hidden_act -> our name
_ACTIVATIONS = {"gelu": "gelu", "relu": "relu", "gelu_new": "gelu_tanh", "gelu_pytorch_tanh": "gelu_tanh"}
# Keys of config.json that describe a task head
_HEAD_SETTINGS = ("id2label", "problem_type", "finetuning_task", "classifier_dropout", "sentence_transformers")
_SHOWN_CHARACTERS = 200
# Prefixes that wrappers of models add: DataParallel, torch.compile, sentence-transformers
_WRAPPERS = {"module", "model", "_orig_mod", "0", "auto_model"}


def load_hugging_face(
    location: str, pad_vocab: bool = False, ignore_weights: Sequence[str] = (), with_head: bool = False
) -> Pretrained:
    """Read a BERT from a folder, or from the hub (``ORG/NAME`` or ``ORG/NAME@REVISION``).

    With `with_head`, its trained head too, where there is one; a folder of sentence-transformers has none. Weights
    that match a glob of `ignore_weights` are left out. Raises UsageError for a glob that matches no weight or a weight
    of the encoder, and ModelError or DataError, naming the file, for anything that is missing, damaged or not
    supported.
    """
    root, notes = find_folder(location)
    modules = read_modules(root)
    folder = modules.transformer if modules else root
    config_path = folder / "config.json"
    inner = next((path.parent for path in sorted(folder.glob("0_*/config.json"))), None)
    if inner and not config_path.exists():
        raise ModelError(f"{config_path}: no such file, but there is one in {inner.name}; export hf:{inner}")
    document = read_json(config_path)
    config = _read_config(document)
    weight_files, named, weight_notes = find_weights(folder)
    weights = SafetensorsFiles(weight_files)
    names = resolve_names(weights, HUGGING_FACE, str(named), ignore_weights)
    type_notes = _check_type(document, names)
    arg_params = map_weights(weights, names, config)
    head: TrainedHead | None = None
    head_notes: tuple[str, ...] = ()
    if with_head and modules is None:
        head, names, head_notes = read_head(document, names, weights, config)
    tokenizer_class = document.get("tokenizer_class").optional(JsonValue.text)
    tokenizer = read_tokenizer(folder, config.vocab_size, config.max_length, tokenizer_class)
    vocabulary = tokenizer.vocabulary
    if pad_vocab:
        vocabulary = vocabulary.padded_to(config.vocab_size)
    check_vocabulary_size(vocabulary, config.vocab_size, str(tokenizer.files[0]))
    files = [config_path, *weight_files, *tokenizer.files, *(modules.files if modules else ())]
    origin = {
        "kind": "hf",
        "pretrained": True,
        "files": {path.relative_to(root).as_posix(): file_digest(path) for path in sorted(files)},
        **names.facts,
    }
    lower_case = tokenizer.options.lower_case
    module_notes = (*modules.notes, *modules.text_notes(config.max_length, lower_case)) if modules is not None else ()
    return Pretrained(
        config,
        arg_params,
        vocabulary,
        tokenizer.options,
        tokenizer.document,
        origin,
        names.checkpoint(weights, document.object()),
        (*notes, *type_notes, *weight_notes, *names.notes, *head_notes, *tokenizer.notes, *module_notes),
        TaskHead(names.task_head, _head_settings(document)) if names.task_head else None,
        head,
        modules.pooling if modules else None,
    )


def _read_config(document: JsonValue) -> BertConfig:
    for key, supported in _SUPPORTED.items():
        value = document.get(key)
        if not value.is_null:
            value.choice(supported)
    sizes = {
        field: (document[key] if default is None else document.get(key, default)).integer(1)
        for field, (key, default) in _SIZES.items()
    }
    numbers: dict[str, Any] = {
        field: document.get(key, default).number(0, 1) for field, (key, default) in _NUMBERS.items()
    }
    activation = document.get("hidden_act")
    name = "gelu" if activation.is_null else _ACTIVATIONS[activation.choice(*_ACTIVATIONS)]
    try:
        return BertConfig(**sizes, **numbers, activation=name)
    except ModelError as error:
        raise ModelError(f"{document.where}: {error}") from None


def _check_type(document: JsonValue, names: WeightNames) -> tuple[str, ...]:
    """Raise ModelError for a config without model_type, unless there is other evidence that the model is a BERT.

    The names of the weights alone are none: RoBERTa has the same names, but counts positions from 2.
    """
    if not document.get("model_type").is_null:
        return ()
    architectures = document.get("architectures").optional(JsonValue.texts) or ()
    parts = set(names.prefix.split(".")) - {""}
    if architectures:
        evidence = f"architectures {printable(architectures[0])}" if architectures[0].startswith("Bert") else None
    elif parts & {"bert", "bert_model"}:
        evidence = f"names of weights that begin with {names.prefix}"
    elif (
        parts <= _WRAPPERS
        and document.get("type_vocab_size", 2).integer() == 2
        and document.get("pad_token_id", 0).raw == 0
    ):
        evidence = "names of weights, two segments and pad_token_id 0"
    else:
        evidence = None
    if evidence is None:
        raise document.fault('the key "model_type" is missing, and nothing else proves a BERT; add it if the model is')
    return (f"config.json has no model_type: taken as bert, by {evidence}",)


def _head_settings(document: JsonValue) -> tuple[str, ...]:
    found = []
    for key in _HEAD_SETTINGS:
        value = document.get(key).raw
        if value is None:
            continue
        text = ", ".join(f"{inner} {name!r}" for inner, name in value.items()) if isinstance(value, dict) else value
        text = printable(f"{key} {text}")
        found.append(text if len(text) <= _SHOWN_CHARACTERS else f"{text[:_SHOWN_CHARACTERS]}...")
    return tuple(found)
