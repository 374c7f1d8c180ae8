"""``bertsym tokenize``: the inputs that predict feeds, for programs that have no tokenizer."""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import VOCABULARY, Result, Tables, hugging_face_weights, write_hugging_face
from headed import write_headed
from tokenizer_documents import BERT, added_token, digits, steps
from tokenizer_documents import document as tokenizer_document

from bertsym import BundleTokenizer, Classifier, DataError, Encoder, ModelError, TaskPredictor, UsageError, export, load
from bertsym.inference.load import PREDICTORS

Cli = Callable[..., Result]
CLS, SEP = VOCABULARY.index("[CLS]"), VOCABULARY.index("[SEP]")


def ids(text: str) -> list[int]:
    return [VOCABULARY.index(word) for word in text.split()]


def records(result: Result) -> list[dict[str, Any]]:
    assert result.code == 0, result.err
    return [json.loads(line) for line in result.out.splitlines()]


@pytest.fixture
def paraphrases(bundles: dict[str, Path], tmp_path: Path) -> Path:
    """A classifier of pairs."""
    from bertsym import FinetuneOptions, finetune

    table = tmp_path / "pairs.tsv"
    table.write_text("label\ttext\ttext_pair\n0\tthe cat sat\ta dog ran\n1\tthe cat sat\tthe cat sat\n")
    options = FinetuneOptions(epochs=1, max_length=16, freeze_encoder=True)
    return finetune(bundles["cls"], table, table, tmp_path / "pairs", options=options).bundle.prefix


def test_a_text_gives_ids_types_and_length_by_the_names_of_the_inputs(cli: Cli, classifier: Path) -> None:
    result = cli("tokenize", classifier, "--text", "The cat sat")
    assert records(result) == [{"data0": [CLS, *ids("the cat sat"), SEP], "data1": [0] * 5, "data2": 5}]
    assert result.err == ""


def test_a_pair_has_types_0_and_1(cli: Cli, paraphrases: Path) -> None:
    (record,) = records(cli("tokenize", paraphrases, "--text", "the cat", "--text-pair", "a dog ran"))
    assert record["data0"] == [CLS, *ids("the cat"), SEP, *ids("a dog ran"), SEP]
    assert record["data1"] == [0] * 4 + [1] * 4
    assert record["data2"] == 8


def test_tokenize_prints_the_inputs_of_predict(
    cli: Cli, classifier: Path, tables: Tables, monkeypatch: pytest.MonkeyPatch
) -> None:
    from bertsym.inference.executors import Executors

    forward, fed = Executors.forward, []

    def listening(self: Executors, inputs: Any) -> Any:
        fed.append(inputs)
        return forward(self, inputs)

    monkeypatch.setattr(Executors, "forward", listening)
    predictions = list(Classifier(classifier, batch_size=1).predict_table(tables.dev))
    printed = records(cli("tokenize", classifier, tables.dev))
    assert len(printed) == len(fed) == len(predictions)
    # In which order they are fed does not matter.
    rows = []
    for inputs in fed:
        token_ids, token_types, (length,) = inputs.values()
        size = int(length)
        rows.append(
            {
                "data0": token_ids[0, :size].astype(int).tolist(),
                "data1": token_types[0, :size].astype(int).tolist(),
                "data2": size,
            }
        )
        assert not np.any(token_ids[0, size:])
    assert sorted(rows, key=str) == sorted(printed, key=str)


def test_a_table_is_read_as_the_training_table_was(cli: Cli, paraphrases: Path, tmp_path: Path) -> None:
    table, other = tmp_path / "t.tsv", tmp_path / "other.csv"
    table.write_text("text\ttext_pair\nthe cat\ta dog\nthe dog ran\ta cat\n")
    other.write_text("a cat,1,the dog ran\n")
    first = records(cli("tokenize", paraphrases, table))
    columns = ["--no-header", "--text-column", "3", "--pair-column", "1"]
    assert [record["data2"] for record in first] == [7, 8]
    assert records(cli("tokenize", paraphrases, other, *columns)) == first[1:]


def test_truncation_is_reported_on_standard_error_as_by_predict(cli: Cli, classifier: Path) -> None:
    text = ["--text", "happy " * 100]
    result = cli("tokenize", classifier, *text)
    (record,) = records(result)
    assert (len(record["data0"]), record["data0"][-1], record["data2"]) == (24, SEP, 24)
    assert result.err == cli("predict", classifier, *text).err == "1 of 1 texts truncated to 24 tokens\n"


@pytest.mark.parametrize("output", ["cls", "pooled", "mean", "sequence"])
def test_an_encoder_takes_texts_and_pairs(cli: Cli, bundles: dict[str, Path], tmp_path: Path, output: str) -> None:
    table = tmp_path / "t.tsv"
    table.write_text("sentence1\tsentence2\nthe cat\ta dog\n")
    single = records(cli("tokenize", bundles[output], "--text", "the cat"))
    pair = records(cli("tokenize", bundles[output], "--text", "the cat", "--text-pair", "a dog"))
    assert single == [{"data0": [CLS, *ids("the cat"), SEP], "data1": [0] * 4, "data2": 4}]
    assert pair[0]["data1"] == [0, 0, 0, 0, 1, 1, 1]
    assert records(cli("tokenize", bundles[output], table)) == pair


def test_a_bert_with_another_head_is_tokenised_like_its_origin(
    cli: Cli, bundles: dict[str, Path], tmp_path: Path
) -> None:
    tagger = tmp_path / "tagger"
    assert cli("graft", bundles["sequence"], tagger, "--head", "tagging", "--num-classes", 3).code == 0
    text = ["--text", "the cat sat"]
    assert records(cli("tokenize", tagger, *text)) == records(cli("tokenize", bundles["sequence"], *text))


def test_a_head_alone_takes_no_texts(cli: Cli, classifier: Path, tmp_path: Path) -> None:
    head = tmp_path / "head"
    assert cli("extract", classifier, head, "--output", "softmax", "--input", "cls").code == 0
    result = cli("tokenize", head, "--text", "the cat")
    assert (result.code, result.out) == (1, "")
    assert "not those of a BERT" in result.error_line


def test_standard_input_is_a_text_a_line_or_two_for_pairs(classifier: Path, paraphrases: Path) -> None:
    """In a process of its own, which must not import mxnet."""
    code = "import sys; from bertsym.cli.group import run; code = run(sys.argv[1:]); assert 'mxnet' not in sys.modules"
    for prefix, text, lengths in (
        (classifier, b"the cat\nthe dog ran\n", [4, 5]),
        (paraphrases, b"the cat\ta dog\n", [7]),
    ):
        command = [sys.executable, "-c", code, "tokenize", str(prefix)]
        result = subprocess.run(command, input=text, capture_output=True, check=False, timeout=60)
        assert (result.returncode, result.stderr) == (0, b"")
        assert [json.loads(line)["data2"] for line in result.stdout.splitlines()] == lengths


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["--text", " "], 1, "is empty"),
        (["--text", "happy", "--text-pair", "sad"], 2, "trained on single texts"),
        (["--text-pair", "sad"], 2, "--text-pair needs --text"),
        (["FILE", "--text", "happy"], 2, "either FILE or --text"),
        (["none.tsv"], 1, "none.tsv: No such file"),
    ],
)
def test_invalid_calls_are_refused(cli: Cli, classifier: Path, arguments: list[str], code: int, message: str) -> None:
    result = cli("tokenize", classifier, *arguments)
    assert (result.code, result.out) == (code, "")
    assert message in result.error_line


def test_the_library_does_the_same(classifier: Path, tables: Tables) -> None:
    tokenizer = BundleTokenizer.open(classifier)
    assert [list(features.inputs()) for features in tokenizer.encode(["the cat"])] == [
        [{"data0": [CLS, *ids("the cat"), SEP], "data1": [0] * 4, "data2": 4}]
    ]
    assert sum(len(features) for features in tokenizer.encode_table(tables.dev)) == 21
    with pytest.raises(UsageError, match="single texts"):
        tokenizer.encode(["a"], ["b"])
    with pytest.raises(UsageError, match="a list of texts"):
        tokenizer.encode("cat")
    with pytest.raises(DataError, match="text 2 of 2 is empty"):
        tokenizer.encode(["cat", ""])


# The tokenizer of the source


def test_texts_are_tokenised_by_the_tokenizer_of_the_source(cli: Cli, tmp_path: Path) -> None:
    """Its added tokens, its pre-tokenizer, its longest word; a long text too."""
    tokens = [*VOCABULARY, "1", "2", "12"]
    described = tokenizer_document(
        BERT,
        steps("BertPreTokenizer", digits()),
        [("[E1]", "normalized"), ("<subj>", "special")],
        tokens,
        max_input_chars_per_word=6,
    )
    size = len(tokens) + 2
    folder = write_hugging_face(tmp_path / "hf", hugging_face_weights(vocab_size=size), vocab_size=size)
    (folder / "vocab.txt").unlink()
    (folder / "tokenizer.json").write_text(json.dumps({**described, "truncation": {"max_length": 3}}))
    (folder / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "PreTrainedTokenizerFast"}))
    assert cli("export", f"hf:{folder}", tmp_path / "base").code == 0

    text = "[E1] the cat <subj>12 quickly [SEP]"
    words = ["[CLS]", "[E1]", "the", "cat", "<subj>", "1", "2", "[UNK]", "[SEP]", "[SEP]"]
    expected = [[*tokens, "[E1]", "<subj>"].index(word) for word in words]
    (record,) = records(cli("tokenize", tmp_path / "base", "--text", text))
    assert record["data0"] == expected
    (record,) = records(cli("tokenize", tmp_path / "base", "--text", f"{text} " * 1000))
    assert record["data0"] == [*(expected[:-1] + expected[1:-1] * 4)[:39], SEP]
    written = (tmp_path / "base-tokenizer.json").read_text()
    assert written == json.dumps(described, indent=2, ensure_ascii=False) + "\n"


@pytest.mark.parametrize("command", ["export", "finetune"])
def test_the_names_of_special_tokens_are_text_when_that_is_asked_for(
    cli: Cli, tiny_hf: Path, bundles: dict[str, Path], tables: Tables, tmp_path: Path, command: str
) -> None:
    text = ["--text", "the [SEP] cat"]
    (record,) = records(cli("tokenize", bundles["cls"], *text))
    assert record["data0"] == [CLS, *ids("the"), SEP, *ids("cat"), SEP]
    source = [f"hf:{tiny_hf}", tmp_path / "out"] if command == "export" else [bundles["cls"], tmp_path / "out"]
    train = ["--train", tables.train, "--dev", tables.dev, "--epochs", 1, "--freeze-encoder"]
    done = cli(command, *source, "--literal-special-tokens", *(train if command == "finetune" else []))
    assert done.code == 0, done.err
    (record,) = records(cli("tokenize", tmp_path / "out", *text))
    unknown = VOCABULARY.index("[UNK]")
    assert record["data0"] == [CLS, *ids("the"), unknown, unknown, unknown, *ids("cat"), SEP]
    signature = json.loads((tmp_path / "out-signature.json").read_text())
    assert signature["tokenizer"]["literal_special_tokens"] is True


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"added_tokens": [added_token(6, "bird")]},
            "added_tokens[0]: 'bird' has the id 6, but ",
        ),
        ({"post_processor": {"type": "BertProcessing", "sep": ["", 4], "cls": ["", 99]}}, "post_processor: id 99"),
        ({"normalizer": {"type": "Foo"}}, 'normalizer.type: "Foo" is not one of'),
    ],
)
def test_a_tokenizer_that_does_not_belong_to_the_bundle_is_refused(
    cli: Cli, bundles: dict[str, Path], tmp_path: Path, change: dict[str, Any], message: str
) -> None:
    """The digests are those of the files."""
    for path in bundles["cls"].parent.glob("cls-*"):
        shutil.copy(path, tmp_path)
    content = json.dumps({**tokenizer_document(tokens=VOCABULARY), **change}).encode()
    (tmp_path / "cls-tokenizer.json").write_bytes(content)
    manifest = json.loads((tmp_path / "cls-manifest.json").read_text())
    manifest["files"]["tokenizer.json"] = {"sha256": hashlib.sha256(content).hexdigest(), "size": len(content)}
    (tmp_path / "cls-manifest.json").write_text(json.dumps(manifest))
    result = cli("tokenize", tmp_path / "cls", "--text", "cat")
    assert result.code == 1
    assert f"{tmp_path / 'cls'}-tokenizer.json: {message}" in result.error_line


# Long rows


def peak(command: list[object]) -> tuple[subprocess.CompletedProcess[str], int]:
    """Run a command of bertsym in a process of its own; its result and its peak memory in MiB."""
    # Not ru_maxrss, which begins with that of the process that forked.
    code = "import sys; from pathlib import Path; from bertsym.cli.group import run; code = run(sys.argv[1:]);"
    code += (
        " print(Path('/proc/self/status').read_text().split('VmHWM:')[1].split()[0], file=sys.stderr); sys.exit(code)"
    )
    done = subprocess.run([sys.executable, "-c", code, *map(str, command)], capture_output=True, text=True, timeout=300)
    return done, int(done.stderr.split()[-1]) >> 10


@pytest.mark.parametrize("text", [".," * 3_000_000, "a" * 6_000_000], ids=["punctuation", "a word"])
def test_the_memory_for_a_row_does_not_grow_with_the_row(bundles: dict[str, Path], tmp_path: Path, text: str) -> None:
    """The whole row took 560 bytes a character."""
    (tmp_path / "rows.tsv").write_text(f"text\n{text}\nthe cat\n")
    done, mib = peak(["tokenize", bundles["cls"], tmp_path / "rows.tsv"])
    assert done.returncode == 0, done.stderr
    assert [len(json.loads(line)["data0"]) for line in done.stdout.splitlines()] == [40 if "." in text else 3, 4]
    assert mib < 400


@pytest.mark.parametrize("policy", ["fail", "skip", "blank"])
def test_a_row_that_can_not_be_read_stops_is_left_out_or_is_null(
    cli: Cli, classifier: Path, tmp_path: Path, policy: str
) -> None:
    table = tmp_path / "t.tsv"
    table.write_text("text\tlabel\nthe cat\t0\nthe\nthe dog\t1\n")
    result = cli("tokenize", classifier, table, "--on-error", policy)
    lengths = [record and record["data2"] for record in map(json.loads, result.out.splitlines())]
    error = f"{table}, line 3: 1 columns, 2 expected"
    assert (result.code, lengths, result.err) == {
        "fail": (1, [4], f"Error: {error}; --on-error skip leaves out rows that can't be read\n"),
        "skip": (0, [4, 4], f"{error}: left out\n1 of 3 rows left out\n"),
        "blank": (0, [4, None, 4], f"{error}: left blank\n1 of 3 rows left blank\n"),
    }[policy]


# Windows, and what decoding needs


def test_the_windows_of_a_long_context_have_the_offsets_of_its_tokens(cli: Cli, tmp_path: Path) -> None:
    """In SQuAD's JSON, too, and the truncation of other texts is marked."""
    prefix = export(f"hf:{write_headed(tmp_path / 'hf', 'qa')}", tmp_path / "qa", verify=False).bundle.prefix
    context = "the  cat sat " * 15
    questions = [{"id": str(i), "question": "who sat", "answers": []} for i in range(2)]
    paragraphs = [{"context": text, "qas": [each]} for text, each in zip(("a dog", context), questions)]
    (tmp_path / "squad.json").write_text(json.dumps({"version": "2.0", "data": [{"paragraphs": paragraphs}]}))
    short, *windows = records(cli("tokenize", prefix, tmp_path / "squad.json", "--stride", 5))
    assert short["offsets"] == [None] * 4 + [[0, 1], [2, 5], None]
    assert "example" not in short
    assert [window["example"] for window in windows] == [2, 2]
    places = [[place for place in window["offsets"] if place] for window in windows]
    assert places[0][-5:] == places[1][:5]
    assert [context[slice(*place)] for place in [*places[0], *places[1][5:]]] == context.split()


@pytest.mark.parametrize("stride", [None, 8])
def test_words_have_their_token_in_one_of_the_windows(cli: Cli, tmp_path: Path, stride: int | None) -> None:
    """A removed word has none; a truncated one neither."""
    prefix = export(f"hf:{write_headed(tmp_path / 'hf', 'tagging')}", tmp_path / "tags", verify=False).bundle.prefix
    words = ["cats", "\x07", *["dog", "mat"] * 24]
    (tmp_path / "words.jsonl").write_text(json.dumps({"tokens": words}) + "\n")
    result = cli("tokenize", prefix, tmp_path / "words.jsonl", *([] if stride is None else ["--stride", stride]))
    rows = records(result)
    tokens = [row["data0"][token] if token is not None else None for row in rows for token in row["words"]]
    kept = words if stride else words[: 2 + 36]  # 40 tokens: cat, ##s, and [CLS], [SEP]
    expected = [None if word == "\x07" else VOCABULARY.index(word.removesuffix("s")) for word in kept]
    assert tokens == expected + [None] * (len(words) - len(kept))
    assert [row.get("truncated", False) for row in rows] == [stride is None] * len(rows)
    assert ("1 of 1 texts truncated" in result.err) == (stride is None)


def test_a_stride_needs_a_trained_head(cli: Cli, bundles: dict[str, Path]) -> None:
    result = cli("tokenize", bundles["cls"], "--text", "the cat", "--stride", 4)
    assert (result.code, result.out) == (2, "")
    assert f"{bundles['cls']} has no trained head that takes a stride" in result.error_line


# In Python


def test_tokens_have_their_characters_and_long_texts_windows(bundles: dict[str, Path]) -> None:
    tokenizer = BundleTokenizer.open(bundles["cls"])
    text = "The  cats sat."
    ((window,), (other,)) = tokenizer.encode_windows([text, "a dog"])
    assert window.alignment is not None
    pieces = [text[start:end] for start, end in window.alignment.offsets]
    assert pieces == ["", "The", "cat", "s", "sat", ".", ""]
    assert next(next(tokenizer.encode(["a dog"])).inputs())["data0"] == other.token_ids
    (windows,) = tokenizer.encode_windows(["cat"], ["dog " * 50], stride=4)
    assert len(windows) > 1
    assert all(each.token_ids[1] == ids("cat")[0] and len(each.token_ids) <= 40 for each in windows)
    with pytest.raises(DataError, match="text 2 of 2: no tokens"):
        list(tokenizer.encode_windows(["cat", "\x07"]))


def test_a_bundle_is_loaded_with_the_class_of_its_task(bundles: dict[str, Path], classifier: Path) -> None:
    assert type(load(classifier)) is Classifier
    assert isinstance(load(bundles["mean"]), Encoder)
    assert set(PREDICTORS.values()) == set(TaskPredictor.__subclasses__())
    with pytest.raises(ModelError, match="nowhere"):
        load("nowhere")
