"""Tokenizers of other classes than BERT's: byte-level BPE, Unigram, and WordPiece with other special tokens."""

from __future__ import annotations

import json
import random
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from conftest import Result, Tables, hugging_face_weights, write_hugging_face
from tokenizer_documents import TOKENS, document, random_text, steps
from tokenizer_training import CORPUS, SLOW, SPECIAL, byte_level, metaspace, trained
from tools import require_transformers_5

from bertsym import DataError, ModelError
from bertsym.sources.hugging_face_tokenizer import read_tokenizer
from bertsym.text.tokenizer import Tokenizer

Cli = Callable[..., Result]

_SPACE = "\u2581"
_MASK = {
    "content": "<mask>",
    "lstrip": True,
    "rstrip": False,
    "normalized": False,
    "single_word": False,
    "__type": "AddedToken",
}


def mpnet() -> dict[str, Any]:
    names = {"[PAD]": "<pad>", "[CLS]": "<s>", "[SEP]": "</s>", "[MASK]": "<mask>"}
    tokens = [names.get(token, token) for token in TOKENS]
    described: dict[str, Any] = document(vocab={token: number for number, token in enumerate(tokens)})
    template = trained("BPE")["post_processor"]
    described["post_processor"] = {**template, "cls": ["<s>", 3], "sep": ["</s>", 4]}
    return {**described, "added_tokens": []}


NAMED = {"bos": "<s>", "eos": "</s>", "cls": "<s>", "sep": "</s>", "pad": "<pad>", "unk": "<unk>", "mask": "<mask>"}
#: folder -> tokenizer.json, tokenizer_config.json and model_type
FOLDERS: dict[str, tuple[dict[str, Any], dict[str, Any], str]] = {
    "RoBERTa": (trained("BPE"), {"tokenizer_class": "RobertaTokenizer"}, "roberta"),
    "RoBERTa, prefix space and <mask> that takes the space before it": (
        trained("BPE"),
        {"tokenizer_class": "RobertaTokenizerFast", "add_prefix_space": True, "mask_token": {**_MASK, "special": True}},
        "roberta",
    ),
    "RoBERTa, prefix space of the file": (trained("BPE", pre_tokenizer=byte_level(True)), {}, "roberta"),
    "XLM-R": (trained("Unigram"), {"tokenizer_class": "XLMRobertaTokenizer"}, "xlm-roberta"),
    "MPNet": (mpnet(), {"tokenizer_class": "MPNetTokenizer", "do_lower_case": True}, "mpnet"),
    "XLM-R with SentencePiece's table, as it is": (
        trained("Unigram", normalizer=steps(*SLOW), pre_tokenizer=metaspace()),
        {"tokenizer_class": "PreTrainedTokenizerFast", **{f"{role}_token": token for role, token in NAMED.items()}},
        "xlm-roberta",
    ),
    "CamemBERT": (trained("Unigram"), {"tokenizer_class": "CamembertTokenizer"}, "camembert"),
}


def make_folder(folder: Path, name: str) -> Path:
    described, config, model_type = FOLDERS[name]
    folder.mkdir(parents=True, exist_ok=True)
    contents = {"config.json": {"model_type": model_type}, "tokenizer.json": described, "tokenizer_config.json": config}
    for file, content in contents.items():
        (folder / file).write_text(json.dumps(content))
    return folder


def texts(seed: int) -> list[str]:
    rng = random.Random(seed)
    words = [*SPECIAL, "the", " <mask>", "it's", "  ", "\n\n", _SPACE, "😀 "]
    found = [*CORPUS]
    while len(found) < 200:
        text = random_text(rng, words)
        if len(text) < 1000:
            found.append(text)
    return found


@pytest.mark.parametrize("name", FOLDERS)
def test_ids_and_token_types_are_those_of_transformers(tmp_path: Path, name: str) -> None:
    import transformers

    if name in ("RoBERTa", "RoBERTa, prefix space of the file"):
        require_transformers_5()
    described, _, model_type = FOLDERS[name]
    folder = make_folder(tmp_path, name)
    found = read_tokenizer(folder, len(described["model"]["vocab"]), model_type=model_type)
    assert found.notes == ()
    mine = Tokenizer(json.dumps(found.document), "tokenizer.json", found.options, 10_000)
    theirs: Any = transformers.AutoTokenizer.from_pretrained(str(folder), local_files_only=True)
    rows = texts(1)
    for columns in ([rows], [rows, rows[::-1]]):
        for example, row in zip(mine.encode(*columns), zip(*columns)):
            expected = theirs(*row, return_token_type_ids=True)
            assert (example.token_ids, example.token_types) == (expected["input_ids"], expected["token_type_ids"]), row
    roles = {role: getattr(theirs, f"{role}_token_id") for role in found.vocabulary.special_ids}
    assert found.vocabulary.special_ids == roles


BPE, UNIGRAM = trained("BPE")["model"], trained("Unigram")["model"]


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (
            {**BPE, "merges": [*BPE["merges"], ["a", "nowhere"]]},
            f"model.merges[{len(BPE['merges'])}]: 'nowhere' is not",
        ),
        ({**BPE, "merges": ["a b c"]}, "model.merges[0]: expected two tokens"),
        ({**BPE, "dropout": 0.1}, "model.dropout: random tokenization is not supported"),
        ({**BPE, "unk_token": "nowhere"}, "model.unk_token: 'nowhere' is not in the vocabulary"),
        ({**BPE, "vocab": {**BPE["vocab"], "far": 10**6}}, "'far' has the id 1000000"),
        (UNIGRAM, 'model.type: "Unigram" is not one of "BPE"'),
        ({**BPE, "type": "WordLevel"}, 'model.type: "WordLevel" is not one of "BPE"'),
    ],
)
def test_a_model_that_cannot_be_run_is_refused_by_its_key(tmp_path: Path, model: dict[str, Any], message: str) -> None:
    folder = make_folder(tmp_path, "RoBERTa")
    (folder / "tokenizer.json").write_text(json.dumps({**trained("BPE"), "model": model}))
    with pytest.raises((DataError, ModelError), match=f"tokenizer.json: {re.escape(message)}"):
        read_tokenizer(folder, 400, model_type="roberta")


@pytest.mark.parametrize(
    ("model", "message"),
    [
        ({**UNIGRAM, "vocab": [*UNIGRAM["vocab"][:9], ["x", "high"]]}, 'model.vocab[9][1]: "high" is not a number'),
        ({**UNIGRAM, "vocab": [*UNIGRAM["vocab"][:9], ["<s>", 0.0]]}, "model.vocab[9][0]: '<s>' is repeated"),
        ({**UNIGRAM, "unk_id": 10**6}, "model.unk_id: 1000000 is not in the range 0 to "),
        ({**UNIGRAM, "unk_id": None}, "model.unk_id: null is not an integer"),
    ],
)
def test_a_unigram_model_is_checked_too(tmp_path: Path, model: dict[str, Any], message: str) -> None:
    folder = make_folder(tmp_path, "XLM-R")
    (folder / "tokenizer.json").write_text(json.dumps({**trained("Unigram"), "model": model}))
    with pytest.raises((DataError, ModelError), match=f"tokenizer.json: {re.escape(message)}"):
        read_tokenizer(folder, 400, model_type="xlm-roberta")


# Bundles


@pytest.fixture(scope="module")
def roberta(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Prefix of the bundle of a small RoBERTa."""
    from bertsym import export

    folder = tmp_path_factory.mktemp("roberta")
    sizes = {"vocab_size": 400, "type_vocab_size": 1}
    config = {**sizes, "model_type": "roberta", "pad_token_id": 1, "max_position_embeddings": 42}
    write_hugging_face(folder / "hf", hugging_face_weights(**sizes, max_position_embeddings=42), **config)
    (folder / "hf/vocab.txt").unlink()
    (folder / "hf/tokenizer.json").write_text(json.dumps(trained("BPE")))
    (folder / "hf/tokenizer_config.json").write_text("{}")
    export(f"hf:{folder / 'hf'}", folder / "base")
    return folder / "base"


def test_a_bundle_holds_the_tokenizer_and_no_wordpiece_vocabulary(roberta: Path) -> None:
    files = {path.name for path in roberta.parent.glob("base-*")}
    assert files == {
        f"base-{name}" for name in ("symbol.json", "0000.params", "tokenizer.json", "signature.json", "manifest.json")
    }
    assert json.loads(Path(f"{roberta}-tokenizer.json").read_text()) == trained("BPE")
    signature = json.loads(Path(f"{roberta}-signature.json").read_text())
    ids = {"pad": 1, "unk": 3, "cls": 0, "sep": 2, "mask": 4, "bos": 0, "eos": 2}
    assert (signature["special_ids"], signature["pad_id"]) == (ids, 1)
    assert signature["special_tokens"] == {role: SPECIAL[number] for role, number in ids.items()}
    assert signature["tokenizer"]["model"] == "BPE"


def test_texts_of_a_bundle_are_tokenised(cli: Cli, roberta: Path) -> None:
    done = cli("tokenize", roberta, "--text", "it's  café 中文")
    assert done.code == 0, done.err
    (line,) = done.out.splitlines()
    found = json.loads(line)
    assert found["data0"][0] == 0
    assert found["data0"][-1] == 2
    assert set(found["data1"]) == {0}
    pair = json.loads(cli("tokenize", roberta, "--text", "the", "--text-pair", "fox").out)
    assert [number for number in pair["data0"] if number in (0, 2)] == [0, 2, 2, 2]


def test_the_pad_token_in_a_text_is_an_error_with_its_line(cli: Cli, roberta: Path, tmp_path: Path) -> None:
    table = tmp_path / "texts.txt"
    table.write_text("the fox\na <pad> b\n")
    done = cli("tokenize", roberta, table, "--no-header", "--text-column", 1, "--on-error", "fail")
    assert done.code == 1
    assert "texts.txt, line 2: the text contains the pad token '<pad>'" in done.error_line


def test_a_classifier_is_trained_and_used_on_its_texts(cli: Cli, roberta: Path, tables: Tables, tmp_path: Path) -> None:
    out = tmp_path / "out"
    done = cli("finetune", roberta, out, "--train", tables.train, "--dev", tables.dev, "--epochs", 1)
    assert done.code == 0, done.err
    done = cli("predict", out, "--text", "a <pad> b")
    assert done.code == 1
    assert "pad token" in done.error_line
    assert cli("predict", out, "--text", "the happy fox").code == 0
