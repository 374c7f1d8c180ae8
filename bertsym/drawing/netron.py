"""Write a picture in Netron's own format, in which every edge has a shape.

For a ``-symbol.json`` Netron shows only the shapes of parameters. The format ``.netron`` is JSON of the drawn graph
(source/message.js of Netron, verified with 9.3.3; Netron calls the format experimental).
"""

from __future__ import annotations

import json
from typing import Any

from bertsym.drawing.node_style import parameter_role
from bertsym.drawing.picture import Picture
from bertsym.symbol.node import Node, Output


def netron_text(picture: Picture, format_name: str, producer: str) -> str:
    """Return the content of a ``.netron`` file; Netron shows `format_name`, such as ``MXNet v1.9.1``."""
    values: list[dict[str, Any]] = []
    places: dict[Output, int] = {}

    def place(output: Output) -> int:
        if output not in places:
            places[output] = len(values)
            values.append(_value(picture, output))
        return places[output]

    nodes = [
        {
            "name": node.name,
            "type": {"name": node.op},
            "inputs": [
                {"name": _slot(picture, entry, i), "value": [place(entry)]} for i, entry in enumerate(node.inputs)
            ],
            "outputs": [
                {"name": "output" if i == 0 else f"output{i + 1}", "value": [place(Output(node, i))]}
                for i in range(_shown_outputs(picture, node))
            ],
            "attributes": [{"name": key, "value": value} for key, value in node.attrs.items()],
        }
        for node in picture.graph.nodes
        if not node.is_variable
    ]
    inputs = [node for node in picture.graph.nodes if node.is_variable and node.name not in picture.parameters]
    graph = {
        "values": values,
        "inputs": [{"name": node.name, "value": [place(Output(node))]} for node in inputs],
        "outputs": [{"name": str(output), "value": [place(output)]} for output in picture.graph.outputs],
        "nodes": nodes,
    }
    # Netron recognises the file by its first key.
    document = {"signature": "netron:model", "format": format_name, "producer": producer, "graphs": [graph]}
    return json.dumps(document, ensure_ascii=False)


def _value(picture: Picture, output: Output) -> dict[str, Any]:
    # Netron omits labels of more than 16 characters, so write 12N instead of 12*N.
    shape = picture.shape(output)
    dimensions = (
        None if shape is None else [str(size).replace("*N", "N") if isinstance(size, str) else size for size in shape]
    )
    value: dict[str, Any] = {"name": str(output)}
    if dimensions is not None:
        value["type"] = {"dataType": picture.dtype, "shape": {"dimensions": dimensions}}
    if output.node.is_variable and output.node.name in picture.parameters:
        value["initializer"] = dict(value)
    return value


def _slot(picture: Picture, entry: Output, position: int) -> str:
    if entry.node.is_variable and entry.node.name in picture.parameters:
        return parameter_role(entry.node.name)
    return "data" if position == 0 else f"data{position + 1}"


def _shown_outputs(picture: Picture, node: Node) -> int:
    """Return the number of outputs up to the last that is read, at least 1."""
    read = [entry.index for entry in (*picture.readers, *picture.graph.outputs) if entry.node is node]
    return max([0, *read]) + 1
