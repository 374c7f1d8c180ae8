"""Options of ``bertsym finetune``, by the group of its help, handed over as FinetuneOptions and CheckpointOptions."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from bertsym.cli.command import collected, option
from bertsym.cli.options import literal_special_tokens_option
from bertsym.cli.table_options import (
    on_error_option,
    scheme_option,
    stride_option,
    task_option,
)

if TYPE_CHECKING:
    from bertsym.training.finetune_options import CheckpointOptions, FinetuneOptions


def _parse_seeds(context: click.Context, parameter: click.Parameter, value: str | None) -> tuple[int, ...]:
    if value is None:
        return ()
    try:
        return tuple(int(seed) for seed in value.split(","))
    except ValueError:
        raise click.BadParameter(f"{value!r} is not a list of integers, such as 0,1,2") from None


def build_options(**values: Any) -> FinetuneOptions:
    """Build FinetuneOptions from the values of the options below."""
    from bertsym.tasks.class_weights import parse_class_weights
    from bertsym.tasks.options import TaskOptions
    from bertsym.training.finetune_options import FinetuneOptions

    weights, columns = values.pop("class_weights"), values.pop("label_columns")
    names = ("positive_label", "label_smoothing", "label_delimiter", "scheme", "stride")
    task_options = TaskOptions(
        class_weights=None if weights is None else parse_class_weights(weights),
        label_columns=tuple(name.strip() for name in columns.split(",")) if columns is not None else None,
        **{name: values.pop(name) for name in names},
    )
    return FinetuneOptions(**values, task_options=task_options)


def _checkpoints(checkpoint_steps: int | None, keep_checkpoints: int, resume: bool) -> CheckpointOptions:
    from bertsym.training.finetune_options import CheckpointOptions

    return CheckpointOptions(checkpoint_steps, keep_checkpoints, resume)


data_options = (
    task_option("classification"),
    option(
        "--positive-label",
        group="Data",
        metavar="LABEL",
        help="Classification: positive class of the F1 score.  [default: that of --task, or the last of two labels; "
        "with more labels, F1 is the mean over the classes]",
    ),
    option(
        "--label-delimiter",
        group="Data",
        metavar="TEXT",
        help="Multi-label: separator of the labels in --label-column. In JSON Lines, the labels may also be a list. "
        "An empty cell or list is a row without labels.  [default: ,]",
    ),
    option(
        "--label-columns",
        group="Data",
        metavar="NAME,NAME,...",
        help="Multi-label: columns of 0 and 1, one for each label, instead of --label-column. Their names are the "
        "labels.",
    ),
    on_error_option(unknown_label="whose label in --dev does not occur in --train"),
    option(
        "--max-length",
        group="Data",
        type=int,
        help="Maximum number of tokens of a text or pair, including [CLS] and [SEP]. Longer texts are truncated, the "
        "longer text of a pair first.  [default: 128, for qa 384, or the model's maximum if that is less]",
    ),
    scheme_option,
    stride_option,
    option(
        "--dev-fraction",
        group="Data",
        type=float,
        metavar="FRACTION",
        help="Fraction of the rows of each label in --train to use as dev rows, in place of --dev. --seed selects "
        "them, the same rows for all --seeds; they are not trained on.",
    ),
    literal_special_tokens_option("MODEL"),
)
optimisation_options = (
    option(
        "--epochs",
        group="Optimisation",
        type=int,
        default=3,
        show_default=True,
        help="Number of passes over the training table.",
    ),
    option(
        "--batch-size",
        group="Optimisation",
        type=int,
        default=32,
        show_default=True,
        help="Number of rows per optimisation step, in total over all devices and processes.",
    ),
    option(
        "--accumulate",
        group="Optimisation",
        type=int,
        default=1,
        show_default=True,
        help="Number of parts into which each batch of --batch-size rows is split; their gradients are added. Saves "
        "memory, and does not change the batch size.",
    ),
    option(
        "--lr",
        "learning_rate",
        group="Optimisation",
        type=float,
        help="Peak learning rate, below 1: reached after --warmup, followed by linear decay to 0.  [default: 5e-5; "
        "1e-3 with --freeze-encoder]",
    ),
    option(
        "--warmup",
        group="Optimisation",
        type=float,
        default=0.1,
        show_default=True,
        help="Fraction of all steps, from 0 to 1, used for linear warm-up of the learning rate.",
    ),
    option(
        "--weight-decay",
        group="Optimisation",
        type=float,
        default=0.01,
        show_default=True,
        help="Decoupled weight decay of AdamW. It does not apply to biases or to the LayerNorms' gamma and beta.",
    ),
    option(
        "--layer-decay",
        group="Optimisation",
        type=float,
        default=1.0,
        show_default=True,
        metavar="FACTOR",
        help="Layer-wise decay of the learning rate: layer l of L has the rate --lr * FACTOR^(L - l); the embeddings "
        "count as layer 0; pooler and classifier have the full rate.",
    ),
    option(
        "--clip-norm",
        group="Optimisation",
        type=float,
        default=1.0,
        show_default=True,
        help="Maximum global norm of the gradients; 0 disables clipping.",
    ),
    option(
        "--dropout",
        group="Optimisation",
        type=float,
        help="Dropout probability before the classifier, below 1. The encoder's dropout is that of MODEL.  [default: "
        "0.1; if training continues a head, that head's]",
    ),
    option(
        "--class-weights",
        group="Optimisation",
        metavar="WEIGHTS",
        help="Weights of the classes in the loss, such as no=1,yes=5, or balanced: number of rows / (number of labels "
        "* number of rows with the label), as in scikit-learn. Labels without a weight have weight 1. The loss is "
        "divided by the sum of the weights of the rows, as in PyTorch.  [default: all 1]",
    ),
    option(
        "--label-smoothing",
        group="Optimisation",
        type=float,
        metavar="FRACTION",
        help="Fraction of the target that is spread evenly over all classes in the loss, as in PyTorch.  [default: 0]",
    ),
    option(
        "--seed",
        group="Optimisation",
        type=int,
        default=0,
        show_default=True,
        help="Seed of the head's initial weights, the order of the rows, and dropout.",
    ),
    option(
        "--seeds",
        group="Optimisation",
        metavar="N,N,...",
        callback=_parse_seeds,
        help="Train with each of these seeds in turn, print mean and standard deviation of the metrics on --dev, and "
        "write the model with the best --metric to OUT.",
    ),
    option(
        "--patience",
        group="Optimisation",
        type=int,
        metavar="N",
        help="Stop after N consecutive evaluations without a better --metric, or an equal one with a lower loss.  "
        "[default: all epochs are run]",
    ),
    option(
        "--metric",
        group="Optimisation",
        metavar="NAME",
        help="Metric on --dev that decides which parameters are kept, and when --patience runs out: a metric of the "
        "task, such as accuracy or f1, or loss (lower is better).  [default: the task's first]",
    ),
    option(
        "--eval-steps",
        group="Optimisation",
        type=int,
        metavar="N",
        help="Evaluate on --dev after every N steps, in addition to the end of each epoch.",
    ),
)
head_options = (
    option(
        "--head",
        group="Head",
        type=click.Choice(["plain", "family"]),
        default="plain",
        show_default=True,
        help="Layers of a new head for texts. plain: one layer on the output of MODEL, as in MXNet's Clojure example; "
        "family: the head that the model family has in transformers, so that bertsym hf can write it (for BERT one "
        "layer on the pooler, which needs a bundle of export --output pooled; for RoBERTa and others two layers on "
        "[CLS]).",
    ),
    option("--new-head", group="Head", is_flag=True, help="Replace any head of MODEL with a new classifier."),
    option(
        "--freeze-encoder",
        group="Head",
        is_flag=True,
        help="Train only the classifier, on encodings that are computed once.",
    ),
    option(
        "--freeze-layers",
        group="Head",
        type=int,
        metavar="N",
        help="Do not train the embeddings and the first N layers of the encoder; 0 freezes only the embeddings. Their "
        "gradients are not computed, which saves time and memory; their dropout stays active.  [default: all are "
        "trained]",
    ),
    option(
        "--whole-sequence",
        group="Head",
        is_flag=True,
        help="Make the classifier read the encodings of all tokens, flattened, as MXNet's Clojure example does. "
        "Required for a bundle of export --output sequence; possible with --new-head for a head that reads every "
        "token. All texts are padded to exactly --max-length, in prediction too.",
    ),
)
checkpoint_options = collected(
    "checkpoints",
    _checkpoints,
    option(
        "--checkpoint-steps",
        group="Checkpoints",
        type=int,
        metavar="N",
        help="Write a checkpoint every N steps, in addition to the checkpoint after each epoch.",
    ),
    option(
        "--keep-checkpoints",
        group="Checkpoints",
        type=int,
        default=1,
        show_default=True,
        metavar="K",
        help="Number of checkpoints to keep; older ones are deleted.",
    ),
    option(
        "--resume",
        group="Checkpoints",
        is_flag=True,
        help="Resume from the newest checkpoint in OUT-checkpoints, or start from the beginning if there is none. "
        "Needs the same MODEL, tables, training options and library versions. In one process on a CPU, the result is "
        "byte-identical to that of an uninterrupted run. Without this, existing checkpoints are an error; --force "
        "deletes them.",
    ),
)
