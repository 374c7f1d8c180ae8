#!/usr/bin/env python3
"""Check the links and resources of a built site: check_site.py FOLDER.

The file of a link must exist in the folder, and its fragment must be an id of that page. Style sheets, scripts, images,
fonts and frames must come from the folder; other links may be external.
"""

from __future__ import annotations

import re
import sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

#: tags and attributes whose URLs a browser fetches by itself
FETCHED = {
    ("link", "href"),
    ("script", "src"),
    ("img", "src"),
    ("img", "srcset"),
    ("source", "src"),
    ("source", "srcset"),
    ("iframe", "src"),
    ("object", "data"),
    ("embed", "src"),
    ("video", "src"),
    ("audio", "src"),
}
#: kinds of <link> that are not fetched
NOT_FETCHED = {"canonical", "next", "prev", "index", "search", "alternate", "author", "copyright"}
CSS_URL = re.compile(r"""(?:url\(\s*|@import\s+)["']?([^"')\s]+)""")


class Page(HTMLParser):
    """The ids, links and resources of a page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.ids: set[str] = set()
        self.links: list[str] = []
        self.resources: list[str] = []
        self._in_style = False
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = {name: value or "" for name, value in attrs}
        self._in_style = tag == "style"
        self.ids.update(values[name] for name in ("id", "name") if name in values)
        if tag == "a" and "href" in values:
            self.links.append(values["href"])
        fetched = tag != "link" or not NOT_FETCHED & set(values.get("rel", "").split())
        for name, value in values.items():
            if (tag, name) in FETCHED and fetched:
                self.resources.append(value)
            elif name == "style":
                self.resources += CSS_URL.findall(value)

    def handle_data(self, data: str) -> None:
        if self._in_style:
            self.resources += CSS_URL.findall(data)


def check(folder: Path) -> list[str]:
    """Return the faults, one line each."""
    pages = {path: Page(path.read_text(encoding="utf-8")) for path in sorted(folder.rglob("*.html"))}
    faults = []
    for path, page in pages.items():
        where = path.relative_to(folder)
        for link in page.links:
            parts = urlsplit(link)
            if parts.scheme or parts.netloc:
                continue
            target = (path.parent / unquote(parts.path)).resolve() if parts.path else path
            if not target.is_file():
                faults.append(f"{where}: link to {link}: no such file")
            elif parts.fragment and target in pages and unquote(parts.fragment) not in pages[target].ids:
                faults.append(f"{where}: link to {link}: the page does not have this id")
        for resource in page.resources:
            if resource.startswith(("#", "data:")):
                continue
            parts = urlsplit(resource)
            if parts.scheme or parts.netloc:
                faults.append(f"{where}: fetches {resource}")
            elif not (path.parent / unquote(parts.path)).is_file():
                faults.append(f"{where}: fetches {resource}: no such file")
    for path in sorted(folder.rglob("*.css")):
        for resource in CSS_URL.findall(path.read_text(encoding="utf-8")):
            if urlsplit(resource).scheme not in ("", "data") or resource.startswith("//"):
                faults.append(f"{path.relative_to(folder)}: fetches {resource}")
    return faults


def main() -> int:
    """Print the faults; the exit code is 1 if there are any."""
    folder = Path(sys.argv[1]).resolve()
    faults = check(folder)
    print(*faults, sep="\n", end="\n" if faults else "")
    count = len(list(folder.rglob("*.html")))
    print(f"{folder}: {count} pages, {len(faults)} faults")
    return bool(faults or not count)


if __name__ == "__main__":
    sys.exit(main())
