"""Run a tokenizer document (``tokenizer.json``) with Hugging Face's ``tokenizers``."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.metadata import version
from typing import Any

from bertsym.errors import ModelError
from bertsym.json_reader import JsonValue, json_object
from bertsym.text.components import read_locality
from bertsym.text.cutting import PIECE, Cutter
from bertsym.text.template import Template, read_template
from bertsym.text.tokenizer_model import check_model, model_tokens, unknown_id
from bertsym.text.vocabulary import Vocabulary

_LONGEST_WORD = 1000  # characters; the time of WordPiece grows with the cube of a word's length
_FEW = 8  # fewer texts are encoded faster one by one than by the threads of `tokenizers`
_TOGETHER = 1 << 17  # characters that are encoded at the same time; an encoding is much larger than its ids


class Pipeline:
    """Encodes texts as token ids, without the special tokens that the `template` adds.

    With `literal`, names of special tokens such as ``[SEP]`` in a text are plain text.
    """

    def __init__(self, source: str | dict[str, Any], where: str, literal: bool = False) -> None:
        """Read a document or its text; raises ModelError, which names the file, if it can't be run."""
        text = source if isinstance(source, str) else json.dumps(source)
        document = json_object(text, where)
        model = document["model"]
        tokens = model_tokens(model)
        check_model(model, tokens)
        locality = read_locality(document)
        self.template: Template = read_template(document["post_processor"])
        self._where = where
        with _errors_of_tokenizers(f"{where}: tokenizers can't read it"):
            from tokenizers import Tokenizer

            self._pipeline = Tokenizer.from_str(text)
        _check_added_tokens(document, self._pipeline)
        self._pipeline.no_truncation()
        self._pipeline.no_padding()
        self._pipeline.encode_special_tokens = literal
        self.unknown_id = unknown_id(model, tokens)
        is_wordpiece = model["type"].raw == "WordPiece"
        longest_word = model["max_input_chars_per_word"].integer(1, _LONGEST_WORD) if is_wordpiece else None
        self._cutter = Cutter(self._pipeline, locality, longest_word)

    def encode(self, texts: Sequence[str]) -> list[list[int]]:
        """Encode texts of at most PIECE characters each."""
        if len(texts) < _FEW:
            return [self._ids(text) for text in texts]
        found: list[list[int]] = []
        start = size = 0
        for end, text in enumerate(texts):
            size += len(text)
            if size > _TOGETHER:
                found += self._batch(texts[start:end])
                start, size = end, len(text)
        return found + self._batch(texts[start:])

    def encode_start(self, text: str, count: int) -> list[int]:
        """Encode a text of any length, in bounded memory; return all token ids or at least the first `count`.

        Raises UncutError if the text has LONGEST characters without a place to cut.
        """
        found: list[int] = []
        for piece in self._cutter.pieces(text):
            found += self._ids(piece)
            if len(found) >= count:
                break
        return found

    def token(self, number: int) -> str:
        """Return the token of an id."""
        return str(self._pipeline.id_to_token(number))

    def _ids(self, text: str) -> list[int]:
        with _errors_of_tokenizers(f"{self._where}: tokenizers can't encode a text"):
            ids: list[int] = self._pipeline.encode(text, add_special_tokens=False).ids
        return ids

    def _batch(self, texts: Sequence[str]) -> list[list[int]]:
        # Without offsets, where tokenizers (from 0.20.1 on) can leave them out.
        encode = getattr(self._pipeline, "encode_batch_fast", self._pipeline.encode_batch)
        with _errors_of_tokenizers(f"{self._where}: tokenizers can't encode a text"):
            return [encoding.ids for encoding in encode(texts, add_special_tokens=False)]


def is_short(text: str) -> bool:
    """Whether a text is encoded without cutting."""
    return len(text) <= PIECE


def check_vocabulary(document: JsonValue, vocabulary: Vocabulary) -> None:
    """Raise an error that names the file unless the document's tokens are those of a vocabulary.

    Special tokens of the post-processor are checked too; needs no ``tokenizers``.
    """
    for token, number in document_tokens(document).items():
        if not 0 <= number < len(vocabulary) or vocabulary.tokens[number] != token:
            raise document.fault(f"token {token!r} has the id {number!r:.80}, which differs from the vocabulary")
    _check_template(document, len(vocabulary))


def check_ids(document: JsonValue, rows: int) -> dict[str, int]:
    """Return the document's tokens with their ids; raises an error that names the file for an id without a row.

    Special tokens of the post-processor are checked too; needs no ``tokenizers``.
    """
    tokens = document_tokens(document)
    for token, number in tokens.items():
        if not 0 <= number < rows:
            raise document.fault(f"token {token!r:.60} has the id {number}, but the token embedding has {rows} rows")
    _check_template(document, rows)
    return tokens


def document_tokens(document: JsonValue) -> dict[str, int]:
    """Return the tokens of the model and the added tokens, with their ids."""
    tokens = model_tokens(document["model"])
    for token in document["added_tokens"].elements():
        number, content = token["id"].integer(0), token["content"].text()
        if tokens.setdefault(content, number) != number:
            raise token.fault(f"{content!r:.60} has the id {number}, but {tokens[content]} in the vocabulary")
    return tokens


def _check_template(document: JsonValue, rows: int) -> None:
    template = read_template(document["post_processor"])
    for piece in (*template.single, *template.pair):
        if not isinstance(piece.content, int) and max(piece.content, default=0) >= rows:
            found = max(piece.content)
            raise document["post_processor"].fault(f"id {found} is not in the vocabulary of {rows} tokens")


@contextmanager
def _errors_of_tokenizers(failure: str) -> Iterator[None]:
    """Convert an error of ``tokenizers`` to a ModelError whose message begins with `failure`."""
    try:
        yield
    except BaseException as error:
        # A panic of the library's Rust code is not an Exception.
        if not isinstance(error, Exception) and type(error).__name__ != "PanicException":
            raise
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise ModelError(f"{failure} (version {version('tokenizers')}): {reason}") from None


def _check_added_tokens(document: JsonValue, pipeline: Any) -> None:
    """Raise ModelError unless ``tokenizers`` assigns the document's ids to added tokens."""
    found = {token.content: number for number, token in pipeline.get_added_tokens_decoder().items()}
    for token in document["added_tokens"].elements():
        number = token["id"].integer(0)
        given = found.get(token["content"].text())
        if given != number:
            raise token.fault(f"{token['content'].raw!r} has the id {number}, but tokenizers gives it {given}")
