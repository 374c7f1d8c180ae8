"""The structure of a graph: the checks that MXNet needs, and the order of the nodes."""

from __future__ import annotations

from collections.abc import Container, Iterable, Iterator, Sequence

from bertsym.errors import ModelError
from bertsym.symbol.node import Node, Output


def check_structure(nodes: Sequence[Node], outputs: Sequence[Output], where: str) -> None:
    """Raise ModelError, naming `where` and the node, when MXNet could not load the graph.

    Order, names, inputs, outputs and the texts of attributes are checked.
    """
    seen: set[Node] = set()
    variables: set[str] = set()
    for node in nodes:
        label = f"{where}: node {node.name!r}"
        if not node.name:
            raise ModelError(f"{where}: a {node.op} has no name")
        if node.is_variable:
            if node.inputs:
                raise ModelError(f"{label}: a variable with inputs")
            if node.name in variables:
                raise ModelError(f"{where}: two variables are named {node.name!r}")
            variables.add(node.name)
        if node.num_outputs < 1 or (node.is_variable and node.num_outputs > 1):
            raise ModelError(f"{label}: a {node.op} with {node.num_outputs} outputs")
        for entry in node.inputs:
            if entry.node not in seen:
                raise ModelError(f"{label}: reads {entry}, which does not come before it")
        for key, value in node.attrs.items():
            if not isinstance(value, str):
                raise ModelError(f"{label}: attribute {key} is {value!r}, a string is needed")
        for text in (node.op, node.name, *node.attrs, *node.attrs.values()):
            # MXNet takes the JSON as a C string, which ends at a NUL.
            if not text.isascii() or "\0" in text:
                _check_text(text, label)
        seen.add(node)
    if not outputs:
        raise ModelError(f"{where}: no outputs")
    for label, entries in _labelled_inputs(nodes, outputs):
        for entry in entries:
            if entry.node not in seen or not 0 <= entry.index < entry.node.num_outputs:
                raise ModelError(f"{where}: {label}: there is no output {entry}")


def _labelled_inputs(nodes: Sequence[Node], outputs: Sequence[Output]) -> Iterator[tuple[str, Sequence[Output]]]:
    for node in nodes:
        yield f"node {node.name!r}", node.inputs
    yield "heads", outputs


def _check_text(text: str, label: str) -> None:
    if "\0" in text:
        raise ModelError(f"{label}: {text[:80]!r} has a NUL character, which MXNet can't read")
    try:
        text.encode()
    except UnicodeEncodeError:
        raise ModelError(f"{label}: {text[:80]!r} is not valid Unicode") from None


def readers_by_node(nodes: Iterable[Node]) -> dict[Node, list[Node]]:
    """Map each node that is read to the nodes that read it, in their order; a node that reads it twice is there twice.

    For many questions about one graph: `SymbolGraph.consumers` looks at all nodes for each.
    """
    readers: dict[Node, list[Node]] = {}
    for node in nodes:
        for entry in node.inputs:
            readers.setdefault(entry.node, []).append(node)
    return readers


def ancestors_outside(node: Node, excluded: Container[Node]) -> set[Node]:
    """Return the node and all that it depends on through nodes that are not `excluded`, without those."""
    found = set() if node in excluded else {node}
    waiting = list(found)
    while waiting:
        for entry in waiting.pop().inputs:
            if entry.node not in found and entry.node not in excluded:
                found.add(entry.node)
                waiting.append(entry.node)
    return found


def is_ordered(nodes: Sequence[Node]) -> bool:
    """Whether every node comes after the nodes that it reads."""
    seen: set[Node] = set()
    for node in nodes:
        if any(entry.node not in seen for entry in node.inputs):
            return False
        seen.add(node)
    return True


def sort_nodes(nodes: Sequence[Node], outputs: Sequence[Output]) -> list[Node]:
    """Sort nodes as MXNet writes them: depth first from the outputs, inputs before their readers.

    Raises ModelError for a cycle and for an input that is not one of the nodes.
    """
    order: dict[Node, bool] = {}  # False while its inputs are being visited
    ours = set(nodes)
    for root in [*(output.node for output in outputs), *nodes]:
        waiting = [(root, iter(root.inputs))] if root not in order else []
        order.setdefault(root, bool(not waiting))
        while waiting:
            node, inputs = waiting[-1]
            for entry in inputs:
                if entry.node not in ours:
                    raise ModelError(f"node {node.name!r} reads {entry}, which is not in this graph")
                if entry.node not in order:
                    order[entry.node] = False
                    waiting.append((entry.node, iter(entry.node.inputs)))
                    break
                if not order[entry.node]:
                    raise ModelError(f"node {entry.node.name!r} would depend on itself")
            else:
                # Move it to the end: dictionaries keep the order of insertion.
                del order[node]
                order[node] = True
                waiting.pop()
    return list(order)
