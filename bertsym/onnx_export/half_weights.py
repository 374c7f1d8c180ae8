"""Store the weights of an ONNX model in float16; computations stay in float32."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from onnx import ModelProto

_SMALLEST = 1024  # elements; smaller arrays, such as biases, stay in float32


def store_in_float16(model: ModelProto) -> int:
    """Convert the large float32 initializers to float16 in place, each with a Cast to float32; returns their number.

    Raises ValueError, with its name, for an array whose elements exceed the range of float16.
    """
    from onnx import TensorProto, helper, numpy_helper

    casts = []
    for tensor in model.graph.initializer:
        if tensor.data_type != TensorProto.FLOAT or np.prod(tensor.dims) < _SMALLEST:
            continue
        values = numpy_helper.to_array(tensor)
        if np.abs(values).max() > np.finfo(np.float16).max:
            raise ValueError(tensor.name)
        name, half = tensor.name, f"{tensor.name}/float16"
        tensor.CopyFrom(numpy_helper.from_array(values.astype(np.float16), half))
        casts.append(helper.make_node("Cast", [half], [name], name=half, to=TensorProto.FLOAT))
    nodes = [*casts, *model.graph.node]
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    return len(casts)
