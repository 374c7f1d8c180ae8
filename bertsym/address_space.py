"""The address space that MXNet needs, compared with its limit (``ulimit -v``) before MXNet is imported.

Where its threads can't start, or their first allocation fails, MXNet ends the process by SIGSEGV or SIGABRT, or waits
for ever.
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
# Measured with mxnet 1.9.1: the lowest limits under which a model of a few KB is exported, predicted and trained.
_LIBRARIES = 380 * _MIB  # mxnet and what it loads
_BLAS_THREAD = 130 * _MIB  # for each thread of its OpenBLAS but the first
_MODEL = 250 * _MIB  # graphs, and arrays of a tiny model
_ENGINE_THREADS = 6  # besides the workers
_ARENA = 64 * _MIB  # that glibc reserves for each thread, up to eight for each processor
_ARENAS_PER_PROCESSOR = 8
_STACK = 2 * _MIB  # of a thread where stacks are not limited

#: Whether the system enforces a limit of address space; macOS takes RLIMIT_AS and does not heed it
CAN_LIMIT = resource is not None and sys.platform != "darwin"


def check_address_space(needed: int, threads: int) -> None:
    """Raise BertsymError where the limit leaves less than `needed` bytes, which depend on the OpenMP threads."""
    if not CAN_LIMIT:
        return
    limit = resource.getrlimit(resource.RLIMIT_AS)[0]
    if limit == resource.RLIM_INFINITY:
        return
    left = max(0, limit - mapped_bytes())
    if left < needed:
        raise BertsymError(
            f"MXNet needs about {needed / 2**30:.1f} GiB of address space for OMP_NUM_THREADS={threads}, the limit "
            f"(ulimit -v) leaves {left / 2**30:.1f} GiB: raise it, or set OMP_NUM_THREADS=1 or MALLOC_ARENA_MAX=1"
        )


def import_bytes(threads: int) -> int:
    """What an import of mxnet maps, enough to infer shapes."""
    return _LIBRARIES + _BLAS_THREAD * (min(threads, processor_count()) - 1)


def engine_bytes(workers: int, threads: int) -> int:
    """What is mapped besides when a tiny model is computed, with so many workers and OpenMP threads of each."""
    return _MODEL + thread_bytes(workers, threads)


def thread_bytes(workers: int, threads: int) -> int:
    """What the threads of MXNet's engine and their OpenMP threads map."""
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
    """Address space of this process; found by trying limits where /proc is absent."""
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
