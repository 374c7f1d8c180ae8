"""What a manifest says about how a bundle came to be."""

from __future__ import annotations

from importlib.metadata import version


def versions() -> dict[str, str]:
    """Versions of bertsym and of the libraries that decide what it writes."""
    return {name: version(name) for name in ("bertsym", "mxnet", "gluonnlp", "numpy", "tokenizers")}
