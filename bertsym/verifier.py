"""Does what was written compute what was meant: the bundle against GluonNLP's own BERTModel."""

from __future__ import annotations

import ctypes
import gc
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from bertsym.bundle import TRAIN_SYMBOL, Bundle
from bertsym.encoders.catalogue import FINISHED_HEADS, FULLY_CONNECTED, LABEL_NAME
from bertsym.encoders.config import BertConfig
from bertsym.encoders.folding import unfold_parameters
from bertsym.encoders.inputs import INPUT_NAMES, check_inputs
from bertsym.encoders.parameters import POOLER, parameter_shapes
from bertsym.errors import ModelError, UsageError, VerificationError
from bertsym.execution.loaders import Forward, check_params, load_module, load_symbol_block
from bertsym.runtime import mx, mxnet_errors, nlp, quiet_stderr
from bertsym.signature import Signature
from bertsym.symbol.params import Array

DEFAULT_RTOL = 1e-5  #: largest difference allowed, relative to the output's scale

_MMAP_THRESHOLD = -3  # of malloc.h


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

    def output(self, signature: Signature, inputs: Mapping[str, Array]) -> Any:
        """What a bundle with this signature must answer to these inputs."""
        token_ids, token_types, valid_length = (inputs[name] for name in INPUT_NAMES)
        answer = self._net(*map(mx.nd.array, (token_ids, token_types, valid_length)))
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


def verify(prefix: str | Path, *, rtol: float = DEFAULT_RTOL) -> list[Check]:
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
    return verify_bundle(bundle, unfold_parameters(bundle.params(), bundle.config), rtol, (23, 48), str(prefix))


def verify_bundle(
    bundle: Bundle, arg_params: Mapping[str, Array], rtol: float, lengths: tuple[int, int], name: str
) -> list[Check]:
    """Compare what the files of `bundle` compute with GluonNLP's BERTModel carrying `arg_params`.

    Through Module and SymbolBlock, and through the training symbol where there is one; two batch sizes, two
    `lengths`, rows padded differently. `rtol` is relative to the output's scale; `name` stands in messages.

    Returns the comparisons. Raises VerificationError for an output that differs by more, ModelError when
    MXNet can't run the graph, UsageError for an `rtol` that is no tolerance.
    """
    if not 0 < rtol < np.inf:
        raise UsageError(f"rtol is {rtol}, a number above 0 is needed")
    with mxnet_errors(name):
        checks = _run_checks(bundle, lengths, arg_params)
    for check in checks:
        # Written so that NaN fails too.
        if not check.relative_difference <= rtol:
            raise VerificationError(f"{name}: differs from GluonNLP's BERTModel by more than {rtol:g}: {check}")
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
    symbol = bundle.graph().to_json()
    check_params(symbol, str(bundle.prefix), INPUT_NAMES, bundle.params())
    checks = []
    for name, symbol, load, labels in _loadings(bundle):
        with quiet_stderr():
            forward = load(symbol, bundle.params(), cases[0][1], labels)
        checks += [
            _compare(name, signature, length, forward(inputs)[0], expected, scale) for length, inputs, expected in cases
        ]
        del forward
        gc.collect()
    return checks


def _loadings(bundle: Bundle) -> Iterator[tuple[str, str, Callable[..., Forward], tuple[str, ...]]]:
    """What a bundle is loaded through: name, symbol, loader and labels."""
    symbol = bundle.graph().to_json()
    yield "Module", symbol, load_module, ()
    yield "SymbolBlock", symbol, load_symbol_block, ()
    if bundle.has(TRAIN_SYMBOL):
        yield "train symbol", bundle.graph(TRAIN_SYMBOL).to_json(), load_module, (LABEL_NAME,)


def _keep_freed_blocks(size: int) -> None:
    """Let the C library keep what is freed for the next one up to this size only, and give larger blocks back."""
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)  # of glibc
    if mallopt:
        mallopt(_MMAP_THRESHOLD, size)


def _sample_inputs(config: BertConfig, batch_size: int, length: int) -> dict[str, Array]:
    rng = np.random.default_rng((batch_size, length))
    token_ids = rng.integers(config.vocab_size, size=(batch_size, length))
    token_types = rng.integers(config.token_type_vocab_size, size=(batch_size, length))
    # A full row, one with a single token where there are more rows, and one between them.
    valid_length = np.array([length, 1, (length + 1) // 2])[:batch_size]
    check_inputs(token_ids, token_types, valid_length, config)
    arrays = (token_ids, token_types, valid_length)
    return {name: array.astype(np.float32) for name, array in zip(INPUT_NAMES, arrays)}


def _compare(loader: str, signature: Signature, length: int, output: Array, expected: Array, scale: float) -> Check:
    if output.shape != expected.shape:
        raise VerificationError(f"{loader}: {signature.output_name} has shape {output.shape}, not {expected.shape}")
    difference: Any = np.abs(output.astype(np.float64) - expected).max()
    return Check(loader, signature.output_name, output.shape, length, float(difference), scale)
