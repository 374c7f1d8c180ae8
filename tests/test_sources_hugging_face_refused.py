"""``hf:`` folders and vocabularies that are refused, each with its file and the reason."""

from __future__ import annotations

import json
import pickle
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import CONFIG, VOCABULARY, Result, hugging_face_weights, write_hugging_face
from hugging_face_files import (
    INDEX,
    Weights,
    without,
    write_json,
    write_safetensors,
    write_shards,
)
from refusals import refusal
from safetensors.numpy import save_file

from bertsym import Bundle

Cli = Callable[..., Result]


def assert_refused(cli: Cli, folder: Path, file: str, *words: str, options: tuple[str, ...] = ()) -> str:
    """Exit code 1, one line (returned) that names the file and says `words`, and nothing at the target."""
    target = folder.parent / "out"
    line = refusal(cli("export", f"hf:{folder}", target / "base", *options), target)
    assert str(folder / file) in line
    for word in words:
        assert word in line
    return line


@pytest.mark.parametrize(
    ("key", "value", "words"),
    [
        ("model_type", "gpt2", ['model_type: "gpt2" is not one of "bert", "roberta", "xlm-roberta"', '"distilbert"']),
        ("hidden_act", "swish", ['hidden_act: "swish" is not one of "gelu", "relu", "gelu_new", "gelu_pytorch_tanh"']),
        ("position_embedding_type", "relative_key", ['position_embedding_type: "relative_key"']),
        ("is_decoder", True, ["is_decoder: true"]),
        ("add_cross_attention", True, ["add_cross_attention: true"]),
        ("num_attention_heads", 5, ["units 32 is not a multiple of num_heads 5"]),
        ("hidden_size", "32", ['hidden_size: "32" is not an integer']),
        ("vocab_size", [32], ["vocab_size: an array is not an integer"]),
        ("num_hidden_layers", 0, ["num_hidden_layers: 0 is not in the range"]),
        ("num_hidden_layers", True, ["num_hidden_layers: true is not an integer"]),
        ("max_position_embeddings", 10**400, ["max_position_embeddings: 1000", "is not in the range"]),
        ("layer_norm_eps", 10**400, ["layer_norm_eps: 1000", "is not in the range 0 to 1"]),
        ("layer_norm_eps", 0, ["layer_norm_eps is 0"]),
        ("hidden_dropout_prob", 1.0, ["dropout is 1.0"]),
        ("attention_probs_dropout_prob", -0.1, ["attention_probs_dropout_prob: -0.1 is not in the range 0 to 1"]),
    ],
)
def test_a_config_that_the_graph_cannot_express_is_refused(
    cli: Cli, tmp_path: Path, key: str, value: object, words: list[str]
) -> None:
    folder = write_hugging_face(tmp_path / "hf", None, **{key: value})
    assert_refused(cli, folder, "config.json", *words)


@pytest.mark.parametrize(
    "key",
    ["num_hidden_layers", "hidden_size", "intermediate_size", "num_attention_heads", "vocab_size"],
)
def test_a_config_without_a_needed_key_is_refused(cli: Cli, tmp_path: Path, key: str) -> None:
    folder = write_hugging_face(tmp_path / "hf")
    write_json(folder / "config.json", {name: value for name, value in CONFIG.items() if name != key})
    assert_refused(cli, folder, "config.json", key)


@pytest.mark.parametrize("text", ["", "{", "[1]", "\x00", "null"])
def test_a_config_that_is_not_a_json_object_is_refused(cli: Cli, tmp_path: Path, text: str) -> None:
    folder = write_hugging_face(tmp_path / "hf")
    (folder / "config.json").write_text(text)
    assert_refused(cli, folder, "config.json", "JSON")


@pytest.mark.parametrize("file", ["config.json", "model.safetensors"])
def test_a_missing_file_is_named(cli: Cli, tmp_path: Path, file: str) -> None:
    folder = write_hugging_face(tmp_path / "hf")
    (folder / file).unlink()
    assert_refused(cli, folder, "", file)


def test_a_missing_weight_is_refused(cli: Cli, tmp_path: Path) -> None:
    name = "encoder.layer.1.attention.self.query.weight"
    folder = write_hugging_face(tmp_path / "hf", without(hugging_face_weights(), name))
    assert_refused(cli, folder, "", "1 missing", name)


def test_half_a_pooler_is_a_missing_weight(cli: Cli, tmp_path: Path) -> None:
    folder = write_hugging_face(tmp_path / "hf", without(hugging_face_weights(), "pooler.dense.bias"))
    assert_refused(cli, folder, "", "1 missing", "pooler.dense.bias")


def test_an_unknown_weight_is_refused(cli: Cli, tmp_path: Path) -> None:
    extra = {"encoder.layer.2.output.dense.bias": np.zeros(32, np.float32)}
    folder = write_hugging_face(tmp_path / "hf", {**hugging_face_weights(), **extra})
    assert_refused(cli, folder, "", "1 unknown", *extra)


def test_a_line_break_in_a_weight_name_is_escaped_in_the_error(cli: Cli, tmp_path: Path) -> None:
    extra = {"one\ntwo": np.zeros(32, np.float32)}
    folder = write_hugging_face(tmp_path / "hf", {**hugging_face_weights(), **extra})
    assert_refused(cli, folder, "", "1 unknown", "one", "two")


def test_control_characters_in_the_name_of_a_head_do_not_reach_the_screen(cli: Cli, tmp_path: Path) -> None:
    extra = {"cls.one\rtwo": np.zeros(32, np.float32)}
    folder = write_hugging_face(tmp_path / "hf", {**hugging_face_weights(), **extra})
    assert "\r" not in assert_refused(cli, folder, "config.json", "cls.one")
    result = cli("export", f"hf:{folder}", tmp_path / "base", "--headless")
    assert result.code == 0
    assert "cls.one" in result.out
    assert "\r" not in result.out


def test_a_weight_with_another_prefix_is_refused(cli: Cli, tmp_path: Path) -> None:
    extra = {"bert.pooler.dense.bias": np.zeros(32, np.float32)}
    folder = write_hugging_face(tmp_path / "hf", {**hugging_face_weights(), **extra})
    assert_refused(cli, folder, "", "1 unknown (bert.pooler.dense.bias)")


@pytest.mark.parametrize(
    "changed",
    [
        {"extra": np.zeros(32, np.float32)},
        {"pooler.dense.bias": np.zeros(31, np.float32)},
        {"pooler.dense.bias": np.full(32, np.nan, np.float32)},
    ],
    ids=["unknown", "shape", "not finite"],
)
def test_a_weight_that_is_refused_is_named_with_its_file(cli: Cli, tmp_path: Path, changed: Weights) -> None:
    folder = write_hugging_face(tmp_path / "hf", {**hugging_face_weights(), **changed})
    assert_refused(cli, folder, "model.safetensors", *changed)


@pytest.mark.parametrize("shape", [(31,), (32, 1), ()])
def test_a_wrong_shape_is_refused(cli: Cli, tmp_path: Path, shape: tuple[int, ...]) -> None:
    changed = {**hugging_face_weights(), "pooler.dense.bias": np.zeros(shape, np.float32)}
    folder = write_hugging_face(tmp_path / "hf", changed)
    assert_refused(cli, folder, "", f"pooler.dense.bias has shape {shape}", "(32,)")


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_elements_that_are_not_finite_are_refused(cli: Cli, tmp_path: Path, value: float) -> None:
    weights = hugging_face_weights()
    weights["encoder.layer.0.output.dense.weight"][3, 5] = value
    folder = write_hugging_face(tmp_path / "hf", weights)
    assert_refused(cli, folder, "", "encoder.layer.0.output.dense.weight", "not finite")


def test_float64_elements_beyond_the_range_of_float32_are_refused(cli: Cli, tmp_path: Path) -> None:
    changed = {**hugging_face_weights(), "pooler.dense.bias": np.full(32, 1e300)}
    folder = write_hugging_face(tmp_path / "hf", changed)
    assert_refused(cli, folder, "", "pooler.dense.bias", "not finite")


@pytest.mark.parametrize(("dtype", "size"), [("I32", 4), ("BOOL", 1), ("F8_E4M3", 1), ("F8_E5M2", 1)])
def test_a_dtype_that_is_not_a_plain_float_is_refused(cli: Cli, tmp_path: Path, dtype: str, size: int) -> None:
    folder = write_hugging_face(tmp_path / "hf")
    tensors = {name: ("F32", array.shape, array.tobytes()) for name, array in hugging_face_weights().items()}
    tensors["pooler.dense.bias"] = (dtype, (32,), bytes(32 * size))
    write_safetensors(folder / "model.safetensors", tensors)
    assert_refused(cli, folder, "", "pooler.dense.bias")


@pytest.mark.parametrize("size", [0, 7, 100, -1, -1000])
def test_a_truncated_file_is_refused(cli: Cli, tmp_path: Path, size: int) -> None:
    folder = write_hugging_face(tmp_path / "hf")
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:size])
    assert_refused(cli, folder, "model.safetensors", "damaged or truncated safetensors")


def test_a_truncated_bfloat16_file_is_refused(cli: Cli, tmp_path: Path) -> None:
    folder = write_hugging_face(tmp_path / "hf")
    path = folder / "model.safetensors"
    write_safetensors(path, {name: ("BF16", a.shape, bytes(2 * a.size)) for name, a in hugging_face_weights().items()})
    path.write_bytes(path.read_bytes()[:-1])
    assert_refused(cli, folder, "model.safetensors", "damaged or truncated safetensors")


@pytest.mark.parametrize(
    "shard", ["../model.safetensors", "/etc/passwd", "sub/model.safetensors", "..", "", "a\0.safetensors", "\ud800", 3]
)
def test_a_shard_that_is_not_a_file_name_is_refused(cli: Cli, tmp_path: Path, shard: object) -> None:
    folder = write_hugging_face(tmp_path / "hf")
    (folder / "model.safetensors").rename(folder.parent / "model.safetensors")
    write_json(folder / INDEX, {"weight_map": dict.fromkeys(hugging_face_weights(), shard)})
    assert_refused(cli, folder, INDEX)


def test_a_missing_shard_is_named(cli: Cli, tmp_path: Path) -> None:
    folder = write_hugging_face(tmp_path / "hf")
    write_shards(folder, hugging_face_weights())
    (folder / "model-00002-of-00003.safetensors").unlink()
    assert_refused(cli, folder, "model-00002-of-00003.safetensors", "no such file")


def test_a_weight_in_two_shards_is_refused(cli: Cli, tmp_path: Path) -> None:
    folder = write_hugging_face(tmp_path / "hf")
    weights = hugging_face_weights()
    write_shards(folder, weights)
    save_file({"pooler.dense.bias": weights["pooler.dense.bias"]}, folder / "extra.safetensors")
    index = json.loads((folder / INDEX).read_text())
    index["weight_map"]["another"] = "extra.safetensors"
    write_json(folder / INDEX, index)
    assert_refused(cli, folder, "", "pooler.dense.bias is in another shard too")


@pytest.mark.parametrize("index", [{}, {"weight_map": {}}, {"weight_map": ["model.safetensors"]}, []])
def test_an_index_without_a_weight_map_is_refused(cli: Cli, tmp_path: Path, index: object) -> None:
    folder = write_hugging_face(tmp_path / "hf")
    (folder / "model.safetensors").unlink()
    write_json(folder / INDEX, index)
    assert_refused(cli, folder, INDEX)


class Payload:
    """Unpickled, it makes a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return (Path.touch, (self.path,))


@pytest.fixture
def without_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    """As in an environment that does not have it."""
    monkeypatch.setitem(sys.modules, "torch", None)


@pytest.mark.usefixtures("without_torch")
@pytest.mark.parametrize("name", ["pytorch_model.bin", "pytorch_model.bin.index.json"])
def test_without_torch_a_pickle_is_refused_with_a_way_to_convert_it_and_never_loaded(
    cli: Cli, tmp_path: Path, name: str
) -> None:
    folder = write_hugging_face(tmp_path / "hf")
    (folder / "model.safetensors").unlink()
    pickled = pickle.dumps(Payload(tmp_path / "was loaded"))
    (folder / name).write_bytes(pickled)
    assert_refused(
        cli, folder, f"{name}: a pickle", "install torch", "convert the whole folder", f"{folder}-safetensors"
    )
    assert not (tmp_path / "was loaded").exists()
    pickle.loads(pickled)  # it would have
    assert (tmp_path / "was loaded").exists()


@pytest.mark.usefixtures("without_torch")
def test_without_torch_a_pickle_is_not_even_opened(cli: Cli, tmp_path: Path) -> None:
    folder = write_hugging_face(tmp_path / "hf")
    (folder / "model.safetensors").unlink()
    (folder / "pytorch_model.bin").mkdir()  # opening it would be another error
    assert_refused(cli, folder, "pytorch_model.bin: a pickle")


@pytest.mark.usefixtures("without_torch")
def test_a_folder_without_weights_is_refused(cli: Cli, tmp_path: Path) -> None:
    folder = write_hugging_face(tmp_path / "hf")
    (folder / "model.safetensors").unlink()
    assert_refused(cli, folder, f"{folder}: no model.safetensors; a pytorch_model.bin is read where torch is installed")


# --- vocabularies that are refused ---


def write_vocabulary(folder: Path, tokens: list[str]) -> Path:
    (folder / "vocab.txt").write_text("\n".join(tokens) + "\n")
    return folder


def test_a_vocabulary_shorter_than_the_embedding_is_refused_with_the_way_out(cli: Cli, tmp_path: Path) -> None:
    folder = write_vocabulary(write_hugging_face(tmp_path / "hf"), VOCABULARY[:-2])
    count = len(VOCABULARY)
    assert_refused(cli, folder, "vocab.txt", f"{count - 2} tokens", f"{count} rows", "--pad-vocab")


def test_pad_vocab_names_the_rows_that_the_vocabulary_lacks(cli: Cli, tmp_path: Path) -> None:
    folder = write_vocabulary(write_hugging_face(tmp_path / "hf"), VOCABULARY[:-2])
    result = cli("export", f"hf:{folder}", tmp_path / "base", "--pad-vocab")
    assert result.code == 0
    tokens = (tmp_path / "base-vocab.txt").read_text().splitlines()
    count = len(VOCABULARY)
    assert tokens == [*VOCABULARY[:-2], f"[unused row {count - 2}]", f"[unused row {count - 1}]"]


@pytest.mark.parametrize("options", [(), ("--pad-vocab",)])
def test_a_vocabulary_longer_than_the_embedding_is_refused(cli: Cli, tmp_path: Path, options: tuple[str, ...]) -> None:
    folder = write_vocabulary(write_hugging_face(tmp_path / "hf"), [*VOCABULARY, "more"])
    assert_refused(cli, folder, "vocab.txt", f"{len(VOCABULARY) + 1} tokens", options=options)


def test_the_last_line_of_a_repeated_token_counts(cli: Cli, tmp_path: Path) -> None:
    folder = write_vocabulary(write_hugging_face(tmp_path / "hf"), [*VOCABULARY[:-1], "cat"])
    first, last = VOCABULARY.index("cat"), len(VOCABULARY) - 1
    result = cli("export", f"hf:{folder}", tmp_path / "base")
    assert result.code == 0
    assert f"vocab.txt: token 'cat' of line {first + 1} is repeated; the last line counts" in result.out
    assert (tmp_path / "base-vocab.txt").read_text().split("\n")[first] == f"[unused row {first}]"
    encoded = cli("tokenize", tmp_path / "base", "--text", "cat")
    assert json.loads(encoded.out)["data0"][1:-1] == [last]


@pytest.mark.parametrize("token", ["[PAD]", "[UNK]", "[CLS]", "[SEP]"])
def test_a_vocabulary_without_a_special_token_is_refused(cli: Cli, tmp_path: Path, token: str) -> None:
    tokens = ["other" if old == token else old for old in VOCABULARY]
    assert_refused(cli, write_vocabulary(write_hugging_face(tmp_path / "hf"), tokens), "vocab.txt", token)


def test_a_folder_without_a_vocabulary_is_refused(cli: Cli, tmp_path: Path) -> None:
    folder = write_hugging_face(tmp_path / "hf")
    (folder / "vocab.txt").unlink()
    assert_refused(cli, folder, "", "no tokenizer: no tokenizer.json, vocab.txt")


@pytest.mark.parametrize("token", ["unk_token", "sep_token", "pad_token", "cls_token"])
def test_special_tokens_without_a_row_are_refused(cli: Cli, tmp_path: Path, token: str) -> None:
    folder = write_hugging_face(tmp_path / "hf")
    write_json(folder / "tokenizer_config.json", {token: {"content": "<x>"}})
    assert_refused(cli, folder, "tokenizer_config.json", f"{token} is '<x>'")


@pytest.mark.parametrize(
    ("model", "words"),
    [
        ({"type": "Unigram", "vocab": [["a", 0.0]]}, "Unigram"),
        ({"type": "WordPiece", "vocab": {"[PAD]": 0, "far": 7777}}, "'far' has the id 7777"),
        ({"type": "WordPiece", "vocab": {"[PAD]": 0, "same": 0}}, "'[PAD]' and 'same' have one id, 0"),
        ({"type": "WordPiece", "vocab": {"[PAD]": 0, "text": "1"}}, "'1' is not a token id"),
        ({"type": "WordPiece", "vocab": {"[PAD]": 0, "only": 1}}, "[UNK]"),
        ({}, 'the key "vocab" is missing'),
    ],
)
def test_a_tokenizer_json_of_another_model_than_wordpiece_is_refused(
    cli: Cli, tmp_path: Path, model: dict[str, Any], words: str
) -> None:
    folder = write_hugging_face(tmp_path / "hf")
    (folder / "vocab.txt").unlink()
    write_json(folder / "tokenizer.json", {"model": model})
    assert_refused(cli, folder, "tokenizer.json", words)


def test_the_manifest_has_the_digest_of_every_file_that_was_read(cli: Cli, tmp_path: Path) -> None:
    folder = write_hugging_face(tmp_path / "hf")
    assert cli("export", f"hf:{folder}", tmp_path / "base").code == 0
    files = Bundle.open(tmp_path / "base").manifest["source"]["files"]
    assert set(files) == {"config.json", "model.safetensors", "tokenizer_config.json", "vocab.txt"}
    assert all(re.fullmatch(r"[0-9a-f]{64}", digest) for digest in files.values())
