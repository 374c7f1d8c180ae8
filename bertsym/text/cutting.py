"""Cut long texts into pieces that give the same tokens, in memory that does not grow with the text.

A cut between two characters changes nothing if the pipeline splits the text there anyway, and no added token spans the
cut. `Cutter` classifies each character by running the installed ``tokenizers`` on it, so that the Unicode tables are
always those of ``tokenizers``:

* A *space* separates words and belongs to no word.
* An *isolated* character, such as a punctuation mark or a Chinese character, is always a word of its own.
* A *vanishing* character, such as a control character or an accent, is removed.
* A *word* character belongs to the same word as its neighbours.

A pipeline in which a space begins the word after it (ByteLevel, Metaspace) splits the text before a space that follows
another word. `Cutter` runs the pipeline on the characters before such a space, with and without it, since a normalizer
may remove a character or join it with others: SentencePiece's table (Precompiled) maps a no-break space with an accent
to a space.

Runs of spaces or of vanishing characters are shortened to their ends, and so is a word that is longer than WordPiece's
limit: it is the unknown token either way. The ends that are kept are as long as the longest added token, so that the
same added tokens match as before.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Iterator
from itertools import chain
from typing import Any

import numpy as np

from bertsym.array import Array
from bertsym.text.components import Locality

PIECE = 4096  #: characters; shorter texts are not cut
LONGEST = 1 << 18  #: most characters without a place to cut; `tokenizers` needs about 600 bytes for each
_CONTEXT = 32  # characters before a space on which the pipeline is run; longer sequences are normalised one by one
_BLOCK = 1 << 20  # characters that are classified together
_LONGEST_WORD = 1 << 12  # characters; if WordPiece's limit is longer, words are not shortened
_SPACE, _ISOLATED, _VANISHING, _WORD, _OTHER = "s", "i", "v", "w", "o"


class UncutError(Exception):
    """A text has too many characters without a place to cut."""


class Cutter:
    """Cuts the texts of one pipeline of ``tokenizers`` into pieces."""

    def __init__(self, pipeline: Any, locality: Locality, longest_word: int | None) -> None:
        """`longest_word` is the number of characters above which a word is an unknown token; None without a limit."""
        self._locality = locality
        self._kinds = _Kinds(pipeline, locality)
        tokens = pipeline.get_added_tokens_decoder().values()
        # An added token is matched in the raw text or, if it is normalised itself, in the normalised text.
        raw = [token.content for token in tokens if not token.normalized]
        normalized = [self._kinds.normalize(token.content) for token in tokens if token.normalized]
        self._raw_pairs = _pairs(raw)
        self._pairs = _pairs(normalized)
        self._after = {character for token in normalized for character in token[1:]}
        self._before = {character for token in normalized for character in token[:-1]}
        contents = [content for content in (*raw, *normalized) if content]
        if locality is Locality.SPACES and (
            any(token.normalized and token.rstrip for token in tokens)
            or any(" " in content[1:] for content in normalized)
        ):
            self._locality = Locality.TEXT
        #: last characters of tokens that include the white space after them
        self._before_space = {token.content[-1:] for token in tokens if token.rstrip}
        #: a single-word token matches only at word boundaries, which a cut must not add
        self._single_word = any(token.single_word for token in tokens)
        if self._single_word and any(content != content.strip() for content in contents):
            self._locality = Locality.TEXT
        self._shortenings = list(self._find_shortenings(contents, longest_word))

    def pieces(self, text: str, size: int = PIECE) -> Iterator[tuple[str, Array]]:
        """Yield pieces of about `size` characters, whose concatenated tokens are those of the text.

        With each piece come the positions of its characters in the text, (characters,) int64. Raises UncutError, after
        the preceding pieces, if LONGEST characters have no place to cut.
        """
        if len(text) <= size or self._locality is Locality.TEXT:
            if len(text) > max(size, LONGEST):
                raise UncutError
            yield text, np.arange(len(text))
            return
        rest, places = "", np.arange(0)
        searched = 0  # the rest has no place to cut between `size` and this position
        for block, block_places in self._shortened(text, 2 * size):
            rest += block
            places = np.concatenate([places, block_places])
            start = 0
            while len(rest) - start > size:
                cut = self._cut(rest, start, size, searched)
                if cut is None:
                    break
                yield rest[start:cut], places[start:cut]
                start, searched = cut, 0
            rest, places = rest[start:], places[start:]
            searched = len(rest) if len(rest) > size else 0
        yield rest, places

    def _cut(self, text: str, start: int, size: int, searched: int) -> int | None:
        """Return the last place to cut within `size` characters from `start`, or else the first place after them."""
        middle = start + size
        places = chain(range(middle, start, -1) if not searched else (), range(max(middle + 1, searched), len(text)))
        for place in places:
            if place - start > LONGEST:
                raise UncutError
            if self._may_cut(text, place):
                return place
        if len(text) - start > LONGEST:
            raise UncutError
        return None

    def _may_cut(self, text: str, place: int) -> bool:
        """Whether a text may be cut before the character at a place."""
        left, right = text[place - 1], text[place]
        if self._locality is Locality.SPACES:
            if right != " " or left.isspace() or left in self._before_space or left + right in self._raw_pairs:
                return False
            return self._ends_word(text[max(0, place - _CONTEXT) : place])
        kinds = self._kinds
        stable_left, stable_right = (kinds[ord(each)] in (_SPACE, _ISOLATED) for each in (left, right))
        if left + right in self._raw_pairs or not (stable_left or stable_right):
            return False
        if self._single_word and kinds[ord(right)] != _SPACE:
            return False
        if not self._pairs:
            return True
        # The normalised characters on both sides of the cut, if they are known.
        ends = kinds.normalize(left)[-1] if stable_left else ""
        begins = kinds.normalize(right)[0] if stable_right else ""
        if stable_left and stable_right:
            return ends + begins not in self._pairs
        return ends not in self._before and begins not in self._after

    def _ends_word(self, text: str) -> bool:
        """Whether a text ends in a word that a space after it does not change."""
        normalize, split = self._kinds.normalize, self._kinds.split
        left, right = normalize(text), normalize("  a")
        if left[-1:].strip() == "" or normalize(f"{text}  a") != left + right:
            return False
        return split(left) + split(right) == split(left + right)

    def _find_shortenings(self, contents: list[str], longest_word: int | None) -> Iterator[tuple[re.Pattern[str], int]]:
        """Yield patterns of runs that may be shortened, and the number of characters to keep at each end."""
        longest = max(map(len, contents), default=1)

        def no_token_within(kinds: str) -> bool:
            return not any(set(content.translate(self._kinds)) <= set(kinds) for content in contents)

        def run(kinds: str, kept: int) -> tuple[re.Pattern[str], int]:
            return re.compile(f"[{kinds}]{{{2 * kept + 1},}}"), kept

        if self._locality in (Locality.TEXT, Locality.SPACES):
            return
        if no_token_within(_SPACE):
            yield run(_SPACE, longest)
        if self._locality is not Locality.CHARACTERS or not no_token_within(_VANISHING):
            return
        yield run(_VANISHING, longest)
        if longest_word is not None and longest_word <= _LONGEST_WORD and no_token_within(_WORD + _VANISHING):
            # Vanishing runs are shortened already: at least one of 2 * longest + 1 characters is a word character.
            yield run(_WORD + _VANISHING, max(longest, longest_word + 1) * (2 * longest + 1))

    def _shortened(self, text: str, size: int) -> Iterator[tuple[str, Array]]:
        """Yield the text in blocks, with shortened runs, and the positions of their characters in the text."""
        start = 0
        while start < len(text):
            block = text[start : start + size]
            places = np.arange(start, start + len(block))
            start += size
            size = min(2 * size, _BLOCK)
            kinds = block.translate(self._kinds) if self._shortenings else ""
            for pattern, kept in self._shortenings:
                middles = [(match.start() + kept, match.end() - kept) for match in pattern.finditer(kinds)]
                if middles:
                    kept_parts = _outside(middles, len(block))
                    block, kinds = ("".join(part[each] for each in kept_parts) for part in (block, kinds))
                    places = np.concatenate([places[each] for each in kept_parts])
            yield block, places


class _Kinds(dict[int, str]):
    """The kind of each character by its number, found when it is first asked for."""

    def __init__(self, pipeline: Any, locality: Locality) -> None:
        super().__init__()
        self._normalizer, self._pre_tokenizer = pipeline.normalizer, pipeline.pre_tokenizer
        self._locality = locality
        #: whether combining marks are reordered, as in NFD
        self._reorders = self.normalize("\u0301\u0323") != "\u0301\u0323"

    def normalize(self, text: str) -> str:
        """Normalise a text."""
        return str(self._normalizer.normalize_str(text)) if self._normalizer is not None else text

    def split(self, text: str) -> list[str]:
        """Split a normalised text into words."""
        return [word for word, _ in self._pre_tokenizer.pre_tokenize_str(text)]

    def __missing__(self, number: int) -> str:
        self[number] = kind = self._kind(chr(number)) if self._locality is not Locality.TEXT else _OTHER
        return kind

    def _kind(self, character: str) -> str:
        if "\ud800" <= character <= "\udfff":
            return _OTHER
        normalized = self.normalize(f"a{character}{character}a")
        words = self.split(normalized)
        # The character is repeated: an isolated character does not form a word with its copy.
        if words == ["a", "a"]:
            return _SPACE
        if self._locality is Locality.WORDS:
            return _OTHER
        if words == ["aa"]:
            return _VANISHING
        if len(words) == 4 and words[0] == words[3] == "a" and words[1] == words[2]:
            return _ISOLATED
        if len(words) == 1 and not (self._reorders and unicodedata.combining(character)):
            return _WORD
        return _OTHER


def _pairs(contents: Iterable[str]) -> set[str]:
    """Return all pairs of adjacent characters."""
    return {content[i : i + 2] for content in contents for i in range(len(content) - 1)}


def _outside(ranges: list[tuple[int, int]], length: int) -> list[slice]:
    """Return the parts of `length` characters that are outside of some ranges."""
    starts = [0, *(end for _, end in ranges)]
    ends = [*(start for start, _ in ranges), length]
    return [slice(start, end) for start, end in zip(starts, ends)]
