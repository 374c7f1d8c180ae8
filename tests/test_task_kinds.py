"""What training promises holds for every kind of task: exact resumption, accumulation, and several workers."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import Tables
from runs import OPTIONS, Recorder, Run, files

from bertsym import Bundle, FinetuneOptions
from bertsym.symbol.params import Array

Make = Callable[[Path, int, int], object]


def write_labels(path: Path, rows: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    lines = ["label\ttext"]
    lines += [f"{'yes' if i % 2 else 'no'}\t{'happy' if i % 2 else 'sad'} {random_words(rng)}" for i in range(rows)]
    path.write_text("\n".join(lines) + "\n")


def write_label_sets(path: Path, rows: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    texts = [random_words(rng) for _ in range(rows)]
    lines = [f"{','.join(word for word in ('cat', 'dog') if word in text)}\t{text}" for text in texts]
    path.write_text("\n".join(["label\ttext", *lines]) + "\n")


def write_scores(path: Path, rows: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    lines = [f"{i % 5 / 4}\t{'happy ' * (i % 5)}{random_words(rng)}" for i in range(rows)]
    path.write_text("\n".join(["label\ttext", *lines]) + "\n")


def random_words(rng: np.random.Generator) -> str:
    return " ".join(rng.choice(["the", "cat", "dog", "sat", "ran", "on", "mat", "park"], rng.integers(2, 12)))


#: kind of task -> output of the encoder that its head reads, and what writes a table of so many rows from a seed
KINDS: dict[str, tuple[str, Make]] = {
    "classification": ("cls", write_labels),
    "multilabel": ("cls", write_label_sets),
    "regression": ("cls", write_scores),
}


@pytest.fixture(params=KINDS)
def run(request: pytest.FixtureRequest, bundles: dict[str, Path], once: Callable[..., Path], tmp_path: Path) -> Run:
    """A run of one kind of task: 40 rows, 3 steps an epoch, the last one short."""
    output, write = KINDS[request.param]

    def make(folder: Path) -> None:
        write(folder / "train.tsv", 40, 0)
        write(folder / "dev.tsv", 12, 1)

    folder = once(f"kind-{request.param}", make)
    (tmp_path / "run").mkdir()
    return Run(bundles[output], Tables(folder / "train.tsv", folder / "dev.tsv"), tmp_path / "run")


@pytest.fixture
def options(request: pytest.FixtureRequest) -> FinetuneOptions:
    kind = request.node.callspec.params["run"]
    return dataclasses.replace(OPTIONS, task=kind, epochs=2)


def params(prefix: Path) -> dict[str, Array]:
    return {name: np.array(array) for name, array in Bundle.open(prefix).params().items()}


@pytest.mark.parametrize("changes", [{"accumulate": 3}, {"freeze_encoder": True}], ids=["accumulate", "frozen"])
def test_a_stopped_run_resumes_with_the_same_bytes(run: Run, options: FinetuneOptions, changes: dict[str, Any]) -> None:
    options = dataclasses.replace(options, **changes)
    whole, recorder, uninterrupted = Recorder(), Recorder(), run.elsewhere("whole")
    uninterrupted(whole, options=options)
    run.stopped(5, options=options, checkpoint_steps=2)
    run(recorder, options=options, resume=True)
    assert recorder.steps == whole.steps[4:]
    assert files(run.out) == files(uninterrupted.out)


def test_passes_of_a_batch_add_up_to_its_step(run: Run, options: FinetuneOptions, without_dropout: Path) -> None:
    """With summed gradients and losses: but for rounding, the steps are those of whole batches."""
    run = dataclasses.replace(run, base=without_dropout)
    losses, trained = [], []
    for accumulate in (1, 4):
        recorder, once = Recorder(), run.elsewhere(f"accumulate-{accumulate}")
        once(recorder, options=dataclasses.replace(options, epochs=1, accumulate=accumulate, dropout=0.0))
        losses.append([loss for _, loss in recorder.steps])
        trained.append(params(once.out))
    assert losses[0] == pytest.approx(losses[1], rel=1e-4)
    for name, array in trained[0].items():
        if not name.endswith("_key_bias"):  # whose gradient is zero but for rounding, which decides Adam's steps
            np.testing.assert_allclose(trained[1][name], array, atol=2e-5, err_msg=name)
