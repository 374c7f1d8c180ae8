"""Checkpoints: everything that a run needs to resume with byte-identical results. Params and JSON files, no pickle."""

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

from bertsym.array import Array
from bertsym.atomic_writing import sync_folder, write_file, write_text
from bertsym.bundle import MANIFEST
from bertsym.bundle.files import file_entry, json_text, open_params, read_checked
from bertsym.errors import ModelError, UsageError
from bertsym.file_reader import check_inside
from bertsym.json_reader import json_object, read_json
from bertsym.symbol.params import write_params

FORMAT_VERSION = 1
_STATE, _ARRAYS, _BEST = "state.json", "state.params", "best.params"


def checkpoint_folder(out: str | Path) -> Path:
    """Return the folder for the checkpoints of a run that writes the bundle `out`."""
    return Path(f"{out}-checkpoints")


def library_versions() -> dict[str, str]:
    """Return the versions of the libraries that the results of a run depend on."""
    return {f"{name} version": version(name) for name in ("bertsym", "mxnet", "numpy")}


@dataclass(frozen=True)
class Checkpoint:
    """The state of a run at the end of a step: plain values, arrays by name, and the parameters of the best epoch."""

    state: Mapping[str, Any]
    arrays: Mapping[str, Array]
    best: Mapping[str, Array]


def check_float32(arrays: Mapping[str, Array], shapes: Mapping[str, tuple[int, ...]]) -> None:
    """Raise ModelError unless `arrays` have exactly these names and shapes, are float32 and finite."""
    for names, problem in ((shapes.keys() - arrays, "missing"), (arrays.keys() - shapes, "unknown")):
        if names:
            raise ModelError(f"{problem} arrays: {', '.join(sorted(names)[:5])}")
    for name, shape in shapes.items():
        array = arrays[name]
        if array.shape != shape:
            raise ModelError(f"{name} has shape {array.shape}, expected {shape}")
        if array.dtype != np.float32:
            raise ModelError(f"{name} is {array.dtype}, expected float32")
        if not np.isfinite(array).all():
            raise ModelError(f"{name} has elements that are not finite")


class Checkpoints:
    """The checkpoints of one run, ``OUT-checkpoints/checkpoint-STEP``, of which the newest `keep` are kept.

    `settings` are everything that the run depends on; a checkpoint with other settings is refused. Files are written to
    the folder `scratch` first, which is on the same disk.
    """

    def __init__(self, folder: Path, scratch: Path, settings: Mapping[str, Any], keep: int) -> None:
        self._folder, self._scratch, self._settings, self._keep = folder, scratch, dict(settings), keep
        self._step: int | None = None  # of the newest checkpoint that is known to be valid

    def newest(self, note: Callable[[str], object]) -> Checkpoint | None:
        """Return the newest valid checkpoint; None if there are no checkpoints.

        `note` is called with a line for each damaged checkpoint, and if there are none. Raises UsageError for a
        checkpoint of another run, and ModelError if all are damaged.
        """
        faults: list[ModelError] = []
        for step, path in self._list_checkpoints():
            try:
                checkpoint = self._read(path)
            except ModelError as fault:
                note(f"skipping a damaged checkpoint: {fault}")
                faults.append(fault)
                continue
            self._step = step
            # Copies, since the files may be removed while these arrays are in use.
            best = {name: np.array(array) for name, array in checkpoint.best.items()}
            return dataclasses.replace(checkpoint, best=best)
        if faults:
            raise faults[0]
        note(f"no checkpoint in {self._folder}: starting at step 1")
        return None

    def save(self, step: int, checkpoint: Checkpoint) -> Path | None:
        """Write the checkpoint of a step, read it back, and remove all but the newest `keep` checkpoints.

        Returns its folder, or None if it existed. Raises ModelError if it cannot be written; existing checkpoints are
        kept then.
        """
        if step == self._step:
            return None
        arrays = {_ARRAYS: checkpoint.arrays, **({_BEST: checkpoint.best} if checkpoint.best else {})}
        self._write(f"checkpoint-{step}", checkpoint.state, arrays)
        self._step = step
        found = self._list_checkpoints()
        # Later checkpoints are damaged ones that were skipped; they must not count as kept.
        later = [path for other, path in found if other > step]
        for path in [*later, *(path for _, path in found[len(later) + self._keep :])]:
            shutil.rmtree(path, ignore_errors=True)
        return self._folder / f"checkpoint-{step}"

    def cached_array(self, name: str, shape: tuple[int, ...], compute: Callable[[], Array]) -> Array:
        """Return a float32 array that an earlier process of this run stored, or compute and store it until `remove`.

        Raises UsageError if the stored array belongs to another run, and ModelError if it cannot be written.
        """
        path = self._folder / name
        if path.exists():
            # A damaged array is computed again.
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
            self._folder.mkdir(parents=True, exist_ok=True)
            # A folder of this name is a damaged checkpoint that was skipped.
            shutil.rmtree(self._folder / name, ignore_errors=True)
            os.rename(staged, self._folder / name)
            sync_folder(self._folder)
        except OSError as error:
            raise ModelError(f"{self._folder}: cannot write a checkpoint: {error.strerror or error}") from None

    def describe_newest(self) -> str:
        """Name the newest checkpoint, for messages."""
        if self._step is None:
            return "no checkpoint was written yet"
        return f"newest checkpoint: {self._folder}/checkpoint-{self._step}"

    def remove(self) -> None:
        """Remove the folder with all checkpoints and arrays."""
        shutil.rmtree(self._folder, ignore_errors=True)

    def _list_checkpoints(self) -> list[tuple[int, Path]]:
        """Return steps and folders, newest first."""
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
                raise ModelError(f"{path}: checkpoint format {found} is not supported, expected {FORMAT_VERSION}")
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
                f"{name} was {_format_setting(settings.get(name))}, is now {_format_setting(self._settings.get(name))}"
                for name in names
            )
            raise UsageError(
                f"{path} belongs to a run with other settings: {differing}; use the same settings, or start over with "
                "--force"
            )


def _format_setting(value: Any) -> str:
    """Format a setting for a message; digests are abbreviated."""
    text = "none" if value is None else str(value)
    return text[:12] if re.fullmatch("[0-9a-f]{64}", text) else text
