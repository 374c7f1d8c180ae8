"""Exact match and F1 of answers, equal to those of SQuAD's evaluation script (evaluate-v2.0).

Metrics are fractions, where the script prints percentages.
"""

from __future__ import annotations

import re
import string
from collections import Counter
from collections.abc import Sequence

import numpy as np

_PUNCTUATION = str.maketrans("", "", string.punctuation)


def normalize_answer(text: str) -> str:
    """Lower-case a text, and remove ASCII punctuation, the articles a, an and the, and extra white space."""
    return " ".join(re.sub(r"\b(a|an|the)\b", " ", text.lower().translate(_PUNCTUATION)).split())


def token_f1(correct: str, answer: str) -> float:
    """Return the F1 of an answer's words, with their multiplicity; without words, 1 if neither text has any."""
    expected, found = normalize_answer(correct).split(), normalize_answer(answer).split()
    if not expected or not found:
        return float(expected == found)
    common = sum((Counter(expected) & Counter(found)).values())
    if not common:
        return 0.0
    precision, recall = common / len(found), common / len(expected)
    return 2 * precision * recall / (precision + recall)


def score_answer(correct: Sequence[str], answer: str) -> tuple[float, float]:
    """Return the exact match and the F1 of an answer, each the highest over the correct answers.

    A question without correct answers, or only with such as have no word, is answered correctly by an empty text.
    """
    expected = [text for text in correct if normalize_answer(text)] or [""]
    normal = normalize_answer(answer)
    exact = max(float(normalize_answer(text) == normal) for text in expected)
    return exact, max(token_f1(text, answer) for text in expected)


def evaluate_answers(correct: Sequence[Sequence[str]], answers: Sequence[str]) -> dict[str, float]:
    """Return ``exact_match`` and ``f1``, the means over the questions.

    If some questions have correct answers and others have none, the means over both kinds follow, with the prefixes
    ``has_answer_`` and ``no_answer_``.
    """
    scores = np.array([score_answer(texts, answer) for texts, answer in zip(correct, answers)])
    has_answer = np.array([bool(texts) for texts in correct])
    values = {}
    kinds = [("", np.full(len(scores), True))]
    if has_answer.any() and not has_answer.all():
        kinds += [("has_answer_", has_answer), ("no_answer_", ~has_answer)]
    for prefix, chosen in kinds:
        for name, value in zip(("exact_match", "f1"), scores[chosen].mean(axis=0)):
            values[f"{prefix}{name}"] = float(value)
    return values


def best_threshold(
    correct: Sequence[Sequence[str]], answers: Sequence[str], no_answer_scores: Sequence[float]
) -> float:
    """Return the threshold with the highest F1, where a question whose no-answer score is above it has no answer.

    The threshold is one of the scores, as SQuAD's script chooses it, or below all of them if no answer is best.
    """
    gains = [_gain(texts, answer) for texts, answer in zip(correct, answers)]
    order = sorted(range(len(gains)), key=lambda i: no_answer_scores[i])
    total = best = 0.0
    threshold = min(no_answer_scores, default=0.0) - 1
    for i in order:
        total += gains[i]
        if total > best:
            best, threshold = total, no_answer_scores[i]
    return threshold


def _gain(correct: Sequence[str], answer: str) -> float:
    """Return how much the sum of F1 rises if a question gets its answer instead of none."""
    if correct:
        return score_answer(correct, answer)[1]
    return -1.0 if answer else 0.0
