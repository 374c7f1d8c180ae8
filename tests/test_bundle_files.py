"""A bundle is written atomically, with reproducible bytes, and an old bundle is never damaged."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from commands import BERTSYM, FULL_DISK, HEED_HANG_UP, beginning_with
from conftest import Result, Tables, hugging_face_weights, write_hugging_face

from bertsym import BertsymError, Bundle, ModelError, UsageError
from bertsym.bundle import (
    FILE_NAMES,
    MANIFEST,
    PARAMS,
    SIGNATURE,
    SYMBOL,
    TOKENIZER,
    TRAIN_SYMBOL,
    VOCAB_JSON,
    VOCAB_TXT,
    BundleContent,
    stage_bundle,
)

Cli = Callable[..., Result]

ENCODER_FILES = {SYMBOL, PARAMS, TOKENIZER, VOCAB_TXT, VOCAB_JSON, SIGNATURE, MANIFEST}


def tree(folder: Path) -> dict[str, bytes | None]:
    """Everything below a folder, temporary files too: the content of files, None for folders."""
    return {str(path.relative_to(folder)): path.read_bytes() if path.is_file() else None for path in folder.rglob("*")}


def bundle_files(prefix: Path) -> dict[str, bytes]:
    """Content of the bundle's files by their names without the prefix."""
    return {
        path.name.removeprefix(f"{prefix.name}-"): path.read_bytes() for path in prefix.parent.glob(f"{prefix.name}-*")
    }


def copied(prefix: Path, folder: Path) -> Path:
    """A copy of a bundle, under the prefix ``model`` in a new folder."""
    folder.mkdir()
    for path in prefix.parent.glob(f"{prefix.name}-*"):
        shutil.copy(path, folder / path.name.replace(prefix.name, "model", 1))
    return folder / "model"


def content_of(prefix: Path) -> BundleContent:
    """What to write for the same bundle again."""
    bundle = Bundle.open(prefix)
    train_symbol = bundle.path(TRAIN_SYMBOL)
    return BundleContent(
        bundle.config,
        bundle.signature,
        bundle.path(SYMBOL).read_text(),
        dict(bundle.params()),
        bundle.vocabulary(),
        {"source": {}, "command": None},
        train_symbol.read_text() if train_symbol.exists() else None,
        bundle.tokenizer_json(),
    )


@pytest.fixture(scope="module")
def broken_hf(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Hugging Face folder that lacks weights, which shows when they are mapped."""
    weights = hugging_face_weights()
    del weights["encoder.layer.1.output.dense.bias"]
    return write_hugging_face(tmp_path_factory.mktemp("broken") / "hf", weights)


# The same bytes


def test_an_export_gives_the_same_bytes_again_under_any_prefix(cli: Cli, tiny_hf: Path, tmp_path: Path) -> None:
    first, second = tmp_path / "a" / "one", tmp_path / "b" / "c" / "other"
    assert cli("export", f"hf:{tiny_hf}", first).code == 0
    before = bundle_files(first)
    assert set(before) == ENCODER_FILES
    assert cli("export", f"hf:{tiny_hf}", second).code == 0
    assert bundle_files(second) == before
    assert cli("export", f"hf:{tiny_hf}", second).code == 2
    shutil.rmtree(tmp_path / "a")
    assert cli("export", f"hf:{tiny_hf}", first).code == 0
    assert bundle_files(first) == before


def test_an_export_gives_the_same_bytes_in_another_process(cli: Cli, tiny_hf: Path, tmp_path: Path) -> None:
    command = ["export", f"hf:{tiny_hf}", "--output", "pooled"]
    assert cli(*command, tmp_path / "here").code == 0
    environment = {**os.environ, "PYTHONHASHSEED": "7", "TZ": "Pacific/Auckland", "LC_ALL": "C"}
    subprocess.run(
        [*BERTSYM, *command, "there"], cwd=tmp_path, env=environment, check=True, capture_output=True, timeout=120
    )
    assert bundle_files(tmp_path / "there") == bundle_files(tmp_path / "here")


def test_nothing_but_the_bundle_s_files_is_written(cli: Cli, tiny_hf: Path, tmp_path: Path) -> None:
    assert cli("export", f"hf:{tiny_hf}", tmp_path / "new" / "model").code == 0
    assert set(tree(tmp_path / "new")) == {f"model-{name}" for name in ENCODER_FILES}
    assert {path.stat().st_mode & 0o777 for path in (tmp_path / "new").iterdir()} == {0o666 & ~current_umask()}


def current_umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


# A bundle that is there


@pytest.mark.parametrize("name", FILE_NAMES)
def test_a_single_file_of_an_old_bundle_is_enough_to_refuse(cli: Cli, tiny_hf: Path, tmp_path: Path, name: str) -> None:
    path = tmp_path / f"model-{name}"
    path.write_bytes(b"precious")
    result = cli("export", f"hf:{tiny_hf}", tmp_path / "model")
    assert result.code == 2
    assert result.error_line == f"Error: {path} exists: choose another PREFIX, or overwrite with --force"
    assert tree(tmp_path) == {path.name: b"precious"}


def test_a_refusal_comes_before_any_work(cli: Cli, bundles: dict[str, Path], tmp_path: Path) -> None:
    prefix = copied(bundles["cls"], tmp_path / "old")
    before = tree(tmp_path)
    for command in (
        ("export", "hf:/no/such/folder", prefix),
        ("finetune", "/no/such/base", "--train", "no.tsv", "--dev", "no.tsv", prefix),
    ):
        result = cli(*command)
        assert result.code == 2
        assert " exists: choose another PREFIX" in result.error_line
    assert tree(tmp_path) == before


def test_force_never_replaces_a_folder(cli: Cli, tiny_hf: Path, tmp_path: Path) -> None:
    precious = tmp_path / "model-vocab.txt" / "file"
    precious.parent.mkdir()
    precious.write_text("precious")
    result = cli("export", f"hf:{tiny_hf}", tmp_path / "model", "--force")
    assert (result.code, precious.read_text()) == (2, "precious")
    assert "is a folder" in result.error_line


def test_a_dangling_link_is_not_replaced_without_force(cli: Cli, tiny_hf: Path, tmp_path: Path) -> None:
    link = tmp_path / "model-symbol.json"
    link.symlink_to("/nonexistent")
    result = cli("export", f"hf:{tiny_hf}", tmp_path / "model")
    assert (result.code, link.is_symlink()) == (2, True)
    assert "exists" in result.error_line


def test_files_that_appear_meanwhile_are_not_overwritten_without_force(tmp_path: Path) -> None:
    theirs = tmp_path / "model-symbol.json"
    with pytest.raises(UsageError, match="exists"), stage_bundle(tmp_path / "model"):
        theirs.write_text("theirs")
    assert [path.name for path in tmp_path.iterdir()] == [theirs.name]
    assert theirs.read_text() == "theirs"


def test_force_replaces_a_bundle_and_removes_its_other_files(
    cli: Cli, tiny_hf: Path, classifier: Path, tmp_path: Path
) -> None:
    prefix = copied(classifier, tmp_path / "old")
    assert (tmp_path / "old" / f"model-{TRAIN_SYMBOL}").exists()
    (tmp_path / "old" / "model-0001.params").write_bytes(b"not ours")
    assert cli("export", f"hf:{tiny_hf}", tmp_path / "fresh" / "model").code == 0
    assert cli("export", f"hf:{tiny_hf}", prefix, "--force").code == 0
    old, fresh = tree(tmp_path / "old"), tree(tmp_path / "fresh")
    assert old.pop("model-0001.params") == b"not ours"
    assert old == fresh
    assert Bundle.open(prefix).signature.kind == "encoder"


def test_a_forced_run_that_fails_leaves_the_old_bundle_as_it_was(
    cli: Cli, broken_hf: Path, bundles: dict[str, Path], tmp_path: Path
) -> None:
    prefix = copied(bundles["cls"], tmp_path / "old")
    before = tree(tmp_path)
    result = cli("export", f"hf:{broken_hf}", prefix, "--force")
    assert result.code == 1
    assert "encoder.layer.1.output.dense.bias" in result.error_line
    assert tree(tmp_path) == before


def test_a_forced_run_that_fails_its_verification_leaves_the_old_bundle_as_it_was(
    cli: Cli, tiny_hf: Path, bundles: dict[str, Path], tmp_path: Path
) -> None:
    """By then all files of the new one were written."""
    prefix = copied(bundles["cls"], tmp_path / "old")
    before = tree(tmp_path)
    result = cli("export", f"hf:{tiny_hf}", prefix, "--force", "--output", "mean", "--rtol", "1e-12")
    assert result.code == 1
    assert "differs from the reference encoder" in result.error_line
    assert tree(tmp_path) == before


def test_a_forced_finetune_that_fails_leaves_the_old_bundle_as_it_was(
    cli: Cli, bundles: dict[str, Path], classifier: Path, tables: Tables, tmp_path: Path
) -> None:
    prefix = copied(classifier, tmp_path / "old")
    before = tree(tmp_path)
    bad = tmp_path / "bad.tsv"
    bad.write_text("label\ttext\nyes\tthe cat\nperhaps\ta dog\n")
    result = cli(
        "finetune",
        bundles["cls"],
        "--train",
        tables.train,
        "--dev",
        bad,
        prefix,
        "--force",
        "--max-length",
        24,
    )
    assert result.code == 1
    bad.unlink()
    assert tree(tmp_path) == before


# Places where nothing can be written


def test_a_failing_run_removes_the_folders_that_it_created(cli: Cli, broken_hf: Path, tmp_path: Path) -> None:
    (tmp_path / "there").mkdir()
    result = cli("export", f"hf:{broken_hf}", tmp_path / "there" / "new" / "newer" / "model")
    assert result.code == 1
    assert tree(tmp_path) == {"there": None}


def test_folders_that_could_be_created_only_in_part_are_removed(cli: Cli, tiny_hf: Path, tmp_path: Path) -> None:
    result = cli("export", f"hf:{tiny_hf}", tmp_path / "new" / ("x" * 300) / "model")
    assert result.code == 1
    assert "File name too long" in result.error_line
    assert tree(tmp_path) == {}


@pytest.mark.parametrize(
    ("target", "code", "why"),
    [
        ("file/model", 1, "can't write the bundle: "),
        ("file/new/model", 1, "can't write the bundle: "),
        ("/dev/null/model", 1, "can't write the bundle: "),
        ("/dev/null/new/model", 1, "can't write the bundle: "),
        ("folder", 2, "is not a PREFIX: give a folder and the start of a file name, such as out/model"),
        ("folder/", 2, "is not a PREFIX: give a folder and the start of a file name, such as out/model"),
        ("new/", 2, "is not a PREFIX: give a folder and the start of a file name, such as out/model"),
        ("folder/..", 2, "is not a PREFIX: give a folder and the start of a file name, such as out/model"),
        (".", 2, "is not a PREFIX: give a folder and the start of a file name, such as out/model"),
        ("/", 2, "is not a PREFIX: give a folder and the start of a file name, such as out/model"),
        ("", 2, "is not a PREFIX: give a folder and the start of a file name, such as out/model"),
        ("x" * 300, 1, "can't write the bundle: File name too long"),
        ("x" * 245, 1, "can't write the bundle: File name too long"),
    ],
    ids=[
        "in a file",
        "below a file",
        "in a device",
        "below a device",
        "folder",
        "folder with a slash",
        "slash",
        "parent",
        "here",
        "root",
        "empty",
        "name too long",
        "file name too long",
    ],
)
def test_an_impossible_target_is_a_one_line_error(
    cli: Cli, tiny_hf: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, target: str, code: int, why: str
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("file").write_bytes(b"a file")
    Path("folder").mkdir()
    before = tree(tmp_path)
    result = cli("export", f"hf:{tiny_hf}", target)
    assert tree(tmp_path) == before
    assert why in result.error_line
    assert result.code == code


def test_folders_named_like_bundle_files_are_not_overwritten(cli: Cli, tiny_hf: Path, tmp_path: Path) -> None:
    (tmp_path / f"model-{SYMBOL}").mkdir()
    assert cli("export", f"hf:{tiny_hf}", tmp_path / "model").code == 2
    assert tree(tmp_path) == {f"model-{SYMBOL}": None}


def test_a_full_disk_is_a_one_line_error_and_keeps_the_old_files(
    tiny_hf: Path, bundles: dict[str, Path], tmp_path: Path
) -> None:
    assert bundles["cls"].with_name(f"{bundles['cls'].name}-{PARAMS}").stat().st_size > 20_000
    prefix = copied(bundles["cls"], tmp_path / "old")
    before = tree(tmp_path)
    result = subprocess.run(
        beginning_with(FULL_DISK, [*BERTSYM, "export", f"hf:{tiny_hf}", str(prefix), "--force"]),
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert result.stderr.strip() == f"Error: {prefix}: can't write the bundle: File too large"
    assert result.returncode == 1
    assert tree(tmp_path) == before


# Stopped half-way


@pytest.mark.parametrize(
    ("number", "code", "said_last"),
    [
        (signal.SIGTERM, 143, "Error: stopped by SIGTERM"),
        (signal.SIGHUP, 129, "Error: stopped by SIGHUP"),
        (signal.SIGINT, 130, "Error: interrupted"),
    ],
)
def test_a_signal_during_an_export_leaves_no_files(
    tiny_hf: Path, tmp_path: Path, number: signal.Signals, code: int, said_last: str
) -> None:
    target = tmp_path / "new" / "model"
    with subprocess.Popen(
        beginning_with(HEED_HANG_UP, [*BERTSYM, "export", f"hf:{tiny_hf}", str(target)]),
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        # In the temporary folder, which has to go.
        while not (target.parent / ".model.writing" / "new" / "model-manifest.json").exists():
            assert process.poll() is None
            time.sleep(0.001)
        process.send_signal(number)
        _, rest = process.communicate(timeout=60)
    assert process.returncode == code
    assert rest.splitlines()[-1] == said_last
    assert "Traceback" not in rest
    assert tree(tmp_path) == {}


class Moves:
    """os.replace that fails at its n-th call: before it moves the file, or just after."""

    def __init__(self, fail_at: int, error: BaseException, after: bool = False) -> None:
        self.calls, self._fail_at, self._error, self._after = 0, fail_at, error, after
        self._replace = os.replace

    def __call__(self, source: Any, target: Any) -> None:
        self.calls += 1
        fails = self.calls == self._fail_at
        if not fails or self._after:
            self._replace(source, target)
        if fails:
            raise self._error


def moves_of(monkeypatch: pytest.MonkeyPatch, prefix: Path, content: BundleContent) -> int:
    """Count the files that are moved to replace the bundle at `prefix`."""
    moves = Moves(0, AssertionError())
    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", moves)
        with stage_bundle(prefix, force=True) as stage:
            stage.write(content)
    return moves.calls


@pytest.mark.parametrize(
    ("error", "seen", "after"),
    [
        (OSError(5, "Input/output error"), ModelError, False),
        (KeyboardInterrupt(), KeyboardInterrupt, False),
        # Signals come between any two instructions of Python: the file is moved, and nobody knows it yet.
        (KeyboardInterrupt(), KeyboardInterrupt, True),
    ],
    ids=["disk error", "interrupt before the move", "interrupt just after the move"],
)
@pytest.mark.parametrize(("old", "new"), [("classifier", "cls"), ("cls", "classifier")])
def test_a_stop_between_any_two_moves_brings_the_old_bundle_back(
    bundles: dict[str, Path],
    classifier: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    old: str,
    new: str,
    error: BaseException,
    seen: type[BaseException],
    after: bool,
) -> None:
    prefixes = {**bundles, "classifier": classifier}
    content = content_of(prefixes[new])
    total = moves_of(monkeypatch, copied(prefixes[old], tmp_path / "count"), content)
    # Each file of the old bundle moves away, and each of the new one to its place.
    written = bundle_files(prefixes[new]).keys() - {"card.md"}  # which finetune adds to the content
    assert total == len(bundle_files(prefixes[old])) + len(written)
    prefix = copied(prefixes[old], tmp_path / "old")
    before = tree(tmp_path / "old")
    for number in range(1, total + 1):
        with monkeypatch.context() as patch:
            patch.setattr(os, "replace", Moves(number, error, after))
            with pytest.raises(seen), stage_bundle(prefix, force=True) as stage:
                stage.write(content)
        assert tree(tmp_path / "old") == before, f"stopped at move {number}"


def test_a_stop_before_the_folder_is_safe_on_the_disk_brings_the_old_bundle_back(
    bundles: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    content = content_of(bundles["mean"])
    prefix = copied(bundles["cls"], tmp_path / "old")
    before = tree(tmp_path)
    synced = os.fsync

    def fail_for_folders(handle: int) -> None:
        if os.path.isdir(f"/proc/self/fd/{handle}"):
            raise OSError(5, "Input/output error")
        synced(handle)

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", fail_for_folders)
        with pytest.raises(ModelError, match="Input/output error"), stage_bundle(prefix, force=True) as stage:
            stage.write(content)
    assert tree(tmp_path) == before


@pytest.mark.parametrize("error", [ValueError("any"), KeyboardInterrupt(), SystemExit(3)], ids=repr)
def test_no_temporary_files_are_left_after_any_exception(
    bundles: dict[str, Path], tmp_path: Path, error: BaseException
) -> None:
    content = content_of(bundles["cls"])

    def work() -> None:
        with stage_bundle(tmp_path / "new" / "model") as stage:
            stage.write(content)
            assert len(bundle_files(stage.prefix)) == len(ENCODER_FILES)
            raise error

    with pytest.raises(type(error)):
        work()
    assert tree(tmp_path) == {}


def test_an_incomplete_bundle_is_never_visible(bundles: dict[str, Path], tmp_path: Path) -> None:
    content = content_of(bundles["cls"])
    prefix = tmp_path / "model"
    with stage_bundle(prefix) as stage:
        written = stage.write(content)
        assert bundle_files(prefix) == {}
        assert written.prefix == stage.prefix
    assert set(bundle_files(prefix)) == ENCODER_FILES
    assert bundle_files(prefix)[PARAMS] == bundle_files(bundles["cls"])[PARAMS]
    with pytest.raises(UsageError, match="exists"), stage_bundle(prefix):
        pass
    assert issubclass(UsageError, BertsymError)
