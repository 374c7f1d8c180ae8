"""``hf:`` sources: what Hugging Face folders may look like."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import VOCABULARY, Result, hugging_face_weights, write_hugging_face
from hugging_face_files import (
    INDEX,
    Weights,
    assert_same_weights,
    load,
    without,
    write_json,
    write_safetensors,
    write_shards,
)
from refusals import refusal
from safetensors.numpy import save_file

from bertsym import Bundle

Cli = Callable[..., Result]


# --- forms of the same weights ---


def test_shards_are_read_as_one_file(tiny_hf: Path, tmp_path: Path) -> None:
    folder = write_hugging_face(tmp_path / "sharded")
    write_shards(folder, hugging_face_weights())
    sharded = load(folder)
    assert_same_weights(sharded, load(tiny_hf))
    shards = {f"model-0000{i}-of-00003.safetensors" for i in (1, 2, 3)}
    assert {name for name in sharded.origin["files"] if name.endswith(".safetensors")} == shards


def test_a_single_file_is_preferred_to_an_index(tiny_hf: Path, tmp_path: Path) -> None:
    folder = write_hugging_face(tmp_path / "both")
    write_json(folder / INDEX, {"weight_map": {"x": "absent.safetensors"}})
    assert_same_weights(load(folder), load(tiny_hf))


def test_bfloat16_is_the_upper_half_of_float32(tmp_path: Path) -> None:
    weights = hugging_face_weights()
    rounded = {name: (array.view(np.uint32) & 0xFFFF0000).view(np.float32) for name, array in weights.items()}
    assert not np.array_equal(rounded["pooler.dense.weight"], weights["pooler.dense.weight"])
    folder, expected = write_hugging_face(tmp_path / "bf16"), write_hugging_face(tmp_path / "expected", rounded)
    upper_halves = {
        name: ("BF16", array.shape, array.astype("<f4").view("<u2").reshape(-1)[1::2].tobytes())
        for name, array in weights.items()
    }
    write_safetensors(folder / "model.safetensors", upper_halves)
    assert_same_weights(load(folder), load(expected))


def test_bfloat16_and_float32_in_one_file(tmp_path: Path) -> None:
    weights = hugging_face_weights()
    folder, expected = write_hugging_face(tmp_path / "mixed"), write_hugging_face(tmp_path / "expected")
    ones = np.ones(32, np.float32)
    save_file({**weights, "pooler.dense.bias": ones}, expected / "model.safetensors")
    tensors = {name: ("F32", array.shape, array.tobytes()) for name, array in weights.items()}
    tensors["pooler.dense.bias"] = ("BF16", (32,), b"\x80\x3f" * 32)
    write_safetensors(folder / "model.safetensors", tensors)
    assert_same_weights(load(folder), load(expected))


@pytest.mark.parametrize("dtype", [np.float16, np.float64])
def test_float16_and_float64_become_float32(tmp_path: Path, dtype: Any) -> None:
    weights = {name: array.astype(dtype) for name, array in hugging_face_weights().items()}
    folder = write_hugging_face(tmp_path / "other", weights)
    expected = write_hugging_face(tmp_path / "f32", {name: a.astype(np.float32) for name, a in weights.items()})
    assert_same_weights(load(folder), load(expected))


def test_names_may_begin_with_bert(tiny_hf: Path, tmp_path: Path) -> None:
    weights = {f"bert.{name}": array for name, array in hugging_face_weights().items()}
    assert_same_weights(load(write_hugging_face(tmp_path / "prefixed", weights)), load(tiny_hf))


def test_gamma_and_beta_are_read_as_weight_and_bias(tiny_hf: Path, tmp_path: Path) -> None:
    spelt = {
        name.replace("LayerNorm.weight", "LayerNorm.gamma").replace("LayerNorm.bias", "LayerNorm.beta"): array
        for name, array in hugging_face_weights().items()
    }
    assert "embeddings.LayerNorm.gamma" in spelt
    assert_same_weights(load(write_hugging_face(tmp_path / "spelt", spelt)), load(tiny_hf))


# --- weights beyond the encoder, and without the pooler ---


def test_heads_that_are_left_out_are_named_on_the_screen(cli: Cli, tmp_path: Path) -> None:
    weights: Weights = {f"bert.{name}": array for name, array in hugging_face_weights().items()}
    heads = ["cls.predictions.bias", "cls.seq_relationship.weight", "classifier.weight", "qa_outputs.bias"]
    weights.update({name: np.ones(2, np.float32) for name in heads})
    weights["bert.embeddings.position_ids"] = np.arange(40)[None]
    result = cli("export", f"hf:{write_hugging_face(tmp_path / 'heads', weights)}", tmp_path / "base", "--headless")
    assert result.code == 0
    assert "not exported: pretraining heads cls.predictions.bias, cls.seq_relationship.weight\n" in result.out
    head = "classifier.weight, qa_outputs.bias"
    assert f"not exported: task head {head}; this bundle is the encoder alone\n" in result.out
    assert "position_ids" not in result.out


def test_no_note_is_printed_for_a_plain_encoder(tiny_hf: Path) -> None:
    assert load(tiny_hf).notes == ()


def test_without_a_pooler_cls_is_exported_and_pooled_refused(cli: Cli, tmp_path: Path) -> None:
    folder = write_hugging_face(tmp_path / "headless", without(hugging_face_weights(), "pooler"))
    assert not load(folder).has_pooler
    assert cli("export", f"hf:{folder}", tmp_path / "cls" / "base").code == 0
    refused = cli("export", f"hf:{folder}", tmp_path / "out" / "base", "--output", "pooled")
    assert "no pooler" in refusal(refused, tmp_path / "out")


# --- tokenizers ---


def write_fast_tokenizer(folder: Path, normalizer: dict[str, Any] | None = None, added: tuple[str, ...] = ()) -> None:
    """tokenizer.json as the tokenizers library writes it, `added` being tokens outside of the model's table."""
    from tokenizers import Tokenizer, models, normalizers

    table = {token: i for i, token in enumerate(VOCABULARY) if token not in added}
    tokenizer: Any = Tokenizer(models.WordPiece(table, unk_token="[UNK]"))
    if normalizer is not None:
        tokenizer.normalizer = normalizers.BertNormalizer(**normalizer)
    tokenizer.add_special_tokens([token for token in VOCABULARY if token in added])
    tokenizer.save(str(folder / "tokenizer.json"))


def test_the_vocabulary_can_come_from_tokenizer_json_alone(tmp_path: Path) -> None:
    folder = write_hugging_face(tmp_path / "fast")
    (folder / "vocab.txt").unlink()
    write_fast_tokenizer(folder)
    assert load(folder).vocabulary.tokens == tuple(VOCABULARY)


def test_added_tokens_of_tokenizer_json_belong_to_the_vocabulary(tmp_path: Path) -> None:
    folder = write_hugging_face(tmp_path / "fast", None, vocab_size=len(VOCABULARY))
    (folder / "vocab.txt").unlink()
    write_fast_tokenizer(folder, added=(VOCABULARY[-1],))
    document = json.loads((folder / "tokenizer.json").read_text())
    assert VOCABULARY[-1] not in document["model"]["vocab"]
    assert load(folder).vocabulary.tokens == tuple(VOCABULARY)


@pytest.mark.parametrize("lower_case", [True, False])
def test_lower_casing_is_taken_from_tokenizer_config_first(tmp_path: Path, lower_case: bool) -> None:
    folder = write_hugging_face(tmp_path / "hf")
    write_json(folder / "tokenizer_config.json", {"do_lower_case": lower_case})
    write_fast_tokenizer(folder, {"lowercase": not lower_case})
    assert load(folder).tokenizer.lower_case is lower_case


@pytest.mark.parametrize("lower_case", [True, False])
def test_lower_casing_is_read_from_tokenizer_json_if_the_class_is_unknown(tmp_path: Path, lower_case: bool) -> None:
    folder = write_hugging_face(tmp_path / "hf")
    write_json(folder / "tokenizer_config.json", {"tokenizer_class": "PreTrainedTokenizerFast"})
    write_fast_tokenizer(folder, {"lowercase": lower_case, "strip_accents": False, "handle_chinese_chars": False})
    options = load(folder).tokenizer
    assert (options.lower_case, options.strip_accents, options.split_chinese) == (lower_case, False, False)


def test_lower_casing_is_found_where_the_normalizer_is_part_of_a_sequence(tmp_path: Path) -> None:
    folder = write_hugging_face(tmp_path / "hf")
    (folder / "tokenizer_config.json").unlink()
    write_fast_tokenizer(folder, {"lowercase": False})
    document = json.loads((folder / "tokenizer.json").read_text())
    document["normalizer"] = {"type": "Sequence", "normalizers": [document["normalizer"]]}
    write_json(folder / "tokenizer.json", document)
    assert load(folder).tokenizer.lower_case is False


def test_lower_casing_reaches_the_signature(cli: Cli, tmp_path: Path) -> None:
    folder = write_hugging_face(tmp_path / "hf")
    write_json(folder / "tokenizer_config.json", {"do_lower_case": False})
    assert cli("export", f"hf:{folder}", tmp_path / "base").code == 0
    assert Bundle.open(tmp_path / "base").signature.tokenizer.lower_case is False
