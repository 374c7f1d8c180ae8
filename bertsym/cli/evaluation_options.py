"""What `bertsym evaluate` and `bertsym compare` have in common: FILE, options, events."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any

import click

from bertsym.cli.command import Decorator, argument
from bertsym.cli.options import FILE, json_option, options_of
from bertsym.cli.report_options import only_report_options
from bertsym.cli.run_events import Logs, log_json_option, run_events
from bertsym.cli.running_options import device_option, engine_option, inference_batch_size_option, threads_option
from bertsym.cli.table_options import (
    build_task_options,
    data_dir_option,
    labelled_table_options,
    on_error_option,
    scheme_option,
    split_option,
    stride_option,
    task_option,
)

if TYPE_CHECKING:
    from bertsym.events import EventStream
    from bertsym.inference.evaluate import EvaluateOptions


def _build(scheme: str | None, stride: int | None, **values: Any) -> EvaluateOptions:
    from bertsym.inference.evaluate import EvaluateOptions

    return EvaluateOptions(task_options=build_task_options(scheme=scheme, stride=stride), **values)


def evaluation_options(model: str, unknown_label: str) -> Decorator[Any]:
    """Declare FILE, its format as `table_format`, `options`, `report`, `as_json` and `log_json`.

    `model` is the argument whose data set is found by --data-dir; `unknown_label` describes labels that are errors.
    """
    declared = [
        argument("file", "Labelled table, unless --data-dir is given.", required=False, type=FILE),
        labelled_table_options,
        options_of(
            _build,
            task_option(),
            data_dir_option(f"that --task names, or that {model} was trained on, instead of FILE"),
            split_option("dev"),
            scheme_option,
            stride_option,
            on_error_option(unknown_label=unknown_label),
            inference_batch_size_option,
            device_option,
        ),
        threads_option,
        engine_option,
        only_report_options,
        json_option,
        log_json_option("An existing file is an error, unless --force is given."),
    ]

    def apply(function: Any) -> Any:
        for decorate in reversed(declared):
            function = decorate(function)
        return function

    return apply


def evaluation_events(
    file: str | None, options: EvaluateOptions, bundles: Iterable[str], log_json: str | None, quiet: bool
) -> AbstractContextManager[EventStream]:
    """Return the events of an evaluation; raises UsageError without FILE and a data set's folder."""
    if file is None and options.data_dir is None:
        raise click.UsageError("Missing argument 'FILE', or the folder of a data set as '--data-dir'.")
    force = bool(click.get_current_context().params["replace"])
    return run_events(Logs(log_json), files=[file], bundles=bundles, force=force, quiet=quiet)
