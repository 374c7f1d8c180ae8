"""Vocabularies, and the formats ``vocab.txt`` and GluonNLP's JSON of WordPiece vocabularies."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from bertsym.errors import DataError, ModelError
from bertsym.file_reader import read_bytes
from bertsym.json_reader import json_object

#: roles of special tokens
ROLES = ("pad", "unk", "cls", "sep", "mask", "bos", "eos")
#: role -> special token of BERT
BERT_TOKENS = {"pad": "[PAD]", "unk": "[UNK]", "cls": "[CLS]", "sep": "[SEP]", "mask": "[MASK]"}
_OPTIONAL_ROLES = ("mask", "bos", "eos")


@dataclass(frozen=True)
class Vocabulary:
    """Tokens by id, and special tokens by role.

    Roles ``mask``, ``bos`` and ``eos`` whose token is not in the vocabulary are left out. Raises DataError for a
    repeated token, a special token of another role that is missing, and a line break in a token of WordPiece.
    """

    tokens: tuple[str, ...]
    special_tokens: Mapping[str, str] = field(default_factory=BERT_TOKENS.copy, hash=False)  #: by role, one of ROLES
    is_wordpiece: bool = True  #: whether it is written as ``vocab.txt`` and GluonNLP's JSON

    def __post_init__(self) -> None:
        seen: dict[str, int] = {}
        for index, token in enumerate(self.tokens):
            if token in seen:
                raise DataError(f"vocabulary: token {token!r} is repeated, at ids {seen[token]} and {index}")
            if self.is_wordpiece and ("\n" in token or token.endswith("\r")):
                raise DataError(f"vocabulary: token {index} contains a line break")
            seen[token] = index
        try:
            "".join(self.tokens).encode()
        except UnicodeEncodeError:
            raise DataError("vocabulary: a token is not valid Unicode") from None
        special = {role: token for role, token in self.special_tokens.items() if token in seen}
        missing = [
            token for role, token in self.special_tokens.items() if role not in special and role not in _OPTIONAL_ROLES
        ]
        if missing:
            raise DataError(f"vocabulary: {', '.join(missing)} missing from the {len(self.tokens)} tokens")
        object.__setattr__(self, "special_tokens", special)

    def __len__(self) -> int:
        return len(self.tokens)

    def index(self, token: str) -> int:
        """Return the id of a token, which must be in the vocabulary."""
        return self.tokens.index(token)

    @property
    def special_ids(self) -> dict[str, int]:
        """Role -> id of the special token."""
        return {role: self.index(token) for role, token in self.special_tokens.items()}

    @property
    def looks_cased(self) -> bool:
        """Whether a token, other than ``[...]``, has a capital letter: an uncased vocabulary has none."""
        return any(token != token.lower() for token in self.tokens if not token.startswith("["))

    def padded_to(self, size: int) -> Vocabulary:
        """Append tokens ``[unused row N]`` up to `size` tokens."""
        tokens = (*self.tokens, *(unused_row(i) for i in range(len(self.tokens), size)))
        return dataclasses.replace(self, tokens=tokens)

    @classmethod
    def load(cls, path: str | Path) -> Vocabulary:
        """Read ``vocab.txt`` (one token per line) or a GluonNLP vocabulary JSON; raises DataError."""
        return cls.parse(_decoded(_read(path), path), path)

    @classmethod
    def parse(cls, text: str, path: str | Path, special_tokens: Mapping[str, str] = BERT_TOKENS) -> Vocabulary:
        """Parse the text of a vocabulary file; the suffix of `path` decides the format. Raises DataError."""
        if Path(path).suffix == ".json":
            tokens = json_object(text, str(path), DataError)["idx_to_token"].texts()
        else:
            tokens = tuple(_lines(text))
        try:
            return cls(tokens, special_tokens)
        except DataError as error:
            raise DataError(f"{path}: {error}") from None

    def to_text(self) -> str:
        """Format as ``vocab.txt``."""
        return "\n".join(self.tokens) + "\n"

    def to_gluonnlp_json(self) -> str:
        """Format as the JSON that ``gluonnlp.vocab.BERTVocab.from_json`` and the Clojure BERT example read."""
        special = self.special_tokens
        kinds = {"padding": "pad", "mask": "mask", "sep": "sep", "cls": "cls"}
        return json.dumps(
            {
                "idx_to_token": self.tokens,
                "token_to_idx": {token: index for index, token in enumerate(self.tokens)},
                "reserved_tokens": list(dict.fromkeys(token for role, token in special.items() if role != "unk")),
                "unknown_token": special["unk"],
                "identifiers_to_tokens": {
                    f"{kind}_token": special[role] for kind, role in kinds.items() if role in special
                },
            },
            ensure_ascii=False,
        )


@dataclass(frozen=True)
class FoundVocabulary:
    """A vocabulary read from a third-party file, with notes on assumptions and the number of distinct lines."""

    vocabulary: Vocabulary
    notes: tuple[str, ...]
    different: int


def read_vocabulary(
    path: Path, rows: int, strip: bool = False, special_tokens: Mapping[str, str] = BERT_TOKENS
) -> FoundVocabulary:
    """Read a ``vocab.txt`` as transformers does, or a GluonNLP vocabulary JSON.

    The last of repeated lines counts, and blank lines are not tokens; the other rows of the token embedding are named
    ``[unused row N]``. Blank lines at the end are dropped if the embedding has fewer `rows`. With `strip`, trailing
    white space of tokens is removed. Raises DataError.
    """
    if path.suffix == ".json":
        vocabulary = Vocabulary.load(path)
        return FoundVocabulary(vocabulary, (), len(vocabulary))
    text = _decoded(_read(path), path)
    notes = ["the byte order mark is ignored"] if text.startswith("\ufeff") else []
    lines = _lines(text.removeprefix("\ufeff"))
    stripped = [line.rstrip() for line in lines] if strip else lines
    changed = [number for number, (line, token) in enumerate(zip(lines, stripped)) if line != token and token]
    if changed:
        notes.append(f"trailing white space of {_some('token', stripped, changed)} is removed, as in transformers 5")
    lines = stripped
    different = len({*lines})
    while len(lines) > rows and not lines[-1]:
        lines.pop()
    last = {token: number for number, token in enumerate(lines)}
    blank = [number for number, token in enumerate(lines) if not token]
    repeated = [number for number, token in enumerate(lines) if token and last[token] != number]
    if blank:
        count = f"{len(blank)} blank lines are not tokens" if len(blank) > 1 else "a blank line is not a token"
        notes.append(f"{count}; {_row_names(blank)}")
    if repeated:
        notes.append(
            f"{_some('token', lines, repeated)} is repeated; the last line counts, as in transformers, and "
            f"{_row_names(repeated)}"
        )
    unused = {*blank, *repeated}
    tokens = (unused_row(number) if number in unused else token for number, token in enumerate(lines))
    try:
        vocabulary = Vocabulary(tuple(tokens), special_tokens)
        return FoundVocabulary(vocabulary, tuple(f"{path.name}: {note}" for note in notes), different)
    except DataError as error:
        raise DataError(f"{path}: {error}") from None


def unused_row(number: int) -> str:
    """Name a row of the token embedding that has no token."""
    return f"[unused row {number}]"


def _row_names(numbers: Sequence[int]) -> str:
    if len(numbers) == 1:
        return f"row {numbers[0]} is named {unused_row(numbers[0])}"
    return f"their rows, {numbers[0]} to {numbers[-1]}, are named {unused_row(numbers[0])} and so on"


def _some(what: str, tokens: Sequence[str], numbers: Sequence[int]) -> str:
    """Describe some tokens, and name the first with its line."""
    first = f"{tokens[numbers[0]]!r:.60} of line {numbers[0] + 1}"
    return f"{what} {first}" if len(numbers) == 1 else f"each of {len(numbers)} {what}s, the first {first},"


def _read(path: str | Path) -> bytes:
    try:
        return read_bytes(path)
    except OSError as error:
        raise DataError(f"{path}: {error.strerror}") from None


def _decoded(content: bytes, path: str | Path) -> str:
    try:
        return content.decode("utf-8")
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: not UTF-8 text at byte {error.start}") from None


def _lines(text: str) -> list[str]:
    """Split at line feeds only: a token may contain U+2028, U+0085 or a form feed."""
    return [line.rstrip("\r") for line in text.removesuffix("\n").split("\n")]


def check_vocabulary_size(vocabulary: Sequence[str] | Vocabulary, rows: int, where: str) -> None:
    """Raise ModelError unless there is one token for each row of the token embedding."""
    if len(vocabulary) == rows:
        return
    hint = (
        "; if the rows were padded on purpose, --pad-vocab names the rest [unused row N]"
        if len(vocabulary) < rows
        else ""
    )
    raise ModelError(f"{where}: {len(vocabulary)} tokens, but the token embedding has {rows} rows{hint}")
