"""The signature of a symbol: how it is called and what it answers."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from bertsym.bert.inputs import INPUT_NAMES, INPUTS
from bertsym.text.tasks import Columns
from bertsym.text.tokenizer import TokenizerOptions


@dataclass(frozen=True)
class Signature:
    """How a symbol is called and what it answers; written so that other languages can read it.

    ``kind``: ``encoder`` (no head), ``classifier`` (probabilities of ``labels``), or ``logits`` (a finished,
    untrained head). ``length``: the only length that the symbol takes, None where it takes any up to
    ``max_length``, which is also where texts are truncated.
    """

    kind: str
    output: str
    output_name: str
    output_shape: tuple[Any, ...]
    max_length: int
    tokenizer: TokenizerOptions
    length: int | None = None
    task: str | None = None
    labels: tuple[str, ...] = ()
    pair: bool | None = False  #: whether it was trained on pairs of texts; None where that is unknown
    columns: Columns = Columns()
    header: bool = True  #: whether the training tables had one
    trained: bool = True  #: False of a classifier that was grafted and never fitted
    target_mxnet: str | None = None  #: the release line that the symbols were written for, such as ``1.5``
    form: str | None = None  #: a key of `bert.forms.FORMS`; found, as the next, when the symbols are written
    minimum_mxnet: str | None = None  #: the oldest MXNet that loads them
    guarded: bool = False  #: whether the symbols clip their inputs to the ranges that these may have; found as well
    precision: str = "float32"  #: in which most of it is computed; ``int8`` of a bundle that `quantize` wrote

    def to_json(self) -> dict[str, Any]:
        """The documented JSON form; free dimensions are the strings ``batch`` and ``length``."""
        length = self.length or "length"
        shapes = (("batch", length), ("batch", length), ("batch",))
        return {
            "kind": self.kind,
            "inputs": [
                {"name": name, "shape": shape, "dtype": "float32", "meaning": INPUTS[name]}
                for name, shape in zip(INPUT_NAMES, shapes)
            ],
            "outputs": [{"name": self.output_name, "shape": self.output_shape, "dtype": "float32"}],
            "encoder_output": self.output,
            "max_length": self.max_length,
            "task": self.task,
            "labels": self.labels,
            "trained": self.trained,
            "pair": self.pair,
            "columns": {**dataclasses.asdict(self.columns), "header": self.header},
            "tokenizer": dataclasses.asdict(self.tokenizer),
            "form": self.form,
            "target_mxnet": self.target_mxnet,
            "minimum_mxnet": self.minimum_mxnet,
            "guarded": self.guarded,
            "precision": self.precision,
        }

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> Signature:
        """The inverse of `to_json`; raises KeyError, TypeError or IndexError for what is none."""
        length, columns, tokenizer = document["inputs"][0]["shape"][1], document["columns"], document["tokenizer"]
        return cls(
            kind=of_type(document["kind"], str),
            output=of_type(document["encoder_output"], str),
            output_name=of_type(document["outputs"][0]["name"], str),
            output_shape=_all(document["outputs"][0]["shape"], int, str),
            max_length=of_type(document["max_length"], int),
            tokenizer=TokenizerOptions(
                lower_case=of_type(tokenizer["lower_case"], bool),
                strip_accents=of_type(tokenizer["strip_accents"], bool, _NONE),
                split_chinese=of_type(tokenizer["split_chinese"], bool),
                kind=of_type(tokenizer["kind"], str),
                segments=of_type(tokenizer.get("segments", 2), int),
            ),
            length=of_type(length, int) if not isinstance(length, str) else None,
            task=of_type(document["task"], str, _NONE),
            labels=_labels(_all(document["labels"], str)),
            pair=of_type(document["pair"], bool, _NONE),
            columns=Columns(*(of_type(columns[part], str, _NONE) for part in ("text", "pair", "label"))),
            header=of_type(columns["header"], bool),
            trained=of_type(document.get("trained", True), bool),
            form=of_type(document["form"], str, _NONE),
            target_mxnet=of_type(document.get("target_mxnet"), str, _NONE),
            minimum_mxnet=of_type(document["minimum_mxnet"], str, _NONE),
            guarded=of_type(document.get("guarded", False), bool),
            precision=of_type(document.get("precision", "float32"), str),
        )


_NONE = type(None)


def of_type(value: Any, *kinds: type) -> Any:
    """The value; raises TypeError unless it is of one of these types, of which bool is no int."""
    if type(value) not in kinds:
        raise TypeError(f"{value!r:.80} is no {kinds[0].__name__}")
    return value


def _all(values: Any, *kinds: type) -> tuple[Any, ...]:
    """The values of a list, each of one of these types; raises TypeError."""
    return tuple(of_type(value, *kinds) for value in of_type(values, list, tuple))


def _labels(labels: tuple[str, ...]) -> tuple[str, ...]:
    """Labels as tables have them; raises ValueError for others, which would spoil what is printed."""
    strange = next((label for label in labels if not label.isprintable()), None)
    if strange is not None:
        raise ValueError(f"the label {strange!r:.80} is no printable text")
    if len({*labels}) < len(labels):
        raise ValueError("a label is there twice")
    return labels


@dataclass(frozen=True)
class Tensor:
    """An input or output of a symbol; a free dimension is a name such as ``batch``, an unknown shape None."""

    name: str
    shape: tuple[int | str, ...] | None = None
    dtype: str = "float32"
    meaning: str = ""


def _shape(sizes: Any) -> tuple[int | str, ...]:
    """A shape as a Tensor has it; raises TypeError or ValueError."""
    for size in _all(sizes, int, str):
        if not (_FREE.fullmatch(size) if isinstance(size, str) else 1 <= size <= MAX_SIZE):
            raise ValueError(f"{size!r:.80} is no size of a tensor")
    return tuple(sizes)


MAX_SIZE = 1 << 31  #: of an axis of an input or output
_FREE = re.compile(r"([A-Za-z?]{1,32}'?|\d{1,9})(\*([A-Za-z?]{1,32}'?|\d{1,9})){0,7}")  # such as ``12*batch``


def _whole(document: Any) -> Mapping[str, Any]:
    """The JSON of a Signature; raises what `Signature.from_json` does."""
    Signature.from_json(document)
    found: Mapping[str, Any] = document
    return found


@dataclass(frozen=True)
class SymbolSignature:
    """How any other symbol is called: a part of a BERT, a BERT with another head, or no BERT at all.

    ``labels`` are the inputs that only its training symbol has; ``origin`` is the signature, in JSON, of the
    bundle that it was made from.
    """

    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]
    labels: tuple[Tensor, ...] = ()
    max_length: int | None = None  #: of a BERT that takes any length up to it
    minimum_mxnet: str | None = None
    guarded: bool = False  #: of a BERT, as in `Signature`
    origin: Mapping[str, Any] | None = None

    def to_json(self) -> dict[str, Any]:
        """The documented JSON form, as far as it goes like that of `Signature`."""
        return {
            "kind": "symbol",
            **{name: [vars(tensor) for tensor in getattr(self, name)] for name in ("inputs", "outputs", "labels")},
            **({"max_length": self.max_length} if self.max_length is not None else {}),
            "minimum_mxnet": self.minimum_mxnet,
            "guarded": self.guarded,
            "origin": self.origin,
        }

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> SymbolSignature:
        """The inverse of `to_json`."""

        def tensors(name: str) -> tuple[Tensor, ...]:
            return tuple(
                Tensor(
                    name=of_type(tensor["name"], str),
                    shape=None if tensor["shape"] is None else _shape(tensor["shape"]),
                    dtype=of_type(tensor["dtype"], str),
                    meaning=of_type(tensor["meaning"], str),
                )
                for tensor in document[name]
            )

        if document["kind"] != "symbol":
            raise ValueError(f"the kind {document['kind']!r:.80} is none of a symbol")
        return cls(
            tensors("inputs"),
            tensors("outputs"),
            tensors("labels"),
            of_type(document.get("max_length"), int, _NONE),
            of_type(document["minimum_mxnet"], str, _NONE),
            of_type(document.get("guarded", False), bool),
            None if document["origin"] is None else _whole(document["origin"]),
        )
