"""Options that several commands share, each group handed over as one object."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from click.shell_completion import CompletionItem

from bertsym.cli.command import Decorator, argument, collected, option
from bertsym.encoders.forms import FORMS, TARGETS
from bertsym.encoders.graph_heads import HEADS

if TYPE_CHECKING:
    from bertsym.model import ModelSource
    from bertsym.reports.options import ReportOptions
    from bertsym.surgery.bundle_options import BundleOptions

FILE = click.Path()  #: completed as a file by the shell; whether it exists is checked where it is read
RTOL = 1e-5


class OptionType(click.ParamType):  # type: ignore[type-arg, unused-ignore]  # generic since click 8.2
    """The base of our own types of options and arguments."""


class _ModelType(OptionType):
    """The prefix of a bundle or checkpoint, or the path of a symbol file."""

    name = "model"

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
        """Complete prefixes and the folders beside them; where there are none, let the shell complete files."""
        prefixes = sorted(_prefixes(incomplete))
        if not prefixes:
            return [CompletionItem(incomplete, type="file")]
        return [CompletionItem(prefix) for prefix in prefixes]


def _prefixes(incomplete: str) -> Iterator[str]:
    """The prefixes of symbol files that begin with `incomplete`, and the folders beside them."""
    parent, slash, _ = incomplete.rpartition("/")
    start = f"{parent}{slash}"
    folder = Path(start)
    if not folder.is_dir():
        return
    found = {path.name.removesuffix("-symbol.json") for path in folder.glob("*-symbol.json")}
    found -= {f"{name}-train" for name in found}
    if any(f"{start}{name}".startswith(incomplete) for name in found):
        found |= {f"{path.name}/" for path in folder.iterdir() if path.is_dir()}
        yield from (f"{start}{name}" for name in found if f"{start}{name}".startswith(incomplete))


MODEL = _ModelType()
model_argument = argument(
    "model",
    "Prefix of a bundle that bertsym wrote: out/model stands for out/model-symbol.json and so on.",
    type=MODEL,
)
_OUT = "Prefix of the bundle to write: out/model stands for out/model-symbol.json and so on."
out_argument = argument("out", _OUT, type=FILE)
optional_out_argument = argument("out", _OUT, type=FILE, required=False)


class _ShapeType(OptionType):
    """``NAME=2,16`` as a name and a shape."""

    name = "NAME=SIZES"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Fail unless the sizes are positive."""
        name, equals, sizes = str(value).partition("=")
        parts = [part.strip() for part in sizes.strip("() ").split(",") if part.strip()]
        if not name or not equals or not parts or not all(part.isdigit() and int(part) > 0 for part in parts):
            self.fail(f"{value!r} is not of the form NAME=2,16", param, ctx)
        return name, tuple(int(part) for part in parts)


class TaskChoice(click.Choice):  # type: ignore[type-arg, unused-ignore]  # generic since click 8.2
    """A kind of task, or another word that a command takes in its place; a kind without support is refused by name."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Fail unless the command supports it."""
        from bertsym.datasets.dataset import TASK_KINDS

        if value in TASK_KINDS and value not in self.choices:
            command = ctx.info_name if ctx else "this command"
            self.fail(f"{command} does not support {value!r} yet; it supports {', '.join(self.choices)}.", param, ctx)
        return super().convert(value, param, ctx)


# Writing

force_option = option(
    "--force", group="Output", is_flag=True, help="Overwrite existing files at OUT. Without this, they are an error."
)
json_option = option("--json", "as_json", group="Output", is_flag=True, help="Print one JSON object.")


#: ``--rtol`` where a bundle is compared with the reference encoder
REFERENCE_RTOL = "Tolerance of the comparison: the largest allowed max |output - reference| / max |reference|."


def _report(report: str | None, texts: bool, replace: bool = False) -> ReportOptions | None:
    if report is None:
        if not texts:
            raise click.UsageError("--no-texts is about the report: give --report too.")
        return None
    from bertsym.reports.options import ReportOptions

    return ReportOptions(report, replace, texts)


def replacing(report: ReportOptions | None, force: bool) -> ReportOptions | None:
    """Return how a report is written by a command whose --force is about all that it writes."""
    return report if report is None else dataclasses.replace(report, force=force)


_REPORT = (
    option(
        "--report",
        group="Report",
        metavar="DIR",
        type=FILE,
        help="Write a report to the folder DIR: index.html, a page without network access, its figures, and its "
        "numbers as report.json. Needs pip install 'bertsym[report]'.",
    ),
    option(
        "--no-texts",
        "texts",
        group="Report",
        is_flag=True,
        default=True,
        flag_value=False,
        help="Leave texts of the data, which may be personal, out of the report.",
    ),
)
#: a report as ReportOptions, or None; of a command with --force
report_options = collected("report", _report, *_REPORT)
#: a report of a command that writes nothing else
only_report_options = collected(
    "report",
    _report,
    *_REPORT,
    option(
        "--force",
        "replace",
        group="Output",
        is_flag=True,
        help="Overwrite the report in DIR, and the file of --log-json.",
    ),
)


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


# Reading a model


def _as_dict(context: click.Context, parameter: click.Parameter, values: Any) -> dict[str, tuple[int, ...]]:
    return dict(values)


shape_option = option(
    "--shape",
    "shapes",
    group="Reading MODEL",
    type=_ShapeType(),
    multiple=True,
    callback=_as_dict,
    help="Shape of an input whose shape the graph does not declare, such as data0=2,16, for shape inference and "
    "verification. If a shape is missing, an error names the input. Repeatable.",
)


def _trust(context: click.Context, parameter: click.Parameter, trusted: bool) -> None:
    if trusted:
        from bertsym.execution.sandbox import trusting

        context.with_resource(trusting())


def _allow(context: click.Context, parameter: click.Parameter, operators: tuple[str, ...]) -> None:
    if operators:
        from bertsym.symbol.validation import allowing

        context.with_resource(allowing(*operators))


def sandbox_options(function: Any) -> Any:
    """Add what a symbol of unknown origin may do; both take effect for the whole command."""
    trust = option(
        "--trust",
        group="Untrusted files",
        is_flag=True,
        expose_value=False,
        callback=_trust,
        help="Run MODEL in this process, without the sandbox. By default, only the bundle of a BERT whose files match "
        "its manifest runs in this process. Other symbols run in the sandbox: a separate process, limited to 2 GiB of "
        "memory and 15 seconds per call, and more if the parameters are large.",
    )
    allow = option(
        "--allow-op",
        group="Untrusted files",
        metavar="NAME",
        multiple=True,
        expose_value=False,
        callback=_allow,
        help="Accept the MXNet operator NAME without checking its attributes, inputs and outputs. Without this option, "
        "a symbol with an operator that bertsym can't check is refused, with --trust too. Repeatable.",
    )
    return trust(allow(function))


def _model_source(model: str, params: str | None, epoch: int | None, shapes: dict[str, Any]) -> ModelSource:
    from bertsym.model import ModelSource

    return ModelSource(model, params, epoch, shapes)


#: the argument MODEL with what a symbol file may need besides, as a ModelSource
model_source = collected(
    "model",
    _model_source,
    argument("model", "Prefix of a bundle or of an MXNet checkpoint, or the path of a symbol file.", type=MODEL),
    option(
        "--params",
        group="Reading MODEL",
        metavar="FILE",
        type=FILE,
        help="Parameter file of MODEL, if it is not beside the symbol file.",
    ),
    option(
        "--epoch",
        group="Reading MODEL",
        type=click.IntRange(0),
        help="Epoch of the parameters: 3 reads MODEL-0003.params.  [default: 0 if that file exists, otherwise the "
        "highest]",
    ),
    shape_option,
)


# The bundle of a BERT


def _bundle_options(labels: str | None, **values: Any) -> BundleOptions:
    from bertsym.surgery.bundle_options import BundleOptions
    from bertsym.text.labels import read_labels

    return BundleOptions(labels=None if labels is None else read_labels(labels), **values)


#: what predict needs and a symbol lacks, as BundleOptions
bundle_options = collected(
    "options",
    _bundle_options,
    option(
        "--vocab",
        group="Bundle of a BERT",
        metavar="FILE",
        type=FILE,
        help="WordPiece vocabulary: vocab.txt, or GluonNLP's vocabulary JSON, with one token for each row of the token "
        "embedding. With any option of this group, OUT is the bundle of a BERT, which predict, evaluate and finetune "
        "take: the encoder and the head are written as export writes them, their parameters are renamed, and the "
        "outputs are compared with those of MODEL. An error names what is missing, or the node that no bundle has.",
    ),
    option(
        "--tokenizer",
        group="Bundle of a BERT",
        metavar="FILE",
        type=FILE,
        help="Tokenizer of any kind, in place of --vocab: tokenizer.json, as transformers or bertsym writes it.",
    ),
    option(
        "--sentencepiece",
        group="Bundle of a BERT",
        metavar="FILE",
        type=FILE,
        help="SentencePiece model of GluonNLP's BERTSPTokenizer, such as KoBERT's, in addition to --vocab.",
    ),
    option(
        "--pad-vocab",
        group="Bundle of a BERT",
        is_flag=True,
        help="Accept a vocabulary with fewer tokens than the token embedding has rows. Row N without a token, counted "
        "from 0, becomes the token [unused row N].",
    ),
    option(
        "--lower-case/--cased",
        group="Bundle of a BERT",
        default=None,
        help="Whether to lower-case texts and strip accents; with --vocab, or for a MODEL with a WordPiece vocabulary."
        "  [default: --lower-case, unless a token of --vocab other than [CLS] and the like has a capital letter]",
    ),
    option(
        "--labels",
        group="Bundle of a BERT",
        metavar="NAMES|@FILE",
        help="Class names in the order of the outputs: no,yes or @FILE with one name a line. Required for "
        "classification, multilabel and tagging, unless MODEL has them.",
    ),
    option(
        "--max-length",
        group="Bundle of a BERT",
        type=click.IntRange(1),
        help="Number of tokens to which predict truncates texts.  [default: as in MODEL; its fixed length, or its "
        "positions]",
    ),
    option(
        "--task",
        group="Bundle of a BERT",
        type=TaskChoice(list(HEADS)),
        help="Kind of task of the head of MODEL.  [default: as its outputs show: for each token, qa for two logits, "
        "otherwise tagging; for each text, regression for one output, multilabel after a sigmoid, otherwise "
        "classification]",
    ),
)


# Encoder forms


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


# Running


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
    "one, for single texts and for tables, which is measured once for each model, kept in ~/.cache/bertsym, and "
    "reported. The outputs of the two agree to about six digits in float32.",
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


def options_of(build: Callable[..., Any], *declared: Decorator[Any]) -> Decorator[Any]:
    """Declare options and hand them over as one object, `options`."""
    return collected("options", build, *declared)
