"""Random masks of dropout, drawn by numpy."""

from __future__ import annotations

import numpy as np

from bertsym.array import Array

_STEPS = 1 << 16  # each element of a mask is decided by 16 random bits


def sample_dropout_mask(generator: np.random.Generator, p: float, out: Array) -> None:
    """Fill a float32 mask: 0 with probability p, rounded to 1/65536, and else the number that keeps the mean at 1."""
    dropped = min(round(p * _STEPS), _STEPS - 1)
    words = generator.integers(1 << 64, size=-(-out.size // 4), dtype=np.uint64, endpoint=False)
    kept = words.view(np.uint16)[: out.size].reshape(out.shape) >= dropped
    np.multiply(kept, np.float32(_STEPS / (_STEPS - dropped)), out=out)
