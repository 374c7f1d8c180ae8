"""What computes graphs: MXNet itself, or onnxruntime by the converter to ONNX.

An engine is one module with the functions of `Engine` and one row of ENGINES.
"""

from __future__ import annotations

import contextlib
import importlib
from collections.abc import Callable, Collection, Iterator, Mapping
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Protocol, cast

from bertsym.array import Array
from bertsym.compat.installing import install_command, installed_version
from bertsym.errors import InstallationError, UsageError
from bertsym.mxnet_runtime import is_installed
from bertsym.symbol.params import Parameters

Shape = tuple[int, ...]
#: from inputs by name to all outputs
Forward = Callable[[Mapping[str, Array]], list[Array]]


class Engine(Protocol):
    """Functions that an engine's module has; each takes the JSON of a symbol, and `where` for messages.

    They raise ModelError for a symbol that the engine does not load or can't run.
    """

    def prepare(self) -> None:
        """Import the libraries; raises BertsymError when one does not import."""

    def list_outputs(self, symbol: str, where: str) -> list[str]:
        """What MXNet calls the outputs."""

    def infer_shapes(
        self, symbol: str, where: str, shapes: Mapping[str, Shape]
    ) -> tuple[dict[str, Shape | None], list[Shape | None]]:
        """The shapes of the variables by name, and of the outputs, as far as they follow from `shapes`."""

    def bind(self, symbol: str, where: str, params: Mapping[str, Array], sample: Mapping[str, Array]) -> Forward:
        """A function that computes the outputs for inputs like the `sample`, of other sizes too; not sandboxed."""

    def compute(
        self, symbol: str, where: str, fused: bool, params: Mapping[str, Array], inputs: Mapping[str, Array]
    ) -> list[Array]:
        """The elements of the outputs at inference; raises DataError when the shapes of the inputs are not enough."""

    def check_params(self, symbol: str, where: str, others: Collection[str], params: Parameters) -> None:
        """Raise VerificationError unless a file holds each parameter of the symbol, and no others than these."""

    def compute_loaded(
        self,
        symbol: str,
        where: str,
        loader: str,
        labels: Collection[str],
        params: Parameters,
        inputs: Mapping[str, Array],
    ) -> list[Array]:
        """What one of the engine's ways to load a checkpoint computes."""


@dataclass(frozen=True)
class EngineInfo:
    """What is known of an engine without importing it."""

    label: str  #: its name in messages
    packages: tuple[str, ...]  #: that must be installed; the first one's version is the engine's
    loaders: tuple[str, ...]  #: ways to load a checkpoint, each of which is verified


#: In the order of preference
ENGINES: dict[str, EngineInfo] = {
    "mxnet": EngineInfo("MXNet", ("mxnet",), ("Module", "SymbolBlock")),
    "onnxruntime": EngineInfo("onnxruntime", ("onnxruntime", "onnx"), ("onnxruntime",)),
}
#: Functions of an engine that need no library, where it is STATIC_ENGINE
STATIC, STATIC_ENGINE = ("list_outputs", "infer_shapes"), "onnxruntime"

#: name for `using_engine`: `predict` and `embed` choose by measurement, and all others take the first one installed
AUTO = "auto"

_chosen: ContextVar[str | None] = ContextVar("_chosen", default=None)
_selecting: ContextVar[Callable[[str], object] | None] = ContextVar("_selecting", default=None)
_verifying: ContextVar[bool] = ContextVar("_verifying", default=True)


@contextlib.contextmanager
def using_engine(name: str, report: Callable[[str], object] = lambda text: None) -> Iterator[None]:
    """Run graphs inside the context with an engine: ``mxnet``, ``onnxruntime``, or ``auto``.

    With ``auto``, predictors and encoders that are opened inside measure which engine is faster on this machine, for
    single texts and for tables; `report` is called with each choice. Everything else runs in the default engine. Raises
    UsageError for another name, and InstallationError if the engine is not installed.
    """
    if name == AUTO:
        selected = _selecting.set(report)
        try:
            yield
        finally:
            _selecting.reset(selected)
        return
    if name not in ENGINES:
        raise UsageError(f"engine {name!r} is not one of {', '.join(ENGINES)}, {AUTO}")
    if not is_available(name):
        raise InstallationError(f"engine {name} is not installed; run: {install_command(*ENGINES[name].packages)}")
    token = _chosen.set(name)
    try:
        yield
    finally:
        _chosen.reset(token)


@contextlib.contextmanager
def without_verification() -> Iterator[None]:
    """Let functions write files without running and comparing them."""
    token = _verifying.set(False)
    try:
        yield
    finally:
        _verifying.reset(token)


def is_verifying() -> bool:
    """Whether what is written has to be verified: outside of `without_verification`."""
    return _verifying.get()


def selection_report() -> Callable[[str], object] | None:
    """Return the `report` of ``using_engine("auto")``; None outside of it, and where only one engine is installed."""
    return _selecting.get() if all(map(is_available, ENGINES)) else None


def is_available(name: str) -> bool:
    """Whether the packages of an engine are installed."""
    return all(map(is_installed, ENGINES[name].packages))


def find_engine() -> str | None:
    """The engine that was chosen by `using_engine`, or the first one that is installed; None without any."""
    return _chosen.get() or next(filter(is_available, ENGINES), None)


def engine_name(otherwise: str = "not verified") -> str:
    """The same; raises InstallationError without any, whose message begins with `otherwise`."""
    found = find_engine()
    if found is None:
        command = install_command(*ENGINES["onnxruntime"].packages)
        raise InstallationError(
            f"{otherwise}: install mxnet, or the engine that installs everywhere: {command}; commands that write take "
            "--no-verify"
        )
    return found


def engine_version(name: str) -> str:
    """Name and version, such as ``mxnet 1.9.1``."""
    package = ENGINES[name].packages[0]
    return f"{package} {installed_version(package)}"


def load_engine(name: str) -> Engine:
    """The module of an engine."""
    return cast(Engine, importlib.import_module(f"bertsym.execution.engines.{name}"))
