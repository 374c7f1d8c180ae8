"""Verify that the files of a bundle compute what the weights of its source mean."""

from __future__ import annotations

import ctypes
import dataclasses
import gc
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from bertsym.array import Array
from bertsym.bundle import TRAIN_SYMBOL, Bundle
from bertsym.compat.installing import installed_version
from bertsym.encoders.catalogue import FINISHED_HEADS, FULLY_CONNECTED, HEAD_TRANSFORM
from bertsym.encoders.config import BertConfig
from bertsym.encoders.folding import unfold_parameters
from bertsym.encoders.inputs import TOKEN_IDS, TOKEN_TYPES, VALID_LENGTH, check_inputs, named_inputs
from bertsym.encoders.sentence_embedding import EMBEDDING
from bertsym.errors import ModelError, UsageError, VerificationError
from bertsym.execution.engines import Forward, engine_name, load_engine
from bertsym.execution.loaders import check_params, load_module, load_symbol_block
from bertsym.gluonnlp_model import GluonNLPModel
from bertsym.mxnet_runtime import is_installed, mxnet_errors, quiet_stderr
from bertsym.reference import (
    HUGGING_FACE_HEADS,
    Checkpoint,
    Encodings,
    Inputs,
    Module,
    Readable,
    bundle_head,
    bundle_modules,
    embed,
    encoder_outputs,
    probabilities,
)
from bertsym.signature import Signature

DEFAULT_RTOL = 1e-5  #: largest difference allowed, relative to the output's scale
GLUONNLP = "GluonNLP"  #: `Check.loader` of the second reference

_MMAP_THRESHOLD = -3  # of malloc.h
_MAX_COPY = 16 << 20  # bytes of parameters, copies of which may wait for Python's own collections


@dataclass(frozen=True)
class Check:
    """One forward of the written files, or of GluonNLP's BERTModel, compared with the reference encoder."""

    loader: str  #: ``Module``, ``SymbolBlock``, ``train symbol``, or GLUONNLP
    output: str
    shape: tuple[int, ...]
    length: int
    max_difference: float
    scale: float  #: largest absolute value of the reference, of all forwards: a single one may be next to zero
    engine: str  #: library and version that computed it, such as ``mxnet 1.9.1``

    @property
    def relative_difference(self) -> float:
        """The largest difference as a fraction of the output's scale."""
        return self.max_difference / self.scale

    def __str__(self) -> str:
        return (
            f"{self.loader:<12} {self.output} {self.shape!s:<14} length {self.length:<3} "
            f"max difference {self.max_difference:.1e} ({self.relative_difference:.1e} of scale {self.scale:.3g})"
        )


def verification_record(checks: Sequence[Check], rtol: float) -> dict[str, Any] | None:
    """Return the comparisons for the manifest; None if there were none."""
    if not checks:
        return None
    loaders = list(dict.fromkeys(check.loader for check in checks))
    return {
        "engine": next(check.engine for check in checks if check.loader != GLUONNLP),
        "reference": "bertsym float64",
        "second_reference": next((f"{check.engine} BERTModel" for check in checks if check.loader == GLUONNLP), None),
        "loaders": [loader for loader in loaders if loader != GLUONNLP],
        "lengths": sorted({check.length for check in checks}),
        "rtol": rtol,
    }


def describe_verification(checks: Sequence[Check]) -> str:
    """Describe in one line what was compared with what, and by which engine."""
    record = verification_record(checks, DEFAULT_RTOL)
    if record is None:
        return "not verified"
    second = f" and {record['second_reference']}" if record["second_reference"] else ""
    loaders = ", ".join(record["loaders"])
    return f"verified by {record['engine']} ({loaders}) against the float64 reference encoder{second}"


def apply_head(
    encodings: Readable,
    bundle: Bundle,
    params: Mapping[str, Array],
    valid_length: Array,
    checkpoint: Checkpoint | None = None,
) -> Any:
    """What a bundle answers where its encoder gives `encodings` of texts with `valid_length` tokens, float64.

    The weights of its head are those of the `checkpoint`, where it has a head or modules of sentence-transformers, or
    else the `params` of the bundle.
    """
    signature = bundle.signature
    modules = _modules(bundle, params, checkpoint)
    if modules:
        values = embed(modules, encodings["sequence"], valid_length)
        return probabilities(str(signature.task), values) if signature.kind == "classifier" else values
    if signature.kind == "encoder":
        return encodings[signature.output]
    task = str(signature.task)
    if checkpoint is not None and checkpoint.head is not None:
        head, weights, config = HUGGING_FACE_HEADS[checkpoint.head], checkpoint.weights, checkpoint.config
    else:
        layer = FULLY_CONNECTED if f"{FULLY_CONNECTED}_bias" in params else FINISHED_HEADS[task][1]
        has_transform = f"{HEAD_TRANSFORM}_weight" in params
        head = bundle_head(signature.family, task, signature.output, layer, has_transform)
        weights, config = params, bundle.config.to_dict()
    values = head.values(encodings, weights, config)
    return values if signature.kind == "logits" else probabilities(task, values)


def _modules(bundle: Bundle, params: Mapping[str, Array], checkpoint: Checkpoint | None = None) -> tuple[Module, ...]:
    """The modules of sentence-transformers that a bundle computes; none where it has another head, or no head."""
    if checkpoint is not None and checkpoint.modules:
        return checkpoint.modules
    embedding = bundle.signature.to_json()["embedding"]
    return bundle_modules(embedding, params) if embedding is not None else ()


def verify(prefix: str | Path, *, rtol: float = DEFAULT_RTOL) -> list[Check]:
    """Check a bundle's digests, load it, and compare its outputs with the reference encoder.

    As `verify_bundle` with the bundle's own parameters, at lengths that `export` did not try. Raises
    ModelError for files that have changed, and the errors of `verify_bundle`.
    """
    bundle = Bundle.open(prefix)
    if bundle.signature.precision != "float32":
        raise ModelError(
            f"{prefix}: is {bundle.signature.precision}, which the float32 tolerances do not fit; "
            "bertsym evaluate measures its accuracy, and bertsym onnx compares each int8 layer with MXNet"
        )
    return verify_bundle(bundle, unfold_parameters(bundle.params(), bundle.config), rtol, (23, 48), str(prefix))


def verify_bundle(
    bundle: Bundle,
    arg_params: Mapping[str, Array],
    rtol: float,
    lengths: tuple[int, int],
    name: str,
    checkpoint: Checkpoint | None = None,
) -> list[Check]:
    """Compare what the files of `bundle` compute with the float64 reference encoder of `checkpoint`.

    Without a checkpoint the reference computes from `arg_params`, as it does with the weights of a head. Through Module
    and SymbolBlock, and through the training symbol where there is one; two batch sizes, two `lengths`, rows padded
    differently. Where gluonnlp is installed, its BERTModel with `arg_params` is compared with the reference too.
    `rtol` is relative to the output's scale; `name` stands in messages.

    Returns the comparisons. Raises VerificationError for an output that differs by more, ModelError when
    MXNet can't run the graph, UsageError for an `rtol` that is not a tolerance.
    """
    if not 0 < rtol < np.inf:
        raise UsageError(f"rtol {rtol} is not a finite number above 0")
    with mxnet_errors(name):
        checks = _run_checks(bundle, lengths, arg_params, checkpoint)
    for check in checks:
        # Written so that NaN fails too.
        if not check.relative_difference <= rtol:
            raise VerificationError(f"{name}: differs from the reference encoder by more than {rtol:g}: {check}")
    return checks


@dataclass(frozen=True)
class _Case:
    """Inputs, and what the reference answers."""

    length: int
    inputs: dict[str, Array]  #: all that a BERT can take
    fed: dict[str, Array]  #: those that the symbol takes
    expected: Array


def _run_checks(
    bundle: Bundle, lengths: tuple[int, int], arg_params: Mapping[str, Array], checkpoint: Checkpoint | None
) -> list[Check]:
    _keep_freed_blocks(1 << 20)
    try:
        cases = _reference_cases(bundle, lengths, arg_params, checkpoint)
        scale = max(float(np.abs(case.expected).max()) for case in cases) or 1.0
        # Other families and activations are not in its BERTModel.
        is_comparable = _has_gluonnlp() and (bundle.config.family, bundle.config.activation) == ("bert", "gelu")
        checks = _compare_gluonnlp(bundle, cases, arg_params, scale) if is_comparable else []
        _free_copies(bundle)  # no more than one of a large model at a time, here and with the loaders
        return [*_compare_files(bundle, cases, scale), *checks]
    finally:
        _keep_freed_blocks(32 << 20)  # where glibc's own growing limit ends


def _has_gluonnlp() -> bool:
    return engine_name() == "mxnet" and is_installed("gluonnlp")


def _reference_cases(
    bundle: Bundle, lengths: tuple[int, int], arg_params: Mapping[str, Array], checkpoint: Checkpoint | None
) -> list[_Case]:
    config, signature = bundle.config, bundle.signature
    chosen = sorted({signature.length or min(length, config.max_length) for length in lengths})
    samples = [
        (length, sample_inputs(config, batch_size, length, signature.pad_id))
        for length in chosen
        for batch_size in (1, 3)
    ]
    expected = reference_outputs(bundle, arg_params, [inputs for _, inputs in samples], checkpoint)
    return [
        _Case(length, inputs, {name: inputs[name] for name in signature.input_names}, output)
        for (length, inputs), output in zip(samples, expected)
    ]


def reference_outputs(
    bundle: Bundle,
    arg_params: Mapping[str, Array],
    samples: Sequence[Mapping[str, Array]],
    checkpoint: Checkpoint | None = None,
) -> list[Array]:
    """What `bundle` must answer to each sample of its inputs, float64, by the reference encoder.

    `checkpoint` is the model as its source stores it, by default `arg_params`; a head that it does not have is
    computed from `arg_params`.
    """
    encodings = reference_encodings(bundle, arg_params, samples, checkpoint)
    return [
        apply_head(found, bundle, arg_params, inputs[VALID_LENGTH], checkpoint)
        for found, inputs in zip(encodings, samples)
    ]


def reference_encodings(
    bundle: Bundle,
    arg_params: Mapping[str, Array],
    samples: Sequence[Mapping[str, Array]],
    checkpoint: Checkpoint | None = None,
) -> list[Encodings]:
    """The encodings of each sample, to which `reference_outputs` applies the head of `bundle`."""
    checkpoint = checkpoint or Checkpoint("GluonNLP export", arg_params, bundle.config.to_dict())
    # A symbol that does not take token types has the type 0 for every token.
    batches = [
        Inputs(inputs[TOKEN_IDS], inputs.get(TOKEN_TYPES, np.zeros_like(inputs[TOKEN_IDS])), inputs[VALID_LENGTH])
        for inputs in samples
    ]
    return encoder_outputs(bundle.signature.family, checkpoint, batches)


def _compare_gluonnlp(
    bundle: Bundle, cases: Sequence[_Case], arg_params: Mapping[str, Array], scale: float
) -> list[Check]:
    """The second reference, which shares no code with the first."""
    signature, model = bundle.signature, GluonNLPModel(bundle.config, arg_params)
    checks = []
    reads = "sequence" if signature.output == EMBEDDING else signature.output
    for case in cases:
        encoded = model.encode(reads, case.inputs)
        if reads == "sequence":
            is_token = np.arange(case.length) < case.inputs[VALID_LENGTH][:, None]
            encoded = encoded * is_token[:, :, None]
        answer = apply_head({reads: encoded}, bundle, arg_params, case.inputs[VALID_LENGTH])
        checks.append(_compare(GLUONNLP, "gluonnlp", signature, case, answer, scale))
    return checks


def _compare_files(bundle: Bundle, cases: Sequence[_Case], scale: float) -> list[Check]:
    engine, checks = engine_name(), []
    if engine == "mxnet":
        return _compare_through_loaders(bundle, cases, scale)
    graphs = {engine: bundle.graph()}
    if _computes_outputs(bundle):
        graphs["train symbol"] = bundle.graph(TRAIN_SYMBOL)
    for name, graph in graphs.items():
        forward = load_engine(engine).bind(graph.to_json(), str(bundle.prefix), bundle.params(), cases[0].fed)
        checks += [
            _compare(name, engine, bundle.signature, *_comparable(case, forward(case.fed)), scale) for case in cases
        ]
    return checks


def _compare_through_loaders(bundle: Bundle, cases: Sequence[_Case], scale: float) -> list[Check]:
    symbol = bundle.graph().to_json()
    check_params(symbol, str(bundle.prefix), bundle.signature.input_names, bundle.params())
    checks = []
    for name, text, load, labels in _loadings(bundle, symbol):
        with quiet_stderr():
            forward = load(text, bundle.params(), cases[0].fed, labels)
        checks += [
            _compare(name, "mxnet", bundle.signature, *_comparable(case, forward(case.fed)), scale) for case in cases
        ]
        del forward
        _free_copies(bundle)
    return checks


def _loadings(bundle: Bundle, symbol: str) -> Iterator[tuple[str, str, Callable[..., Forward], tuple[str, ...]]]:
    """What a bundle is loaded through: name, symbol, loader and labels."""
    yield "Module", symbol, load_module, ()
    yield "SymbolBlock", symbol, load_symbol_block, ()
    if _computes_outputs(bundle):
        labels = tuple(tensor.name for tensor in bundle.signature.label_inputs)
        yield "train symbol", bundle.graph(TRAIN_SYMBOL).to_json(), load_module, labels


def _computes_outputs(bundle: Bundle) -> bool:
    """Whether there is a training symbol that computes what the inference symbol does; that of qa gives softmaxes."""
    return bundle.has(TRAIN_SYMBOL) and len(bundle.signature.label_inputs) == 1


def _free_copies(bundle: Bundle) -> None:
    """Free copies of the parameters of a large model, which MXNet's objects hold in reference cycles.

    For a small model, this would take as long as its verification.
    """
    if sum(info.nbytes for info in bundle.params().infos.values()) > _MAX_COPY:
        gc.collect()


def _keep_freed_blocks(size: int) -> None:
    """Let glibc keep what is freed for the next one up to this size only, and give larger blocks back.

    Other C libraries have no such setting; more memory may stay in use there.
    """
    if sys.platform == "linux" and (mallopt := getattr(ctypes.CDLL(None), "mallopt", None)):
        mallopt(_MMAP_THRESHOLD, size)


def sample_inputs(config: BertConfig, batch_size: int, length: int, pad_id: int) -> dict[str, Array]:
    """Random inputs by name, float32: a full row, one of a single token, one in between.

    The id of padding stands among tokens too, since what matters is valid_length: a graph that takes `pad_id` itself
    for padding is found. Beyond valid_length the ids are random.
    """
    rng = np.random.default_rng((batch_size, length))
    token_ids = rng.integers(config.vocab_size, size=(batch_size, length))
    token_types = rng.integers(config.segments, size=(batch_size, length))
    valid_length = np.array([length, 1, (length + 1) // 2])[:batch_size]
    token_ids[0, length // 2] = pad_id
    check_inputs(token_ids, token_types, valid_length, config)
    arrays = named_inputs(token_ids, token_types, valid_length)
    return {name: array.astype(np.float32) for name, array in arrays.items()}


def _comparable(case: _Case, outputs: Sequence[Array]) -> tuple[_Case, Array]:
    """Return the case and the answer to compare.

    The training symbol of question answering has two outputs, softmaxes over the tokens, where the inference symbol
    has logits; that of a weighted loss has the loss beside the probabilities.
    """
    if outputs[0].ndim == case.expected.ndim:
        return case, outputs[0]
    powers = np.exp(case.expected - case.expected.max(axis=1, keepdims=True))
    expected = powers / powers.sum(axis=1, keepdims=True)
    return dataclasses.replace(case, expected=expected), np.stack(outputs, axis=-1)


def _compare(loader: str, library: str, signature: Signature, case: _Case, output: Array, scale: float) -> Check:
    if output.shape != case.expected.shape:
        raise VerificationError(
            f"{loader}: {signature.output_name} has shape {output.shape}, not {case.expected.shape}"
        )
    difference: Any = np.abs(output.astype(np.float64) - case.expected).max()
    engine = f"{library} {installed_version(library)}"
    return Check(loader, signature.output_name, output.shape, case.length, float(difference), scale, engine)
