#!/usr/bin/env python
"""Compare the embeddings of bundles with those of sentence-transformers' own library.

    compare_sentence_transformers [FOLDER ...]

sentence-transformers makes small models of every pooling and activation, of several modes and of several layers; each
FOLDER, by default the model of BERTSYM_MODEL_DIR, is compared too. Every model is exported, and written back by `hf`.
sentence-transformers computes the embeddings of 50 texts by the original and by what was written, bertsym those of the
bundle (MXNet, onnxruntime) and of its ONNX file, with the default prompt. Exit code 1 where an embedding differs by
more than 1e-5 of the largest element, where a weight or a setting of the written folder differs, or where a folder is
not exported. BENCH_TORCH_PYTHON is a Python with any version of sentence-transformers from 2.7 on.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from compare_transformers_texts import make_texts
from safetensors.numpy import load_file

from bertsym import BundleTokenizer, Encoder, OnnxOptions, export, export_hugging_face, export_onnx, using_engine
from bertsym.array import Array
from bertsym.errors import BertsymError
from bertsym.onnx_export.libraries import open_session

WORKER = Path(__file__).with_name("compare_sentence_transformers_worker.py")
TEXTS, LIMIT = 50, 1e-5
#: keys of the written folder that must be equal: file -> keys
KEPT = {
    "config_sentence_transformers.json": ("prompts", "default_prompt_name", "similarity_fn_name"),
    "config.json": ("hidden_size", "num_hidden_layers", "num_attention_heads", "vocab_size", "layer_norm_eps"),
}


def worker(python: str, *arguments: object) -> str:
    """Run the program of sentence-transformers and return what it prints."""
    command = [python, str(WORKER), *map(str, arguments)]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


def difference(found: Array, expected: Array) -> float:
    """The largest difference, relative to the largest element; infinite for another shape."""
    if found.shape != expected.shape:
        return float("inf")
    return float(np.abs(found - expected).max() / np.abs(expected).max())


def embed_onnx(encoder: Encoder, path: Path, texts: list[str]) -> Array:
    """The embeddings of an ONNX file with the signature of transformers, each text alone."""
    session, vectors = open_session(path), []
    taken = {each.name for each in session.get_inputs()}
    tokenizer = BundleTokenizer.open(encoder.bundle.prefix)
    for features in tokenizer.encode(texts, prompt=encoder.choose_prompt()):
        for example in features.examples:
            fed = {
                "input_ids": example.token_ids,
                "attention_mask": [1] * len(example.token_ids),
                "token_type_ids": example.token_types,
            }
            inputs = {name: np.array([ids], np.int64) for name, ids in fed.items() if name in taken}
            vectors.append(session.run(["sentence_embedding"], inputs)[0][0])
    return np.stack(vectors)


def unequal_settings(source: Path, written: Path) -> list[str]:
    """The weights and settings of a written folder that differ from those of its source."""
    found = []
    for path in sorted(written.rglob("*.safetensors")):
        name = path.relative_to(written)
        original = load_file(source / name)
        for key, array in load_file(path).items():
            if not np.array_equal(original[key].astype(np.float32), array):
                found.append(f"{name}: {key}")
    for file, keys in KEPT.items():
        documents = [
            json.loads((folder / file).read_text()) if (folder / file).exists() else {} for folder in (source, written)
        ]
        for key in keys:
            values: list[Any] = [document.get(key) or None for document in documents]
            if values[0] != values[1]:
                found.append(f"{file}: {key} {values[0]!r}, now {values[1]!r}")
    return found


def compute(source: Path, texts: list[str], place: Path) -> dict[str, Array]:
    """The embeddings by a bundle of `source`, which is written back to the folder ``written``."""
    prefix = export(f"hf:{source}", place / "bundle").bundle.prefix
    export_onnx(prefix, place / "model.onnx", OnnxOptions(signature="hf"))
    export_hugging_face(prefix, place / "written")
    encoder = Encoder(prefix)
    found = {"mxnet": encoder.encode(texts), "onnx": embed_onnx(encoder, place / "model.onnx", texts)}
    with using_engine("onnxruntime"):
        found["onnxruntime"] = Encoder(prefix).encode(texts)
    return found


def compare(source: Path, place: Path, found: dict[str, Array]) -> bool:
    """Print a line about one model; returns whether everything is equal within the limit."""
    expected = np.load(place / "expected.npy")
    found["written back"] = np.load(place / "again.npy")
    differences = {key: difference(vectors, expected) for key, vectors in found.items()}
    settings = unequal_settings(source, place / "written")
    shown = "  ".join(f"{key} {value:.1e}" for key, value in differences.items())
    print(f"{source.name:<20} {expected.shape!s:<9} {shown}  {'; '.join(settings) or 'weights and settings equal'}")
    return max(differences.values()) <= LIMIT and not settings


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folders", nargs="*", type=Path, help="further sentence-transformers folders")
    folders = parser.parse_args().folders
    if not folders and "BERTSYM_MODEL_DIR" in os.environ:
        folders = [Path(os.environ["BERTSYM_MODEL_DIR"])]
    python = os.environ.get("BENCH_TORCH_PYTHON", sys.executable)
    texts = [text for text in make_texts(TEXTS) if text.strip()]
    with tempfile.TemporaryDirectory() as name:
        place = Path(name)
        (place / "texts.json").write_text(json.dumps(texts))
        print(worker(python, "make", place / "models"))
        sources = [*sorted(path for path in (place / "models").iterdir() if path.is_dir()), *folders]
        found: dict[Path, dict[str, Array]] = {}
        for i, source in enumerate(sources):
            (place / str(i)).mkdir()
            try:
                found[place / str(i)] = compute(source, texts, place / str(i))
            except BertsymError as error:
                print(f"{source.name:<20} {error}")
        models = {str(place / str(i) / "expected.npy"): str(source) for i, source in enumerate(sources)}
        models.update({str(folder / "again.npy"): str(folder / "written") for folder in found})
        (place / "models.json").write_text(json.dumps(models))
        worker(python, "embed", place / "models.json", place / "texts.json")
        equal = [
            compare(source, place / str(i), found[place / str(i)])
            for i, source in enumerate(sources)
            if place / str(i) in found
        ]
    print(f"{sum(equal)} of {len(sources)} models are equal")
    return 0 if sum(equal) == len(sources) else 1


if __name__ == "__main__":
    sys.exit(main())
