"""Extract: any tensor of a graph as an output, any as an input, and the parameters that lie between."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from bertsym.errors import UsageError
from bertsym.model import Model, open_model, require_params
from bertsym.recognition.tracing import Axes
from bertsym.running import Shape, known_shapes
from bertsym.surgery.comparison import Difference, check_equal, compare
from bertsym.surgery.writing import Changed, Written, changed_model, write
from bertsym.symbol.graph import SymbolGraph
from bertsym.symbol.node import Output


def extract(
    symbol: str | Path,
    out: str | Path,
    outputs: Sequence[str],
    inputs: Sequence[str] = (),
    *,
    params: str | Path | None = None,
    epoch: int | None = None,
    shapes: Mapping[str, Shape] | None = None,
    force: bool = False,
    command: list[str] | None = None,
) -> Written:
    """Write the part of a symbol that computes `outputs`, with the parameters that it needs, as a bundle.

    `outputs` are names of nodes (``NODE``, ``NODE:INDEX``, ``NODE_output`` as MXNet lists them, or ``layer 5`` of
    a BERT). `inputs` are internal tensors that become inputs, named alike, or ``NODE:SHAPE`` with a shape such as
    ``2,16,384`` or ``N,T,384`` where it can't be inferred; what they were computed of is left out. `shapes` are
    those of the symbol's own inputs, needed to compare results when it is no BERT.

    The written part is run beside the original on random inputs. Raises UsageError, ModelError or
    VerificationError; nothing is left at `out` then.
    """
    if not outputs or isinstance(outputs, str) or isinstance(inputs, str):
        raise UsageError("name at least one output, and give outputs and inputs as lists")
    model = open_model(symbol, params, epoch=epoch)
    original_params = require_params(model)
    graph = model.graph.copy()
    outputs = [model.resolve(name) for name in outputs]
    ends = [graph.output(name) for name in outputs]
    if len(set(ends)) < len(ends):
        raise UsageError(f"an output is named twice: {', '.join(map(str, ends))}")
    originals = [model.graph.output(name) for name in outputs]
    known = known_shapes(model, shapes, originals)
    fed: dict[str, Output] = {}
    taken: dict[str, Axes] = {}
    for text in inputs:
        name, shape = _parse_input(text, graph)
        name = model.resolve(name)
        old = model.graph.output(name)
        if old in fed.values():
            raise UsageError(f"{name} is named twice as an input")
        _cut(graph, ends, name)
        fed[name] = old
        if shape is not None:
            _check_shape(name, shape, known.get(old))
            taken[name] = shape
        elif old in known:
            taken[name] = known[old]
    graph.set_outputs(ends)
    graph.cleanup()
    for name in list(fed):
        if name not in {variable.removeprefix(_NEW) for variable in graph.variables}:
            raise UsageError(f"no output needs {name}: it can't be an input of {', '.join(outputs)}")
    # The tensor's own name, if the node that had it is gone.
    others = {node.name for node in graph.nodes}
    names = {f"{_NEW}{name}": name if name not in others else f"{name}_input" for name in fed}
    graph.rename(names)
    fed = {names[f"{_NEW}{name}"]: output for name, output in fed.items()}
    taken = {names[f"{_NEW}{name}"]: shape for name, shape in taken.items()}

    changed = changed_model(model, graph, original_params, axes=taken)
    pairs = list(zip(originals, graph.outputs))
    found = {str(mine): known[old] for old, mine in pairs if old in known}
    own = {name: known[Output(model.graph.node(name))] for name in changed.inputs if _is_known(model, name, known)}

    def check() -> list[Difference]:
        differences = compare(model, changed, pairs, fed=fed, shapes=shapes)
        check_equal(differences, str(out))
        return differences

    result = Changed(changed, shapes={**found, **own, **taken})
    return write(model, result, out, check, force=force, command=command)


_NEW = "new input: "  # no node of MXNet's is named so


def _is_known(model: Model, name: str, known: Mapping[Output, Axes]) -> bool:
    return name in model.graph.variables and Output(model.graph.node(name)) in known


def _parse_input(text: str, graph: SymbolGraph) -> tuple[str, Axes | None]:
    """A node, or ``NODE:SHAPE``; a shape has a comma or brackets, an output's index has none."""
    match = re.fullmatch(r"(.+):([\[(]?[^:()\[\]]*[,\[(][^:()\[\]]*[\])]?|[\[(][^:()\[\]]*[\])])", text)
    if not match or text in {node.name for node in graph.nodes}:
        return text, None
    sizes = [size.strip() for size in match[2].strip("[]() ").split(",") if size.strip()]
    if not sizes or not all(re.fullmatch(r"[1-9][0-9]*|[A-Za-z]\w*", size, re.ASCII) for size in sizes):
        raise UsageError(f"{text}: {match[2]} is no shape, such as 2,16,384 or N,T,384")
    return match[1], tuple(int(size) if size.isdigit() else size for size in sizes)


def _check_shape(name: str, given: Axes, known: Axes | None) -> None:
    """Raise UsageError for a shape that a tensor of the graph can't have."""
    if known is None:
        return
    pairs = [pair for pair in zip(given, known) if all(isinstance(size, int) for size in pair)]
    if len(given) != len(known) or any(mine != size for mine, size in pairs):
        raise UsageError(f"{name} has the shape ({', '.join(map(str, known))}), not ({', '.join(map(str, given))})")


def _cut(graph: SymbolGraph, ends: Sequence[Output], name: str) -> None:
    output = graph.output(name)
    if output.node.is_variable:
        raise UsageError(f"{name} is a variable already")
    if output in ends:
        raise UsageError(f"{name} can't be both an input and an output")
    graph.cut(output, f"{_NEW}{name}")
