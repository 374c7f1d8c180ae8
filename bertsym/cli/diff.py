"""``bertsym diff``."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import click

from bertsym.cli.command import Command, argument, collected, option
from bertsym.cli.model_options import MODEL, sandbox_options, shape_option
from bertsym.cli.options import FILE, json_option
from bertsym.cli.output import SHOWN, note, print_report
from bertsym.cli.report_options import only_report_options
from bertsym.cli.running_options import engine_option, rtol_option

if TYPE_CHECKING:
    from bertsym.reports.options import ReportOptions


@click.command("diff", cls=Command)
@argument("model", "Prefix of a bundle or of an MXNet checkpoint, or the path of a symbol file.", type=MODEL)
@argument("other", "Model to compare with, given in the same ways.", type=MODEL)
@collected(
    "how",
    dict,
    option("--run", is_flag=True, help="Run both models on the same random inputs, and compare outputs and layers."),
    option("--inputs", metavar="FILE.npz", type=FILE, help="Run both models on these arrays, named after the inputs."),
    shape_option,
    rtol_option("Largest difference between equal elements, relative to the largest absolute value of the tensor."),
)
@engine_option
@only_report_options
@sandbox_options
@option(
    "--all", "show_all", group="Output", is_flag=True, help=f"List all differences instead of {SHOWN} of each kind."
)
@json_option
@option("--exit-code", group="Output", is_flag=True, help="Exit with code 1 if the models differ.")
def command(
    model: str,
    other: str,
    how: dict[str, Any],
    report: ReportOptions | None,
    show_all: bool,
    as_json: bool,
    exit_code: bool,
) -> int:
    """Compare the nodes and parameters of two models, and with --run their outputs.

    Nodes and parameters are matched by name. In the list, - marks those that only MODEL has, + those that only OTHER
    has, and ~ those that differ. With --run, the first encoder layer whose outputs differ is printed. With --run and
    --report, a page shows the differences.
    """
    from bertsym.reports.writing import check_report, write_report
    from bertsym.surgery.diff import diff
    from bertsym.surgery.diff_formatting import diff_lines
    from bertsym.surgery.diff_report import diff_report

    if report is not None and not (how["run"] or how["inputs"]):
        raise click.UsageError("--report needs --run or --inputs.")
    check_report(report)
    found = diff(model, other, **how)
    if report is not None:
        write_report(diff_report(found, (model, other)), report)
    for text in found.notes:
        note(text)
    if as_json:
        click.echo(json.dumps(found.to_json(), indent=2, ensure_ascii=False))
    else:
        click.echo("\n".join(diff_lines(found, None if show_all else SHOWN)))
    print_report(report)
    return 1 if exit_code and not found.same else 0
