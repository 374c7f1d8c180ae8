"""Graft the fine-tuning head onto an ``mx.sym.Symbol``, and build GluonNLP's finished heads."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from bertsym.array import Array
from bertsym.encoders.catalogue import FINISHED_HEADS, FULLY_CONNECTED, LABEL_NAME, SOFTMAX
from bertsym.encoders.config import INITIALIZER_RANGE, BertConfig
from bertsym.encoders.forms import Form
from bertsym.encoders.inputs import input_shapes
from bertsym.encoders.outputs import record_output
from bertsym.errors import UsageError
from bertsym.mxnet_runtime import mx
from bertsym.symbol.graph import SymbolGraph
from bertsym.symbol.recorder import sym

_Shapes = Sequence[tuple[str, tuple[int, ...]]]


def graft(
    symbol: Any,
    num_classes: int,
    *,
    dropout: float = 0.1,
    whole_sequence: bool = False,
    shapes: _Shapes | None = None,
) -> Any:
    """Graft a classifier onto `symbol`: Dropout -> FullyConnected -> SoftmaxOutput, ready for Module.fit.

    It equals the head of ``fine-tune-model`` in MXNet's Clojure BERT example. The parameters are ``fc-finetune_weight``
    (num_classes, U) and ``fc-finetune_bias`` (num_classes,), the label is ``softmax_label`` (N,), the
    output ``softmax_output`` (N, num_classes).

    `symbol` must have one output, of shape (N, U). FullyConnected would silently flatten (N, T, U),
    which makes the weight (num_classes, T*U) and locks the length: `whole_sequence` allows that. `shapes` are the
    shapes of the inputs, needed for inputs other than those of a BERT.

    Raises UsageError for several outputs, for another rank, and for numbers out of range.
    """
    return mx.sym.SoftmaxOutput(_logits(symbol, num_classes, dropout, whole_sequence, shapes), name=SOFTMAX)


def graft_for_inference(
    symbol: Any,
    num_classes: int,
    *,
    dropout: float = 0.1,
    whole_sequence: bool = False,
    shapes: _Shapes | None = None,
) -> Any:
    """Graft the head of `graft` for prediction: without a label, with the same parameters and output name."""
    return mx.sym.softmax(_logits(symbol, num_classes, dropout, whole_sequence, shapes), name=SOFTMAX)


def _logits(symbol: Any, num_classes: int, dropout: float, whole_sequence: bool, shapes: _Shapes | None) -> Any:
    if num_classes < 2:
        raise UsageError(f"a classifier needs at least 2 classes, not {num_classes}")
    if not 0 <= dropout < 1:
        raise UsageError(f"dropout {dropout} is not in [0, 1)")
    _check_output(symbol, whole_sequence, shapes)
    data = mx.sym.Dropout(symbol, p=dropout, name="dropout-finetune")
    return mx.sym.FullyConnected(data, num_hidden=num_classes, name=FULLY_CONNECTED)


def _check_output(symbol: Any, whole_sequence: bool, shapes: _Shapes | None) -> None:
    outputs = symbol.list_outputs()
    if len(outputs) != 1:
        raise UsageError(
            f"the symbol has {len(outputs)} outputs ({', '.join(outputs)}): choose the output for the classifier, "
            "symbol[NAME]"
        )
    arguments = symbol.list_arguments()
    if any(name.startswith(f"{FULLY_CONNECTED}_") for name in arguments):
        raise UsageError(f"the symbol already has a layer {FULLY_CONNECTED}: graft onto an encoder without a head")
    if shapes is None:
        shapes = [(name, shape) for name, shape in input_shapes(2, 8) if name in arguments]
    _, (shape,), _ = symbol.infer_shape_partial(**dict(shapes))
    if not shape or 0 in shape:
        raise UsageError(f"the shape of {outputs[0]} is unknown: give the shapes of the inputs, shapes=[(NAME, SHAPE)]")
    if len(shape) == 2 and whole_sequence:
        raise UsageError(f"{outputs[0]} has no length to flatten: whole_sequence needs the output 'sequence'")
    if len(shape) != 2 and not whole_sequence:
        raise UsageError(
            f"{outputs[0]} has {len(shape)} dimensions, (N, T, U): a classifier on it would be locked to one length "
            "T; export --output cls, pooled or mean, or ask for it with --whole-sequence"
        )


def head_parameters(symbol: Any, base_arguments: Sequence[str], shapes: _Shapes, seed: int) -> dict[str, Array]:
    """Initialize the parameters of `symbol` that its base does not have; `shapes` are the shapes of the inputs."""
    known = {*base_arguments, LABEL_NAME}
    argument_shapes, _, _ = symbol.infer_shape(**dict(shapes))
    named = zip(symbol.list_arguments(), argument_shapes)
    return initial_parameters({name: shape for name, shape in named if name not in known}, seed)


def initial_parameters(shapes: Mapping[str, tuple[int, ...]], seed: int) -> dict[str, Array]:
    """Initialize a head's float32 parameters: weights normal(0, 0.02), drawn from `seed`, and biases 0."""
    rng = np.random.default_rng(seed)
    return {
        name: np.zeros(shape, np.float32)
        if name.endswith("_bias")
        else rng.standard_normal(shape, np.float32) * np.float32(INITIALIZER_RANGE)
        for name, shape in shapes.items()
    }


def finished_head(config: BertConfig, task: str, num_classes: int, dropout: float = 0.1, form: Form = Form()) -> Any:
    """Build `finished_graph` as an ``mx.sym.Symbol``."""
    return mx.sym.load_json(finished_graph(config, task, num_classes, dropout, form).to_json())


def finished_graph(
    config: BertConfig, task: str, num_classes: int, dropout: float = 0.1, form: Form = Form()
) -> SymbolGraph:
    """Build a BERT with an untrained head that ends in logits, as GluonNLP's ``export.py --task`` writes it.

    ``classification`` (N, num_classes) and ``regression`` (N, 1) read the pooler, ``qa`` (N, T, 2) every
    token. The output node is ``logits``.
    """
    graph: SymbolGraph = record_finished(config, task, num_classes, dropout, form).graph()
    return graph


def record_finished(config: BertConfig, task: str, num_classes: int, dropout: float, form: Form) -> Any:
    """The RecordedSymbol of `finished_graph`."""
    output, prefix = FINISHED_HEADS[task]
    data = record_output(config, output, form)
    if task != "qa":  # GluonNLP's BertForQA has no dropout
        data = sym.Dropout(data, p=dropout, name=f"{prefix}_dropout")
    shapes = finished_shapes(config, task, num_classes)
    parameters = (sym.var(name, shape=shape) for name, shape in shapes.items())
    return sym.FullyConnected(data, *parameters, num_hidden=num_classes, flatten=False, name="logits")


def finished_shapes(config: BertConfig, task: str, num_classes: int) -> dict[str, tuple[int, ...]]:
    """Return name -> shape of the parameters of a finished head: weight and bias."""
    prefix = FINISHED_HEADS[task][1]
    return {f"{prefix}_weight": (num_classes, config.units), f"{prefix}_bias": (num_classes,)}
