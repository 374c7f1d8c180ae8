"""Encode texts and pairs of texts as token ids and token types."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

from bertsym.errors import BertsymError, DataError, UsageError
from bertsym.text.cutting import LONGEST, UncutError
from bertsym.text.pipeline import Pipeline, is_short

WORDPIECE, TOKENIZER_JSON = "wordpiece", "tokenizer.json"
_T = TypeVar("_T")
_CHUNK = 1024  # texts of a chunk, within which a predictor batches texts of similar length
_CHUNK_CHARACTERS = 1 << 20  # characters of a chunk
_TOGETHER = 256  # texts whose untruncated ids are in memory at the same time


def chunks(items: Iterable[_T], characters: Callable[[_T], int]) -> Iterator[list[_T]]:
    """Group items into chunks of bounded size; items before an error are yielded before it is raised."""
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


class Tokenizer:
    """Encodes texts and pairs, truncated longest first to `max_length` tokens."""

    def __init__(self, document: str, where: str, options: TokenizerOptions, max_length: int) -> None:
        """Read the text of a tokenizer document; raises ModelError, which names the file, if it can't be run."""
        self.max_length = max_length
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
        room = self.max_length - self._template.special_tokens(len(columns))
        if room < len(columns):
            shortest = self.max_length - room + len(columns)
            raise UsageError(f"max length {self.max_length} is too short: the minimum is {shortest}")
        found: list[Encoded | DataError] = []
        for start in range(0, len(texts), _TOGETHER):
            ids = [self._ids(column[start : start + _TOGETHER], room + 1) for column in columns]
            found += [self._example(example, room) for example in zip(*ids)]
        return found

    def _ids(self, texts: Sequence[str], count: int) -> list[list[int] | DataError]:
        """Return all token ids of each text, or at least the first `count`."""
        if all(map(is_short, texts)):
            return list(self._pipeline.encode(texts))
        short = iter(self._pipeline.encode([text for text in texts if is_short(text)]))
        return [next(short) if is_short(text) else self._start(text, count) for text in texts]

    def _start(self, text: str, count: int) -> list[int] | DataError:
        try:
            return self._pipeline.encode_start(text, count)
        except UncutError:
            return DataError(
                f"a text of {len(text)} characters is too long for this tokenizer, which can't process it in parts: "
                f"shorten it to {LONGEST} characters"
            )

    def _example(self, texts: Sequence[list[int] | DataError], room: int) -> Encoded | DataError:
        """Build an example of the texts and special tokens; shorten the longer text if both do not fit into `room`."""
        found: list[list[int]] = []
        for ids in texts:
            if isinstance(ids, DataError):
                return ids
            found.append(ids)
        tokens = sum(map(len, found))
        if len(found) == 1:
            found = [found[0][:room]]
        elif tokens > room:
            # The same as removing tokens one by one from the longer text, on ties from the second. The ids of a long
            # text may stop after room + 1 tokens, which gives the same result.
            first, second = found
            first = first[: max(room - room // 2, room - len(second))]
            found = [first, second[: room - len(first)]]
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
        return Encoded(token_ids, token_types, tokens > room, unknown, not all(found))
