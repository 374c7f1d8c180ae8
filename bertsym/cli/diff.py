"""``bertsym diff``."""

from __future__ import annotations

import json

import click

from bertsym.cli.options import SHOWN, engine_option, foreign_options, shape_option
from bertsym.terminal import escaped


@click.command("diff")
@click.argument("model", metavar="MODEL_A")
@click.argument("other", metavar="MODEL_B")
@click.option("--run", is_flag=True, help="Run both on the same random inputs and compare outputs and layers.")
@click.option("--inputs", metavar="FILE.npz", help="Run both on these arrays, by input name.")
@shape_option
@foreign_options
@engine_option
@click.option(
    "--rtol",
    type=click.FloatRange(0, min_open=True),
    default=1e-5,
    show_default=True,
    help="Largest difference of values that counts as none, as a part of a tensor's scale.",
)
@click.option("--all", "show_all", is_flag=True, help=f"List everything, not the first {SHOWN} of each kind.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@click.option("--exit-code", is_flag=True, help="Exit with 1 if they differ.")
def command(
    model: str,
    other: str,
    run: bool,
    inputs: str | None,
    shape: dict[str, tuple[int, ...]],
    rtol: float,
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
    from bertsym.surgery.formatting import diff_lines

    found = diff(model, other, run=run, inputs=inputs, shapes=shape, rtol=rtol)
    for note in found.notes:
        click.echo(escaped(f"note: {note}"), err=True)
    if as_json:
        click.echo(json.dumps(found.to_json(), indent=2, ensure_ascii=False))
    else:
        click.echo("\n".join(diff_lines(found, None if show_all else SHOWN)))
    return 1 if exit_code and not found.same else 0
