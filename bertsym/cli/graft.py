"""``bertsym graft``."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING, Any

import click

from bertsym.cli.command import Command, collected, option
from bertsym.cli.model_options import bundle_options, model_source, out_argument, sandbox_options
from bertsym.cli.options import TaskChoice, force_option
from bertsym.cli.output import print_written
from bertsym.cli.running_options import no_verify_option, verification_engine_option
from bertsym.encoders.graph_heads import HEADS
from bertsym.errors import UsageError

if TYPE_CHECKING:
    from bertsym.model import ModelSource
    from bertsym.surgery.bundle_options import BundleOptions
    from bertsym.surgery.graft import NewHead

_NO_HEAD = "none"


def _new_head(kind: str, num_classes: int | None, **settings: Any) -> NewHead | None:
    from bertsym.surgery.graft import NewHead

    if kind != _NO_HEAD:
        return NewHead(kind, num_classes, **settings)
    if num_classes is not None:
        raise UsageError("--head none removes a head: omit --num-classes")
    return None


@click.command("graft", cls=Command)
@model_source
@out_argument
@collected(
    "head",
    _new_head,
    option(
        "--head",
        "kind",
        type=TaskChoice([*HEADS, _NO_HEAD]),
        default="classification",
        show_default=True,
        help="Kind of the new head, as in the table above. none removes the head of MODEL.",
    ),
    option(
        "--num-classes",
        type=int,
        help="Number of outputs of the head; always 2 for qa.  [default: 2; 1 for regression]",
    ),
    option(
        "--dropout",
        type=float,
        default=0.1,
        show_default=True,
        help="Probability of the Dropout in the head, which is active in training only.",
    ),
    option(
        "--seed",
        type=click.IntRange(0),
        default=0,
        show_default=True,
        help="Seed of the head's random weights.",
    ),
)
@option(
    "--at",
    metavar="NODE",
    help="Node whose output the head reads: a name from inspect --nodes, NAME:1 for its second output, 'layer 5' for "
    "the output of encoder layer 5, counted from 0, or sequence, cls, pooled or mean.  [default: the output of MODEL; "
    "an error if it has several]",
)
@option(
    "--cls-slice",
    is_flag=True,
    help="Make a classification, multilabel or regression head read position 0, [CLS], of a node of shape (N, T, "
    "units). Without this, these heads need a node of shape (N, units).",
)
@bundle_options
@sandbox_options
@force_option
@verification_engine_option
@no_verify_option
def command(
    model: ModelSource,
    out: str,
    head: NewHead | None,
    at: str | None,
    cls_slice: bool,
    options: BundleOptions,
    force: bool,
) -> None:
    """Add an untrained head to MODEL, or remove its head, and write the result as a bundle at OUT.

    The head consists of Dropout, FullyConnected fc-finetune, and an output or loss from the table. OUT-symbol.json is
    for inference. OUT-train-symbol.json ends in the loss, for Module.fit in Python or another language binding.

    \b
    --head          reads            inference        loss in training          label
    classification  (N, units)       softmax (N, C)   SoftmaxOutput             softmax_label (N,)
    multilabel      (N, units)       sigmoid (N, C)   LogisticRegressionOutput  sigmoid_label (N, C)
    regression      (N, units)       values (N, C)    LinearRegressionOutput    regression_label (N, C)
    tagging         (N, T, units)    softmax          SoftmaxOutput, ignores    softmax_label (N, T)
                                     (N, T, C)        the label -1
    qa              (N, T, units)    logits           SoftmaxOutput for start   start_label (N,),
                                     (N, T, 2)        and end, over tokens;     end_label (N,)
                                                      the loss is their mean

    N texts, T tokens, C outputs (--num-classes). A MODEL that already has a head is an error: remove the head first
    with --head none, or name a node upstream of it with --at.

    With --vocab or --tokenizer, a symbol from another program becomes the bundle of a BERT.
    """
    from bertsym.surgery.graft import graft_head, remove_head

    if head is None:
        if at is not None or cls_slice:
            raise UsageError("--head none removes a head: omit --at and --cls-slice")
        print_written(remove_head(model, out, options=options, force=force))
        return
    print_written(graft_head(model, out, head, at=at, cls_slice=cls_slice, options=options, force=force))
    out = shlex.quote(out)
    click.echo(f"next: fit {out}-train-symbol.json with {out}-0000.params, and save the parameters under another name;")
    click.echo(f"  bertsym edit {out} OUT --params TRAINED.params makes a bundle of the result")
