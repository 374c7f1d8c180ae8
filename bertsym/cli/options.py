"""Options that several commands share."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import click

from bertsym.cli.command import Decorator, collected, option
from bertsym.encoders.forms import FORMS, TARGETS

FILE = click.Path()  #: completed as a file by the shell; whether it exists is checked where it is read


class OptionType(click.ParamType):  # type: ignore[type-arg, unused-ignore]  # generic since click 8.2
    """The base of our own types of options and arguments."""


class TaskChoice(click.Choice):  # type: ignore[type-arg, unused-ignore]  # generic since click 8.2
    """A kind of task, or another word that a command takes in its place; a kind without support is refused by name."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Fail unless the command supports it."""
        from bertsym.datasets.dataset import TASK_KINDS

        if value in TASK_KINDS and value not in self.choices:
            command = ctx.info_name if ctx else "this command"
            self.fail(f"{command} does not support {value!r} yet; it supports {', '.join(self.choices)}.", param, ctx)
        return super().convert(value, param, ctx)


force_option = option(
    "--force", group="Output", is_flag=True, help="Overwrite existing files at OUT. Without this, they are an error."
)
json_option = option("--json", "as_json", group="Output", is_flag=True, help="Print one JSON object.")


def form_options(function: Any) -> Any:
    """Add the form of the encoder that is written, and the MXNet that it is for."""
    described = " ".join(f"{name}: {text}." for name, text in FORMS.items())
    form = option(
        "--form",
        group="Encoder form",
        type=click.Choice(list(FORMS)),
        help=f"Operators that the encoder is written with. {described} All forms accept texts of any length up to the "
        "model's maximum.  [default: portable]",
    )
    target = option(
        "--target-mxnet",
        "target",
        group="Encoder form",
        type=click.Choice(list(TARGETS)),
        help="MXNet version that the symbol is for. For 1.6, 1.8 and 1.9, the symbol uses MXNet's fused GELU operator, "
        "in every form: 1.4 lacks this operator, 1.5 computes wrong gradients with it, and 1.7 inaccurate outputs. "
        "--form gluonnlp is refused for 1.4 and 1.5.  [default: with --form portable, a symbol for every version from "
        "1.4 to 1.9, without the fused operator; with gluonnlp or fast, a symbol for 1.6, 1.8 and 1.9]",
    )
    return form(target(function))


#: ``--guard``, a flag or a pair of flags
GUARD = (
    "Clip the inputs to their valid ranges in the graph, without an error: token ids and token types to the rows of "
    "their embeddings, valid_length to 1 and the number of tokens. Without this, a program that does not check its "
    "inputs can make MXNet access memory out of bounds."
)


def literal_special_tokens_option(default: str) -> Decorator[Any]:
    """``--literal-special-tokens``: whether special tokens in a text are plain text."""
    return option(
        "--literal-special-tokens",
        group="Data",
        is_flag=True,
        help="Treat words such as [SEP] or [MASK] in a text as plain text, not as special tokens. OUT records this, "
        f"and every command follows it.  [default: as in {default}]",
    )


def options_of(build: Callable[..., Any], *declared: Decorator[Any]) -> Decorator[Any]:
    """Declare options and hand them over as one object, `options`."""
    return collected("options", build, *declared)
