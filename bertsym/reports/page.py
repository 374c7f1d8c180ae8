"""Render a report as one self-contained HTML page."""

from __future__ import annotations

import html
import re
from collections.abc import Mapping, Sequence

from bertsym.reports.blocks import (
    Block,
    Cell,
    Code,
    Command,
    Digest,
    Drawing,
    Facts,
    Figure,
    Marked,
    Report,
    Section,
    SignedNumber,
    Table,
    Text,
    shortened,
)
from bertsym.reports.figures import COLOURS, svg_element
from bertsym.web_page import (
    PALETTE,
    content_policy,
    escaped_html,
    fill_template,
    read_resource,
    scheme_colours,
)

_PACKAGE = "bertsym.reports"
_MARKS = {
    "right": ("#cdebdc", "#1f4d3a"),
    "missed": ("#c2571a", "#f0a36b"),
    "wrong": ("#f6d5c3", "#5c3118"),
    "alert": ("#fdf0c8", "#4a3a10"),
    "shade": ("#c3cad6", "#000000"),
}


def render_page(report: Report, figures: Mapping[str, bytes]) -> str:
    """Return the HTML of a report; `figures` are the SVG files of its figures by name."""
    script = read_resource(_PACKAGE, "page.js")
    headline = report.headline
    drawings = dict.fromkeys(each.css for each in report.figures if isinstance(each, Drawing))
    links = "".join(f'<a href="#{_slug(section)}">{_text(section.title)}</a>' for section in report.sections)
    return fill_template(
        read_resource(_PACKAGE, "page.html"),
        {
            "policy": content_policy(script),
            "title": _text(report.title),
            "colours": "\n".join([scheme_colours(PALETTE, COLOURS, _MARKS), *drawings]),
            "style": read_resource(_PACKAGE, "page.css"),
            "sentence": _text(headline.sentence),
            "label": _text(headline.label),
            "number": _text(headline.number),
            "interval": _text(headline.interval),
            "facts": _facts(headline.facts) if headline.facts else "",
            "warnings": "".join(f'<p class="warning">{_text(each)}</p>' for each in headline.warnings),
            "links": links,
            "sections": "\n".join(_section(section, figures) for section in report.sections),
            "script": script,
        },
    )


def _text(text: str) -> str:
    return escaped_html(text, None)


def _slug(section: Section) -> str:
    return re.sub(r"[^a-z0-9]+", "-", section.title.lower()).strip("-")


def _section(section: Section, figures: Mapping[str, bytes]) -> str:
    parts: list[str] = []
    side: list[str] = []  # figures side by side

    def flush() -> None:
        if side:
            parts.append(f'<div class="figures{" single" if len(side) == 1 else ""}">{"".join(side)}</div>')
            side.clear()

    for block in section.blocks:
        if isinstance(block, Figure):
            side.append(_figure(block, figures[block.name]))
        else:
            flush()
            parts.append(_block(block))
    flush()
    return f'<section id="{_slug(section)}"><h2>{_text(section.title)}</h2>{"".join(parts)}</section>'


def _figure(figure: Figure, svg: bytes) -> str:
    caption = f"<figcaption>{_text(figure.caption)}</figcaption>" if figure.caption else ""
    element = svg_element(svg, figure.name, figure.title)
    return f"<figure><h3>{_text(figure.title)}</h3>{element}{caption}</figure>"


def _block(block: Block) -> str:
    if isinstance(block, Text):
        kind = ' class="warning"' if block.is_warning else ""
        return f'<p{kind} dir="auto">{_text(block.text)}</p>'
    if isinstance(block, Code):
        return f"<pre>{_command(block.text)}</pre>"
    if isinstance(block, Facts):
        title = f"<h3>{_text(block.title)}</h3>" if block.title else ""
        return f'<div class="block">{title}{_facts(block.values)}</div>'
    if isinstance(block, Drawing):
        caption = f"<figcaption>{_text(block.caption)}</figcaption>" if block.caption else ""
        return f'<figure class="drawing block"><h3>{_text(block.title)}</h3>{block.element}{caption}</figure>'
    assert isinstance(block, Table)
    return _table(block)


def _facts(values: Mapping[str, Cell]) -> str:
    pairs = (f'<dt>{_text(name)}</dt><dd dir="auto">{_cell(value)}</dd>' for name, value in values.items())
    return f"<dl>{''.join(pairs)}</dl>"


def _table(table: Table) -> str:
    columns = [[row[i] for row in table.rows if row[i] is not None] for i in range(len(table.columns))]
    numeric = [bool(column) and all(map(_is_number, column)) for column in columns]
    classes = (' class="amount"' if is_number else "" for is_number in numeric)
    head = "".join(f"<th{kind}>{_text(name)}</th>" for kind, name in zip(classes, table.columns))
    body = "".join(f"<tr>{_row(table.columns, row, numeric)}</tr>" for row in table.rows)
    notes = [table.note] if table.note else []
    if table.total is not None and table.total > len(table.rows):
        notes.append(f"The first {len(table.rows):,} of {table.total:,} are listed.")
    note = f"<p>{_text(' '.join(notes))}</p>" if notes else ""
    if not table.rows:
        return f'<div class="block"><h3>{_text(table.title)}</h3><p>None.</p>{note}</div>'
    tools = ""
    if table.examples and len(table.rows) > 1:
        what = f'aria-label="Find words in: {html.escape(table.title)}" placeholder="Find words"'
        tools = f'<div class="tools" hidden><input type="search" {what} autocomplete="off"><span></span></div>'
    kind = "block examples" if table.examples else "block"
    content = f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"
    if table.is_folded:
        scrolled = f'<div class="scroll" tabindex="0">{content}</div>{note}'
        return f'<details class="{kind}"><summary>{_text(table.title)}</summary>{scrolled}</details>'
    return (
        f'<div class="{kind}"><h3>{_text(table.title)}</h3>{tools}'
        f'<div class="scroll" tabindex="0">{content}</div>{note}</div>'
    )


def _is_number(value: Cell) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _row(columns: Sequence[str], row: Sequence[Cell], numeric: Sequence[bool]) -> str:
    cells = []
    for name, value, is_numeric in zip(columns, row, numeric):
        attributes = f' data-label="{html.escape(name)}"'
        if _is_number(value):
            attributes += f' class="amount" data-value="{value}"'
        elif value is None and is_numeric:
            attributes += ' class="amount"'
        elif isinstance(value, Marked):
            attributes += f' class="{"given" if value.is_answer else "words"}" dir="auto"'
        else:
            attributes += ' dir="auto"'
        cells.append(f"<td{attributes}>{_cell(value)}</td>")
    return "".join(cells)


def _cell(value: Cell) -> str:
    if isinstance(value, Marked):
        pieces = [
            f'<mark class="{mark}">{_words(text)}</mark>' if mark else _words(text) for text, mark in value.pieces
        ]
        text = "".join(pieces) if any(text.strip() for text, _ in value.pieces) else '<span class="empty">empty</span>'
        return f"<div>{text}</div>" if value.is_answer else text
    if isinstance(value, Digest):
        digest = _text(value.digest)
        return f'<details class="digest"><summary>{digest[:12]}…</summary>{digest}</details>'
    if isinstance(value, Command):
        return _command(value)
    if isinstance(value, SignedNumber):
        return f"{value:+.4f}"
    if isinstance(value, bool) or value is None:
        return {True: "yes", False: "no", None: "-"}[value]
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, float):
        if value.is_integer():
            return f"{value:,.0f}"
        return f"{value:,.4f}" if abs(value) >= 1e-3 else f"{value:.3g}"
    return _text(shortened(value)) if value else '<span class="empty">empty</span>'


def _command(text: str) -> str:
    """Return a command whose options are not broken at their hyphens."""
    return f"<code>{' '.join(f'<span>{_text(word)}</span>' for word in text.split(' '))}</code>"


def _words(text: str) -> str:
    """Return a text of the data, with its line breaks."""
    return "\n".join(map(_text, re.split("\r\n|[\r\n]", text)))
