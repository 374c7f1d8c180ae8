"""Make the Python functions of MXNet's operators on their first call.

On import, mxnet 1.9.1 makes 2,556 functions, one for each operator in `mx.nd` and in `mx.sym`: it asks its library for
the operator's arguments and their descriptions, writes the source of the function and its docstring, and compiles it.
That is more than half of the processor time of the import. A command calls a few dozen of them.
"""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable, Sequence
from importlib.machinery import ModuleSpec, PathFinder, SourceFileLoader
from types import FunctionType, ModuleType
from typing import Any

_MODULE = "mxnet.base"
#: functions of the module that are given a function that makes one operator, and call it for each operator
_MAKERS = {"_init_op_module", "_init_np_op_module"}


def make_operators_when_called() -> None:
    """Let an import of mxnet that follows define operators that are made when they are called.

    An operator has its docstring, and its arguments for `inspect.signature`, after its first call.
    """
    sys.meta_path.insert(0, _Finder())


class _Finder:
    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        spec = PathFinder.find_spec(fullname, path, target) if fullname == _MODULE else None
        if spec is not None and isinstance(spec.loader, SourceFileLoader):
            spec.loader = _Loader(spec.loader.name, spec.loader.path)
        return spec


class _Loader(SourceFileLoader):
    def exec_module(self, module: ModuleType) -> None:
        super().exec_module(module)
        for name in _MAKERS & vars(module).keys():  # before 1.6, there is the first alone
            setattr(module, name, _postponing(getattr(module, name)))


def _postponing(make_all: Callable[..., None]) -> Callable[..., None]:
    """Make the operators of a namespace when they are called, as `make_all` makes them at once."""

    def later(argument: Any) -> Any:
        return functools.partial(_unmade, argument) if callable(argument) else argument

    def make_all_later(*arguments: Any, **named: Any) -> None:
        make_all(*map(later, arguments), **{name: later(argument) for name, argument in named.items()})

    return make_all_later


def _unmade(make: FunctionType, handle: Any, operator: str, name: str) -> FunctionType:
    """Make a function that becomes what `make` returns for an operator when it is first called."""

    def made() -> Callable[..., Any]:
        real = make(handle, operator, name)
        # The defaults first, which the code until now ignores: another thread may call the function in between.
        function.__defaults__ = real.__defaults__
        function.__doc__ = function.__doc__ or real.__doc__
        function.__code__ = real.__code__
        return function

    function = FunctionType(_first_call.__code__, make.__globals__, name)
    function.__kwdefaults__ = {"_made": made}
    function.__qualname__ = name
    function.__doc__ = ""  # mxnet replaces words of it
    return function


def _first_call(*arguments: Any, _made: Callable[[], Callable[..., Any]], **keywords: Any) -> Any:
    return _made()(*arguments, **keywords)
