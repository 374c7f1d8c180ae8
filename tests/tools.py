"""Programs that some tests need and a machine may lack."""

from __future__ import annotations

import importlib.util
import os
import shutil

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
#: whether what is missing is a failure, as in CI
ALL_TOOLS = os.environ.get("BERTSYM_ALL_TOOLS") == "1"


def is_there(tool: str) -> bool:
    """Whether a program, or a Python package, of TOOLS can be used."""
    return bool(importlib.util.find_spec(tool) if tool in _MODULES else shutil.which(tool))


def needs(*tools: str) -> pytest.MarkDecorator:
    """Skip a test where one of `tools` is missing; with BERTSYM_ALL_TOOLS=1 it runs, and fails."""
    missing = [f"{tool} ({TOOLS[tool]})" for tool in tools if not is_there(tool)]
    return pytest.mark.skipif(bool(missing) and not ALL_TOOLS, reason=f"needs {', '.join(missing)}")
