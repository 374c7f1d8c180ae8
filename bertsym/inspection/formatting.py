"""An inspection as text for a terminal."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from bertsym.analysis.classifier_report import Answer
from bertsym.analysis.token_flow import Axes
from bertsym.inspection.report import InspectResult, NodeFact
from bertsym.symbol.node import Node
from bertsym.terminal import escaped

_INDENT = " " * 11


def summary(facts: InspectResult) -> str:
    """What the symbol is, what its classifier reads, and the picture of the way there."""
    lines = [*_header(facts), "", *(answer.sentence for answer in facts.answers)]
    for answer in facts.answers if facts.encoder is not None else ():
        lines += ["", *_picture(facts, answer)]
    return "\n".join(map(escaped, lines))


def _header(facts: InspectResult) -> Iterator[str]:
    kind = "any MXNet symbol" if facts.bundle is None else f"bundle of bertsym, {facts.bundle}"
    written = f", written by MXNet {facts.written_by}" if facts.written_by else ""
    yield f"{facts.name}: {kind}{written}"
    yield from _task(facts)
    yield from _field("graph", _what(facts))
    yield from _field("inputs", *(_tensor(fact.name, fact.shape, fact.meaning) for fact in facts.inputs))
    if facts.label_inputs:
        yield from _field("labels", *(_tensor(fact.name, fact.shape, fact.meaning) for fact in facts.label_inputs))
    yield from _field("outputs", *(_tensor(fact.name, fact.shape, "") for fact in facts.outputs))
    yield from _field("params", *_parameters(facts))
    operators = [f"{count} {op}" for op, count in facts.operators.items()]
    yield from _field("operators", *(", ".join(operators[i : i + 8]) for i in range(0, len(operators), 8)))
    reasons = list(dict.fromkeys(requirement.reason for requirement in facts.oldest.requirements))
    needs = f": it needs {', '.join(reasons[:3])}" if reasons else ""
    loads = f"MXNet {facts.oldest.version} and newer{needs}" if facts.oldest.version else "no MXNet that is known"
    defects = dict.fromkeys((defect.version, defect.reason) for defect in facts.defects)
    yield from _field(
        "loads in",
        loads,
        *(f"but not {unknown.reason} of {unknown.node}" for unknown in facts.oldest.unknown),
        *(f"{version} computes {reason} wrong: lower --target-mxnet {version[:3]}" for version, reason in defects),
    )


def _task(facts: InspectResult) -> Iterator[str]:
    untrained = facts.trained is False and facts.bundle != "encoder"
    if facts.task is not None:
        of = f" ({facts.dataset})" if facts.dataset is not None else ""
        names = f"; classes {', '.join(facts.class_names)}" if facts.class_names else ""
        yield from _field("task", f"{facts.task}{of}{names}{'; UNTRAINED HEAD' if untrained else ''}")
    elif untrained:
        yield from _field("task", "UNTRAINED HEAD")


def _what(facts: InspectResult) -> str:
    nodes = f"{len(facts.nodes)} nodes"
    if facts.int8:
        nodes += f"; {len(facts.int8)} of {len(facts.int8) + facts.operators.get('FullyConnected', 0)} layers in int8"
    if facts.encoder is None:
        return f"no BERT, {nodes}"
    length = f"; takes length {facts.encoder.length} only" if facts.encoder.length else ""
    guarded = "; guarded: its inputs are clipped inside" if facts.encoder.guarded else ""
    weights = "; RANDOM WEIGHTS" if facts.encoder_trained is False else ""
    return f"{facts.encoder}; {facts.encoder.form} form, {nodes}{length}{guarded}{weights}"


def _parameters(facts: InspectResult) -> Iterator[str]:
    if facts.params is None:
        yield "no file"
        return
    total = sum(part.numbers for part in facts.parts)
    size = sum(part.bytes for part in facts.parts)
    if not facts.parts:
        yield f"{len(facts.arrays)} arrays, none of which the graph reads: {facts.params}"
    else:
        yield f"{total:,} numbers in {sum(part.arrays for part in facts.parts)} arrays, {_size(size)}: {facts.params}"
    layers = [part for part in facts.parts if part.name.startswith("layer ")]
    alike = len({(part.arrays, part.numbers) for part in layers}) == 1 and len(layers) > 1
    shown = []
    for part in facts.parts:
        if alike and part in layers:
            if part is layers[0]:
                shown.append(f"{len(layers)} layers of {part.numbers:,} ({_size(part.bytes)} each)")
        else:
            shown.append(f"{part.name} {part.numbers:,} ({_size(part.bytes)})")
    if facts.encoder is not None and shown:
        yield "; ".join(shown)
    if facts.misshapen:
        yield f"of another shape than the graph says: {', '.join(facts.misshapen[:5])}"
    for what, names in (("missing", facts.missing), ("not read by the graph", facts.superfluous)):
        if names:
            more = f" and {len(names) - 5} more" if len(names) > 5 else ""
            yield f"{what}: {', '.join(names[:5])}{more}"


def _field(label: str, *values: str) -> Iterator[str]:
    for i, value in enumerate(values or ("none",)):
        yield f"{label if i == 0 else '':<{len(_INDENT) - 2}}  {value}"


def _tensor(name: str, shape: Axes | None, meaning: str) -> str:
    return f"{name} {axes(shape)}" + (f"  {meaning}" if meaning else "")


def axes(shape: Axes | None) -> str:
    """A shape as text: ``(N, T, 768)``, or ``(?)`` when it is unknown."""
    return "(?)" if shape is None else f"({', '.join(map(str, shape))}{',' if len(shape) == 1 else ''})"


def _size(count: int) -> str:
    if count < 1000:
        return f"{count} B"
    size = count / 1000
    for unit in ("kB", "MB"):
        if size < 1000:
            return f"{size:.3g} {unit}"
        size /= 1000
    return f"{size:.3g} GB"


def _picture(facts: InspectResult, answer: Answer) -> list[str]:
    """The way from the inputs through the encoder to the output, a node a line."""
    encoder = facts.encoder
    assert encoder is not None
    shapes = {fact.name: fact.shape for fact in facts.nodes}
    names = " ".join(fact.name for fact in facts.inputs)
    rows: list[tuple[str, str, str]] = [(names, "", "")]
    label = f"embeddings and {len(encoder.layers)} encoder layers"
    rows.append((label, "", f"{axes(shapes.get(encoder.output.node.name))}  {encoder.output}"))
    for node in answer.nodes:
        if node is not encoder.output.node:
            rows.append((node.name, node.op, axes(shapes.get(node.name)) + _remark(node, answer)))
    width = max(len(row[0]) for row in rows)
    operator = max(len(row[1]) for row in rows)
    lines = []
    for i, (name, op, shape) in enumerate(rows):
        lines.append(f"  {name:<{width}}  {op:<{operator}}  {shape}".rstrip())
        if i + 1 < len(rows):
            lines.append("    |")
    return lines


_REMARKS = {
    "cls": "[CLS]",
    "last": "the last token",
    "max": "maximum",
    "mean": "mean",
    "pooled": "pooled",
    "position": "one token",
    "some": "a part of the tokens",
    "sum": "sum",
    "whole_sequence": "the whole sequence",
}


def _remark(node: Node, answer: Answer) -> str:
    if node is answer.head:
        return "  <- the classifier"
    if node is answer.read.node and answer.kind in _REMARKS:
        return f"  <- {_REMARKS[answer.kind]}"
    return ""


def node_lines(nodes: Iterable[NodeFact]) -> list[str]:
    """A node a line: name, operator, shape, what it reads, attributes."""
    return _table(
        [
            (
                fact.name,
                "variable" if fact.op == "null" else fact.op,
                axes(fact.shape) if fact.shape else "",
                "  ".join(
                    [
                        *([f"<- {', '.join(fact.inputs)}"] if fact.inputs else []),
                        *(f"{key}={value}" for key, value in fact.attrs.items()),
                    ]
                ),
            )
            for fact in nodes
        ]
    )


def array_lines(facts: InspectResult) -> list[str]:
    """An array of the parameter file a line."""
    return _table(
        [
            (
                array.name,
                axes(array.shape),
                array.dtype,
                _size(array.bytes),
                array.kind,
                "" if array.read else "not read",
            )
            for array in facts.arrays
        ]
    )


def operator_lines(facts: InspectResult) -> list[str]:
    """An operator a line, the most frequent first."""
    return _table([(op, str(count)) for op, count in facts.operators.items()])


def _table(rows: Sequence[tuple[str, ...]]) -> list[str]:
    if not rows:
        return []
    rows = [tuple(map(escaped, row)) for row in rows]
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]) - 1)]
    return ["  ".join([*(cell.ljust(width) for cell, width in zip(row, widths)), row[-1]]).rstrip() for row in rows]
