"""Text from files and from other processes, made safe for a terminal."""

from __future__ import annotations

_LONGEST = 2000  # characters of a message


def escaped(line: str) -> str:
    """A line without anything that a terminal would obey, or show elsewhere: what is not printable is escaped."""
    if line.isprintable():
        return line
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in line)


def one_line(message: str) -> str:
    """A message as one line of at most 2,000 characters, escaped."""
    shown = escaped(" ".join(message.splitlines()))
    return shown if len(shown) <= _LONGEST else f"{shown[:_LONGEST]}..."
