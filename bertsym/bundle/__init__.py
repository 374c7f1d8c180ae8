"""The bundle: the files that every command reads or writes, always as one, digested and validated.

========================  =====================================================================
PREFIX-symbol.json        inference symbol, without label; ends in ``softmax_output`` with a classifier
PREFIX-train-symbol.json  only with a head: the same graph ending in its loss, such as SoftmaxOutput ``softmax``
PREFIX-0000.params        exactly the symbol's parameters; ``arg:`` names and float32 in a BERT
PREFIX-tokenizer.json     optional: the tokenizer, as Hugging Face's ``tokenizers`` reads it
PREFIX-vocab.txt          WordPiece vocabulary, a token a line
PREFIX-vocab.json         the same as GluonNLP writes it
PREFIX-card.md            only of a model that was trained or quantized here: its model card
PREFIX-signature.json     inputs, outputs, task, class names, tokenisation, oldest MXNet
PREFIX-manifest.json      SHA-256 and size of each file, source, config, versions, command
========================  =====================================================================
"""

from bertsym.bundle.consistency import check_bert
from bertsym.bundle.files import (
    CARD,
    FILE_NAMES,
    MANIFEST,
    PARAMS,
    SIGNATURE,
    SYMBOL,
    TOKENIZER,
    TRAIN_SYMBOL,
    VOCAB_JSON,
    VOCAB_TXT,
    bundle_paths,
    file_digest,
    file_path,
    json_text,
)
from bertsym.bundle.opening import Bundle, SymbolBundle, has_bundle, open_any, recover_bundle
from bertsym.bundle.writing import BundleContent, SymbolContent, stage_bundle

__all__ = [
    "CARD",
    "FILE_NAMES",
    "MANIFEST",
    "PARAMS",
    "SIGNATURE",
    "SYMBOL",
    "TOKENIZER",
    "TRAIN_SYMBOL",
    "VOCAB_JSON",
    "VOCAB_TXT",
    "Bundle",
    "BundleContent",
    "SymbolBundle",
    "SymbolContent",
    "bundle_paths",
    "check_bert",
    "file_digest",
    "file_path",
    "has_bundle",
    "json_text",
    "open_any",
    "recover_bundle",
    "stage_bundle",
]
