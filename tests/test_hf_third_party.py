"""``hf`` of symbols that other programs wrote: GluonNLP's exports become folders of transformers, bit by bit."""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from checkpoints import SYMBOLS
from conftest import VOCABULARY, Result
from family_folders import vocabulary
from refusals import refusal
from safetensors.numpy import load_file

from bertsym import ParamsFile
from bertsym.array import Array
from bertsym.families import BERT
from bertsym.mxnet_runtime import mx, nlp
from bertsym.reference import HUGGING_FACE_HEADS, Checkpoint, Inputs, encoder_outputs
from bertsym.sources.weight_names import GLUONNLP_EXPORT

Cli = Callable[..., Result]

#: name of a symbol -> options, the class of its folder, and the layer of its head with the name in transformers
CASES = {
    "classifier": (("--labels", "a,b,c"), "BertForSequenceClassification", ("bertclassifier0_dense0", "classifier")),
    "regression": ((), "BertForSequenceClassification", ("bertregression0_dense0", "classifier")),
    "qa": ((), "BertForQuestionAnswering", ("bertforqa0_dense0", "qa_outputs")),
    "sequence": ((), "BertModel", None),
}
VERSIONS = [(name, version) for name in CASES for version in ("0.6.0", "0.9.2", "0.10.0")]
VERSIONS.remove(("regression", "0.9.2"))  # there is no such symbol


@pytest.fixture
def vocab(tmp_path: Path) -> Path:
    path = tmp_path / "vocab.txt"
    path.write_text("\n".join(VOCABULARY[:50]) + "\n")
    return path


def write_symbol(folder: Path, version: str, name: str) -> Path:
    """PREFIX of a symbol as GluonNLP wrote it."""
    folder.mkdir()
    shutil.copy(SYMBOLS / f"gluonnlp-{version}" / f"{name}-symbol.json", folder / "old-symbol.json")
    shutil.copy(SYMBOLS / f"gluonnlp-{version}" / "weights-0000.params", folder / "old-0000.params")
    return folder / "old"


def expected_weights(params: Mapping[str, Array], version: str, head: tuple[str, str] | None) -> dict[str, Array]:
    """The parameters by their names in transformers; the layers have 4 heads."""
    prefix = "" if head is None else "bert."
    found = {GLUONNLP_EXPORT.spell(name): array for name, array in params.items()}
    names = {
        prefix + theirs.format(i=i): ours.format(i=i) for ours, theirs in BERT.names.names.items() for i in range(2)
    }
    weights = {theirs: np.squeeze(found[ours]) for theirs, ours in names.items() if ours in found}
    if head is not None:
        layer, name = head
        weights.update({f"{name}.{part}": params[f"{layer}_{part}"] for part in ("weight", "bias")})
    if version == "0.9.2":  # it adds parts of the concatenated biases, cut as the weights are
        for i in range(2):
            names_of = [f"{prefix}encoder.layer.{i}.attention.self.{part}.bias" for part in ("query", "key", "value")]
            cut = np.concatenate([weights[name] for name in names_of]).reshape(4, 3, -1)
            weights.update({name: cut[:, place].reshape(-1) for place, name in enumerate(names_of)})
    return weights


@pytest.mark.parametrize(("name", "version"), VERSIONS)
def test_weights_are_bit_equal_and_outputs_those_of_gluonnlp(
    cli: Cli, vocab: Path, tmp_path: Path, name: str, version: str
) -> None:
    options, architecture, head = CASES[name]
    source, folder = write_symbol(tmp_path / "old", version, name), tmp_path / "hf"
    done = cli("hf", source, folder, "--vocab", vocab, *options)
    assert done.code == 0, done.err
    assert f"{architecture}, verified" in done.out

    written = load_file(folder / "model.safetensors")
    expected = expected_weights(ParamsFile(f"{source}-0000.params"), version, head)
    assert written.keys() <= expected.keys()
    # The pooler is a part of the classes that read it.
    assert {key for key in expected.keys() - written.keys() if "pooler" not in key} == set()
    for key, array in written.items():
        np.testing.assert_array_equal(array, expected[key], err_msg=key)

    config = config_of(folder)
    assert config["architectures"] == [architecture]
    sizes = [config[key] for key in ("num_hidden_layers", "hidden_size", "num_attention_heads", "intermediate_size")]
    assert sizes == [2, 16, 4, 32]
    assert (config["vocab_size"], config["max_position_embeddings"], config["layer_norm_eps"]) == (50, 24, 1e-12)
    if name in ("classifier", "regression"):
        labels = {"classifier": ["a", "b", "c"], "regression": ["LABEL_0"]}[name]
        assert list(config["id2label"].values()) == labels

    # What the version that wrote the symbol computed.
    recorded = json.loads((SYMBOLS / f"gluonnlp-{version}" / "expected.json").read_text())[name]
    inputs = Inputs(*(np.array(recorded["inputs"][each]) for each in recorded["reads"]))
    bare = {key.removeprefix("bert."): array for key, array in written.items()}
    (encoded,) = encoder_outputs("bert", Checkpoint("Hugging Face", bare, config), [inputs])
    values = encoded["sequence"] if head is None else HUGGING_FACE_HEADS[architecture].values(encoded, bare, config)
    outputs = np.array(recorded["outputs"][0]).reshape(np.shape(values))
    is_token = np.arange(8) < np.asarray(inputs.valid_length)[:, None] if values.ndim == 3 else ...
    np.testing.assert_allclose(values[is_token], outputs[is_token], atol=1e-4 * math.ceil(np.abs(outputs).max()))


def test_a_roberta_of_gluonnlp_gets_the_rows_of_positions_that_gluonnlp_has_cut(cli: Cli, tmp_path: Path) -> None:
    encoder = nlp.model.BERTEncoder(
        num_layers=2, units=16, hidden_size=32, max_length=24, num_heads=4, layer_norm_eps=1e-5
    )
    bert = nlp.model.RoBERTaModel(encoder, vocab_size=50, units=16, embed_size=16, use_decoder=False)
    net = nlp.model.RoBERTaClassifier(bert, num_classes=3, dropout=0.1)
    net.initialize(mx.init.Normal(0.3))
    net.hybridize()
    ids, lengths = np.array([[2, 7, 40, 9, 3], [2, 30, 3, 1, 1]]), np.array([5, 3])
    logits = net(mx.nd.array(ids), mx.nd.array(lengths)).asnumpy()
    net.export(str(tmp_path / "old"))
    net.save_parameters(str(tmp_path / "saved.params"))
    (tmp_path / "vocab.txt").write_text("\n".join(vocabulary(1, 50)) + "\n")
    options = ("--vocab", tmp_path / "vocab.txt", "--labels", "a,b,c")
    done = cli("hf", tmp_path / "old", tmp_path / "hf", *options)
    assert "RobertaForSequenceClassification, verified" in done.out, done.err

    weights, config = load_file(tmp_path / "hf" / "model.safetensors"), config_of(tmp_path / "hf")
    positions = weights["roberta.embeddings.position_embeddings.weight"]
    assert (config["max_position_embeddings"], config["pad_token_id"], positions.shape) == (26, 1, (26, 16))
    np.testing.assert_array_equal(positions, np.pad(encoder.position_weight.data().asnumpy(), ((2, 0), (0, 0))))
    bare = {key.removeprefix("roberta."): array for key, array in weights.items()}
    inputs = Inputs(ids, np.zeros_like(ids), lengths)
    (encoded,) = encoder_outputs("roberta", Checkpoint("Hugging Face", bare, config), [inputs])
    found = HUGGING_FACE_HEADS["RobertaForSequenceClassification"].values(encoded, bare, config)
    np.testing.assert_allclose(found, logits, atol=1e-5 * np.abs(logits).max())

    arguments = ("--num-heads", 4, *options)
    line = refusal(cli("export", f"params:{tmp_path / 'saved.params'}", tmp_path / "no" / "x", *arguments))
    assert "a RoBERTa or a DistilBERT, which can only be read as a symbol" in line


def config_of(folder: Path) -> dict[str, Any]:
    document: dict[str, Any] = json.loads((folder / "config.json").read_text())
    return document


def test_what_a_symbol_lacks_is_named(cli: Cli, vocab: Path, tmp_path: Path) -> None:
    source, folder = write_symbol(tmp_path / "old", "0.10.0", "classifier"), tmp_path / "hf"
    assert "not the bundle of a BERT: give --vocab" in refusal(cli("hf", source, folder), folder, code=2)
    refused = cli("hf", source, folder, "--vocab", vocab)
    assert "give --labels with 3 names" in refusal(refused, folder, code=2)
    pooled = write_symbol(tmp_path / "two", "0.10.0", "pooled")
    refused = cli("hf", pooled, folder, "--vocab", vocab)
    assert "select it with bertsym extract --output" in refusal(refused, folder)


def test_a_head_without_a_class_is_refused_by_the_name_of_the_symbol(cli: Cli, vocab: Path, tmp_path: Path) -> None:
    source = write_symbol(tmp_path / "old", "0.10.0", "sequence")
    grafted = cli("graft", source, tmp_path / "plain", "--head", "classification", "--num-classes", 2, "--cls-slice")
    assert grafted.code == 0, grafted.err
    arguments = ("--vocab", vocab, "--labels", "a,b", "--as", "transformers")
    refused = cli("hf", tmp_path / "plain", tmp_path / "hf", *arguments)
    line = refusal(refused, tmp_path / "hf")
    assert f"{tmp_path / 'plain'}: " in line
