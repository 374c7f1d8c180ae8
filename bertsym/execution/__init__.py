"""Run graphs: the shapes of their tensors and the elements of their outputs, computed by an engine.

Not for several threads at a time: what mxnet prints meanwhile is dropped for the whole process.
"""

from bertsym.execution.engines import Shape
from bertsym.execution.sample_inputs import BertLimits, UnknownShapeError, check_model_inputs, sample_inputs
from bertsym.execution.sandbox import trusting
from bertsym.execution.shapes import (
    all_shapes,
    fixed_length,
    free_shapes,
    input_axes,
    known_shapes,
    listed_outputs,
    sizes_of,
    tensor_shapes,
)
from bertsym.execution.values import model_values

__all__ = [
    "BertLimits",
    "Shape",
    "UnknownShapeError",
    "all_shapes",
    "check_model_inputs",
    "fixed_length",
    "free_shapes",
    "input_axes",
    "known_shapes",
    "listed_outputs",
    "model_values",
    "sample_inputs",
    "sizes_of",
    "tensor_shapes",
    "trusting",
]
