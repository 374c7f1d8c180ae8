"""Render a picture as an HTML page: a column of cards that fold open, a panel for the chosen node, a search box.

The page is self-contained. Without JavaScript the cards still fold; panel and search need JavaScript.
"""

from __future__ import annotations

import base64
import hashlib
import html
import json
import re
from collections.abc import Collection, Mapping
from importlib import resources
from typing import Any

from bertsym.drawing.cards import Card, arrows_of, cards_of
from bertsym.drawing.dot import nodes_to_dot
from bertsym.drawing.node_style import KINDS, kind_of, sentence_parts, shape_text, visible
from bertsym.drawing.picture import Picture
from bertsym.drawing.render import render_svgs
from bertsym.symbol.node import Node, Output

# Colours of the page, light and dark; those of nodes are in KINDS.
_COLOURS = {
    "page": ("#f4f6f9", "#0b0e13"),
    "raised": ("#ffffff", "#141920"),
    "rule": ("#d5dbe4", "#2c3542"),
    "ink": ("#1f2937", "#e3e8ef"),
    "muted": ("#5f6b7a", "#98a4b4"),
    "accent": ("#1d5fbf", "#7fb2ff"),
    "line": ("#a7b0bd", "#566273"),
    "path": ("#3b4a5e", "#b3c0d1"),
}


def render_page(picture: Picture, opened: Collection[str] = ()) -> str:
    """Return the HTML; the groups whose titles are in `opened` are open when the page is loaded."""
    cards = cards_of(picture)
    card_of = {node: number for number, card in enumerate(cards) for node in card.nodes}
    texts = [
        nodes_to_dot(picture, card.nodes, number, lambda node: cards[card_of[node]].title)
        for number, card in enumerate(cards)
    ]
    titles = {f"n{picture.index[node]}": node.name for node in picture.drawn}
    drawings = [_for_page(svg, picture) for svg in render_svgs(texts, titles)]
    script = _resource("page.js")
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    return _fill(
        _resource("page.html"),
        {
            "title": _escaped(picture.title, 200),
            "sentence": _sentence(picture.sentence),
            "legend": _legend(picture),
            "colours": _colours(),
            "style": _resource("page.css"),
            "cards": _column(picture, cards, drawings, opened),
            "data": _json(_data(picture, cards, card_of)),
            "script": script,
            "script_digest": f"sha256-{digest}",
        },
    )


def _fill(template: str, values: Mapping[str, str]) -> str:
    """Fill the placeholders in one pass, because a value may look like a placeholder."""
    return re.sub(r"\{\{(\w+)\}\}", lambda match: values[match[1]], template)


def _resource(name: str) -> str:
    return (resources.files("bertsym.drawing") / name).read_text(encoding="utf-8")


def _escaped(text: str, limit: int = 72) -> str:
    return html.escape(visible(text, limit))


def _sentence(sentence: str) -> str:
    pieces = [
        f"<code>{_escaped(piece, 200)}</code>" if is_name else _escaped(piece, 400)
        for piece, is_name in sentence_parts(sentence)
    ]
    return f"<p>{''.join(pieces)}</p>" if pieces else ""


def _legend(picture: Picture) -> str:
    used = {kind_of(node) for node in picture.drawn} | ({"highlight"} if picture.highlighted else set())
    return "".join(
        f'<li><i style="background:var(--{key}-fill);border-color:var(--{key}-line)"></i>{_escaped(kind.label)}</li>'
        for key, kind in KINDS.items()
        if key in used
    )


def _colours() -> str:
    """Return CSS: the palette as variables for both colour schemes, and the colours of each kind of node."""
    schemes = []
    for dark in (False, True):
        lines = [f"--{name}: {values[dark]};" for name, values in _COLOURS.items()]
        for key, kind in KINDS.items():
            fill, line = (kind.dark_fill, kind.dark_line) if dark else (kind.fill, kind.line)
            lines.append(f"--{key}-fill: {fill}; --{key}-line: {line};")
        schemes.append(":root { " + " ".join(lines) + " }")
    boxes = [f"svg g.box.{key} path {{ fill: var(--{key}-fill); stroke: var(--{key}-line); }}" for key in KINDS]
    return "\n".join([schemes[0], f"@media (prefers-color-scheme: dark) {{ {schemes[1]} }}", *boxes])


def _for_page(svg: str, picture: Picture) -> str:
    """Make the boxes and stubs of a drawing clickable and focusable."""

    def labelled(match: re.Match[str]) -> str:
        kind, number, classes = match[1], int(match[2]), match[3]
        role = 'tabindex="0" role="button"'
        # Graphviz adds its own class "node" first.
        classes = classes.replace("node node", "box", 1) if kind == "n" else "stub"
        name = html.escape(visible(picture.graph.nodes[number].name, 400))
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
        notes = f"<p>{_escaped(card.subtitle, 200)}</p>" if card.subtitle else ""
        if card.group is not None:
            also = [f"<code>{_escaped(str(entry))}</code> {_shape(picture, entry)}" for entry in elsewhere[number]]
            counts = [picture.count_of(card.nodes), *(f"also reads {text}" for text in also)]
            notes += f'<p class="reads">{"; ".join(counts)}</p>'
        pieces.append(
            f'<details class="{classes}" id="card{number}"{is_open}>'
            f"<summary><h2>{_escaped(card.title, 200)}</h2>{notes}</summary>"
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


def _json(data: object) -> str:
    """Convert to JSON in which no name can close the script element or become markup."""
    text = json.dumps(data, separators=(",", ":"))
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")
