"""The model card of a bundle, in Markdown, with the metadata header of Hugging Face's hub."""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterator, Mapping
from typing import Any

from bertsym.bundle import Bundle
from bertsym.encoders.catalogue import OUTPUTS
from bertsym.encoders.sentence_embedding import SentenceEmbedding
from bertsym.families import FAMILIES

#: kind of task -> ``pipeline_tag`` of the hub
_PIPELINES = {
    "classification": "text-classification",
    "multilabel": "text-classification",
    "regression": "text-classification",
    "tagging": "token-classification",
    "qa": "question-answering",
    "masked_lm": "fill-mask",
}
_SHOWN_LABELS = 50


def model_card(bundle: Bundle, architecture: str | None = None, embedding: SentenceEmbedding | None = None) -> str:
    """Describe a bundle: what it computes, what it was trained on, its metrics, its limits and how to load it.

    `architecture` is the class of transformers of the folder that the card is for; None for the bundle itself.
    `embedding` is what a folder of sentence-transformers computes.
    """
    sections = [
        _header(bundle, architecture, embedding),
        _title(bundle, architecture, embedding),
        *_labels(bundle),
        *_training(bundle),
        _limits(bundle),
        _loading(bundle, architecture, embedding),
        _making(bundle),
    ]
    return "\n".join(sections)


def _header(bundle: Bundle, architecture: str | None, embedding: SentenceEmbedding | None) -> str:
    """The metadata in YAML; strings are written as JSON, which YAML contains."""
    signature = bundle.signature
    library = "mxnet" if architecture is None else "transformers" if embedding is None else "sentence-transformers"
    pipeline = "feature-extraction" if embedding is None else "sentence-similarity"
    lines = ["---", f"library_name: {library}"]
    lines.append(f"pipeline_tag: {_PIPELINES.get(signature.task or '', pipeline)}")
    tags = ["bertsym", "mxnet", bundle.config.family, *(["sentence-transformers"] if embedding is not None else [])]
    lines += ["tags:", *(f"- {tag}" for tag in tags)]
    metrics = _kept_metrics(bundle)
    if metrics:
        lines += ["metrics:", *(f"- {name}" for name in metrics if name != "loss")]
        lines += ["model-index:", f"- name: {json.dumps(bundle.prefix.name)}", "  results:"]
        lines += [f"  - task: {{type: {_PIPELINES.get(signature.task or '', 'other')}}}"]
        name = signature.dataset or "dev file"
        lines += [f"    dataset: {{type: {json.dumps(name)}, name: {json.dumps(name)}}}", "    metrics:"]
        lines += [
            f"    - {{type: {metric}, value: {value:.6g}}}" for metric, value in metrics.items() if metric != "loss"
        ]
    return "\n".join([*lines, "---", ""])


def _title(bundle: Bundle, architecture: str | None, embedding: SentenceEmbedding | None) -> str:
    signature, config = bundle.signature, bundle.config
    title = FAMILIES[config.family].title
    kind = f"with a trained head for {signature.task}" if signature.task else "without a head"
    described = f"a sentence embedding: {signature.embedding}" if signature.embedding else OUTPUTS[signature.output]
    reads = f"The head reads {described}." if signature.task else f"It ends in {described}."
    name = f" `{architecture}`." if architecture is not None else ""
    if embedding is not None:
        width = embedding.width(config.units)
        reads += f" In sentence-transformers, the embedding of a text has {width} elements: {embedding}."
    return f"# {bundle.prefix.name}\n\n{title} ({config}) {kind}.{name} {reads}\n"


def _labels(bundle: Bundle) -> Iterator[str]:
    names = bundle.signature.class_names
    if names:
        shown = ", ".join(f"`{name}`" for name in names[:_SHOWN_LABELS])
        more = f" and {len(names) - _SHOWN_LABELS} more" if len(names) > _SHOWN_LABELS else ""
        yield f"## Labels\n\n{shown}{more}\n"


def _kept_metrics(bundle: Bundle) -> Mapping[str, float]:
    """The dev metrics of the parameters that were kept; empty for a bundle that `finetune` did not write."""
    training = bundle.manifest.get("training")
    if not training:
        return {}
    kept = next(found for found in training["evaluations"] if found["step"] == training["kept_step"])
    metrics: Mapping[str, float] = kept["metrics"]
    return metrics


def _training(bundle: Bundle) -> Iterator[str]:
    training: Mapping[str, Any] | None = bundle.manifest.get("training")
    if not training:
        return
    rows = [
        f"| {name} | {data['rows']} | {data['left_out']} | `{data['sha256']}` |"
        for name, data in training["data"].items()
    ]
    table = ["| file | rows | left out | SHA-256 |", "|---|---|---|---|", *rows]
    metrics = ", ".join(f"{name} {value:.4f}" for name, value in _kept_metrics(bundle).items())
    options = training["options"]
    settings = ", ".join(
        f"{name.replace('_', ' ')} {options[name]}"
        for name in ("epochs", "batch_size", "learning_rate", "max_length", "seed")
        if name in options
    )
    yield "\n".join(["## Training data", "", *table, ""])
    where = f"after step {training['kept_step']} (epoch {training['kept_epoch']})"
    yield f"## Metrics\n\nOn the dev file, {where}: {metrics}. Settings: {settings}.\n"


def _limits(bundle: Bundle) -> str:
    signature = bundle.signature
    lines = [f"- Texts are truncated to {signature.max_length} tokens."]
    if signature.pair is not None and signature.task is not None:
        lines.append(f"- Trained on {'pairs of texts' if signature.pair else 'single texts'}.")
    if signature.precision != "float32":
        lines.append(f"- Most computations are in {signature.precision}.")
    if _kept_metrics(bundle):
        lines.append("- The dev file chose which parameters were kept, so its metrics are optimistic.")
    return "\n".join(["## Limits", "", *lines, ""])


def _loading(bundle: Bundle, architecture: str | None, embedding: SentenceEmbedding | None) -> str:
    if embedding is not None:
        lines = ["from sentence_transformers import SentenceTransformer", ""]
        lines += ['model = SentenceTransformer("FOLDER")', 'embeddings = model.encode(["A text."])']
        return "\n".join(["## Use", "", "```python", *lines, "```", ""])
    if architecture is not None:
        auto = "AutoModel" + (architecture[architecture.index("For") :] if "For" in architecture else "")
        lines = [f"from transformers import {auto}, AutoTokenizer", ""]
        lines += [
            f'{name} = {cls}.from_pretrained("FOLDER")'
            for name, cls in (("tokenizer", "AutoTokenizer"), ("model", auto))
        ]
        return "\n".join(["## Use", "", "```python", *lines, "```", ""])
    prefix = shlex.quote(bundle.prefix.name)
    return f"## Use\n\n```sh\nbertsym predict {prefix} FILE\n```\n"


def _making(bundle: Bundle) -> str:
    manifest = bundle.manifest
    source = manifest["source"].get("spec")
    lines = [f"Source: `{source}`."] if source else []
    if manifest.get("command"):
        lines.append(f"Command: `{shlex.join(manifest['command'])}`.")
    return "\n".join(["## How it was made", "", *lines, "Written by bertsym.", ""])
