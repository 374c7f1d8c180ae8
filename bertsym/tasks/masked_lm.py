"""Masked words: the most probable words in place of each mask token of a text."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from bertsym.array import Array
from bertsym.errors import DataError, ModelError, UsageError
from bertsym.json_reader import JsonValue
from bertsym.reports.assessment import Assessment, ExampleRows
from bertsym.reports.blocks import Bars, Histogram
from bertsym.tasks.table_task import TableTask, Windows, encode_truncated
from bertsym.tasks.task import Example, Examples, Reading, Targets
from bertsym.text.tables import Row
from bertsym.text.tokenizer import Encoded

TOP_K = 5  #: words that a prediction lists for each mask


@dataclass(frozen=True)
class MaskedWord:
    """A word in place of a mask: its text as the tokenizer decodes it, its token id, and its probability."""

    token: str
    id: int
    probability: float


@dataclass(frozen=True)
class MaskPrediction:
    """The most probable words in place of each mask of a text, in the order of the masks, the best word first."""

    masks: tuple[tuple[MaskedWord, ...], ...]
    truncated: bool = False

    def agrees(self, other: MaskPrediction) -> bool:
        """Whether another prediction has the same best word in place of each mask."""
        return [words[0].id for words in self.masks] == [words[0].id for words in other.masks]

    def to_json(self) -> dict[str, Any]:
        """Return a list for each mask, with the token, id and probability of each word."""
        return {"masks": [[asdict(word) for word in words] for words in self.masks]}

    def cells(self) -> list[str]:
        """Return the best words, separated by spaces, and a JSON list of [token, probability] for each mask.

        A word of white space alone is ``_`` among the best words.
        """
        best = " ".join("".join(words[0].token.split()) or "_" for words in self.masks)
        ranked = [[(word.token, round(word.probability, 6)) for word in words] for words in self.masks]
        return [best, json.dumps(ranked, ensure_ascii=False)]


@dataclass(frozen=True)
class MaskedText(Encoded):
    """A text with mask tokens."""

    masks: tuple[int, ...] = ()  #: indices in ``token_ids``
    decode: Callable[[int], str] = str  #: token id -> text of the token


@dataclass(frozen=True)
class MaskedLM(TableTask):
    """The words in place of mask tokens; softmax over the vocabulary. The head is exported trained, never trained."""

    name = "masked_lm"
    is_trainable = False
    known_metrics = ()
    default_metrics = ()

    top_k: int = TOP_K  #: words that a prediction lists for each mask

    @classmethod
    def inference_option_names(cls) -> tuple[str, ...]:
        """Return the fields of TaskOptions that may replace settings."""
        return ("top_k",)

    @classmethod
    def read_settings(cls, document: JsonValue) -> dict[str, Any]:
        """Read nothing: a signature has no settings of this kind."""
        return {}

    @property
    def reads_tokens(self) -> bool:
        """True: there are logits for each token."""
        return True

    # Reading

    def encode(self, rows: Sequence[Row | DataError], reading: Reading, where: str) -> list[Windows | DataError]:
        """Tokenise rows and find their masks; a text without a mask, or with a truncated one, becomes an error.

        Raises ModelError if the tokenizer has no mask token.
        """
        if reading.mask_id is None:
            raise ModelError("the model has no mask token: the special_tokens of its signature have no mask")
        found: list[Windows | DataError] = []
        for row, encoded in zip(rows, encode_truncated(rows, reading, where)):
            each = _masked(row, encoded, reading, where) if isinstance(row, Row) else row
            found.append(each if isinstance(each, DataError) else (each,))
        return found

    def parse_label(self, row: Row, where: str) -> Any:
        """Raise UsageError: there are no labels."""
        raise self._not_trainable()

    # Training

    def targets(self, examples: Examples) -> Targets:
        """Raise UsageError: the task can't be trained."""
        raise self._not_trainable()

    def loss(self, outputs: Sequence[Array], labels: Mapping[str, Array]) -> float:
        """Raise UsageError: the task can't be trained."""
        raise self._not_trainable()

    def evaluate(self, outputs: Sequence[Any], examples: Examples) -> dict[str, float]:
        """Raise UsageError: the task has no metrics."""
        raise self._not_trainable()

    def assess(self, outputs: Sequence[Any], examples: Examples, rows: ExampleRows) -> Assessment:
        """Raise UsageError: there are no labels."""
        raise self._not_trainable()

    def target_plot(self, files: Mapping[str, Examples]) -> Bars | Histogram:
        """Raise UsageError: there are no labels."""
        raise self._not_trainable()

    def target_text(self, example: Example) -> str:
        """Raise UsageError: there are no labels."""
        raise self._not_trainable()

    def _not_trainable(self) -> UsageError:
        return UsageError(f"the task {self.name} supports prediction only")

    # Inference

    def keep(self, output: Array, window: Encoded) -> tuple[tuple[MaskedWord, ...], ...]:
        """Return the most probable words for each mask; `output` has the logits (T, V) of a padded text."""
        assert isinstance(window, MaskedText)
        return tuple(self._best_words(output[place].astype(np.float64), window) for place in window.masks)

    def _best_words(self, logits: Array, window: MaskedText) -> tuple[MaskedWord, ...]:
        """Return the words with the largest logits (V,); ties in the order of their ids."""
        count = min(self.top_k, len(logits))
        candidates = np.flatnonzero(logits >= np.partition(logits, -count)[-count])
        best = candidates[np.argsort(-logits[candidates], kind="stable")][:count]
        powers = np.exp(logits - logits.max())
        probabilities = powers[best] / powers.sum()
        return tuple(
            MaskedWord(window.decode(number), number, probability)
            for number, probability in zip(best.tolist(), probabilities.tolist())
        )

    @property
    def columns(self) -> tuple[str, ...]:
        """The best words, and the ranked words."""
        return ("words", "masks")

    @property
    def json_keys(self) -> tuple[str, ...]:
        """The keys of `MaskPrediction.to_json`."""
        return ("masks",)

    def predictions(self, outputs: Sequence[Any], examples: Sequence[Example]) -> Iterator[MaskPrediction]:
        """Yield the words for each text."""
        for masks, example in zip(outputs, examples):
            yield MaskPrediction(masks, example.truncated)


def _masked(row: Row, encoded: Encoded | DataError, reading: Reading, where: str) -> MaskedText | DataError:
    """Return a text with the places of its masks, or an error if it has none or a mask was truncated."""
    if isinstance(encoded, DataError):
        return encoded
    tokenizer, mask_id = reading.tokenizer, reading.mask_id
    assert mask_id is not None
    masks = tuple(i for i, number in enumerate(encoded.token_ids) if number == mask_id)
    token = tokenizer.token(mask_id)
    texts = [row.text] if row.pair is None else [row.text, row.pair]
    if encoded.truncated:
        total = sum(tokenizer.count(text, mask_id) for text in texts)
        lost = total - len(masks)
        if lost > 0:
            return DataError(
                f"{where}, line {row.line}: truncation to {tokenizer.max_length} tokens removes {lost} of {total} "
                f"{token} tokens: shorten the text"
            )
    if not masks:
        is_plain = any(token in text for text in texts)
        reason = (
            f"the tokenizer of the model reads {token} in a text as plain text"
            if is_plain
            else f"no mask token: write {token} in place of a word"
        )
        return DataError(f"{where}, line {row.line}: {reason}")
    return MaskedText(
        encoded.token_ids,
        encoded.token_types,
        encoded.truncated,
        encoded.unknown,
        masks=masks,
        decode=tokenizer.decode,
    )
