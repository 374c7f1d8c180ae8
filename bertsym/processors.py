"""The processors that this process may use."""

from __future__ import annotations

import os


def processor_count() -> int:
    """Return how many processors this process may use; on systems without affinity (macOS, Windows), all of them."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
