"""What training promises holds for every kind of task: exact resumption and accumulation."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import Tables
from kinds import KINDS, has_gradient
from runs import OPTIONS, Recorder, Run, files

from bertsym import Bundle, FinetuneOptions
from bertsym.array import Array


@pytest.fixture(params=KINDS)
def run(request: pytest.FixtureRequest, bundles: dict[str, Path], tmp_path: Path) -> Run:
    """A run of one kind of task: 40 examples, 3 steps an epoch, the last one short."""
    kind = KINDS[request.param]
    tables = Tables(*(tmp_path / f"{name}.{kind.ending}" for name in ("train", "dev")))
    kind.write(tables.train, 40, 0)
    kind.write(tables.dev, 12, 1)
    (tmp_path / "run").mkdir()
    return Run(bundles[kind.output], tables, tmp_path / "run")


@pytest.fixture
def options(request: pytest.FixtureRequest) -> FinetuneOptions:
    kind = request.node.callspec.params["run"]
    return dataclasses.replace(OPTIONS, task=kind, epochs=2)


def params(prefix: Path) -> dict[str, Array]:
    return {name: np.array(array) for name, array in Bundle.open(prefix).params().items()}


@pytest.mark.parametrize(
    ("run", "changes"),
    [
        # For classification, see test_resume.
        *((kind, {"accumulate": 3}) for kind in KINDS if kind != "classification"),
        # The encodings of a frozen encoder are vectors or sequences.
        *((kind, {"freeze_encoder": True}) for kind in ("multilabel", "qa")),
    ],
    ids=lambda value: value if isinstance(value, str) else next(iter(value)),
    indirect=["run"],
)
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
        if has_gradient(name, options.task):
            np.testing.assert_allclose(trained[1][name], array, atol=2e-5, err_msg=name)
