"""The models of a report: what the classifier reads, sizes, digests, versions, and the command to repeat the run."""

from __future__ import annotations

import platform
import re
import shlex
from collections.abc import Mapping

import numpy as np

from bertsym.bundle import PARAMS, Bundle
from bertsym.drawing.draw import picture_of
from bertsym.drawing.head import draw_head
from bertsym.errors import BertsymError
from bertsym.model import open_model
from bertsym.provenance import installed_versions, repeat_command
from bertsym.reports.blocks import Block, Cell, Code, Command, Digest, Drawing, Facts, Section, Table, Text
from bertsym.reports.training_settings import base_digest, seed_metrics


def model_section(bundle: Bundle) -> Section:
    """Describe a bundle."""
    values = {key: value for key, value in _facts(bundle).items() if value}
    return Section("Model", [*_head(bundle, "head"), Facts(values), _files({"": bundle})])


def models_section(models: Mapping[str, Bundle]) -> Section:
    """Describe two bundles side by side; heads that are equal are drawn once."""
    heads = [_head(bundle, f"head-{number}") for number, bundle in enumerate(models.values(), 1)]
    blocks: list[Block] = []
    if _drawn(heads[0]) == _drawn(heads[1]):
        blocks += [Text("The head is the same in both models."), *heads[0]]
    else:
        for name, head in zip(models, heads):
            blocks += [Text(f"The head of {name}:"), *head]
    columns = [_facts(bundle) for bundle in models.values()]
    rows = [(key, *(values[key] for values in columns)) for key in columns[0]]
    blocks.append(Table("Facts", ("", *models), [row for row in rows if any(row[1:])]))
    blocks.append(_files(models))
    return Section("Models", blocks)


def _drawn(head: list[Block]) -> list[bytes | str]:
    return [block.svg if isinstance(block, Drawing) else str(block) for block in head]


def _facts(bundle: Bundle) -> dict[str, Cell]:
    signature, manifest = bundle.signature, bundle.manifest
    labels = ", ".join(signature.class_names[:20])
    more = f" and {len(signature.class_names) - 20} more" if len(signature.class_names) > 20 else ""
    limit, most = signature.max_length, bundle.config.max_length
    count = sum(int(np.prod(shape)) for shape in bundle.params().shapes.values())
    return {
        "bundle": str(bundle.prefix),
        "task": signature.task,
        "encoder": str(bundle.config),
        "labels": f"{labels}{more}" or None,
        "input limit": f"{limit} tokens" + (f" (the encoder allows {most})" if most > limit else ""),
        "precision": signature.precision,
        "parameters": f"{count / 1e6:.1f} M parameters, {manifest['files'][PARAMS]['size'] / 1e6:.1f} MB",
        "weights from": str(manifest["source"]["spec"]),
        "seeds": seed_metrics(bundle),
        "base parameters, SHA-256": base_digest(bundle),
    }


def _files(models: Mapping[str, Bundle]) -> Table:
    """List the files of bundles with their sizes and digests."""
    entries = [bundle.manifest["files"] for bundle in models.values()]
    names = dict.fromkeys(name for files in entries for name in files)
    columns = [f"{what}, {name}" if name else what for name in models for what in ("bytes", "SHA-256")]
    rows: list[tuple[Cell, ...]] = []
    for name in names:
        cells: list[Cell] = []
        for files in entries:
            entry = files.get(name)
            cells += [entry["size"], Digest(entry["sha256"])] if entry else [None, None]
        rows.append((name, *cells))
    return Table("Files", ("file", *columns), rows, is_folded=True)


def _head(bundle: Bundle, drawing: str) -> list[Block]:
    """Draw what the classifier reads; without Graphviz, or of another graph, only its sentence."""
    try:
        picture = picture_of(open_model(bundle.prefix, digests=False))
    except BertsymError:
        return []
    sentence = Text(re.sub("`", "", picture.sentence))
    if not picture.groups:
        return [sentence]
    try:
        head = draw_head(picture)
    except BertsymError as error:
        return [sentence, Text(f"The head is not drawn: {error}.")]
    title = "What the classifier reads"
    return [Drawing(drawing, title, head.element, head.css, head.svg, head.png, sentence.text)]


def repeat_fact() -> dict[str, Cell]:
    """Return the command to repeat the run as a fact, if there is one."""
    words = repeat_command()
    return {} if words is None else {"repeat with": Command(shlex.join(words))}


def repeat_section(
    settings: Mapping[str, Cell] | None = None, commands: Mapping[str, str | None] | None = None
) -> Section:
    """Describe how to repeat the run: its command, its settings and the versions of the libraries.

    `commands` are those that wrote the models, by the names of the models.
    """
    words = repeat_command()
    blocks: list[Block] = []
    if words is not None:
        blocks.append(Code(shlex.join(words)))
    else:
        blocks.append(Text("The run was started by a Python program, so its command is not known."))
    for name, command in (commands or {}).items():
        if command:
            blocks += [Text(f"{name} was written by:" if name else "The model was written by:"), Code(command)]
    if settings:
        blocks.append(Facts(settings, "Settings"))
    versions = {key: str(value) for key, value in installed_versions().items() if value}
    machine = {"Python": platform.python_version(), "platform": platform.platform()}
    blocks.append(Facts({**versions, **machine}, "Versions"))
    return Section("Repeat", blocks)
