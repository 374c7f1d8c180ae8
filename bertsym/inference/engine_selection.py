"""Choose the engine that predicts fastest on this machine, for one text and for many, by measurement.

What was measured is kept in a file of the user's cache folder, by processor, threads, versions and model.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bertsym.array import Array
from bertsym.atomic_writing import write_atomically
from bertsym.compat.installing import installed_version
from bertsym.errors import DataError, ModelError
from bertsym.forking import ForkSafeLock
from bertsym.inference.row_predictor import RowPredictor, T
from bertsym.mxnet_runtime import openmp_threads
from bertsym.text.features import Features
from bertsym.text.tokenizer import Encoded

_FILE = "engines.json"
_PACKAGES = ("bertsym", "mxnet", "onnxruntime", "onnx", "numpy")
_MARGIN = 0.97  # another engine than the first must take less than this fraction of the first one's time
_ROUNDS = 5


@dataclass(frozen=True)
class Kind:
    """A kind of batch, and what stands for it in the measurement."""

    title: str
    most_rows: int | None  #: None: any number
    longest: int | None  #: tokens of the longest text; None: any number
    rows: int
    tokens: int

    def fits(self, features: Features) -> bool:
        """Whether a batch is of this kind."""
        few = self.most_rows is None or len(features) <= self.most_rows
        return few and (self.longest is None or int(features.lengths.max()) <= self.longest)


#: the first one that fits counts
KINDS = (
    Kind("single texts of up to 32 tokens", 1, 32, 1, 16),
    Kind("single texts of up to 96 tokens", 1, 96, 1, 64),
    Kind("longer single texts", 1, None, 1, 128),
    Kind("several texts", None, None, 64, 48),
)


class SelectingPredictor(RowPredictor):
    """Computes each batch by the engine that is fastest for its kind; the outputs agree within the tolerance.

    Args:
        opened: name of an engine -> what opens its predictor. The first one is taken where they are equally fast, and
            where the other one raises ModelError.
        model: what the speed depends on, to find earlier measurements of the same model again.
        max_length: tokens of the longest text of the model.
        report: called with a sentence when a kind of batch first occurs.
    """

    def __init__(
        self,
        opened: dict[str, Callable[[], RowPredictor]],
        model: str,
        max_length: int,
        report: Callable[[str], object] = lambda text: None,
    ) -> None:
        self._open, self._max_length, self._report = dict(opened), max_length, report
        self._predictors: dict[str, RowPredictor] = {}
        self._chosen: dict[str, str] = {}  #: title of a kind -> engine
        self._lock = ForkSafeLock()  # of opening and choosing
        self._key = _describe_machine(model)

    def each(
        self,
        features: Features,
        keep: Callable[[Array, Encoded], T],
        on_rows: Callable[[int], object] = lambda count: None,
    ) -> list[T]:
        """Return what `keep` returns for each example, as `RowPredictor.each` describes."""
        if not len(features):
            raise DataError("no rows: give at least one text")
        with self._lock:
            predictor = self._predictor(self._choose(features))
        return predictor.each(features, keep, on_rows)

    def _predictor(self, engine: str) -> RowPredictor:
        if engine not in self._predictors:
            self._predictors[engine] = self._open[engine]()
        return self._predictors[engine]

    def _choose(self, features: Features) -> str:
        kind = next(kind for kind in KINDS if kind.fits(features))
        if kind.title not in self._chosen:
            known = _read_cache().get(self._key, {}).get(kind.title)
            if _is_measurement(known, self._open):
                seconds = known
            else:
                self._drop_failing()
                seconds = self._measure(kind, features.examples[0])
                _write_cache(self._key, kind.title, seconds)
            first, *others = self._open
            best = min(others, key=lambda engine: seconds[engine], default=first)
            self._chosen[kind.title] = best if seconds[best] < _MARGIN * seconds[first] else first
            measured = ", ".join(f"{engine} {1000 * taken:.1f} ms" for engine, taken in seconds.items())
            self._report(f"engine {self._chosen[kind.title]} for {kind.title} ({measured})")
        return self._chosen[kind.title]

    def _drop_failing(self) -> None:
        """Leave out the engines that can't run the graph, but the first one."""
        for engine in list(self._open)[1:]:
            try:
                self._predictor(engine)
            except ModelError as error:
                del self._open[engine]
                self._report(f"engine {engine} is not used: {error}")

    def _measure(self, kind: Kind, example: Encoded) -> dict[str, float]:
        """Time copies of the ids of an example, by each engine in turn."""
        length = min(kind.tokens, self._max_length)
        ids, types = ((values * length)[:length] for values in (example.token_ids[:1], example.token_types[:1]))
        features = Features([Encoded(ids, types, False, 0)] * kind.rows)
        seconds: dict[str, list[float]] = {engine: [] for engine in self._open}
        for _ in range(1 + _ROUNDS):  # the first binds
            for engine, taken in seconds.items():
                predictor, start = self._predictor(engine), time.perf_counter()
                predictor.each(features, lambda output, example: None)
                taken.append(time.perf_counter() - start)
        return {engine: statistics.median(taken[1:]) for engine, taken in seconds.items()}


def _describe_machine(model: str) -> str:
    """Return a digest of what measurements depend on."""
    with contextlib.suppress(OSError), open("/proc/cpuinfo", encoding="utf-8", errors="replace") as file:
        model += "".join(sorted({line for line in file if line.startswith(("model name", "flags"))}))
    versions = [installed_version(name) for name in _PACKAGES]
    return hashlib.sha256(repr((model, versions, openmp_threads())).encode()).hexdigest()


def _cache_path() -> Path:
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "bertsym" / _FILE


def _read_cache() -> dict[str, Any]:
    """Read what was measured; an unreadable file is as none."""
    try:
        found = json.loads(_cache_path().read_text(encoding="utf-8"))
    except (OSError, ValueError, RuntimeError):  # RuntimeError: there is no home
        return {}
    return found if isinstance(found, dict) and all(isinstance(value, dict) for value in found.values()) else {}


def _is_measurement(found: Any, engines: dict[str, Any]) -> bool:
    """Whether a value of the cache has a positive number for each engine."""
    if not isinstance(found, dict) or found.keys() != engines.keys():
        return False
    return all(type(value) is float and 0 < value < float("inf") for value in found.values())


def _write_cache(key: str, kind: str, seconds: dict[str, float]) -> None:
    """Add a measurement; where the folder can't be written, the next process measures again."""
    cache = _read_cache()
    cache[key] = {**cache.get(key, {}), kind: seconds}
    with contextlib.suppress(OSError, RuntimeError):
        path = _cache_path()
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, json.dumps(cache, indent=1).encode())
