"""``bertsym lower``."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from bertsym.cli.command import Command, option
from bertsym.cli.model_options import bundle_options, model_source, out_argument, sandbox_options
from bertsym.cli.options import GUARD, force_option, form_options
from bertsym.cli.output import print_written
from bertsym.cli.running_options import no_verify_option, verification_engine_option

if TYPE_CHECKING:
    from bertsym.model import ModelSource
    from bertsym.surgery.bundle_options import BundleOptions


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
@bundle_options
@sandbox_options
@force_option
@verification_engine_option
@no_verify_option
def command(
    model: ModelSource,
    out: str,
    form: str | None,
    target: str | None,
    fold: bool,
    guard: bool | None,
    options: BundleOptions,
    force: bool,
) -> None:
    """Rewrite the encoder of a BERT for another MXNet version or in another form, as a bundle at OUT.

    MODEL is a float32 bundle, or any BERT that GluonNLP 0.6 to 0.10 exported, with any head. The encoder is detected in
    the graph and replaced. The head and all parameters stay the same, except with --fold or --vocab; float16 parameters
    become float32. MODEL and the result are run on random texts before anything is written; outputs that differ by more
    than 1e-5 of their largest value are an error.

    With --vocab or --tokenizer, and for a classifier --labels, OUT is a bundle that predict and evaluate take.
    """
    from bertsym.surgery.lower import lower

    print_written(lower(model, out, target=target, form=form, fold=fold, guard=guard, options=options, force=force))
