"""``bertsym diff``."""

from __future__ import annotations

import json
from typing import Any

import click

from bertsym.cli.options import shape_option, some

_SHOWN = 20


@click.command("diff")
@click.argument("one", metavar="A")
@click.argument("other", metavar="B")
@click.option("--run", is_flag=True, help="Run both on the same random inputs and compare outputs and layers.")
@click.option("--inputs", metavar="FILE.npz", help="Run both on these arrays, by input name.")
@shape_option
@click.option(
    "--atol",
    type=click.FloatRange(0, min_open=True),
    default=1e-5,
    show_default=True,
    help="Largest difference of values that counts as none, as a part of a tensor's scale.",
)
@click.option("--all", "show_all", is_flag=True, help=f"List everything, not the first {_SHOWN} of each kind.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@click.option("--exit-code", is_flag=True, help="Exit with 1 if they differ.")
def command(
    one: str,
    other: str,
    run: bool,
    inputs: str | None,
    shape: dict[str, tuple[int, ...]],
    atol: float,
    show_all: bool,
    as_json: bool,
    exit_code: bool,
) -> int:
    """Compare the symbols at A and B: nodes, parameters, and with --run what they compute.

    A and B are PREFIXes of bundles or checkpoints, or symbol files. Nodes and parameters are compared by name;
    - is only in A, + only in B, ~ in both and not the same. With --run the first encoder layer that differs is
    named.
    """
    from bertsym.surgery.diff import diff

    found = diff(one, other, run=run, inputs=inputs, shapes=shape, atol=atol)
    if as_json:
        click.echo(json.dumps(found.to_json(), indent=2, ensure_ascii=False))
    else:
        for line in _lines(found, None if show_all else _SHOWN):
            click.echo(line)
    return 1 if exit_code and not found.same else 0


def _lines(found: Any, limit: int | None) -> list[str]:
    graph, params = found.graph, found.params
    counts = f"{len(graph.removed)} nodes only in A, {len(graph.added)} only in B, {len(graph.changed)} changed"
    lines = [f"graph: {'the same' if graph.same else counts}"]
    lines += some([f"  - {name}" for name in graph.removed], limit)
    lines += some([f"  + {name}" for name in graph.added], limit)
    lines += some([f"  ~ {change.name}: {change.what}" for change in graph.changed], limit)
    if graph.outputs[0] != graph.outputs[1]:
        lines.append(f"  A ends in {', '.join(graph.outputs[0])}, B in {', '.join(graph.outputs[1])}")
    if params is None:
        lines.append("parameters: not compared, one of them has no file")
    else:
        counts = (
            f"{len(params.removed)} only in A, {len(params.added)} only in B, {len(params.changed)} of another shape "
            f"or dtype, {len(params.values)} of {params.compared} with other values"
        )
        lines.append(f"parameters: {'the same' if params.same else counts}")
        lines += some([f"  - {name}" for name in params.removed], limit)
        lines += some([f"  + {name}" for name in params.added], limit)
        lines += some([f"  ~ {change.name}: {change.what}" for change in params.changed], limit)
        lines += some([f"  ~ {value}" for value in params.values], limit)
    for run in found.runs:
        lines.append(f"run on {run.inputs} inputs:" if run.inputs == "random" else f"run on {run.inputs}:")
        lines += [f"  {value}" for value in run.compared]
        differing = [value for value in run.compared if not value.relative <= found.atol]
        if run.first_layer or run.first_node:
            node = f", at {run.first_node}" if run.first_node else ""
            behind = "behind the layers" if run.layers else "no encoder layer"
            lines.append(f"  the first that differs is {run.first_layer or behind}{node}")
        elif differing:
            lines.append(f"  the first that differs is the output {differing[0].name}")
        elif run.outputs:
            lines.append("  no difference above the tolerance")
    return lines
