"""Embeddings: one vector for each text, equal to a pooling in numpy of the reference encoder's tokens."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from command_runner import Run
from conftest import CONFIG, Result, Tables, hugging_face_weights, in_turn
from family_folders import write_family
from family_models import CONFIGS, encoder_weights

from bertsym import (
    BundleTokenizer,
    DataError,
    EmbedOptions,
    Encoder,
    FinetuneOptions,
    ModelError,
    QuantizeOptions,
    UsageError,
    embed,
    export,
    finetune,
    quantize,
    using_engine,
)
from bertsym.acceleration.graphs import to_symbol
from bertsym.acceleration.inference_symbols import FastInference
from bertsym.array import Array
from bertsym.bundle import Bundle
from bertsym.inference.embed import _pooled_graph
from bertsym.reference import Checkpoint, Inputs, encoder_outputs

Cli = Callable[..., Result]

TEXTS = [
    "the happy cat sat on the mat",
    "a dog",
    "the old bird flew slowly, very slowly, under the large red house and the small blue tree!",
    "sad",
    "was the story good?",
    "the young cat slept quickly",
    "the film was not bad",
    "never",
    "always in the park",
]
TOLERANCE = 1e-5  # of float32, relative to the largest element


def pooled(tokens: Array, pooling: str) -> Array:
    """The vector of one text without padding, in numpy: (T, U) -> (U,)."""
    vectors: dict[str, Array] = {"cls": tokens[0], "mean": tokens.mean(0), "max": tokens.max(0)}
    return vectors[pooling]


def expected(
    prefix: Path,
    texts: Sequence[str],
    pooling: str,
    family: str = "bert",
    weights: Mapping[str, Array] | None = None,
    config: Mapping[str, Any] = CONFIG,
) -> Array:
    """The vectors by the reference encoder, float64, each text alone."""
    checkpoint = Checkpoint("Hugging Face", weights or hugging_face_weights(), config)
    vectors = []
    for features in BundleTokenizer.open(prefix).encode(texts):
        for example in features.examples:
            ids = np.array([example.token_ids])
            inputs = Inputs(ids, np.array([example.token_types]), np.array([ids.shape[1]]))
            found = encoder_outputs(family, checkpoint, [inputs])[0]
            vectors.append(found["pooled"][0] if pooling == "pooled" else pooled(found["sequence"][0], pooling))
    return np.array(vectors)


def assert_close(vectors: Array, reference: Array) -> None:
    assert vectors.dtype == np.float32
    assert vectors.shape == reference.shape
    assert np.abs(vectors - reference).max() <= TOLERANCE * np.abs(reference).max()


# What is computed


@pytest.mark.parametrize("engine", ["mxnet", "onnxruntime"])
@pytest.mark.parametrize(
    ("output", "pooling"),
    [
        *[(output, None) for output in ("cls", "pooled", "mean")],
        *[("sequence", pooling) for pooling in ("cls", "mean", "max")],
        *[("cls", "mean"), ("mean", "cls"), ("pooled", "max")],
    ],
)
def test_a_vector_is_that_of_the_reference_encoder(
    bundles: dict[str, Path], output: str, pooling: str | None, engine: str
) -> None:
    with using_engine(engine):
        vectors = Encoder(bundles[output], pooling).encode(TEXTS)
    assert_close(vectors, expected(bundles[output], TEXTS, pooling or output))


@pytest.mark.parametrize(("family", "pooling"), in_turn(CONFIGS, ["mean", "max", "cls"]))
def test_a_vector_of_any_family_is_that_of_its_reference(tmp_path: Path, family: str, pooling: str) -> None:
    texts = ["a b c", "abcdef g", "z", "q r s t u v w x y z abc"]
    prefix = export(f"hf:{write_family(tmp_path / 'hf', family)}", tmp_path / "x", verify=False).bundle.prefix
    reference = expected(prefix, texts, pooling, family, encoder_weights(family), CONFIGS[family])
    assert_close(Encoder(prefix, pooling).encode(texts), reference)


@pytest.mark.parametrize(("form", "pooling"), [("gluonnlp", "mean"), ("gluonnlp", "cls"), ("fast", "max")])
def test_a_vector_of_any_form_is_that_of_the_reference(exported: Callable[..., Path], form: str, pooling: str) -> None:
    """Encodings are time-major in the form gluonnlp, and in the form fast the last layer has those of [CLS] only."""
    prefix = exported(form=form)
    assert_close(Encoder(prefix, pooling).encode(TEXTS), expected(prefix, TEXTS, pooling))


@pytest.mark.parametrize("output", ["cls", "pooled", "mean"])
def test_a_head_is_left_out_and_its_input_is_the_vector(bundles: dict[str, Path], tmp_path: Path, output: str) -> None:
    """With a learning rate of almost zero, the encoder stays what it was."""
    table = tmp_path / "t.tsv"
    table.write_text("text\tlabel\nthe happy cat\ta\nthe sad dog\tb\n")
    options = FinetuneOptions(epochs=1, learning_rate=1e-30)
    prefix = finetune(bundles[output], table, table, tmp_path / "x", options=options).bundle.prefix
    assert_close(Encoder(prefix).encode(TEXTS), expected(prefix, TEXTS, output))
    assert_close(Encoder(prefix, "max").encode(TEXTS), expected(prefix, TEXTS, "max"))


def test_a_head_on_the_whole_sequence_needs_a_pooling(exported: Callable[..., Path]) -> None:
    prefix = exported(task="qa")
    with pytest.raises(UsageError, match="its head reads the encodings of all tokens, not one vector"):
        Encoder(prefix)
    assert_close(Encoder(prefix, "mean").encode(TEXTS), expected(prefix, TEXTS, "mean"))


def test_an_int8_encoder_gives_nearly_the_same_vectors(classifier: Path, tables: Tables, tmp_path: Path) -> None:
    int8 = quantize(classifier, tmp_path / "q", tables.dev, QuantizeOptions(max_drop=1), dev=tables.dev).bundle.prefix
    one, other = (Encoder(prefix).encode(TEXTS, normalize=True) for prefix in (classifier, int8))
    assert 0.9 < (one * other).sum(1).min() < 1 - 1e-6
    with pytest.raises(
        ModelError, match=r"pooling mean: the last layer computes only the \[CLS\] token: use the pooling cls"
    ):
        Encoder(int8, "mean")


def test_only_the_token_that_is_read_is_computed_in_the_last_layer(bundles: dict[str, Path]) -> None:
    bundle = Bundle.open(bundles["mean"])
    sizes = {}
    for pooling in ("cls", "mean"):
        graph = _pooled_graph(bundle, pooling) or bundle.graph()
        symbol = FastInference(to_symbol(graph), bundle.params().shapes).symbols.padded
        inferred = symbol.get_internals().infer_shape_partial(data0=(3, 20), data1=(3, 20), data2=(3,))[1]
        norms = [name for name in symbol.get_internals().list_outputs() if name.endswith("layernorm0_fwd_output")]
        sizes[pooling] = dict(zip(symbol.get_internals().list_outputs(), inferred))[norms[-1]]
    assert sizes["cls"][:2] == (3, 1)
    assert 20 in sizes["mean"][:2]


def test_normalized_vectors_have_the_length_1(bundles: dict[str, Path]) -> None:
    encoder = Encoder(bundles["mean"])
    vectors = encoder.encode(TEXTS)
    scaled = encoder.encode(TEXTS, normalize=True)
    np.testing.assert_allclose(np.linalg.norm(scaled, axis=1), 1, rtol=1e-6)
    np.testing.assert_allclose(scaled, vectors / np.linalg.norm(vectors, axis=1)[:, None], rtol=1e-5, atol=1e-7)


def test_a_prompt_is_put_before_each_text(bundles: dict[str, Path]) -> None:
    encoder = Encoder(bundles["mean"])
    prompted = encoder.encode(["cat", "dog"], prompt="the old ")
    np.testing.assert_array_equal(prompted, encoder.encode(["the old cat", "the old dog"]))
    with pytest.raises(DataError, match="text 2 of 2 is empty"):
        encoder.encode(["cat", " "], prompt="the old ")


def test_a_shorter_maximum_length_truncates(bundles: dict[str, Path]) -> None:
    short = Encoder(bundles["mean"], max_length=5).encode(["the happy cat sat on the mat"])
    np.testing.assert_allclose(short, Encoder(bundles["mean"]).encode(["the happy cat"]), atol=1e-6)
    with pytest.raises(UsageError, match="max length 41 is not in 1 to 40"):
        Encoder(bundles["mean"], max_length=41)


def test_pairs_and_no_texts(bundles: dict[str, Path]) -> None:
    encoder = Encoder(bundles["cls"])
    assert encoder.encode([]).shape == (0, CONFIG["hidden_size"])
    assert np.abs(encoder.encode(["the cat"], ["the dog"]) - encoder.encode(["the cat the dog"])).max() > 0.01


# Files


def write_texts(folder: Path, texts: Sequence[str]) -> Path:
    path = folder / "texts.jsonl"
    path.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    return path


@pytest.mark.parametrize("suffix", ["npy", "jsonl"])
def test_a_file_has_a_row_for_each_text_in_their_order(
    cli: Cli, bundles: dict[str, Path], tmp_path: Path, suffix: str
) -> None:
    """More texts than are held at a time."""
    texts = [*TEXTS, *(f"the {word} cat" for word in ("old", "red", "sad"))] * 90
    out = tmp_path / f"x.{suffix}"
    result = cli("embed", bundles["mean"], write_texts(tmp_path, texts), out, "--normalize")
    assert result.out == f"wrote {out}: {len(texts)} x 32 float32\n"
    if suffix == "npy":
        vectors = np.load(out)
        np.save(tmp_path / "again.npy", vectors)
        assert (tmp_path / "again.npy").read_bytes() == out.read_bytes()
    else:
        rows = [json.loads(line)["embedding"] for line in out.read_text().splitlines()]
        vectors = np.array(rows, np.float32)
    alone = Encoder(bundles["mean"]).encode(texts[:12], normalize=True)
    np.testing.assert_allclose(vectors, np.tile(alone, (90, 1)), atol=2e-6)


def test_standard_input_has_a_text_on_each_line(
    forked: Callable[..., Run], bundles: dict[str, Path], tmp_path: Path
) -> None:
    out = tmp_path / "x.npy"
    result = forked("embed", bundles["cls"], "-", out, "--prompt", "the ", "--max-length", "4", stdin=b"cat\nold dog\n")
    assert result.code == 0, result.error
    assert "1 of 2 texts truncated to 4 tokens" in result.error
    np.testing.assert_allclose(np.load(out), Encoder(bundles["cls"]).encode(["the cat", "the old"]), atol=2e-6)


@pytest.mark.parametrize(("choice", "rows"), [("skip", [0, 2]), ("blank", [0, None, 2])])
def test_a_row_that_cannot_be_read_is_left_out_or_blank(
    cli: Cli, bundles: dict[str, Path], tmp_path: Path, choice: str, rows: list[int | None]
) -> None:
    table, npy, lines = tmp_path / "t.tsv", tmp_path / "x.npy", tmp_path / "x.jsonl"
    table.write_text("text\nthe cat\n \nthe dog\n")
    vectors = Encoder(bundles["mean"]).encode(["the cat", "unused", "the dog"])
    vectors[1] = np.nan
    for out in (npy, lines):
        result = cli("embed", bundles["mean"], table, out, "--on-error", choice)
        assert result.code == 0
        assert f"{table}, line 3: the text is empty: left {'blank' if choice == 'blank' else 'out'}" in result.err
    np.testing.assert_allclose(np.load(npy), [vectors[1 if row is None else row] for row in rows], atol=2e-6)
    found = [json.loads(line)["embedding"] for line in lines.read_text().splitlines()]
    assert [embedding is None for embedding in found] == [row is None for row in rows]


def test_a_failure_leaves_the_old_file_and_no_other(bundles: dict[str, Path], tmp_path: Path) -> None:
    out, table = tmp_path / "x.npy", tmp_path / "t.tsv"
    out.write_bytes(b"old")
    table.write_text("text\n" + "the cat\n" * 1500 + "\n")
    with pytest.raises(DataError, match="line 1502: an empty line; --on-error skip"):
        embed(bundles["mean"], table, out, force=True)
    assert out.read_bytes() == b"old"
    assert {path.name for path in tmp_path.iterdir()} == {"x.npy", "t.tsv"}


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (
            ["sequence", "x.npy"],
            2,
            "it ends in the encodings of all tokens, not one vector for a text: choose",
        ),
        (
            ["cls", "x.npy", "--pooling", "pooled"],
            1,
            "pooling pooled: does not have a float32 pooler: use the pooling cls",
        ),
        (["cls", "x.npz"], 2, "x.npz: the name of a file of embeddings ends in .npy or .jsonl"),
        (["cls", "old.npy"], 2, "old.npy exists: choose another name, or overwrite with --force"),
        (["cls", "nowhere/x.npy"], 1, "nowhere/x.npy: can't write the file: No such file or directory"),
        (["cls", "x.npy", "--max-length", "99"], 2, "max length 99 is not in 1 to 40"),
    ],
)
def test_invalid_calls_are_refused(
    cli: Cli, bundles: dict[str, Path], tmp_path: Path, arguments: list[str], code: int, message: str
) -> None:
    (tmp_path / "old.npy").write_bytes(b"old")
    output, out, *options = arguments
    result = cli("embed", bundles[output], write_texts(tmp_path, TEXTS), tmp_path / out, *options)
    assert result.code == code
    assert message in result.error_line
    assert {path.name for path in tmp_path.iterdir()} == {"old.npy", "texts.jsonl"}


def test_the_library_counts_what_it_wrote(bundles: dict[str, Path], tmp_path: Path) -> None:
    table = tmp_path / "t.tsv"
    table.write_text("text\nthe cat sat on the mat\n\nthe dog\n")
    done: list[int] = []
    options = EmbedOptions(on_error="skip", max_length=4, pooling="max")
    result = embed(bundles["mean"], table, tmp_path / "x.npy", options, on_rows=done.append)
    assert (result.rows, result.units, result.truncated, result.unreadable, sum(done)) == (2, 32, 1, 1, 3)
