"""Files corrupted at random, reproducibly for a seed, as by a disk, a careless script or an attacker."""

from __future__ import annotations

import copy
import json
import random
import struct
from collections.abc import Callable
from typing import Any

Corruption = Callable[[bytes, random.Random], bytes]

NUMBERS = (-(2**63), -(2**31) - 1, -2, -1, 0, 1, 2, 7, 2**16, 2**24 + 1, 2**31, 2**32 + 1, 2**62, 2**63, 10**30)
VALUES: tuple[Any, ...] = (
    None,
    True,
    [],
    {},
    "",
    "x" * 5000,
    "\x00",
    "../../etc/passwd",
    1e308,
    -0.5,
    [[]],
    [0],
    *NUMBERS,
)
ATTRIBUTES = (
    *("nan", "inf", "-inf", "-1", "0", "1e400", "-1e30", "99999999999999999999", "None", "", "True", "abc", "x" * 5000),
    *("()", "(0,)", "(-9,)", "(1000000,1000000)", "(2147483647,2147483647,2147483647)", "[[1]]", "(1,2,3,4,5,6,7,8,9)"),
    *("0x7fffffff", "1;", "%n%s", "é", "(None,None)", "16777216", "3", "-3", "2", "int8", "float16", "float64", "clip"),
)
OPERATORS = (
    *("_Native", "_NDArray", "Custom", "_CustomFunction", "_CachedOp", "_foreach", "_cond", "_cvimread", "null", ""),
    *("BatchNorm", "LayerNorm", "Embedding", "FullyConnected", "RNN", "Pooling", "Convolution", "SliceChannel", "topk"),
    *("Reshape", "transpose", "SequenceMask", "SequenceLast", "softmax", "take", "pick", "gather_nd", "scatter_nd"),
    *("batch_dot", "dot", "Concat", "stack", "add_n", "slice", "slice_axis", "tile", "repeat", "Dropout", "CTCLoss"),
    *("_sg_mkldnn_fully_connected", "_contrib_quantize_v2", "_arange", "_zeros", "one_hot", "norm", "no_such_operator"),
)
ATTRIBUTE_NAMES = (
    *(
        "axis",
        "num_hidden",
        "shape",
        "eps",
        "p",
        "flatten",
        "no_bias",
        "input_dim",
        "output_dim",
        "use_length",
        "heads",
    ),
    *("heads", "use_sequence_length", "begin", "end", "step", "scalar", "value", "temperature", "dtype", "act_type"),
    *(
        "num_args",
        "__shape__",
        "__dtype__",
        "__storage_type__",
        "__init__",
        "ctx_group",
        "info",
        "num_outputs",
        "size",
        "reverse",
    ),
)


# Any file


def bytes_changed(content: bytes, rng: random.Random) -> bytes:
    """A few bytes flipped, taken out or put in."""
    corrupted = bytearray(content)
    for _ in range(rng.choice((1, 1, 2, 8))):
        place = rng.randrange(len(corrupted) or 1)
        change = rng.randrange(4) if corrupted else 3
        if change == 0:
            corrupted[place] ^= 1 << rng.randrange(8)
        elif change == 1:
            corrupted[place] = rng.choice((0, 255, ord('"'), ord("["), ord("9"), ord("-")))
        elif change == 2:
            del corrupted[place : place + rng.choice((1, 4, 100))]
        else:
            corrupted[place:place] = rng.randbytes(rng.choice((1, 4, 100)))
    return bytes(corrupted)


def truncated(content: bytes, rng: random.Random) -> bytes:
    """A truncated, an extended or an empty file."""
    cut = rng.choice((0, 1, 8, len(content) // 2, len(content) - 1, rng.randrange(len(content))))
    return rng.choice((content[:cut], content[:cut], content + content[:100], content + bytes(8)))


# JSON


def _places(document: Any) -> list[tuple[Any, Any]]:
    """Every value of a document, as its container and its key."""
    found: list[tuple[Any, Any]] = []
    waiting = [document]
    while waiting:
        here = waiting.pop()
        keys = list(here) if isinstance(here, dict) else range(len(here)) if isinstance(here, list) else ()
        found += [(here, key) for key in keys]
        waiting += [here[key] for key in keys]
    return found


def json_changed(content: bytes, rng: random.Random) -> bytes:
    """A value replaced, taken out or put twice."""
    document = json.loads(content)
    for _ in range(rng.choice((1, 1, 2))):
        places = _places(document)
        if not places:
            break
        container, key = rng.choice(places)
        change = rng.randrange(4)
        if change == 0:
            del container[key]
        elif change == 1 and isinstance(container, list):
            container.insert(key, copy.deepcopy(container[key]))
        elif change == 2 and isinstance(container, dict):
            container[rng.choice(("x", "", "../x", "nodes", "__class__"))] = copy.deepcopy(container[key])
        else:
            container[key] = rng.choice(VALUES)
    return json.dumps(document).encode()


def json_deep(content: bytes, rng: random.Random) -> bytes:
    """Lists in lists, deeper than any stack, where a value was."""
    document = json.loads(content)
    container, key = rng.choice(_places(document))
    container[key] = "DEEP"
    depth = rng.choice((500, 5000, 200000))
    return json.dumps(document).replace('"DEEP"', "[" * depth + "]" * depth, 1).encode()


# Symbols


def _corrupt_symbol(
    content: bytes, rng: random.Random, change: Callable[[dict[str, Any], random.Random], None]
) -> bytes:
    document = json.loads(content)
    change(document, rng)
    return json.dumps(document, indent=2).encode()


def _any_node(document: dict[str, Any], rng: random.Random) -> dict[str, Any]:
    node: dict[str, Any] = rng.choice([node for node in document["nodes"] if node["op"] != "null"])
    return node


def _indices(document: dict[str, Any], rng: random.Random) -> None:
    nodes = document["nodes"]
    entries = [*(entry for node in nodes for entry in node["inputs"]), *document["heads"]]
    lists = rng.choice((entries, entries, entries, [document["arg_nodes"], document["node_row_ptr"]]))
    entry = rng.choice(lists)
    entry[rng.randrange(len(entry))] = rng.choice((*NUMBERS, len(nodes) - 1, len(nodes), rng.randrange(len(nodes))))


def _structure(document: dict[str, Any], rng: random.Random) -> None:
    nodes = document["nodes"]
    one, other = rng.randrange(len(nodes)), rng.randrange(len(nodes))
    change = rng.randrange(6)
    if change == 0:
        nodes[one], nodes[other] = nodes[other], nodes[one]
    elif change == 1:
        del nodes[one]
    elif change == 2:
        nodes[one]["name"] = nodes[other]["name"]
    elif change == 3:
        _any_node(document, rng)["inputs"] *= rng.choice((0, 2, 50))
    elif change == 4:
        _any_node(document, rng)["inputs"] = [[one, 0, 0]] * rng.randrange(6)
    else:
        _any_node(document, rng)["subgraphs"] = rng.choice(([{}], [copy.deepcopy(document)], "x", [[]]))


def _attributes(document: dict[str, Any], rng: random.Random) -> None:
    node = rng.choice((_any_node(document, rng), _any_node(document, rng), rng.choice(document["nodes"])))
    attrs = node.setdefault("attrs", {})
    key = rng.choice([*attrs, rng.choice(ATTRIBUTE_NAMES)])
    attrs[key] = rng.choice(ATTRIBUTES)
    if rng.random() < 0.1:
        del attrs[key]


def _operators(document: dict[str, Any], rng: random.Random) -> None:
    node = _any_node(document, rng)
    node["op"] = rng.choice((rng.choice(OPERATORS), _any_node(document, rng)["op"]))
    if rng.random() < 0.5:
        node["attrs"] = dict(_any_node(document, rng).get("attrs", {}))
    if node["op"] in ("_Native", "_NDArray"):
        node["attrs"] = {"info": "0x41414141"}


def symbol_indices(content: bytes, rng: random.Random) -> bytes:
    """An index of an input, an output or a list that is another one."""
    return _corrupt_symbol(content, rng, _indices)


def symbol_structure(content: bytes, rng: random.Random) -> bytes:
    """Nodes out of order, missing, twice, or with other inputs."""
    return _corrupt_symbol(content, rng, _structure)


def symbol_attributes(content: bytes, rng: random.Random) -> bytes:
    """An attribute with another value."""
    return _corrupt_symbol(content, rng, _attributes)


def symbol_operators(content: bytes, rng: random.Random) -> bytes:
    """A node of another operator."""
    return _corrupt_symbol(content, rng, _operators)


# Parameters


def params_header(content: bytes, rng: random.Random) -> bytes:
    """A number of the header, or of the first array's, that is another one."""
    layout, place = rng.choice((("<Q", 0), ("<Q", 8), ("<Q", 16), *(("<i", 24 + 4 * i) for i in range(10)), ("<q", 36)))
    return _packed(content, layout, place, rng)


def params_lengths(content: bytes, rng: random.Random) -> bytes:
    """A number near the names, which stand at the end, that is another one."""
    first = content.find(b"arg:")
    return _packed(content, "<Q", rng.choice((first - 8, first - 16, content.rfind(b"arg:") - 8)), rng)


def _packed(content: bytes, layout: str, place: int, rng: random.Random) -> bytes:
    low, high = (0, 2**64 - 1) if layout == "<Q" else (-(2 ** (8 * struct.calcsize(layout) - 1)),) * 2
    high = high if layout == "<Q" else -low - 1
    value = rng.choice([number for number in (*NUMBERS, 12, 100, 10**8, 10**10) if low <= number <= high])
    packed = struct.pack(layout, value)
    return content[:place] + packed + content[place + len(packed) :]


def params_values(content: bytes, rng: random.Random) -> bytes:
    """Numbers that are none, infinite, huge or just others."""
    place = 60 + 4 * rng.randrange((content.find(b"arg:") - 80) // 4)
    value = rng.choice(
        (struct.pack("<f", float("nan")), struct.pack("<f", float("inf")), b"\xff\xff\x7f\x7f", bytes(4))
    )
    return content[:place] + value + content[place + 4 :]


def params_names(content: bytes, rng: random.Random) -> bytes:
    """A name that is another one of the same length, or of another kind."""
    place = content.find(b"arg:", rng.randrange(content.find(b"arg:"), content.rfind(b"arg:") + 1))
    name = rng.choice((b"aux:", b"arg:\xff", b"xyz:", b"arg:x", b"arg:\x00", b"arg:arg:"))
    return content[:place] + name + content[place + len(name) :]


# Vocabularies


def lines_changed(content: bytes, rng: random.Random) -> bytes:
    """A line that is missing, twice, endless, no text, or no token."""
    lines = content.split(b"\n")
    place = rng.randrange(len(lines))
    change = rng.randrange(5)
    if change == 0:
        del lines[place]
    elif change == 1:
        lines.insert(place, rng.choice(lines))
    else:
        lines[place] = (b"\xff\xfe", b"a" * 1000000, b"\x00\r")[change - 2]
    return b"\n".join(lines)


# safetensors


def safetensors_header(content: bytes, rng: random.Random) -> bytes:
    """A header of JSON that says something else, or of another length."""
    (length,) = struct.unpack_from("<Q", content)
    header = json_changed(content[8 : 8 + length], rng)
    length_field = rng.choice((len(header), len(header), len(header), 0, 2**40, length))
    return struct.pack("<Q", length_field) + header + content[8 + length :]


ANY: tuple[Corruption, ...] = (bytes_changed, truncated)
JSON: tuple[Corruption, ...] = (*ANY, json_changed, json_changed, json_deep)
SYMBOL: tuple[Corruption, ...] = (
    *JSON,
    *(symbol_indices, symbol_structure, symbol_attributes, symbol_attributes, symbol_operators),
)
PARAMS: tuple[Corruption, ...] = (*ANY, params_header, params_lengths, params_values, params_names)
VOCABULARY: tuple[Corruption, ...] = (*ANY, lines_changed)
SAFETENSORS: tuple[Corruption, ...] = (*ANY, safetensors_header)


def corrupt(content: bytes, corruptions: tuple[Corruption, ...], rng: random.Random) -> tuple[str, bytes]:
    """Corrupt a file; return the name of the change and the changed content."""
    while True:
        corruption = rng.choice(corruptions)
        changed = corruption(content, rng)
        if changed != content:
            return corruption.__name__, changed
