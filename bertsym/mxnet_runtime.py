"""Import mxnet and gluonnlp lazily, in a prepared environment.

``mx`` and ``nlp`` import the libraries on first use, so that ``--help`` and usage errors do not pay for the import.
Environment variables that the user has set are never overridden.
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
import importlib
import importlib.util
import os
import re
import sys
import threading
import warnings
from collections.abc import Callable, Iterator
from typing import Any

from bertsym.address_space import check_address_space, engine_bytes, import_bytes
from bertsym.compat.imports import repair
from bertsym.compat.installing import library_errors
from bertsym.errors import ModelError
from bertsym.forking import call_in_children, call_in_parents, no_fork
from bertsym.processors import processor_count

_PATIENCE = 10.0  # seconds to wait for the workers of MXNet's engine

_settings: list[str] = []
_prepared = False
_sharing: int | None = None  # number of executors that share the threads
_sharing_lock = threading.Lock()  # without it, tasks of two calls wait for each other's workers
_worker_count = "MXNET_CPU_WORKER_NTHREADS"  # the variable that MXNet reads


def is_installed(name: str) -> bool:
    """Whether a package can be found, without importing it."""
    if name in sys.modules:
        return True
    try:
        return importlib.util.find_spec(name) is not None
    except ImportError:  # raised by an import hook
        return False


def prepare_environment() -> list[str]:
    """Set threads and BLAS kernel for mxnet and restore removed names of numpy; return the settings as ``NAME=value``.

    A second call changes nothing. Libraries that are already loaded are not affected.
    """
    global _prepared
    if not _prepared:
        _prepared = True
        # MXNet's own default is half of the processors.
        _set_default("OMP_NUM_THREADS", str(processor_count()))
        if "mxnet" not in sys.modules:
            # Executors that run at the same time; each may have several OpenMP threads.
            _set_default("MXNET_CPU_WORKER_NTHREADS", "2")
            # Each bound executor gets one of MXNet's scratch buffers for the CPU, in rotation: of 4 by default.
            # Executors with the same buffer wait for each other, so that two workers compute one batch at a time. A
            # buffer is allocated when it is used first: 64 take no more memory.
            _set_default("MXNET_CPU_TEMP_COPY", "64")
        # Spin briefly: threads are still awake when the next operator begins, and idle threads free their processor.
        # Without the active policy, libgomp hardly spins if it has more threads than processors, as it does with
        # several workers of the engine.
        _set_default("OMP_WAIT_POLICY", "active")
        _set_default("GOMP_SPINCOUNT", "20000")
        if _has_avx2():
            # The OpenBLAS in mxnet's wheel falls back to a slow kernel on processors that are newer than OpenBLAS.
            _set_default("OPENBLAS_CORETYPE", "Haswell")
        # Otherwise MXNet prints "Subgraph backend MKLDNN is activated" at every bind.
        _set_default("MXNET_SUBGRAPH_VERBOSE", "0")
        if repaired := repair():
            _settings.append("restored " + ", ".join(repaired))
    return list(_settings)


def engine_workers() -> int:
    """Return the number of executors that MXNet runs at a time on the CPU."""
    prepare_environment()
    return int(os.environ.get(_worker_count, "1"))


def openmp_threads() -> int:
    """Return the number of OpenMP threads of one of MXNet's workers."""
    prepare_environment()
    # One number, or one per level of nesting; libgomp ignores a value that is not a number.
    first = os.environ["OMP_NUM_THREADS"].partition(",")[0].strip()
    return int(first) if first.isdigit() and int(first) else processor_count()


def share_threads(executors: int) -> None:
    """Divide the OpenMP threads, OMP_NUM_THREADS, among `executors` that run at the same time on the CPU.

    Each worker of MXNet's engine has its own number of threads, which can be changed while the worker is idle.
    Nothing changes if there is one worker, as when mxnet is imported before bertsym.
    """
    global _sharing
    with no_fork(), _sharing_lock:
        workers = engine_workers()
        if workers == 1 or executors == _sharing or os.environ.get("MXNET_ENGINE_TYPE") == "NaiveEngine":
            return
        try:
            openmp = ctypes.CDLL("libgomp.so.1")
        except OSError:  # this mxnet uses another OpenMP
            return
        threads = max(1, openmp_threads() // executors)
        _on_each_worker(workers, lambda: openmp.omp_set_num_threads(threads))
        _sharing = executors


def _forget_sharing() -> None:
    """After a fork MXNet has new workers, in the parent too, with its own number of threads."""
    global _sharing
    _sharing = None


def _after_in_child() -> None:
    """Read the variable that MXNet uses in a forked child, where it restarts its engine."""
    global _worker_count
    _forget_sharing()
    if "mxnet" in sys.modules:
        _worker_count = "MXNET_MP_WORKER_NTHREADS"


call_in_parents(_forget_sharing)
call_in_children(_after_in_child)


def _on_each_worker(workers: int, call: Callable[[], object]) -> None:
    """Call `call` once on each CPU worker of the idle engine."""
    # No task ends before all have begun, so each worker takes one task.
    together, ended = threading.Barrier(workers, timeout=_PATIENCE), threading.Semaphore(0)

    def task(context: object, parameter: object) -> None:
        with contextlib.suppress(threading.BrokenBarrierError):
            together.wait()
            call()
        ended.release()

    function = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_void_p)(task)
    cpu = (ctypes.c_int32 * 2)(1, 0)  # kind and number of the device
    arguments = (function, None, None, cpu, None, 0, None, 0, None, 0, b"share_threads")
    mx.nd.waitall()
    for _ in range(workers):
        mx.base.check_call(mx.base._LIB.MXEnginePushSync(*arguments))
    for _ in range(workers):
        ended.acquire()


@contextlib.contextmanager
def mxnet_errors(where: str) -> Iterator[None]:
    """Convert errors of libmxnet to one-line ModelErrors, and delay forks by other threads."""
    try:
        with no_fork():
            yield
    except Exception as error:
        # Module.bind raises a RuntimeError instead.
        if type(error).__name__ != "MXNetError" and not str(error).startswith("simple_bind error"):
            raise
        raise ModelError(f"{where}: MXNet can't run it: {_reason(str(error))}") from None


def _reason(message: str) -> str:
    """Shorten MXNet's message to one line, without stack trace, time stamps, source lines and lists of arguments."""
    lines = [line.strip() for line in message.splitlines() if line.strip()] or [message]
    text = lines[-1]
    if text.startswith(", in operator") and "MXNetError: " in message:
        text = message.partition("MXNetError: ")[2].splitlines()[0].partition(", Possible Arguments")[0] + text
    text = text.removeprefix("MXNetError: ")
    text = re.sub(r"\[\d\d:\d\d:\d\d\] \S+:\d+: ", "", text)
    return re.sub(r"Check failed: .*?: (?=\S)", "", text, count=1)


@contextlib.contextmanager
def quiet_stderr() -> Iterator[None]:
    """Silence the messages that libmxnet prints, such as "Loading symbol saved by previous version"."""
    try:
        sys.stderr.flush()
        kept = os.dup(2)
    except (OSError, AttributeError, ValueError):  # there is no standard error
        yield
        return
    nowhere = os.open(os.devnull, os.O_WRONLY)
    with no_fork():  # otherwise a child would stay silenced
        try:
            os.dup2(nowhere, 2)
            yield
        finally:
            os.dup2(kept, 2)
            os.close(kept)
            os.close(nowhere)


@contextlib.contextmanager
def without_fusion() -> Iterator[None]:
    """Bind without oneDNN's operator fusion.

    If both a FullyConnected and its activation are outputs of a graph, MXNet 1.9.1 fuses them nevertheless and
    returns the FullyConnected for both.
    """
    name = "MXNET_SUBGRAPH_BACKEND"
    with no_fork():  # otherwise a child would keep the variable
        kept = os.environ.get(name)
        os.environ[name] = "NONE"
        try:
            yield
        finally:
            if kept is None:
                del os.environ[name]
            else:
                os.environ[name] = kept


def _set_default(name: str, value: str) -> None:
    if name not in os.environ:
        os.environ[name] = value
        _settings.append(f"{name}={value}")


def _has_avx2() -> bool:
    try:
        with open("/proc/cpuinfo", encoding="ascii", errors="replace") as file:
            return any(line.startswith("flags") and " avx2 " in f"{line.rstrip()} " for line in file)
    except OSError:
        return False


@contextlib.contextmanager
def _as_worker() -> Iterator[None]:
    """Keep the import of mxnet from starting a parameter server, which would unpickle untrusted data."""
    role = os.environ.get("DMLC_ROLE")
    if role is not None:
        os.environ["DMLC_ROLE"] = "worker"
    try:
        yield
    finally:
        if role is not None:
            os.environ["DMLC_ROLE"] = role


def import_library(name: str, *, computes: bool = True) -> Any:
    """Import mxnet or gluonnlp in a prepared environment.

    Raises BertsymError if the address space is too small to infer shapes or, with `computes`, to run a model;
    InstallationError if the library is missing or can't be loaded.
    """
    if name not in sys.modules:
        prepare_environment()
        if "mxnet" not in sys.modules:
            threads = openmp_threads()
            needed = import_bytes(threads) + (engine_bytes(engine_workers(), threads) if computes else 0)
            check_address_space(needed, threads)
    with no_fork(), warnings.catch_warnings(), _as_worker(), library_errors(), _without_collections():
        # mxnet and gluonnlp, which are no longer maintained, raise DeprecationWarnings.
        warnings.simplefilter("ignore")
        return importlib.import_module(name)


@contextlib.contextmanager
def _without_collections() -> Iterator[None]:
    """Keep Python from collecting garbage, of which an import leaves none: a tenth of its time."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


class _Lazy:
    """A library that is imported, in a prepared environment, when one of its attributes is first used."""

    def __init__(self, name: str) -> None:
        self._name = name

    def __getattr__(self, attribute: str) -> Any:
        value = getattr(import_library(self._name), attribute)
        setattr(self, attribute, value)
        return value


mx: Any = _Lazy("mxnet")
nlp: Any = _Lazy("gluonnlp")
