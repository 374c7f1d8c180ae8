"""A batch in parts is the batch: updates do not depend on how it was computed."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from test_acceleration import BERT, SHAPES, UNITS

from bertsym.acceleration.graphs import build_training_symbol
from bertsym.encoders.config import BertConfig
from bertsym.encoders.heads import graft
from bertsym.encoders.inputs import INPUT_NAMES
from bertsym.encoders.outputs import output_symbol
from bertsym.errors import DataError
from bertsym.passes.embedding_rows import UsedRows, keep_used_rows
from bertsym.runtime import mx, share_threads
from bertsym.symbol.graph import SymbolGraph
from bertsym.text.features import Features
from bertsym.text.tokenizer import Encoded
from bertsym.training import batch_shard, encodings
from bertsym.training.module import PartsModule

Array = NDArray[Any]
STILL = BertConfig(**{**vars(BERT), "dropout": 0.0, "attention_dropout": 0.0})


def initial() -> dict[str, Array]:
    rng = np.random.default_rng(0)
    shapes = {name: shape for name, shape in SHAPES.items() if "pooler" not in name}
    params = {name: (0.2 * rng.normal(size=shape)).astype(np.float32) for name, shape in shapes.items()}
    head = {"fc-finetune_weight": rng.normal(size=(2, UNITS)), "fc-finetune_bias": np.zeros(2)}
    return {**params, **{name: array.astype(np.float32) for name, array in head.items()}}


def batch(rows: int, length: int, seed: int = 0) -> Any:
    rng = np.random.default_rng((rows, length, seed))
    inputs = [
        rng.integers(20, size=(rows, length)),
        rng.integers(2, size=(rows, length)),
        rng.integers(1, length + 1, size=rows),
    ]
    data = [array.astype(np.float32) for array in inputs]
    label = [rng.integers(2, size=rows).astype(np.float32)]
    return mx.io.DataBatch(
        data,
        label,
        provide_data=[(name, array.shape) for name, array in zip(INPUT_NAMES, data)],
        provide_label=[("softmax_label", label[0].shape)],
    )


def module(
    config: BertConfig = STILL,
    dropout: float = 0.0,
    graph: SymbolGraph | None = None,
    params: Mapping[str, Array] | None = None,
    contexts: int = 1,
    largest: tuple[int, int] = (9, 12),
    **options: Any,
) -> PartsModule:
    graph = graph or SymbolGraph.parse(graft(output_symbol(config, "cls"), 2, dropout=dropout).tojson())
    params = params or initial()
    shapes = {name: array.shape for name, array in params.items()}
    training = build_training_symbol(graph, shapes, cpu=contexts == 1)
    made = PartsModule(training, INPUT_NAMES, ["softmax_label"], [mx.cpu(i) for i in range(contexts)], **options)
    shape = batch(*largest)
    made.bind(shape.provide_data, shape.provide_label)
    made.init_params(params)
    made.init_optimizer(weight_decay=0.01, clip_norm=1.0)
    return made


def values(made: PartsModule) -> dict[str, Array]:
    return {name: array.asnumpy() for name, array in made.get_params()[0].items()}


def train(made: PartsModule, passes: int = 1, shapes: tuple[tuple[int, int], ...] = ((9, 12), (4, 7))) -> Any:
    """A step on each of some batches; the parameters after it."""
    for rows, length in shapes:
        whole = batch(rows, length)
        for some in np.array_split(np.arange(rows), passes):
            cut = [[array[some] for array in arrays] for arrays in (whole.data, whole.label)]
            made.forward(mx.io.DataBatch(*cut))
            made.backward()
        made.learning_rate = 1e-3
        made.update()
    return values(made)


def assert_same(found: Mapping[str, Array], expected: Mapping[str, Array], start: Mapping[str, Array]) -> None:
    """Adam's first steps go by the sign of a gradient: those of rounding errors, of key biases, go anywhere."""
    assert found.keys() == expected.keys()
    for name, array in expected.items():
        if not name.endswith("_key_bias"):
            assert np.abs(array - start[name]).max() > 1e-4, name
            assert np.abs(found[name] - array).mean() < 1e-6, name


@pytest.mark.parametrize(
    ("options", "passes"),
    [
        ({"parts": 2}, 1),
        ({"parts": 3}, 1),
        ({"parts": 2, "accumulate": True}, 3),
        ({"contexts": 2}, 1),
        ({"contexts": 2, "accumulate": True}, 2),
    ],
)
def test_parts_and_passes_and_devices_make_the_same_steps(options: dict[str, Any], passes: int) -> None:
    assert_same(train(module(**options), passes), train(module()), initial())


def test_a_batch_with_fewer_rows_than_parts_is_computed_by_some() -> None:
    shapes = ((2, 5), (1, 12))
    assert_same(train(module(parts=4), shapes=shapes), train(module(), shapes=shapes), initial())


def test_the_same_seed_gives_the_same_parameters_and_another_one_others() -> None:
    one, same, other = (train(module(BERT, 0.1, parts=2, seed=seed)) for seed in (5, 5, 6))
    for name, array in one.items():
        np.testing.assert_array_equal(array, same[name], err_msg=name)
    name = "fc-finetune_weight"
    assert np.abs(one[name] - other[name]).max() > 1e-6


def test_going_on_from_a_number_of_draws_is_as_if_never_stopped() -> None:
    made = module(BERT, 0.1, parts=2)
    made.draws = 7
    made.forward(batch(4, 7))
    there = made.get_outputs()[0].asnumpy()
    other = module(BERT, 0.1, parts=2)
    other.forward(batch(4, 7))
    assert np.abs(other.get_outputs()[0].asnumpy() - there).max() > 1e-6
    other.draws = 7
    other.forward(batch(4, 7))
    np.testing.assert_array_equal(other.get_outputs()[0].asnumpy(), there)


def test_nothing_is_dropped_when_it_does_not_train() -> None:
    dropping, still = module(BERT, 0.1, parts=2), module()
    dropping.forward(batch(9, 12))  # masks of training are left over
    for made in (dropping, still):
        made.forward(batch(9, 12), is_train=False)
    expected = still.get_outputs()[0].asnumpy()
    np.testing.assert_allclose(dropping.get_outputs()[0].asnumpy(), expected, atol=1e-5)


def test_the_number_of_bound_graphs_has_a_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batch_shard, "_MOST_GRAPHS", 2)
    shapes = ((9, 12), (9, 11), (9, 10), (9, 9), (9, 12))
    made = module(parts=2)
    assert_same(train(made, shapes=shapes), train(module(), shapes=shapes), initial())
    assert all(len(one._bound) == 2 for one in made._parts)


@pytest.mark.parametrize("executors", [1, 2])
def test_threads_can_be_shared_again_and_again_and_change_no_step(executors: int) -> None:
    share_threads(executors)
    found = train(module(parts=2))
    share_threads(1)
    assert_same(found, train(module(parts=2)), initial())


_FORK = """
import os, sys
sys.path.insert(0, sys.argv[1])
from test_training_module import module, mx, train
many = mx.nd.random.uniform(shape=(3_000_000,))
made = module(dropout=0.1)
train(made)
busy = [mx.nd.sort(many) for _ in range(4)]
del made
if os.fork() == 0:
    os._exit(0)
"""


def test_a_fork_does_not_wait_for_ever_for_what_is_freed() -> None:
    """Freed behind the sorting, in a thread that the fork waits for."""
    command = [sys.executable, "-W", "ignore", "-c", _FORK, str(Path(__file__).parent)]
    assert subprocess.run(command, timeout=100).returncode == 0


_CHILD = """
import {first}
from bertsym.runtime import engine_workers, mx, share_threads
for executors in (2, 1, 2):
    share_threads(executors)
    mx.nd.ones((3,)).wait_to_read()
print(engine_workers())
"""


@pytest.mark.parametrize(("first", "workers"), [("sys", 2), ("mxnet", 1)])
@pytest.mark.parametrize("threads", ["1", "4", None])
def test_the_engine_has_two_workers_unless_mxnet_was_there_before(
    first: str, workers: int, threads: str | None
) -> None:
    chosen = {name: value for name, value in os.environ.items() if not name.startswith(("OMP", "GOMP", "MXNET"))}
    if threads is not None:
        chosen["OMP_NUM_THREADS"] = threads
    command = [sys.executable, "-W", "ignore", "-c", _CHILD.format(first=first)]
    done = subprocess.run(command, env=chosen, capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.split() == [str(workers)]


# Encodings of a frozen encoder


@pytest.mark.parametrize("in_memory", [0, 1 << 30])
def test_encodings_are_those_of_the_rows_in_their_order_in_memory_or_not(
    in_memory: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(encodings, "_ROWS", 3)
    monkeypatch.setattr(encodings, "_IN_MEMORY", in_memory)
    features = Features([Encoded([i, i], [0, 0], False, 0) for i in range(8)])
    found = encodings.encode(
        lambda some: np.array([[row.token_ids[0], 1] for row in some.examples], np.float32), features
    )
    assert found.tolist() == [[i, 1] for i in range(8)]
    assert isinstance(found, np.memmap) == (in_memory == 0)


# Rows of the word embedding that no text uses


def graph_of(output: str = "cls") -> SymbolGraph:
    return SymbolGraph.parse(graft(output_symbol(STILL, output), 2, dropout=0.0).tojson())


def test_training_the_used_rows_alone_changes_nothing() -> None:
    graph, params, ids = graph_of(), initial(), np.arange(20)
    rows = keep_used_rows(graph, "data0", ids, params)
    assert rows is not None
    small = {**params, rows.name: rows.initial}
    trained = train(module(graph=graph, params=small))
    trained[rows.name] = rows.restore(trained[rows.name], (1 - 1e-3 * 0.01) ** 2)
    expected = train(module())
    assert_same(trained, expected, params)
    np.testing.assert_allclose(trained[rows.name][20:], expected[rows.name][20:], rtol=1e-6)
    assert np.abs(expected[rows.name][20:] / params[rows.name][20:] - (1 - 1e-5) ** 2).max() < 1e-6


def test_places_of_ids_are_those_in_the_smaller_table() -> None:
    table = np.arange(10, dtype=np.float32).reshape(5, 2)
    rows = UsedRows("table", table, np.array([1, 4]))
    assert rows.initial[rows.remap(np.array([[4.0, 1.0]])).astype(int)].tolist() == [[[8, 9], [2, 3]]]
    assert rows.restore(np.ones((2, 2)), 0.5).tolist() == [[0, 0.5], [1, 1], [2, 2.5], [3, 3.5], [1, 1]]


def test_a_table_that_something_else_reads_stays_whole() -> None:
    graph = graph_of()
    table = next(node.inputs[1].node for node in graph.find(op="Embedding") if node.inputs[0].node.name == "data0")
    graph.set_outputs([*graph.outputs, graph.add("sum", "total", [table])])
    before = graph.to_json()
    assert keep_used_rows(graph, "data0", np.arange(20), initial()) is None
    assert graph.to_json() == before


@pytest.mark.parametrize(
    ("place", "wrong"), [(0, BERT.vocab_size), (0, float("nan")), (1, 2), (2, 0), (2, 13), (2, 2.5), (2, float("nan"))]
)
def test_inputs_beyond_the_limits_are_refused(place: int, wrong: float) -> None:
    made, bad = module(limits=STILL), batch(4, 12)
    bad.data[place].flat[-1] = wrong
    name = ("token ids", "token types", "valid_length")[place]
    for data in (bad.data, [mx.nd.array(array) for array in bad.data]):
        with pytest.raises(DataError, match=rf"^{name} must be whole numbers from .*: row 3"):
            made.forward(mx.io.DataBatch(data, bad.label))
    made.forward(batch(4, 12))
