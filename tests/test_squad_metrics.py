"""Exact match, F1 and the no-answer threshold of SQuAD's evaluation script."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from bertsym.metrics.squad import best_threshold, evaluate_answers, normalize_answer, score_answer

REFERENCE = Path(__file__).parent / "squad_metrics.jsonl"


@pytest.mark.parametrize(
    ("text", "normal"),
    [
        ("The  cat, sat!", "cat sat"),
        ("An apple a day", "apple day"),
        ("U.S.A.", "usa"),
        ("the-end", "theend"),
        ("theatre a", "theatre"),
        ("«The» cat…s", "« » cat…s"),
        ("the", ""),
    ],
)
def test_answers_are_normalised(text: str, normal: str) -> None:
    assert normalize_answer(text) == normal


@pytest.mark.parametrize(
    ("correct", "answer", "exact", "f1"),
    [
        (["Paris"], "paris.", 1, 1),
        (["in Paris"], "Paris, France", 0, 2 * 0.5 * 0.5),
        (["in Paris", "Paris"], "the Paris", 1, 1),
        (["cat cat dog"], "cat dog dog", 0, 2 / 3),
        (["London"], "Paris", 0, 0),
        ([], "", 1, 1),
        ([], "Paris", 0, 0),
        (["the"], "", 1, 1),
        (["the"], "a", 1, 1),
        (["the", "cat"], "", 0, 0),
    ],
)
def test_an_answer_has_its_best_score_over_the_correct_answers(
    correct: list[str], answer: str, exact: float, f1: float
) -> None:
    assert score_answer(correct, answer) == pytest.approx((exact, f1), abs=1e-12)


def test_metrics_of_questions_with_and_without_answers_are_separate() -> None:
    values = evaluate_answers([["a cat"], ["in Paris"], [], []], ["cat", "Paris", "", "cat"])
    assert values == pytest.approx(
        {
            "exact_match": 2 / 4,
            "f1": (1 + 2 / 3 + 1 + 0) / 4,
            "has_answer_exact_match": 1 / 2,
            "has_answer_f1": (1 + 2 / 3) / 2,
            "no_answer_exact_match": 1 / 2,
            "no_answer_f1": 1 / 2,
        },
        abs=1e-12,
    )
    assert evaluate_answers([["a cat"]], ["cat"]) == {"exact_match": 1, "f1": 1}


def test_the_threshold_has_the_highest_f1() -> None:
    correct = [["a cat"], [], ["Paris"], []]
    answers = ["cat", "dog", "London", "dog"]
    # All up to the first: 1 + 2 questions without an answer; later ones only lose.
    assert best_threshold(correct, answers, [-3.0, -1.0, 0.0, 2.0]) == -3.0
    assert best_threshold(correct, answers, [3.0, -1.0, 0.0, 2.0]) < -1.0
    assert best_threshold([["a cat"], ["Paris"]], ["cat", "Paris"], [1.0, 7.0]) == 7.0


def test_metrics_and_threshold_are_those_of_transformers_4() -> None:
    """For 100 random cases, which scripts/maintenance/write_squad_metrics.py wrote."""
    cases = [json.loads(line) for line in REFERENCE.read_text(encoding="utf-8").splitlines()]
    assert len(cases) == 100
    for case in cases:
        correct, answers, scores, found = (case[name] for name in ("correct", "answers", "no_answer_scores", "metrics"))
        values = evaluate_answers(correct, answers)
        assert 100 * values["exact_match"] == pytest.approx(found["exact"], abs=1e-9)
        assert 100 * values["f1"] == pytest.approx(found["f1"], abs=1e-9)
        if "has_answer_f1" in values:
            assert 100 * values["has_answer_f1"] == pytest.approx(found["HasAns_f1"], abs=1e-9)
            assert 100 * values["no_answer_exact_match"] == pytest.approx(found["NoAns_exact"], abs=1e-9)
        threshold = best_threshold(correct, answers, scores)
        assert threshold == found["best_f1_thresh"] or (threshold < min(scores) and found["best_f1_thresh"] == 0.0)
