"""BERT's basic tokenizer and WordPiece, in the interface of `gluonnlp.data.fast_bert_tokenizer`.

That module is a C extension. Where gluonnlp was installed without a compiler, this one takes its place, so that
`import gluonnlp` and gluonnlp's BERTTokenizer work. bertsym tokenizes with `tokenizers` and does not use it.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Callable, Container

# First and last code points of the blocks that the basic tokenizer splits into single characters.
_CJK = (
    (0x3400, 0x4DBF),
    (0x4E00, 0x9FFF),
    (0xF900, 0xFAFF),
    (0x20000, 0x2A6DF),
    (0x2A700, 0x2B73F),
    (0x2B740, 0x2B81F),
    (0x2B820, 0x2CEAF),
    (0x2F800, 0x2FA1F),
)


def is_whitespace(char: str, category: str) -> bool:
    """Whether BERT takes a character of this Unicode category as white space."""
    return char in " \t\n\r" or category == "Zs"


def is_control(char: str, category: str) -> bool:
    """Whether BERT removes a character of this Unicode category as a control character."""
    return category in ("Cc", "Cf") and char not in "\t\n\r"


def is_punctuation(char: str, category: str) -> bool:
    """Whether BERT makes a token of its own of this character: punctuation, and all other symbols of ASCII."""
    return category.startswith("P") or ("!" <= char <= "~" and not char.isalnum())


def is_chinese_char(char: str) -> bool:
    """Whether the character is in one of the blocks of CJK ideographs."""
    return any(first <= ord(char) <= last for first, last in _CJK)


class BasicTokenizer:
    """Splits a text into words and punctuation; removes accents."""

    def __init__(self, lower: bool = True) -> None:
        self.lower = lower

    def tokenize(self, text: str) -> list[str]:
        """Return the words of a text."""
        text = text.translate(_CLEANED).strip()
        if self.lower:
            text = text.lower()
        # Accents are removed from cased text as well, as the extension does; Google's tokenizer keeps them there.
        return unicodedata.normalize("NFD", text).translate(_SPLIT).split()


class WordpieceTokenizer:
    """Splits words into the longest pieces that a vocabulary has."""

    def __init__(self, vocab: Container[str], unk_token: str = "[UNK]", max_input_chars_per_word: int = 200) -> None:
        self.vocab = vocab
        self.unk_token = unk_token
        self.max_input_chars_per_word = max_input_chars_per_word

    def tokenize(self, text: str) -> list[str]:
        """Return the word pieces of a text that is already split by spaces; an unknown word is one `unk_token`."""
        return [piece for word in text.split() for piece in self._pieces(word)]

    def _pieces(self, word: str) -> list[str]:
        if len(word) > self.max_input_chars_per_word:
            return [self.unk_token]
        pieces: list[str] = []
        start = 0
        while start < len(word):
            for end in range(len(word), start, -1):
                piece = ("##" if start else "") + word[start:end]
                if piece in self.vocab:
                    break
            else:
                return [self.unk_token]
            pieces.append(piece)
            start = end
        return pieces


class _Table(dict[int, str]):
    """A table for `str.translate` that is filled by a rule as characters come."""

    def __init__(self, rule: Callable[[str, str], str]) -> None:
        super().__init__()
        self._rule = rule

    def __missing__(self, code: int) -> str:
        char = chr(code)
        self[code] = self._rule(char, unicodedata.category(char))
        return self[code]


def _clean(char: str, category: str) -> str:
    if char in "\0\ufffd" or is_control(char, category):
        return ""
    if is_whitespace(char, category):
        return " "
    return f" {char} " if is_chinese_char(char) else char


def _split(char: str, category: str) -> str:
    if category == "Mn":  # an accent
        return ""
    return f" {char} " if is_punctuation(char, category) else char


_CLEANED = _Table(_clean)
_SPLIT = _Table(_split)
