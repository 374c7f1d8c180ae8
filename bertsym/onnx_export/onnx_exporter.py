"""Write a symbol as an ONNX file, verified in onnxruntime against MXNet."""

from __future__ import annotations

import contextlib
import importlib.util
import math
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from bertsym.analysis.symbolic_shapes import BATCH, LENGTH, Axes, rename_axes
from bertsym.array import Array
from bertsym.atomic_writing import work_folder
from bertsym.bundle import Bundle
from bertsym.encoders.catalogue import FULLY_CONNECTED
from bertsym.encoders.folding import unfold_parameters
from bertsym.encoders.inputs import VALID_LENGTH
from bertsym.errors import BertsymError, ModelError, UsageError
from bertsym.execution import (
    Shape,
    fixed_length,
    input_axes,
    known_shapes,
    listed_outputs,
    model_values,
    sample_inputs,
    sizes_of,
    tensor_shapes,
)
from bertsym.execution.engines import engine_name, is_verifying
from bertsym.model import Model, ModelSource, require_params
from bertsym.mxnet_runtime import quiet_stderr
from bertsym.onnx_export.half_weights import store_in_float16
from bertsym.onnx_export.libraries import onnx_errors, open_session
from bertsym.onnx_export.metadata import input_meanings, metadata
from bertsym.onnx_export.transformers_signature import TransformersSignature, with_transformers_outputs
from bertsym.passes import apply_to_copy
from bertsym.passes.inferred_ranges import resolve_inferred_ranges
from bertsym.processors import may_saturate
from bertsym.signature import Tensor
from bertsym.surgery.output_comparison import Difference, check_equal, difference
from bertsym.symbol.int8_arithmetic import saturating_layers
from bertsym.symbol.node import Output
from bertsym.symbol.quantized_layers import int8_nodes
from bertsym.verifier import apply_head, reference_encodings

SUFFIX = ".onnx"
_TOLERANCES = {"float32": 1e-5, "float16": 1e-2}  # dtype of the weights -> largest difference, relative to the scale
#: batch sizes and lengths of the runs that are compared, where the model allows them
CHECKED = ((2, 16), (3, 7))
# A protobuf message is limited to 2 GiB; above this size, parameters go into a file of their own.
_LARGEST = 2_000_000_000


@dataclass(frozen=True)
class OnnxCheck:
    """The comparison of one output: onnxruntime with the file, MXNet with the symbol."""

    inputs: dict[str, Shape]
    difference: Difference
    kind: str = ""  #: what is compared, if it is not an output of the file

    def __str__(self) -> str:
        shapes = ", ".join(f"{name} {shape}" for name, shape in self.inputs.items())
        return f"{self.kind}{self.difference}; {shapes}"


@dataclass(frozen=True)
class OnnxExportResult:
    """A written ONNX file, its inputs and outputs, the comparisons that it passed, and notes on the source."""

    path: Path
    inputs: list[Tensor]
    outputs: list[Tensor]
    checks: list[OnnxCheck]
    notes: tuple[str, ...] = ()

    @property
    def files(self) -> list[Path]:
        """The file, and the file of its parameters if they are separate."""
        return [path for path in (self.path, _data_path(self.path)) if path.exists()]


@dataclass(frozen=True)
class OnnxOptions:
    """How a model is written as an ONNX file; raises UsageError for an unknown value."""

    signature: str = "mxnet"  #: ``mxnet``: inputs and outputs of the symbol; ``hf``: those of transformers
    dtype: str = "float32"  #: of the stored weights; ``float16`` halves the file, computations stay in float32

    def __post_init__(self) -> None:
        for name, known in (("signature", ("mxnet", "hf")), ("dtype", tuple(_TOLERANCES))):
            if getattr(self, name) not in known:
                raise UsageError(f"{name} {getattr(self, name)!r} is not one of {', '.join(known)}")


def export_onnx(
    source: str | Path | ModelSource,
    out: str | Path,
    options: OnnxOptions = OnnxOptions(),
    *,
    force: bool = False,
) -> OnnxExportResult:
    """Write a symbol and its parameters as an ONNX file, opset 13, at `out`; needs the extra ``bertsym[onnx]``.

    Inputs keep their names. Token ids, token types and valid_length are int64, (batch, length) and (batch,), any
    other input is float32 as in MXNet. Outputs are float32 and named as MXNet lists them. Batch and length are
    free where they are free in the symbol; the shapes of inputs that `source` gives are fixed. More than 2 GB of
    parameters go into ``OUT.data`` beside it.

    With the signature ``hf``, for bundles of BERTs, the inputs are ``input_ids``, ``attention_mask`` and
    ``token_type_ids``, (batch, length) int64, and a head ends in its logits: ``logits``, or ``start_logits`` and
    ``end_logits``. An encoder gives ``last_hidden_state`` and, if it ends in one vector for a text, ``pooler_output``
    or ``sentence_embedding``.

    onnx checks the file and onnxruntime runs it beside MXNet on random inputs of two sizes, with padding: each
    output may differ by 1e-5 of its scale, with weights in float16 by 1e-2. Raises UsageError, ModelError (of a node
    that does not convert) or
    VerificationError; nothing is left at `out` then.
    """
    target = Path(out)
    _check_target(target, force)
    _require_packages()
    source = ModelSource.of(source)
    shapes = source.shapes
    model = source.open()
    require_params(model)
    # Imported here because onnx may be missing.
    from bertsym.onnx_export.graph_conversion import check_operators, integer_inputs

    names = None
    if options.dtype == "float16" and int8_nodes(model.graph):
        raise UsageError(f"{model.name}: is int8; for float16, convert the float32 bundle that it was made from")
    if options.signature == "hf":
        model = with_transformers_outputs(model)
        names = TransformersSignature.of(model)
    check_operators(model.graph, model.name, _advice(model))
    samples = _samples(model, shapes)
    whole = integer_inputs(model.graph, model.inputs)
    if model.encoder is not None:
        whole |= {
            name for name in (model.encoder.token_ids, model.encoder.token_types, model.encoder.valid_length) if name
        }
    inputs, outputs = _tensors(model, shapes, samples[0], whole)
    with _staged(target, force) as staged:
        outputs = _write(model, samples[0], inputs, outputs, staged, options, names)
        inputs = inputs if names is None else names.inputs()
        checks = _compare(model, staged, samples, inputs, str(target), options, names) if is_verifying() else []
    return OnnxExportResult(target, inputs, outputs, checks, model.notes)


def _check_target(target: Path, force: bool) -> None:
    if target.suffix.lower() != SUFFIX:
        raise UsageError(f"{target}: the name of an ONNX file ends in {SUFFIX}")
    for path in (target, _data_path(target)):
        if path.is_dir():
            raise UsageError(f"{path} is a folder: give the name of a file in it")
        if path.exists() and not force:
            raise UsageError(f"{path} exists: choose another name, or overwrite with --force")


def _data_path(target: Path) -> Path:
    return target.with_name(f"{target.name}.data")


def _require_packages() -> None:
    missing = [name for name in ("onnx", "onnxruntime") if importlib.util.find_spec(name) is None]
    if missing:
        raise BertsymError(f'{" and ".join(missing)} must be installed: pip install "bertsym[onnx]"')


def _advice(model: Model) -> str:
    return "; bertsym lower rewrites this BERT in a form that converts" if model.encoder is not None else ""


def _samples(model: Model, shapes: Mapping[str, Shape] | None) -> list[dict[str, Array]]:
    """Random inputs of two sizes, or of one where the graph does not show which axes are free."""
    axes = input_axes(model)
    if not axes:
        return [sample_inputs(model, shapes)]
    fixed = fixed_length(model)
    longest = (model.encoder.max_length if model.encoder is not None else None) or CHECKED[0][1]
    samples = []
    for seed, (batch, length) in enumerate(CHECKED):
        sizes = {name: sizes_of(shape, batch, fixed or min(length, longest)) for name, shape in axes.items()}
        known = {name: size for name, size in sizes.items() if size is not None and name in model.inputs}
        for name in shapes or {}:
            if name in known:
                text = ", ".join(map(str, axes[name]))
                raise UsageError(
                    f"{model.name}: the graph implies the shape ({text}) of {name}: remove it from --shape"
                )
        samples.append(sample_inputs(model, {**(shapes or {}), **known}, seed))
    return samples


def _tensors(
    model: Model, shapes: Mapping[str, Shape] | None, sample: Mapping[str, Array], whole: set[str]
) -> tuple[list[Tensor], list[Tensor]]:
    """List inputs and outputs, with free axes as ``batch`` and ``length``."""
    known = known_shapes(model, shapes)
    meanings = input_meanings(model)

    def axes(output: Output) -> Axes | None:
        found = known.get(output)
        return None if found is None else rename_axes(found, {BATCH: "batch", LENGTH: "length"})

    inputs = [
        Tensor(
            name,
            axes(Output(model.graph.variable(name))) or sample[name].shape,
            "int64" if name in whole else "float32",
            meanings.get(name, ""),
        )
        for name in sample
    ]
    names = listed_outputs(model.graph, model.name, trusted=model.trusted)
    return inputs, [Tensor(name, axes(end)) for name, end in zip(names, model.graph.outputs)]


@contextlib.contextmanager
def _staged(target: Path, force: bool) -> Iterator[Path]:
    """Yield a path in a temporary folder beside `target`; on success, the files there are moved to `target`."""
    try:
        # Parameters first: a model is never without them.
        with work_folder(target, [_data_path(target).name, target.name]) as folder:
            yield folder.new / target.name
            _check_target(target, force)
            folder.replace()
    except OSError as error:
        raise ModelError(f"{target}: can't write the ONNX file: {error.strerror or error}") from None


def _write(
    model: Model,
    sample: Mapping[str, Array],
    inputs: list[Tensor],
    outputs: list[Tensor],
    path: Path,
    options: OnnxOptions,
    names: TransformersSignature | None,
) -> list[Tensor]:
    """Convert, write and check a file, and return its outputs; the parameters in memory are freed on return."""
    import onnx

    from bertsym.onnx_export.graph_conversion import convert

    assert model.params is not None
    graph = apply_to_copy(model.graph, resolve_inferred_ranges)
    known = {**model.param_shapes, **{name: array.shape for name, array in sample.items()}}
    shapes = tensor_shapes(graph, known, model.name, trusted=model.trusted)
    ranks = {output: len(shape) for output, shape in shapes.items()}
    converted = convert(
        graph,
        model.params,
        ranks,
        inputs,
        outputs,
        metadata=metadata(model),
        where=model.name,
        advice=_advice(model),
    )
    if names is not None:
        outputs = names.apply(converted)
    if options.dtype == "float16":
        try:
            store_in_float16(converted)
        except ValueError as error:
            raise ModelError(f"{model.name}: {error} has elements beyond the range of float16") from None
    large = 4 * sum(math.prod(tensor.dims) for tensor in converted.graph.initializer) > _LARGEST
    onnx.save(converted, str(path), save_as_external_data=large, location=_data_path(path).name)
    for file in filter(Path.exists, (path, _data_path(path))):
        shutil.copymode(path, file)  # onnx lets only the owner read the parameters
        with open(file, "r+b") as written:  # Windows syncs what is open for writing
            os.fsync(written.fileno())
    del converted
    with onnx_errors(model.name, "onnx refuses the converted model"):
        onnx.checker.check_model(str(path), full_check=True)
    return outputs


def _compare(
    model: Model,
    path: Path,
    samples: list[dict[str, Array]],
    inputs: list[Tensor],
    where: str,
    options: OnnxOptions,
    signature: TransformersSignature | None,
) -> list[OnnxCheck]:
    """Run the file beside MXNet; raises VerificationError for an output that differs."""
    from bertsym.onnx_export.int8_comparison import CutFile, check_rounded  # imported here because onnx may be missing

    assert model.params is not None
    with quiet_stderr(), onnx_errors(model.name, "onnxruntime cannot load the converted model"):
        session = open_session(path)
    names = [output.name for output in session.get_outputs()]
    dtypes = {tensor.name: tensor.dtype for tensor in inputs}
    cut = CutFile(path, model.graph, model.name) if int8_nodes(model.graph) else None
    if cut is not None and may_saturate() and saturating_layers(model.graph, model.params):
        raise ModelError(
            f"{model.name}: not verified: it was made for processors with VNNI, which this one does not have, so "
            "MXNet's int8 products would saturate; use one with VNNI, or skip the verification with --no-verify"
        )
    rounded = [layer.integers for layer in cut.layers] if cut is not None else []
    checks: list[OnnxCheck] = []
    for sample in samples:
        # MXNet first: its error about a wrong symbol is clearer.
        expected = _expected(model, sample, rounded)
        expected, integers = expected[: len(model.graph.outputs)], expected[len(model.graph.outputs) :]
        fed = sample if signature is None else signature.feed(sample)
        fed = {name: array.astype(dtypes[name]) for name, array in fed.items()}
        expected = expected if signature is None else signature.answers(expected)
        sizes = {name: array.shape for name, array in fed.items()}
        if cut is not None:
            answers, differences = cut.run(fed, integers)
            differences += [difference(name, one, two) for name, one, two in zip(names, expected, answers)]
            check_equal(differences, where)
            checks += [OnnxCheck(sizes, max(differences, key=lambda found: found.relative), "each int8 layer alone, ")]
        with onnx_errors(model.name, "onnxruntime cannot run the converted model"):
            answers = session.run(names, fed)
        differences = [difference(name, one, two) for name, one, two in zip(names, expected, answers)]
        if cut is not None:
            check_rounded(expected, answers, where)
        checks += [OnnxCheck(sizes, found) for found in differences]
    if cut is None:
        checks = _at_common_scale(checks, signature is not None and signature.splits)
        check_equal([check.difference for check in checks], where, _TOLERANCES[options.dtype])
    return checks


def _at_common_scale(checks: Sequence[OnnxCheck], splits: bool) -> list[OnnxCheck]:
    """The comparisons, each at the scale of its output in all runs, or of both outputs if the layer before `splits`.

    In one run, a value of a regression or the scores of starts may be close to zero.
    """
    names = ["" if splits else check.difference.name for check in checks]
    scales = dict.fromkeys(names, 0.0)
    for name, check in zip(names, checks):
        scales[name] = max(check.difference.scale, scales[name])
    return [
        replace(check, difference=replace(check.difference, scale=scales[name])) for name, check in zip(names, checks)
    ]


def _expected(model: Model, sample: Mapping[str, Array], rounded: Sequence[Output]) -> list[Array]:
    """What the outputs must be, by MXNet; without it by the reference encoder, since onnxruntime would run the same.

    MXNet's integers of `rounded` tensors follow.
    """
    if engine_name() == "mxnet":
        return model_values(model, sample, [*model.graph.outputs, *rounded])
    bundle = model.bundle
    ends_in_logits = model.graph.outputs[0].node.name == FULLY_CONNECTED
    if isinstance(bundle, Bundle) and bundle.signature.kind == "classifier" and ends_in_logits:
        # The reference ends in probabilities.
        raise ModelError(
            f"{model.name}: not verified: comparing logits needs mxnet; install it, or skip the verification with "
            "--no-verify"
        )
    if not isinstance(bundle, Bundle) or bundle.signature.precision != "float32":
        raise ModelError(
            f"{model.name}: not verified: without mxnet only the bundle of a BERT in float32 can be compared, with the "
            "reference encoder; install mxnet, or skip the verification with --no-verify"
        )
    params = unfold_parameters(bundle.params(), bundle.config)
    (encodings,) = reference_encodings(bundle, params, [sample])
    output = apply_head(encodings, bundle, params, sample[VALID_LENGTH])
    # --signature hf adds the encodings of all tokens.
    return [output] if len(model.graph.outputs) == 1 else [encodings.sequence, output]
