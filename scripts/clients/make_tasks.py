"""Write an example of every other kind of task for the clients, with real weights: make_tasks.py SOURCE OUT TASK...

OUT/TASK-* is the bundle, OUT/TASK.jsonl has the inputs of some texts, of which two have several windows, and
OUT/TASK.tsv what a client prints for them.
"""

from __future__ import annotations

import itertools
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import bertsym

TASKS = {"multilabel": "cls", "regression": "cls", "tagging": "sequence", "qa": "sequence"}
STRIDE = 4
SHOWN = 6  # texts that the clients get
NAMES, VERBS, PLACES = ("Ann", "Peter", "Maria"), ("lives", "works", "waits"), ("Paris", "Berlin", "Oslo")
SENTENCES = [*itertools.product(NAMES, VERBS, PLACES)]
TEXTS = [f"{name} {verb} in {place}{' today' * (i % 4)}" for i, (name, verb, place) in enumerate(SENTENCES)]


def main(source: str, out: Path, tasks: list[str]) -> None:
    for output in dict.fromkeys(TASKS[task] for task in tasks):
        bertsym.export(source, out / output, bertsym.ExportOptions(output=output))
    for task in tasks:
        path = out / f"train.{task}.jsonl"
        path.write_text("".join(json.dumps(record(task, i)) + "\n" for i in range(len(TEXTS))))
        options = bertsym.FinetuneOptions(
            task=task,
            epochs=4,
            batch_size=9,
            learning_rate=1e-2,
            max_length=32,
            freeze_encoder=True,
            task_options=bertsym.TaskOptions(stride=STRIDE),
        )
        bertsym.finetune(out / TASKS[task], path, path, out / task, options=options)
        write_expected(out / task, task)


def record(task: str, number: int) -> dict[str, object]:
    """Return a line of a training file."""
    text, (name, verb, place) = TEXTS[number], SENTENCES[number]
    if task == "tagging":
        tags = {name: "B-PER", place: "B-LOC"}
        return {"tokens": text.split(), "tags": [tags.get(word, "O") for word in text.split()]}
    if task == "qa":
        return {"question": f"Where is {name}?", "context": text, "answers": [] if number % 5 == 0 else [place]}
    return {"text": text, "label": [name, verb] if task == "multilabel" else len(text) / 10}


def write_expected(prefix: Path, task: str) -> None:
    """Write the inputs of some texts, and the answers to them."""
    texts = [f"{text}. " * (1 if i % 3 else 9) for i, text in enumerate(TEXTS[::-1][:SHOWN])]
    arguments = [[f"Where is {text.split()[0]}?" for text in texts], texts] if task == "qa" else [texts]
    tokenizer, predictor = bertsym.BundleTokenizer.open(prefix), bertsym.load(prefix)
    assert isinstance(predictor, bertsym.TaskPredictor)
    with Path(f"{prefix}.jsonl").open("w") as file:
        examples = itertools.chain.from_iterable(tokenizer.text_examples(*arguments))
        for number, example in enumerate(examples, 1):
            if isinstance(example, bertsym.DataError):
                raise example
            file.writelines(json.dumps(row) + "\n" for row in tokenizer.records(example, number))
    names = predictor.task.class_names
    header = {
        "multilabel": ["labels", *(f"p({name})" for name in names)],
        "regression": ["value"],
        "tagging": ["tags"],
        "qa": ["start", "end", "score", "no_answer"],
    }[task]
    lines = [header, *(cells(task, found) for found in predictor.predict_texts(*arguments))]
    Path(f"{prefix}.tsv").write_text("".join("\t".join(map(str, line)) + "\n" for line in lines))


def cells(task: str, found: Any) -> Sequence[object]:
    """Return what a client prints for a prediction."""
    if task == "multilabel":
        return [",".join(found.labels), *found.probabilities.values()]
    if task == "regression":
        return [found.value]
    if task == "tagging":
        return [" ".join(tag or "_" for tag in found.tags)]
    place = ["", ""] if found.answer is None else [found.answer.start, found.answer.end]
    return [*place, found.best[0].score, found.no_answer_score]


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), sys.argv[3:])
