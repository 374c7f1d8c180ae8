"""Render a picture as an HTML page: a column of cards that fold open, a panel for the chosen node, a search box.

The page is self-contained. Without JavaScript the cards still fold; panel and search need JavaScript.
"""

from __future__ import annotations

import html
import re
from collections.abc import Collection, Mapping
from typing import Any

from bertsym.drawing.cards import Card, arrows_of, cards_of
from bertsym.drawing.dot import nodes_to_dot
from bertsym.drawing.node_style import KINDS, kind_of, sentence_parts, shape_text
from bertsym.drawing.picture import Picture
from bertsym.drawing.render import render_svgs
from bertsym.symbol.node import Node, Output
from bertsym.web_page import (
    PALETTE,
    content_policy,
    escaped_html,
    fill_template,
    read_resource,
    scheme_colours,
    script_json,
)

# Colours of this page besides those of all pages and of nodes, light and dark.
_COLOURS = {"line": ("#a7b0bd", "#566273"), "path": ("#3b4a5e", "#b3c0d1")}
_PACKAGE = "bertsym.drawing"


def render_page(picture: Picture, opened: Collection[str] = ()) -> str:
    """Return the HTML; the groups whose titles are in `opened` are open when the page is loaded."""
    cards = cards_of(picture)
    card_of = {node: number for number, card in enumerate(cards) for node in card.nodes}
    texts = [
        nodes_to_dot(picture, card.nodes, number, lambda node: cards[card_of[node]].title)
        for number, card in enumerate(cards)
    ]
    titles = {f"n{picture.index[node]}": node.name for node in picture.drawn}
    drawings = [style_drawing(svg, picture) for svg in render_svgs(texts, titles)]
    script = read_resource(_PACKAGE, "page.js")
    return fill_template(
        read_resource(_PACKAGE, "page.html"),
        {
            "title": escaped_html(picture.title, 200),
            "sentence": _sentence(picture.sentence),
            "legend": _legend(picture),
            "colours": f"{scheme_colours(PALETTE)}\n{node_colours()}",
            "style": read_resource(_PACKAGE, "page.css") + read_resource(_PACKAGE, "drawing.css"),
            "cards": _column(picture, cards, drawings, opened),
            "data": script_json(_data(picture, cards, card_of)),
            "script": script,
            "policy": content_policy(script),
        },
    )


def _sentence(sentence: str) -> str:
    pieces = [
        f"<code>{escaped_html(piece, 200)}</code>" if is_name else escaped_html(piece, 400)
        for piece, is_name in sentence_parts(sentence)
    ]
    return f"<p>{''.join(pieces)}</p>" if pieces else ""


def _legend(picture: Picture) -> str:
    used = {kind_of(node) for node in picture.drawn} | ({"highlight"} if picture.highlighted else set())
    return "".join(
        f'<li><i style="background:var(--{key}-fill);border-color:var(--{key}-line)"></i>{html.escape(kind.label)}</li>'
        for key, kind in KINDS.items()
        if key in used
    )


def node_colours() -> str:
    """Return CSS: the colours of lines and of each kind of node in both schemes, and the rules that use them."""
    nodes = {}
    for key, kind in KINDS.items():
        nodes[f"{key}-fill"], nodes[f"{key}-line"] = (kind.fill, kind.dark_fill), (kind.line, kind.dark_line)
    boxes = [
        f".drawing svg g.box.{key} path {{ fill: var(--{key}-fill); stroke: var(--{key}-line); }}" for key in KINDS
    ]
    return "\n".join([scheme_colours(_COLOURS, nodes), *boxes])


def style_drawing(svg: str, picture: Picture, is_clickable: bool = True) -> str:
    """Prepare a drawing for the CSS of a page; make its boxes and stubs clickable and focusable if they are."""

    def labelled(match: re.Match[str]) -> str:
        kind, number, classes = match[1], int(match[2]), match[3]
        role = 'tabindex="0" role="button"'
        # Graphviz adds its own class "node" first.
        classes = classes.replace("node node", "box", 1) if kind == "n" else "stub"
        if not is_clickable:
            return f'<g class="{classes}">'
        name = escaped_html(picture.graph.nodes[number].name, 400)
        what = "" if kind == "n" else f' aria-label="go to {name}"'
        return f'<g id="{match[0].split(chr(34))[1]}" class="{classes}" data-node="{number}" {role}{what}>'

    # The id of a node has its number; the id of a stub (i3_12_0: into card 3, from node 12) that of the linked node.
    svg = re.sub(r'<g id="(n|[io]\d+_)(\d+)(?:_\d+)*" class="([^"]*)">', labelled, svg)
    svg = re.sub(r'<g id="edge\d+" class="edge edge', '<g class="edge', svg)
    svg = re.sub(r'<g id="[^"]*graph0" class="graph"', "<g", svg)
    # The page's style sets the font for all texts.
    svg = re.sub(r' font-family="Helvetica,Arial,sans-serif"', "", svg)
    return svg.replace('xmlns:xlink="http://www.w3.org/1999/xlink"', "").replace(
        "<svg ", '<svg font-family="Helvetica,Arial,sans-serif" ', 1
    )


def _column(picture: Picture, cards: list[Card], drawings: list[str], opened: Collection[str]) -> str:
    above, elsewhere = arrows_of(picture, cards)
    pieces = []
    for number, (card, drawing) in enumerate(zip(cards, drawings)):
        if number:
            pieces.append(_arrow(picture, above[number]))
        highlighted = not picture.highlighted.isdisjoint(card.nodes)
        classes = f"card{' group' if card.group else ''}{' highlight' if highlighted else ''}"
        is_open = " open" if card.group is None or card.group.title in opened else ""
        notes = f"<p>{escaped_html(card.subtitle, 200)}</p>" if card.subtitle else ""
        if card.group is not None:
            also = [f"<code>{escaped_html(str(entry))}</code> {_shape(picture, entry)}" for entry in elsewhere[number]]
            counts = [picture.count_of(card.nodes), *(f"also reads {text}" for text in also)]
            notes += f'<p class="reads">{"; ".join(counts)}</p>'
        pieces.append(
            f'<details class="{classes}" id="card{number}"{is_open}>'
            f"<summary><h2>{escaped_html(card.title, 200)}</h2>{notes}</summary>"
            f'<div class="drawing">{drawing}</div></details>'
        )
    return "\n".join(pieces)


def _arrow(picture: Picture, entries: list[Output]) -> str:
    if not entries:
        return '<div class="gap"></div>'
    shapes = " and ".join(dict.fromkeys(text for text in (_shape(picture, entry) for entry in entries) if text))
    highlighted = any(entry.node in picture.highlighted for entry in entries)
    return f'<div class="arrow{" highlight" if highlighted else ""}"><span>{shapes}</span></div>'


def _shape(picture: Picture, entry: Output) -> str:
    return html.escape(shape_text(picture.shape(entry)))


def _data(picture: Picture, cards: list[Card], card_of: Mapping[Node, int]) -> dict[str, Any]:
    """Return the data of panel and search; parameters are listed with their readers."""
    drawn = set(picture.drawn)
    readers: dict[Node, dict[int, None]] = {}
    for entry, nodes in picture.readers.items():
        readers.setdefault(entry.node, {}).update((picture.index[node], None) for node in nodes)
    return {
        "cards": [card.title for card in cards],
        "nodes": [
            _node_data(picture, node, card_of[node], list(readers.get(node, {}))) if node in drawn else None
            for node in picture.graph.nodes
        ],
    }


def _node_data(picture: Picture, node: Node, card: int, readers: list[int]) -> dict[str, Any]:
    def shape(entry: Output) -> str:
        return shape_text(picture.shape(entry))

    written = [(index, shape(Output(node, index))) for index in range(node.num_outputs)]
    return {
        "name": node.name,
        "op": node.op,
        "kind": "highlight" if node in picture.highlighted else kind_of(node),
        "highlighted": node in picture.highlighted,
        "card": card,
        "attrs": dict(node.attrs),
        "inputs": [(picture.index[entry.node], entry.index, shape(entry)) for entry in picture.data_inputs(node)],
        "parameters": [(each.name, shape(Output(each))) for each in picture.parameters_of(node)],
        "shapes": [(index, text) for index, text in written if text],
        "readers": readers,
    }
