"""The command line: one thin module per command over a library function."""

from bertsym.cli.group import cli, main

__all__ = ["cli", "main"]
