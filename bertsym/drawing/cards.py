"""Split a picture into a column of cards: inputs, groups, nodes between groups, head."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from bertsym.drawing.picture import Group, Picture
from bertsym.symbol.node import Node, Output


@dataclass(frozen=True)
class Card:
    """One card of the column."""

    title: str
    subtitle: str
    nodes: tuple[Node, ...]  #: drawn nodes, in the order of the graph
    group: Group | None = None


def cards_of(picture: Picture) -> list[Card]:
    """Return the cards from the inputs to the outputs; every drawn node is in exactly one card."""
    if not picture.groups:
        return [Card("The graph", picture.count_of(picture.drawn), picture.drawn)]
    between = _places_between(picture)
    cards = []
    for number in range(-1, len(picture.groups)):
        if number >= 0:
            group = picture.groups[number]
            nodes = tuple(node for node in picture.drawn if node in group.nodes)
            cards.append(Card(group.title, group.subtitle, nodes, group))
        nodes = tuple(node for node in picture.drawn if between.get(node) == number)
        if nodes:
            cards.append(Card(_title(picture, number), picture.count_of(nodes), nodes))
    return cards


def _title(picture: Picture, number: int) -> str:
    if number < 0:
        return "inputs and embeddings"
    if number == len(picture.groups) - 1:
        return "output and head"
    return f"between {picture.groups[number].title} and {picture.groups[number + 1].title}"


def _places_between(picture: Picture) -> Mapping[Node, int]:
    """Map each node without a group to the number of the group before it; -1 before the first group."""
    places: dict[Node, int] = {}
    numbers = {group.title: number for number, group in enumerate(picture.groups)}
    for node in picture.drawn:
        before = [places[entry.node] for entry in picture.data_inputs(node)]
        own = picture.group_of.get(node)
        places[node] = max(before, default=-1) if own is None else max(numbers[own.title], *before, -1)
    # A label, or a length that only the head needs, belongs to its reader rather than to the inputs.
    readers: dict[Node, list[Node]] = {}
    for entry, nodes in picture.readers.items():
        readers.setdefault(entry.node, []).extend(nodes)
    needed: set[Node] = set()
    for node in reversed(picture.drawn):
        if node in picture.group_of or any(reader in needed for reader in readers.get(node, [])):
            needed.add(node)
        elif node in readers:
            places[node] = max(places[node], min(places[reader] for reader in readers[node]))
    return {node: place for node, place in places.items() if node not in picture.group_of}


def arrows_of(picture: Picture, cards: list[Card]) -> tuple[list[list[Output]], list[list[Output]]]:
    """Return, for each card, the outputs that it reads from the card above and from other cards."""
    card_of = {node: number for number, card in enumerate(cards) for node in card.nodes}
    above: list[list[Output]] = []
    elsewhere: list[list[Output]] = []
    for number, card in enumerate(cards):
        entries = dict.fromkeys(entry for node in card.nodes for entry in picture.data_inputs(node))
        outer = [entry for entry in entries if card_of[entry.node] != number]
        near = [entry for entry in outer if card_of[entry.node] == number - 1 and entry not in picture.shared]
        above.append(near)
        elsewhere.append([entry for entry in outer if entry not in near])
    return above, elsewhere
