"""Names of weights in another library, as a table that is used both ways."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from bertsym.encoders.parameters import EMBEDDINGS, LAYER, POOLER, PROJECTION, RELATIVE_BIAS, TOKEN_TYPES

TASK_HEAD, PRETRAINING_HEADS = "task head", "pretraining heads"  #: purposes of weights beside the encoder


@dataclass(frozen=True)
class NameTable:
    """How another library names the weights of an encoder.

    ``names``: our template -> their template, with ``{i}`` for the layer; only templates that the encoder has.
    ``prefix`` begins the names in a checkpoint with a head. ``spellings``: (pattern, replacement) pairs that turn older
    names into the names of the table. ``ignored``: patterns of names outside the encoder, each with its purpose.
    ``ignored_beside``: the same for names without the encoder's prefix; these are looked up first.
    """

    library: str
    names: Mapping[str, str]
    spellings: tuple[tuple[str, str], ...] = ()
    ignored: Mapping[str, str] = field(default_factory=dict)
    ignored_beside: Mapping[str, str] = field(default_factory=dict)
    prefix: str = "bert."

    def spell(self, name: str) -> str:
        """Convert an older name to the name in the table."""
        for pattern, replacement in self.spellings:
            name = re.sub(pattern, replacement, name)
        return name

    @property
    def required(self) -> dict[str, str]:
        """The names of the weights that every encoder has: without pooler and projection of embeddings."""
        return {ours: theirs for ours, theirs in self.names.items() if ours not in (*POOLER, *PROJECTION)}

    @property
    def pooler(self) -> set[str]:
        """The names of the pooler's weights."""
        return {theirs for ours, theirs in self.names.items() if ours in POOLER}


def names_in_order(
    *names: str, segments: bool = True, relative_positions: bool = False, pooler: bool = True
) -> dict[str, str]:
    """Our templates -> `names`, in the order of ``encoders.parameters``: embeddings, relative bias, layer, pooler."""
    embeddings = [name for name in EMBEDDINGS if segments or name != TOKEN_TYPES]
    relative = [RELATIVE_BIAS] if relative_positions else []
    templates = (*embeddings, *relative, *LAYER, *(POOLER if pooler else ()))
    if len(templates) != len(names):
        raise ValueError(f"{len(names)} names for {len(templates)} parameters")
    return dict(zip(templates, names))


def projection_names(theirs: str) -> dict[str, str]:
    """Our names of the layer that projects the embeddings -> its names in a checkpoint."""
    return dict(zip(PROJECTION, (f"{theirs}.weight", f"{theirs}.bias")))


def printable(name: str) -> str:
    """Quote a name from a file when it would corrupt a line or a terminal."""
    return name if name.isprintable() else repr(name)


def list_names(names: Iterable[str]) -> str:
    """List the first eight names and the number of the others."""
    names = [printable(name) for name in names]
    more = f" and {len(names) - 8} more" if len(names) > 8 else ""
    return ", ".join(names[:8]) + more
