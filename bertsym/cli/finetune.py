"""``bertsym finetune``."""

from __future__ import annotations

import contextlib
import dataclasses
import shlex
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import click

from bertsym.cli.command import Command, collected, command_words, option
from bertsym.cli.model_options import model_argument, out_argument
from bertsym.cli.options import FILE, force_option, options_of
from bertsym.cli.output import print_report
from bertsym.cli.report_options import replacing, report_options
from bertsym.cli.run_events import Logs, log_json_option, run_events, tensorboard_option
from bertsym.cli.running_options import device_option, threads_option
from bertsym.cli.table_options import data_dir_option, training_table_options
from bertsym.cli.training_options import (
    build_options,
    checkpoint_options,
    data_options,
    head_options,
    optimisation_options,
)

if TYPE_CHECKING:
    from bertsym.events import EventStream
    from bertsym.reports.options import ReportOptions
    from bertsym.text.table_format import TableFormat
    from bertsym.training.finetune import FinetuneResult
    from bertsym.training.finetune_options import CheckpointOptions, FinetuneOptions


@dataclass(frozen=True)
class _Tables:
    """The tables of a run, or the folder of a data set."""

    train: str | None
    dev: str | None
    data_dir: str | None

    def files(self, task: str, has_dev_fraction: bool) -> tuple[str, str | None]:
        """Return the training and the dev table; those that are not given are in the folder.

        With a fraction of the training table as dev rows there is no dev table.
        """
        from bertsym.datasets.registry import find_dataset

        def find(split: str, given: str | None) -> str:
            if given is not None:
                return given
            if self.data_dir is None:
                raise click.UsageError(f"Missing option '--{split}', or '--data-dir' with a data set as '--task'.")
            return str(find_dataset(task).find_file(self.data_dir, split))

        if has_dev_fraction and self.dev is None:
            return find("train", self.train), None
        return find("train", self.train), find("dev", self.dev)


@dataclass(frozen=True)
class _Run:
    """How a run is shared and logged."""

    kvstore: str
    log_json: str | None
    tensorboard: str | None
    force: bool


_EXAMPLES = """\b
Examples:
  bertsym finetune out/base out/classifier --train train.tsv --dev dev.tsv
  bertsym finetune out/base out/mrpc --task mrpc --data-dir glue/MRPC
"""


@click.command("finetune", cls=Command, epilog=_EXAMPLES)
@model_argument
@out_argument
@collected(
    "tables",
    _Tables,
    option("--train", group="Data", metavar="FILE", type=FILE, help="Labelled training table."),
    option(
        "--dev",
        group="Data",
        metavar="FILE",
        type=FILE,
        help="Labelled table on which every epoch is evaluated; the parameters with the best --metric are kept.",
    ),
    data_dir_option("that --task names, in place of --train and --dev"),
)
@training_table_options
@collected(
    "run",
    _Run,
    option(
        "--kvstore",
        group="Distributed training",
        type=click.Choice(["local", "dist_sync"]),
        default="local",
        show_default=True,
        help="local: train in this process alone. dist_sync: train together with other processes; DMLC_ROLE and other "
        "environment variables make this process the scheduler, a server or a worker "
        "(docs/how-to/several-machines.md).",
    ),
    log_json_option(
        "With --resume, it is appended to. Otherwise an existing file is an error, unless --force is given."
    ),
    tensorboard_option,
    force_option,
)
@options_of(
    build_options,
    *data_options,
    *optimisation_options,
    *head_options,
    device_option,
    option(
        "--worker-timeout",
        group="Distributed training",
        type=click.FloatRange(0, min_open=True),
        default=60.0,
        show_default=True,
        metavar="SECONDS",
        help="Stop a dist_sync run after this time without a message from another process.",
    ),
)
@threads_option
@report_options
@checkpoint_options
def command(
    model: str,
    out: str,
    tables: _Tables,
    table_format: TableFormat,
    options: FinetuneOptions,
    checkpoints: CheckpointOptions,
    run: _Run,
    report: ReportOptions | None,
) -> None:
    """Fine-tune MODEL for a task, and write it as a bundle at OUT.

    A head is added to the encoder (Dropout, FullyConnected fc-finetune, and the loss) and trained with it. The
    parameters with the best --metric on --dev are kept; ties go to the lower loss.

    \b
    Task            Labels of a row                Loss                            Metrics
      classification  one label                      SoftmaxOutput                   accuracy, f1
      multilabel      any number of labels           LogisticRegressionOutput        micro_f1, macro_f1,
                                                                                     exact_match
      regression      a number                       LinearRegressionOutput          pearson, spearman, mse
      tagging         a tag for each word            SoftmaxOutput                   f1, precision, recall,
                                                                                     accuracy
      qa              an answer in its context       SoftmaxOutput of start and end  f1, exact_match

    The loss of multilabel is the mean over the labels; after training, the threshold of each label is tuned on --dev
    for the best F1 of that label. The loss of regression is half the squared error.

    \b
    Head of MODEL                                What is trained
      none (export --headless or --output)       a new head
      trained head for --task                    this head, if its class names are exactly
                                                 the labels of --train; otherwise an error
      another head, or an untrained head         an error
      (export --task, bertsym graft)
      any of these heads, with --new-head        a new head in its place

    A new classifier reads what the old head read. If that head reads every token, the new one reads [CLS], or with
    --whole-sequence all tokens. A MODEL in int8, or from lower --fold, is an error.

    If --task is a data set, its description defines columns, labels and their order, and the metrics; the first metric
    decides which parameters are kept. --data-dir finds its files.

    Tables are TSV without quoting (as in GLUE), CSV or JSON Lines. For tables without a header, give --no-header and
    column numbers. Both tables must have the same columns, and both a header or neither. If a header is expected and
    the first line is clearly a row, or the reverse, the command stops with an error.

    \b
    Column names that are recognised by default
      text and second text  text, text_pair; sentence1, sentence2; text_a, text_b; question1, question2;
                            premise, hypothesis; question, sentence
      single text           text, sentence, sentence1, text_a, review, question
      label                 label, labels, class, category, target, gold_label

    With --report, a page shows learning curves, the metrics and errors on --dev, the data and the model.

    A checkpoint is written to OUT-checkpoints/checkpoint-STEP after each epoch, and on SIGINT or SIGTERM. Checkpoints
    are deleted when the bundle is written.
    """
    from bertsym.training.distributed_finetune import finetune_distributed
    from bertsym.training.finetune import finetune

    options = dataclasses.replace(options, table_format=table_format, report=replacing(report, run.force))
    train, dev = tables.files(options.task, options.dev_fraction is not None)
    start: Callable[..., FinetuneResult | None] = finetune if run.kvstore == "local" else finetune_distributed
    with _events(model, out, [train, dev], run, is_resumed=checkpoints.resume) as events:
        result = start(
            model, train, dev, out, options=options, checkpoints=checkpoints, on_event=events, force=run.force
        )
    if result is not None:  # None of a server, and of a worker that is not the first
        _print(result, out)
        print_report(report)


@contextlib.contextmanager
def _events(model: str, out: str, tables: list[str | None], run: _Run, is_resumed: bool) -> Iterator[EventStream]:
    """Yield the events of the run; print how to resume it if it is stopped."""
    logs, waits = Logs(run.log_json, run.tensorboard, append=is_resumed), run.kvstore != "local"
    sent = run_events(logs, files=tables, bundles=[model, out], force=run.force, waits=waits)
    with sent as events, _advising(out, run, events, is_resumed):
        yield events


@contextlib.contextmanager
def _advising(out: str, run: _Run, events: EventStream, is_resumed: bool) -> Iterator[None]:
    """Print how to resume a run that is stopped."""
    from bertsym.errors import TrainingStopped
    from bertsym.training.checkpoints import checkpoint_folder

    words = [*command_words(click.get_current_context(), again=True), *([] if is_resumed else ["--resume"])]
    advice = f"resume with: {shlex.join(words)}"
    try:
        yield
    except TrainingStopped as stopped:
        raise TrainingStopped(f"{stopped}; {advice}", stopped.exit_code - 128) from None
    except BaseException as stopped:
        # By a second signal, or one after the last epoch.
        if not isinstance(stopped, Exception) and run.kvstore == "local" and checkpoint_folder(out).exists():
            events.note(f"kept: {checkpoint_folder(out)}; {advice}")
        raise


def _print(result: FinetuneResult, out: str) -> None:
    from bertsym.metrics.classification import format_metrics

    kept = result.kept
    pair = ' --text-pair "..."' if result.bundle.signature.pair else ""
    worst = max(result.checks, key=lambda check: check.relative_difference)
    if result.seeds is not None:
        click.echo(result.seeds)
    click.echo(f"verified: {worst}")
    seed = f"seed {result.seeds.kept}, the best on dev, " if result.seeds is not None else ""
    click.echo(f"wrote {result.bundle.prefix}-*: {seed}epoch {kept.epoch} of {kept.epochs}, step {kept.step}")
    click.echo(format_metrics(kept.metrics))
    click.echo(f'next: bertsym predict {shlex.quote(out)} --text "..."{pair}')
