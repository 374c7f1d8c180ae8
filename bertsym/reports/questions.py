"""The errors of question answering: the worst answers with their spans in the context."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from bertsym.reports.assessment import ExampleRows
from bertsym.reports.blocks import (
    MOST_ROWS,
    Block,
    Cell,
    Figure,
    Heatmap,
    Histogram,
    Marked,
    Section,
    Table,
    data_text,
    shortened,
)

_AROUND = 160  # characters of the context on each side of the spans
_BINS = 10
_NO_ANSWER = "(no answer)"


@dataclass(frozen=True)
class AnsweredQuestion:
    """A question with its correct answers and the predicted one."""

    question: str
    context: str
    correct: Sequence[str]  #: empty where the context has no answer
    place: tuple[int, int] | None  #: of the first correct answer in the context
    predicted: tuple[int, int] | None  #: None for no answer
    exact_match: float
    f1: float
    confidence: float


def question_sections(questions: Sequence[AnsweredQuestion], rows: ExampleRows) -> list[Section]:
    """Describe the errors."""
    scores = np.array([each.f1 for each in questions])
    counts, edges = np.histogram(scores, _BINS, (0, 1))
    caption = f"{int((scores == 0).sum()):,} of {len(scores):,} answers share no word with a correct one."
    histogram = Histogram("F1 of an answer", edges.tolist(), {"questions": counts.tolist()})
    blocks: list[Block] = [Figure("scores", "Scores of the answers", histogram, caption)]
    if any(not each.correct for each in questions):
        blocks.append(_presence(questions))
    order = sorted(range(len(questions)), key=lambda i: (questions[i].f1, -questions[i].confidence))
    wrong = [number for number in order if questions[number].f1 < 1]
    is_shown = rows.texts is not None
    texts = ("question", "context", "correct", "predicted") if is_shown else ("has an answer", "answered")
    cells = [_cells(questions[number], rows.place_cells(number), is_shown) for number in wrong[:MOST_ROWS]]
    note = ""
    if is_shown:
        note = "In a context, the predicted answer is orange and the correct one underlined; words of both are green."
    columns = (*rows.places, *texts, "F1", "confidence")
    blocks.append(Table("Worst answers", columns, cells, len(wrong), note=note, examples=True))
    return [Section("Errors", blocks)]


def _presence(questions: Sequence[AnsweredQuestion]) -> Figure:
    counts = [[0, 0], [0, 0]]
    for each in questions:
        counts[not each.correct][each.predicted is None] += 1
    plot = Heatmap("predicted", "correct", ("an answer", "no answer"), counts)
    return Figure("presence", "Questions with and without an answer", plot)


def _cells(question: AnsweredQuestion, place: list[Cell], is_shown: bool) -> list[Cell]:
    numbers = [question.f1, question.confidence]
    if not is_shown:
        return [*place, bool(question.correct), question.predicted is not None, *numbers]
    correct = shortened(" / ".join(dict.fromkeys(question.correct))) or _NO_ANSWER
    found = question.predicted
    answer = shortened(question.context[found[0] : found[1]]) if found is not None else _NO_ANSWER
    return [*place, data_text(question.question), _marked(question), correct, answer, *numbers]


def _marked(question: AnsweredQuestion) -> Marked:
    """The part of the context around both spans, or its beginning."""
    spans = [span for span in (question.place, question.predicted) if span is not None]
    if not spans:
        return data_text(question.context)
    context = question.context
    # Far spans are shown one after the other.
    near = max(end for _, end in spans) - min(start for start, _ in spans) < 4 * _AROUND
    windows = [(min(s for s, _ in spans), max(e for _, e in spans))] if near else sorted(spans)
    pieces: list[tuple[str, str]] = []
    done = 0
    for start, end in windows:
        first, last = max(done, start - _AROUND), min(len(context), end + _AROUND)
        if first > done:
            pieces.append((" … ", ""))
        pieces += _pieces(question, first, last)
        done = last
    if done < len(context):
        pieces.append((" …", ""))
    return Marked(tuple(pieces))


def _pieces(question: AnsweredQuestion, first: int, last: int) -> list[tuple[str, str]]:
    """Cut a part of the context where a span begins or ends."""
    spans = [span for span in (question.place, question.predicted) if span is not None]
    cuts = sorted({first, last, *(min(max(end, first), last) for span in spans for end in span)})
    pieces = []
    for start, end in zip(cuts, cuts[1:]):
        correct, predicted = (
            span is not None and span[0] <= start < span[1] for span in (question.place, question.predicted)
        )
        mark = {(True, True): "right", (True, False): "missed", (False, True): "wrong"}.get((correct, predicted), "")
        pieces.append((shortened(question.context[start:end]), mark))
    return pieces
