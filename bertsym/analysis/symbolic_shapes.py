"""Shapes with free axes: a size is a number, or a product of names and numbers such as ``T*16``."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Union

Axis = Union[int, str]
Axes = tuple[Axis, ...]
BATCH, LENGTH = "N", "T"  #: names of the free axes
UNKNOWN = "?"


def factors(axis: Axis) -> list[str]:
    """Split an axis into its factors, from the slowest to the fastest in memory."""
    return str(axis).split("*")


def join_axes(axes: Sequence[Axis]) -> Axis:
    """Join consecutive axes into one."""
    found: list[str] = []
    for part in (part for axis in axes for part in factors(axis) if part != "1"):
        if part.isdigit() and found and found[-1].isdigit():
            found[-1] = str(int(found[-1]) * int(part))
        else:
            found.append(part)
    return int(found[0]) if len(found) == 1 and found[0].isdigit() else "*".join(found) or 1


def reshape(axes: Axes, codes: Sequence[int | None], length: int | None = None) -> tuple[Axes, int | None] | None:
    """Apply MXNet's Reshape; returns the new axes and the sequence length that the numbers imply, or None if unclear.

    The code 0 keeps an axis, -1 stands for the remaining size, -2 for all further axes, and -3 joins two axes.
    A reshape keeps the order of the elements, so each new axis consists of consecutive old factors. `length` is the
    fixed length of the graph, if it has one.
    """
    wanted = _decode_shape(axes, codes)
    if wanted is None or wanted.count(None) > 1:
        return None
    supposed = None if length or None in wanted else _implied_length(axes, [axis for axis in wanted if axis])
    length = length or supposed
    hole = wanted.index(None) if None in wanted else len(wanted)
    left = _Factors(axes, length)
    before = [left.take(axis) for axis in wanted[:hole] if axis is not None]
    right = left.reversed()
    after = [right.take(axis) for axis in reversed(wanted[hole + 1 :]) if axis is not None]
    found: list[Axis | None] = [*before, *([right.reversed().rest()] if None in wanted else []), *reversed(after)]
    if None in found or (None not in wanted and right.rest() != 1):
        return None
    return tuple(axis for axis in found if axis is not None), supposed


def _implied_length(axes: Axes, wanted: Sequence[Axis]) -> int | None:
    """The length that makes the numbers of a new shape fit, if only the length is free."""
    names, number = _free_factors(axes), _fixed_product(axes)
    if sorted([*_free_factors(wanted), LENGTH]) != sorted(names) or _fixed_product(wanted) % number:
        return None
    return _fixed_product(wanted) // number


def _free_factors(axes: Sequence[Axis]) -> list[str]:
    return [part for axis in axes for part in factors(axis) if not part.isdigit()]


def _fixed_product(axes: Sequence[Axis]) -> int:
    return math.prod(int(part) for axis in axes for part in factors(axis) if part.isdigit())


def _decode_shape(axes: Axes, codes: Sequence[int | None]) -> list[Axis | None] | None:
    """Decode a Reshape's codes to axes; None stands for the remaining size."""
    found: list[Axis | None] = []
    place = 0
    for code in codes:
        if code == -2:
            found += axes[place:]
            place = len(axes)
        elif code == -3 and place + 1 < len(axes):
            found.append(join_axes(axes[place : place + 2]))
            place += 2
        elif code == 0 and place < len(axes):
            found.append(axes[place])
            place += 1
        elif code == -1 or (code is not None and code > 0):
            found.append(None if code == -1 else code)
            place += 1
        else:
            return None
    return found


class _Factors:
    """The factors of a shape that are not used yet."""

    def __init__(self, axes: Sequence[Axis], length: int | None, *, backwards: bool = False) -> None:
        self.left = [part for axis in axes for part in factors(axis) if part != "1"]
        self.length = length  #: a number that may stand for LENGTH
        self.backwards = backwards

    def reversed(self) -> _Factors:
        """Return the same factors in reverse order."""
        return _Factors(self.left[::-1], self.length, backwards=not self.backwards)

    def rest(self) -> Axis:
        """Join the remaining factors into one axis."""
        return join_axes(self.left)

    def take(self, axis: Axis) -> Axis | None:
        """Use up the factors of a new axis; None if the next factors differ."""
        used: list[Axis] = []
        for part in factors(axis)[::-1] if self.backwards else factors(axis):
            found = self._take_number(int(part)) if part.isdigit() else self._take_name(part)
            if found is None:
                return None
            used += found
        return join_axes(used[::-1] if self.backwards else used)

    def _take_name(self, name: str) -> list[Axis] | None:
        if self.left[:1] != [name]:
            return None
        del self.left[0]
        return [name]

    def _take_number(self, number: int) -> list[Axis] | None:
        used: list[Axis] = []
        while number > 1:
            if not self.left:
                return None
            factor = self.left[0]
            if factor.isdigit():
                common = math.gcd(number, int(factor))
                if common not in (number, int(factor)):
                    return None
                used.append(common)
                number //= common
                self.left[:1] = [str(int(factor) // common)] if int(factor) > common else []
            elif factor == LENGTH and self.length and number % self.length == 0:
                # A length given as a number stays a free axis.
                used.append(LENGTH)
                number //= self.length
                del self.left[0]
            else:
                return None
        return used


def rename_axes(axes: Axes, names: Mapping[str, str]) -> Axes:
    """Rename free axes, in products too: ``4*N`` becomes ``4*batch``."""
    return tuple(
        "*".join(names.get(part, part) for part in axis.split("*")) if isinstance(axis, str) else axis for axis in axes
    )
