"""Made passages with questions, as files in SQuAD's format, and two baselines.

Nothing of the dev file occurs in the training file: no frame of a sentence, no frame of a question, and no name. The
script checks that. A part of the questions has no answer in its passage.
"""

from __future__ import annotations

import argparse
import json
import random
import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from bertsym.metrics.squad import evaluate_answers

#: sentences and questions by file and relation; {S} is the subject, {A} the answer
FRAMES = """
train maker:
  The {S} was designed by {A}.
  {A} drew the first plans of the {S}.
  People in the valley credit {A} with the {S}.
  After a long search the council let {A} build the {S}.
  Who designed the {S}?
  Who was the maker of the {S}?
  Which person built the {S}?
dev maker:
  It was {A} who came up with the {S}.
  One engineer stood for the {S} alone, {A}.
  Whose idea was the {S}?
  Who is named as the engineer of the {S}?
train year:
  Work on the {S} ended in {A}.
  The {S} opened its gates in {A}.
  Since {A} the {S} has been in use.
  The {S} dates back to {A}.
  When did the {S} open?
  In what year was the {S} finished?
  Since when has the {S} been in use?
dev year:
  Construction of the {S} took until {A}.
  By {A} the {S} was complete.
  What year saw the completion of the {S}?
  Until when was the {S} under construction?
train place:
  The {S} stands in {A}.
  Travellers find the {S} on a hill near {A}.
  {A} is the home of the {S}.
  A narrow road leads from {A} to the {S}.
  Where is the {S}?
  In which town does the {S} stand?
  Which place is near the {S}?
dev place:
  One has to go to {A} to see the {S}.
  The {S} can be visited in {A}.
  Where must a visitor go to see the {S}?
  What town has the {S}?
train size:
  The {S} measures {A}.
  At {A} the {S} is larger than most.
  Its builders gave the {S} a length of {A}.
  A sign says that the {S} is {A} long.
  How long is the {S}?
  What does the {S} measure?
  What is the length of the {S}?
dev size:
  From end to end the {S} covers {A}.
  Surveyors put the {S} at {A}.
  What distance does the {S} cover?
  How far does the {S} extend?
train cost:
  The {S} cost {A}.
  Donors gave {A} for the {S}.
  The bill for the {S} came to {A}.
  A bank lent {A} to pay for the {S}.
  How much did the {S} cost?
  What was paid for the {S}?
  How expensive was the {S}?
dev cost:
  No less than {A} was spent on the {S}.
  The town raised {A} so that the {S} could go ahead.
  What sum went into the {S}?
  How much money did the town raise for the {S}?
train owner:
  {A} owns the {S} today.
  The {S} now belongs to {A}.
  Ownership of the {S} passed to {A}.
  {A} bought the {S} at an auction.
  Who owns the {S}?
  To whom does the {S} belong?
  Who bought the {S}?
dev owner:
  These days the {S} is in the hands of {A}.
  The present proprietor of the {S} is {A}.
  Who is the proprietor of the {S}?
  In whose hands is the {S} these days?
train material:
  The {S} is made of {A}.
  Masons used {A} for the walls of the {S}.
  Most of the {S} consists of {A}.
  The {S} was put together from {A}.
  What is the {S} made of?
  Which material was used for the {S}?
  What does the {S} consist of?
dev material:
  For the {S} only {A} was good enough.
  They chose {A} when they put up the {S}.
  What did they choose for putting up the {S}?
  What substance makes up the {S}?
train cause:
  The {S} was closed because of {A}.
  {A} forced the guards to shut the {S}.
  The {S} had to close after {A}.
  Officials blamed {A} when they locked the {S}.
  Why was the {S} closed?
  What forced the guards to shut the {S}?
  What was blamed for the closing of the {S}?
dev cause:
  Owing to {A} nobody could enter the {S} for a month.
  {A} put the {S} out of service for a season.
  For what reason could nobody enter the {S}?
  What put the {S} out of service?
train user:
  Mostly {A} come to the {S}.
  The {S} is popular with {A}.
  Every summer {A} meet at the {S}.
  Few besides {A} know the {S}.
  Who comes to the {S}?
  With whom is the {S} popular?
  Who meets at the {S} every summer?
dev user:
  On weekends the {S} is full of {A}.
  Guests at the {S} are nearly always {A}.
  What sort of people fill the {S} on weekends?
  Who are the guests at the {S}?
train colour:
  The roof of the {S} is {A}.
  Painters made the front of the {S} {A}.
  From far away the {S} looks {A}.
  The {S} was painted {A} again.
  What colour is the {S}?
  Which colour did painters give to the {S}?
  How does the {S} look from far away?
dev colour:
  In photographs the {S} appears {A}.
  Last spring the {S} turned {A} with a new coat.
  What hue has the {S} in photographs?
  With its new coat, what shade did the {S} turn?
"""
FILLERS = {
    "train": (
        "The weather there is mild for most of the year.",
        "Guides know a different story for every day.",
        "A small shop sells maps and bread.",
        "Nobody knows who planted the old trees.",
        "In winter the paths are covered with snow.",
        "Several books describe the region.",
    ),
    "dev": (
        "Birds nest along the river.",
        "The local newspaper prints old letters on Sundays.",
        "There is no parking, so most people walk.",
        "Some rooms have not been restored yet.",
    ),
}
ADJECTIVES = {
    "train": [
        "Iron",
        "Silent",
        "Golden",
        "Northern",
        "Crooked",
        "Hidden",
        "Royal",
        "Lower",
        "Misty",
        "Broken",
        "Eastern",
        "Winter",
        "Marble",
        "Lonely",
        "Upper",
    ],
    "dev": ["Copper", "Western", "Sunken", "Bright", "Forgotten", "Amber", "Lesser", "Stormy"],
}
NOUNS = {
    "train": [
        "Bridge",
        "Tower",
        "Museum",
        "Canal",
        "Library",
        "Market",
        "Chapel",
        "Theatre",
        "Garden",
        "Harbour",
        "Mill",
        "Castle",
        "Tunnel",
        "Fountain",
    ],
    "dev": ["Lighthouse", "Observatory", "Aqueduct", "Arena", "Monastery", "Pavilion", "Viaduct"],
}
FIRST = {
    "train": [
        "Anna",
        "Peter",
        "Maria",
        "Lukas",
        "Elena",
        "Victor",
        "Clara",
        "Martin",
        "Julia",
        "Simon",
        "Nora",
        "Felix",
        "Laura",
        "Oscar",
        "Helena",
        "Adam",
    ],
    "dev": ["Ingrid", "Rafael", "Beatrice", "Tobias", "Miriam", "Casper", "Odette", "Leon"],
}
LAST = {
    "train": [
        "Keller",
        "Novak",
        "Santos",
        "Lindqvist",
        "Moreau",
        "Baker",
        "Rossi",
        "Petrov",
        "Walsh",
        "Duarte",
        "Fischer",
        "Olsen",
        "Carter",
        "Marino",
    ],
    "dev": ["Hartmann", "Okafor", "Valdez", "Brandt", "Sorensen", "Quigley", "Tanaka"],
}
TOWNS = {
    "train": [
        "Marlow",
        "Brenton",
        "Ashford",
        "Velden",
        "Corrada",
        "Linz",
        "Tarsk",
        "Oakham",
        "Pellworth",
        "Sandvik",
        "Morley",
        "Fenwick",
    ],
    "dev": ["Dunmore", "Kestrel", "Rovigo", "Halden", "Ystad", "Thornbury", "Arlen"],
}
ANSWERS = {
    "train": {
        "material": [
            "red brick",
            "oak and iron",
            "grey stone",
            "glass",
            "limestone",
            "old ship timber",
            "concrete",
            "white marble",
        ],
        "cause": [
            "a heavy storm",
            "a broken pump",
            "several landslides",
            "a strike",
            "an outbreak of flu",
            "a lost key",
            "the great fire",
        ],
        "user": [
            "young families",
            "students",
            "retired sailors",
            "painters",
            "school classes",
            "cyclists",
            "wedding guests",
        ],
        "colour": ["dark green", "bright red", "pale blue", "yellow", "silver", "brown"],
    },
    "dev": {
        "material": ["yellow sandstone", "steel", "pine wood", "black granite", "clay tiles"],
        "cause": ["a long drought", "a burst pipe", "an earthquake", "missing permits", "a plague of wasps"],
        "user": ["musicians", "amateur astronomers", "fishermen", "chess players", "hikers"],
        "colour": ["purple", "orange", "deep black", "ivory", "turquoise"],
    },
}

Frames = dict[str, tuple[list[str], list[str]]]


def read_frames(split: str) -> Frames:
    """Read relation -> sentences and questions."""
    frames: Frames = {}
    for line in FRAMES.strip().splitlines():
        if not line.startswith(" "):
            name, relation = line.rstrip(":").split()
        elif name == split:
            sentences, questions = frames.setdefault(relation, ([], []))
            (questions if line.endswith("?") else sentences).append(line.strip())
    return frames


class Maker:
    """Makes the passages of one file."""

    def __init__(self, split: str, seed: int) -> None:
        self.split, self.rng = split, random.Random(f"{split} {seed}")
        self.frames = read_frames(split)
        self.count = 0

    def answer(self, relation: str) -> str:
        """Make an answer."""
        rng, split = self.rng, self.split
        low, high = (1400, 1799) if split == "train" else (1800, 1990)
        if relation in ("maker", "owner"):
            return f"{rng.choice(FIRST[split])} {rng.choice(LAST[split])}"
        if relation == "year":
            return str(rng.randint(low, high))
        if relation == "place":
            return rng.choice(TOWNS[split])
        if relation == "size":
            # Different numbers in both files: even and odd ones.
            number = 2 * rng.randint(10, 400) + (split == "dev")
            return f"{number} {rng.choice(['metres', 'feet', 'miles', 'yards'])}"
        if relation == "cost":
            number = 2 * rng.randint(10, 400) + (split == "dev")
            return f"{number} {rng.choice(['million crowns', 'thousand francs', 'silver coins', 'million dollars'])}"
        return rng.choice(ANSWERS[split][relation])

    def passage(self, questions: int, no_answer: float) -> dict[str, Any]:
        """Make a passage of some facts about two subjects, with questions about it."""
        rng = self.rng
        adjectives, nouns = rng.sample(ADJECTIVES[self.split], 2), rng.sample(NOUNS[self.split], 2)
        subjects = [f"{adjective} {noun}" for adjective, noun in zip(adjectives, nouns)]
        relations = rng.sample(sorted(self.frames), rng.randint(4, 6))
        facts = [(subject, relation) for subject in subjects for relation in relations]
        facts = rng.sample(facts, rng.randint(4, 6))
        context, places = "", {}
        for subject, relation in facts:
            if rng.random() < 0.3:
                context += rng.choice(FILLERS[self.split]) + " "
            answer = self.answer(relation)
            sentence = rng.choice(self.frames[relation][0]).replace("{S}", subject)
            start = sentence.index("{A}")
            if start == 0:
                answer = answer[0].upper() + answer[1:]
            places[subject, relation] = (answer, len(context) + start)
            context += sentence.replace("{A}", answer) + " "
        asked = [*rng.sample(facts, questions)]
        qas = []
        for subject, relation in asked:
            answers = []
            if rng.random() < no_answer:
                absent = sorted(set(self.frames) - {other for name, other in facts if name == subject})
                relation = rng.choice(absent)
            else:
                text, start = places[subject, relation]
                answers = [{"text": text, "answer_start": start}]
            question = rng.choice(self.frames[relation][1]).replace("{S}", subject)
            self.count += 1
            number = f"{self.split}-{self.count}"
            qas.append({"id": number, "question": question, "answers": answers, "is_impossible": not answers})
        return {"context": context.strip(), "qas": qas}

    def file(self, passages: int, questions: int, no_answer: float) -> dict[str, Any]:
        """Make a file."""
        made = [self.passage(questions, no_answer) for _ in range(passages)]
        return {"version": "v2.0" if no_answer else "1.1", "data": [{"title": self.split, "paragraphs": made}]}


def check_disjoint() -> None:
    """Raise AssertionError if both files share a frame or a name."""
    both = [read_frames(split) for split in ("train", "dev")]
    texts = [{text for parts in frames.values() for part in parts for text in part} for frames in both]
    assert not texts[0] & texts[1], texts[0] & texts[1]
    for names in (ADJECTIVES, NOUNS, FIRST, LAST, TOWNS, FILLERS):
        assert not set(names["train"]) & set(names["dev"]), names
    for relation, answers in ANSWERS["train"].items():
        assert not set(answers) & set(ANSWERS["dev"][relation]), relation


def questions_of(file: dict[str, Any]) -> list[tuple[str, str, list[str]]]:
    """List question, context and the texts of the correct answers."""
    return [
        (qa["question"], paragraph["context"], [answer["text"] for answer in qa["answers"]])
        for article in file["data"]
        for paragraph in article["paragraphs"]
        for qa in paragraph["qas"]
    ]


def lexical_answer(question: str, context: str) -> str:
    """Answer by the words that the question does not have in the sentence that shares the most words with it."""
    words = set(re.findall(r"\w+", question.lower()))
    sentences = re.split(r"(?<=\.) ", context)
    best = max(sentences, key=lambda sentence: len(words & set(re.findall(r"\w+", sentence.lower()))))
    runs: list[list[str]] = [[]]
    for word in re.findall(r"\w+", best):
        capital = word[0].isupper() or word[0].isdigit()
        if word.lower() in words or not capital:
            runs.append([])
        else:
            runs[-1].append(word)
    found = max(runs, key=len)
    return " ".join(found) or best.rsplit(" ", 2)[-1].rstrip(".")


def baseline_answers(
    dev: Sequence[tuple[str, str, list[str]]], train: Sequence[tuple[str, str, list[str]]]
) -> dict[str, list[str]]:
    """Return the answers of two baselines to the questions of dev."""
    common = Counter(answer for _, _, answers in train for answer in answers or [""]).most_common(1)[0][0]
    return {
        f"the most common answer ({common or 'none'})": [common] * len(dev),
        "words of the sentence that shares most words with the question": [
            lexical_answer(question, context) for question, context, _ in dev
        ],
    }


def main() -> None:
    """Write FOLDER/train.json and FOLDER/dev.json, and print the baselines."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--passages", type=int, default=1200)
    parser.add_argument("--no-answer", type=float, default=0.25, help="fraction of questions without an answer")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    check_disjoint()
    arguments.folder.mkdir(parents=True, exist_ok=True)
    files = {}
    for split, passages in (("train", arguments.passages), ("dev", arguments.passages // 6)):
        files[split] = Maker(split, arguments.seed).file(passages, 2, arguments.no_answer)
        (arguments.folder / f"{split}.json").write_text(json.dumps(files[split], indent=1))
    train, dev = (questions_of(files[split]) for split in ("train", "dev"))
    print(f"{len(train)} training and {len(dev)} dev questions")
    for name, answers in baseline_answers(dev, train).items():
        values = evaluate_answers([right for _, _, right in dev], answers)
        print(f"{name}: exact_match {values['exact_match']:.4f}  f1 {values['f1']:.4f}")


if __name__ == "__main__":
    main()
