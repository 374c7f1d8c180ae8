"""MPNet: biases of scores by relative position, in every form, and a constant of buckets that no training changes."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import PIECES, WORDS, Result, Tables
from family_models import CLASSES, CONFIGS, ENDINGS, LABELS, encoder_weights, head_weights
from runs import OPTIONS, Recorder, Run, files
from safetensors.numpy import load_file, save_file

from bertsym import Bundle, ExportOptions, QuantizeOptions, export, lower, open_model, quantize
from bertsym.acceleration.graphs import build_training_symbol
from bertsym.encoders.forms import FORMS
from bertsym.encoders.parameters import RELATIVE_BIAS, RELATIVE_BUCKETS
from bertsym.encoders.relative_positions import position_buckets
from bertsym.inference.mxnet_predictor import MXNetPredictor
from bertsym.mxnet_runtime import mx
from bertsym.reference.functions import relative_buckets
from bertsym.symbol.params import ParamsFile
from bertsym.text.features import Features
from bertsym.text.tokenizer import Encoded
from bertsym.verifier import reference_outputs

Cli = Callable[..., Result]


def write_mpnet(folder: Path, task: str | None = None, **changes: Any) -> Path:
    """The small MPNet as transformers stores it, with the head for a `task`; keywords change config.json."""
    weights, config = encoder_weights("mpnet"), {**CONFIGS["mpnet"], **changes}
    if task is not None:
        weights = {f"mpnet.{name}": array for name, array in weights.items()} | head_weights("mpnet", task)
        config["architectures"] = [CLASSES["mpnet"] + ENDINGS[task]]
        config["id2label"] = {str(i): f"class {i}" for i in range(LABELS)}
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(config))
    vocabulary = ["<s>", "<pad>", "</s>", "<unk>", "[UNK]", "<mask>", *WORDS, *PIECES]
    (folder / "vocab.txt").write_text("\n".join(vocabulary) + "\n")
    (folder / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "MPNetTokenizer"}))
    save_file(weights, folder / "model.safetensors")
    return folder


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_mpnet(tmp_path_factory.mktemp("mpnet"))


@pytest.fixture(scope="module")
def base(source: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Prefix of the headless bundle."""
    return export(f"hf:{source}", tmp_path_factory.mktemp("base") / "m").bundle.prefix


def test_buckets_are_those_of_the_reference() -> None:
    for length in (1, 9, 130, 512):
        np.testing.assert_array_equal(position_buckets(length, 32), relative_buckets(length, 32))


@pytest.mark.parametrize("form", FORMS)
def test_every_form_is_verified_and_becomes_every_other_form(form: str, source: Path, tmp_path: Path) -> None:
    """Lowering compares the outputs of both forms."""
    prefix = export(f"hf:{source}", tmp_path / form, ExportOptions("sequence", form=form)).bundle.prefix
    encoder = open_model(prefix).encoder
    assert encoder is not None
    assert (encoder.family, encoder.form.name, encoder.relative_buckets) == ("mpnet", form, 32)
    assert (encoder.position_offset, encoder.max_length) == (2, 38)
    for other in FORMS:
        lowered = lower(prefix, tmp_path / f"{form}-{other}", form=other)
        assert lowered.verified
        assert isinstance(lowered.bundle, Bundle)
        assert lowered.bundle.signature.family == "mpnet"


@pytest.mark.parametrize("task", ENDINGS)
def test_trained_heads_are_verified_without_token_types_too(task: str, tmp_path: Path) -> None:
    folder = write_mpnet(tmp_path / "hf", task)
    for inputs in (("data0", "data1", "data2"), ("data0", "data2")):
        prefix = tmp_path / f"{len(inputs)}"
        done = export(f"hf:{folder}", prefix, ExportOptions(inputs=inputs))
        assert done.bundle.signature.task == task
        assert done.bundle.signature.input_names == inputs


@pytest.mark.parametrize("lengths", [[7], [23, 31, 5], [38] * 9, [30] * 8 + [3]], ids=str)
def test_the_graphs_of_inference_compute_what_the_reference_does(lengths: list[int], base: Path) -> None:
    """One for few tokens, for many, and for many without padding."""
    bundle = Bundle.open(base)
    rng = np.random.default_rng(0)
    rows = [Encoded(rng.integers(53, size=length).tolist(), [0] * length, False, 0) for length in lengths]
    found = MXNetPredictor.from_bundle(bundle)(Features(rows))
    inputs = Features(rows).batch(np.arange(len(rows)), max(lengths), 0, bundle.config)
    (expected,) = reference_outputs(bundle, bundle.params(), [inputs])
    np.testing.assert_allclose(found, expected, rtol=0, atol=2e-5)


@pytest.mark.parametrize("output", ["cls", "mean"])
def test_the_graph_of_training_has_the_gradients_of_the_written_one(output: str, tmp_path: Path) -> None:
    folder = write_mpnet(tmp_path / "hf", hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0)
    bundle = export(f"hf:{folder}", tmp_path / "m", ExportOptions(output), verify=False).bundle
    training = build_training_symbol(bundle.graph(), bundle.params().shapes)
    assert training.constants == {RELATIVE_BUCKETS}
    inputs = Features([Encoded([3, 8, 9, 4], [0] * 4, False, 0), Encoded([3] * 9, [0] * 9, False, 0)]).batch(
        np.arange(2), 9, 0, bundle.config
    )
    arrays = {name: mx.nd.array(array) for name, array in {**bundle.params(), **inputs}.items()}
    trained = [name for name in bundle.params() if name != RELATIVE_BUCKETS]
    gradients = []
    for symbol in (mx.sym.load_json(bundle.graph().to_json()), training.symbol):
        buffers = {name: mx.nd.zeros_like(arrays[name]) for name in trained}
        executor = symbol.bind(mx.cpu(), {name: arrays[name] for name in symbol.list_arguments()}, buffers)
        executor.forward(is_train=True)
        executor.backward(mx.nd.arange(24).reshape((2, 12)) / 24)
        gradients.append({name: buffer.asnumpy() for name, buffer in buffers.items()})
    scale = max(np.abs(gradient).max() for gradient in gradients[0].values())
    assert np.abs(gradients[0][RELATIVE_BIAS]).max() > 1e-3 * scale
    for name in trained:
        np.testing.assert_allclose(gradients[1][name], gradients[0][name], rtol=0, atol=2e-5 * scale, err_msg=name)


def test_fine_tuning_trains_the_biases_and_resumes_to_the_same_bytes(
    base: Path, tables: Tables, tmp_path: Path
) -> None:
    options = dataclasses.replace(OPTIONS, epochs=12, learning_rate=1e-2)
    (tmp_path / "run").mkdir()
    run = Run(base, tables, tmp_path / "run")
    whole, recorder = run.elsewhere("whole"), Recorder()
    whole(recorder, options=options)
    losses = [loss for _, loss in recorder.steps]
    assert np.mean(losses[-6:]) < 0.8 * np.mean(losses[:6])
    run.stopped(14, options=options)
    run(options=options, resume=True)
    assert files(run.out) == files(whole.out)
    before, after = (ParamsFile(Path(f"{prefix}-0000.params")) for prefix in (base, run.out))
    assert np.abs(after[RELATIVE_BIAS] - before[RELATIVE_BIAS]).max() > 1e-3
    np.testing.assert_array_equal(after[RELATIVE_BUCKETS], before[RELATIVE_BUCKETS])


def test_an_optimizer_of_mxnet_leaves_the_buckets(base: Path) -> None:
    bundle = Bundle.open(base)
    symbol = mx.sym.load_json(bundle.graph().to_json())
    module = mx.mod.Module(
        mx.sym.LinearRegressionOutput(symbol, name="loss"), bundle.signature.input_names, ["loss_label"]
    )
    module.bind([("data0", (2, 9)), ("data1", (2, 9)), ("data2", (2,))], [("loss_label", (2, 12))])
    params = {name: mx.nd.array(array) for name, array in bundle.params().items()}
    module.set_params(params, {})
    module.init_optimizer(optimizer="adam", optimizer_params={"learning_rate": 0.1, "wd": 0.1})
    data = [mx.nd.ones((2, 9)), mx.nd.zeros((2, 9)), mx.nd.array([9, 4])]
    module.forward_backward(mx.io.DataBatch(data, [mx.nd.zeros((2, 12))]))
    module.update()
    found = module.get_params()[0]
    np.testing.assert_array_equal(found[RELATIVE_BUCKETS].asnumpy(), params[RELATIVE_BUCKETS].asnumpy())
    assert (found[RELATIVE_BIAS].asnumpy() != params[RELATIVE_BIAS].asnumpy()).any()


def test_a_classifier_is_quantized(tables: Tables, tmp_path: Path) -> None:
    folder = write_mpnet(tmp_path / "hf", "classification")
    (folder / "config.json").write_text(
        (folder / "config.json").read_text().replace("class 0", "no").replace("class 1", "yes")
    )
    prefix = export(f"hf:{folder}", tmp_path / "m", verify=False).bundle.prefix
    done = quantize(prefix, tmp_path / "int8", tables.dev, QuantizeOptions(max_drop=1.0))
    assert len(done.layers) > 4
    params = ParamsFile(Path(f"{tmp_path / 'int8'}-0000.params"))
    np.testing.assert_array_equal(params[RELATIVE_BUCKETS], position_buckets(38, 32))


# Bad input


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"relative_attention_num_buckets": 16}, "relative_attention_num_buckets"),
        ({"max_position_embeddings": 2}, "2 positions, but the first token has the position 2"),
        ({"hidden_act": "silu"}, "hidden_act"),
    ],
)
def test_a_setting_that_is_not_supported_is_named(
    changes: dict[str, Any], message: str, tmp_path: Path, cli: Cli
) -> None:
    done = cli("export", f"hf:{write_mpnet(tmp_path / 'hf', **changes)}", tmp_path / "x")
    assert done.code == 1
    assert message in done.error_line


def test_missing_biases_are_named(tmp_path: Path, cli: Cli) -> None:
    folder = write_mpnet(tmp_path / "hf")
    weights = load_file(folder / "model.safetensors")
    del weights["encoder.relative_attention_bias.weight"]
    save_file(weights, folder / "model.safetensors")
    done = cli("export", f"hf:{folder}", tmp_path / "x")
    assert done.code == 1
    assert "1 missing (encoder.relative_attention_bias.weight)" in done.error_line
