"""Changes of a table, in each format: cells, columns, line ends, encodings, labels and lengths."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from dataclasses import dataclass

#: Texts of which the answer is known, and that decide which rows an output belongs to.
POOL = tuple(
    f"{start} {middle} {end}"
    for start in ("the happy cat", "the sad old dog", "a bird")
    for middle in ("sat under the tree", "ran quickly", "was very happy", "slept in the park , always")
    for end in (".", "and flew !")
)
PIECES = (
    *(b"\x00", b"\x1b[31m", b"\xef\xbb\xbf", b"\xff\xfe", b"\xed\xa0\x80", b'"', b"'", b'""', b"\\", b"\x7f"),
    *(b"\x08", b"\xe2\x80\xae", b"\xc0\x80", b"\xf4\x90\x80\x80", b"\t", b",", b"\xef\xbf\xbf", b"\x1a"),
)
LABELS = (
    *("0", "1", "0.0", "1.0", "-1", "-", "nan", "NaN", "Infinity", "-Infinity", "null", "true", "YES", " yes", ""),
    *("1e3", "1e400", "9" * 500, "\uff10", "[]", "{}", '"yes"', '"no gold"', "x" * 4000, "yes\x00", "\x1b[2J"),
)
ODD_TEXTS = (
    *(b"", b" ", b"\xe2\x80\x8b", b"\xc2\xad", b"\x01\x02", b"[SEP]", b"[CLS] [PAD]", b"[MASK]", b"##s", b"N/A"),
    *(b"null", b"\xf0\x9f\x98\x80", b"\xcc\x81", b"\\ud800", b"\\u0000", b"\\n", b"\\ud83d\\ude00", b"\\x"),
)
JSON_LINES = (
    *(b'{"text": 5, "label": "yes"}', b"[]", b'"the happy cat"', b"null", b'{"text": null, "label": 1}', b"{}"),
    *(b'{"label": "yes", "text": "the", "text": "cat"}', b'{"label": "yes", "text": ["the", "cat"]}'),
    *(b'{"label": NaN, "text": "the cat"}', b'{"label": 1e400, "text": "the cat"}', b"{" * 3000, b"[" * 100000),
    *(b'{"label": 1' + b"0" * 5000 + b', "text": "the"}', b'{"label": "\\ud800", "text": "the \\udfff cat"}'),
    *(b'{"label": "yes", "text": "the\x01cat"}', b'{"label": true, "text": "the cat"}', b"{'text': 'x'}"),
    *(b'{"label": -0.0, "text": "cat"}', b'{"label": 0, "text": "the cat"} {"label": 1, "text": "dog"}'),
)
DELIMITERS = {"tsv": b"\t", "csv": b",", "jsonl": b""}


@dataclass
class TableLines:
    """A table as its lines without their ends; the first is the header, except in JSON Lines."""

    kind: str
    lines: list[bytes]
    end: bytes = b"\n"

    @property
    def delimiter(self) -> bytes:
        """What stands between two cells."""
        return DELIMITERS[self.kind]

    def content(self) -> bytes:
        """The bytes of the file."""
        return b"".join(line + self.end for line in self.lines)

    def cells(self, index: int) -> list[bytes]:
        """The cells of a line, or its keys and values."""
        if self.kind == "jsonl":
            return [json.dumps(part).encode() for item in json.loads(self.lines[index]).items() for part in item]
        return self.lines[index].split(self.delimiter)

    def set_cells(self, index: int, cells: list[bytes]) -> None:
        """Write a line of these cells."""
        if self.kind == "jsonl":
            pairs = [b": ".join(cells[i : i + 2]) for i in range(0, len(cells), 2)]
            self.lines[index] = b"{" + b", ".join(pairs) + b"}"
        else:
            self.lines[index] = self.delimiter.join(cells)

    def set_label(self, index: int, label: str) -> None:
        """Write a label as it stands, of JSON Lines as a JSON value."""
        cells = self.cells(index)
        cells[1 if self.kind == "jsonl" else 0] = label.encode("utf-8", "surrogatepass")
        self.set_cells(index, cells)

    def set_text(self, index: int, text: bytes) -> None:
        """Write a text as it stands, of JSON Lines between quotation marks."""
        cells = self.cells(index)
        cells[-1] = b'"' + text + b'"' if self.kind == "jsonl" else text
        self.set_cells(index, cells)


Mutation = Callable[[TableLines, random.Random], None]


def some_table(kind: str, rng: random.Random, rows: int = 24) -> TableLines:
    """A good table of texts of POOL."""
    records = [("yes" if "happy" in text else "no", text) for text in rng.choices(POOL, k=rows)]
    if kind == "jsonl":
        return TableLines(kind, [json.dumps({"label": label, "text": text}).encode() for label, text in records])
    quoted = [(label, f'"{text}"' if "," in text and kind == "csv" else text) for label, text in records]
    table = TableLines(kind, [])
    table.lines = [table.delimiter.join(cell.encode() for cell in record) for record in [("label", "text"), *quoted]]
    return table


def _row(table: TableLines, rng: random.Random) -> int:
    return rng.randrange(1, len(table.lines))


def add_or_drop_cells(table: TableLines, rng: random.Random) -> None:
    """Write rows of more or fewer cells."""
    for _ in range(rng.choice((1, 3))):
        row = _row(table, rng)
        cells = table.cells(row)
        table.set_cells(row, rng.choice((cells[:-1], [*cells, b"x"], [*cells, *cells], cells * 500, cells[:1])))


def insert_blank_lines(table: TableLines, rng: random.Random) -> None:
    """Insert lines that are empty or hold only white space."""
    for _ in range(rng.choice((1, 4))):
        place = rng.choice((0, len(table.lines), _row(table, rng)))
        table.lines.insert(place, rng.choice((b"", b"", b" ", b"\r", b"\xc2\xa0", b"\xe3\x80\x80", b"\t", b"\x0b")))


def mix_line_ends(table: TableLines, rng: random.Random) -> None:
    """Use line ends of other systems, and characters that some programs take for one."""
    if rng.random() < 0.3:
        table.end = rng.choice((b"\r\n", b"\r", b"\n\n", b"\r\r\n", b"\xe2\x80\xa8"))
    for _ in range(3):
        row = _row(table, rng)
        table.lines[row] += rng.choice((b"\r", b"\r\r", b"\x0c", b"\xc2\x85", b"\xe2\x80\xa8", b"\x1e"))
    if rng.random() < 0.3:
        table.lines, table.end = [table.end.join(table.lines)], b""


def insert_characters(table: TableLines, rng: random.Random) -> None:
    """Insert control characters, byte order marks, change_quotes, or bytes that are not UTF-8."""
    for _ in range(rng.choice((1, 1, 5))):
        row = rng.choice((0, _row(table, rng), _row(table, rng)))
        place = rng.randrange(len(table.lines[row]) + 1)
        table.lines[row] = table.lines[row][:place] + rng.choice(PIECES) + table.lines[row][place:]


def change_quotes(table: TableLines, rng: random.Random) -> None:
    """Write quotation marks that are never closed, doubled, or around several lines."""
    row = _row(table, rng)
    text = rng.choice((b'"the happy cat', b'the "happy" cat', b'"the\nhappy cat"', b'"a""b"', b'"', b'""', b'"x" y'))
    table.set_text(row, text)


def change_header(table: TableLines, rng: random.Random) -> None:
    """Remove, repeat or rename the header."""
    choice = rng.randrange(5)
    if choice == 0:
        del table.lines[0]
    elif choice == 1:
        table.lines.insert(_row(table, rng), table.lines[0])
    elif choice == 2 and table.kind != "jsonl":
        names = (
            b"text",
            b"label",
            b"Text ",
            b"",
            b"1",
            b"2",
            b"sentence1",
            b"sentence2",
            b"text_pair",
            b"\xef\xbb\xbfx",
        )
        table.set_cells(0, rng.choices(names, k=2))
    elif choice == 3 and table.kind != "jsonl":
        table.lines = [line + table.delimiter + line for line in table.lines]
    else:
        table.lines = table.lines[: rng.choice((0, 1, 2))]


def change_labels(table: TableLines, rng: random.Random) -> None:
    """Write labels that are numbers, NaN, of other case, missing, or two spellings of one number."""
    several = (["0", "1"], ["0", "0.0", "1"], ["0", "1", "-1"], ["yes", "no", "-"])
    values = rng.choice((rng.choices(LABELS, k=1), rng.choices(LABELS, k=3), *several))
    rows = range(1, len(table.lines)) if rng.random() < 0.4 else [_row(table, rng) for _ in range(2)]
    for row in rows:
        table.set_label(row, rng.choice(values))


def change_texts(table: TableLines, rng: random.Random) -> None:
    """Write texts without a token, of one character, or of special tokens."""
    for _ in range(rng.choice((1, 3))):
        table.set_text(_row(table, rng), rng.choice(ODD_TEXTS))


def lengthen_cell(table: TableLines, rng: random.Random) -> None:
    """Write a very long text, label or line."""
    size = rng.choice((10_000, 1_000_000, 1_000_000, 15_000_000, 17_000_000))
    piece = rng.choice((b"a", b"the ", b".", b"  ", b"\xe6\x97\xa5", b"e\xcc\x81", b"[SEP]", b"##", b"a.", b"\xc2\xa0"))
    long = piece * (size // len(piece))
    row = _row(table, rng)
    if rng.random() < 0.8:
        table.set_text(row, rng.choice((long, long, b"the cat " + long + b" happy")))
    else:
        table.lines[row] = long


def move_columns(table: TableLines, rng: random.Random) -> None:
    """Reorder or repeat columns."""
    change = rng.randrange(3)
    for row in range(len(table.lines)):
        cells = table.cells(row)
        half = len(cells) // 2
        new = ([*cells[half:], *cells[:half]], [*cells, *cells[half:]], [cells[0]] * (half or 1) + cells)[change]
        table.set_cells(row, new)


def change_encoding(table: TableLines, rng: random.Random) -> None:
    """Encode or compress the file otherwise, or make it something else than a table."""
    content = table.content()
    changed = rng.choice(
        (
            content.decode().encode("utf-16"),
            content.decode().encode("utf-32-le"),
            "naïve\tcafé\n".encode("latin-1") + content,
            b"\x1f\x8b\x08\x00" + content,
            b"PK\x03\x04" + content,
            b"\xef\xbb\xbf" + content,
            b"\xef\xbb\xbf\xef\xbb\xbf" + content,
            content[:-1],
            content + b"\x1a",
            b"",
            b"\n",
            b"\x00" * 5000,
            b"[" + content.replace(b"\n", b",\n") + b"]",
            content.replace(b"\n", b""),
        )
    )
    table.lines, table.end = [changed], b""


def insert_json_lines(table: TableLines, rng: random.Random) -> None:
    """Replace lines with JSON of other types, depths and spellings."""
    for _ in range(rng.choice((1, 2))):
        table.lines[_row(table, rng)] = rng.choice(JSON_LINES)


def add_many_rows(table: TableLines, rng: random.Random) -> None:
    """Add thousands of rows, good or bad."""
    row = _row(table, rng)
    line = rng.choice((table.lines[row], table.lines[row], b"x", b"yes\t", b"\xff"))
    table.lines += [line] * rng.choice((1000, 3000))


TABLE_MUTATIONS: tuple[Mutation, ...] = (
    *(
        add_or_drop_cells,
        insert_blank_lines,
        mix_line_ends,
        insert_characters,
        insert_characters,
        change_quotes,
        change_header,
    ),
    *(change_labels, change_labels, change_texts, lengthen_cell, move_columns, change_encoding, insert_json_lines),
    add_many_rows,
)
