"""Outputs of the encoder: one chosen, named output node, which a head can read."""

from __future__ import annotations

from typing import Any

from bertsym.encoders.config import BertConfig
from bertsym.encoders.forms import Form
from bertsym.encoders.graph import record_encoder
from bertsym.encoders.parameters import POOLER, parameter_shapes
from bertsym.encoders.spec import EncoderSpec
from bertsym.mxnet_runtime import mx
from bertsym.symbol.graph import SymbolGraph
from bertsym.symbol.recorder import sym


def output_symbol(config: BertConfig, output: str, form: Form = Form()) -> Any:
    """Build `output_graph` as an ``mx.sym.Symbol``."""
    return mx.sym.load_json(output_graph(config, output, form).to_json())


def output_graph(config: BertConfig, output: str, form: Form = Form()) -> SymbolGraph:
    """Build the encoder's graph, ending in a node named `output` (a key of ``catalogue.OUTPUTS``).

    Shapes: ``cls``, ``pooled`` and ``mean`` (N, U); ``sequence`` (N, T, U); float32.
    """
    graph: SymbolGraph = record_output(config, output, form).graph()
    return graph


def record_output(config: BertConfig, output: str, form: Form) -> Any:
    """The RecordedSymbol of `output_graph`."""
    return {"cls": _cls, "pooled": _pooled, "mean": _mean, "sequence": _sequence}[output](config, form)


def output_parameters(config: BertConfig, output: str) -> list[str]:
    """List the names of the parameters of `output_symbol(config, output)`."""
    return list(parameter_shapes(config, pooler=output == "pooled"))


def _cls(config: BertConfig, form: Form) -> Any:
    encoded = record_encoder(EncoderSpec(config, activation=config.activation), form, first_only=True)
    first = sym.slice_axis(encoded, axis=1, begin=0, end=1, name="cls_slice")
    return sym.reshape(first, shape=(-1, config.units), name="cls")


def _pooled(config: BertConfig, form: Form) -> Any:
    weight, bias = (sym.var(name, shape=parameter_shapes(config)[name]) for name in POOLER)
    dense = sym.FullyConnected(
        _cls(config, form), weight, bias, num_hidden=config.units, flatten=False, name="bertmodel0_pooler"
    )
    return sym.Activation(dense, act_type="tanh", name="pooled")


def _sequence(config: BertConfig, form: Form) -> Any:
    encoded = record_encoder(EncoderSpec(config, activation=config.activation), form)
    valid_length = encoded.get_internals()["data2"]
    return sym.SequenceMask(encoded, valid_length, use_sequence_length=True, axis=1, name="sequence")


def _mean(config: BertConfig, form: Form) -> Any:
    sequence = _sequence(config, form)
    total = sym.sum(sequence, axis=1, name="mean_total")
    # The cast lets callers bind integer lengths.
    count = sym.Cast(sequence.get_internals()["data2"], dtype="float32", name="mean_count_float")
    count = sym.expand_dims(count, axis=1, name="mean_count")
    return sym.broadcast_div(total, count, name="mean")
