"""Fine-tune on one kind of task, and print the dev metrics beside those of baselines, as a Markdown table.

mrpc        paraphrases, MRPC's own files; beside Hugging Face's accuracy
similarity  scores of made pairs of sentences; beside the mean and the overlap of words
tagging     entities of made sentences; beside PyTorch, the most frequent tag, and the tag that a word has in train
qa          questions about made passages; beside the head before training and two baselines; prints ten answers

Nothing of a made dev file occurs in its training file. Metrics are those after the last epoch, so that no epoch is
chosen on dev, with the standard deviation over the seeds.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import sys
import tempfile
import time
from pathlib import Path

import qa_data
import similarity_data
import tagging_data
from common import THREADS, run_worker
from evaluations import Evaluations, over_seeds, seed_options

import bertsym
from bertsym.metrics.squad import evaluate_answers
from bertsym.metrics.tagging import evaluate_tags


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("work", choices=WORKS)
    parser.add_argument("--train", type=Path, help="train.tsv of MRPC, for mrpc")
    parser.add_argument("--dev", type=Path, help="dev.tsv of MRPC, for mrpc")
    parser.add_argument("--model", default=os.environ.get("BERTSYM_MODEL_DIR"), help="Hugging Face folder")
    parser.add_argument("--rows", type=int, help="training examples; dev has at most a third of them")
    parser.add_argument("--epochs", type=int)
    parser.add_argument("--seeds", default="0,1,2", help="seeds, separated by commas (default: 0,1,2)")
    settings = parser.parse_args()
    if settings.model is None:
        parser.error("give --model, or set BERTSYM_MODEL_DIR")
    if settings.work == "mrpc" and None in (settings.train, settings.dev):
        parser.error("mrpc needs --train and --dev")
    settings.seeds = tuple(map(int, settings.seeds.split(",")))
    started = time.monotonic()
    with tempfile.TemporaryDirectory() as name:
        WORKS[settings.work](settings, Path(name))
    print(f"\n{settings.work}: {time.monotonic() - started:.0f} s", file=sys.stderr)


def fit(
    settings: argparse.Namespace,
    folder: Path,
    files: tuple[Path, Path],
    options: bertsym.FinetuneOptions,
    factor: float,
) -> Evaluations:
    """Fine-tune with each seed, to the bundle ``folder/model``."""
    if not (folder / "base-manifest.json").exists():
        bertsym.export(f"hf:{settings.model}", folder / "base", bertsym.ExportOptions(headless=True))
    evaluations = Evaluations(len(settings.seeds), factor)
    options = dataclasses.replace(options, epochs=settings.epochs or options.epochs, **seed_options(settings.seeds))
    bertsym.finetune(folder / "base", *files, folder / "model", options=options, on_event=evaluations)
    return evaluations


def mrpc(settings: argparse.Namespace, folder: Path) -> None:
    """Fine-tune on MRPC, as Hugging Face's example does."""
    train, dev = settings.train, settings.dev
    if settings.rows:
        train, dev = folder / "train.tsv", folder / "dev.tsv"
        for path, given, rows in ((train, settings.train, settings.rows), (dev, settings.dev, settings.rows // 3)):
            path.write_bytes(b"\n".join(given.read_bytes().split(b"\n")[: rows + 1]) + b"\n")
    options = bertsym.FinetuneOptions(task="mrpc", epochs=4, batch_size=32, learning_rate=5e-5)
    found = fit(settings, folder, (train, dev), options, factor=1.15)
    print("| seed | accuracy after the last epoch | F1 | accuracy of the epoch that is kept | F1 |")
    print("|---|---|---|---|---|")
    columns = [found.last("accuracy"), found.last("f1"), *(found.best(name, "accuracy") for name in ("accuracy", "f1"))]
    for seed, cells in zip(settings.seeds, zip(*columns)):
        print(f"| {seed} |", " | ".join(f"{cell:.3f}" for cell in cells), "|")
    print("| mean |", " | ".join(map(over_seeds, columns)), "|")
    print("| Hugging Face, seeds 0, 1, 2 | 0.797, 0.784, 0.777; mean 0.786 | | | |")


def similarity(settings: argparse.Namespace, folder: Path) -> None:
    """Fit the similarity of pairs."""
    rows = settings.rows or 1800
    pairs = {"train": similarity_data.make_pairs("train", rows), "dev": similarity_data.make_pairs("dev", rows // 3)}
    files = folder / "train.tsv", folder / "dev.tsv"
    for path, part in zip(files, pairs.values()):
        similarity_data.write_pairs(path, part)
    columns = bertsym.TableFormat(columns=bertsym.Columns(label="score"))
    options = bertsym.FinetuneOptions(
        task="regression", epochs=3, batch_size=16, learning_rate=5e-5, max_length=64, table_format=columns
    )
    found = fit(settings, folder, files, options, factor=1.2)
    overlap = similarity_data.pearson(similarity_data.lexical_scores(pairs["dev"]), pairs["dev"])
    print(f"| {rows} pairs of train, {rows // 3} of dev | Pearson | Spearman |\n|---|---|---|")
    print("| the mean score of train | 0 (not defined) | |")
    print(f"| overlap of words | {overlap:.3f} | |")
    print(f"| bertsym | {over_seeds(found.last('pearson'))} | {over_seeds(found.last('spearman'))} |")


def tagging(settings: argparse.Namespace, folder: Path) -> None:
    """Find entities, beside PyTorch with the same settings."""
    rows = settings.rows or 1200
    parts = tagging_data.make(rows, rows // 3, 0)
    files = folder / "train.jsonl", folder / "dev.jsonl"
    for path, sentences in zip(files, parts):
        lines = [{"tokens": [word for word, _ in each], "tags": [tag for _, tag in each]} for each in sentences]
        path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    options = bertsym.FinetuneOptions(task="tagging", epochs=3, batch_size=16, learning_rate=5e-5, max_length=64)
    found = fit(settings, folder, files, options, factor=3.5)
    job = {
        **{"train": str(files[0]), "dev": str(files[1]), "model": settings.model, "seeds": settings.seeds},
        **{"epochs": settings.epochs or options.epochs, "batch_size": options.batch_size},
        **{"learning_rate": options.learning_rate, "max_length": options.max_length, "frozen": False},
        "threads": THREADS,
    }
    torch = run_worker("tagging_torch.py", job, "torch")
    right = [[tag for _, tag in each] for each in parts[1]]
    names = ("f1", "precision", "recall")
    rest = [
        ("the most frequent tag", [tagging_data.majority_tags(*parts)]),
        ("the most frequent tag of each word", [tagging_data.lexical_tags(*parts)]),
        (torch["settings"], torch["tags"]),
    ]
    print(f"| {rows} sentences of train, {rows // 3} of dev | entity F1 | precision | recall |\n|---|---|---|---|")
    for label, predicted in rest:
        scores = [evaluate_tags(right, tags) for tags in predicted]
        print(f"| {label} |", " | ".join(over_seeds([score[name] for score in scores]) for name in names), "|")
    print("| bertsym |", " | ".join(over_seeds(found.last(name)) for name in names), "|")


def qa(settings: argparse.Namespace, folder: Path) -> None:
    """Answer questions; one seed decides which answers are printed."""
    passages = max(1, (settings.rows or 1400) // 2)
    qa_data.check_disjoint()
    made = {
        name: qa_data.Maker(name, 0).file(count, 2, 0.25)
        for name, count in (("train", passages), ("dev", passages // 3))
    }
    files = folder / "train.json", folder / "dev.json"
    for path, name in zip(files, made):
        path.write_text(json.dumps(made[name]))
    train, dev = (qa_data.questions_of(each) for each in made.values())
    options = bertsym.FinetuneOptions(task="qa", epochs=2, batch_size=16, learning_rate=1e-4, max_length=192)
    found = fit(settings, folder, files, options, factor=1.3)
    untrained = dataclasses.replace(options, epochs=1, learning_rate=1e-30, freeze_encoder=True)
    few, before = folder / "few.json", Evaluations()
    few.write_text(json.dumps(qa_data.Maker("train", 0).file(8, 2, 0.25)))
    bertsym.finetune(folder / "base", few, files[1], folder / "before", options=untrained, on_event=before)
    print(f"| {len(train)} questions of train, {len(dev)} of dev | F1 | exact match |\n|---|---|---|")
    correct = [answers for _, _, answers in dev]
    for name, answers in qa_data.baseline_answers(dev, train).items():
        values = evaluate_answers(correct, answers)
        print(f"| {name} | {values['f1']:.3f} | {values['exact_match']:.3f} |")
    for name, each in (("bertsym before training", before), ("bertsym", found)):
        print(f"| {name} | {over_seeds(each.last('f1'))} | {over_seeds(each.last('exact_match'))} |")
    predicted = bertsym.QuestionAnswerer(folder / "model").predict(*map(list, list(zip(*dev))[:2]))
    values = evaluate_answers(correct, [each.text for each in predicted])
    print(f"| bertsym, threshold of no answer tuned on dev | {values['f1']:.3f} | {values['exact_match']:.3f} |\n")
    for (question, context, answers), answer in list(zip(dev, predicted))[:10]:
        print(
            f"{context}\n  {question}\n  {answer.text or 'no answer'} (right: {answers[0] if answers else 'no answer'})"
        )


WORKS = {"mrpc": mrpc, "similarity": similarity, "tagging": tagging, "qa": qa}

if __name__ == "__main__":
    main()
