"""Asking mxnet about a graph: the shapes of its tensors, and their values."""

from bertsym.running.inputs import UnknownShapeError, is_index, longest, sample_inputs
from bertsym.running.loading import listed_outputs
from bertsym.running.shapes import Shape, fixed_length, free_shapes, known_shapes, tensor_shapes
from bertsym.running.values import tensor_values

__all__ = [
    "Shape",
    "UnknownShapeError",
    "fixed_length",
    "free_shapes",
    "is_index",
    "known_shapes",
    "listed_outputs",
    "longest",
    "sample_inputs",
    "tensor_shapes",
    "tensor_values",
]
