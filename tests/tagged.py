"""A learnable toy task of tagging, and a tagger that has learned it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from conftest import WORDS, Tables

from bertsym import FinetuneOptions, finetune

ANIMALS, COLOURS, PLACES = ("cat", "dog", "bird"), ("red", "blue"), ("mat", "park", "tree", "house")
OTHERS = [word for word in WORDS if word not in (*ANIMALS, *COLOURS, *PLACES)]
OPTIONS = FinetuneOptions(task="tagging", epochs=24, batch_size=16, learning_rate=1e-2, max_length=24)


def sentences(count: int, seed: int) -> list[tuple[list[str], list[str]]]:
    """Words and tags: an animal is an entity, also in the plural, of two pieces; so is a place with its colour."""
    rng = np.random.default_rng(seed)
    found = []
    for _ in range(count):
        words: list[str] = []
        tags: list[str] = []
        for _ in range(rng.integers(2, 7)):
            kind = rng.integers(4)
            if kind == 0:
                words.append(str(rng.choice(ANIMALS)) + str(rng.choice(["", "s"])))
                tags.append("B-ANIMAL")
            elif kind == 1:
                words += [str(rng.choice(COLOURS)), str(rng.choice(PLACES))]
                tags += ["B-PLACE", "I-PLACE"]
            else:
                words.append(str(rng.choice(OTHERS)))
                tags.append("O")
        found.append((words, tags))
    return found


def conll(made: list[tuple[list[str], list[str]]]) -> str:
    """Sentences as CoNLL with two columns."""
    return "\n".join("".join(f"{word}\t{tag}\n" for word, tag in zip(*each)) for each in made)


def write_tagged(folder: Path) -> Tables:
    """A training file and a dev file."""
    (folder / "train.conll").write_text(conll(sentences(160, 0)))
    (folder / "dev.conll").write_text(conll(sentences(30, 1)))
    return Tables(folder / "train.conll", folder / "dev.conll")


def write_tagger(base: Path, folder: Path) -> None:
    """Fine-tune the bundle `base` as ``folder/tagger``, on the files of `write_tagged` in the folder."""
    tables = write_tagged(folder)
    finetune(base, tables.train, tables.dev, folder / "tagger", options=OPTIONS)
