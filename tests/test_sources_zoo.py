"""``gluonnlp:`` sources: the zoo of GluonNLP, downloaded from a repository on loopback."""

from __future__ import annotations

import hashlib
import threading
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from conftest import CONFIG, VOCABULARY, Result, hugging_face_weights
from gluonnlp_models import bert_model
from hugging_face_files import assert_same_weights
from refusals import refusal

from bertsym import Bundle, ModelError, Pretrained, load_source
from bertsym.mxnet_runtime import nlp
from bertsym.sources.gluonnlp_zoo import _SENTENCEPIECE, ZOO, load_zoo

Cli = Callable[..., Result]

MODELS = ("bert_12_768_12", "bert_24_1024_16")


@pytest.fixture(scope="module")
def expected(tiny_hf: Path) -> Pretrained:
    """The tiny BERT as its Hugging Face folder gives it."""
    return load_source(f"hf:{tiny_hf}")


def test_the_zoo_is_what_gluonnlp_registers() -> None:
    registered = set(nlp.model.bert.model_store._model_sha1)
    ours = {f"{model}_{dataset}" for model, datasets in ZOO.items() for dataset in datasets}
    assert ours == {name for name in registered if name.startswith(MODELS)}


def test_every_dataset_of_the_zoo_has_a_vocabulary_in_gluonnlp() -> None:
    for dataset in {dataset for datasets in ZOO.values() for dataset in datasets}:
        _, extension, sha1, _ = nlp.data.utils._get_vocab_tokenizer_info(dataset, "unused")
        assert len(sha1) == 40
        assert (extension == ".spiece") == (dataset in _SENTENCEPIECE)


@pytest.mark.parametrize("name", ["bert_12_768_12", "bert_12_768_12/", "bert_24_1024_16/wiki_cn_cased", "x/y/z"])
def test_an_unknown_name_is_an_error_that_lists_the_known_names(cli: Cli, tmp_path: Path, name: str) -> None:
    line = refusal(cli("export", f"gluonnlp:{name}", tmp_path / "out" / "base"), tmp_path / "out", code=2)
    for model, datasets in ZOO.items():
        for dataset in datasets:
            assert f"{model}/{dataset}" in line


# --- gluonnlp: its own loading code, on a repository on loopback ---


@dataclass
class Repository:
    """A small zoo on a local server, in MXNet's layout; `model` and `dataset` are registered in gluonnlp."""

    files: Path
    cache: Path
    model: str = "bert_12_768_12"
    dataset: str = "book_corpus_wiki_en_uncased"
    requests: list[str] = field(default_factory=list)

    @property
    def name(self) -> str:
        return f"{self.model}/{self.dataset}"


class _Handler(SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: Any) -> None:
        pass


@pytest.fixture
def repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Repository]:
    served = Repository(tmp_path / "served", tmp_path / "cache")

    class Handler(_Handler):
        def do_GET(self) -> None:
            served.requests.append(self.path)
            super().do_GET()

    token_to_idx = {token: i for i, token in enumerate(VOCABULARY)}
    vocab = nlp.vocab.BERTVocab(nlp.data.count_tokens(VOCABULARY), token_to_idx=token_to_idx)
    params = tmp_path / "zoo.params"
    # The zoo's files have the pretraining heads.
    bert_model(CONFIG, hugging_face_weights(), heads=True).save_parameters(str(params))
    contents = {".params": params.read_bytes(), ".vocab": vocab.to_json().encode()}
    sha1 = {extension: hashlib.sha1(content).hexdigest() for extension, content in contents.items()}
    for folder, name, extension in (
        ("gluon/models", f"{served.model}_{served.dataset}", ".params"),
        ("gluon/dataset/vocab", served.dataset, ".vocab"),
    ):
        file = f"{name}-{sha1[extension][:8]}"
        (served.files / folder).mkdir(parents=True)
        with zipfile.ZipFile(served.files / folder / f"{file}.zip", "w") as archive:
            archive.writestr(f"{file}{extension}", contents[extension])
    hparams = {
        "num_layers": CONFIG["num_hidden_layers"],
        "units": CONFIG["hidden_size"],
        "hidden_size": CONFIG["intermediate_size"],
        "max_length": CONFIG["max_position_embeddings"],
        "num_heads": CONFIG["num_attention_heads"],
        "dropout": 0.1,
        "embed_size": CONFIG["hidden_size"],
        "token_type_vocab_size": 2,
        "word_embed": None,
    }
    monkeypatch.setitem(nlp.model.bert.bert_hparams, served.model, hparams)
    registered = nlp.model.bert.model_store._model_sha1
    monkeypatch.setitem(registered, f"{served.model}_{served.dataset}", sha1[".params"])
    monkeypatch.setitem(nlp.data.utils._vocab_sha1, served.dataset, [sha1[".vocab"], ".vocab", {}])
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Handler, directory=str(served.files)))
    monkeypatch.setenv("MXNET_GLUON_REPO", f"http://127.0.0.1:{server.server_port}")
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield served
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def test_a_model_of_the_zoo_is_downloaded_with_a_progress_bar(
    repository: Repository, expected: Pretrained, capfd: pytest.CaptureFixture[str]
) -> None:
    pretrained = load_zoo(repository.name, str(repository.cache))
    assert_same_weights(pretrained, expected)
    assert pretrained.config == expected.config
    assert pretrained.vocabulary.tokens == tuple(VOCABULARY)
    assert pretrained.tokenizer.lower_case is True
    assert pretrained.origin["kind"] == "gluonnlp"
    out, err = capfd.readouterr()
    assert out == ""
    downloads = [path.rsplit("/", 1)[-1] for path in repository.requests]
    assert len(downloads) == 2
    for file in downloads:
        assert f"{file}: 100%" in err


def test_the_second_load_comes_from_the_cache(repository: Repository, capfd: pytest.CaptureFixture[str]) -> None:
    first = load_zoo(repository.name, str(repository.cache))
    repository.requests.clear()
    for path in repository.files.rglob("*.zip"):
        path.unlink()
    capfd.readouterr()
    assert_same_weights(load_zoo(repository.name, str(repository.cache)), first)
    assert repository.requests == []
    assert capfd.readouterr() == ("", "")


def test_the_command_line_exports_from_the_zoo(
    cli: Cli, repository: Repository, bundles: dict[str, Path], tmp_path: Path
) -> None:
    source = f"gluonnlp:{repository.name}"
    result = cli("export", source, tmp_path / "base", "--cache", repository.cache)
    assert result.code == 0, result.err
    bundle = Bundle.open(tmp_path / "base")
    assert (tmp_path / "base-0000.params").read_bytes() == Path(f"{bundles['cls']}-0000.params").read_bytes()
    sha1 = nlp.model.bert.model_store._model_sha1[f"{repository.model}_{repository.dataset}"]
    assert bundle.manifest["source"] == {"spec": source, "kind": "gluonnlp", "pretrained": True, "sha1": sha1}


def test_the_cache_is_in_mxnets_home_unless_given(
    repository: Repository, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MXNET_HOME", str(tmp_path / "home"))
    load_zoo(repository.name)
    assert {path.suffix for path in (tmp_path / "home" / "models").iterdir()} == {".params", ".vocab"}


def test_a_damaged_file_in_the_cache_is_downloaded_again(repository: Repository, expected: Pretrained) -> None:
    load_zoo(repository.name, str(repository.cache))
    (params,) = repository.cache.glob("*.params")
    params.write_bytes(params.read_bytes()[:-1] + b"?")
    repository.requests.clear()
    assert_same_weights(load_zoo(repository.name, str(repository.cache)), expected)
    assert len(repository.requests) == 1


@pytest.mark.parametrize("fault", ["absent", "changed"])
def test_a_failed_download_is_a_one_line_error(cli: Cli, repository: Repository, tmp_path: Path, fault: str) -> None:
    (archive,) = (repository.files / "gluon" / "models").iterdir()
    if fault == "absent":
        archive.unlink()
    else:
        with zipfile.ZipFile(archive, "w") as changed:
            changed.writestr(f"{archive.stem}.params", b"something else")
    result = cli("export", f"gluonnlp:{repository.name}", tmp_path / "out" / "base", "--cache", repository.cache)
    line = refusal(result, tmp_path / "out")
    assert line.startswith(f"Error: gluonnlp:{repository.name}: gluonnlp can't load it (cache folder")


def test_mxnets_download_function_is_restored(repository: Repository) -> None:
    import mxnet.gluon.utils as gluon_utils

    before = gluon_utils.requests
    load_zoo(repository.name, str(repository.cache))
    assert gluon_utils.requests is before
    for path in (*repository.cache.iterdir(), *repository.files.rglob("*.zip")):
        path.unlink()
    with pytest.raises(ModelError):
        load_zoo(repository.name, str(repository.cache))
    assert gluon_utils.requests is before


def test_a_vocabulary_that_gluonnlp_can_t_read_is_a_one_line_error(
    cli: Cli, repository: Repository, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    dataset, content = "kobert_news_wiki_ko_cased", b"not a model of sentencepiece, which may not even be installed"
    sha1 = hashlib.sha1(content).hexdigest()
    monkeypatch.setitem(nlp.data.utils._vocab_sha1, dataset, [sha1, ".spiece", {"padding_token": "[PAD]"}])
    repository.cache.mkdir()
    (repository.cache / f"{dataset}-{sha1[:8]}.spiece").write_bytes(content)
    name = f"gluonnlp:{repository.model}/{dataset}"
    result = cli("export", name, tmp_path / "out" / "base", "--cache", repository.cache)
    assert refusal(result, tmp_path / "out").startswith(f"Error: {name}: gluonnlp can't load it")
