"""Frozen layers and layer-wise learning-rate decay, in the files that are written."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import Result, Tables, write_hugging_face
from family_folders import write_family
from test_acceleration import BERT, SHAPES
from test_data_parallel import batch, graph_of, make_executor

from bertsym import Bundle, ExportOptions, FinetuneOptions, ParamsFile, UsageError, export, finetune
from bertsym.array import Array
from bertsym.encoders.parameters import RELATIVE_BIAS, RELATIVE_BUCKETS
from bertsym.mxnet_runtime import mx
from bertsym.tasks.classification import Classification
from bertsym.training.base_model import open_base

LAYERS, RATE, DECAY = BERT.num_layers, 2e-3, 0.1


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny BERT without dropout, so that the first step is the same in every run."""
    folder = tmp_path_factory.mktemp("base")
    source = write_hugging_face(folder / "hf", hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0)
    export(f"hf:{source}", folder / "x", ExportOptions(output="pooled"))
    return folder / "x"


def layer_of(name: str) -> int:
    """Number of a parameter's layer: 0 for the embeddings, one after the last for pooler and classifier."""
    if "_transformer" in name:
        return int(name.partition("_transformer")[2].partition("_")[0]) + 1
    return LAYERS + 1 if name.startswith(("fc-finetune", "bertmodel0_pooler")) else 0


@pytest.fixture(scope="module")
def updates(base: Path, tables: Tables, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Return what one step of AdamW on the whole table adds to each parameter."""
    folder = tmp_path_factory.mktemp("updates")

    def update(name: str, **changes: Any) -> dict[str, Array]:
        options = FinetuneOptions(
            epochs=1, batch_size=90, learning_rate=RATE, weight_decay=DECAY, clip_norm=0, dropout=0, max_length=24
        )
        changed = FinetuneOptions(**{**vars(options), **changes})
        finetune(base, tables.train, tables.dev, folder / name, options=changed)
        before, after = ParamsFile(f"{base}-0000.params"), ParamsFile(f"{folder / name}-0000.params")
        return {name: after[name] - before[name] for name in before}

    return update


def test_frozen_layers_keep_their_bytes_and_the_others_make_the_same_step(updates: Any) -> None:
    whole, frozen, embeddings = updates("whole"), updates("frozen", freeze_layers=1), updates("words", freeze_layers=0)
    for first, found in ((2, frozen), (1, embeddings)):
        for name, update in found.items():
            if layer_of(name) < first:
                assert not update.any(), name
            elif not name.endswith("_key_bias"):  # zero in mathematics
                assert np.abs(update).max() > RATE / 2, name
                np.testing.assert_allclose(update, whole[name], atol=1e-6, err_msg=name)


def test_the_rate_decays_from_the_last_layer_to_the_embeddings(updates: Any) -> None:
    whole, found = updates("plain"), updates("decayed", layer_decay=0.5)
    for name, update in found.items():
        if not name.endswith("_key_bias"):
            factor = 0.5 ** max(0, LAYERS - layer_of(name))
            np.testing.assert_allclose(update, factor * whole[name], atol=1e-6, err_msg=name)


def test_the_training_symbol_has_the_factors_for_other_optimizers(base: Path, tables: Tables) -> None:
    out = base.with_name("factors")
    finetune(base, tables.train, tables.dev, out, options=FinetuneOptions(epochs=1, freeze_layers=1, layer_decay=0.5))
    attributes = mx.sym.load(f"{out}-train-symbol.json").attr_dict()
    factors = {name: float(attributes.get(name, {}).get("__lr_mult__", 1)) for name in ParamsFile(f"{out}-0000.params")}
    assert factors == {name: float(layer_of(name) > 1) for name in factors}


def test_nothing_is_computed_backwards_through_frozen_layers() -> None:
    graph = graph_of()
    with graph.edit():
        for name in SHAPES:
            if layer_of(name) < LAYERS and "pooler" not in name:
                graph.set_attribute(graph.variable(name), "__lr_mult__", "0.0")
    executor = make_executor(graph=graph)
    executor.compute_gradients(batch(4, 7), 0)
    described = next(iter(executor._shards[0]._bound.values())).executor.debug_str()
    backward = {line.partition("Name=")[2] for line in described.splitlines() if "Op:_backward" in line}
    assert any(f"transformer{LAYERS - 1}_" in name for name in backward)
    assert not [name for name in backward if "transformer0_" in name or "embed" in name]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--freeze-layers", 3], "freeze_layers must be at most 2, the layers of .*, not 3"),
        (["--freeze-layers", -1], "freeze_layers must be 0 or more, not -1"),
        (["--layer-decay", 1.5], "layer_decay must be above 0 and at most 1, not 1.5"),
        (["--freeze-layers", 1, "--freeze-encoder"], "freeze_layers has no effect with freeze_encoder"),
        (["--layer-decay", 0.9, "--freeze-encoder"], "layer_decay has no effect with freeze_encoder"),
    ],
)
def test_impossible_rates_are_usage_errors(
    cli: Any, base: Path, tables: Tables, tmp_path: Path, options: list[object], message: str
) -> None:
    done: Result = cli("finetune", base, "--train", tables.train, "--dev", tables.dev, tmp_path / "x", *options)
    assert done.code == 2
    assert re.search(message, done.error_line)


@pytest.mark.parametrize(("model_type", "layers"), [("electra", 1), ("albert", 0), ("albert", 2), ("mpnet", 1)])
def test_projections_and_biases_by_position_belong_to_the_embeddings(
    tmp_path: Path, model_type: str, layers: int
) -> None:
    export(f"hf:{write_family(tmp_path / 'hf', model_type)}", tmp_path / "base", ExportOptions(output="cls"))
    options = FinetuneOptions(freeze_layers=layers)
    base = Bundle.open(tmp_path / "base")
    start = open_base(base, Classification(), options)
    frozen = {name for name, rate in start.rates.items() if rate == 0}
    shared = model_type == "albert"
    assert frozen == {name for name in start.params if layer_of(name) <= layers or (shared and layers)} | (
        {RELATIVE_BIAS, RELATIVE_BUCKETS} if model_type == "mpnet" else set()
    )
    if shared:
        for changes in ({"freeze_layers": 1}, {"layer_decay": 0.5}):
            with pytest.raises(UsageError, match="its 2 layers share their parameters"):
                open_base(base, Classification(), FinetuneOptions(**changes))
