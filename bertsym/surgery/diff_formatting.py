"""Format the results of `diff` for a terminal."""

from __future__ import annotations

from collections.abc import Sequence

from bertsym.surgery.diff import DiffResult
from bertsym.terminal import escaped


def diff_lines(found: DiffResult, limit: int | None) -> list[str]:
    """Format one difference per line, at most `limit` of each kind."""
    graph, params = found.graph, found.params
    counts = f"{len(graph.removed)} nodes only in A, {len(graph.added)} only in B, {len(graph.changed)} changed"
    lines = [f"graph: {'the same' if graph.same else counts}"]
    lines += first_lines([f"  - {name}" for name in graph.removed], limit)
    lines += first_lines([f"  + {name}" for name in graph.added], limit)
    lines += first_lines([f"  ~ {change.name}: {change.what}" for change in graph.changed], limit)
    if graph.outputs[0] != graph.outputs[1]:
        lines.append(f"  A ends in {', '.join(graph.outputs[0])}, B in {', '.join(graph.outputs[1])}")
    if params is None:
        lines.append("parameters: not compared, because one symbol has no parameter file")
    else:
        counts = (
            f"{len(params.removed)} only in A, {len(params.added)} only in B, {len(params.changed)} of another shape "
            f"or dtype, {len(params.values)} of {params.compared} with other values"
        )
        lines.append(f"parameters: {'the same' if params.same else counts}")
        lines += first_lines([f"  - {name}" for name in params.removed], limit)
        lines += first_lines([f"  + {name}" for name in params.added], limit)
        lines += first_lines([f"  ~ {change.name}: {change.what}" for change in params.changed], limit)
        lines += first_lines([f"  ~ {value}" for value in params.values], limit)
    for run in found.runs:
        lines.append(f"run on {run.inputs} inputs:" if run.inputs == "random" else f"run on {run.inputs}:")
        lines += [f"  {value}" for value in run.compared]
        differing = [value for value in run.compared if not value.relative <= found.rtol]
        if run.first_layer or run.first_node:
            node = f", at {run.first_node}" if run.first_node else ""
            outside = "after the layers" if run.layers else "no encoder layer"
            lines.append(f"  first difference: {run.first_layer or outside}{node}")
        elif differing:
            lines.append(f"  first difference: output {differing[0].name}")
        elif run.outputs:
            lines.append("  no difference above the tolerance")
    return [*map(escaped, lines)]


def first_lines(lines: Sequence[str], limit: int | None) -> list[str]:
    """Return the first `limit` lines and a line with the number of the others."""
    if limit is None or len(lines) <= limit:
        return list(lines)
    return [*lines[:limit], f"  ... and {len(lines) - limit} more"]
