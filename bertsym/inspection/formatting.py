"""Format an inspection for a terminal."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from bertsym.analysis.classifier_report import ClassifierReport, InputKind
from bertsym.analysis.detected_encoder import DetectedEncoder
from bertsym.analysis.sentences import axes_text, form_text
from bertsym.analysis.symbolic_shapes import Axes
from bertsym.inspection.parts import PartKind
from bertsym.inspection.report import InspectResult, NodeFact
from bertsym.signature import INT8_PROCESSORS
from bertsym.symbol.node import Node
from bertsym.terminal import escaped
from bertsym.text.tokenizer import describe_special_tokens

_INDENT = " " * 11


def summary(facts: InspectResult) -> str:
    """Describe the symbol, what its classifiers read, and the nodes from the encoder to each output."""
    lines = [*_format_header(facts), "", *facts.sentences]
    if facts.encoder is not None:
        for report in facts.classifiers:
            lines += ["", *_draw_nodes(facts, facts.encoder, report)]
    return "\n".join(map(escaped, lines))


def _format_header(facts: InspectResult) -> Iterator[str]:
    kind = "any MXNet symbol" if facts.bundle is None else f"bertsym bundle, {facts.bundle}"
    written = f", written by MXNet {facts.written_by}" if facts.written_by else ""
    yield f"{facts.name}: {kind}{written}"
    yield from _format_task(facts)
    if facts.family is not None:
        yield from _format_field("family", facts.family)
    if facts.embedding is not None:
        similarity = facts.embedding.similarity or "cosine, by default"
        settings = f"prompts: {facts.embedding.describe_prompts()}; similarity: {similarity}"
        yield from _format_field("embedding", str(facts.embedding), settings)
    if facts.texts is not None and facts.special_tokens is not None and facts.special_ids is not None:
        special = describe_special_tokens(facts.special_tokens, facts.special_ids)
        yield from _format_field("texts", facts.texts, f"special tokens: {special}")
    yield from _format_field("graph", _format_graph(facts))
    yield from _format_field("inputs", *(_format_tensor(fact.name, fact.shape, fact.meaning) for fact in facts.inputs))
    if facts.label_inputs:
        yield from _format_field(
            "labels", *(_format_tensor(fact.name, fact.shape, fact.meaning) for fact in facts.label_inputs)
        )
    yield from _format_field("outputs", *(_format_tensor(fact.name, fact.shape, "") for fact in facts.outputs))
    yield from _format_field("params", *_format_parameters(facts))
    operators = [f"{count} {op}" for op, count in facts.operators.items()]
    yield from _format_field("operators", *(", ".join(operators[i : i + 8]) for i in range(0, len(operators), 8)))
    reasons = list(dict.fromkeys(requirement.reason for requirement in facts.oldest.requirements))
    needs = f": it needs {', '.join(reasons[:3])}" if reasons else ""
    loads = f"MXNet {facts.oldest.version} and newer{needs}" if facts.oldest.version else "no known MXNet version"
    defects = dict.fromkeys((defect.version, defect.reason) for defect in facts.defects)
    yield from _format_field(
        "loads in",
        loads,
        *(f"but not {unknown.reason} of {unknown.node}" for unknown in facts.oldest.unknown),
        *(
            f"{version} computes {reason} incorrectly: lower --target-mxnet {version[:3]}"
            for version, reason in defects
        ),
    )


def _format_task(facts: InspectResult) -> Iterator[str]:
    untrained = facts.trained is False and facts.bundle != "encoder"
    if facts.task is not None:
        of = f" ({facts.dataset})" if facts.dataset is not None else ""
        names = f"; classes {', '.join(facts.class_names)}" if facts.class_names else ""
        yield from _format_field("task", f"{facts.task}{of}{names}{'; UNTRAINED HEAD' if untrained else ''}")
    elif untrained:
        yield from _format_field("task", "UNTRAINED HEAD")


def _format_graph(facts: InspectResult) -> str:
    nodes = f"{len(facts.nodes)} nodes"
    if facts.int8:
        nodes += f"; {len(facts.int8)} of {len(facts.int8) + facts.operators.get('FullyConnected', 0)} layers in int8"
        if facts.int8_for is not None:
            nodes += f" for {INT8_PROCESSORS[facts.int8_for]}"
    if facts.encoder is None:
        return f"no BERT, {nodes}"
    length = f"; takes length {facts.encoder.length} only" if facts.encoder.length else ""
    guarded = "; guarded: its inputs are clipped inside" if facts.encoder.guarded else ""
    weights = "; RANDOM WEIGHTS" if facts.encoder_trained is False else ""
    return f"{facts.encoder}; {form_text(facts.encoder.form)} form, {nodes}{length}{guarded}{weights}"


def _format_parameters(facts: InspectResult) -> Iterator[str]:
    if facts.params is None:
        yield "no file"
        return
    total = sum(part.elements for part in facts.parts)
    size = sum(part.bytes for part in facts.parts)
    if not facts.parts:
        yield f"{len(facts.arrays)} arrays, none of which the graph reads: {facts.params}"
    else:
        arrays = sum(part.arrays for part in facts.parts)
        yield f"{total:,} numbers in {arrays} arrays, {_format_size(size)}: {facts.params}"
    layers = [part for part in facts.parts if part.kind is PartKind.LAYER]
    equal = len({(part.arrays, part.elements) for part in layers}) == 1 and len(layers) > 1
    shown = []
    for part in facts.parts:
        if equal and part in layers:
            if part is layers[0]:
                shown.append(f"{len(layers)} layers of {part.elements:,} ({_format_size(part.bytes)} each)")
        else:
            shown.append(f"{part.name} {part.elements:,} ({_format_size(part.bytes)})")
    if facts.encoder is not None and shown:
        yield "; ".join(shown)
    if facts.misshapen:
        yield f"shape differs from the graph: {', '.join(facts.misshapen[:5])}"
    for what, names in (("missing", facts.missing), ("not read by the graph", facts.superfluous)):
        if names:
            more = f" and {len(names) - 5} more" if len(names) > 5 else ""
            yield f"{what}: {', '.join(names[:5])}{more}"


def _format_field(label: str, *values: str) -> Iterator[str]:
    for i, value in enumerate(values or ("none",)):
        yield f"{label if i == 0 else '':<{len(_INDENT) - 2}}  {value}"


def _format_tensor(name: str, shape: Axes | None, meaning: str) -> str:
    return f"{name} {axes_text(shape)}" + (f"  {meaning}" if meaning else "")


def _format_size(count: int) -> str:
    if count < 1000:
        return f"{count} B"
    size = count / 1000
    for unit in ("kB", "MB"):
        if size < 1000:
            return f"{size:.3g} {unit}"
        size /= 1000
    return f"{size:.3g} GB"


def _draw_nodes(facts: InspectResult, encoder: DetectedEncoder, report: ClassifierReport) -> list[str]:
    """Draw the nodes from the inputs through the encoder to the output, one per line."""
    shapes = {fact.name: fact.shape for fact in facts.nodes}
    names = " ".join(fact.name for fact in facts.inputs)
    rows: list[tuple[str, str, str]] = [(names, "", "")]
    label = f"embeddings and {len(encoder.layers)} encoder layers"
    rows.append((label, "", f"{axes_text(shapes.get(encoder.output.node.name))}  {encoder.output}"))
    for node in report.nodes:
        if node is not encoder.output.node:
            rows.append((node.name, node.op, axes_text(shapes.get(node.name)) + _format_remark(node, report)))
    width = max(len(row[0]) for row in rows)
    operator = max(len(row[1]) for row in rows)
    lines = []
    for i, (name, op, shape) in enumerate(rows):
        lines.append(f"  {name:<{width}}  {op:<{operator}}  {shape}".rstrip())
        if i + 1 < len(rows):
            lines.append("    |")
    return lines


_REMARKS = {
    InputKind.CLS: "[CLS]",
    InputKind.LAST: "the last token",
    InputKind.MAX: "maximum",
    InputKind.MEAN: "mean",
    InputKind.POOLED: "pooled",
    InputKind.POSITION: "one token",
    InputKind.SOME: "some of the tokens",
    InputKind.SUM: "sum",
    InputKind.WHOLE_SEQUENCE: "the whole sequence",
}


def _format_remark(node: Node, report: ClassifierReport) -> str:
    if node is report.classifier:
        return "  <- the classifier"
    if node is report.reads.node and report.kind in _REMARKS:
        return f"  <- {_REMARKS[report.kind]}"
    return ""


def node_lines(nodes: Iterable[NodeFact]) -> list[str]:
    """Format a table of nodes: name, operator, shape, inputs, attributes."""
    return _format_table(
        [
            (
                fact.name,
                "variable" if fact.op == "null" else fact.op,
                axes_text(fact.shape) if fact.shape else "",
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
    """Format a table of the arrays in the parameter file."""
    return _format_table(
        [
            (
                array.name,
                axes_text(array.shape),
                array.dtype,
                _format_size(array.bytes),
                array.kind,
                "" if array.read else "not read",
            )
            for array in facts.arrays
        ]
    )


def operator_lines(facts: InspectResult) -> list[str]:
    """Format a table of operators, the most frequent first."""
    return _format_table([(op, str(count)) for op, count in facts.operators.items()])


def _format_table(rows: Sequence[tuple[str, ...]]) -> list[str]:
    if not rows:
        return []
    rows = [tuple(map(escaped, row)) for row in rows]
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]) - 1)]
    return ["  ".join([*(cell.ljust(width) for cell, width in zip(row, widths)), row[-1]]).rstrip() for row in rows]
