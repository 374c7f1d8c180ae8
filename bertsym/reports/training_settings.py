"""How the models of a report were trained, by their manifests: settings, files, and rows that they have seen."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from typing import Any

from bertsym.bundle import PARAMS, Bundle
from bertsym.reports.blocks import Block, Cell, Digest, Table, Text


def _found(values: Any, *keys: str) -> Any:
    """Return a value of nested mappings; None if it is absent."""
    for key in keys:
        if not isinstance(values, Mapping):
            return None
        values = values.get(key)
    return values


def _digest(values: Any, *keys: str) -> Cell:
    digest = _found(values, *keys)
    return Digest(digest) if isinstance(digest, str) else None


def _training(bundle: Bundle) -> Any:
    """How the bundle, or the float32 bundle that it was quantized from, was trained; None if that is unknown."""
    return bundle.manifest.get("training") or _found(bundle.manifest, "base", "training")


def training_command(bundle: Bundle) -> str | None:
    """Return the command that wrote the bundle, with its name in the place of ``OUT``."""
    command = bundle.manifest.get("command")
    if not command:
        return None
    return shlex.join(bundle.prefix.name if word == "OUT" else str(word) for word in command)


def file_digest(bundle: Bundle, role: str) -> Cell:
    """Return the SHA-256 of the file that was ``train`` or ``dev`` in the training."""
    return _digest(_training(bundle), "data", role, "sha256")


def base_digest(bundle: Bundle) -> Cell:
    """Return the SHA-256 of the parameters from which the bundle was made."""
    return _digest(bundle.manifest, "base", "files", PARAMS, "sha256")


def seed_metrics(bundle: Bundle) -> str | None:
    """Return the first dev metric of each seed, and which seed was kept, of a training with several seeds."""
    seeds = _found(_training(bundle), "seeds")
    runs = _found(seeds, "runs")
    found = [(_found(run, "seed"), _found(run, "metrics")) for run in runs] if isinstance(runs, list) else []
    if not found or not all(isinstance(metrics, Mapping) and metrics for _, metrics in found):
        return None
    name = next(iter(found[0][1]))
    values = [(seed, metrics.get(name)) for seed, metrics in found]
    shown = ", ".join(f"seed {seed}: {value:.4f}" for seed, value in values if isinstance(value, (int, float)))
    return f"dev {name} at the best epoch of each seed: {shown}; seed {_found(seeds, 'kept')} was kept"


def seen_warnings(file: str, digest: str, models: Mapping[str, Bundle]) -> list[str]:
    """Warn where the file with this SHA-256 is a training or dev file of a model: the metrics are then optimistic."""
    uses: dict[str, list[str]] = {"train": [], "dev": [], "calibration": []}
    for name, bundle in models.items():
        data = _found(_training(bundle), "data")
        found = {role: _found(data, role, "sha256") for role in ("train", "dev")}
        found["calibration"] = _found(bundle.manifest, "quantization", "calibration", "sha256")
        role = next((role for role, known in found.items() if known == digest), None)
        if role is not None:
            uses[role].append(name)
    said = {
        "train": "is a training file of {}: its metrics do not predict the quality on new rows",
        "dev": "is the dev file that chose the kept epoch of {}: its metrics are optimistic",
        "calibration": "is the calibration file of {}: its metrics are optimistic",
    }
    return [
        f"{file} {said[role].format(' and of '.join(names))}. Use rows that the training did not read."
        for role, names in uses.items()
        if names
    ]


def training_differences(models: Mapping[str, Bundle]) -> list[Block]:
    """List the settings, files and parameters that differ between two models, and name those that are equal.

    Settings of a training are compared if both manifests have them.
    """
    unknown = [name for name, bundle in models.items() if _training(bundle) is None]
    columns = [{**({} if unknown else _settings(bundle)), **_facts(bundle)} for bundle in models.values()]
    keys = dict.fromkeys(key for values in columns for key in values)
    rows: list[tuple[Cell, ...]] = []
    equal: list[str] = []
    for key in keys:
        cells = [values.get(key) for values in columns]
        if cells[0] == cells[1]:
            equal += [key] if cells[0] is not None else []
        else:
            rows.append((key, *cells))
    note = f"Equal in both: {'; '.join(equal)}." if equal else ""
    if unknown:
        note += f" The manifest of {' and that of '.join(unknown)} does not record how the model was trained."
    if not rows:
        return [Text(f"The manifests of both models have the same settings, files and parameters. {note}")]
    return [Table("Settings and files", ("", *models), rows, note=note)]


def _settings(bundle: Bundle) -> dict[str, Cell]:
    """Return the settings and the files of the training."""
    training = _training(bundle)
    options = _found(training, "options") or {}
    values: dict[str, Cell] = {key.replace("_", " "): _cell(value) for key, value in options.items()}
    for key in ("kept_epoch", "kept_step", "loss", "workers"):
        values[key.replace("_", " ")] = _cell(_found(training, key))
    for role in ("train", "dev"):
        values[f"{role} file"] = _cell(_found(training, "data", role, "file"))
        values[f"{role} rows"] = _cell(_found(training, "data", role, "rows"))
        values[f"{role} file, SHA-256"] = file_digest(bundle, role)
    return values


def _facts(bundle: Bundle) -> dict[str, Cell]:
    """Return what is known of every bundle."""
    signature, manifest = bundle.signature, bundle.manifest
    values = {
        f"calibration {key}": _cell(_found(manifest, "quantization", "calibration", key))
        for key in ("kind", "granularity")
    }
    return {
        **values,
        "encoder": str(bundle.config),
        "precision": signature.precision,
        "input limit": f"{signature.max_length} tokens",
        "weights from": _cell(_found(manifest, "source", "spec")),
        "parameters, SHA-256": Digest(manifest["files"][PARAMS]["sha256"]),
    }


def _cell(value: Any) -> Cell:
    """Return a JSON value as a cell; a number as text, in its shortest form."""
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, Mapping):
        return ", ".join(f"{key.replace('_', ' ')} {each}" for key, each in value.items() if each)
    if isinstance(value, list):
        return ", ".join(map(str, value))
    return f"{value:g}" if isinstance(value, float) else str(value)
