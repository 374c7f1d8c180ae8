"""Appearance of nodes: kind of operator, colours, texts in the box."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

from bertsym.drawing.picture import Picture, Shape
from bertsym.symbol.node import Node, Output
from bertsym.web_page import visible


@dataclass(frozen=True)
class Kind:
    """Label and colours of a kind of node, for light and dark pages."""

    label: str
    fill: str
    line: str
    dark_fill: str
    dark_line: str


KINDS = {
    "input": Kind("input", "#ffffff", "#475569", "#12161d", "#a3b0c2"),
    "lookup": Kind("embedding", "#d8f0eb", "#43978a", "#123a35", "#4fa897"),
    "product": Kind("matrix product", "#dae7f8", "#5585bd", "#1a3352", "#6797d0"),
    "norm": Kind("normalisation", "#e2f0d8", "#72a054", "#25391c", "#83b062"),
    "activation": Kind("activation", "#eae2f5", "#8b6cb8", "#33274a", "#a085cc"),
    "arithmetic": Kind("arithmetic", "#f8e5e6", "#bd7479", "#44272a", "#c98086"),
    "shape": Kind("shape, slice", "#eceff3", "#97a1af", "#272e38", "#6f7b8b"),
    "other": Kind("other", "#f8f9fb", "#b3bcc8", "#1c222b", "#596475"),
    "group": Kind("folded", "#f3f7fd", "#5585bd", "#17222f", "#6797d0"),
    "highlight": Kind("[CLS] slice", "#ffc440", "#b45309", "#f2b83c", "#ffe2a0"),
}

INK, MUTED = "#1f2937", "#64707f"
LINE, PATH_LINE = "#a7b0bd", "#3b4a5e"

_OPERATORS = {
    "lookup": "Embedding take gather_nd one_hot pick",
    "product": "FullyConnected Convolution Deconvolution batch_dot dot linalg_gemm linalg_gemm2 RNN "
    "_contrib_interleaved_matmul_selfatt_qk _contrib_interleaved_matmul_selfatt_valatt",
    "norm": "LayerNorm BatchNorm GroupNorm InstanceNorm L2Normalization LRN",
    "activation": "Activation LeakyReLU softmax log_softmax SoftmaxActivation SoftmaxOutput relu sigmoid tanh erf "
    "LinearRegressionOutput LogisticRegressionOutput masked_softmax",
    "shape": "Reshape reshape _npx_reshape transpose expand_dims squeeze Flatten slice slice_axis slice_like "
    "SliceChannel split Concat concat stack tile repeat broadcast_to broadcast_axis broadcast_like reshape_like "
    "SwapAxis Pad Cast cast zeros_like ones_like identity _copy",
    "arithmetic": "add_n ElementWiseSum sqrt square exp log mean sum max min norm negative abs clip where Pooling",
}
_KIND_OF = {operator: kind for kind, operators in _OPERATORS.items() for operator in operators.split()}
_ARITHMETIC = re.compile(
    r"(elemwise|broadcast)_(add|sub|mul|div|plus|minus|power|maximum|minimum)|_\w+_scalar|_(plus|mul|div|minus)"
)

# Attributes that are shown with the operator; with their name if the value alone is unclear.
_SHOWN_ATTRIBUTES = {
    "Dropout": "{p}",
    "LeakyReLU": "{act_type}",
    "Activation": "{act_type}",
    "Reshape": "{shape}",
    "reshape": "{shape}",
    "transpose": "{axes}",
    "expand_dims": "axis {axis}",
    "squeeze": "axis {axis}",
    "slice_axis": "axis {axis}, {begin} to {end}",
    "slice_like": "axes {axes}",
    "_mul_scalar": "{scalar}",
    "_plus_scalar": "{scalar}",
    "_div_scalar": "{scalar}",
    "Cast": "{dtype}",
    "cast": "{dtype}",
    "softmax": "axis {axis}",
    "SequenceMask": "axis {axis}",
    "Convolution": "{kernel}",
    "Pooling": "{pool_type} {kernel}",
    "Concat": "axis {dim}",
}


def kind_of(node: Node) -> str:
    """Return the key in KINDS of a node."""
    if node.is_variable:
        return "input"
    return _KIND_OF.get(node.op) or ("arithmetic" if _ARITHMETIC.fullmatch(node.op) else "other")


def shape_text(shape: Shape | None) -> str:
    """Format a shape as ``N × T × 768``; empty if unknown."""
    if shape is None:
        return ""
    return " × ".join(visible(str(dimension), 24) for dimension in shape) or "scalar"


def describe_attributes(node: Node) -> str:
    """Format the most important attributes of an operator: ``gelu``, ``axis 1, 0 to 1``."""
    try:
        return visible(_SHOWN_ATTRIBUTES.get(node.op, "").format_map(node.attrs), 32)
    except KeyError:  # the attribute has its default
        return ""


def parameter_lines(picture: Picture, node: Node) -> list[str]:
    """List the parameters of a node, grouped by shape: ``weight 768 × 768``."""
    names: dict[str, list[str]] = {}
    for parameter in picture.parameters_of(node):
        names.setdefault(shape_text(picture.shape(Output(parameter))), []).append(parameter_role(parameter.name))
    return [f"{', '.join(roles)} {shape}".rstrip() for shape, roles in names.items()]


def parameter_role(name: str) -> str:
    """Return the last part of a parameter's name: ``weight`` for ``bertencoder0_transformer3_proj_weight``."""
    match = re.search(r"(?:^|[_.])((?:running_|moving_)?[A-Za-z]+)$", name)
    return visible(match[1] if match else name, 32)


def common_prefix(nodes: Iterable[Node]) -> str:
    """Return the common prefix of the operators' names, up to an underscore; empty if it is short."""
    names = [node.name for node in nodes if not node.is_variable]
    if len(names) < 2:
        return ""
    first, last = min(names), max(names)
    length = next((i for i, (a, b) in enumerate(zip(first, last)) if a != b), min(len(first), len(last)))
    prefix = first[: first.rfind("_", 0, length) + 1]
    return prefix if len(prefix) > 8 else ""


def sentence_parts(sentence: str) -> list[tuple[str, bool]]:
    """Split a sentence at its backticks; return each piece and whether it is a name."""
    pieces = sentence.split("`")
    return [(piece, number % 2 == 1) for number, piece in enumerate(pieces) if piece]
