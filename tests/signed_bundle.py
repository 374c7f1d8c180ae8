"""Bundles as documents that can be edited and signed again: the manifest then holds the digests of what was written."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from bertsym.array import Array
from bertsym.bundle.files import CARD
from bertsym.symbol.params import ParamsFile, write_params

Document = dict[str, Any]
SYMBOL, TRAIN_SYMBOL, PARAMS = "symbol.json", "train-symbol.json", "0000.params"
SIGNATURE, TOKENIZER, VOCAB_TXT, VOCAB_JSON = "signature.json", "tokenizer.json", "vocab.txt", "vocab.json"
_FIRST = 10**6  # index of a node that was removed: beyond every graph


class SignedBundle:
    """The files of a bundle at PREFIX by name, in the form in which they are edited.

    ``documents`` holds the JSON files, ``lines`` those of vocab.txt, ``params`` the arrays by name, of which
    ``auxiliary`` are written as ``aux:``. ``texts`` are changes of a file's final text, applied as it is written.
    """

    def __init__(self, prefix: Path, others: Mapping[str, Path] | None = None) -> None:
        self.others = dict(others or {})  #: prefixes of bundles whose files can be mixed in, by name
        self.manifest: Document = json.loads(Path(f"{prefix}-manifest.json").read_text())
        self.names: list[str] = list(self.manifest["files"])
        self.documents: dict[str, Document] = {
            name: json.loads(Path(f"{prefix}-{name}").read_text()) for name in self.names if name.endswith(".json")
        }
        self.lines: list[str] = []
        if VOCAB_TXT in self.names:
            self.lines = Path(f"{prefix}-{VOCAB_TXT}").read_text().split("\n")[:-1]
        self.card = Path(f"{prefix}-{CARD}").read_text() if CARD in self.names else ""
        file = ParamsFile(Path(f"{prefix}-{PARAMS}"))
        self.params: dict[str, Array] = {name: np.array(file[name]) for name in file}
        self.auxiliary = {name for name, info in file.infos.items() if info.kind == "aux"}
        self.texts: dict[str, Callable[[str], str]] = {}
        self.contents: dict[str, bytes] = {}  #: whole files that take the place of these

    @property
    def graphs(self) -> list[Document]:
        """The documents of the inference symbol and, with a head, of the training symbol."""
        return [self.documents[name] for name in (SYMBOL, TRAIN_SYMBOL) if name in self.documents]

    @property
    def signature(self) -> Document:
        """The document of the signature."""
        return self.documents[SIGNATURE]

    @property
    def config(self) -> Document:
        """The encoder's configuration in the manifest."""
        config: Document = self.manifest["config"]
        return config

    def write(self, prefix: Path) -> None:
        """Write every file, and a manifest with their digests."""
        for name in self.names:
            path = Path(f"{prefix}-{name}")
            if name in self.contents:
                path.write_bytes(self.contents[name])
            elif name == PARAMS:
                with path.open("wb") as file:
                    write_params(file, self.params, self.auxiliary)
            else:
                change = self.texts.get(name, str)
                path.write_bytes(change(self._text(name)).encode("utf-8", "surrogatepass"))
            content = path.read_bytes()
            entry = {"sha256": hashlib.sha256(content).hexdigest(), "size": len(content)}
            self.manifest["files"].setdefault(name, {}).update(entry)
        change = self.texts.get("manifest.json", str)
        Path(f"{prefix}-manifest.json").write_text(change(json.dumps(self.manifest, indent=2)))

    def _text(self, name: str) -> str:
        if name == CARD:
            return self.card
        if name == VOCAB_TXT:
            return "".join(f"{line}\n" for line in self.lines)
        return json.dumps(self.documents[name], indent=2, ensure_ascii=False)


# Graphs


def named(graph: Document, name: str) -> Document:
    """A node by its name."""
    found: Document = next(node for node in graph["nodes"] if node["name"] == name)
    return found


def operators(graph: Document, *ops: str) -> list[Document]:
    """The nodes of some operators; of all operators where none is given."""
    return [node for node in graph["nodes"] if (node["op"] in ops if ops else node["op"] != "null")]


def renumber(graph: Document, order: list[int], replaced: Mapping[int, list[int]] | None = None) -> None:
    """Keep the nodes at these indices, in this order, and let every reference follow.

    A reference to a node in `replaced` becomes the entry that it has there.
    """
    place = {old: new for new, old in enumerate(order)}

    def moved(entry: list[int]) -> list[int]:
        index, *rest = (replaced or {}).get(entry[0], entry)
        return [place.get(index, _FIRST), *rest]

    nodes = [graph["nodes"][old] for old in order]
    for node in nodes:
        node["inputs"] = [moved(entry) for entry in node["inputs"]]
    graph["nodes"] = nodes
    graph["heads"] = [moved(entry) for entry in graph["heads"]]
    graph["arg_nodes"] = [index for index, node in enumerate(nodes) if node["op"] == "null"]
    graph["node_row_ptr"] = list(range(len(nodes) + 1))


def insert_after(graph: Document, index: int, op: str, name: str, **attrs: str) -> None:
    """Put a node of one input after another one, whose readers then read the new one."""
    order = [*range(index + 1), len(graph["nodes"]), *range(index + 1, len(graph["nodes"]))]
    graph["nodes"].append({"op": op, "name": name, "attrs": attrs, "inputs": []})
    new = len(graph["nodes"]) - 1
    renumber(graph, order, {index: [new, 0, 0]})
    graph["nodes"][index + 1]["inputs"] = [[index, 0, 0]]
    if not attrs:
        del graph["nodes"][index + 1]["attrs"]


def bypass(graph: Document, indices: set[int]) -> None:
    """Remove operators, whose readers then read the first input of each, and the variables that only they read."""
    replaced = {index: graph["nodes"][index]["inputs"][0] for index in sorted(indices)}
    for index, entry in replaced.items():
        while entry[0] in replaced:
            entry = replaced[entry[0]]
        replaced[index] = entry
    kept = [index for index in range(len(graph["nodes"])) if index not in indices]
    heads = [replaced.get(entry[0], entry)[0] for entry in graph["heads"]]
    used = {replaced.get(entry[0], entry)[0] for index in kept for entry in graph["nodes"][index]["inputs"]}
    kept = [index for index in kept if index in used or index in heads or graph["nodes"][index]["op"] != "null"]
    renumber(graph, kept, replaced)
