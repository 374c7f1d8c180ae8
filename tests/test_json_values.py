"""Whatever value a JSON file from outside has in any place: it is accepted, or one error names the file."""

from __future__ import annotations

import hashlib
import json
import shutil
import struct
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import VOCABULARY, write_hugging_face

from bertsym.bundle import MANIFEST, SIGNATURE, SYMBOL, VOCAB_JSON, open_any
from bertsym.errors import BertsymError
from bertsym.sources.hugging_face import load_hugging_face
from bertsym.symbol.graph import SymbolGraph
from bertsym.symbol.validation import check_symbol
from bertsym.text.vocabulary import Vocabulary
from bertsym.training.checkpoints import Checkpoint, Checkpoints

NASTY: tuple[Any, ...] = (
    *(None, True, False, -1, 0, 0.5, 1e308, 10**400, 2**63),
    *("", "\0.safetensors", "\ud800.safetensors", "x" * 5000, "../x", [], {}, [[[]]], {"a": {"b": [None]}}),
)
MOST = 400  #: changes of one document; of a larger one, each place has some of the values
Place = tuple[Any, ...]


def places(value: Any, start: Place = ()) -> Iterator[Place]:
    """Where the values of a document are; of a long list or object, the first ones."""
    if start:
        yield start
    if isinstance(value, dict):
        for key in list(value)[:20]:
            yield from places(value[key], (*start, key))
    elif isinstance(value, list):
        for index in range(min(3, len(value))):
            yield from places(value[index], (*start, index))


def changed(document: Any) -> Iterator[tuple[str, str]]:
    """The text of a document with another value in one place, and what was changed."""
    text, found = json.dumps(document), list(places(document))
    each = min(len(NASTY), max(4, MOST // len(found)))
    for number, place in enumerate(found):
        for value in (NASTY[(number * each + i) % len(NASTY)] for i in range(each)):
            copy = json.loads(text)
            inner = copy
            for key in place[:-1]:
                inner = inner[key]
            inner[place[-1]] = value
            yield json.dumps(copy), f"{place} = {value!r:.40}"


def check(document: Any, name: str, write: Callable[[str], object], use: Callable[[], object]) -> None:
    """Use a document after each change of one value; fails for any error but one line that names the file."""
    refused = 0
    for text, change in changed(document):
        write(text)
        try:
            use()
        except BertsymError as error:
            refused += 1
            line = str(error)
            assert name in line, (change, line)
            assert "\n" not in line, (change, line)
        except Exception as error:
            raise AssertionError(f"{name}: {change}: {type(error).__name__}: {error}") from error
    assert refused > 5


@pytest.fixture
def bundle(bundles: dict[str, Path], tmp_path: Path) -> Path:
    """PREFIX of a copy of a bundle."""
    for path in bundles["pooled"].parent.glob("pooled-*"):
        shutil.copy(path, tmp_path / path.name.replace("pooled", "m", 1))
    return tmp_path / "m"


def test_the_manifest_of_a_bundle(bundle: Path) -> None:
    path = Path(f"{bundle}-{MANIFEST}")
    check(json.loads(path.read_text()), f"{bundle}-", path.write_text, lambda: open_any(bundle, digests=False))


@pytest.mark.parametrize("name", [SIGNATURE, SYMBOL])
def test_another_signed_file_of_a_bundle(bundle: Path, name: str) -> None:
    path, manifest_path = Path(f"{bundle}-{name}"), Path(f"{bundle}-{MANIFEST}")
    manifest = json.loads(manifest_path.read_text())

    def write(text: str) -> None:
        path.write_text(text)
        manifest["files"][name] = {"sha256": hashlib.sha256(text.encode()).hexdigest(), "size": len(text)}
        manifest_path.write_text(json.dumps(manifest))

    document = json.loads(path.read_text())
    if name == SYMBOL:
        document["nodes"] = document["nodes"][:9]  # all kinds of nodes; most of what remains is refused as a graph
        document.update(arg_nodes=[0], heads=[[8, 0, 0]], node_row_ptr=list(range(10)))
        check(document, path.name, path.write_text, lambda: check_symbol(SymbolGraph.load(path), path.name))
    else:
        check(document, "m-", write, lambda: open_any(bundle, digests=False))


@pytest.mark.parametrize(
    "name", ["config.json", "tokenizer.json", "tokenizer_config.json", "model.safetensors.index.json"]
)
def test_a_file_of_a_hugging_face_folder(tmp_path: Path, name: str) -> None:
    folder = write_hugging_face(tmp_path / "hf", id2label={"0": "no", "1": "yes"}, architectures=["BertModel"])
    path = folder / name
    if name.endswith("index.json"):
        (folder / "model.safetensors").rename(folder / "model-1.safetensors")
        path.write_text(json.dumps({"metadata": {"total_size": 1}, "weight_map": {"a": "model-1.safetensors"}}))
    if name == "tokenizer.json":
        tokens = {token: index for index, token in enumerate(VOCABULARY)}
        steps = [{"type": "BertNormalizer", "lowercase": True}]
        path.write_text(
            json.dumps(
                {
                    "normalizer": {"type": "Sequence", "normalizers": steps},
                    "pre_tokenizer": {"type": "BertPreTokenizer"},
                    "model": {"type": "WordPiece", "unk_token": "[UNK]", "vocab": tokens},
                    "added_tokens": [{"id": 0, "content": "[PAD]", "special": True}],
                }
            )
        )
    if name == "tokenizer_config.json":
        settings = {"do_lower_case": True, "tokenizer_class": "BertTokenizer", "unk_token": {"content": "[UNK]"}}
        path.write_text(json.dumps(settings))
    check(json.loads(path.read_text()), str(folder), path.write_text, lambda: load_hugging_face(str(folder)))


def test_the_header_of_a_safetensors_file(tmp_path: Path) -> None:
    folder = write_hugging_face(tmp_path / "hf")
    path = folder / "model.safetensors"
    content = path.read_bytes()
    (length,) = struct.unpack("<Q", content[:8])
    header = dict(list(json.loads(content[8 : 8 + length]).items())[:6])

    def write(text: str) -> None:
        path.write_bytes(struct.pack("<Q", len(text)) + text.encode() + content[8 + length :])

    check(header, path.name, write, lambda: load_hugging_face(str(folder)))


def test_a_vocabulary_of_gluonnlp(bundle: Path) -> None:
    path = Path(f"{bundle}-{VOCAB_JSON}")
    document = json.loads(path.read_text())
    document["token_to_idx"] = dict(list(document["token_to_idx"].items())[:3])
    check(document, path.name, path.write_text, lambda: Vocabulary.load(path))


@pytest.mark.parametrize("name", ["manifest.json", "state.json"])
def test_a_checkpoint(tmp_path: Path, name: str) -> None:
    (tmp_path / "scratch").mkdir()
    kept = Checkpoints(tmp_path / "checkpoints", tmp_path / "scratch", {"seed": 0, "model": "x"}, 1)
    state = {"step": 3, "loss": 0.5, "epochs": [{"epoch": 1, "metrics": {"loss": 0.1}}]}
    kept.save(3, Checkpoint(state, {"w": np.ones(2, np.float32)}, {}))
    path = tmp_path / "checkpoints" / "checkpoint-3" / name
    check(json.loads(path.read_text()), "checkpoint-3", path.write_text, lambda: kept.newest(lambda note: None))
