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
    """Write the subgraph of MODEL that computes chosen nodes, as a bundle at OUT.

    OUT-0000.params has only the parameters that the subgraph reads. Before the bundle is written, it is run beside
    MODEL on random inputs, and the outputs are compared.

    `bertsym inspect MODEL --nodes` lists the nodes. NODE#2 is the second node with a repeated name. In a BERT, NODE may
    also be embeddings, 'layer 5' (the output of encoder layer 5, counted from 0), sequence, cls, pooled or mean.

    With --vocab or --tokenizer, a subgraph that ends in one of these, or in a head, becomes the bundle of a BERT. This
    includes the masked language model of a pretraining symbol; the bundle has no input of masked positions.
    """
    from bertsym.surgery.extract import extract

    print_written(extract(model, out, outputs, inputs, options=options, force=force))
