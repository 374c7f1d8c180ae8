"""Run untrusted graphs in the sandbox: a process of its own, with limits, that may crash without harm.

libmxnet traps its own segmentation faults and exits with 255; a graph that passed the validator can still cause one.
Each engine has one process, started when it is first needed and reused until it dies. Nothing that it returns is
unpickled: answers are JSON, arrays are .params files.

SIGALRM limits the time of a call, on Windows a timer of this process. Where the system can't limit memory (macOS,
Windows), a warning is logged when the sandbox process starts.
"""

from __future__ import annotations

import atexit
import contextlib
import functools
import json
import logging
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator, Mapping
from contextvars import ContextVar
from pathlib import Path
from typing import IO, Any

import numpy as np

from bertsym import errors
from bertsym.address_space import CAN_LIMIT
from bertsym.array import Array
from bertsym.errors import BertsymError, ModelError
from bertsym.execution.engines import ENGINES, STATIC, STATIC_ENGINE, engine_name, find_engine, load_engine
from bertsym.forking import ForkSafeLock, call_in_children
from bertsym.symbol.params import ParamsFile, write_params

#: limits of one call: memory beyond that of the idle process, and seconds
MAX_BYTES, MAX_SECONDS = 2 << 30, 15
#: further memory and seconds for each byte of its arrays
BYTES_PER_BYTE, SECONDS_PER_BYTE = 8, 120 / (1 << 30)

#: functions of an engine that may be called -> their arguments that are arrays by name
FUNCTIONS: dict[str, tuple[str, ...]] = {
    "list_outputs": (),
    "infer_shapes": (),
    "compute": ("params", "inputs"),
    "check_params": ("params",),
    "compute_loaded": ("params", "inputs"),
}
#: those whose result is a list of arrays
COMPUTING = ("compute", "compute_loaded")

#: Whether the sandbox process can limit its own time
HAS_ALARM = hasattr(signal, "SIGALRM")

_TRAPPED = 255  # the exit code of libmxnet's own handler of SIGSEGV and the like
_NTSTATUS_ERRORS = 0xC0000000  # exit codes of Windows from here on are crashes
_START = (
    "import sys; engine = sys.argv[1]; sys.path[:] = sys.argv[2:]; "
    "from bertsym.execution.sandbox_worker import main; main(engine)"
)
_logger = logging.getLogger(__name__)
_trusting: ContextVar[bool] = ContextVar("_trusting", default=False)


@contextlib.contextmanager
def trusting() -> Iterator[None]:
    """Run graphs of any origin in this process, without limits."""
    token = _trusting.set(True)
    try:
        yield
    finally:
        _trusting.reset(token)


def call(function: str, symbol: str, where: str, trusted: bool, **arguments: Any) -> Any:
    """Call one of FUNCTIONS of the engine: here where the graph is `trusted`, otherwise in the sandbox process.

    Raises what the function raises, and ModelError, naming `where`, when the process crashes or meets a limit.
    """
    arguments = {"symbol": symbol, "where": where, **arguments}
    if find_engine() is None and function in STATIC:
        return getattr(load_engine(STATIC_ENGINE), function)(**arguments)
    engine = engine_name()
    if trusted or _trusting.get():
        return getattr(load_engine(engine), function)(**arguments)
    with _lock:
        return _worker(engine).call(function, where, arguments)


class _Worker:
    """The sandbox process, and the folder that arrays pass through."""

    def __init__(self, engine: str) -> None:
        if not CAN_LIMIT:
            _warn_of_memory()
        self.engine = engine
        # No TemporaryDirectory, which a forked child would remove when it ends.
        self._folder = tempfile.mkdtemp(prefix="bertsym-")
        # Isolated, PYTHON* variables ignored: a folder of downloads as working directory must not give it modules.
        without = ["-B"] if sys.dont_write_bytecode else []
        command = [sys.executable, "-I", *without, "-W", "ignore", "-c", _START, engine]
        self._errors = Path(self._folder, "errors")
        with open(self._errors, "wb") as errors_file:
            self._process = subprocess.Popen(
                [*command, *(path or os.getcwd() for path in sys.path)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors_file,
                # An interrupt is for this process, which then ends the other.
                start_new_session=True,
                creationflags=getattr(subprocess, "CREATE_NEW_PROCESS_GROUP", 0),
                encoding="utf-8",
            )
        self._is_ready = False
        self._kept: tuple[Mapping[str, Array] | None, Path] = (None, Path())

    def call(self, function: str, where: str, arguments: dict[str, Any]) -> Any:
        """Send a call and return its result; end the process where waiting is interrupted."""
        try:
            if not self._is_ready:
                self._wait_until_ready()
            answer = self._answer(function, arguments, where)
        except BaseException:
            self.stop()
            raise
        if "error" in answer:
            raise getattr(errors, answer["error"])(answer["message"])
        if function not in COMPUTING:
            return answer["result"]
        with_values = ParamsFile(self._path("result"))
        return [np.array(with_values[str(i)]) for i in range(len(with_values))]

    def _wait_until_ready(self) -> None:
        """Read the first line of the process. Raises BertsymError when it fails before it has seen any graph."""
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line.endswith("\n"):
            printed = self._errors.read_text(encoding="utf-8", errors="replace").strip().splitlines()
            why = printed[-1] if printed else _how(self._process.wait())
            raise BertsymError(f"the sandbox process can't start: {why}; --trust runs the graph without a sandbox")
        if "error" in (answer := json.loads(line)):
            raise getattr(errors, answer["error"])(answer["message"])
        self._is_ready = True

    def _answer(self, function: str, arguments: dict[str, Any], where: str) -> dict[str, Any]:
        arrays = {name: arguments[name] for name in FUNCTIONS[function]}
        nbytes = sum(array.nbytes for values in arrays.values() for array in values.values())
        with contextlib.ExitStack() as stack:
            request = {
                "function": function,
                "arguments": {name: value for name, value in arguments.items() if name not in arrays},
                "files": {name: str(stack.enter_context(self._file(name, values))) for name, values in arrays.items()},
                "result": str(self._path("result")),
                "bytes": MAX_BYTES + BYTES_PER_BYTE * nbytes,
                "seconds": MAX_SECONDS + int(SECONDS_PER_BYTE * nbytes),
            }
            return self._ask(request, where)

    def _ask(self, request: Mapping[str, Any], where: str) -> dict[str, Any]:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        seconds, timed_out = request["seconds"], threading.Event()

        def end() -> None:
            timed_out.set()
            self._process.kill()

        with _timer(seconds, end):
            try:
                self._process.stdin.write(json.dumps(request) + "\n")
                self._process.stdin.flush()
                line = self._process.stdout.readline()
            except OSError:  # BrokenPipeError, and EINVAL on Windows
                line = ""
        if not line.endswith("\n"):
            code, label = self._process.wait(), ENGINES[self.engine].label
            if timed_out.is_set() or (HAS_ALARM and code == -signal.SIGALRM):
                raise ModelError(f"{where}: {label} did not finish within {seconds} seconds; --trust removes the limit")
            raise ModelError(f"{where}: {_end(code, label)}")
        answer: dict[str, Any] = json.loads(line)
        return answer

    @contextlib.contextmanager
    def _file(self, name: str, values: Mapping[str, Array]) -> Iterator[Path]:
        """A file with these arrays: their own, one that was written for the call before, or a new one."""
        if isinstance(values, ParamsFile):
            with values.at_path() as path:
                yield path
            return
        path = self._path(name)
        if name != "params" or self._kept[0] is not values:
            with open(path, "wb") as file:
                write_params(file, values)
        if name == "params":
            self._kept = (values, path)
        yield path

    def _path(self, name: str) -> Path:
        return Path(self._folder, f"{name}.params")

    @property
    def is_alive(self) -> bool:
        """Whether the process runs."""
        return self._process.poll() is None

    def stop(self) -> None:
        """End the process and remove the folder."""
        self._process.kill()
        self._process.wait()
        for pipe in self._pipes:
            with contextlib.suppress(OSError):
                pipe.close()
        shutil.rmtree(self._folder, ignore_errors=True)

    def abandon(self) -> None:
        """Leave the process to the parent of this forked process; it ends when the parent closes its input."""
        nowhere = os.open(os.devnull, os.O_RDWR)
        for pipe in self._pipes:
            os.dup2(nowhere, pipe.fileno())  # not closed: what a buffer holds would be written somewhere else
        os.close(nowhere)

    @property
    def _pipes(self) -> list[IO[str]]:
        return [pipe for pipe in (self._process.stdin, self._process.stdout) if pipe is not None]


_lock = ForkSafeLock()
_running: dict[str, _Worker] = {}  # by engine
_abandoned: list[_Worker] = []  # kept, or their pipes would be closed


def _worker(engine: str) -> _Worker:
    """The process of an engine, started when it is first needed and after it died."""
    if engine in _running and not _running[engine].is_alive:
        _running.pop(engine).stop()
    if engine not in _running:
        _running[engine] = _Worker(engine)
    return _running[engine]


@atexit.register
def _stop() -> None:
    while _running:
        _running.popitem()[1].stop()


def _abandon() -> None:
    while _running:
        _abandoned.append(_running.popitem()[1])
        _abandoned[-1].abandon()


call_in_children(_abandon)


@functools.cache
def _warn_of_memory() -> None:
    _logger.warning("note: this system can't limit the memory of the sandbox; a hostile file may use all of it")


@contextlib.contextmanager
def _timer(seconds: float, function: Callable[[], object]) -> Iterator[None]:
    """Call a function, in a thread, unless the block ends in time; nothing where the sandbox process has an alarm."""
    if HAS_ALARM:
        yield
        return
    timer = threading.Timer(seconds, function)
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


def _end(code: int, engine: str) -> str:
    """Why the process ended."""
    if 0 <= code < _NTSTATUS_ERRORS and code != _TRAPPED:
        return f"the sandbox process ended ({_how(code)}); --trust runs the graph without a sandbox"
    return f"{engine} crashed on it ({_how(code)}): the file is damaged or malicious"


def _how(code: int) -> str:
    return f"exit code {code}" if code >= 0 else signal.Signals(-code).name
