"""Check the limit of the address space (``ulimit -v``) before MXNet is imported.

If MXNet can't start its threads, or their first allocation fails, it kills the process with SIGSEGV or SIGABRT, or
hangs.
"""

from __future__ import annotations

import mmap
import os
import sys
from pathlib import Path

from bertsym.errors import BertsymError
from bertsym.processors import processor_count

try:
    import resource
except ImportError:  # Windows, which has no such limits
    resource = None  # type: ignore[assignment]

_MIB = 1 << 20
# Measured with mxnet 1.9.1: the lowest limits under which export, predict and finetune work with a model of a few KB.
_LIBRARIES = 380 * _MIB  # mxnet and the libraries that it loads
_BLAS_THREAD = 130 * _MIB  # per thread of OpenBLAS, except the first
_MODEL = 250 * _MIB  # graphs and arrays of a tiny model
_ENGINE_THREADS = 6  # in addition to the workers
_ARENA = 64 * _MIB  # reserved by glibc per thread, up to eight per processor
_ARENAS_PER_PROCESSOR = 8
_STACK = 2 * _MIB  # stack of a thread if the size of stacks is unlimited

#: Whether the system enforces a limit of address space; macOS takes RLIMIT_AS and does not heed it
CAN_LIMIT = resource is not None and sys.platform != "darwin"


def check_address_space(needed: int, threads: int) -> None:
    """Raise BertsymError if the limit leaves fewer than the `needed` bytes for this number of OpenMP threads."""
    if not CAN_LIMIT:
        return
    limit = resource.getrlimit(resource.RLIMIT_AS)[0]
    if limit == resource.RLIM_INFINITY:
        return
    left = max(0, limit - mapped_bytes())
    if left < needed:
        raise BertsymError(
            f"MXNet needs about {needed / 2**30:.1f} GiB of address space for OMP_NUM_THREADS={threads}, but the "
            f"limit (ulimit -v) leaves {left / 2**30:.1f} GiB: raise it, or set OMP_NUM_THREADS=1 or MALLOC_ARENA_MAX=1"
        )


def import_bytes(threads: int) -> int:
    """Return the bytes that an import of mxnet maps; they suffice to infer shapes."""
    return _LIBRARIES + _BLAS_THREAD * (min(threads, processor_count()) - 1)


def engine_bytes(workers: int, threads: int) -> int:
    """Return the bytes that are mapped in addition to run a tiny model; `threads` is per worker."""
    return _MODEL + thread_bytes(workers, threads)


def thread_bytes(workers: int, threads: int) -> int:
    """Return the bytes that the threads of MXNet's engine and their OpenMP threads map."""
    count = _ENGINE_THREADS + workers * threads
    stack = resource.getrlimit(resource.RLIMIT_STACK)[0] if CAN_LIMIT else _STACK
    most = os.environ.get("MALLOC_ARENA_MAX", "")
    arenas = int(most) - 1 if most.isdigit() and int(most) else _ARENAS_PER_PROCESSOR * (os.cpu_count() or 1)
    if CAN_LIMIT and stack == resource.RLIM_INFINITY:
        stack = _STACK
    return count * stack + min(count, arenas) * _ARENA


def limit_growth(nbytes: int) -> None:
    """Let this process map so many bytes more than it has, where the system can limit that.

    Raises OSError or ValueError when the system refuses the limit.
    """
    if CAN_LIMIT:
        hard = resource.getrlimit(resource.RLIMIT_AS)[1]
        wanted = mapped_bytes() + nbytes
        resource.setrlimit(resource.RLIMIT_AS, (wanted if hard == resource.RLIM_INFINITY else min(wanted, hard), hard))


def forbid_core_dumps() -> None:
    """Let a crash of this process write no core file; Windows writes none by itself."""
    if resource is not None:
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def mapped_bytes(statm: str = "/proc/self/statm") -> int:
    """Return the size of this process's address space; without /proc, by bisecting the limit."""
    try:
        return int(Path(statm).read_text(encoding="ascii").split()[0]) * mmap.PAGESIZE
    except OSError:
        pass
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    low, high = 0, (1 << 47 if soft == resource.RLIM_INFINITY else soft)
    try:
        while high - low > _MIB:
            middle = (low + high) // 2
            resource.setrlimit(resource.RLIMIT_AS, (middle, hard))
            try:
                mmap.mmap(-1, mmap.PAGESIZE).close()
                high = middle
            except OSError:
                low = middle
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))
    return high
