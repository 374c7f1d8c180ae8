"""``bertsym lower``."""

from __future__ import annotations

import click

from bertsym.cli.options import command_line, form_options, show_written, surgery_options


@click.command("lower")
@click.argument("model")
@click.argument("out")
@form_options
@click.option(
    "--fold", is_flag=True, help="For inference: query, key and value of a layer as one parameter and one product."
)
@click.option(
    "--guard/--no-guard",
    default=None,
    help="Clip the inputs to their ranges in the graph, for callers that don't.  [default: as it is]",
)
@surgery_options
def command(
    model: str,
    out: str,
    form: str | None,
    target: str | None,
    fold: bool,
    guard: bool | None,
    params: str | None,
    epoch: int | None,
    shape: dict[str, tuple[int, ...]],
    force: bool,
) -> None:
    """Write the BERT MODEL for another MXNet, or in another form, as a bundle at OUT.

    PREFIX is a bundle, or any BERT that GluonNLP 0.6 to 0.10 exported, whatever stands on it. Its encoder is
    found by its graph and replaced; what stands on it and all parameters stay. Both are run on random texts
    and compared before anything is written.
    """
    from bertsym.surgery.lower import lower

    written = lower(
        model,
        out,
        target=target,
        form=form,
        fold=fold,
        guard=guard,
        params=params,
        epoch=epoch,
        shapes=shape,
        force=force,
        command=command_line(),
    )
    show_written(written)
