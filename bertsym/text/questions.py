"""Read questions about contexts, with or without answers: SQuAD's JSON, JSON Lines, tables, and lines of pairs."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from bertsym.errors import DataError, ModelError, UsageError
from bertsym.file_reader import read_bytes
from bertsym.json_reader import JsonValue, json_object
from bertsym.text.json_lines import parse_object
from bertsym.text.lines import LONGEST_LINE, LineReader, is_unicode
from bertsym.text.table_format import TableFormat
from bertsym.text.tables import Table

_JSON_LINES = (".jsonl", ".ndjson")
_KEYS = ("question", "context")


@dataclass(frozen=True)
class Answer:
    """A correct answer, and where it begins in the context, in characters; None if the file does not say."""

    text: str
    start: int | None = None

    def place(self, context: str) -> tuple[int, int] | None:
        """Return start and end of the answer in a context; None if it is not there.

        An answer without a start is where it first occurs.
        """
        start = context.find(self.text) if self.start is None else self.start
        if not self.text or start < 0 or context[start : start + len(self.text)] != self.text:
            return None
        return start, start + len(self.text)


@dataclass(frozen=True)
class Question:
    """A question about a context, with its correct answers if it is labelled."""

    where: str  #: file and place in it, for messages
    question: str
    context: str
    answers: tuple[Answer, ...] | None = None  #: empty for a question that the context does not answer
    id: str | None = None
    line: int = 0  #: 0 in SQuAD's JSON

    @property
    def place(self) -> tuple[int, int] | None:
        """Start and end of the first answer that is in the context at its offset; None if there is none."""
        return next((place for answer in self.answers or () if (place := answer.place(self.context))), None)

    @property
    def characters(self) -> int:
        """Length of both texts."""
        return len(self.question) + len(self.context)


class QuestionReader:
    """The questions of one file or stream.

    A file with the suffix ``.json`` is SQuAD's JSON, version 1.1 or 2.0, which is read as a whole, or JSON Lines. Lines
    have the keys ``question`` and ``context``, and answers in one of three forms: ``answers`` as in SQuAD, or as the
    columns ``text`` and ``answer_start`` of Hugging Face's datasets, or the texts alone as ``answers`` or ``answer``.
    Unlabelled questions may also be in a table, or in lines of a question, a tab and its context; answers of an
    unlabelled file are not read.

    Raises UsageError for a labelled file in another format, DataError if the file can't be opened.
    """

    def __init__(
        self, source: str | Path | BinaryIO, table_format: TableFormat = TableFormat(), labelled: bool = True
    ) -> None:
        self.name = str(source) if isinstance(source, (str, Path)) else "standard input"
        self._source, self._format, self._labelled = source, table_format, labelled
        self._digest: Callable[[], str] = lambda: hashlib.sha256().hexdigest()
        columns = table_format.columns.or_else(table_format.trained.columns)
        self._keys = (columns.text or _KEYS[0], columns.pair or _KEYS[1])
        suffix = Path(self.name).suffix.lower()
        kind = table_format.kind
        if kind is None and isinstance(source, (str, Path)) and suffix in (".json", *_JSON_LINES):
            kind = "jsonl" if suffix in _JSON_LINES or _begins_with_a_record(source, self._keys[0]) else "squad"
        if labelled and kind not in ("jsonl", "squad"):
            raise UsageError(f"{self.name}: labelled questions must be SQuAD's JSON (.json) or JSON Lines (.jsonl)")
        self._kind = kind

    @property
    def sha256(self) -> str:
        """SHA-256, in hexadecimal, of the bytes of a file that was read to its end."""
        return self._digest()

    def each(self) -> Iterator[Question | DataError]:
        """Yield the questions; the error of a question that can't be read takes its place, and reading continues.

        Raises DataError if the file as a whole can't be read.
        """
        if self._kind == "squad":
            return self._squad()
        return self._json_lines() if self._kind == "jsonl" else self._table()

    def _squad(self) -> Iterator[Question | DataError]:
        assert isinstance(self._source, (str, Path))
        content = _read(self._source)
        self._digest = lambda: hashlib.sha256(content).hexdigest()
        try:
            text = content.decode("utf-8-sig")
        except UnicodeDecodeError as error:
            raise DataError(f"{self.name}: not UTF-8 text: byte {error.start}") from None
        for article in json_object(text, self.name, DataError)["data"].elements():
            try:
                paragraphs = article["paragraphs"].elements()
            except DataError as error:
                yield error
                continue
            for paragraph in paragraphs:
                yield from self._paragraph(paragraph)

    def _paragraph(self, paragraph: JsonValue) -> Iterator[Question | DataError]:
        try:
            context, questions = _text(paragraph["context"]), paragraph["qas"].elements()
        except DataError as error:
            yield error
            return
        for each in questions:
            try:
                answers = self._answers(each) if self._labelled else None
                where = f"{self.name}: {each.path}"
                yield Question(where, _text(each["question"]), context, answers, _identifier(each))
            except DataError as error:
                yield error

    def _answers(self, question: JsonValue) -> tuple[Answer, ...]:
        if question.get("is_impossible", False).boolean():
            return ()
        return tuple(
            Answer(answer["text"].text(), answer["answer_start"].integer(0))
            for answer in question["answers"].elements()
        )

    def _json_lines(self) -> Iterator[Question | DataError]:
        lines = LineReader(self._source)
        self._digest = lambda: lines.sha256
        try:
            for number, line in lines:
                if isinstance(line, DataError):
                    yield line
                elif line.strip() or not self._labelled:
                    try:
                        yield self._record(number, line.strip())
                    except DataError as error:
                        yield error
        finally:
            lines.close()

    def _record(self, number: int, line: str) -> Question:
        where = f"{self.name}, line {number}"
        if not line:
            raise DataError(f"{where}: an empty line")
        record = json_object(line, where, DataError)
        question, context = (_text(record[key]) for key in self._keys)
        answers = _record_answers(record) if self._labelled else None
        return Question(where, question, context, answers, _identifier(record), number)

    def _table(self) -> Iterator[Question | DataError]:
        table_format = self._format
        if not isinstance(self._source, (str, Path)):
            table_format = table_format.of_stream("pairs")
        table = Table(self._source, table_format, need_label=False)
        if table.columns.pair is None:
            table.close()
            raise DataError(f"{table.name}: which column is the context? Give --text-column and --pair-column")
        for row in table.each():
            if isinstance(row, DataError):
                yield row
            else:
                yield Question(f"{table.name}, line {row.line}", row.text, row.pair or "", line=row.line)


def _identifier(record: JsonValue) -> str | None:
    """Return the id of a question, which is a number in some data sets, such as GermanQuAD."""
    value = record.get("id").raw
    return None if value is None else str(value)


def _record_answers(record: JsonValue) -> tuple[Answer, ...]:
    """Read the answers of an object of JSON Lines."""
    keys = [key for key in ("answers", "answer") if key in record]
    if len(keys) != 1:
        raise record.fault("expected one of the keys 'answers' and 'answer'" + (", found both" if keys else ""))
    value = record[keys[0]]
    if record.get("is_impossible", False).boolean() or value.is_null:
        return ()
    if value.is_text:
        return (Answer(value.text()),) if value.text() else ()
    if isinstance(value.raw, dict):
        texts, starts = value["text"].texts(), value["answer_start"].elements()
        if len(texts) != len(starts):
            raise value.fault(f"{len(texts)} texts but {len(starts)} values of answer_start")
        return tuple(Answer(text, start.integer(0)) for text, start in zip(texts, starts))
    return tuple(
        Answer(each.text()) if each.is_text else Answer(each["text"].text(), each["answer_start"].integer(0))
        for each in value.elements()
    )


def _text(value: JsonValue) -> str:
    text = value.text()
    if not text.strip():
        raise value.fault("is empty")
    if not is_unicode(text):
        raise value.fault("is not valid Unicode")
    return text


def _begins_with_a_record(path: str | Path, key: str) -> bool:
    """Whether the first line of a file is a JSON object with a key."""
    try:
        with open(path, "rb") as file:
            line = file.readline(LONGEST_LINE)
    except OSError as error:
        raise DataError(f"{path}: {error.strerror}") from None
    try:
        return key in parse_object(line.decode("utf-8-sig"))
    except ValueError:
        return False


def _read(path: str | Path) -> bytes:
    try:
        return read_bytes(path)
    except OSError as error:
        raise DataError(f"{path}: {error.strerror}") from None
    except ModelError as error:
        raise DataError(str(error)) from None
