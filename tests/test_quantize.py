"""Quantizing: what becomes int8, how well it answers, and when it is refused."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
from conftest import Result, Tables, hugging_face_weights, write_hugging_face
from signed_bundle import SignedBundle

from bertsym import (
    Bundle,
    Classifier,
    FinetuneOptions,
    ModelError,
    QuantizeOptions,
    QuantizeResult,
    SymbolGraph,
    UsageError,
    VerificationError,
    evaluate,
    export,
    finetune,
    inspect,
    quantize,
)
from bertsym.array import Array
from bertsym.bundle import CARD, file_digest
from bertsym.mxnet_runtime import mx
from bertsym.quantization.calibration import CALIBRATIONS
from bertsym.quantization.layer_selection import fewest_kept

Cli = Callable[..., Result]


@pytest.fixture(scope="module")
def quantized(classifier: Path, tables: Tables, tmp_path_factory: pytest.TempPathFactory) -> QuantizeResult:
    """The classifier in int8, calibrated on the training table."""
    return quantize(classifier, tmp_path_factory.mktemp("int8") / "happy", tables.train, dev=tables.dev)


def copy_of(bundle: Bundle, folder: Path) -> Path:
    """The same bundle elsewhere, to be damaged."""
    for path in bundle.prefix.parent.glob(f"{bundle.prefix.name}-*"):
        (folder / path.name).write_bytes(path.read_bytes())
    return folder / bundle.prefix.name


def test_manifest_and_card_have_the_training_and_the_metrics_of_both_models(
    quantized: QuantizeResult, classifier: Path
) -> None:
    manifest, card = quantized.bundle.manifest, quantized.bundle.text(CARD)
    assert manifest["quantization"]["metrics"] == {
        "float32": quantized.float32.metrics,
        "int8": quantized.int8.metrics,
    }
    training = Bundle.open(classifier).manifest["training"]
    assert manifest["base"]["training"] == training
    for name, value in quantized.int8.metrics.items():
        assert f"| {name} | {quantized.float32.metrics[name]:.4f} | {value:.4f} |" in card
    assert training["data"]["train"]["sha256"] in card
    assert "(bindings of MXNet 1.5)" not in card  # which does not run int8


# What is int8


def test_the_products_of_the_encoder_are_int8_and_the_head_is_not(quantized: QuantizeResult) -> None:
    layers = ["query_key_value", "proj", "positionwiseffn0_ffn_1", "positionwiseffn0_ffn_2"]
    last = ["query", "key", "value", *layers[1:]]
    assert list(quantized.layers) == [
        *(f"bertencoder0_transformer0_{name}" for name in layers),
        *(f"bertencoder0_transformer1_{name}" for name in last),
    ]
    assert list(quantized.kept) == ["fc-finetune"]
    assert inspect(quantized.bundle.prefix).int8 == list(quantized.layers)


def test_normalisation_softmax_and_attention_stay_float32(quantized: QuantizeResult) -> None:
    graph = SymbolGraph.load(quantized.bundle.path("symbol.json"))
    changed = {node.name for node in graph.nodes if node.op.startswith(("_sg_", "_contrib_quantize"))}
    names = {"LayerNorm": 5, "softmax": 3, "batch_dot": 4, "FullyConnected": 1}
    assert {op: len(graph.find(op=op)) for op in names} == names
    # What reads a layer reads float32, but the second product of the feed-forward layers, which reads int8.
    assert len(changed) == len(quantized.layers) + len(graph.find(op="_contrib_quantize_v2"))
    assert len(graph.find(op="_contrib_quantize_v2")) < len(quantized.layers)


@pytest.mark.parametrize(("granularity", "types"), [("channel-wise", {"<f4"}), ("tensor-wise", {"<f4", "i1"})])
def test_weights_have_one_scale_and_are_int8_in_the_file_or_a_scale_for_each_output(
    granularity: str, types: set[str], classifier: Path, tables: Tables, tmp_path: Path
) -> None:
    made = quantize(classifier, tmp_path / "q", tables.train, QuantizeOptions(granularity=granularity), dev=tables.dev)
    infos, before = made.bundle.params().infos, Bundle.open(classifier).params().infos
    assert {info.dtype for info in infos.values()} == types
    ratio = sum(info.nbytes for info in infos.values()) / sum(info.nbytes for info in before.values())
    assert ratio == 1 if granularity == "channel-wise" else ratio < 0.5
    assert made.int8.agreement > 0.9


def test_the_bundle_records_its_precision_and_quantization(
    quantized: QuantizeResult, tables: Tables, classifier: Path
) -> None:
    signature, manifest = quantized.bundle.signature, quantized.bundle.manifest
    assert (signature.precision, signature.kind, signature.minimum_mxnet) == ("int8", "classifier", "1.9.0")
    assert signature.class_names == Bundle.open(classifier).signature.class_names
    how = manifest["quantization"]
    assert how["calibration"]["kind"] == "naive"
    assert how["calibration"]["rows"] == 90
    assert how["calibration"]["sha256"] == Bundle.open(classifier).manifest["training"]["data"]["train"]["sha256"]
    assert list(how["float32_layers"]) == ["fc-finetune"]


def test_the_same_command_writes_the_same_bytes(quantized: QuantizeResult, classifier: Path, tables: Tables) -> None:
    again = quantize(classifier, quantized.bundle.prefix.with_name("again"), tables.train, dev=tables.dev)
    assert again.bundle.manifest["files"] == quantized.bundle.manifest["files"]


# How it answers


def test_evaluate_finds_the_metrics_that_were_printed(quantized: QuantizeResult, tables: Tables) -> None:
    found = evaluate(quantized.bundle.prefix, tables.dev)
    assert found.metrics == quantized.int8.metrics
    assert quantized.float32.agreement == 1.0


def test_int8_predictions_are_close_to_those_of_float32_but_not_equal(
    quantized: QuantizeResult, classifier: Path, tables: Tables
) -> None:
    texts = [line.split("\t")[1] for line in tables.dev.read_text().splitlines()[1:]]
    mine, theirs = (
        np.array([list(answer.probabilities.values()) for answer in Classifier(prefix).predict(texts)])
        for prefix in (quantized.bundle.prefix, classifier)
    )
    assert 0 < np.abs(mine - theirs).max() < 0.1
    assert (mine.argmax(axis=1) == theirs.argmax(axis=1)).mean() == quantized.int8.agreement > 0.9


def forward(module: object, inputs: Sequence[Array]) -> Array:
    batch = mx.io.DataBatch([mx.nd.array(array) for array in inputs])
    module.forward(batch, is_train=False)  # type: ignore[attr-defined]
    return np.asarray(module.get_outputs()[0].asnumpy())  # type: ignore[attr-defined]


def shapes_of(inputs: Sequence[Array]) -> list[tuple[str, tuple[int, ...]]]:
    return [(f"data{i}", array.shape) for i, array in enumerate(inputs)]


def test_the_output_of_each_length_does_not_depend_on_other_lengths(
    quantized: QuantizeResult, classifier: Path
) -> None:
    """oneDNN's operators keep weights and primitives from one forward to the next: none of another length."""
    symbol, arg_params, _ = mx.model.load_checkpoint(str(quantized.bundle.prefix), 0)
    names = ("data0", "data1", "data2")
    reshaped = mx.mod.Module(symbol, names, None)
    block = mx.gluon.SymbolBlock.imports(
        str(quantized.bundle.path("symbol.json")), list(names), str(quantized.bundle.path("0000.params"))
    )
    original = mx.mod.Module(mx.model.load_checkpoint(str(classifier), 0)[0], names, None)
    rng = np.random.default_rng(0)
    for batch, length in ((2, 40), (1, 1), (3, 7), (5, 23), (1, 40), (2, 40)):
        ids = rng.integers(2, 53, (batch, length)).astype(np.float32)
        lengths = np.maximum(1, length - np.arange(batch, dtype=np.float32) * (length // 3))
        inputs = (ids, np.zeros_like(ids), lengths)
        alone = mx.mod.Module(symbol, names, None)
        for module in (alone, reshaped, original):
            if not module.binded:
                module.bind(shapes_of(inputs), for_training=False)
                params = arg_params if module is not original else mx.model.load_params(str(classifier), 0)[0]
                module.set_params(params, {})
            module.reshape(shapes_of(inputs))
        expected = forward(alone, inputs)
        assert np.array_equal(forward(alone, inputs), expected)
        assert np.array_equal(forward(reshaped, inputs), expected)
        assert np.array_equal(block(*map(mx.nd.array, inputs)).asnumpy(), expected)
        assert np.abs(forward(original, inputs) - expected).max() < 0.2


# Layers that stay float32


def test_as_few_layers_as_possible_stay_float32() -> None:
    layers = [f"layer {i}" for i in range(10)]
    for needed in range(1, 10):
        asked: list[int] = []

        def holds(kept: Sequence[str], needed: int = needed, asked: list[int] = asked) -> bool:
            asked.append(len(kept))
            return len(kept) >= needed

        assert fewest_kept(layers, holds) == layers[:needed]
        assert len(asked) == len(set(asked)) <= 8
    assert fewest_kept(layers, lambda kept: False) is None
    assert fewest_kept(layers[:1], lambda kept: True) is None


@pytest.fixture
def corrupted(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every tensor gets a range in which its values are all next to zero, as outliers would do."""
    quantizer = quantize.__globals__["GraphQuantizer"]
    calibrated = quantizer.calibrate

    def calibrate(self: object, *arguments: object) -> None:
        calibrated(self, *arguments)
        self._ranges = dict.fromkeys(self._ranges, (-1e6, 1e6))  # type: ignore[attr-defined]

    monkeypatch.setattr(quantizer, "calibrate", calibrate)


@pytest.mark.usefixtures("corrupted")
def test_layers_that_lower_the_metric_stay_float32(classifier: Path, tables: Tables, tmp_path: Path) -> None:
    made = quantize(classifier, tmp_path / "q", tables.train, dev=tables.dev)
    outside, *sensitive = made.kept
    assert outside == "fc-finetune"
    assert 0 < len(sensitive) < len(sensitive) + len(made.layers)
    assert all("sensitive" in made.kept[name] for name in sensitive)
    assert made.float32.metrics["accuracy"] - made.int8.metrics["accuracy"] <= 0.01
    graph = SymbolGraph.load(made.bundle.path("symbol.json"))
    assert {graph.node(name).op for name in sensitive} == {"FullyConnected"}


@pytest.mark.usefixtures("corrupted")
def test_a_bundle_that_lost_too_much_accuracy_is_not_written(
    classifier: Path, tables: Tables, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(quantize.__globals__["_Choice"].kept.__globals__, "fewest_kept", lambda layers, good: None)
    with pytest.raises(VerificationError, match=r"int8 is not good enough: accuracy 1\.0+ falls by 0\.\d+"):
        quantize(classifier, tmp_path / "q", tables.train, dev=tables.dev)
    assert list(tmp_path.iterdir()) == []


@pytest.fixture(scope="module")
def one_layer(tables: Tables, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Prefix of a classifier of one layer that has learned `tables`."""
    folder = tmp_path_factory.mktemp("one")
    source = write_hugging_face(folder / "hf", hugging_face_weights(num_hidden_layers=1), num_hidden_layers=1)
    base = export(f"hf:{source}", folder / "base", verify=False).bundle.prefix
    options = FinetuneOptions(epochs=16, batch_size=16, learning_rate=1e-2, max_length=24)
    return finetune(base, tables.train, tables.dev, folder / "classifier", options=options).bundle.prefix


# Calibration


def test_naive_ranges_are_the_extremes_and_entropy_cuts_off_rare_elements() -> None:
    values = np.random.default_rng(0).normal(size=(4, 5000)).astype(np.float32)
    values[3, 0] = 100
    found = {}
    for name, kind in CALIBRATIONS.items():
        collector = kind()
        for row in values:
            collector.add(row)
        found[name] = collector.range()
    assert found["naive"] == (float(values.min()), 100.0)
    least, greatest = found["entropy"]
    assert least == -greatest
    assert 2 < greatest < 10
    positive = CALIBRATIONS["entropy"]()
    positive.add(np.abs(values[0]))
    assert positive.range()[0] == 0.0


def test_entropy_calibration_writes_a_working_model(cli: Cli, one_layer: Path, tables: Tables, tmp_path: Path) -> None:
    result = cli(
        *("quantize", one_layer, tmp_path / "q", "--calibrate", tables.dev),
        *("--calibration-method", "entropy", "--rows", 8, "--max-drop", 0.2),
    )
    assert result.code == 0, result.err
    assert "calibrating on 8 of 21 rows" in result.err
    assert evaluate(tmp_path / "q", tables.dev).metrics["accuracy"] > 0.6


# The command


def test_the_command_prints_both_side_by_side(
    cli: Cli, classifier: Path, tables: Tables, tmp_path: Path, quantized: QuantizeResult
) -> None:
    result = cli("quantize", classifier, tmp_path / "q", "--calibrate", tables.train, "--dev", tables.dev)
    lines = {re.split(r" {2,}", line)[0]: line.split()[-2:] for line in result.out.splitlines()}
    assert result.out.splitlines()[0].split() == ["float32", "int8"]
    for name, value in quantized.int8.metrics.items():
        assert lines[name] == [f"{quantized.float32.metrics[name]:.4f}", f"{value:.4f}"]
    assert lines["agreement with float32"][0] == "1.0000"
    assert float(lines["rows per second"][1]) == pytest.approx(1e3 / float(lines["ms per row"][1]), rel=0.05)
    assert "fc-finetune stays float32" in result.out
    assert cli("evaluate", tmp_path / "q", tables.dev).out.strip().endswith(f"loss {lines['loss'][1]}")


def test_inspect_reports_int8_and_the_inputs(cli: Cli, quantized: QuantizeResult) -> None:
    out = cli("inspect", quantized.bundle.prefix).out
    assert "BERT of 2 layers, 32 units, 4 heads" in out
    assert "10 of 11 layers in int8" in out
    assert "loads in   MXNet 1.9.0 and newer" in out
    assert "`fc-finetune` reads `cls` = [CLS]" in out
    assert json.loads(cli("inspect", quantized.bundle.prefix, "--json").out)["int8"] == list(quantized.layers)


def test_a_bundle_of_one_layer_and_one_of_a_fixed_length_can_be_quantized(
    bundles: dict[str, Path], one_layer: Path, tables: Tables, tmp_path: Path
) -> None:
    options = FinetuneOptions(epochs=1, batch_size=32, max_length=16, whole_sequence=True)
    finetune(bundles["sequence"], tables.train, tables.dev, tmp_path / "whole", options=options)
    made = quantize(tmp_path / "whole", tmp_path / "q", tables.dev, QuantizeOptions(max_drop=1))
    assert made.bundle.signature.length == 16
    assert evaluate(tmp_path / "q", tables.dev).metrics == made.int8.metrics
    made = quantize(one_layer, tmp_path / "q1", tables.dev, QuantizeOptions(max_drop=1))
    assert len(made.layers) == 6


# What is refused


def test_a_bundle_that_can_t_be_quantized_is_refused(
    cli: Cli, bundles: dict[str, Path], quantized: QuantizeResult, classifier: Path, tables: Tables, tmp_path: Path
) -> None:
    def error(*arguments: object, code: int = 1) -> str:
        result = cli("quantize", *arguments)
        assert result.code == code
        assert not list(tmp_path.glob("q-*"))
        return result.error_line

    out, calibrate = tmp_path / "q", ("--calibrate", tables.dev)
    assert "has no head" in error(bundles["cls"], out, *calibrate)
    assert "is already int8" in error(quantized.bundle.prefix, out, *calibrate)
    assert "exists" in error(classifier, quantized.bundle.prefix, *calibrate, code=2)
    assert "is the float32 model itself" in error(classifier, classifier, *calibrate, "--force", code=2)
    assert "at least 1" in error(classifier, out, *calibrate, "--rows", 0, code=2)
    assert "from 0 to 1" in error(classifier, out, *calibrate, "--max-drop", "nan", code=2)
    empty = tmp_path / "empty.tsv"
    empty.write_text("label\ttext\n")
    assert "empty.tsv: no rows" in error(classifier, out, "--calibrate", empty)
    unlabelled = tmp_path / "texts.tsv"
    unlabelled.write_text("text\nthe happy cat\n")
    assert "label" in error(classifier, out, "--calibrate", unlabelled)
    assert cli("quantize", classifier, out, "--calibrate", unlabelled, "--dev", tables.dev).code == 0


def test_names_that_are_not_known_are_refused() -> None:
    with pytest.raises(UsageError, match="calibration 'best' is not one of entropy, naive"):
        QuantizeOptions(calibration="best")
    with pytest.raises(UsageError, match="granularity 'row' is not one of channel-wise, tensor-wise"):
        QuantizeOptions(granularity="row")


def test_other_commands_accept_the_bundle_or_explain_the_refusal(
    cli: Cli, quantized: QuantizeResult, tables: Tables, tmp_path: Path, classifier: Path
) -> None:
    prefix = quantized.bundle.prefix
    assert "is int8" in cli("verify", prefix).error_line
    finetuned = cli("finetune", prefix, "--train", tables.train, "--dev", tables.dev, tmp_path / "f")
    assert "is int8; fine-tune the float32 bundle" in finetuned.error_line
    assert ": expected the " in cli("lower", prefix, tmp_path / "l").error_line
    assert cli("extract", prefix, tmp_path / "e", "--output", "cls").code == 0
    assert "layer 0: max difference" in cli("diff", classifier, prefix, "--run").out


def test_a_graph_that_mxnet_can_t_bind_is_refused_in_one_line(
    cli: Cli, classifier: Path, tables: Tables, tmp_path: Path
) -> None:
    """Biases declare float16, weights are float32."""
    signed = SignedBundle(classifier)
    for graph in signed.graphs:
        for node in graph["nodes"]:
            if node["name"].endswith("_bias"):
                node.setdefault("attrs", {})["__dtype__"] = "2"
    signed.write(tmp_path / "x")
    result = cli("quantize", tmp_path / "x", tmp_path / "out", "--calibrate", tables.dev)
    assert result.code == 1
    assert result.err.splitlines()[-1].startswith(f"Error: {tmp_path / 'x'}: MXNet can't run it: ")


@pytest.mark.parametrize(
    ("path", "value", "why"),
    [
        (("subgraphs", 0, "nodes", 3, "op"), "Custom", "is not a FullyConnected with a bias and at most an activation"),
        (("subgraphs",), [], "has no subgraph"),
        (("attrs", "quantized"), "False", "an output that _sg_mkldnn_fully_connected does not have"),
        (("op",), "Custom", "has the operator 'Custom'|no BERT|'Custom'"),
    ],
)
def test_a_damaged_graph_is_found_before_mxnet_sees_it(
    path: tuple[str | int, ...], value: object, why: str, quantized: QuantizeResult, tmp_path: Path
) -> None:
    prefix = copy_of(quantized.bundle, tmp_path)
    symbol, manifest = (prefix.with_name(f"{prefix.name}-{name}.json") for name in ("symbol", "manifest"))
    graph = json.loads(symbol.read_text())
    # It hands int8 to the next layer, with its range.
    place = next(node for node in graph["nodes"] if node["name"] == "bertencoder0_transformer0_positionwiseffn0_ffn_1")
    for key in path[:-1]:
        place = place[key]
    place[path[-1]] = value
    symbol.write_text(json.dumps(graph))
    document = json.loads(manifest.read_text())
    document["files"]["symbol.json"] = {"sha256": file_digest(symbol), "size": symbol.stat().st_size}
    manifest.write_text(json.dumps(document))
    with pytest.raises(ModelError, match=why):
        Bundle.open(prefix)
