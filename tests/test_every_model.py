"""Outputs, heads, [CLS] nodes, forms and lowering work for every size of BERT that there is."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import CONFIG, VOCABULARY, Tables, hugging_face_weights, write_hugging_face

from bertsym import (
    Bundle,
    Classifier,
    ExportOptions,
    FinetuneOptions,
    NewHead,
    export,
    finetune,
    graft_head,
    inspect,
    lower,
    verify,
)

# What they have in common with the real ones is what a graph depends on; units are few, so that they are small.
MODELS: dict[str, dict[str, Any]] = {
    "BERT-base, 12 layers and heads": {"num_hidden_layers": 12, "num_attention_heads": 12, "hidden_size": 24},
    "BERT-large, 24 layers, 16 heads": {"num_hidden_layers": 24, "num_attention_heads": 16, "hidden_size": 32},
    "MiniLM, 6 layers, 12 heads": {"num_hidden_layers": 6, "num_attention_heads": 12, "hidden_size": 24},
    "multilingual, 119547 words": {"vocab_size": 119547, "hidden_size": 16},
    "20 positions": {"max_position_embeddings": 20},
    "1024 positions": {"max_position_embeddings": 1024},
    "one segment": {"type_vocab_size": 1},
    "one layer, one head": {"num_hidden_layers": 1, "num_attention_heads": 1},
    "eps 1e-5": {"layer_norm_eps": 1e-5},
}


@pytest.fixture(scope="module", params=MODELS)
def model(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Hugging Face folder of each of MODELS."""
    changes = MODELS[request.param]
    folder = tmp_path_factory.mktemp("model")
    # Small enough that 24 layers of them don't blow up what rounding leaves.
    weights = {
        name: array if "LayerNorm" in name else array * np.float32(0.3)
        for name, array in hugging_face_weights(**changes).items()
    }
    write_hugging_face(folder, weights, **changes)
    words = [f"word{i}" for i in range(len(VOCABULARY), changes.get("vocab_size", CONFIG["vocab_size"]))]
    (folder / "vocab.txt").write_text("\n".join([*VOCABULARY, *words]) + "\n")
    return folder


WAYS = [
    ("cls", "fast", None),
    ("pooled", "portable", "1.6"),
    ("mean", "gluonnlp", None),
    ("sequence", "portable", "1.4"),
]
#: model -> the place of its one of WAYS, of which each occurs with a large and with a small model
TRIED = {
    "BERT-base, 12 layers and heads": 3,
    "BERT-large, 24 layers, 16 heads": 2,
    "MiniLM, 6 layers, 12 heads": 0,
    "multilingual, 119547 words": 1,
    "20 positions": 2,
    "1024 positions": 3,
    "one segment": 3,
    "one layer, one head": 0,
    "eps 1e-5": 1,
}


@pytest.mark.parametrize(
    ("model", "output", "form", "target"),
    [(model, *WAYS[place]) for model, place in TRIED.items()],
    indirect=["model"],
)
def test_every_output_is_exported_and_lowered(
    model: Path, output: str, form: str, target: str | None, tmp_path: Path
) -> None:
    """Export compares with GluonNLP's own BERTModel, lower with what it was made of."""
    base = export(f"hf:{model}", tmp_path / "base", ExportOptions(output=output)).bundle
    written = lower(base.prefix, tmp_path / "lowered", form=form, target=target)
    assert written.verified
    assert isinstance(written.bundle, Bundle)
    assert [inspect(bundle.prefix).classifiers[0].kind.value for bundle in (base, written.bundle)] == [output, output]
    assert (tmp_path / "lowered-0000.params").read_bytes() == (tmp_path / "base-0000.params").read_bytes()


@pytest.mark.parametrize("model", ["one layer, one head"], indirect=True)
def test_every_head_reads_its_output(model: Path, tmp_path: Path) -> None:
    for output, head, kind in (
        ("cls", "classification", "cls"),
        ("mean", "regression", "mean"),
        ("sequence", "qa", "tokens"),
    ):
        export(f"hf:{model}", tmp_path / "base", ExportOptions(output=output), force=True, verify=False)
        graft_head(tmp_path / "base", tmp_path / "headed", NewHead(head), force=True)
        lowered = lower(tmp_path / "headed", tmp_path / "lowered", form="fast", force=True)
        assert lowered.verified
        assert inspect(lowered.bundle.prefix).classifiers[0].kind.value == kind


@pytest.mark.parametrize("model", ["MiniLM, 6 layers, 12 heads", "20 positions", "one segment"], indirect=True)
def test_a_finished_head_is_written(model: Path, tmp_path: Path) -> None:
    assert verify(export(f"hf:{model}", tmp_path / "finished", ExportOptions(task="qa")).bundle.prefix)


def test_a_model_of_one_segment_takes_pairs(tmp_path: Path, tables: Tables) -> None:
    """Its second text has the token type of the first."""
    folder = write_hugging_face(tmp_path / "model", hugging_face_weights(type_vocab_size=1), type_vocab_size=1)
    export(f"hf:{folder}", tmp_path / "base")
    rows = [
        {"sentence1": text, "sentence2": "a cat sat", "label": label}
        for label, text in (line.split("\t") for line in tables.train.read_text().splitlines()[1:9])
    ]
    table = tmp_path / "pairs.jsonl"
    table.write_text("".join(json.dumps(row) + "\n" for row in rows))
    options = FinetuneOptions(epochs=1, batch_size=4, max_length=24)
    finetune(tmp_path / "base", table, table, tmp_path / "classifier", options=options)
    prediction = Classifier(tmp_path / "classifier").predict(["a cat"], ["a dog"])[0]
    assert np.isclose(sum(prediction.probabilities.values()), 1)
