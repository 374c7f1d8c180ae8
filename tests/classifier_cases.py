"""Heads on a BERT, what `inspect` reports about them, and the truth: which tokens really reach the classifier."""

from __future__ import annotations

import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from bertsym import BertConfig
from bertsym.analysis.classifier_report import ClassifierReport, report_classifiers
from bertsym.analysis.detected_encoder import DetectedEncoder
from bertsym.analysis.encoder_detection import detect_encoder
from bertsym.analysis.sentences import classifier_sentence, step_text
from bertsym.analysis.token_flow import trace_tokens
from bertsym.array import Array
from bertsym.encoders.graph import encoder_graph
from bertsym.encoders.spec import EncoderSpec
from bertsym.execution import tensor_shapes
from bertsym.execution.values import tensor_values
from bertsym.mxnet_runtime import mx
from bertsym.symbol.graph import SymbolGraph
from bertsym.symbol.node import Output

SYMBOLS = Path(__file__).parent / "symbols"
CONFIG = BertConfig(num_layers=2, units=16, hidden_size=24, num_heads=4, vocab_size=50, max_length=24)
UNITS = CONFIG.units
LENGTH = 6  #: of what the truth is found with, where the graph does not take another one only
_ALL_TOKENS = ("mean", "max", "sum", "whole_sequence", "tokens", "sequence")


@dataclass(frozen=True)
class Net:
    """What a head is built on; symbols of mxnet."""

    sequence: Any  #: (N, T, U)
    token_ids: Any
    valid_length: Any
    layers: Any  #: outputs of the encoder layers, the last one last


def our_encoder() -> Net:
    """The encoder that bertsym writes."""
    encoded = mx.sym.load_json(encoder_graph(EncoderSpec(CONFIG)).to_json())
    inside = encoded.get_internals()
    inner = inside["bertencoder0_transformer0_positionwiseffn0_layernorm0_fwd_output"]
    return Net(encoded, inside["data0"], inside["data2"], [inner, encoded])


def our_masked_sequence() -> Net:
    """The same, zeroed at padding."""
    net = our_encoder()
    masked = mx.sym.SequenceMask(net.sequence, net.valid_length, use_sequence_length=True, axis=1, name="sequence")
    return Net(masked, net.token_ids, net.valid_length, net.layers)


def gluonnlp_trace() -> Net:
    """The encoder of GluonNLP 0.10, which computes in layout TNC and transposes its output."""
    symbol = mx.sym.load(str(SYMBOLS / "gluonnlp-0.10.0" / "sequence-symbol.json"))
    inside = symbol.get_internals()
    norms = [name for name in inside.list_outputs() if "positionwiseffn0_layernorm0_layernorm0_output" in name]
    return Net(symbol, inside["data0"], inside["data2"], [inside[name] for name in norms])


def static_trace() -> Net:
    """That of GluonNLP 0.6's users, which takes one length only."""
    symbol = mx.sym.load(str(SYMBOLS / "gluonnlp-0.6.0" / "sequence-symbol.json"))
    inside = symbol.get_internals()
    return Net(symbol, inside["data0"], inside["data2"], [symbol])


NETS: dict[str, Callable[[], Net]] = {
    "ours": our_encoder,
    "ours, masked": our_masked_sequence,
    "gluonnlp": gluonnlp_trace,
}
ALL_NETS = {**NETS, "static": static_trace}


def classified(data: Any, classes: int = 3, **attributes: Any) -> Any:
    """Dropout, the classifier ``fc`` and softmax."""
    dropped = mx.sym.Dropout(data, p=0.1, name="dropout")
    return mx.sym.softmax(mx.sym.FullyConnected(dropped, num_hidden=classes, name="fc", **attributes), name="probs")


@dataclass(frozen=True)
class Subject:
    """A graph with random weights, and the reports on it."""

    graph: SymbolGraph
    params: dict[str, Array]
    inputs: dict[str, Array]
    encoder: DetectedEncoder
    reports: list[ClassifierReport]

    @property
    def lengths(self) -> tuple[int, int]:
        """Of the two rows that the truth is found with."""
        return _lengths(self.graph)

    @property
    def report(self) -> ClassifierReport:
        """The only report."""
        (report,) = self.reports
        return report

    @property
    def kind(self) -> str:
        """The kind in the only report, as in the JSON."""
        return self.report.kind.value

    @property
    def classifier(self) -> str | None:
        """Name of the only classifier."""
        return self.report.classifier.name if self.report.classifier else None

    @property
    def steps(self) -> tuple[str, ...]:
        """Layers and functions between the encoder and what is read."""
        return tuple(map(step_text, self.report.steps))

    @property
    def sentence(self) -> str:
        """The sentence of the only report."""
        return classifier_sentence(self.report)


def _lengths(graph: SymbolGraph) -> tuple[int, int]:
    encoder = detect_encoder(graph)
    length = (encoder.length if encoder else None) or LENGTH
    return length, length - 2


def ask(symbol: Any, constants: dict[str, Array] | None = None) -> Subject:
    """Give a symbol random weights, and ask what its classifier reads."""
    graph = SymbolGraph.parse(symbol.tojson())
    lengths = _lengths(graph)
    inputs = {
        name: values.astype(np.float32)
        for name, values in {
            "data0": np.random.default_rng(0).integers(1, 50, (2, lengths[0])),
            "data1": np.array([[0] * 3 + [1] * (lengths[0] - 3)] * 2),
            "data2": np.array(lengths),
        }.items()
        if name in graph.variables
    }
    given = {name: array.shape for name, array in (constants or {}).items()}
    shapes = tensor_shapes(graph, {name: array.shape for name, array in inputs.items()} | given, "the test")
    params = dict(constants or {})
    for node in graph.nodes:
        if node.is_variable and node.name not in inputs and node.name not in params and "label" not in node.name:
            random = np.random.default_rng(zlib.crc32(node.name.encode()))
            params[node.name] = random.normal(0.0, 0.3, shapes[Output(node)]).astype(np.float32)
    known = {name: array.shape for name, array in params.items()}
    encoder = detect_encoder(graph, known)
    assert encoder is not None
    return Subject(
        graph, params, inputs, encoder, report_classifiers(graph, encoder, trace_tokens(graph, encoder, params), known)
    )


def check(subject: Subject, report: ClassifierReport, *, exact: bool = True) -> None:
    """Fail when a claim is not what the graph computes; with `exact`, also unless the values are the claimed ones."""
    kind, sentence = report.kind.value, classifier_sentence(report)
    if kind == "unknown":
        return
    lengths = subject.lengths
    run = _Cut(subject, report)
    truth = run.positions()
    reported = "valid tokens" in sentence or "zeroed at padding" in sentence
    valid = reported or (kind in _ALL_TOKENS and truth[1] == set(range(lengths[1])))
    for found, length in zip(truth, lengths):
        assert found <= set(range(lengths[0]))
        if kind == "not_the_encoder":
            assert found == set()
        elif kind == "some":
            assert found
        elif kind == "last":
            assert found == {length - 1}
        elif kind in _ALL_TOKENS:
            assert found >= set(range(length))
            assert not reported or found == set(range(length))
        else:
            assert report.position is not None
            assert found == {report.position % lengths[0]}
    if exact and not report.steps and kind not in ("some", "not_the_encoder"):
        np.testing.assert_allclose(*run.values(report, valid), rtol=1e-4, atol=1e-5)
    if report.shape is not None and not any("*" in str(axis) or axis == "?" for axis in report.shape):
        free = {"N": 2, "T": lengths[0]}
        shape = tuple(free.get(axis, 0) if isinstance(axis, str) else axis for axis in report.shape)
        assert kind == "some" or run.read.shape == shape


class _Cut:
    """The graph from random encodings to the input of the classifier."""

    def __init__(self, subject: Subject, report: ClassifierReport) -> None:
        graph = subject.graph.copy()
        encoded = graph.output(str(subject.encoder.output))
        graph.set_outputs([graph.add("_copy", "what_is_read", [graph.output(str(report.reads))])])
        graph.cut(encoded, "encodings")
        graph.cleanup()
        self.graph, self.subject, self.lengths = graph, subject, subject.lengths
        shapes = {name: array.shape for name, array in subject.inputs.items()}
        shape = tensor_shapes(subject.graph, shapes, "the test")[subject.encoder.output]
        self.time_major = shape[:2] == (self.lengths[0], 2)
        self.encodings = np.random.default_rng(1).normal(0, 1, (2, self.lengths[0], UNITS)).astype(np.float32)
        self.read = self.run(self.encodings)

    def run(self, encodings: Array) -> Array:
        if "encodings" in self.graph.variables:
            encodings = encodings.swapaxes(0, 1) if self.time_major else encodings
            given = {"encodings": np.ascontiguousarray(encodings)}
        else:
            given = {}
        inputs = {name: array for name, array in self.subject.inputs.items() if name in self.graph.variables}
        return tensor_values(self.graph, self.subject.params, {**inputs, **given}, where="the test")[0]

    def positions(self) -> list[set[int]]:
        """For each row the positions on which what is read depends: one at a time is changed."""
        found: list[set[int]] = [set(), set()]
        for row, places in enumerate(found):
            for position in range(self.lengths[0]):
                for change in (10, -10):  # a maximum, or a relu, feels one of them only
                    encodings = self.encodings.copy()
                    encodings[row, position] += change
                    if not np.array_equal(self.run(encodings), self.read):
                        places.add(position)
        return found

    def values(self, report: ClassifierReport, valid: bool) -> tuple[Array, Array]:
        """What is read, and what it should be, a row each."""
        kind, sentence = report.kind.value, classifier_sentence(report)
        wanted = []
        for row, length in zip(self.encodings, self.lengths):
            tokens = row[:length] if valid else row
            if kind in ("whole_sequence", "tokens", "sequence"):
                wanted.append(np.concatenate([tokens, np.zeros((len(row) - len(tokens), UNITS), np.float32)]).ravel())
            elif kind in ("mean", "sum"):
                total = tokens.sum(axis=0)
                count = len(row) if "zeroed at padding" in sentence else len(tokens)
                wanted.append(total / count if kind == "mean" else total)
            elif kind == "max":
                zero = np.zeros((len(row) - len(tokens), UNITS), np.float32)
                wanted.append(np.concatenate([tokens, zero]).max(axis=0))
            elif kind == "last":
                wanted.append(row[length - 1])
            else:
                assert report.position is not None
                wanted.append(row[report.position])
        return self.read.reshape(2, -1), np.stack(wanted)
