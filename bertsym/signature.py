"""The signature of a symbol: how it is called and what it answers."""

from __future__ import annotations

import dataclasses
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
            kind=_of(document["kind"], str),
            output=_of(document["encoder_output"], str),
            output_name=_of(document["outputs"][0]["name"], str),
            output_shape=_all(document["outputs"][0]["shape"], int, str),
            max_length=_of(document["max_length"], int),
            tokenizer=TokenizerOptions(
                lower_case=_of(tokenizer["lower_case"], bool),
                strip_accents=_of(tokenizer["strip_accents"], bool, _NONE),
                split_chinese=_of(tokenizer["split_chinese"], bool),
                kind=_of(tokenizer["kind"], str),
                segments=_of(tokenizer.get("segments", 2), int),
            ),
            length=_of(length, int) if not isinstance(length, str) else None,
            task=_of(document["task"], str, _NONE),
            labels=_all(document["labels"], str),
            pair=_of(document["pair"], bool, _NONE),
            columns=Columns(*(_of(columns[part], str, _NONE) for part in ("text", "pair", "label"))),
            header=_of(columns["header"], bool),
            trained=_of(document.get("trained", True), bool),
            form=_of(document["form"], str, _NONE),
            target_mxnet=_of(document.get("target_mxnet"), str, _NONE),
            minimum_mxnet=_of(document["minimum_mxnet"], str, _NONE),
            guarded=_of(document.get("guarded", False), bool),
            precision=_of(document.get("precision", "float32"), str),
        )


_NONE = type(None)


def _of(value: Any, *kinds: type) -> Any:
    """The value; raises TypeError unless it is of one of these types, of which bool is no int."""
    if type(value) not in kinds:
        raise TypeError(f"{value!r:.80} is no {kinds[0].__name__}")
    return value


def _all(values: Any, *kinds: type) -> tuple[Any, ...]:
    """The values of a list, each of one of these types; raises TypeError."""
    return tuple(_of(value, *kinds) for value in _of(values, list, tuple))


@dataclass(frozen=True)
class Tensor:
    """An input or output of a symbol; a free dimension is a name such as ``batch``, an unknown shape None."""

    name: str
    shape: tuple[int | str, ...] | None = None
    dtype: str = "float32"
    meaning: str = ""


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
                    name=_of(tensor["name"], str),
                    shape=None if tensor["shape"] is None else _all(tensor["shape"], int, str),
                    dtype=_of(tensor["dtype"], str),
                    meaning=_of(tensor["meaning"], str),
                )
                for tensor in document[name]
            )

        return cls(
            tensors("inputs"),
            tensors("outputs"),
            tensors("labels"),
            _of(document.get("max_length"), int, _NONE),
            _of(document["minimum_mxnet"], str, _NONE),
            _of(document.get("guarded", False), bool),
            _of(document["origin"], dict, _NONE),
        )
