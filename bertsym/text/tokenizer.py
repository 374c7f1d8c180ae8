"""Texts and pairs of texts as the token ids and token types of a model."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TypeVar

from bertsym.errors import BertsymError, DataError, UsageError
from bertsym.text.cutting import LONGEST, UncutError
from bertsym.text.pipeline import Pipeline, is_short

WORDPIECE, TOKENIZER_JSON = "wordpiece", "tokenizer.json"
_T = TypeVar("_T")
_CHUNK = 1024  # texts that are worked on at a time, among which a Predictor batches those of like length
_CHUNK_CHARACTERS = 1 << 20  # with which there are enough
_TOGETHER = 256  # texts whose ids are all kept until they are truncated


def chunks(items: Iterable[_T], characters: Callable[[_T], int]) -> Iterator[list[_T]]:
    """Items as they come, as many at a time as memory is meant for; those before an error come before it."""
    chunk: list[_T] = []
    size = 0
    try:
        for item in items:
            chunk.append(item)
            size += characters(item)
            if len(chunk) == _CHUNK or size >= _CHUNK_CHARACTERS:
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
    """How text is normalised before WordPiece.

    ``kind`` is WORDPIECE, BERT's own pipeline, which a vocabulary and these options describe; TOKENIZER_JSON, another
    pipeline, which only its document describes; or the name of a tokenizer that bertsym does not have.
    ``strip_accents`` None means: as ``lower_case``, as in the original BERT. ``segments`` is the number of token types
    that the model has: with one, the second text has that of the first. With ``literal_special_tokens``, words such as
    ``[SEP]`` in a text are text.
    """

    lower_case: bool
    strip_accents: bool | None = None
    split_chinese: bool = True
    kind: str = WORDPIECE
    segments: int = 2
    literal_special_tokens: bool = False

    def describe(self, max_length: int | None) -> str:
        """Describe in one line how texts are tokenized; `max_length` is the model's, None where it can't tokenize."""
        case = f", {'lowercase' if self.lower_case else 'cased'}" if self.kind == WORDPIECE else ""
        types = f"{self.segments} token type{'s' if self.segments > 1 else ''}"
        limit = f"at most {max_length} tokens" if max_length is not None else "which bertsym does not have"
        return f"{self.kind} tokenizer{case}, {types}, {limit}"


@dataclass(frozen=True)
class Encoded:
    """Token ids of one text or pair with its special tokens, and its token types, of one length."""

    token_ids: list[int]
    token_types: list[int]
    truncated: bool
    unknown: int  #: number of [UNK]
    empty: bool = False  #: whether a text has no token


class Tokenizer:
    """Texts and pairs to token ids, truncated longest first to `max_length` tokens."""

    def __init__(self, document: str, where: str, options: TokenizerOptions, max_length: int) -> None:
        """Read the text of a tokenizer document; raises ModelError, naming the file, for one that can't be run."""
        self.max_length = max_length
        self._segments = options.segments
        self._pipeline = Pipeline(document, where, options.literal_special_tokens)
        self._template = self._pipeline.template

    def encode(self, texts: Sequence[str], pairs: Sequence[str] | None = None) -> list[Encoded]:
        """Encode texts, or pairs of them.

        Raises UsageError when they can't fit (`max_length` below 3 for a text, 5 for a pair, with BERT's special
        tokens), DataError for a text that is too long to be tokenised in bounded memory.
        """
        encoded = []
        for example in self.encode_each(texts, pairs):
            if isinstance(example, DataError):
                raise example
            encoded.append(example)
        return encoded

    def encode_each(self, texts: Sequence[str], pairs: Sequence[str] | None = None) -> list[Encoded | DataError]:
        """As `encode`, with the error in the place of an example that can't be encoded."""
        columns = [texts] if pairs is None else [texts, pairs]
        room = self.max_length - self._template.special_tokens(len(columns))
        if room < len(columns):
            shortest = self.max_length - room + len(columns)
            raise UsageError(f"max length {self.max_length} is too short, {shortest} is the least")
        found: list[Encoded | DataError] = []
        for start in range(0, len(texts), _TOGETHER):
            ids = [self._ids(column[start : start + _TOGETHER], room + 1) for column in columns]
            found += [self._example(example, room) for example in zip(*ids)]
        return found

    def _ids(self, texts: Sequence[str], count: int) -> list[list[int] | DataError]:
        """Token ids of each text: all of them, or at least `count`."""
        if all(map(is_short, texts)):
            return list(self._pipeline.encode(texts))
        short = iter(self._pipeline.encode([text for text in texts if is_short(text)]))
        return [next(short) if is_short(text) else self._start(text, count) for text in texts]

    def _start(self, text: str, count: int) -> list[int] | DataError:
        try:
            return self._pipeline.encode_start(text, count)
        except UncutError:
            return DataError(
                f"a text of {len(text)} characters that this tokenizer can't process in parts, at most {LONGEST} "
                "are supported: shorten it"
            )

    def _example(self, texts: Sequence[list[int] | DataError], room: int) -> Encoded | DataError:
        """The special tokens and the texts, the longer one shortened where both do not fit into `room`."""
        found: list[list[int]] = []
        for ids in texts:
            if isinstance(ids, DataError):
                return ids
            found.append(ids)
        tokens = sum(map(len, found))
        if len(found) == 1:
            found = [found[0][:room]]
        elif tokens > room:
            # What remains when tokens are taken from the longer one in turn, from the second one first. A text of
            # more than `room` tokens counts as one of room + 1, which gives the same.
            first, second = found
            first = first[: max(room - room // 2, room - len(second))]
            found = [first, second[: room - len(first)]]
        token_ids, token_types = self._template.join(found)
        if self._segments == 1:
            token_types = [0] * len(token_types)
        unknown = sum(ids.count(self._pipeline.unknown_id) for ids in found)
        return Encoded(token_ids, token_types, tokens > room, unknown, not all(found))
