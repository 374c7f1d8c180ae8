"""BERT's WordPiece tokenisation, by Hugging Face's ``tokenizers``."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from bertsym.errors import BertsymError, ModelError, UsageError
from bertsym.text.vocabulary import Vocabulary

_T = TypeVar("_T")
_CHUNK = 1024  # texts that are worked on at a time, among which a Predictor batches those of like length
_CHUNK_CHARACTERS = 1 << 20  # with which there are enough


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

    ``kind`` is ``wordpiece``, or the name of a tokenizer that bertsym does not have.
    ``strip_accents`` None means: as ``lower_case``, as in the original BERT. ``segments`` is the number of token types
    that the model has: with one, the second text has that of the first. With ``literal_special_tokens`` words such as
    ``[SEP]`` in a text are text.
    """

    lower_case: bool
    strip_accents: bool | None = None
    split_chinese: bool = True
    kind: str = "wordpiece"
    segments: int = 2
    literal_special_tokens: bool = False


@dataclass(frozen=True)
class Encoded:
    """Token ids of one text or pair with [CLS] and [SEP], and its token types, of one length."""

    token_ids: list[int]
    token_types: list[int]
    truncated: bool
    unknown: int  #: number of [UNK]
    second: int = 0  #: tokens that belong to the second text, its [SEP] too


class Tokenizer:
    """Texts and pairs to token ids, truncated longest first to `max_length` tokens.

    Raises ModelError when the vocabulary is not a WordPiece one.
    """

    def __init__(self, vocabulary: Vocabulary, options: TokenizerOptions, max_length: int) -> None:
        if options.kind != "wordpiece":
            raise ModelError(f"texts for this model need a {options.kind} tokenizer, which bertsym does not have")
        from tokenizers import Tokenizer as Pipeline
        from tokenizers import models, normalizers, pre_tokenizers

        self.max_length = max_length
        self._segments = options.segments
        self._unknown_id, self._cls_id, self._sep_id = map(vocabulary.index, ("[UNK]", "[CLS]", "[SEP]"))
        index = {token: i for i, token in enumerate(vocabulary.tokens)}
        pipeline: Any = Pipeline(models.WordPiece(index, unk_token="[UNK]", max_input_chars_per_word=100))
        pipeline.normalizer = normalizers.BertNormalizer(
            clean_text=True,
            handle_chinese_chars=options.split_chinese,
            strip_accents=options.strip_accents,
            lowercase=options.lower_case,
        )
        pipeline.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
        self._pipeline = pipeline

    def encode(self, texts: Sequence[str], pairs: Sequence[str] | None = None) -> list[Encoded]:
        """Encode texts, or pairs of them. Words such as ``[SEP]`` in a text are text, not special tokens.

        Raises UsageError when it can't fit (max_length below 3 for a text, 5 for a pair).
        """
        # [CLS], and for each text a token and [SEP].
        shortest = 3 if pairs is None else 5
        if self.max_length < shortest:
            raise UsageError(f"max length {self.max_length} is too short, {shortest} is the least")
        encoded = []
        # In chunks: an encoding of tokenizers holds much more than the ids.
        for chunk in chunks(zip(texts, pairs or texts), lambda each: len(each[0]) + len(each[1])):
            first = self._pipeline.encode_batch([text for text, _ in chunk])
            if pairs is None:
                encoded += [self._join(encoding.ids) for encoding in first]
            else:
                second = self._pipeline.encode_batch([pair for _, pair in chunk])
                encoded += [self._join(one.ids, other.ids) for one, other in zip(first, second)]
        return encoded

    def _join(self, first: list[int], second: list[int] | None = None) -> Encoded:
        """[CLS] first [SEP], or [CLS] first [SEP] second [SEP]; the longer one is shortened where both don't fit."""
        room = self.max_length - (2 if second is None else 3)
        tokens = len(first) + len(second or ())
        if second is None:
            first = first[:room]
        elif tokens > room:
            # What remains when tokens are taken from the longer one in turn, from the second one first.
            first = first[: max(room - room // 2, room - len(second))]
            second = second[: room - len(first)]
        start = [self._cls_id, *first, self._sep_id]
        end = [*second, self._sep_id] if second is not None else []
        token_ids = start + end
        token_types = [0] * len(start) + [min(1, self._segments - 1)] * len(end)
        return Encoded(token_ids, token_types, tokens > room, token_ids.count(self._unknown_id), len(end))
