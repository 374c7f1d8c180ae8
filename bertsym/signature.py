"""The signature of a symbol: its inputs and outputs, and what they mean."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

from bertsym.datasets.columns import Columns
from bertsym.encoders.forms import TARGETS
from bertsym.encoders.inputs import INPUT_NAMES, input_meanings, input_shapes
from bertsym.encoders.sentence_embedding import (
    ACTIVATIONS,
    MAX_LAYERS,
    POOLING_MODES,
    SIMILARITIES,
    DenseLayer,
    EmbeddingLayer,
    Normalization,
    SentenceEmbedding,
)
from bertsym.families import BERT, FAMILIES
from bertsym.json_reader import JsonValue
from bertsym.text.tokenizer import TokenizerOptions
from bertsym.text.vocabulary import ROLES

T = TypeVar("T")
KINDS = ("encoder", "classifier", "logits")  #: kinds of a BERT; any other symbol has the kind ``symbol``
#: kind of int8 weights -> processors on which MXNet computes the same integers
INT8_PROCESSORS = {"avx2": "every processor", "vnni": "processors with VNNI"}


@dataclass(frozen=True)
class Tensor:
    """An input or output of a symbol; a free dimension is a name such as ``batch``, an unknown shape None."""

    name: str
    shape: tuple[int | str, ...] | None = None
    dtype: str = "float32"
    meaning: str = ""


def bert_inputs(length: int | None = None, names: Sequence[str] = INPUT_NAMES, segments: int = 2) -> tuple[Tensor, ...]:
    """Return the inputs that a BERT's symbol takes, by `names`, for any length or for one fixed `length`.

    `segments` is the number of token types of the model.
    """
    free, meanings = {0: "batch", -1: "length"}, input_meanings(segments)
    return tuple(
        Tensor(name, tuple(free.get(size, size) for size in shape), meaning=meanings[name])
        for name, shape in input_shapes(0, length or -1, names)
    )


@dataclass(frozen=True)
class Signature:
    """How the symbol of a BERT is called and what its output means, for clients in any language.

    ``kind`` is the kind of output: ``encoder``, an output of the encoder; ``classifier``, probabilities of
    ``class_names`` on the last axis; ``logits``, other outputs of a head. An encoder with the output ``embedding`` ends
    in a sentence `embedding`. docs/bundle-format.md describes every key.
    """

    kind: str
    output: str  #: the encoder output that the symbol returns or its head reads, or ``embedding``
    output_name: str
    output_shape: tuple[int | str, ...]
    max_length: int
    tokenizer: TokenizerOptions
    pad_id: int
    special_tokens: Mapping[str, str]  #: role, one of ``text.vocabulary.ROLES`` -> token
    special_ids: Mapping[str, int]  #: role -> id of the special token
    embedding: SentenceEmbedding | None = None  #: for the output ``embedding``
    inputs: tuple[Tensor, ...] = field(default_factory=bert_inputs)  #: in the order of the arguments
    family: str = BERT.name  #: a key of ``families.FAMILIES``
    task: str | None = None  #: kind of task of the head, such as ``classification``; None without a head
    dataset: str | None = None  #: known data set that the head was trained on, such as ``mrpc``
    task_settings: Mapping[str, Any] = field(default_factory=dict)  #: JSON values, which the kind of task reads
    class_names: tuple[str, ...] = ()
    label_inputs: tuple[Tensor, ...] = ()  #: inputs that only the training symbol has
    trained: bool = True  #: whether the head was trained or, without a head, the encoder
    encoder_trained: bool = True  #: whether the encoder was pretrained or fine-tuned
    pair: bool | None = False  #: whether it was trained on pairs of texts; None if unknown
    columns: Columns = Columns()
    header: bool = True  #: whether the training tables had a header
    column_names: Columns = Columns()  #: header names of the columns that `columns` has by number
    dropped_labels: tuple[str, ...] = ()  #: labels of the training tables whose rows were dropped
    target_mxnet: str | None = None  #: the release line that the symbols were written for, such as ``1.5``
    form: str | None = None  #: a key of `encoders.forms.FORMS`; set when the symbols are written
    minimum_mxnet: str | None = None  #: the oldest MXNet that loads the symbols; set when they are written
    guarded: bool = False  #: whether the symbols clip inputs to their ranges; set when they are written
    precision: str = "float32"  #: of most computations; ``int8`` for a bundle that `quantize` wrote
    int8_for: str | None = None  #: a key of INT8_PROCESSORS, for a bundle that `quantize` wrote

    @property
    def input_names(self) -> tuple[str, ...]:
        """Names of the inputs, in the order of the arguments."""
        return tuple(tensor.name for tensor in self.inputs)

    @property
    def length(self) -> int | None:
        """The fixed length of the inputs; None if the symbol takes any length up to ``max_length``."""
        sizes = [size for tensor in self.inputs for size in (tensor.shape or ())[1:]]
        return next((size for size in sizes if isinstance(size, int)), None)

    def to_json(self) -> dict[str, Any]:
        """Convert to the documented JSON; free dimensions are the strings ``batch`` and ``length``."""
        return {
            "kind": self.kind,
            "family": self.family,
            "inputs": _tensors_json(self.inputs),
            "outputs": [{"name": self.output_name, "shape": self.output_shape, "dtype": "float32"}],
            "encoder_output": self.output,
            "embedding": embedding_json(self.embedding),
            "max_length": self.max_length,
            "task": self.task,
            "dataset": self.dataset,
            "task_settings": dict(self.task_settings),
            "class_names": self.class_names,
            "label_inputs": _tensors_json(self.label_inputs),
            "trained": self.trained,
            "encoder_trained": self.encoder_trained,
            "pair": self.pair,
            "columns": {
                **dataclasses.asdict(self.columns),
                "header": self.header,
                "names": dataclasses.asdict(self.column_names),
            },
            "dropped_labels": self.dropped_labels,
            "pad_id": self.pad_id,
            "special_tokens": dict(self.special_tokens),
            "special_ids": dict(self.special_ids),
            "tokenizer": dataclasses.asdict(self.tokenizer),
            "form": self.form,
            "target_mxnet": self.target_mxnet,
            "minimum_mxnet": self.minimum_mxnet,
            "guarded": self.guarded,
            "precision": self.precision,
            **({"int8_for": self.int8_for} if self.int8_for is not None else {}),
        }

    @classmethod
    def from_json(cls, document: JsonValue) -> Signature:
        """Convert from the JSON of `to_json`; raises ModelError, which names the key, for any other JSON."""
        columns, tokenizer = document["columns"], document["tokenizer"]
        (output,) = document["outputs"].elements(1, 1)
        return cls(
            kind=document["kind"].choice(*KINDS),
            family=document["family"].choice(*FAMILIES),
            inputs=_read_tensors(document["inputs"]),
            output=document["encoder_output"].text(),
            embedding=document.get("embedding").optional(_read_embedding),
            output_name=output["name"].text(),
            output_shape=_read_shape(output["shape"]),
            max_length=document["max_length"].integer(1, MAX_SIZE),
            task=document["task"].optional(JsonValue.text),
            dataset=document["dataset"].optional(JsonValue.text),
            task_settings=document.get("task_settings", {}).object(),
            class_names=_read_class_names(document["class_names"]),
            label_inputs=_read_tensors(document["label_inputs"]),
            trained=document["trained"].boolean(),
            encoder_trained=document["encoder_trained"].boolean(),
            pair=document["pair"].optional(JsonValue.boolean),
            columns=_read_columns(columns),
            header=columns["header"].boolean(),
            column_names=_read_columns(columns["names"]) if "names" in columns else Columns(),
            dropped_labels=document.get("dropped_labels", []).texts(),
            pad_id=document["pad_id"].integer(0, MAX_SIZE),
            special_tokens=_read_roles(document["special_tokens"], JsonValue.text),
            special_ids=_read_roles(document["special_ids"], lambda value: value.integer(0, MAX_SIZE)),
            tokenizer=TokenizerOptions(
                lower_case=tokenizer["lower_case"].boolean(),
                strip_accents=tokenizer["strip_accents"].optional(JsonValue.boolean),
                split_chinese=tokenizer["split_chinese"].boolean(),
                kind=tokenizer["kind"].text(),
                segments=tokenizer["segments"].integer(1, MAX_SIZE),
                literal_special_tokens=tokenizer["literal_special_tokens"].boolean(),
                model=tokenizer["model"].optional(JsonValue.text),
                refused_id=tokenizer["refused_id"].optional(lambda value: value.integer(0, MAX_SIZE)),
            ),
            form=document["form"].optional(JsonValue.text),
            target_mxnet=document["target_mxnet"].optional(lambda value: value.choice(*TARGETS)),
            minimum_mxnet=document["minimum_mxnet"].optional(JsonValue.text),
            guarded=document["guarded"].boolean(),
            precision=document["precision"].text(),
            int8_for=document.get("int8_for").optional(lambda value: value.choice(*INT8_PROCESSORS)),
        )


def _read_class_names(values: JsonValue) -> tuple[str, ...]:
    """Read distinct printable class names; others would garble the printed predictions."""
    names: dict[str, None] = {}
    for value in values.elements():
        name = value.text()
        if not name.isprintable():
            raise value.fault(f"the class name {name!r:.80} is not printable")
        if name in names:
            raise value.fault(f"the class name {name!r:.80} is repeated")
        names[name] = None
    return tuple(names)


def embedding_json(embedding: SentenceEmbedding | None) -> dict[str, Any] | None:
    """Convert to the JSON of the key ``embedding``."""
    if embedding is None:
        return None
    return {
        "pooling": list(embedding.pooling),
        "layers": [
            {"type": "dense", **dataclasses.asdict(layer)} if isinstance(layer, DenseLayer) else {"type": "normalize"}
            for layer in embedding.layers
        ],
        "normalized": embedding.normalized,
        "prompts": dict(embedding.prompts),
        "default_prompt_name": embedding.default_prompt_name,
        "similarity": embedding.similarity,
    }


def _read_embedding(document: JsonValue) -> SentenceEmbedding:
    prompts = {name: prompt.text() for name, prompt in document["prompts"].items()}
    embedding = SentenceEmbedding(
        tuple(mode.choice(*POOLING_MODES) for mode in document["pooling"].elements(1, len(POOLING_MODES))),
        tuple(map(_read_layer, document["layers"].elements(0, MAX_LAYERS))),
        prompts,
        document["default_prompt_name"].optional(lambda value: value.choice(*prompts)),
        document["similarity"].optional(lambda value: value.choice(*SIMILARITIES)),
    )
    document["normalized"].choice(embedding.normalized)
    return embedding


def _read_layer(layer: JsonValue) -> EmbeddingLayer:
    if layer["type"].choice("dense", "normalize") == "normalize":
        return Normalization()
    return DenseLayer(
        layer["units"].integer(1, MAX_SIZE), layer["activation"].choice(*ACTIVATIONS), layer["bias"].boolean()
    )


def _read_columns(document: JsonValue) -> Columns:
    return Columns(*(document[part].optional(JsonValue.text) for part in ("text", "pair", "label")))


def _read_roles(document: JsonValue, read: Callable[[JsonValue], T]) -> dict[str, T]:
    """Read an object with a value for some of the roles of special tokens."""
    values = {role: read(value) for role, value in document.items()}
    unknown = next((role for role in values if role not in ROLES), None)
    if unknown is not None:
        raise document.fault(f"role {unknown!r:.80} is not one of {', '.join(ROLES)}")
    return {role: values[role] for role in ROLES if role in values}


def _tensors_json(tensors: Sequence[Tensor]) -> list[dict[str, Any]]:
    return [dict(vars(tensor)) for tensor in tensors]


def _read_tensors(values: JsonValue) -> tuple[Tensor, ...]:
    return tuple(
        Tensor(
            name=tensor["name"].text(),
            shape=tensor["shape"].optional(_read_shape),
            dtype=tensor["dtype"].text(),
            meaning=tensor["meaning"].text(),
        )
        for tensor in values.elements()
    )


def _read_shape(sizes: JsonValue) -> tuple[int | str, ...]:
    return tuple(map(_read_size, sizes.elements()))


def _read_size(size: JsonValue) -> int | str:
    if not size.is_text:
        return size.integer(1, MAX_SIZE)
    if not _FREE.fullmatch(size.text()):
        raise size.fault(f"{size.text()!r:.80} is not the size of an axis")
    return size.text()


MAX_SIZE = 1 << 31  #: largest size of an axis of an input or output
_FREE = re.compile(r"([A-Za-z?]{1,32}'?|\d{1,9})(\*([A-Za-z?]{1,32}'?|\d{1,9})){0,7}")  # such as ``12*batch``


def _read_origin(document: JsonValue) -> Mapping[str, Any]:
    """Read the JSON of a Signature as a dictionary; raises the errors of `Signature.from_json`."""
    Signature.from_json(document)
    return document.object()


@dataclass(frozen=True)
class SymbolSignature:
    """How any other symbol is called: part of a BERT, a BERT with another head, or another network.

    ``origin`` is the signature, in JSON, of the bundle from which the symbol was made.
    """

    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]
    label_inputs: tuple[Tensor, ...] = ()  #: inputs that only the training symbol has
    trained: bool | None = None  #: whether its head or, without a head, its encoder was trained; None if unknown
    max_length: int | None = None  #: longest length, for a BERT that takes several lengths
    minimum_mxnet: str | None = None
    guarded: bool = False  #: whether a BERT clips its inputs, as in `Signature`
    origin: Mapping[str, Any] | None = None

    def to_json(self) -> dict[str, Any]:
        """Convert to the documented JSON; shared keys are those of `Signature`."""
        return {
            "kind": "symbol",
            **{name: _tensors_json(getattr(self, name)) for name in ("inputs", "outputs", "label_inputs")},
            "trained": self.trained,
            **({"max_length": self.max_length} if self.max_length is not None else {}),
            "minimum_mxnet": self.minimum_mxnet,
            "guarded": self.guarded,
            "origin": self.origin,
        }

    @classmethod
    def from_json(cls, document: JsonValue) -> SymbolSignature:
        """Convert from the JSON of `to_json`; raises the errors of `Signature.from_json`."""
        document["kind"].choice("symbol")
        return cls(
            inputs=_read_tensors(document["inputs"]),
            outputs=_read_tensors(document["outputs"]),
            label_inputs=_read_tensors(document["label_inputs"]),
            trained=document["trained"].optional(JsonValue.boolean),
            max_length=document.get("max_length").optional(lambda value: value.integer(1, MAX_SIZE)),
            minimum_mxnet=document["minimum_mxnet"].optional(JsonValue.text),
            guarded=document["guarded"].boolean(),
            origin=document["origin"].optional(_read_origin),
        )
