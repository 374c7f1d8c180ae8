"""Choose answers among the spans of a context, by the logits of their first and last tokens."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from bertsym.array import Array
from bertsym.text.tokenizer import Encoded


@dataclass(frozen=True)
class Span:
    """A span of a context, in characters, and the logarithm of its probability."""

    start: int
    end: int
    log_probability: float

    @property
    def score(self) -> float:
        """The probability: that of the first token times that of the last."""
        return math.exp(self.log_probability)


@dataclass(frozen=True)
class Spans:
    """The best spans of a context, best first, and the logarithm of the probability that it has no answer."""

    best: tuple[Span, ...]
    no_answer: float

    @property
    def no_answer_margin(self) -> float:
        """By how much having no answer is more probable than the best span, as a difference of logarithms."""
        return self.no_answer - self.best[0].log_probability if self.best else math.inf


def find_spans(logits: Sequence[Array], windows: Sequence[Encoded], count: int, longest: int) -> Spans:
    """Find the `count` best spans of at most `longest` tokens in the windows of one context.

    `logits` (T, 2) of each window are those of the start and the end. As in transformers' pipeline, probabilities are
    taken over the tokens of the context and the first token, [CLS], of a window, whose own probability is that of no
    answer; the lowest of the windows counts. A span that several windows contain has its highest probability. Spans
    without characters are left out.
    """
    found: dict[tuple[int, int], float] = {}
    lowest = math.inf
    for values, window in zip(logits, windows):
        assert window.alignment is not None
        is_context = window.alignment.texts == 1
        is_context[0] = True
        log_start, log_end = _log_softmax(values[is_context].astype(np.float64)).T
        lowest = min(lowest, float(log_start[0] + log_end[0]))
        offsets = window.alignment.offsets[is_context][1:]
        for first, last, value in _best_spans(log_start[1:], log_end[1:], 2 * count + 10, longest):
            place = int(offsets[first, 0]), int(offsets[last, 1])
            if place[0] < place[1] and value > found.get(place, -math.inf):
                found[place] = value
    best = sorted(found.items(), key=lambda item: -item[1])[:count]
    return Spans(tuple(Span(*place, value) for place, value in best), lowest)


def _log_softmax(logits: Array) -> Array:
    shifted = logits - logits.max(axis=0)
    result: Array = shifted - np.log(np.exp(shifted).sum(axis=0))
    return result


def _best_spans(start: Array, end: Array, count: int, longest: int) -> list[tuple[int, int, float]]:
    """Return first token, last token and logarithm of the best spans, best first."""
    tokens = len(start)
    widths = min(longest, tokens)
    values = np.full((tokens, widths), -np.inf)
    for width in range(widths):
        values[: tokens - width, width] = start[: tokens - width] + end[width:]
    flat = values.ravel()
    chosen = np.argpartition(-flat, count)[:count] if count < len(flat) else np.arange(len(flat))
    chosen = chosen[np.argsort(-flat[chosen], kind="stable")]
    return [
        (place // widths, place // widths + place % widths, float(flat[place]))
        for place in chosen.tolist()
        if flat[place] > -np.inf
    ]
