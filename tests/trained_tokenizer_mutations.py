"""Changes of a tokenizer.json whose model is BPE or Unigram, each as the format allows it, or almost."""

from __future__ import annotations

import copy
import random
from typing import Any

from tokenizer_mutations import TOKENIZER_MUTATIONS, Document, Mutation

#: Texts with the special tokens of RoBERTa, and texts that BPE and Unigram split at other places than WordPiece.
TEXTS = (
    "<s> the </s> <mask> cat   <mask>dog <unk>",
    "def main(argv):\n    for x in range(10):\n\t\treturn x  # ok\n\n",
    "it's what we've got, they'll say IT'S 42.",
    "안녕하세요 세계、日本語\ufe0f",
    "\u2581the\u2581 cat\u2581\u2581dog Ġthe Ċ",
)


def change_merges(document: Document, rng: random.Random) -> None:
    """Reorder, repeat, remove or corrupt merges of a BPE, or write them as older versions of the library do."""
    merges = document["model"]["merges"]
    first, second = rng.sample(range(len(merges)), 2)
    change = rng.randrange(7)
    if change == 0:
        merges[first], merges[second] = merges[second], merges[first]
    elif change == 1:
        merges.reverse()
    elif change == 2:
        merges.insert(0, merges[first])
    elif change == 3:
        del merges[first : rng.choice((first + 1, len(merges)))]
    elif change == 4:
        merges.append([merges[first][1], merges[second][0]])
    elif change == 5:
        joined = [" ".join(merge) for merge in merges]
        document["model"]["merges"] = rng.choice((joined, joined[:first] + merges[first:]))
    else:
        odd: tuple[Any, ...] = ("a", "a b c", ["a"], ["a", "b", "c"], [1, 2], None, ["", "a"], ["a", ""], [], "a  b")
        merges[first] = rng.choice(odd)


def change_bpe_option(document: Document, rng: random.Random) -> None:
    """Change an option of a BPE."""
    model = document["model"]
    model["merges"]  # raises KeyError for another model
    options: tuple[tuple[str, tuple[Any, ...]], ...] = (
        ("dropout", (0.0, 0.1, 1.0, 2, "x")),
        ("unk_token", ("<unk>", "the", "nowhere", "", 5)),
        ("continuing_subword_prefix", ("", "##", "Ġ", 5)),
        ("end_of_word_suffix", ("", "</w>", "t", 5)),
        ("fuse_unk", (True, "x", None)),
        ("byte_fallback", (True, "x", None)),
        ("ignore_merges", (True, "x", None)),
    )
    key, values = rng.choice(options)
    model[key] = rng.choice(values)


def change_pieces(document: Document, rng: random.Random) -> None:
    """Change pieces or scores of a Unigram: other ids, repeated, missing or equally probable pieces, odd values."""
    pieces = document["model"]["vocab"]
    if not isinstance(pieces, list):
        raise TypeError("not a Unigram")
    first, second = rng.sample(range(len(pieces)), 2)
    change = rng.randrange(8)
    if change == 0:
        pieces[first], pieces[second] = pieces[second], pieces[first]
    elif change == 1:
        pieces[first][0] = pieces[second][0]
    elif change == 2:
        pieces[first][1] = rng.choice((0, 5.5, -1e308, 1e308, 10**400, float("nan"), "x", None, True))
    elif change == 3:
        del pieces[first]
    elif change == 4:
        odd: tuple[Any, ...] = ([], ["x"], ["x", 0.0, 1], "xy", None, [1, 2], ["", 0.0], [" ", -1.0], ["\ud800", -1.0])
        pieces[first] = rng.choice(odd)
    elif change == 5:
        pieces.append([rng.choice(("new", "\u2581new", "a b", "\x00", "日本", "<0x0A>", "the")), rng.uniform(-12, 0)])
    elif change == 6:
        for piece in pieces:
            piece[1] = 0.0
    else:
        pieces[:] = [piece for piece in pieces if len(piece[0]) > 1]


def change_unigram_option(document: Document, rng: random.Random) -> None:
    """Change an option of a Unigram."""
    model = document["model"]
    model["unk_id"]  # raises KeyError for another model
    if rng.random() < 0.7:
        model["unk_id"] = rng.choice((None, 0, 1, len(model["vocab"]) - 1, len(model["vocab"]), -1, 3.0, "3", True))
    else:
        model["byte_fallback"] = rng.choice((True, None, "x"))


def change_words(document: Document, rng: random.Random) -> None:
    """Change how texts are split into words, within the type of the pre-tokenizer or to the other one."""
    spaces: tuple[Document, ...] = (
        {"prepend_scheme": "first"},
        {"prepend_scheme": "never"},
        {"split": False},
        {"replacement": "_"},
        {"replacement": "ab"},
        {"replacement": " "},
        {"add_prefix_space": True, "prepend_scheme": None},
        {"str_rep": "\u2581"},
    )
    metaspace = {"type": "Metaspace", "replacement": "\u2581", "prepend_scheme": "always", "split": True}
    levels: tuple[Document, ...] = (
        {"add_prefix_space": True},
        {"use_regex": False},
        {"trim_offsets": False},
        {"add_prefix_space": "x"},
    )
    byte_level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
    changed = rng.choice(({**metaspace, **rng.choice(spaces)}, {**byte_level, **rng.choice(levels)}))
    before: list[Any] = [{"type": "WhitespaceSplit"}, {"type": "Digits", "individual_digits": True}, changed]
    document["pre_tokenizer"] = rng.choice((changed, changed, {"type": "Sequence", "pretokenizers": before}))


def change_ends(document: Document, rng: random.Random) -> None:
    """Change the special tokens around a text, or put a template in the place of RoBERTa's post-processor."""
    processor = document["post_processor"]
    change = rng.randrange(4)
    if change == 0:
        processor["cls"], processor["sep"] = processor["sep"], processor["cls"]
    elif change == 1:
        processor[rng.choice(("cls", "sep"))] = rng.choice(
            (["<s>", 2], ["x", 99999], ["<s>", -1], ["<mask>", 4], [], 5)
        )
    elif change == 2:
        processor[rng.choice(("trim_offsets", "add_prefix_space"))] = rng.choice((True, False, None))
    else:
        tokens = {name: {"id": name, "ids": [number], "tokens": [name]} for name, number in (("<s>", 0), ("</s>", 2))}
        start, end = ({"SpecialToken": {"id": name, "type_id": 0}} for name in tokens)
        texts = [{"Sequence": {"id": name, "type_id": rng.choice((0, 1))}} for name in "AB"]
        template: Document = {"single": [start, texts[0], end], "pair": [start, texts[0], end, end, texts[1], end]}
        rng.shuffle(template[rng.choice(("single", "pair"))])
        document["post_processor"] = {"type": "TemplateProcessing", **template, "special_tokens": tokens}


def change_normalizer(document: Document, rng: random.Random) -> None:
    """Reorder, repeat or remove the steps of a normalizer, or change a replaced pattern."""
    steps = copy.deepcopy(document["normalizer"]["normalizers"])
    change = rng.randrange(4)
    if change == 0:
        rng.shuffle(steps)
    elif change == 1:
        steps.append(rng.choice(steps))
    elif change == 2:
        del steps[rng.randrange(len(steps))]
    else:
        step = next(step for step in steps if step["type"] == "Replace")
        step["pattern"] = rng.choice(({"Regex": " +"}, {"String": " "}, {"Regex": "("}, {"Regex": "(a|a)*$"}, " "))
    document["normalizer"] = {"type": "Sequence", "normalizers": steps}


_OWN: tuple[Mutation, ...] = (
    *(change_merges, change_merges, change_bpe_option, change_bpe_option),
    *(change_pieces, change_pieces, change_pieces, change_unigram_option),
    *(change_words, change_words, change_ends, change_ends, change_normalizer),
)
TRAINED_TOKENIZER_MUTATIONS: tuple[Mutation, ...] = (*_OWN, *_OWN, *TOKENIZER_MUTATIONS)
