"""Import mxnet without the packages that it imports for other programs.

mxnet 1.9.1 imports scikit-learn for the base class of its deprecated FeedForward, scipy for sparse arrays and test
functions, onnx for its own converters, OpenCV for images and h5py for HDF5 files. No command uses any of that through
mxnet, and with scikit-learn, scipy and onnx installed the import takes 1.7 s of processor time instead of 0.8 s.
Its functions for tests, which import numpy.testing, and requests, which downloads models, take another 0.2 s.
"""

from __future__ import annotations

import importlib.util
import sys
import threading
from collections.abc import Sequence
from importlib.machinery import ModuleSpec, PathFinder, SourceFileLoader
from types import ModuleType

_OPTIONAL = ("cv2", "h5py", "onnx", "scipy", "sklearn")
_LATER = ("mxnet.test_utils", "requests")


def import_mxnet_without_optional_packages() -> None:
    """Hide the optional packages from an import of mxnet that follows; they can be imported before and after it.

    Other packages, which mxnet needs, are executed when one of their attributes is first used.
    """
    # After the finder of `imports`, which repairs numpy when it is asked for mxnet.
    sys.meta_path.insert(sys.meta_path.index(PathFinder), _Finder())


class _Finder:
    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        spec = PathFinder.find_spec(fullname, path, target) if fullname == "mxnet" else None
        if spec is not None and isinstance(spec.loader, SourceFileLoader):
            spec.loader = _Loader(spec.loader.name, spec.loader.path)
        return spec


class _Loader(SourceFileLoader):
    def exec_module(self, module: ModuleType) -> None:
        hiding = _Hiding()
        sys.meta_path.insert(0, hiding)
        try:
            super().exec_module(module)
        finally:
            sys.meta_path.remove(hiding)


class _Hiding:
    """Finds no optional package for the thread that made it, and lets others be executed when they are used."""

    def __init__(self) -> None:
        self._thread = threading.get_ident()

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if threading.get_ident() != self._thread:
            return None
        if fullname in _OPTIONAL:
            raise ModuleNotFoundError(f"{fullname} is hidden from mxnet", name=fullname)
        spec = PathFinder.find_spec(fullname, path, target) if fullname in _LATER else None
        if spec is not None and spec.loader is not None:
            spec.loader = importlib.util.LazyLoader(spec.loader)
        return spec
