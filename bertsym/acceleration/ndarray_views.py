"""Arrays of MXNet and numpy on the same memory."""

from __future__ import annotations

import ctypes
from typing import Any

import numpy as np

from bertsym.runtime import mx
from bertsym.symbol.params import Array


def memory_of(array: Any) -> Array:
    """The memory of a float32 NDArray on a CPU, which must live as long; nothing waits for who still uses it.

    What mx.nd.from_numpy makes is freed in a thread of MXNet, by a Python function: a fork, for which MXNet waits until
    its threads are idle, never ends then (that of `subprocess` too, in Python 3.9).
    """
    pointer = ctypes.c_void_p()
    mx.base.check_call(mx.base._LIB.MXNDArrayGetData(array.handle, ctypes.byref(pointer)))
    return np.ctypeslib.as_array(ctypes.cast(pointer, ctypes.POINTER(ctypes.c_float)), array.shape)
