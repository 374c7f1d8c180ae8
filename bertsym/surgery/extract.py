"""Extract the subgraph between any tensors of a symbol, with its parameters."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from bertsym.analysis.symbolic_shapes import Axes
from bertsym.errors import ModelError, UsageError
from bertsym.execution import known_shapes
from bertsym.model import Model, ModelSource, require_params
from bertsym.surgery.bundle_options import BundleOptions
from bertsym.surgery.output_comparison import Difference, NotComparableError, check_equal, compare
from bertsym.surgery.result_writing import Changed, SurgeryResult, changed_model, write
from bertsym.symbol.graph import SymbolGraph
from bertsym.symbol.node import Node, Output, free_name
from bertsym.symbol.validation import check_symbol


def extract(
    source: str | Path | ModelSource,
    out: str | Path,
    outputs: Sequence[str],
    inputs: Sequence[str] = (),
    *,
    options: BundleOptions = BundleOptions(),
    force: bool = False,
) -> SurgeryResult:
    """Write the subgraph that computes `outputs`, with its parameters, as a bundle.

    `outputs` are names of nodes (``NODE``, ``NODE:INDEX``, ``NODE_output`` as MXNet lists them, ``NODE#2`` for the
    second node of a name that repeats, or ``layer 5`` of a BERT). `inputs` are internal tensors that become inputs,
    named in the same way, or ``NODE:SHAPE`` with a shape such as ``2,16,384`` or ``N,T,384`` if it can't be
    inferred; nodes upstream of them are left out. The shapes of the symbol's own inputs are needed to compare outputs
    if the symbol is not a BERT. With `options`, a part that ends in an output of the encoder or in a head becomes the
    bundle of a BERT.

    The outputs are compared with those of the original on random inputs. Forbidden operators may be cut away; if
    `inputs` depend on forbidden operators, the original can't run, nothing is compared, and a note reports it. Raises
    UsageError, ModelError or VerificationError; `out` is then unchanged.
    """
    if not outputs or isinstance(outputs, str) or isinstance(inputs, str):
        raise UsageError("name at least one output, and give outputs and inputs as lists")
    source = ModelSource.of(source)
    shapes = source.shapes
    model = source.open()
    originals = [model.output(name) for name in outputs]
    if len(set(originals)) < len(originals):
        raise UsageError(f"an output is repeated: {', '.join(map(str, originals))}: name each output once")
    cuts: dict[Output, Axes | None] = {}
    for text in inputs:
        name, shape = _parse_input(text, model)
        old = model.output(name)
        if old in cuts:
            raise UsageError(f"{name} is repeated as an input: name each input once")
        if old.node.is_variable:
            raise UsageError(f"{name} is a variable already: omit it, the subgraph keeps the inputs that it reads")
        if old in originals:
            raise UsageError(f"{name} can't be both an input and an output")
        cuts[old] = shape
    graph, copies = model.graph.copied()
    graph.set_outputs([Output(copies[old.node], old.index) for old in originals])
    places = {old: graph.cut(Output(copies[old.node], old.index), f"{_NEW}{i}") for i, old in enumerate(cuts)}
    graph.cleanup()
    for old, place in places.items():
        if place not in graph.nodes:
            raise UsageError(f"no output needs {old}: it can't be an input of {', '.join(outputs)}")
    original_params = require_params(model, part=graph)
    _name_inputs(graph, places, model.graph.variables)

    unsafe = _unsafe(model, originals)
    known = known_shapes(model, shapes, originals) if unsafe is None else {}
    taken: dict[Output, Axes] = {}
    for old, shape in cuts.items():
        if shape is not None:
            _check_shape(str(old), shape, known.get(old))
        if shape is not None or old in known:
            taken[Output(places[old])] = shape if shape is not None else known[old]
    fed = {place.name: old for old, place in places.items()}
    axes = {place.node.name: shape for place, shape in taken.items()}
    changed = changed_model(model, graph, original_params, axes=axes)
    pairs = list(zip(originals, graph.outputs))
    found = {mine: known[old] for old, mine in pairs if old in known}
    kept = [graph.variable(name) for name in changed.inputs if name not in fed]
    own = {Output(node): known.get(Output(model.graph.variable(node.name))) for node in kept}
    ends = {**found, **{output: shape for output, shape in own.items() if shape is not None}, **taken}

    def check() -> list[Difference]:
        if unsafe is not None:
            raise NotComparableError(unsafe)
        differences = compare(model, changed, pairs, fed=fed, shapes=shapes)
        check_equal(differences, str(out))
        return differences

    result = Changed(changed, shapes=ends, options=options, given_shapes=shapes)
    return write(model, result, out, check, force=force)


def _unsafe(model: Model, outputs: Sequence[Output]) -> str | None:
    """Return why MXNet must not run the ancestors of these outputs, such as a forbidden operator; None if it may."""
    try:
        check_symbol(model.graph.part(outputs), model.name)
    except ModelError as error:
        return str(error)
    return None


_NEW = "new input: "  # a prefix that no node of MXNet has


def _name_inputs(graph: SymbolGraph, places: Mapping[Output, Node], variables: Iterable[str]) -> None:
    """Name new inputs after the tensors that they replace, unless another node or parameter has the name."""
    names: dict[Node, str] = {}
    taken = {*(node.name for node in graph.nodes), *variables}
    for old, place in places.items():
        names[place] = str(old) if str(old) not in taken else free_name(f"{old}_input", taken)
        taken.add(names[place])
    graph.rename(names)


def _parse_input(text: str, model: Model) -> tuple[str, Axes | None]:
    """Parse ``NODE`` or ``NODE:SHAPE``; a shape has a comma or brackets, an output index does not."""
    match = re.fullmatch(r"(.+):([\[(]?[^:()\[\]]*[,\[(][^:()\[\]]*[\])]?|[\[(][^:()\[\]]*[\])])", text)
    if not match or text in {node.name for node in model.graph.nodes}:
        return text, None
    sizes = [size.strip() for size in match[2].strip("[]() ").split(",") if size.strip()]
    if not sizes or not all(re.fullmatch(r"[1-9][0-9]*|[A-Za-z]\w*", size, re.ASCII) for size in sizes):
        raise UsageError(f"{text}: {match[2]} is not a shape, such as 2,16,384 or N,T,384")
    return match[1], tuple(int(size) if size.isdigit() else size for size in sizes)


def _check_shape(name: str, given: Axes, known: Axes | None) -> None:
    """Raise UsageError if a given shape contradicts the known shape."""
    if known is None:
        return
    pairs = [pair for pair in zip(given, known) if all(isinstance(size, int) for size in pair)]
    if len(given) != len(known) or any(mine != size for mine, size in pairs):
        raise UsageError(f"{name} has the shape ({', '.join(map(str, known))}), not ({', '.join(map(str, given))})")
