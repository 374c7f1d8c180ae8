"""Draw a picture as the file that its suffix names."""

from __future__ import annotations

from collections.abc import Iterable

from bertsym.drawing.dot import dot_text
from bertsym.drawing.page import page_text
from bertsym.drawing.picture import Picture
from bertsym.drawing.render import render_png, render_svg
from bertsym.errors import UsageError

SUFFIXES = (".svg", ".png", ".html")
ALL = "all"  #: for `expand`: every group


def draw_picture(picture: Picture, suffix: str, expand: Iterable[str] = ()) -> bytes:
    """The content of an ``.svg``, ``.png`` or ``.html`` file.

    `expand` are keys of the groups to open: ``layer 3``, or ``3`` where that is enough, or ``all``. Raises
    UsageError for another suffix and for an unknown key, ModelError when Graphviz is missing or fails.
    """
    if suffix.lower() not in SUFFIXES:
        raise UsageError(
            f"can't draw {suffix!r} files: the name must end in {', '.join(SUFFIXES[:-1])} or {SUFFIXES[-1]}"
        )
    expanded = expanded_keys(picture, expand)
    if suffix.lower() == ".html":
        return page_text(picture, expanded).encode()
    text = dot_text(picture, expanded)
    if suffix.lower() == ".png":
        return render_png(text)
    titles = {f"n{picture.index[node]}": node.name for node in picture.drawn}
    titles.update((f"g{number}", group.title) for number, group in enumerate(picture.groups))
    return render_svg(text, {"picture": picture.title, **titles})


def expanded_keys(picture: Picture, expand: Iterable[str]) -> frozenset[str]:
    """The keys of the groups that `expand` means; raises UsageError for an unknown one."""
    keys = [group.key for group in picture.groups]
    expanded: set[str] = set()
    for wanted in expand:
        words = " ".join(wanted.lower().split())
        found = [key for key in keys if words in (key.lower(), key.lower().rpartition(" ")[2])]
        if words == ALL:
            found = keys
        elif len(found) != 1:
            raise UsageError(f"can't open {wanted!r}: {_choice(keys)}")
        expanded.update(found)
    return frozenset(expanded)


def _choice(keys: list[str]) -> str:
    if not keys:
        return "this graph has no layers to open"
    shown = ", ".join(keys if len(keys) < 6 else [*keys[:2], "...", keys[-1]])
    return f"there are {shown}, and {ALL}"
