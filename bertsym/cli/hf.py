"""``bertsym hf``."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from bertsym.cli.command import Command, argument, option
from bertsym.cli.model_options import bundle_options, model_source, sandbox_options
from bertsym.cli.options import FILE, force_option
from bertsym.cli.output import note, print_lines
from bertsym.cli.running_options import no_verify_option, verification_engine_option

if TYPE_CHECKING:
    from bertsym.model import ModelSource
    from bertsym.surgery.bundle_options import BundleOptions

_EXAMPLES = """\b
Examples:
  bertsym hf out/classifier out/classifier-hf
  bertsym hf old/model-symbol.json out/old-hf --vocab vocab.txt --labels no,yes
  bertsym finetune out/base out/c --head family --train train.tsv --dev dev.tsv && bertsym hf out/c out/c-hf
"""


@click.command("hf", cls=Command, epilog=_EXAMPLES)
@model_source
@argument("folder", "Folder to write.", type=FILE)
@option(
    "--as",
    "library",
    type=click.Choice(["transformers", "sentence-transformers"]),
    help="Library that loads FOLDER.  [default: sentence-transformers for a sentence embedding, for the output mean, "
    "and for a plain head on cls or mean; otherwise transformers]",
)
@bundle_options
@sandbox_options
@force_option
@verification_engine_option
@no_verify_option
def command(model: ModelSource, folder: str, library: str | None, options: BundleOptions, force: bool) -> None:
    """Write MODEL as a folder that transformers or sentence-transformers loads, with equal outputs.

    MODEL is a bundle, or any symbol whose encoder and head are recognised, such as an export of GluonNLP 0.6 to 0.10. A
    symbol needs --vocab or --tokenizer, and --labels if its outputs are classes: a bundle is made from it first, as by
    lower, and its outputs are compared with those of MODEL.

    The folder has config.json, model.safetensors, the tokenizer and a model card. AutoModel loads an encoder; a head is
    loaded by AutoModelForSequenceClassification, TokenClassification, QuestionAnswering or MaskedLM.

    A sentence-transformers folder also has modules.json, Pooling, Dense and Normalize modules, prompts and
    max_seq_length. SentenceTransformer(FOLDER).encode gives the output of MODEL: its sentence embedding; its output
    cls, pooled or mean; or the logits of its head, if that is one layer on one of these outputs. AutoModel loads the
    encoder of such a folder.

    \b
    Head of MODEL                                    Class with --as transformers
      none                                           Model: last_hidden_state
      finetune --head family, and heads that came    ForSequenceClassification
      from transformers
      GluonNLP's BERTClassifier, BERTRegression      ForSequenceClassification
      finetune on a bundle of export --output        ForSequenceClassification of BERT, ERNIE, ALBERT
      pooled
      finetune --task tagging, qa                    ForTokenClassification, ForQuestionAnswering
      finetune on cls or mean, or --whole-sequence   none: an error

    config.json keeps the task's settings and the maximum length of MODEL, so that bertsym export hf:FOLDER makes a
    bundle that gives the same answers. The folder is read back and compared with MODEL before it appears. An int8 MODEL
    is an error; fused QKV weights (lower --fold) are split again.
    """
    from bertsym.destinations.hugging_face import export_hugging_face
    from bertsym.execution.engines import is_verifying

    done = export_hugging_face(
        model, folder, library=library, options=options, force=force, verify=is_verifying(), progress=note
    )
    for text in done.notes:
        note(text)
    print_lines(done.checks, "  ")
    click.echo(f"wrote {folder}: {done.architecture}, {'verified' if done.checks else 'not verified'}")
