"""Changes of a tokenizer.json: components, special tokens, ids and flags, each as the format allows it, or almost."""

from __future__ import annotations

import copy
import json
import random
from collections.abc import Callable
from typing import Any

Document = dict[str, Any]
Mutation = Callable[[Document, random.Random], None]

#: Texts on which tokenizers differ; each is a row.
TEXTS = (
    "the happy cat",
    "The HAPPY dogs ran quickly!",
    "naïve café Über the",
    "[MASK] the [SEP] cat [E1] x [CLS]",
    "##s sing  the cat",
    "日本 the 語cat",
    "walked 123 45 the",
    "  the   cat  ",
    f"the {'a' * 120} cat",
    "the under_score-dash/slash.cat,dog",
    "emoji 😀 the 👩‍👧",
    "İstanbul ǅ ß ﬁ the",
    "zero\u200bwidth soft\u00adhyphen the",
    "the<subj>cat</subj> t1 t10",
    "e\u0301 the \u0130",
    "the\u2028cat\u00a0dog\u3000bird",
)
NORMALIZERS: tuple[Any, ...] = (
    None,
    {"type": "Lowercase"},
    {"type": "NFD"},
    {"type": "NFC"},
    {"type": "NFKC"},
    {"type": "StripAccents"},
    {"type": "Strip", "strip_left": True, "strip_right": True},
    {"type": "Nmt"},
    {"type": "Prepend", "prepend": "▁"},
    {"type": "Replace", "pattern": {"String": "cat"}, "content": "dog"},
    {"type": "Replace", "pattern": {"Regex": "(a+)+$"}, "content": ""},
    {"type": "Replace", "pattern": {"Regex": "("}, "content": ""},
    {"type": "Precompiled", "precompiled_charsmap": "AAAA"},
    {"type": "BertNormalizer"},
    {"type": "Sequence", "normalizers": []},
    {"type": "NoSuchNormalizer"},
    {},
    [],
    7,
)
PRE_TOKENIZERS: tuple[Any, ...] = (
    None,
    {"type": "Whitespace"},
    {"type": "WhitespaceSplit"},
    {"type": "Digits", "individual_digits": True},
    {"type": "Punctuation", "behavior": "Isolated"},
    {"type": "Punctuation", "behavior": "Removed"},
    {"type": "Metaspace", "replacement": "▁", "prepend_scheme": "always", "split": True},
    {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True, "use_regex": True},
    {"type": "CharDelimiterSplit", "delimiter": "a"},
    {"type": "Split", "pattern": {"String": " "}, "behavior": "Removed", "invert": False},
    {"type": "Split", "pattern": {"Regex": ""}, "behavior": "Isolated", "invert": True},
    {"type": "UnicodeScripts"},
    {"type": "Sequence", "pretokenizers": []},
    {"type": "NoSuchPreTokenizer"},
    "BertPreTokenizer",
)
POST_PROCESSORS: tuple[Any, ...] = (
    None,
    {"type": "BertProcessing", "sep": ["[SEP]", 4], "cls": ["[CLS]", 3]},
    {"type": "BertProcessing", "sep": ["[SEP]", 3], "cls": ["x", 99999]},
    {
        "type": "RobertaProcessing",
        "sep": ["[SEP]", 4],
        "cls": ["[CLS]", 3],
        "trim_offsets": True,
        "add_prefix_space": False,
    },
    {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True, "use_regex": True},
    {"type": "Sequence", "processors": []},
    {"type": "TemplateProcessing", "single": [], "pair": [], "special_tokens": {}},
    {"type": "NoSuchProcessor"},
)
MODELS: tuple[Any, ...] = (
    {"type": "WordLevel", "unk_token": "[UNK]"},
    {"type": "BPE", "unk_token": "[UNK]", "merges": [], "dropout": None, "fuse_unk": False},
    {"type": "BPE", "unk_token": "[UNK]", "merges": [["c", "at"]], "dropout": 0.5},
    {"type": "Unigram", "unk_id": 2, "vocab": [["[PAD]", 0.0], ["[UNK]", -1.0], ["the", -2.0]]},
    {"type": "NoSuchModel"},
)


def swap_component(document: Document, rng: random.Random) -> None:
    """Put another type of normalizer, pre-tokenizer or post-processor in place."""
    key, values = rng.choice(
        (("normalizer", NORMALIZERS), ("pre_tokenizer", PRE_TOKENIZERS), ("post_processor", POST_PROCESSORS))
    )
    document[key] = copy.deepcopy(rng.choice(values))


def nest_components(document: Document, rng: random.Random) -> None:
    """Wrap normalizers or pre-tokenizers into sequences, at times very deep."""
    key, inner, values = rng.choice(
        (("normalizer", "normalizers", NORMALIZERS), ("pre_tokenizer", "pretokenizers", PRE_TOKENIZERS))
    )
    parts = [document[key], *rng.sample(values[:9], 2)]
    rng.shuffle(parts)
    found: Any = {"type": "Sequence", inner: [part for part in parts if part is not None]}
    for _ in range(rng.choice((0, 1, 5, 40, 200))):
        found = {"type": "Sequence", inner: [found]}
    document[key] = found


def change_normalizer_options(document: Document, rng: random.Random) -> None:
    """Change options of BERT's normalizer."""
    for key in rng.sample(("lowercase", "strip_accents", "handle_chinese_chars", "clean_text"), 2):
        document["normalizer"][key] = rng.choice((True, False, None, False, "yes", 1))


def change_model_option(document: Document, rng: random.Random) -> None:
    """Change an option of WordPiece."""
    model = document["model"]
    key, value = rng.choice(
        (
            ("max_input_chars_per_word", rng.choice((0, 1, 4, 10**6, 2**63, -1, "5", 1.5, None))),
            ("continuing_subword_prefix", rng.choice(("", "#", "@@", "the", None, 5))),
            ("unk_token", rng.choice(("[PAD]", "the", "nowhere", "", None))),
        )
    )
    model[key] = value


def change_model_type(document: Document, rng: random.Random) -> None:
    """Change the type of the model."""
    model = copy.deepcopy(rng.choice(MODELS))
    document["model"] = {"vocab": document["model"]["vocab"], **model}
    if rng.random() < 0.2:
        del document["model"]["type"]


def change_template(document: Document, rng: random.Random) -> None:
    """Change the special tokens, the order or the type ids of a template."""
    template = document["post_processor"]
    part = rng.choice(("single", "pair"))
    change = rng.randrange(7)
    if change == 0:
        template[part].append({"SpecialToken": {"id": rng.choice(("[MASK]", "[NONE]", "[CLS]")), "type_id": 0}})
    elif change == 1:
        del template["special_tokens"][rng.choice(("[CLS]", "[SEP]"))]
    elif change == 2:
        token = template["special_tokens"]["[SEP]"]
        token["ids"] = rng.choice(([], [3], [4, 4], [99999], [-1], [2**32], ["4"]))
        token["tokens"] = rng.choice(([], ["[SEP]"], ["[SEP]", "[SEP]"], ["x"]))
    elif change == 3:
        rng.shuffle(template[part])
    elif change == 4:
        for item in template[part]:
            next(iter(item.values()))["type_id"] = rng.choice((0, 1, 2, 255, -1))
    elif change == 5:
        del template[part][rng.randrange(len(template[part]))]
    else:
        template[part].insert(0, {"Sequence": {"id": rng.choice(("A", "B", "C")), "type_id": 1}})


def add_added_token(document: Document, rng: random.Random) -> None:
    """Add an added token, with any flags, and an id that is free, taken or out of range."""
    size = len(document["model"]["vocab"])
    content = rng.choice(
        ("[E1]", "<subj>", "happy", "a", " ", "", "日", "T1", "[sep]", "the cat", "\t", "x" * 3000, "é")
    )
    document["added_tokens"].append(
        {
            "id": rng.choice((1, 1, size - 1, size, size + 5, 0, 2**32 - 1, 2**40, -1, "7")),
            "content": content,
            **{flag: rng.random() < 0.5 for flag in ("single_word", "lstrip", "rstrip", "normalized", "special")},
        }
    )
    if rng.random() < 0.3:  # the vocabulary says the same
        document["model"]["vocab"][content] = document["added_tokens"][-1]["id"]


def change_added_token_flags(document: Document, rng: random.Random) -> None:
    """Change the flags of added tokens, or remove one."""
    for token in rng.sample(document["added_tokens"], 2):
        for flag in ("single_word", "lstrip", "rstrip", "normalized", "special"):
            token[flag] = rng.random() < 0.5
    if rng.random() < 0.3:
        del document["added_tokens"][rng.randrange(len(document["added_tokens"]))]


def change_added_token_value(document: Document, rng: random.Random) -> None:
    """Give a value of an added token another type, or remove it."""
    token = rng.choice(document["added_tokens"])
    key = rng.choice(sorted(token))
    token[key] = rng.choice((None, [], {}, "x", -1, 2.5, 10**30, True, ""))
    if rng.random() < 0.3:
        del token[key]


def change_ids(document: Document, rng: random.Random) -> None:
    """Change ids of the vocabulary: swapped, repeated, missing, or out of range."""
    vocab = document["model"]["vocab"]
    token, other = rng.sample(sorted(vocab), 2)
    change = rng.randrange(6)
    if change == 0:
        vocab[token], vocab[other] = vocab[other], vocab[token]
    elif change == 1:
        vocab[token] = vocab[other]
    elif change == 2:
        vocab[token] = rng.choice((len(vocab), 10**6, 2**32 - 1, 2**32, -1, 1.0, "1", None, True))
    elif change == 3:
        del vocab[token]
    elif change == 4:
        vocab[rng.choice(("", " ", "new", "\x00", "a b", "##", "\ud800"))] = len(vocab)
    else:
        for key in vocab:
            vocab[key] += rng.choice((1, 1000)) if rng.random() < 0.9 else 0


def set_truncation_and_padding(document: Document, rng: random.Random) -> None:
    """Set the blocks by which the library itself truncates and pads."""
    document["truncation"] = rng.choice(
        (
            None,
            {"direction": "Right", "max_length": 4, "strategy": "LongestFirst", "stride": 0},
            {"direction": "Left", "max_length": 5, "strategy": "OnlySecond", "stride": 2},
            {"direction": "Right", "max_length": 0, "strategy": "LongestFirst", "stride": 9},
            {"max_length": -1},
        )
    )
    padding: Document = {
        "strategy": {"Fixed": rng.choice((8, 128, 10**9))},
        "direction": "Right",
        "pad_to_multiple_of": None,
    }
    padding.update(pad_id=rng.choice((0, 5, 10**6)), pad_type_id=1, pad_token=rng.choice(("[PAD]", "nowhere")))
    document["padding"] = rng.choice((None, padding, {**padding, "strategy": "BatchLongest", "direction": "Left"}))


def change_top_level(document: Document, rng: random.Random) -> None:
    """Remove or replace a part of the document, or add an unknown one."""
    key = rng.choice([*document, "unknown"])
    if rng.random() < 0.3:
        document.pop(key, None)
    else:
        document[key] = rng.choice((None, [], {}, "x", 5, "2.0", [None], {"type": None}, {"type": ["BertNormalizer"]}))


def replace_value(document: Document, rng: random.Random) -> None:
    """Replace any value outside of the vocabulary with one of another type."""
    places: list[tuple[Any, Any]] = []
    waiting: list[Any] = [document]
    while waiting:
        here = waiting.pop()
        if isinstance(here, (dict, list)):
            keys = [key for key in here if key != "vocab"] if isinstance(here, dict) else list(range(len(here)))
            places += [(here, key) for key in keys]
            waiting += [here[key] for key in keys]
    container, key = rng.choice(places)
    container[key] = rng.choice((None, True, -1, 2**64, 1e308, "", "x" * 10000, [], {}, [[]], "\ud800"))


def repeat_key(document: Document, rng: random.Random) -> Callable[[str], str]:
    """Repeat a key in the text: parsers disagree on which one counts."""
    key, value = rng.choice(
        (("lowercase", False), ("unk_token", "the"), ("the", 9), ("type", "NFC"), ("model", {}), ("id", 5))
    )
    first = rng.random() < 0.5

    def change(text: str) -> str:
        pair = f'"{key}": {json.dumps(value)}'
        if first:
            return text.replace(f'"{key}":', f'{pair}, "{key}":', 1)
        return text.replace(f'"{key}":', f'"{key}" :', 1).replace("{", f"{{{pair}, ", 1)

    return change


TOKENIZER_MUTATIONS: tuple[Mutation, ...] = (
    *(
        swap_component,
        swap_component,
        nest_components,
        change_normalizer_options,
        change_model_option,
        change_model_type,
    ),
    *(
        change_template,
        change_template,
        add_added_token,
        add_added_token,
        change_added_token_flags,
        change_added_token_value,
    ),
    *(change_ids, set_truncation_and_padding, change_top_level, replace_value),
)
