"""BERTs as another program would have left them: plain files of a graph and random weights, no bundle."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np

from bertsym import BertConfig, output_symbol
from bertsym.analysis.encoder_detection import declared_shapes
from bertsym.array import Array
from bertsym.encoders.forms import Form
from bertsym.encoders.parameters import parameter_shapes
from bertsym.mxnet_runtime import mx
from bertsym.symbol.graph import SymbolGraph

#: As many words as real ones have, so that random ids hardly ever hold a certain one.
CONFIG = BertConfig(num_layers=2, units=8, hidden_size=12, num_heads=2, vocab_size=30522, max_length=20)
Change = Callable[[SymbolGraph], None]


def some_graph(output: str = "cls", form: str = "portable", config: BertConfig = CONFIG) -> SymbolGraph:
    """With gelu as one operator, which is easily replaced."""
    return SymbolGraph.parse(output_symbol(config, output, Form(form, erf=False)).tojson())


def random_weight(name: str, shape: tuple[int, ...]) -> Array:
    rng = np.random.default_rng(zlib.crc32(name.encode()))
    values: Array = rng.normal(1 if name.endswith("gamma") else 0, 0.3, shape)
    return values.astype(np.float32)


def save(prefix: Path, graph: SymbolGraph, params: Mapping[str, Array]) -> Path:
    """Write what a program without bertsym writes: a symbol file and arrays."""
    prefix.parent.mkdir(parents=True, exist_ok=True)
    Path(f"{prefix}-symbol.json").write_text(graph.to_json())
    arrays = {f"arg:{name}": mx.nd.array(array, dtype=array.dtype) for name, array in params.items()}
    mx.nd.save(f"{prefix}-0000.params", arrays)
    return prefix


def checkpoint(
    prefix: Path, change: Change = lambda graph: None, *, graph: SymbolGraph | None = None, config: BertConfig = CONFIG
) -> Path:
    """PREFIX of a BERT, by default that of [CLS], after an edit of its graph; with exactly its parameters."""
    graph = graph if graph is not None else some_graph(config=config)
    change(graph)
    graph.cleanup()
    shapes = {**parameter_shapes(config), **declared_shapes(graph)}
    params = {name: random_weight(name, shapes[name]) for name in graph.variables if name in shapes}
    return save(prefix, graph, params)
