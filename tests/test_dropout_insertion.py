"""Dropout is inserted where the training graph of a BERT has it, and in no place twice."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from checkpoints import SYMBOLS, computed, gluonnlp_checkpoint, texts
from conftest import Result

from bertsym import Bundle, Edits, ParamsFile, edit
from bertsym.analysis.encoder_detection import require_encoder
from bertsym.analysis.encoder_extraction import extract_spec
from bertsym.encoders.config import BertConfig
from bertsym.encoders.forms import FORMS, Form
from bertsym.encoders.graph import encoder_graph
from bertsym.encoders.spec import EncoderSpec
from bertsym.passes.dropout_insertion import insert_dropout
from bertsym.symbol.graph import SymbolGraph

Cli = Callable[..., Result]

HEADS = {"classifier": 1, "classifier_no_length": 1, "static_classifier": 1, "regression": 1, "qa": 1}
THIRD_PARTY = sorted(path.relative_to(SYMBOLS) for path in SYMBOLS.glob("gluonnlp-*/*-symbol.json"))
TINY = BertConfig(num_layers=2, units=8, hidden_size=16, num_heads=2, vocab_size=30, max_length=16)
LIKE: dict[str, dict[str, Any]] = {
    "bert": {},
    "roberta": {"position_offset": 2, "token_type_vocab_size": 1, "layer_norm_eps": 1e-5},
    "albert": {"embedding_size": 4, "shares_layers": True, "activation": "gelu_tanh"},
    "electra": {"embedding_size": 4},
    "mpnet": {"relative_buckets": 8, "token_type_vocab_size": 0, "position_offset": 2},
}


def remove_dropout(graph: SymbolGraph) -> None:
    with graph.edit():
        for node in graph.find(op="Dropout"):
            graph.remove(node, bypass=True)


@pytest.mark.parametrize("path", THIRD_PARTY, ids=str)
def test_a_symbol_of_gluonnlp_lacks_none_and_gets_all_back(path: Path) -> None:
    shapes = ParamsFile((SYMBOLS / path).parent / "weights-0000.params").shapes
    graph = SymbolGraph.load(SYMBOLS / path)
    name = path.name.removesuffix("-symbol.json")
    last = [node.name for node in graph.nodes if node.op == "FullyConnected"][-1:] if name in HEADS else []
    inserted = insert_dropout(graph, shapes, 0.2, last).sources
    assert len(inserted) == (name == "qa")  # the only head without Dropout
    remove_dropout(graph)
    assert len(insert_dropout(graph, shapes, 0.2, last).sources) == 7 + len(last)
    assert insert_dropout(graph, shapes, 0.2, last).sources == {}
    config = extract_spec(graph, require_encoder(graph, shapes), shapes).config
    assert (config.dropout, config.attention_dropout) == (0.2, 0.2)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("family", LIKE)
def test_the_places_are_those_of_the_forms(family: str, form: str) -> None:
    config = dataclasses.replace(TINY, **LIKE[family])
    spec = EncoderSpec(config, token_types="data1" if config.token_type_vocab_size else None)
    graph = encoder_graph(spec, Form(form))
    expected = {(node.attrs["p"], str(node.inputs[0])) for node in graph.find(op="Dropout")}
    assert insert_dropout(graph, spec.shapes, 0.1).sources == {}
    remove_dropout(graph)
    insert_dropout(graph, spec.shapes, 0.1)
    assert {(node.attrs["p"], str(node.inputs[0])) for node in graph.find(op="Dropout")} == expected


def test_a_third_party_classifier_gets_dropout_and_computes_the_same(cli: Cli, tmp_path: Path) -> None:
    source = gluonnlp_checkpoint(tmp_path, "classifier")
    assert cli("edit", source, tmp_path / "none", "--dropout", "off").code == 0
    edits = Edits(dropout=0.4, prefixes=(("bertencoder0_", "encoder_"),))
    edited = edit(tmp_path / "none", tmp_path / "new", edits)
    inserted = [change for change in edited.changes if change.startswith("insert ")]
    assert len(inserted) == 8
    assert (
        "insert encoder_layernorm0_layernorm0_dropout (Dropout), p 0.4, after encoder_layernorm0_layernorm0" in inserted
    )
    assert edited.written is not None
    assert edited.written.verified
    np.testing.assert_array_equal(computed(tmp_path / "new", texts())[0], computed(source, texts())[0])


def test_a_bundle_gets_dropout_in_both_of_its_symbols(cli: Cli, classifier: Path, tmp_path: Path) -> None:
    assert cli("edit", classifier, tmp_path / "none", "--dropout", "off").code == 0
    assert cli("edit", tmp_path / "none", tmp_path / "new", "--dropout", 0.3).code == 0
    original, bundle = Bundle.open(classifier), Bundle.open(tmp_path / "new")
    assert (bundle.config.dropout, bundle.config.attention_dropout) == (0.3, 0.3)
    for name in ("symbol.json", "train-symbol.json"):
        dropped, before = (
            {str(node.inputs[0]) for node in each.graph(name).find(op="Dropout")} for each in (bundle, original)
        )
        assert dropped == before
    assert cli("verify", tmp_path / "new").code == 0
