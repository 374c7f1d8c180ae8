"""``bertsym export``."""

from __future__ import annotations

import shlex
import sys
from typing import Any

import click

from bertsym.cli.options import (
    TaskChoice,
    command_line,
    engine_option,
    force_option,
    form_options,
    literal_special_tokens_option,
)
from bertsym.encoders.catalogue import FINISHED_HEADS, OUTPUTS


@click.command("export")
@click.argument("source")
@click.argument("out")
@click.option(
    "--output",
    type=click.Choice(list(OUTPUTS)),
    help="What the symbol ends in: the [CLS] token (default), BERT's pooler, the mean of the valid tokens, each "
    "(N, units); or the whole sequence (N, T, units). Implies --headless.",
)
@click.option("--cls-slice/--no-cls-slice", default=None, help="The same as --output cls, --output sequence.")
@click.option(
    "--task",
    type=TaskChoice(list(FINISHED_HEADS)),
    help="Write a finished, untrained head that ends in logits, as GluonNLP's export.py does.",
)
@click.option("--num-classes", type=click.IntRange(2), help="For --task classification.  [default: 2]")
@click.option("--new-head", is_flag=True, help="With --task, replace a trained task head by an untrained one.")
@click.option("--headless", is_flag=True, help="Export the encoder alone, without the trained head of SOURCE.")
@form_options
@engine_option
@click.option("--guard", is_flag=True, help="Clip the inputs to their ranges in the graph, for callers that don't.")
@literal_special_tokens_option
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True, help="For random: and --task.")
@click.option("--vocab", metavar="FILE", help="For params: and random:, vocab.txt or GluonNLP's vocabulary JSON.")
@click.option("--num-heads", type=click.IntRange(1), help="For params:, the number of attention heads.")
@click.option("--layer-norm-eps", type=float, help="For params:.  [default: 1e-12]")
@click.option("--lower-case/--cased", default=None, help="For params:, by default as the vocabulary looks.")
@click.option("--pad-vocab", is_flag=True, default=None, help="Name embedding rows that the vocabulary lacks.")
@click.option(
    "--ignore-weights",
    metavar="PATTERN",
    multiple=True,
    help="For hf: and params:, glob of names of weights to leave out, such as 'crf.*'; repeatable.",
)
@click.option("--cache", metavar="DIR", help="For gluonnlp:, the folder of downloads.  [default: ~/.mxnet/models]")
@click.option(
    "--rtol",
    type=click.FloatRange(0, min_open=True),
    default=1e-5,
    show_default=True,
    help="Largest difference from the reference encoder, as a fraction of the output's scale.",
)
@click.option("--verify/--no-verify", default=True, help="Compare what is written; without, it is quicker.")
@force_option
def command(
    source: str,
    out: str,
    output: str | None,
    cls_slice: bool | None,
    task: str | None,
    num_classes: int | None,
    new_head: bool,
    headless: bool,
    form: str | None,
    target: str | None,
    guard: bool,
    literal_special_tokens: bool,
    seed: int,
    rtol: float,
    verify: bool,
    force: bool,
    ignore_weights: tuple[str, ...],
    **source_options: Any,
) -> None:
    """Write the BERT of SOURCE as OUT-symbol.json, OUT-0000.params and what belongs to them.

    \b
    SOURCE is one of
      gluonnlp:MODEL/DATASET   GluonNLP's zoo: gluonnlp:bert_12_768_12/book_corpus_wiki_en_uncased
      hf:DIR or hf:ORG/NAME    a Hugging Face BERT with safetensors, ORG/NAME@REVISION for a revision
      params:FILE              a GluonNLP .params file, with --vocab
      random:MODEL             random weights for benchmarks: random:bert_12_768_12

    The files are loaded and run by the engine and compared with a reference encoder, a BERT in numpy, float64,
    that reads SOURCE itself, before they appear at OUT, unless --no-verify; on any error nothing is left.

    The trained head of an hf: model is exported with its encoder: BertForSequenceClassification, of one label, of
    several or a regression; BertForTokenClassification, BertForQuestionAnswering, BertForMaskedLM. A head of another
    class, or one that does not fit its config, is an error. --headless or --output exports the encoder alone and names
    the head that is left out, as for params: always. --task puts an untrained head on the encoder; it is refused where
    SOURCE has a trained task head, unless --new-head replaces that.

    Every weight of SOURCE must belong to the encoder or to a head, or match --ignore-weights. What is not
    exported is listed: weights, which the manifest names too, and the pooling, normalization, max_seq_length and
    prompts of a folder of sentence-transformers.
    """
    if cls_slice is not None:
        meant = "cls" if cls_slice else "sequence"
        if output not in (None, meant):
            raise click.UsageError(f"--{'' if cls_slice else 'no-'}cls-slice contradicts --output {output}.")
        output = meant
    from bertsym.exporter import export
    from bertsym.sources import SourceOptions
    from bertsym.text.labels import abbreviated
    from bertsym.verifier import describe_verification

    if source.startswith("random:"):
        source_options["seed"] = seed
    if ignore_weights:
        source_options["ignore_weights"] = ignore_weights
    result = export(
        source,
        out,
        output=output,
        task=task,
        num_classes=num_classes,
        new_head=new_head,
        headless=headless,
        form=form,
        target=target,
        guard=guard,
        literal_special_tokens=literal_special_tokens,
        seed=seed,
        options=SourceOptions(**source_options),
        rtol=rtol,
        verify=verify,
        force=force,
        command=command_line(),
        progress=lambda text: click.echo(text, err=True) if sys.stderr.isatty() else None,
    )
    bundle = result.bundle
    for note in result.notes:
        click.echo(note)
    for check in result.checks:
        click.echo(f"  {check}")
    signature = bundle.signature
    shape = ", ".join(str(size) for size in signature.output_shape)
    click.echo(
        f"wrote {bundle.prefix}-*, {describe_verification(result.checks)}; "
        f"it ends in {signature.output_name} ({shape}),"
    )
    if bundle.has_head:
        state = "the trained" if signature.trained else "an untrained"
        names = f", classes {abbreviated(signature.class_names)}" if signature.class_names else ""
        click.echo(f"  {state} {signature.task} head on {OUTPUTS[signature.output]}{names}")
        if signature.is_single_label and signature.trained:
            click.echo(f'next: bertsym predict {shlex.quote(out)} --text "..."')
    else:
        click.echo(f"  {OUTPUTS[signature.output]}")
        whole = " --whole-sequence" if signature.output == "sequence" else ""
        click.echo(f"next: bertsym finetune {shlex.quote(out)} OUT --train FILE --dev FILE{whole}")
