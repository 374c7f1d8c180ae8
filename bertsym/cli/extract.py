"""``bertsym extract``."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from bertsym.cli.command import Command, option
from bertsym.cli.model_options import bundle_options, model_source, out_argument, sandbox_options
from bertsym.cli.options import force_option
from bertsym.cli.output import print_written
from bertsym.cli.running_options import no_verify_option, verification_engine_option

if TYPE_CHECKING:
    from bertsym.model import ModelSource
    from bertsym.surgery.bundle_options import BundleOptions


@click.command("extract", cls=Command)
@model_source
@out_argument
@option(
    "--output",
    "outputs",
    multiple=True,
    required=True,
    metavar="NODE",
    help="Node that becomes an output of the new symbol. Repeatable.",
)
@option(
    "--input",
    "inputs",
    multiple=True,
    metavar="NODE[:SHAPE]",
    help="Node that becomes an input of the new symbol, in place of its output. A shape such as N,T,384 is needed "
    "where it can't be inferred. Repeatable.",
)
@bundle_options
@sandbox_options
@force_option
@verification_engine_option
@no_verify_option
def command(
    model: ModelSource, out: str, outputs: tuple[str, ...], inputs: tuple[str, ...], options: BundleOptions, force: bool
) -> None:
    """Write the part of MODEL that computes some of its nodes as a bundle at OUT.

    OUT-0000.params holds only the parameters that this part reads. The part is run beside MODEL on random inputs and
    compared before it is written.

    `bertsym inspect MODEL --nodes` lists the nodes. NODE#2 is the second node of a repeated name. In a BERT, 'layer 5'
    is the output of encoder layer 5, and embeddings, cls, pooled, mean and sequence are what inspect calls so.

    With --vocab or --tokenizer, a part that ends in one of these, or in a head, becomes the bundle of a BERT: also the
    masked language model of a pretraining symbol, whose input of masked positions the bundle does not have.
    """
    from bertsym.surgery.extract import extract

    print_written(extract(model, out, outputs, inputs, options=options, force=force))
