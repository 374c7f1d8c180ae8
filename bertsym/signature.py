"""The signature of a symbol: its inputs and outputs, and what they mean."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from bertsym.bert.inputs import INPUTS, input_shapes
from bertsym.text.tasks import Columns
from bertsym.text.tokenizer import TokenizerOptions

ROLES = ("pad", "unk", "cls", "sep", "mask")  #: that a special token may have
KINDS = ("encoder", "classifier", "logits")  #: of a BERT's signature; any other symbol's is ``symbol``
FAMILY = "bert"  #: the only family of encoders so far


@dataclass(frozen=True)
class Tensor:
    """An input or output of a symbol; a free dimension is a name such as ``batch``, an unknown shape None."""

    name: str
    shape: tuple[int | str, ...] | None = None
    dtype: str = "float32"
    meaning: str = ""


def bert_inputs(length: int | None = None) -> tuple[Tensor, ...]:
    """The inputs of a BERT's symbol, of one length only if that is given."""
    names = {0: "batch", -1: "length"}
    return tuple(
        Tensor(name, tuple(names.get(size, size) for size in shape), meaning=INPUTS[name])
        for name, shape in input_shapes(0, length or -1)
    )


@dataclass(frozen=True)
class Signature:
    """How the symbol of a BERT is called and what its output means, for clients in any language.

    ``kind`` says what the output is: ``encoder``, an output of the encoder; ``classifier``, probabilities of
    ``class_names``; ``logits``, what a finished head gives. docs/bundle.md describes every key.
    """

    kind: str
    output: str  #: the output of the encoder that the symbol ends in, or that its head reads
    output_name: str
    output_shape: tuple[int | str, ...]
    max_length: int
    tokenizer: TokenizerOptions
    pad_id: int
    special_tokens: Mapping[str, str]  #: role, one of ROLES -> token
    inputs: tuple[Tensor, ...] = field(default_factory=bert_inputs)  #: in the order in which they are fed
    family: str = FAMILY
    task: str | None = None  #: kind of task of the head, such as ``classification``; None without a head
    dataset: str | None = None  #: known data set that the head was trained on, such as ``mrpc``
    class_names: tuple[str, ...] = ()
    label_inputs: tuple[Tensor, ...] = ()  #: inputs that only the training symbol has
    trained: bool = True  #: whether the head was trained or, without a head, the encoder
    encoder_trained: bool = True  #: whether the encoder was pretrained or fine-tuned
    pair: bool | None = False  #: whether it was trained on pairs of texts; None where that is unknown
    columns: Columns = Columns()
    header: bool = True  #: whether the training tables had one
    column_names: Columns = Columns()  #: header names of the columns that `columns` gives by number
    dropped_labels: tuple[str, ...] = ()  #: labels of the training tables whose rows were dropped
    target_mxnet: str | None = None  #: the release line that the symbols were written for, such as ``1.5``
    form: str | None = None  #: a key of `bert.forms.FORMS`; found, as the next, when the symbols are written
    minimum_mxnet: str | None = None  #: the oldest MXNet that loads them
    guarded: bool = False  #: whether the symbols clip their inputs to the ranges that these may have; found as well
    precision: str = "float32"  #: in which most of it is computed; ``int8`` of a bundle that `quantize` wrote

    @property
    def length(self) -> int | None:
        """The only length that the symbol takes, None where it takes any up to ``max_length``."""
        sizes = [size for tensor in self.inputs for size in (tensor.shape or ())[1:]]
        return next((size for size in sizes if isinstance(size, int)), None)

    def to_json(self) -> dict[str, Any]:
        """The documented JSON form; free dimensions are the strings ``batch`` and ``length``."""
        return {
            "kind": self.kind,
            "family": self.family,
            "inputs": _tensors_json(self.inputs),
            "outputs": [{"name": self.output_name, "shape": self.output_shape, "dtype": "float32"}],
            "encoder_output": self.output,
            "pooling": None,
            "max_length": self.max_length,
            "task": self.task,
            "dataset": self.dataset,
            "class_names": self.class_names,
            "label_inputs": _tensors_json(self.label_inputs),
            "thresholds": None,
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
            "tokenizer": dataclasses.asdict(self.tokenizer),
            "form": self.form,
            "target_mxnet": self.target_mxnet,
            "minimum_mxnet": self.minimum_mxnet,
            "guarded": self.guarded,
            "precision": self.precision,
        }

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> Signature:
        """The inverse of `to_json`; raises KeyError, TypeError, ValueError or IndexError for anything else."""
        columns, tokenizer = document["columns"], document["tokenizer"]
        for key in ("pooling", "thresholds"):
            if document[key] is not None:
                raise ValueError(f"{key} {document[key]!r:.80} is not supported")
        return cls(
            kind=_one_of("kind", document["kind"], KINDS),
            family=_one_of("family", document["family"], (FAMILY,)),
            inputs=_tensors(document["inputs"]),
            output=of_type(document["encoder_output"], str),
            output_name=of_type(document["outputs"][0]["name"], str),
            output_shape=_all(document["outputs"][0]["shape"], int, str),
            max_length=of_type(document["max_length"], int),
            task=of_type(document["task"], str, _NONE),
            dataset=of_type(document["dataset"], str, _NONE),
            class_names=_class_names(document["class_names"]),
            label_inputs=_tensors(document["label_inputs"]),
            trained=of_type(document["trained"], bool),
            encoder_trained=of_type(document["encoder_trained"], bool),
            pair=of_type(document["pair"], bool, _NONE),
            columns=_columns(columns),
            header=of_type(columns["header"], bool),
            column_names=_columns(columns["names"]) if "names" in columns else Columns(),
            dropped_labels=_all(document.get("dropped_labels", ()), str),
            pad_id=of_type(document["pad_id"], int),
            special_tokens=_special_tokens(document["special_tokens"]),
            tokenizer=TokenizerOptions(
                lower_case=of_type(tokenizer["lower_case"], bool),
                strip_accents=of_type(tokenizer["strip_accents"], bool, _NONE),
                split_chinese=of_type(tokenizer["split_chinese"], bool),
                kind=of_type(tokenizer["kind"], str),
                segments=of_type(tokenizer["segments"], int),
                literal_special_tokens=of_type(tokenizer["literal_special_tokens"], bool),
            ),
            form=of_type(document["form"], str, _NONE),
            target_mxnet=of_type(document["target_mxnet"], str, _NONE),
            minimum_mxnet=of_type(document["minimum_mxnet"], str, _NONE),
            guarded=of_type(document["guarded"], bool),
            precision=of_type(document["precision"], str),
        )


_NONE = type(None)


def of_type(value: Any, *kinds: type) -> Any:
    """The value; raises TypeError unless it is of one of these types, of which bool is no int."""
    if type(value) not in kinds:
        raise TypeError(f"{value!r:.80} is not a {kinds[0].__name__}")
    return value


def _all(values: Any, *kinds: type) -> tuple[Any, ...]:
    """The values of a list, each of one of these types; raises TypeError."""
    return tuple(of_type(value, *kinds) for value in of_type(values, list, tuple))


def _one_of(what: str, value: Any, known: Sequence[str]) -> str:
    if value not in known:
        raise ValueError(f"{what} {value!r:.80} is not one of {', '.join(known)}")
    return str(value)


def _columns(document: Mapping[str, Any]) -> Columns:
    return Columns(*(of_type(document[part], str, _NONE) for part in ("text", "pair", "label")))


def _class_names(values: Any) -> tuple[str, ...]:
    """Class names as labels of tables have them; raises ValueError for others, which would garble the output."""
    names = _all(values, str)
    strange = next((name for name in names if not name.isprintable()), None)
    if strange is not None:
        raise ValueError(f"the class name {strange!r:.80} is not printable")
    if len({*names}) < len(names):
        raise ValueError("a class name is there twice")
    return names


def _special_tokens(document: Any) -> dict[str, str]:
    tokens = {_one_of("role", role, ROLES): of_type(token, str) for role, token in of_type(document, dict).items()}
    return {role: tokens[role] for role in ROLES if role in tokens}


def _tensors_json(tensors: Sequence[Tensor]) -> list[dict[str, Any]]:
    return [dict(vars(tensor)) for tensor in tensors]


def _tensors(values: Any) -> tuple[Tensor, ...]:
    return tuple(
        Tensor(
            name=of_type(tensor["name"], str),
            shape=None if tensor["shape"] is None else _shape(tensor["shape"]),
            dtype=of_type(tensor["dtype"], str),
            meaning=of_type(tensor["meaning"], str),
        )
        for tensor in of_type(values, list, tuple)
    )


def _shape(sizes: Any) -> tuple[int | str, ...]:
    """A shape as a Tensor has it; raises TypeError or ValueError."""
    for size in _all(sizes, int, str):
        if not (_FREE.fullmatch(size) if isinstance(size, str) else 1 <= size <= MAX_SIZE):
            raise ValueError(f"{size!r:.80} is not the size of an axis")
    return tuple(sizes)


MAX_SIZE = 1 << 31  #: of an axis of an input or output
_FREE = re.compile(r"([A-Za-z?]{1,32}'?|\d{1,9})(\*([A-Za-z?]{1,32}'?|\d{1,9})){0,7}")  # such as ``12*batch``


def _checked_origin(document: Any) -> Mapping[str, Any]:
    """The JSON of a Signature; raises what `Signature.from_json` does."""
    Signature.from_json(document)
    found: Mapping[str, Any] = document
    return found


@dataclass(frozen=True)
class SymbolSignature:
    """How any other symbol is called: a part of a BERT, a BERT with another head, or no BERT at all.

    ``origin`` is the signature, in JSON, of the bundle that it was made from.
    """

    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]
    label_inputs: tuple[Tensor, ...] = ()  #: inputs that only the training symbol has
    trained: bool | None = None  #: whether its head or, without a head, its encoder was trained; None if unknown
    max_length: int | None = None  #: of a BERT that takes any length up to it
    minimum_mxnet: str | None = None
    guarded: bool = False  #: of a BERT, as in `Signature`
    origin: Mapping[str, Any] | None = None

    def to_json(self) -> dict[str, Any]:
        """The documented JSON form, as far as it goes like that of `Signature`."""
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
    def from_json(cls, document: Mapping[str, Any]) -> SymbolSignature:
        """The inverse of `to_json`; raises what `Signature.from_json` does."""
        _one_of("kind", document["kind"], ("symbol",))
        return cls(
            inputs=_tensors(document["inputs"]),
            outputs=_tensors(document["outputs"]),
            label_inputs=_tensors(document["label_inputs"]),
            trained=of_type(document["trained"], bool, _NONE),
            max_length=of_type(document.get("max_length"), int, _NONE),
            minimum_mxnet=of_type(document["minimum_mxnet"], str, _NONE),
            guarded=of_type(document["guarded"], bool),
            origin=None if document["origin"] is None else _checked_origin(document["origin"]),
        )
