"""Calling `bertsym inspect` in the tests: its JSON, checked against the published schema, and files to ask about."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from conftest import Result
from jsonschema import Draft202012Validator

SCHEMA = json.loads((Path(__file__).parent.parent / "docs" / "inspect.schema.json").read_text(encoding="utf-8"))
SYMBOLS = Path(__file__).parent / "symbols"
Command = Callable[..., Result]


def valid(document: Any) -> Any:
    """The document, which must be as docs/inspect.schema.json says."""
    errors = [f"{error.json_path}: {error.message}" for error in Draft202012Validator(SCHEMA).iter_errors(document)]
    assert errors == []
    return document


def as_json(cli: Command, *arguments: object) -> Any:
    """What `bertsym inspect ... --json` prints."""
    result = cli("inspect", *arguments, "--json")
    assert (result.code, result.err) == (0, "")
    return valid(json.loads(result.out))


def as_text(cli: Command, *arguments: object) -> list[str]:
    """The lines that `bertsym inspect ...` prints; none ends in a space."""
    result = cli("inspect", *arguments)
    assert (result.code, result.err) == (0, "")
    lines = result.out.splitlines()
    assert [line for line in lines if line != line.rstrip()] == []
    return lines


def field(lines: list[str], label: str) -> list[str]:
    """The values of one field of the summary."""
    start = next(i for i, line in enumerate(lines) if line.startswith(f"{label} "))
    more = lines[start + 1 : lines.index("")]
    own = next((i for i, line in enumerate(more) if not line.startswith(" ")), len(more))
    return [line[11:] for line in [lines[start], *more[:own]]]


def exported_by_gluonnlp(folder: Path, version: str, name: str, weights: bool = True) -> Path:
    """PREFIX of a copy of a fixture that GluonNLP wrote, as MXNet's users have it."""
    source = SYMBOLS / f"gluonnlp-{version}"
    shutil.copy(source / f"{name}-symbol.json", folder / "old-symbol.json")
    if weights:
        shutil.copy(source / "weights-0000.params", folder / "old-0000.params")
    return folder / "old"
