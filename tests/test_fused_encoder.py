"""onnxruntime's fused operators for BERT compute what the engine computes without them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from tools import needs

from bertsym import BertConfig, ModelError
from bertsym.array import Array
from bertsym.encoders.forms import Form
from bertsym.encoders.outputs import output_graph
from bertsym.encoders.parameters import parameter_shapes
from bertsym.execution.engines.fused_onnxruntime import FusedSession
from bertsym.execution.engines.onnxruntime import Session
from bertsym.passes.qkv_folding import fold_qkv
from bertsym.symbol.graph import SymbolGraph
from bertsym.symbol.node import Output

pytestmark = needs("onnx", "onnxruntime")

#: what distinguishes the families
CONFIGS: dict[str, dict[str, Any]] = {
    "bert": {},
    "ernie": {"activation": "relu", "token_type_vocab_size": 4},
    "roberta": {"position_offset": 2, "token_type_vocab_size": 1},
    "distilbert": {"token_type_vocab_size": 0},
    "electra": {"embedding_size": 8},
    "albert": {"embedding_size": 8, "shares_layers": True, "activation": "gelu_tanh"},
    "mpnet": {"relative_buckets": 32, "position_offset": 2, "token_type_vocab_size": 0},
}


def model(family: str, output: str, form: str = "portable") -> tuple[SymbolGraph, dict[str, Array], BertConfig]:
    config = BertConfig(2, 12, 24, 3, 50, max_length=20, **{"family": family, **CONFIGS[family]})
    rng = np.random.default_rng(0)
    params = {
        name: rng.standard_normal(shape).astype(np.float32) * np.float32(0.5)
        for name, shape in parameter_shapes(config).items()
    }
    return output_graph(config, output, Form(form, erf=False)), params, config


def inputs_of(config: BertConfig, lengths: list[int]) -> dict[str, Array]:
    rng = np.random.default_rng(1)
    shape = len(lengths), max(lengths)
    ids, types = rng.integers(50, size=shape), rng.integers(config.segments, size=shape)
    return {
        name: array.astype(np.float32)
        for name, array in (("data0", ids), ("data1", types), ("data2", np.array(lengths)))
    }


@pytest.mark.parametrize("output", ["cls", "pooled", "mean", "sequence"])
@pytest.mark.parametrize("family", [family for family in CONFIGS if family != "mpnet"])
def test_every_output_of_every_family_is_as_without_fusion(family: str, output: str) -> None:
    graph, params, config = model(family, output)
    samples = [inputs_of(config, lengths) for lengths in ([9, 4, 1], [5], [20, 20])]
    shapes = {name: array.shape for name, array in samples[0].items()}
    fused, plain = FusedSession(graph, params, config, shapes, "it"), Session(graph, params, shapes, "it")
    for inputs in samples:
        (one,), (other,) = fused.run(inputs), plain.run(inputs)
        assert one.dtype == np.float32
        np.testing.assert_allclose(one, other, rtol=0, atol=1e-5 * np.abs(other).max())


@pytest.mark.parametrize("form", ["fast", "gluonnlp"])
def test_the_encoder_may_have_any_form(form: str) -> None:
    graph, params, config = model("bert", "cls", form)
    expected_graph, _, _ = model("bert", "cls")
    inputs = inputs_of(config, [9, 4, 1])
    shapes = {name: array.shape for name, array in inputs.items()}
    (found,) = FusedSession(graph, params, config, shapes, "it").run(inputs)
    (expected,) = Session(expected_graph, params, shapes, "it").run(inputs)
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5 * np.abs(expected).max())


def test_query_key_and_value_may_be_folded() -> None:
    graph, params, config = model("bert", "cls")
    inputs = inputs_of(config, [9, 4, 1])
    shapes = {name: array.shape for name, array in inputs.items()}
    (expected,) = Session(graph, params, shapes, "it").run(inputs)
    folded = fold_qkv(graph, params).arg_params
    (found,) = FusedSession(graph, folded, config, shapes, "it").run(inputs)
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5 * np.abs(expected).max())


def test_what_the_operators_cannot_express_is_refused() -> None:
    graph, params, config = model("mpnet", "cls")
    shapes = {name: array.shape for name, array in inputs_of(config, [4]).items()}
    with pytest.raises(ModelError):
        FusedSession(graph, params, config, shapes, "it")
    graph, params, config = model("bert", "sequence")
    graph.set_outputs([Output(node) for node in graph.find("*ffn0_layernorm0_fwd")])
    with pytest.raises(ModelError, match="it: other layers than the last one are read"):
        FusedSession(graph, params, config, shapes, "it")
