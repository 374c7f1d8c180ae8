"""``finetune --seeds``: the same run with several seeds, of which the best on dev is written."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from conftest import Result, Tables
from runs import OPTIONS, Run, checkpoints, files

from bertsym import Bundle, FinetuneOptions, ParamsFile, UsageError, finetune
from bertsym.tasks.classification import Classification
from bertsym.tasks.task import Reading
from bertsym.training.dev_split import split_examples

Cli = Callable[..., Result]
SEEDS = dataclasses.replace(OPTIONS, seeds=(0, 3), epochs=1)


@pytest.fixture
def run(bundles: dict[str, Path], tables: Tables, tmp_path: Path) -> Run:
    (tmp_path / "run").mkdir()
    return Run(bundles["cls"], tables, tmp_path / "run")


def test_each_seed_is_a_run_of_its_own_and_the_best_on_dev_is_written(run: Run) -> None:
    result = run(options=SEEDS)
    alone = {}
    for seed in SEEDS.seeds:
        other = run.elsewhere(f"seed{seed}")
        alone[seed] = (other(options=dataclasses.replace(SEEDS, seeds=(), seed=seed)), other.out)
    assert result.seeds is not None
    assert result.seeds.metrics == {seed: one.kept.metrics for seed, (one, _) in alone.items()}
    best = max(alone, key=lambda seed: alone[seed][0].kept.rank())
    assert result.seeds.kept == best
    written, expected = (ParamsFile(f"{prefix}-0000.params") for prefix in (run.out, alone[best][1]))
    for name in expected:
        np.testing.assert_array_equal(written[name], expected[name], err_msg=name)
    values = [one.kept.metrics["loss"] for one, _ in alone.values()]
    assert result.seeds.means["loss"] == pytest.approx(np.mean(values))
    assert result.seeds.deviations["loss"] == pytest.approx(abs(values[0] - values[1]) / np.sqrt(2))
    training = json.loads(Path(f"{run.out}-manifest.json").read_text())["training"]
    assert training["seeds"]["kept"] == best
    assert checkpoints(run.out) == []


def test_a_resumed_run_writes_the_same_bytes(run: Run) -> None:
    whole = run.elsewhere("whole")
    whole(options=SEEDS)
    run.stopped(3, options=SEEDS, checkpoint_steps=2)
    assert checkpoints(run.out) == ["seed-0"]
    run(options=SEEDS, resume=True, checkpoint_steps=2)
    assert files(run.out) == files(whole.out)


def test_all_seeds_are_compared_on_the_same_dev_rows(run: Run) -> None:
    """Those that dev_fraction draws by `seed`."""
    options = dataclasses.replace(SEEDS, dev_fraction=0.3)
    result = finetune(run.base, run.tables.train, None, run.out, options=options)
    bundle = Bundle.open(run.base)
    reading = Reading(bundle.tokenizer(bundle.signature.tokenizer, 24))
    lines = run.tables.train.read_text().splitlines()
    parts = split_examples(Classification().read(run.tables.train, reading), Classification(), 0.3, options.seed)
    train, dev = (run.folder.parent / name for name in ("part.tsv", "rest.tsv"))
    for file, part in zip((train, dev), parts):
        file.write_text("\n".join([lines[0], *(lines[row.line - 1] for row in part.rows)]) + "\n")
    alone = {
        seed: finetune(
            run.base,
            train,
            dev,
            run.folder.parent / f"s{seed}",
            options=dataclasses.replace(SEEDS, seeds=(), seed=seed),
        )
        for seed in SEEDS.seeds
    }
    assert result.seeds is not None
    assert result.seeds.metrics == {seed: one.kept.metrics for seed, one in alone.items()}
    recorded = json.loads(Path(f"{run.out}-manifest.json").read_text())["training"]["options"]
    assert recorded.get("dev_seed", recorded["seed"]) == options.seed


def test_the_command_prints_mean_and_deviation_first(cli: Cli, run: Run) -> None:
    done = cli(*run.arguments, "--seeds", "0,1", "--epochs", 1, "--max-length", 24)
    assert done.code == 0, done.err
    first, *rest = done.out.splitlines()
    assert first.startswith("mean and standard deviation of 2 seeds (0, 1): accuracy ")
    assert any("the best on dev" in line for line in rest)


@pytest.mark.parametrize(
    ("given", "why"),
    [("0,x", "'0,x' is not a list of integers"), ("0", "two or more different integers"), ("1,1", "two or more")],
)
def test_seeds_that_make_no_sense_are_refused(cli: Cli, run: Run, given: str, why: str) -> None:
    done = cli(*run.arguments, "--seeds", given)
    assert (done.code, why in done.err) == (2, True)


def test_the_options_refuse_negative_seeds() -> None:
    with pytest.raises(UsageError, match="seeds must be two or more different integers"):
        FinetuneOptions(seeds=(0, -1))
