"""A model's whole tokenizer, run by Hugging Face's ``tokenizers`` from a document in its format."""

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
from bertsym.text.vocabulary import Vocabulary

_LONGEST_WORD = 1000  # characters; WordPiece's time for a word grows with the cube of its length
_FEW = 8  # texts that are encoded sooner one by one than by the threads of `tokenizers`
_TOGETHER = 1 << 17  # characters that are encoded at the same time; an encoding holds much more than the ids


class Pipeline:
    """Token ids of texts, without the special tokens that a `template` adds.

    `literal` takes words such as ``[SEP]`` in a text as text.
    """

    def __init__(self, source: str | dict[str, Any], where: str, literal: bool = False) -> None:
        """Read a document or its text; raises ModelError, naming the file, for one that can't be run."""
        text = source if isinstance(source, str) else json.dumps(source)
        document = json_object(text, where)
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
        model = document["model"]
        self.unknown_id = _unknown_id(model)
        is_wordpiece = model["type"].raw == "WordPiece"
        longest_word = model["max_input_chars_per_word"].integer(1, _LONGEST_WORD) if is_wordpiece else None
        self._cutter = Cutter(self._pipeline, locality, longest_word)

    def encode(self, texts: Sequence[str]) -> list[list[int]]:
        """Token ids of texts of at most PIECE characters each."""
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
        """The first token ids of a text of any length, at least `count` or all; in bounded memory.

        Raises UncutError where the text has LONGEST characters that can't be distinguished from a single word.
        """
        found: list[int] = []
        for piece in self._cutter.pieces(text):
            found += self._ids(piece)
            if len(found) >= count:
                break
        return found

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
    """Whether a text is encoded as it is, without cutting."""
    return len(text) <= PIECE


def check_vocabulary(document: JsonValue, vocabulary: Vocabulary) -> None:
    """Raise an error that names the file unless the document's tokens are those of a vocabulary.

    Special tokens of the post-processor are checked too; needs no ``tokenizers``.
    """
    model = document["model"]["vocab"]
    added = document["added_tokens"].elements()
    tokens = [*model.object().items(), *((token["content"].text(), token["id"].integer(0)) for token in added)]
    for token, number in tokens:
        if type(number) is not int or not 0 <= number < len(vocabulary) or vocabulary.tokens[number] != token:
            raise document.fault(f"token {token!r} has the id {number!r:.80}, which the vocabulary does not give it")
    template = read_template(document["post_processor"])
    for piece in (*template.single, *template.pair):
        if not isinstance(piece.content, int) and max(piece.content, default=0) >= len(vocabulary):
            raise document["post_processor"].fault(f"id {max(piece.content)}, the vocabulary has {len(vocabulary)}")


@contextmanager
def _errors_of_tokenizers(failure: str) -> Iterator[None]:
    """Raise ModelError, which begins with `failure`, for an error of ``tokenizers``."""
    try:
        yield
    except BaseException as error:
        # A panic of the library's Rust code is not an Exception.
        if not isinstance(error, Exception) and type(error).__name__ != "PanicException":
            raise
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise ModelError(f"{failure} (version {version('tokenizers')}): {reason}") from None


def _check_added_tokens(document: JsonValue, pipeline: Any) -> None:
    """Raise ModelError unless ``tokenizers`` gives added tokens the ids that the document says."""
    found = {token.content: number for number, token in pipeline.get_added_tokens_decoder().items()}
    for token in document["added_tokens"].elements():
        number = token["id"].integer(0)
        given = found.get(token["content"].text())
        if given != number:
            raise token.fault(f"{token['content'].raw!r} has the id {number}, but tokenizers gives it {given}")


def _unknown_id(model: JsonValue) -> int:
    """The id of the unknown token; -1 for a model that has none."""
    if model["type"].raw == "Unigram":
        number = model.get("unk_id")
        return -1 if number.is_null else number.integer(0)
    token = model.get("unk_token")
    if token.is_null and model["type"].raw == "BPE":
        return -1
    # Of the model itself: an added token is none that a word can become.
    if token.text() not in model["vocab"]:
        raise token.fault(f"{token.raw!r} is not in the vocabulary")
    return model["vocab"][token.text()].integer(0)
