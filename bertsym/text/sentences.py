"""Read sentences of words, with or without tags: CoNLL, JSON Lines, and lines of plain text."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from bertsym.datasets.dataset import CONLL_SUFFIXES
from bertsym.errors import DataError, UsageError
from bertsym.text.json_lines import JsonObject, parse_object
from bertsym.text.lines import LineReader, is_unicode, without_end

CONLL, JSON_LINES, TEXT_LINES = "conll", "jsonl", "lines"
SENTENCE_FORMATS = (CONLL, JSON_LINES, TEXT_LINES)
_SUFFIXES = {
    **dict.fromkeys((".jsonl", ".ndjson", ".json"), JSON_LINES),
    **dict.fromkeys((*CONLL_SUFFIXES, ".tsv"), CONLL),
}
_DOCUMENT_START = "-DOCSTART-"
_COLUMNS = {1: "1 (word)", 2: "2 (word, tag)", 4: "4 (word, part of speech, chunk, tag)"}
_WORDS, _TAGS = ("tokens", "words"), ("tags", "ner_tags")  # keys of JSON Lines
_CHINESE = re.compile("[\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0002ceaf\U0002f800-\U0002fa1f]")

Offsets = tuple[tuple[int, int], ...]


@dataclass(frozen=True)
class Sentence:
    """The words of a sentence, and their tags if it is labelled."""

    text: str  #: the line of plain text, or the words with a space between each two
    offsets: Offsets  #: start and end of each word, in characters of the text
    lines: Sequence[int]  #: line of each word
    tags: tuple[str, ...] | None = None
    is_split: bool = True  #: whether the file has words rather than a text

    @property
    def words(self) -> list[str]:
        """The words as strings."""
        return [self.text[start:end] for start, end in self.offsets]


class SentenceReader:
    """The sentences of one file or stream, read lazily.

    `kind` is one of SENTENCE_FORMATS; None chooses by the suffix. CoNLL has one word per line, an empty line after each
    sentence, and two columns (word, tag) or four (word, part of speech, chunk, tag), separated by tabs or spaces; lines
    that begin with ``-DOCSTART-`` are skipped. JSON Lines have a list ``tokens`` or ``words`` and a list ``tags`` or
    ``ner_tags``. An unlabelled file may be CoNLL with words alone, JSON Lines with a key ``text`` instead of the words,
    or plain text with one text per line, which `split` splits into words; tags of an unlabelled file are not read.

    Raises UsageError for a suffix that does not determine the format, DataError if the file can't be opened.
    """

    def __init__(
        self,
        source: str | Path | BinaryIO,
        kind: str | None = None,
        labelled: bool = True,
        split: Callable[[str], Offsets] | None = None,
    ) -> None:
        self._labelled, self._split = labelled, split or split_at_spaces
        self._lines = LineReader(source)
        self.name = self._lines.name
        self._width: int | None = None  # number of columns of a CoNLL file
        try:
            self._kind = kind or self._kind_by_suffix()
            if labelled and self._kind == TEXT_LINES:
                raise UsageError(f"{self.name}: lines of plain text have no tags: give --format conll or jsonl")
        except UsageError:
            self.close()
            raise

    @property
    def sha256(self) -> str:
        """SHA-256, in hexadecimal, of the bytes read so far."""
        return self._lines.sha256

    def close(self) -> None:
        """Close the file unless the caller opened it; a file that was read to its end is closed already."""
        self._lines.close()

    def error(self, line: int, why: str) -> DataError:
        """Return a DataError that names the file and the line."""
        return self._lines.error(line, why)

    def each(self) -> Iterator[Sentence | DataError]:
        """Yield the sentences; the error of a sentence that can't be read takes its place, and reading continues.

        Raises DataError if the file as a whole can't be read.
        """
        try:
            yield from self._conll() if self._kind == CONLL else self._one_per_line()
        finally:
            self.close()

    def _kind_by_suffix(self) -> str:
        suffix = Path(self.name).suffix.lower()
        if suffix in _SUFFIXES:
            return _SUFFIXES[suffix]
        # CoNLL-2003's own files are eng.train, eng.testa and eng.testb; others are train.txt.
        if self._labelled and suffix != ".csv":
            return CONLL
        formats = SENTENCE_FORMATS[: 2 if self._labelled else 3]
        choices = "|".join(formats)
        raise UsageError(f"{self.name}: the suffix {suffix!r} does not determine the format; give --format {choices}")

    def _conll(self) -> Iterator[Sentence | DataError]:
        words: list[str] = []
        tags: list[str] = []
        lines: list[int] = []
        fault: DataError | None = None

        def finish() -> Iterator[Sentence | DataError]:
            nonlocal fault
            if fault is not None:
                yield fault
            elif words:
                yield join_words(words, tuple(lines), tuple(tags) if self._labelled else None)
            fault = None
            for part in (words, tags, lines):
                part.clear()

        for number, line in self._lines:
            if isinstance(line, str) and (not line.strip() or re.match(rf"{_DOCUMENT_START}(\s|$)", line)):
                yield from finish()
                continue
            try:
                word, tag = self._cells(number, line)
            except DataError as error:
                fault = fault or error
                continue
            words.append(word)
            tags.append(tag)
            lines.append(number)
        yield from finish()

    def _cells(self, number: int, line: str | DataError) -> tuple[str, str]:
        """Return the word and the tag of a line of a CoNLL file."""
        if isinstance(line, DataError):
            raise line
        line = without_end(line)
        cells = line.split("\t") if "\t" in line else re.split(" +", line.rstrip(" "))
        widths = [width for width in _COLUMNS if width > 1 or not self._labelled]
        if self._width is None and len(cells) in widths:
            self._width = len(cells)
        if len(cells) != self._width:
            expected = self._width or " or ".join(_COLUMNS[width] for width in widths)
            raise self.error(number, f"{len(cells)} column{'s' if len(cells) > 1 else ''}, expected {expected}")
        self._check_word(number, cells[0])
        if self._labelled:
            self._check_tag(number, cells[-1])
        return cells[0], cells[-1]

    def _one_per_line(self) -> Iterator[Sentence | DataError]:
        for number, line in self._lines:
            try:
                if isinstance(line, DataError):
                    raise line
                if not line.strip():
                    if self._labelled:
                        continue
                    raise self.error(number, "an empty line")
                yield self._record(number, line) if self._kind == JSON_LINES else self._text(number, without_end(line))
            except DataError as error:
                yield error

    def _record(self, number: int, line: str) -> Sentence:
        try:
            record = parse_object(line.strip())
        except ValueError as error:
            raise self.error(number, str(error)) from None
        if not self._labelled and "text" in record and not any(key in record for key in _WORDS):
            text = record["text"]
            if not isinstance(text, str) or not text.strip() or not is_unicode(text):
                raise self.error(number, "'text' is not a text")
            return self._text(number, text)
        words = self._strings(number, record, _WORDS)
        if not words:
            raise self.error(number, "the sentence has no words")
        for word in words:
            self._check_word(number, word)
        tags = None
        if self._labelled:
            tags = tuple(self._strings(number, record, _TAGS))
            if len(tags) != len(words):
                raise self.error(number, f"{len(words)} words but {len(tags)} tags")
            for tag in tags:
                self._check_tag(number, tag)
        return join_words(words, [number] * len(words), tags)

    def _strings(self, number: int, record: JsonObject, keys: Sequence[str]) -> list[str]:
        """Return the list of strings that is the value of one of some keys."""
        found = [key for key in keys if key in record]
        if not found:
            raise self.error(number, f"no key {' or '.join(map(repr, keys))}")
        if len(found) > 1:
            raise self.error(number, f"the keys {' and '.join(map(repr, found))} mean the same: remove one")
        if found[0] in record.repeated:
            raise self.error(number, f"the key {found[0]!r} is repeated")
        values = record[found[0]]
        if not isinstance(values, list):
            raise self.error(number, f"{found[0]!r} is not a list")
        for value in values:
            if isinstance(value, (bool, int, float)) and keys is _TAGS:
                raise self.error(number, f"the tag {value} is a number: write the names of the tags")
            if not isinstance(value, str):
                raise self.error(number, f"{found[0]!r} has an element that is not a string: {value!r:.60}")
        return values

    def _text(self, number: int, text: str) -> Sentence:
        sentence = split_text(text, number, self._split)
        if not sentence.offsets:
            raise self.error(number, "a text without words")
        return sentence

    def _check_word(self, number: int, word: str) -> None:
        if not word.strip():
            raise self.error(number, "the word is empty")
        if not is_unicode(word):
            raise self.error(number, f"the word {word!r} is not valid Unicode")

    def _check_tag(self, number: int, tag: str) -> None:
        if not tag:
            raise self.error(number, "the tag is empty")
        if not tag.isprintable() or " " in tag or not is_unicode(tag):
            raise self.error(number, f"the tag {tag!r} holds a space or a control character")


def split_text(text: str, line: int, split: Callable[[str], Offsets]) -> Sentence:
    """Build a sentence of a text that `split` splits into words."""
    offsets = split(text)
    return Sentence(text, offsets, [line] * len(offsets), is_split=False)


def join_words(words: Sequence[str], lines: Sequence[int], tags: tuple[str, ...] | None = None) -> Sentence:
    """Build a sentence of words, with a space between each two in its text."""
    offsets = []
    start = 0
    for word in words:
        offsets.append((start, start + len(word)))
        start += len(word) + 1
    return Sentence(" ".join(words), tuple(offsets), lines, tags)


def split_at_spaces(text: str) -> Offsets:
    """Split a text at white space; return the start and the end of each word."""
    return tuple(match.span() for match in re.finditer(r"\S+", text))


def split_at_punctuation(text: str) -> Offsets:
    """Split a text at white space and around punctuation marks and Chinese characters, as BERT's tokenizer does."""
    offsets: list[tuple[int, int]] = []
    for start, end in split_at_spaces(text):
        begin = start
        for place in range(start, end):
            if _is_isolated(text[place]):
                offsets += [(begin, place)] if begin < place else []
                offsets.append((place, place + 1))
                begin = place + 1
        offsets += [(begin, end)] if begin < end else []
    return tuple(offsets)


def _is_isolated(character: str) -> bool:
    """Whether BERT's tokenizer makes a word of a character."""
    if character.isascii():
        return character.isprintable() and not character.isalnum()
    return unicodedata.category(character).startswith("P") or _CHINESE.match(character) is not None
