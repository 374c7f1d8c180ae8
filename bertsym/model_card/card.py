"""The sections of a model card."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from pathlib import PurePosixPath
from typing import Any

from bertsym.bundle import MANIFEST, Bundle
from bertsym.encoders.catalogue import OUTPUTS
from bertsym.encoders.sentence_embedding import SentenceEmbedding
from bertsym.errors import ModelError
from bertsym.families import FAMILIES
from bertsym.model_card.markup import code_span, table, yaml_text
from bertsym.model_card.snippets import bundle_snippets

#: kind of task -> ``pipeline_tag`` of the hub
_PIPELINES = {
    "classification": "text-classification",
    "multilabel": "text-classification",
    "regression": "text-classification",
    "tagging": "token-classification",
    "qa": "question-answering",
    "masked_lm": "fill-mask",
}
#: metric -> its id in Hugging Face's library evaluate, where that is another one
_METRIC_IDS = {"matthews": "matthews_correlation", "pearson": "pearsonr", "spearman": "spearmanr"}
_SHOWN_LABELS = 50
_SETTINGS = (
    "epochs",
    "batch_size",
    "learning_rate",
    "warmup",
    "weight_decay",
    "clip_norm",
    "dropout",
    "max_length",
    "seed",
)
#: settings that are left out where they have no effect
_NEUTRAL = {
    **{"accumulate": 1, "layer_decay": 1.0, "head": "plain", "freeze_encoder": False, "freeze_layers": None},
    **{"whole_sequence": False, "eval_steps": None, "metric": None, "patience": None, "dev_fraction": None},
    **{"literal_special_tokens": False},
}


def model_card(bundle: Bundle, architecture: str | None = None, embedding: SentenceEmbedding | None = None) -> str:
    """Describe a bundle: what it computes, what it was trained on, its metrics, its limits and how to load it.

    The text depends on the content of the bundle alone, neither on its prefix nor on the time. `architecture` is the
    class of transformers of the folder that the card is for; None for the bundle itself. `embedding` is what a folder
    of sentence-transformers computes. Raises ModelError for a manifest whose training or quantization is not as
    `finetune` and `quantize` write it.
    """
    try:
        return "\n\n".join(_sections(bundle, architecture, embedding)) + "\n"
    except (AttributeError, LookupError, StopIteration, TypeError, ValueError) as error:
        raise ModelError(
            f"{bundle.path(MANIFEST)}: the training can't be described: {type(error).__name__} {error}; write the "
            "bundle again"
        ) from None


def _sections(bundle: Bundle, architecture: str | None, embedding: SentenceEmbedding | None) -> list[str]:
    return [
        _header(bundle, architecture, embedding),
        _title(bundle, architecture, embedding),
        *_labels(bundle),
        *_training(bundle),
        *_evaluation(bundle),
        _limits(bundle),
        _use(bundle, architecture, embedding),
        _origin(bundle, architecture),
    ]


def _header(bundle: Bundle, architecture: str | None, embedding: SentenceEmbedding | None) -> str:
    """The metadata in YAML."""
    signature = bundle.signature
    pipeline = _PIPELINES.get(
        signature.task or "", "feature-extraction" if embedding is None else "sentence-similarity"
    )
    library = "mxnet" if architecture is None else "transformers" if embedding is None else "sentence-transformers"
    lines = ["---", f"library_name: {library}", f"pipeline_tag: {pipeline}"]
    if (repository := bundle.manifest["source"].get("repository")) is not None:
        lines.append(f"base_model: {yaml_text(repository)}")
    tags = ["bertsym", "mxnet", bundle.config.family, *(["sentence-transformers"] if embedding is not None else [])]
    lines += ["tags:", *(f"- {tag}" for tag in tags)]
    metrics = {name: value for name, value in _metrics(bundle).items() if name != "loss" and math.isfinite(value)}
    if metrics:
        dataset = yaml_text(signature.dataset or _dev_facts(bundle).get("file", "dev"))
        lines += ["metrics:", *(f"- {_METRIC_IDS.get(name, name)}" for name in metrics)]
        lines += ["model-index:", f"- name: {yaml_text(_name(bundle))}", "  results:", "  - task:"]
        lines += [f"      type: {pipeline}", "    dataset:", f"      type: {dataset}", f"      name: {dataset}"]
        lines += ["      split: validation", "    metrics:"]
        for name, value in metrics.items():
            lines += [f"    - type: {_METRIC_IDS.get(name, name)}", f"      name: {name}", f"      value: {value:.6f}"]
    return "\n".join([*lines, "---"])


def _name(bundle: Bundle) -> str:
    """A name for the model: what it was made from, and what for."""
    signature = bundle.signature
    parts = [_source_name(bundle.manifest["source"]), signature.dataset or signature.task or ""]
    return "-".join(part for part in (*parts, "int8" if signature.precision == "int8" else "") if part)


def _source_name(source: Mapping[str, Any]) -> str:
    """The name of a source without the folder in which it is."""
    location = source.get("repository") or str(source["spec"]).partition(":")[2]
    return location if source.get("kind") == "gluonnlp" else PurePosixPath(location).name


def _title(bundle: Bundle, architecture: str | None, embedding: SentenceEmbedding | None) -> str:
    signature, config = bundle.signature, bundle.config
    title = FAMILIES[config.family].title
    output = f"a sentence embedding: {signature.embedding}" if signature.embedding else OUTPUTS[signature.output]
    if not signature.task:
        about, reads = "without a head", f"It ends in {output}."
    else:
        about, reads = f"with a trained head for {signature.task}", f"The head reads {output}."
    if embedding is not None:
        width = embedding.width(config.units)
        reads += f" In sentence-transformers, the embedding of a text has {width} elements: {embedding}."
    purpose = f" for {signature.task}" if signature.task else ""
    precision = f", {signature.precision}" if signature.precision != "float32" else ""
    name = f" Class: `{architecture}`." if architecture is not None else ""
    return f"# {title}{purpose}{precision}\n\n{title} ({config}) {about}.{name} {reads}"


def _labels(bundle: Bundle) -> Iterator[str]:
    names = bundle.signature.class_names
    if names:
        more = f" and {len(names) - _SHOWN_LABELS} more" if len(names) > _SHOWN_LABELS else ""
        yield f"## Labels\n\nIn the order of the outputs: {', '.join(map(code_span, names[:_SHOWN_LABELS]))}{more}"


def _training_facts(bundle: Bundle) -> Mapping[str, Any] | None:
    """How the bundle, or the float32 bundle that it was quantized from, was trained; None if that is unknown."""
    manifest = bundle.manifest
    facts: Mapping[str, Any] | None = manifest.get("training") or manifest.get("base", {}).get("training")
    return facts


def _dev_facts(bundle: Bundle) -> Mapping[str, Any]:
    """The file on which the metrics of the card were computed."""
    quantization, training = bundle.manifest.get("quantization"), _training_facts(bundle)
    if quantization is not None:
        dev: Mapping[str, Any] = quantization["dev"]
        return dev
    return training["data"]["dev"] if training is not None else {}


def _metrics(bundle: Bundle) -> Mapping[str, float]:
    """The metrics of the parameters that were written; empty where they are unknown."""
    quantization, training = bundle.manifest.get("quantization"), _training_facts(bundle)
    if quantization is not None:
        measured: Mapping[str, float] = quantization.get("metrics", {}).get("int8", {})
        return measured
    return _trained_metrics(training) if training is not None else {}


def _trained_metrics(training: Mapping[str, Any]) -> Mapping[str, float]:
    """The dev metrics of the parameters that were kept, with the settings that were tuned for them."""
    kept = next(found for found in training["evaluations"] if found["step"] == training["kept_step"])
    metrics: Mapping[str, float] = training.get("tuned_metrics") or kept["metrics"]
    return metrics


def _training(bundle: Bundle) -> Iterator[str]:
    training = _training_facts(bundle)
    if training is None:
        return
    files = [
        (name, code_span(data.get("file", "")), str(data["rows"]), str(data["left_out"]), f"`{data['sha256']}`")
        for name, data in training["data"].items()
    ]
    yield "## Training data\n\n" + table(("", "file", "rows", "left out", "SHA-256"), files)
    options = training["options"]
    settings = {name: options[name] for name in _SETTINGS if name in options}
    settings |= {name: options[name] for name, none in _NEUTRAL.items() if options.get(name, none) != none}
    loss = {name: value for name, value in (training.get("loss") or {}).items() if value}
    rows = [(name.replace("_", " "), code_span(str(value))) for name, value in {**settings, **loss}.items()]
    kept = f"The parameters after step {training['kept_step']}, in epoch {training['kept_epoch']}, were kept."
    yield f"## Training\n\nAdamW with linear warm-up and decay. {kept}\n\n{table(('setting', 'value'), rows)}"


def _evaluation(bundle: Bundle) -> Iterator[str]:
    training, quantization = _training_facts(bundle), bundle.manifest.get("quantization")
    rows: list[tuple[str, ...]]
    if quantization is not None and "metrics" in quantization:
        float32, int8 = quantization["metrics"]["float32"], quantization["metrics"]["int8"]
        rows = [(name, f"{float32[name]:.4f}", f"{int8[name]:.4f}") for name in int8]
        calibration = quantization["calibration"]
        yield (
            f"## Evaluation\n\nOn {_rows_of(quantization['dev'])}. Calibrated ({calibration['kind']}, "
            f"{calibration['granularity']}) on {calibration['rows']} rows of {_described(calibration)}; "
            f"{quantization['agreement']:.2%} of the answers are those of the float32 model.\n\n"
            + table(("metric", "float32", "int8"), rows)
        )
    elif training is not None:
        metrics, seeds = _trained_metrics(training), training.get("seeds")
        header = ["metric", "value", *(["mean of the seeds", "standard deviation"] if seeds else [])]
        rows = [
            (
                *(name, f"{value:.4f}"),
                *([f"{seeds['means'][name]:.4f}", f"{seeds['deviations'][name]:.4f}"] if seeds else []),
            )
            for name, value in metrics.items()
        ]
        of = f" {len(seeds['runs'])} seeds were trained; the best on dev was kept." if seeds else ""
        yield f"## Evaluation\n\nOn {_rows_of(training['data']['dev'])}.{of}\n\n{table(header, rows)}"


def _rows_of(data: Mapping[str, Any]) -> str:
    """The rows of a file of a manifest in words."""
    return f"the {data['rows']:,} rows of {_described(data)}"


def _described(data: Mapping[str, Any]) -> str:
    """A file of a manifest in words."""
    return f"{code_span(data['file'])} (SHA-256 `{data['sha256'][:12]}`…)" if data.get("file") else "the dev file"


def _limits(bundle: Bundle) -> str:
    signature = bundle.signature
    tokens, stride = signature.max_length, signature.task_settings.get("stride")
    if stride is not None or signature.task == "qa":
        lines = [f"Long texts are read in overlapping windows of {tokens} tokens."]
    else:
        lines = [f"Texts are truncated to {tokens} tokens."]
    if signature.pair is not None and signature.task is not None:
        lines.append(f"It was trained on {'pairs of texts' if signature.pair else 'single texts'}.")
    if signature.task == "classification":
        lines.append("Every text gets one of the labels, whatever it is about.")
    if _metrics(bundle):
        lines.append("The metrics were measured on the file above only; on other texts they may differ.")
        training = _training_facts(bundle)
        if training is not None and training["data"]["dev"]["sha256"] == _dev_facts(bundle)["sha256"]:
            lines.append("The dev file chose which parameters were kept, so its metrics are optimistic.")
    if signature.precision != "float32":
        lines.append(f"Most computations are in {signature.precision}, by MXNet 1.9 or onnxruntime on a CPU.")
        if signature.int8_for == "avx2":
            lines.append("MXNet computes the same integers on every processor.")
        else:
            lines.append("MXNet's saturate on processors without VNNI: use onnxruntime there.")
    return "## Limits\n\n" + "\n".join(f"- {line}" for line in lines)


def _use(bundle: Bundle, architecture: str | None, embedding: SentenceEmbedding | None) -> str:
    if embedding is not None:
        lines = ["from sentence_transformers import SentenceTransformer", ""]
        lines += ['model = SentenceTransformer("FOLDER")', 'embeddings = model.encode(["A text."])']
        return "\n".join(["## Use", "", "```python", *lines, "```"])
    if architecture is not None:
        auto = "AutoModel" + (architecture[architecture.index("For") :] if "For" in architecture else "")
        lines = [f"from transformers import {auto}, AutoTokenizer", ""]
        lines += [
            f'{name} = {cls}.from_pretrained("FOLDER")'
            for name, cls in (("tokenizer", "AutoTokenizer"), ("model", auto))
        ]
        return "\n".join(["## Use", "", "```python", *lines, "```"])
    signature = bundle.signature
    inputs = ", ".join(f"`{tensor.name}` ({tensor.meaning})" for tensor in signature.inputs)
    checks = "The graph clips them to their ranges." if signature.guarded else "Check their ranges: MXNet does not."
    intro = (
        f"`PREFIX` stands for the path of the files without their endings. The inputs are {inputs}, all float32; "
        f"`bertsym tokenize PREFIX` prints them. {checks} Complete programs in C, C++, Java, Clojure, Perl and for "
        "Node.js are in the folder scripts/clients of bertsym."
    )
    programs = [f"{title}:\n\n```{language}\n{text}\n```" for title, language, text in bundle_snippets(bundle)]
    return "\n\n".join(["## Use", intro, *programs])


def _origin(bundle: Bundle, architecture: str | None) -> str:
    source = bundle.manifest["source"]
    lines = [f"Made by bertsym from {code_span(source.get('repository') or _source_name(source))}."]
    if architecture is None:
        lines.append("PREFIX-manifest.json has the command, the versions and the digest of every file.")
    return f"## Origin\n\n{' '.join(lines)}"
