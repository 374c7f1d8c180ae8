"""Judge the results of one MXNet, and format them as a table of cells."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

#: measure -> tolerance
TOLERANCES = {"outputs": 1e-5, "gradients": 1e-4, "losses": 1e-5, "parameters": 1e-4}


@dataclass(frozen=True)
class Fault:
    """A known fault of an MXNet with a node that it loads."""

    reason: str  #: what the node uses, as `oldest_mxnet` names it
    measures: frozenset[str]  #: wrong measures
    most: float  #: largest difference that the fault explains

    def shows(self, measure: str) -> bool:
        """Whether the fault must show as a difference above the tolerance; later in training it need not."""
        return measure in self.measures & {"outputs", "gradients"}


TRAINING = ("gradients", "losses", "parameters")
#: by release line
FAULTS = {
    # The backward pass reads the input without keeping it: by then the memory has other values.
    (1, 5): Fault("LeakyReLU act_type=gelu", frozenset(TRAINING), math.inf),
    # oneDNN's gelu was the approximation by tanh.
    (1, 7): Fault("LeakyReLU act_type=gelu", frozenset(TOLERANCES), 0.05),
}


@dataclass(frozen=True)
class Expectation:
    """Expected behaviour of a symbol in one MXNet."""

    loads: bool
    blamed: frozenset[str] = frozenset()  #: operators, attributes or values, one of which a refusal must name
    fault: Fault | None = None


@dataclass(frozen=True)
class Cell:
    """One square of the table."""

    text: str
    failed: bool = False


def line_of(version: str) -> tuple[int, int]:
    """The release line of a version: (1, 5) of 1.5.1.post0."""
    major, minor = version.split(".")[:2]
    return int(major), int(minor)


def expectation(
    version: str, minimum: str, requirements: Iterable[tuple[str, str]], target: str | None = None
) -> Expectation:
    """Return the expected behaviour: load from `minimum` on; in older versions, an error that names what is missing.

    `requirements` are the (version, reason) of the nodes that `oldest_mxnet` returns. In the `target` MXNet of the
    symbol, no fault is excused.
    """
    needed = list(requirements)
    line = line_of(version)
    missing = [reason for oldest, reason in needed if line_of(oldest) > line]
    # "LeakyReLU act_type=gelu" -> gelu, "softmax use_length" -> use_length, "erf" -> erf
    blamed = frozenset(re.split("[ =]", reason)[-1] for reason in missing)
    fault = FAULTS.get(line)
    excused = target is None or line_of(target) != line
    applies = fault is not None and excused and any(reason == fault.reason for _, reason in needed)
    return Expectation(line >= line_of(minimum), blamed, fault if applies else None)


def judge(answer: Mapping[str, Any], measure: str, expected: Expectation) -> Cell:
    """Return the cell of one `measure`, a key of TOLERANCES, of the result of a job."""
    for kind in ("crashed", "error"):
        if kind in answer:
            return Cell(f"FAILED: {kind}: {_short(answer[kind])}", failed=True)
    if "refused" in answer:
        return _refusal(answer["refused"], expected)
    if not expected.loads:
        return Cell("FAILED: loads, which it should not", failed=True)
    difference = answer[measure]
    shown = f"{difference:.1e}"
    # Written so that NaN fails too.
    within = difference <= TOLERANCES[measure]
    fault = expected.fault
    if fault is None or measure not in fault.measures:
        return Cell(shown if within else f"FAILED: {shown}", failed=not within)
    if not difference <= fault.most or not math.isfinite(difference):
        return Cell(f"FAILED: {shown}", failed=True)
    if within and fault.shows(measure):
        return Cell(f"FAILED: {shown}, without the known fault of this MXNet", failed=True)
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
    """Return the first line with words, without time stamps and source lines, escaped for a cell."""
    text = message.replace("Traceback (most recent call last):", "").replace("MXNetError:", "")
    text = re.sub(r"\[\d\d:\d\d:\d\d\] \S+:\d+: ", "", text)
    lines = [line.strip() for line in text.splitlines() if re.search("[A-Za-z]{2}", line)] or [text.strip()]
    return lines[0].replace("|", "\\|")[:160]


def worst(cells: Iterable[Cell]) -> Cell:
    """Return the worst of several cells: a failure, or else the largest number."""
    ordered = sorted(cells, key=lambda cell: (cell.failed, _number(cell.text)))
    return ordered[-1]


def _number(text: str) -> float:
    found = re.match(r"[0-9.]+e[-+][0-9]+", text)
    return float(found.group()) if found else -1.0


def markdown(corner: str, columns: Iterable[str], rows: Mapping[str, Iterable[Cell]]) -> str:
    """Format a table with a row for each name of `rows`, in a column `corner`."""
    header = [corner, *columns]
    lines = ["| " + " | ".join(header) + " |", "|---" * len(header) + "|"]
    lines += [f"| {name} | " + " | ".join(cell.text for cell in cells) + " |" for name, cells in rows.items()]
    return "\n".join(lines)


def verdict(cells: Iterable[Cell]) -> str:
    """Summarise all cells in one line."""
    every = list(cells)
    failed = sum(cell.failed for cell in every)
    refused = sum(cell.text.startswith("refused") for cell in every)
    known = sum(cell.text.endswith("(known fault)") for cell in every)
    limits = ", ".join(f"{measure} {limit:g}" for measure, limit in TOLERANCES.items())
    return (
        f"{'FAILED' if failed else 'passed'}: of {len(every)} cells {len(every) - failed - refused - known} within "
        f"tolerance ({limits}), {refused} refused as they should be, {known} with a known fault of that MXNet, "
        f"{failed} failed"
    )
