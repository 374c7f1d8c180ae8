"""Tokenization of texts into a bundle's inputs, without mxnet."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import BinaryIO

from bertsym.bundle import TOKENIZER, Bundle, SymbolBundle, open_any
from bertsym.errors import DataError, ModelError, UsageError
from bertsym.inference.classifier import check_pair, complete_table_format
from bertsym.json_reader import JsonValue
from bertsym.signature import Signature
from bertsym.text.features import Features, encode_each
from bertsym.text.header import check_first_line, warn_of_header_in_stream
from bertsym.text.tables import Row, Table, TableFormat
from bertsym.text.tokenizer import Encoded, chunks


class BundleTokenizer:
    """Tokenizes texts into the inputs of a bundle, as `Classifier` does; create it by `open`."""

    def __init__(self, signature: Signature, bundle: Bundle | SymbolBundle) -> None:
        self.signature = signature
        self._tokenizer = bundle.tokenizer(signature.tokenizer, signature.max_length)

    @classmethod
    def open(cls, prefix: str | Path) -> BundleTokenizer:
        """Open the tokenizer of a BERT's bundle, headless or with any head.

        Raises ModelError for any other bundle, and if a file of the bundle was changed.
        """
        bundle = open_any(prefix)
        return cls(_bert_signature(bundle), bundle)

    def encode(
        self, texts: Sequence[str], pairs: Sequence[str] | None = None, *, prompt: str = ""
    ) -> Iterator[Features]:
        """Encode texts, or text pairs, in order and in chunks; `prompt` is put before each text.

        Raises UsageError for pairs if the bundle is a classifier trained on single texts, and vice versa; DataError for
        an empty text.
        """
        if isinstance(texts, str) or isinstance(pairs, str):
            raise UsageError("texts must be a list of texts, not a single text")
        if pairs is not None and len(pairs) != len(texts):
            raise UsageError(f"{len(texts)} texts but {len(pairs)} second texts")
        self._check_pair(pairs is not None)
        rows = [Row(i + 1, text, pairs[i] if pairs is not None else None) for i, text in enumerate(texts)]
        for row in rows:
            if not row.text.strip() or (row.pair is not None and not row.pair.strip()):
                raise DataError(f"text {row.line} of {len(rows)} is empty")
        return _raise_first_error(self._encode(rows, "the texts", prompt))

    def encode_table(
        self,
        source: str | Path | BinaryIO,
        table_format: TableFormat = TableFormat(),
        warn: Callable[[str], object] = lambda text: None,
    ) -> Iterator[Features]:
        """Encode the rows of a table or stream in order, in chunks and in constant memory.

        Like `encode_each`, but raises DataError, naming the line, for an unreadable row, after the rows before it.
        """
        return _raise_first_error(self.encode_each(source, table_format, warn))

    def encode_each(
        self,
        source: str | Path | BinaryIO,
        table_format: TableFormat = TableFormat(),
        warn: Callable[[str], object] = lambda text: None,
        *,
        prompt: str = "",
    ) -> Iterator[list[Encoded | DataError]]:
        """Yield chunks with the encoding of each row of a table or stream, or the error of an unreadable row.

        By default a table has the header and columns of the training table. A stream has one text per line, or two
        texts separated by a tab if the classifier was trained on pairs, unless `table_format` is given. `warn` is
        called with a message about a suspicious first line. `prompt` is put before each text, of a pair before the
        first.

        While iterating, raises DataError for an unreadable table and for a file without rows, and UsageError for pairs
        if the bundle is a classifier trained on single texts, and vice versa.
        """
        is_stream = not isinstance(source, (str, Path))
        if is_stream and table_format == TableFormat():
            table_format = TableFormat("pairs" if self.signature.pair else "lines")
        else:
            table_format = complete_table_format(self.signature, table_format)
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
            rows = _warn_of_header(rows, table.name, warn)
        for encoded in self._encode(rows, table.name, prompt):
            empty = False
            yield encoded
        if empty and not is_stream:
            raise DataError(f"{table.name}: no rows")

    def _encode(self, rows: Iterable[Row | DataError], where: str, prompt: str) -> Iterator[list[Encoded | DataError]]:
        for chunk in chunks(rows, _characters):
            if prompt:
                chunk = [_with_prompt(row, prompt) for row in chunk]
            first = next((row for row in chunk if isinstance(row, Row)), None)
            if first is not None:
                self._check_pair(first.pair is not None)
            yield encode_each(chunk, self._tokenizer, where)

    def _check_pair(self, has_pair: bool) -> None:
        # An encoder or an untrained head may be trained on either.
        if self.signature.kind == "classifier" and self.signature.trained:
            check_pair(self.signature, has_pair)


def _warn_of_header(
    rows: Iterator[Row | DataError], where: str, warn: Callable[[str], object]
) -> Iterator[Row | DataError]:
    """Yield the rows of a stream, and warn if the first one is a header."""
    for row in rows:
        if isinstance(row, Row) and row.line == 1:
            cells = row.text.split("\t") if row.pair is None else [row.text, row.pair]
            warn_of_header_in_stream(cells, f"{where}, line 1", warn)
        yield row


def _with_prompt(row: Row | DataError, prompt: str) -> Row | DataError:
    return dataclasses.replace(row, text=prompt + row.text) if isinstance(row, Row) else row


def _characters(row: Row | DataError) -> int:
    return len(row.text) + len(row.pair or "") if isinstance(row, Row) else 0


def _raise_first_error(encoded: Iterable[list[Encoded | DataError]]) -> Iterator[Features]:
    """Yield the examples before the first error, then raise it."""
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
    """Return the signature with the tokenizer settings; a part or an edited copy of a BERT has that of its origin."""
    if isinstance(bundle, Bundle):
        return bundle.signature
    origin = bundle.signature.origin
    if origin is None or not bundle.has(TOKENIZER):
        raise ModelError(f"{bundle.prefix}: has no tokenizer, because the model that it was made from has none")
    # A head of its own was not trained on the origin's texts.
    signature = dataclasses.replace(Signature.from_json(JsonValue(origin, "origin")), trained=False)
    inputs = [tensor.name for tensor in bundle.signature.inputs]
    if sorted(inputs) != sorted(signature.input_names):
        raise ModelError(f"{bundle.prefix}: its inputs are {', '.join(inputs)}, not those of a BERT")
    return signature
