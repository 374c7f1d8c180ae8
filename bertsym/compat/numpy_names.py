"""Names that numpy removed in 1.24, 2.0 and later, and that mxnet 1.9.1 and gluonnlp 0.10.0 still use."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

_CONSTANTS: dict[str, object] = {
    "bool": bool,
    "int": int,
    "float": float,
    "complex": complex,
    "object": object,
    "str": str,
    "PZERO": 0.0,
    "NZERO": -0.0,
    "PINF": float("inf"),
    "NINF": float("-inf"),
    "Inf": float("inf"),
    "NAN": float("nan"),
    "NaN": float("nan"),
    "compat": SimpleNamespace(basestring=str),
}
# Removed function -> its successor.
_RENAMED = {
    "alltrue": "all",
    "sometrue": "any",
    "product": "prod",
    "round_": "round",
    "in1d": "isin",
    "trapz": "trapezoid",
}
# Functions of finance, which numpy removed without a successor; mxnet only copies the names.
_WITHOUT_SUCCESSOR = ("mirr", "npv", "pmt", "ppmt", "pv", "rate")


def restore_numpy_names() -> list[str]:
    """Add to numpy the removed names that mxnet and gluonnlp use; return the names that were added.

    A name that numpy has stays as it is, so a second call adds nothing.
    """
    import numpy

    added = []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # numpy 1.20 to 1.23 and 2.0 to 2.3 warn about names they are going to remove
        for name in (*_CONSTANTS, *_RENAMED, "msort", *_WITHOUT_SUCCESSOR):
            if name not in vars(numpy) and not hasattr(numpy, name):
                setattr(numpy, name, _replacement(name))
                added.append(name)
    return added


def _replacement(name: str) -> Any:
    import numpy

    if name in _CONSTANTS:
        return _CONSTANTS[name]
    if name in _RENAMED:
        return getattr(numpy, _RENAMED[name])
    return _msort if name == "msort" else _removed(name)


def _msort(a: Any) -> Any:
    """Sort along the first axis."""
    import numpy

    return numpy.sort(a, axis=0)


def _removed(name: str) -> Callable[..., Any]:
    def removed(*_: object, **__: object) -> Any:
        raise RuntimeError(f"numpy.{name} was removed in numpy 1.20; the package numpy-financial has it")

    removed.__name__ = name
    return removed
