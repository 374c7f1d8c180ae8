"""CRC-32C (Castagnoli), the checksum of TensorFlow's checkpoints, with numpy: a table alone takes seconds per megabyte.

A checksum of zero bytes in front of data, from the state 0, is that of the data; and the state after two pieces of data
is that after the first one, advanced by as many zero bytes as the second one has, xor that of the second one alone
from 0. So one piece is cut into lanes, which advance together, and are then merged in pairs.
"""

from __future__ import annotations

import functools
from typing import Any

import numpy as np
from numpy.typing import NDArray

_POLYNOMIAL = 0x82F63B78  # bits reversed
_ONES = 0xFFFFFFFF
_LANES = (1 << 12, 1 << 6)  # for all but the end, and for most of the end: the fastest of those that were measured
_LEAST = 4  # bytes of a lane: the state, which is xored into the first lane, must not reach into the second one
_PIECE = 1 << 24  # bytes that are copied at once

_States = NDArray[np.uint32]


def crc32c(data: bytes | NDArray[np.uint8]) -> int:
    """Compute the checksum of bytes."""
    array = np.frombuffer(data, np.uint8) if isinstance(data, bytes) else data
    state = _ONES
    for lanes in _LANES:
        end = len(array) // (_LEAST * lanes) * _LEAST * lanes
        for begin in range(0, end, _PIECE):
            state = _advance(state, array[begin : min(begin + _PIECE, end)], lanes)
        array = array[end:]
    one, _ = _tables()
    for byte in array.tolist():
        state = int(one[(state ^ byte) & 0xFF]) ^ state >> 8
    return state ^ _ONES


def unmask(masked: int) -> int:
    """Undo the mask under which files of LevelDB and TensorFlow store a checksum."""
    rotated = masked - 0xA282EAD8 & _ONES
    return (rotated >> 17 | rotated << 15) & _ONES


@functools.cache
def _tables() -> tuple[_States, _States]:
    """The states after one byte and after two bytes (the first one is the lower), from 0."""
    one = np.arange(1 << 8, dtype=np.uint32)
    for _ in range(8):
        one = np.where(one & 1, one >> 1 ^ np.uint32(_POLYNOMIAL), one >> 1)
    pairs = np.arange(1 << 16, dtype=np.uint32)
    first = one[pairs & 0xFF]
    return one, one[(first ^ pairs >> 8) & 0xFF] ^ first >> 8


def _advance(state: int, data: NDArray[np.uint8], lanes: int) -> int:
    """Return the state after data of a multiple of `_LEAST * lanes` bytes."""
    _, two = _tables()
    words = np.ascontiguousarray(data.view("<u2").reshape(lanes, -1).T)  # (words of a lane, lanes)
    words[:2, 0] ^= np.array([state & 0xFFFF, state >> 16], np.uint16)
    states = np.zeros(lanes, np.uint32)
    for column in words:
        states = two[(states ^ column) & 0xFFFF] ^ states >> 16
    zeros = _zeros(2 * len(words))
    while len(states) > 1:
        states = _apply(zeros, states[::2]) ^ states[1::2]
        zeros = _apply(zeros, zeros)
    return int(states[0])


@functools.lru_cache(maxsize=64)
def _zeros(count: int) -> _States:
    """What an even number of zero bytes makes of each bit of a state."""
    if count == 2:
        _, two = _tables()
        bits = np.uint32(1) << np.arange(32, dtype=np.uint32)
        return _states(two[bits & 0xFFFF] ^ bits >> 16)
    half = _zeros(count // 4 * 2)
    doubled = _apply(half, half)
    return _apply(_zeros(2), doubled) if count % 4 else doubled


def _apply(operator: _States, states: _States) -> _States:
    """Apply a linear operator, given by what it makes of each bit, to each of the states."""
    result = np.zeros_like(states)
    for bit, image in enumerate(operator):
        result ^= (states >> np.uint32(bit) & np.uint32(1)) * image
    return result


def _states(array: Any) -> _States:
    return np.asarray(array, np.uint32)
