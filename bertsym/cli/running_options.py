"""Options about running a model and verifying a result: engine, tolerance, device, threads."""

from __future__ import annotations

import os
from typing import Any

import click

from bertsym.cli.command import Decorator, option

RTOL = 1e-5
#: ``--rtol`` where a bundle is compared with the reference encoder
REFERENCE_RTOL = "Tolerance of the comparison: the largest allowed max |output - reference| / max |reference|."


def rtol_option(described: str) -> Decorator[Any]:
    """``--rtol``: the largest difference of what is compared."""
    return option(
        "--rtol",
        group="Verification",
        type=click.FloatRange(0, min_open=True),
        default=RTOL,
        show_default=True,
        help=described,
    )


def _use_engine(context: click.Context, parameter: click.Parameter, name: str | None) -> None:
    if name is not None:
        from bertsym.execution.engines import using_engine

        context.with_resource(using_engine(name, lambda text: click.echo(text, err=True)))


def _engine_option(described: str, group: str, *more: str) -> Decorator[Any]:
    return option(
        "--engine",
        group=group,
        type=click.Choice(["mxnet", "onnxruntime", *more]),
        expose_value=False,
        callback=_use_engine,
        help=f"{described}  [default: mxnet, or onnxruntime where mxnet is not installed]",
    )


engine_option = _engine_option(
    "Library that computes the outputs. onnxruntime runs the graph converted to ONNX, on the CPU.",
    "Running",
)
selecting_engine_option = _engine_option(
    "Library that computes the outputs. onnxruntime runs the graph converted to ONNX, on the CPU. auto: the faster "
    "one, measured once per model, for single texts and for tables, kept in ~/.cache/bertsym, and printed. The "
    "outputs of both agree to about six digits in float32.",
    "Running",
    "auto",
)
verification_engine_option = _engine_option(
    "Library that computes the outputs to compare. onnxruntime runs the graph converted to ONNX. The graph and "
    "parameters that are written do not depend on it.",
    "Verification",
)


def _skip_verification(context: click.Context, parameter: click.Parameter, skip: bool) -> None:
    if skip:
        from bertsym.execution.engines import without_verification

        context.with_resource(without_verification())


no_verify_option = option(
    "--no-verify",
    group="Verification",
    is_flag=True,
    expose_value=False,
    callback=_skip_verification,
    help="Write OUT without running models and comparing their outputs. Needs neither mxnet nor onnxruntime.",
)

device_option = option(
    "--device",
    group="Running",
    default="cpu",
    show_default=True,
    help="Device to compute on: cpu, a GPU such as gpu:0, or several such as gpu:0,1, which share the rows.",
)
inference_batch_size_option = option(
    "--batch-size",
    group="Running",
    type=click.IntRange(1),
    default=32,
    show_default=True,
    help="Maximum number of rows computed together. On a CPU, batches of long texts are smaller.",
)


def _use_threads(context: click.Context, parameter: click.Parameter, number: int | None) -> None:
    if number is not None:
        os.environ["OMP_NUM_THREADS"] = str(number)  # before the import of mxnet, which reads it


threads_option = option(
    "--threads",
    group="Running",
    type=click.IntRange(1),
    expose_value=False,
    callback=_use_threads,
    help="Number of CPU threads.  [default: OMP_NUM_THREADS, or one per processor]",
)
