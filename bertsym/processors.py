"""The processors that this process may use."""

from __future__ import annotations

import os
import platform
import re
from pathlib import Path

#: instruction sets without VNNI to which oneDNN can be limited
_WITHOUT_VNNI = ("SSE41", "AVX", "AVX2", "AVX512_MIC", "AVX512_MIC_4OPS", "AVX512_CORE")


def processor_count() -> int:
    """Return how many processors this process may use; on systems without affinity (macOS, Windows), all of them."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def processor_flags() -> set[str]:
    """Return the processor's flags, as Linux names them; none elsewhere."""
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="ascii", errors="replace")
    except OSError:
        return set()
    match = re.search(r"^flags\s*:(.*)$", text, re.MULTILINE)
    return set(match[1].split()) if match else set()


def may_saturate() -> bool:
    """Whether sums of two products of int8 may saturate in int16: on x86-64 without VNNI, or if that is unknown.

    MXNet 1.9.1's int8 layers then compute something else than on other processors: with DNNL_MAX_CPU_ISA=AVX2, or
    AVX512_CORE, outputs of a layer differed by up to 18 % of their scale. oneDNN ignores other spellings of these.
    """
    if platform.machine().lower() not in ("x86_64", "amd64"):
        return False
    return os.environ.get("DNNL_MAX_CPU_ISA") in _WITHOUT_VNNI or not {"avx512_vnni", "avx_vnni"} & processor_flags()
