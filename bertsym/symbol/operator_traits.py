"""What MXNet's operators do, in one table: aliases, default attributes, effects, and what their inputs are for.

The table covers the operators that bertsym asks about. Names and attributes are in operators.json; the defaults are
those of MXNet 1.9.1.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Union

from bertsym.symbol.attributes import decimal, flag, integer
from bertsym.symbol.node import Node

Default = Union[bool, int, float]


class Effect(enum.Enum):
    """What an operator does with the elements of its inputs."""

    IDENTITY = enum.auto()  #: returns its input
    DROPOUT = enum.auto()  #: returns its input at inference
    CAST = enum.auto()  #: changes the dtype
    RESHAPE = enum.auto()  #: changes the shape, keeps the order of the elements
    TRANSPOSE = enum.auto()  #: permutes the axes
    BROADCAST = enum.auto()  #: repeats axes of size 1
    REPEAT = enum.auto()  #: repeats axes of any size
    SLICE = enum.auto()  #: takes ranges of axes
    CONCATENATE = enum.auto()
    ADD = enum.auto()  #: of tensors, element-wise or with broadcasting, as the following
    SUBTRACT = enum.auto()
    MULTIPLY = enum.auto()
    DIVIDE = enum.auto()
    MAXIMUM = enum.auto()
    MINIMUM = enum.auto()
    SCALAR = enum.auto()  #: arithmetic with a number
    FUNCTION = enum.auto()  #: a function of each element
    BATCHED_PRODUCT = enum.auto()  #: matrix products, one for each item of a batch
    SOFTMAX = enum.auto()
    LOSS = enum.auto()  #: ends a training graph


@dataclass(frozen=True)
class OperatorTraits:
    """One operator. Inputs are given by their positions."""

    effect: Effect | None = None
    aliases: tuple[str, ...] = ()
    defaults: Mapping[str, Default] = field(default_factory=dict)
    shape_only: int | None = None  #: only the shapes of the inputs from this one on matter
    parameters: tuple[int, ...] = ()  #: inputs that are parameters or auxiliary states
    auxiliary: tuple[int, ...] = ()  #: inputs that the operator changes (FMutateInputs in MXNet's sources)
    label: int | None = None
    lengths: int | None = None  #: the input with the lengths of sequences
    indices: int | None = None  #: the input by which MXNet reads another one, without a check of its bounds


_REDUCTION: dict[str, Default] = {"keepdims": False, "exclude": False}
_SOFTMAX: dict[str, Default] = {"axis": -1, "use_length": False}
_SCALAR: dict[str, Default] = {"scalar": 1.0}
_SEQUENCE: dict[str, Default] = {"use_sequence_length": False, "axis": 0}

TRAITS: Mapping[str, OperatorTraits] = {
    "Activation": OperatorTraits(Effect.FUNCTION),
    "BatchNorm": OperatorTraits(parameters=(1, 2, 3, 4), auxiliary=(3, 4)),
    "BatchNorm_v1": OperatorTraits(parameters=(1, 2, 3, 4), auxiliary=(3, 4)),
    "BlockGrad": OperatorTraits(Effect.IDENTITY, ("stop_gradient",)),
    "CTCLoss": OperatorTraits(Effect.LOSS, label=1),
    "Cast": OperatorTraits(Effect.CAST, ("cast",)),
    "Concat": OperatorTraits(Effect.CONCATENATE, ("concat",), {"dim": 1}),
    "Convolution": OperatorTraits(parameters=(1, 2)),
    "Convolution_v1": OperatorTraits(parameters=(1, 2)),
    "CuDNNBatchNorm": OperatorTraits(parameters=(1, 2, 3, 4), auxiliary=(3, 4)),
    "Deconvolution": OperatorTraits(parameters=(1, 2)),
    "Dropout": OperatorTraits(Effect.DROPOUT, defaults={"p": 0.5}),
    "Embedding": OperatorTraits(parameters=(1,)),
    "Flatten": OperatorTraits(Effect.RESHAPE, ("flatten",)),
    "FullyConnected": OperatorTraits(defaults={"flatten": True, "no_bias": False}, parameters=(1, 2)),
    "GroupNorm": OperatorTraits(parameters=(1, 2)),
    "IdentityAttachKLSparseReg": OperatorTraits(parameters=(1,), auxiliary=(1,)),
    "InstanceNorm": OperatorTraits(parameters=(1, 2)),
    "L2Normalization": OperatorTraits(defaults={"eps": 1e-10}),
    "LayerNorm": OperatorTraits(defaults={"axis": -1, "eps": 1e-5}, parameters=(1, 2)),
    "LeakyReLU": OperatorTraits(Effect.FUNCTION, defaults={"slope": 0.25}, parameters=(1,)),
    "LinearRegressionOutput": OperatorTraits(Effect.LOSS, label=1),
    "LogisticRegressionOutput": OperatorTraits(Effect.LOSS, label=1),
    "MAERegressionOutput": OperatorTraits(Effect.LOSS, label=1),
    "MakeLoss": OperatorTraits(Effect.LOSS),
    "RNN": OperatorTraits(defaults={"state_outputs": False}, parameters=(1,)),
    "ROIPooling": OperatorTraits(indices=1),
    "Reshape": OperatorTraits(Effect.RESHAPE, ("reshape",), {"reverse": False}),
    "SVMOutput": OperatorTraits(Effect.LOSS, label=1),
    "SequenceLast": OperatorTraits(defaults=_SEQUENCE, lengths=1),
    "SequenceMask": OperatorTraits(defaults={**_SEQUENCE, "value": 0.0}, lengths=1),
    "SequenceReverse": OperatorTraits(defaults=_SEQUENCE, lengths=1),
    "SliceChannel": OperatorTraits(aliases=("split",), defaults={"axis": 1, "squeeze_axis": False}),
    "SoftmaxActivation": OperatorTraits(Effect.SOFTMAX),
    "SoftmaxOutput": OperatorTraits(
        Effect.LOSS, ("Softmax",), {"multi_output": False, "preserve_shape": False}, label=1
    ),
    "SwapAxis": OperatorTraits(Effect.TRANSPOSE, ("swapaxes",), {"dim1": 0, "dim2": 0}),
    "_arange": OperatorTraits(defaults={"step": 1.0, "repeat": 1, "infer_range": False}),
    "_contrib_BatchNormWithReLU": OperatorTraits(parameters=(1, 2, 3, 4), auxiliary=(3, 4)),
    "_contrib_MultiBoxTarget": OperatorTraits(label=1),
    "_contrib_PSROIPooling": OperatorTraits(indices=1),
    "_contrib_ROIAlign": OperatorTraits(indices=1),
    "_contrib_RROIAlign": OperatorTraits(indices=1),
    "_contrib_SparseEmbedding": OperatorTraits(parameters=(1,)),
    "_contrib_SyncBatchNorm": OperatorTraits(parameters=(1, 2, 3, 4), auxiliary=(3, 4)),
    "_contrib_arange_like": OperatorTraits(defaults={"repeat": 1}, shape_only=0),
    "_contrib_index_copy": OperatorTraits(indices=1),
    "_contrib_interleaved_matmul_selfatt_qk": OperatorTraits(Effect.BATCHED_PRODUCT),
    "_contrib_quantized_batch_norm": OperatorTraits(auxiliary=(3, 4)),
    "_copy": OperatorTraits(Effect.IDENTITY, ("identity",)),
    "_div_scalar": OperatorTraits(Effect.SCALAR, ("_DivScalar",), _SCALAR),
    "_grad_add": OperatorTraits(Effect.ADD),
    "_linalg_gemm2": OperatorTraits(Effect.BATCHED_PRODUCT, ("linalg_gemm2",)),
    "_maximum": OperatorTraits(Effect.MAXIMUM, ("_Maximum",)),
    "_minimum": OperatorTraits(Effect.MINIMUM, ("_Minimum",)),
    "_minus_scalar": OperatorTraits(Effect.SCALAR, ("_MinusScalar",), _SCALAR),
    "_mul_scalar": OperatorTraits(Effect.SCALAR, ("_MulScalar",), _SCALAR),
    "_npx_batch_norm": OperatorTraits(parameters=(1, 2, 3, 4), auxiliary=(3, 4)),
    "_plus_scalar": OperatorTraits(Effect.SCALAR, ("_PlusScalar",), _SCALAR),
    "_scatter_set_nd": OperatorTraits(indices=2),
    "_sparse_retain": OperatorTraits(indices=1),
    "_split_v2": OperatorTraits(defaults={"axis": 1, "squeeze_axis": False, "sections": 0}),
    "_greater_equal_scalar": OperatorTraits(defaults=_SCALAR),
    "_maximum_scalar": OperatorTraits(defaults=_SCALAR),
    "_minimum_scalar": OperatorTraits(defaults=_SCALAR),
    "_power_scalar": OperatorTraits(defaults=_SCALAR),
    "_rdiv_scalar": OperatorTraits(defaults=_SCALAR),
    "_rminus_scalar": OperatorTraits(defaults=_SCALAR),
    "add_n": OperatorTraits(Effect.ADD, ("ElementWiseSum",)),
    "amp_cast": OperatorTraits(Effect.CAST),
    "batch_dot": OperatorTraits(Effect.BATCHED_PRODUCT, defaults={"transpose_a": False, "transpose_b": False}),
    "batch_take": OperatorTraits(indices=1),
    "broadcast_add": OperatorTraits(Effect.ADD, ("broadcast_plus",)),
    "broadcast_axis": OperatorTraits(Effect.BROADCAST, ("broadcast_axes",)),
    "broadcast_div": OperatorTraits(Effect.DIVIDE),
    "broadcast_like": OperatorTraits(Effect.BROADCAST, shape_only=1),
    "broadcast_maximum": OperatorTraits(Effect.MAXIMUM),
    "broadcast_minimum": OperatorTraits(Effect.MINIMUM),
    "broadcast_mul": OperatorTraits(Effect.MULTIPLY),
    "broadcast_sub": OperatorTraits(Effect.SUBTRACT, ("broadcast_minus",)),
    "broadcast_to": OperatorTraits(Effect.BROADCAST),
    "elemwise_add": OperatorTraits(Effect.ADD, ("_Plus", "_add", "_plus")),
    "elemwise_div": OperatorTraits(Effect.DIVIDE, ("_Div", "_div")),
    "elemwise_mul": OperatorTraits(Effect.MULTIPLY, ("_Mul", "_mul")),
    "elemwise_sub": OperatorTraits(Effect.SUBTRACT, ("_Minus", "_minus", "_sub")),
    "erf": OperatorTraits(Effect.FUNCTION),
    "expand_dims": OperatorTraits(Effect.RESHAPE),
    "fill_element_0index": OperatorTraits(indices=2),
    "gather_nd": OperatorTraits(indices=1),
    "log_softmax": OperatorTraits(Effect.SOFTMAX, defaults=_SOFTMAX, lengths=1),
    "make_loss": OperatorTraits(Effect.LOSS),
    "max": OperatorTraits(aliases=("max_axis",), defaults=_REDUCTION),
    "mean": OperatorTraits(defaults=_REDUCTION),
    "min": OperatorTraits(aliases=("min_axis",), defaults=_REDUCTION),
    "ones_like": OperatorTraits(shape_only=0),
    "pick": OperatorTraits(aliases=("choose_element_0index",), defaults={"axis": -1, "keepdims": False}, indices=1),
    "prod": OperatorTraits(defaults=_REDUCTION),
    "relu": OperatorTraits(Effect.FUNCTION),
    "repeat": OperatorTraits(Effect.REPEAT),
    "reshape_like": OperatorTraits(Effect.RESHAPE, shape_only=1),
    "scatter_nd": OperatorTraits(indices=1),
    "shape_array": OperatorTraits(shape_only=0),
    "sigmoid": OperatorTraits(Effect.FUNCTION),
    "size_array": OperatorTraits(shape_only=0),
    "slice": OperatorTraits(Effect.SLICE, ("crop",)),
    "slice_axis": OperatorTraits(Effect.SLICE),
    "slice_like": OperatorTraits(Effect.SLICE, shape_only=1),
    "softmax": OperatorTraits(Effect.SOFTMAX, defaults=_SOFTMAX, lengths=1),
    "softmax_cross_entropy": OperatorTraits(Effect.LOSS, label=1),
    "softmin": OperatorTraits(defaults=_SOFTMAX, lengths=1),
    "softsign": OperatorTraits(Effect.FUNCTION),
    "squeeze": OperatorTraits(Effect.RESHAPE),
    "stack": OperatorTraits(Effect.CONCATENATE, defaults={"axis": 0}),
    "sum": OperatorTraits(aliases=("sum_axis",), defaults=_REDUCTION),
    "take": OperatorTraits(defaults={"axis": 0}, indices=1),
    "tanh": OperatorTraits(Effect.FUNCTION),
    "tile": OperatorTraits(Effect.REPEAT),
    "transpose": OperatorTraits(Effect.TRANSPOSE),
    "zeros_like": OperatorTraits(shape_only=0),
}
_BY_NAME = {name: traits for operator, traits in TRAITS.items() for name in (operator, *traits.aliases)}
_NONE = OperatorTraits()


def traits(op: str) -> OperatorTraits:
    """Look up an operator by its name or an alias; an operator that is not in the table has no traits."""
    return _BY_NAME.get(op, _NONE)


def operators_with(*effects: Effect) -> frozenset[str]:
    """Names and aliases of the operators that have one of the effects."""
    return frozenset(name for name, found in _BY_NAME.items() if found.effect in effects)


def with_aliases(*operators: str) -> frozenset[str]:
    """The names of operators and all their aliases."""
    return frozenset(name for op in operators for name in (op, *TRAITS[op].aliases))


def integer_of(node: Node, key: str) -> int:
    """A whole-number attribute of a node, or the operator's default."""
    return integer(node.attrs, key, int(traits(node.op).defaults[key]))


def decimal_of(node: Node, key: str) -> float:
    """A numeric attribute of a node, or the operator's default."""
    return decimal(node.attrs, key, float(traits(node.op).defaults[key]))


def flag_of(node: Node, key: str) -> bool:
    """A boolean attribute of a node, or the operator's default."""
    return flag(node.attrs, key, bool(traits(node.op).defaults[key]))
