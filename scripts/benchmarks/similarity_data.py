"""Make pairs of sentences with a score of similarity from 0 to 5, and score a lexical baseline.

A sentence names a person, an action, a thing and a place. The score counts what both sentences of a pair name; the
action counts twice. Things that are equal usually have different words: "the doctor" and "the physician". No frame of
a sentence, and no person, action, thing or place of dev occurs in train. `make_pairs` checks that.
"""

from __future__ import annotations

import random
import re
from pathlib import Path

import numpy as np

# {0}: person, {1}: action, {2}: thing, {3}: place
FRAMES = {
    "train": (
        "{0} {1} {2} {3}.",
        "Yesterday {0} {1} {2} {3}.",
        "{3}, {0} {1} {2}.",
        "It was {0} who {1} {2} {3}.",
        "Everybody knows that {0} {1} {2} {3}.",
        "What {0} {1} {3} was {2}.",
    ),
    "dev": (
        "They say {0} {1} {2} {3}.",
        "We saw how {0} {1} {2} {3}.",
        "According to a neighbour, {0} {1} {2} {3}.",
        "{2}? On Sunday {0} {1} it {3}.",
    ),
}
#: part of a sentence -> things with their words
PARTS = {
    "train": (
        """
            the doctor|the physician, the boy|the lad, the teacher|the instructor, the lawyer|the attorney, the
            policeman|the constable, the child|the kid, the driver|the chauffeur, the farmer|the grower, the writer|the
            author, the tourist|the sightseer, the woman|the lady, the king|the monarch
        """,
        """
            bought|purchased, repaired|fixed, lost|misplaced, hid|concealed, found|discovered, damaged|harmed,
            carried|transported, cleaned|washed, wanted|desired, received|got, sold|traded away
        """,
        """
            the car|the automobile, the sofa|the couch, the photo|the picture, the gift|the present, the coat|the
            jacket, the stone|the rock, the bag|the sack, the cup|the mug, the bicycle|the bike, the letter|the note,
            the computer|the laptop, the jewel|the gem
        """,
        """
            in the woods|in the forest, on the street|on the road, at the shop|at the store, near the sea|near the
            ocean, in the cellar|in the basement, at work|at the office, in the yard|in the garden, on the boat|on the
            ship
        """,
    ),
    "dev": (
        """
            the cook|the chef, the sailor|the seaman, the janitor|the caretaker, the pilot|the aviator, the burglar|the
            thief, the priest|the clergyman, the actor|the film star, the banker|the financier
        """,
        """
            smashed|broke, examined|inspected, discarded|threw away, stole|made off with, lifted|raised, sketched|drew,
            collected|gathered, admired|marvelled at
        """,
        """
            the rug|the carpet, the phone|the telephone, the lamp|the lantern, the box|the crate, the plate|the dish,
            the parcel|the package, the television|the TV set, the hat|the cap
        """,
        """
            in the flat|in the apartment, at the cinema|at the movie theatre, on the coast|on the shore, in the lift|in
            the elevator, on the hill|on the slope, at the airport|at the airfield
        """,
    ),
}
WEIGHTS = (1, 2, 1, 1)  # of person, action, thing and place
_COMMON = {"the", "a", "in", "on", "at", "near", "away", "with"}

Pair = tuple[float, str, str]


def read_parts(part: str) -> list[list[list[str]]]:
    """Return the things of each part of a sentence, each a list of its words."""
    return [[" ".join(thing.split()).split("|") for thing in things.split(",")] for things in PARTS[part]]


def make_pairs(part: str, count: int, seed: int = 0) -> list[Pair]:
    """Make score, first and second sentence of different pairs of ``train`` or ``dev``.

    Raises AssertionError if a word of a thing, or a frame, is in both files.
    """
    vocabularies = [set(re.findall(r"\w+", " ".join(PARTS[name]))) - _COMMON for name in ("train", "dev")]
    assert not vocabularies[0] & vocabularies[1], vocabularies[0] & vocabularies[1]
    assert not set(FRAMES["train"]) & set(FRAMES["dev"])
    rng = random.Random(f"{part} {seed}")
    things = read_parts(part)
    found: dict[Pair, None] = {}
    while len(found) < count:
        shared = rng.sample(range(4), rng.randint(0, 4))
        words = [choose_words(rng, each, place in shared) for place, each in enumerate(things)]
        one, two = (
            frame.format(*(pair[side] for pair in words)) for side, frame in enumerate(rng.sample(FRAMES[part], 2))
        )
        score = float(sum(WEIGHTS[place] for place in shared))
        found[score, one[0].upper() + one[1:], two[0].upper() + two[1:]] = None
    return list(found)


def choose_words(rng: random.Random, things: list[list[str]], same: bool) -> list[str]:
    """Choose words for the same thing, nine times in ten different ones, or for two things."""
    if same:
        thing = rng.choice(things)
        return rng.sample(thing, 2) if rng.random() < 0.9 else [rng.choice(thing)] * 2
    return [rng.choice(thing) for thing in rng.sample(things, 2)]


def write_pairs(path: Path, pairs: list[Pair]) -> None:
    """Write pairs as TSV."""
    lines = [f"{score:g}\t{one}\t{two}\n" for score, one, two in pairs]
    path.write_text("score\tsentence1\tsentence2\n" + "".join(lines), encoding="utf-8")


def lexical_scores(pairs: list[Pair]) -> list[float]:
    """Return the number of words that both sentences of a pair have, relative to the words that either has."""
    words = [[set(re.findall(r"\w+", text.lower())) for text in texts] for _, *texts in pairs]
    return [len(one & two) / len(one | two) for one, two in words]


def pearson(values: list[float], pairs: list[Pair]) -> float:
    """Return Pearson's correlation with the scores."""
    return float(np.corrcoef(values, [score for score, *_ in pairs])[0, 1])
