"""Read UTF-8 text files and streams line by line, with line numbers in errors and a digest of all bytes."""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from bertsym.errors import DataError

LONGEST_LINE = 1 << 24  # bytes; a row and its tokens must fit into memory


class LineReader:
    """The lines of one file or stream, read lazily.

    Lines end at a line feed only: a text may hold U+2028, U+0085 or a vertical tab. ``sha256`` is the digest of the
    bytes read so far. Raises DataError if the file can't be opened.
    """

    def __init__(self, source: str | Path | BinaryIO) -> None:
        self.name = str(source) if isinstance(source, (str, Path)) else "standard input"
        self._digest = hashlib.sha256()
        self._is_ours = isinstance(source, (str, Path))
        self._file = _opened(source) if isinstance(source, (str, Path)) else source

    @property
    def sha256(self) -> str:
        """SHA-256, in hexadecimal, of the bytes read so far."""
        return self._digest.hexdigest()

    def close(self) -> None:
        """Close the file unless the caller opened it."""
        if self._is_ours:
            self._file.close()

    def error(self, line: int, why: str) -> DataError:
        """Return a DataError that names the file and the line."""
        return DataError(f"{self.name}, line {line}: {why}")

    def __iter__(self) -> Iterator[tuple[int, str | DataError]]:
        """Yield each line with its number and its end, or the error of a line.

        Raises DataError if the file can't be read at all.
        """
        try:
            for number in itertools.count(1):
                raw = self._file.readline(LONGEST_LINE)
                if not raw:
                    return
                self._digest.update(raw)
                whole = raw.endswith(b"\n") or len(raw) < LONGEST_LINE
                if not whole:
                    self._skip_line()
                if number == 1:
                    raw = raw.removeprefix(b"\xef\xbb\xbf")
                yield number, self._decoded(number, raw) if whole else self.error(number, "longer than 16 MiB")
        except OSError as error:
            raise DataError(f"{self.name}: {error.strerror}") from None

    def _skip_line(self) -> None:
        while raw := self._file.readline(LONGEST_LINE):
            self._digest.update(raw)
            if raw.endswith(b"\n"):
                return

    def _decoded(self, number: int, raw: bytes) -> str | DataError:
        try:
            return raw.decode("utf-8")
        except UnicodeDecodeError as error:
            return self.error(number, f"not UTF-8 text (byte {error.start} of the line)")


def without_end(line: str) -> str:
    """Return a line without its line feed and carriage return."""
    return line.removesuffix("\n").removesuffix("\r")


def _opened(path: str | Path) -> BinaryIO:
    try:
        return open(path, "rb")
    except OSError as error:
        raise DataError(f"{path}: {error.strerror}") from None


def is_unicode(text: str) -> bool:
    """Whether a text can be encoded as UTF-8; a lone surrogate, which JSON can express, can't."""
    return text.isascii() or not any("\ud800" <= character <= "\udfff" for character in text)
