"""Fine-tuning of an encoder with projected embeddings, and of one whose layers share their parameters."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
from conftest import VOCABULARY, Tables
from family_folders import write_family
from runs import OPTIONS, Recorder, Run, files

from bertsym import ExportOptions, export


@pytest.mark.parametrize("model_type", ["electra", "albert"])
def test_the_loss_falls_and_a_resumed_run_writes_the_same_bytes(
    tables: Tables, tmp_path: Path, model_type: str
) -> None:
    source = write_family(tmp_path / "hf", model_type)
    (source / "vocab.txt").write_text("\n".join(VOCABULARY) + "\n")
    export(f"hf:{source}", tmp_path / "base", ExportOptions(output="mean"))
    whole, resumed = (Run(tmp_path / "base", tables, tmp_path / name) for name in ("whole", "resumed"))
    options = dataclasses.replace(OPTIONS, learning_rate=2e-2, epochs=6)
    recorder = Recorder()
    for run in (whole, resumed):
        run.folder.mkdir()
    whole(recorder, options=options)
    assert recorder.evaluations[-1].loss < 0.9 * recorder.evaluations[0].loss
    resumed.stopped(14, options=options)
    resumed(options=options, resume=True)
    assert files(resumed.out) == files(whole.out)
