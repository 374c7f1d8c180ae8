"""Sources of pretrained weights; `load_source` reads any of them."""

from bertsym.sources.pretrained import Pretrained
from bertsym.sources.registry import SourceOptions, load_source

__all__ = ["Pretrained", "SourceOptions", "load_source"]
