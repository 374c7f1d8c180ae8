"""Render DOT text as SVG or PNG by Graphviz, deterministically."""

from __future__ import annotations

import html
import re
import shutil
import subprocess
from collections.abc import Mapping, Sequence

from bertsym.errors import ModelError
from bertsym.web_page import visible

_TIMEOUT = 120  # seconds
_TEXT = r'<text text-anchor="start" x="[^"]*" y="([^"]*)"([^>]*)>([^<]*)</text>'
_BOX = r'<g id="[^"]*" class="node [^>]*>\n(?:<title>[^<]*</title>\n)?<path [^>]*d="([^"]*)"/>\n'
_DPI = 144  # twice that of a usual screen, so that small text stays sharp


def render_svg(text: str, titles: Mapping[str, str]) -> bytes:
    """Render an SVG file; `titles` are the tooltips of element ids."""
    return svg_file("".join(render_svgs([text], titles)))


def svg_file(element: str) -> bytes:
    """Return the SVG file of an ``<svg>`` element."""
    return f'<?xml version="1.0" encoding="UTF-8" standalone="no"?>\n{element}\n'.encode()


def render_png(text: str) -> bytes:
    """Render a PNG file."""
    return _run(["-Tpng", f"-Gdpi={_DPI}"], text)


def render_svgs(texts: Sequence[str], titles: Mapping[str, str]) -> list[str]:
    """Render an ``<svg>`` element per text, in one run of dot, because dot takes longer to start than to draw."""
    if not texts:
        return []
    output = _run(["-Tsvg"], "".join(texts)).decode()
    # Remove doctype and comments, which name the version of Graphviz; names can't look like them, since they are
    # escaped.
    output = re.sub(r"<!--.*?-->\s*|<!DOCTYPE.*?>\s*|<\?xml.*?\?>\s*", "", output, flags=re.DOTALL)
    pieces = [piece.strip() + "</svg>" for piece in output.split("</svg>")[:-1]]
    if len(pieces) != len(texts):
        raise ModelError(f"dot drew only {len(pieces)} of {len(texts)} pictures")
    return [_centred(_titled(piece, titles)) for piece in pieces]


def _centred(svg: str) -> str:
    """Centre the lines of text in each box.

    Graphviz aligns each text left, by the width that it measured; the fonts of other programs are wider.
    """

    def box(match: re.Match[str]) -> str:
        across = [float(x) for x in re.findall(r"(-?[\d.]+),-?[\d.]+", match[2])]
        middle = f"{(min(across) + max(across)) / 2:.2f}".rstrip("0").rstrip(".")
        lines: dict[str, list[str]] = {}
        for y, attributes, text in re.findall(_TEXT, match[3]):
            # A tspan takes the same attributes as a text.
            lines.setdefault(y, []).append(f"<tspan{attributes}>{text}</tspan>")
        texts = (
            f'<text text-anchor="middle" x="{middle}" y="{y}">{"".join(spans)}</text>\n' for y, spans in lines.items()
        )
        return match[1] + "".join(texts)

    return re.sub(rf"({_BOX})((?:{_TEXT}\n)+)(?=</g>)", box, svg)


def _titled(svg: str, titles: Mapping[str, str]) -> str:
    """Replace the titles, which are ids of Graphviz, with `titles`, and remove the others."""

    def title(match: re.Match[str]) -> str:
        known = titles.get(html.unescape(match[1]))
        return f"<title>{html.escape(visible(known, 400))}</title>\n" if known else ""

    return re.sub(r"<title>([^<]*)</title>\n", title, svg)


def _run(arguments: list[str], text: str) -> bytes:
    program = shutil.which("dot")
    if program is None:
        raise ModelError(
            "drawing needs the program dot of Graphviz, which is not installed (Debian: apt-get install graphviz)"
        )
    try:
        result = subprocess.run([program, *arguments], input=text.encode(), capture_output=True, timeout=_TIMEOUT)
    except subprocess.TimeoutExpired:
        raise ModelError(f"dot did not draw the graph within {_TIMEOUT} seconds: expand fewer layers") from None
    except OSError as error:
        raise ModelError(f"{program}: {error.strerror}") from None
    if result.returncode != 0:
        lines = result.stderr.decode(errors="replace").strip().splitlines() or [f"exit code {result.returncode}"]
        raise ModelError(f"dot failed: {lines[0]}")
    return result.stdout
