"""Weights as people have them: Git LFS pointers, shards without an index, prefixes, no model_type, other weights."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import CONFIG, Result, hugging_face_weights, write_hugging_face
from numpy.typing import NDArray
from refusals import refusal
from safetensors.numpy import save_file

from bertsym import Bundle, ModelError
from bertsym.sources import hugging_face, load_source

Cli = Callable[..., Result]
Weights = dict[str, NDArray[Any]]

POINTER = "version https://git-lfs.github.com/spec/v1\noid sha256:53aa51172d142c89d9012cce15ae4d6c\nsize 90868376\n"


@pytest.fixture
def export(cli: Cli, tmp_path: Path) -> Callable[..., Result]:
    """Run ``bertsym export hf:FOLDER``, without verification, into a folder of its own."""
    return lambda folder, *options: cli(
        "export", f"hf:{folder}", tmp_path / "out" / "base", "--no-verify", "--force", *options
    )


def with_prefix(prefix: str, weights: Mapping[str, NDArray[Any]]) -> Weights:
    return {prefix + name: array for name, array in weights.items()}


def assert_exported(tmp_path: Path, seed: int = 0) -> dict[str, Any]:
    """The bundle has the weights of `seed`, though not those of the pooler; returns the manifest's facts of them."""
    bundle = Bundle.open(tmp_path / "out" / "base")
    expected = hugging_face_weights(seed)
    for name, theirs in {
        "bertmodel0_word_embed_embedding0_weight": "embeddings.word_embeddings.weight",
        "bertencoder0_transformer1_positionwiseffn0_ffn_2_bias": "encoder.layer.1.output.dense.bias",
    }.items():
        np.testing.assert_array_equal(bundle.params()[name], expected[theirs])
    source: dict[str, Any] = bundle.manifest["source"]
    return source


# Files that were not downloaded


@pytest.mark.parametrize("file", ["config.json", "vocab.txt", "model.safetensors"])
def test_a_git_lfs_pointer_in_place_of_a_file_is_named(
    export: Callable[..., Result], tmp_path: Path, file: str
) -> None:
    folder = write_hugging_face(tmp_path / "hf")
    (folder / file).write_text(POINTER)
    line = refusal(export(folder), tmp_path / "out")
    assert f"{folder / file}: a Git LFS pointer instead of the file; run `git lfs pull`" in line


# Shards without an index


@pytest.mark.parametrize("name", ["config.json", "vocab.txt", "model.safetensors"])
def test_a_file_that_is_replaced_while_it_is_read_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """The manifest would have the digest of a file that was not exported."""
    folder = tmp_path / "hf"
    write_hugging_face(folder, hugging_face_weights(0))

    def replace(*arguments: Any) -> None:
        other = tmp_path / "other"
        other.write_bytes((folder / name).read_bytes())
        other.replace(folder / name)

    # The last step before the digests
    monkeypatch.setattr(hugging_face, "check_vocabulary_size", replace)
    with pytest.raises(ModelError, match=f"{name}: changed while it was read"):
        load_source(f"hf:{folder}")


def write_shards(folder: Path, stem: str = "model", count: int = 3, left_out: int = 0) -> None:
    weights = hugging_face_weights()
    (folder / "model.safetensors").unlink(missing_ok=True)
    for i in range(count):
        if i + 1 != left_out:
            shard = {name: weights[name] for name in list(weights)[i::count]}
            save_file(shard, folder / f"{stem}-{i + 1:05}-of-{count:05}.safetensors")


def test_shards_without_an_index_are_read_together(export: Callable[..., Result], tmp_path: Path) -> None:
    folder = write_hugging_face(tmp_path / "hf")
    write_shards(folder)
    result = export(folder)
    assert result.code == 0, result.err
    shards = "model-00001-of-00003.safetensors to model-00003-of-00003.safetensors"
    assert f"no model.safetensors.index.json: read {shards}\n" in result.out
    assert_exported(tmp_path)


@pytest.mark.parametrize("number", [1, 2, 3])
def test_a_missing_shard_without_an_index_is_named(export: Callable[..., Result], tmp_path: Path, number: int) -> None:
    folder = write_hugging_face(tmp_path / "hf")
    write_shards(folder, left_out=number)
    line = refusal(export(folder), tmp_path / "out")
    assert f"{folder}/model-0000{number}-of-00003.safetensors: no such file" in line


def test_shards_of_two_models_without_an_index_are_refused(export: Callable[..., Result], tmp_path: Path) -> None:
    folder = write_hugging_face(tmp_path / "hf")
    write_shards(folder)
    write_shards(folder, "other", 2)
    line = refusal(export(folder), tmp_path / "out")
    assert "shards of 2 models: model-00001-of-00003.safetensors, other-00001-of-00002.safetensors" in line


# Prefixes of the names of weights


@pytest.mark.parametrize(
    "prefix", ["model.bert.", "module.", "_orig_mod.", "text_model.", "bert_model.", "module.bert.", "0.auto_model."]
)
def test_the_prefix_of_the_encoders_weights_is_found_and_noted(
    export: Callable[..., Result], tmp_path: Path, prefix: str
) -> None:
    weights = {**with_prefix(prefix, hugging_face_weights()), prefix + "embeddings.position_ids": np.arange(40)[None]}
    result = export(write_hugging_face(tmp_path / "hf", weights))
    assert result.code == 0, result.err
    assert f"names of weights: the encoder's begin with {prefix}\n" in result.out
    assert assert_exported(tmp_path)["weight_prefix"] == prefix


def test_a_head_beside_a_prefixed_encoder_is_known(export: Callable[..., Result], tmp_path: Path) -> None:
    head: Weights = {
        "module.classifier.weight": np.ones((2, 32), np.float32),
        "module.cls.predictions.bias": np.ones(8),
    }
    weights = {**with_prefix("module.bert.", hugging_face_weights()), **head}
    result = export(write_hugging_face(tmp_path / "hf", weights), "--headless")
    assert result.code == 0, result.err
    assert "not exported: task head module.classifier.weight; this bundle is the encoder alone" in result.out
    assert "not exported: pretraining heads module.cls.predictions.bias" in result.out
    assert assert_exported(tmp_path)["not_exported"] == {
        "pretraining heads": ["module.cls.predictions.bias"],
        "task head": ["module.classifier.weight"],
    }


def two_encoders() -> Weights:
    return {
        **with_prefix("query.", hugging_face_weights(0)),
        **with_prefix("passage.bert.", hugging_face_weights(1)),
    }


def test_the_weights_of_two_encoders_are_refused_by_name(export: Callable[..., Result], tmp_path: Path) -> None:
    line = refusal(export(write_hugging_face(tmp_path / "hf", two_encoders())), tmp_path / "out")
    assert "weights of 2 encoders, with the prefixes 'passage.bert.', 'query.'" in line
    assert "--ignore-weights 'query.*'" in line


@pytest.mark.parametrize(("ignored", "seed"), [("passage.*", 0), ("query.*", 1)])
def test_one_of_two_encoders_can_be_ignored(
    export: Callable[..., Result], tmp_path: Path, ignored: str, seed: int
) -> None:
    result = export(write_hugging_face(tmp_path / "hf", two_encoders()), "--ignore-weights", ignored)
    assert result.code == 0, result.err
    assert_exported(tmp_path, seed)


def test_a_prefix_of_most_but_not_all_weights_is_an_error_that_names_the_others(
    export: Callable[..., Result], tmp_path: Path
) -> None:
    weights = with_prefix("module.", hugging_face_weights())
    weights["model.pooler.dense.bias"] = weights.pop("module.pooler.dense.bias")
    line = refusal(export(write_hugging_face(tmp_path / "hf", weights)), tmp_path / "out")
    assert "1 missing (module.pooler.dense.bias); 1 unknown (model.pooler.dense.bias)" in line


# Weights that are left out by request


def test_weights_are_ignored_by_pattern_noted_and_in_the_manifest(
    export: Callable[..., Result], tmp_path: Path
) -> None:
    extra: Weights = {
        "crf.transitions": np.ones((9, 9), np.float32),
        "crf.start": np.ones(9),
        "intent.weight": np.ones(4),
    }
    folder = write_hugging_face(tmp_path / "hf", {**hugging_face_weights(), **extra})
    line = refusal(export(folder), tmp_path / "out")
    assert "3 unknown (crf.start, crf.transitions, intent.weight)" in line
    assert line.endswith("leave weights that are not the encoder's out with --ignore-weights PATTERN")
    result = export(folder, "--ignore-weights", "crf.*", "--ignore-weights", "int?nt.weight")
    assert result.code == 0, result.err
    assert "not exported: ignored weights crf.start, crf.transitions, intent.weight\n" in result.out
    assert assert_exported(tmp_path)["not_exported"] == {"ignored weights": sorted(extra)}


def test_an_ignored_pooler_is_left_out(export: Callable[..., Result], tmp_path: Path) -> None:
    folder = write_hugging_face(tmp_path / "hf")
    assert export(folder, "--ignore-weights", "pooler.*").code == 0
    line = refusal(export(folder, "--ignore-weights", "pooler.*", "--output", "pooled"))
    assert "has no pooler" in line


@pytest.mark.parametrize(
    ("pattern", "message"),
    [
        ("crf.*", "'crf.*' matches none of the 39 weights"),
        ("encoder.layer.1.*", "'encoder.layer.1.*' matches encoder.layer.1.attention.output.LayerNorm.bias, which the"),
        ("*.LayerNorm.*", "'*.LayerNorm.*' matches embeddings.LayerNorm.bias, which the encoder needs"),
        ("*", "'*' matches embeddings.LayerNorm.bias, which the encoder needs"),
    ],
)
def test_a_pattern_of_no_weight_or_of_one_that_the_encoder_needs_is_refused(
    export: Callable[..., Result], tmp_path: Path, pattern: str, message: str
) -> None:
    folder = write_hugging_face(tmp_path / "hf")
    line = refusal(export(folder, "--ignore-weights", pattern), tmp_path / "out", code=2)
    assert f"model.safetensors: --ignore-weights {message}" in line


# config.json without model_type


def write_config(folder: Path, **changes: Any) -> None:
    document = {**{key: value for key, value in CONFIG.items() if key != "model_type"}, **changes}
    (folder / "config.json").write_text(json.dumps(document))


@pytest.mark.parametrize(
    ("prefix", "changes", "evidence"),
    [
        ("", {"architectures": ["BertForMaskedLM"]}, "architectures BertForMaskedLM"),
        ("bert.", {"pad_token_id": 3}, "names of weights that begin with bert."),
        ("", {}, "names of weights, two segments and pad_token_id 0"),
    ],
)
def test_a_bert_without_model_type_is_known_by_other_evidence(
    export: Callable[..., Result], tmp_path: Path, prefix: str, changes: dict[str, Any], evidence: str
) -> None:
    folder = write_hugging_face(tmp_path / "hf", with_prefix(prefix, hugging_face_weights()))
    write_config(folder, **changes)
    result = export(folder)
    assert result.code == 0, result.err
    assert f"config.json has no model_type: taken as bert, by {evidence}\n" in result.out
    assert_exported(tmp_path)


@pytest.mark.parametrize(
    ("prefix", "changes"),
    [
        ("", {"architectures": ["GPT2Model"]}),
        ("roberta.", {}),
        ("", {"type_vocab_size": 1}),
        ("", {"pad_token_id": 1}),
    ],
)
def test_a_config_without_model_type_is_refused_if_ambiguous(
    export: Callable[..., Result], tmp_path: Path, prefix: str, changes: dict[str, Any]
) -> None:
    sizes = {key: value for key, value in changes.items() if key == "type_vocab_size"}
    folder = write_hugging_face(tmp_path / "hf", with_prefix(prefix, hugging_face_weights(**sizes)))
    write_config(folder, **changes)
    line = refusal(export(folder), tmp_path / "out")
    assert f'{folder / "config.json"}: the key "model_type" is missing, and nothing else proves a BERT' in line
