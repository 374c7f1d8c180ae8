"""Sentence embeddings: sentence-transformers folders become bundles that end in the embedding."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import CONFIG, Result, hugging_face_weights, write_hugging_face
from refusals import refusal
from safetensors.numpy import save_file
from sentence_folders import POOLING, dense, dense_weights, write_json, write_sentence_folder

import bertsym
from bertsym import Bundle, BundleTokenizer, Encoder, export, export_onnx, extract, lower, using_engine, verify
from bertsym.array import Array
from bertsym.onnx_export.libraries import open_session
from bertsym.onnx_export.onnx_exporter import OnnxOptions
from bertsym.reference import Checkpoint, Inputs, encoder_outputs

Cli = Callable[..., Result]
Modules = Sequence[tuple[str, dict[str, Any]]]

TEXTS = ["the happy cat sat on the mat", "a dog", "sad"]
NO_MODE = {**POOLING, "pooling_mode_mean_tokens": False}
CHAINS: dict[str, Modules] = {
    "mean": [("Pooling", POOLING)],
    "cls, dense, normalized": [
        ("Pooling", {**NO_MODE, "pooling_mode_cls_token": True}),
        ("Dense", dense(32, 16)),
        ("Normalize", {}),
    ],
    "max, normalized, two dense": [
        ("Pooling", {**NO_MODE, "pooling_mode_max_tokens": True}),
        ("Normalize", {}),
        ("Dense", dense(32, 40, "activation.GELU", bias=False)),
        ("Dense", dense(40, 8, "activation.ReLU")),
    ],
    "all modes, dense": [
        (
            "Pooling",
            {
                **POOLING,
                "pooling_mode_cls_token": True,
                "pooling_mode_max_tokens": True,
                "pooling_mode_mean_sqrt_len_tokens": True,
            },
        ),
        ("Dense", dense(128, 8, "linear.Identity")),
    ],
    "modes in another order": [
        ("Pooling", {"embedding_dimension": 32, "pooling_mode": ["mean", "cls"], "include_prompt": True}),
        ("Dense", dense(64, 8, "activation.Sigmoid", module_input_name="sentence_embedding")),
    ],
}


def compute(modules: Modules, tokens: Array) -> Array:
    """What the modules give for one text, from the encodings of its tokens (T, U), in numpy."""
    x = tokens
    for i, (kind, config) in enumerate(modules, 1):
        if kind == "Pooling":
            flags = {"cls": "cls_token", "max": "max_tokens", "mean": "mean_tokens", "sqrt": "mean_sqrt_len_tokens"}
            modes = config.get("pooling_mode") or [
                mode for mode, flag in flags.items() if config.get(f"pooling_mode_{flag}")
            ]
            vectors = {"cls": tokens[0], "max": tokens.max(0), "mean": tokens.mean(0)}
            vectors["sqrt"] = tokens.sum(0) / math.sqrt(len(tokens))
            x = np.concatenate([vectors[mode] for mode in modes])
        elif kind == "Normalize":
            x = x / np.linalg.norm(x)
        else:
            weights = dense_weights(config, i)
            x = weights["linear.weight"] @ x + (weights["linear.bias"] if config["bias"] else 0)
            activations: dict[str, Callable[[Array], Array]] = {
                "Tanh": np.tanh,
                "ReLU": lambda x: np.maximum(x, 0),
                "GELU": np.vectorize(lambda x: x * (1 + math.erf(x / math.sqrt(2))) / 2),
                "Sigmoid": lambda x: 1 / (1 + np.exp(-x)),
                "Identity": lambda x: x,
            }
            x = activations[config["activation_function"].rpartition(".")[2]](x)
    return x


def expected(prefix: Path, modules: Modules, texts: Sequence[str] = TEXTS) -> Array:
    """The embeddings of texts, each alone, from the reference encoder."""
    checkpoint = Checkpoint("Hugging Face", hugging_face_weights(), CONFIG)
    vectors = []
    for features in BundleTokenizer.open(prefix).encode(texts):
        for example in features.examples:
            ids = np.array([example.token_ids])
            inputs = Inputs(ids, np.array([example.token_types]), np.array([ids.shape[1]]))
            vectors.append(compute(modules, encoder_outputs("bert", checkpoint, [inputs])[0]["sequence"][0]))
    return np.stack(vectors)


def assert_close(found: Array, reference: Array) -> None:
    assert found.shape == reference.shape
    assert np.abs(found - reference).max() <= 1e-5 * max(np.abs(reference).max(), 0.1)


@pytest.fixture
def made(tmp_path: Path) -> Callable[..., Path]:
    """The prefix of a bundle of a folder with these modules, verified."""

    def make(*modules: tuple[str, dict[str, Any]], **settings: Any) -> Path:
        folder = write_sentence_folder(tmp_path / "st", *modules, **settings)
        return export(f"hf:{folder}", tmp_path / "made").bundle.prefix

    return make


# What is computed


@pytest.mark.parametrize("name", CHAINS)
def test_an_embedding_is_that_of_the_modules(made: Callable[..., Path], tmp_path: Path, name: str) -> None:
    modules = CHAINS[name]
    prefix = made(*modules, newer="order" in name)
    reference = expected(prefix, modules)
    signature = Bundle.open(prefix).signature
    assert (signature.kind, signature.output, signature.output_name) == ("encoder", "embedding", "embedding_output")
    assert signature.output_shape == ("batch", reference.shape[1])
    assert signature.minimum_mxnet == "1.4.0"
    assert signature.embedding is not None
    assert signature.embedding.normalized == (modules[-1][0] == "Normalize")
    encoder = Encoder(prefix)
    assert_close(encoder.encode(TEXTS), reference)
    assert encoder.units == reference.shape[1]
    with using_engine("onnxruntime"):
        assert_close(Encoder(prefix).encode(TEXTS), reference)
    done = export_onnx(prefix, tmp_path / "made.onnx", OnnxOptions(signature="hf"))
    assert [tensor.name for tensor in done.outputs] == ["last_hidden_state", "sentence_embedding"]
    features = next(iter(BundleTokenizer.open(prefix).encode(TEXTS)))
    fed: dict[str, list[list[int]]] = {"input_ids": [], "attention_mask": [], "token_type_ids": []}
    for example in features.examples:
        rest = [0] * (12 - len(example.token_ids))
        fed["input_ids"].append([*example.token_ids, *rest])
        fed["attention_mask"].append([*[1] * len(example.token_ids), *rest])
        fed["token_type_ids"].append([*example.token_types, *rest])
    session = open_session(tmp_path / "made.onnx")
    (answer,) = session.run(["sentence_embedding"], {key: np.array(value, np.int64) for key, value in fed.items()})
    assert_close(answer, reference)


def test_every_command_on_graphs_passes_the_embedding_on(made: Callable[..., Path], tmp_path: Path) -> None:
    modules = CHAINS["cls, dense, normalized"]
    prefix = made(*modules, prompts={"prompts": {"query": "the "}, "similarity_fn_name": "dot"})
    reference, kept = expected(prefix, modules), Bundle.open(prefix).signature.embedding
    for target in ("1.4", "1.9"):
        lowered = Bundle.open(lower(prefix, tmp_path / target, target=target).bundle.prefix)
        assert lowered.signature.embedding == kept
        assert_close(Encoder(lowered.prefix).encode(TEXTS), reference)
    folded = lower(prefix, tmp_path / "folded", fold=True).bundle.prefix
    assert_close(Encoder(folded).encode(TEXTS), reference)
    for checked in (prefix, folded):
        assert max(check.relative_difference for check in verify(checked)) < 1e-5
    bertsym.edit(prefix, tmp_path / "edited", bertsym.Edits(dropout=0.2))
    assert Bundle.open(tmp_path / "edited").signature.embedding == kept
    extracted = extract(prefix, tmp_path / "cls", ["cls_slice"]).bundle
    assert extracted.signature.to_json()["kind"] == "symbol"
    graph = Bundle.open(prefix).graph()
    (pooled,) = [
        entry.node.name for node in graph.nodes if node.name == "embedding_layer0" for entry in node.inputs[:1]
    ]
    encoder = Bundle.open(extract(prefix, tmp_path / "encoder", [pooled]).bundle.prefix)
    assert (encoder.signature.output, encoder.signature.embedding) == ("cls", None)
    assert isinstance(bertsym.load(prefix), Encoder)


def test_another_pooling_leaves_the_modules_out(made: Callable[..., Path]) -> None:
    prefix = made(*CHAINS["cls, dense, normalized"])
    encoder = Encoder(prefix, "mean")
    assert encoder.units == 32
    assert_close(encoder.encode(TEXTS), expected(prefix, CHAINS["mean"]))


def test_an_embedding_of_zeros_is_not_divided_by_its_length(tmp_path: Path) -> None:
    """As in torch: a vector of the length 0 is divided by 1e-12."""
    config = dense(32, 4, "activation.ReLU")
    folder = write_sentence_folder(tmp_path / "st", ("Pooling", POOLING), ("Dense", config), ("Normalize", {}))
    weights = {"linear.weight": np.zeros((4, 32), np.float32), "linear.bias": np.full(4, -1, np.float32)}
    save_file(weights, folder / "2_Dense" / "model.safetensors")
    prefix = export(f"hf:{folder}", tmp_path / "x").bundle.prefix
    assert not Encoder(prefix).encode(TEXTS).any()


# Texts: length, case, prompts


def test_texts_are_truncated_at_max_seq_length(made: Callable[..., Path]) -> None:
    prefix = made(*CHAINS["mean"], settings={"max_seq_length": 6})
    assert Encoder(prefix).max_length == 6
    assert_close(Encoder(prefix).encode(TEXTS[:1]), expected(prefix, CHAINS["mean"], ["the happy cat sat"]))


def test_without_max_seq_length_that_of_the_tokenizer_counts(tmp_path: Path) -> None:
    folder = write_sentence_folder(tmp_path / "st", *CHAINS["mean"], settings={"max_seq_length": None})
    for length, expected_length in ((6, 6), (10**30, 40)):
        write_json(folder / "tokenizer_config.json", {"model_max_length": length})
        signature = export(f"hf:{folder}", tmp_path / f"x{expected_length}", verify=False).bundle.signature
        assert signature.max_length == expected_length


def test_do_lower_case_lower_cases_the_texts_of_a_cased_tokenizer(tmp_path: Path) -> None:
    folder = write_sentence_folder(tmp_path / "st", *CHAINS["mean"], settings={"do_lower_case": True})
    write_json(folder / "tokenizer_config.json", {"do_lower_case": False})
    encoder = Encoder(export(f"hf:{folder}", tmp_path / "x", verify=False).bundle.prefix)
    np.testing.assert_array_equal(encoder.encode(["The Happy CAT"]), encoder.encode(["the happy cat"]))
    assert encoder.bundle.signature.tokenizer.lower_case


def test_a_prompt_is_put_before_each_text(made: Callable[..., Path], cli: Cli, tmp_path: Path) -> None:
    named = {"query": "the happy ", "document": ""}
    prefix = made(*CHAINS["mean"], prompts={"prompts": named, "default_prompt_name": "query"})
    encoder = Encoder(prefix)
    bare = encoder.encode(["the happy cat"], prompt="")
    np.testing.assert_array_equal(encoder.encode(["cat"]), bare)
    np.testing.assert_array_equal(encoder.encode(["cat"], prompt_name="query"), bare)
    np.testing.assert_array_equal(encoder.encode(["the happy cat"], prompt_name="document"), bare)
    (tmp_path / "texts").write_text("cat\n")
    command = ("embed", prefix, tmp_path / "texts", tmp_path / "x.npy", "--format", "lines", "--force")
    for options, line in (
        ((), f"note: default prompt of {prefix}: 'the happy ' is put before each text"),
        (("--prompt-name", "query"), f"note: prompt query of {prefix}: 'the happy ' is put before each text"),
        (("--prompt", "the happy "), ""),
    ):
        result = cli(*command, *options)
        assert (result.code, result.err.strip()) == (0, line)
        np.testing.assert_allclose(np.load(tmp_path / "x.npy"), bare, atol=1e-6)
    assert refusal(cli(*command, "--prompt-name", "passage"), code=2) == (
        f"Error: {prefix}: does not have the prompt 'passage', only query, document"
    )
    assert "give --prompt or --prompt-name, not both" in cli(*command, "--prompt", "a", "--prompt-name", "query").err
    shown = cli("inspect", prefix).out
    assert "embedding  mean pooling\n" in shown
    assert "prompts: query 'the happy ', document ''; by default query; similarity: cosine, by default" in shown


def test_the_source_is_described_without_exporting_it(cli: Cli, tmp_path: Path) -> None:
    folder = write_sentence_folder(
        tmp_path / "st", *CHAINS["cls, dense, normalized"], prompts={"prompts": {"query": "q: "}}
    )
    shown = cli("inspect", f"hf:{folder}").out
    assert "head     sentence embedding: cls pooling, dense 16 tanh, normalized" in shown
    assert "prompts  query 'q: '" in shown


# Cross-encoders: the head of the transformer


@pytest.mark.parametrize(("activation", "sigmoid"), [("activation.Sigmoid", True), ("linear.Identity", False)])
def test_the_activation_of_a_cross_encoder_is_kept(tmp_path: Path, activation: str, sigmoid: bool) -> None:
    """Version 6 lists the transformer in modules.json, and keeps the activation beside it."""
    folder = write_sentence_folder(
        tmp_path / "st",
        newer=True,
        settings={"transformer_task": "sequence-classification"},
        prompts={"model_type": "CrossEncoder", "activation_fn": f"torch.nn.modules.{activation}"},
    )
    rng = np.random.default_rng(3)
    head = {"classifier.weight": rng.standard_normal((1, 32)), "classifier.bias": np.zeros(1)}
    weights = {f"bert.{name}": array for name, array in hugging_face_weights().items()}
    weights.update({name: array.astype(np.float32) for name, array in head.items()})
    labels = {"id2label": {"0": "LABEL_0"}, "architectures": ["BertForSequenceClassification"]}
    write_hugging_face(folder, weights, **labels)
    signature = export(f"hf:{folder}", tmp_path / "x", verify=False).bundle.signature
    assert (signature.task, signature.embedding) == ("regression", None)
    assert bool(signature.task_settings.get("sigmoid")) == sigmoid


# What is refused


def drop(path: str) -> Callable[[Path], None]:
    return lambda folder: (folder / path).unlink()


def change(path: str, **values: Any) -> Callable[[Path], None]:
    def changed(folder: Path) -> None:
        document = json.loads((folder / path).read_text())
        write_json(folder / path, {**document, **values})

    return changed


def set_type(place: int, name: str) -> Callable[[Path], None]:
    def changed(folder: Path) -> None:
        modules = json.loads((folder / "modules.json").read_text())
        modules[place]["type"] = name
        write_json(folder / "modules.json", modules)

    return changed


def set_weights(**shapes: tuple[int, ...]) -> Callable[[Path], None]:
    arrays = {f"linear.{name}": np.ones(shape, np.float32) for name, shape in shapes.items()}
    return lambda folder: save_file(arrays, folder / "2_Dense" / "model.safetensors")


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (set_type(3, "sentence_transformers.models.WordWeights"), "WordWeights' is not supported, only Transformer, P"),
        (set_type(2, "somewhere.Dense"), "modules.json: [2].type: 'somewhere.Dense' is not supported"),
        (set_type(1, "sentence_transformers.models.Normalize"), "are Normalize, Dense, Normalize, but one Pooling"),
        (drop("1_Pooling/config.json"), "1_Pooling/config.json: no such file"),
        (drop("2_Dense/config.json"), "2_Dense/config.json: no such file"),
        (drop("2_Dense/model.safetensors"), "2_Dense: no model.safetensors"),
        (change("1_Pooling/config.json", pooling_mode="lasttoken"), "pooling mode lasttoken is not supported"),
        (change("1_Pooling/config.json", pooling_mode_cls_token=False), "no pooling_mode is true"),
        (change("1_Pooling/config.json", include_prompt=False), "include_prompt: false is not supported"),
        (change("1_Pooling/config.json", word_embedding_dimension=64), "64, but the transformer has 32 units"),
        (change("2_Dense/config.json", in_features=31), "in_features: 31, but the module before it gives 32 elements"),
        (change("2_Dense/config.json", activation_function="torch.nn.modules.activation.SiLU"), 'SiLU" is not one of'),
        (change("2_Dense/config.json", use_residual=True), "use_residual: true is not supported"),
        (change("2_Dense/config.json", module_input_name="token_embeddings"), 'is not one of "sentence_embedding"'),
        (set_weights(weight=(16, 32)), "linear.bias missing"),
        (set_weights(weight=(16, 32), bias=(16,), extra=(1,)), "linear.extra unknown"),
        (set_weights(weight=(16, 31), bias=(16,)), "linear.weight has shape (16, 31), the config implies (16, 32)"),
        (change("config_sentence_transformers.json", default_prompt_name="x"), "'x' is not one of the prompts (query)"),
        (change("config_sentence_transformers.json", similarity_fn_name="maxsim"), 'similarity_fn_name: "maxsim"'),
        (change("config_sentence_transformers.json", model_type="CrossEncoder"), '"SentenceTransformer"'),
        (change("sentence_bert_config.json", transformer_task="fill-mask"), '"fill-mask" is not one of'),
    ],
)
def test_what_a_bundle_cannot_express_is_refused(
    cli: Cli, tmp_path: Path, damage: Callable[[Path], None], message: str
) -> None:
    modules = CHAINS["cls, dense, normalized"]
    prompts = {"prompts": {"query": "q"}}
    folder = write_sentence_folder(tmp_path / "st", *modules, settings={"max_seq_length": 8}, prompts=prompts)
    damage(folder)
    line = refusal(cli("export", f"hf:{folder}", tmp_path / "out", "--no-verify"), tmp_path / "out-symbol.json")
    assert message in line
    assert line.endswith("; --headless exports the encoder alone")


def test_without_torch_a_pickled_dense_layer_is_refused_with_a_way_to_convert_the_whole_folder(
    cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "torch", None)
    folder = write_sentence_folder(tmp_path / "st", *CHAINS["cls, dense, normalized"])
    (folder / "2_Dense" / "model.safetensors").rename(folder / "2_Dense" / "pytorch_model.bin")
    line = refusal(cli("export", f"hf:{folder}", tmp_path / "out", "--no-verify"), tmp_path / "out-symbol.json")
    assert "2_Dense/pytorch_model.bin: a pickle" in line
    assert f"convert the whole folder {folder} where torch and safetensors are installed" in line
    assert f"{folder}-safetensors" in line


def test_a_classifier_does_not_read_an_embedding(made: Callable[..., Path], cli: Cli, tmp_path: Path) -> None:
    prefix = made(*CHAINS["mean"])
    (tmp_path / "t.tsv").write_text("text\tlabel\n" + "the cat\tyes\na dog\tno\n" * 4)
    table = tmp_path / "t.tsv"
    result = cli("finetune", prefix, tmp_path / "out", "--train", table, "--dev", table)
    assert "ends in a sentence embedding (mean pooling)" in refusal(result)
    assert "has no head, it ends in embedding_output; bertsym embed computes sentence embeddings" in refusal(
        cli("quantize", prefix, tmp_path / "out", "--calibrate", table)
    )
