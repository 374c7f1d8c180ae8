"""Programs that some tests need and a machine may lack, and Python in a process of its own."""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import subprocess
import sys
from importlib.metadata import version
from typing import NoReturn

import pytest

#: what a test needs -> how to get it
TOOLS = {
    "dot": "Graphviz, apt-get install graphviz",
    "chromium": "apt-get install chromium",
    "playwright": "pip install playwright",
    "node": "Node.js, apt-get install nodejs",
    "netron": "pip install netron",
    "onnx": "pip install onnx",
    "onnxruntime": "pip install onnxruntime",
}
_MODULES = ("playwright", "netron", "onnx", "onnxruntime")
IN_CI = os.environ.get("CI") == "true"


#: begins a program that imports mxnet, as a command begins; otherwise the import takes several times as long
AS_A_COMMAND = """
from bertsym.compat.quick_import import speed_up_mxnet_import
speed_up_mxnet_import()
"""


def is_there(tool: str) -> bool:
    """Whether a program, or a Python package, of TOOLS can be used."""
    return bool(importlib.util.find_spec(tool) if tool in _MODULES else shutil.which(tool))


def needs(*tools: str) -> pytest.MarkDecorator:
    """Skip a test where one of `tools` is missing; with CI=true the test runs, and fails."""
    missing = [f"{tool} ({TOOLS[tool]})" for tool in tools if not is_there(tool)]
    return pytest.mark.skipif(bool(missing) and not IN_CI, reason=f"needs {', '.join(missing)}")


def require_transformers_5() -> None:
    """Skip with transformers 4, the newest for Python 3.9, which overrides parts of a folder's tokenizer.json."""
    if int(version("transformers").partition(".")[0]) < 5:
        pytest.skip("transformers 4 does not tokenise as this folder's files say")


def is_missing(what: str) -> NoReturn:
    """Skip the test because of something that the machine lacks; with CI=true, fail it."""
    if IN_CI:
        pytest.fail(f"{what} (CI=true: nothing may be missing)", pytrace=False)
    pytest.skip(what)


def run_python(code: str) -> object:
    """What a fresh interpreter prints as JSON on its last line."""
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    return json.loads(result.stdout.splitlines()[-1])
