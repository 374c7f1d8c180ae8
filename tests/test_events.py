"""The events of a run: their log, its schema, TensorBoard."""

from __future__ import annotations

import contextlib
import io
import json
import signal
import struct
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import MISSING, dataclass, fields
from pathlib import Path
from typing import Any

import jsonschema
import numpy as np
import pytest
from commands import BERTSYM
from conftest import Result, Tables

from bertsym.cli.group import run
from bertsym.events import Event, RowsDone

SCHEMA: dict[str, Any] = json.loads(
    (Path(__file__).parent.parent / "docs" / "events.schema.json").read_text(encoding="utf-8")
)
VALIDATOR = jsonschema.Draft202012Validator(SCHEMA)
Cli = Callable[..., Result]


def read_log(path: Path) -> list[dict[str, Any]]:
    """The events of a log, each valid and with described keys only."""
    found = []
    for line in path.read_text(encoding="utf-8").splitlines(keepends=True):
        assert line.endswith("\n")
        event = json.loads(line)
        VALIDATOR.validate(event)
        assert set(event) <= {*SCHEMA["properties"], *SCHEMA["$defs"][event["event"]]["properties"]}
        assert event["start"] <= event["end"]
        found.append(event)
    return found


@dataclass(frozen=True)
class Logged:
    """The logs of commands by name, and the folder of TensorBoard of the first."""

    events: Mapping[str, list[dict[str, Any]]]
    tensorboard: Path


@pytest.fixture(scope="module")
def logged(bundles: dict[str, Path], tables: Tables, tmp_path_factory: pytest.TempPathFactory) -> Logged:
    """A small training, and the commands on what it wrote."""
    folder = tmp_path_factory.mktemp("logged")
    model, scalars = folder / "x", folder / "scalars"
    commands: dict[str, list[object]] = {
        "finetune": ["finetune", bundles["cls"], model, "--train", tables.train, "--dev", tables.dev, "--epochs", 2],
        "seeds": ["finetune", bundles["mean"], folder / "y", "--train", tables.train, "--dev-fraction", 0.2],
        "evaluate": ["evaluate", model, tables.dev],
        "predict": ["predict", model, tables.dev, "--out", folder / "answers.tsv"],
        "embed": ["embed", model, tables.dev, folder / "vectors.npy"],
        "quantize": ["quantize", model, folder / "int8", "--calibrate", tables.dev, "--max-drop", 1],
        "failed": ["evaluate", model, tables.dev, "--text-column", "none"],
    }
    commands["finetune"] += ["--batch-size", 4, "--max-length", 24, "--tensorboard", scalars]
    commands["seeds"] += ["--seeds", "3,4", "--freeze-encoder", "--epochs", 9, "--lr", 1e-12, "--patience", 1]
    events = {}
    for name, words in commands.items():
        log = folder / f"{name}.jsonl"
        with contextlib.redirect_stderr(io.StringIO()), contextlib.redirect_stdout(io.StringIO()):
            assert run([*map(str, words), "--log-json", str(log)]) == (name == "failed")
        events[name] = read_log(log)
    return Logged(events, scalars)


def kinds(events: list[dict[str, Any]]) -> list[str]:
    """The kinds of events in order, equal neighbours once."""
    names = [event["event"] for event in events]
    return [name for name, before in zip(names, [None, *names]) if name != before]


def test_the_events_of_a_training_are_logged_in_order(logged: Logged) -> None:
    events = logged.events["finetune"]
    epoch = ["step", "epoch", "checkpoint", "dev_evaluated"]
    assert kinds(events) == [
        *("run_started", "tokenised", "note", *epoch, *epoch, "kept", "verified", "written", "run_ended"),
    ]
    assert [event["step"] for event in events if event["event"] == "step"] == [10, 20, 23, 33, 43, 46]
    (kept,) = [event for event in events if event["event"] == "kept"]
    evaluated = {event["step"]: event["metrics"] for event in events if event["event"] == "dev_evaluated"}
    assert kept["metrics"] == evaluated[kept["step"]]
    assert events[0]["command"][:2] == ["bertsym", "finetune"]
    assert {"bertsym", "mxnet", "numpy"} <= set(events[0]["versions"])
    # The run contains all others, and one step begins where the one before it ended.
    assert events[-1]["start"] == events[0]["start"] <= events[1]["start"] <= events[-2]["end"] <= events[-1]["end"]
    steps = [event for event in events if event["event"] == "step" and event["epoch"] == 1]
    assert [each["start"] for each in steps[1:]] == [each["end"] for each in steps[:-1]]


def test_several_seeds_that_stop_early(logged: Logged) -> None:
    found = kinds(logged.events["seeds"])
    assert (found.count("seed_started"), found.count("stopped_early")) == (2, 2)
    assert (found[0], found[-1]) == ("run_started", "run_ended")


def test_other_commands_log_what_they_read_computed_and_wrote(logged: Logged) -> None:
    events = logged.events
    assert kinds(events["evaluate"]) == ["run_started", "tokenised", "evaluated", "run_ended"]
    assert kinds(events["predict"]) == kinds(events["embed"]) == ["run_started", "processed", "written", "run_ended"]
    quantized = [event for event in events["quantize"] if event["event"] == "evaluated"]
    assert [Path(event["model"]).name for event in quantized] == ["x", "int8"]
    assert quantized[0]["metrics"] == events["evaluate"][2]["metrics"]
    assert kinds(events["quantize"])[-2:] == ["written", "run_ended"]


def test_the_error_of_a_failed_command_is_logged(logged: Logged) -> None:
    started, *_, failed = logged.events["failed"]
    assert (started["event"], failed["event"], failed["exit_code"]) == ("run_started", "run_failed", 1)
    assert "no column 'none'" in failed["error"]


def test_the_schema_describes_every_kind_of_event() -> None:
    jsonschema.Draft202012Validator.check_schema(SCHEMA)
    described = {}
    for kind in Event.__subclasses__():
        if kind.kind != RowsDone.kind:
            names = [field.name for field in fields(kind) if field.name != "span"]
            optional = {each.name for each in fields(kind) if each.default is not MISSING and each.name != "steps"}
            optional |= {"file"} if kind.kind == "processed" else set()
            described[kind.kind] = (["event", *names], [name for name in names if name not in optional])
    assert described == {
        name: (list(entry["properties"]), entry["required"]) for name, entry in SCHEMA["$defs"].items()
    }


def scalars(folder: Path) -> dict[str, list[tuple[int, float]]]:
    """The steps and values by name of all event files of a folder."""
    from tensorboardX.proto.event_pb2 import Event as Record

    found: dict[str, list[tuple[int, float]]] = {}
    for path in sorted(folder.glob("events.out.tfevents.*")):
        content = path.read_bytes()
        while content:
            (size,) = struct.unpack("<Q", content[:8])
            record = Record.FromString(content[12 : 12 + size])
            for value in record.summary.value:
                found.setdefault(value.tag, []).append((record.step, value.simple_value))
            content = content[16 + size :]
    return found


def test_tensorboard_has_the_scalars_of_every_step_and_evaluation(logged: Logged) -> None:
    found, events = scalars(logged.tensorboard), logged.events["finetune"]
    names = ("loss", "learning_rate", "gradient_norm", "samples_per_second")
    assert all([step for step, _ in found[f"train/{name}"]] == list(range(1, 47)) for name in names)
    first = next(event for event in events if event["event"] == "step")
    assert np.mean([value for _, value in found["train/loss"][:10]]) == pytest.approx(first["loss"], rel=1e-6)
    evaluated = [event for event in events if event["event"] == "dev_evaluated"]
    for metric in evaluated[0]["metrics"]:
        expected = [(event["step"], float(np.float32(event["metrics"][metric]))) for event in evaluated]
        assert found[f"dev/{metric}"] == expected


@pytest.fixture
def arguments(bundles: dict[str, Path], tables: Tables, tmp_path: Path) -> list[object]:
    return ["finetune", bundles["cls"], tmp_path / "x", "--train", tables.train, "--dev", tables.dev]


def test_tensorboard_without_its_library_is_refused_before_the_training(
    cli: Cli, arguments: list[object], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "tensorboardX", None)
    refused = cli(*arguments, "--tensorboard", tmp_path / "logs")
    assert refused.code == 1
    assert "pip install 'bertsym[tensorboard]'" in refused.error_line
    assert not list(tmp_path.iterdir())


def test_existing_event_files_are_overwritten_only_with_force(
    cli: Cli, arguments: list[object], tmp_path: Path
) -> None:
    old = tmp_path / "logs" / "seed-1" / "events.out.tfevents.1.host"
    old.parent.mkdir(parents=True)
    old.write_bytes(b"old")
    arguments += ["--epochs", 1, "--tensorboard", tmp_path / "logs"]
    refused = cli(*arguments)
    assert refused.code == 2
    assert refused.error_line.endswith("choose another folder, or overwrite them with --force")
    assert cli(*arguments, "--force").code == 0
    assert not old.exists()
    assert len(scalars(tmp_path / "logs")["dev/loss"]) == 1


def test_a_log_on_standard_error_replaces_the_text(cli: Cli, arguments: list[object]) -> None:
    done = cli(*arguments, "--epochs", 1, "--log-json", "-")
    lines = [json.loads(line)["event"] for line in done.err.splitlines()]
    assert (lines[0], lines[-1]) == ("run_started", "run_ended")


def test_a_killed_run_leaves_whole_lines(arguments: list[object], tmp_path: Path) -> None:
    log = tmp_path / "log.jsonl"
    words = [*map(str, arguments), "--epochs", "3000", "--log-json", str(log)]
    with subprocess.Popen([*BERTSYM, *words], stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL) as process:
        for _ in waiting(process):
            if log.exists() and log.read_bytes().count(b"dev_evaluated") > 2:
                break
        process.send_signal(signal.SIGKILL)
    events = read_log(log)
    assert events[-1]["event"] not in ("run_ended", "run_failed")


def waiting(process: subprocess.Popen[bytes]) -> Iterator[None]:
    """Yield from time to time while a process runs; fails when it ends."""
    while process.poll() is None:
        time.sleep(0.05)
        yield
    pytest.fail(f"the process ended with {process.returncode}")
