"""Check that the files of a bundle belong together: config, signature, parameters and graphs."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from bertsym.analysis.constants import reads_fed_lengths
from bertsym.analysis.encoder_detection import require_encoder
from bertsym.bundle.files import PARAMS, SIGNATURE, TRAIN_SYMBOL
from bertsym.encoders.catalogue import (
    CLASS_LOSS,
    FINISHED_HEADS,
    FULLY_CONNECTED,
    HEAD_TRANSFORM,
    OPERATORS,
    OUTPUTS,
    TRAINED_HEADS,
)
from bertsym.encoders.config import BertConfig
from bertsym.encoders.folding import folded_shapes
from bertsym.encoders.graph_heads import HEADS, label_shapes, loss_names
from bertsym.encoders.inputs import INPUT_NAMES, TOKEN_IDS, TOKEN_TYPES, VALID_LENGTH, input_shapes
from bertsym.encoders.parameters import head_shapes, parameter_shapes
from bertsym.encoders.sentence_embedding import EMBEDDING
from bertsym.errors import ModelError, join_names
from bertsym.signature import Signature, Tensor, bert_inputs
from bertsym.symbol.attributes import integers
from bertsym.symbol.graph import SymbolGraph
from bertsym.symbol.params import ArrayInfo
from bertsym.symbol.quantized_layers import OPERATORS as QUANTIZED_OPERATORS
from bertsym.symbol.quantized_layers import fused_layers
from bertsym.symbol.shape_inference import infer_tensor_shapes
from bertsym.symbol.validation import check_symbol
from bertsym.symbol.variable_roles import shared_auxiliary_states

_LARGEST_TENSOR = 1 << 27  # elements, at the input sizes of _TRIED
# Batch size and length; primes, so that a Reshape to another number does not fit both by chance.
_TRIED = ((11, 5), (13, 7))


def check_kinds(
    graphs: Mapping[str, SymbolGraph], infos: Mapping[str, ArrayInfo], path: Callable[[str], object]
) -> None:
    """Raise ModelError unless exactly the auxiliary states of the graphs are stored as ``aux:``."""
    states = shared_auxiliary_states(graphs)
    for info in infos.values():
        kind = "aux" if info.name in states else "arg"
        if info.kind != kind:
            stored = f"stored as {info.kind}:" if info.kind else "stored without its kind"
            raise ModelError(f"{path(PARAMS)}: parameter {info.name} is {stored}, but it is {kind}: in the graph")


def check_bert(
    config: BertConfig,
    signature: Signature,
    infos: Mapping[str, ArrayInfo],
    graphs: Mapping[str, SymbolGraph],
    path: Callable[[str], object],
) -> None:
    """Raise ModelError unless parameters and graphs match config and signature.

    `graphs` are by file name (SYMBOL, TRAIN_SYMBOL); `path` returns the path of a file for messages.
    """
    if signature.family != config.family:
        raise ModelError(f"{path(SIGNATURE)}: family {signature.family}, but that of the config is {config.family}")
    labels = _labels(signature) if TRAIN_SYMBOL in graphs else ()
    # Without the input of token types, every token has the type 0.
    all_type_0 = TOKEN_TYPES not in signature.input_names and config.segments < 2
    taken = [name for name in INPUT_NAMES if name != TOKEN_TYPES or not all_type_0]
    _check_tensors("inputs", signature.inputs, bert_inputs(signature.length, taken), path(SIGNATURE))
    _check_tensors("label inputs", signature.label_inputs, labels, path(SIGNATURE))
    expected = folded_shapes(_expected_shapes(config, signature, infos, path(SIGNATURE)), infos)
    shapes = {name: info.shape for name, info in infos.items()}
    quantized = signature.precision == "int8"
    if quantized:
        # Folded weights and int8 weights have other names.
        expected = {name: shape for name, shape in expected.items() if name in shapes}
        _check_quantized(config, shapes, graphs, path)
    elif signature.precision != "float32":
        raise ModelError(f"{path(SIGNATURE)}: precision {signature.precision!r} is not one of float32, int8")
    elif signature.int8_for is not None:
        raise ModelError(f"{path(SIGNATURE)}: int8_for is {signature.int8_for!r}, but the precision is float32")
    differing = sorted(
        name
        for name in shapes.keys() | expected
        if shapes.get(name) != expected.get(name) and (name in expected or not quantized)
    )
    if differing:
        raise ModelError(f"{path(PARAMS)}: parameters differ from the config: {join_names(differing, 5)}")
    dtypes = ("float32", "int8") if quantized else ("float32",)
    for info in infos.values():
        if np.dtype(info.dtype).name not in dtypes:
            raise ModelError(f"{path(PARAMS)}: {info.name} is {np.dtype(info.dtype).name}, not {' or '.join(dtypes)}")
    for name, graph in graphs.items():
        extra = {label.name for label in labels} if name == TRAIN_SYMBOL else set()
        check_symbol(graph, str(path(name)), OPERATORS | QUANTIZED_OPERATORS if quantized else OPERATORS)
        _check_addresses(graph, config, path(name))
        unlike = set(graph.variables) ^ {*signature.input_names, *extra, *shapes}
        if unlike:
            raise ModelError(
                f"{path(name)}: variables differ from inputs and parameters: {join_names(sorted(unlike), 5)}"
            )
        _check_sizes(graph, config, signature, shapes, path(name))
        outputs = [f"{output}_output" for output in graph.output_names]
        allowed = _expected_outputs(signature, trains=name == TRAIN_SYMBOL)
        if outputs not in allowed:
            raise ModelError(f"{path(name)}: ends in {', '.join(outputs)}, not in {', '.join(allowed[0])}")


def _expected_outputs(signature: Signature, *, trains: bool) -> list[list[str]]:
    """Return what a graph may end in: if it `trains`, a loss, which comes first, or the output of the signature."""
    expected = [[signature.output_name]]
    if trains and signature.task in HEADS:
        expected.insert(0, [f"{loss}_output" for loss in loss_names(signature.task)])
    if trains:  # a weighted or smoothed loss is an output of its own
        expected += [[*outputs, f"{CLASS_LOSS}_output"] for outputs in expected]
    return expected


def _labels(signature: Signature) -> tuple[Tensor, ...]:
    """Return the inputs that only the training graph has."""
    if signature.task not in HEADS or not signature.output_shape:
        return ()
    found = label_shapes(signature.task, signature.output_shape[-1])
    return tuple(Tensor(name, shape) for name, shape in found.items())


def _check_tensors(what: str, found: Sequence[Tensor], expected: Sequence[Tensor], where: object) -> None:
    """Raise ModelError unless names, shapes and dtypes of the tensors are those that bertsym feeds."""

    def described(tensors: Sequence[Tensor]) -> str:
        shown = (f"{each.name} ({', '.join(map(str, each.shape or '?'))}) {each.dtype}" for each in tensors)
        return ", ".join(shown) or "none"

    if described(found) != described(expected):
        raise ModelError(f"{where}: the {what} are {described(found):.200}, not {described(expected)}")


def _check_addresses(graph: SymbolGraph, config: BertConfig, where: object) -> None:
    """Raise ModelError for lengths that are not checked, and for a Reshape to sizes that are not in the config."""
    for node in graph.nodes:
        if node.op == "Reshape":
            sizes = {*integers(node.attrs, "shape")}
            if not sizes <= {-1, 0, 1, config.num_heads, config.units} or "target_shape" in node.attrs:
                raise ModelError(f"{where}: node {node.name!r} reshapes to sizes that are not in the config")
        has_lengths = node.op in ("SequenceMask", "softmax") and len(node.inputs) > 1
        if has_lengths and not reads_fed_lengths(node, (TOKEN_IDS, TOKEN_TYPES), VALID_LENGTH):
            raise ModelError(f"{where}: node {node.name!r} reads lengths that are not computed from {VALID_LENGTH}")


def _check_sizes(
    graph: SymbolGraph, config: BertConfig, signature: Signature, shapes: Mapping[str, tuple[int, ...]], where: object
) -> None:
    """Raise ModelError unless all shapes fit, and the output's is the signature's, for any batch size and length."""
    for batch, length in _TRIED:
        length = signature.length or min(length, config.max_length)
        sizes = {"batch": batch, "length": length}
        labels = {label.name: _sized(label.shape or (), sizes) for label in signature.label_inputs}
        known = {**shapes, **dict(input_shapes(batch, length)), **labels}
        found = infer_tensor_shapes(graph, known, str(where))
        expected = _sized(signature.output_shape, sizes)
        has_class_loss = graph.output_names[-1] == CLASS_LOSS
        for output in graph.outputs:
            if len(graph.outputs) > 1 and not has_class_loss:
                right = expected[:-1]  # each loss has its own element of the last axis
            else:
                right = expected[:1] if output.node.name == CLASS_LOSS else expected
            if found[output] != right:
                raise ModelError(f"{where}: the output has the shape {found[output]}, the signature says {right}")
        for output, shape in found.items():
            if math.prod(shape) > _LARGEST_TENSOR:
                raise ModelError(f"{where}: {output} has the shape {shape} for inputs of {batch} x {length}")


def _sized(shape: Sequence[int | str], sizes: Mapping[str, int]) -> tuple[int, ...]:
    """Return a shape with numbers in place of the names in `sizes`, and 0 for other names."""
    return tuple(sizes.get(size, 0) if isinstance(size, str) else size for size in shape)


def _check_quantized(
    config: BertConfig,
    shapes: Mapping[str, tuple[int, ...]],
    graphs: Mapping[str, SymbolGraph],
    path: Callable[[str], object],
) -> None:
    """Raise ModelError unless the graph is an encoder of `config` with int8 layers."""
    for name, graph in graphs.items():
        where = path(name)
        try:
            layers = [layer for layer in fused_layers(graph).values() if layer.quantized]
            encoder = require_encoder(graph, shapes)
        except ModelError as error:
            raise ModelError(f"{where}: {error}") from None
        found = (len(encoder.layers), encoder.units, encoder.embedding_size, encoder.vocab_size, encoder.max_length)
        expected = (config.num_layers, config.units, config.embedding_size, config.vocab_size, config.max_length)
        if not layers or found != expected:
            raise ModelError(f"{where}: not an int8 graph of an encoder with this config")


def _expected_shapes(
    config: BertConfig, signature: Signature, infos: Mapping[str, ArrayInfo], where: object
) -> dict[str, tuple[int, ...]]:
    embedding = signature.embedding
    if (signature.output == EMBEDDING) != (embedding is not None) or (embedding and signature.kind != "encoder"):
        raise ModelError(f"{where}: the output {EMBEDDING} of an encoder and the key {EMBEDDING} need each other")
    if embedding is None and signature.output not in OUTPUTS:
        raise ModelError(f"{where}: output {signature.output!r} is not one of {', '.join((*OUTPUTS, EMBEDDING))}")
    if signature.length not in (None, signature.max_length):
        raise ModelError(
            f"{where}: the inputs have the fixed length {signature.length}, but max_length is {signature.max_length}: "
            "they must be equal"
        )
    if signature.max_length > config.max_length:
        raise ModelError(
            f"{where}: max length {signature.max_length} exceeds the {config.max_length} positions of the config"
        )
    shapes = parameter_shapes(config, pooler=signature.output == "pooled")
    if embedding is not None:
        return {**shapes, **embedding.shapes(config.units)}
    if signature.kind == "encoder":
        return shapes
    task = signature.task
    is_finished = signature.kind == "logits" and f"{FULLY_CONNECTED}_bias" not in infos
    if task is None or (task not in FINISHED_HEADS if is_finished else TRAINED_HEADS.get(task) != signature.kind):
        raise ModelError(f"{where}: kind {signature.kind!r}, task {signature.task!r} is unknown")
    outputs = signature.output_shape[-1] if signature.output_shape else None
    if not isinstance(outputs, int):
        raise ModelError(f"{where}: the shape of the output does not end in a number: {signature.output_shape}")
    if signature.kind == "classifier" and outputs != len(signature.class_names):
        raise ModelError(f"{where}: {len(signature.class_names)} class names for {outputs} outputs")
    width = config.units * (signature.length or 1)
    if not is_finished:
        has_transform = f"{HEAD_TRANSFORM}_weight" in infos
        return {**shapes, **head_shapes(config, task, outputs, width=width, has_transform=has_transform)}
    prefix = FINISHED_HEADS[task][1]
    return {**shapes, f"{prefix}_weight": (outputs, width), f"{prefix}_bias": (outputs,)}
