"""Map the weights of a checkpoint to our names; every weight must be used or left out for a known reason."""

from __future__ import annotations

import dataclasses
import re
from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import Any

import numpy as np

from bertsym.array import Array
from bertsym.encoders.config import BertConfig
from bertsym.encoders.parameters import RELATIVE_BUCKETS, expand, own_layers, parameter_shapes
from bertsym.encoders.relative_positions import position_buckets
from bertsym.errors import ModelError, UsageError
from bertsym.families import PRETRAINING_HEADS, TASK_HEAD, NameTable, list_names, printable
from bertsym.reference import Checkpoint
from bertsym.symbol.params import LazyParameters

_CONSTANT, _BY_REQUEST = "constant", "ignored weights"


@dataclass(frozen=True)
class WeightNames:
    """The names of a checkpoint's weights, by purpose.

    ``spelled``: name of a weight of the encoder -> name in the table, without ``prefix``; unknown names are included.
    ``left_out``: name of another weight -> its purpose. ``head``: name of a weight of the head that is exported -> name
    in the table; ``architecture``: the class of that head.
    """

    where: str
    table: NameTable
    prefix: str
    spelled: dict[str, str]
    left_out: dict[str, str] = field(default_factory=dict)
    head: dict[str, str] = field(default_factory=dict)
    architecture: str | None = None

    @property
    def heads(self) -> dict[str, str]:
        """Weights of heads that are left out, but not by request: the table's name -> name.

        Raises ModelError for two weights of one name.
        """
        found: dict[str, str] = {}
        for name, purpose in self.left_out.items():
            if purpose in (TASK_HEAD, PRETRAINING_HEADS):
                spelled = self.table.spell(_relative(self.prefix, name))
                if spelled in found:
                    raise ModelError(
                        f"{self.where}: {printable(found[spelled])} and {printable(name)} are both {spelled}"
                    )
                found[spelled] = name
        return found

    @property
    def has_pooler(self) -> bool:
        """Whether the weights of the pooler are there."""
        return bool(self.table.pooler) and self.table.pooler <= {*self.spelled.values()}

    def with_head(self, architecture: str, head: Mapping[str, str]) -> WeightNames:
        """The same, where the weights `head` (name -> the table's name) are exported."""
        return dataclasses.replace(self.without(head), head=dict(head), architecture=architecture)

    def without(self, names: Collection[str]) -> WeightNames:
        """The same without these weights among those that are left out."""
        left_out = {name: purpose for name, purpose in self.left_out.items() if name not in names}
        return dataclasses.replace(self, left_out=left_out)

    @property
    def task_head(self) -> tuple[str, ...]:
        """Names of the weights of a trained task head, including one that is ignored by request."""
        return tuple(
            name for name, why in self.left_out.items() if TASK_HEAD in (why, _purpose(self.table, self.prefix, name))
        )

    def checkpoint(self, weights: Mapping[str, Array], config: Mapping[str, Any]) -> Checkpoint:
        """The exported weights under the names of the table, read on demand, and the source's own config."""
        return Checkpoint(
            self.table.library, _Renamed(weights, {**self.spelled, **self.head}), config, self.architecture
        )

    @property
    def notes(self) -> tuple[str, ...]:
        """Notes on assumptions and on weights that were left out, except a task head and constants."""
        notes = []
        if self.prefix not in ("", self.table.prefix):  # of the encoder alone, and of a checkpoint with a head
            notes.append(f"names of weights: the encoder's begin with {printable(self.prefix)}")
        for purpose, names in self._by_purpose().items():
            if purpose not in (TASK_HEAD, _CONSTANT):
                notes.append(f"not exported: {purpose} {list_names(names)}")
        return tuple(notes)

    @property
    def facts(self) -> dict[str, Any]:
        """The prefix and the weights that were left out, for the manifest."""
        left_out = {purpose: sorted(names) for purpose, names in self._by_purpose().items() if purpose != _CONSTANT}
        return {
            **({"weight_prefix": self.prefix} if self.prefix else {}),
            **({"not_exported": left_out} if left_out else {}),
        }

    def _by_purpose(self) -> dict[str, list[str]]:
        found: dict[str, list[str]] = {}
        for name, purpose in sorted(self.left_out.items(), key=lambda item: item[1]):
            found.setdefault(purpose, []).append(name)
        return found


class _Renamed(Mapping[str, Array]):
    """Arrays under other names; `names` maps old names to new ones."""

    def __init__(self, arrays: Mapping[str, Array], names: Mapping[str, str]) -> None:
        self._arrays, self._old = arrays, {new: old for old, new in names.items()}

    def __getitem__(self, name: str) -> Array:
        return self._arrays[self._old[name]]

    def __iter__(self) -> Iterator[str]:
        return iter(self._old)

    def __len__(self) -> int:
        return len(self._old)


def resolve_names(names: Iterable[str], table: NameTable, where: str, ignore: Sequence[str] = ()) -> WeightNames:
    """Find the prefix of the encoder's names; leave out heads, constants and names that match a glob of `ignore`.

    Raises ModelError, beginning with `where`, for the names of two encoders, and UsageError for a pattern that
    matches no name or a name that the encoder needs.
    """
    names = list(names)
    ignored: dict[str, str] = {}
    for pattern in ignore:
        matched = [name for name in names if fnmatchcase(name, pattern)]
        if not matched:
            raise UsageError(f"{where}: --ignore-weights {pattern!r} matches none of the {len(names)} weights")
        ignored.update(dict.fromkeys(matched, pattern))
    prefix = _find_prefix([name for name in names if name not in ignored], names, table, where)
    for name, pattern in ignored.items():
        if _is_needed(table, prefix, name):
            raise UsageError(
                f"{where}: --ignore-weights {pattern!r} matches {printable(name)}, which the encoder needs"
            )
    spelled, left_out = {}, dict.fromkeys(ignored, _BY_REQUEST)
    for name in names:
        if name not in ignored:
            purpose = _purpose(table, prefix, name)
            if purpose is None:
                spelled[name] = table.spell(name.removeprefix(prefix))
            else:
                left_out[name] = purpose
    return WeightNames(where, table, prefix, spelled, left_out)


def map_weights(weights: Mapping[str, Array], names: WeightNames, config: BertConfig) -> LazyParameters:
    """Map the weights to our names, in the order of the graph.

    Weights are checked one by one and read again from `weights` on demand: at most one is in memory.

    Every parameter must have exactly one weight (the whole pooler may be absent), and every weight must be used or left
    out for a known reason. Raises ModelError with the names otherwise, and for a wrong shape, a dtype that is not
    floating point, or elements that are not finite.
    """
    where, table = names.where, names.table
    parameters = parameter_shapes(config)
    targets = {
        theirs: ours
        for template, their_template in table.names.items()
        for ours, theirs in zip(expand(template, own_layers(config)), expand(their_template, own_layers(config)))
        if ours in parameters
    }
    sources: dict[str, str] = {}
    unknown: list[str] = []
    for name, theirs in names.spelled.items():
        if theirs not in targets:
            unknown.append(name)
            continue
        ours = targets[theirs]
        if ours in sources:
            raise ModelError(f"{where}: {printable(sources[ours])} and {printable(name)} are both {theirs}")
        sources[ours] = name
    missing = [names.prefix + theirs for theirs, ours in targets.items() if ours not in sources]
    pooler = {names.prefix + name for name in table.pooler}
    if pooler <= set(missing):
        missing = [name for name in missing if name not in pooler]
    if missing or unknown:
        listings = [
            f"{len(found)} {what} ({list_names(sorted(found))})"
            for what, found in (("missing", missing), ("unknown", unknown))
            if found
        ]
        # When weights are missing too, the unknown weights are more likely the same ones under other names.
        advice = "" if missing else "; leave weights that are not the encoder's out with --ignore-weights PATTERN"
        raise ModelError(f"{where}: not the weights of this encoder: {'; '.join(listings)}{advice}")
    shapes = {ours: shape for ours, shape in parameters.items() if ours in sources or ours == RELATIVE_BUCKETS}
    for ours, shape in shapes.items():
        if ours in sources:
            check_weight(weights[sources[ours]], shape, f"{where}: {printable(sources[ours])}")

    def read(ours: str) -> Array:
        if ours == RELATIVE_BUCKETS:
            return position_buckets(config.max_length, config.relative_buckets)
        return weights[sources[ours]].astype(np.float32, copy=False)

    return LazyParameters(shapes, read)


def _find_prefix(kept: Sequence[str], names: Sequence[str], table: NameTable, where: str) -> str:
    """Find the prefix that makes the names `kept` an encoder; without one, the best of all `names`, for an error."""
    candidates = _candidates(kept, table)
    encoders = sorted(prefix for prefix, complete in candidates.items() if complete)
    if len(encoders) > 1:
        prefixes = ", ".join(map(repr, encoders))
        raise ModelError(
            f"{where}: weights of {len(encoders)} encoders, with the prefixes {prefixes}; leave all but one out, "
            f"such as with --ignore-weights {encoders[-1] + '*'!r}"
        )
    return encoders[0] if encoders else next(iter(_candidates(names, table)), "")


def _candidates(names: Iterable[str], table: NameTable) -> dict[str, bool]:
    """List prefixes of names that end like an encoder's, most names first, each with whether no name is missing.

    Embeddings and the first layer identify an encoder. A prefix consists of whole parts of a dotted name.
    """
    endings = [name.format(i=0) for name in table.required.values()]
    found: dict[str, set[str]] = defaultdict(set)
    for name in map(table.spell, names):
        for ending in endings:
            prefix = name[: -len(ending)]
            if name.endswith(ending) and (not prefix or prefix.endswith(".")):
                found[prefix].add(ending)
    ordered = sorted(found, key=lambda prefix: (-len(found[prefix]), prefix))
    return {prefix: len(found[prefix]) == len(endings) for prefix in ordered}


def _is_needed(table: NameTable, prefix: str, name: str) -> bool:
    if not name.startswith(prefix):
        return False
    spelled = table.spell(name.removeprefix(prefix))
    return any(
        re.fullmatch(re.escape(template).replace(r"\{i\}", r"\d+"), spelled) for template in table.required.values()
    )


def _purpose(table: NameTable, prefix: str, name: str) -> str | None:
    """Return the purpose of a weight outside the encoder; None when its name does not show it."""
    patterns = table.ignored if name.startswith(prefix) else {**table.ignored_beside, **table.ignored}
    spelled = table.spell(_relative(prefix, name))
    return next((why for pattern, why in patterns.items() if re.fullmatch(pattern, spelled)), None)


def _relative(prefix: str, name: str) -> str:
    """A name without the encoder's prefix or, beside the encoder, what they have in common.

    A head beside `module.bert.` is `module.classifier`.
    """
    if name.startswith(prefix):
        return name.removeprefix(prefix)
    for part in re.findall(r"[^.]*\.", prefix):
        if not name.startswith(part):
            break
        name = name.removeprefix(part)
    return name


def check_weight(array: Array, shape: tuple[int, ...], where: str) -> None:
    """Raise ModelError, beginning with `where`, unless an array has this shape and finite floating point elements."""
    if array.shape != shape:
        raise ModelError(f"{where} has shape {array.shape}, the config implies {shape}")
    if array.dtype.kind != "f":
        raise ModelError(f"{where} is {array.dtype}, a floating point array is needed")
    with np.errstate(over="ignore"):  # an overflow gives infinity, which is refused below
        array = array.astype(np.float32, copy=False)
    if not np.isfinite(array).all():
        raise ModelError(f"{where} has elements that are not finite")
