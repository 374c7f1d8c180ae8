"""Inputs and outputs of an ONNX file as transformers and its tools name them."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from bertsym.analysis.symbolic_shapes import BATCH
from bertsym.array import Array
from bertsym.bundle import Bundle
from bertsym.errors import UsageError
from bertsym.model import Model
from bertsym.signature import Tensor
from bertsym.symbol.node import Output, free_name

if TYPE_CHECKING:
    from onnx import ModelProto

INPUT_IDS, ATTENTION_MASK, TOKEN_TYPE_IDS = "input_ids", "attention_mask", "token_type_ids"
LAST_HIDDEN_STATE = "last_hidden_state"
_ENCODER_OUTPUTS = {
    "sequence": LAST_HIDDEN_STATE,
    "pooled": "pooler_output",
    "cls": "sentence_embedding",
    "mean": "sentence_embedding",
    "embedding": "sentence_embedding",
}
_SPANS = ("start_logits", "end_logits")
_PROBABILITIES = ("softmax", "Activation")  # operators that follow the logits


def with_transformers_outputs(model: Model) -> Model:
    """Return a copy of a bundle's model with the outputs that transformers gives such a model.

    A head ends in its logits. An encoder that ends in one vector for a text gives the encodings of all tokens before
    it, (N, T, U), zeroed at padding, unless its last layer computes position 0 alone.

    Raises UsageError for a model that is not the bundle of a BERT with an inference symbol of one output.
    """
    if not isinstance(model.bundle, Bundle):
        raise UsageError(f"{model.name}: --signature hf needs the bundle of a BERT")
    if not model.bundle.has_head:
        return _with_sequence(model)
    graph = model.graph.copy()
    (end,) = graph.outputs
    if end.node.op in _PROBABILITIES:
        graph.set_outputs([end.node.inputs[0]])
        graph.cleanup()
    return dataclasses.replace(model, graph=graph)


def _with_sequence(model: Model) -> Model:
    """Return a copy of an encoder's model that gives the encodings of all tokens first, where it computes them."""
    found, valid_length = model.places.get("sequence"), model.require_encoder().valid_length
    if found is None or found in model.graph.outputs or valid_length is None or model.traces[found].axes[0] != BATCH:
        return model
    graph, copies = model.graph.copied()
    sequence = dataclasses.replace(found, node=copies[found.node])
    with graph.edit():
        if not model.traces[found].masked:
            name = free_name(f"{sequence.node.name}-masked", {node.name for node in graph.nodes})
            inputs = [sequence, Output(graph.variable(valid_length))]
            mask = graph.add("SequenceMask", name, inputs, {"use_sequence_length": "True", "axis": "1"})
            sequence = Output(mask)
        graph.set_outputs([sequence, *graph.outputs])
    return dataclasses.replace(model, graph=graph)


@dataclass(frozen=True)
class TransformersSignature:
    """The names of transformers for the inputs and outputs of a converted model."""

    names: Mapping[str, str]  #: INPUT_IDS, ATTENTION_MASK, TOKEN_TYPE_IDS -> input of the symbol, where it has one
    unused: str | None  #: an input of token types that the model does not have, which is always 0
    outputs: tuple[str, ...]
    length: int | str  #: of the inputs, or the name of the free axis

    @classmethod
    def of(cls, model: Model) -> TransformersSignature:
        """Return the signature of a bundle's model."""
        bundle, encoder = model.bundle, model.require_encoder()
        assert isinstance(bundle, Bundle)
        signature = bundle.signature
        task = signature.task
        outputs = (_ENCODER_OUTPUTS[signature.output],) if task is None else _SPANS if task == "qa" else ("logits",)
        if task is None and len(model.graph.outputs) > 1:
            outputs = (LAST_HIDDEN_STATE, *outputs)
        names = {INPUT_IDS: encoder.token_ids, ATTENTION_MASK: encoder.valid_length}
        unused = encoder.token_types
        if signature.tokenizer.segments > 1:
            names[TOKEN_TYPE_IDS], unused = encoder.token_types, None
        known = {name: own for name, own in names.items() if own is not None}
        return cls(known, unused, outputs, signature.length or "length")

    @property
    def splits(self) -> bool:
        """Whether the two outputs are halves of one, for the start and the end of an answer."""
        return self.outputs == _SPANS

    def inputs(self) -> list[Tensor]:
        """The inputs of the file, (batch, length) int64."""
        return [Tensor(name, ("batch", self.length), "int64") for name in self.names]

    def feed(self, sample: Mapping[str, Array]) -> dict[str, Array]:
        """Turn the inputs of the symbol into those of the file."""
        found = {name: sample[own].astype(np.int64) for name, own in self.names.items()}
        length = found[INPUT_IDS].shape[1]
        if ATTENTION_MASK in found:
            found[ATTENTION_MASK] = (np.arange(length) < found[ATTENTION_MASK][:, np.newaxis]).astype(np.int64)
        return found

    def answers(self, outputs: Sequence[Array]) -> list[Array]:
        """Turn the outputs of the symbol into those of the file."""
        if self.splits:
            return [outputs[0][..., 0], outputs[0][..., 1]]
        return list(outputs)

    def apply(self, model: ModelProto) -> list[Tensor]:
        """Rename the inputs and outputs of a converted model in place; returns the outputs.

        The valid length is the sum of the attention mask, so a mask must not have zeros before ones.
        """
        from onnx import TensorProto, helper, numpy_helper

        graph = model.graph
        first = []
        for name, own in self.names.items():
            if name == ATTENTION_MASK:
                axes = numpy_helper.from_array(np.array([1], np.int64), f"{own}/axes")
                graph.initializer.append(axes)
                first.append(helper.make_node("ReduceSum", [name, axes.name], [own], name=own, keepdims=0))
            else:
                first.append(helper.make_node("Identity", [name], [own], name=own))
        if self.unused is not None:
            first.append(helper.make_node("Sub", [INPUT_IDS, INPUT_IDS], [self.unused], name=self.unused))
        ends = [
            (end.name, [axis.dim_param or axis.dim_value for axis in end.type.tensor_type.shape.dim])
            for end in graph.output
        ]
        last, outputs = [], []
        if self.splits:
            ((end, sizes),) = ends
            for i, name in enumerate(_SPANS):
                index = numpy_helper.from_array(np.array(i, np.int64), f"{name}/index")
                graph.initializer.append(index)
                last.append(helper.make_node("Gather", [end, index.name], [name], name=name, axis=2))
                outputs.append(Tensor(name, tuple(sizes[:2])))
        else:
            for name, (end, sizes) in zip(self.outputs, ends):
                last.append(helper.make_node("Identity", [end], [name], name=name))
                outputs.append(Tensor(name, tuple(sizes)))
        nodes = [*first, *graph.node, *last]
        del graph.node[:], graph.input[:], graph.output[:]
        graph.node.extend(nodes)
        graph.input.extend(
            helper.make_tensor_value_info(tensor.name, TensorProto.INT64, tensor.shape) for tensor in self.inputs()
        )
        graph.output.extend(
            helper.make_tensor_value_info(tensor.name, TensorProto.FLOAT, tensor.shape) for tensor in outputs
        )
        return outputs
