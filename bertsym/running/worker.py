"""The process that runs graphs of unknown origin, as `isolation` asks it: a line of JSON each, until its input ends."""

from __future__ import annotations

import json
import os
import resource
import signal
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from bertsym.errors import BertsymError
from bertsym.running import loaders, loading
from bertsym.running.isolation import COMPUTING, FUNCTIONS
from bertsym.runtime import mx
from bertsym.symbol.params import ParamsFile, write_params


def main() -> None:
    """Answer requests, one after the other, on what was standard output: mxnet prints there too."""
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    mx.nd  # noqa: B018  # imported before the clock runs
    for line in sys.stdin:
        answers.write(json.dumps(_answer(json.loads(line))) + "\n")
        answers.flush()


def _answer(request: Mapping[str, Any]) -> dict[str, Any]:
    name, arguments = request["function"], request["arguments"]
    assert name in FUNCTIONS
    function = getattr(loading, name, None) or getattr(loaders, name)
    _limit_memory(request["bytes"])
    signal.alarm(request["seconds"])
    try:
        files = {key: ParamsFile(path) for key, path in request["files"].items()}
        result = function(**arguments, **files)
        if name not in COMPUTING:
            return {"result": result}
        with open(request["result"], "wb") as file:
            write_params(file, {str(i): array for i, array in enumerate(result)})
        return {}
    except BertsymError as error:
        return {"error": type(error).__name__, "message": str(error)}
    except MemoryError:
        return {"error": "ModelError", "message": f"{arguments['where']}: too large for the memory that it may take"}
    except Exception as error:
        reason = (str(error).strip().splitlines() or [""])[0]
        message = f"{arguments['where']}: MXNet can't run it: {type(error).__name__}: {reason}"
        return {"error": "ModelError", "message": message}
    finally:
        signal.alarm(0)


def _limit_memory(nbytes: int) -> None:
    """Let the process grow by so much from where it is."""
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[0])
    hard = resource.getrlimit(resource.RLIMIT_AS)[1]
    wanted = pages * resource.getpagesize() + nbytes
    resource.setrlimit(resource.RLIMIT_AS, (wanted if hard == resource.RLIM_INFINITY else min(wanted, hard), hard))
