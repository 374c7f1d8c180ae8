"""``bertsym edit``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from bertsym.cli.command import Command, collected, option
from bertsym.cli.model_options import bundle_options, model_source, optional_out_argument, sandbox_options
from bertsym.cli.options import OptionType, force_option
from bertsym.cli.output import SHOWN, print_lines, print_written
from bertsym.cli.running_options import no_verify_option, verification_engine_option

if TYPE_CHECKING:
    from bertsym.model import ModelSource
    from bertsym.surgery.bundle_options import BundleOptions
    from bertsym.surgery.edit import Edits


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


def _edits(**values: Any) -> Edits:
    from bertsym.surgery.edit import Edits

    return Edits(**values)


@click.command("edit", cls=Command)
@model_source
@optional_out_argument
@collected(
    "edits",
    _edits,
    option(
        "--rename",
        "renames",
        type=_Pair(),
        multiple=True,
        help="Rename the node OLD, or all nodes that match a pattern with *; NEW then has the same number of *. Nodes "
        "that get the same name are numbered: NEW, NEW_2. Repeatable.",
    ),
    option(
        "--prefix",
        "prefixes",
        type=_Pair(),
        multiple=True,
        help="In all node names that begin with OLD, replace OLD with NEW. Repeatable.",
    ),
    option(
        "--set",
        "attributes",
        type=_Attribute(),
        multiple=True,
        help="Set an attribute of a node. NODE may be a pattern with *. Repeatable.",
    ),
    option(
        "--dropout",
        type=_Dropout(),
        metavar="P|off",
        help="Set the probability of all Dropout nodes to P, and insert nodes where a recognised BERT lacks them: "
        "after the embeddings, the attention probabilities, the attention projections and the feed-forward networks, "
        "and before the last layer of a head. off removes all nodes.",
    ),
)
@option("--dry-run", is_flag=True, help="Print the changes and write nothing; OUT is not needed.")
@bundle_options
@sandbox_options
@force_option
@verification_engine_option
@no_verify_option
def command(
    model: ModelSource, out: str | None, edits: Edits, options: BundleOptions, dry_run: bool, force: bool
) -> None:
    """Change node names, attributes, dropout or parameters of MODEL, and write the result as a bundle at OUT.

    Parameters are renamed with their variables. The training symbol is changed in the same way. Before the result is
    written, it is run beside MODEL on random inputs; unless --set is given, the outputs must be equal.

    OLD#2 is the second node with a repeated name. --rename '*=*' numbers all repeated names. In a BERT, OLD and NODE
    may also be embeddings, 'layer 5', cls, pooled, mean or sequence.

    --params and --epoch replace the parameters of MODEL with others with the same names and shapes, for example those
    that another language binding trained with OUT-train-symbol.json of graft.

    --labels, --vocab and the other options under "Bundle of a BERT" replace what the bundle MODEL has, or turn a symbol
    from another program into a bundle.
    """
    if out is None and not dry_run:
        raise click.UsageError("Missing argument 'OUT'. Only --dry-run works without it.")
    from bertsym.surgery.diff_formatting import first_lines
    from bertsym.surgery.edit import edit

    edited = edit(model, None if dry_run else out, edits, options=options, force=force)
    print_lines(first_lines(edited.changes, None if dry_run else SHOWN))
    if edited.written is None:
        click.echo(f"{len(edited.changes)} changes, nothing written", err=True)
    else:
        print_written(edited.written)
