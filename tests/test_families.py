"""Each family of encoders is exported with its heads, recognised again, and rewritten in every form."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from checkpoints import bound
from conftest import Result, in_turn
from family_folders import write_family
from family_models import CLASSES, CONFIGS, ENDINGS, UNITS, encoder_weights, head_weights
from refusals import refusal
from safetensors.numpy import save_file

from bertsym import Bundle, ExportOptions, FinetuneOptions, export, finetune, verify
from bertsym.analysis.encoder_detection import require_encoder
from bertsym.families import FAMILIES
from bertsym.mxnet_runtime import mx
from bertsym.symbol.graph import SymbolGraph
from bertsym.symbol.params import shapes_of

Cli = Callable[..., Result]
MODEL_TYPES = [name for name in CONFIGS if name in FAMILIES]
OUTPUTS = {"tagging": "sequence", "qa": "sequence", "masked_lm": "sequence"}
READS_POOLED = ("bert", "ernie", "albert")


@pytest.fixture(scope="session")
def exported_family(once: Callable[..., Path]) -> Callable[..., Path]:
    """Prefix of the bundle of a family, with the head for a task; no test may change its files."""

    def make(model_type: str, task: str | None) -> Callable[[Path], object]:
        return lambda folder: export(f"hf:{write_family(folder / 'hf', model_type, task)}", folder / "model")

    return lambda model_type, task=None: once(f"{model_type}-{task}", make(model_type, task)) / "model"


@pytest.mark.parametrize("task", ENDINGS)
@pytest.mark.parametrize("model_type", MODEL_TYPES)
def test_a_head_of_a_family_is_exported_and_equals_the_reference(
    exported_family: Callable[..., Path], model_type: str, task: str
) -> None:
    """`export` compares the files with the source's own weights, `verify` with those of the bundle."""
    bundle = Bundle.open(exported_family(model_type, task))
    signature = bundle.signature
    expected = OUTPUTS.get(task, "pooled" if model_type in READS_POOLED else "cls")
    assert (signature.family, signature.task, signature.output) == (model_type, task, expected)
    assert max(check.relative_difference for check in verify(bundle.prefix, rtol=2e-5)) > 0


@pytest.mark.parametrize(
    ("model_type", "task", "second_head"),
    [
        ("bert", "masked_lm", "cls.seq_relationship"),
        ("ernie", "masked_lm", "cls.seq_relationship"),
        ("albert", "masked_lm", "sop_classifier.classifier"),
        ("electra", None, "discriminator_predictions.dense_prediction"),
    ],
)
def test_a_class_for_pretraining_is_exported_without_the_head_that_has_no_task(
    cli: Cli, tmp_path: Path, model_type: str, task: str | None, second_head: str
) -> None:
    """The head of masked language modelling is exported; an ELECTRA that finds replaced tokens has none."""
    name = f"{CLASSES[model_type]}ForPreTraining"
    weights = {f"{model_type}.{key}": array for key, array in encoder_weights(model_type).items()}
    weights.update({f"{second_head}.weight": np.ones((2, UNITS), np.float32), f"{second_head}.bias": np.ones(2)})
    if task is not None:
        weights.update(head_weights(model_type, task))
    else:
        dense = "discriminator_predictions.dense"
        weights.update({f"{dense}.weight": np.ones((UNITS, UNITS)), f"{dense}.bias": np.ones(UNITS)})
    for declared in ([name], None):
        folder = write_family(tmp_path / "hf", model_type, architectures=declared)
        save_file(weights, folder / "model.safetensors")
        result = cli("export", f"hf:{folder}", tmp_path / "x", "--force")
        assert result.code == 0, result.err
        assert f"architectures {name}: " in result.out
        assert f"{second_head}.bias, {second_head}.weight" in result.out
        signature = Bundle.open(tmp_path / "x").signature
        assert (signature.task, signature.kind) == (task, "logits" if task else "encoder")


def test_a_task_head_of_a_class_for_pretraining_is_refused(cli: Cli, tmp_path: Path) -> None:
    """It would be lost with the head that is left out."""
    folder = write_family(tmp_path / "hf", "electra", "classification", architectures=["ElectraForPreTraining"])
    line = refusal(cli("export", f"hf:{folder}", tmp_path / "out" / "x"), tmp_path / "out")
    assert "ElectraForPreTraining does not have the weights classifier.dense.bias, " in line


def test_a_roberta_without_the_id_of_its_padding_has_the_default(cli: Cli, tmp_path: Path) -> None:
    folder = write_family(tmp_path / "hf", "roberta", pad_token_id=None)
    result = cli("export", f"hf:{folder}", tmp_path / "x")
    assert "config.json has the pad_token_id null: taken as 1, the default of RoBERTa" in result.out
    assert Bundle.open(tmp_path / "x").config.position_offset == 2


@pytest.mark.parametrize("model_type", MODEL_TYPES)
def test_the_signature_says_whether_token_types_change_the_result(
    cli: Cli, exported_family: Callable[..., Path], tmp_path: Path, model_type: str
) -> None:
    """Also in bundles that other commands write, and in the report on the graph."""
    prefix = exported_family(model_type, "tagging")
    assert cli("graft", prefix, tmp_path / "removed", "--head", "none").code == 0
    ignored = "token types: 0 for every token; the model has no other type, and ignores this input"
    for bundle in (prefix, tmp_path / "removed"):
        inspected = json.loads(cli("inspect", bundle, "--json").out)
        meanings = {Bundle.open(bundle).signature.inputs[1].meaning, inspected["inputs"][1]["meaning"]}
        assert len(meanings) == 1
        assert (meanings == {ignored}) == (model_type in ("roberta", "distilbert", "mpnet"))


@pytest.mark.parametrize("model_type", MODEL_TYPES)
def test_a_family_is_recognised_by_its_graph_alone(exported_family: Callable[..., Path], model_type: str) -> None:
    bundle = Bundle.open(exported_family(model_type))
    config = bundle.config
    graph = bundle.graph()
    shapes = shapes_of(bundle.params())
    numbered = {node.name: f"n{i}" for i, node in enumerate(graph.nodes)}
    graph.rename(numbered)
    found = require_encoder(graph, {numbered[name]: shape for name, shape in shapes.items()})
    assert found.family == model_type
    assert (found.units, found.embedding_size, found.shares_layers) == (
        config.units,
        config.embedding_size,
        config.shares_layers,
    )
    assert (found.max_length, found.token_type_vocab_size) == (config.max_length, config.token_type_vocab_size)


def nodes(prefix: Path) -> Any:
    """The nodes of a symbol file, which names its target in another place."""
    return json.loads(Path(f"{prefix}-symbol.json").read_text())["nodes"]


@pytest.mark.parametrize("model_type", MODEL_TYPES)
def test_a_family_is_lowered_to_every_form_and_back(
    cli: Cli, exported_family: Callable[..., Path], tmp_path: Path, model_type: str
) -> None:
    """`lower` compares the outputs of both forms; the parameters stay the same."""
    base = old = exported_family(model_type)
    for form, *target in (("gluonnlp", "--target-mxnet", "1.6"), ("fast", "--target-mxnet", "1.9"), ("portable",)):
        assert cli("lower", old, tmp_path / form, "--form", form, *target).code == 0
        old = tmp_path / form
    assert nodes(old) == nodes(base)
    assert Path(f"{old}-0000.params").read_bytes() == Path(f"{base}-0000.params").read_bytes()


@pytest.mark.parametrize(("model_type", "form"), in_turn(MODEL_TYPES, ["portable", "fast"]))
def test_a_family_is_folded(
    cli: Cli, exported_family: Callable[..., Path], tmp_path: Path, model_type: str, form: str
) -> None:
    assert cli("lower", exported_family(model_type), tmp_path / "x", "--fold", "--form", form).code == 0
    assert verify(tmp_path / "x")
    graph = SymbolGraph.load(tmp_path / "x-symbol.json")
    assert require_encoder(graph).family == model_type


@pytest.mark.parametrize(("model_type", "task"), in_turn(MODEL_TYPES, ["classification", "masked_lm"]))
def test_a_family_is_converted_to_onnx(
    cli: Cli, exported_family: Callable[..., Path], tmp_path: Path, model_type: str, task: str | None
) -> None:
    assert cli("onnx", exported_family(model_type, task), tmp_path / "x.onnx").code == 0


@pytest.mark.parametrize("model_type", MODEL_TYPES)
def test_inspect_names_the_family(cli: Cli, exported_family: Callable[..., Path], model_type: str) -> None:
    prefix, title = exported_family(model_type), FAMILIES[model_type].title
    assert f"{title} of 2 layers" in cli("inspect", prefix).out
    document = json.loads(cli("inspect", prefix, "--json").out)
    assert document["family"] == model_type
    assert cli("inspect", f"hf:{prefix.parent / 'hf'}").out.count(model_type) > 0


@pytest.mark.parametrize("form", ["portable", "gluonnlp", "fast"])
@pytest.mark.parametrize("model_type", ["roberta", "distilbert", "bert"])
def test_token_types_change_nothing_in_a_model_with_one_type(tmp_path: Path, model_type: str, form: str) -> None:
    changes: dict[str, Any] = {} if model_type == "distilbert" else {"type_vocab_size": 1}
    folder = write_family(tmp_path / "hf", model_type, **changes)
    export(f"hf:{folder}", tmp_path / "model", ExportOptions(form=form))
    symbol, params, _ = mx.model.load_checkpoint(str(tmp_path / "model"), 0)
    inputs = {"data0": np.full((2, 5), 7.0), "data1": np.zeros((2, 5)), "data2": np.array([5.0, 3.0])}
    (expected,) = bound(symbol, params, inputs)
    for types in (np.ones((2, 5)), np.full((2, 5), np.nan)):
        (found,) = bound(symbol, params, {**inputs, "data1": types})
        np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("model_type", ["roberta", "distilbert"])
def test_finetune_continues_a_trained_head_of_two_layers(
    exported_family: Callable[..., Path], tmp_path: Path, model_type: str
) -> None:
    start = exported_family(model_type, "classification")
    table = tmp_path / "train.tsv"
    table.write_text("label\ttext\n" + "".join(f"class {i % 3}\t{'abc'[i % 3]} d\n" for i in range(30)))
    options = FinetuneOptions(epochs=2, batch_size=6, learning_rate=5e-3, max_length=8, dropout=0.0)
    result = finetune(start, table, table, tmp_path / "more", options=options)
    before, after = Bundle.open(start).params(), Bundle.open(tmp_path / "more").params()
    assert {*before} == {*after}
    assert before["fc-finetune-transform_weight"].shape == (UNITS, UNITS)
    assert np.abs(before["fc-finetune-transform_weight"] - after["fc-finetune-transform_weight"]).max() > 1e-3
    assert max(check.relative_difference for check in verify(tmp_path / "more")) < 1e-5
    assert result.bundle.signature.family == model_type
    assert result.bundle.signature.inputs == Bundle.open(start).signature.inputs


def refused_config(folder: Path, model_type: str, key: str, value: object) -> Path:
    """A folder whose config.json has another value for a key, or without it."""
    source = write_family(folder, model_type)
    config = json.loads((source / "config.json").read_text())
    config.pop(key, None)
    (source / "config.json").write_text(json.dumps(config if value is None else {**config, key: value}))
    return source


@pytest.mark.parametrize(
    ("model_type", "key", "value", "message"),
    [
        ("albert", "num_hidden_groups", 2, "num_hidden_groups: 2 is not one of 1"),
        ("albert", "inner_group_num", 2, "inner_group_num: 2 is not one of 1"),
        ("albert", "position_embedding_type", "relative_key", '"relative_key" is not one of "absolute"'),
        ("albert", "embedding_size", None, 'the key "embedding_size" is missing'),
        ("electra", "embedding_size", None, 'the key "embedding_size" is missing'),
        ("electra", "embedding_size", 0, "embedding_size"),
        ("electra", "embedding_size", UNITS, "not the weights of this encoder: 2 unknown (embeddings_project."),
        ("electra", "hidden_act", "silu", "hidden_act"),
    ],
)
def test_what_a_family_can_not_express_is_refused(
    cli: Cli, tmp_path: Path, model_type: str, key: str, value: object, message: str
) -> None:
    source = refused_config(tmp_path / "hf", model_type, key, value)
    assert message in refusal(cli("export", f"hf:{source}", tmp_path / "x"))


def test_the_task_embeddings_of_later_ernies_are_refused(cli: Cli, tmp_path: Path) -> None:
    source = write_family(tmp_path / "hf", "ernie", use_task_id=True)
    assert "use_task_id" in refusal(cli("export", f"hf:{source}", tmp_path / "x"))


def test_an_electra_whose_embeddings_are_as_wide_as_its_layers_has_no_projection(tmp_path: Path) -> None:
    source = write_family(tmp_path / "hf", "electra", embedding_size=UNITS)
    weights = {name: array for name, array in encoder_weights("bert").items() if not name.startswith("pooler.")}
    save_file(weights, source / "model.safetensors")
    config = export(f"hf:{source}", tmp_path / "x").bundle.config
    assert (config.family, config.embedding_size) == ("electra", None)


REFUSED: dict[str, tuple[str, str | None, dict[str, object], tuple[str, ...], str]] = {
    "no position left": (
        "roberta",
        None,
        {"max_position_embeddings": 2},
        (),
        "max_position_embeddings: 2 positions, but the first token has the position 2, pad_token_id + 1",
    ),
    "other pad id": ("roberta", None, {"pad_token_id": 0}, (), "pad_token_id is 0, but the pad token '[PAD]'"),
    "no pooler": (
        "distilbert",
        None,
        {},
        ("--output", "pooled"),
        "has no pooler; export --output cls, mean or sequence",
    ),
    "head of another class": (
        "roberta",
        "tagging",
        {"architectures": ["RobertaForSequenceClassification"]},
        (),
        "RobertaForSequenceClassification needs classifier.dense.weight, classifier.dense.bias, classifier.out_proj",
    ),
    "head of another size": (
        "distilbert",
        "classification",
        {"id2label": {"0": "a", "1": "b"}},
        (),
        "describes 2 outputs: the head does not fit its config",
    ),
    "class of another family": (
        "distilbert",
        "tagging",
        {"architectures": ["BertForTokenClassification"]},
        (),
        "BertForTokenClassification is not one of DistilBertForSequenceClassification",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_a_model_that_does_not_fit_its_family_is_refused_in_one_line(cli: Cli, tmp_path: Path, case: str) -> None:
    model_type, task, changes, options, words = REFUSED[case]
    folder = write_family(tmp_path / "hf", model_type, task, **changes)
    assert words in refusal(cli("export", f"hf:{folder}", tmp_path / "out" / "x", *options), tmp_path / "out")
