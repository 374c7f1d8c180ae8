"""``bertsym export``."""

from __future__ import annotations

import dataclasses
import shlex
import sys
from typing import TYPE_CHECKING, Any

import click

from bertsym.cli.command import Command, argument, collected, option
from bertsym.cli.model_options import out_argument
from bertsym.cli.options import (
    FILE,
    GUARD,
    TaskChoice,
    force_option,
    form_options,
    literal_special_tokens_option,
    options_of,
)
from bertsym.cli.output import print_lines
from bertsym.cli.running_options import REFERENCE_RTOL, rtol_option, verification_engine_option
from bertsym.encoders.catalogue import FINISHED_HEADS, OUTPUTS
from bertsym.terminal import escaped

if TYPE_CHECKING:
    from bertsym.exporter import ExportOptions, ExportResult
    from bertsym.sources import SourceOptions


def _split_names(ctx: click.Context, param: click.Parameter, value: str | None) -> tuple[str, ...] | None:
    return None if value is None else tuple(name.strip() for name in value.split(","))


def _options(
    output: str | None, cls_slice: bool | None, inputs: tuple[str, ...] | None, **values: Any
) -> ExportOptions:
    from bertsym.exporter import ExportOptions

    if inputs is not None:
        values["inputs"] = inputs
    if cls_slice is not None:
        meant = "cls" if cls_slice else "sequence"
        if output not in (None, meant):
            raise click.UsageError(f"--{'' if cls_slice else 'no-'}cls-slice contradicts --output {output}.")
        output = meant
    return ExportOptions(output, **values)


def _source_options(ignore_weights: tuple[str, ...], labels: str | None, **values: Any) -> SourceOptions:
    from bertsym.sources import SourceOptions
    from bertsym.text.labels import check_labels, read_labels

    class_names = None if labels is None else read_labels(labels)
    check_labels(class_names or ())
    return SourceOptions(ignore_weights=ignore_weights or None, labels=class_names, **values)


class _Source(click.ParamType):  # type: ignore[type-arg, unused-ignore]  # generic since click 8.2
    """A source, completed by its kinds."""

    name = "source"

    def shell_complete(
        self, ctx: click.Context, param: click.Parameter, incomplete: str
    ) -> list[click.shell_completion.CompletionItem]:
        """Complete the kinds of sources."""
        kinds = ("gluonnlp:", "hf:", "params:", "random:", "tf:")
        return [click.shell_completion.CompletionItem(kind) for kind in kinds if kind.startswith(incomplete)]


_EXAMPLES = """\b
Examples:
  bertsym export hf:google-bert/bert-base-uncased out/base --headless
  bertsym export hf:ORG/FINE-TUNED out/classifier
"""


@click.command("export", cls=Command, epilog=_EXAMPLES)
@argument("source", "Pretrained BERT, as above.", type=_Source())
@out_argument
@options_of(
    _options,
    option(
        "--output",
        type=click.Choice(list(OUTPUTS)),
        help="Output of the encoder. cls: the encoding of [CLS]; pooled: BERT's pooler, an error if SOURCE has none; "
        "mean: the mean of the encodings of all tokens but padding. Each has the shape (batch size, units). sequence: "
        "the encodings of all tokens, 0 at padding, of shape (batch size, length, units). Implies --headless.  "
        "[default: cls, if neither a head nor a sentence embedding is exported]",
    ),
    option(
        "--cls-slice/--no-cls-slice",
        default=None,
        help="Same as --output cls / --output sequence; an error with another --output.",
    ),
    option(
        "--task",
        group="Head",
        type=TaskChoice(list(FINISHED_HEADS)),
        help="Add an untrained head that outputs logits, like GluonNLP's export.py: one per class (classification), "
        "one (regression), or start and end for each token (qa). Do not use it before finetune, which adds its own "
        "head.",
    ),
    option(
        "--num-classes",
        group="Head",
        type=click.IntRange(2),
        help="Number of classes; for --task classification only.  [default: 2]",
    ),
    option(
        "--new-head",
        group="Head",
        is_flag=True,
        help="Let --task replace the trained head of SOURCE with an untrained head. An error without --task.",
    ),
    option(
        "--headless",
        group="Head",
        is_flag=True,
        help="Export the encoder alone, without the trained head or sentence embedding of SOURCE.",
    ),
    form_options,
    option(
        "--guard",
        is_flag=True,
        help=GUARD,
    ),
    option(
        "--inputs",
        metavar="[data0,data1,data2|data0,data2]",
        callback=_split_names,
        help="Inputs of the symbol: token ids (data0), token types (data1) and valid_length (data2). Leaving out the "
        "token types is an error if SOURCE has more than one type.  [default: data0,data1,data2]",
    ),
    literal_special_tokens_option("the tokenizer of SOURCE"),
    option(
        "--seed",
        type=click.IntRange(0),
        default=0,
        show_default=True,
        help="Seed of the random weights of --task and of random: sources.",
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
        help="Vocabulary: vocab.txt, or GluonNLP's vocabulary JSON. Required for a params: source; without it, a "
        "random: source splits texts into single characters, and a tf: source has a vocab.txt beside it.",
    ),
    option(
        "--sentencepiece",
        group="Source",
        metavar="FILE",
        type=FILE,
        help="SentencePiece model, in addition to --vocab, for a params: source that uses GluonNLP's BERTSPTokenizer, "
        "such as KoBERT. Without it, the texts of such a model can't be tokenised.",
    ),
    option(
        "--labels",
        group="Source",
        metavar="NAMES|@FILE",
        help="Class names of the trained head of a params: or tf: source, in the order of its outputs: no,yes or @FILE "
        "with one name a line. Required for BERTClassifier and BERTTagger; of a tf: source, they are LABEL_0 and so on "
        "without it.",
    ),
    option(
        "--num-heads",
        group="Source",
        type=click.IntRange(1),
        help="Number of attention heads of a params: source.  [default: 12 for 12 layers of 768 units, 16 for 24 "
        "layers of 1024 units; otherwise required]",
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
        help="Whether to lower-case texts and strip accents; for a params: or tf: source.  [default: --lower-case, "
        "unless a token other than [CLS] and the like has a capital letter]",
    ),
    option(
        "--pad-vocab",
        group="Source",
        is_flag=True,
        default=None,
        help="Accept an hf:, params: or tf: source whose vocabulary has fewer tokens than the token embedding has "
        "rows. Row N without a token, counted from 0, becomes the token [unused row N]. Without this, such a source is "
        "an error.",
    ),
    option(
        "--ignore-weights",
        group="Source",
        metavar="PATTERN",
        multiple=True,
        help="Leave out the weights of an hf:, params: or tf: source whose names match the glob PATTERN, such as "
        "'crf.*'. A weight of the encoder that matches is an error. Repeatable.",
    ),
    option(
        "--cache",
        group="Source",
        metavar="DIR",
        type=FILE,
        help="Folder for the downloads of a gluonnlp: source.  [default: ~/.mxnet/models]",
    ),
)
@rtol_option(f"{REFERENCE_RTOL} Above it, nothing is written.")
@option(
    "--verify/--no-verify",
    group="Verification",
    default=True,
    show_default=True,
    help="Whether to run the bundle and compare its outputs before it is written. --no-verify needs neither mxnet nor "
    "onnxruntime, except for a gluonnlp: source.",
)
@force_option
@verification_engine_option
def command(
    source: str,
    out: str,
    options: ExportOptions,
    source_options: SourceOptions,
    rtol: float,
    verify: bool,
    force: bool,
) -> None:
    """Export a pretrained BERT as a bundle at OUT.

    \b
    A bundle is a set of files. The main ones are
      OUT-symbol.json      graph for inference
      OUT-0000.params      parameters
      OUT-tokenizer.json   tokenizer; its vocabulary is in OUT-vocab.txt and OUT-vocab.json too
      OUT-signature.json   inputs, outputs, task and class names
      OUT-manifest.json    digests of the files, origin and settings

    \b
    SOURCE is one of
      gluonnlp:MODEL/DATASET   GluonNLP's zoo: gluonnlp:bert_12_768_12/book_corpus_wiki_en_uncased
      hf:DIR or hf:ORG/NAME    a Hugging Face model, or ORG/NAME@REVISION for one of its revisions
      params:FILE              a GluonNLP .params file, with --vocab
      tf:DIR or tf:PREFIX      Google's BERT: bert_model.ckpt.index and .data, bert_config.json, vocab.txt
      random:MODEL             random weights for benchmarks: random:bert_LAYERS_UNITS_HEADS

    A Hugging Face model must be a BERT, RoBERTa, XLM-RoBERTa, CamemBERT, DistilBERT, ELECTRA, ERNIE 1.0, ALBERT or
    MPNet. An option under Source is an error for other kinds of SOURCE than those that its text names.

    \b
    What is exported
      no options    the encoder and its trained head or sentence embedding, if SOURCE has one
      --output X    the encoder alone, which outputs X; an error with --task
      --headless    the encoder alone, which outputs the encoding of [CLS]; finetune starts from this
      --task T      the encoder and an untrained head, which reads the pooler (qa: every token);
                    an error if SOURCE has a trained task head; masked LM does not count
      --new-head    with --task, replaces that trained head

    \b
    Trained heads
      hf:      BertForSequenceClassification (single-label, multi-label or regression),
               BertForTokenClassification, BertForQuestionAnswering, BertForMaskedLM, and the same
               classes of other families, such as RobertaForMaskedLM; the masked LM head of
               BertForPreTraining, ErnieForPreTraining and AlbertForPreTraining;
               ElectraForPreTraining is exported as the encoder alone
      tf:      run_classifier.py, run_squad.py, and the masked LM head of pretraining
      params:  GluonNLP's BERTClassifier, BERTRegression, BertForQA, and BERTTagger from its NER script

    A head of any other class, or one that does not fit its config, is an error.

    A sentence-transformers folder (modules.json) is exported with its Pooling, Dense and Normalize modules: the symbol
    ends in the node embedding, (batch size, elements). max_seq_length, do_lower_case, prompts and the similarity
    function are kept too. Any other module is an error. With --output or --headless, the command lists what it leaves
    out, and the options of embed that replace it.

    Every weight of SOURCE must belong to the encoder or to a head, or match --ignore-weights. The command lists the
    heads and other weights that it leaves out. The weights of a tf: source are named as in transformers.

    Before the bundle is written, it is run with the library of --engine, and its outputs are compared with those of a
    reference implementation in numpy that reads SOURCE itself. On any error, nothing is written.
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
    from bertsym.tasks import TASKS
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
        if signature.task in TASKS and signature.trained:
            click.echo(f'next: bertsym predict {shlex.quote(out)} --text "..."')
    elif signature.embedding is not None:
        click.echo(f"  sentence embedding: {signature.embedding}")
        if signature.embedding.prompts:
            click.echo(escaped(f"  prompts: {signature.embedding.describe_prompts()}"))
        click.echo(f"next: bertsym embed {shlex.quote(out)} FILE OUT.npy")
    else:
        click.echo(f"  {OUTPUTS[signature.output]}")
        head = " --task tagging, --task qa or --whole-sequence" if signature.output == "sequence" else ""
        click.echo(f"next: bertsym finetune {shlex.quote(out)} OUT --train FILE --dev FILE{head}")
