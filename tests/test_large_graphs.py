"""Graphs that are built to take forever, gigabytes or Python's stack are analysed within seconds or refused."""

from __future__ import annotations

import json
import resource
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any

import numpy as np
import pytest
from conftest import Result
from refusals import refusal
from third_party import checkpoint, some_graph

import bertsym
from bertsym import BertConfig, ModelError, SymbolGraph, output_symbol
from bertsym.analysis import constants, encoder_detection, token_flow
from bertsym.analysis.constants import find_constant
from bertsym.analysis.encoder_detection import require_encoder
from bertsym.encoders import config
from bertsym.encoders.forms import Form
from bertsym.encoders.spec import EncoderSpec
from bertsym.execution.engines import using_engine, without_verification
from bertsym.symbol import document
from bertsym.symbol.node import Output
from bertsym.symbol.params import write_params

Cli = Callable[..., Result]


def chain(length: int, heads: int = 1, op: str = "negative", reads: int = 1) -> dict[str, Any]:
    """Operators that each read the one before, `reads` times; the graph ends in the last ones."""
    nodes: list[dict[str, Any]] = [{"op": "null", "name": "x", "inputs": []}]
    nodes += [{"op": op, "name": f"n{i}", "inputs": [[i, 0, 0]] * reads} for i in range(length)]
    return {"nodes": nodes, "arg_nodes": [0], "heads": [[length - i, 0, 0] for i in range(heads)]}


def downstream_of_the_encoder(count: int) -> SymbolGraph:
    """A BERT, followed by sums of each tensor with itself."""
    graph = json.loads(some_graph().to_json())
    head = graph["heads"][0][0]
    for i in range(count):
        graph["nodes"].append({"op": "elemwise_add", "name": f"sum{i}", "inputs": [[head, 0, 0]] * 2})
        head = len(graph["nodes"]) - 1
    graph["heads"] = [[head, 0, 0]]
    del graph["node_row_ptr"]
    return SymbolGraph.parse(json.dumps(graph))


@pytest.mark.parametrize(
    ("document", "why"),
    [
        (chain(document.MAX_NODES), f"{document.MAX_NODES + 1} nodes, 1 to {document.MAX_NODES} are supported"),
        (chain(5000, 5000), "5000 outputs of a graph of 5001 nodes are too many to follow"),
        (
            {**chain(2), "node_row_ptr": [0, 1, 2, 10**9]},
            f"node 2 has {10**9 - 2} outputs, at most {document.MAX_OUTPUTS} are supported",
        ),
    ],
)
def test_graphs_beyond_the_limits_are_refused(document: dict[str, Any], why: str) -> None:
    with pytest.raises(ModelError) as caught:
        SymbolGraph.parse(json.dumps(document), "it")
    assert str(caught.value) == f"it: {why}"


@pytest.mark.parametrize(
    "document",
    [chain(60_000), chain(8000, 2000), chain(10_000, op="elemwise_add", reads=2)],
    ids=["deep", "many outputs", "many ways"],
)
def test_limits_are_checked_quickly(cli: Cli, tmp_path: Path, document: dict[str, Any]) -> None:
    (tmp_path / "m-symbol.json").write_text(json.dumps(document))
    began = time.process_time()
    assert cli("inspect", tmp_path / "m").code == 0
    assert time.process_time() - began < 10


def test_many_steps_after_the_encoder_cost_no_memory(cli: Cli, tmp_path: Path) -> None:
    graph = downstream_of_the_encoder(6000)
    (tmp_path / "m-symbol.json").write_text(graph.to_json())
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    result = cli("inspect", tmp_path / "m")
    assert result.code == 0
    assert "computed from the encoder's output in a way that is not analysed" in result.out
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 100_000


def test_as_many_steps_as_max_steps_are_followed(cli: Cli, tmp_path: Path) -> None:
    graph = downstream_of_the_encoder(token_flow.MAX_STEPS)
    (tmp_path / "m-symbol.json").write_text(graph.to_json())
    assert "[CLS], position 0 of the sequence" in cli("inspect", tmp_path / "m").out


def test_an_encoder_of_many_layers_is_found_and_one_of_too_many_is_not(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    shape: dict[str, Any] = {"units": 4, "hidden_size": 4, "num_heads": 1, "vocab_size": 5, "max_length": 4}
    text = output_symbol(BertConfig(num_layers=120, **shape), "cls", Form("portable", erf=False)).tojson()
    graph = SymbolGraph.parse(text)
    began = time.process_time()
    assert len(require_encoder(graph).layers) == 120
    assert time.process_time() - began < 5
    monkeypatch.setattr(encoder_detection, "MAX_LAYERS", 119)
    with pytest.raises(ModelError, match=r"^no BERT: more than 119 layers$"):
        require_encoder(graph)
    with pytest.raises(ModelError, match=f"{config.MAX_LAYERS + 1} layers, at most {config.MAX_LAYERS} are supported"):
        BertConfig(num_layers=config.MAX_LAYERS + 1, **shape)


def operations(compute: Callable[[Path], object], prefix: Path) -> int:
    """Count the bytecodes that a computation runs, which do not depend on the speed of the machine."""
    count = 0

    def trace(frame: FrameType, event: str, arg: object) -> Any:
        nonlocal count
        frame.f_trace_opcodes, frame.f_trace_lines = True, False
        count += event == "opcode"
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        compute(prefix)
    finally:
        sys.settrace(before)
    return count


WORK: dict[str, Callable[[Path], object]] = {
    "diff": lambda prefix: bertsym.diff(prefix, prefix),
    "lower": lambda prefix: bertsym.lower(prefix, prefix.with_name("lowered"), form="fast", force=True),
}


@pytest.mark.parametrize("work", WORK)
def test_each_layer_of_a_graph_costs_as_much_work_as_the_layers_before(tmp_path: Path, work: str) -> None:
    shape: dict[str, Any] = {"units": 4, "hidden_size": 4, "num_heads": 1, "vocab_size": 5, "max_length": 4}
    counts = []
    for layers in (1, 1, 3, 5):  # the first time counts what is done once
        prefix, config = tmp_path / str(layers), BertConfig(num_layers=layers, **shape)
        graph = output_symbol(config, "cls", Form("portable", erf=False))
        Path(f"{prefix}-symbol.json").write_text(graph.tojson())
        with open(f"{prefix}-0000.params", "wb") as file:
            write_params(file, {name: np.zeros(size, np.float32) for name, size in EncoderSpec(config).shapes.items()})
        with using_engine("onnxruntime"), without_verification():
            counts.append(operations(WORK[work], prefix))
    _, one, three, five = counts
    assert five - three < 1.05 * (three - one)


@pytest.mark.parametrize("count", [60, sys.getrecursionlimit() + 200])
def test_a_sum_of_too_many_embeddings_is_refused(cli: Cli, tmp_path: Path, count: int) -> None:
    """Of each with itself: there are more ways through 60 of them than anybody can follow."""

    def change(graph: SymbolGraph) -> None:
        norm = graph.node("bertencoder0_layernorm0_fwd")
        with graph.edit():
            entry = norm.inputs[0]
            for i in range(count):
                entry = Output(graph.add("elemwise_add", f"sum{i}", [entry, entry]))
            graph.set_inputs(norm, [entry, *norm.inputs[1:]])

    prefix = checkpoint(tmp_path / "m", change)
    assert cli("inspect", prefix).code == 0
    message = refusal(cli("lower", prefix, tmp_path / "out"))
    assert "the sum of embeddings may only have token, segment and position embeddings" in message


@pytest.mark.parametrize("value", ["inf", "-inf", "nan", "1e400"])
@pytest.mark.parametrize("op", ["take", "pick"])
def test_an_index_that_is_not_a_number_is_not_followed(cli: Cli, tmp_path: Path, op: str, value: str) -> None:
    graph = some_graph("sequence")
    index = graph.add("_full", "index", [], {"shape": "(1,)", "value": value})
    graph.set_outputs([graph.add(op, "chosen", [graph.node("sequence"), index], {"axis": "1"})])
    (tmp_path / "m-symbol.json").write_text(graph.to_json())
    assert (
        "`chosen`: computed from the encoder's output in a way that is not analysed"
        in cli("inspect", tmp_path / "m").out
    )


def test_a_constant_is_followed_for_a_few_steps_only() -> None:
    nodes = chain(5000, op="identity")
    nodes["nodes"][0] = {"op": "_zeros", "name": "x", "attrs": {"shape": "(1,)"}, "inputs": []}
    graph = SymbolGraph.parse(json.dumps(nodes))
    assert find_constant(graph.output("n4999")) is None
    found = find_constant(graph.output(f"n{constants.MAX_STEPS - 2}"))
    assert found is not None
    assert found.value == 0
