"""Convert a picture to DOT text for Graphviz: the whole graph, or some nodes with stubs to the rest."""

from __future__ import annotations

import html
from collections.abc import Callable, Collection, Iterable

from bertsym.drawing.node_style import (
    INK,
    KINDS,
    LINE,
    MUTED,
    PATH_LINE,
    common_prefix,
    describe_attributes,
    kind_of,
    parameter_lines,
    sentence_parts,
    shape_text,
)
from bertsym.drawing.picture import Group, Picture
from bertsym.symbol.node import Node, Output
from bertsym.web_page import visible

# Graphviz measures texts with the first font that is installed; browsers draw with the same list.
_FONT = "Helvetica,Arial,sans-serif"
_HIGHLIGHT = KINDS["highlight"]


def graph_to_dot(picture: Picture, expanded: Collection[str] = ()) -> str:
    """Convert the whole graph; the groups whose titles are in `expanded` show their nodes."""
    canvas = _Canvas(picture)
    canvas.heading()
    folded = [group for group in picture.groups if group.title not in expanded]
    boxes = {node: f"g{canvas.number(group)}" for group in folded for node in group.nodes}
    for group in folded:
        canvas.folded_group(f"g{canvas.number(group)}", group)
    for group in picture.groups:
        if group.title in expanded:
            canvas.cluster(group)
    for node in picture.drawn:
        if node not in boxes and node not in picture.group_of:
            canvas.node(node)

    seen: set[tuple[Output, str]] = set()
    for node in picture.drawn:
        for entry in picture.data_inputs(node):
            target, source = boxes.get(node, canvas.id(node)), boxes.get(entry.node, canvas.id(entry.node))
            if target == source or (entry, target) in seen:
                continue
            seen.add((entry, target))
            reader = picture.group_of.get(node)
            enters_group = reader is not None and reader is not picture.group_of.get(entry.node)
            if reader is not None and enters_group and entry in picture.shared:
                canvas.stub_in(f"i{canvas.number(reader)}", entry, node, target, inside=node not in boxes)
            elif reader is not None and enters_group and node not in boxes and _is_read_twice(picture, entry, reader):
                canvas.fan_in(source, entry, node, reader)
            else:
                canvas.edge(source, target, entry, [node])
    for entry in picture.graph.outputs:
        canvas.end(entry, boxes.get(entry.node))
    for entry in sorted(picture.shared, key=lambda entry: (picture.index[entry.node], entry.index)):
        canvas.stub_out("o", entry, _reading_groups(picture, entry), boxes.get(entry.node))
    return canvas.text()


def nodes_to_dot(picture: Picture, nodes: Collection[Node], number: int, place: Callable[[Node], str]) -> str:
    """Convert only `nodes`, with a stub for each input and output; `number` makes the ids unique among such texts.

    `place` returns the title of another node's card, such as ``layer 3``.
    """
    canvas = _Canvas(picture)
    canvas.prefix = common_prefix(nodes)
    inside = set(nodes)
    for node in picture.drawn:
        if node not in inside:
            continue
        canvas.node(node)
        for entry in picture.data_inputs(node):
            if entry.node in inside:
                canvas.edge(canvas.id(entry.node), canvas.id(node), entry, [node])
            else:
                canvas.stub_in(f"i{number}", entry, node, canvas.id(node), where=f"from {place(entry.node)}")
    for entry, readers in picture.readers.items():
        outside = [reader for reader in readers if reader not in inside]
        if entry.node in inside and outside:
            places = list(dict.fromkeys(map(place, outside)))
            canvas.stub_out(f"o{number}", entry, places, None, target=outside[0])
    for entry in picture.graph.outputs:
        if entry.node in inside:
            canvas.end(entry, None)
    return canvas.text()


def _first_weight(picture: Picture, node: Node) -> str:
    # Heavier than later edges, so that all paths through a group start side by side.
    return "weight=9" if len(picture.data_inputs(node)) == 1 else ""


def _is_read_twice(picture: Picture, entry: Output, group: Group) -> bool:
    return sum(reader in group.nodes for reader in picture.readers[entry]) > 1


def _reading_groups(picture: Picture, entry: Output) -> list[str]:
    own = picture.group_of.get(entry.node)
    readers = set(picture.readers[entry])
    return [group.title for group in picture.groups if group is not own and readers & group.nodes]


class _Canvas:
    """The lines of a DOT text under construction. Ids are numbers, because names may contain any character."""

    def __init__(self, picture: Picture) -> None:
        self.picture = picture
        self.prefix = ""  # removed from names
        self._made: set[str] = set()
        self._lines = [
            "digraph picture {",
            'graph [rankdir=TB, bgcolor="white", nodesep=0.28, ranksep=0.3, pad=0.2, '
            f'fontname="{_FONT}", fontcolor="{INK}"];',
            f'node [shape=box, style="rounded,filled", margin="0.1,0.07", height=0.3, fontname="{_FONT}", '
            f'fontsize=11, fontcolor="{INK}"];',
            f'edge [fontname="{_FONT}", fontsize=9, fontcolor="{MUTED}", color="{LINE}", arrowsize=0.6, penwidth=1];',
        ]

    def text(self) -> str:
        """Return the DOT text."""
        return "\n".join([*self._lines, "}\n"])

    def id(self, node: Node) -> str:
        """Return the id of a node."""
        return f"n{self.picture.index[node]}"

    def number(self, group: Group) -> int:
        """Return the index of a group in the picture."""
        return self.picture.groups.index(group)

    def heading(self) -> None:
        """Add a heading with title, sentence and legend."""
        picture = self.picture
        rows = [_font(f"<B>{_escaped(picture.title, 120)}</B>", 17, INK)] if picture.title else []
        if picture.sentence:
            pieces = [
                f"<B>{_escaped(piece, 120)}</B>" if is_name else _escaped(piece, 240).replace(" ", "&#160;")
                for piece, is_name in sentence_parts(picture.sentence)
            ]
            rows.append(_font("".join(pieces), 12, INK))
        rows = [f'<TR><TD COLSPAN="20" ALIGN="CENTER">{row}</TD></TR>' for row in rows]
        used = {kind_of(node) for node in picture.drawn} | ({"highlight"} if picture.highlighted else set())
        cells = [
            f'<TD BGCOLOR="{kind.fill}" COLOR="{kind.line}" BORDER="1" STYLE="ROUNDED">'
            f"{_font(_escaped(kind.label), 9, INK)}</TD>"
            for key, kind in KINDS.items()
            if key in used
        ]
        legend = f'<TABLE BORDER="0" CELLBORDER="0" CELLSPACING="5" CELLPADDING="3"><TR>{"".join(cells)}</TR></TABLE>'
        rows.append(f"<TR><TD>{legend}</TD></TR>")
        table = f'<TABLE BORDER="0" CELLBORDER="0" CELLSPACING="2" CELLPADDING="3">{"".join(rows)}</TABLE>'
        self._lines.append(f'labelloc="t"; label=<{table}>;')

    def node(self, node: Node) -> None:
        """Add a box with operator, name and parameters."""
        picture, kind = self.picture, kind_of(node)
        name = node.name[len(self.prefix) :] if node.name.startswith(self.prefix) else node.name
        if node.is_variable:
            lines = [f"<B>{_escaped(node.name)}</B>", _small(shape_text(picture.shape(Output(node))))]
        else:
            attributes = describe_attributes(node)
            lines = [f"<B>{_escaped(node.op)}</B>{'&#160; ' + _escaped(attributes) if attributes else ''}"]
            lines.append(_font(_escaped(name or node.name), 10, INK))
            lines += [_small(line) for line in parameter_lines(picture, node)]
        highlighted = node in picture.highlighted
        style = KINDS["highlight" if highlighted else kind]
        options = f'fillcolor="{style.fill}", color="{style.line}", class="{self._classes("node", [node], kind)}"'
        if highlighted or node in picture.path:
            options += f", penwidth={2.2 if highlighted else 1.6}"
        if node.is_variable:
            options += ', margin="0.22,0.08"'
        self._lines.append(f'{self.id(node)} [id="{self.id(node)}", label=<{_label(lines)}>, {options}];')

    def folded_group(self, name: str, group: Group) -> None:
        """Add a group as one box."""
        highlighted = group.nodes & self.picture.highlighted
        style = KINDS["group"]
        lines = [_font(f"<B>{_escaped(group.title)}</B>", 15, INK), _font(_escaped(group.subtitle, 100), 10, INK)]
        lines.append(_small(self.picture.count_of(group.nodes)))
        line, width = (_HIGHLIGHT.line, 2.2) if highlighted else (style.line, 1.6)
        self._lines.append(
            f'{name} [id="{name}", label=<{_label(lines)}>, fillcolor="{style.fill}", color="{line}", '
            f'penwidth={width}, margin="0.3,0.1", width=3.4, class="{self._classes("folded", group.nodes, "group")}"];'
        )

    def cluster(self, group: Group) -> None:
        """Add a group with its nodes."""
        number = self.number(group)
        self.prefix = common_prefix(group.nodes)
        lines = [_font(f"<B>{_escaped(group.title)}</B>", 15, INK), _small(group.subtitle)]
        if self.prefix:
            lines.append(_small(f"names without {self.prefix}"))
        self._lines.append(f"subgraph cluster_{number} {{")
        self._lines.append(
            f'id="g{number}"; class="expanded"; style="rounded,filled"; fillcolor="#fafbfd"; '
            f'color="{KINDS["group"].line}"; margin=14; labeljust="l"; label=<{_label(lines, "LEFT")}>;'
        )
        for node in self.picture.drawn:
            if node in group.nodes:
                self.node(node)
        self._lines.append("}")
        self.prefix = ""

    def edge(self, source: str, target: str, entry: Output, readers: Collection[Node], more: str = "") -> None:
        """Add an arrow, labelled with the shape of the output."""
        picture = self.picture
        # Skip connections bend, so that the chain next to them stays straight.
        skips = len(picture.readers.get(entry, ())) > 1 and any(len(picture.data_inputs(node)) > 1 for node in readers)
        options = [f'label="{self._shape(entry)}"', f"weight={2 if skips else 8}"]
        on_path = entry.node in picture.path and any(reader in picture.path for reader in readers)
        on_path = on_path or not picture.path
        if entry.node in picture.highlighted:
            options.append(f'color="{_HIGHLIGHT.line}", penwidth=2.2, class="edge highlight"')
        elif on_path:
            options.append(f'color="{PATH_LINE}", penwidth=1.8, class="edge path"')
        else:
            options.append('class="edge"')
        options += [more] if more else []
        self._lines.append(f"{source} -> {target} [{', '.join(options)}];")

    def fan_in(self, source: str, entry: Output, node: Node, group: Group) -> None:
        """Add one arrow into a group for an output that several of its nodes read; the arrow branches inside."""
        number = self.number(group)
        name = f"j{number}_{self.picture.index[entry.node]}_{entry.index}"
        if name not in self._made:
            self._made.add(name)
            style = f'shape=point, width=0.06, color="{PATH_LINE}", class="join"'
            self._lines.append(f"subgraph cluster_{number} {{ {name} [{style}]; }}")
            self.edge(source, name, entry, group.nodes, "arrowhead=none")
        self.edge(name, self.id(node), entry, [node], _first_weight(self.picture, node))

    def stub_in(
        self, prefix: str, entry: Output, node: Node, target: str, *, where: str = "", inside: bool = False
    ) -> None:
        """Add a stub for an input: a small label with the name of a distant output."""
        name = f"{prefix}_{self.picture.index[entry.node]}_{entry.index}"
        if name not in self._made:
            cluster = f"subgraph cluster_{self.number(self.picture.group_of[node])} " if inside else ""
            self._lines.append(f"{cluster}{{ {self._stub(name, entry, [where] if where else [])} }}")
            self._made.add(name)
        if where and entry not in self.picture.shared:
            self.edge(name, target, entry, [node], _first_weight(self.picture, node))
        else:
            self._lines.append(f'{name} -> {target} [label="{self._shape(entry)}", style=dashed, class="edge"];')

    def stub_out(
        self, prefix: str, entry: Output, places: list[str], box: str | None, target: Node | None = None
    ) -> None:
        """Add a stub for an output: a small label with the distant groups that read it."""
        reader = "" if target is None else self.picture.index[target]
        name = f"{prefix}_{reader}_{self.picture.index[entry.node]}_{entry.index}"
        where = ", ".join(places) if len(places) < 4 else f"{places[0]} … {places[-1]}"
        self._lines.append(self._stub(name, None, [f"to {where}"]))
        source = box or self.id(entry.node)
        if entry in self.picture.shared or target is None:
            self._lines.append(f'{source} -> {name} [label="{self._shape(entry)}", style=dashed, class="edge"];')
        else:
            self.edge(source, name, entry, [target])

    def end(self, entry: Output, box: str | None) -> None:
        """Mark an output of the graph."""
        name = f"e_{self.picture.index[entry.node]}_{entry.index}"
        if name in self._made:
            return
        self._made.add(name)
        style, outputs = KINDS["input"], self.picture.graph.outputs
        title = f"output {outputs.index(entry)}" if len(outputs) > 1 else "output"
        self._lines.append(
            f'{name} [id="{name}", label=<<B>{title}</B>>, fillcolor="{style.fill}", color="{style.line}", '
            'margin="0.22,0.06", class="end"];'
        )
        self.edge(box or self.id(entry.node), name, entry, [entry.node])

    def _stub(self, name: str, entry: Output | None, lines: list[str]) -> str:
        # Without a box, because it is not a node.
        shown = [_small(line) for line in lines]
        if entry is not None:
            shown.append(_font(f"<I>{_escaped(str(entry))}</I>", 9, INK))
        return f'{name} [id="{name}", shape=plain, style="", margin=0, label=<{_label(shown)}>, class="stub"];'

    def _shape(self, entry: Output) -> str:
        text = _escaped(shape_text(self.picture.shape(entry)))
        return f"  {text} " if text else ""  # spaces keep the text off the line

    def _classes(self, what: str, nodes: Collection[Node], kind: str) -> str:
        picture = self.picture
        highlighted = any(node in picture.highlighted for node in nodes)
        on_path = any(node in picture.path for node in nodes)
        return f"{what} {kind}{' highlight' if highlighted else ''}{' path' if on_path else ''}"


def _label(lines: Iterable[str], align: str = "CENTER") -> str:
    # Rows of a table, because plain lines of different sizes touch.
    rows = "".join(f'<TR><TD ALIGN="{align}">{line}</TD></TR>' for line in lines if line)
    return f'<TABLE BORDER="0" CELLBORDER="0" CELLSPACING="0" CELLPADDING="1">{rows}</TABLE>'


def _small(text: str) -> str:
    return _font(_escaped(text, 100), 9, MUTED) if text else ""


def _font(markup: str, size: int, colour: str) -> str:
    # An empty element is a syntax error in Graphviz.
    return f'<FONT POINT-SIZE="{size}" COLOR="{colour}">{markup}</FONT>' if markup else ""


def _escaped(text: str, limit: int = 64) -> str:
    # Graphviz replaces \N with the id, even in HTML labels.
    return html.escape(visible(text, limit)).replace("\\", "\\\\")
