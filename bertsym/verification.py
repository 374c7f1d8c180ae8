"""Does what was written compute what was meant: the bundle against GluonNLP's own BERTModel."""

from __future__ import annotations

import ctypes
import functools
import gc
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from bertsym.bert.catalogue import FINISHED_HEADS, FULLY_CONNECTED, LABEL_NAME
from bertsym.bert.config import BertConfig
from bertsym.bert.folding import unfolded
from bertsym.bert.inputs import INPUT_NAMES, check_inputs, input_shapes
from bertsym.bert.parameters import POOLER, parameter_shapes
from bertsym.bundle import PARAMS, SYMBOL, TRAIN_SYMBOL, Bundle
from bertsym.errors import ModelError, UsageError, VerificationError
from bertsym.runtime import mx, mxnet_errors, nlp, quiet_stderr, without_fusion
from bertsym.signature import Signature
from bertsym.symbol.params import Array

DEFAULT_ATOL = 1e-5  #: largest difference allowed, relative to the output's scale

_MMAP_THRESHOLD = -3  # of malloc.h

_Inputs = tuple[Array, Array, Array]
_Forward = Callable[[_Inputs], Array]


@dataclass(frozen=True)
class Check:
    """One forward of the written files compared with the reference."""

    loader: str
    output: str
    shape: tuple[int, ...]
    length: int
    max_difference: float
    scale: float  #: largest absolute value of the reference, of all forwards: a single one may be next to zero

    @property
    def relative_difference(self) -> float:
        """The largest difference as a part of the output's scale."""
        return self.max_difference / self.scale

    def __str__(self) -> str:
        return (
            f"{self.loader:<12} {self.output} {self.shape!s:<14} length {self.length:<3} "
            f"max difference {self.max_difference:.1e} ({self.relative_difference:.1e} of scale {self.scale:.3g})"
        )


class Reference:
    """GluonNLP's BERTModel with given weights, and numpy for what stands on top of it."""

    def __init__(self, config: BertConfig, arg_params: Mapping[str, Array]) -> None:
        self._arg_params = arg_params
        self._has_pooler = all(name in arg_params for name in POOLER)
        encoder = nlp.model.BERTEncoder(
            num_layers=config.num_layers,
            units=config.units,
            hidden_size=config.hidden_size,
            max_length=config.max_length,
            num_heads=config.num_heads,
            layer_norm_eps=config.layer_norm_eps,
            prefix="bertencoder0_",
        )
        self._net = nlp.model.BERTModel(
            encoder,
            vocab_size=config.vocab_size,
            token_type_vocab_size=config.token_type_vocab_size,
            units=config.units,
            embed_size=config.units,
            use_pooler=self._has_pooler,
            use_decoder=False,
            use_classifier=False,
            prefix="bertmodel0_",
        )
        parameters = self._net.collect_params()
        parameters.setattr("grad_req", "null")
        self._net.initialize(mx.init.Zero())
        expected = parameter_shapes(config, self._has_pooler)
        if set(parameters) != set(expected):
            raise ModelError(f"GluonNLP's BERTModel names its weights differently: {set(parameters) ^ set(expected)}")
        for name in expected:
            parameters[name].set_data(mx.nd.array(arg_params[name]))

    def output(self, signature: Signature, inputs: _Inputs) -> Any:
        """What a bundle with this signature must answer to these inputs."""
        valid_length = inputs[2]
        answer = self._net(*(mx.nd.array(array) for array in inputs))
        sequence, pooled = answer if self._has_pooler else (answer, None)
        sequence = sequence.asnumpy()
        if signature.output == "pooled":
            assert pooled is not None
            encoded = pooled.asnumpy()
        elif signature.output == "cls":
            encoded = sequence[:, 0]
        elif signature.output == "mean":
            encoded = np.stack([row[: int(n)].mean(axis=0) for row, n in zip(sequence, valid_length)])
        else:
            encoded = sequence
        if signature.kind == "encoder":
            return encoded
        if signature.kind == "logits":
            return self._dense(encoded, FINISHED_HEADS[str(signature.task)][1])
        logits = self._dense(encoded.reshape(len(encoded), -1), FULLY_CONNECTED)
        exponentials = np.exp(logits - logits.max(axis=-1, keepdims=True))
        return exponentials / exponentials.sum(axis=-1, keepdims=True)

    def _dense(self, x: Any, name: str) -> Any:
        return x @ self._arg_params[f"{name}_weight"].T + self._arg_params[f"{name}_bias"]


def verify(prefix: str | Path, *, atol: float = DEFAULT_ATOL) -> list[Check]:
    """Check a bundle's digests, load it through Module and SymbolBlock, and compare the outputs.

    As `verify_bundle` with the bundle's own parameters, at lengths that `export` did not try. Raises
    ModelError for files that are not as they were written, otherwise what `verify_bundle` raises.
    """
    bundle = Bundle.open(prefix)
    if bundle.signature.precision != "float32":
        raise ModelError(
            f"{prefix}: is {bundle.signature.precision}, which is not what GluonNLP's BERTModel computes; "
            "bertsym evaluate tells how good it is"
        )
    return verify_bundle(bundle, unfolded(bundle.params(), bundle.config), atol, (23, 48), str(prefix))


def verify_bundle(
    bundle: Bundle, arg_params: Mapping[str, Array], atol: float, lengths: tuple[int, int], name: str
) -> list[Check]:
    """Compare what the files of `bundle` compute with GluonNLP's BERTModel carrying `arg_params`.

    Through Module and SymbolBlock, and through the training symbol where there is one; two batch sizes, two
    `lengths`, rows padded differently. `atol` is relative to the output's scale; `name` stands in messages.

    Returns the comparisons. Raises VerificationError for an output that differs by more, ModelError when
    MXNet can't run the graph, UsageError for an `atol` that is no tolerance.
    """
    if not 0 < atol < np.inf:
        raise UsageError(f"atol is {atol}, a number above 0 is needed")
    with mxnet_errors(name):
        checks = _run_checks(bundle, lengths, arg_params)
    for check in checks:
        # Written so that NaN fails too.
        if not check.relative_difference <= atol:
            raise VerificationError(f"{name}: differs from GluonNLP's BERTModel by more than {atol:g}: {check}")
    return checks


def _run_checks(bundle: Bundle, lengths: tuple[int, int], arg_params: Mapping[str, Array]) -> list[Check]:
    _keep_freed_blocks(1 << 20)
    try:
        return _compared(bundle, lengths, arg_params)
    finally:
        _keep_freed_blocks(32 << 20)  # where glibc's own growing limit ends


def _compared(bundle: Bundle, lengths: tuple[int, int], arg_params: Mapping[str, Array]) -> list[Check]:
    config, signature = bundle.config, bundle.signature
    reference = Reference(config, arg_params)
    cases = []
    for length in sorted({signature.length or min(length, config.max_length) for length in lengths}):
        for batch_size in (1, 3):
            inputs = _sample_inputs(config, batch_size, length)
            cases.append((length, inputs, reference.output(signature, inputs)))
    scale = max(float(np.abs(expected).max()) for _, _, expected in cases) or 1.0
    del reference
    gc.collect()  # no more than one copy of a large model at a time, here and with the loaders
    _check_params(bundle)
    checks = []
    for loader, load in _LOADERS.items():
        if loader != "train symbol" or TRAIN_SYMBOL in bundle.manifest["files"]:
            with quiet_stderr():
                forward = load(bundle)
            checks += [
                _compare(loader, signature, length, forward(x), expected, scale) for length, x, expected in cases
            ]
            del forward
            gc.collect()
    return checks


def _keep_freed_blocks(size: int) -> None:
    """Let the C library keep what is freed for the next one up to this size only, and give larger blocks back."""
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)  # of glibc
    if mallopt:
        mallopt(_MMAP_THRESHOLD, size)


def _check_params(bundle: Bundle) -> None:
    """Raise VerificationError unless MXNet's own reader finds what was written."""
    arrays = mx.nd.load(str(bundle.path(PARAMS)))
    params = bundle.params()
    if set(arrays) != {f"arg:{name}" for name in params}:
        raise VerificationError(f"{bundle.path(PARAMS)}: MXNet reads other names than were written")
    # The small ones first: what is left when the largest is copied is little.
    for name in sorted(params, key=lambda name: params.infos[name].nbytes):
        if not np.array_equal(arrays.pop(f"arg:{name}").asnumpy(), params[name]):
            raise VerificationError(f"{bundle.path(PARAMS)}: MXNet reads {name} otherwise than it was written")


def _sample_inputs(config: BertConfig, batch_size: int, length: int) -> _Inputs:
    rng = np.random.default_rng((batch_size, length))
    token_ids = rng.integers(config.vocab_size, size=(batch_size, length))
    token_types = rng.integers(config.token_type_vocab_size, size=(batch_size, length))
    # A full row, one with a single token where there are more rows, and one between them.
    valid_length = np.array([length, 1, (length + 1) // 2])[:batch_size]
    check_inputs(token_ids, token_types, valid_length, config)
    return token_ids.astype(np.float32), token_types.astype(np.float32), valid_length.astype(np.float32)


def _load_module(bundle: Bundle) -> _Forward:
    symbol = mx.sym.load(str(bundle.path(SYMBOL)))
    module = mx.mod.Module(symbol, data_names=INPUT_NAMES, label_names=None)
    with without_fusion():  # where it is fused, MXNet keeps its weights a second time
        module.bind(input_shapes(1, bundle.signature.length or 1), for_training=False)
    return _with_params(module, bundle)


def _load_train_symbol(bundle: Bundle) -> _Forward:
    symbol = mx.sym.load(str(bundle.path(TRAIN_SYMBOL)))
    module = mx.mod.Module(symbol, data_names=INPUT_NAMES, label_names=(LABEL_NAME,))
    with without_fusion():
        module.bind(input_shapes(1, bundle.signature.length or 1), [(LABEL_NAME, (1,))], for_training=False)
    return _with_params(module, bundle)


def _with_params(module: Any, bundle: Bundle) -> _Forward:
    """The module's forward, its parameters written into place: set_params would hold them three times."""
    params = bundle.params()
    for name, copies in zip(module._param_names, module._exec_group.param_arrays):
        copies[0][:] = mx.nd.array(params[name])
        copies[0].wait_to_read()
    module.params_initialized = True
    return functools.partial(_module_forward, module)


def _module_forward(module: Any, inputs: _Inputs) -> Array:
    arrays = [mx.nd.array(array) for array in inputs]
    labels = [mx.nd.zeros_like(arrays[2])] if module.label_names else None
    module.forward(mx.io.DataBatch(arrays, labels), is_train=False)
    return np.asarray(module.get_outputs()[0].asnumpy())


def _load_symbol_block(bundle: Bundle) -> _Forward:
    params = bundle.params()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # "Cannot decide type", which the parameters then decide
        block = mx.gluon.SymbolBlock.imports(str(bundle.path(SYMBOL)), list(INPUT_NAMES), ctx=mx.cpu())
    block.collect_params().setattr("grad_req", "null")
    for name, parameter in block.collect_params().items():
        parameter.shape = params.shapes[name]
        parameter.initialize(mx.init.Zero(), ctx=mx.cpu())
        parameter.set_data(mx.nd.array(params[name]))
        parameter.data().wait_to_read()
    return lambda inputs: np.asarray(block(*(mx.nd.array(array) for array in inputs)).asnumpy())


_LOADERS: dict[str, Callable[[Bundle], _Forward]] = {
    "Module": _load_module,
    "SymbolBlock": _load_symbol_block,
    "train symbol": _load_train_symbol,
}


def _compare(loader: str, signature: Signature, length: int, output: Array, expected: Array, scale: float) -> Check:
    if output.shape != expected.shape:
        raise VerificationError(f"{loader}: {signature.output_name} has shape {output.shape}, not {expected.shape}")
    difference: Any = np.abs(output.astype(np.float64) - expected).max()
    return Check(loader, signature.output_name, output.shape, length, float(difference), scale)
