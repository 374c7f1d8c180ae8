"""Files are replaced all at once by one process at a time, whatever dies, fills up or is taken away meanwhile."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from commands import BERTSYM, FULL_DISK, beginning_with
from conftest import Result, Tables

from bertsym import BertsymError, ModelError, draw, export
from bertsym.atomic_writing import recover, work_folder, write_atomically, write_text
from bertsym.bundle import stage_bundle

Cli = Callable[..., Result]

WRITER = """
import sys, time
from pathlib import Path
from bertsym.atomic_writing import work_folder
with work_folder(Path(sys.argv[1])) as folder:
    (folder.new / "half").write_text("a half")
    print("writing", flush=True)
    time.sleep(600)
"""


@pytest.fixture
def writer(tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    """A process that is writing tmp_path/model."""
    command = [sys.executable, "-c", WRITER, str(tmp_path / "model")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "writing\n"
        yield process
        process.kill()


def tree(folder: Path) -> dict[str, bytes | None]:
    """Everything below a folder: the content of files, None for folders."""
    return {str(path.relative_to(folder)): path.read_bytes() if path.is_file() else None for path in folder.rglob("*")}


def copied(prefix: Path, folder: Path) -> Path:
    """A copy of a bundle, under the prefix ``model`` in a folder."""
    for path in prefix.parent.glob(f"{prefix.name}-*"):
        shutil.copy(path, folder / path.name.replace(prefix.name, "model", 1))
    return folder / "model"


# Killed


def test_whenever_a_writer_is_killed_the_files_are_the_old_or_the_new_ones(tmp_path: Path) -> None:
    """At each call that changes the disk, and whoever puts it right then is killed at each of its own."""
    program = [sys.executable, str(Path(__file__).with_name("killed_writers.py")), str(tmp_path)]
    result = subprocess.run(program, capture_output=True, text=True, timeout=120)
    assert result.returncode == 0, result.stderr
    for states in json.loads(result.stdout).values():
        assert set(states) == {"old", "new"}, states


def half_replaced(prefix: Path, other: Path) -> None:
    """Leave `prefix` as a process does that was killed while it put `other`'s files in its place."""
    names = [path.name for path in prefix.parent.iterdir() if path.name.startswith(f"{prefix.name}-")]
    work = prefix.with_name(f".{prefix.name}.writing")
    for folder in ("old", "moving"):
        (work / folder).mkdir(parents=True)
    for name in names:
        os.replace(prefix.parent / name, work / "old" / name)
    for path in other.parent.glob(f"{other.name}-*"):
        shutil.copy(path, work / "moving" / path.name.replace(other.name, prefix.name, 1))
    moved = f"{prefix.name}-symbol.json"
    os.replace(work / "moving" / moved, prefix.parent / moved)


@pytest.mark.parametrize(
    "command",
    [
        ["inspect", "model"],
        ["inspect", "model-symbol.json"],
        ["inspect", "model-0000.params"],
        ["tokenize", "model", "--text", "the cat"],
        ["diff", "model", "model"],
    ],
    ids=" ".join,
)
def test_the_next_command_finds_the_old_bundle_where_a_writer_was_killed(
    cli: Cli, bundles: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: list[str]
) -> None:
    prefix = copied(bundles["cls"], tmp_path)
    before = tree(tmp_path)
    half_replaced(prefix, bundles["mean"])
    monkeypatch.chdir(tmp_path)
    done = cli(*command)
    assert done.code == 0, done.err
    assert tree(tmp_path) == before


def test_files_of_a_killed_writer_are_removed_by_the_next_writer(
    cli: Cli, tiny_hf: Path, tmp_path: Path, writer: subprocess.Popen[str]
) -> None:
    writer.send_signal(signal.SIGKILL)
    writer.wait()
    assert (tmp_path / ".model.writing" / "new" / "half").exists()
    assert cli("export", f"hf:{tiny_hf}", tmp_path / "model").code == 0
    assert all(path.name.startswith("model-") for path in tmp_path.iterdir())


# Two at a time


def test_a_second_writer_is_refused_and_the_first_one_not_disturbed(
    cli: Cli, tiny_hf: Path, bundles: dict[str, Path], tmp_path: Path, writer: subprocess.Popen[str]
) -> None:
    prefix = copied(bundles["cls"], tmp_path)
    before = tree(tmp_path)
    for command in (["export", f"hf:{tiny_hf}", prefix, "--force"], ["lower", bundles["mean"], prefix, "--force"]):
        refused = cli(*command)
        assert (
            refused.error_line == f"Error: {prefix}: locked by another process, which is writing it: wait until it ends"
        )
        assert refused.code == 1
    assert tree(tmp_path) == before
    assert cli("inspect", prefix).code == 0
    assert cli("export", f"hf:{tiny_hf}", tmp_path / "other").code == 0


def test_a_picture_is_written_by_one_process_at_a_time(
    bundles: dict[str, Path], tmp_path: Path, writer: subprocess.Popen[str]
) -> None:
    (tmp_path / "model.netron").write_text("old")
    with work_folder(tmp_path / "model.netron"), pytest.raises(BertsymError, match="locked by another process"):
        draw(bundles["cls"], tmp_path / "model.netron", force=True)
    assert (tmp_path / "model.netron").read_text() == "old"


def test_a_reader_waits_while_files_are_moved(tmp_path: Path) -> None:
    target, seen = tmp_path / "x", list[str]()
    target.write_text("old")

    def read() -> None:
        recover(target, ["x"])
        seen.append(target.read_text())

    reader = threading.Thread(target=read)
    with work_folder(target) as folder:
        write_text(folder.new / "x", "new")
        # The middle of `replace`: what was there is gone, the new one is not there yet.
        (folder.path / "old").mkdir()
        os.replace(target, folder.path / "old" / "x")
        os.rename(folder.new, folder.path / "moving")
        reader.start()
        reader.join(0.2)
        assert reader.is_alive()
        os.replace(folder.path / "moving" / "x", target)
    reader.join(10)
    assert seen == ["new"]


def test_a_link_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / ".x.writing").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(OSError, match="is a link"):
        write_atomically(tmp_path / "x", b"content")
    assert tree(tmp_path / "elsewhere") == {}


# No room


def test_a_picture_on_a_full_disk_is_a_one_line_error_and_keeps_the_old_picture(
    bundles: dict[str, Path], tmp_path: Path
) -> None:
    picture = tmp_path / "picture.netron"
    picture.write_text("old")
    result = subprocess.run(
        beginning_with(FULL_DISK, [*BERTSYM, "draw", str(bundles["cls"]), str(picture), "--force"]),
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert result.stderr == f"Error: {picture}: can't write the picture: File too large\n"
    assert result.returncode == 1
    assert tree(tmp_path) == {picture.name: b"old"}


def test_a_checkpoint_on_a_full_disk_is_a_one_line_error_and_keeps_the_old_bundle(
    bundles: dict[str, Path], tables: Tables, tmp_path: Path
) -> None:
    prefix = copied(bundles["cls"], tmp_path)
    before = tree(tmp_path)
    arguments = ["--train", str(tables.train), "--dev", str(tables.dev), str(prefix), "--max-length", "24"]
    result = subprocess.run(
        beginning_with(FULL_DISK, [*BERTSYM, "finetune", str(bundles["mean"]), *arguments, "--force"]),
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert result.stderr.splitlines()[-1] == (
        f"Error: {prefix}-checkpoints: cannot write a checkpoint: File too large; no checkpoint was written yet"
    )
    assert result.returncode == 1
    assert tree(tmp_path) == before


@pytest.mark.parametrize("command", ["inspect", "inspect --json", "predict --text happy", "tokenize --text happy"])
def test_a_full_disk_for_the_output_is_a_one_line_error(classifier: Path, command: str) -> None:
    name, *options = command.split()
    with open("/dev/full", "w") as full:
        result = subprocess.run(
            [*BERTSYM, name, str(classifier), *options], stdout=full, stderr=subprocess.PIPE, text=True, timeout=60
        )
    assert result.stderr == "Error: input or output: No space left on device\n"
    assert result.returncode == 1


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 256 KB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    if (
        os.geteuid()
        or subprocess.run(
            ["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", str(folder)], capture_output=True
        ).returncode
    ):
        pytest.skip("needs root, to mount a small disk")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def test_a_disk_that_fills_up_is_a_one_line_error(
    cli: Cli, tiny_hf: Path, bundles: dict[str, Path], tables: Tables, small_disk: Path
) -> None:
    prefix = copied(bundles["cls"], small_disk)
    before = tree(small_disk)
    options = ["--train", tables.train, "--dev", tables.dev, prefix, "--max-length", 24, "--force"]
    failed = cli("finetune", bundles["mean"], *options)
    assert "cannot write a checkpoint: No space left on device" in failed.err.splitlines()[-1]
    assert (failed.code, tree(small_disk)) == (1, before)
    filling = small_disk / "filling"
    filling.write_bytes(b"x" * 60_000)
    for command in (["export", f"hf:{tiny_hf}", prefix, "--force"], ["lower", bundles["mean"], prefix, "--force"]):
        failed = cli(*command)
        assert failed.err.splitlines()[-1] == f"Error: {prefix}: can't write the bundle: No space left on device"
        assert failed.code == 1
    filling.unlink()
    assert tree(small_disk) == before


def test_a_read_only_disk_is_a_one_line_error(
    cli: Cli, tiny_hf: Path, bundles: dict[str, Path], tables: Tables, small_disk: Path
) -> None:
    prefix = copied(bundles["cls"], small_disk)
    before = tree(small_disk)
    subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)
    options = ["--train", tables.train, "--dev", tables.dev, prefix, "--force"]
    for command in (
        ["export", f"hf:{tiny_hf}", prefix, "--force"],
        ["lower", bundles["mean"], prefix, "--force"],
        ["finetune", bundles["mean"], *options],
    ):
        failed = cli(*command)
        assert failed.error_line == f"Error: {prefix}: can't write the bundle: Read-only file system"
        assert failed.code == 1
    failed = cli("draw", prefix, small_disk / "x.netron")
    assert failed.error_line == f"Error: {small_disk}/x.netron: can't write the picture: Read-only file system"
    assert tree(small_disk) == before


def test_a_half_replaced_bundle_on_a_read_only_disk_is_a_one_line_error(
    cli: Cli, bundles: dict[str, Path], small_disk: Path
) -> None:
    prefix = copied(bundles["cls"], small_disk)
    half_replaced(prefix, bundles["mean"])
    subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)
    assert cli("inspect", prefix).error_line == (
        f"Error: {prefix}: half replaced by a process that died, recovery failed: Read-only file system"
    )
    subprocess.run(["mount", "-o", "remount,rw", str(small_disk)], check=True)
    assert cli("inspect", prefix).code == 0


def test_a_folder_that_disappears_is_a_one_line_error(tiny_hf: Path, bundles: dict[str, Path], tmp_path: Path) -> None:
    folder = tmp_path / "out"
    with pytest.raises(ModelError, match="can't write the bundle: No such file or directory"):
        export(f"hf:{tiny_hf}", folder / "model", progress=lambda text: shutil.rmtree(folder, ignore_errors=True))
    assert tree(tmp_path) == {}
    with (
        pytest.raises(ModelError, match="can't write the bundle: No such file or directory"),
        stage_bundle(folder / "model"),
    ):
        shutil.rmtree(folder)
