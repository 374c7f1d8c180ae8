"""Names of tensors that every BERT has, whatever its nodes are called."""

from __future__ import annotations

from bertsym.analysis.classifier_report import significant_steps
from bertsym.analysis.detected_encoder import DetectedEncoder
from bertsym.analysis.token_flow import Traces
from bertsym.analysis.trace import TokenSelection, Trace, dense_step, function_step
from bertsym.symbol.node import Output


def name_places(encoder: DetectedEncoder, traces: Traces) -> dict[str, Output]:
    """Name the tensors of an encoder: ``embeddings``, and ``cls``, ``pooled``, ``mean``, ``sequence`` if they exist.

    ``cls`` is (N, units) if there is such a tensor, ``sequence`` is zero at padding if there is such a tensor and
    batch-major. The last layer's output is the sequence otherwise.
    """
    found = {"embeddings": encoder.embedding_output}
    pooler = (dense_step(encoder.units or 0), function_step("tanh"))
    ranks: dict[str, tuple[bool, ...]] = {}
    for output, trace in traces.items():
        for name, fits in _fitting(trace, pooler):
            if fits and ranks.get(name, ()) < (rank := _rank(trace)):
                found[name], ranks[name] = output, rank
    return found


def _fitting(trace: Trace, pooler: tuple[object, ...]) -> list[tuple[str, bool]]:
    steps = significant_steps(trace.steps)
    return [
        ("cls", trace.is_cls and not trace.steps),
        ("pooled", trace.is_cls and steps == pooler and len(trace.steps) == len(pooler)),
        ("mean", trace.selection is TokenSelection.MEAN and trace.counted and not trace.steps),
        ("sequence", trace.selection is TokenSelection.ALL and not trace.steps),
    ]


def _rank(trace: Trace) -> tuple[bool, ...]:
    """Order tensors of one name: batch-major ones, those without an axis of size 1, masked ones."""
    return (trace.axes[:1] == ("N",), len(trace.axes) == 2, trace.masked)
