"""Commands whose help is in groups, and decorators that turn several options into one object."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, TypeVar

import click

from bertsym.provenance import recording

Function = TypeVar("Function", bound=Callable[..., Any])
Decorator = Callable[[Function], Function]

#: sections of a command's help after its own options, in this order
GROUPS = (
    "Source",
    "Data",
    "Head",
    "Bundle of a BERT",
    "Encoder form",
    "Optimisation",
    "Quantization",
    "Checkpoints",
    "Distributed training",
    "Reading MODEL",
    "Running",
    "Verification",
    "Untrusted files",
    "Report",
    "Output",
    "General",
)


class Option(click.Option):
    """An option that is listed in a group of the help; without a `group` among the command's own options."""

    def __init__(self, *arguments: Any, group: str | None = None, **settings: Any) -> None:
        super().__init__(*arguments, **settings)
        self.group = group


class Argument(click.Argument):
    """An argument that the help describes."""

    def __init__(self, *declarations: Any, described: str, **settings: Any) -> None:
        super().__init__(*declarations, **settings)
        self.described = described


def argument(name: str, described: str, **settings: Any) -> Decorator[Any]:
    """Declare an argument with its help text."""
    return click.argument(name, cls=Argument, described=described, **settings)


def option(*declarations: str, group: str | None = None, **settings: Any) -> Decorator[Any]:
    """Declare an option in a group of the help."""
    return click.option(*declarations, cls=Option, group=group, **settings)


def group_of(option: click.Parameter) -> str:
    """Return the section of the help that lists an option: a group, or ``Options`` for those of the command itself."""
    general = "General" if {"--help", "--verbose"} & {*option.opts} else "Options"
    return getattr(option, "group", None) or general


class Command(click.Command):
    """A command whose options are listed in groups, and which records its command line in what it writes."""

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """List the arguments, the command's own options, then each group."""
        sections: dict[str, list[tuple[str, str]]] = {name: [] for name in ("Arguments", "Options", *GROUPS)}
        for parameter in self.get_params(ctx):
            if isinstance(parameter, Argument):
                sections["Arguments"].append((parameter.get_usage_pieces(ctx)[0], parameter.described))
            elif (record := parameter.get_help_record(ctx)) is not None:
                sections[group_of(parameter)].append(record)
        for name, records in sections.items():
            if records:
                with formatter.section(name):
                    formatter.write_dl(records)

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command."""
        with recording(command_words(ctx), command_words(ctx, again=True)):
            return super().invoke(ctx)


def collected(name: str, build: Callable[..., Any], *declared: Decorator[Any]) -> Decorator[Any]:
    """Declare options and arguments, and hand over what `build` makes of their values as the parameter `name`."""

    def declare(function: Callable[..., Any]) -> None:
        for decorator in reversed(declared):
            decorator(function)

    def probe() -> None:
        """Hold the declared parameters, to know their names."""

    declare(probe)
    names = [parameter.name for parameter in probe.__click_params__]  # type: ignore[attr-defined]

    def decorate(function: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(function)
        def call(**values: Any) -> Any:
            taken = {key: values.pop(key) for key in names if key in values}
            return function(**{name: build(**taken)}, **values)

        declare(call)
        return call

    return decorate


# They change neither what is written nor where.
_NOT_RECORDED = (
    "force",
    "log_json",
    "tensorboard",
    "report",
    "texts",
    "replace",
    "verbose",
    "checkpoint_steps",
    "keep_checkpoints",
    "resume",
)


def command_words(context: click.Context, again: bool = False) -> list[str]:
    """The given words of a command line: for a manifest, with OUT for the place that is written; or to type `again`."""
    words = ["bertsym", str(context.command.name)]
    for parameter in context.command.params:
        name = str(parameter.name)
        value = context.params.get(name)
        given = context.get_parameter_source(name) is not click.core.ParameterSource.DEFAULT
        if (name in _NOT_RECORDED and not again) or value is None or not given:
            continue
        if isinstance(parameter, click.Option) and parameter.multiple:
            for item in value.items() if isinstance(value, dict) else value:
                words += [parameter.opts[0], _as_given(item)]
            continue
        if isinstance(value, tuple):
            value = ",".join(map(str, value))
        value = "OUT" if name == "out" and not again else str(value)
        if isinstance(parameter, click.Argument):
            words.append(value)
        elif isinstance(parameter, click.Option) and parameter.is_flag:
            words.append(parameter.opts[0] if context.params[name] else parameter.secondary_opts[0])
        else:
            words += [parameter.opts[0], value]
    return words


def _as_given(item: Any) -> str:
    """A value of an option that may be repeated: a word, OLD=NEW, NODE.ATTR=VALUE or NAME=SIZES."""
    if isinstance(item, str):
        return item
    *names, last = item
    return f"{'.'.join(names)}={last if isinstance(last, str) else ','.join(map(str, last))}"
