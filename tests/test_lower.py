"""Bundles of bertsym's own in another form: as if they had been exported in it, and still bundles."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from checkpoints import bundle_bytes, computed
from conftest import Result, Tables, in_turn
from refusals import refusal

from bertsym import (
    Bundle,
    Classifier,
    Edits,
    FinetuneOptions,
    NewHead,
    SymbolBundle,
    SymbolGraph,
    edit,
    evaluate,
    extract,
    finetune,
    graft_head,
    lower,
    verify,
)
from bertsym.analysis.encoder_detection import require_encoder
from bertsym.encoders.forms import TARGETS

Cli = Callable[..., Result]
FORMS = ("portable", "gluonnlp", "fast")
OUTPUTS = ("cls", "pooled", "mean", "sequence")
TASKS = ("classification", "regression", "qa")
WAYS = list(itertools.permutations(FORMS, 2))
ROUND = [("portable", "fast"), ("fast", "gluonnlp"), ("gluonnlp", "portable")]


def graph_files(prefix: Path) -> dict[str, bytes]:
    """What a bundle computes: its graphs and its parameters."""
    return {name: data for name, data in bundle_bytes(prefix).items() if name.endswith(("symbol.json", ".params"))}


Exported = Callable[..., Path]


def how(what: str) -> dict[str, str]:
    """The option of `export` for an output or a task."""
    return {"task" if what in TASKS else "output": what}


# As if exported so


@pytest.mark.parametrize(
    ("what", "old", "new"),
    [*(("cls", *way) for way in WAYS), *in_turn([*OUTPUTS, *TASKS, "sequence", "classification"], ROUND)],
)
def test_lowering_to_a_form_gives_what_export_writes_in_it(
    exported: Exported, what: str, old: str, new: str, tmp_path: Path
) -> None:
    written = lower(exported(form=old, **how(what)), tmp_path / "new", form=new)
    direct = exported(form=new, **how(what))
    assert written.verified
    assert written.notes == []
    assert graph_files(tmp_path / "new") == graph_files(direct)
    signatures = [json.loads(Path(f"{prefix}-signature.json").read_text()) for prefix in (tmp_path / "new", direct)]
    assert signatures[0] == signatures[1]
    assert signatures[0]["form"] == new


@pytest.mark.parametrize(("what", "target"), [("mean", "1.4"), ("classification", "1.7"), ("mean", "1.9")])
def test_lowering_to_a_target_gives_what_export_writes_for_it(
    exported: Exported, what: str, target: str, tmp_path: Path
) -> None:
    for form in FORMS:
        if form == "gluonnlp" and target in ("1.4", "1.5"):
            continue
        lower(exported(form="fast", **how(what)), tmp_path / form, form=form, target=target)
        assert graph_files(tmp_path / form) == graph_files(exported(form=form, target=target, **how(what)))
        signature = Bundle.open(tmp_path / form).signature
        assert (signature.form, signature.target_mxnet) == (form, target)


def test_the_default_form_is_portable(exported: Exported, tmp_path: Path) -> None:
    lower(exported(output="cls", form="gluonnlp"), tmp_path / "new")
    assert graph_files(tmp_path / "new") == graph_files(exported(output="cls", form="portable"))


def test_the_same_command_writes_identical_files(exported: Exported, tmp_path: Path) -> None:
    for name in ("one", "other"):
        lower(exported(output="mean", form="portable"), tmp_path / name, form="fast", target="1.4")
    assert bundle_bytes(tmp_path / "one") == bundle_bytes(tmp_path / "other")


# A classifier with its training symbol


@pytest.mark.parametrize("form", FORMS)
def test_a_classifier_stays_a_classifier(classifier: Path, tables: Tables, form: str, tmp_path: Path) -> None:
    written = lower(classifier, tmp_path / "new", form=form)
    assert isinstance(written.bundle, Bundle)
    assert verify(tmp_path / "new")
    texts = ["the happy cat sat .", "the sad dog ran .", "a bird"]
    old, new = (Classifier(prefix).predict(texts) for prefix in (classifier, tmp_path / "new"))
    assert [prediction.label for prediction in old] == [prediction.label for prediction in new]
    metrics = [evaluate(prefix, tables.dev).metrics for prefix in (classifier, tmp_path / "new")]
    assert metrics[0] == pytest.approx(metrics[1], abs=1e-5)
    lower(tmp_path / "new", tmp_path / "back", form="portable")
    assert graph_files(tmp_path / "back") == graph_files(classifier)


@pytest.mark.parametrize(("form", "target"), [("gluonnlp", "1.6"), ("fast", "1.4")])
def test_both_symbols_are_lowered(classifier: Path, form: str, target: str, tmp_path: Path) -> None:
    lower(classifier, tmp_path / "new", form=form, target=target)
    for name in ("symbol", "train-symbol"):
        graph = SymbolGraph.load(f"{tmp_path / 'new'}-{name}.json")
        assert graph.mxnet_version == TARGETS[target].release
        assert require_encoder(graph).form.name == form
        assert bool(graph.find(op="erf")) is (target == "1.4")
    assert SymbolGraph.load(f"{tmp_path / 'new'}-train-symbol.json").output_names == ["softmax"]


@pytest.mark.parametrize("form", FORMS)
def test_a_lowered_base_can_be_fine_tuned(bundles: dict[str, Path], tables: Tables, form: str, tmp_path: Path) -> None:
    lower(bundles["cls"], tmp_path / "base", form=form, target="1.8")
    options = FinetuneOptions(epochs=1, max_length=24)
    finetune(tmp_path / "base", tables.train, tables.dev, tmp_path / "tuned", options=options)
    signature = Bundle.open(tmp_path / "tuned").signature
    assert (signature.form, signature.target_mxnet) == (form, "1.8")


def test_a_classifier_of_fixed_length_is_lowered(bundles: dict[str, Path], tables: Tables, tmp_path: Path) -> None:
    options = FinetuneOptions(epochs=1, max_length=24, whole_sequence=True)
    old = finetune(bundles["sequence"], tables.train, tables.dev, tmp_path / "old", options=options).bundle
    written = lower(old.prefix, tmp_path / "new", form="fast")
    assert [check.name for check in written.checks] == ["softmax at length 24"]
    assert Bundle.open(tmp_path / "new").signature.length == 24


# What the fast form leaves out


@pytest.mark.parametrize("what", [*OUTPUTS, *TASKS])
def test_position_0_alone_is_computed_where_nothing_else_is_read(exported: Exported, what: str, tmp_path: Path) -> None:
    lower(exported(form="portable", **how(what)), tmp_path / "new", form="fast")
    layers = require_encoder(SymbolGraph.load(f"{tmp_path / 'new'}-symbol.json")).layers
    first_only = what in ("cls", "pooled", "classification", "regression")
    assert [layer.first_only for layer in layers] == [False, first_only]


@pytest.mark.parametrize("form", FORMS)
def test_a_layer_with_another_reader_is_computed_for_all_tokens(exported: Exported, form: str, tmp_path: Path) -> None:
    extract(exported(output="cls", form="portable"), tmp_path / "both", ["cls", "layer 1"])
    lower(tmp_path / "both", tmp_path / "new", form=form)
    rng = np.random.default_rng(0)
    inputs = {"data0": rng.integers(40, size=(2, 6)), "data1": np.zeros((2, 6)), "data2": np.array([6, 3])}
    inputs = {name: array.astype(np.float32) for name, array in inputs.items()}
    for one, other in zip(computed(tmp_path / "both", inputs), computed(tmp_path / "new", inputs)):
        assert one.shape == other.shape
        assert np.abs(one - other).max() < 1e-5 * np.abs(one).max()


@pytest.mark.parametrize("form", ["portable", "gluonnlp"])
def test_an_output_of_position_0_alone_is_sliced_from_the_sequence(
    exported: Exported, form: str, tmp_path: Path
) -> None:
    """Where the last layer of the fast form itself is the output, (N, 1, U)."""
    extract(exported(output="cls", form="fast"), tmp_path / "part", ["layer 1"])
    lower(tmp_path / "part", tmp_path / "new", form=form)
    graphs = [SymbolGraph.load(tmp_path / f"{name}-symbol.json") for name in ("part", "new")]
    assert graphs[0].output_names == graphs[1].output_names
    rng = np.random.default_rng(0)
    inputs = {"data0": rng.integers(40, size=(2, 6)), "data1": np.zeros((2, 6)), "data2": np.array([6, 3])}
    inputs = {name: array.astype(np.float32) for name, array in inputs.items()}
    (one,), (other,) = computed(tmp_path / "part", inputs), computed(tmp_path / "new", inputs)
    assert one.shape == other.shape == (2, 1, 32)
    assert np.abs(one - other).max() < 1e-5 * np.abs(one).max()


# Bundles that are not exported BERTs


def test_a_part_of_a_bundle_stays_a_symbol(bundles: dict[str, Path], tmp_path: Path) -> None:
    extract(bundles["cls"], tmp_path / "part", ["layer 0", "cls"])
    bundle = lower(tmp_path / "part", tmp_path / "new", form="fast", target="1.4").bundle
    assert isinstance(bundle, SymbolBundle)
    assert SymbolGraph.load(f"{tmp_path / 'new'}-symbol.json").mxnet_version == "1.4.1"


def test_other_heads_keep_their_training_symbol(bundles: dict[str, Path], tmp_path: Path) -> None:
    graft_head(bundles["sequence"], tmp_path / "qa", NewHead("qa"))
    bundle = lower(tmp_path / "qa", tmp_path / "new", form="gluonnlp").bundle
    assert isinstance(bundle, SymbolBundle)
    assert [label.name for label in bundle.signature.label_inputs] == ["start_label", "end_label"]
    train = SymbolGraph.load(f"{tmp_path / 'new'}-train-symbol.json")
    assert train.output_names == ["start", "end"]
    assert require_encoder(train).form.name == "gluonnlp"


@pytest.mark.parametrize("form", FORMS)
def test_dropout_is_kept_where_it_was(bundles: dict[str, Path], form: str, tmp_path: Path) -> None:
    edit(bundles["cls"], tmp_path / "half", Edits(dropout=0.5))
    lower(tmp_path / "half", tmp_path / "new", form=form)
    dropped = SymbolGraph.load(f"{tmp_path / 'new'}-symbol.json").find(op="Dropout")
    assert [node.attrs["p"] for node in dropped] == ["0.5"] * 7
    edit(bundles["cls"], tmp_path / "none", Edits(dropout="off"))
    lower(tmp_path / "none", tmp_path / "new", form=form, force=True)
    assert SymbolGraph.load(f"{tmp_path / 'new'}-symbol.json").find(op="Dropout") == []


# Usage


def test_the_manifest_has_the_origin(bundles: dict[str, Path], cli: Cli, tmp_path: Path) -> None:
    assert cli("lower", bundles["cls"], tmp_path / "new", "--form", "fast", "--target-mxnet", "1.9").code == 0
    manifest = json.loads(Path(f"{tmp_path / 'new'}-manifest.json").read_text())
    assert manifest["lowered"] == {"form": "fast", "target_mxnet": "1.9", "fold": False}
    assert manifest["command"][:2] == ["bertsym", "lower"]
    assert manifest["base"]["files"]


def test_a_bundle_is_not_written_over_itself(bundles: dict[str, Path], cli: Cli, tmp_path: Path) -> None:
    lower(bundles["cls"], tmp_path / "base")
    before = bundle_bytes(tmp_path / "base")
    refusal(cli("lower", tmp_path / "base", tmp_path / "base", "--form", "fast", "--force"), code=2)
    assert bundle_bytes(tmp_path / "base") == before
    line = refusal(cli("lower", bundles["cls"], tmp_path / "base"), code=2)
    assert "exists: choose another PREFIX" in line
