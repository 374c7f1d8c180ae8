"""Read a SentencePiece model (``spiece.model``): a ModelProto in the wire format of protocol buffers.

Fields and their defaults are those of https://github.com/google/sentencepiece/blob/master/src/sentencepiece_model.proto.
"""

from __future__ import annotations

import enum
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Union

from bertsym.errors import ModelError
from bertsym.file_reader import read_bytes

SPACE = "\u2581"  #: with which SentencePiece writes a space
UNIGRAM, BPE = 1, 2  #: model types
_MODEL_TYPES = {UNIGRAM: "unigram", BPE: "bpe", 3: "word", 4: "char"}
_Value = Union[int, bytes]


class PieceKind(enum.Enum):
    """What a piece is used for."""

    NORMAL = 1
    UNKNOWN = 2
    CONTROL = 3
    USER_DEFINED = 4
    UNUSED = 5
    BYTE = 6


@dataclass(frozen=True)
class Piece:
    """A piece of the vocabulary."""

    text: str
    score: float
    kind: PieceKind


@dataclass(frozen=True)
class SentencePieceModel:
    """The parts of a ModelProto that decide how a text is encoded."""

    path: Path
    pieces: tuple[Piece, ...]  #: by id
    model_type: int  #: UNIGRAM, BPE or another
    normalizer: str  #: name of the normalization rule, such as ``nmt_nfkc``
    charsmap: bytes  #: compiled table of the rule; empty for ``identity``
    byte_fallback: bool
    space_as_suffix: bool
    add_dummy_prefix: bool
    remove_extra_spaces: bool
    escape_spaces: bool

    @property
    def type_name(self) -> str:
        """``unigram``, ``bpe``, ``word`` or ``char``."""
        return _MODEL_TYPES.get(self.model_type, str(self.model_type))


def read_sentencepiece(path: Path) -> SentencePieceModel:
    """Read a SentencePiece model; raises ModelError, naming the file, if it is missing or damaged."""
    try:
        content = read_bytes(path)
    except OSError as error:
        raise ModelError(f"{path}: {error.strerror}") from None
    try:
        return _read_model(path, content)
    except (ValueError, IndexError, struct.error) as error:
        raise ModelError(f"{path}: not a SentencePiece model, or damaged: {error}") from None


def _read_model(path: Path, content: bytes) -> SentencePieceModel:
    pieces = []
    trainer: dict[int, _Value] = {}
    normalizer: dict[int, _Value] = {}
    for field, value in _fields(content):
        if field == 1:
            pieces.append(_piece(_bytes(value)))
        elif field == 2:
            trainer.update(_fields(_bytes(value)))
        elif field == 3:
            normalizer.update(_fields(_bytes(value)))
    if not pieces:
        raise ValueError("no pieces")
    return SentencePieceModel(
        path=path,
        pieces=tuple(pieces),
        model_type=_integer(trainer.get(3, UNIGRAM)),
        normalizer=_bytes(normalizer.get(1, b"")).decode(),
        charsmap=_bytes(normalizer.get(2, b"")),
        byte_fallback=bool(trainer.get(35, 0)),
        space_as_suffix=bool(trainer.get(24, 0)),
        add_dummy_prefix=bool(normalizer.get(3, 1)),
        remove_extra_spaces=bool(normalizer.get(4, 1)),
        escape_spaces=bool(normalizer.get(5, 1)),
    )


def _piece(content: bytes) -> Piece:
    fields = dict(_fields(content))
    (score,) = struct.unpack("<f", _bytes(fields.get(2, bytes(4))))
    return Piece(_bytes(fields.get(1, b"")).decode(), score, PieceKind(fields.get(3, 1)))


def _bytes(value: _Value) -> bytes:
    if isinstance(value, int):
        raise ValueError("a number where bytes are expected")
    return value


def _integer(value: _Value) -> int:
    if not isinstance(value, int):
        raise ValueError("bytes where a number is expected")
    return value


def _fields(content: bytes) -> Iterator[tuple[int, _Value]]:
    """Yield the fields of a message: numbers for varints, bytes for all others."""
    position = 0
    while position < len(content):
        key, position = _varint(content, position)
        kind = key & 7
        if kind == 0:
            value, position = _varint(content, position)
            yield key >> 3, value
            continue
        if kind == 2:
            size, position = _varint(content, position)
        elif kind in (1, 5):
            size = 8 if kind == 1 else 4
        else:
            raise ValueError(f"wire type {kind} at byte {position}")
        if position + size > len(content):
            raise ValueError(f"{size} bytes at byte {position} of {len(content)}")
        yield key >> 3, content[position : position + size]
        position += size


def _varint(content: bytes, position: int) -> tuple[int, int]:
    """Read a number of up to 64 bits; returns also the position after it."""
    number = 0
    for shift in range(0, 70, 7):
        byte = content[position]
        position += 1
        number |= (byte & 127) << shift
        if byte < 128:
            return number, position
    raise ValueError(f"a number of more than 64 bits at byte {position}")
