"""Read what sentence-transformers computes from the encodings of the tokens: pooling, dense layers, normalization."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from bertsym.array import Array
from bertsym.encoders.config import BertConfig
from bertsym.encoders.sentence_embedding import (
    MAX_LAYERS,
    POOLING_MODES,
    SIMILARITIES,
    DenseLayer,
    EmbeddingLayer,
    Normalization,
    SentenceEmbedding,
    layer_name,
)
from bertsym.errors import BertsymError, ModelError
from bertsym.families import list_names, printable
from bertsym.json_reader import MAX_INTEGER, JsonValue, read_json
from bertsym.reference import Module as ReferenceModule
from bertsym.sources.hugging_face_folder import find_weights
from bertsym.sources.hugging_face_tokenizer import CONFIG
from bertsym.sources.mapping import check_weight
from bertsym.sources.pretrained import TrainedEmbedding
from bertsym.sources.sentence_transformers import Module, SentenceModules, pooling_modes, read_prompts
from bertsym.symbol.params import LazyParameters

_LIBRARY = "sentence_transformers."  # how the classes of its modules begin
_KINDS = ("Pooling", "Dense", "Normalize")
_VECTOR = "sentence_embedding"  # what a module reads and writes
#: class of torch -> activation of a dense layer
TORCH_ACTIVATIONS = {
    "torch.nn.modules.linear.Identity": "identity",
    "torch.nn.modules.activation.Tanh": "tanh",
    "torch.nn.modules.activation.ReLU": "relu",
    "torch.nn.modules.activation.GELU": "gelu",
    "torch.nn.modules.activation.Sigmoid": "sigmoid",
}
_WEIGHTS = {"linear.weight": "weight", "linear.bias": "bias"}


def read_embedding(
    modules: SentenceModules, config: BertConfig
) -> tuple[TrainedEmbedding, tuple[ReferenceModule, ...], tuple[Path, ...]]:
    """Read the modules after the transformer: the embedding, the modules as their files have them, files of weights.

    Raises ModelError, with the option that exports the encoder alone, for modules that a bundle can't express and for
    files that are missing or don't fit together.
    """
    try:
        return _read(modules, config)
    except BertsymError as error:
        raise ModelError(f"{error}; --headless exports the encoder alone") from None


def _read(
    modules: SentenceModules, config: BertConfig
) -> tuple[TrainedEmbedding, tuple[ReferenceModule, ...], tuple[Path, ...]]:
    if not modules.prompts.get("model_type").is_null:
        modules.prompts["model_type"].choice("SentenceTransformer")
    if not modules.task.is_null:
        modules.task.choice("feature-extraction")
    for module in modules.others:
        if not module.type.text().startswith(_LIBRARY) or module.kind not in _KINDS:
            raise module.type.fault(
                f"{printable(module.type.text())!r} is not supported, only Transformer, {', '.join(_KINDS)} are"
            )
    pooling, *rest = modules.others
    if pooling.kind != "Pooling" or any(module.kind == "Pooling" for module in rest):
        kinds = ", ".join(module.kind for module in modules.others)
        raise modules.others[0].type.fault(
            f"the modules after the transformer are {kinds}, but one Pooling must come first"
        )
    if len(rest) > MAX_LAYERS:
        raise pooling.type.fault(f"{len(rest)} modules after the pooling, at most {MAX_LAYERS} are supported")
    modes = _read_pooling(pooling, config)
    width = len(modes) * config.units
    layers: list[EmbeddingLayer] = []
    shapes: dict[str, tuple[int, ...]] = {}
    sources: dict[str, tuple[Mapping[str, Array], str]] = {}
    files: list[Path] = []
    reference = [ReferenceModule(pooling.kind, pooling.config.object(), {})]
    for i, module in enumerate(rest):
        _check_names(module)
        weights: Mapping[str, Array] = {}
        if module.kind == "Normalize":
            layers.append(Normalization())
        else:
            layer = _read_dense(module, width)
            found = find_weights(module.folder, module.folder.parent)
            weights = found.tensors
            expected: dict[str, tuple[int, ...]] = {"linear.weight": (layer.units, width)}
            if layer.bias:
                expected["linear.bias"] = (layer.units,)
            _check_weights(weights, expected, str(found.where))
            for theirs, shape in expected.items():
                name = f"{layer_name(i)}_{_WEIGHTS[theirs]}"
                shapes[name], sources[name] = shape, (weights, theirs)
            files += found.files
            layers.append(layer)
            width = layer.units
        reference.append(ReferenceModule(module.kind, module.config.object(), weights))

    def read(name: str) -> Array:
        weights, theirs = sources[name]
        return weights[theirs].astype(np.float32, copy=False)

    embedding = SentenceEmbedding(tuple(modes), tuple(layers), *_read_prompts(modules.prompts))
    max_length = min(config.max_length, modules.max_seq_length or _model_max_length(modules.transformer))
    return TrainedEmbedding(embedding, LazyParameters(shapes, read), max_length), tuple(reference), tuple(files)


def _model_max_length(folder: Path) -> int:
    """The length at which sentence-transformers truncates where its own settings have none."""
    path = folder / CONFIG
    length = read_json(path).get("model_max_length").raw if path.exists() else None
    # The class's default is a float, or 10**30.
    return length if type(length) is int and length > 0 else MAX_INTEGER


def _read_pooling(module: Module, config: BertConfig) -> list[str]:
    settings = _require_config(module)
    modes = pooling_modes(settings)
    if not modes:
        raise settings.fault("no pooling_mode is true")
    for mode in modes:
        if mode not in POOLING_MODES:
            raise settings.fault(f"pooling mode {printable(mode)} is not supported, only {', '.join(POOLING_MODES)}")
    if settings.get("include_prompt").optional(JsonValue.boolean) is False:
        raise settings["include_prompt"].fault("false is not supported: the tokens of a prompt are pooled too")
    for key in ("word_embedding_dimension", "embedding_dimension"):
        if not settings.get(key).is_null and settings[key].integer(1) != config.units:
            raise settings[key].fault(f"{settings[key].integer()}, but the transformer has {config.units} units")
    return modes


def _read_dense(module: Module, width: int) -> DenseLayer:
    settings = _require_config(module)
    inputs = settings["in_features"].integer(1)
    if inputs != width:
        raise settings["in_features"].fault(f"{inputs}, but the module before it gives {width} elements")
    if settings.get("use_residual").optional(JsonValue.boolean):
        raise settings["use_residual"].fault("true is not supported")
    activation = settings.get("activation_function", "torch.nn.modules.activation.Tanh").choice(*TORCH_ACTIVATIONS)
    bias = settings.get("bias", True).boolean()
    return DenseLayer(settings["out_features"].integer(1), TORCH_ACTIVATIONS[activation], bias)


def _require_config(module: Module) -> JsonValue:
    if not module.config.object():
        raise ModelError(f"{module.config.where}: no such file, or empty: the settings of {module.kind} are missing")
    return module.config


def _check_names(module: Module) -> None:
    """Raise an error for a module that reads or writes something else than the embedding."""
    for key in ("module_input_name", "module_output_name"):
        if not module.config.get(key).is_null:
            module.config[key].choice(_VECTOR)


def _check_weights(weights: Mapping[str, Array], expected: Mapping[str, tuple[int, ...]], where: str) -> None:
    missing = [name for name in expected if name not in weights]
    unknown = sorted(name for name in weights if name not in expected)
    if missing or unknown:
        what = f"{list_names(missing)} missing" if missing else f"{list_names(unknown)} unknown"
        raise ModelError(f"{where}: not the weights of a Dense module with this config.json: {what}")
    for name, shape in expected.items():
        check_weight(weights[name], shape, f"{where}: {name}")


def _read_prompts(config: JsonValue) -> tuple[Mapping[str, str], str | None, str | None]:
    """Prompts, name of the default one, similarity function."""
    prompts, default = read_prompts(config), config.get("default_prompt_name")
    if not default.is_null and default.text() not in prompts:
        raise default.fault(f"{printable(default.text())!r} is not one of the prompts ({', '.join(prompts) or 'none'})")
    similarity = config.get("similarity_fn_name").optional(lambda value: value.choice(*SIMILARITIES))
    return prompts, default.optional(JsonValue.text), similarity
