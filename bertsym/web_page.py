"""Self-contained HTML pages: filling a template, the colours of both schemes, and a script that the page may run."""

from __future__ import annotations

import base64
import hashlib
import html
import json
import re
from collections.abc import Mapping
from importlib import resources

#: colours of every page, light and dark, by the names of their CSS variables
PALETTE = {
    "page": ("#f4f6f9", "#0b0e13"),
    "raised": ("#ffffff", "#141920"),
    "rule": ("#d5dbe4", "#2c3542"),
    "ink": ("#1f2937", "#e3e8ef"),
    "muted": ("#5f6b7a", "#98a4b4"),
    "accent": ("#1d5fbf", "#7fb2ff"),
}


def read_resource(package: str, name: str) -> str:
    """Read a text file of a package."""
    return (resources.files(package) / name).read_text(encoding="utf-8")


def fill_template(template: str, values: Mapping[str, str]) -> str:
    """Fill the placeholders ``{{name}}`` in one pass, because a value may look like a placeholder."""
    return re.sub(r"\{\{(\w+)\}\}", lambda match: values[match[1]], template)


def content_policy(script: str) -> str:
    """Return the Content-Security-Policy of a page that fetches nothing and runs only this inline script."""
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    own = f"style-src 'unsafe-inline'; script-src 'sha256-{digest}'; img-src data:"
    return f"default-src 'none'; {own}; base-uri 'none'; form-action 'none'"


def scheme_colours(*palettes: Mapping[str, tuple[str, str]]) -> str:
    """Return CSS that defines a variable for each colour, for the light and for the dark scheme."""
    light, dark = (
        " ".join(f"--{name}: {colours[i]};" for palette in palettes for name, colours in palette.items())
        for i in range(2)
    )
    return f":root {{ {light} }}\n@media (prefers-color-scheme: dark) {{ :root {{ {dark} }} }}"


def script_json(data: object) -> str:
    """Convert to JSON in which no text can close the script element or become markup."""
    text = json.dumps(data, separators=(",", ":"))
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def visible(text: str, limit: int | None = 72) -> str:
    """Escape control characters and lone surrogates, and cut the middle of a text of more than `limit` characters."""
    text = re.sub(r"[^\x20-\x7e\xa0-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]", _escape, text)
    if limit is not None and len(text) > limit:
        text = f"{text[: limit // 2]}…{text[-(limit - limit // 2 - 1) :]}"
    return text


def _escape(match: re.Match[str]) -> str:
    return match[0].encode("unicode_escape").decode()


def escaped_html(text: str, limit: int | None = 72) -> str:
    """Return a text as HTML, as `visible` shows it."""
    return html.escape(visible(text, limit))
