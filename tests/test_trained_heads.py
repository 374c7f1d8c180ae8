"""The trained head of a Hugging Face checkpoint is exported with its encoder, or refused, and never lost silently."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import Result
from headed import HEADS, LABELS, headed_weights, write_headed
from refusals import refusal

from bertsym import Bundle, ExportOptions, export, load_source, verify
from bertsym.bundle import SYMBOL, TRAIN_SYMBOL
from bertsym.errors import VerificationError
from bertsym.sources import Pretrained
from bertsym.tasks import TASKS

Cli = Callable[..., Result]
Headed = Callable[[str], Path]

KINDS = {"classification": "classifier", "multilabel": "classifier", "tagging": "classifier"}
OUTPUTS = {
    "classification": ("pooled", "softmax_output", ("batch", 3)),
    "multilabel": ("pooled", "sigmoid_output", ("batch", 3)),
    "regression": ("pooled", "fc-finetune_output", ("batch", 1)),
    "tagging": ("sequence", "softmax_output", ("batch", "length", 3)),
    "qa": ("sequence", "fc-finetune_output", ("batch", "length", 2)),
    "masked_lm": ("sequence", "fc-finetune_output", ("batch", "length", 53)),
}


@pytest.fixture(scope="session")
def headed(once: Callable[..., Path]) -> Headed:
    """Prefix of the bundle of a key of HEADS; no test may change its files."""

    def make(task: str) -> Callable[[Path], object]:
        return lambda folder: export(f"hf:{write_headed(folder / 'hf', task)}", folder / "model")

    return lambda task: once(f"headed-{task}", make(task)) / "model"


# What is written


@pytest.mark.parametrize("task", HEADS)
def test_a_trained_head_is_exported_with_its_encoder_and_verified(headed: Headed, task: str) -> None:
    bundle = Bundle.open(headed(task))
    signature = bundle.signature
    assert (signature.kind, signature.task) == (KINDS.get(task, "logits"), task)
    assert (signature.output, signature.output_name, signature.output_shape) == OUTPUTS[task]
    assert signature.class_names == (tuple(LABELS.values()) if task in KINDS else ())
    assert (signature.trained, signature.encoder_trained, signature.pair) == (True, True, None)
    assert "fc-finetune" in {node.name for node in bundle.graph().nodes}
    assert "not_exported" not in bundle.manifest["source"]
    assert bundle.has(TRAIN_SYMBOL) == (task in ("classification", "multilabel", "regression"))
    assert all(check.relative_difference < 1e-5 for check in verify(bundle.prefix))


@pytest.mark.parametrize("form", ["gluonnlp", "fast"])
@pytest.mark.parametrize("task", ["classification", "masked_lm"])
def test_a_trained_head_is_exported_in_every_form(tmp_path: Path, task: str, form: str) -> None:
    export(f"hf:{write_headed(tmp_path / 'hf', task)}", tmp_path / "x", ExportOptions(form=form, guard=True))
    assert Bundle.open(tmp_path / "x").signature.guarded


def test_a_classifier_is_what_fine_tuning_writes(
    cli: Cli, headed: Headed, bundles: Any, tables: Any, tmp_path: Path
) -> None:
    found = Bundle.open(headed("classification"))
    made = tmp_path / "made"
    arguments = ("--train", tables.train, "--dev", tables.dev, "--epochs", 1)
    assert cli("finetune", bundles["pooled"], made, *arguments).code == 0
    expected = Bundle.open(made)
    for name in (SYMBOL, TRAIN_SYMBOL):
        three = expected.text(name).replace('"num_hidden": "2"', '"num_hidden": "3"')
        assert found.text(name) == three
    assert list(found.params()) == list(expected.params())
    differing = {
        field.name
        for field in dataclasses.fields(found.signature)
        if getattr(found.signature, field.name) != getattr(expected.signature, field.name)
    }
    assert differing == {"class_names", "output_shape", "pair", "columns", "task_settings"}


def test_dropout_of_the_head_is_that_of_the_config(headed: Headed, tmp_path: Path) -> None:
    def dropout(prefix: Path) -> str:
        return Bundle.open(prefix).graph().node("dropout-finetune").attrs["p"]

    assert (dropout(headed("classification")), dropout(headed("regression"))) == ("0.1", "0.3")


@pytest.mark.parametrize("task", HEADS)
def test_the_reference_notices_a_head_that_differs(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, task: str) -> None:
    """Each array of the head in turn is not what the source has."""
    load = load_source
    folder = write_headed(tmp_path / "hf", task)
    arrays = load(f"hf:{folder}", with_head=True).head
    assert arrays is not None
    for changed in arrays.arg_params:

        def altered(*arguments: Any, changed: str = changed, **options: Any) -> Pretrained:
            pretrained = load(*arguments, **options)
            assert pretrained.head is not None
            params = dict(pretrained.head.arg_params)
            added = np.linspace(1e-2, 2e-2, params[changed].size, dtype=np.float32)
            params[changed] = params[changed] + added.reshape(params[changed].shape)
            return dataclasses.replace(pretrained, head=dataclasses.replace(pretrained.head, arg_params=params))

        monkeypatch.setattr("bertsym.exporter.load_source", altered)
        with pytest.raises(VerificationError, match="differs from the reference encoder"):
            export(f"hf:{folder}", tmp_path / "x")


@pytest.mark.parametrize("activation", ["relu", "gelu_pytorch_tanh"])
def test_activations_other_than_exact_gelu_are_exported_and_verified(cli: Cli, tmp_path: Path, activation: str) -> None:
    """In the encoder, and in the head of masked language modelling."""
    folder = write_headed(tmp_path / "hf", "masked_lm", hidden_act=activation)
    for form in ("portable", "gluonnlp", "fast"):
        export(f"hf:{folder}", tmp_path / form, ExportOptions(form=form))
    assert Bundle.open(tmp_path / "fast").config.activation == ("relu" if activation == "relu" else "gelu_tanh")
    for name, *options in (("1.4", "--target-mxnet", "1.4"), ("fold", "--fold")):
        result = cli("lower", tmp_path / "gluonnlp", tmp_path / name, *options)
        assert result.code == 0, result.err
        assert "verified" in result.out
        verify(tmp_path / name)
    # Another activation is another model.
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "hidden_act": "gelu"}))
    export(f"hf:{folder}", tmp_path / "gelu")
    assert "first difference: layer 0" in cli("diff", tmp_path / "gelu", tmp_path / "portable", "--run").out
    assert cli("onnx", tmp_path / "portable", tmp_path / "x.onnx").code == 0


def test_the_encoder_alone_is_exported_on_request_and_the_head_named(cli: Cli, tmp_path: Path) -> None:
    for task, left_out in (
        ("classification", "task head classifier.bias, classifier.weight (with id2label 0 'neutral', "),
        ("masked_lm", "pretraining heads cls.predictions.bias, cls.predictions.transform.LayerNorm.bias, "),
    ):
        folder = write_headed(tmp_path / task, task)
        for options, output in ((["--headless"], "cls"), (["--output", "mean"], "mean")):
            prefix = tmp_path / f"{task}{options[0]}"
            result = cli("export", f"hf:{folder}", prefix, *options)
            assert result.code == 0, result.err
            assert f"not exported: {left_out}" in result.out
            signature = Bundle.open(prefix).signature
            assert (signature.kind, signature.output) == ("encoder", output)


def test_headless_contradicts_a_task(cli: Cli, tiny_hf: Path, tmp_path: Path) -> None:
    arguments = ("--headless", "--task", "qa")
    line = refusal(cli("export", f"hf:{tiny_hf}", tmp_path / "out" / "x", *arguments), tmp_path / "out", code=2)
    assert "--headless exports the encoder alone: omit --task qa" in line


# What is assumed


@pytest.mark.parametrize(
    ("task", "changes", "notes"),
    [
        (
            "classification",
            {"problem_type": None},
            ["config.json has no problem_type: taken as classification, by its 3 labels"],
        ),
        (
            "regression",
            {"sentence_transformers": {"activation_fn": "torch.nn.modules.activation.Tanh"}},
            [
                "config.json has no problem_type: taken as regression, by its 1 label, as for a regression or a "
                "cross-encoder",
                "cross-encoder: its activation Tanh is left out, predict prints the raw value",
            ],
        ),
        ("qa", {"architectures": None}, ["config.json has no architectures: taken as BertForQuestionAnswering, by"]),
        ("masked_lm", {"architectures": None}, ["config.json has no architectures: taken as BertForMaskedLM, by"]),
        (
            "multilabel",
            {"bertsym": {"task": "multilabel", "class_names": ["a"], "max_length": 9, "task_settings": {}}},
            ["config.json: the settings in bertsym are those of another task or other classes: left out"],
        ),
        (
            "tagging",
            {"id2label": None, "num_labels": 3},
            ["config.json has no id2label: the classes are named LABEL_0, LABEL_1, LABEL_2"],
        ),
    ],
)
def test_what_the_config_does_not_say_is_assumed_and_noted(
    cli: Cli, tmp_path: Path, task: str, changes: dict[str, Any], notes: list[str]
) -> None:
    folder = write_headed(tmp_path / "hf", task, **changes)
    result = cli("export", f"hf:{folder}", tmp_path / "x", "--no-verify")
    assert result.code == 0, result.err
    assert [note for note in notes if note not in result.out] == []
    assert Bundle.open(tmp_path / "x").signature.task == task


def test_weights_beside_the_head_are_listed(cli: Cli, tmp_path: Path) -> None:
    weights = headed_weights("masked_lm")
    weights["cls.predictions.decoder.weight"] = weights["bert.embeddings.word_embeddings.weight"]
    weights["cls.predictions.decoder.bias"] = weights["cls.predictions.bias"]
    weights["cls.seq_relationship.weight"] = np.ones((2, 32), np.float32)
    folder = write_headed(tmp_path / "hf", "masked_lm", weights)
    result = cli("export", f"hf:{folder}", tmp_path / "x")
    assert result.code == 0, result.err
    assert "not exported: pretraining heads cls.seq_relationship.weight\n" in result.out
    source = Bundle.open(tmp_path / "x").manifest["source"]
    assert source["not_exported"] == {"pretraining heads": ["cls.seq_relationship.weight"]}


def test_a_head_that_the_config_names_but_the_weights_lack_is_noted(cli: Cli, tiny_hf: Path, tmp_path: Path) -> None:
    encoder = {name: array for name, array in headed_weights("classification").items() if name.startswith("bert.")}
    folder = write_headed(tmp_path / "hf", "classification", encoder)
    result = cli("export", f"hf:{folder}", tmp_path / "x", "--no-verify")
    assert "architectures BertForSequenceClassification, but there are no weights of its head: this" in result.out
    assert Bundle.open(tmp_path / "x").signature.kind == "encoder"


def test_a_prefix_of_the_whole_model_is_that_of_the_head_too(cli: Cli, tmp_path: Path) -> None:
    weights = {f"module.{name}": array for name, array in headed_weights("classification").items()}
    result = cli("export", f"hf:{write_headed(tmp_path / 'hf', 'classification', weights)}", tmp_path / "x")
    assert result.code == 0, result.err
    assert Bundle.open(tmp_path / "x").signature.task == "classification"


# Commands on a bundle with a trained head


def test_a_single_label_head_is_predicted_evaluated_and_quantized(cli: Cli, headed: Headed, tmp_path: Path) -> None:
    table = tmp_path / "t.tsv"
    table.write_text("text\tlabel\nthe happy cat\tentailment\nthe sad dog\tneutral\n")
    assert cli("predict", headed("classification"), "--text", "the cat sat").code == 0
    assert "accuracy" in cli("evaluate", headed("classification"), table).out
    arguments = ("--calibrate", table, "--max-drop", 1)
    assert cli("quantize", headed("classification"), tmp_path / "int8", *arguments).code == 0


@pytest.mark.parametrize("task", [task for task in HEADS if not TASKS[task].is_trainable])
def test_a_task_for_prediction_only_is_not_supported_by_finetune_evaluate_and_quantize(
    cli: Cli, headed: Headed, tmp_path: Path, task: str
) -> None:
    table = tmp_path / "t.tsv"
    table.write_text("text\tlabel\nthe happy [MASK]\tentailment\n")
    prefix = headed(task)
    assert cli("predict", prefix, table).code == 0
    for command in (("evaluate", prefix, table), ("quantize", prefix, tmp_path / "q", "--calibrate", table)):
        line = refusal(cli(*command))
        assert line == f"Error: {prefix}: task {task}: not supported by {command[0]}"
    data = ("--train", table, "--dev", table)
    line = refusal(cli("finetune", prefix, tmp_path / "f", *data), tmp_path / "f")
    assert f"has a head for {task}, which finetune --task classification can't continue" in line


@pytest.mark.parametrize("task", HEADS)
def test_surgery_takes_a_trained_head(cli: Cli, headed: Headed, tmp_path: Path, task: str) -> None:
    """Each command compares what it writes with the original; a BERT's bundle stays one."""
    prefix = headed(task)
    for name, *command in (
        ("lower", "lower", prefix, tmp_path / "lower", "--target-mxnet", "1.9", "--form", "fast", "--fold"),
        ("removed", "graft", prefix, tmp_path / "removed", "--head", "none"),
        ("edit", "edit", prefix, tmp_path / "edit", "--dropout", "off"),
    ):
        result = cli(*command)
        assert result.code == 0, (name, result.err)
        assert "verified" in result.out, (name, result.out)
        signature = Bundle.open(tmp_path / name).signature
        assert signature.task == (None if name == "removed" else task)
        assert signature.trained
    assert Bundle.open(tmp_path / "removed").signature.output == OUTPUTS[task][0]
    assert cli("extract", prefix, tmp_path / "part", "--output", "fc-finetune").code == 0
    assert cli("onnx", prefix, tmp_path / "x.onnx").code == 0
    inspected = json.loads(cli("inspect", prefix, "--json").out)
    assert inspected["task"] == task
    assert [answer["classifier"] for answer in inspected["answers"]] == ["fc-finetune"]


# Fine-tuning


@pytest.fixture
def table(tmp_path: Path) -> Path:
    """Rows of three classes, distinguished by their first word."""
    words = {"neutral": "the cat", "entailment": "happy dog", "contradiction": "sad bird"}
    path = tmp_path / "train.tsv"
    path.write_text("text\tlabel\n" + "".join(f"{words[name]}\t{name}\n" for name in LABELS.values()) * 16)
    return path


def finetune(cli: Cli, base: Path, out: Path, table: Path, *options: object) -> Bundle:
    arguments = ("--train", table, "--dev", table, "--epochs", 1, "--lr", 1e-3, *options)
    result = cli("finetune", base, out, *arguments)
    assert result.code == 0, result.err
    return Bundle.open(out)


@pytest.mark.parametrize("options", [(), ("--freeze-encoder",)])
def test_fine_tuning_continues_a_head_whose_classes_are_the_labels(
    cli: Cli, headed: Headed, table: Path, tmp_path: Path, options: tuple[str, ...]
) -> None:
    base = headed("classification")
    first = finetune(cli, base, tmp_path / "first", table, *options)
    second = finetune(cli, first.prefix, tmp_path / "second", table, *options)
    assert first.signature.class_names == second.signature.class_names == tuple(LABELS.values())

    def loss(prefix: Path) -> float:
        return float(json.loads(cli("evaluate", prefix, table, "--json").out)["loss"])

    assert loss(second.prefix) < loss(first.prefix) < loss(base)
    assert first.manifest["training"]["options"]["dropout"] == 0.1


def test_continuing_starts_from_the_weights_of_the_head(cli: Cli, headed: Headed, table: Path, tmp_path: Path) -> None:
    base = headed("classification")
    found = finetune(cli, base, tmp_path / "x", table, "--lr", 1e-30, "--weight-decay", 0)
    params = Bundle.open(base).params()
    assert all(np.array_equal(array, params[name]) for name, array in found.params().items())
    new = finetune(cli, base, tmp_path / "y", table, "--lr", 1e-30, "--weight-decay", 0, "--new-head")
    assert not np.array_equal(new.params()["fc-finetune_weight"], params["fc-finetune_weight"])
    assert new.signature.class_names == ("contradiction", "entailment", "neutral")


def test_other_labels_than_the_head_has_are_an_error_that_names_both(
    cli: Cli, headed: Headed, tables: Any, tmp_path: Path
) -> None:
    base = headed("classification")
    arguments = ("finetune", base, tmp_path / "out" / "x", "--train", tables.train, "--dev", tables.dev, "--epochs", 1)
    result = cli(*arguments)
    assert result.code == 1
    assert (
        f"{base}: its trained head has the classes neutral, entailment, contradiction, but {tables.train} has the "
        "labels no, yes; --new-head replaces the head, export --headless exports the encoder alone"
    ) in result.err
    assert finetune(cli, base, tmp_path / "x", tables.train, "--new-head").signature.class_names == ("no", "yes")


@pytest.mark.parametrize(("task", "output"), [("regression", "pooled"), ("tagging", "cls"), ("masked_lm", "cls")])
def test_a_head_of_another_task_is_replaced_only_on_request(
    cli: Cli, headed: Headed, table: Path, tmp_path: Path, task: str, output: str
) -> None:
    base = headed(task)
    arguments = ("finetune", base, tmp_path / "out" / "x", "--train", table, "--dev", table)
    assert refusal(cli(*arguments), tmp_path / "out") == (
        f"Error: {base}: has a head for {task}, which finetune --task classification can't continue; --new-head "
        "replaces it, and bertsym export --headless or graft --head none make a bundle of the encoder alone"
    )
    signature = finetune(cli, base, tmp_path / "x", table, "--new-head").signature
    assert (signature.output, signature.task) == (output, "classification")


# What a source and a bundle are


@pytest.mark.parametrize("task", HEADS)
def test_inspect_describes_a_source_without_exporting_it(cli: Cli, tmp_path: Path, task: str) -> None:
    folder = write_headed(tmp_path / "hf", task)
    found = json.loads(cli("inspect", f"hf:{folder}", "--json").out)
    assert (found["family"], found["head"], found["task"]) == ("bert", HEADS[task][0], task)
    assert found["class_names"] == (list(LABELS.values()) if task in KINDS else [])
    assert (found["max_length"], found["tokenizer"]["kind"]) == (40, "wordpiece")
    lines = cli("inspect", f"hf:{folder}").out
    assert f"head     {HEADS[task][0]} on {OUTPUTS[task][0]}, trained: {task}\n" in lines
    assert "texts    wordpiece tokenizer, lowercase, vocabulary 53, 2 token types, at most 40 tokens\n" in lines


def test_inspect_describes_a_source_whose_head_can_not_be_exported(cli: Cli, tmp_path: Path) -> None:
    folder = write_headed(tmp_path / "hf", "classification", problem_type="ranking")
    result = cli("inspect", f"hf:{folder}")
    assert result.code == 0
    assert "can't be exported: " in result.out
    assert '"ranking" is not one of' in result.out
    assert "not exported: task head classifier.bias, classifier.weight" in result.err


def test_inspect_describes_the_texts_of_a_bundle(cli: Cli, headed: Headed) -> None:
    out = cli("inspect", headed("tagging")).out
    assert "task       tagging; classes neutral, entailment, contradiction\n" in out
    assert "texts      wordpiece tokenizer, lowercase, vocabulary 53, 2 token types, at most 40 tokens\n" in out
