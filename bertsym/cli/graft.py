"""``bertsym graft``."""

from __future__ import annotations

import shlex

import click

from bertsym.cli.options import TaskChoice, command_line, show_written, surgery_options
from bertsym.encoders.graph_heads import HEADS


@click.command("graft")
@click.argument("model")
@click.argument("out")
@click.option(
    "--head",
    type=TaskChoice([*HEADS, "none"]),
    default="classification",
    show_default=True,
    help="Kind of task that the head is for; none removes the head that is there.",
)
@click.option("--num-classes", type=int, help="Values that the head gives.  [default: 2; 1 for regression]")
@click.option("--dropout", type=float, default=0.1, show_default=True, help="Before the head, in training.")
@click.option(
    "--at", metavar="NODE", help="What the head reads, as a node or as 'layer 5'.  [default: the only output]"
)
@click.option("--cls-slice", is_flag=True, help="Read position 0 of NODE, whose shape is (N, T, units).")
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True, help="Seed of the head's weights.")
@surgery_options
def command(
    model: str,
    out: str,
    head: str,
    num_classes: int | None,
    dropout: float,
    at: str | None,
    cls_slice: bool,
    seed: int,
    params: str | None,
    epoch: int | None,
    shape: dict[str, tuple[int, ...]],
    force: bool,
) -> None:
    """Put an untrained head on the symbol MODEL, or remove its head, and write a bundle at OUT.

    The head is Dropout -> FullyConnected fc-finetune and what belongs to its kind. OUT-train-symbol.json is for
    Module.fit, here or in another binding; OUT-symbol.json for inference. --head none gives back the base of a
    fine-tuned symbol.
    """
    from bertsym.surgery.graft import graft_head

    written = graft_head(
        model,
        out,
        head=head,
        num_classes=num_classes,
        dropout=dropout,
        at=at,
        cls_slice=cls_slice,
        seed=seed,
        params=params,
        epoch=epoch,
        shapes=shape,
        force=force,
        command=command_line(),
    )
    show_written(written)
    if head != "none":
        at = shlex.quote(out)
        click.echo(f"next: fit {at}-train-symbol.json with {at}-0000.params, and save under another PREFIX;")
        click.echo(f"  bertsym edit {at} PREFIX --params TRAINED.params makes a bundle of the result")
