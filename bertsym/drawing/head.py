"""Draw the head of a model alone: what it reads, and its nodes."""

from __future__ import annotations

from bertsym.drawing.cards import cards_of
from bertsym.drawing.dot import nodes_to_dot
from bertsym.drawing.page import node_colours, style_drawing
from bertsym.drawing.picture import Picture
from bertsym.drawing.render import render_svg, render_svgs
from bertsym.web_page import read_resource


def draw_head(picture: Picture) -> tuple[str, bytes, str]:
    """Draw the nodes after the last layer: an SVG element for a page, an SVG file, and the CSS of the element.

    Raises ModelError if Graphviz is missing or fails.
    """
    cards = cards_of(picture)
    place = {node: card.title for card in cards for node in card.nodes}
    text = nodes_to_dot(picture, cards[-1].nodes, len(cards) - 1, place.__getitem__)
    titles = {f"n{picture.index[node]}": node.name for node in picture.drawn}
    # Without ids, which several drawings of a page would share.
    element = style_drawing(render_svgs([text], titles)[0], picture, is_clickable=False)
    rules = read_resource("bertsym.drawing", "drawing.css")
    return element, render_svg(text, titles), f"{node_colours()}\n{rules}"
