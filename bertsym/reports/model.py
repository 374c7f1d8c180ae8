"""The model of a report: what reaches its classifier, sizes, digests, versions, and the command to repeat the run."""

from __future__ import annotations

import re
import shlex

from bertsym.bundle import PARAMS, Bundle
from bertsym.drawing.draw import picture_of
from bertsym.drawing.head import draw_head
from bertsym.errors import BertsymError
from bertsym.model import open_model
from bertsym.provenance import installed_versions, repeat_command
from bertsym.reports.blocks import Block, Cell, Code, Drawing, Facts, Section, Table, Text


def model_section(bundle: Bundle, title: str = "Model", drawing: str = "head") -> Section:
    """Describe a bundle; `drawing` is the name of the file of its head."""
    signature, manifest = bundle.signature, bundle.manifest
    labels = ", ".join(signature.class_names[:20])
    more = f" and {len(signature.class_names) - 20} more" if len(signature.class_names) > 20 else ""
    facts: dict[str, Cell] = {
        "bundle": str(bundle.prefix),
        "task": signature.task,
        "encoder": str(bundle.config),
        "labels": f"{labels}{more}" or None,
        "longest input": f"{signature.max_length} tokens",
        "precision": signature.precision,
        "parameters": f"{manifest['files'][PARAMS]['size'] / 1e6:.1f} MB",
        "weights from": str(manifest["source"]["spec"]),
        "made by": shlex.join(manifest["command"]) if manifest.get("command") else None,
    }
    files = [(each, entry["size"], entry["sha256"]) for each, entry in manifest["files"].items()]
    blocks: list[Block] = [*_head(bundle, drawing), Facts({key: value for key, value in facts.items() if value})]
    blocks.append(Table("Files", ("file", "bytes", "SHA-256"), files))
    return Section(title, blocks)


def _head(bundle: Bundle, drawing: str) -> list[Block]:
    """Draw what reaches the classifier; without Graphviz, or of another graph, only its sentence."""
    try:
        picture = picture_of(open_model(bundle.prefix, digests=False))
    except BertsymError:
        return []
    sentence = Text(re.sub("`", "", picture.sentence))
    if not picture.groups:
        return [sentence]
    try:
        svg, file, css = draw_head(picture)
    except BertsymError as error:
        return [sentence, Text(f"The head is not drawn: {error}.")]
    return [Drawing(drawing, "What reaches the classifier", svg, file, css, sentence.text)]


def repeat_fact() -> dict[str, Cell]:
    """Return the command to repeat the run as a fact, if there is one."""
    words = repeat_command()
    return {} if words is None else {"repeat with": shlex.join(words)}


def repeat_section() -> Section:
    """Describe how to repeat the run: its command, and the versions of the libraries."""
    words = repeat_command()
    blocks: list[Block] = []
    if words is not None:
        blocks.append(Code(shlex.join(words)))
    else:
        blocks.append(Text("The run was started by a Python program, so its command is not known."))
    blocks.append(Facts({key: str(value) for key, value in installed_versions().items() if value}, "Versions"))
    return Section("Repeat", blocks)
