"""Load a checkpoint as its users do, through Module, SymbolBlock and the C predict API, and run it.

Parameters are copied one by one, because `Module.set_params` and `SymbolBlock.imports` hold a model three times.
`check_params` replaces their look-ups: of every name, with the kind that MXNet itself finds in the graph.
"""

from __future__ import annotations

import ctypes
import functools
import mmap
import warnings
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from bertsym.array import Array
from bertsym.errors import BertsymError, ModelError, VerificationError
from bertsym.execution.engines import Forward, Shape
from bertsym.mxnet_runtime import mx, mxnet_errors, quiet_stderr, without_fusion
from bertsym.symbol.params import ParamsFile

#: largest file that MXPredCreate takes: its size is an int
MAX_C_PREDICT = (1 << 31) - 1


def check_params(symbol: str, where: str, others: Collection[str], params: ParamsFile) -> None:
    """Raise VerificationError unless MXNet finds in the file what the symbol asks for, and each array as we read it.

    That is an argument as ``arg:NAME``, apart from the inputs and labels `others`, and an auxiliary state as
    ``aux:NAME``.
    """
    with mxnet_errors(where), quiet_stderr():
        loaded = load_symbol(symbol)
        with params.at_path() as path:
            arrays = mx.nd.load(str(path))
    expected = {f"arg:{name}" for name in loaded.list_arguments() if name not in others}
    expected |= {f"aux:{name}" for name in loaded.list_auxiliary_states()}
    missing, extra = sorted(expected - set(arrays)), sorted(set(arrays) - expected)
    if missing or extra:
        found = f"MXNet needs {', '.join(missing[:5]) or 'no more'}, the file has {', '.join(extra[:5]) or 'none'}"
        raise VerificationError(f"{where}: {found}")
    # The small ones first: little is left when the largest is copied.
    for name in sorted(arrays, key=lambda name: params.infos[name[4:]].nbytes):
        if not _are_equal(arrays.pop(name).asnumpy(), params[name[4:]]):
            raise VerificationError(f"{where}: MXNet reads {name} with other elements than bertsym")


def _are_equal(one: Array, other: Array) -> bool:
    """Whether two arrays are the same to the last bit."""
    if one.dtype != other.dtype or one.shape != other.shape:
        return False
    bits = f"u{one.dtype.itemsize}"
    return np.array_equal(one.reshape(-1).view(bits), other.reshape(-1).view(bits))


def load_module(
    symbol: str, params: Mapping[str, Array], inputs: Mapping[str, Array], labels: Collection[str]
) -> Forward:
    """A Module for inference, bound to the shapes of sample `inputs`, which may change; `labels` are fed zeros."""
    loaded = load_symbol(symbol)
    samples = _with_labels(loaded, inputs, labels)
    module = mx.mod.Module(loaded, data_names=list(inputs), label_names=list(labels) or None)
    described = {name: mx.io.DataDesc(name, array.shape, array.dtype) for name, array in samples.items()}
    # Set before the binding, as by Module.load: otherwise Module.bind (1.9.1) makes another array for each parameter.
    module._arg_params, module._aux_params = (
        _Copies(names, params) for names in (module._param_names, module._aux_names)
    )
    module.params_initialized = True
    with without_fusion():  # a fused layer holds its weights a second time
        module.bind(
            [described[name] for name in inputs], [described[name] for name in labels] or None, for_training=False
        )

    def forward(inputs: Mapping[str, Array]) -> list[Array]:
        arrays = {name: to_mxnet(array) for name, array in _with_labels(loaded, inputs, labels).items()}
        batch = mx.io.DataBatch([arrays[name] for name in inputs], [arrays[name] for name in labels] or None)
        module.forward(batch, is_train=False)
        return [np.asarray(output.asnumpy()) for output in module.get_outputs()]

    return forward


class _Copies(Mapping[str, Any]):
    """Parameters as MXNet arrays, of which one exists at a time."""

    def __init__(self, names: Sequence[str], params: Mapping[str, Array]) -> None:
        self._names, self._params = names, params

    def __getitem__(self, name: str) -> Any:
        mx.nd.waitall()  # until the array before was copied to the executor
        return to_mxnet(self._params[name])

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)


def load_symbol_block(
    symbol: str, params: Mapping[str, Array], inputs: Mapping[str, Array], labels: Collection[str]
) -> Forward:
    """A SymbolBlock, as `SymbolBlock.imports` makes it; `labels` are inputs that are fed zeros."""
    loaded = load_symbol(symbol)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # "Cannot decide type", which the parameters then decide
        block = mx.gluon.SymbolBlock(loaded, [mx.sym.var(name) for name in (*inputs, *labels)])
    block.collect_params().setattr("grad_req", "null")
    for name, parameter in block.collect_params().items():
        parameter.shape, parameter.dtype = params[name].shape, params[name].dtype
        # As `imports` does; set_data would need an initialised parameter, and copy twice.
        parameter._load_init(to_mxnet(params[name]), mx.cpu())
        parameter.data().wait_to_read()

    def forward(inputs: Mapping[str, Array]) -> list[Array]:
        found = block(*map(to_mxnet, _with_labels(loaded, inputs, labels).values()))
        return [np.asarray(output.asnumpy()) for output in (found if isinstance(found, list) else [found])]

    return forward


def load_c_predictor(symbol: str, params: ParamsFile, inputs: Mapping[str, Array], labels: Collection[str]) -> Forward:
    """The C predict API, as programs in other languages call it; inputs, parameters and outputs are float32."""
    loaded = load_symbol(symbol)

    def forward(inputs: Mapping[str, Array]) -> list[Array]:
        arrays = _with_labels(loaded, inputs, labels)
        with params.at_path() as path, open(path, "rb") as file:
            content = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY)
        with content:
            predictor = _create_predictor(symbol, content, {name: array.shape for name, array in arrays.items()})
        try:
            for name, array in arrays.items():
                _call("MXPredSetInput", predictor, name.encode(), *_floats(np.ascontiguousarray(array, np.float32)))
            _call("MXPredForward", predictor)
            return [_output(predictor, place) for place in range(len(loaded.list_outputs()))]
        finally:
            _call("MXPredFree", predictor)
            mx.nd.waitall()  # else the process may crash when it ends

    return forward


@functools.lru_cache(maxsize=4)  # a command infers shapes of a graph, and loads it in several ways
def load_symbol(symbol: str) -> Any:
    """The Symbol of a graph's JSON, which must not be changed; raises MXNet's errors."""
    load = mx.sym.load_json  # imports mxnet, whose errors are not to be silenced
    with quiet_stderr():
        return load(symbol)


def to_mxnet(array: Array) -> Any:
    """Copy an array to MXNet's memory on the CPU, with its dtype."""
    if not array.size or not array.shape:
        return mx.nd.array(array, mx.cpu(), array.dtype)
    copy = mx.nd.empty(array.shape, mx.cpu(), array.dtype)
    # Not by _sync_copyfrom, which waits for a thread of MXNet's engine, nor by mx.nd.array, which assigns to array[:].
    content, pointer = np.ascontiguousarray(array, copy.dtype), ctypes.c_void_p()
    mx.base.check_call(mx.base._LIB.MXNDArrayGetData(copy.handle, ctypes.byref(pointer)))
    ctypes.memmove(pointer, content.ctypes.data, content.nbytes)
    return copy


def _with_labels(symbol: Any, inputs: Mapping[str, Array], labels: Collection[str]) -> dict[str, Array]:
    """The inputs, and zeros for labels, whose shapes MXNet infers from those of the inputs."""
    if not labels:
        return dict(inputs)
    shapes, _, _ = symbol.infer_shape(**{name: array.shape for name, array in inputs.items()})
    by_name = dict(zip(symbol.list_arguments(), shapes))
    return {**inputs, **{name: np.zeros(by_name[name], np.float32) for name in labels}}


def _create_predictor(symbol: str, content: mmap.mmap, shapes: Mapping[str, Shape]) -> ctypes.c_void_p:
    ends = np.cumsum([0, *map(len, shapes.values())])
    sizes = [size for shape in shapes.values() for size in shape]
    predictor = ctypes.c_void_p()
    buffer = (ctypes.c_char * len(content)).from_buffer(content)
    try:
        with without_fusion():
            _call(
                "MXPredCreate",
                symbol.encode(),
                buffer,
                ctypes.c_int(len(content)),
                ctypes.c_int(1),  # CPU
                ctypes.c_int(0),
                ctypes.c_uint(len(shapes)),
                (ctypes.c_char_p * len(shapes))(*(name.encode() for name in shapes)),
                (ctypes.c_uint * len(ends))(*map(int, ends)),
                (ctypes.c_uint * len(sizes))(*sizes),
                ctypes.byref(predictor),
            )
    finally:
        del buffer  # or the file can't be unmapped
    return predictor


def _output(predictor: ctypes.c_void_p, place: int) -> Array:
    shape, ndim = ctypes.POINTER(ctypes.c_uint)(), ctypes.c_uint()
    _call("MXPredGetOutputShape", predictor, ctypes.c_uint(place), ctypes.byref(shape), ctypes.byref(ndim))
    output = np.empty([shape[i] for i in range(ndim.value)], np.float32)
    _call("MXPredGetOutput", predictor, ctypes.c_uint(place), *_floats(output))
    return output


def _floats(array: Array) -> tuple[Any, ctypes.c_uint]:
    return array.ctypes.data_as(ctypes.POINTER(ctypes.c_float)), ctypes.c_uint(array.size)


def _call(function: str, *arguments: Any) -> None:
    mx.base.check_call(getattr(mx.base._LIB, function)(*arguments))


LOADERS: dict[str, Callable[[str, ParamsFile, Mapping[str, Array], Collection[str]], Forward]] = {
    "Module": load_module,
    "SymbolBlock": load_symbol_block,
    "C predict API": load_c_predictor,
}


def compute_loaded(
    symbol: str, where: str, loader: str, labels: Sequence[str], params: ParamsFile, inputs: Mapping[str, Array]
) -> list[Array]:
    """What a key of LOADERS computes of a checkpoint; raises ModelError when it can't load or run it."""
    try:
        with mxnet_errors(f"{where}: {loader}"), quiet_stderr():
            return LOADERS[loader](symbol, params, inputs, labels)(inputs)
    except (BertsymError, MemoryError):
        raise
    except Exception as error:  # Module and SymbolBlock raise any kind
        reason = next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
        raise ModelError(f"{where}: {loader} can't load it: {reason}") from None
