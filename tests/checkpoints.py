"""Symbols that bertsym did not write, and what mxnet alone computes from files."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from bertsym.array import Array
from bertsym.mxnet_runtime import mx

SYMBOLS = Path(__file__).parent / "symbols"
IMAGES = "data=2,1,6,6"


def texts(length: int = 9, vocabulary: int = 50) -> dict[str, Array]:
    """Three texts of other lengths as the inputs of a BERT."""
    rng = np.random.default_rng(7)
    ids = rng.integers(vocabulary, size=(3, length)).astype(np.float32)
    types = rng.integers(2, size=(3, length)).astype(np.float32)
    return {"data0": ids, "data1": types, "data2": np.array([length, 1, length // 2], np.float32)}


def gluonnlp_checkpoint(folder: Path, name: str, version: str = "0.10.0") -> Path:
    """PREFIX of a symbol that GluonNLP exported, with its weights beside it."""
    folder.mkdir(parents=True, exist_ok=True)
    shutil.copy(SYMBOLS / f"gluonnlp-{version}" / f"{name}-symbol.json", folder)
    shutil.copy(SYMBOLS / f"gluonnlp-{version}" / "weights-0000.params", folder / f"{name}-0000.params")
    return folder / name


def conv_checkpoint(folder: Path) -> Path:
    """PREFIX of a small net with auxiliary states and a label, of the epochs 3 and 12, as Module.fit leaves it."""
    net = mx.sym.Convolution(mx.sym.var("data"), kernel=(3, 3), num_filter=4, name="conv0")
    net = mx.sym.Activation(mx.sym.BatchNorm(net, name="bn0"), act_type="relu", name="relu0")
    net = mx.sym.Flatten(mx.sym.Dropout(net, p=0.5, name="drop0"), name="flat")
    net = mx.sym.SoftmaxOutput(mx.sym.FullyConnected(net, num_hidden=3, name="fc"), name="softmax")
    shapes, _, states = net.infer_shape(data=(2, 1, 6, 6))
    rng = np.random.default_rng(1)
    for epoch in (3, 12):
        arguments = dict(zip(net.list_arguments(), shapes))
        params = {
            name: mx.nd.array(rng.normal(0, 0.2, shape))
            for name, shape in arguments.items()
            if name not in ("data", "softmax_label")
        }
        auxiliary = {
            name: mx.nd.array(rng.uniform(0.5, 2, shape)) for name, shape in zip(net.list_auxiliary_states(), states)
        }
        mx.model.save_checkpoint(str(folder / "net"), epoch, net, params, auxiliary)
    return folder / "net"


def split_checkpoint(folder: Path) -> Path:
    """PREFIX of a symbol with two outputs, both of one operator: x @ W + b in three columns, the last and the first."""
    columns = mx.sym.SliceChannel(
        mx.sym.FullyConnected(mx.sym.var("x"), num_hidden=3, name="fc"), num_outputs=3, name="cut"
    )
    params = {"fc_weight": mx.nd.array(np.arange(12).reshape(3, 4)), "fc_bias": mx.nd.array([1, 2, 3])}
    mx.model.save_checkpoint(str(folder / "two"), 0, mx.sym.Group([columns[2], columns[0]]), params, {})
    return folder / "two"


def computed(prefix: Path, inputs: Mapping[str, Array], output: str | None = None, epoch: int = 0) -> list[Array]:
    """What mxnet alone computes from a checkpoint's files: its outputs, or the internal `output` as mxnet lists it."""
    symbol, arguments, auxiliary = mx.model.load_checkpoint(str(prefix), epoch)
    if output is not None:
        symbol = symbol.get_internals()[output]
    return bound(symbol, {**arguments, **auxiliary}, inputs)


def bound(symbol: Any, params: Mapping[str, Any], inputs: Mapping[str, Array]) -> list[Array]:
    arrays = {**params, **{name: mx.nd.array(array) for name, array in inputs.items()}}
    names = symbol.list_arguments()
    shapes, _, _ = symbol.infer_shape(**{name: arrays[name].shape for name in names if name in arrays})
    executor = symbol.bind(
        mx.cpu(),
        {name: arrays.get(name, mx.nd.zeros(shape)) for name, shape in zip(names, shapes)},
        grad_req="null",
        aux_states={name: arrays[name] for name in symbol.list_auxiliary_states()},
    )
    return [output.asnumpy() for output in executor.forward(is_train=False)]


def array_names(prefix: Path) -> set[str]:
    """The names in PREFIX-0000.params, with ``arg:`` and ``aux:``."""
    return set(mx.nd.load(f"{prefix}-0000.params"))


def bundle_bytes(prefix: Path) -> dict[str, bytes]:
    """The files of a bundle by the end of their names; their digests are those of the manifest."""
    files = {path.name[len(prefix.name) :]: path.read_bytes() for path in prefix.parent.glob(f"{prefix.name}-*")}
    listed = json.loads(files["-manifest.json"])["files"]
    assert {f"-{name}" for name in listed} == set(files) - {"-manifest.json"}
    for name, entry in listed.items():
        assert hashlib.sha256(files[f"-{name}"]).hexdigest() == entry["sha256"]
    return files
