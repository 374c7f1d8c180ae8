"""Time work on a graph of a given size, in processor time: a BERT of up to 250 layers, then a chain of dense layers.

All is computed in this process, without the sandbox, so that the time of MXNet counts too.
"""

from __future__ import annotations

import json
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from job import read_job, write_result

import bertsym
from bertsym import BertConfig, SymbolGraph
from bertsym.analysis.encoder_detection import require_encoder
from bertsym.encoders.graph import encoder_graph
from bertsym.encoders.spec import EncoderSpec
from bertsym.execution.engines import without_verification
from bertsym.mxnet_runtime import mx
from bertsym.symbol.params import write_params

_UNITS, _LAYER_NODES, _MOST_LAYERS = 12, 53, 250
_ACTIVATIONS = 28  # after each dense layer; a parameter file has at most 16,384 arrays


def main() -> None:
    nodes = read_job()["nodes"]
    layers = max(1, min(_MOST_LAYERS, nodes // _LAYER_NODES))
    with tempfile.TemporaryDirectory() as folder, without_verification(), bertsym.trusting():
        prefix = write_model(Path(folder, "model"), layers, nodes)
        graph = SymbolGraph.load(f"{prefix}-symbol.json")
        work: dict[str, Callable[[], object]] = {
            "encoder detection": lambda: require_encoder(graph),
            "inspect": lambda: bertsym.inspect(prefix),
            "diff": lambda: bertsym.diff(prefix, prefix),
            "lower": lambda: bertsym.lower(prefix, Path(folder, "lowered"), form="fast", force=True),
            "extract": lambda: bertsym.extract(prefix, Path(folder, "extracted"), ["cls"], force=True),
        }
        bertsym.inspect(prefix)  # reads the tables of operators
        mx.nd.waitall()  # imports mxnet
        write_result(nodes=len(graph.nodes), **{name: processor_time(compute) for name, compute in work.items()})


def write_model(prefix: Path, layers: int, nodes: int) -> Path:
    """Write a checkpoint: [CLS] of a BERT, and as many dense layers after it as the number of nodes needs."""
    spec = EncoderSpec(BertConfig(layers, _UNITS, 2 * _UNITS, 2, 50))
    document = json.loads(encoder_graph(spec).to_json())
    del document["node_row_ptr"]
    found: list[dict[str, Any]] = document["nodes"]

    def add(op: str, name: str, inputs: list[int], **attrs: str) -> int:
        found.append({"op": op, "name": name, "attrs": attrs, "inputs": [[i, 0, 0] for i in inputs]})
        return len(found) - 1

    end = add("slice_axis", "first", [document["heads"][0][0]], axis="1", begin="0", end="1")
    end = add("Reshape", "cls", [end], shape=f"(-1, {_UNITS})")
    shapes = {spec.name(name): shape for name, shape in spec.shapes.items()}
    while len(found) < nodes:
        name = f"dense{len(found)}"
        shapes |= {f"{name}_weight": (_UNITS, _UNITS), f"{name}_bias": (_UNITS,)}
        weight, bias = add("null", f"{name}_weight", []), add("null", f"{name}_bias", [])
        end = add("FullyConnected", name, [end, weight, bias], num_hidden=str(_UNITS))
        for i in range(_ACTIVATIONS):
            end = add("Activation", f"{name}_relu{i}", [end], act_type="relu")
    document["heads"] = [[end, 0, 0]]
    document["arg_nodes"] = [i for i, node in enumerate(found) if node["op"] == "null"]
    prefix.with_name(f"{prefix.name}-symbol.json").write_text(json.dumps(document), encoding="utf-8")
    with open(f"{prefix}-0000.params", "wb") as file:
        write_params(file, {name: np.zeros(shape, np.float32) for name, shape in shapes.items()})
    return prefix


def processor_time(compute: Callable[[], object]) -> float:
    """Return the seconds of processor time, which depend little on other programs."""
    start = time.process_time()
    compute()
    return time.process_time() - start


if __name__ == "__main__":
    main()
