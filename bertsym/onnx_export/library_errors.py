"""Errors of onnx and onnxruntime."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from bertsym.errors import BertsymError, ModelError


@contextlib.contextmanager
def onnx_errors(where: str, what: str) -> Iterator[None]:
    """Turn the exceptions of onnx and onnxruntime, which share no class, into a ModelError of one line."""
    try:
        yield
    except (BertsymError, OSError, MemoryError):
        raise
    except Exception as error:
        lines = str(error).strip().splitlines() or [type(error).__name__]
        raise ModelError(f"{where}: {what}: {lines[0]}") from None
