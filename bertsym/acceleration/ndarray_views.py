"""numpy views of the memory of MXNet arrays."""

from __future__ import annotations

import ctypes
from typing import Any

import numpy as np

from bertsym.array import Array
from bertsym.mxnet_runtime import mx


def memory_of(array: Any) -> Array:
    """Return a numpy view of a float32 NDArray on a CPU.

    The NDArray must outlive the view. There is no synchronization with MXNet operations that use the memory.

    Do not use mx.nd.from_numpy instead: MXNet frees its arrays by a Python function in a thread of its own, and a fork,
    before which MXNet waits until its threads are idle, then never ends (also the fork of `subprocess` in Python 3.9).
    """
    pointer = ctypes.c_void_p()
    mx.base.check_call(mx.base._LIB.MXNDArrayGetData(array.handle, ctypes.byref(pointer)))
    return np.ctypeslib.as_array(ctypes.cast(pointer, ctypes.POINTER(ctypes.c_float)), array.shape)
