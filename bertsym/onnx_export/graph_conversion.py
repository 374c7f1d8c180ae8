"""Convert a symbol graph to an ONNX model, operator by operator."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib.metadata import version

import numpy as np
from onnx import GraphProto, ModelProto, TensorProto, ValueInfoProto, helper, numpy_helper

from bertsym.array import Array
from bertsym.errors import ModelError
from bertsym.onnx_export.builder import Builder
from bertsym.onnx_export.operator_converters import CONVERTERS, INTEGER_INPUTS
from bertsym.signature import Tensor
from bertsym.symbol.graph import SymbolGraph
from bertsym.symbol.node import Node, Output
from bertsym.symbol.params import Parameters
from bertsym.symbol.quantized_layers import check_integer_readers

OPSET, IR_VERSION = 13, 7
_TYPES = {"float32": TensorProto.FLOAT, "int64": TensorProto.INT64}


def needed_nodes(graph: SymbolGraph) -> list[Node]:
    """List the nodes that the outputs depend on, in order."""
    needed = graph.ancestors(*(output.node for output in graph.outputs))
    return [node for node in graph.nodes if node in needed]


def check_operators(graph: SymbolGraph, where: str, advice: str = "") -> None:
    """Raise ModelError for the first node whose operator does not convert; `advice` ends the message."""
    for node in needed_nodes(graph):
        if not node.is_variable and node.op not in CONVERTERS:
            raise ModelError(f"{where}: node {node.name!r} ({node.op}) does not convert to ONNX{advice}")
    try:
        check_integer_readers(graph)
    except ModelError as error:
        raise ModelError(f"{where}: {error}, which does not convert to ONNX{advice}") from None


def integer_inputs(graph: SymbolGraph, inputs: Sequence[str]) -> set[str]:
    """Find the inputs that operators read as indices or lengths."""
    return {
        entry.node.name
        for node in graph.nodes
        for place, entry in enumerate(node.inputs)
        if node.op in ("Embedding", "SequenceMask") and place in INTEGER_INPUTS[node.op] and entry.node.name in inputs
    }


def convert(
    graph: SymbolGraph,
    params: Parameters,
    ranks: Mapping[Output, int],
    inputs: Sequence[Tensor],
    outputs: Sequence[Tensor],
    *,
    metadata: Mapping[str, str],
    where: str,
    advice: str = "",
) -> ModelProto:
    """Convert a graph to an ONNX model: opset 13, float32 inside, parameters stored once.

    `ranks` are the numbers of axes of the graph's tensors. `inputs` of dtype ``int64`` are cast where MXNet
    computes with their elements. Dense layers on more than two axes read their weight transposed, as NAME/transposed.

    Raises ModelError, naming the node, for what does not convert; `advice` ends the message.
    """
    needed = needed_nodes(graph)
    names = [node.name for node in needed if node.is_variable]
    ends = {tensor.name: end.node for tensor, end in zip(outputs, graph.outputs)}
    builder = Builder(where, ranks, params, set(names), ends, advice)
    builder.integers.update(tensor.name for tensor in inputs if tensor.dtype == "int64")
    _add_nodes(builder, needed, graph.outputs, [tensor.name for tensor in outputs])
    described = helper.make_graph(
        builder.nodes,
        "bertsym",
        [_value_info(tensor) for tensor in inputs],
        [_value_info(tensor) for tensor in outputs],
        [numpy_helper.from_array(values, name) for name, values in builder.constants.items()],
    )
    model = helper.make_model(
        described,
        opset_imports=[helper.make_opsetid("", OPSET)],
        ir_version=IR_VERSION,
        producer_name="bertsym",
        producer_version=version("bertsym"),
    )
    helper.set_model_props(model, dict(metadata))
    _add_parameters(model.graph, builder, params, where)  # last: make_model copies what it is given
    return model


def _add_nodes(builder: Builder, needed: Sequence[Node], ends: Sequence[Output], names: Sequence[str]) -> None:
    """Add the ONNX nodes of all MXNet nodes and name the outputs."""
    tensors: dict[Output, str] = {}
    for node in needed:
        builder.begin(node)
        if node.is_variable:
            tensors[Output(node)] = node.name
            continue
        arguments = []
        for place, entry in enumerate(node.inputs):
            if entry not in tensors:
                builder.refuse(f"reads {entry}, which does not convert to ONNX")
            name = tensors[entry]
            arguments.append(name if place in INTEGER_INPUTS.get(node.op, ()) else builder.as_float(name))
        found = CONVERTERS[node.op](builder, node, arguments)
        for index, name in enumerate([found] if isinstance(found, str) else found):
            tensors[Output(node, index)] = name
    for end, name in zip(ends, names):
        builder.begin(end.node)
        if end.node.is_variable or end not in tensors:
            builder.refuse("is an output, which does not convert to ONNX")
        if tensors[end] != name:
            builder.name_output(tensors[end], name)


def _add_parameters(graph: GraphProto, builder: Builder, params: Parameters, where: str) -> None:
    """Add the parameters that ONNX nodes read; arrays are copied one at a time."""
    read = {name for node in builder.nodes for name in node.input}
    for name in params:
        turned = builder.transposed.get(name)
        if read & {name, turned} and params.infos[name].dtype != "<f4":
            raise ModelError(
                f"{where}: parameter {name} is {np.dtype(params.infos[name].dtype)}: only float32 converts"
            )
        if name in read:
            _add_parameter(graph, name, params[name])
        if turned is not None and turned in read:
            _add_parameter(graph, turned, params[name].T)


def _add_parameter(graph: GraphProto, name: str, array: Array) -> None:
    # In place: an appended TensorProto would be copied.
    graph.initializer.add(name=name, data_type=TensorProto.FLOAT, dims=array.shape, raw_data=array.tobytes())


def _value_info(tensor: Tensor) -> ValueInfoProto:
    return helper.make_tensor_value_info(tensor.name, _TYPES[tensor.dtype], tensor.shape, tensor.meaning)
