"""What commands print: notes, progress, and what was written."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import click

from bertsym.atomic_writing import open_atomically
from bertsym.terminal import escaped

if TYPE_CHECKING:
    from bertsym.reports.options import ReportOptions
    from bertsym.surgery.result_writing import SurgeryResult

SHOWN = 20  #: lines of a kind, where more is rarely read


def warn(text: str) -> None:
    """Print a line on standard error."""
    click.echo(escaped(text), err=True)


def note(text: str) -> None:
    """Print a note on standard error."""
    warn(f"note: {text}")


def print_lines(lines: Iterable[object], indent: str = "") -> None:
    """Print lines on standard output, escaped."""
    for line in lines:
        click.echo(escaped(f"{indent}{line}"))


def print_report(report: ReportOptions | None) -> None:
    """Print where the page of a report is, if there is one."""
    if report is not None:
        warn(f"report: {Path(report.folder) / 'index.html'}")


def print_truncated(truncated: int, rows: int, limit: int) -> None:
    """Print how many texts were truncated, if any."""
    if truncated:
        warn(f"{truncated} of {rows} texts truncated to {limit} tokens")


def print_written(written: SurgeryResult) -> None:
    """Print what was written, what it was compared with, and what it needs."""
    signature = written.bundle.signature.to_json()
    for text in written.notes:
        note(text)
    print_lines(written.checks, "  ")
    compared = "not compared"
    if written.checks:
        compared = "verified" if written.verified else "its outputs differ from the original's"
    click.echo(f"wrote {written.bundle.prefix}-*, {compared}; {len(written.bundle.params())} arrays of parameters")
    for what in ("inputs", "outputs"):
        print_tensors(what, [(tensor["name"], tensor["shape"]) for tensor in signature[what]])
    if written.loaders:
        click.echo(f"  equal results through {', '.join(written.loaders)}")
    if signature["minimum_mxnet"]:
        click.echo(f"  loads in MXNet {signature['minimum_mxnet']} and later")


def print_tensors(what: str, tensors: Iterable[tuple[str, Iterable[object] | None]]) -> None:
    """Print the names and shapes of inputs or outputs in one line."""
    shown = [f"{name} ({', '.join(map(str, shape or '?'))})" for name, shape in tensors]
    print_lines([f"{what}: {', '.join(shown)}"], "  ")


@contextlib.contextmanager
def row_bar(shown: bool = True, count: Callable[[], int | None] = lambda: None) -> Iterator[Callable[[int], object]]:
    """Show the number of rows and their speed on a terminal, nothing elsewhere; yields what advances it.

    `count` returns the number of all rows where it is known; it is only called for a bar that is shown.
    """
    from tqdm import tqdm

    shown = shown and sys.stderr.isatty()
    with tqdm(total=count() if shown else None, unit=" rows", leave=False, disable=not shown) as bar:
        yield bar.update


@contextlib.contextmanager
def line_output(out: str | None, force: bool) -> Iterator[Callable[[str], object]]:
    """Yield a function that writes a line: to standard output at once, or to the file `out`, which appears at the end.

    Raises the errors of `open_atomically`.
    """
    if out is None:
        yield click.echo
        return
    with open_atomically(Path(out), force) as file:
        yield lambda line: file.write(f"{line}\n".encode())
