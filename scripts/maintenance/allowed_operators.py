#!/usr/bin/env python
"""Write the operators that a symbol may have, bertsym/symbol/allowed_operators.json, from the installed MXNet.

    scripts/maintenance/allowed_operators.py >bertsym/symbol/allowed_operators.json

Each entry has the number of inputs and outputs and the types of attributes. Operators that run Python, read files or
pointers, have a subgraph, change their inputs, draw random numbers or need MXNet's numpy mode are left out.
"""

from __future__ import annotations

import ctypes
import json
import re
from typing import Any

from bertsym.mxnet_runtime import mx, quiet_stderr

LEFT_OUT = re.compile(
    r"_?backward|.*_backward|_np|_sparse_|.*update|_image_|_cv|_?imdecode|.*Custom|_CachedOp|_Native|_NDArray|"
    r"_foreach|_while_loop|_cond$|.*dgl|.*edge_id|_?sample_|_?random_|_?shuffle|normal$|uniform$|.*assign|_scatter|"
    r"_set_value|_onehot|_copyto|_CrossDevice|_NoGradient|_broadcast|reset_arrays|_?multi_|_?mp_|.*finite|amp_m|"
    r"_histogram|_?linspace|_?linalg_(?!gemm2$)|khatri|"
    r"_contrib_(.*Deformable|fft|ifft|count|bipartite|hawkes|quadratic|getnnz|boolean|group_|calibrate|"
    r"backward|SparseEmb|quantize$|quantize_asym|quantized_|dequantize|requantize|gradientm)|cast_storage|"
    r"_sg_mkldnn_(conv|selfatt)|choose_element|fill_element|_zeros_without|_square_sum|"
    r"preloaded|.*_like_rhs|.*uniform_like"
)
# Inputs that exist only with an attribute; libmxnet lists them only then.
OPTIONAL = ("bias", "length", "sequence_length", "state_cell", "data_lengths", "label_lengths", "weight_lengths")
# Facts that MXNet does not report, or on which a query crashes it.
EXCEPTIONS = {"_sg_mkldnn_fully_connected": {"inputs": [1, None]}}
# Number of auxiliary states that libmxnet does not list among the inputs.
STATES = {"BatchNorm_v1": 2, "IdentityAttachKLSparseReg": 1}
KINDS = {"float": "float", "double": "float", "real_t": "float", "boolean": "bool", "string": "string"}


def names() -> list[str]:
    from mxnet.base import _LIB, check_call

    size, found = ctypes.c_uint(), ctypes.POINTER(ctypes.c_char_p)()
    check_call(_LIB.NNListAllOpNames(ctypes.byref(size), ctypes.byref(found)))
    return sorted(found[i].decode() for i in range(size.value))


def described(operator: str) -> tuple[str, list[tuple[str, str]]]:
    """Return the operator of a name or alias, and its arguments with their types as libmxnet writes them."""
    from mxnet.base import _LIB, check_call

    handle = ctypes.c_void_p()
    check_call(_LIB.NNGetOpHandle(operator.encode(), ctypes.byref(handle)))
    name, description, variadic, returned = (ctypes.c_char_p() for _ in range(4))
    size = ctypes.c_uint()
    arguments, types, descriptions = (ctypes.POINTER(ctypes.c_char_p)() for _ in range(3))
    answers = (name, description, size, arguments, types, descriptions, variadic, returned)
    check_call(_LIB.MXSymbolGetAtomicSymbolInfo(handle, *[ctypes.byref(answer) for answer in answers]))
    assert name.value is not None
    return name.value.decode(), [(arguments[i].decode(), types[i].decode()) for i in range(size.value)]


def kind(described: str) -> Any:
    """Return the type of an attribute, or its possible values."""
    values = re.match(r"\{(.*?)\}", described)
    if values:
        return sorted({value.strip().strip("'") for value in values[1].split(",")})
    word = described.partition(",")[0].partition(" or ")[0].partition(" (non")[0]
    if word in ("int", "long"):
        return "int"
    if word.startswith(("Shape", "tuple of <long>")):
        return "ints"
    return KINDS.get(word, "floats" if word.startswith("tuple") else "string")


def entry(operator: str) -> dict[str, Any]:
    if operator in EXCEPTIONS:
        return EXCEPTIONS[operator]
    _, arguments = described(operator)
    tensors = [(name, text) for name, text in arguments if text.startswith(("NDArray", "Symbol"))]
    attributes = {name: kind(text) for name, text in sorted(arguments) if (name, text) not in tensors}
    most = None if any(text.endswith("[]") for _, text in tensors) else len(tensors) + STATES.get(operator, 0)
    least = sum(name not in OPTIONAL and (operator, name) != ("LeakyReLU", "gamma") for name, text in tensors)
    found: dict[str, Any] = {"inputs": [1 if most is None else least, most]}
    outputs = output_count(operator, found["inputs"], arguments)
    if outputs != 1:
        found["outputs"] = outputs
    if attributes:
        found["attributes"] = attributes
    return found


EXAMPLES = {"int": "1", "ints": "(1,)", "float": "0.5", "bool": "1", "floats": "(1,)", "string": "float32"}


def output_count(operator: str, inputs: list[Any], arguments: list[tuple[str, str]]) -> int:
    """Count outputs with default attributes, including hidden outputs; 1 if MXNet does not load the operator so."""
    required = {name: kind(text) for name, text in arguments if text.endswith("required")}
    attrs = {name: EXAMPLES[what] if isinstance(what, str) else what[0] for name, what in required.items()}
    least, most = inputs
    # Some operators need an input that exists only with an attribute.
    for count in range(least, (most or least) + 1):
        if most is None:
            attrs["num_args"] = str(count)
        variables = [{"op": "null", "name": f"x{i}", "inputs": []} for i in range(count)]
        node = {"op": operator, "name": "node", "attrs": attrs, "inputs": [[i, 0, 0] for i in range(count)]}
        graph = {
            "nodes": [*variables, node],
            "arg_nodes": list(range(count)),
            "node_row_ptr": list(range(count + 2)),
            "heads": [[count, 0, 0]],
            "attrs": {"mxnet_version": ["int", 10901]},
        }
        try:
            with quiet_stderr():
                written = json.loads(mx.sym.load_json(json.dumps(graph)).tojson())
        except mx.base.MXNetError:
            continue
        return int(written["node_row_ptr"][-1] - written["node_row_ptr"][-2])
    return 1


def main() -> None:
    mx.nd  # noqa: B018  # imports it
    allowed = [name for name in names() if not LEFT_OUT.match(name)]
    lines = [f"{json.dumps(name)}: {json.dumps(entry(name))}" for name in allowed]
    print("{\n" + ",\n".join(lines) + "\n}")


if __name__ == "__main__":
    main()
