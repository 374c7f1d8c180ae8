"""Build an ONNX graph whose nodes are named after the MXNet nodes."""

from __future__ import annotations

from collections.abc import Callable, Container, Mapping, Sequence
from typing import Any, NoReturn, Union

import numpy as np
from onnx import NodeProto, TensorProto, helper

from bertsym.array import Array
from bertsym.errors import ModelError
from bertsym.symbol.node import Node, Output

#: end of a slice that is beyond the end of every axis
TO_THE_END = int(np.iinfo(np.int64).max)


class Builder:
    """Adds ONNX nodes for one MXNet node after the other.

    The last ONNX node of an MXNet node ``X`` is named ``X``, and its output ``X_output``, as MXNet lists it; the others
    are named ``X/PART``. Tensors are float32, except `integers`, which are int64.
    """

    def __init__(
        self,
        where: str,
        ranks: Mapping[Output, int],
        parameters: Mapping[str, Array],
        names: set[str],
        ends: Mapping[str, Node],
        advice: str,
    ) -> None:
        self.where = where
        self._advice = advice
        self.parameters = parameters
        self.nodes: list[NodeProto] = []
        self.constants: dict[str, Array] = {}
        self.transposed: dict[str, str] = {}  #: parameter -> name of the transposed parameter
        self.integers: set[str] = set()
        self._ranks = ranks
        self._names = set(names)  # of tensors, which must be unique
        self._ends = dict(ends)  # name of an output of the graph, reserved for it -> its node
        self._made: dict[tuple[str, str], str] = {}
        self._begun: set[str] = set()
        self._node, self._base = Node("", ""), ""

    def begin(self, node: Node) -> None:
        """Start the conversion of an MXNet node."""
        self._node, self._base = node, _differing(node.name, self._begun)
        self._begun.add(self._base)

    def refuse(self, why: str) -> NoReturn:
        """Raise ModelError for the current MXNet node, with the advice at the end of the message."""
        raise ModelError(f"{self.where}: node {self._node.name!r} ({self._node.op}) {why}{self._advice}")

    def rank(self, output: Output) -> int:
        """Return the number of axes of an MXNet tensor."""
        if output not in self._ranks:
            self.refuse(f"reads {output}, whose shape is unknown: give the shapes of inputs with --shape NAME=SIZES")
        return self._ranks[output]

    def add(self, op: str, inputs: Sequence[str], part: str = "", **attributes: Any) -> str:
        """Add an ONNX node and return its output; without `part`, it is the last one of the current MXNet node."""
        return self.add_many(op, inputs, 1, part, **attributes)[0]

    def add_many(self, op: str, inputs: Sequence[str], count: int, part: str = "", **attributes: Any) -> list[str]:
        """Add an ONNX node with several outputs, ``X_output0``, ``X_output1`` and so on."""
        name = f"{self._base}/{part}" if part else self._base
        tensor = name if part else f"{self._base}_output"
        outputs = [self._unique(tensor if count == 1 else f"{tensor}{i}") for i in range(count)]
        self.nodes.append(helper.make_node(op, inputs, outputs, name=name, **attributes))
        return outputs

    def name_output(self, x: str, name: str) -> None:
        """Give a tensor the name of an output of the graph."""
        if name in self._names:
            self.refuse(
                f"is not the only one that gives {name}: number the nodes with bertsym edit --rename "
                f"{self._node.name}={self._node.name}"
            )
        self._names.add(name)
        self.nodes.append(helper.make_node("Identity", [x], [name], name=name))

    def _unique(self, name: str) -> str:
        others = {end for end, node in self._ends.items() if node is not self._node}
        found = _differing(name, self._names | others)
        self._names.add(found)
        return found

    def ints(self, *values: int) -> str:
        """Add an int64 vector; equal constants are stored once."""
        return self._constant(f"ints {list(values)}", np.array(values, np.int64))

    def scalar(self, value: int) -> str:
        """Add an int64 scalar."""
        return self._constant(f"int {value}", np.array(value, np.int64))

    def number(self, value: float) -> str:
        """Add a float32 scalar."""
        return self._constant(f"float {value!r}", np.array(value, np.float32))

    def array(self, values: Array, part: str = "values") -> str:
        """Add a constant for the current MXNet node."""
        return self._constant(f"{self._base}/{part}", values)

    def array_of(self, parameter: str, values: Array, part: str) -> str:
        """Add a constant that is computed from a parameter; layers that share the parameter share it if it is equal."""
        name = f"{parameter}/{part}"
        if name in self.constants and not np.array_equal(self.constants[name], values):
            return self.array(values, part)
        return self._constant(name, values)

    def _constant(self, name: str, values: Array) -> str:
        self.constants[name] = values
        return name

    def shape(self, x: str) -> str:
        """Add the shape of a tensor, an int64 vector."""
        return self._once("Shape", x, "shape")

    def sizes(self, x: str, start: int, end: int, part: str) -> str:
        """Add a range of a tensor's shape, an int64 vector; `start` and `end` may be negative."""
        return self.add("Slice", [self.shape(x), self.ints(start), self.ints(end)], part)

    def as_index(self, x: str) -> str:
        """Cast a tensor of integers to int64."""
        return x if x in self.integers else self._once("Cast", x, "int64", to=TensorProto.INT64)

    def as_float(self, x: str) -> str:
        """Cast an int64 input to float32, in which MXNet computes."""
        return self._once("Cast", x, "float32", to=TensorProto.FLOAT) if x in self.integers else x

    def transpose_of(self, entry: Output, x: str) -> str:
        """Transpose a matrix; a parameter is stored transposed."""
        if not entry.node.is_variable or x not in self.parameters:
            return self._once("Transpose", x, "transposed", perm=[1, 0])
        self.transposed[x] = f"{x}/transposed"
        return self.transposed[x]

    def _once(self, op: str, x: str, part: str, **attributes: Any) -> str:
        if (x, part) not in self._made:
            output = self._unique(f"{x}/{part}")
            self.nodes.append(helper.make_node(op, [x], [output], name=output, **attributes))
            self._made[x, part] = output
        return self._made[x, part]


def _differing(name: str, taken: Container[str]) -> str:
    """Make a name unique: names of operators may repeat in MXNet, but not in ONNX."""
    found, number = name, 2
    while found in taken:
        found, number = f"{name}#{number}", number + 1
    return found


#: names of the outputs of an operator, one or several
Result = Union[str, list[str]]
#: the builder, the MXNet node and the names of its inputs -> its outputs, all computed
Converter = Callable[[Builder, Node, list[str]], Result]
