"""Training steps do not depend on how a batch is split into shards, passes and devices."""

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
from tools import AS_A_COMMAND

from bertsym.acceleration.graphs import build_training_symbol
from bertsym.encoders.config import BertConfig
from bertsym.encoders.inputs import INPUT_NAMES
from bertsym.encoders.outputs import output_symbol
from bertsym.encoders.symbol_heads import graft
from bertsym.errors import DataError
from bertsym.mxnet_runtime import mx, share_threads
from bertsym.passes.embedding_rows import UsedRows, keep_used_rows
from bertsym.symbol.graph import SymbolGraph
from bertsym.text.features import Features
from bertsym.text.tokenizer import Encoded
from bertsym.training import encodings, shard_executor
from bertsym.training.data_parallel import DataParallelExecutor
from bertsym.training.finetune_options import FinetuneOptions

Array = NDArray[Any]
WITHOUT_DROPOUT = BertConfig(**{**vars(BERT), "dropout": 0.0, "attention_dropout": 0.0})
LABEL = "softmax_label"
DEADLOCK = 600  # seconds after which a process counts as deadlocked
LEARNING_RATE = 1e-3


def initial() -> dict[str, Array]:
    rng = np.random.default_rng(0)
    shapes = {name: shape for name, shape in SHAPES.items() if "pooler" not in name}
    params = {name: (0.2 * rng.normal(size=shape)).astype(np.float32) for name, shape in shapes.items()}
    head = {"fc-finetune_weight": rng.normal(size=(2, UNITS)), "fc-finetune_bias": np.zeros(2)}
    return {**params, **{name: array.astype(np.float32) for name, array in head.items()}}


def batch(rows: int, length: int) -> dict[str, Array]:
    rng = np.random.default_rng((rows, length, 0))
    inputs = [
        rng.integers(20, size=(rows, length)),
        rng.integers(2, size=(rows, length)),
        rng.integers(1, length + 1, size=rows),
    ]
    arrays = {**dict(zip(INPUT_NAMES, inputs)), LABEL: rng.integers(2, size=rows)}
    return {name: array.astype(np.float32) for name, array in arrays.items()}


def make_executor(
    config: BertConfig = WITHOUT_DROPOUT,
    dropout: float = 0.0,
    graph: SymbolGraph | None = None,
    params: Mapping[str, Array] | None = None,
    devices: int = 1,
    shards: int = 1,
    limits: BertConfig | None = None,
    **options: Any,
) -> DataParallelExecutor:
    graph = graph or SymbolGraph.parse(graft(output_symbol(config, "cls"), 2, dropout=dropout).tojson())
    params = params or initial()
    shapes = {name: array.shape for name, array in params.items()}
    return DataParallelExecutor(
        build_training_symbol(graph, shapes, cpu=devices == 1),
        params,
        {name: array.shape for name, array in batch(9, 12).items()},
        FinetuneOptions(**options),
        contexts=[mx.cpu(i) for i in range(devices)],
        shards=shards,
        limits=limits,
    )


def train(
    executor: DataParallelExecutor, passes: int = 1, shapes: tuple[tuple[int, int], ...] = ((9, 12), (4, 7))
) -> dict[str, Array]:
    """Make a step on each of some batches; returns the parameters after them."""
    pass_number = 0
    for rows, length in shapes:
        arrays = batch(rows, length)
        for some in np.array_split(np.arange(rows), passes):
            executor.compute_gradients({name: array[some] for name, array in arrays.items()}, pass_number)
            pass_number += 1
        executor.update(rows, LEARNING_RATE)
    return executor.params()


def assert_same(found: Mapping[str, Array], expected: Mapping[str, Array], start: Mapping[str, Array]) -> None:
    """Key biases are ignored: their gradient is zero but for rounding errors, whose sign decides Adam's first steps."""
    assert found.keys() == expected.keys()
    for name, array in expected.items():
        if not name.endswith("_key_bias"):
            assert np.abs(array - start[name]).max() > 1e-4, name
            assert np.abs(found[name] - array).mean() < 1e-6, name


@pytest.mark.parametrize(
    ("options", "passes"),
    [
        ({"shards": 2}, 1),
        ({"shards": 3}, 1),
        ({"shards": 2, "accumulate": 3}, 3),
        ({"devices": 2}, 1),
        ({"devices": 2, "accumulate": 2}, 2),
    ],
)
def test_shards_passes_and_devices_make_the_same_steps(options: dict[str, Any], passes: int) -> None:
    assert_same(train(make_executor(**options), passes), train(make_executor()), initial())


def test_a_batch_may_have_fewer_rows_than_there_are_shards() -> None:
    shapes = ((2, 5), (1, 12))
    assert_same(train(make_executor(shards=4), shapes=shapes), train(make_executor(), shapes=shapes), initial())


def test_dropout_depends_on_the_seed_alone() -> None:
    one, same, other = (train(make_executor(BERT, 0.1, shards=2, seed=seed)) for seed in (5, 5, 6))
    for name, array in one.items():
        np.testing.assert_array_equal(array, same[name], err_msg=name)
    name = "fc-finetune_weight"
    assert np.abs(one[name] - other[name]).max() > 1e-6


def test_dropout_depends_on_the_number_of_the_pass_not_on_earlier_passes() -> None:
    executor = make_executor(BERT, 0.1, shards=2)
    first, second = (executor.compute_gradients(batch(4, 7), number)[0].asnumpy() for number in (0, 7))
    assert np.abs(first - second).max() > 1e-6
    again = make_executor(BERT, 0.1, shards=2).compute_gradients(batch(4, 7), 7)[0].asnumpy()
    np.testing.assert_array_equal(again, second)


def test_the_number_of_bound_executors_is_limited(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shard_executor, "_MAX_EXECUTORS", 2)
    shapes = ((9, 12), (9, 11), (9, 10), (9, 9), (9, 12))
    executor = make_executor(shards=2)
    assert_same(train(executor, shapes=shapes), train(make_executor(), shapes=shapes), initial())
    assert all(len(shard._bound) == 2 for shard in executor._shards)


@pytest.mark.parametrize("executors", [1, 2])
def test_the_number_of_threads_changes_no_step(executors: int) -> None:
    share_threads(executors)
    found = train(make_executor(shards=2))
    share_threads(1)
    assert_same(found, train(make_executor(shards=2)), initial())


_FORK = """
import os, sys
sys.path.insert(0, sys.argv[1])
from test_data_parallel import make_executor, mx, train
many = mx.nd.random.uniform(shape=(1_000_000,))
executor = make_executor(dropout=0.1)
train(executor)
busy = [mx.nd.sort(many) for _ in range(4)]
del executor
if os.fork() == 0:
    os._exit(0)
"""


def test_a_fork_does_not_deadlock_with_arrays_that_are_freed() -> None:
    """They are freed after the sorting, by a thread that the fork waits for."""
    command = [sys.executable, "-W", "ignore", "-c", AS_A_COMMAND + _FORK, str(Path(__file__).parent)]
    assert subprocess.run(command, timeout=DEADLOCK).returncode == 0


_CHILD = """
import bertsym, {first}
from bertsym.mxnet_runtime import engine_workers, mx, share_threads
for executors in (2, 1, 2):
    share_threads(executors)
    mx.nd.ones((3,)).wait_to_read()
print(engine_workers())
"""


@pytest.mark.parametrize(("first", "workers", "threads"), [("sys", 2, None), ("sys", 2, "4"), ("mxnet", 1, "1")])
def test_the_engine_has_two_workers_unless_mxnet_was_imported_before(
    first: str, workers: int, threads: str | None
) -> None:
    chosen = {name: value for name, value in os.environ.items() if not name.startswith(("OMP", "GOMP", "MXNET"))}
    if threads is not None:
        chosen["OMP_NUM_THREADS"] = threads
    command = [sys.executable, "-W", "ignore", "-c", AS_A_COMMAND + _CHILD.format(first=first)]
    done = subprocess.run(command, env=chosen, capture_output=True, text=True, check=True, timeout=DEADLOCK)
    assert done.stdout.split() == [str(workers)]


# Encodings of a frozen encoder


@pytest.mark.parametrize("in_memory", [0, 1 << 30])
def test_encodings_keep_the_order_of_the_rows_in_memory_and_in_a_file(
    in_memory: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(encodings, "_CHUNK_ROWS", 3)
    monkeypatch.setattr(encodings, "_MAX_IN_MEMORY", in_memory)
    features = Features([Encoded([i, i], [0, 0], False, 0) for i in range(8)])
    found = encodings.encode(
        lambda some, _: np.array([[row.token_ids[0], 1] for row in some.examples], np.float32), features, bool
    )
    assert found.tolist() == [[i, 1] for i in range(8)]
    assert isinstance(found, np.memmap) == (in_memory == 0)


# Rows of the token embedding that no text uses


def graph_of(output: str = "cls") -> SymbolGraph:
    return SymbolGraph.parse(graft(output_symbol(WITHOUT_DROPOUT, output), 2, dropout=0.0).tojson())


def test_training_only_the_used_rows_gives_the_same_parameters() -> None:
    graph, params, ids = graph_of(), initial(), np.arange(20)
    rows = keep_used_rows(graph, "data0", ids, params)
    assert rows is not None
    small = {**params, rows.name: rows.initial}
    trained = train(make_executor(graph=graph, params=small))
    trained[rows.name] = rows.restore(trained[rows.name], (1 - LEARNING_RATE * 0.01) ** 2)
    expected = train(make_executor())
    assert_same(trained, expected, params)
    np.testing.assert_allclose(trained[rows.name][20:], expected[rows.name][20:], rtol=1e-6)
    assert np.abs(expected[rows.name][20:] / params[rows.name][20:] - (1 - 1e-5) ** 2).max() < 1e-6


def test_places_of_ids_are_those_in_the_smaller_table() -> None:
    table = np.arange(10, dtype=np.float32).reshape(5, 2)
    rows = UsedRows("table", table, np.array([1, 4]))
    assert rows.initial[rows.remap(np.array([[4.0, 1.0]])).astype(int)].tolist() == [[[8, 9], [2, 3]]]
    assert rows.restore(np.ones((2, 2)), 0.5).tolist() == [[0, 0.5], [1, 1], [2, 2.5], [3, 3.5], [1, 1]]


def test_an_embedding_table_with_another_reader_is_kept_whole() -> None:
    graph = graph_of()
    table = next(node.inputs[1].node for node in graph.find(op="Embedding") if node.inputs[0].node.name == "data0")
    graph.set_outputs([*graph.outputs, graph.add("sum", "total", [table])])
    before = graph.to_json()
    assert keep_used_rows(graph, "data0", np.arange(20), initial()) is None
    assert graph.to_json() == before


@pytest.mark.parametrize(
    ("place", "wrong"), [(0, BERT.vocab_size), (0, float("nan")), (1, 2), (2, 0), (2, 13), (2, 2.5), (2, float("nan"))]
)
def test_inputs_that_exceed_the_limits_are_refused(place: int, wrong: float) -> None:
    executor, arrays = make_executor(limits=WITHOUT_DROPOUT), batch(4, 12)
    arrays[INPUT_NAMES[place]].flat[-1] = wrong
    name = ("token ids", "token types", "valid_length")[place]
    for convert in (np.asarray, mx.nd.array):
        with pytest.raises(DataError, match=rf"^{name} must be integers from .*: row 3"):
            executor.compute_gradients({name: convert(array) for name, array in arrays.items()}, 0)
    executor.compute_gradients(batch(4, 12), 0)
