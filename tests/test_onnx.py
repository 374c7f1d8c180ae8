"""bertsym onnx: a file that stands alone, computes what MXNet does, and is written atomically."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from checkpoints import conv_checkpoint, gluonnlp_checkpoint, split_checkpoint
from conftest import CONFIG, VOCABULARY, Result, Tables, hugging_face_weights, write_hugging_face
from onnx_files import SHAPES, assert_as_mxnet, run, session, token_inputs
from refusals import refusal
from symbol_values import SYMBOLS
from tokenizer_documents import document
from tools import needs

from bertsym import (
    Bundle,
    Classifier,
    ExportOptions,
    ModelSource,
    NewHead,
    export,
    export_onnx,
    extract,
    graft_for_inference,
    graft_head,
    lower,
    output_symbol,
)
from bertsym.bundle import file_digest
from bertsym.encoders.config import BertConfig
from bertsym.encoders.inputs import INPUT_NAMES, INPUTS, input_shapes
from bertsym.encoders.symbol_heads import head_parameters
from bertsym.mxnet_runtime import mx
from bertsym.onnx_export import onnx_exporter
from bertsym.symbol.graph import SymbolGraph
from bertsym.symbol.params import ParamsFile, write_params

pytestmark = needs("onnx", "onnxruntime")

Cli = Callable[..., Result]
WORDS = CONFIG["vocab_size"]
HEADS = {"classification": "cls", "regression": "pooled", "tagging": "sequence", "qa": "sequence"}


def checkpoint(prefix: Path, graph: SymbolGraph, params: ParamsFile) -> Path:
    """A plain symbol with its parameters."""
    prefix.with_name(f"{prefix.name}-symbol.json").write_text(graph.to_json())
    with open(f"{prefix}-0000.params", "wb") as file:
        write_params(file, {name: params[name] for name in graph.variables if name in params})
    return prefix


# What it computes


@pytest.mark.parametrize("output", ["cls", "pooled", "mean", "sequence"])
def test_an_output_of_a_bert_converts_for_any_batch_size_and_length(
    bundles: dict[str, Path], tmp_path: Path, output: str
) -> None:
    export_onnx(bundles[output], tmp_path / "out.onnx")
    for batch, length in SHAPES:
        assert_as_mxnet(tmp_path / "out.onnx", bundles[output], token_inputs(batch, length, WORDS))


def test_a_fine_tuned_classifier_converts(classifier: Path, tmp_path: Path) -> None:
    export_onnx(classifier, tmp_path / "happy.onnx")
    for batch, length in SHAPES:
        assert_as_mxnet(tmp_path / "happy.onnx", classifier, token_inputs(batch, length, WORDS))


@pytest.mark.parametrize("head", HEADS)
def test_a_grafted_head_converts(bundles: dict[str, Path], tmp_path: Path, head: str) -> None:
    prefix = graft_head(bundles[HEADS[head]], tmp_path / head, NewHead(head, seed=3)).bundle.prefix
    export_onnx(prefix, tmp_path / "out.onnx")
    for batch, length in SHAPES:
        assert_as_mxnet(tmp_path / "out.onnx", prefix, token_inputs(batch, length, WORDS))


@pytest.mark.parametrize("head", HEADS)
def test_a_training_symbol_is_the_same_without_its_loss(bundles: dict[str, Path], tmp_path: Path, head: str) -> None:
    prefix = graft_head(bundles[HEADS[head]], tmp_path / head, NewHead(head, seed=3)).bundle.prefix
    params = f"{prefix}-0000.params"
    done = export_onnx(ModelSource(f"{prefix}-train-symbol.json", params), tmp_path / "train.onnx")
    export_onnx(prefix, tmp_path / "inference.onnx")
    assert [tensor.name for tensor in done.inputs] == list(INPUT_NAMES)
    inputs = token_inputs(4, 13, WORDS)
    (expected,) = run(tmp_path / "inference.onnx", inputs)
    if head == "qa":  # chances over the tokens, of start and end
        chances = np.exp(expected) / np.exp(expected).sum(axis=1, keepdims=True)
        for found, column in zip(run(tmp_path / "train.onnx", inputs), (0, 1)):
            np.testing.assert_allclose(found, chances[:, :, column], atol=1e-6)
    else:
        (found,) = run(tmp_path / "train.onnx", inputs)
        np.testing.assert_allclose(found, expected, atol=1e-6)


@pytest.mark.parametrize("task", ["classification", "regression", "qa"])
def test_a_finished_head_converts(tiny_hf: Path, tmp_path: Path, task: str) -> None:
    prefix = export(f"hf:{tiny_hf}", tmp_path / task, ExportOptions(task=task)).bundle.prefix
    export_onnx(prefix, tmp_path / "out.onnx")
    for batch, length in SHAPES:
        assert_as_mxnet(tmp_path / "out.onnx", prefix, token_inputs(batch, length, WORDS))


def test_a_classifier_on_the_whole_sequence_keeps_its_one_length(tmp_path: Path, bundles: dict[str, Path]) -> None:
    config = BertConfig.from_dict(json.loads(Path(f"{bundles['cls']}-manifest.json").read_text())["config"])
    base, length = output_symbol(config, "sequence"), 24
    shapes = input_shapes(1, length)
    symbol = graft_for_inference(base, 3, whole_sequence=True, shapes=shapes)
    head = head_parameters(symbol, base.list_arguments(), shapes, 0)
    params = {**ParamsFile(f"{bundles['sequence']}-0000.params"), **head}
    arrays = {name: mx.nd.array(array) for name, array in params.items()}
    mx.model.save_checkpoint(str(tmp_path / "whole"), 0, symbol, arrays, {})
    done = export_onnx(tmp_path / "whole", tmp_path / "out.onnx")
    assert [tensor.shape for tensor in done.inputs] == [("batch", length), ("batch", length), ("batch",)]
    for batch in (1, 4):
        assert_as_mxnet(tmp_path / "out.onnx", tmp_path / "whole", token_inputs(batch, length, WORDS))


def test_gelu_as_one_operator_converts(bundles: dict[str, Path], tmp_path: Path) -> None:
    prefix = lower(bundles["cls"], tmp_path / "one", target="1.9").bundle.prefix
    assert SymbolGraph.load(f"{prefix}-symbol.json").find(op="LeakyReLU")
    export_onnx(prefix, tmp_path / "erf.onnx")
    for batch, length in SHAPES:
        inputs = token_inputs(batch, length, WORDS)
        assert_as_mxnet(tmp_path / "erf.onnx", prefix, inputs)
        assert_as_mxnet(tmp_path / "erf.onnx", bundles["cls"], inputs)


def test_a_part_of_a_bert_reads_encodings_as_float32_and_lengths_as_int64(
    bundles: dict[str, Path], tmp_path: Path
) -> None:
    extract(bundles["mean"], tmp_path / "part", ["mean"], ["layer 1"])
    done = export_onnx(tmp_path / "part", tmp_path / "part.onnx")
    encoded, lengths = sorted(done.inputs, key=lambda tensor: tensor.name)
    assert (encoded.dtype, encoded.shape) == ("float32", ("batch", "length", CONFIG["hidden_size"]))
    assert (lengths.name, lengths.dtype, lengths.shape) == ("data2", "int64", ("batch",))
    rng = np.random.default_rng(1)
    for batch, length in SHAPES:
        values = rng.normal(size=(batch, length, CONFIG["hidden_size"])).astype(np.float32)
        inputs = {encoded.name: values, "data2": token_inputs(batch, length, WORDS)["data2"]}
        assert_as_mxnet(tmp_path / "part.onnx", tmp_path / "part", inputs)


@pytest.mark.parametrize("name", ["classifier", "pooled", "qa", "regression", "sequence", "sequence_no_length"])
def test_an_old_graph_of_gluonnlp_computes_the_recorded_outputs(tmp_path: Path, name: str) -> None:
    prefix = gluonnlp_checkpoint(tmp_path, name, "0.6.0")
    export_onnx(prefix, tmp_path / "out.onnx")
    recorded = json.loads((SYMBOLS / "gluonnlp-0.6.0" / "expected.json").read_text())[name]
    inputs = {key: np.array(rows, np.float32) for key, rows in recorded["inputs"].items()}
    found = run(tmp_path / "out.onnx", inputs)
    assert len(found) == len(recorded["outputs"])
    for one, rows in zip(found, recorded["outputs"]):
        np.testing.assert_allclose(one, np.array(rows), atol=1e-5)


def test_outputs_of_one_operator_keep_mxnets_names(tmp_path: Path) -> None:
    prefix = split_checkpoint(tmp_path)
    done = export_onnx(ModelSource(prefix, shapes={"x": (2, 4)}), tmp_path / "two.onnx")
    assert [tensor.name for tensor in done.outputs] == mx.sym.load(f"{prefix}-symbol.json").list_outputs()
    assert done.inputs[0].dtype == "float32"
    assert_as_mxnet(tmp_path / "two.onnx", prefix, {"x": np.arange(8, dtype=np.float32).reshape(2, 4)})


# Metadata of the file


def test_the_file_has_opset_13_and_names_inputs_and_outputs(bundles: dict[str, Path], tmp_path: Path) -> None:
    import onnx

    export_onnx(bundles["mean"], tmp_path / "mean.onnx")
    model = onnx.load(tmp_path / "mean.onnx")
    onnx.checker.check_model(model, full_check=True)
    assert (model.ir_version, [(one.domain, one.version) for one in model.opset_import]) == (7, [("", 13)])
    assert model.producer_name == "bertsym"

    def description(tensor: Any) -> tuple[str, int, list[object], str]:
        kind = tensor.type.tensor_type
        return (
            tensor.name,
            kind.elem_type,
            [one.dim_param or one.dim_value for one in kind.shape.dim],
            tensor.doc_string,
        )

    whole = onnx.TensorProto.INT64
    assert sorted(map(description, model.graph.input)) == [
        ("data0", whole, ["batch", "length"], INPUTS["data0"]),
        ("data1", whole, ["batch", "length"], INPUTS["data1"]),
        ("data2", whole, ["batch"], INPUTS["data2"]),
    ]
    assert [description(one)[:3] for one in model.graph.output] == [
        ("mean_output", onnx.TensorProto.FLOAT, ["batch", 32])
    ]


def test_nodes_and_parameters_keep_mxnets_names_and_are_stored_once(bundles: dict[str, Path], tmp_path: Path) -> None:
    import onnx

    export_onnx(bundles["pooled"], tmp_path / "pooled.onnx")
    graph = onnx.load(tmp_path / "pooled.onnx").graph
    names = [node.name for node in graph.node]
    assert len(set(names)) == len(names)
    mine = SymbolGraph.load(f"{bundles['pooled']}-symbol.json")
    kept = {node.name for node in mine.nodes if not node.is_variable and node.op not in ("Dropout", "Cast")}
    assert kept <= set(names)
    params = ParamsFile(f"{bundles['pooled']}-0000.params")
    stored = {one.name.removesuffix("/transposed") for one in graph.initializer}
    assert set(params) <= stored
    values = sum(int(np.prod(one.dims)) for one in graph.initializer)
    assert values == pytest.approx(sum(array.size for array in params.values()), rel=1e-2)


def test_the_file_alone_classifies_texts_as_predict_does(classifier: Path, tmp_path: Path) -> None:
    """With onnxruntime and tokenizers only."""
    from tokenizers import BertWordPieceTokenizer

    texts = ["the happy dog ran .", "a sad , very sad story", "the old tree was happy"]
    export_onnx(classifier, tmp_path / "happy.onnx")
    opened = session(tmp_path / "happy.onnx")
    metadata = opened.get_modelmeta().custom_metadata_map
    settings, labels = json.loads(metadata["tokenizer"]), json.loads(metadata["class_names"])
    tokenizer: Any = BertWordPieceTokenizer(
        {token: i for i, token in enumerate(metadata["vocabulary"].split("\n")[:-1])},
        lowercase=settings["lower_case"],
        strip_accents=settings["strip_accents"],
        handle_chinese_chars=settings["split_chinese"],
    )
    tokenizer.enable_truncation(json.loads(metadata["max_length"]))
    tokenizer.enable_padding()
    encoded = tokenizer.encode_batch(texts)
    inputs = {
        "data0": np.array([one.ids for one in encoded]),
        "data1": np.array([one.type_ids for one in encoded]),
        "data2": np.array([sum(one.attention_mask) for one in encoded]),
    }
    (chances,) = opened.run(["softmax_output"], inputs)
    for row, expected in zip(chances, Classifier(classifier).predict(texts)):
        assert labels[row.argmax()] == expected.label
        np.testing.assert_allclose(row, list(expected.probabilities.values()), atol=1e-5)


ODD = ("c\u2028at", "c\u0085at", "c\vat", "c\fat", "c\x1cat", "c\rat")  # which str.splitlines() splits
ODD_VOCABULARY = [*VOCABULARY[:2], *ODD, *VOCABULARY[2:]]


@pytest.fixture(scope="module")
def odd_base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle with ODD tokens before all others in the vocabulary."""
    folder = tmp_path_factory.mktemp("odd")
    weights = hugging_face_weights(vocab_size=len(ODD_VOCABULARY))
    write_hugging_face(folder / "hf", weights, vocab_size=len(ODD_VOCABULARY))
    (folder / "hf" / "vocab.txt").unlink()
    (folder / "hf" / "tokenizer.json").write_text(json.dumps(document(tokens=ODD_VOCABULARY)))
    return export(f"hf:{folder / 'hf'}", folder / "base", verify=False).bundle.prefix


def test_the_vocabulary_in_the_file_has_the_tokens_of_the_model(odd_base: Path, tmp_path: Path) -> None:
    export_onnx(odd_base, tmp_path / "base.onnx")
    metadata = session(tmp_path / "base.onnx").get_modelmeta().custom_metadata_map
    assert metadata["vocabulary"].split("\n") == [*ODD_VOCABULARY, ""]


def test_the_recipe_of_the_documentation_classifies_as_predict_does(
    cli: Cli, odd_base: Path, tables: Tables, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    train = ["--train", tables.train, "--dev", tables.dev, "--epochs", 1, "--max-length", 12, "--freeze-encoder"]
    assert cli("finetune", odd_base, *train, tmp_path / "classifier").code == 0
    export_onnx(tmp_path / "classifier", tmp_path / "classifier.onnx")

    page = (Path(__file__).parent.parent / "docs" / "how-to" / "onnx.md").read_text(encoding="utf-8")
    (recipe,) = (code for code in re.findall(r"```python\n(.*?)```", page, re.DOTALL) if "import onnxruntime" in code)
    text = "a happy cat, [SEP] the very old dog and the bird"
    monkeypatch.chdir(tmp_path)
    variables: dict[str, Any] = {}
    exec(recipe.replace('"A man eats."', repr(text), 1), variables)
    (expected,) = Classifier(tmp_path / "classifier").predict([text])
    found = [float(value) for value in variables["probabilities"][0]]
    np.testing.assert_allclose(found, list(expected.probabilities.values()), atol=1e-5)
    assert variables["encoding"].ids.count(ODD_VOCABULARY.index("[SEP]")) == 2


def test_the_file_has_the_digests_of_its_sources(classifier: Path, tmp_path: Path) -> None:
    export_onnx(classifier, tmp_path / "a.onnx")
    metadata = session(tmp_path / "a.onnx").get_modelmeta().custom_metadata_map
    digests = json.loads(metadata["sha256"])
    for name in ("symbol.json", "0000.params", "manifest.json"):
        assert digests[name] == file_digest(Path(f"{classifier}-{name}"))
    assert json.loads(metadata["source"]) == json.loads(Path(f"{classifier}-manifest.json").read_text())["source"]
    assert json.loads(metadata["kind"]) == "classifier"
    assert json.loads(metadata["special_ids"]) == Bundle.open(classifier).signature.special_ids


def test_an_extracted_part_keeps_the_tokenizer_and_drops_the_classes(classifier: Path, tmp_path: Path) -> None:
    extract(classifier, tmp_path / "part", ["cls"])
    export_onnx(tmp_path / "part", tmp_path / "part.onnx")
    graft_head(tmp_path / "part", tmp_path / "other", NewHead("regression"))
    export_onnx(tmp_path / "other", tmp_path / "other.onnx")
    metadata = session(tmp_path / "other.onnx").get_modelmeta().custom_metadata_map
    assert json.loads(metadata["tokenizer"])["lower_case"] is True
    assert json.loads(metadata["kind"]) == "symbol"
    assert json.loads(metadata["special_ids"])["mask"] == VOCABULARY.index("[MASK]")
    assert "class_names" not in metadata


@pytest.mark.parametrize("wrong", ["length", "token", "type"])
def test_onnxruntime_refuses_out_of_range_ids(bundles: dict[str, Path], tmp_path: Path, wrong: str) -> None:
    """MXNet takes the last row of the table of words instead, silently."""
    export_onnx(bundles["cls"], tmp_path / "cls.onnx")
    inputs = token_inputs(2, CONFIG["max_position_embeddings"] + (wrong == "length"), WORDS)
    if wrong == "token":
        inputs["data0"][0, 0] = WORDS
    if wrong == "type":
        inputs["data1"][0, 0] = 2
    with pytest.raises(Exception, match=r"ONNXRuntimeError"):
        run(tmp_path / "cls.onnx", inputs)


# The command


def test_the_command_prints_only_the_comparisons_and_writes_the_same_bytes(
    bundles: dict[str, Path], tmp_path: Path
) -> None:
    export_onnx(bundles["cls"], tmp_path / "one.onnx")
    command = [sys.executable, "-m", "bertsym", "onnx", str(bundles["cls"]), str(tmp_path / "two.onnx")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert (done.returncode, done.stderr) == (0, "")
    first, second, wrote, reads, ends = done.stdout.splitlines()
    assert "cls_output: max difference" in first
    assert first.endswith("data0 (2, 16), data1 (2, 16), data2 (2,)")
    assert second.endswith("data0 (3, 7), data1 (3, 7), data2 (3,)")
    assert wrote.startswith(f"wrote {tmp_path / 'two.onnx'}")
    assert reads == "  inputs: data0 int64 (batch, length), data1 int64 (batch, length), data2 int64 (batch)"
    assert ends == "  outputs: cls_output float32 (batch, 32)"
    assert (tmp_path / "one.onnx").read_bytes() == (tmp_path / "two.onnx").read_bytes()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["one.onnx", "two.onnx"]


def test_large_parameters_are_written_to_a_separate_file(
    bundles: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, data = tmp_path / "large.onnx", tmp_path / "large.onnx.data"
    monkeypatch.setattr(onnx_exporter, "_LARGEST", 1000)
    assert export_onnx(bundles["cls"], path).files == [path, data]
    assert data.stat().st_size > path.stat().st_size
    assert data.stat().st_mode == path.stat().st_mode
    assert_as_mxnet(path, bundles["cls"], token_inputs(4, 13, WORDS))
    monkeypatch.undo()
    assert export_onnx(bundles["cls"], path, force=True).files == [path]
    assert_as_mxnet(path, bundles["cls"], token_inputs(4, 13, WORDS))


def test_an_existing_file_is_only_overwritten_when_asked(cli: Cli, bundles: dict[str, Path], tmp_path: Path) -> None:
    path = tmp_path / "old.onnx"
    path.write_text("old")
    assert f"{path} exists" in refusal(cli("onnx", bundles["cls"], path), code=2)
    assert path.read_text() == "old"
    assert cli("onnx", bundles["cls"], path, "--force").code == 0
    assert_as_mxnet(path, bundles["cls"], token_inputs(1, 5, WORDS))


# Refusals


def test_a_graph_with_an_operator_that_does_not_convert_is_refused_with_the_node(cli: Cli, tmp_path: Path) -> None:
    prefix = gluonnlp_checkpoint(tmp_path, "pretraining", "0.8.3")
    line = refusal(cli("onnx", prefix, tmp_path / "out.onnx"), tmp_path / "out.onnx")
    assert "node 'bertmodel0_shape_array0' (shape_array) does not convert to ONNX; " in line
    assert line.endswith("bertsym lower rewrites this BERT in a form that converts")


@pytest.mark.parametrize("version", ["0.8.3", "0.9.2", "0.10.0"])
def test_a_classifier_of_gluonnlp_converts(cli: Cli, tmp_path: Path, version: str) -> None:
    result = cli("onnx", gluonnlp_checkpoint(tmp_path, "classifier", version), tmp_path / "out.onnx")
    assert (result.code, "verified in onnxruntime" in result.out) == (0, True), result.err


def test_a_network_of_another_kind_is_refused_with_the_node(cli: Cli, tmp_path: Path) -> None:
    line = refusal(cli("onnx", conv_checkpoint(tmp_path), tmp_path / "out.onnx"), tmp_path / "out.onnx")
    assert line.endswith("node 'conv0' (Convolution) does not convert to ONNX")


def test_a_result_that_differs_leaves_no_file(cli: Cli, tmp_path: Path) -> None:
    """exp(x) * exp(-x) - 1 is rounding alone, and MXNet's exp and that of onnxruntime round differently."""
    x = mx.sym.var("x")
    noise = mx.sym.elemwise_mul(mx.sym.exp(x), mx.sym.exp(-x)) - 1
    noise = mx.sym.broadcast_add(noise, mx.sym.var("w", shape=(1,)), name="noise")
    mx.model.save_checkpoint(str(tmp_path / "noise"), 0, noise, {"w": mx.nd.zeros(1)}, {})
    before = set(tmp_path.iterdir())
    out = tmp_path / "out.onnx"
    line = refusal(cli("onnx", tmp_path / "noise", out, "--shape", "x=8,1000"), out)
    assert "the outputs differ from those of the original: noise_output: max difference" in line
    assert set(tmp_path.iterdir()) == before


@pytest.mark.parametrize("missing", [["onnx"], ["onnxruntime"], ["onnx", "onnxruntime"]])
def test_missing_packages_are_an_error_with_the_fix(
    cli: Cli, bundles: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, missing: list[str]
) -> None:
    for name in missing:
        monkeypatch.setitem(sys.modules, name, None)  # as import finds nothing
    line = refusal(cli("onnx", bundles["cls"], tmp_path / "out.onnx"), tmp_path / "out.onnx")
    assert line == f'Error: {" and ".join(missing)} must be installed: pip install "bertsym[onnx]"'


def test_an_unwritable_output_is_a_one_line_error(cli: Cli, bundles: dict[str, Path], tmp_path: Path) -> None:
    assert "ends in .onnx" in refusal(cli("onnx", bundles["cls"], tmp_path / "model"), tmp_path / "model", code=2)
    (tmp_path / "folder.onnx").mkdir()
    assert "is a folder" in refusal(cli("onnx", bundles["cls"], tmp_path / "folder.onnx"), code=2)
    nowhere = tmp_path / "nowhere" / "out.onnx"
    assert "No such file or directory" in refusal(cli("onnx", bundles["cls"], nowhere), nowhere)
    assert "no such symbol file" in refusal(cli("onnx", tmp_path / "none", tmp_path / "out.onnx"), code=2)


@pytest.mark.parametrize("shape", ["data0=16", "data0=2,9"])
def test_a_shape_that_the_graph_implies_is_refused_as_an_option(
    cli: Cli, bundles: dict[str, Path], tmp_path: Path, shape: str
) -> None:
    line = refusal(cli("onnx", bundles["cls"], tmp_path / "o.onnx", "--shape", shape), tmp_path / "o.onnx", code=2)
    assert line.endswith("the graph implies the shape (N, T) of data0: remove it from --shape")


def test_parameters_of_another_precision_are_refused_by_name(
    cli: Cli, bundles: dict[str, Path], tmp_path: Path
) -> None:
    params = ParamsFile(f"{bundles['cls']}-0000.params")
    with open(tmp_path / "half.params", "wb") as file:
        write_params(file, {name: array.astype(np.float16) for name, array in params.items()})
    line = refusal(
        cli("onnx", f"{bundles['cls']}-symbol.json", tmp_path / "o.onnx", "--params", tmp_path / "half.params"),
        tmp_path / "o.onnx",
    )
    assert "is float16: only float32 converts" in line
