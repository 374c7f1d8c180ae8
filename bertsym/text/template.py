"""Read the post-processor of a tokenizer document as a template of texts and special tokens."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from bertsym.json_reader import JsonValue

_TEXTS = {"A": 0, "B": 1}
_MAX_TYPE = 1  # the second segment; models with one segment replace it with the first


@dataclass(frozen=True)
class Piece:
    """Special tokens, or all tokens of text 0 or 1, and their token type."""

    content: tuple[int, ...] | int  #: ids of special tokens, or the index of a text
    token_type: int


@dataclass(frozen=True)
class Template:
    """The layouts of one text and of a pair of texts."""

    single: tuple[Piece, ...]
    pair: tuple[Piece, ...]

    def layout(self, texts: int) -> tuple[Piece, ...]:
        """Return the pieces for one text or two."""
        return self.single if texts == 1 else self.pair

    def special_tokens(self, texts: int) -> int:
        """Count the special tokens of an input with one text or two."""
        return sum(len(piece.content) for piece in self.layout(texts) if not isinstance(piece.content, int))

    def fill(self, texts: Sequence[list[int]]) -> tuple[list[int], list[int]]:
        """Insert one text or two, as token ids, between the special tokens; return token ids and token types."""
        token_ids: list[int] = []
        token_types: list[int] = []
        for piece in self.layout(len(texts)):
            ids = texts[piece.content] if isinstance(piece.content, int) else piece.content
            token_ids += ids
            token_types += [piece.token_type] * len(ids)
        return token_ids, token_types


def read_template(processor: JsonValue) -> Template:
    """Read a ``post_processor``; raises an error that names the file and the key if it is not supported."""
    if processor.is_null:
        return Template((Piece(0, 0),), (Piece(0, 0), Piece(1, 1)))
    kind = processor["type"].choice("TemplateProcessing", "BertProcessing", "RobertaProcessing", "Sequence")
    if kind == "Sequence":
        # ByteLevel changes only offsets, which are not used.
        steps = [step for step in processor["processors"].elements() if step["type"].raw != "ByteLevel"]
        if len(steps) != 1:
            raise processor.fault(f"{len(steps)} post-processors that add special tokens, expected 1")
        return read_template(steps[0])
    if kind != "TemplateProcessing":
        (_, cls), (_, sep) = (processor[key].elements(2, 2) for key in ("cls", "sep"))
        return _usual_template(cls.integer(0), sep.integer(0), roberta=kind == "RobertaProcessing")
    special = {
        token: tuple(number.integer(0) for number in entry["ids"].elements())
        for token, entry in processor["special_tokens"].items()
    }
    template = Template(_pieces(processor["single"], special, "A"), _pieces(processor["pair"], special, "AB"))
    for texts in (1, 2):
        kinds = [piece.token_type for piece in template.layout(texts)]
        if max(kinds) > _MAX_TYPE:
            raise processor.fault(f"token type {max(kinds)}, at most {_MAX_TYPE} is supported")
    return template


def _usual_template(cls: int, sep: int, roberta: bool) -> Template:
    """``[CLS] A [SEP] B [SEP]`` of BERT, or ``<s> A </s> </s> B </s>`` of RoBERTa, all of one token type."""
    start, end = Piece((cls,), 0), Piece((sep,), 0)
    single = (start, Piece(0, 0), end)
    if roberta:
        return Template(single, (*single, end, Piece(1, 0), end))
    return Template(single, (*single, Piece(1, 1), Piece((sep,), 1)))


def _pieces(layout: JsonValue, special: dict[str, tuple[int, ...]], texts: str) -> tuple[Piece, ...]:
    """Read the pieces of a layout, which must have each of `texts` once, in order."""
    pieces = []
    for element in layout.elements():
        ((kind, entry),) = element.items() if len(element.object()) == 1 else [("", element)]
        if kind == "Sequence":
            content: tuple[int, ...] | int = _TEXTS[entry["id"].choice(*_TEXTS)]
        elif kind == "SpecialToken" and entry["id"].text() in special:
            content = special[entry["id"].text()]
        else:
            raise element.fault("expected a Sequence, or a SpecialToken of special_tokens")
        pieces.append(Piece(content, entry["type_id"].integer(0)))
    if [piece.content for piece in pieces if isinstance(piece.content, int)] != [_TEXTS[text] for text in texts]:
        raise layout.fault(f"expected {' and '.join(texts)} once each, in this order")
    return tuple(pieces)
