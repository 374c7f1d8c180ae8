"""Compare two symbols by graph, by parameters, and by their outputs on the same inputs."""

from __future__ import annotations

import collections
import dataclasses
import zipfile
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from bertsym.analysis.token_flow import is_time_major
from bertsym.array import Array
from bertsym.errors import DataError, UsageError
from bertsym.execution import BertLimits, Shape, check_model_inputs, fixed_length, model_values, sample_inputs
from bertsym.model import Model, open_model, require_params
from bertsym.surgery.output_comparison import DEFAULT_RTOL, Difference, difference
from bertsym.symbol.graph import SymbolGraph
from bertsym.symbol.node import Node, Output

_Key = tuple[str, int]


@dataclass(frozen=True)
class Change:
    """A node or a parameter that both symbols have and that differs; ``what`` describes the difference."""

    name: str
    what: str


@dataclass(frozen=True)
class GraphDiff:
    """Names of nodes only in the first graph, only in the second, and in both but changed."""

    removed: list[str]
    added: list[str]
    changed: list[Change]
    outputs: tuple[list[str], list[str]]  #: output names of both graphs

    @property
    def same(self) -> bool:
        """Whether nodes and outputs are the same."""
        return not (self.removed or self.added or self.changed) and self.outputs[0] == self.outputs[1]


@dataclass(frozen=True)
class ParamsDiff:
    """Names of parameters only in the first file, only in the second, and in both but with other content."""

    removed: list[str]
    added: list[str]
    changed: list[Change]
    values: list[Difference]  #: parameters with other values, in the order of the first file
    compared: int

    @property
    def same(self) -> bool:
        """Whether names, shapes, dtypes and values are the same."""
        return not (self.removed or self.added or self.changed or self.values)


@dataclass(frozen=True)
class RunDiff:
    """Comparison of outputs, of encoder layers and of common nodes, computed on the same inputs."""

    inputs: str  #: ``random``, or the name of the file of inputs
    outputs: list[Difference]
    layers: list[Difference]
    first_layer: str | None  #: the first layer that differs by more than rtol
    first_node: str | None

    @property
    def compared(self) -> list[Difference]:
        """The comparisons of layers and outputs."""
        return [*self.layers, *self.outputs]


@dataclass(frozen=True)
class DiffResult:
    """Result of `diff`; `same` if nodes and parameters are equal, and outputs and layers equal within rtol."""

    graph: GraphDiff
    params: ParamsDiff | None
    runs: list[RunDiff]
    rtol: float
    notes: list[str]  #: notes on how the files were read

    @property
    def same(self) -> bool:
        """Whether graphs and parameters are equal, and outputs and layers equal within rtol."""
        equal = all(found.relative <= self.rtol for run in self.runs for found in run.compared)
        return self.graph.same and (self.params is None or self.params.same) and equal

    def to_json(self) -> dict[str, Any]:
        """Convert to JSON; a difference that is not finite is null."""
        return {"same": self.same, **_replace_non_finite(dataclasses.asdict(self))}


def _replace_non_finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _replace_non_finite(entry) for key, entry in value.items()}
    if isinstance(value, (list, tuple)):
        return [_replace_non_finite(entry) for entry in value]
    return None if isinstance(value, float) and not np.isfinite(value) else value


def diff(
    one: str | Path,
    other: str | Path,
    *,
    run: bool = False,
    inputs: str | Path | None = None,
    shapes: Mapping[str, Shape] | None = None,
    rtol: float = DEFAULT_RTOL,
) -> DiffResult:
    """Compare two symbols, each a bundle, a checkpoint's PREFIX or a symbol file.

    Nodes of the same name are compared by operator, attributes and inputs. With `run`, MXNet runs both symbols on the
    same random inputs; with `inputs`, on the arrays of an .npz file, by input name. Outputs are compared and, for two
    BERTs with the same number of layers, the output of each layer. `rtol` is relative to a tensor's scale.

    Raises UsageError, DataError and ModelError.
    """
    if not 0 < rtol < np.inf:
        raise UsageError(f"rtol {rtol} is not a finite number above 0")
    mine, theirs = open_model(one), open_model(other)
    params = _compare_params(mine, theirs) if mine.params is not None and theirs.params is not None else None
    runs = []
    if run or inputs is not None:
        # Elements that are not finite are reported as differences.
        require_params(mine, finite=False)
        require_params(theirs, finite=False)
        if run:
            sampled = sample_inputs(mine, shapes, length=_choose_length(mine, theirs))
            limited = _limit_ids(sampled, mine, theirs)
            runs.append(run_both(mine, theirs, limited, "random", rtol, nodes=True))
        if inputs is not None:
            runs.append(run_both(mine, theirs, _read_inputs(mine, inputs), str(inputs), rtol, nodes=True))
    notes = list(dict.fromkeys([*mine.notes, *theirs.notes]))
    return DiffResult(compare_graphs(mine.graph, theirs.graph), params, runs, rtol, notes)


def compare_graphs(one: SymbolGraph, other: SymbolGraph) -> GraphDiff:
    """Compare the nodes of two graphs by name; nodes with a repeated name in their order."""
    mine, theirs = _number_nodes(one), _number_nodes(other)
    before, after = ({key: node for node, key in keys.items()} for keys in (mine, theirs))
    changed = [
        Change(_format_key(key), what)
        for key, node in before.items()
        if key in after and (what := _describe_change(node, after[key], mine, theirs))
    ]
    return GraphDiff(
        [_format_key(key) for key in before if key not in after],
        [_format_key(key) for key in after if key not in before],
        changed,
        (_format_outputs(one.outputs, mine), _format_outputs(other.outputs, theirs)),
    )


def _number_nodes(graph: SymbolGraph) -> dict[Node, _Key]:
    """Map each node to its name and to its number among the nodes of that name, from 1."""
    count: collections.Counter[str] = collections.Counter()
    found = {}
    for node in graph.nodes:
        count[node.name] += 1
        found[node] = (node.name, count[node.name])
    return found


def _format_key(key: _Key) -> str:
    """Format a node as ``NAME``, or as ``NAME#2`` for the second node of that name."""
    name, number = key
    return name if number == 1 else f"{name}#{number}"


def _format_outputs(outputs: Sequence[Output], keys: Mapping[Node, _Key]) -> list[str]:
    return [_format_key(keys[output.node]) + (f":{output.index}" if output.index else "") for output in outputs]


def _describe_change(one: Node, other: Node, mine: Mapping[Node, _Key], theirs: Mapping[Node, _Key]) -> str:
    changes = []
    if one.op != other.op:
        changes.append(f"operator {one.op} -> {other.op}")
    for key in dict.fromkeys([*one.attrs, *other.attrs]):
        before, after = one.attrs.get(key, "(unset)"), other.attrs.get(key, "(unset)")
        if before != after:
            changes.append(f"{key} {before} -> {after}")
    before_inputs, after_inputs = (
        ", ".join(_format_outputs(n.inputs, keys)) for n, keys in ((one, mine), (other, theirs))
    )
    if before_inputs != after_inputs:
        changes.append(f"inputs {before_inputs} -> {after_inputs}")
    return "; ".join(changes)


def _compare_params(one: Model, other: Model) -> ParamsDiff:
    mine, theirs = one.params, other.params
    assert mine is not None
    assert theirs is not None
    changed, values = [], []
    common = [name for name in mine if name in theirs]
    for name in common:
        before, after = mine.infos[name], theirs.infos[name]
        if (before.shape, before.dtype) != (after.shape, after.dtype):
            changed.append(Change(name, f"{before.shape} {before.dtype} -> {after.shape} {after.dtype}"))
            continue
        found = difference(name, mine[name], theirs[name])
        if found.max_difference != 0:
            values.append(found)
    return ParamsDiff(
        [name for name in mine if name not in theirs],
        [name for name in theirs if name not in mine],
        changed,
        values,
        len(common),
    )


def _choose_length(one: Model, other: Model) -> int | None:
    """Choose a length of random texts that both models take."""
    fixed = [length for length in map(fixed_length, (one, other)) if length is not None]
    if len(set(fixed)) > 1:
        raise UsageError(
            f"{one.name} takes only length {fixed[0]}, {other.name} only {fixed[1]}: they can't run on the same inputs"
        )
    longest = min(BertLimits.of(model).max_length for model in (one, other))
    if fixed and fixed[0] > longest:
        raise UsageError(
            f"one symbol takes only length {fixed[0]}, the other at most {longest}: they can't run on the same inputs"
        )
    return fixed[0] if fixed else min(16, longest)


def _limit_ids(inputs: Mapping[str, Array], one: Model, other: Model) -> dict[str, Array]:
    """Reduce random token ids and token types to the ranges of the second model."""
    found = dict(inputs)
    if one.encoder is not None and other.encoder is not None:
        limits = BertLimits.of(other)
        sizes = ((one.encoder.token_ids, limits.vocab_size), (one.encoder.token_types, limits.segments))
        found.update({name: inputs[name] % size for name, size in sizes if name and name in inputs})
    return found


def _read_inputs(model: Model, path: str | Path) -> dict[str, Array]:
    try:
        # np.load takes other files too, and describes them wrongly.
        zipfile.ZipFile(path).close()
        with np.load(path, allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files}
    except OSError as error:
        raise DataError(f"{path}: {error.strerror or error}") from None
    except (ValueError, KeyError, EOFError, RuntimeError, zipfile.BadZipFile, zlib.error) as error:
        raise DataError(f"{path}: not an .npz file of plain arrays: {error}") from None
    differing = set(arrays) ^ set(model.inputs)
    if differing:
        raise DataError(
            f"{path}: the arrays must be {', '.join(model.inputs)}; missing or unknown: {', '.join(sorted(differing))}"
        )
    for name, array in arrays.items():
        if not isinstance(array, np.ndarray) or array.dtype.kind not in "biuf":
            raise DataError(f"{path}: {name} is not an array of numbers")
        if not array.ndim or not array.size:
            raise DataError(f"{path}: {name} has the shape {array.shape}: at least one row is needed")
    with np.errstate(over="ignore"):
        return {name: array.astype(np.float32) for name, array in arrays.items()}


def run_both(
    one: Model, other: Model, inputs: Mapping[str, Array], name: str, rtol: float, *, nodes: bool = False
) -> RunDiff:
    """Run two models on the same `inputs`, named as in the first model, and compare outputs and layers.

    `name` describes the inputs. With `nodes`, find the first common node that differs. Raises UsageError, DataError or
    ModelError for inputs that one model can't take.
    """
    theirs = {_find_counterpart(one, other, key): array for key, array in inputs.items()}
    missing = [key for key in other.inputs if key not in theirs]
    if missing:
        raise UsageError(f"{other.name} has an input {missing[0]!r} that {one.name} lacks: both need the same inputs")
    check_model_inputs(other, theirs)  # before either model runs
    places = _pair_layers(one, other)
    mine = _evaluate(one, inputs, [a for _, a, _ in places])
    yours = _evaluate(other, theirs, [b for _, _, b in places])
    layers = [
        difference(label, _to_batch_major(one, mine[a]), _to_batch_major(other, yours[b])) for label, a, b in places
    ]
    outputs = [
        difference(str(a), mine[a], yours[b])
        for a, b in zip(one.graph.outputs, other.graph.outputs)
        if a in mine and b in yours
    ]
    first_layer = next((found.name for found in layers if not found.relative <= rtol), None)
    differs = not all(found.relative <= rtol for found in (*layers, *outputs))
    first_node = _find_first_node(one, other, inputs, theirs, rtol) if nodes and differs else None
    return RunDiff(name, outputs, layers, first_layer, first_node)


def _find_first_node(
    one: Model, other: Model, inputs: Mapping[str, Array], theirs: Mapping[str, Array], rtol: float
) -> str | None:
    """Find the first common node that differs by more than `rtol`; `theirs` are the inputs of the other model."""
    nodes = _pair_nodes(one.graph, other.graph)
    mine = _evaluate(one, inputs, [a for a, _ in nodes])
    yours = _evaluate(other, theirs, [b for _, b in nodes])
    differing = (a for a, b in nodes if not difference("", mine[a], yours[b]).relative <= rtol)
    first = next(differing, None)
    return None if first is None else _format_outputs([first], _number_nodes(one.graph))[0]


def _find_counterpart(one: Model, other: Model, name: str) -> str:
    """Return the name of the same input in the other model; inputs of BERTs are matched by their role."""
    if one.encoder is None or other.encoder is None:
        return name
    for part in ("token_ids", "token_types", "valid_length"):
        if getattr(one.encoder, part) == name and getattr(other.encoder, part) is not None:
            return str(getattr(other.encoder, part))
    return name


def _pair_layers(one: Model, other: Model) -> list[tuple[str, Output, Output]]:
    """Pair the embeddings and layers of two BERTs with the same number of layers."""
    if one.encoder is None or other.encoder is None or len(one.encoder.layers) != len(other.encoder.layers):
        return []
    pairs = [("embeddings", one.encoder.embedding_output, other.encoder.embedding_output)]
    return pairs + [
        (f"layer {i}", mine.output, theirs.output)
        for i, (mine, theirs) in enumerate(zip(one.encoder.layers, other.encoder.layers))
    ]


def _pair_nodes(one: SymbolGraph, other: SymbolGraph) -> list[tuple[Output, Output]]:
    """Pair the first outputs of nodes with the same name and operator, in the order of the first graph."""
    theirs = {key: node for node, key in _number_nodes(other).items()}
    return [
        (Output(node), Output(theirs[key]))
        for node, key in _number_nodes(one).items()
        if not node.is_variable and key in theirs and theirs[key].op == node.op
    ]


def _evaluate(model: Model, inputs: Mapping[str, Array], outputs: Sequence[Output]) -> dict[Output, Array]:
    """Compute `outputs` and the graph's own outputs."""
    wanted = list(dict.fromkeys(entry for entry in (*model.graph.outputs, *outputs) if not entry.node.is_variable))
    require_params(model, finite=False)
    return dict(zip(wanted, model_values(model, inputs, wanted)))


def _to_batch_major(model: Model, array: Array) -> Array:
    """Transpose the output of a time-major (TNC) encoder to (N, T, U)."""
    if model.encoder is not None and array.ndim == 3 and is_time_major(model.graph, model.encoder):
        return array.swapaxes(0, 1)
    return array
