"""onnx and onnxruntime: their errors as ModelErrors, and sessions on the CPU."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from bertsym.compat.installing import version_numbers
from bertsym.errors import BertsymError, ModelError
from bertsym.processors import may_saturate


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


def open_session(model: Path | bytes, threads: int = 0, without: Sequence[str] = ()) -> Any:
    """Open a session of onnxruntime of a file or a serialized model; with 0 threads it uses one per core.

    `without` are names of onnxruntime's optimizers that it must not run.
    """
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4  # errors are raised anyway
    options.intra_op_num_threads = threads
    # Otherwise threads that wait for the next run take the processors from another session, and from MXNet.
    options.add_session_config_entry("session.force_spinning_stop", "1")
    if may_saturate():  # weights in int8 then become uint8, whose products are exact, but slower where VNNI is
        options.add_session_config_entry("session.x64quantprecision", "1")
    content = str(model) if isinstance(model, Path) else model
    return onnxruntime.InferenceSession(
        content, options, providers=["CPUExecutionProvider"], disabled_optimizers=list(without)
    )


def masks_single_queries() -> bool:
    """Whether MultiHeadAttention of the installed onnxruntime masks keys where there is one query.

    Before 1.21 its results are wrong there, without an error (seen in 1.17.3, 1.19.2 and 1.20.1).
    """
    import onnxruntime

    return version_numbers(onnxruntime.__version__) >= (1, 21)
