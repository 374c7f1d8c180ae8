"""Make short reviews that are positive or negative; no frame, subject or adjective of dev occurs in train."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np

# {0}: subject, {1}: adjective. A frame either keeps the meaning of its adjective or reverses it.
_FRAMES = {
    "train": (
        ("The {0} was {1}.", False),
        ("I found the {0} {1}.", False),
        ("What a {1} {0} that was!", False),
        ("We all thought that the {0} was really {1}.", False),
        ("The {0} was not {1} at all.", True),
        ("Nobody would call the {0} {1}.", True),
        ("They promised a {1} {0}, and we got the opposite.", True),
        ("I had hoped for a {1} {0}, in vain.", True),
    ),
    "dev": (
        ("In my opinion it is a truly {1} {0}.", False),
        ("My friends keep saying how {1} the {0} is.", False),
        ("Seldom have I seen such a {1} {0}.", False),
        ("This {0} is anything but {1}.", True),
        ("It was advertised as a {1} {0}, which is a lie.", True),
        ("You cannot seriously describe this {0} as {1}.", True),
    ),
}
_SUBJECTS = {
    "train": ("film", "hotel", "restaurant", "concert", "book", "phone", "service", "lecture", "museum", "game"),
    "dev": ("play", "hostel", "bakery", "festival", "novel", "camera", "repair", "course", "gallery", "show"),
}
_ADJECTIVES = {
    "train": (
        ("wonderful", "excellent", "delightful", "superb", "charming", "brilliant", "pleasant", "remarkable"),
        ("awful", "terrible", "boring", "dreadful", "poor", "disappointing", "miserable", "annoying"),
    ),
    "dev": (
        ("great", "fantastic", "lovely", "enjoyable", "impressive", "splendid"),
        ("bad", "horrible", "dull", "useless", "mediocre", "tedious"),
    ),
}


def write_reviews(path: Path, part: str, count: int) -> None:
    """Write `count` labelled reviews of ``train`` or ``dev``, half of them positive, as TSV; always the same ones."""
    rows: dict[str, list[str]] = {"positive": [], "negative": []}
    for (frame, reverses), subject in itertools.product(_FRAMES[part], _SUBJECTS[part]):
        for sign, adjectives in enumerate(_ADJECTIVES[part]):
            label = "negative" if (sign == 1) != reverses else "positive"
            rows[label] += [frame.format(subject, adjective) for adjective in adjectives]
    rng = np.random.default_rng(0)
    chosen = [(label, text) for label, texts in rows.items() for text in rng.permutation(texts)[: count // 2]]
    lines = [f"{label}\t{text}\n" for label, text in (chosen[i] for i in rng.permutation(len(chosen)))]
    path.write_text("label\ttext\n" + "".join(lines), encoding="utf-8")
