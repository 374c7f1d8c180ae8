"""``bertsym lower``."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from bertsym.cli.command import Command, option
from bertsym.cli.options import (
    GUARD,
    force_option,
    form_options,
    model_source,
    no_verify_option,
    out_argument,
    sandbox_options,
    verification_engine_option,
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
    help="Fuse query, key and value of each layer into one matrix product with one weight. OUT is for inference: it "
    "can be quantized, but not fine-tuned. An error with --form gluonnlp.",
)
@option(
    "--guard/--no-guard",
    default=None,
    help=f"{GUARD}  [default: as in MODEL]",
)
@sandbox_options
@force_option
@verification_engine_option
@no_verify_option
def command(
    model: ModelSource, out: str, form: str | None, target: str | None, fold: bool, guard: bool | None, force: bool
) -> None:
    """Rewrite the encoder of a BERT for another MXNet version or in another form, as a bundle at OUT.

    MODEL is a float32 bundle, or any BERT that GluonNLP 0.6 to 0.10 exported, with any head. The encoder is detected in
    the graph and replaced. The head and all parameters stay the same; only --fold changes parameters. MODEL and the
    result are run on random texts before anything is written; outputs that differ by more than 1e-5 of their largest
    value are an error.
    """
    from bertsym.surgery.lower import lower

    print_written(lower(model, out, target=target, form=form, fold=fold, guard=guard, force=force))
