"""Sphinx configuration: pages in Markdown, the command reference from click, the API reference from docstrings."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from bertsym.cli.command import GROUPS, group_of

project = "bertsym"
author = "the bertsym developers"
copyright = "the bertsym developers, Apache License 2.0"
_PROJECT = (Path(__file__).parent.parent / "pyproject.toml").read_text(encoding="utf-8")
release = version = re.findall(r'^version = "(.+)"$', _PROJECT, re.MULTILINE)[0]

extensions = ["myst_parser", "sphinx_click", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
myst_enable_extensions = ["colon_fence", "deflist"]
myst_heading_anchors = 3

autodoc_typehints = "signature"
autodoc_member_order = "bysource"
autodoc_default_options = {"members": True}
autodoc_preserve_defaults = True
# Types of other libraries and of our own modules that are not public have no page to link to.
nitpick_ignore_regex = [("py:.*", r".*")]
default_role = "code"  # `name` in a docstring, as in Markdown

exclude_patterns = ["_build"]
smartquotes = False  # an option begins with two hyphens
html_theme = "furo"
html_title = "bertsym"
html_static_path = ["_static"]
html_css_files = ["bertsym.css"]
html_show_sourcelink = False
html_copy_source = False
html_extra_path = ["signature.schema.json", "manifest.schema.json", "events.schema.json", "inspect.schema.json"]
html_theme_options = {"navigation_with_keys": True}
pygments_style, pygments_dark_style = "default", "monokai"


def escape_markup(app: Any, context: Any, lines: list[str]) -> None:
    """Help texts are plain text; in reStructuredText ``*`` begins an emphasis and ``NAME_`` is a reference."""
    # A line that begins with | belongs to a block whose lines click leaves as they are.
    lines[:] = [re.sub(r"(\*|(?<!^)\||_(?!\w))", r"\\\1", line) for line in lines]
    # These asterisks are sphinx-click's own.
    lines[:] = [line.replace(r"\*\*Required\*\*", "**Required**") for line in lines]


def split_declarations(lines: list[str]) -> list[list[str]]:
    """The lines of each ``.. option::`` that sphinx-click wrote."""
    blocks: list[list[str]] = []
    for line in lines:
        if line.startswith(".. option::"):
            blocks.append([])
        blocks[-1].append(line)
    return blocks


def group_options(app: Any, context: Any, lines: list[str]) -> None:
    """List options in the groups of the long help, which sphinx-click doesn't know."""
    declared = [option for option in context.command.params if option.param_type_name == "option" and not option.hidden]
    groups: dict[str, list[str]] = {name: [] for name in ("Options", *GROUPS)}
    for option, block in zip(declared, split_declarations(lines)):
        groups[group_of(option)] += block
    lines[:] = groups.pop("Options")
    for name, blocks in groups.items():
        if blocks:
            lines += [f".. rubric:: {name}", "   :class: option-group", "", *blocks]


def describe_arguments(app: Any, context: Any, lines: list[str]) -> None:
    """Add the descriptions of the arguments, which click itself doesn't keep."""
    declared = [argument for argument in context.command.params if argument.param_type_name == "argument"]
    blocks = split_declarations(lines)
    lines.clear()
    for argument, block in zip(declared, blocks):
        lines += [*block, f"   {argument.described}", ""]


def setup(app: Any) -> None:
    """Connect to sphinx-click."""
    for part in ("description", "options"):
        app.connect(f"sphinx-click-process-{part}", escape_markup)
    app.connect("sphinx-click-process-options", group_options)
    app.connect("sphinx-click-process-arguments", describe_arguments)
