"""Masked words: the best words for each mask, and texts whose masks the model can't read."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from conftest import Result
from family_folders import write_family
from family_models import CLASSES, CONFIGS, ENDINGS, encoder_weights, head_weights
from refusals import refusal
from tokenizer_training import trained

from bertsym import BundleTokenizer, DataError, ExportOptions, MaskFiller, ModelError, UsageError, export, load
from bertsym.array import Array
from bertsym.reference import HUGGING_FACE_HEADS, Checkpoint, Inputs, encoder_outputs
from bertsym.reference.functions import softmax
from bertsym.text.tokenizer import Tokenizer, TokenizerOptions

Cli = Callable[..., Result]
TEXTS = ["ab [MASK] c", "[MASK] de [MASK] [MASK]", "a b c d e f g h i j k l m n [MASK]"]


@pytest.fixture(scope="session")
def filler(once: Callable[..., Path]) -> Callable[[str], Path]:
    """Prefix of the bundle of a family's masked language model; no test may change its files."""

    def make(model_type: str) -> Callable[[Path], object]:
        return lambda folder: export(f"hf:{write_family(folder / 'hf', model_type, 'masked_lm')}", folder / "model")

    return lambda model_type: once(f"{model_type}-masked_lm", make(model_type)) / "model"


def reference_probabilities(model_type: str, token_ids: list[int]) -> Array:
    """The probabilities (T, V) that the reference head gives for each token of a text."""
    weights = {**encoder_weights(model_type), **head_weights(model_type, "masked_lm")}
    ids = np.array([token_ids])
    inputs = Inputs(ids, np.zeros_like(ids), np.array([len(token_ids)]))
    checkpoint = Checkpoint("Hugging Face", weights, CONFIGS[model_type])
    (encodings,) = encoder_outputs(model_type, checkpoint, [inputs])
    head = HUGGING_FACE_HEADS[CLASSES[model_type] + ENDINGS["masked_lm"]]
    logits = head.values(encodings, weights, CONFIGS[model_type])
    return np.asarray(softmax(logits)[0])


@pytest.mark.parametrize("model_type", ["bert", "roberta"])
def test_the_words_for_each_mask_are_those_of_the_reference_head(
    filler: Callable[[str], Path], model_type: str
) -> None:
    model = load(filler(model_type))
    assert isinstance(model, MaskFiller)
    tokenizer = BundleTokenizer.open(filler(model_type))
    mask = tokenizer.signature.special_ids["mask"]
    for prediction, text in zip(model.predict(TEXTS), TEXTS):
        ((window,),) = tokenizer.encode_windows([text])
        places = [i for i, number in enumerate(window.token_ids) if number == mask]
        assert len(prediction.masks) == len(places) == text.count("[MASK]")
        expected = reference_probabilities(model_type, window.token_ids)[places]
        for words, row in zip(prediction.masks, expected):
            assert [word.id for word in words] == np.argsort(-row)[:5].tolist()
            np.testing.assert_allclose([word.probability for word in words], np.sort(row)[:-6:-1], atol=1e-5)


def test_each_word_has_its_token_id_and_probability(filler: Callable[[str], Path], cli: Cli, tmp_path: Path) -> None:
    table = tmp_path / "texts.tsv"
    table.write_text("id\ttext\n" + "".join(f"{i}\t{text}\n" for i, text in enumerate(TEXTS)))
    vocabulary = Path(f"{filler('bert')}-vocab.txt").read_text().splitlines()
    printed = cli("predict", filler("bert"), table, "--output-format", "jsonl", "--top-k", 3).out.splitlines()
    found = [json.loads(line)["masks"] for line in printed]
    assert [[len(words) for words in masks] for masks in found] == [[3], [3, 3, 3], [3]]
    for word in (word for masks in found for words in masks for word in words):
        assert word["token"] == vocabulary[word["id"]]
    header, *lines = cli("predict", filler("bert"), table, "--keep-column", "id", "--top-k", 2).out.splitlines()
    assert header == "id\twords\tmasks"
    for number, (line, masks) in enumerate(zip(lines, found)):
        ranked = [
            [[word["token"], pytest.approx(word["probability"], abs=1e-5)] for word in words[:2]] for words in masks
        ]
        row_id, best, shown = line.split("\t")
        assert (row_id, best) == (str(number), " ".join(words[0]["token"] for words in masks))
        assert json.loads(shown) == ranked


def test_all_words_add_up_to_one_and_masks_may_be_in_both_texts(filler: Callable[[str], Path]) -> None:
    (prediction,) = MaskFiller(filler("bert"), top_k=1000).predict(["a [MASK]"], ["[MASK] b"])
    assert [len(words) for words in prediction.masks] == [53, 53]
    for words in prediction.masks:
        assert sum(word.probability for word in words) == pytest.approx(1, abs=1e-9)
    with pytest.raises(UsageError, match="top_k must be at least 1, not 0"):
        MaskFiller(filler("bert"), top_k=0)


def test_a_text_without_a_mask_or_with_a_truncated_one_is_an_error(
    filler: Callable[[str], Path], cli: Cli, tmp_path: Path
) -> None:
    long = "a " * 60
    table = tmp_path / "texts.tsv"
    table.write_text(f"text\na [MASK]\nb\n[MASK] {long}\n[MASK] {long} [MASK]\n")
    length = BundleTokenizer.open(filler("bert")).signature.max_length
    line = refusal(cli("predict", filler("bert"), tmp_path / "texts.tsv", "--out", tmp_path / "x"), tmp_path / "x")
    assert line.startswith(f"Error: {table}, line 3: no mask token: write [MASK] in place of a word")
    blank = cli("predict", filler("bert"), table, "--on-error", "blank")
    assert [bool(row.strip()) for row in blank.out.splitlines()] == [True, True, False, True, False]
    lost = f"line 5: truncation to {length} tokens removes 1 of 2 [MASK] tokens: shorten the text"
    assert lost in blank.err
    with pytest.raises(DataError, match=r"line 1: truncation .* removes 1 of 1"):
        MaskFiller(filler("bert")).predict([f"{long} [MASK]"])


def test_a_mask_that_the_tokenizer_does_not_read_is_an_error(cli: Cli, tmp_path: Path) -> None:
    folder = write_family(tmp_path / "hf", "bert", "masked_lm")
    export(f"hf:{folder}", tmp_path / "literal", ExportOptions(literal_special_tokens=True))
    line = refusal(cli("predict", tmp_path / "literal", "--text", "a [MASK]"))
    assert line.endswith("line 1: the tokenizer of the model reads [MASK] in a text as plain text")
    vocabulary = folder / "vocab.txt"
    vocabulary.write_text(vocabulary.read_text().replace("[MASK]", "[unused]"))
    export(f"hf:{folder}", tmp_path / "without")
    line = refusal(cli("predict", tmp_path / "without", "--text", "a [MASK]"))
    assert line.endswith("the model has no mask token: the special_tokens of its signature have no mask")


def test_tokens_are_decoded_as_by_transformers() -> None:
    document = trained("BPE")
    options = TokenizerOptions(lower_case=False, kind="tokenizer.json", model="BPE")
    tokenizer = Tokenizer(json.dumps(document), "tokenizer.json", options, 64)
    assert tokenizer.decode(document["model"]["vocab"]["\u0120a"]) == " a"
    assert tokenizer.decode(400) == "[unused row 400]"
    assert tokenizer.count("a <mask> b<mask>" + " c" * 100, 4) == 2


def test_another_task_s_model_is_refused(classifier: Path, filler: Callable[[str], Path], cli: Cli) -> None:
    with pytest.raises(ModelError, match="is not a masked language model, its task is classification"):
        MaskFiller(classifier)
    line = refusal(cli("predict", filler("bert"), "--text", "a [MASK]", "--threshold", "0.5"), code=2)
    assert line == "Error: --threshold 0.5 has no effect for the task masked_lm: omit it"
