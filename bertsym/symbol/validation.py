"""Check untrusted symbols and parameters before libmxnet reads them.

libmxnet takes a pointer from an attribute of ``_Native``, allocates any amount of memory that an attribute states, and
reads out of bounds when an operator does not have the inputs or outputs that the file states. So everything is checked
against a table of operators (scripts/maintenance/allowed_operators.py writes it), which `allowing` extends.
"""

from __future__ import annotations

import contextlib
import functools
import json
import math
import re
from collections.abc import Collection, Iterator, Mapping
from contextvars import ContextVar
from importlib import resources
from typing import Any

import numpy as np

from bertsym.errors import ModelError, UsageError
from bertsym.symbol.attributes import flag, integer, integers
from bertsym.symbol.graph import SymbolGraph
from bertsym.symbol.node import Node
from bertsym.symbol.operator_traits import flag_of, integer_of, traits, with_aliases
from bertsym.symbol.operator_versions import is_operator
from bertsym.symbol.params import Parameters

#: number in ``__dtype__`` -> dtype
DTYPES = {0: "float32", 1: "float64", 2: "float16", 3: "uint8", 4: "int32", 5: "int8", 6: "int64", 7: "bool"}

MAX_SIZE = 1 << 24  #: of a vocabulary, a layer, a kernel
MAX_ELEMENTS = 1 << 31  #: of a tensor whose shape the file states
MAX_AXIS = 31
MAX_SUBGRAPHS = 4  #: nesting depth

# Never allowed: they take pointers, run Python or read files.
_NEVER = re.compile(r"_Native|_NDArray|.*Custom.*|_CachedOp.*|.*cvim.*|.*_imdecode|_backward_.*")
_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?")
_WHOLE = re.compile(r"[+-]?\d{1,19}L?")
_BOOLEANS = ("0", "1", "true", "false")
_SIZES = (
    *("num_hidden", "num_filter", "num_group", "num_groups", "num_args", "num_outputs", "input_dim", "output_dim"),
    *("heads", "depth", "kernel", "stride", "dilate", "scale", "reps", "repeats", "block_size", "state_size"),
    *("num_layers", "nsize", "pooled_size", "group_size", "size", "output_size", "repeat", "kernel_size"),
    *("stride1", "stride2"),
)
# Attribute -> range of each of its numbers.
_RANGES: dict[str, tuple[float, float]] = {
    **dict.fromkeys(_SIZES, (1, MAX_SIZE)),
    **dict.fromkeys(("axis", "axes", "dim", "dim1", "dim2", "axis1", "axis2"), (-MAX_AXIS - 1, MAX_AXIS)),
    **dict.fromkeys(("pad", "pad_width", "adj", "pad_size", "max_displacement"), (0, 1 << 16)),
    **dict.fromkeys(("lhs_begin", "lhs_end", "rhs_begin", "rhs_end"), (-MAX_AXIS - 1, MAX_AXIS)),
    "sections": (0, MAX_SIZE),
    "eps": (1e-30, 1),
    "p": (0, 1),
    "momentum": (0, 1),
    "temperature": (1e-6, 1e6),
    "shape": (-4, MAX_ELEMENTS),
}
_SHORT = 100  #: maximal number of characters of an attribute whose check is cached
_allowed: ContextVar[frozenset[str]] = ContextVar("_allowed", default=frozenset())


@contextlib.contextmanager
def allowing(*operators: str) -> Iterator[None]:
    """Accept these operators too, without checks of their attributes, inputs and outputs.

    Raises UsageError for an operator that MXNet 1.9.1 does not have, or that could run code or read any memory.
    """
    for name in operators:
        if _NEVER.fullmatch(name):
            raise UsageError(f"{name} can't be allowed: it can run code, read files or read any memory")
        if not is_operator(name):
            raise UsageError(f"MXNet 1.9.1 does not have the operator {name!r}")
    token = _allowed.set(_allowed.get() | set(operators))
    try:
        yield
    finally:
        _allowed.reset(token)


def check_symbol(graph: SymbolGraph, where: str, operators: Collection[str] | None = None, depth: int = 0) -> None:
    """Raise ModelError, naming `where` and the node, for a symbol that MXNet must not load.

    Refused are operators that are not in the table or not one of `operators`, a wrong number of inputs, outputs that do
    not exist, and attributes of a wrong type or out of range. Subgraphs are checked in the same way.
    """
    for node in graph.nodes:
        label = f"{where}: node {node.name!r}"
        if node.is_variable:
            _check_variable(node, f"{where}: {node.name}")
            continue
        if operators is not None and node.op not in operators:
            raise ModelError(f"{label} has the operator {node.op!r}, which is not expected")
        known = _table().get(node.op)
        if known is None and node.op not in _allowed.get():
            raise ModelError(f"{label} has the operator {node.op!r}, which is not allowed{_advice(node.op)}")
        _check_inputs(node, known, label)
        for key, value in node.attrs.items():
            _check_attribute(key, value, (known or {}).get("attributes", {}).get(key), f"{label}: {key}")
        _check_parts(node, label)
        _check_subgraphs(node, label, depth)
    for entry in graph.outputs:
        _check_output(entry.node, entry.index, f"{where}: heads")


def check_entries(graph: SymbolGraph, where: str) -> None:
    """Raise ModelError for a wrong number of inputs or a missing output of a known operator; others are not checked."""
    for node in graph.nodes:
        if not node.is_variable:
            _check_inputs(node, _table().get(node.op), f"{where}: node {node.name!r}")


def check_params(graph: SymbolGraph, params: Parameters, where: str, *, finite: bool = True) -> None:
    """Raise ModelError unless the parameters have the shapes that the graph implies and, if `finite`, finite elements.

    MXNet's shape inference later checks the shapes that the graph does not imply.
    """
    implied = implied_shapes(graph)
    for name in graph.variables:
        info = params.infos.get(name)
        if info is None:
            continue
        expected = implied.get(name, ())
        if expected and (
            len(expected) != len(info.shape) or any(size not in (0, real) for size, real in zip(expected, info.shape))
        ):
            shown = ", ".join(str(size or "?") for size in expected)
            raise ModelError(f"{where}: parameter {name} has shape {info.shape}, the graph implies ({shown})")
        if finite and np.dtype(info.dtype).kind == "f" and not np.isfinite(params[name]).all():
            raise ModelError(f"{where}: parameter {name} has elements that are not finite")


def implied_shapes(graph: SymbolGraph) -> dict[str, tuple[int, ...]]:
    """Find shapes of variables that the graph states or that follow from their readers; 0 for an unknown size."""
    found: dict[str, tuple[int, ...]] = {}
    for node in graph.nodes:
        for place, shape in _read_shapes(node).items():
            if place < len(node.inputs) and node.inputs[place].node.is_variable:
                found.setdefault(node.inputs[place].node.name, shape)
        carried = integers(node.attrs, "__shape__") if node.is_variable else ()
        if carried and all(size is not None for size in carried):
            found[node.name] = tuple(max(0, size or 0) for size in carried)
    return found


def _read_shapes(node: Node) -> dict[int, tuple[int, ...]]:
    """Return position of an input -> required shape."""
    if node.op == "FullyConnected":
        outputs = integer(node.attrs, "num_hidden", 0)
        return {1: (outputs, 0), 2: (outputs,)}
    if node.op == "Embedding":
        return {1: (integer(node.attrs, "input_dim", 0), integer(node.attrs, "output_dim", 0))}
    if node.op in ("LayerNorm", "BatchNorm"):
        return dict.fromkeys(range(1, len(node.inputs)), (0,))
    return {}


@functools.lru_cache(maxsize=1)
def _table() -> dict[str, dict[str, Any]]:
    text = resources.files("bertsym").joinpath("symbol/allowed_operators.json").read_text(encoding="utf-8")
    table: dict[str, dict[str, Any]] = json.loads(text)
    return table


def _advice(operator: str) -> str:
    if _NEVER.fullmatch(operator) or not is_operator(operator):
        return ""
    return f"; if you trust the file, --allow-op {operator} accepts it"


def _check_variable(node: Node, label: str) -> None:
    if integer(node.attrs, "__dtype__", 0) not in (-1, *DTYPES):
        raise ModelError(f"{label}: there is no dtype {node.attrs['__dtype__']}")
    if node.attrs.get("__storage_type__", "0").strip() not in ("0", "-1"):
        raise ModelError(f"{label} is sparse, only dense arrays are supported")
    if "__shape__" in node.attrs:
        _check_attribute("__shape__", node.attrs["__shape__"], "ints", f"{label}: __shape__")


def _check_inputs(node: Node, known: Mapping[str, Any] | None, label: str) -> None:
    least, most = known["inputs"] if known is not None else (0, None)
    if known is not None and most is None and "num_args" in node.attrs:
        least = most = integer(node.attrs, "num_args", 0)
    if not least <= len(node.inputs) <= (len(node.inputs) if most is None else most):
        raise ModelError(f"{label}: a {node.op} with {len(node.inputs)} inputs")
    for entry in node.inputs:
        _check_output(entry.node, entry.index, label)


def _check_output(node: Node, index: int, label: str) -> None:
    # For an operator that was allowed by name, the file decides on the outputs.
    if index and index >= (output_count(node) if node.op in _table() else node.num_outputs):
        name = f"{node.name}:{index}"
        raise ModelError(f"{label}: reads {name}, an output that {node.op} does not have")


def output_count(node: Node) -> int:
    """Count the outputs, including hidden ones, of an operator of the table with these attributes.

    ``num_outputs`` is only what the file states; MXNet reads out of bounds when it is too large.
    """
    if node.op in with_aliases("SliceChannel"):
        return integer(node.attrs, "num_outputs", 1)
    if node.op == "_split_v2":
        return integer_of(node, "sections") or len(integers(node.attrs, "indices")) + 1
    if node.op == "RNN":
        return 1 + (flag_of(node, "state_outputs") and (2 if node.attrs.get("mode") == "lstm" else 1))
    if node.op == "topk":
        return 2 if node.attrs.get("ret_typ") == "both" else 1
    if node.op == "_sg_mkldnn_fully_connected":
        in_int8 = flag(node.attrs, "quantized", False) and not flag(node.attrs, "enable_float_output", False)
        return 3 if in_int8 else 1
    count: int = _table().get(node.op, {}).get("outputs", 1)
    return count


def _check_attribute(key: str, value: str, kind: Any, label: str) -> None:
    """Check the type of a value and the ranges of its numbers; MXNet itself checks values of unknown types."""
    kinds = tuple(kind) if isinstance(kind, list) else kind
    if not (_is_valid if len(value) <= _SHORT else _is_valid.__wrapped__)(key, value, kinds):
        raise ModelError(f"{label} is {value[:80]!r}, which is not a valid value")


@functools.lru_cache(maxsize=1 << 12)  # the same few values occur in every layer
def _is_valid(key: str, value: str, kind: str | tuple[str, ...] | None) -> bool:
    text = value.strip()
    if kind is None or kind == "string" or text in ("None", ""):
        return True
    if isinstance(kind, tuple):
        return text in kind
    if kind == "bool":
        return text.lower() in _BOOLEANS
    numbers = _numbers(text, kind)
    low, high = _RANGES.get(key, (-math.inf, math.inf))
    if numbers is None or not all(low <= number <= high for number in numbers):
        return False
    sized = key in ("shape", "__shape__", "output_size", "reps")
    return not sized or math.prod(max(1, int(number)) for number in numbers) <= MAX_ELEMENTS


def _check_parts(node: Node, label: str) -> None:
    """Check what MXNet does not: no axis of a transpose repeats, no input and no attribute is missing."""
    if node.op == "transpose":
        axes = integers(node.attrs, "axes")
        if len({*axes}) < len(axes):
            raise ModelError(f"{label}: axes is {node.attrs['axes'][:80]!r}, which names one twice")
    found = traits(node.op)
    # In a file of MXNet before 0.9, MXNet adds a missing input and reads it uninitialized.
    lengths = found.lengths is not None and any(
        flag(node.attrs, key, False) for key in ("use_length", "use_sequence_length")
    )
    if lengths and len(node.inputs) < 2:
        raise ModelError(f"{label}: a {node.op} without the lengths that it uses")
    # A file may leave out auxiliary states that MXNet then reads out of bounds.
    if len(node.inputs) <= max(found.auxiliary, default=-1):
        raise ModelError(f"{label}: {node.op} without its auxiliary states")
    if node.op == "_split_v2" and not integer_of(node, "sections") and not integers(node.attrs, "indices"):
        raise ModelError(f"{label}: a {node.op} without sections and indices")


def _numbers(text: str, kind: str) -> list[float] | None:
    """Parse the numbers of a value, without None elements; None when the value has another form."""
    several = kind in ("ints", "floats")
    if several and text[0] + text[-1] in ("()", "[]"):
        text = text[1:-1]
    parts = [part.strip() for part in text.split(",")]
    if several and parts[-1] == "":
        parts.pop()
    pattern = _WHOLE if kind in ("int", "ints") else _NUMBER
    parts = [part for part in parts if part != "None"]
    if (len(parts) > 1 and not several) or not all(pattern.fullmatch(part) for part in parts):
        return None
    numbers = [float(part.rstrip("L")) for part in parts]
    return numbers if all(map(math.isfinite, numbers)) else None


def _check_subgraphs(node: Node, label: str, depth: int) -> None:
    subgraphs = node.raw.get("subgraphs", [])
    if not isinstance(subgraphs, list) or (subgraphs and depth == MAX_SUBGRAPHS):
        raise ModelError(f"{label}: subgraphs are not a list, or nested too deeply")
    if node.op == "_sg_mkldnn_fully_connected" and len(subgraphs) != 1:
        raise ModelError(f"{label}: a {node.op} without its subgraph")
    for subgraph in subgraphs:
        inside = SymbolGraph.parse(json.dumps(subgraph), f"{label}: subgraph")
        check_symbol(inside, f"{label}: subgraph", depth=depth + 1)
