"""Tokenizers from files of their own: a vocabulary, with a SentencePiece model or not, or a tokenizer.json."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from bertsym.errors import DataError
from bertsym.json_reader import JsonValue, read_json
from bertsym.sources.hugging_face_tokenizer import (
    ADDED,
    CONFIG,
    FAST,
    TOKEN_MAP,
    FoundTokenizer,
    fast_document,
    list_tokens,
    read_tokenizer,
)
from bertsym.sources.slow_tokenizers.bertsp_tokenizer import SENTENCEPIECE, convert_gluonnlp, looks_like_sentencepiece
from bertsym.sources.tokenizer_classes import CLASSES
from bertsym.text.pipeline import Pipeline, document_tokens
from bertsym.text.tokenizer import TokenizerOptions
from bertsym.text.tokenizer_model import MODELS
from bertsym.text.vocabulary import check_vocabulary_size, read_vocabulary
from bertsym.text.wordpiece import bert_document, read_options


def read_vocabulary_tokenizer(
    vocab: str | Path,
    rows: int,
    *,
    lower_case: bool | None = None,
    pad_vocab: bool = False,
    sentencepiece: str | Path | None = None,
) -> FoundTokenizer:
    """Read a WordPiece vocabulary, or one with the SentencePiece model of GluonNLP's BERTSPTokenizer.

    `rows` is the number of rows of the token embedding. With `lower_case` None, the vocabulary decides. The document
    is None for pieces of SentencePiece without their model. Raises DataError or ModelError, naming the file.
    """
    found = read_vocabulary(Path(vocab), rows)
    vocabulary, files = found.vocabulary, tuple(Path(name) for name in (vocab, sentencepiece) if name)
    if pad_vocab:
        vocabulary = vocabulary.padded_to(rows)
    check_vocabulary_size(vocabulary, rows, str(vocab))
    options = TokenizerOptions(not vocabulary.looks_cased if lower_case is None else lower_case)
    if sentencepiece is not None:
        tokenizer = convert_gluonnlp(Path(sentencepiece), vocabulary, options.lower_case)
        document = dict(tokenizer.document)
        return FoundTokenizer(tokenizer.vocabulary, tokenizer.options, document, files, found.notes)
    if looks_like_sentencepiece(vocabulary):
        options = dataclasses.replace(options, kind=SENTENCEPIECE, model=None)
        note = f"{vocab} has SentencePiece pieces: texts can't be tokenised without --sentencepiece FILE"
        return FoundTokenizer(vocabulary, options, None, files, (*found.notes, note))
    return FoundTokenizer(vocabulary, options, bert_document(vocabulary, options), files, found.notes)


def read_document_tokenizer(path: str | Path, rows: int, model_type: str, *, pad_vocab: bool = False) -> FoundTokenizer:
    """Read a tokenizer.json for a token embedding of `rows` rows, with the files of its tokenizer beside it, if any.

    Special tokens are those that the files beside it name or, without such files, the usual ones that it has.
    `model_type` is that of the model in Hugging Face's config.json. Raises DataError or ModelError, naming the file.
    """
    path = Path(path)
    if path.name == FAST and any((path.parent / name).exists() for name in (CONFIG, TOKEN_MAP, ADDED)):
        found = read_tokenizer(path.parent, rows, model_type=model_type)
    else:
        found = _read_alone(path, rows)
    vocabulary = found.vocabulary
    if pad_vocab:
        vocabulary = vocabulary.padded_to(rows)
    check_vocabulary_size(vocabulary, rows, str(path))
    return dataclasses.replace(found, vocabulary=vocabulary)


def _read_alone(path: Path, rows: int) -> FoundTokenizer:
    document = fast_document(read_json(path), MODELS)
    value, notes = JsonValue(document, str(path)), list[str]()
    tokens = document_tokens(value)
    usual = [rule.special_tokens for rule in CLASSES.values() if rule.build is not None]
    fitting = [roles for roles in usual if all(roles[role] in tokens for role in ("pad", "cls", "sep"))]
    if not fitting:
        known = "; ".join(dict.fromkeys(", ".join(roles[role] for role in ("pad", "cls", "sep")) for roles in usual))
        raise DataError(
            f"{path}: has none of the usual tokens for padding, start and end ({known}): name them in {CONFIG} beside "
            f"a file named {FAST}"
        )
    special = {role: token for role, token in fitting[0].items() if token in tokens}
    vocabulary = list_tokens(tokens, special, document["model"]["type"] == "WordPiece", rows, path, notes)
    Pipeline(document, str(path))
    return FoundTokenizer(vocabulary, read_options(value, vocabulary, False), document, (path,), tuple(notes))
