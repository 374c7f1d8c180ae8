"""The report of a `diff`: how much outputs and layers differ, and which nodes and parameters do."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

from bertsym.reports.blocks import MOST_ROWS, Bars, Block, Cell, Figure, Headline, Report, Section, Table, Text
from bertsym.reports.model import repeat_fact, repeat_section
from bertsym.surgery.diff import DiffResult, RunDiff
from bertsym.surgery.output_comparison import Difference

_MOST_BARS = 30


def diff_report(found: DiffResult, names: tuple[str, str]) -> Report:
    """Build the report of two symbols that were run on the same inputs."""
    compared = [each for run in found.runs for each in run.outputs]
    largest = max((each.relative for each in compared), default=math.nan)
    differing = [each for each in compared if not each.relative <= found.rtol]
    judged = "computes other outputs than" if differing else "computes the same outputs as"
    place = next((run.first_layer for run in found.runs if run.first_layer), None)
    sentence = f"{names[1]} {judged} {names[0]} on the same inputs."
    if place is not None:
        sentence += f" The first difference is in {place}."
    facts: dict[str, Cell] = {
        "outputs": f"{len(differing)} of {len(compared)} differ by more than the tolerance",
        "first difference": place or "none in the layers",
        "nodes": "the same" if found.graph.same else "different",
        "parameters": "not compared" if found.params is None else "the same" if found.params.same else "different",
        **repeat_fact(),
    }
    headline = Headline(
        sentence,
        "largest difference of an output, relative to its largest element",
        f"{largest:.2g}",
        f"tolerance {found.rtol:.0e}, on inputs: {', '.join(run.inputs for run in found.runs)}",
        facts,
    )
    sections = [
        Section(f"Outputs of {run.inputs} inputs", list(_run(run, i, found.rtol))) for i, run in enumerate(found.runs)
    ]
    sections += [Section("Nodes", list(_nodes(found))), Section("Parameters", list(_params(found))), repeat_section()]
    return Report(f"bertsym diff: {names[0]} and {names[1]}", headline, sections)


def _run(run: RunDiff, number: int, rtol: float) -> Iterator[Block]:
    shown = [each for each in run.compared if math.isfinite(each.relative)][:_MOST_BARS]
    if shown:
        series = {"relative difference": [max(each.relative, 1e-10) for each in shown]}
        plot = Bars("relative difference", [each.name for each in shown], series, True, rtol, "tolerance")
        yield Figure(f"outputs-{number}", "Layers and outputs", plot, "Differences below 1e-10 are drawn as 1e-10.")
    yield Table("Layers and outputs", *_differences(run.compared, rtol))


def _differences(compared: Sequence[Difference], rtol: float) -> tuple[tuple[str, ...], list[tuple[Cell, ...]], int]:
    """Return columns, the first rows and the number of all rows."""
    rows = [
        (
            each.name,
            f"{each.max_difference:.1e}",
            f"{each.relative:.1e}",
            f"{each.scale:.3g}",
            "yes" if not each.relative <= rtol else "no",
        )
        for each in compared[:MOST_ROWS]
    ]
    columns = ("tensor", "largest difference", "relative", "largest element", "above the tolerance")
    return columns, list(rows), len(compared)


def _nodes(found: DiffResult) -> Iterator[Block]:
    graph = found.graph
    if graph.same:
        yield Text("Both symbols have the same nodes.")
        return
    for title, names in (("Only in the first", graph.removed), ("Only in the second", graph.added)):
        yield Table(title, ("node",), [(name,) for name in names[:MOST_ROWS]], len(names))
    changes = [(change.name, change.what) for change in graph.changed[:MOST_ROWS]]
    yield Table("Changed", ("node", "change"), changes, len(graph.changed))


def _params(found: DiffResult) -> Iterator[Block]:
    params = found.params
    if params is None:
        yield Text("Not compared, because one symbol has no parameter file.")
        return
    if params.same:
        yield Text(f"All {params.compared} parameters are equal.")
        return
    for title, names in (("Only in the first", params.removed), ("Only in the second", params.added)):
        yield Table(title, ("parameter",), [(name,) for name in names[:MOST_ROWS]], len(names))
    changes = [(change.name, change.what) for change in params.changed[:MOST_ROWS]]
    yield Table("Other shape or dtype", ("parameter", "change"), changes, len(params.changed))
    yield Table("Other values", *_differences(params.values, 0.0))
