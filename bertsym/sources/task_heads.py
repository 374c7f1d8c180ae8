"""Trained heads of checkpoints, with the names of Hugging Face."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from bertsym.array import Array
from bertsym.encoders.catalogue import FULLY_CONNECTED, TRAINED_HEADS, HeadTransform
from bertsym.encoders.config import BertConfig
from bertsym.encoders.parameters import head_shapes
from bertsym.errors import BertsymError, ModelError
from bertsym.families import TASK_HEAD, Family, HeadClass, list_names, printable
from bertsym.json_reader import JsonValue
from bertsym.sources.mapping import WeightNames, check_weight
from bertsym.sources.pretrained import TrainedHead
from bertsym.symbol.params import LazyParameters

_MAX_LABELS = 1 << 16
KEPT_SETTINGS = "bertsym"  #: key of config.json with what a bundle's signature says and no class of transformers reads
_SIGMOID = "Sigmoid"  # the class of torch

# problem_type -> task
_PROBLEM_TYPES = {
    "single_label_classification": "classification",
    "multi_label_classification": "multilabel",
    "regression": "regression",
}


def read_head(
    document: JsonValue, family: Family, names: WeightNames, weights: Mapping[str, Array], config: BertConfig
) -> tuple[TrainedHead | None, WeightNames, tuple[str, ...]]:
    """Read the trained head of a checkpoint: the head, the names of the weights with its own among them, and notes.

    `document` is config.json, `names` are those of the `weights`. The head is None where the checkpoint has no weights
    of one. Raises ModelError, with the option that exports the encoder alone, for a head that a bundle can't express.
    """
    try:
        architecture, notes = _architecture(document, family, names)
        head = None
        if architecture is not None:
            head_class = family.heads[architecture]
            _check_names(architecture, head_class, names)
            if head_class.left_out:
                heads = (
                    "of its two heads, the masked language modelling head is exported"
                    if head_class.weights
                    else "its head is for pretraining only, this bundle is the encoder alone"
                )
                notes = (*notes, f"architectures {architecture}: {heads}")
            if head_class.weights:
                head = _read(architecture, head_class, document, names, weights, config, notes)
    except BertsymError as error:
        raise ModelError(f"{error}; --headless exports the encoder alone") from None
    if head is None:
        return None, names, notes
    used = {weight: name for name, weight in names.heads.items() if name in _known(family.heads[head.architecture])}
    return head, names.with_head(head.architecture, used), head.notes


def architecture_of(document: JsonValue) -> str | None:
    """The class that config.json names; None where it names none."""
    declared = document.get("architectures").optional(JsonValue.texts) or ()
    return declared[0] if declared else None


def _is_trained(names: WeightNames, weight: str) -> bool:
    """Whether a weight that is left out is that of a task, rather than of pretraining."""
    return names.left_out[weight] == TASK_HEAD


def _known(head: HeadClass) -> set[str]:
    return {*head.weights, *head.tied}


def _architecture(document: JsonValue, family: Family, names: WeightNames) -> tuple[str | None, tuple[str, ...]]:
    """The class whose head the weights are, and notes; None where there is no head."""
    name, found = architecture_of(document), names.heads
    has_no_head = (name or "").endswith("Model")
    if not found or (has_no_head and not any(_is_trained(names, weight) for weight in found.values())):
        note = f"architectures {name}, but there are no weights of its head: this bundle is the encoder alone"
        return None, (note,) if name in family.heads else ()
    if name in family.heads:
        return name, ()
    listed, known = list_names(sorted(found.values())), ", ".join(family.heads)
    if name is not None:
        raise document["architectures"].fault(
            f"{printable(name)} is not one of {known}, so its head ({listed}) can't be exported"
        )
    fitting = [
        known
        for known, head in family.heads.items()
        if {*head.weights, *head.left_out} <= {*found} <= {*_known(head), *head.left_out}
    ]
    if len(fitting) != 1:
        may_be = " or ".join(fitting) or "a class that is not one of " + known
        raise document.fault(f'the key "architectures" is missing, and the head ({listed}) may be that of {may_be}')
    return fitting[0], (f"config.json has no architectures: taken as {fitting[0]}, by the names of the head's weights",)


def _check_names(architecture: str, head: HeadClass, names: WeightNames) -> None:
    """Raise ModelError for weights of the head that are missing, and for those of another task's head."""
    found = names.heads
    missing = [name for name in head.weights if name not in found]
    if missing:
        raise ModelError(f"{names.where}: {architecture} needs {list_names(missing)}, missing in this file")
    others = [found[name] for name in found if name not in _known(head) and _is_trained(names, found[name])]
    if others:
        raise ModelError(f"{names.where}: {architecture} does not have the weights {list_names(sorted(others))}")


def _read(
    architecture: str,
    head: HeadClass,
    document: JsonValue,
    names: WeightNames,
    weights: Mapping[str, Array],
    config: BertConfig,
    notes: tuple[str, ...],
) -> TrainedHead:
    found, where = names.heads, names.where
    if head.reads == "pooled" and not names.has_pooler:
        pooler = ", ".join(sorted(names.table.pooler, reverse=True))
        raise ModelError(f"{where}: no pooler ({pooler}), which {architecture} reads")
    task, class_names, num_outputs, assumed = _outputs(head, document, config)
    shapes = head_shapes(config, task, num_outputs, has_transform=head.has_transform)
    params = {ours: found[theirs] for theirs, ours in head.weights.items()}
    for ours, name in params.items():
        array, label = weights[name], f"{where}: {printable(name)}"
        if ours.startswith(f"{FULLY_CONNECTED}_") and array.shape[:1] != shapes[ours][:1]:
            raise ModelError(
                f"{label} has shape {array.shape}, but {document.where} describes {num_outputs} outputs: the head does "
                "not fit its config"
            )
        check_weight(array, shapes[ours], label)
    _check_tied(head, document, names, weights)
    dropout = _dropout(head, document, config)
    transform = None
    if head.has_transform:
        transform = HeadTransform(head.activation or config.activation, dropout if head.drops_input else 0.0)
    settings, max_length, ignored = _kept_settings(document, task, class_names, config)
    if task == "regression" and _cross_encoder_activation(document) == _SIGMOID:
        settings = {"sigmoid": True, **settings}
    return TrainedHead(
        architecture,
        task,
        head.reads,
        num_outputs,
        class_names,
        dropout,
        LazyParameters(
            {ours: shapes[ours] for ours in params}, lambda ours: weights[params[ours]].astype(np.float32, copy=False)
        ),
        transform,
        settings,
        max_length,
        (*notes, *assumed, *ignored),
    )


def _kept_settings(
    document: JsonValue, task: str, class_names: tuple[str, ...], config: BertConfig
) -> tuple[dict[str, Any], int | None, tuple[str, ...]]:
    """Settings of the task and maximum length that ``bertsym hf`` wrote into config.json for this head, and notes."""
    kept = document.get(KEPT_SETTINGS)
    if kept.is_null:
        return {}, None, ()
    if (kept["task"].text(), tuple(kept["class_names"].texts())) != (task, class_names):
        note = f"config.json: the settings in {KEPT_SETTINGS} are those of another task or other classes: left out"
        return {}, None, (note,)
    return kept["task_settings"].object(), kept["max_length"].integer(1, config.max_length), ()


def _outputs(
    head: HeadClass, document: JsonValue, config: BertConfig
) -> tuple[str, tuple[str, ...], int, tuple[str, ...]]:
    """Task, class names, number of outputs, and notes on what was assumed."""
    if head.task == "qa":
        return head.task, (), 2, ()
    if head.task == "masked_lm":
        return head.task, (), config.vocab_size, ()
    labels = document.get("id2label")
    count = _count_labels(document)
    task, notes = (head.task, ()) if head.task is not None else _text_task(document, count)
    names = tuple(f"LABEL_{i}" for i in range(count))  # the default of transformers
    if TRAINED_HEADS[task] != "classifier":
        if not labels.is_null and labels.object() != {str(i): name for i, name in enumerate(names)}:
            notes = (*notes, f"id2label: {task} has no classes, the names are not in this bundle")
        return task, (), count, notes
    if labels.is_null:
        missing = f"{Path(document.where).name} has no id2label: the classes are named {list_names(names)}"
        return task, names, count, (*notes, missing)
    return task, _class_names(labels, count), count, notes


def _count_labels(document: JsonValue) -> int:
    """The number of labels, 2 by default as in transformers, where id2label counts before num_labels."""
    labels, number = document.get("id2label"), document.get("num_labels")
    if not labels.is_null:
        count = len(labels.object())
        if not 1 <= count <= _MAX_LABELS:
            raise labels.fault(f"{count} labels, expected 1 to {_MAX_LABELS}")
        return count
    return 2 if number.is_null else number.integer(1, _MAX_LABELS)


def _text_task(document: JsonValue, count: int) -> tuple[str, tuple[str, ...]]:
    """The task of a head that gives values for a text, and notes."""
    problem = document.get("problem_type")
    if problem.is_null:
        task = "classification" if count > 1 else "regression"
        kinds = f"{count} labels" if count > 1 else "1 label, as for a regression or a cross-encoder"
        notes = [f"{Path(document.where).name} has no problem_type: taken as {task}, by its {kinds}"]
    else:
        task, notes = _PROBLEM_TYPES[problem.choice(*_PROBLEM_TYPES)], []
    if task == "classification" and count < 2:
        raise problem.fault(f"{count} label, a classification needs at least 2")
    activation = _cross_encoder_activation(document)
    if task == "regression" and activation is not None and activation not in (_SIGMOID, "Identity"):
        notes.append(f"cross-encoder: its activation {printable(activation)} is left out, predict prints the raw value")
    return task, tuple(notes)


def _cross_encoder_activation(document: JsonValue) -> str | None:
    """The class of the activation that sentence-transformers applies to the scores; None where there is none."""
    # Version 4 or newer, and older ones.
    newer = document.get("sentence_transformers", {}).get("activation_fn")
    value = document.get("sbert_ce_default_activation_function") if newer.is_null else newer
    return None if value.is_null else value.text().rpartition(".")[2]


def _class_names(labels: JsonValue, count: int) -> tuple[str, ...]:
    """The names in id2label, in the order of their ids."""
    names: dict[str, str] = {}
    for i in range(count):
        if str(i) not in labels:
            raise labels.fault(f"{count} labels, but no label for the id {i}")
        label = labels[str(i)]
        name = label.text()
        if not name.isprintable():
            raise label.fault(f"the class name {name!r:.80} is not printable")
        if name in names:
            raise label.fault(f"the class name {name!r:.80} is that of the id {names[name]} too")
        names[name] = str(i)
    return tuple(names)


def _dropout(head: HeadClass, document: JsonValue, config: BertConfig) -> float:
    if head.dropout is None:
        return 0.0
    key, default = head.dropout
    value = document.get(key, default)
    if value.is_null:
        return config.dropout
    dropout = value.number(0, 1)
    if dropout == 1:
        raise value.fault("it must be below 1")
    return dropout


def _check_tied(head: HeadClass, document: JsonValue, names: WeightNames, weights: Mapping[str, Array]) -> None:
    """Raise ModelError for a second copy of a weight that has other elements, and for one that may not be a copy."""
    sources = {**{theirs: name for name, theirs in names.spelled.items()}, **names.heads}
    for copy, original in head.tied.items():
        if copy in sources:
            array, expected = weights[sources[copy]], weights[sources[original]]
            if array.shape != expected.shape or not np.array_equal(array, expected):
                raise ModelError(
                    f"{names.where}: {printable(sources[copy])} differs from {printable(sources[original])}, and only "
                    "a head that shares it can be exported"
                )
        elif copy.endswith(".weight") and document.get("tie_word_embeddings").raw is False:
            raise document["tie_word_embeddings"].fault(f"false, but {copy} is missing in {names.where}")
