"""Encode texts and pairs of texts as token ids and token types."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Optional, Protocol, TypeVar

from bertsym.errors import BertsymError, DataError, UsageError
from bertsym.text.alignment import Alignment, Tokens, align, windows
from bertsym.text.cutting import LONGEST, UncutError
from bertsym.text.pipeline import Pipeline, is_short

WORDPIECE, TOKENIZER_JSON = "wordpiece", "tokenizer.json"
_T = TypeVar("_T")
_Count = TypeVar("_Count", int, Optional[int])
CHUNK = 1024  #: texts of a chunk, within which a predictor batches texts of similar length
CHUNK_CHARACTERS = 1 << 20  #: characters of a chunk
_TOGETHER = 256  # texts whose untruncated ids are in memory at the same time


class Chunking(Protocol):
    """Groups items into chunks, in order; `characters` returns the size of an item."""

    def __call__(self, items: Iterable[_T], characters: Callable[[_T], int]) -> Iterator[list[_T]]:
        """Yield lists of one or more items."""


def chunks(items: Iterable[_T], characters: Callable[[_T], int]) -> Iterator[list[_T]]:
    """Group items into chunks of bounded size; items before an error are yielded before it is raised."""
    chunk: list[_T] = []
    size = 0
    try:
        for item in items:
            chunk.append(item)
            size += characters(item)
            if len(chunk) == CHUNK or size >= CHUNK_CHARACTERS:
                yield chunk
                chunk, size = [], 0
    except BertsymError:
        if chunk:
            yield chunk
        raise
    if chunk:
        yield chunk


@dataclass(frozen=True)
class TokenizerOptions:
    """Kind and normalisation of a tokenizer.

    ``kind`` is WORDPIECE for BERT's own pipeline, which the vocabulary and these options define; TOKENIZER_JSON for a
    pipeline that its document defines; or the name of a tokenizer that bertsym does not support. ``model`` is the type
    of the document's model, ``WordPiece``, ``BPE`` or ``Unigram``; None without a document. ``strip_accents`` None
    means the value of ``lower_case``, as in the original BERT. ``segments`` is the number of token types of the model:
    with one, the second text has the token type of the first. With ``literal_special_tokens``, names of special tokens
    such as ``[SEP]`` in a text are plain text. A text with the token ``refused_id`` is an error: it is the padding of a
    model that counts positions from the tokens that are not padding.
    """

    lower_case: bool
    strip_accents: bool | None = None
    split_chinese: bool = True
    kind: str = WORDPIECE
    segments: int = 2
    literal_special_tokens: bool = False
    model: str | None = "WordPiece"
    refused_id: int | None = None

    def describe(self, max_length: int | None, rows: int) -> str:
        """Describe in one line how texts are tokenized into ids of `rows` tokens.

        `max_length` is the model's, None where its texts can't be tokenized.
        """
        case = f", {'lowercase' if self.lower_case else 'cased'}" if self.kind in (WORDPIECE, TOKENIZER_JSON) else ""
        types = f"{self.segments} token type{'s' if self.segments > 1 else ''}"
        limit = f"at most {max_length} tokens" if max_length is not None else "which bertsym does not have"
        name = f"{self.model} ({self.kind})" if self.kind == TOKENIZER_JSON else self.kind
        return f"{name} tokenizer{case}, vocabulary {rows}, {types}, {limit}"


def describe_special_tokens(tokens: Mapping[str, str], ids: Mapping[str, int]) -> str:
    """List special tokens by role, with their ids, in one line."""
    return ", ".join(f"{role} {token} {ids[role]}" for role, token in tokens.items())


@dataclass(frozen=True)
class Encoded:
    """Token ids and token types of one text or pair, with special tokens."""

    token_ids: list[int]
    token_types: list[int]
    truncated: bool
    unknown: int  #: number of [UNK] tokens
    empty: bool = False  #: whether one of the texts has no token
    alignment: Alignment | None = None  #: where the tokens come from, if that was asked for


class Tokenizer:
    """Encodes texts and pairs, truncated longest first to `max_length` tokens."""

    def __init__(self, document: str, where: str, options: TokenizerOptions, max_length: int) -> None:
        """Read the text of a tokenizer document; raises ModelError, which names the file, if it can't be run."""
        self.max_length = max_length
        self.is_wordpiece = options.model == "WordPiece"  #: whether words end at punctuation, not only at white space
        self._segments, self._refused_id = options.segments, options.refused_id
        self._pipeline = Pipeline(document, where, options.literal_special_tokens)
        self._template = self._pipeline.template

    def encode(self, texts: Sequence[str], pairs: Sequence[str] | None = None) -> list[Encoded]:
        """Encode texts, or pairs of texts.

        Raises UsageError if `max_length` has no room for a token of each text (below 3 for a text, 5 for a pair, with
        BERT's special tokens), DataError for a text that is too long to be tokenised in bounded memory.
        """
        encoded = []
        for example in self.encode_each(texts, pairs):
            if isinstance(example, DataError):
                raise example
            encoded.append(example)
        return encoded

    def encode_each(self, texts: Sequence[str], pairs: Sequence[str] | None = None) -> list[Encoded | DataError]:
        """Encode as `encode` does, but return an error in the place of an example that can't be encoded."""
        columns = [texts] if pairs is None else [texts, pairs]
        room = self._room(len(columns))
        found: list[Encoded | DataError] = []
        for start in range(0, len(texts), _TOGETHER):
            ids = [self._ids(column[start : start + _TOGETHER], room + 1) for column in columns]
            found += [self._example(example, room) for example in zip(*ids)]
        return found

    def encode_windows(
        self, texts: Sequence[str], pairs: Sequence[str] | None = None, stride: int | None = None
    ) -> list[list[Encoded] | DataError]:
        """Encode texts or pairs with the `Alignment` of their tokens, a text of any length in overlapping windows.

        Each window has the whole first text of a pair, and as many tokens of the second text (of a single text) as fit;
        the next window begins with the last `stride` of them. The windows are those of transformers' `stride` and
        `return_overflowing_tokens` with the truncation ``only_second`` (``only_first``). Without a stride, texts are
        truncated as `encode` does.
        """
        columns = [texts] if pairs is None else [texts, pairs]
        room = self._room(len(columns))
        found: list[list[Encoded] | DataError] = []
        for start in range(0, len(texts), _TOGETHER):
            tokens = [
                self._tokens(column[start : start + _TOGETHER], None if stride is not None else room + 1)
                for column in columns
            ]
            found += [self._windows(example, room, stride) for example in zip(*tokens)]
        return found

    def encode_words(
        self, texts: Sequence[Sequence[str]], stride: int | None = None
    ) -> list[list[Encoded] | DataError]:
        """Encode texts that are given as lists of words, as `encode_windows` does; offsets are those within a word."""
        room = self._room(1)
        found: list[list[Encoded] | DataError] = []
        for words in texts:
            try:
                tokens: Tokens | DataError = self._pipeline.word_tokens(words)
            except UncutError:
                tokens = _uncut(max(map(len, words)), "word")
            found.append(self._windows([tokens], room, stride))
        return found

    def token(self, number: int) -> str:
        """Return the token of an id, as the vocabulary has it."""
        return self._pipeline.token(number)

    def decode(self, number: int) -> str:
        """Return the text of a single token as transformers decodes it, such as `` the`` in byte-level BPE, ``##s``."""
        return self._pipeline.decode(number)

    def count(self, text: str, number: int) -> int:
        """Return how often a token occurs in a whole text of any length.

        In a text that can't be tokenised in parts, the occurrences of the token's name are counted.
        """
        (tokens,) = self._tokens([text], None)
        return text.count(self.token(number)) if isinstance(tokens, DataError) else list(tokens.ids).count(number)

    def _room(self, texts: int) -> int:
        """Return the number of tokens for one text or two."""
        room = self.max_length - self._template.special_tokens(texts)
        if room < texts:
            shortest = self.max_length - room + texts
            raise UsageError(f"max length {self.max_length} is too short: the minimum is {shortest}")
        return room

    def _ids(self, texts: Sequence[str], count: int) -> list[list[int] | DataError]:
        """Return all token ids of each text, or at least the first `count`."""
        if all(map(is_short, texts)):
            return list(self._pipeline.encode(texts))
        short = iter(self._pipeline.encode([text for text in texts if is_short(text)]))
        return [next(short) if is_short(text) else _start(self._pipeline.encode_start, text, count) for text in texts]

    def _tokens(self, texts: Sequence[str], count: int | None) -> list[Tokens | DataError]:
        """Return all tokens of each text, or at least the first `count`."""
        short = iter(self._pipeline.tokens([text for text in texts if is_short(text)]))
        return [next(short) if is_short(text) else _start(self._pipeline.tokens_start, text, count) for text in texts]

    def _example(self, texts: Sequence[list[int] | DataError], room: int) -> Encoded | DataError:
        """Build an example of the texts and special tokens; shorten the longer text if both do not fit into `room`."""
        found: list[list[int]] = []
        for ids in texts:
            if isinstance(ids, DataError):
                return ids
            found.append(ids)
        tokens = sum(map(len, found))
        return self._filled(
            [ids[part] for ids, part in zip(found, _longest_first([*map(len, found)], room))], tokens > room
        )

    def _windows(self, texts: Sequence[Tokens | DataError], room: int, stride: int | None) -> list[Encoded] | DataError:
        """Build the windows of an example or, without a stride, its truncated texts."""
        found: list[Tokens] = []
        for tokens in texts:
            if isinstance(tokens, DataError):
                return tokens
            found.append(tokens)
        *before, last = found
        left = room - sum(map(len, before))
        if stride is None or len(last) <= left:
            parts = [_longest_first([*map(len, found)], room)]
        elif stride < left:
            parts = [[*(slice(None) for _ in before), part] for part in windows(len(last), left, stride)]
        else:
            reason = f"the stride of {stride} must be lower" if left > 0 else "shorten it"
            first = f"the first text of {len(before[0])} tokens leaves room for {max(0, left)}" if before else f"{left}"
            return DataError(f"{first} tokens in a window of {self.max_length}: {reason}")
        built = []
        for part in parts:
            kept = [text[each] for text, each in zip(found, part)]
            lost = stride is None and sum(map(len, found)) > room
            example = self._filled([text.ids for text in kept], lost)
            if isinstance(example, DataError):
                return example
            built.append(dataclasses.replace(example, alignment=align(self._template.layout(len(kept)), kept)))
        return built

    def _filled(self, found: list[list[int]], truncated: bool) -> Encoded | DataError:
        """Insert token ids of one text or two between the special tokens."""
        if self._refused_id is not None and any(self._refused_id in ids for ids in found):
            token = self._pipeline.token(self._refused_id)
            return DataError(
                f"the text contains the pad token {token!r}, and this model counts positions from the tokens that are "
                "not padding: remove it from the text"
            )
        token_ids, token_types = self._template.fill(found)
        if self._segments == 1:
            token_types = [0] * len(token_types)
        unknown = sum(ids.count(self._pipeline.unknown_id) for ids in found)
        return Encoded(token_ids, token_types, truncated, unknown, not all(found))


def _longest_first(lengths: Sequence[int], room: int) -> list[slice]:
    """Return the part of each text that is kept if their tokens must fit into `room`."""
    if sum(lengths) <= room:
        return [slice(None)] * len(lengths)
    if len(lengths) == 1:
        return [slice(room)]
    # The same as removing tokens one by one from the longer text, on ties from the second. The tokens of a long text
    # may stop after room + 1 tokens, which gives the same result.
    first = min(lengths[0], max(room - room // 2, room - lengths[1]))
    return [slice(first), slice(room - first)]


def _start(encode: Callable[[str, _Count], _T], text: str, count: _Count) -> _T | DataError:
    try:
        return encode(text, count)
    except UncutError:
        return _uncut(len(text), "text")


def _uncut(characters: int, what: str) -> DataError:
    return DataError(
        f"a {what} of {characters} characters is too long for this tokenizer, which can't process it in parts: "
        f"shorten it to {LONGEST} characters"
    )
