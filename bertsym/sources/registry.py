"""The kinds of sources in a table: prefix -> loader."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from bertsym.errors import UsageError
from bertsym.file_reader import unchanged_files
from bertsym.sources.gluonnlp_params import load_params
from bertsym.sources.gluonnlp_zoo import load_zoo
from bertsym.sources.hugging_face import load_hugging_face
from bertsym.sources.pretrained import Pretrained
from bertsym.sources.random_weights import load_random
from bertsym.sources.tensorflow import load_tensorflow


@dataclass(frozen=True)
class SourceOptions:
    """Options of sources; an option that a kind of source does not take is an error."""

    vocab: str | None = None
    num_heads: int | None = None
    layer_norm_eps: float | None = None
    lower_case: bool | None = None
    pad_vocab: bool | None = None
    cache: str | None = None
    seed: int | None = None
    ignore_weights: tuple[str, ...] | None = None
    sentencepiece: str | None = None
    labels: tuple[str, ...] | None = None  #: class names of the trained head


# kind -> (loader, the options that it takes)
_LOADERS: dict[str, tuple[Callable[..., Pretrained], tuple[str, ...]]] = {
    "gluonnlp": (load_zoo, ("cache",)),
    "hf": (load_hugging_face, ("pad_vocab", "ignore_weights")),
    "params": (
        load_params,
        (
            "vocab",
            "num_heads",
            "layer_norm_eps",
            "lower_case",
            "pad_vocab",
            "ignore_weights",
            "sentencepiece",
            "labels",
        ),
    ),
    "tf": (load_tensorflow, ("vocab", "lower_case", "pad_vocab", "ignore_weights", "labels")),
    "random": (load_random, ("seed", "vocab")),
}
_REQUIRED = {"params": "vocab"}
_WITH_HEADS = ("hf", "params", "tf")  # kinds whose trained heads can be exported


def load_source(source: str, options: SourceOptions = SourceOptions(), *, with_head: bool = False) -> Pretrained:
    """Load ``gluonnlp:MODEL/DATASET``, ``hf:DIR-OR-REPO``, ``params:FILE``, ``tf:DIR`` or ``random:MODEL``.

    With `with_head`, the trained head of an ``hf:``, ``params:`` or ``tf:`` source is read too. Raises UsageError for
    an unknown kind and for an option that the kind does not take, and the errors of the loader.
    """
    kind, colon, name = source.partition(":")
    if not colon or not name or kind not in _LOADERS:
        hint = f"; for a folder or a model of the Hugging Face hub, give hf:{source}" if not colon and source else ""
        kinds = ", ".join(f"{kind}:..." for kind in _LOADERS)
        raise UsageError(f"{source!r} is not a source; a source is one of {kinds}{hint}")
    loader, accepted = _LOADERS[kind]
    given: dict[str, Any] = {name: value for name, value in vars(options).items() if value is not None}
    for option in given:
        if option not in accepted:
            raise UsageError(f"{kind}: sources take no --{option.replace('_', '-')}")
    required = _REQUIRED.get(kind)
    if required and required not in given:
        raise UsageError(f"{kind}: sources need --{required}")
    if kind in _WITH_HEADS:
        given["with_head"] = with_head
    with unchanged_files():  # the digests for the manifest are of the bytes that were read
        return loader(name, **given)
