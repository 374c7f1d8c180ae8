"""GluonNLP's BERTSPTokenizer, of KoBERT: BERT's words, each split by SentencePiece, with the ids of a vocabulary."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bertsym.errors import ModelError
from bertsym.sources.slow_tokenizers.conversion import (
    check_convertible,
    converted_document,
    normalizer_steps,
    scores,
    tokenizer_model,
)
from bertsym.sources.slow_tokenizers.sentencepiece_model import SPACE, UNIGRAM, PieceKind, read_sentencepiece
from bertsym.text.pipeline import Pipeline
from bertsym.text.tokenizer import TOKENIZER_JSON, TokenizerOptions
from bertsym.text.vocabulary import Vocabulary
from bertsym.text.wordpiece import added_token, bert_template

SENTENCEPIECE = "sentencepiece"  #: kind of a tokenizer whose SentencePiece model is missing
_PUNCTUATION = r"\p{P}$+<=>^`|~"  # Unicode's, and all other symbols of ASCII
_CHINESE = (
    r"\x{3400}-\x{4DBF}\x{4E00}-\x{9FFF}\x{F900}-\x{FAFF}\x{20000}-\x{2A6DF}\x{2A700}-\x{2B73F}\x{2B740}-\x{2B81F}"
    r"\x{2B820}-\x{2CEAF}\x{2F800}-\x{2FA1F}"
)


@dataclass(frozen=True)
class VocabularyTokenizer:
    """A tokenizer document with its vocabulary and options."""

    vocabulary: Vocabulary
    options: TokenizerOptions
    document: Mapping[str, Any]


def looks_like_sentencepiece(vocabulary: Vocabulary) -> bool:
    """Whether the tokens are pieces of SentencePiece rather than of WordPiece."""
    starts = [token.startswith(SPACE) for token in vocabulary.tokens]
    return any(starts) and not any(token.startswith("##") for token in vocabulary.tokens)


def convert_gluonnlp(path: Path, vocabulary: Vocabulary, lower_case: bool) -> VocabularyTokenizer:
    """Convert a SentencePiece model to a document that gives the ids of GluonNLP's BERTSPTokenizer.

    Raises ModelError, naming the file, for a damaged model, a model with which a document can't give the same ids, and
    a piece that is not in the vocabulary.
    """
    model = read_sentencepiece(path)
    controls = [piece.text for piece in model.pieces if piece.kind is PieceKind.CONTROL]
    check_convertible(model, controls)
    if model.model_type != UNIGRAM:
        raise ModelError(f"{path}: model type {model.type_name}, GluonNLP's BERTSPTokenizer needs unigram")
    unknown = next((piece for piece in scores(model) if piece not in vocabulary.tokens), None)
    if unknown is not None:
        raise ModelError(f"{path}: piece {unknown!r:.60} is not in the vocabulary of {len(vocabulary)} tokens")
    special = sorted({*vocabulary.special_ids.values()})
    document = {
        **converted_document(
            tokenizer_model(model, vocabulary.tokens, vocabulary.special_tokens["unk"]),
            [*_word_steps(lower_case), *normalizer_steps(model)],
        ),
        "added_tokens": [added_token(vocabulary.tokens[number], number, {"special": True}) for number in special],
        "post_processor": bert_template(vocabulary),
    }
    Pipeline(document, str(path))
    # As in GluonNLP, [MASK] in a text is plain text.
    options = TokenizerOptions(
        lower_case, strip_accents=True, kind=TOKENIZER_JSON, model="Unigram", literal_special_tokens=True
    )
    tokens = Vocabulary(vocabulary.tokens, vocabulary.special_tokens, is_wordpiece=False)
    return VocabularyTokenizer(tokens, options, document)


def _word_steps(lower_case: bool) -> list[dict[str, Any]]:
    """Return the steps of the normalizer that split a text into words, with spaces between them.

    They are steps of the normalizer, because the table of SentencePiece comes after them: `…` is one word, and three
    points after the table. Accents are removed from cased text too, as GluonNLP's extension does.
    """
    return [
        _replace(r"[\x00\x{FFFD}]|(?![\t\n\r])[\p{Cc}\p{Cf}]", ""),
        _isolate(_CHINESE),
        *([{"type": "Lowercase"}] if lower_case else []),
        {"type": "NFD"},
        _replace(r"\p{Mn}", ""),
        _replace(r"\s", " "),
        _isolate(_PUNCTUATION),
    ]


def _replace(pattern: str, content: str) -> dict[str, Any]:
    return {"type": "Replace", "pattern": {"Regex": pattern}, "content": content}


def _isolate(characters: str) -> dict[str, Any]:
    """Insert a space on both sides of the characters of a class.

    Not at the ends of a text: `tokenizers` 0.23.3 panics in the next step after an empty match there.
    """
    return _replace(rf"(?<=[{characters}])(?!\z)|(?<!\A)(?=[{characters}])", " ")
