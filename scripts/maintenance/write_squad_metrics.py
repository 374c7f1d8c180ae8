#!/usr/bin/env python
"""Write tests/squad_metrics.jsonl: python write_squad_metrics.py FILE, under transformers 4, which has SQuAD's metrics.

One line per case: the correct answers, the answers, their no-answer scores, and what `squad_evaluate` returns of them.
"""

from __future__ import annotations

import json
import random
import sys
from types import SimpleNamespace
from typing import Any

WORDS = ["the", "a", "An", "Cat", "cat", "sat,", "on", "U.S.", "US", "theatre", "1,000", "«x»", "-", "É", "", " "]


def cases(count: int) -> list[dict[str, Any]]:
    """Return random cases of 1 to 12 questions, a quarter of which have no answer."""
    from transformers.data.metrics.squad_metrics import squad_evaluate

    rng = random.Random(0)

    def text() -> str:
        return " ".join(rng.choices(WORDS, k=rng.randint(0, 4)))

    found = []
    for _ in range(count):
        questions = rng.randint(1, 12)
        correct = [[text() or "x" for _ in range(rng.randint(0, 3))] for _ in range(questions)]
        answers = [text() for _ in range(questions)]
        scores = [rng.uniform(0, 4) for _ in range(questions)]
        examples = [SimpleNamespace(qas_id=i, answers=[{"text": one} for one in all]) for i, all in enumerate(correct)]
        named = dict(enumerate(answers)), dict(enumerate(scores))
        metrics = squad_evaluate(examples, *named, no_answer_probability_threshold=9.0)
        found.append({"correct": correct, "answers": answers, "no_answer_scores": scores, "metrics": dict(metrics)})
    return found


if __name__ == "__main__":
    with open(sys.argv[1], "w") as file:
        file.writelines(json.dumps(case, ensure_ascii=False) + "\n" for case in cases(100))
