"""`bertsym inspect`: the answer for every kind of symbol, the facts, and the picture; as text and as JSON."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from classifier_cases import NETS, classified
from inspecting import SCHEMA, SYMBOLS, Command, as_json, as_text, exported_by_gluonnlp, field, valid
from jsonschema import Draft202012Validator

from bertsym import export, graft, inspect
from bertsym.analysis.classifier_report import InputKind
from bertsym.mxnet_runtime import mx


def answer(cli: Command, *arguments: object) -> Any:
    """The only answer; the text has its sentence."""
    (found,) = as_json(cli, *arguments)["answers"]
    assert found["sentence"] in as_text(cli, *arguments)
    return found


def test_the_schema_is_one_and_names_every_kind() -> None:
    Draft202012Validator.check_schema(SCHEMA)
    assert SCHEMA["$defs"]["answer"]["properties"]["kind"]["enum"] == [kind.value for kind in InputKind]
    described = [SCHEMA, *SCHEMA["$defs"].values()]
    for part in described:
        assert part["type"] != "object" or part["additionalProperties"] is False
        for name, field_schema in part.get("properties", {}).items():
            assert "$ref" in field_schema or field_schema["description"].endswith("."), name


# The answer


@pytest.mark.parametrize(
    ("output", "kind", "sentence"),
    [
        ("cls", "cls", "`cls` = [CLS], position 0 of the sequence: (N, 32)"),
        ("pooled", "pooled", "`pooled` = the pooler, tanh(Dense) of [CLS], position 0 of the sequence: (N, 32)"),
        ("mean", "mean", "`mean` = the mean over the valid tokens: (N, 32)"),
        ("sequence", "sequence", "`sequence` = the whole sequence: (N, T, 32)"),
    ],
)
def test_every_output_without_a_head_is_reported(
    cli: Command, bundles: dict[str, Path], output: str, kind: str, sentence: str
) -> None:
    found = answer(cli, bundles[output])
    assert (found["kind"], found["classifier"], found["output"]) == (kind, None, output)
    assert found["sentence"] == f"no head: ends in {sentence}"


@pytest.mark.parametrize("output", ["cls", "pooled", "mean", "sequence"])
def test_the_input_of_a_head_is_reported_for_every_output(
    cli: Command, bundles: dict[str, Path], output: str, tmp_path: Path
) -> None:
    whole = output == "sequence"
    symbol = graft(mx.sym.load(f"{bundles[output]}-symbol.json"), 3, whole_sequence=whole)
    symbol.save(str(tmp_path / "model-symbol.json"))
    found = answer(cli, tmp_path / "model")
    assert (found["kind"], found["reads"]) == ("whole_sequence" if whole else output, output)
    assert (found["classifier"], found["num_outputs"], found["output"]) == ("fc-finetune", 3, "softmax")
    if whole:  # without parameters the length is unknown
        assert found["sentence"].endswith("flattened to T x 32: length locked by its weight")


def test_the_weight_of_a_head_on_the_sequence_fixes_the_length(
    cli: Command, bundles: dict[str, Path], tmp_path: Path
) -> None:
    symbol = graft(mx.sym.load(f"{bundles['sequence']}-symbol.json"), 2, whole_sequence=True)
    symbol.save(str(tmp_path / "model-symbol.json"))
    arrays = mx.nd.load(f"{bundles['sequence']}-0000.params")
    arrays["arg:fc-finetune_weight"] = mx.nd.zeros((2, 24 * 32))
    arrays["arg:fc-finetune_bias"] = mx.nd.zeros((2,))
    mx.nd.save(str(tmp_path / "model-0003.params"), arrays)
    found = answer(cli, tmp_path / "model")
    assert found["locked_length"] == 24
    assert found["shape"] == ["N", 24, 32]
    assert found["sentence"] == (
        "`fc-finetune` reads `sequence` = the whole sequence (N, 24, 32), flattened to 768: length locked to 24"
    )


def test_a_classifier_of_finetune_is_reported(cli: Command, classifier: Path) -> None:
    document = as_json(cli, classifier)
    assert (document["bundle"], document["trained"], document["encoder_trained"]) == ("classifier", True, True)
    assert document["answers"][0]["sentence"] == (
        "`fc-finetune` reads `cls` = [CLS], position 0 of the sequence: (N, 32)"
    )
    assert (document["parameters"]["missing"], document["parameters"]["superfluous"]) == ([], [])


GLUONNLP = {
    "classifier": ("pooled", 3, "[CLS], position 0 of the sequence: (N, "),
    "classifier_no_length": ("pooled", 3, "[CLS], position 0 of the sequence: (N, "),
    "static_classifier": ("pooled", 3, "[CLS], position 0 of the sequence: (N, "),
    "regression": ("pooled", 1, "[CLS], position 0 of the sequence: (N, "),
    "qa": ("tokens", 2, ", 16), each token separately: 2 values for each"),
    "sequence": ("sequence", None, "the whole sequence: (N, "),
    "sequence_no_length": ("sequence", None, "the whole sequence: ("),
    "roberta": ("sequence", None, "the whole sequence: (N, "),
    "distilbert": ("sequence", None, "the whole sequence: (N, "),
}


@pytest.mark.parametrize(
    ("version", "name"),
    [
        (version, name)
        for version in ("0.6.0", "0.7.1", "0.8.3", "0.9.2", "0.10.0")
        for name in GLUONNLP
        if (SYMBOLS / f"gluonnlp-{version}" / f"{name}-symbol.json").exists()
    ],
)
def test_exports_of_gluonnlp_are_reported(cli: Command, version: str, name: str, tmp_path: Path) -> None:
    kind, outputs, sentence = GLUONNLP[name]
    for weights in (True, False):
        (tmp_path / str(weights)).mkdir()
        found = answer(cli, exported_by_gluonnlp(tmp_path / str(weights), version, name, weights))
        assert (found["kind"], found["num_outputs"], found["locked_length"]) == (kind, outputs, None)
        assert sentence in found["sentence"]
        assert found["sentence"].startswith("no head: ends in" if outputs is None else f"`{found['classifier']}` reads")


@pytest.mark.parametrize("version", ["0.8.3", "0.9.2", "0.10.0"])
def test_each_pretraining_head_has_its_report(cli: Command, version: str, tmp_path: Path) -> None:
    found = as_json(cli, exported_by_gluonnlp(tmp_path, version, "pretraining"))["answers"]
    assert [entry["kind"] for entry in found] == ["sequence", "pooled", "pooled", "unknown"]
    assert [entry["num_outputs"] for entry in found] == [None, None, 2, 50]
    assert found[3]["sentence"].endswith("computed from the encoder's output in a way that is not analysed; see --path")


@pytest.mark.parametrize(
    "path", sorted(SYMBOLS.glob("mxnet-*/*.json")), ids=lambda path: f"{path.parent.name}/{path.stem}"
)
def test_a_symbol_without_a_bert_is_reported(cli: Command, path: Path) -> None:
    document = as_json(cli, path, "--nodes")
    assert document["bert"] is None
    assert {entry["kind"] for entry in document["answers"]} == {"no_bert"}
    lines = as_text(cli, path)
    assert field(lines, "graph") == [f"no BERT, {len(document['nodes'])} nodes"]
    assert all("no BERT" in entry["sentence"] for entry in document["answers"])


# The facts


def test_the_summary_of_a_bundle_is_printed(cli: Command, classifier: Path) -> None:
    lines = as_text(cli, classifier)
    assert lines[0] == f"{classifier}: bertsym bundle, classifier, written by MXNet 1.9.1"
    assert field(lines, "graph")[0].startswith(
        "BERT of 2 layers, 32 units, 4 heads, vocabulary 53, max length 40; portable form, "
    )
    assert [value.split("  ")[0] for value in field(lines, "inputs")] == ["data0 (N, T)", "data1 (N, T)", "data2 (N,)"]
    assert field(lines, "outputs") == ["softmax (N, 2)"]
    assert field(lines, "loads in") == ["MXNet 1.4.0 and newer: it needs erf"]


def test_known_faults_of_an_mxnet_release_are_reported(cli: Command, classifier: Path, tmp_path: Path) -> None:
    """1.5.1 takes wrong gradients of LeakyReLU's gelu, 1.7.0 approximates it."""
    assert cli("lower", classifier, tmp_path / "new", "--target-mxnet", "1.9").code == 0
    assert field(as_text(cli, tmp_path / "new"), "loads in") == [
        "MXNet 1.5.0 and newer: it needs LeakyReLU act_type=gelu",
        "1.5.1 computes gradients of LeakyReLU act_type=gelu incorrectly: lower --target-mxnet 1.5",
        "1.7.0 computes LeakyReLU act_type=gelu incorrectly: lower --target-mxnet 1.7",
    ]
    defects = as_json(cli, tmp_path / "new")["defects"]
    assert [defect["version"] for defect in defects] == ["1.5.1", "1.7.0"] * 2
    assert as_json(cli, classifier)["defects"] == []


def test_parameters_are_counted_by_part(cli: Command, classifier: Path) -> None:
    document = as_json(cli, classifier, "--arrays")
    parts = {part["name"]: part for part in document["parameters"]["parts"]}
    assert list(parts) == ["embeddings", "layer 0", "layer 1", "head"]
    assert parts["embeddings"]["numbers"] == (53 + 40 + 2 + 2) * 32
    assert parts["layer 0"]["numbers"] == 4 * (32 * 32 + 32) + 2 * 32 * 48 + 48 + 32 + 4 * 32
    assert (parts["head"]["arrays"], parts["head"]["numbers"], parts["head"]["bytes"]) == (2, 2 * 32 + 2, 264)
    arrays = document["arrays"]
    assert document["parameters"]["arrays"] == len(arrays)
    assert document["parameters"]["bytes"] == sum(array["bytes"] for array in arrays)
    assert document["parameters"]["bytes"] == 4 * document["parameters"]["numbers"]


def test_the_pooler_is_a_part_of_its_own(cli: Command, tmp_path: Path) -> None:
    for version, name, parts in (("0.10.0", "classifier", ["pooler", "head"]), ("0.6.0", "pooled", ["pooler"])):
        document = as_json(cli, exported_by_gluonnlp(tmp_path, version, name))
        names = [part["name"] for part in document["parameters"]["parts"]]
        assert names == ["embeddings", "layer 0", "layer 1", *parts]


def test_missing_and_superfluous_parameters_are_named(cli: Command, tmp_path: Path) -> None:
    prefix = exported_by_gluonnlp(tmp_path, "0.10.0", "classifier", weights=False)
    arrays = mx.nd.load(str(SYMBOLS / "gluonnlp-0.10.0" / "weights-0000.params"))
    needed = set(mx.sym.load(f"{prefix}-symbol.json").list_arguments())
    kept = {name: array for name, array in arrays.items() if name[4:] in needed}
    del kept["arg:bertclassifier0_dense0_bias"], kept["arg:bertencoder0_position_weight"]
    kept["arg:another_weight"] = mx.nd.zeros((2, 3))
    mx.nd.save(f"{prefix}-0000.params", kept)
    parameters = as_json(cli, prefix)["parameters"]
    assert parameters["missing"] == ["bertencoder0_position_weight", "bertclassifier0_dense0_bias"]
    assert parameters["superfluous"] == ["another_weight"]
    lines = field(as_text(cli, prefix), "params")
    assert "missing: bertencoder0_position_weight, bertclassifier0_dense0_bias" in lines
    assert "not read by the graph: another_weight" in lines
    (line,) = [line for line in as_text(cli, prefix, "--arrays") if line.startswith("another_weight")]
    assert line.split() == ["another_weight", "(2,", "3)", "float32", "24", "B", "arg", "not", "read"]


def test_a_symbol_without_parameters_is_inspected(cli: Command, tmp_path: Path) -> None:
    prefix = exported_by_gluonnlp(tmp_path, "0.10.0", "classifier", weights=False)
    document = as_json(cli, prefix, "--arrays")
    assert (document["params"], document["parameters"], document["arrays"]) == (None, None, [])
    assert document["bert"]["max_length"] == 24  # from the shape that GluonNLP's variable carries
    assert field(as_text(cli, prefix), "params") == ["no file"]


def test_inputs_and_labels_of_other_networks_have_their_own_shapes(cli: Command) -> None:
    document = as_json(cli, SYMBOLS / "mxnet-1.9.1" / "ssd.json")
    assert [(fact["name"], fact["shape"]) for fact in document["inputs"]] == [("data", None)]
    assert [(fact["name"], fact["shape"]) for fact in document["label_inputs"]] == [("label", ["?", 4, 5])]


def test_a_label_is_not_an_input(cli: Command, bundles: dict[str, Path], tmp_path: Path) -> None:
    graft(mx.sym.load(f"{bundles['cls']}-symbol.json"), 2).save(str(tmp_path / "train-symbol.json"))
    document = as_json(cli, tmp_path / "train")
    assert [fact["name"] for fact in document["label_inputs"]] == ["softmax_label"]
    assert [fact["name"] for fact in document["inputs"]] == ["data0", "data1", "data2"]
    assert field(as_text(cli, tmp_path / "train"), "labels") == ["softmax_label (?)  label, read by the loss only"]
    document = as_json(cli, tmp_path / "train", "--shape", "data0=5,8")
    assert document["label_inputs"][0]["shape"] == [5]


def test_only_a_static_bert_takes_one_length(cli: Command, tmp_path: Path) -> None:
    prefix = exported_by_gluonnlp(tmp_path, "0.6.0", "classifier")
    document = as_json(cli, prefix)
    assert document["bert"]["length"] == 8
    assert {fact["name"]: fact["shape"] for fact in document["inputs"]} == {
        "data0": ["N", 8],
        "data1": ["N", 8],
        "data2": ["N"],
    }
    assert field(as_text(cli, prefix), "graph")[0].endswith("; takes length 8 only")


def test_operators_are_counted(cli: Command, classifier: Path) -> None:
    document = as_json(cli, classifier, "--nodes")
    operators = document["operators"]
    assert operators["LayerNorm"] == 5
    assert sum(operators.values()) == len([node for node in document["nodes"] if node["op"] != "null"])
    assert list(operators.values()) == sorted(operators.values(), reverse=True)
    assert as_text(cli, classifier, "--ops")[0].split() == [next(iter(operators)), str(next(iter(operators.values())))]


def test_random_weights_are_reported(cli: Command, tmp_path: Path) -> None:
    result = export("random:bert_1_8_2", tmp_path / "random")
    document = as_json(cli, result.bundle.prefix)
    assert (document["trained"], document["encoder_trained"]) == (False, False)
    assert "RANDOM WEIGHTS" in field(as_text(cli, result.bundle.prefix), "graph")[0]


def test_repeated_operator_names_do_not_change_the_report(cli: Command, tmp_path: Path) -> None:
    prefix = exported_by_gluonnlp(tmp_path, "0.10.0", "classifier")
    before = as_json(cli, prefix)
    document = json.loads(Path(f"{prefix}-symbol.json").read_text())
    for node in document["nodes"]:
        if node["op"] != "null":
            node["name"] = "data0"  # MXNet itself only asks for the names of variables to differ
    Path(f"{prefix}-symbol.json").write_text(json.dumps(document))
    after = as_json(cli, prefix)
    assert after["inputs"] == before["inputs"]
    assert after["parameters"] == before["parameters"]
    assert after["bert"] == {**before["bert"], "encoder_output": "data0", "layer_outputs": ["data0", "data0"]}
    assert [entry["kind"] for entry in after["answers"]] == ["pooled"]


# The picture


def test_the_path_leads_from_the_inputs_to_the_classifier(cli: Command, classifier: Path) -> None:
    lines = as_text(cli, classifier)
    picture = [" ".join(line.split()) for line in lines[lines.index("  data0 data1 data2") :]]
    assert picture[::2] == [
        "data0 data1 data2",
        "embeddings and 2 encoder layers (N, T, 32) bertencoder0_transformer1_positionwiseffn0_layernorm0_fwd",
        "cls_slice slice_axis (N, 1, 32)",
        "cls Reshape (N, 32) <- [CLS]",
        "dropout-finetune Dropout (N, 32)",
        "fc-finetune FullyConnected (N, 2) <- the classifier",
        "softmax softmax (N, 2)",
    ]
    assert set(picture[1::2]) == {"|"}


def test_each_report_has_its_path(cli: Command, tmp_path: Path) -> None:
    net = NETS["ours"]()
    first = mx.sym.slice_axis(net.sequence, axis=1, begin=3, end=4, name="third")
    mx.sym.Group([classified(first), mx.sym.mean(net.sequence, axis=1, name="mean")]).save(
        str(tmp_path / "two-symbol.json")
    )
    lines = as_text(cli, tmp_path / "two")
    assert lines.count("  data0 data1 data2") == 2
    assert [line.split("<- ")[1] for line in lines if "<-" in line] == ["one token", "the classifier", "mean"]


# From Python


def test_inspect_is_a_function_too(classifier: Path) -> None:
    facts = inspect(classifier, path=("cls_slice", "softmax"))
    assert facts.encoder is not None
    assert [node.name for node in facts.path or ()][:2] == ["cls_slice", "cls"]
    assert [node.op for node in facts.nodes].count("LayerNorm") == 5
    assert {array.dtype for array in facts.arrays} == {str(np.dtype(np.float32))}
    document = facts.to_json(nodes=True, params=True)
    assert set(document) >= {"nodes", "arrays", "path"}


def test_results_in_python_match_the_schema(classifier: Path) -> None:
    facts = inspect(classifier)
    for options in ({}, {"nodes": True}, {"params": True}):
        valid(json.loads(json.dumps(facts.to_json(**options))))
