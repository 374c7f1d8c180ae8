"""``bertsym lower``."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from bertsym.cli.command import Command, option
from bertsym.cli.options import (
    engine_option,
    force_option,
    form_options,
    model_source,
    no_verify_option,
    out_argument,
    sandbox_options,
)
from bertsym.cli.output import print_written

if TYPE_CHECKING:
    from bertsym.model import ModelSource


@click.command("lower", cls=Command)
@model_source
@out_argument
@form_options
@option(
    "--fold",
    is_flag=True,
    help="Fuse query, key and value of each layer into one matrix product with one weight. For inference only.",
)
@option(
    "--guard/--no-guard",
    default=None,
    help="Clip the inputs to their valid ranges in the graph, for programs that do not check them.  [default: as in "
    "MODEL]",
)
@sandbox_options
@force_option
@engine_option
@no_verify_option
def command(
    model: ModelSource, out: str, form: str | None, target: str | None, fold: bool, guard: bool | None, force: bool
) -> None:
    """Rewrite the encoder of a BERT for another MXNet version or in another form, as a bundle at OUT.

    MODEL is a bundle, or any BERT that GluonNLP 0.6 to 0.10 exported, with any head. The encoder is detected in the
    graph and replaced; the head and all parameters stay. MODEL and the result are run on random texts and compared
    before anything is written.
    """
    from bertsym.surgery.lower import lower

    print_written(lower(model, out, target=target, form=form, fold=fold, guard=guard, force=force))
