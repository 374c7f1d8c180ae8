"""Each data set as it is published, through finetune, evaluate and predict, with --task and --data-dir alone."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from command_runner import Run
from glue_files import LAYOUTS

from bertsym import Bundle, find_dataset
from bertsym.tasks import TASKS

Forked = Callable[..., Run]

TRAINED = [name for name in LAYOUTS if "train" in LAYOUTS[name].files and find_dataset(name).kind in TASKS]


def line_of(text: str, start: str) -> str:
    return next(line for line in text.splitlines() if line.startswith(start))


@pytest.mark.parametrize("name", TRAINED)
def test_the_files_of_a_data_set_need_its_name_and_folder_only(
    forked: Forked, bundles: dict[str, Path], tmp_path: Path, name: str
) -> None:
    layout, dataset = LAYOUTS[name], find_dataset(name)
    folder, out = layout.write(tmp_path / "data"), tmp_path / "model"
    trained = forked("finetune", bundles["cls"], out, "--task", name, "--data-dir", folder)
    assert (trained.code, trained.fault) == (0, None), trained.error
    assert f"{folder / layout.files['train']}: 6 rows" in trained.error
    signature = Bundle.open(out).signature
    assert (signature.task, signature.dataset, signature.pair) == (dataset.kind, name, dataset.columns.pair is not None)
    assert signature.class_names == dataset.labels

    judged = forked("evaluate", out, "--task", name, "--data-dir", folder, "--json")
    assert judged.code == 0, judged.error
    metrics = json.loads(judged.out)
    assert list(metrics)[: len(dataset.metrics)] == list(dataset.metrics)
    assert (metrics["rows"], metrics["left_out"]) == (6, len(layout.broken))
    assert metrics["dropped_labels"] == ({"-": 1} if layout.dropped else {})
    # What evaluate prints is what finetune printed for the epoch that it kept.
    printed = line_of(trained.out, dataset.metrics[0])
    assert all(f"{key} {metrics[key]:.4f}" in printed for key in (*dataset.metrics, "loss"))
