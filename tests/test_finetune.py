"""Fine-tuning from end to end: what is learned, written and reported."""

from __future__ import annotations

import dataclasses
import hashlib
import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import Result, Tables
from runs import Recorder

from bertsym import (
    Bundle,
    Classifier,
    DataError,
    FinetuneOptions,
    ModelError,
    ParamsFile,
    evaluate,
    finetune,
    graft,
)
from bertsym.array import Array
from bertsym.events import DevEvaluated, Event
from bertsym.inference.mxnet_predictor import MXNetPredictor
from bertsym.mxnet_runtime import mx
from bertsym.tasks.classification import Classification, ClassTargets
from bertsym.tasks.task import Reading
from bertsym.text.features import Features
from bertsym.training.batch_source import TokenSource
from bertsym.training.trainer import Trainer

Cli = Callable[..., Result]

FAST = FinetuneOptions(epochs=2, batch_size=16, learning_rate=2e-3, max_length=24)


def params(prefix: Path) -> dict[str, Array]:
    return {name: np.array(array) for name, array in ParamsFile(f"{prefix}-0000.params").items()}


def encoded(bundle: Bundle, table: Path) -> Features:
    tokenizer = bundle.tokenizer(bundle.signature.tokenizer, 24)
    return Classification().read(table, Reading(tokenizer)).features


def test_the_classifier_learns_the_training_table(classifier: Path, tables: Tables) -> None:
    assert evaluate(classifier, tables.train).metrics["accuracy"] > 0.9


def test_evaluate_prints_what_finetune_printed_for_the_kept_epoch(
    cli: Cli, bundles: dict[str, Path], tables: Tables, tmp_path: Path
) -> None:
    out = tmp_path / "classifier"
    options = ["--epochs", 3, "--batch-size", 16, "--lr", "2e-3", "--max-length", 24]
    trained = cli("finetune", bundles["cls"], "--train", tables.train, "--dev", tables.dev, out, *options)
    assert trained.code == 0, trained.err
    printed = next(line for line in trained.out.splitlines() if line.startswith("accuracy"))
    evaluated = cli("evaluate", out, tables.dev)
    assert evaluated.out.strip() == printed
    assert f"dev: {printed}" in trained.err


def test_equal_seeds_write_identical_files(bundles: dict[str, Path], tables: Tables, tmp_path: Path) -> None:
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        options = dataclasses.replace(FAST, seed=seed)
        finetune(bundles["cls"], tables.train, tables.dev, tmp_path / name, options=options)
    suffixes = sorted(path.name[1:] for path in tmp_path.glob("a-*"))
    assert len(suffixes) == 9
    for suffix in suffixes:
        assert (tmp_path / f"a{suffix}").read_bytes() == (tmp_path / f"b{suffix}").read_bytes(), suffix
    assert (tmp_path / "a-0000.params").read_bytes() != (tmp_path / "c-0000.params").read_bytes()


def test_written_files_load_in_plain_mxnet(classifier: Path, tables: Tables) -> None:
    symbol, arg_params, aux_params = mx.model.load_checkpoint(str(classifier), 0)
    assert symbol.list_outputs() == ["softmax_output"]
    assert set(symbol.list_arguments()) - set(arg_params) == {"data0", "data1", "data2"}
    assert not aux_params

    module = mx.mod.Module(symbol, data_names=("data0", "data1", "data2"), label_names=None)
    module.bind([("data0", (2, 9)), ("data1", (2, 9)), ("data2", (2,))], for_training=False)
    module.set_params(arg_params, aux_params)
    inputs = [mx.nd.ones((2, 9)) * 7, mx.nd.zeros((2, 9)), mx.nd.array([9, 4])]
    module.forward(mx.io.DataBatch(inputs), is_train=False)
    block = mx.gluon.SymbolBlock.imports(
        f"{classifier}-symbol.json", ["data0", "data1", "data2"], f"{classifier}-0000.params"
    )
    np.testing.assert_allclose(module.get_outputs()[0].asnumpy(), block(*inputs).asnumpy(), atol=1e-6)


def test_the_train_symbol_trains_in_a_plain_module(classifier: Path) -> None:
    symbol = mx.sym.load(f"{classifier}-train-symbol.json")
    _, arg_params, aux_params = mx.model.load_checkpoint(str(classifier), 0)
    data = mx.io.NDArrayIter(
        {"data0": np.full((8, 9), 7.0), "data1": np.zeros((8, 9)), "data2": np.full(8, 9.0)},
        {"softmax_label": np.zeros(8)},
        batch_size=4,
    )
    module = mx.mod.Module(symbol, data_names=("data0", "data1", "data2"), label_names=("softmax_label",))
    module.fit(data, arg_params=arg_params, aux_params=aux_params, num_epoch=1, optimizer="sgd", eval_metric="acc")
    after, _ = module.get_params()
    assert not np.array_equal(after["fc-finetune_weight"].asnumpy(), arg_params["fc-finetune_weight"].asnumpy())


def test_signature_and_manifest_describe_inputs_and_training(classifier: Path, tables: Tables) -> None:
    signature = json.loads(Path(f"{classifier}-signature.json").read_text())
    assert [(entry["name"], entry["shape"]) for entry in signature["inputs"]] == [
        ("data0", ["batch", "length"]),
        ("data1", ["batch", "length"]),
        ("data2", ["batch"]),
    ]
    assert signature["outputs"] == [{"name": "softmax_output", "shape": ["batch", 2], "dtype": "float32"}]
    assert signature["class_names"] == ["no", "yes"]
    assert signature["max_length"] == 24
    manifest = json.loads(Path(f"{classifier}-manifest.json").read_text())
    assert manifest["training"]["data"]["train"]["rows"] == 90
    assert manifest["training"]["options"]["learning_rate"] == 1e-2
    assert len(manifest["training"]["data"]["dev"]["sha256"]) == 64


def test_numeric_labels_are_sorted_as_numbers(bundles: dict[str, Path], tmp_path: Path) -> None:
    table = tmp_path / "t.csv"
    table.write_text("text,label\n" + "".join(f"the cat {word},{n}\n" for n in (10, 9, 2) for word in ("sat", "ran")))
    bundle = finetune(
        bundles["cls"], table, table, tmp_path / "out", options=FinetuneOptions(epochs=1, max_length=16)
    ).bundle
    assert bundle.signature.class_names == ("2", "9", "10")


@pytest.mark.parametrize("changes", [{}, {"metric": "loss"}, {"metric": "f1", "eval_steps": 4}], ids=str)
def test_the_best_evaluation_is_kept(
    bundles: dict[str, Path], tables: Tables, tmp_path: Path, changes: dict[str, Any]
) -> None:
    recorder = Recorder()
    options = FinetuneOptions(epochs=5, batch_size=16, learning_rate=2e-3, max_length=24, **changes)
    result = finetune(bundles["cls"], tables.train, tables.dev, tmp_path / "x", options=options, on_event=recorder)
    steps = [step for step in range(1, 31) if step % 6 == 0 or ("eval_steps" in changes and step % 4 == 0)]
    assert [report.step for report in recorder.evaluations] == steps
    name = changes.get("metric", "accuracy")
    sign = -1 if name == "loss" else 1
    best = max(recorder.evaluations, key=lambda report: (sign * report.metrics[name], -report.metrics["loss"]))
    assert (result.kept.step, result.kept.metrics) == (best.step, best.metrics)
    assert evaluate(tmp_path / "x", tables.dev).metrics == best.metrics
    training = result.bundle.manifest["training"]
    assert (training["kept_epoch"], training["kept_step"]) == (best.epoch, best.step)


def test_an_unknown_metric_is_a_usage_error(cli: Cli, bundles: dict[str, Path], tables: Tables, tmp_path: Path) -> None:
    arguments = ["--train", tables.train, "--dev", tables.dev, tmp_path / "x", "--metric", "f2"]
    refused = cli("finetune", bundles["cls"], *arguments)
    assert refused.code == 2
    assert "metric 'f2' is not one of accuracy, f1, " in refused.error_line


def test_patience_stops_when_the_dev_metric_no_longer_rises(
    bundles: dict[str, Path], tables: Tables, tmp_path: Path
) -> None:
    recorder = Recorder()
    # The learning rate is too small for any improvement after the first epoch.
    options = FinetuneOptions(epochs=9, batch_size=32, learning_rate=1e-12, max_length=24, patience=2, eval_steps=2)
    finetune(bundles["cls"], tables.train, tables.dev, tmp_path / "x", options=options, on_event=recorder)
    assert recorder.evaluations[-1].step < 9
    assert "stopped early: no better accuracy in 2 evaluations" in recorder.notes


def test_frozen_encoder_changes_the_head_only(bundles: dict[str, Path], tables: Tables, tmp_path: Path) -> None:
    options = FinetuneOptions(epochs=3, batch_size=16, freeze_encoder=True, max_length=24, learning_rate=1e-2)
    finetune(bundles["mean"], tables.train, tables.dev, tmp_path / "x", options=options)
    before, after = params(bundles["mean"]), params(tmp_path / "x")
    assert {name for name in after if name not in before} == {"fc-finetune_weight", "fc-finetune_bias"}
    for name, array in before.items():
        np.testing.assert_array_equal(after[name], array, err_msg=name)
    assert after["fc-finetune_bias"].any()


def test_frozen_encoder_dev_metrics_are_those_of_the_written_files(
    bundles: dict[str, Path], tables: Tables, tmp_path: Path
) -> None:
    options = FinetuneOptions(epochs=2, freeze_encoder=True, max_length=24, learning_rate=1e-2)
    result = finetune(bundles["mean"], tables.train, tables.dev, tmp_path / "x", options=options)
    assert evaluate(tmp_path / "x", tables.dev).metrics == pytest.approx(result.kept.metrics, rel=1e-6)


@pytest.mark.parametrize("output", ["cls", "mean", "pooled"])
def test_the_classifier_input_is_reported(
    bundles: dict[str, Path], tables: Tables, tmp_path: Path, output: str
) -> None:
    recorder = Recorder()
    options = dataclasses.replace(FAST, epochs=1)
    finetune(bundles[output], tables.train, tables.dev, tmp_path / "x", options=options, on_event=recorder)
    assert any(note.startswith(f"fc-finetune reads {output}_output, ") for note in recorder.notes)


def test_whole_sequence_fixes_the_length_and_reports_it(
    cli: Cli, bundles: dict[str, Path], tables: Tables, tmp_path: Path
) -> None:
    out = tmp_path / "whole"
    arguments = ["finetune", bundles["sequence"], "--train", tables.train, "--dev", tables.dev, out]
    refused = cli(*arguments)
    assert refused.code == 2
    assert "fix the classifier to one sequence length" in refused.error_line
    assert not list(tmp_path.iterdir())

    done = cli(*arguments, "--whole-sequence", "--max-length", 20, "--epochs", 1)
    assert done.code == 0, done.err
    assert "20 x 32 = 640 features, which fixes the sequence length to 20" in done.err
    assert params(out)["fc-finetune_weight"].shape == (2, 640)
    assert Bundle.open(out).signature.to_json()["inputs"][0]["shape"] == ("batch", 20)
    assert cli("verify", out).code == 0
    assert cli("predict", out, "--text", "the happy cat").code == 0


def test_whole_sequence_can_be_trained_on_a_frozen_encoder(
    bundles: dict[str, Path], tables: Tables, tmp_path: Path
) -> None:
    options = FinetuneOptions(epochs=1, freeze_encoder=True, whole_sequence=True, max_length=16)
    result = finetune(bundles["sequence"], tables.train, tables.dev, tmp_path / "x", options=options)
    assert evaluate(tmp_path / "x", tables.dev).metrics == pytest.approx(result.kept.metrics, rel=1e-6)


def test_a_table_without_a_header_is_read_without_one_by_later_commands(
    cli: Cli, bundles: dict[str, Path], tables: Tables, tmp_path: Path
) -> None:
    for name in ("train", "dev"):
        lines = getattr(tables, name).read_text().splitlines(keepends=True)
        (tmp_path / f"{name}.tsv").write_text("".join(lines[1:]))
    train, dev, out = tmp_path / "train.tsv", tmp_path / "dev.tsv", tmp_path / "out" / "x"
    options = ["--no-header", "--text-column", 2, "--label-column", 1, "--epochs", 1]
    done = cli("finetune", bundles["cls"], "--train", train, "--dev", dev, out, *options)
    assert done.code == 0, done.err
    evaluated = cli("evaluate", out, dev)
    assert "21 rows" in evaluated.err
    assert evaluated.out.strip() in done.out
    assert len(cli("predict", out, dev).out.splitlines()) == 22


def test_the_manifest_has_the_digest_of_the_table_as_it_was_read(
    bundles: dict[str, Path], tables: Tables, tmp_path: Path
) -> None:
    train = tmp_path / "train.tsv"
    content = tables.train.read_bytes()
    train.write_bytes(content)

    def meddle(event: Event) -> None:
        if isinstance(event, DevEvaluated):
            train.unlink()

    options = dataclasses.replace(FAST, epochs=1)
    bundle = finetune(bundles["cls"], train, tables.dev, tmp_path / "x", options=options, on_event=meddle).bundle
    assert bundle.manifest["training"]["data"]["train"]["sha256"] == hashlib.sha256(content).hexdigest()


def test_the_columns_are_reported(cli: Cli, bundles: dict[str, Path], tmp_path: Path) -> None:
    table = tmp_path / "t.tsv"
    table.write_text("index\tquestion\tsentence\tlabel\n0\tthe cat\ta dog\tyes\n1\tthe dog\ta dog\tno\n")
    done = cli("finetune", bundles["cls"], "--train", table, "--dev", table, tmp_path / "x", "--epochs", 1)
    assert "columns: text 'question', second text 'sentence', label 'label'; labels: no, yes" in done.err


@pytest.mark.parametrize("name", ["train.tsv", "old.jsonl"])
def test_a_log_overwrites_a_file_only_with_force(
    cli: Cli, bundles: dict[str, Path], tables: Tables, tmp_path: Path, name: str
) -> None:
    train, log = tmp_path / "train.tsv", tmp_path / name
    train.write_bytes(tables.train.read_bytes())
    log.write_bytes(tables.train.read_bytes())
    arguments = ["--train", train, "--dev", tables.dev, tmp_path / "x", "--log-json", log]
    refused = cli("finetune", bundles["cls"], *arguments)
    assert (refused.code, log.read_bytes()) == (2, tables.train.read_bytes())
    assert "overwrite" in refused.error_line


def test_a_log_never_overwrites_a_file_of_the_run(
    cli: Cli, bundles: dict[str, Path], tables: Tables, tmp_path: Path
) -> None:
    train = tmp_path / "train.tsv"
    train.write_bytes(tables.train.read_bytes())
    for log in (train, tmp_path / "x-manifest.json", f"{bundles['cls']}-symbol.json"):
        arguments = ["--train", train, "--dev", tables.dev, tmp_path / "x", "--log-json", log, "--force"]
        assert "a file of this run" in cli("finetune", bundles["cls"], *arguments).error_line
    assert train.read_bytes() == tables.train.read_bytes()


def test_the_base_is_never_replaced_by_its_classifier(cli: Cli, bundles: dict[str, Path], tables: Tables) -> None:
    base = bundles["cls"]
    refused = cli("finetune", base, "--train", tables.train, "--dev", tables.dev, base, "--force")
    assert (refused.code, Bundle.open(base).has_head) == (2, False)
    assert "is the bundle to train" in refused.error_line


def test_a_stream_of_pairs_has_two_texts_a_line(bundles: dict[str, Path], tmp_path: Path) -> None:
    table = tmp_path / "t.tsv"
    table.write_text("text\ttext_pair\tlabel\nthe cat\ta dog\tyes\nthe dog\ta dog\tno\n")
    finetune(bundles["cls"], table, table, tmp_path / "x", options=dataclasses.replace(FAST, epochs=1))
    pairs = Classifier(tmp_path / "x")
    assert len(list(pairs.predict_table(io.BytesIO(b"the cat\ta dog\na\tb\n")))) == 2
    with pytest.raises(DataError, match="line 1: 3 columns, two texts expected"):
        list(pairs.predict_table(io.BytesIO(b"the cat\ta dog\tyes\n")))


def test_truncated_texts_are_reported(cli: Cli, bundles: dict[str, Path], tables: Tables, tmp_path: Path) -> None:
    train = tmp_path / "train.tsv"
    train.write_text(tables.train.read_text() + "yes\t" + "happy " * 170_000 + "\n")
    done = cli(
        *("finetune", bundles["cls"], "--train", train, "--dev", tables.dev, tmp_path / "x"),
        *("--epochs", 1, "--max-length", 24),
    )
    assert done.code == 0, done.err
    assert "91 rows, 1 truncated to 24 tokens" in done.err


def test_a_vocabulary_that_does_not_fit_the_text_causes_a_warning(
    cli: Cli, bundles: dict[str, Path], tmp_path: Path
) -> None:
    table = tmp_path / "t.tsv"
    table.write_text("text\tlabel\nunheard of things\ta\nquite strange words\tb\n")
    done = cli("finetune", bundles["cls"], "--train", table, "--dev", table, tmp_path / "x", "--max-length", 16)
    assert done.code == 0, done.err
    assert "are [UNK]" in done.err


def test_divergence_is_reported_with_step_and_gradient_norm(bundles: dict[str, Path], tables: Tables) -> None:
    bundle = Bundle.open(bundles["cls"])
    symbol = graft(mx.sym.load(str(bundle.path("symbol.json"))), 2)
    head = {"fc-finetune_weight": np.full((2, 32), np.nan, np.float32), "fc-finetune_bias": np.zeros(2, np.float32)}
    source = TokenSource(encoded(bundle, tables.train), ClassTargets(np.zeros(90, np.int64)), bundle.config, 0, 24)
    trainer = Trainer(symbol, {**bundle.params(), **head}, source, Classification().loss, FAST)
    with pytest.raises(ModelError, match=r"diverged at step 1 \(epoch 1\): loss nan, gradient norm nan"):
        trainer.train_epoch(lambda _: None)


def test_a_predictor_uses_the_parameters_that_were_set_last(
    bundles: dict[str, Path], classifier: Path, tables: Tables
) -> None:
    """mxnet 1.9.1's inference Module keeps its first FullyConnected weight after a forward."""
    bundle = Bundle.open(classifier)
    features = encoded(bundle, tables.dev)
    reused = MXNetPredictor.from_bundle(bundle)
    reused(features)
    changed = {name: np.array(array) * np.float32(0.5) for name, array in bundle.params().items()}
    reused.set_params(changed)
    fresh = MXNetPredictor.from_bundle(bundle)
    fresh.set_params(changed)
    np.testing.assert_array_equal(reused(features), fresh(features))


def test_pairs_are_trained_and_predicted_as_pairs(bundles: dict[str, Path], tmp_path: Path) -> None:
    table = tmp_path / "pairs.jsonl"
    rows = [
        {"sentence1": f"the {a} cat", "sentence2": f"the {b} dog", "label": int(a == b)}
        for a in ("red", "blue", "old")
        for b in ("red", "blue", "old")
    ]
    table.write_text("".join(json.dumps(row) + "\n" for row in rows))
    options = FinetuneOptions(epochs=1, max_length=20)
    bundle = finetune(bundles["pooled"], table, table, tmp_path / "x", options=options).bundle
    assert bundle.signature.pair
    predictions = Classifier(tmp_path / "x").predict(["the red cat", "the cat"], ["the red dog", "a bird"])
    for prediction in predictions:
        assert sum(prediction.probabilities.values()) == pytest.approx(1, abs=1e-5)
        assert prediction.label == max(prediction.probabilities, key=lambda label: prediction.probabilities[label])
