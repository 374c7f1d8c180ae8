"""Escape untrusted text for a terminal."""

from __future__ import annotations

_LONGEST = 2000  # characters of a message


def escaped(line: str) -> str:
    """Escape the unprintable characters of a line, so that it cannot control the terminal."""
    if line.isprintable():
        return line
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in line)


def one_line(message: str) -> str:
    """Format a message as one escaped line of at most 2,000 characters."""
    shown = escaped(" ".join(message.splitlines()))
    return shown if len(shown) <= _LONGEST else f"{shown[:_LONGEST]}..."
