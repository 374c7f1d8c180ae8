"""Encoders of Hugging Face: config.json, weights (safetensors or pickles), vocab.txt or tokenizer.json."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from bertsym.bundle import file_digest
from bertsym.encoders.config import BertConfig
from bertsym.errors import ModelError
from bertsym.families import ACTIVATIONS, BERT, FAMILIES, MODEL_TYPES, REQUIRED, Family, printable
from bertsym.json_reader import JsonValue, read_json
from bertsym.reference import Module
from bertsym.sources.hugging_face_folder import find_folder, find_weights, is_from_hub
from bertsym.sources.hugging_face_tokenizer import read_tokenizer
from bertsym.sources.mapping import WeightNames, map_weights, resolve_names
from bertsym.sources.pretrained import Pretrained, TaskHead, TrainedEmbedding, TrainedHead
from bertsym.sources.sentence_embeddings import read_embedding
from bertsym.sources.sentence_transformers import SentenceModules, read_modules
from bertsym.sources.task_heads import architecture_of, read_head
from bertsym.text.vocabulary import check_vocabulary_size

# Keys of config.json that describe a task head
_HEAD_SETTINGS = ("id2label", "problem_type", "finetuning_task", "classifier_dropout", "sentence_transformers")
_SHOWN_CHARACTERS = 200
_FRACTIONS = ("dropout", "attention_dropout", "layer_norm_eps")  # fields of BertConfig in [0, 1]
# Prefixes that wrappers of models add: DataParallel, torch.compile, sentence-transformers
_WRAPPERS = {"module", "model", "_orig_mod", "0", "auto_model"}


def load_hugging_face(
    location: str, pad_vocab: bool = False, ignore_weights: Sequence[str] = (), with_head: bool = False
) -> Pretrained:
    """Read an encoder of FAMILIES from a folder, or from the hub (``ORG/NAME`` or ``ORG/NAME@REVISION``).

    With `with_head`, its trained head too, where there is one, or the sentence embedding of a folder of
    sentence-transformers. Weights that match a glob of `ignore_weights` are left out.

    Raises UsageError for a glob that matches no weight or a weight of the encoder, and ModelError or DataError, naming
    the file, for anything that is missing, damaged or not supported.
    """
    root, notes = find_folder(location)
    modules = read_modules(root)
    folder = modules.transformer if modules else root
    config_path = folder / "config.json"
    inner = next((path.parent for path in sorted(folder.glob("0_*/config.json"))), None)
    if inner and not config_path.exists():
        raise ModelError(f"{config_path}: no such file, but there is one in {inner.name}; export hf:{inner}")
    document = _with_activation(read_json(config_path), modules)
    declared = _declared_family(document)
    family = declared or BERT
    config = read_config(document, family)
    config_notes = _default_notes(document, family)
    found = find_weights(folder, root)
    weights = found.tensors
    names = resolve_names(weights, family.names, str(found.where), ignore_weights)
    type_notes = _check_type(document, declared, names)
    arg_params = map_weights(weights, names, config)
    head: TrainedHead | None = None
    head_notes: tuple[str, ...] = ()
    embedding: TrainedEmbedding | None = None
    reference: tuple[Module, ...] = ()
    embedding_files: tuple[Path, ...] = ()
    if with_head and modules is not None and modules.others:
        embedding, reference, embedding_files = read_embedding(modules, config)
    elif with_head and (modules is None or modules.is_cross_encoder):
        head, names, head_notes = read_head(document, family, names, weights, config)
    tokenizer_class = document.get("tokenizer_class").optional(JsonValue.text)
    model_type = document.get("model_type").optional(JsonValue.text)
    max_length = config.max_length
    if embedding is not None:
        max_length = embedding.max_length
    elif head is not None and head.max_length is not None:
        max_length = head.max_length
    lower_case = embedding is not None and modules is not None and modules.lower_case
    tokenizer = read_tokenizer(folder, config.vocab_size, max_length, tokenizer_class, model_type, lower_case)
    vocabulary = tokenizer.vocabulary
    padding = vocabulary.special_ids["pad"]
    if config.position_offset and padding != config.position_offset - 1:
        raise ModelError(
            f"{config_path}: pad_token_id is {config.position_offset - 1}, but the pad token "
            f"{vocabulary.special_tokens['pad']!r:.60} of {tokenizer.files[0].name} has the id {padding}"
        )
    if pad_vocab:
        vocabulary = vocabulary.padded_to(config.vocab_size)
    check_vocabulary_size(vocabulary, config.vocab_size, str(tokenizer.files[0]))
    files = [config_path, *found.files, *tokenizer.files, *(modules.files if modules else ()), *embedding_files]
    origin = {
        "kind": "hf",
        "pretrained": True,
        **({"repository": location.partition("@")[0]} if is_from_hub(location) else {}),
        **({"model_type": model_type} if model_type is not None else {}),
        "files": {path.relative_to(root).as_posix(): file_digest(path) for path in sorted(files)},
        **names.facts,
    }
    module_notes = modules.notes if modules is not None else ()
    if modules is not None and embedding is None:
        module_notes += modules.left_out_notes(max_length, tokenizer.options.lower_case)
    return Pretrained(
        config,
        arg_params,
        vocabulary,
        tokenizer.options,
        tokenizer.document,
        origin,
        dataclasses.replace(names.checkpoint(weights, document.object()), modules=reference),
        (*notes, *type_notes, *config_notes, *found.notes, *names.notes, *head_notes, *tokenizer.notes, *module_notes),
        TaskHead(names.task_head, _head_settings(document)) if names.task_head else None,
        head,
        modules.pooling if modules and embedding is None else None,
        embedding,
    )


def _with_activation(document: JsonValue, modules: SentenceModules | None) -> JsonValue:
    """Return config.json with the activation of a cross-encoder, which newer versions store beside modules.json."""
    activation = modules.prompts.get("activation_fn") if modules is not None and modules.is_cross_encoder else None
    if activation is None or activation.is_null:
        return document
    return JsonValue(
        {**document.object(), "sentence_transformers": {"activation_fn": activation.text()}}, document.where
    )


def read_config(document: JsonValue, family: Family) -> BertConfig:
    """Read the config of an encoder; raises ModelError, naming the file and the key."""
    for key, supported in family.supported.items():
        value = document.get(key)
        if not value.is_null:
            value.choice(supported)
    fields = {field: _read_key(document, field, *key) for field, key in family.keys.items()}
    if fields.get("embedding_size") == fields["units"] and not family.always_projects:
        del fields["embedding_size"]
    if family.starts_after_padding or family.padding_row is not None:
        row = family.padding_row
        if row is None:
            padding = document.get("pad_token_id")
            row = family.pad_id if padding.is_null else padding.integer(0)
        offset = 1 + row
        rows = fields["max_length"]
        if rows <= offset:
            why = ", pad_token_id + 1" if family.starts_after_padding else ""
            raise document[family.keys["max_length"][0]].fault(
                f"{rows} positions, but the first token has the position {offset}{why}"
            )
        fields.update(position_offset=offset, max_length=rows - offset)
    try:
        return BertConfig(**{**fields, **family.settings, "family": family.name})
    except ModelError as error:
        raise ModelError(f"{document.where}: {error}") from None


def _default_notes(document: JsonValue, family: Family) -> tuple[str, ...]:
    """Notes on settings that config.json has as null, which transformers can't compute with."""
    if family.starts_after_padding and "pad_token_id" in document and document["pad_token_id"].is_null:
        return (f"config.json has the pad_token_id null: taken as {family.pad_id}, the default of {family.title}",)
    return ()


def _read_key(document: JsonValue, field: str, key: str, default: object) -> Any:
    """Read the value of a field of BertConfig."""
    value = document[key] if default is REQUIRED else document.get(key, default)
    if field == "activation":
        return ACTIVATIONS[value.choice(*ACTIVATIONS)]
    return value.number(0, 1) if field in _FRACTIONS else value.integer(1)


def _declared_family(document: JsonValue) -> Family | None:
    """The family that config.json names, by model_type or by a class; None where it names none.

    Raises ModelError for a family that is not in the table.
    """
    model_type = document.get("model_type")
    if not model_type.is_null:
        return MODEL_TYPES[model_type.choice(*MODEL_TYPES)]
    name = architecture_of(document) or ""
    for family in FAMILIES.values():
        for prefix in family.model_types.values():
            if re.fullmatch(rf"{prefix}(For\w+|\w*Model)", name):
                return family
    return None


def _check_type(document: JsonValue, family: Family | None, names: WeightNames) -> tuple[str, ...]:
    """Raise ModelError for a config that names no `family`, unless there is other evidence that the model is a BERT.

    The names of the weights alone are none: RoBERTa has the same names, but counts positions from 2.
    """
    if not document.get("model_type").is_null:
        return ()
    parts = set(names.prefix.split(".")) - {""}
    architecture = architecture_of(document)
    if architecture is not None:
        evidence = f"architectures {printable(architecture)}" if family is not None else None
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
    name = BERT.name if family is None else family.name
    return (f"config.json has no model_type: taken as {name}, by {evidence}",)


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
