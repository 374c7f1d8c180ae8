"""Draw the head of a model alone: what it reads, and its nodes."""

from __future__ import annotations

from dataclasses import dataclass

from bertsym.drawing.cards import cards_of
from bertsym.drawing.dot import nodes_to_dot
from bertsym.drawing.page import node_colours, style_drawing
from bertsym.drawing.picture import Picture
from bertsym.drawing.render import render_png, render_svgs, svg_file
from bertsym.web_page import read_resource


@dataclass(frozen=True)
class HeadDrawing:
    """A drawing of a head, as an element of a page and as files."""

    element: str  #: ``<svg>``, without ids, which several drawings of a page would share
    css: str  #: of the element
    svg: bytes
    png: bytes


def draw_head(picture: Picture) -> HeadDrawing:
    """Draw the nodes after the last layer.

    Raises ModelError if Graphviz is missing or fails.
    """
    cards = cards_of(picture)
    place = {node: card.title for card in cards for node in card.nodes}
    text = nodes_to_dot(picture, cards[-1].nodes, len(cards) - 1, place.__getitem__)
    titles = {f"n{picture.index[node]}": node.name for node in picture.drawn}
    svg = render_svgs([text], titles)[0]
    element = style_drawing(svg, picture, is_clickable=False)
    rules = read_resource("bertsym.drawing", "drawing.css")
    return HeadDrawing(element, f"{node_colours()}\n{rules}", svg_file(svg), render_png(text))
