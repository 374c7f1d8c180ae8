"""Convert symbol JSON to nodes, with checks, and nodes to symbol JSON, keeping what did not change."""

from __future__ import annotations

from collections.abc import Container, Iterable, Mapping, Sequence
from typing import Any

from bertsym.errors import ModelError
from bertsym.json_reader import parse_json
from bertsym.symbol.json_format import format_entries, to_text
from bertsym.symbol.node import VARIABLE, Node, Output

# Limits that no real symbol reaches: a damaged file could otherwise take gigabytes of memory.
MAX_NODES, MAX_NAME, MAX_VALUE = 1 << 17, 4096, 1 << 16
MAX_OUTPUTS = 1 << 16  #: of one node
_ENTRY_LIMITS = (MAX_NODES, MAX_OUTPUTS, MAX_OUTPUTS)  # of node, output and version in an entry
MAX_WAYS = 1 << 24  #: number of nodes times number of outputs: each output is traced back
# MXNet wrote "param" before 0.9 (with "attr" for user attributes), "attr" up to 1.0 and "attrs" since. MXNet 1.9.1
# reads "attr" and "attrs" into the same dictionary, so the last one in the file replaces the other; "param" only adds
# missing keys.
_ATTRIBUTE_KEYS = ("param", "attr", "attrs")
# MXNet 1.9.1 refuses a file with other keys, or without a required key.
_NODE_KEYS = frozenset({"op", "name", "inputs", "backward_source_id", "control_deps", "subgraphs", *_ATTRIBUTE_KEYS})
_USUAL_KEYS = frozenset({"op", "name", "attrs", "inputs"})
_NEEDED_NODE_KEYS = ("op", "name", "inputs")
_KEYS = frozenset({"nodes", "arg_nodes", "node_row_ptr", "heads", "attrs"})
_NEEDED_KEYS = ("nodes", "arg_nodes", "heads")
_MAX_INT = 2**31 - 1
_NEW: Mapping[str, Any] = {"attrs": {"mxnet_version": ["int", 10901]}}

Read = tuple[list[Node], list[Output], Mapping[str, Any]]


def read_document(text: str, where: str) -> Read:
    """Read nodes, outputs and the document of symbol JSON; raises ModelError naming `where` and the node.

    Variables with the same name become one: gluon's SymbolBlock feeds them from one array; Module and bind refuse
    the file (MXNet 1.9.1).
    """
    try:
        document = parse_json(text)
    except ValueError as error:
        raise ModelError(f"{where}: {error}") from None
    if not isinstance(document, dict) or not isinstance(document.get("nodes"), list):
        raise ModelError(f"{where}: not an MXNet symbol, there is no list of nodes")
    _check_keys(document, _KEYS, _NEEDED_KEYS, where)
    _check_version(document.get("attrs", {}), where)
    raw_nodes = document["nodes"]
    if not 1 <= len(raw_nodes) <= MAX_NODES:
        raise ModelError(f"{where}: {len(raw_nodes)} nodes, 1 to {MAX_NODES} are supported")
    counts = _output_counts(document.get("node_row_ptr"), len(raw_nodes))
    if counts is not None and max(counts) > MAX_OUTPUTS:
        raise ModelError(
            f"{where}: node {counts.index(max(counts))} has {max(counts)} outputs, at most {MAX_OUTPUTS} are supported"
        )
    nodes: list[Node] = []
    variables: dict[str, Node] = {}
    for raw in raw_nodes:
        node = _read_node(raw, nodes, counts, where)
        same = variables.setdefault(node.name, node) if node.is_variable else node
        if same.attrs != node.attrs:
            raise ModelError(f"{where}: two variables are named {node.name!r}, with different attributes")
        nodes.append(same)
    outputs = _read_entries(document["heads"], nodes, counts, f"{where}: heads")
    if not outputs:
        raise ModelError(f"{where}: no outputs")
    if len(outputs) * len(nodes) > MAX_WAYS:
        raise ModelError(f"{where}: {len(outputs)} outputs of a graph of {len(nodes)} nodes are too many to follow")
    return list(dict.fromkeys(nodes)), list(outputs), document


def _output_counts(row_ptr: Any, count: int) -> list[int] | None:
    """Count the outputs of each node; None when the file does not state them."""
    if (
        not isinstance(row_ptr, list)
        or len(row_ptr) != count + 1
        or not all(type(value) is int for value in row_ptr)
        or any(after <= before for before, after in zip(row_ptr, row_ptr[1:]))
    ):
        return None
    return [after - before for before, after in zip(row_ptr, row_ptr[1:])]


def _check_keys(document: Mapping[str, Any], known: Container[str], needed: Iterable[str], label: str) -> None:
    unknown = next((key for key in document if key not in known), None)
    if unknown is not None:
        raise ModelError(f"{label}: the key {unknown[:80]!r} is not one that MXNet loads")
    for key in needed:
        if key not in document:
            raise ModelError(f"{label}: the key {key!r} is missing")


def _check_version(attrs: Any, where: str) -> None:
    """Raise ModelError unless the document's own attributes are pairs of a type and a value, the version an integer."""
    pairs = isinstance(attrs, dict) and all(
        isinstance(pair, list) and len(pair) == 2 and isinstance(pair[0], str) for pair in attrs.values()
    )
    if not pairs:
        raise ModelError(f"{where}: attrs: not an object of pairs of type and value")
    kind, version = attrs.get("mxnet_version", ("int", 0))
    if kind != "int" or type(version) is not int or not 0 <= version <= _MAX_INT:
        raise ModelError(f"{where}: attrs: mxnet_version is not an integer such as 10901")


def _read_node(raw: Any, nodes: Sequence[Node], counts: list[int] | None, where: str) -> Node:
    if not isinstance(raw, dict) or not isinstance(raw.get("op"), str) or not isinstance(raw.get("name"), str):
        raise ModelError(f"{where}: node {len(nodes)} has no op or no name")
    if len(raw["op"]) > MAX_NAME or len(raw["name"]) > MAX_NAME:
        raise ModelError(f"{where}: node {len(nodes)} has a name of more than {MAX_NAME} characters")
    label = f"{where}: node {len(nodes)} ({raw['name']!r})"
    _check_keys(raw, _NODE_KEYS, _NEEDED_NODE_KEYS, label)
    if "attr" in raw and "attrs" in raw:
        raise ModelError(
            f"{label}: both 'attr' and 'attrs', of which MXNet reads the last one only: merge them into 'attrs'"
        )
    attrs: dict[str, str] = {}
    for key in _ATTRIBUTE_KEYS:
        part = raw.get(key, {})
        if not isinstance(part, dict) or not all(isinstance(value, str) for value in part.values()):
            raise ModelError(f"{label}: attributes are not strings")
        if any(len(key) > MAX_NAME or len(value) > MAX_VALUE for key, value in part.items()):
            raise ModelError(f"{label}: an attribute is longer than {MAX_VALUE} characters")
        attrs.update(part)
    if raw.get("control_deps", []) != []:
        raise ModelError(f"{label}: control dependencies are not supported")
    source = raw.get("backward_source_id", -1)
    if type(source) is not int or not -1 <= source <= _MAX_INT:
        raise ModelError(f"{label}: backward_source_id is not an integer")
    # An input must come earlier in the list: no cycles.
    inputs = _read_entries(raw["inputs"], nodes, counts, label)
    if raw["op"] == VARIABLE and inputs:
        raise ModelError(f"{label}: a variable with inputs")
    return Node(raw["op"], raw["name"], attrs, inputs, counts[len(nodes)] if counts else 1, raw)


def _read_entries(raw: Any, nodes: Sequence[Node], counts: list[int] | None, label: str) -> tuple[Output, ...]:
    if not isinstance(raw, list):
        raise ModelError(f"{label}: no list of inputs or outputs")
    entries = []
    for entry in raw:
        if (
            not isinstance(entry, list)
            or not 2 <= len(entry) <= 3
            or not all(type(value) is int and 0 <= value <= limit for value, limit in zip(entry, _ENTRY_LIMITS))
            or entry[0] >= len(nodes)
        ):
            raise ModelError(f"{label}: {entry!r} does not name an earlier node")
        node, index = nodes[entry[0]], entry[1]
        if index and node.is_variable:
            raise ModelError(f"{label}: {node.name!r} is a variable, it has no output {index}")
        if counts is None:
            node.num_outputs = max(node.num_outputs, index + 1)
        elif index >= node.num_outputs:
            raise ModelError(f"{label}: {node.name!r} has {node.num_outputs} outputs, there is no output {index}")
        entries.append(Output(node, index, entry[2] if len(entry) == 3 else 0))
    return tuple(entries)


def build_document(nodes: Sequence[Node], outputs: Iterable[Output], raw: Mapping[str, Any] | None) -> str:
    """Write a graph as JSON text; version and order of keys are those of `raw`, the document that it was read from."""
    index = {node: i for i, node in enumerate(nodes)}
    entry_size = _entry_size(raw)

    def entry(output: Output) -> list[int]:
        return [index[output.node], output.index, output.version][:entry_size]

    row_ptr = [0]
    for node in nodes:
        row_ptr.append(row_ptr[-1] + node.num_outputs)
    values: dict[str, Any] = {
        "nodes": [_node_document(node, [entry(output) for output in node.inputs]) for node in nodes],
        "arg_nodes": [i for i, node in enumerate(nodes) if node.is_variable],
        "node_row_ptr": row_ptr,
        "heads": [entry(output) for output in outputs],
    }
    if raw is None:
        return to_text({**values, **_NEW})
    return to_text({key: values.get(key, value) for key, value in raw.items()})


def _entry_size(raw: Mapping[str, Any] | None) -> int:
    """Before 0.9, MXNet wrote no versions of entries."""
    if raw is None:
        return 3
    entries = [*raw["heads"], *(entry for node in raw["nodes"] for entry in node["inputs"])]
    return max(map(len, entries))


def _node_document(node: Node, inputs: list[list[int]]) -> dict[str, Any]:
    if not node.raw or (node.raw.keys() <= _USUAL_KEYS and bool(node.attrs) == ("attrs" in node.raw)):
        # As MXNet has written them since 1.0; attributes that were read as none are the rare case below.
        usual = {"op": node.op, "name": node.name, "attrs": node.attrs, "inputs": format_entries(inputs)}
        return {key: usual[key] for key in node.raw or usual if key != "attrs" or node.attrs}
    keys = [key for key in _ATTRIBUTE_KEYS if key in node.raw]
    parts: dict[str, dict[str, str]] = {key: {} for key in keys}
    if len(keys) > 1:
        homes = {name: key for key in keys for name in node.raw[key]}
        for name, value in node.attrs.items():
            parts[homes.get(name, keys[-1])][name] = value
    elif node.attrs:
        parts[keys[0] if keys else "attrs"] = dict(node.attrs)
    values: dict[str, Any] = {"op": node.op, "name": node.name, **parts, "inputs": inputs}
    # Keys keep their order; new attributes go before the inputs.
    as_read = node.raw and [key for key in _ATTRIBUTE_KEYS if key in node.raw] == list(parts)
    order = list(node.raw) if as_read else list(values)
    order += [key for key in node.raw if key not in order]
    return {
        key: values.get(key, node.raw.get(key)) for key in order if key not in parts or parts[key] or not node.raw[key]
    }
