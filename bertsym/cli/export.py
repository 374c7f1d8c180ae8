"""``bertsym export``."""

from __future__ import annotations

import dataclasses
import shlex
import sys
from typing import TYPE_CHECKING, Any

import click

from bertsym.cli.command import Command, argument, collected, option
from bertsym.cli.options import (
    FILE,
    TaskChoice,
    engine_option,
    force_option,
    form_options,
    literal_special_tokens_option,
    options_of,
    out_argument,
    rtol_option,
)
from bertsym.cli.output import print_lines
from bertsym.encoders.catalogue import FINISHED_HEADS, OUTPUTS

if TYPE_CHECKING:
    from bertsym.exporter import ExportOptions, ExportResult
    from bertsym.sources import SourceOptions


def _options(output: str | None, cls_slice: bool | None, **values: Any) -> ExportOptions:
    from bertsym.exporter import ExportOptions

    if cls_slice is not None:
        meant = "cls" if cls_slice else "sequence"
        if output not in (None, meant):
            raise click.UsageError(f"--{'' if cls_slice else 'no-'}cls-slice contradicts --output {output}.")
        output = meant
    return ExportOptions(output, **values)


def _source_options(ignore_weights: tuple[str, ...], **values: Any) -> SourceOptions:
    from bertsym.sources import SourceOptions

    return SourceOptions(ignore_weights=ignore_weights or None, **values)


class _Source(click.ParamType):  # type: ignore[type-arg, unused-ignore]  # generic since click 8.2
    """A source, completed by its kinds."""

    name = "source"

    def shell_complete(
        self, ctx: click.Context, param: click.Parameter, incomplete: str
    ) -> list[click.shell_completion.CompletionItem]:
        """Complete the kinds of sources."""
        kinds = ("gluonnlp:", "hf:", "params:", "random:")
        return [click.shell_completion.CompletionItem(kind) for kind in kinds if kind.startswith(incomplete)]


@click.command("export", cls=Command)
@argument("source", "Pretrained BERT, as above.", type=_Source())
@out_argument
@options_of(
    _options,
    option(
        "--output",
        type=click.Choice(list(OUTPUTS)),
        help="Output of the encoder that the symbol ends in. cls: the encoding of [CLS]; pooled: BERT's pooler; mean: "
        "the mean of the valid tokens' encodings; each (N, units). sequence: the encodings of all tokens, "
        "(N, T, units). Implies --headless.  [default: cls, if SOURCE has no trained head]",
    ),
    option(
        "--cls-slice/--no-cls-slice",
        default=None,
        help="Synonyms of --output cls and --output sequence.",
    ),
    option(
        "--task",
        group="Head",
        type=TaskChoice(list(FINISHED_HEADS)),
        help="Add a finished but untrained head for this kind of task, which ends in logits, as GluonNLP's export.py "
        "does.",
    ),
    option(
        "--num-classes",
        group="Head",
        type=click.IntRange(2),
        help="Number of classes of --task classification.  [default: 2]",
    ),
    option(
        "--new-head",
        group="Head",
        is_flag=True,
        help="Allow --task where SOURCE has a trained task head, which is then replaced by the untrained one.",
    ),
    option(
        "--headless",
        group="Head",
        is_flag=True,
        help="Export the encoder alone, without the trained head of SOURCE.",
    ),
    form_options,
    option(
        "--guard",
        is_flag=True,
        help="Clip the inputs to their valid ranges in the graph, for programs that do not check them.",
    ),
    literal_special_tokens_option,
    option(
        "--seed",
        type=click.IntRange(0),
        default=0,
        show_default=True,
        help="Seed of random weights: those of random: sources and of the head of --task.",
    ),
)
@collected(
    "source_options",
    _source_options,
    option(
        "--vocab",
        group="Source",
        metavar="FILE",
        type=FILE,
        help="Vocabulary of a params: or random: source: vocab.txt, or GluonNLP's vocabulary JSON.",
    ),
    option(
        "--num-heads",
        group="Source",
        type=click.IntRange(1),
        help="Number of attention heads of a params: source.  [default: that of the GluonNLP model of this size]",
    ),
    option(
        "--layer-norm-eps",
        group="Source",
        type=float,
        help="Epsilon of the LayerNorms of a params: source.  [default: 1e-12]",
    ),
    option(
        "--lower-case/--cased",
        group="Source",
        default=None,
        help="Whether the texts of a params: source are lower-cased.  [default: lower-cased, unless the vocabulary has "
        "capital letters]",
    ),
    option(
        "--pad-vocab",
        group="Source",
        is_flag=True,
        default=None,
        help="Accept a vocabulary with fewer tokens than the word embedding has rows: name the other rows "
        "[unused row N].",
    ),
    option(
        "--ignore-weights",
        group="Source",
        metavar="PATTERN",
        multiple=True,
        help="Leave out the weights of an hf: or params: source whose names match the glob PATTERN, such as 'crf.*'. "
        "Repeatable.",
    ),
    option(
        "--cache",
        group="Source",
        metavar="DIR",
        type=FILE,
        help="Folder of the downloads of gluonnlp: sources.  [default: ~/.mxnet/models]",
    ),
)
@rtol_option("from the outputs of the reference encoder")
@option(
    "--verify/--no-verify",
    group="Verification",
    default=True,
    show_default=True,
    help="Whether to compare the bundle with the reference encoder before it is written.",
)
@force_option
@engine_option
def command(
    source: str,
    out: str,
    options: ExportOptions,
    source_options: SourceOptions,
    rtol: float,
    verify: bool,
    force: bool,
) -> None:
    """Export a pretrained BERT as a bundle: OUT-symbol.json, OUT-0000.params and more files.

    \b
    SOURCE is one of
      gluonnlp:MODEL/DATASET   GluonNLP's zoo: gluonnlp:bert_12_768_12/book_corpus_wiki_en_uncased
      hf:DIR or hf:ORG/NAME    a Hugging Face BERT with safetensors; ORG/NAME@REVISION for a revision
      params:FILE              a GluonNLP .params file, with --vocab
      random:MODEL             random weights for benchmarks: random:bert_12_768_12

    The files are loaded and run by the engine and compared with a reference encoder, a BERT in numpy that reads SOURCE
    itself, before they appear at OUT. On any error nothing is written.

    The trained head of an hf: model is exported with its encoder: BertForSequenceClassification, of one label, of
    several or a regression; BertForTokenClassification, BertForQuestionAnswering, BertForMaskedLM. A head of another
    class, or one that does not fit its config, is an error. --headless or --output exports the encoder alone and names
    the head that is left out, as params: always does. --task puts an untrained head on the encoder; it is refused
    where SOURCE has a trained task head, unless --new-head replaces that head.

    Every weight of SOURCE must belong to the encoder or to a head, or match --ignore-weights. What is not exported is
    listed: weights, and the pooling, normalization, max_seq_length and prompts of a sentence-transformers folder.
    """
    from bertsym.exporter import export

    if source.startswith("random:"):
        source_options = dataclasses.replace(source_options, seed=options.seed)
    progress = (lambda text: click.echo(text, err=True)) if sys.stderr.isatty() else (lambda text: None)
    result = export(
        source,
        out,
        options,
        source_options=source_options,
        rtol=rtol,
        verify=verify,
        force=force,
        progress=progress,
    )
    _print(result, out)


def _print(result: ExportResult, out: str) -> None:
    from bertsym.text.labels import abbreviate_labels
    from bertsym.verifier import describe_verification

    signature = result.bundle.signature
    print_lines(result.notes)
    print_lines(result.checks, "  ")
    shape = ", ".join(str(size) for size in signature.output_shape)
    verified = describe_verification(result.checks)
    click.echo(f"wrote {result.bundle.prefix}-*, {verified}; output {signature.output_name} ({shape}):")
    if result.bundle.has_head:
        state = "the trained" if signature.trained else "an untrained"
        names = f", classes {abbreviate_labels(signature.class_names)}" if signature.class_names else ""
        click.echo(f"  {state} {signature.task} head on {OUTPUTS[signature.output]}{names}")
        if signature.is_single_label and signature.trained:
            click.echo(f'next: bertsym predict {shlex.quote(out)} --text "..."')
    else:
        click.echo(f"  {OUTPUTS[signature.output]}")
        whole = " --whole-sequence" if signature.output == "sequence" else ""
        click.echo(f"next: bertsym finetune {shlex.quote(out)} OUT --train FILE --dev FILE{whole}")
