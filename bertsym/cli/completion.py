"""Completion in fish: click's script cuts words and descriptions at their second comma (click 8.5.1, in fish 3.6)."""

from __future__ import annotations

from click.shell_completion import FishComplete, add_completion_class


class CommaFishComplete(FishComplete):
    """fish's completion, where words and descriptions may have commas."""

    source_template = FishComplete.source_template.replace('string split ","', 'string split --max 1 ","')


def register_fish() -> None:
    """Let click use `CommaFishComplete`."""
    add_completion_class(CommaFishComplete)
