#!/usr/bin/env python
"""Run symbols in one MXNet and measure them, for version_grid.py: plain Python 3.6 with numpy and that MXNet only.

    version_grid_worker.py JOBS.json ANSWERS

JOBS.json is a list of jobs. The first line of ANSWERS is JSON about this MXNet; one line for each job follows: the
measures, "refused" (why this MXNet does not load the file) or "error". After a crash, lines are missing.
"""

import contextlib
import ctypes
import json
import logging
import sys
import warnings

import numpy as np

# mxnet would import them, which takes longer than the import of mxnet, and uses them for nothing that is run here.
sys.modules.update(dict.fromkeys(("onnx", "scipy", "sklearn")))

# It restores what newer numpys removed. Old Pythons do not have it, and do not need it.
with contextlib.suppress(ImportError):
    from bertsym.compat.operator_functions import make_operators_when_called

    make_operators_when_called()

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    import mxnet as mx

INPUTS = ("data0", "data1", "data2")
LABEL = "softmax_label"


class Refused(Exception):
    """This MXNet does not load the file."""


# Each of these functions takes a job and returns a function from inputs to output.


def module(job):
    symbol, arg_params, aux_params = read(job)
    net = mx.mod.Module(symbol, data_names=INPUTS, label_names=None)
    net.bind([("data0", (1, 8)), ("data1", (1, 8)), ("data2", (1,))], for_training=False)
    net.set_params(arg_params, aux_params)

    def forward(inputs):
        net.forward(mx.io.DataBatch([mx.nd.array(array) for array in inputs], None), is_train=False)
        return net.get_outputs()[0].asnumpy()

    return forward


def symbol_block(job):
    net = loading(mx.gluon.SymbolBlock.imports, job["symbol"], list(INPUTS), job["params"], ctx=mx.cpu())
    return lambda inputs: net(*(mx.nd.array(array) for array in inputs)).asnumpy()


def c_predict(job):
    """The C predict API, as programs in other languages call it."""
    library = ctypes.CDLL(mx.libinfo.find_lib_path()[0])
    library.MXGetLastError.restype = ctypes.c_char_p
    with open(job["symbol"], "rb") as file:
        symbol = file.read()
    with open(job["params"], "rb") as file:
        params = file.read()

    def check(code, kind=RuntimeError):
        if code != 0:
            raise kind(library.MXGetLastError().decode(errors="replace"))

    def create(shapes):
        ends = np.cumsum([0] + [len(shape) for shape in shapes])
        sizes = [size for shape in shapes for size in shape]
        predictor = ctypes.c_void_p()
        code = library.MXPredCreate(
            ctypes.c_char_p(symbol),
            ctypes.c_char_p(params),
            ctypes.c_int(len(params)),
            ctypes.c_int(1),  # CPU
            ctypes.c_int(0),
            ctypes.c_uint(len(INPUTS)),
            (ctypes.c_char_p * len(INPUTS))(*(name.encode() for name in INPUTS)),
            (ctypes.c_uint * len(ends))(*(int(end) for end in ends)),
            (ctypes.c_uint * len(sizes))(*sizes),
            ctypes.byref(predictor),
        )
        check(code, Refused)
        return predictor

    predictors = {}

    def forward(inputs):
        shapes = tuple(array.shape for array in inputs)
        if shapes not in predictors:
            predictors[shapes] = create(shapes)
        predictor = predictors[shapes]
        for name, array in zip(INPUTS, inputs):
            data = np.ascontiguousarray(array, np.float32)
            pointer = data.ctypes.data_as(ctypes.POINTER(ctypes.c_float))
            check(library.MXPredSetInput(predictor, name.encode(), pointer, ctypes.c_uint(data.size)))
        check(library.MXPredForward(predictor))
        shape, ndim = ctypes.POINTER(ctypes.c_uint)(), ctypes.c_uint()
        check(library.MXPredGetOutputShape(predictor, ctypes.c_uint(0), ctypes.byref(shape), ctypes.byref(ndim)))
        output = np.empty([shape[i] for i in range(ndim.value)], np.float32)
        pointer = output.ctypes.data_as(ctypes.POINTER(ctypes.c_float))
        check(library.MXPredGetOutput(predictor, ctypes.c_uint(0), pointer, ctypes.c_uint(output.size)))
        return output

    return forward


LOADERS = {"Module": module, "SymbolBlock": symbol_block, "C predict": c_predict}


def outputs(job):
    """Return the largest difference from the reference, relative to its scale, over all cases."""
    forward = LOADERS[job["api"]](job)
    differences = []
    with np.load(job["cases"]) as cases, np.load(job["reference"]) as reference:
        for case in sorted(reference.files):
            differences.append(relative(forward([cases[case + name] for name in INPUTS]), reference[case]))
    return {"outputs": float(np.max(differences))}


def training(job):
    """Train with Module and Adam; return the differences of first gradients, all losses and final parameters.

    With "save", they are written to that file as the reference.
    """
    symbol, arg_params, aux_params = read(job)
    with np.load(job["cases"]) as file:
        steps = {name: file[name] for name in file.files}
    net = mx.mod.Module(symbol, data_names=INPUTS, label_names=(LABEL,))
    net.bind([(name, steps[name].shape[1:]) for name in INPUTS], [(LABEL, steps[LABEL].shape[1:])])
    net.set_params(arg_params, aux_params)
    net.init_optimizer(optimizer="adam", optimizer_params={"learning_rate": job["learning_rate"]})
    measured, losses = {}, []
    for i, labels in enumerate(steps[LABEL]):
        data = [mx.nd.array(steps[name][i]) for name in INPUTS]
        net.forward_backward(mx.io.DataBatch(data, [mx.nd.array(labels)]))
        probabilities = net.get_outputs()[0].asnumpy().astype(np.float64)
        losses.append(-np.log(probabilities[np.arange(len(labels)), labels.astype(int)]).mean())
        if i == 0:
            group = net._exec_group
            for name, gradients in zip(group.param_names, group.grad_arrays):
                measured["gradient:" + name] = gradients[0].asnumpy()
        net.update()
    measured["losses"] = np.array(losses)
    for name, array in net.get_params()[0].items():
        measured["parameter:" + name] = array.asnumpy()
    if job.get("save"):
        np.savez(job["save"], **measured)
        return {}
    with np.load(job["reference"]) as reference:
        return compare_training(measured, reference, arg_params)


def compare_training(measured, reference, before):
    if set(measured) != set(reference.files):
        raise RuntimeError(f"other parameters than the reference: {set(measured) ^ set(reference.files)}")
    gradients, moved, apart = [], 0.0, 0.0
    for name, start in before.items():
        # A bias of the keys adds the same to all scores of a query, which softmax ignores. Its gradient is rounding
        # noise: it is compared at the scale of the query bias, and the trained bias is not compared.
        scale = reference["gradient:" + name.replace("key_bias", "query_bias")]
        gradients.append(relative(measured["gradient:" + name], reference["gradient:" + name], scale))
        if not name.endswith("key_bias"):
            end = reference["parameter:" + name].astype(np.float64)
            moved += np.square(end - start.asnumpy()).sum()
            apart += np.square(measured["parameter:" + name] - end).sum()
    return {
        "gradients": float(np.max(gradients)),
        "losses": relative(measured["losses"], reference["losses"]),
        # Relative to the change of the parameters.
        "parameters": float(np.sqrt(apart / moved)),
    }


def read(job):
    symbol = loading(mx.sym.load, job["symbol"])
    arrays = mx.nd.load(job["params"])
    return symbol, {name[4:]: array for name, array in arrays.items() if name.startswith("arg:")}, {}


def loading(load, *arguments, **options):
    try:
        return load(*arguments, **options)
    except mx.base.MXNetError as error:
        raise Refused(str(error)) from error


def relative(array, expected, scale=None):
    """Return the largest difference, relative to the largest element of `scale` or `expected`; NaN stays NaN.

    Where all elements are 0, as in the gradient of a constant, it is absolute.
    """
    if array.shape != expected.shape:
        raise RuntimeError(f"shape {array.shape}, not {expected.shape}")
    largest = np.abs(expected if scale is None else scale).max()
    return float(np.abs(array.astype(np.float64) - expected).max() / (1.0 if largest == 0 else largest))


def answer(job):
    try:
        return training(job) if job["api"] == "training" else outputs(job)
    except Refused as error:
        return {"refused": str(error)}
    except Exception as error:  # a version's faults are reported in its cell
        return {"error": f"{type(error).__name__}: {error}"}


def main(jobs_path, answers_path):
    # Warnings about files of a newer version, and about dtypes that the parameters decide.
    warnings.simplefilter("ignore")
    logging.disable(logging.WARNING)
    with open(jobs_path) as file:
        jobs = json.load(file)
    with open(answers_path, "w") as file:
        for line in [{"mxnet": mx.__version__, "library": mx.libinfo.find_lib_path()[0]}, *jobs]:
            file.write(json.dumps(line if "mxnet" in line else answer(line)) + "\n")
            file.flush()


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    main(*sys.argv[1:])
