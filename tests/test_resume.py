"""A stopped training run resumes from its checkpoint with byte-identical results, or reports why it cannot."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from commands import BERTSYM
from conftest import VOCABULARY, Result, Tables, hugging_face_weights, write_hugging_face
from runs import OPTIONS, Recorder, Run, checkpoints, files

from bertsym import ExportOptions, ModelError, ParamsFile, TableFormat, UsageError, export
from bertsym.array import Array
from bertsym.symbol.params import write_params
from bertsym.text.features import Features
from bertsym.training.checkpoints import Checkpoints
from bertsym.training.encodings import encode

Cli = Callable[..., Result]


@pytest.fixture
def run(bundles: dict[str, Path], tables: Tables, tmp_path: Path) -> Run:
    (tmp_path / "run").mkdir()
    return Run(bundles["cls"], tables, tmp_path / "run")


@pytest.fixture
def uninterrupted(run: Run) -> dict[str, bytes]:
    """The files of an uninterrupted run with OPTIONS."""
    return run.uninterrupted()[1]


@pytest.fixture(scope="module")
def stopped(bundles: dict[str, Path], tables: Tables, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The checkpoints of a run that was killed after step 13: of both complete epochs, the later with a best epoch."""
    run = Run(bundles["cls"], tables, tmp_path_factory.mktemp("stopped"))
    run.stopped(13, keep_checkpoints=2)
    return run.out.with_name("x-checkpoints")


@pytest.fixture
def killed(run: Run, stopped: Path) -> Run:
    """The same run, whose newest checkpoint is that of the first epoch."""
    shutil.copytree(stopped / "checkpoint-6", run.out.with_name("x-checkpoints") / "checkpoint-6")
    return run


@pytest.fixture
def killed_later(run: Run, stopped: Path) -> Run:
    """The same run, whose newest checkpoint is that of the second epoch."""
    shutil.copytree(stopped / "checkpoint-12", run.out.with_name("x-checkpoints") / "checkpoint-12")
    return run


# The same bytes


@pytest.mark.parametrize(
    ("step", "checkpoint_steps", "found", "changes"),
    [
        (8, None, "checkpoint-6", {}),
        (6, None, None, {}),
        (11, 4, "checkpoint-8", {}),
        (17, 5, "checkpoint-15", {"freeze_encoder": True}),
        (11, 4, "checkpoint-8", {"eval_steps": 4, "metric": "loss"}),
        (9, None, "checkpoint-6", {"eval_steps": 2, "accumulate": 2}),
        (
            *(10, 2, "checkpoint-8"),
            {"freeze_layers": 0, "layer_decay": 0.7, "clip_norm": 0.0, "dropout": 0.0, "weight_decay": 0.3},
        ),
    ],
    ids=[
        "after an epoch",
        "before the first checkpoint",
        "within an epoch",
        "frozen",
        "evaluated at the checkpoint",
        "evaluated after the checkpoint, accumulated",
        "rates by layer, strong decay",
    ],
)
def test_a_resumed_run_writes_the_same_bytes(
    run: Run, step: int, checkpoint_steps: int | None, found: str | None, changes: dict[str, Any]
) -> None:
    options = dataclasses.replace(OPTIONS, **changes)
    recorder = Recorder()
    whole, expected = run.uninterrupted(**changes)
    run.stopped(step, options=options, checkpoint_steps=checkpoint_steps)
    assert [name for name in checkpoints(run.out) if name.startswith("checkpoint-")] == ([found] if found else [])
    run(recorder, options=options, resume=True)
    first = int(found.rpartition("-")[2]) if found else 0
    assert recorder.steps == whole.steps[first:]
    # The checkpoint's epoch is evaluated again.
    assert [report.metrics for report in recorder.evaluations] == [
        report.metrics for report in whole.evaluations[-len(recorder.evaluations) :]
    ]
    assert files(run.out) == expected


def test_a_run_that_is_stopped_several_times_writes_the_same_bytes(run: Run, uninterrupted: dict[str, bytes]) -> None:
    for step in range(2, 19, 5):
        run.stopped(step, resume=True, checkpoint_steps=2)
    run(resume=True)
    assert files(run.out) == uninterrupted


def test_the_best_epoch_and_patience_are_restored(run: Run) -> None:
    # The learning rate is too small for any improvement after the first epoch.
    options = dataclasses.replace(OPTIONS, epochs=9, learning_rate=1e-12, patience=2)
    whole, recorder = Recorder(), Recorder()
    expected = run.elsewhere("whole")
    result = expected(whole, options=options)
    stop = whole.steps[-1][0] - 2
    run.stopped(stop, options=options)
    resumed = run(recorder, options=options, resume=True)
    assert (resumed.kept.epoch, len(resumed.evaluations)) == (result.kept.epoch, len(result.evaluations))
    assert len(recorder.evaluations) < len(whole.evaluations) < 9
    assert files(run.out) == files(expected.out)


def test_a_run_may_resume_with_another_number_of_threads(killed: Run, uninterrupted: dict[str, bytes]) -> None:
    options = ["--epochs", "3", "--batch-size", "16", "--lr", "2e-3", "--max-length", "24", "--threads", "1"]
    subprocess.run([*BERTSYM, *killed.arguments, *options, "--resume"], check=True, capture_output=True, timeout=120)
    assert files(killed.out)["-0000.params"] == uninterrupted["-0000.params"]


# Existing checkpoints


def test_the_newest_checkpoints_are_kept_until_the_bundle_is_written(run: Run) -> None:
    run.stopped(13, checkpoint_steps=5, keep_checkpoints=3)
    assert checkpoints(run.out) == ["checkpoint-10", "checkpoint-12", "checkpoint-6"]
    assert not list(run.folder.glob(".*"))
    run(resume=True)
    assert not run.out.with_name("x-checkpoints").exists()


def test_a_checkpoint_is_parameters_and_json(run: Run) -> None:
    run.stopped(7)
    run.stopped(13, resume=True)
    folder = run.out.with_name("x-checkpoints") / "checkpoint-12"
    assert sorted(path.name for path in folder.iterdir()) == [
        *("best.params", "manifest.json", "state.json", "state.params")
    ]
    state = json.loads((folder / "state.json").read_text())
    assert (state["step"], state["epoch"], state["batch"], len(state["evaluations"])) == (12, 2, 6, 1)
    assert {name.rstrip("0123456789") for name in ParamsFile(folder / "state.params")} == {
        *("weights", "means", "variances")
    }
    assert "fc-finetune_weight" in ParamsFile(folder / "best.params")


def test_a_damaged_checkpoint_is_skipped_for_an_older_one(run: Run, uninterrupted: dict[str, bytes]) -> None:
    run.stopped(13, keep_checkpoints=2)
    params = run.out.with_name("x-checkpoints") / "checkpoint-12" / "state.params"
    content = bytearray(params.read_bytes())
    content[len(content) // 2] ^= 1
    params.write_bytes(content)
    recorder = Recorder()
    run(recorder, resume=True, keep_checkpoints=2)
    assert any(
        note.startswith("skipping a damaged checkpoint: ") and "its SHA-256 differs" in note for note in recorder.notes
    )
    assert recorder.steps[0][0] == 7
    assert files(run.out) == uninterrupted


def test_a_damaged_checkpoint_does_not_displace_later_ones(run: Run, uninterrupted: dict[str, bytes]) -> None:
    run.stopped(13, keep_checkpoints=2)
    state = run.out.with_name("x-checkpoints") / "checkpoint-12" / "state.json"
    state.write_bytes(state.read_bytes()[:-20])
    run.stopped(9, resume=True, checkpoint_steps=1)
    assert checkpoints(run.out) == ["checkpoint-8"]
    run(resume=True)
    assert files(run.out) == uninterrupted


def test_the_encodings_of_a_frozen_encoder_are_computed_once(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    options = dataclasses.replace(OPTIONS, freeze_encoder=True)
    run.stopped(3, options=options)
    assert checkpoints(run.out) == ["dev-encodings", "train-encodings"]
    damaged = run.out.with_name("x-checkpoints") / "dev-encodings" / "state.params"
    damaged.write_bytes(damaged.read_bytes()[:-1])
    encoded = []

    def counting(predict: Any, features: Features, on_rows: Any) -> Any:
        encoded.append(len(features))
        return encode(predict, features, on_rows)

    monkeypatch.setattr("bertsym.training.trainable_models.encode", counting)
    run(options=options, resume=True)
    assert encoded == [21]
    assert files(run.out) == run.uninterrupted(freeze_encoder=True)[1]


@pytest.mark.parametrize(
    "other", [np.zeros((4, 3)), np.zeros((3, 3), np.float32), np.full((4, 3), np.nan, np.float32)], ids=str
)
def test_encodings_with_a_wrong_shape_or_type_are_computed_again(tmp_path: Path, other: Array) -> None:
    (tmp_path / "scratch").mkdir()
    kept = Checkpoints(tmp_path / "x-checkpoints", tmp_path / "scratch", {}, 1)
    kept.cached_array("train-encodings", other.shape, lambda: other)
    right = np.ones((4, 3), np.float32)
    assert kept.cached_array("train-encodings", (4, 3), lambda: right) is right
    found = kept.cached_array("train-encodings", (4, 3), lambda: other)
    np.testing.assert_array_equal(found, right)


@pytest.mark.parametrize("name", ["manifest.json", "state.json", "state.params"])
def test_a_run_with_only_damaged_checkpoints_is_refused(killed: Run, name: str) -> None:
    path = killed.out.with_name("x-checkpoints") / "checkpoint-6" / name
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(ModelError, match=name):
        killed(resume=True)
    assert checkpoints(killed.out) == ["checkpoint-6"]


@pytest.mark.parametrize("name", ["checkpoint-6", "checkpoint-6/manifest.json", "checkpoint-6/state.params"])
def test_a_link_that_escapes_the_folder_is_refused(killed: Run, tmp_path: Path, name: str) -> None:
    path = killed.out.with_name("x-checkpoints") / name
    path.rename(tmp_path / "elsewhere")
    path.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(ModelError, match="a link that escapes its folder"):
        killed(resume=True)


def sign(folder: Path, name: str, write: Callable[[Any, Any], object], content: Any) -> None:
    """Write a file of a checkpoint, and its digest."""
    with (folder / name).open("wb") as file:
        write(file, content)
    written, manifest = (folder / name).read_bytes(), json.loads((folder / "manifest.json").read_text())
    manifest["files"][name] = {"sha256": hashlib.sha256(written).hexdigest(), "size": len(written)}
    (folder / "manifest.json").write_text(json.dumps(manifest))


def forged(run: Run, step: int, change: Callable[[dict[str, Any]], object]) -> None:
    """Change the state in a checkpoint, and its digest."""
    folder = run.out.with_name("x-checkpoints") / f"checkpoint-{step}"
    state = json.loads((folder / "state.json").read_text())
    change(state)
    sign(folder, "state.json", lambda file, content: file.write(json.dumps(content).encode()), state)


IMPOSSIBLE: dict[str, list[object]] = {
    "step": ["six", -6, 7, 10**30, None],
    "batch": [-1, 5, 10**9],
    "epoch": [0, 2, 10**12, "1"],
    "draws": [-1, 5, 7, "x", True],
    "samples": [0, 89, 97],
    "loss": [10**400, "x"],
    "decay": [1.0, 0.5, "x"],
    "evaluations": [None, {"a": 1}, [{}], ["a"]],
}


@pytest.mark.parametrize(("name", "value"), [(name, value) for name, values in IMPOSSIBLE.items() for value in values])
def test_an_impossible_state_is_refused(killed: Run, name: str, value: object) -> None:
    forged(killed, 6, lambda state: state.update({name: value}))
    with pytest.raises(ModelError, match=r"^checkpoint of step .*: damaged \("):
        killed(resume=True)


@pytest.mark.parametrize(
    "changes",
    [
        *({"metrics": metrics} for metrics in ({}, [1], {"accuracy": "x", "loss": 0.5}, {"accuracy": 0.5}, None)),
        {"metrics": {"accuracy": 0.5, "f1": 10**400, "loss": 0.5}},
        {"step": 5},
        {"epoch": 2},
        {"epochs": 4},
    ],
    ids=str,
)
def test_an_impossible_evaluation_is_refused(killed_later: Run, changes: dict[str, object]) -> None:
    forged(killed_later, 12, lambda state: state["evaluations"][0].update(changes))
    with pytest.raises(ModelError, match=r"^checkpoint of step 12: damaged \("):
        killed_later(resume=True)


Arrays = dict[str, Any]
FORGED_ARRAYS: list[tuple[str, str, Callable[[Arrays], Any], str]] = [
    ("state.params", "weights0", lambda arrays: arrays["weights0"].astype(np.float64), "weights0 is float64"),
    ("state.params", "means0", lambda arrays: arrays["means0"].astype(np.float16), "means0 is float16"),
    ("state.params", "means1", lambda arrays: arrays["means1"].astype(np.int32), "means1 is int32"),
    ("state.params", "means1", lambda arrays: arrays["means1"][:-1], r"means1 has shape \(\d+,\)"),
    (
        "state.params",
        "weights1",
        lambda arrays: arrays["weights1"] * np.nan,
        "weights1 has elements that are not finite",
    ),
    ("state.params", "variances0", lambda arrays: arrays["variances0"] - 1, "variances0 has negative elements"),
    ("state.params", "variances2", lambda arrays: None, "missing arrays: variances2"),
    ("state.params", "extra", lambda arrays: arrays["means0"], "unknown arrays: extra"),
    ("best.params", "fc-finetune_bias", lambda arrays: np.zeros(2), "fc-finetune_bias is float64, expected float32"),
    ("best.params", "fc-finetune_bias", lambda arrays: np.zeros((2, 1), np.float32), "fc-finetune_bias has shape"),
    (
        "best.params",
        "fc-finetune_bias",
        lambda arrays: np.array([np.inf, 0], np.float32),
        "elements that are not finite",
    ),
]


@pytest.mark.parametrize(("file", "name", "change", "why"), FORGED_ARRAYS, ids=[case[-1] for case in FORGED_ARRAYS])
def test_impossible_arrays_are_refused(
    killed_later: Run, file: str, name: str, change: Callable[[Arrays], Any], why: str
) -> None:
    """MXNet would convert them, or continue from them."""
    folder = killed_later.out.with_name("x-checkpoints") / "checkpoint-12"
    arrays = {key: np.array(array) for key, array in ParamsFile(folder / file).items()}
    arrays = {key: array for key, array in {**arrays, name: change(arrays)}.items() if array is not None}
    sign(folder, file, write_params, arrays)
    with pytest.raises(ModelError, match=rf"^checkpoint of step 12: damaged \(.*{why}"):
        killed_later(resume=True)


def test_resuming_without_checkpoints_starts_at_step_1(run: Run) -> None:
    recorder = Recorder()
    run(recorder, options=dataclasses.replace(OPTIONS, epochs=1), resume=True)
    assert f"no checkpoint in {run.out}-checkpoints: starting at step 1" in recorder.notes
    assert recorder.steps[0][0] == 1


def test_checkpoints_are_discarded_only_with_force(killed: Run) -> None:
    with pytest.raises(UsageError, match="continue it with --resume, or start over with --force"):
        killed()
    assert checkpoints(killed.out) == ["checkpoint-6"]
    recorder = Recorder()
    killed(recorder, force=True, options=dataclasses.replace(OPTIONS, epochs=1))
    assert recorder.steps[0][0] == 1
    assert not killed.out.with_name("x-checkpoints").exists()


# Different settings


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"learning_rate": 1e-3}, "learning_rate was 0.002, is now 0.001"),
        ({"epochs": 4}, "epochs was 3, is now 4"),
        ({"seed": 1}, "seed was 0, is now 1"),
        ({"accumulate": 2, "dropout": 0.2}, "accumulate was 1, is now 2; dropout was 0.1, is now 0.2"),
        ({"max_length": 20}, "max_length was 24, is now 20"),
        ({"freeze_encoder": True}, "freeze_encoder was False, is now True"),
        ({"patience": 3}, "patience was none, is now 3"),
        ({"on_error": "skip"}, "on_error was fail, is now skip"),
    ],
    ids=str,
)
def test_different_options_are_named(killed: Run, changes: dict[str, Any], why: str) -> None:
    with pytest.raises(UsageError) as refused:
        killed(resume=True, options=dataclasses.replace(OPTIONS, **changes))
    assert str(refused.value) == (
        f"{killed.out}-checkpoints/checkpoint-6 belongs to a run with other settings: {why}; use the same settings, or "
        "start over with --force"
    )


def test_different_dropped_labels_are_refused(killed: Run) -> None:
    with pytest.raises(UsageError, match=r"other settings: dropped labels was none, is now '-', 'maybe'; "):
        killed(resume=True, options=dataclasses.replace(OPTIONS, table_format=TableFormat(drop_labels=("-", "maybe"))))


@pytest.mark.parametrize("name", ["train", "dev"])
def test_a_different_table_is_refused(killed: Run, tmp_path: Path, name: str) -> None:
    table = tmp_path / "other.tsv"
    table.write_text(getattr(killed.tables, name).read_text() + "yes\tthe happy cat\n")
    killed.tables = dataclasses.replace(killed.tables, **{name: table})
    with pytest.raises(UsageError, match=rf"other settings: {name} table was [0-9a-f]{{12}}, is now [0-9a-f]{{12}}; "):
        killed(resume=True)


def test_a_different_base_is_refused(killed: Run, tiny_hf: Path, bundles: dict[str, Path], tmp_path: Path) -> None:
    killed.base = bundles["pooled"]
    with pytest.raises(UsageError, match=r"other settings: base bundle's symbol\.json .* base bundle's 0000.params "):
        killed(resume=True)
    killed.base = export(f"hf:{tiny_hf}", tmp_path / "fast", ExportOptions(form="fast", target="1.9")).bundle.prefix
    with pytest.raises(UsageError, match=r"other settings: base bundle's symbol\.json "):
        killed(resume=True)


@pytest.mark.parametrize(("name", "value"), [("shards", 4), ("mxnet version", "1.9.0"), ("bertsym version", "0.0.1")])
def test_a_checkpoint_of_another_version_is_refused(killed: Run, name: str, value: object) -> None:
    path = killed.out.with_name("x-checkpoints") / "checkpoint-6" / "manifest.json"
    manifest = json.loads(path.read_text())
    here = manifest["settings"][name]
    manifest["settings"][name] = value
    path.write_text(json.dumps(manifest))
    with pytest.raises(UsageError, match=f"with other settings: {name} was {value}, is now {here}; "):
        killed(resume=True)


# Failures


def test_a_run_that_diverges_keeps_its_last_finite_checkpoint(run: Run, tmp_path: Path) -> None:
    weights = hugging_face_weights()
    # Their sum overflows float32.
    weights["embeddings.word_embeddings.weight"][VOCABULARY.index("bird")] = 3e38
    weights["embeddings.position_embeddings.weight"][30] = 3e38
    source = write_hugging_face(tmp_path / "large", weights)
    run.base = export(f"hf:{source}", tmp_path / "large" / "base", verify=False).bundle.prefix
    table = tmp_path / "bird.tsv"
    rows = [f"{label}\tthe {word} cat" for word in ("red", "blue", "old", "small") for label in ("yes", "no")] * 4
    table.write_text("\n".join(["label\ttext", *rows, "yes\t" + "bird " * 33]) + "\n")
    run.tables = Tables(table, run.tables.dev)
    recorder = Recorder()
    with pytest.raises(ModelError) as diverged:
        run(recorder, checkpoint_steps=1, options=dataclasses.replace(OPTIONS, batch_size=4, max_length=40))
    good = len(recorder.steps)
    assert good > 0
    assert f"training diverged at step {good + 1} (epoch 1): loss nan, gradient norm nan, " in str(diverged.value)
    assert str(diverged.value).endswith(f"; newest checkpoint: {run.out}-checkpoints/checkpoint-{good}")


def test_resuming_appends_to_the_log(cli: Cli, run: Run, tmp_path: Path) -> None:
    log = tmp_path / "log.jsonl"
    log.write_text('{"event": "run_failed"}\n')
    done = cli(*run.arguments, "--epochs", 1, "--log-json", log, "--resume")
    assert done.code == 0, done.err
    events = [json.loads(line)["event"] for line in log.read_text().splitlines()]
    assert events[:2] == ["run_failed", "run_started"]
    assert (events.count("step"), events[-1]) == (1, "run_ended")


def test_a_removed_folder_is_a_one_line_error(run: Run) -> None:
    with pytest.raises(ModelError, match="cannot write a checkpoint: No such file or directory; no checkpoint was"):
        run(Recorder(3, lambda: shutil.rmtree(run.folder)))


@pytest.mark.parametrize("option", ["--checkpoint-steps", "--keep-checkpoints"])
def test_numbers_out_of_range_are_refused(cli: Cli, run: Run, option: str) -> None:
    refused = cli(*run.arguments, option, 0)
    assert refused.error_line == f"Error: {option.strip('-').replace('-', '_')} must be 1 or more, not 0"
    assert refused.code == 2
