"""The sandbox process: runs untrusted graphs for `sandbox`, one line of JSON a call, until its input ends."""

from __future__ import annotations

import functools
import json
import os
import signal
import sys
from collections.abc import Mapping
from typing import Any

from bertsym.address_space import check_address_space, engine_bytes, forbid_core_dumps, limit_growth, thread_bytes
from bertsym.compat.quick_import import speed_up_mxnet_import
from bertsym.errors import BertsymError, ModelError
from bertsym.execution.engines import ENGINES, load_engine
from bertsym.execution.sandbox import COMPUTING, FUNCTIONS, HAS_ALARM
from bertsym.mxnet_runtime import engine_workers, openmp_threads
from bertsym.symbol.params import ParamsFile, write_params


def main(name: str) -> None:
    """Load an engine and answer requests, one after the other, on what was standard output: mxnet prints there too."""
    if HAS_ALARM:
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8", newline="\n")
    os.dup2(2, 1)
    forbid_core_dumps()

    def send(answer: dict[str, Any]) -> None:
        answers.write(json.dumps(answer) + "\n")
        answers.flush()

    speed_up_mxnet_import()
    try:
        load_engine(name).prepare()  # before the clock runs
    except BertsymError as error:
        send(_error(error))
        return
    send({})
    # What a graph prints could fill the disk.
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
    os.dup2(2, 1)
    for line in sys.stdin:
        send(_answer(name, json.loads(line)))


def _answer(engine: str, request: Mapping[str, Any]) -> dict[str, Any]:
    name, arguments = request["function"], request["arguments"]
    assert name in FUNCTIONS
    function = getattr(load_engine(engine), name)
    try:
        # Besides the threads that MXNet may still start.
        limit_growth(thread_bytes(engine_workers(), openmp_threads()) + request["bytes"])
    except (OSError, ValueError) as error:
        return _error(
            BertsymError(f"the sandbox can't limit its memory: {error}; --trust runs the graph without limits")
        )
    if HAS_ALARM:  # elsewhere the parent ends this process
        signal.alarm(request["seconds"])
    try:
        if FUNCTIONS[name] and engine == "mxnet":
            _check_engine()
        files = {key: ParamsFile(path) for key, path in request["files"].items()}
        result = function(**arguments, **files)
        if name not in COMPUTING:
            return {"result": result}
        with open(request["result"], "wb") as file:
            write_params(file, {str(i): array for i, array in enumerate(result)})
        return {}
    except BertsymError as error:
        return _error(error)
    except MemoryError:
        return _error(ModelError(f"{arguments['where']}: too large for the memory that it may take"))
    except Exception as error:
        reason = (str(error).strip().splitlines() or [""])[0]
        what = f"{ENGINES[engine].label} can't run it: {type(error).__name__}: {reason}"
        return _error(ModelError(f"{arguments['where']}: {what}"))
    finally:
        if HAS_ALARM:
            signal.alarm(0)


@functools.cache
def _check_engine() -> None:
    """Raise BertsymError where the threads of MXNet's engine, started by the first graph, have no address space."""
    threads = openmp_threads()
    check_address_space(engine_bytes(engine_workers(), threads), threads)


def _error(error: BertsymError) -> dict[str, Any]:
    return {"error": type(error).__name__, "message": str(error)}
