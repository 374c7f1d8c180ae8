"""``params:`` and ``random:`` sources, on files that GluonNLP itself writes and loads."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import CONFIG, VOCABULARY, Result, hugging_face_weights
from gluonnlp_models import bert_model
from hugging_face_files import assert_same_weights
from refusals import refusal

from bertsym import Bundle, Pretrained, SourceOptions, UsageError, load_source
from bertsym.mxnet_runtime import mx, nlp
from bertsym.sources.gluonnlp_params import _ZOO_HEADS

Cli = Callable[..., Result]

TINY: dict[str, Any] = {**CONFIG}
MODELS = ("bert_12_768_12", "bert_24_1024_16")


@pytest.fixture(scope="module")
def expected(tiny_hf: Path) -> Pretrained:
    """The tiny BERT as its Hugging Face folder gives it."""
    return load_source(f"hf:{tiny_hf}")


@pytest.fixture
def vocab(tmp_path: Path) -> Path:
    path = tmp_path / "vocab.txt"
    path.write_text("\n".join(VOCABULARY) + "\n")
    return path


def load(params: Path, vocab: Path, **options: Any) -> Pretrained:
    return load_source(f"params:{params}", SourceOptions(vocab=str(vocab), **{"num_heads": 4, **options}))


def gluonnlp_net(**options: Any) -> Any:
    """GluonNLP's BERTModel with the weights of the tiny BERT."""
    return bert_model(TINY, hugging_face_weights(), **options)


def export_net(net: Any, prefix: Path, *more_inputs: Any) -> Path:
    """HybridBlock.export; the path of its parameters."""
    ones = mx.nd.ones((1, 4))
    net.hybridize()
    net(ones, ones * 0, mx.nd.array([4]), *more_inputs)
    net.export(str(prefix))
    return prefix.with_name(f"{prefix.name}-0000.params")


def classifier_of(net: Any) -> Any:
    """GluonNLP's BERTClassifier on `net`, its head initialised."""
    classifier = nlp.model.BERTClassifier(net, num_classes=3, dropout=0.1)
    classifier.classifier.initialize()
    ones = mx.nd.ones((1, 4))
    classifier(ones, ones * 0, mx.nd.array([4]))
    return classifier


# --- params: forms of the same weights ---


def test_save_parameters_of_a_bert_model_is_read(tmp_path: Path, vocab: Path, expected: Pretrained) -> None:
    gluonnlp_net().save_parameters(str(tmp_path / "net.params"))
    pretrained = load(tmp_path / "net.params", vocab)
    assert_same_weights(pretrained, expected)
    assert pretrained.notes == ()


def test_the_config_comes_from_the_shapes(tmp_path: Path, vocab: Path, expected: Pretrained) -> None:
    gluonnlp_net().save_parameters(str(tmp_path / "net.params"))
    assert load(tmp_path / "net.params", vocab).config == expected.config
    config = load(tmp_path / "net.params", vocab, num_heads=8, layer_norm_eps=1e-5).config
    assert (config.num_heads, config.layer_norm_eps) == (8, 1e-5)


def test_pretraining_heads_in_save_parameters_are_left_out_by_name(
    tmp_path: Path, vocab: Path, expected: Pretrained
) -> None:
    gluonnlp_net(heads=True).save_parameters(str(tmp_path / "net.params"))
    pretrained = load(tmp_path / "net.params", vocab)
    assert_same_weights(pretrained, expected)
    masked, next_sentence = sorted(pretrained.notes)
    assert masked.startswith("not exported: masked language model head decoder.")
    assert next_sentence == "not exported: next sentence head classifier.weight, classifier.bias"


def test_save_parameters_of_a_classifier_is_read_without_its_head(
    cli: Cli, tmp_path: Path, vocab: Path, expected: Pretrained
) -> None:
    path = tmp_path / "classifier.params"
    classifier_of(gluonnlp_net()).save_parameters(str(path))
    assert_same_weights(load(path, vocab), expected)
    arguments = ("export", f"params:{path}", tmp_path / "base", "--vocab", vocab, "--num-heads", 4)
    result = cli(*arguments, "--headless")
    assert result.code == 0
    assert "not exported: task head classifier.1.weight, classifier.1.bias; this bundle" in result.out
    line = refusal(cli(*arguments, "--headless", "--force", "--labels", "a,b,c"), code=2)
    assert "--labels names the classes of the trained head, which is not exported" in line


def test_an_export_of_hybrid_block_is_read(tmp_path: Path, vocab: Path, expected: Pretrained) -> None:
    path = export_net(gluonnlp_net(), tmp_path / "net")
    assert all(name.startswith("arg:") for name in mx.nd.load(str(path)))
    assert_same_weights(load(path, vocab), expected)


def test_names_with_the_counters_of_a_second_model_are_read(tmp_path: Path, vocab: Path, expected: Pretrained) -> None:
    with mx.name.NameManager():
        gluonnlp_net(prefixes=False)
        path = export_net(gluonnlp_net(prefixes=False), tmp_path / "second")
    names = set(mx.nd.load(str(path)))
    assert {"arg:bertencoder1_position_weight", "arg:bertmodel1_pooler_weight"} <= names
    assert_same_weights(load(path, vocab), expected)


def test_an_export_of_a_classifier_is_read_without_its_head(tmp_path: Path, vocab: Path, expected: Pretrained) -> None:
    with mx.name.NameManager():
        classifier_of(gluonnlp_net(prefixes=False))
        path = export_net(classifier_of(gluonnlp_net(prefixes=False)), tmp_path / "second")
    pretrained = load(path, vocab)
    assert_same_weights(pretrained, expected)
    assert pretrained.task_head is not None
    assert pretrained.task_head.weights == ("bertclassifier1_dense0_weight", "bertclassifier1_dense0_bias")
    assert pretrained.notes == ()


def test_an_export_with_pretraining_heads_is_read_without_them(
    tmp_path: Path, vocab: Path, expected: Pretrained
) -> None:
    with mx.name.NameManager():
        net = gluonnlp_net(heads=True, prefixes=False)
        path = export_net(net, tmp_path / "pretraining", mx.nd.array([[1, 2]]))
    pretrained = load(path, vocab)
    assert_same_weights(pretrained, expected)
    assert any("masked language model head" in note for note in pretrained.notes)


def test_nd_save_with_bare_names_is_read(tmp_path: Path, vocab: Path, expected: Pretrained) -> None:
    parameters = gluonnlp_net().collect_params()
    mx.nd.save(str(tmp_path / "bare.params"), {name: array.data() for name, array in parameters.items()})
    assert_same_weights(load(tmp_path / "bare.params", vocab), expected)


def test_class_names_of_older_gluonnlps_are_read(tmp_path: Path, vocab: Path, expected: Pretrained) -> None:
    older = {}
    for name, parameter in gluonnlp_net().collect_params().items():
        for new, old in (
            ("dotproductselfattentioncell0", "multiheadattentioncell0"),
            ("positionwiseffn0", "bertpositionwiseffn0"),
            ("_layernorm0", "_bertlayernorm0"),
        ):
            name = name.replace(new, old)
        older[f"arg:{name}"] = parameter.data()
    assert "arg:bertencoder0_transformer1_bertpositionwiseffn0_bertlayernorm0_beta" in older
    mx.nd.save(str(tmp_path / "older.params"), older)
    assert_same_weights(load(tmp_path / "older.params", vocab), expected)


@pytest.mark.parametrize("dtype", ["float16", "float64"])
def test_other_floats_become_float32(tmp_path: Path, vocab: Path, expected: Pretrained, dtype: str) -> None:
    net = gluonnlp_net()
    net.cast(dtype)
    net.save_parameters(str(tmp_path / "net.params"))
    for name, array in load(tmp_path / "net.params", vocab).arg_params.items():
        assert array.dtype == np.float32
        np.testing.assert_array_equal(array, expected.arg_params[name].astype(dtype).astype(np.float32))


def test_the_parameters_of_a_bundle_are_a_source_that_gives_the_same_bundle(
    cli: Cli, bundles: dict[str, Path], tmp_path: Path
) -> None:
    params, vocab = f"{bundles['pooled']}-0000.params", f"{bundles['pooled']}-vocab.json"
    arguments = ("--vocab", vocab, "--num-heads", 4, "--output", "pooled")
    assert cli("export", f"params:{params}", tmp_path / "again", *arguments).code == 0
    for name in ("0000.params", "symbol.json", "vocab.txt", "signature.json"):
        assert (tmp_path / f"again-{name}").read_bytes() == Path(f"{bundles['pooled']}-{name}").read_bytes()


def test_lower_casing_follows_the_vocabulary_unless_given(tmp_path: Path, vocab: Path) -> None:
    gluonnlp_net().save_parameters(str(tmp_path / "net.params"))
    assert load(tmp_path / "net.params", vocab).tokenizer.lower_case is True
    assert load(tmp_path / "net.params", vocab, lower_case=False).tokenizer.lower_case is False
    vocab.write_text(vocab.read_text().replace("house", "House"))
    assert load(tmp_path / "net.params", vocab).tokenizer.lower_case is False


# --- params: what is refused ---


@dataclass(frozen=True)
class Export:
    """``bertsym export`` of a parameter file, expected to be refused."""

    cli: Cli
    target: Path

    def refused(self, params: Path, *arguments: object, code: int = 1) -> str:
        """The error's line."""
        return refusal(self.cli("export", f"params:{params}", self.target / "base", *arguments), self.target, code)


@pytest.fixture
def export(cli: Cli, tmp_path: Path) -> Export:
    return Export(cli, tmp_path / "out")


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    path = tmp_path / "net.params"
    gluonnlp_net().save_parameters(str(path))
    return path


def test_the_number_of_heads_must_be_given_where_it_is_not_known(export: Export, saved: Path, vocab: Path) -> None:
    line = export.refused(saved, "--vocab", vocab, code=2)
    assert "--num-heads" in line
    assert "2 layers of 32 units" in line


def test_known_numbers_of_heads_are_those_of_gluonnlps_zoo() -> None:
    hparams = [nlp.model.bert.bert_hparams[name] for name in MODELS]
    assert {(entry["num_layers"], entry["units"]): entry["num_heads"] for entry in hparams} == _ZOO_HEADS


def test_a_number_of_heads_that_does_not_fit_is_refused(export: Export, saved: Path, vocab: Path) -> None:
    line = export.refused(saved, "--vocab", vocab, "--num-heads", 5)
    assert "units 32 is not a multiple of num_heads 5" in line


def test_the_vocabulary_must_be_given(export: Export, saved: Path) -> None:
    assert "--vocab" in export.refused(saved, "--num-heads", 4, code=2)


@pytest.mark.parametrize(
    ("tokens", "words"),
    [
        (VOCABULARY[:-1], f"{len(VOCABULARY) - 1} tokens"),
        ([*VOCABULARY, "more"], f"{len(VOCABULARY) + 1} tokens"),
        ([token.strip("[]") for token in VOCABULARY], "[CLS]"),
        (["not", "a", "vocabulary"], "[PAD]"),
    ],
)
def test_a_vocabulary_that_does_not_fit_is_refused(
    export: Export, saved: Path, vocab: Path, tokens: list[str], words: str
) -> None:
    vocab.write_text("\n".join(tokens) + "\n")
    line = export.refused(saved, "--vocab", vocab, "--num-heads", 4)
    assert str(vocab) in line
    assert words in line


def test_the_last_line_of_a_repeated_token_counts(saved: Path, vocab: Path) -> None:
    vocab.write_text("\n".join([*VOCABULARY[:-1], "cat"]) + "\n")
    first = VOCABULARY.index("cat")
    (note,) = load(saved, vocab).notes
    assert f"token 'cat' of line {first + 1} is repeated; the last line counts" in note


@pytest.mark.parametrize("text", ["{", "[]", '{"idx_to_token": "abc"}', '{"token_to_idx": {}}'])
def test_json_without_a_vocabulary_is_refused(export: Export, saved: Path, tmp_path: Path, text: str) -> None:
    path = tmp_path / "vocab.json"
    path.write_text(text)
    assert str(path) in export.refused(saved, "--vocab", path, "--num-heads", 4)


@pytest.mark.parametrize("size", [0, 8, 24, 60, 1000, -1, -200])
def test_a_truncated_file_is_refused(export: Export, saved: Path, vocab: Path, size: int) -> None:
    saved.write_bytes(saved.read_bytes()[:size])
    line = export.refused(saved, "--vocab", vocab, "--num-heads", 4)
    assert str(saved) in line


def test_a_missing_file_is_refused(export: Export, vocab: Path, tmp_path: Path) -> None:
    absent = tmp_path / "absent.params"
    assert str(absent) in export.refused(absent, "--vocab", vocab, "--num-heads", 4)


def test_the_weights_of_something_else_are_refused(export: Export, vocab: Path, tmp_path: Path) -> None:
    path = tmp_path / "other.params"
    for content in ({"arg:fc_weight": mx.nd.ones((2, 2))}, [mx.nd.ones((2, 2))]):
        mx.nd.save(str(path), content)
        assert str(path) in export.refused(path, "--vocab", vocab, "--num-heads", 4)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ("missing", "1 missing (encoder.transformer_cells.1.proj.bias)"),
        ("unknown", "1 unknown (encoder.transformer_cells.1.extra)"),
        ("shape", "encoder.transformer_cells.1.proj.bias has shape (31,)"),
        ("nan", "encoder.transformer_cells.1.proj.bias has elements that are not finite"),
        ("integers", "encoder.transformer_cells.1.proj.bias is int32"),
    ],
)
def test_wrong_weights_are_refused_by_name(export: Export, saved: Path, vocab: Path, change: str, words: str) -> None:
    arrays = mx.nd.load(str(saved))
    name = "encoder.transformer_cells.1.proj.bias"
    if change == "missing":
        del arrays[name]
    elif change == "unknown":
        arrays["encoder.transformer_cells.1.extra"] = mx.nd.ones(3)
    else:
        arrays[name] = {
            "shape": mx.nd.ones(31),
            "nan": mx.nd.array(np.full(32, np.nan)),
            "integers": mx.nd.ones(32, dtype="int32"),
        }[change]
    mx.nd.save(str(saved), arrays)
    line = export.refused(saved, "--vocab", vocab, "--num-heads", 4)
    assert str(saved) in line
    assert words in line


# --- random: ---


def test_random_weights_are_reported_on_the_screen_and_in_the_manifest(cli: Cli, tmp_path: Path) -> None:
    result = cli("export", "random:bert_1_16_2", tmp_path / "base", "--seed", 3)
    assert result.code == 0
    assert "RANDOM WEIGHTS: nothing is pretrained" in result.out
    source = Bundle.open(tmp_path / "base").manifest["source"]
    assert source == {"spec": "random:bert_1_16_2", "kind": "random", "pretrained": False, "seed": 3}


def test_weights_that_are_pretrained_are_marked_so(bundles: dict[str, Path]) -> None:
    assert Bundle.open(bundles["cls"]).manifest["source"]["pretrained"] is True


def test_random_weights_depend_on_the_seed_alone(cli: Cli, tmp_path: Path, vocab: Path) -> None:
    digests = []
    for name, seed in (("one", 1), ("again", 1), ("other", 2)):
        assert cli("export", "random:bert_1_16_2", tmp_path / name, "--seed", seed, "--vocab", vocab).code == 0
        digests.append(Bundle.open(tmp_path / name).manifest["files"]["0000.params"]["sha256"])
    assert digests[0] == digests[1]
    assert digests[1] != digests[2]


def test_random_weights_are_drawn_as_bert_is_initialised() -> None:
    pretrained = load_source("random:bert_2_64_4")
    config = pretrained.config
    assert (config.num_layers, config.units, config.num_heads, config.hidden_size) == (2, 64, 4, 256)
    words = pretrained.arg_params["bertmodel0_word_embed_embedding0_weight"]
    assert words.shape == (len(pretrained.vocabulary), 64)
    assert abs(words.std() - 0.02) < 1e-4
    assert (pretrained.arg_params["bertencoder0_layernorm0_gamma"] == 1).all()
    assert not pretrained.arg_params["bertencoder0_transformer1_proj_bias"].any()


@pytest.mark.parametrize("name", ["bert", "bert_2_64", "roberta_2_64_4", "bert_0_64_4", "bert_2_64_5", "bert_2_64_4 "])
def test_an_unknown_random_model_is_a_one_line_error(cli: Cli, tmp_path: Path, name: str) -> None:
    refusal(cli("export", f"random:{name}", tmp_path / "out" / "base"), tmp_path / "out")


# --- kinds of sources and their options ---


@pytest.mark.parametrize("source", ["", "bert", "hf:", "zoo:bert", ":x"])
def test_an_unknown_kind_of_source_is_an_error_that_lists_the_known_kinds(
    cli: Cli, tmp_path: Path, source: str
) -> None:
    line = refusal(cli("export", source, tmp_path / "out" / "base"), tmp_path / "out", code=2)
    for kind in ("gluonnlp:", "hf:", "params:", "random:"):
        assert kind in line


@pytest.mark.parametrize(
    ("source", "options"),
    [
        ("hf:x", {"vocab": "v"}),
        ("hf:x", {"num_heads": 4}),
        ("gluonnlp:x", {"vocab": "v"}),
        ("gluonnlp:x", {"pad_vocab": True}),
        ("params:x", {"vocab": "v", "seed": 1}),
        ("params:x", {"vocab": "v", "cache": "c"}),
        ("random:x", {"lower_case": True}),
    ],
)
def test_an_option_that_a_source_does_not_take_is_refused(source: str, options: dict[str, Any]) -> None:
    refused = [name for name in options if name != "vocab"] or ["vocab"]
    with pytest.raises(UsageError, match=f"sources take no --{refused[0].replace('_', '-')}"):
        load_source(source, SourceOptions(**options))
