"""``bertsym finetune``."""

from __future__ import annotations

import contextlib
import shlex
from pathlib import Path
from typing import Any

import click

from bertsym.cli.options import (
    command_line,
    device_option,
    drop_label_option,
    force_option,
    literal_special_tokens_option,
    on_error_option,
    table_format,
    table_options,
    task_option,
    threads_option,
)


@click.command("finetune")
@click.argument("model")
@click.argument("out")
@click.option("--train", required=True, metavar="FILE", help="Training table.")
@click.option("--dev", required=True, metavar="FILE", help="Table that decides which epoch is kept.")
@task_option("classification")
@table_options
@drop_label_option
@on_error_option("At a row of either table that can't be read: stop, or report it and leave it out.")
@click.option("--epochs", type=int, default=3, show_default=True, help="Number of passes over the training table.")
@click.option("--batch-size", type=int, default=32, show_default=True, help="Rows per step.")
@click.option(
    "--accumulate", type=int, default=1, show_default=True, help="Passes for a batch: more of them need less memory."
)
@click.option(
    "--lr", "learning_rate", type=float, help="Peak learning rate.  [default: 5e-5; 1e-3 with --freeze-encoder]"
)
@click.option("--warmup", type=float, default=0.1, show_default=True, help="Part of the steps in which it rises.")
@click.option(
    "--weight-decay", type=float, default=0.01, show_default=True, help="Decoupled; not on bias, gamma, beta."
)
@click.option("--clip-norm", type=float, default=1.0, show_default=True, help="Global norm of gradients; 0: none.")
@click.option(
    "--dropout", type=float, help="Dropout probability in the head.  [default: 0.1, or that of the continued head]"
)
@click.option("--new-head", is_flag=True, help="Replace the head of MODEL by a new one.")
@click.option(
    "--max-length", type=int, help="Tokens; longer texts are truncated.  [default: 128, or the model's positions]"
)
@click.option(
    "--seed", type=int, default=0, show_default=True, help="Seed of the head's weights, the row order and dropout."
)
@click.option("--patience", type=int, help="Stop after so many epochs that were not better on dev.")
@literal_special_tokens_option
@click.option("--freeze-encoder", is_flag=True, help="Train the head only, on encodings that are computed once.")
@click.option(
    "--whole-sequence",
    is_flag=True,
    help="Flatten the whole sequence into the classifier, as MXNet's Clojure example did: locked to --max-length.",
)
@device_option
@threads_option
@click.option(
    "--checkpoint-steps", type=int, metavar="N", help="Write a checkpoint every N steps, besides each epoch's."
)
@click.option(
    "--keep-checkpoints", type=int, default=1, show_default=True, metavar="K", help="Of the newest checkpoints."
)
@click.option("--resume", is_flag=True, help="Go on from the newest checkpoint in OUT-checkpoints, to the same bytes.")
@click.option(
    "--kvstore",
    type=click.Choice(["local", "dist_sync"]),
    default="local",
    show_default=True,
    help="dist_sync: train with other processes; the DMLC_* variables give the role of each "
    "(docs/how-to/several-machines.md).",
)
@click.option(
    "--worker-timeout",
    type=click.FloatRange(0, min_open=True),
    default=60.0,
    show_default=True,
    metavar="SECONDS",
    help="With dist_sync: when a process that is not heard is given up, and the run.",
)
@click.option("--log-json", metavar="FILE", help="Write one JSON object a line, per step group and per epoch.")
@force_option
def command(
    model: str,
    train: str,
    dev: str,
    out: str,
    kind: str | None,
    header: bool | None,
    text_column: str | None,
    pair_column: str | None,
    label_column: str | None,
    drop_labels: tuple[str, ...],
    checkpoint_steps: int | None,
    keep_checkpoints: int,
    resume: bool,
    kvstore: str,
    log_json: str | None,
    force: bool,
    **settings: Any,
) -> None:
    """Graft Dropout, FullyConnected fc-finetune and SoftmaxOutput softmax onto the bundle MODEL and fit.

    A trained classifier MODEL is continued where its class names are the labels of the training table. Any other head
    is an error, unless --new-head replaces it; a head that reads every token is replaced by one on the [CLS] token.

    Tables are TSV (as GLUE publishes it: no quoting), CSV or JSON Lines. Without --task and columns, the
    usual header names are found: text or sentence1, text_pair or sentence2, label. Both tables are read with the
    same columns, and both with or both without a header: without one give --no-header and column numbers. Where
    the first line contradicts that, the command stops. The manifest has the numbers of rows that were left out.

    Checkpoints are written to OUT-checkpoints/checkpoint-STEP after each epoch, and after SIGINT or SIGTERM. They
    are removed when the bundle is there.
    """
    from bertsym.training.options import CheckpointOptions, FinetuneOptions

    tables = table_format(kind, header, text_column, pair_column, label_column, drop_labels)
    options = FinetuneOptions(**settings, table_format=tables)
    checkpoints = CheckpointOptions(checkpoint_steps, keep_checkpoints, resume)

    from bertsym.bundle import bundle_paths
    from bertsym.errors import TrainingStopped
    from bertsym.inference.metrics import format_metrics
    from bertsym.training.checkpoints import checkpoint_folder
    from bertsym.training.distributed import finetune_distributed
    from bertsym.training.finetune import finetune
    from bertsym.training.progress import JsonProgress, Progress, ProgressGroup, TextProgress

    with contextlib.ExitStack() as stack:
        text = TextProgress()
        receivers: list[Progress] = [text]
        if log_json:
            taken = [
                Path(train),
                Path(dev),
                *(path for target in (model, out) if Path(target).name for path in bundle_paths(Path(target))),
            ]
            if Path(log_json).resolve() in [path.resolve() for path in taken]:
                raise click.UsageError(f"--log-json {log_json} would overwrite a file of this run.")
            log = JsonProgress(log_json, force, append=resume, on_failure=text.note)
            receivers.append(stack.enter_context(contextlib.closing(log)))
        progress = ProgressGroup(receivers)
        try:
            result = (finetune if kvstore == "local" else finetune_distributed)(
                model,
                train,
                dev,
                out,
                options=options,
                checkpoints=checkpoints,
                progress=progress,
                force=force,
                command=command_line(),
            )
        except TrainingStopped as stopped:
            raise TrainingStopped(f"{stopped}; {_go_on(resume)}", stopped.exit_code - 128) from None
        except BaseException as stopped:
            # By a second signal, or one when all epochs were made.
            if not isinstance(stopped, Exception) and kvstore == "local" and checkpoint_folder(out).exists():
                text.note(f"kept: {checkpoint_folder(out)}; {_go_on(resume)}")
            raise
    if result is None:  # a server, or not the first worker
        return
    pair = ' --text-pair "..."' if result.bundle.signature.pair else ""
    worst = max(result.checks, key=lambda check: check.relative_difference)
    click.echo(f"verified: {worst}")
    click.echo(f"wrote {result.bundle.prefix}-*: epoch {result.kept.epoch} of {len(result.epochs)}")
    click.echo(format_metrics(result.kept.metrics))
    click.echo(f'next: bertsym predict {shlex.quote(out)} --text "..."{pair}')


def _go_on(resume: bool) -> str:
    """How the run that was stopped goes on."""
    return f"go on with: {shlex.join([*command_line(again=True), *([] if resume else ['--resume'])])}"
