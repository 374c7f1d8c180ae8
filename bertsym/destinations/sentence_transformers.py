"""The modules of sentence-transformers that compute what a bundle computes, and their files."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bertsym.array import Array
from bertsym.atomic_writing import write_text
from bertsym.bundle import Bundle, json_text
from bertsym.destinations.safetensors_writer import write_safetensors
from bertsym.encoders.catalogue import FULLY_CONNECTED, HEAD_TRANSFORM
from bertsym.encoders.parameters import POOLER
from bertsym.encoders.sentence_embedding import DenseLayer, EmbeddingLayer, SentenceEmbedding, layer_name
from bertsym.errors import ModelError, UsageError
from bertsym.sources.sentence_embeddings import TORCH_ACTIVATIONS
from bertsym.sources.sentence_transformers import LEGACY_MODES, MODULES, PROMPTS, SETTINGS

TRANSFORMERS, SENTENCE_TRANSFORMERS = "transformers", "sentence-transformers"
LIBRARIES = (TRANSFORMERS, SENTENCE_TRANSFORMERS)  #: libraries that folders are written for
FILES = (MODULES, SETTINGS, PROMPTS)  #: in the folder itself
FOLDERS = r"\d+_(Pooling|Dense|Normalize)"  #: pattern of the names of the modules' folders
_CLASSES = "sentence_transformers.models"  # loaded by versions 2 to 6
_TORCH = {activation: name for name, activation in TORCH_ACTIVATIONS.items()}


@dataclass(frozen=True)
class SentenceModules:
    """The modules after the transformer."""

    embedding: SentenceEmbedding
    names: Mapping[str, str]  #: parameter of `embedding` -> parameter of the bundle

    def write(self, folder: Path, bundle: Bundle, params: Mapping[str, Array]) -> None:
        """Write modules.json, the modules and the settings into a folder with a transformer; raises OSError."""
        kinds = ["Pooling", *("Dense" if isinstance(x, DenseLayer) else "Normalize" for x in self.embedding.layers)]
        paths = ["", *(f"{i}_{kind}" for i, kind in enumerate(kinds, 1))]
        listed = [
            {"idx": i, "name": str(i), "path": path, "type": f"{_CLASSES}.{kind}"}
            for i, (path, kind) in enumerate(zip(paths, ["Transformer", *kinds]))
        ]
        for path in paths[1:]:
            (folder / path).mkdir()
        write_text(folder / MODULES, json_text(listed))
        write_text(folder / paths[1] / "config.json", json_text(self._pooling(bundle.config.units)))
        width = len(self.embedding.pooling) * bundle.config.units
        for i, (layer, path) in enumerate(zip(self.embedding.layers, paths[2:])):
            if isinstance(layer, DenseLayer):
                config = {
                    "in_features": width,
                    "out_features": layer.units,
                    "bias": layer.bias,
                    "activation_function": _TORCH[layer.activation],
                }
                write_text(folder / path / "config.json", json_text(config))
                parts = ("weight", "bias") if layer.bias else ("weight",)
                weights = {f"linear.{part}": params[self.names[f"{layer_name(i)}_{part}"]] for part in parts}
                write_safetensors(folder / path / "model.safetensors", weights, {"format": "pt"})
                width = layer.units
        # The tokenizer of the folder lower-cases texts where the bundle does.
        settings = {"max_seq_length": bundle.signature.max_length, "do_lower_case": False}
        write_text(folder / SETTINGS, json_text(settings))
        prompts = {
            "model_type": "SentenceTransformer",
            "prompts": dict(self.embedding.prompts),
            "default_prompt_name": self.embedding.default_prompt_name,
            "similarity_fn_name": self.embedding.similarity,
        }
        write_text(folder / PROMPTS, json_text(prompts))

    def _pooling(self, units: int) -> dict[str, Any]:
        modes = self.embedding.pooling
        if modes != tuple(mode for mode in LEGACY_MODES if mode in modes):  # only newer versions have other orders
            return {"embedding_dimension": units, "pooling_mode": list(modes), "include_prompt": True}
        flags = {key: mode in modes for mode, key in LEGACY_MODES.items()}
        return {"word_embedding_dimension": units, **flags, "include_prompt": True}


def choose_library(bundle: Bundle, library: str | None) -> str:
    """Choose the library that a bundle's folder is written for, unless `library` is given.

    It is sentence-transformers for a sentence embedding, for the output ``mean``, and for a plain head on ``cls`` or
    ``mean``, which no class of transformers has. Raises UsageError for a library that is not supported.
    """
    if library is not None:
        if library not in LIBRARIES:
            raise UsageError(f"library {library!r} is not one of {', '.join(LIBRARIES)}")
        return library
    signature = bundle.signature
    if signature.embedding is not None or (signature.output == "mean" and not bundle.has_head):
        return SENTENCE_TRANSFORMERS
    return SENTENCE_TRANSFORMERS if _has_plain_head(bundle) and signature.output in ("cls", "mean") else TRANSFORMERS


def _has_plain_head(bundle: Bundle) -> bool:
    """Whether a bundle has a trained head of one layer, for texts."""
    signature, params = bundle.signature, bundle.params()
    is_plain = f"{FULLY_CONNECTED}_weight" in params and f"{HEAD_TRANSFORM}_weight" not in params
    return signature.trained and is_plain and signature.output in ("cls", "pooled", "mean")


def sentence_modules(bundle: Bundle) -> SentenceModules:
    """Return the modules that compute what a bundle computes; of a classifier, its logits.

    Raises ModelError for a bundle that does not give one vector for a text, or has another head than one layer.
    """
    signature, units = bundle.signature, bundle.config.units
    if signature.embedding is not None:
        names = {name: name for name in signature.embedding.shapes(units)}
        return SentenceModules(signature.embedding, names)
    if signature.output == "sequence":
        raise ModelError(
            f"{bundle.prefix}: ends in the encodings of all tokens, or its head reads them, and sentence-transformers "
            "gives one vector for a text; omit --as"
        )
    if bundle.has_head and not _has_plain_head(bundle):
        raise ModelError(
            f"{bundle.prefix}: has an untrained head, or one of two layers, which is not written for "
            "sentence-transformers; omit --as"
        )
    layers: list[EmbeddingLayer] = []
    names = {}
    for reads, layer, own in (
        (signature.output == "pooled", DenseLayer(units, "tanh"), tuple(POOLER)),
        (bundle.has_head, _last_layer(bundle), (f"{FULLY_CONNECTED}_weight", f"{FULLY_CONNECTED}_bias")),
    ):
        if reads:
            names.update(zip((f"{layer_name(len(layers))}_{part}" for part in ("weight", "bias")), own))
            layers.append(layer)
    pooling = "mean" if signature.output == "mean" else "cls"
    return SentenceModules(SentenceEmbedding((pooling,), tuple(layers)), names)


def _last_layer(bundle: Bundle) -> DenseLayer:
    outputs = bundle.signature.output_shape[-1]
    assert isinstance(outputs, int)
    return DenseLayer(outputs, "identity")
