"""Compile the Python functions of MXNet's operators on their first call.

On import, mxnet 1.9.1 writes the source of 2,556 functions, one for each operator in `mx.nd` and in `mx.sym`, and
compiles them: 0.6 s of the 1.25 s of processor time that the import takes. A command calls a few dozen of them.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Sequence
from importlib.machinery import ModuleSpec, PathFinder, SourceFileLoader
from types import FunctionType, ModuleType
from typing import Any

_MODULES = ("mxnet.ndarray.register", "mxnet.symbol.register")  # each calls exec() for one function at a time


def compile_operators_when_called() -> None:
    """Let an import of mxnet that follows define operators that are compiled when they are called.

    Their docstrings stay; `inspect.signature` knows the arguments of an operator only after its first call.
    """
    sys.meta_path.insert(0, _Finder())


class _Finder:
    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        spec = PathFinder.find_spec(fullname, path, target) if fullname in _MODULES else None
        if spec is not None and isinstance(spec.loader, SourceFileLoader):
            spec.loader = _Loader(spec.loader.name, spec.loader.path)
        return spec


class _Loader(SourceFileLoader):
    def exec_module(self, module: ModuleType) -> None:
        namespace = vars(module)

        def define(source: str, _: None, local: dict[str, Any]) -> None:
            function = _uncompiled(source, namespace)
            local[function.__name__] = function

        namespace["exec"] = define  # instead of the built-in function, for the code of this module alone
        super().exec_module(module)


def _uncompiled(source: str, namespace: dict[str, Any]) -> FunctionType:
    """Make a function that becomes the function of `source` when it is first called."""
    found = re.search(r"^def (\w+)\(", source, re.MULTILINE)
    assert found is not None
    name = found[1]

    def compiled() -> Callable[..., Any]:
        local: dict[str, Any] = {}
        exec(source, namespace, local)
        # The defaults first, which the code until now ignores: another thread may call the function in between.
        function.__defaults__ = local[name].__defaults__
        function.__code__ = local[name].__code__
        return function

    function = FunctionType(_first_call.__code__, namespace, name)
    function.__kwdefaults__ = {"_compiled": compiled}
    function.__qualname__ = name
    return function


def _first_call(*arguments: Any, _compiled: Callable[[], Callable[..., Any]], **keywords: Any) -> Any:
    return _compiled()(*arguments, **keywords)
