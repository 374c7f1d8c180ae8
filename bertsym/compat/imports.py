"""Repair what mxnet 1.9.1 and gluonnlp 0.10.0 need, at the moment they are imported, whoever imports them."""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import sys
from collections.abc import Sequence
from importlib.machinery import ModuleSpec, PathFinder
from types import ModuleType

_TOKENIZER = "gluonnlp.data.fast_bert_tokenizer"


class _Repairs:
    """Finds nothing by itself except the tokenizer's replacement; looking for mxnet or gluonnlp triggers the repair.

    So numpy is not imported before it is needed, and `import mxnet` works after `import bertsym`.
    """

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if fullname in ("mxnet", "gluonnlp"):
            repair()
        elif fullname == _TOKENIZER and PathFinder.find_spec(fullname, path, target) is None:
            # gluonnlp was installed without a compiler.
            module = importlib.util.find_spec("bertsym.compat.bert_tokenizer")
            assert module is not None
            return importlib.util.spec_from_file_location(_TOKENIZER, module.origin)
        return None


def install_repairs() -> None:
    """Repair numpy and distutils as soon as anybody imports mxnet or gluonnlp. Does nothing the second time."""
    if not any(isinstance(finder, _Repairs) for finder in sys.meta_path):
        sys.meta_path.insert(0, _Repairs())


def repair() -> list[str]:
    """Restore the names of numpy and distutils that mxnet and gluonnlp need; return what was restored."""
    from bertsym.compat.numpy_names import restore_numpy_names

    repaired = [f"np.{name}" for name in restore_numpy_names()]
    if importlib.util.find_spec("distutils") is None:  # removed in Python 3.12
        with contextlib.suppress(ImportError):
            # setuptools brings its own; where a .pth file of its made it importable, this is not reached.
            sys.modules["distutils"] = importlib.import_module("setuptools._distutils")
            repaired.append("distutils")
    return repaired
