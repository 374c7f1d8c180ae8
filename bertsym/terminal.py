"""Names and values out of files, as a terminal bears them."""

from __future__ import annotations


def escaped(line: str) -> str:
    """A line with nothing that a terminal would obey, or show elsewhere: what is not printable is escaped."""
    if line.isprintable():
        return line
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in line)
