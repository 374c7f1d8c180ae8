"""Run a tokenizer document (``tokenizer.json``) with Hugging Face's ``tokenizers``."""

from __future__ import annotations

import functools
import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.metadata import version
from typing import Any

import numpy as np

from bertsym.errors import ModelError
from bertsym.json_reader import JsonValue, json_object
from bertsym.text.alignment import Tokens, join_tokens
from bertsym.text.components import read_locality
from bertsym.text.cutting import PIECE, Cutter
from bertsym.text.template import Template, read_template
from bertsym.text.tokenizer_model import check_model, model_tokens, unknown_id
from bertsym.text.vocabulary import Vocabulary, unused_row

_LONGEST_WORD = 1000  # characters; the time of WordPiece grows with the cube of a word's length
_BEFORE_PIECE = "a"  # a word before a piece that begins with a space
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
            return [self._encode(text).ids for text in texts]
        # Without offsets, where tokenizers (from 0.20.1 on) can leave them out.
        encode = getattr(self._pipeline, "encode_batch_fast", self._pipeline.encode_batch)
        return [encoding.ids for encoding in self._batches(texts, encode)]

    def tokens(self, texts: Sequence[str]) -> list[Tokens]:
        """Encode texts of at most PIECE characters each, with offsets."""
        if len(texts) < _FEW:
            return [_tokens(self._encode(text)) for text in texts]
        return [_tokens(encoding) for encoding in self._batches(texts, self._pipeline.encode_batch)]

    def encode_start(self, text: str, count: int) -> list[int]:
        """Encode a text of any length, in bounded memory; return all token ids or at least the first `count`.

        Raises UncutError if the text has LONGEST characters without a place to cut.
        """
        found: list[int] = []
        for piece, _ in self._cutter.pieces(text):
            found += self._encode(piece).ids
            if len(found) >= count:
                break
        return found

    def tokens_start(self, text: str, count: int | None = None) -> Tokens:
        """Encode a text of any length with offsets, as `encode_start`; all of it if `count` is None.

        Raises UncutError if the text has LONGEST characters without a place to cut.
        """
        found: list[Tokens] = []
        size, first = 0, True
        for piece, places in self._cutter.pieces(text):
            # ByteLevel excludes the space before a word from its offsets, but not at the start of a text.
            before = _BEFORE_PIECE if not first and piece.startswith(" ") else ""
            first = False
            tokens = _tokens(self._encode(before + piece))[len(self._encode(before).ids) :]
            starts, ends = (tokens.offsets - len(before)).T
            # Runs may be shortened in a piece: the end of a token is after its last character.
            places = np.append(places, places[-1:] + 1)
            ends = np.where(ends > starts, places[ends - 1] + 1, places[starts])
            found.append(Tokens(tokens.ids, np.stack([places[starts], ends], axis=1).astype(np.int32)))
            size += len(tokens)
            if count is not None and size >= count:
                break
        return join_tokens(found)

    def word_tokens(self, words: Sequence[str]) -> Tokens:
        """Encode a text that is given as its words, as transformers does with ``is_split_into_words``.

        A space is put before each word where the model's words begin with it (transformers' ``add_prefix_space``).
        Raises UncutError if a word has LONGEST characters without a place to cut.
        """
        pipeline = self._of_words
        found: list[Tokens] = []
        start = 0
        while start < len(words):
            end, size = start + 1, len(words[start])
            while end < len(words) and size + len(words[end]) <= PIECE:
                size += len(words[end])
                end += 1
            if size > PIECE:
                tokens = pipeline.tokens_start(words[start])
                numbers = np.zeros(len(tokens), np.int32)
            else:
                encoding = pipeline._encode([*words[start:end]])
                tokens, numbers = _tokens(encoding), np.array(encoding.word_ids, np.int32)
            found.append(Tokens(tokens.ids, tokens.offsets, numbers + np.int32(start)))
            start = end
        return join_tokens([*found, Tokens([], np.zeros((0, 2), np.int32), np.zeros(0, np.int32))])

    def token(self, number: int) -> str:
        """Return the token of an id."""
        return str(self._pipeline.id_to_token(number))

    def decode(self, number: int) -> str:
        """Return the text of a single token; that of an id without a token is its name in the vocabulary."""
        if self._pipeline.id_to_token(number) is None:
            return unused_row(number)
        with _errors_of_tokenizers(f"{self._where}: tokenizers can't decode a token"):
            return str(self._pipeline.decode([number], skip_special_tokens=False))

    @functools.cached_property
    def _of_words(self) -> Pipeline:
        """The pipeline for texts that are split into words."""
        document = json.loads(self._pipeline.to_str())
        words = [step for step in _steps(document["pre_tokenizer"]) if step["type"] == "ByteLevel"]
        if all(step["add_prefix_space"] for step in words):
            return self
        for step in (*words, *_steps(document["post_processor"])):
            if "add_prefix_space" in step:
                step["add_prefix_space"] = True
        return Pipeline(document, self._where, self._pipeline.encode_special_tokens)

    def _encode(self, text: str | list[str]) -> Any:
        with _errors_of_tokenizers(f"{self._where}: tokenizers can't encode a text"):
            return self._pipeline.encode(text, is_pretokenized=not isinstance(text, str), add_special_tokens=False)

    def _batches(self, texts: Sequence[str], encode: Any) -> Iterator[Any]:
        """Yield the encoding of each text; the number of characters that are encoded together is bounded."""
        start = size = 0
        for end, text in enumerate((*texts, "")):
            size += len(text)
            if size > _TOGETHER or end == len(texts):
                with _errors_of_tokenizers(f"{self._where}: tokenizers can't encode a text"):
                    encodings = encode(texts[start:end], add_special_tokens=False)
                yield from encodings
                start, size = end, len(text)


def _tokens(encoding: Any) -> Tokens:
    return Tokens(encoding.ids, np.array(encoding.offsets, np.int32).reshape(-1, 2))


def _steps(component: dict[str, Any] | None) -> list[dict[str, Any]]:
    """List the steps of a pre-tokenizer or a post-processor, as Python's JSON."""
    if component is None:
        return []
    inner = component.get("pretokenizers") or component.get("processors")
    return [step for each in inner for step in _steps(each)] if inner else [component]


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
