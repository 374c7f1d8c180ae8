"""Question answering: the span of a context that answers a question, or none."""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from bertsym.array import Array
from bertsym.datasets.dataset import DataSet
from bertsym.encoders.graph_heads import SPANS
from bertsym.errors import DataError
from bertsym.json_reader import JsonValue
from bertsym.metrics.resampling import mean_of
from bertsym.metrics.squad import best_threshold, evaluate_answers, score_answer
from bertsym.reports.assessment import Assessment, ExampleRows, histogram
from bertsym.reports.blocks import Histogram
from bertsym.reports.questions import AnsweredQuestion, question_sections
from bertsym.tasks.answer_spans import Spans, find_spans
from bertsym.tasks.example_chunks import collect_examples, require_some
from bertsym.tasks.options import TaskOptions
from bertsym.tasks.table_task import text_rows
from bertsym.tasks.task import Example, Examples, Reading, Source, Task
from bertsym.text.questions import Question, QuestionReader
from bertsym.text.tokenizer import Encoded, Tokenizer

LONGEST_ANSWER = 30  #: tokens
MAX_STRIDE = 128  #: tokens that windows share by default, less if the maximum length is below 384
N_BEST = 5  #: answers that a prediction lists
_LARGEST_STRIDE = 1 << 16


@dataclass(frozen=True)
class Answer:
    """A span of the context: its text, its start and end in characters, and its probability."""

    answer: str
    start: int
    end: int
    score: float

    def to_json(self) -> dict[str, Any]:
        """Return the answer as a JSON object."""
        return dataclasses.asdict(self)


@dataclass(frozen=True)
class QuestionPrediction:
    """The answer to a question, None where the context has none, and the best spans of the context.

    ``no_answer_score`` is the probability of no answer.
    """

    answer: Answer | None
    best: tuple[Answer, ...]  #: best first, even if there is no answer
    no_answer_score: float
    id: str | None = None
    truncated: bool = False

    @property
    def text(self) -> str:
        """The text of the answer, empty for none."""
        return self.answer.answer if self.answer is not None else ""

    def agrees(self, other: QuestionPrediction) -> bool:
        """Whether another prediction has the same answer."""
        one, two = self.answer, other.answer
        return (one and (one.start, one.end)) == (two and (two.start, two.end))

    def to_json(self) -> dict[str, Any]:
        """Return the answer, null for none, and the best spans."""
        found = self.answer
        return {
            "id": self.id,
            "answer": found and found.answer,
            "start": found and found.start,
            "end": found and found.end,
            "score": self.no_answer_score if found is None else found.score,
            "no_answer_score": self.no_answer_score,
            "n_best": [each.to_json() for each in self.best],
        }

    def cells(self) -> list[str]:
        """Return the answer, on one line, its start and end, and its score with six decimals."""
        if self.answer is None:
            return ["", "", "", f"{self.no_answer_score:.6f}"]
        one_line = " ".join(self.answer.answer.split())
        return [one_line, str(self.answer.start), str(self.answer.end), f"{self.answer.score:.6f}"]


@dataclass(frozen=True)
class SpanTargets:
    """The first and the last token of the answer in each window, (windows, 2); 0, [CLS], for none."""

    tokens: Array

    def labels(self, rows: Array, length: int) -> dict[str, Array]:
        """Return both tokens of some windows, each (N,) float32."""
        return {f"{name}_label": self.tokens[rows, i].astype(np.float32) for i, name in enumerate(SPANS)}

    def count(self, rows: Array) -> int:
        """Return the number of windows."""
        return len(rows)


@dataclass(frozen=True)
class QuestionAnswering(Task):
    """The span of a context that answers a question; two softmaxes over the tokens, for start and end."""

    name = "qa"
    known_metrics = ("f1", "exact_match")
    default_metrics = known_metrics
    default_max_length = 384

    #: tokens that the windows of a long context share; None: a third of the maximum length, at most 128
    stride: int | None = None
    #: there is no answer if its log probability exceeds that of the best span by more than this; None: always a span
    no_answer_threshold: float | None = None

    @classmethod
    def create(cls, dataset: DataSet, options: TaskOptions = TaskOptions()) -> QuestionAnswering:
        """Create the task for training."""
        options.require_only(cls.name, cls.option_names())
        return cls(metrics=dataset.metrics or cls.default_metrics, stride=options.stride)

    @classmethod
    def option_names(cls) -> tuple[str, ...]:
        """Return the stride."""
        return ("stride",)

    inference_option_names = option_names

    @classmethod
    def read_settings(cls, document: JsonValue) -> dict[str, Any]:
        """Read the metrics, the stride and the threshold."""
        return {
            **super().read_settings(document),
            "stride": document.get("stride").optional(lambda value: value.integer(0, _LARGEST_STRIDE)),
            "no_answer_threshold": document.get("no_answer_threshold").optional(JsonValue.number),
        }

    # Reading

    def read(self, source: Source, reading: Reading, labelled: bool = True) -> Examples:
        """Read and tokenise all questions of a file."""
        reader = QuestionReader(source, reading.table_format, labelled)
        encoded = self._encoded(reader.each(), reading)
        rows, left_out = collect_examples(encoded, reading, reader.name, "questions")
        return Examples(reader.name, rows, reader.sha256, left_out, pair=True)

    def examples(self, source: Source, reading: Reading) -> Iterator[list[Example | DataError]]:
        """Yield the questions of a file or stream in order, in chunks."""
        reader = QuestionReader(source, reading.table_format, labelled=False)
        yield from require_some(self._encoded(reader.each(), reading), source, reader.name, "questions")

    def encode_texts(
        self, texts: Sequence[str], pairs: Sequence[str] | None, reading: Reading
    ) -> Iterator[list[Example | DataError]]:
        """Yield questions, `texts`, about contexts, `pairs`, as examples in order, in chunks."""
        rows = text_rows(texts, pairs, True)
        questions = [Question(f"question {row.line}", row.text, row.pair or "", line=row.line) for row in rows]
        return self._encoded(questions, reading)

    def _encode(self, questions: Sequence[Question], tokenizer: Tokenizer) -> list[Example | DataError]:
        """Tokenise questions with their contexts, a long context in overlapping windows."""
        stride = self.stride if self.stride is not None else min(tokenizer.max_length // 3, MAX_STRIDE)
        texts, contexts = [each.question for each in questions], [each.context for each in questions]
        found: list[Example | DataError] = []
        for question, windows in zip(questions, tokenizer.encode_windows(texts, contexts, stride)):
            if isinstance(windows, DataError):
                found.append(DataError(f"{question.where}: {windows}"))
            elif any(window.empty for window in windows):
                found.append(DataError(f"{question.where}: a text without tokens (only control characters?)"))
            else:
                target = None if question.answers is None else tuple(answer.text for answer in question.answers)
                found.append(Example(question.line, tuple(windows), target, question))
        return found

    def _encoded(
        self, questions: Iterable[Question | DataError], reading: Reading
    ) -> Iterator[list[Example | DataError]]:
        for chunk in reading.chunking(questions, _characters):
            encoded = iter(self._encode([each for each in chunk if isinstance(each, Question)], reading.tokenizer))
            yield [next(encoded) if isinstance(each, Question) else each for each in chunk]

    def together(self, example: Example) -> str:
        """Return the context."""
        return str(example.source.context)

    def for_training(self, train: Examples, warn: Callable[[str], object]) -> Examples:
        """Leave out the questions none of whose answers is in the context at its offset."""
        misplaced = [row for row in train.rows if row.target and row.source.place is None]
        if not misplaced:
            return train
        warn(
            f"warning: {train.name}: {len(misplaced)} of {len(train)} questions are left out, because the context does "
            f"not have their answer at answer_start; the first is {misplaced[0].source.where}"
        )
        rows = [row for row in train.rows if not row.target or row.source.place is not None]
        if not rows:
            raise DataError(f"{train.name}: no answer is in its context at answer_start")
        return dataclasses.replace(train, rows=rows, left_out=train.left_out + len(misplaced))

    def with_labels(self, train: Examples) -> QuestionAnswering:
        """Return this task with a threshold if the training file has questions without an answer."""
        has_none = any(row.target == () for row in train.rows)
        return dataclasses.replace(self, no_answer_threshold=0.0) if has_none else self

    # Training

    @property
    def num_outputs(self) -> int:
        """Two: the logits of start and end."""
        return len(SPANS)

    def targets(self, examples: Examples) -> SpanTargets:
        """Prepare the first and the last token of the answer in each window."""
        tokens = [
            _answer_tokens(window, row.source.place if row.target else None)
            for row in examples.rows
            for window in row.windows
        ]
        return SpanTargets(np.array(tokens, np.int64).reshape(-1, 2))

    def loss(self, outputs: Sequence[Array], labels: Mapping[str, Array]) -> float:
        """Return the mean of the cross entropies of start and end, summed over the windows."""
        total = 0.0
        for probabilities, name in zip(outputs, SPANS):
            right = labels[f"{name}_label"].astype(np.int64)
            chosen = probabilities[np.arange(len(right)), right].astype(np.float64)
            total -= float(np.log(np.maximum(chosen, 1e-12)).sum())
        return total / len(SPANS)

    # Inference

    def token_places(self, example: Example, window: int) -> dict[str, list[Any]]:
        """Return ``offsets``: start and end of each token in characters of the context, None for other tokens."""
        alignment = example.windows[window].alignment
        assert alignment is not None
        places = zip(alignment.offsets.tolist(), alignment.texts)
        return {"offsets": [offsets if text == 1 else None for offsets, text in places]}

    def _spans(self, outputs: Sequence[Array], examples: Sequence[Example], count: int) -> list[Spans]:
        remaining = iter(outputs)
        return [
            find_spans([*itertools.islice(remaining, len(row.windows))], row.windows, count, LONGEST_ANSWER)
            for row in examples
        ]

    def _has_answer(self, spans: Spans) -> bool:
        if not spans.best:
            return False
        return self.no_answer_threshold is None or spans.no_answer_margin <= self.no_answer_threshold

    def evaluate(self, outputs: Sequence[Array], examples: Examples) -> dict[str, float]:
        """Compute the metrics of SQuAD and the mean cross entropy of start and end."""
        found = self._spans(outputs, examples.rows, 1)
        answers = [_text(row, spans) if self._has_answer(spans) else "" for row, spans in zip(examples.rows, found)]
        values = evaluate_answers([row.target for row in examples.rows], answers)
        first = {name: values.pop(name) for name in self.metrics}
        return {**first, **values, "loss": self._dev_loss(outputs, examples)}

    def _dev_loss(self, outputs: Sequence[Array], examples: Examples) -> float:
        """Return the mean loss of the windows, without those whose answer is not in its context at its offset."""
        known = [not row.target or row.source.place is not None for row in examples.rows for _ in row.windows]
        losses = [
            float(np.mean(_cross_entropies(logits, tokens)))
            for logits, tokens, is_known in zip(outputs, self.targets(examples).tokens, known)
            if is_known
        ]
        return float(np.mean(losses)) if losses else math.nan

    def assess(self, outputs: Sequence[Array], examples: Examples, rows: ExampleRows) -> Assessment:
        """Describe the scores of the answers, and the worst of them with their spans."""
        questions = []
        for row, found in zip(examples.rows, self.predictions(outputs, examples.rows)):
            exact, f1 = score_answer(row.target, found.text)
            place = (found.answer.start, found.answer.end) if found.answer is not None else None
            confidence = found.no_answer_score if found.answer is None else found.answer.score
            source = row.source
            questions.append(
                AnsweredQuestion(
                    source.question, source.context, row.target, source.place, place, exact, f1, confidence
                )
            )
        scores = np.array([(each.exact_match, each.f1) for each in questions])
        metrics = {"exact_match": mean_of(scores[:, 0], is_fraction=True), "f1": mean_of(scores[:, 1])}
        sections = question_sections(questions, rows)
        return Assessment({name: metrics[name] for name in self.metrics}, scores[:, 1], "F1", sections)

    def example_rows(self, examples: Examples, with_texts: bool) -> ExampleRows:
        """Return the questions as rows of a table, by their lines, or in SQuAD's JSON by their ids."""
        rows = super().example_rows(examples, with_texts)
        if any(rows.lines):
            return dataclasses.replace(rows, text_columns=("question", "context"))
        places = [row.source.id or row.source.where for row in examples.rows]
        return dataclasses.replace(rows, lines=places, text_columns=("question", "context"), place="id")

    def target_plot(self, files: Mapping[str, Examples]) -> Histogram:
        """Return how many words the correct answers have; 0 for a question without an answer."""
        lengths = {
            name: np.array([len(row.target[0].split()) if row.target else 0 for row in each.rows])
            for name, each in files.items()
        }
        return histogram("words of the first correct answer", lengths)

    def target_text(self, example: Example) -> str:
        """Return the correct answers."""
        return " / ".join(dict.fromkeys(example.target))

    def example_texts(self, example: Example) -> tuple[str, ...]:
        """Return the question and its context."""
        return example.source.question, example.source.context

    @property
    def tunes(self) -> bool:
        """Whether there are questions without an answer."""
        return self.no_answer_threshold is not None

    def tuned(self, outputs: Sequence[Array], examples: Examples) -> QuestionAnswering:
        """Return this task with the threshold of the highest F1, if there are questions without an answer."""
        found = self._spans(outputs, examples.rows, 1)
        margins = [min(spans.no_answer_margin, 1e6) for spans in found]
        texts = [_text(row, spans) for row, spans in zip(examples.rows, found)]
        threshold = best_threshold([row.target for row in examples.rows], texts, margins)
        return dataclasses.replace(self, no_answer_threshold=threshold)

    @property
    def columns(self) -> tuple[str, ...]:
        """The answer, its place and its probability."""
        return ("answer", "start", "end", "score")

    @property
    def json_keys(self) -> tuple[str, ...]:
        """The keys of `QuestionPrediction.to_json`."""
        return ("id", "answer", "start", "end", "score", "no_answer_score", "n_best")

    def predictions(self, outputs: Sequence[Array], examples: Sequence[Example]) -> Iterator[QuestionPrediction]:
        """Yield the best span for each question, or no answer."""
        for row, spans in zip(examples, self._spans(outputs, examples, N_BEST)):
            context = row.source.context
            best = tuple(
                Answer(context[span.start : span.end], span.start, span.end, span.score) for span in spans.best
            )
            answer = best[0] if self._has_answer(spans) else None
            yield QuestionPrediction(answer, best, math.exp(spans.no_answer), row.source.id, row.truncated)


def _characters(question: Question | DataError) -> int:
    return question.characters if isinstance(question, Question) else 0


def _text(row: Example, spans: Spans) -> str:
    """Return the text of the best span."""
    return row.source.context[spans.best[0].start : spans.best[0].end] if spans.best else ""


def _answer_tokens(window: Encoded, place: tuple[int, int] | None) -> tuple[int, int]:
    """Return the tokens with the first and the last character of an answer; 0, [CLS], if the window lacks one."""
    assert window.alignment is not None
    offsets, is_context = window.alignment.offsets, window.alignment.texts == 1
    if place is None:
        return 0, 0
    tokens = np.flatnonzero(is_context & (offsets[:, 0] < place[1]) & (offsets[:, 1] > place[0]))
    context = np.flatnonzero(is_context)
    if not len(tokens) or offsets[context[0], 0] > place[0] or offsets[context[-1], 1] < place[1]:
        return 0, 0
    return int(tokens[0]), int(tokens[-1])


def _cross_entropies(logits: Array, tokens: Array) -> Array:
    """Return the cross entropies of start and end for the logits (T, 2) of a window."""
    values = logits.astype(np.float64)
    shifted = values - values.max(axis=0)
    result: Array = np.log(np.exp(shifted).sum(axis=0)) - shifted[tokens, [0, 1]]
    return result
