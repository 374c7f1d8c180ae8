"""Draw a picture in the format of a file suffix."""

from __future__ import annotations

from collections.abc import Iterable

from bertsym.drawing.dot import graph_to_dot
from bertsym.drawing.page import render_page
from bertsym.drawing.picture import Picture
from bertsym.drawing.render import render_png, render_svg
from bertsym.errors import UsageError

SUFFIXES = (".svg", ".png", ".html")
ALL = "all"  #: value of `expand` for every group


def draw_picture(picture: Picture, suffix: str, expand: Iterable[str] = ()) -> bytes:
    """Return the content of an ``.svg``, ``.png`` or ``.html`` file.

    `expand` names the groups that show their nodes: ``layer 3``, ``3`` or ``all``. Raises UsageError for another
    suffix and for an unknown group, ModelError if Graphviz is missing or fails.
    """
    if suffix.lower() not in SUFFIXES:
        raise UsageError(
            f"can't draw {suffix!r} files: the name must end in {', '.join(SUFFIXES[:-1])} or {SUFFIXES[-1]}"
        )
    expanded = expanded_keys(picture, expand)
    if suffix.lower() == ".html":
        return render_page(picture, expanded).encode()
    text = graph_to_dot(picture, expanded)
    if suffix.lower() == ".png":
        return render_png(text)
    titles = {f"n{picture.index[node]}": node.name for node in picture.drawn}
    titles.update((f"g{number}", group.title) for number, group in enumerate(picture.groups))
    return render_svg(text, {"picture": picture.title, **titles})


def expanded_keys(picture: Picture, expand: Iterable[str]) -> frozenset[str]:
    """Return the titles of the groups that `expand` names; raises UsageError for an unknown group."""
    titles = [group.title for group in picture.groups]
    expanded: set[str] = set()
    for wanted in expand:
        name = " ".join(wanted.lower().split())
        found = [group.title for group in picture.groups if name in (group.title, str(group.number))]
        if name == ALL:
            found = titles
        elif not found:
            raise UsageError(f"can't expand {wanted!r}: {_choices(titles)}")
        expanded.update(found)
    return frozenset(expanded)


def _choices(titles: list[str]) -> str:
    if not titles:
        return "this graph has no encoder layers"
    shown = ", ".join(titles if len(titles) < 6 else [*titles[:2], "...", titles[-1]])
    return f"choose {shown} or {ALL}"
