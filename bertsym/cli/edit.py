"""``bertsym edit``."""

from __future__ import annotations

from typing import Any

import click

from bertsym.cli.options import (
    SHOWN,
    OptionType,
    command_line,
    show_written,
    surgery_options,
)
from bertsym.terminal import escaped


class _Pair(OptionType):
    """``OLD=NEW`` as a pair."""

    name = "OLD=NEW"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Fail without an equals sign."""
        old, equals, new = str(value).partition("=")
        if not old or not equals:
            self.fail(f"{value!r} is not of the form OLD=NEW", param, ctx)
        return old, new


class _Attribute(OptionType):
    """``NODE.attr=value`` as three; the last dot before the equals sign counts."""

    name = "NODE.ATTR=VALUE"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Fail unless there is a dot and an equals sign."""
        place, equals, text = str(value).partition("=")
        node, dot, key = place.rpartition(".")
        if not node or not dot or not key or not equals:
            self.fail(f"{value!r} is not of the form NODE.ATTR=VALUE", param, ctx)
        return node, key, text


class _Dropout(OptionType):
    """A probability or ``off``."""

    name = "P|off"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Fail unless it is a number or the word."""
        if str(value) == "off":
            return "off"
        try:
            return float(value)
        except ValueError:
            self.fail(f"{value!r} is neither a number nor off", param, ctx)


@click.command("edit")
@click.argument("model")
@click.argument("out", required=False)
@click.option(
    "--rename",
    "renames",
    type=_Pair(),
    multiple=True,
    help="Rename nodes; OLD may hold *, as NEW then does. Nodes of one name are numbered: NEW, NEW_2.",
)
@click.option("--prefix", "prefixes", type=_Pair(), multiple=True, help="Rename all nodes whose name begins with OLD.")
@click.option("--set", "attributes", type=_Attribute(), multiple=True, help="Set an attribute; NODE may be a pattern.")
@click.option("--dropout", type=_Dropout(), help="Probability of all Dropout nodes; off takes them out.")
@click.option("--dry-run", is_flag=True, help="Print what would change and write nothing.")
@surgery_options
def command(
    model: str,
    out: str | None,
    renames: tuple[tuple[str, str], ...],
    prefixes: tuple[tuple[str, str], ...],
    attributes: tuple[tuple[str, str, str], ...],
    dropout: float | str | None,
    dry_run: bool,
    params: str | None,
    epoch: int | None,
    shape: dict[str, tuple[int, ...]],
    force: bool,
) -> None:
    """Change names, attributes or dropout of the symbol MODEL and write it as a bundle at OUT.

    Parameters follow the names of their variables, and a training symbol is changed alike. Unless --set is given
    the result must compute the same, and is compared with the original on random inputs.

    Where several nodes have one name, OLD#2 is the second of them; --rename '*=*' numbers all names that repeat.

    --params and --epoch replace the parameters by others of the same names and shapes, such as those that Module or
    another binding trained on the training symbol of a bundle.
    """
    if out is None and not dry_run:
        raise click.UsageError("Missing argument 'OUT'; --dry-run writes nothing.")
    from bertsym.surgery.edit import Edits, edit
    from bertsym.surgery.formatting import first_lines

    edited = edit(
        model,
        None if dry_run else out,
        Edits(renames, prefixes, attributes, dropout),
        params=params,
        epoch=epoch,
        shapes=shape,
        force=force,
        command=command_line(),
    )
    for change in first_lines(edited.changes, None if dry_run else SHOWN):
        click.echo(escaped(change))
    if edited.written is None:
        click.echo(f"{len(edited.changes)} changes, nothing written", err=True)
    else:
        show_written(edited.written)
