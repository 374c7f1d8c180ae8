"""MODEL and OUT, the options about reading MODEL, and those that make it the bundle of a BERT."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from click.shell_completion import CompletionItem

from bertsym.cli.command import argument, collected, option
from bertsym.cli.options import FILE, OptionType, TaskChoice
from bertsym.encoders.graph_heads import HEADS

if TYPE_CHECKING:
    from bertsym.model import ModelSource
    from bertsym.surgery.bundle_options import BundleOptions


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
        "its manifest runs in this process. Other symbols run in the sandbox, a separate process that is limited to 2 "
        "GiB of memory and 15 seconds per call, or more for large parameters.",
    )
    allow = option(
        "--allow-op",
        group="Untrusted files",
        metavar="NAME",
        multiple=True,
        expose_value=False,
        callback=_allow,
        help="Accept the MXNet operator NAME without checking its attributes, inputs and outputs. Without this "
        "option, a symbol with an operator that bertsym can't check is refused, even with --trust. Repeatable.",
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
        help="WordPiece vocabulary: vocab.txt, or GluonNLP's vocabulary JSON, with one token for each row of the "
        "token embedding. With any option of this group, OUT is the bundle of a BERT, which predict, evaluate and "
        "finetune take: the encoder and the head are written as export writes them, their parameters are renamed, and "
        "the outputs are compared with those of MODEL. An error names a missing option, or a node that a bundle "
        "cannot express.",
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
        help="Class names in the order of the outputs: no,yes or @FILE with one name per line. Required for "
        "classification, multilabel and tagging, unless MODEL has them.",
    ),
    option(
        "--max-length",
        group="Bundle of a BERT",
        type=click.IntRange(1),
        help="Number of tokens to which predict truncates texts.  [default: as in MODEL; otherwise its fixed length, "
        "or its number of positions]",
    ),
    option(
        "--task",
        group="Bundle of a BERT",
        type=TaskChoice(list(HEADS)),
        help="Kind of task of the head of MODEL.  [default: from its outputs. For each token: qa for two logits, "
        "otherwise tagging; for each text: regression for one output, multilabel after a sigmoid, otherwise "
        "classification]",
    ),
)
