"""Slow tokenizers become documents with the ids of SentencePiece, of transformers and of GluonNLP."""

from __future__ import annotations

import contextlib
import hashlib
import json
import random
import shutil
import unicodedata
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import sentencepiece
from conftest import CONFIG, Once, Result, hugging_face_weights
from gluonnlp_models import bert_model
from refusals import refusal
from sentencepiece import sentencepiece_model_pb2
from tokenizer_training import CORPUS, trained
from tools import require_transformers_5

from bertsym import Bundle, ModelError
from bertsym.mxnet_runtime import nlp
from bertsym.sources.hugging_face_tokenizer import FoundTokenizer, read_tokenizer
from bertsym.sources.slow_tokenizers.bertsp_tokenizer import convert_gluonnlp
from bertsym.sources.slow_tokenizers.sentencepiece_model import read_sentencepiece
from bertsym.text.tokenizer import Tokenizer
from bertsym.text.vocabulary import Vocabulary

Cli = Callable[..., Result]

KOREAN = "나는 학교에 갑니다 오늘 날씨가 정말 좋네요 대한민국의 수도는 서울이다 영화가 재미있었어요 ㈜삼성 …"
MIXED = "The cat, naïve café 9,5 1,000 (a-b). ÉCOLE it's \"x\" 日本語の ガラス 你好 don't £5 e-mail über <b> </i>"
CONTROLS = ["[CLS]", "[SEP]", "[MASK]"]
ALBERT = {"pad_id": 0, "unk_id": 1, "eos_id": -1, "bos_id": -1, "control_symbols": CONTROLS}
KOBERT = {"unk_piece": "[UNK]", "pad_id": 1, "pad_piece": "[PAD]", "bos_id": -1, "eos_id": -1}
#: model -> settings of SentencePiece's trainer
MODELS: dict[str, dict[str, Any]] = {
    "unigram": {},
    "bpe": {"model_type": "bpe", "vocab_size": 400},
    "nfkc": {"normalization_rule_name": "nfkc"},
    "identity": {"normalization_rule_name": "identity"},
    "folded": {"normalization_rule_name": "nmt_nfkc_cf"},
    "albert": {**ALBERT, "user_defined_symbols": ["(", ")", '"', "-", ".", "£"]},
    "plain albert": ALBERT,
    "kobert": {**KOBERT, "control_symbols": CONTROLS},
}


def sentences() -> list[str]:
    rng = random.Random(0)
    made = ["".join(rng.choices("ainoestmk한국어사랑", k=rng.randint(2, 6))) for _ in range(300)]
    words = [*KOREAN.split(), *MIXED.split(), *made]
    return [" ".join(rng.choices(words, k=rng.randint(3, 12))) + rng.choice(".!? ") for _ in range(2000)]


@pytest.fixture(scope="session")
def models(once: Once) -> Path:
    """A folder with a trained model for each name in MODELS."""

    def make(folder: Path) -> None:
        (folder / "corpus.txt").write_text("\n".join(sentences()))
        for name, settings in MODELS.items():
            train(folder / "corpus.txt", folder / name, **settings)

    return once("sentencepiece", make)


def train(corpus: Path, out: Path, **settings: Any) -> Path:
    """A model of SentencePiece, OUT.model, trained on a file."""
    settings = {"vocab_size": 300, "hard_vocab_limit": False, "minloglevel": 2, **settings}
    sentencepiece.SentencePieceTrainer.train(input=str(corpus), model_prefix=str(out), **settings)
    return Path(f"{out}.model")


@cache
def texts() -> list[str]:
    """Words of all kinds, and random strings of characters that tokenizers treat differently."""
    rng = random.Random(1)
    # Not a mark or a joiner after a character that the table replaces, such as ﬁ: tokenizers drops it there.
    characters = [*'ab É가나다국、!?.…\t\n  🙂字学\uff0c\u3000\xa0\u200b1,9½ﬁ(-)"', "e\u0301", "👩\u200d👩\u200d👧"]
    made = ["".join(rng.choices(characters, k=rng.randint(1, 40))) for _ in range(400)]
    words = sentences()[:100]
    code = "def main(argv):\n    for x in range(10):\n\t\treturn x  # ok\n"
    return [*words, *made, code, "long " * 500, *(unicodedata.normalize("NFD", text) for text in words), "  ", ""]


def folder_of(tmp_path: Path, name: str, file: str, model: Path, **config: Any) -> Path:
    tmp_path.mkdir(exist_ok=True)
    kind = {"XLMRoberta": "xlm-roberta"}.get(name, name.lower())
    (tmp_path / "config.json").write_text(json.dumps({"model_type": kind}))
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": f"{name}Tokenizer", **config}))
    shutil.copy(model, tmp_path / file)
    return tmp_path


def ids_of(found: FoundTokenizer, texts: list[str]) -> list[list[int]]:
    """The ids of texts without the first and the last, which are special."""
    tokenizer = Tokenizer(json.dumps(found.document), "tokenizer.json", found.options, 1 << 20)
    return [encoded.token_ids[1:-1] for encoded in tokenizer.encode(texts)]


def xlm_roberta_id(piece: int, unknown: int = 3) -> int:
    """The id that fairseq gives to a piece of SentencePiece."""
    return piece + 1 if piece > 0 else unknown


def camembert_id(piece: int) -> int:
    return piece + 4 if piece > 0 else 3


# --- SentencePiece models ---


@pytest.mark.parametrize("name", MODELS)
def test_a_model_is_read_as_sentencepiece_reads_it(models: Path, name: str) -> None:
    path = models / f"{name}.model"
    found, expected = read_sentencepiece(path), sentencepiece_model_pb2.ModelProto()
    expected.ParseFromString(path.read_bytes())
    pieces = [(piece.text, piece.score, piece.kind.value) for piece in found.pieces]
    assert pieces == [(piece.piece, piece.score, piece.type) for piece in expected.pieces]
    trainer, normalizer = expected.trainer_spec, expected.normalizer_spec
    assert (found.model_type, found.byte_fallback) == (trainer.model_type, trainer.byte_fallback)
    assert (found.normalizer, found.charsmap) == (normalizer.name, normalizer.precompiled_charsmap)
    assert (found.add_dummy_prefix, found.escape_spaces) == (normalizer.add_dummy_prefix, normalizer.escape_whitespaces)


@pytest.mark.parametrize(
    "content", [b"", b"\x0a\xff", b"\x0a\x02\x0a\x01", b"not a model", bytes(range(256)), b"\xff" * 20]
)
def test_a_damaged_model_is_a_one_line_error(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "spiece.model").write_bytes(content)
    with pytest.raises(ModelError, match=r"spiece\.model: not a SentencePiece model, or damaged: "):
        read_sentencepiece(tmp_path / "spiece.model")


def test_every_cut_of_a_model_is_read_or_refused(models: Path, tmp_path: Path) -> None:
    content = (models / "identity.model").read_bytes()
    for size in range(0, len(content), 37):
        (tmp_path / "cut.model").write_bytes(content[:size])
        with contextlib.suppress(ModelError):
            read_sentencepiece(tmp_path / "cut.model")


@pytest.mark.parametrize("name", ["unigram", "bpe", "nfkc", "identity", "folded"])
@pytest.mark.parametrize(("family", "convert"), [("XLMRoberta", xlm_roberta_id), ("Camembert", camembert_id)])
def test_ids_are_those_of_sentencepiece_by_the_rule_of_the_family(
    tmp_path: Path, models: Path, name: str, family: str, convert: Callable[[int], int]
) -> None:
    model = models / f"{name}.model"
    found = read_tokenizer(folder_of(tmp_path, family, "sentencepiece.bpe.model", model), 500, 64)
    processor = sentencepiece.SentencePieceProcessor(model_file=str(model))
    inputs = texts()
    expected = [[convert(piece) for piece in processor.encode(text)] for text in inputs]
    for text, ids, wanted in zip(inputs, ids_of(found, inputs), expected):
        assert ids == wanted, ascii(text)


@pytest.mark.parametrize(
    ("family", "file", "name"),
    [
        ("XLMRoberta", "sentencepiece.bpe.model", "unigram"),
        ("Camembert", "sentencepiece.bpe.model", "unigram"),
        ("Albert", "spiece.model", "plain albert"),
    ],
)
def test_ids_are_those_of_transformers(tmp_path: Path, models: Path, family: str, file: str, name: str) -> None:
    import transformers

    if family == "Albert":
        require_transformers_5()
    folder = folder_of(tmp_path, family, file, models / f"{name}.model")
    theirs = transformers.AutoTokenizer.from_pretrained(str(folder))
    found = read_tokenizer(folder, 500, 64)
    tokenizer = Tokenizer(json.dumps(found.document), "tokenizer.json", found.options, 1 << 20)
    # transformers leaves decomposed Hangul and kana decomposed, which SentencePiece composes; ALBERT decomposes all.
    inputs = [text for text in texts() if unicodedata.is_normalized("NFC", text)]
    if family == "Albert":
        inputs = [text for text in inputs if not any("가" <= character <= "힣" for character in text)]
    assert len(inputs) > (30 if family == "Albert" else 300)
    for text, ours in zip(inputs, tokenizer.encode(inputs)):
        assert ours.token_ids == theirs(text)["input_ids"], ascii(text)
    (pair,) = tokenizer.encode(["the cat"], ["a café"])
    assert pair.token_ids == theirs("the cat", "a café")["input_ids"]
    assert {*found.vocabulary.special_ids.values()} <= {*theirs.all_special_ids}


def test_albert_lowers_and_strips_before_sentencepiece_and_keeps_user_defined_symbols_whole(
    tmp_path: Path, models: Path
) -> None:
    model = models / "albert.model"
    processor = sentencepiece.SentencePieceProcessor(model_file=str(model))

    def expected(text: str) -> list[int]:
        text = unicodedata.normalize("NFKD", text.replace("``", '"').replace("''", '"'))
        text = "".join(character for character in text if not unicodedata.combining(character)).lower()
        found: list[int] = processor.encode(text)
        return found

    found = read_tokenizer(folder_of(tmp_path / "a", "Albert", "spiece.model", model), 300, 64)
    inputs = ["The cat, ``naïve'' (a-b). £5", *texts()]
    for text, ids in zip(inputs, ids_of(found, inputs)):
        assert ids == expected(text), ascii(text)
    kept = folder_of(tmp_path / "b", "Albert", "spiece.model", model, do_lower_case=False, keep_accents=True)
    (ids,) = ids_of(read_tokenizer(kept, 300, 64), ["naïve café ÉCOLE"])
    assert ids == processor.encode("naïve café ÉCOLE")


def test_special_tokens_in_a_text_are_plain_text_on_request(tmp_path: Path, models: Path) -> None:
    model = models / "unigram.model"
    folder = folder_of(tmp_path, "XLMRoberta", "sentencepiece.bpe.model", model)
    processor = sentencepiece.SentencePieceProcessor(model_file=str(model))
    for literal in (False, True):
        found = read_tokenizer(
            folder_of(folder, "XLMRoberta", model.name, model, split_special_tokens=literal), 500, 64
        )
        (ids,) = ids_of(found, ["the <mask> cat </s>"])
        plain = [xlm_roberta_id(piece) for piece in processor.encode("the <mask> cat </s>")]
        assert (ids == plain) == literal
        assert (found.vocabulary.special_ids["mask"] in ids) != literal


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        ({"byte_fallback": True, "vocab_size": 600}, "byte_fallback is not supported"),
        ({"treat_whitespace_as_suffix": True}, "treat_whitespace_as_suffix is not supported"),
        ({"add_dummy_prefix": False}, "add_dummy_prefix false is not supported"),
        ({"remove_extra_whitespaces": False}, "remove_extra_whitespaces false is not supported"),
        ({"model_type": "char", "vocab_size": 90, "hard_vocab_limit": False}, "model type char"),
        ({"model_type": "word"}, "model type word"),
        ({"user_defined_symbols": ["<sep>"]}, "user-defined symbol '<sep>' is not supported"),
        ({"user_defined_symbols": ["½"]}, "user-defined symbol '½' is not supported"),
        ({"control_symbols": ["<ko>"]}, "control symbol '<ko>' is not one of </s>, <mask>, <pad>, <s>, <unk>"),
        ({"split_by_whitespace": False}, "spans words"),
        ({"unk_id": 3, "pad_id": 0}, "the first pieces are"),
    ],
)
def test_what_can_not_be_equal_is_refused_by_name(
    tmp_path: Path, models: Path, settings: dict[str, Any], reason: str
) -> None:
    model = train(models / "corpus.txt", tmp_path / "made", **settings)
    folder = folder_of(tmp_path / "hf", "XLMRoberta", "sentencepiece.bpe.model", model)
    with pytest.raises(ModelError, match=r"sentencepiece\.bpe\.model: ") as refused:
        read_tokenizer(folder, 500, 64)
    assert reason in str(refused.value)
    assert "\n" not in str(refused.value)


def test_a_class_without_a_rule_is_refused(tmp_path: Path, models: Path) -> None:
    folder = folder_of(tmp_path, "Bert", "spiece.model", models / "unigram.model")
    with pytest.raises(ModelError, match=r"can't be converted for a BertTokenizer; save a tokenizer\.json"):
        read_tokenizer(folder, 500, 64)


# --- byte-level BPE ---


def byte_level_folder(folder: Path, **config: Any) -> Path:
    model = trained("BPE")["model"]
    merges = [merge if isinstance(merge, str) else " ".join(merge) for merge in model["merges"]]
    folder.mkdir(exist_ok=True)
    (folder / "config.json").write_text(json.dumps({"model_type": "roberta"}))
    (folder / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "RobertaTokenizer", **config}))
    (folder / "vocab.json").write_text(json.dumps(model["vocab"]))
    (folder / "merges.txt").write_text("\n".join(["#version: 0.2", *merges]) + "\n")
    return folder


@pytest.mark.parametrize("config", [{}, {"add_prefix_space": True}])
def test_byte_level_bpe_gives_the_ids_of_transformers(tmp_path: Path, config: dict[str, Any]) -> None:
    import transformers

    require_transformers_5()
    folder = byte_level_folder(tmp_path, **config)
    theirs = transformers.AutoTokenizer.from_pretrained(str(folder))
    found = read_tokenizer(folder, 400, 64)
    tokenizer = Tokenizer(json.dumps(found.document), "tokenizer.json", found.options, 1 << 20)
    inputs = [text for text in (*CORPUS, *texts()) if text]
    for text, ours in zip(inputs, tokenizer.encode(inputs)):
        assert ours.token_ids == theirs(text)["input_ids"], ascii(text)
    assert found.notes == ()
    assert [path.name for path in found.files] == ["vocab.json", "merges.txt", "tokenizer_config.json"]


@pytest.mark.parametrize(
    ("file", "content", "reason"),
    [
        ("merges.txt", "#version: 0.2\na b c\n", "merges.txt, line 2: 'a b c' is not two tokens"),
        ("merges.txt", "#version: 0.2\n\n", "merges.txt, line 2: '' is not two tokens"),
        ("merges.txt", "#version: 0.2\nqq qqq\n", "'qq' is not in the vocabulary"),
        ("merges.txt", None, "merges.txt: No such file"),
        ("vocab.json", '{"a": "0"}', "is not a token id"),
        ("vocab.json", "[]", "is not a JSON object"),
    ],
)
def test_damaged_files_of_byte_level_bpe_are_one_line_errors(
    tmp_path: Path, file: str, content: str | None, reason: str
) -> None:
    from bertsym.errors import BertsymError

    folder = byte_level_folder(tmp_path)
    (folder / file).unlink()
    if content is not None:
        (folder / file).write_text(content)
    with pytest.raises(BertsymError) as refused:
        read_tokenizer(folder, 400, 64)
    assert reason in str(refused.value)
    assert "\n" not in str(refused.value)


# --- KoBERT: GluonNLP's BERTSPTokenizer ---


def their_tokenizer(model: Path, lower: bool = False) -> tuple[Any, Any]:
    """GluonNLP's tokenizer and vocabulary of a model."""
    vocabulary = nlp.vocab.BERTVocab.from_sentencepiece(str(model))
    tokenizer = nlp.data.BERTSPTokenizer(str(model), vocabulary, lower=lower)
    # gluonnlp asks for a sample of 0, which means none; sentencepiece refuses that since 0.1.92.
    tokenizer.sentencepiece = sentencepiece.SentencePieceProcessor(model_file=str(model)).encode_as_pieces
    return tokenizer, vocabulary


@pytest.mark.parametrize("lower", [False, True])
def test_ids_are_those_of_gluonnlp(models: Path, lower: bool) -> None:
    model = models / "kobert.model"
    theirs, vocabulary = their_tokenizer(model, lower)
    made = convert_gluonnlp(model, Vocabulary(tuple(vocabulary.idx_to_token)), lower)
    ours = Tokenizer(json.dumps(made.document), "tokenizer.json", made.options, 24)
    inputs = [text for text in (*texts(), "㈜삼성…½ [MASK] <x>", "한글과 日本語, Éa!") if text.strip()]
    seconds = [inputs[-1 - i] for i in range(len(inputs))]
    single = nlp.data.BERTSentenceTransform(theirs, 24, vocabulary, pad=False, pair=False)
    pairs = nlp.data.BERTSentenceTransform(theirs, 24, vocabulary, pad=False, pair=True)
    for text, encoded in zip(inputs, ours.encode(inputs)):
        ids, length, types = single((text,))
        assert encoded.token_ids == ids.tolist(), ascii(text)
        assert (len(encoded.token_ids), encoded.token_types) == (length, types.tolist())
    for text, second, encoded in zip(inputs, seconds, ours.encode(inputs, seconds)):
        ids, _, types = pairs((text, second))
        assert (encoded.token_ids, encoded.token_types) == (ids.tolist(), types.tolist()), ascii(text + second)


@pytest.fixture
def kobert(models: Path, tmp_path: Path) -> tuple[Path, Path, Path]:
    """KoBERT in small: parameters, vocabulary JSON and SentencePiece model."""
    _, vocabulary = their_tokenizer(models / "kobert.model")
    config = {**CONFIG, "vocab_size": len(vocabulary)}
    net = bert_model(config, hugging_face_weights(vocab_size=len(vocabulary)))
    net.save_parameters(str(tmp_path / "kobert.params"))
    (tmp_path / "vocab.json").write_text(vocabulary.to_json())
    return tmp_path / "kobert.params", tmp_path / "vocab.json", models / "kobert.model"


def test_a_bundle_of_kobert_tokenises_texts(cli: Cli, tmp_path: Path, kobert: tuple[Path, Path, Path]) -> None:
    params, vocab, model = kobert
    arguments = ("export", f"params:{params}", tmp_path / "ko", "--vocab", vocab, "--num-heads", 4)
    result = cli(*arguments, "--sentencepiece", model)
    assert result.code == 0, result.err
    bundle = Bundle.open(tmp_path / "ko")
    assert (bundle.signature.pad_id, bundle.signature.tokenizer.lower_case) == (1, False)
    theirs, vocabulary = their_tokenizer(model)
    text = "나는 학교에 갑니다… ㈜삼성"
    printed = json.loads(cli("tokenize", tmp_path / "ko", "--text", text).out)
    ids = vocabulary[["[CLS]", *theirs(text), "[SEP]"]]
    assert printed["data0"] == ids


def test_kobert_of_the_zoo_tokenises_texts_with_the_model_in_its_cache(
    cli: Cli, tmp_path: Path, kobert: tuple[Path, Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    params, _, model = kobert
    name, dataset, cache = "bert_12_768_12", "kobert_news_wiki_ko_cased", tmp_path / "cache"
    cache.mkdir()
    digests = [hashlib.sha1(path.read_bytes()).hexdigest() for path in (params, model)]
    shutil.copy(params, cache / f"{name}_{dataset}-{digests[0][:8]}.params")
    shutil.copy(model, cache / f"{dataset}-{digests[1][:8]}.spiece")
    sizes = {"num_layers": CONFIG["num_hidden_layers"], "hidden_size": CONFIG["intermediate_size"]}
    sizes |= dict.fromkeys(("units", "embed_size"), CONFIG["hidden_size"])
    sizes |= {"num_heads": CONFIG["num_attention_heads"], "max_length": CONFIG["max_position_embeddings"]}
    hparams = {**sizes, "dropout": 0.1, "token_type_vocab_size": 2, "word_embed": None}
    monkeypatch.setitem(nlp.model.bert.bert_hparams, name, hparams)
    monkeypatch.setitem(nlp.model.bert.model_store._model_sha1, f"{name}_{dataset}", digests[0])
    entry = [digests[1], ".spiece", {"padding_token": "[PAD]"}]
    monkeypatch.setitem(nlp.data.utils._vocab_sha1, dataset, entry)
    result = cli("export", f"gluonnlp:{name}/{dataset}", tmp_path / "ko", "--cache", cache)
    assert result.code == 0, result.err
    theirs, vocabulary = their_tokenizer(model)
    printed = json.loads(cli("tokenize", tmp_path / "ko", "--text", "나는 학교에 갑니다…").out)
    assert printed["data0"] == vocabulary[["[CLS]", *theirs("나는 학교에 갑니다…"), "[SEP]"]]


def test_without_its_model_kobert_exports_and_says_that_texts_need_it(
    cli: Cli, tmp_path: Path, kobert: tuple[Path, Path, Path]
) -> None:
    params, vocab, _ = kobert
    result = cli("export", f"params:{params}", tmp_path / "ko", "--vocab", vocab, "--num-heads", 4)
    assert result.code == 0, result.err
    assert "has SentencePiece pieces: texts can't be tokenised without --sentencepiece FILE" in result.out


def test_a_model_that_does_not_fit_the_vocabulary_is_refused(
    cli: Cli, tmp_path: Path, kobert: tuple[Path, Path, Path], models: Path
) -> None:
    params, vocab, _ = kobert
    arguments = ("export", f"params:{params}", tmp_path / "out" / "ko", "--vocab", vocab, "--num-heads", 4)
    for name, reason in {
        "bpe": "needs unigram",
        "folded": "is not in the vocabulary of",
        "none": "No such file",
    }.items():
        result = cli(*arguments, "--sentencepiece", models / f"{name}.model")
        assert reason in refusal(result, tmp_path / "out")
