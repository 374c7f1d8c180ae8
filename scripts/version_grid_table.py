"""What the answers of one MXNet say: a cell each, as it should be or FAILED, and the table of them."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

#: release line -> (what a node has, the largest difference seen with it): a fault of that MXNet, not of the file
KNOWN_FAULTS = {"1.7": ("LeakyReLU act_type=gelu", 0.05)}

#: what is measured -> the largest that is right
TOLERANCES = {"outputs": 1e-5, "gradients": 1e-4, "losses": 1e-5, "parameters": 1e-2}


@dataclass(frozen=True)
class Expectation:
    """What a symbol must do in one MXNet."""

    loads: bool
    blamed: frozenset[str] = frozenset()  #: operators, attributes or values, one of which a refusal must name
    fault: float | None = None  #: of this MXNet: its results are known to differ, by at most this much


@dataclass(frozen=True)
class Cell:
    """One square of the table."""

    text: str
    failed: bool = False


def line_of(version: str) -> tuple[int, int]:
    """The release line of a version: (1, 5) of 1.5.1.post0."""
    major, minor = version.split(".")[:2]
    return int(major), int(minor)


def expectation(version: str, requirements: Iterable[tuple[str, str]]) -> Expectation:
    """What a symbol must do in an MXNet, by what its nodes need: (version, reason) as `oldest_mxnet` gives them."""
    needed = list(requirements)
    missing = [reason for oldest, reason in needed if line_of(oldest) > line_of(version)]
    # "LeakyReLU act_type=gelu" -> gelu, "softmax use_length" -> use_length, "erf" -> erf
    blamed = frozenset(re.split("[ =]", reason)[-1] for reason in missing)
    faulty, fault = KNOWN_FAULTS.get("{}.{}".format(*line_of(version)), ("", 0.0))
    has_fault = any(reason == faulty for _, reason in needed)
    return Expectation(not missing, blamed, fault if has_fault else None)


def judge(answer: Mapping[str, Any], measure: str, expected: Expectation) -> Cell:
    """The cell of one `measure`, a key of TOLERANCES, in the answer of a job."""
    for kind in ("crashed", "error"):
        if kind in answer:
            return Cell(f"FAILED: {kind}: {_short(answer[kind])}", failed=True)
    if "refused" in answer:
        return _refusal(answer["refused"], expected)
    if not expected.loads:
        return Cell("FAILED: loads, which it should not", failed=True)
    difference = answer[measure]
    shown = f"{difference:.1e}"
    if expected.fault is None:
        # Written so that NaN fails too.
        within = difference <= TOLERANCES[measure]
        return Cell(shown if within else f"FAILED: {shown}", failed=not within)
    if not math.isfinite(difference) or difference > expected.fault:
        return Cell(f"FAILED: {shown}", failed=True)
    if measure == "outputs" and difference <= TOLERANCES[measure]:
        return Cell(f"FAILED: {shown}, without this MXNet's known fault", failed=True)
    return Cell(f"{shown} (known fault)")


def _refusal(message: str, expected: Expectation) -> Cell:
    if expected.loads:
        return Cell(f"FAILED: refused: {_short(message)}", failed=True)
    named = sorted(name for name in expected.blamed if re.search(rf"\b{re.escape(name)}\b", message))
    if not named:
        wanted = " or ".join(sorted(expected.blamed))
        return Cell(f"FAILED: refused for another reason than {wanted}: {_short(message)}", failed=True)
    return Cell(f"refused: {named[0]}")


def _short(message: str) -> str:
    """The first line with words in it, without time stamps, places in sources and what would end a cell."""
    text = message.replace("Traceback (most recent call last):", "").replace("MXNetError:", "")
    text = re.sub(r"\[\d\d:\d\d:\d\d\] \S+:\d+: ", "", text)
    lines = [line.strip() for line in text.splitlines() if re.search("[A-Za-z]{2}", line)] or [text.strip()]
    return lines[0].replace("|", "\\|")[:160]


def worst(cells: Iterable[Cell]) -> Cell:
    """The cell of several that stands for all: a failure, otherwise the largest number."""
    ordered = sorted(cells, key=lambda cell: (cell.failed, _number(cell.text)))
    return ordered[-1]


def _number(text: str) -> float:
    found = re.match(r"[0-9.]+e[-+][0-9]+", text)
    return float(found.group()) if found else -1.0


def markdown(columns: Iterable[str], rows: Mapping[str, Iterable[Cell]]) -> str:
    """A table with a row for each version."""
    header = ["MXNet", *columns]
    lines = ["| " + " | ".join(header) + " |", "|---" * len(header) + "|"]
    lines += [f"| {version} | " + " | ".join(cell.text for cell in cells) + " |" for version, cells in rows.items()]
    return "\n".join(lines)
