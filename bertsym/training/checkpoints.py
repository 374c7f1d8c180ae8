"""Checkpoints: all that a run needs to go on as if it had never been stopped. Parameters and JSON, no pickle."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import os
import re
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from bertsym.atomic import sync_folder, write_file, write_text
from bertsym.bundle import MANIFEST
from bertsym.bundle.files import file_entry, json_text, open_params, read_checked
from bertsym.errors import ModelError, UsageError
from bertsym.files import check_inside
from bertsym.json_reader import json_object, read_json
from bertsym.symbol.params import Array, write_params

FORMAT_VERSION = 1
_STATE, _ARRAYS, _BEST = "state.json", "state.params", "best.params"


def checkpoint_folder(out: str | Path) -> Path:
    """Where a run that writes the bundle `out` has its checkpoints."""
    return Path(f"{out}-checkpoints")


def versions() -> dict[str, str]:
    """Of the libraries that the numbers of a run depend on."""
    return {f"{name} version": version(name) for name in ("bertsym", "mxnet", "numpy")}


@dataclass(frozen=True)
class Checkpoint:
    """What a run was at the end of a step: plain values, arrays by name, and the parameters of the best epoch."""

    state: Mapping[str, Any]
    arrays: Mapping[str, Array]
    best: Mapping[str, Array]


def check_float32(arrays: Mapping[str, Array], shapes: Mapping[str, tuple[int, ...]]) -> None:
    """Raise ModelError unless `arrays` have these names and shapes, are float32, and are finite."""
    missing, unknown = [name for name in shapes if name not in arrays], [name for name in arrays if name not in shapes]
    for names, what in ((missing, "missing"), (unknown, "unknown")):
        if names:
            raise ModelError(f"{len(names)} arrays are {what}, such as {names[0]}")
    for name, shape in shapes.items():
        array = arrays[name]
        if array.shape != shape:
            raise ModelError(f"{name} has the shape {array.shape}, expected {shape}")
        if array.dtype != np.float32:
            raise ModelError(f"{name} is {array.dtype}, expected float32")
        if not np.isfinite(array).all():
            raise ModelError(f"{name} has elements that are not finite")


class Checkpoints:
    """The checkpoints of one run, ``OUT-checkpoints/checkpoint-STEP``, of which the newest `keep` stay.

    `settings` are what the run depends on: another run's checkpoints are refused by them. Files are made in the folder
    `scratch`, on the same disk.
    """

    def __init__(self, folder: Path, scratch: Path, settings: Mapping[str, Any], keep: int) -> None:
        self._folder, self._scratch, self._settings, self._keep = folder, scratch, dict(settings), keep
        self._step: int | None = None  # of the newest that is known to be whole

    def newest(self, note: Callable[[str], object]) -> Checkpoint | None:
        """The newest that is whole, or None; `note` hears of those that are not, and when there is none.

        Raises UsageError for one of another run, and ModelError when none is whole.
        """
        faults: list[ModelError] = []
        for step, path in self._found():
            try:
                checkpoint = self._read(path)
            except ModelError as fault:
                note(f"left out: {fault}")
                faults.append(fault)
                continue
            self._step = step
            # Copies, since the files may be removed while they are in use.
            best = {name: np.array(array) for name, array in checkpoint.best.items()}
            return dataclasses.replace(checkpoint, best=best)
        if faults:
            raise faults[0]
        note(f"{self._folder} has no checkpoint: beginning with the first step")
        return None

    def save(self, step: int, checkpoint: Checkpoint) -> None:
        """Write the checkpoint of a step, read it back, then remove those beyond the newest `keep`.

        Raises ModelError when it can't be written; those that are there stay.
        """
        if step == self._step:
            return
        arrays = {_ARRAYS: checkpoint.arrays, **({_BEST: checkpoint.best} if checkpoint.best else {})}
        self._write(f"checkpoint-{step}", checkpoint.state, arrays)
        self._step = step
        found = self._found()
        # A later one was left out: damaged. It must not count as one that is kept.
        later = [path for other, path in found if other > step]
        for path in [*later, *(path for _, path in found[len(later) + self._keep :])]:
            shutil.rmtree(path, ignore_errors=True)

    def kept_array(self, name: str, shape: tuple[int, ...], compute: Callable[[], Array]) -> Array:
        """A float32 array that an earlier process of this run computed, or else compute it; it is kept until `remove`.

        Raises UsageError where there is one of another run, and ModelError when it can't be written.
        """
        path = self._folder / name
        if path.exists():
            # A damaged one is computed again.
            with contextlib.suppress(ModelError):
                arrays = self._read(path).arrays
                check_float32(arrays, {name: shape})
                return arrays[name]
        array = compute()
        self._write(name, {}, {_ARRAYS: {name: array}})
        return array

    def _write(self, name: str, state: Mapping[str, Any], arrays: Mapping[str, Mapping[str, Array]]) -> None:
        try:
            staged = self._scratch / name
            staged.mkdir()
            entries = {_STATE: write_text(staged / _STATE, json_text(state))}
            for file, content in arrays.items():
                entries[file] = write_file(staged / file, functools.partial(write_params, params=content))
            manifest = {
                "format": "bertsym checkpoint",
                "format_version": FORMAT_VERSION,
                "files": entries,
                "settings": self._settings,
            }
            write_text(staged / MANIFEST, json_text(manifest))
            self._read(staged)
            sync_folder(staged)
            self._folder.mkdir(exist_ok=True)
            # There only if it was left out: damaged.
            shutil.rmtree(self._folder / name, ignore_errors=True)
            os.rename(staged, self._folder / name)
            sync_folder(self._folder)
        except OSError as error:
            raise ModelError(f"{self._folder}: can't write a checkpoint: {error.strerror or error}") from None

    @property
    def kept(self) -> str:
        """Which one is the newest, for messages."""
        if self._step is None:
            return "no checkpoint was written yet"
        return f"kept: {self._folder}/checkpoint-{self._step}"

    def remove(self) -> None:
        """Remove all, and the folder."""
        shutil.rmtree(self._folder, ignore_errors=True)

    def _found(self) -> list[tuple[int, Path]]:
        """Steps and folders, the newest first."""
        if not self._folder.is_dir():
            return []
        matches = [(re.fullmatch(r"checkpoint-(\d+)", path.name), path) for path in self._folder.iterdir()]
        return sorted(((int(match[1]), path) for match, path in matches if match), reverse=True)

    def _read(self, path: Path) -> Checkpoint:
        try:
            for name in (MANIFEST, _STATE, _ARRAYS, _BEST):
                check_inside(path / name, [path.parent])
            manifest = read_json(path / MANIFEST)
            if manifest["format_version"].raw != FORMAT_VERSION:
                found = manifest["format_version"].integer()
                raise ModelError(f"{path}: checkpoint format {found}, {FORMAT_VERSION} is known")
            self._check_settings(path, manifest["settings"].object())
            entries = manifest["files"]
            state = json_object(read_checked(path / _STATE, file_entry(entries[_STATE])), str(path / _STATE))
            arrays = open_params(path / _ARRAYS, file_entry(entries[_ARRAYS]))
            best = open_params(path / _BEST, file_entry(entries[_BEST])) if _BEST in entries else {}
            return Checkpoint(state.object(), arrays, best)
        except OSError as error:
            raise ModelError(f"{path}: {error.strerror}") from None

    def _check_settings(self, path: Path, settings: Mapping[str, Any]) -> None:
        names = [name for name in {**self._settings, **settings} if settings.get(name) != self._settings.get(name)]
        if names:
            differing = "; ".join(
                f"{name} {_shown(settings.get(name))} there, {_shown(self._settings.get(name))} here" for name in names
            )
            raise UsageError(f"{path} is of another run: {differing}")


def _shown(value: Any) -> str:
    """A setting in a message: of a digest its beginning."""
    text = "none" if value is None else str(value)
    return text[:12] if re.fullmatch("[0-9a-f]{64}", text) else text
