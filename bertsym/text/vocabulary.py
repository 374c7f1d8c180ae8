"""WordPiece vocabularies: a list of tokens, as ``vocab.txt`` and as GluonNLP's JSON."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from bertsym.errors import DataError, ModelError
from bertsym.files import read_bytes
from bertsym.json_reader import read_json

_ROLES = {"pad": "[PAD]", "unk": "[UNK]", "cls": "[CLS]", "sep": "[SEP]", "mask": "[MASK]"}
_SPECIAL = tuple(_ROLES.values())
_REQUIRED = _SPECIAL[:4]


@dataclass(frozen=True)
class Vocabulary:
    """Tokens by id. Raises DataError on duplicates, on line breaks in a token, on a missing special token."""

    tokens: tuple[str, ...]

    def __post_init__(self) -> None:
        seen: dict[str, int] = {}
        for index, token in enumerate(self.tokens):
            if token in seen:
                raise DataError(f"vocabulary: token {token!r} stands at ids {seen[token]} and {index}")
            if "\n" in token or token.endswith("\r"):
                raise DataError(f"vocabulary: token {index} holds a line break")
            seen[token] = index
        try:
            "".join(self.tokens).encode()
        except UnicodeEncodeError:
            raise DataError("vocabulary: a token is not valid Unicode") from None
        missing = [token for token in _REQUIRED if token not in seen]
        if missing:
            raise DataError(f"vocabulary: no {', '.join(missing)} among the {len(self.tokens)} tokens")

    def __len__(self) -> int:
        return len(self.tokens)

    def index(self, token: str) -> int:
        """The id of a token that the vocabulary has."""
        return self.tokens.index(token)

    @property
    def special_tokens(self) -> dict[str, str]:
        """Role (``pad``, ``unk``, ``cls``, ``sep``, ``mask``) -> token, of those that the vocabulary has."""
        return {role: token for role, token in _ROLES.items() if token in self.tokens}

    @property
    def looks_cased(self) -> bool:
        """Whether some token has a capital letter, which an uncased vocabulary never has."""
        return any(token != token.lower() for token in self.tokens if not token.startswith("["))

    def padded_to(self, size: int) -> Vocabulary:
        """The vocabulary with ``[unused row N]`` appended up to `size` tokens."""
        return Vocabulary((*self.tokens, *(f"[unused row {i}]" for i in range(len(self.tokens), size))))

    @classmethod
    def load(cls, path: str | Path) -> Vocabulary:
        """Read ``vocab.txt`` (a token a line) or a GluonNLP vocabulary JSON; raises DataError."""
        path = Path(path)
        if path.suffix == ".json":
            tokens = read_json(path, DataError)["idx_to_token"].texts()
        else:
            tokens = tuple(line.rstrip("\r") for line in _read_text(path).removesuffix("\n").split("\n"))
        try:
            return cls(tokens)
        except DataError as error:
            raise DataError(f"{path}: {error}") from None

    def to_text(self) -> str:
        """The content of a ``vocab.txt``."""
        return "\n".join(self.tokens) + "\n"

    def to_gluonnlp_json(self) -> str:
        """The JSON that ``gluonnlp.vocab.BERTVocab.from_json`` and the Clojure BERT example read."""
        special = [token for token in _SPECIAL if token in self.tokens]
        identifiers = {
            f"{kind}_token": token
            for kind, token in zip(("padding", "mask", "sep", "cls"), ("[PAD]", "[MASK]", "[SEP]", "[CLS]"))
            if token in special
        }
        return json.dumps(
            {
                "idx_to_token": self.tokens,
                "token_to_idx": {token: index for index, token in enumerate(self.tokens)},
                "reserved_tokens": [token for token in special if token != "[UNK]"],
                "unknown_token": "[UNK]",
                "identifiers_to_tokens": identifiers,
            },
            ensure_ascii=False,
        )


def _read_text(path: Path) -> str:
    try:
        return read_bytes(path).decode("utf-8")
    except OSError as error:
        raise DataError(f"{path}: {error.strerror}") from None
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: not UTF-8 text at byte {error.start}") from None


def check_fits(vocabulary: Sequence[str] | Vocabulary, rows: int, where: str) -> None:
    """Raise ModelError unless there is one token for each row of the word embedding."""
    if len(vocabulary) == rows:
        return
    mend = (
        "; where the rows were padded on purpose, --pad-vocab names the rest [unused row N]"
        if len(vocabulary) < rows
        else ""
    )
    raise ModelError(f"{where}: {len(vocabulary)} tokens, but the word embedding has {rows} rows{mend}")
