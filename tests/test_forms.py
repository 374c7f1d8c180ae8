"""The three forms of one encoder: the same parameters, numbers and gradients, for the MXNet that was asked for."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from checkpoints import computed
from conftest import CONFIG, Result, Tables, hugging_face_weights, write_hugging_face
from gluonnlp_models import bert_model
from reference import bert_forward

from bertsym import (
    BertConfig,
    Bundle,
    Classifier,
    Edits,
    ExportOptions,
    FinetuneOptions,
    NewHead,
    Signature,
    SymbolGraph,
    edit,
    evaluate,
    export,
    extract,
    finetune,
    graft_head,
    inspect,
    output_symbol,
    verify,
)
from bertsym.analysis.classifier_report import InputKind
from bertsym.array import Array
from bertsym.encoders.forms import TARGETS, Form, choose_form
from bertsym.mxnet_runtime import mx
from bertsym.symbol.operator_versions import oldest_mxnet

Cli = Callable[..., Result]
FORMS = ("portable", "gluonnlp", "fast")
OUTPUTS = ("cls", "pooled", "mean", "sequence")
#: each form, with gelu as one operator and by erf
WRITTEN = [(form, target) for form in FORMS for target in (None, "1.7" if form == "gluonnlp" else "1.4")]
ATOL = 2e-5

#: All that the portable form, and the fast one for 1.4, are made of: each of it in MXNet 1.4.1.
MXNET_1_4 = {
    "null": {"__shape__"},
    "Activation": {"act_type"},
    "Cast": {"dtype"},
    "Dropout": {"p"},
    "Embedding": {"input_dim", "output_dim"},
    "FullyConnected": {"flatten", "num_hidden"},
    "LayerNorm": {"eps"},
    "Reshape": {"reverse", "shape"},
    "SequenceMask": {"axis", "use_sequence_length", "value"},
    "_div_scalar": {"scalar"},
    "_mul_scalar": {"scalar"},
    "_plus_scalar": {"scalar"},
    "batch_dot": {"transpose_b"},
    "broadcast_add": set(),
    "broadcast_axis": {"axis", "size"},
    "broadcast_div": set(),
    "elemwise_add": set(),
    "elemwise_mul": set(),
    "erf": set(),
    "expand_dims": {"axis"},
    "slice_axis": {"axis", "begin", "end"},
    "slice_like": {"axes"},
    "softmax": {"axis"},
    "sum": {"axis"},
    "transpose": {"axes"},
    "zeros_like": set(),
}


def texts(length: int, config: Mapping[str, Any] = CONFIG) -> dict[str, Array]:
    """Four rows: full, a single token, one short of full, half; random ids at the padding too."""
    rng = np.random.default_rng(length)
    ids = rng.integers(config["vocab_size"], size=(4, length))
    types = rng.integers(config["type_vocab_size"], size=(4, length))
    lengths = np.maximum(1, [length, 1, length - 1, length // 2])
    return {name: array.astype(np.float32) for name, array in zip(("data0", "data1", "data2"), (ids, types, lengths))}


def reference(
    inputs: Mapping[str, Array], config: Mapping[str, Any] = CONFIG, weights: Mapping[str, Array] | None = None
) -> Any:
    return bert_forward(
        weights if weights is not None else hugging_face_weights(),
        config,
        *(inputs[name].astype(int) for name in ("data0", "data1", "data2")),
    )


@pytest.fixture(scope="module")
def forms(exported: Callable[..., Path]) -> dict[tuple[str, str, str | None], Path]:
    """Prefixes of the tiny BERT's bundles, by output, form and target."""
    return {
        (output, form, target): exported(output=output, form=form, target=target)
        for output in OUTPUTS
        for form, target in WRITTEN
    }


Written = dict[tuple[str, str, "str | None"], Path]


# The numbers


@pytest.mark.parametrize("length", [1, 9, 40])
@pytest.mark.parametrize("output", OUTPUTS)
@pytest.mark.parametrize(("form", "target"), WRITTEN)
def test_every_form_computes_the_same_as_the_reference(
    forms: Written, form: str, target: str | None, output: str, length: int
) -> None:
    inputs = texts(length)
    (answer,) = computed(forms[output, form, target], inputs)
    expected = reference(inputs)[output]
    assert answer.shape == expected.shape
    assert np.abs(expected).max() > 0.5
    assert np.abs(answer - expected).max() < ATOL


@pytest.mark.parametrize(("form", "target"), WRITTEN)
def test_every_form_computes_the_same_as_gluonnlp(forms: Written, form: str, target: str | None) -> None:
    inputs = texts(13)
    encoded, pooled = bert_model(CONFIG, hugging_face_weights())(*map(mx.nd.array, inputs.values()))
    assert np.abs(computed(forms["cls", form, target], inputs)[0] - encoded[:, 0].asnumpy()).max() < ATOL
    assert np.abs(computed(forms["pooled", form, target], inputs)[0] - pooled.asnumpy()).max() < ATOL
    (sequence,) = computed(forms["sequence", form, target], inputs)
    for row, wanted, length in zip(sequence, encoded.asnumpy(), inputs["data2"].astype(int)):
        assert np.abs(row - wanted)[:length].max() < ATOL
        assert not row[length:].any()


@pytest.mark.parametrize("output", OUTPUTS)
@pytest.mark.parametrize(("form", "target"), WRITTEN)
def test_ids_in_the_padding_do_not_matter(forms: Written, form: str, target: str | None, output: str) -> None:
    inputs = texts(9)
    other = {name: array.copy() for name, array in inputs.items()}
    padding = np.arange(9) >= inputs["data2"][:, None]
    other["data0"][padding] = (other["data0"][padding] + 7) % CONFIG["vocab_size"]
    other["data1"][padding] = 1 - other["data1"][padding]
    assert (other["data0"] != inputs["data0"]).any()
    prefix = forms[output, form, target]
    np.testing.assert_array_equal(computed(prefix, other)[0], computed(prefix, inputs)[0])


@pytest.mark.parametrize(
    "changes",
    [
        {"max_position_embeddings": 10},
        {"max_position_embeddings": 700},
        {"type_vocab_size": 1},
        {"num_attention_heads": 1},
        {"num_attention_heads": 32},
        {"num_hidden_layers": 1},
        {"layer_norm_eps": 0.3},
    ],
    ids=str,
)
@pytest.mark.parametrize("form", FORMS)
def test_every_size_has_its_effect(form: str, changes: dict[str, Any], tmp_path: Path) -> None:
    config = {**CONFIG, **changes}
    weights = hugging_face_weights()
    rng = np.random.default_rng(3)
    rows = {"position": config["max_position_embeddings"], "token_type": config["type_vocab_size"]}
    for name, count in rows.items():
        shape = (count, CONFIG["hidden_size"])
        weights[f"embeddings.{name}_embeddings.weight"] = rng.normal(0, 0.3, shape).astype(np.float32)
    if config["num_hidden_layers"] == 1:
        weights = {name: array for name, array in weights.items() if "layer.1" not in name}
    folder = write_hugging_face(tmp_path / "hf", weights, **changes)
    export(f"hf:{folder}", tmp_path / "base", ExportOptions(output="pooled", form=form), verify=False)
    length = min(650, config["max_position_embeddings"])
    inputs = {name: array[:2] for name, array in texts(length, config).items()}
    (answer,) = computed(tmp_path / "base", inputs)
    assert np.abs(answer - reference(inputs, config, weights)["pooled"]).max() < ATOL


@pytest.mark.parametrize("output", OUTPUTS)
@pytest.mark.parametrize(
    ("form", "dtypes"),
    [
        (form, ("int32", "int32", lengths))
        for form in FORMS
        for lengths in ("float32", "int32")
        if (form, lengths) != ("gluonnlp", "int32")  # as in GluonNLP's own, the lengths are float32
    ],
)
def test_integer_inputs_can_be_bound(forms: Written, form: str, output: str, dtypes: tuple[str, ...]) -> None:
    inputs = texts(9)
    symbol, params, _ = mx.model.load_checkpoint(str(forms[output, form, None]), 0)
    arrays = {name: mx.nd.array(inputs[name], dtype=dtype) for name, dtype in zip(inputs, dtypes)}
    executor = symbol.bind(mx.cpu(), {**params, **arrays}, grad_req="null")
    answer = executor.forward(is_train=False)[0].asnumpy()
    assert answer.dtype == np.float32
    assert np.abs(answer - reference(inputs)[output]).max() < ATOL


# Gradients


@pytest.fixture(scope="module")
def without_dropout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("still")
    return write_hugging_face(folder / "hf", hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0)


def gradients(prefix: Path, inputs: Mapping[str, Array]) -> dict[str, Array]:
    """Of all parameters at the training symbol, whose classifier was given weights that are not 0."""
    symbol = mx.sym.load(f"{prefix}-train-symbol.json")
    params = {name[4:]: array for name, array in mx.nd.load(f"{prefix}-0000.params").items()}
    values = {**params, **{name: mx.nd.array(array) for name, array in inputs.items()}}
    values["softmax_label"] = mx.nd.array(np.arange(4) % 2)
    slots = {name: mx.nd.zeros(array.shape) for name, array in params.items()}
    executor = symbol.bind(mx.cpu(), values, args_grad=slots, grad_req=dict.fromkeys(slots, "write"))
    executor.forward(is_train=True)
    executor.backward()
    return {name: array.asnumpy() for name, array in slots.items()}


def trained(source: Path, out: Path, form: str, target: str | None, output: str) -> Path:
    options = ExportOptions(output=output, form=form, target=target)
    base = export(f"hf:{source}", out / "base", options, verify=False).bundle.prefix
    bundle = graft_head(base, out / "head", NewHead(dropout=0.0)).bundle
    params = dict(bundle.params())
    params["fc-finetune_weight"] = np.random.default_rng(4).normal(size=(2, 32)).astype(np.float32)
    mx.nd.save(f"{bundle.prefix}-0000.params", {f"arg:{name}": mx.nd.array(array) for name, array in params.items()})
    return bundle.prefix


def assert_gradients(found: Mapping[str, Array], expected: Mapping[str, Array]) -> None:
    assert found.keys() == expected.keys()
    for name, gradient in expected.items():
        if name.endswith("_key_bias"):  # exactly zero in mathematics, rounding in both
            assert np.abs(found[name]).max() < 1e-4
            continue
        scale = np.abs(gradient).max()
        assert scale > 1e-4, name
        assert np.abs(found[name] - gradient).max() < 1e-4 * scale, name


@pytest.fixture(scope="module", params=["cls", "pooled", "mean"])
def portable_gradients(
    request: pytest.FixtureRequest, without_dropout: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[str, dict[str, Array]]:
    """An output, and the gradients of the portable form that ends in it."""
    prefix = trained(without_dropout, tmp_path_factory.mktemp("portable"), "portable", None, request.param)
    return request.param, gradients(prefix, texts(9))


@pytest.mark.parametrize(("form", "target"), [written for written in WRITTEN if written != ("portable", None)])
def test_gradients_are_those_of_the_portable_form(
    portable_gradients: tuple[str, dict[str, Array]],
    without_dropout: Path,
    form: str,
    target: str | None,
    tmp_path: Path,
) -> None:
    output, expected = portable_gradients
    assert_gradients(gradients(trained(without_dropout, tmp_path, form, target, output), texts(9)), expected)


@pytest.mark.parametrize("form", FORMS)
def test_gradients_are_those_of_gluonnlp(without_dropout: Path, form: str, tmp_path: Path) -> None:
    inputs = texts(9)
    prefix = trained(without_dropout, tmp_path, form, None, "pooled")
    head = mx.nd.load(f"{prefix}-0000.params")
    weight, bias = (head[f"arg:fc-finetune_{part}"] for part in ("weight", "bias"))
    weight.attach_grad()
    bias.attach_grad()
    net = bert_model(CONFIG, hugging_face_weights())
    with mx.autograd.record():
        _, pooled = net(*map(mx.nd.array, inputs.values()))
        scores = mx.nd.FullyConnected(pooled, weight, bias, num_hidden=2)
        loss = -mx.nd.pick(mx.nd.log_softmax(scores), mx.nd.array(np.arange(4) % 2)).sum()
    loss.backward()
    expected = {name: parameter.grad().asnumpy() for name, parameter in net.collect_params().items()}
    expected |= {"fc-finetune_weight": weight.grad.asnumpy(), "fc-finetune_bias": bias.grad.asnumpy()}
    assert_gradients(gradients(prefix, inputs), expected)


# The graph


@pytest.mark.parametrize("output", OUTPUTS)
def test_all_forms_have_the_same_parameter_file(forms: Written, output: str) -> None:
    files = {Path(f"{forms[output, form, target]}-0000.params").read_bytes() for form, target in WRITTEN}
    assert len(files) == 1
    graphs = {Path(f"{forms[output, form, target]}-symbol.json").read_bytes() for form, target in WRITTEN}
    assert len(graphs) == len(WRITTEN)


@pytest.mark.parametrize("output", OUTPUTS)
@pytest.mark.parametrize(("form", "target"), [("portable", None), ("portable", "1.4"), ("fast", "1.4")])
def test_symbols_for_1_4_use_only_operators_of_1_4(forms: Written, form: str, target: str | None, output: str) -> None:
    graph = SymbolGraph.load(f"{forms[output, form, target]}-symbol.json")
    used = {(node.op, attribute) for node in graph.nodes for attribute in (*node.attrs, "")}
    known = {(op, attribute) for op, attributes in MXNET_1_4.items() for attribute in (*attributes, "")}
    assert used <= known
    oldest = oldest_mxnet(graph.nodes)
    assert oldest.unknown == []
    assert tuple(map(int, oldest.version.split("."))) <= (1, 4, 0)
    reads = {node.attrs["act_type"] for node in graph.nodes if "act_type" in node.attrs}
    assert reads <= {"tanh"}


@pytest.mark.parametrize(
    ("form", "target"),
    [(form, target) for form in FORMS for target in TARGETS if form != "gluonnlp" or target not in ("1.4", "1.5")],
)
def test_a_form_is_written_for_every_mxnet_that_loads_it(form: str, target: str) -> None:
    chosen = choose_form(form, target)
    assert chosen == Form(form, erf=target in ("1.4", "1.5", "1.7"))
    graph = SymbolGraph.parse(output_symbol(BertConfig(1, 8, 12, 2, 30), "cls", chosen).tojson())
    oldest = oldest_mxnet(graph.nodes)
    assert oldest.unknown == []
    assert tuple(map(int, oldest.version.split(".")))[:2] <= tuple(map(int, target.split(".")))
    assert bool(graph.find(op="erf")) is chosen.erf
    assert bool(graph.find(op="LeakyReLU")) is not chosen.erf


@pytest.mark.parametrize("output", OUTPUTS)
@pytest.mark.parametrize("form", [Form(name, erf) for name in FORMS for erf in (False, True)], ids=str)
def test_the_json_is_the_same_in_every_process(form: Form, output: str) -> None:
    config = BertConfig(2, 8, 12, 2, 30)
    with mx.name.NameManager() as names:
        first = output_symbol(config, output, form).tojson()
        assert names._counter == {}
    mx.sym.zeros_like(mx.sym.var("x"))
    assert output_symbol(config, output, form).tojson() == first
    node_names = [node["name"] for node in json.loads(first)["nodes"]]
    assert len(set(node_names)) == len(node_names)
    assert all(re.fullmatch(r"[a-z][a-z0-9_]*", name) for name in node_names)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("output", OUTPUTS)
def test_under_cls_the_fast_form_computes_position_0_of_the_last_layer(forms: Written, form: str, output: str) -> None:
    symbol = mx.sym.load(f"{forms[output, form, None]}-symbol.json")
    layers = [f"bertencoder0_transformer{i}_positionwiseffn0_layernorm0_fwd_output" for i in (0, 1)]
    inside = mx.sym.Group([symbol.get_internals()[name] for name in layers])
    _, shapes, _ = inside.infer_shape(data0=(3, 7), data1=(3, 7), data2=(3,))
    first_only = form == "fast" and output in ("cls", "pooled")
    whole = (7, 3, 32) if form == "gluonnlp" else (3, 7, 32)
    assert shapes == [whole, (3, 1, 32) if first_only else whole]


@pytest.mark.parametrize("form", ["portable", "fast"])
def test_a_text_longer_than_the_position_table_is_refused(forms: Written, form: str) -> None:
    symbol = mx.sym.load(f"{forms['cls', form, None]}-symbol.json")
    with pytest.raises(mx.MXNetError, match="bertencoder0_position_embed"):
        symbol.infer_shape(data0=(1, 41), data1=(1, 41), data2=(1,))


# What the bundle says, and takes


@pytest.mark.parametrize(("form", "target"), WRITTEN)
def test_the_signature_names_form_target_and_oldest_mxnet(forms: Written, form: str, target: str | None) -> None:
    prefix = forms["cls", form, target]
    document = json.loads(Path(f"{prefix}-signature.json").read_text())
    assert (document["form"], document["target_mxnet"]) == (form, target)
    untargeted = {"portable": "1.4.0", "fast": "1.5.0", "gluonnlp": "1.6.0"}
    oldest = untargeted[form] if target is None else oldest_mxnet_of(prefix)
    assert document["minimum_mxnet"] == oldest
    if target == "1.4":
        assert tuple(map(int, oldest.split("."))) <= (1, 4, 0)
    graph = SymbolGraph.load(f"{prefix}-symbol.json")
    assert graph.mxnet_version == {None: "1.9.1", "1.4": "1.4.1", "1.7": "1.7.0"}[target]


def oldest_mxnet_of(prefix: Path) -> str:
    return oldest_mxnet(SymbolGraph.load(f"{prefix}-symbol.json").nodes).version


@pytest.mark.parametrize(("form", "target"), [("gluonnlp", "1.6"), ("fast", "1.4"), ("portable", "1.7")])
def test_export_takes_form_and_target_from_the_command_line(
    cli: Cli, tiny_hf: Path, form: str, target: str, tmp_path: Path
) -> None:
    out = tmp_path / "base"
    done = cli("export", f"hf:{tiny_hf}", out, "--form", form, "--target-mxnet", target, "--task", "classification")
    assert done.code == 0, done.err
    signature = Bundle.open(out).signature
    assert (signature.form, signature.target_mxnet, signature.kind) == (form, target, "logits")
    assert SymbolGraph.load(f"{out}-symbol.json").mxnet_version == TARGETS[target].release
    command = json.loads(Path(f"{out}-manifest.json").read_text())["command"]
    assert command[command.index("--form") + 1] == form
    assert command[command.index("--target-mxnet") + 1] == target


@pytest.mark.parametrize(("form", "target"), [("gluonnlp", "1.7"), ("fast", "1.4"), ("portable", None)])
def test_a_bundle_of_any_form_can_be_finetuned_evaluated_and_predicted(
    forms: Written, tables: Tables, form: str, target: str | None, tmp_path: Path
) -> None:
    base = forms["cls", form, target]
    assert len(verify(base)) > 3
    facts = inspect(base)
    assert facts.encoder is not None
    assert facts.classifiers[0].kind is InputKind.CLS
    options = FinetuneOptions(epochs=3, batch_size=16, learning_rate=1e-2, max_length=24)
    tuned = finetune(base, tables.train, tables.dev, tmp_path / "tuned", options=options)
    assert tuned.evaluations[-1].loss < tuned.evaluations[0].loss
    signature = Bundle.open(tmp_path / "tuned").signature
    assert (signature.form, signature.target_mxnet, signature.trained) == (form, target, True)
    for name in ("symbol", "train-symbol"):
        release = TARGETS[target].release if target else "1.9.1"
        assert SymbolGraph.load(f"{tmp_path / 'tuned'}-{name}.json").mxnet_version == release
    assert evaluate(tmp_path / "tuned", tables.dev).metrics == pytest.approx(tuned.kept.metrics, abs=1e-5)
    classified = Classifier(tmp_path / "tuned").predict(["the happy cat sat .", "the sad cat sat ."])
    assert {prediction.label for prediction in classified} <= {"yes", "no"}
    grafted = graft_head(base, tmp_path / "grafted").bundle.signature
    edited = edit(base, tmp_path / "edited", Edits(dropout="off")).written
    assert edited is not None
    assert edited.verified
    part = extract(base, tmp_path / "part", ["cls"]).bundle.signature
    for other in (grafted, edited.bundle.signature, part):
        assert isinstance(other, Signature)
        assert (other.form, other.target_mxnet) == (form, target)


# Usage

# Runs command lines; prints the exit code and the libraries that are imported after each.
_CHILD = """
import json, sys
from bertsym.cli.group import run
for arguments in json.loads(sys.argv[1]):
    print(run(arguments), sorted({"mxnet", "gluonnlp"} & set(sys.modules)), flush=True)
"""


def test_an_unwritable_output_is_a_usage_error_before_any_work(
    tiny_hf: Path, bundles: dict[str, Path], tmp_path: Path
) -> None:
    refused = [
        (["--form", "gluonnlp", "--target-mxnet", "1.4"], "the form gluonnlp needs MXNet 1.6 or later"),
        (["--form", "gluonnlp", "--target-mxnet", "1.5"], "the form gluonnlp needs MXNet 1.6 or later"),
        (["--form", "quick"], "'quick' is not one of 'portable', 'gluonnlp', 'fast'"),
        (["--target-mxnet", "2.0"], "'2.0' is not one of '1.4'"),
    ]
    sources = {"export": f"hf:{tiny_hf}", "lower": str(bundles["cls"])}
    commands = [
        [command, source, str(tmp_path / "out" / "new"), *options]
        for command, source in sources.items()
        for options, _ in refused
    ]
    child = [sys.executable, "-c", _CHILD, json.dumps(commands)]
    done = subprocess.run(child, capture_output=True, text=True, check=True)
    assert done.stdout == "2 []\n" * len(commands)
    errors = [line for line in done.stderr.splitlines() if line.startswith("Error: ")]
    assert len(errors) == len(commands)
    for line, (_, why) in zip(errors, refused * len(sources)):
        assert why in line
    assert not (tmp_path / "out").exists()
