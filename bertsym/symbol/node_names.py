"""Names of nodes. They are not always unique: a gluon block that is called twice names its operators twice.

``NAME#2`` is the second node named NAME, in the order of the graph.
"""

from __future__ import annotations

import collections
import difflib
import re
from collections.abc import Iterable, Mapping, Sequence

from bertsym.errors import UsageError
from bertsym.symbol.node import Node, Output


def references(nodes: Sequence[Node]) -> dict[Node, str]:
    """Return the unique reference of each node: its name, or ``NAME#NUMBER`` where the name repeats."""
    count = collections.Counter(node.name for node in nodes)
    seen: collections.Counter[str] = collections.Counter()
    found = {}
    for node in nodes:
        seen[node.name] += 1
        found[node] = node.name if count[node.name] == 1 else f"{node.name}#{seen[node.name]}"
    return found


def find_node(nodes: Sequence[Node], text: str, others: Iterable[str] = ()) -> Node:
    """Find a node by its name or ``NAME#NUMBER``.

    Raises UsageError, with the nearest names, also among `others`, for an unknown name, and for a name of several
    nodes.
    """
    found = [node for node in nodes if node.name == text]
    if len(found) == 1:
        return found[0]
    if found:
        operators = ", ".join(node.op for node in found)
        raise UsageError(
            f"{len(found)} nodes are named {text!r} ({operators}): choose one of {text}#1 to {text}#{len(found)}"
        )
    match = re.fullmatch(r"(.+)#([1-9][0-9]{0,5})", text, re.DOTALL)
    named = [node for node in nodes if match and node.name == match[1]]
    if match and named:
        if int(match[2]) > len(named):
            times = "one node is" if len(named) == 1 else f"{len(named)} nodes are"
            raise UsageError(f"there is no {text}: {times} named {match[1]!r}")
        return named[int(match[2]) - 1]
    raise UsageError(f"no node is named {text!r}{suggest_names(text, (*(node.name for node in nodes), *others))}")


def suggest_names(text: str, names: Iterable[str]) -> str:
    """End a message about an unknown name with the nearest ones, if any is near."""
    near = difflib.get_close_matches(text, dict.fromkeys(names), 3)
    return f"; did you mean {' or '.join(near)}?" if near else ""


def find_output(nodes: Sequence[Node], text: str, others: Iterable[str] = ()) -> Output:
    """Find an output by ``NODE``, ``NODE:INDEX``, or ``NODE_output`` as MXNet lists it.

    The index is not checked. Raises UsageError, with the nearest names, also among `others`.
    """
    names = {*references(nodes).values(), *(node.name for node in nodes)}
    name, colon, index = text.rpartition(":")
    if text in names or not (colon and index.isdecimal()):
        name, index = text, "0"
    if name not in names and name.endswith("_output") and name[: -len("_output")] in names:
        name = name[: -len("_output")]
    return Output(find_node(nodes, name, others), int(index))


def number_repeated(nodes: Sequence[Node], names: Mapping[Node, str]) -> dict[Node, str]:
    """Make new names of nodes unique: nodes that share a name get ``dense``, ``dense_2`` and so on.

    A variable gets the name without a number.
    """
    groups: dict[tuple[str, str], list[Node]] = {}
    for node in nodes:
        if node in names:
            groups.setdefault((node.name, names[node]), []).append(node)
    taken = {node.name for node in nodes if node not in names} | {*names.values()}
    found = {}
    for (_, new), group in groups.items():
        group.sort(key=lambda node: not node.is_variable)
        found[group[0]] = new
        number = 2
        for node in group[1:]:
            while f"{new}_{number}" in taken:
                number += 1
            found[node] = f"{new}_{number}"
            taken.add(found[node])
    return {node: found[node] for node in nodes if node in found}
