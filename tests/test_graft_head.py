"""Grafting heads by the command: untrained ones that plain mxnet fits, and the way back to the base."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from checkpoints import (
    IMAGES,
    array_names,
    bundle_bytes,
    computed,
    conv_checkpoint,
    gluonnlp_checkpoint,
    split_checkpoint,
    texts,
)
from conftest import CONFIG, Result, Tables
from refusals import refusal

from bertsym import (
    Bundle,
    FinetuneOptions,
    NewHead,
    ParamsFile,
    UsageError,
    evaluate,
    finetune,
    graft_head,
    remove_head,
)
from bertsym.array import Array
from bertsym.mxnet_runtime import mx

Cli = Callable[..., Result]

HEADS = {"classification": "cls", "regression": "pooled", "tagging": "sequence", "qa": "sequence"}
UNITS, LENGTH, ROWS = CONFIG["hidden_size"], 6, 16


def learnable(head: str) -> tuple[dict[str, Array], dict[str, Array]]:
    """Texts, and labels of them that a head can learn by their tokens."""
    rng = np.random.default_rng(5)
    ids = rng.integers(6, CONFIG["vocab_size"], size=(ROWS, LENGTH)).astype(np.float32)
    data = {"data0": ids, "data1": np.zeros_like(ids), "data2": np.full(ROWS, LENGTH, np.float32)}
    large = ids > 28
    every: dict[str, dict[str, Array]] = {
        "classification": {"softmax_label": large[:, 1]},
        "regression": {"regression_label": ids[:, 1:2] / 50},
        "tagging": {"softmax_label": np.where(np.arange(LENGTH) == 0, -1, large)},
        "qa": {"start_label": ids.argmax(axis=1), "end_label": ids.argmin(axis=1)},
    }
    return data, {name: label.astype(np.float32) for name, label in every[head].items()}


def loss(head: str, outputs: list[Array], labels: dict[str, Array]) -> float:
    """Mean squared error, or the mean of -log of the probabilities of the labels that count."""
    total = 0.0
    for output, label in zip(outputs, labels.values()):
        if head == "regression":
            return float(((output - label) ** 2).mean())
        counted = label.ravel() >= 0
        chosen = output.reshape(-1, output.shape[-1])[np.arange(label.size), label.ravel().astype(int)]
        total -= float(np.log(chosen[counted]).mean())
    return total


@pytest.mark.parametrize("head", HEADS)
def test_plain_mxnet_fits_a_head_that_was_grafted(
    cli: Cli, bundles: dict[str, Path], tmp_path: Path, head: str
) -> None:
    out = tmp_path / head
    done = cli("graft", bundles[HEADS[head]], out, "--head", head, "--dropout", 0)
    assert done.code == 0, done.err

    symbol = mx.sym.load(f"{out}-train-symbol.json")
    _, arguments, auxiliary = mx.model.load_checkpoint(str(out), 0)
    data, labels = learnable(head)
    batches = mx.io.NDArrayIter(dict(data), dict(labels), batch_size=ROWS)  # it changes them
    module = mx.mod.Module(symbol, data_names=list(data), label_names=list(labels))
    module.bind(batches.provide_data, batches.provide_label)
    module.set_params(arguments, auxiliary)
    module.init_optimizer(optimizer="adam", optimizer_params={"learning_rate": 1e-2})
    mx.random.seed(3)  # of the encoder's dropout
    losses = []
    for _ in range(60):
        module.forward(next(iter(batches)), is_train=True)
        losses.append(loss(head, [output.asnumpy() for output in module.get_outputs()], labels))
        module.backward()
        module.update()
        batches.reset()
    assert np.mean(losses[-5:]) < losses[0] / 2, losses
    assert np.isfinite(losses).all()


@pytest.mark.parametrize("head", HEADS)
def test_the_inference_symbol_is_the_head_on_the_base_in_numpy(
    bundles: dict[str, Path], tmp_path: Path, head: str
) -> None:
    base = bundles[HEADS[head]]
    classes = 2 if head == "qa" else 3
    out = graft_head(base, tmp_path / "out", NewHead(head, classes, seed=4)).bundle.prefix
    params = ParamsFile(f"{out}-0000.params")
    (encoded,) = computed(base, texts())
    expected = encoded @ params["fc-finetune_weight"].T + params["fc-finetune_bias"]
    if head in ("classification", "tagging"):
        exponentials = np.exp(expected - expected.max(axis=-1, keepdims=True))
        expected = exponentials / exponentials.sum(axis=-1, keepdims=True)
    (result,) = computed(out, texts())
    np.testing.assert_allclose(result, expected, atol=1e-5)
    assert params["fc-finetune_weight"].shape == (classes, UNITS)
    assert params["fc-finetune_weight"].std() == pytest.approx(0.02, rel=0.3)
    assert not params["fc-finetune_bias"].any()


def test_the_training_symbol_of_answers_chooses_among_the_tokens(bundles: dict[str, Path], tmp_path: Path) -> None:
    out = graft_head(bundles["sequence"], tmp_path / "out", NewHead("qa")).bundle.prefix
    symbol = mx.sym.load(f"{out}-train-symbol.json")
    assert symbol.list_outputs() == ["start_output", "end_output"]
    _, shapes, _ = symbol.infer_shape(data0=(3, 9), data1=(3, 9), data2=(3,))
    assert shapes == [(3, 9), (3, 9)]


@pytest.mark.parametrize("head", HEADS)
def test_without_the_grafted_head_every_file_is_the_bases_again(
    cli: Cli, bundles: dict[str, Path], tmp_path: Path, head: str
) -> None:
    base = bundles[HEADS[head]]
    assert cli("graft", base, tmp_path / "headed", "--head", head).code == 0
    done = cli("graft", tmp_path / "headed", tmp_path / "back", "--head", "none")
    assert done.code == 0, done.err
    back, original = bundle_bytes(tmp_path / "back"), bundle_bytes(base)
    assert back.keys() == original.keys()
    for name in original.keys() - {"-manifest.json"}:
        assert back[name] == original[name], name
    assert isinstance(Bundle.open(tmp_path / "back"), Bundle)


def test_without_its_head_a_fine_tuned_bundle_is_the_base_with_the_tuned_encoder(
    cli: Cli, bundles: dict[str, Path], classifier: Path, tmp_path: Path
) -> None:
    assert cli("graft", classifier, tmp_path / "base", "--head", "none").code == 0
    written, base = bundle_bytes(tmp_path / "base"), bundle_bytes(bundles["cls"])
    for name in ("-symbol.json", "-tokenizer.json", "-vocab.txt", "-vocab.json", "-signature.json"):
        assert written[name] == base[name], name
    tuned, kept = (ParamsFile(f"{prefix}-0000.params") for prefix in (classifier, tmp_path / "base"))
    assert set(tuned) - set(kept) == {"fc-finetune_weight", "fc-finetune_bias"}
    assert all(tuned[name].tobytes() == kept[name].tobytes() for name in kept)
    assert cli("verify", tmp_path / "base").code == 0


def test_a_grafted_classifier_is_verified_but_not_used_before_it_is_fitted(
    cli: Cli, bundles: dict[str, Path], tables: Tables, tmp_path: Path
) -> None:
    assert cli("graft", bundles["cls"], tmp_path / "new").code == 0
    assert cli("verify", tmp_path / "new").code == 0
    assert "untrained head" in refusal(cli("predict", tmp_path / "new", "--text", "the cat"))
    refused = cli("finetune", tmp_path / "new", "--train", tables.train, "--dev", tables.dev, tmp_path / "tuned")
    assert "has an untrained head, which finetune --task classification can't continue" in refusal(
        refused, tmp_path / "tuned-symbol.json", refused.code
    )


def test_a_fine_tuned_encoder_can_be_fine_tuned_again(classifier: Path, tables: Tables, tmp_path: Path) -> None:
    base = remove_head(classifier, tmp_path / "base").bundle.prefix
    options = FinetuneOptions(epochs=2, batch_size=16, learning_rate=5e-3, max_length=24)
    finetune(base, tables.train, tables.dev, tmp_path / "again", options=options)
    assert evaluate(tmp_path / "again", tables.train).metrics["accuracy"] > 0.9


def test_a_head_on_position_zero_of_an_inner_layer(cli: Cli, bundles: dict[str, Path], tmp_path: Path) -> None:
    out = tmp_path / "inner"
    done = cli("graft", bundles["sequence"], out, "--at", "layer 0", "--cls-slice", "--num-classes", 4)
    assert done.code == 0, done.err
    assert not any("transformer1" in name for name in array_names(out))
    name = "bertencoder0_transformer0_positionwiseffn0_layernorm0_fwd_output"
    (layer,) = computed(bundles["sequence"], texts(), name)
    logits = layer[:, 0] @ ParamsFile(f"{out}-0000.params")["fc-finetune_weight"].T
    expected = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    np.testing.assert_allclose(computed(out, texts())[0], expected, atol=1e-6)


@pytest.mark.parametrize("name", ["classifier", "regression", "qa"])
@pytest.mark.parametrize("version", ["0.8.3", "0.10.0"])
def test_the_heads_of_gluonnlp_are_found_and_replaced(cli: Cli, tmp_path: Path, name: str, version: str) -> None:
    if (version, name) == ("0.8.3", "regression"):
        name = "static_classifier"
    source = gluonnlp_checkpoint(tmp_path, name, version)
    done = cli("graft", source, tmp_path / "base", "--head", "none")
    assert done.code == 0, done.err
    output = json.loads(Path(f"{tmp_path / 'base'}-signature.json").read_text())["outputs"][0]["name"]
    inputs = texts(8)
    np.testing.assert_array_equal(computed(tmp_path / "base", inputs)[0], computed(source, inputs, output)[0])
    head = "tagging" if name == "qa" else "classification"
    if name != "static_classifier":
        assert cli("graft", tmp_path / "base", tmp_path / "new", "--head", head, "--num-classes", 5).code == 0
        assert computed(tmp_path / "new", inputs)[0].shape[-1] == 5
    else:  # its pooler keeps the axis of the token
        assert "--at" in refusal(cli("graft", tmp_path / "base", tmp_path / "new"), code=2)


def test_a_head_on_another_net_than_a_bert_keeps_its_auxiliary_states(cli: Cli, tmp_path: Path) -> None:
    net = conv_checkpoint(tmp_path)
    done = cli("graft", net, tmp_path / "new", "--at", "flat", "--num-classes", 5, "--shape", IMAGES)
    assert done.code == 0, done.err
    assert {"aux:bn0_moving_mean", "arg:fc-finetune_weight"} < array_names(tmp_path / "new")
    assert "arg:fc_weight" not in array_names(tmp_path / "new")
    images = {"data": np.random.default_rng(0).normal(size=(3, 1, 6, 6))}
    (flat,) = computed(net, images, "flat_output", 12)
    logits = flat @ ParamsFile(f"{tmp_path / 'new'}-0000.params")["fc-finetune_weight"].T
    expected = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    np.testing.assert_allclose(computed(tmp_path / "new", images)[0], expected, atol=1e-5)
    assert cli("graft", net, tmp_path / "bare", "--head", "none", "--shape", IMAGES).code == 0
    np.testing.assert_array_equal(computed(tmp_path / "bare", images)[0], flat)


def test_the_seed_decides_the_weights_and_the_same_command_writes_the_same_bytes(
    cli: Cli, bundles: dict[str, Path], tmp_path: Path
) -> None:
    for folder, seed in (("a", 1), ("b", 1), ("c", 2)):
        assert cli("graft", bundles["mean"], tmp_path / folder / "head", "--seed", seed).code == 0
    one, same, other = (bundle_bytes(tmp_path / folder / "head") for folder in "abc")
    assert one == same
    assert one["-0000.params"] != other["-0000.params"]
    assert one["-symbol.json"] == other["-symbol.json"]


def test_several_outputs_without_a_choice_are_a_usage_error(cli: Cli, tmp_path: Path) -> None:
    source = gluonnlp_checkpoint(tmp_path, "pooled")
    assert "several outputs" in refusal(cli("graft", source, tmp_path / "x"), tmp_path / "x-symbol.json", 2)
    assert cli("graft", source, tmp_path / "x", "--at", "bertmodel0_pooler_tanh_fwd").code == 0
    two = split_checkpoint(tmp_path)
    assert cli("graft", two, tmp_path / "y", "--at", "cut:1", "--head", "regression", "--shape", "x=2,4").code == 0


USAGE = {
    "rank for a classifier": ("sequence", [], "FullyConnected would flatten it"),
    "rank for tags": ("cls", ["--head", "tagging"], "head tagging needs (N, T, units)"),
    "rank for answers": ("pooled", ["--head", "qa"], "head qa needs (N, T, units)"),
    "rank for the slice": ("cls", ["--cls-slice"], "--cls-slice needs (N, T, units)"),
    "slice for tags": ("sequence", ["--head", "tagging", "--cls-slice"], "omit cls_slice"),
    "free last axis": ("cls", ["--at", "data0"], "a last axis of a fixed size"),
    "a parameter": ("cls", ["--at", "bertencoder0_position_weight"], "depends on no input"),
    "heads of the attention": ("cls", ["--at", "bertencoder0_transformer0_query_batched"], "the first axis"),
    "unknown node": ("cls", ["--at", "clss"], "did you mean cls or cls_slice?"),
    "unknown layer": ("cls", ["--at", "layer 2"], "has layers 0 to 1"),
    "unknown head": ("cls", ["--head", "ranking"], "is not one of 'classification'"),
    "one class": ("cls", ["--num-classes", "1"], "needs at least 2 outputs"),
    "no value": ("cls", ["--head", "regression", "--num-classes", "0"], "needs at least 1 outputs"),
    "three of two": ("sequence", ["--head", "qa", "--num-classes", "3"], "has 2 outputs per token"),
    "classes of none": ("cls", ["--head", "none", "--num-classes", "2"], "omit --num-classes"),
    "dropout of 1": ("cls", ["--dropout", "1"], "is not in [0, 1)"),
    "dropout no number": ("cls", ["--dropout", "nan"], "is not in [0, 1)"),
    "negative seed": ("cls", ["--seed", "-1"], "is not in the range"),
}


@pytest.mark.parametrize("case", USAGE)
def test_a_usage_error_is_one_line(cli: Cli, bundles: dict[str, Path], tmp_path: Path, case: str) -> None:
    output, arguments, message = USAGE[case]
    result = cli("graft", bundles[output], tmp_path / "out" / "x", *arguments)
    assert message in refusal(result, tmp_path / "out", code=2)


def test_a_second_head_and_a_missing_head_are_one_line_errors(
    cli: Cli, bundles: dict[str, Path], classifier: Path, tmp_path: Path
) -> None:
    second = refusal(cli("graft", classifier, tmp_path / "x"), tmp_path / "x-symbol.json", code=2)
    assert "already has the head fc-finetune" in second
    assert "reads cls" in second
    assert "is part of the head fc-finetune" in refusal(
        cli("graft", classifier, tmp_path / "x", "--at", "softmax"), code=2
    )
    assert "no head to remove" in refusal(cli("graft", bundles["mean"], tmp_path / "x", "--head", "none"))
    with pytest.raises(UsageError, match="exists"):
        graft_head(bundles["cls"], classifier)
    with pytest.raises(UsageError, match="the input of this command"):
        remove_head(classifier, classifier, force=True)
    assert not list(tmp_path.iterdir())


def test_a_new_head_at_the_same_output_replaces_the_old_head(classifier: Path, tmp_path: Path) -> None:
    graft_head(classifier, tmp_path / "five", NewHead(num_classes=5), at="cls")
    tuned, five = (ParamsFile(f"{prefix}-0000.params") for prefix in (classifier, tmp_path / "five"))
    assert five["fc-finetune_weight"].shape == (5, UNITS)
    encoder = [name for name in tuned if not name.startswith("fc-finetune")]
    assert all(np.array_equal(tuned[name], five[name]) for name in encoder)
