"""Load the written files through MXNet's loaders, and compare the outputs with those of the graph in memory."""

from __future__ import annotations

from collections.abc import Mapping

from bertsym.array import Array
from bertsym.bundle import Bundle, SymbolBundle
from bertsym.errors import ModelError, VerificationError
from bertsym.execution import Shape, UnknownShapeError, model_values, sample_inputs
from bertsym.execution.engines import ENGINES, engine_name
from bertsym.execution.loaders import MAX_C_PREDICT
from bertsym.execution.sandbox import call
from bertsym.model import Model
from bertsym.surgery.output_comparison import check_equal, difference
from bertsym.symbol.variable_roles import auxiliary_states

C_PREDICT = "C predict API"


def reload_written(
    bundle: Bundle | SymbolBundle, model: Model, shapes: Mapping[str, Shape], where: str
) -> tuple[list[str], list[str]]:
    """Load the files of a bundle through MXNet's loaders and compare with the `model` that was written.

    Every loader runs on the same random inputs; if the shape of an input is unknown, only the names and elements of
    the parameters are compared. Returns the loaders whose outputs are equal within tolerance, and notes on loaders that
    could not load or run the symbol, which is an error for a BERT.

    Raises VerificationError, which names `where`, for parameters or outputs that differ.
    """
    symbol = bundle.graph().to_json()
    params, labels = bundle.params(), model.label_inputs
    call("check_params", symbol, where, model.trusted, others=[*model.inputs, *labels], params=params)
    try:
        inputs = sample_inputs(model, shapes)
    except UnknownShapeError:
        return [], []
    expected = model_values(model, inputs)
    names = [str(output) for output in model.graph.outputs]
    loaders: list[str] = []
    chosen, notes = _choose_loaders(model, inputs, params.size)
    for loader in chosen:
        try:
            loading = {"loader": loader, "labels": labels, "params": params, "inputs": inputs}
            found = call("compute_loaded", symbol, where, model.trusted, **loading)
        except ModelError as error:
            if isinstance(bundle, Bundle):
                raise
            notes.append(f"not loaded through {loader}: {error}")
            continue
        if len(found) != len(expected):
            raise VerificationError(f"{where}: {loader} returns {len(found)} outputs, not {len(expected)}")
        pairs = zip(names, expected, found)
        check_equal([difference(f"{loader}: {name}", one, other) for name, one, other in pairs], where)
        loaders.append(loader)
    return loaders, notes


def _choose_loaders(model: Model, inputs: Mapping[str, Array], size: int) -> tuple[list[str], list[str]]:
    """Choose the loaders, and note if the C predict API is needed but can't load the parameters."""
    assert model.params is not None
    engine = engine_name()
    # Auxiliary states need the C predict API too: it ignores an auxiliary state that is stored as an argument.
    loaders, has_states = [*ENGINES[engine].loaders], engine == "mxnet" and bool(auxiliary_states(model.graph))
    if has_states and C_PREDICT not in loaders:
        loaders.append(C_PREDICT)
    dtypes = {info.dtype for info in model.params.infos.values()} | {array.dtype.str for array in inputs.values()}
    if C_PREDICT not in loaders or (dtypes <= {"<f4"} and size <= MAX_C_PREDICT):
        return loaders, []
    loaders.remove(C_PREDICT)
    return loaders, [f"not loaded through the {C_PREDICT}, which takes only float32 below 2 GiB"] if has_states else []
