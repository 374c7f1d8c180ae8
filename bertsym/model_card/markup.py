"""Untrusted texts in Markdown and YAML."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Sequence

from bertsym.terminal import escaped

_LONGEST = 100  # characters of a label or name


def code_span(text: str) -> str:
    """Return a text as a code span, in which no character has a meaning; a long one is cut."""
    shown = escaped(text)
    shown = shown if len(shown) <= _LONGEST else f"{shown[:_LONGEST]}…"
    fence = "`" * (max(map(len, re.findall("`+", shown)), default=0) + 1)
    # A space at both ends is dropped by readers, unless the text is blank.
    pad = " " if shown[:1] in ("`", " ") or shown[-1:] in ("`", " ") or not shown else ""
    return f"{fence}{pad}{shown}{pad}{fence}"


def table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a table; its cells may be code spans with any text."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in line)} |" for line in lines)


def yaml_text(text: str) -> str:
    """Return a text as a YAML scalar in double quotes."""
    quoted = json.dumps(text, ensure_ascii=False)
    # YAML allows no unprintable characters, and would read some of them as line breaks.
    return "".join(char if char.isprintable() else f"\\U{ord(char):08x}" for char in quoted)
