"""Sentences about a graph: its encoder's form, and what its classifiers read."""

from __future__ import annotations

from bertsym.analysis.classifier_report import ClassifierReport, InputKind, significant_steps
from bertsym.analysis.detected_encoder import DetectedEncoder, DetectedForm
from bertsym.analysis.symbolic_shapes import BATCH, LENGTH, Axes
from bertsym.analysis.trace import SCALE, Step, StepKind, TokenSelection, Trace


def axes_text(axes: Axes | None) -> str:
    """Format a shape: ``(N, T, 768)``, or ``(?)`` when it is unknown."""
    return "(?)" if axes is None else f"({', '.join(map(str, axes))}{',' if len(axes) == 1 else ''})"


def form_text(form: DetectedForm) -> str:
    """Format a form of the encoder: ``portable (query, key and value as one)``."""
    if form.name == "gluonnlp":
        return f"gluonnlp ({'interleaved attention' if form.is_interleaved else 'attention by batch_dot'})"
    return f"{form.name} (query, key and value as one)" if form.has_fused_qkv else form.name


def step_text(step: Step) -> str:
    """Format a step: ``Dense(768)``, ``tanh``."""
    if step.kind is StepKind.DENSE:
        return f"Dense({step.units})"
    if step.kind is StepKind.FUNCTION:
        return step.function
    return {StepKind.SLICE: "some of the units", StepKind.MERGE: "a combination"}.get(step.kind, "scaled")


def classifier_sentence(report: ClassifierReport) -> str:
    """Say in one sentence what a classifier reads; names of nodes stand between backticks."""
    classifier, encoder = report.classifier, report.encoder
    if encoder is None:
        if classifier is None:
            return f"no BERT and no classifier found: ends in `{report.reads}` ({report.reads.node.op})"
        return f"`{classifier.name}` reads `{report.reads}`; no BERT in the graph"
    subject = "no head: ends in" if classifier is None else f"`{classifier.name}` reads"
    return f"{subject} `{report.reads}`{_input_text(report, encoder)}{_kept_tokens_text(report)}"


def _input_text(report: ClassifierReport, encoder: DetectedEncoder) -> str:
    """`` = what it is``, and what follows from it."""
    trace, shape = report.trace, axes_text(report.shape)
    if report.kind is InputKind.NOT_THE_ENCODER:
        return ", which does not come from the encoder"
    if trace is None:
        if report.reads_encoder_output:
            return ": computed from the encoder's output in a way that is not analysed; see --path"
        return ": computed from the embeddings or an inner layer, not from the encoder's output"
    tokens = _tokens_text(trace)
    locked = f": length locked to {report.locked_length}" if report.locked_length else ""
    if report.kind is InputKind.POOLED:
        return f" = the pooler, tanh(Dense) of {tokens}: {shape}{locked}"
    before, after = (
        significant_steps(steps)
        for steps in (trace.steps[: trace.steps_per_token], trace.steps[trace.steps_per_token :])
    )
    text = " of ".join([*map(step_text, reversed(after)), tokens, *map(step_text, reversed(before))])
    if report.kind is InputKind.TOKENS:
        values = "value" if report.num_outputs == 1 else "values"
        return f" = {text} {shape}, each token separately: {report.num_outputs} {values} for each"
    if report.kind is InputKind.WHOLE_SEQUENCE:
        length, width = report.locked_length or encoder.length, trace.width or encoder.units
        flat = length * width if length and width else f"T x {width or 'U'}"
        locked = f"length locked to {length}" if length else "length locked by its weight"
        return f" = {text} {axes_text((BATCH, length or LENGTH, width or 'U'))}, flattened to {flat}: {locked}"
    return f" = {text}: {shape}{locked}"


def _tokens_text(trace: Trace) -> str:
    """Format the tokens that a tensor is computed from."""
    if trace.is_cls:
        return "[CLS], position 0 of the sequence"
    if trace.selection is TokenSelection.POSITION:
        if trace.position is not None and trace.position < 0:
            return f"position {trace.position}, counted from the end of the sequence"
        return f"position {trace.position} of the sequence"
    scaled = "scaled " if SCALE in trace.steps else ""
    zeroed = "the tokens, zeroed at padding" if trace.masked else "the tokens"
    return {
        TokenSelection.ALL: "the whole sequence",
        TokenSelection.FLATTENED: "the whole sequence",
        TokenSelection.LAST: "the last valid token",
        TokenSelection.MAX: f"the maximum over {zeroed}",
        TokenSelection.MEAN: "the mean over the valid tokens" if trace.counted else f"the mean over {zeroed}",
        TokenSelection.SOME: "some of the tokens",
        TokenSelection.SUM: f"the {scaled}sum over the {'valid tokens' if trace.masked else 'tokens'}",
    }[trace.selection]


def _kept_tokens_text(report: ClassifierReport) -> str:
    """Format which results reach the output, where a classifier reads each token and not all results are kept."""
    end = report.output_trace
    if report.kind is not InputKind.TOKENS or end is None:
        return ""
    if end.selection in (TokenSelection.ALL, TokenSelection.FLATTENED):
        return ""
    return f", of which those of {'[CLS], position 0,' if end.is_cls else _tokens_text(end)} are kept"
