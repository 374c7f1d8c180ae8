"""Texts as the inputs of a bundle's model; needs no mxnet."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import BinaryIO

from bertsym.bundle import TOKENIZER, Bundle, SymbolBundle, open_any
from bertsym.encoders.inputs import INPUT_NAMES
from bertsym.errors import DataError, ModelError, UsageError
from bertsym.inference.classifier import as_trained, check_pair
from bertsym.json_reader import JsonValue
from bertsym.signature import Signature
from bertsym.text.features import Features, encode_each
from bertsym.text.header import check_first_line, warn_of_header_in_stream
from bertsym.text.tables import Row, Table, TableFormat
from bertsym.text.tokenizer import Encoded, chunks


class BundleTokenizer:
    """Texts to the inputs data0, data1 and data2 of a bundle's model, as `Classifier` computes them; `open` it."""

    def __init__(self, signature: Signature, bundle: Bundle | SymbolBundle) -> None:
        self.signature = signature
        self._tokenizer = bundle.tokenizer(signature.tokenizer, signature.max_length)

    @classmethod
    def open(cls, prefix: str | Path) -> BundleTokenizer:
        """That of a BERT, headless or with any head.

        Raises ModelError for anything else, and where a file of the bundle was changed.
        """
        bundle = open_any(prefix)
        return cls(_bert_signature(bundle), bundle)

    def encode(self, texts: Sequence[str], pairs: Sequence[str] | None = None) -> Iterator[Features]:
        """Encode texts, or pairs of texts; in order, some rows at a time.

        Raises UsageError when a trained classifier takes the other one of the two, DataError for an empty text.
        """
        if isinstance(texts, str) or isinstance(pairs, str):
            raise UsageError("give a list of texts, not one text")
        if pairs is not None and len(pairs) != len(texts):
            raise UsageError(f"{len(texts)} texts but {len(pairs)} second texts")
        self._check_pair(pairs is not None)
        rows = [Row(i + 1, text, pairs[i] if pairs is not None else None) for i, text in enumerate(texts)]
        for row in rows:
            if not row.text.strip() or (row.pair is not None and not row.pair.strip()):
                raise DataError(f"text {row.line} of {len(rows)} is empty")
        return _good(self._encode(rows, "the texts"))

    def encode_table(
        self,
        source: str | Path | BinaryIO,
        table_format: TableFormat = TableFormat(),
        warn: Callable[[str], object] = lambda text: None,
    ) -> Iterator[Features]:
        """Encode the rows of a table or of a stream as they come, in their order and in constant memory.

        As `encode_each` reads them; raises DataError, naming the line, for a row that can't be read, after the rows
        before it.
        """
        return _good(self.encode_each(source, table_format, warn))

    def encode_each(
        self,
        source: str | Path | BinaryIO,
        table_format: TableFormat = TableFormat(),
        warn: Callable[[str], object] = lambda text: None,
    ) -> Iterator[list[Encoded | DataError]]:
        """Each row of a table or of a stream encoded, some at a time; in the place of one that can't be read its error.

        A table has the header and the columns of the training table unless `table_format` says otherwise. Without a
        `table_format` a stream has one text per line, or two texts separated by a tab where the classifier was trained
        on pairs. `warn` is called with what is suspicious about the first line.

        Raises DataError, while the rows come, for a table that can't be read and for a file without rows, and
        UsageError for pairs where a trained classifier takes single texts, or the other way round.
        """
        is_stream = not isinstance(source, (str, Path))
        if is_stream and table_format == TableFormat():
            table_format = TableFormat("pairs" if self.signature.pair else "lines")
        else:
            table_format = as_trained(self.signature, table_format)
            if is_stream and table_format.kind is None:
                table_format = dataclasses.replace(table_format, kind="tsv")
        table = Table(source, table_format, need_label=False)
        if table.first_line is not None:
            known = dict.fromkeys([*self.signature.class_names, *table.drop_labels], 0)
            try:
                check_first_line(table.first_line, table.name, known, False, warn)
            except DataError:
                table.close()
                raise
        empty = True
        rows = table.each()
        if table_format.kind in ("lines", "pairs"):
            rows = _watched(rows, table.name, warn)
        for encoded in self._encode(rows, table.name):
            empty = False
            yield encoded
        if empty and not is_stream:
            raise DataError(f"{table.name}: no rows")

    def _encode(self, rows: Iterable[Row | DataError], where: str) -> Iterator[list[Encoded | DataError]]:
        for chunk in chunks(rows, _characters):
            first = next((row for row in chunk if isinstance(row, Row)), None)
            if first is not None:
                self._check_pair(first.pair is not None)
            yield encode_each(chunk, self._tokenizer, where)

    def _check_pair(self, has_pair: bool) -> None:
        # What an encoder or an untrained head reads is not decided yet.
        if self.signature.kind == "classifier" and self.signature.trained:
            check_pair(self.signature, has_pair)


def _watched(rows: Iterator[Row | DataError], where: str, warn: Callable[[str], object]) -> Iterator[Row | DataError]:
    """The rows of a stream, with a warning where the first one is a header."""
    for row in rows:
        if isinstance(row, Row) and row.line == 1:
            cells = row.text.split("\t") if row.pair is None else [row.text, row.pair]
            warn_of_header_in_stream(cells, f"{where}, line 1", warn)
        yield row


def _characters(row: Row | DataError) -> int:
    return len(row.text) + len(row.pair or "") if isinstance(row, Row) else 0


def _good(encoded: Iterable[list[Encoded | DataError]]) -> Iterator[Features]:
    """The examples before the first error, which is raised then."""
    for chunk in encoded:
        examples: list[Encoded] = []
        for example in chunk:
            if isinstance(example, DataError):
                if examples:
                    yield Features(examples)
                raise example
            examples.append(example)
        yield Features(examples)


def _bert_signature(bundle: Bundle | SymbolBundle) -> Signature:
    """The signature that describes how texts are tokenised: a part or a change of a BERT keeps that of its origin."""
    if isinstance(bundle, Bundle):
        return bundle.signature
    origin = bundle.signature.origin
    inputs = [tensor.name for tensor in bundle.signature.inputs]
    if sorted(inputs) != sorted(INPUT_NAMES):
        raise ModelError(f"{bundle.prefix}: reads {', '.join(inputs)}, it takes no texts")
    if origin is None or not bundle.has(TOKENIZER):
        raise ModelError(f"{bundle.prefix}: has no tokenizer, because what it was made from has none")
    # Its own head, if it has one, was not trained on the origin's texts.
    return dataclasses.replace(Signature.from_json(JsonValue(origin, "origin")), trained=False)
