"""``hf`` for sentence-transformers: a bundle becomes a folder with the same embeddings."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import Result
from refusals import refusal
from safetensors.numpy import load_file
from sentence_folders import POOLING, dense, write_sentence_folder
from test_sentence_embeddings import CHAINS, TEXTS, assert_close

from bertsym import Bundle, Classifier, Encoder, export, export_hugging_face

Cli = Callable[..., Result]


def settings_of(folder: Path) -> dict[str, Any]:
    """The settings of a folder, without the classes of the modules, by file and key."""
    found: dict[str, Any] = {}
    for path in sorted(folder.rglob("*.json")):
        name = str(path.relative_to(folder))
        if name.startswith(("sentence_bert", "config_sentence", "1_", "2_", "3_", "4_")):
            found.update({f"{name}: {key}": value for key, value in json.loads(path.read_text()).items()})
    return found


@pytest.mark.parametrize("name", CHAINS)
def test_modules_weights_and_settings_survive_the_way_to_mxnet_and_back(tmp_path: Path, name: str) -> None:
    source = write_sentence_folder(
        tmp_path / "st",
        *CHAINS[name],
        settings={"max_seq_length": 24, "do_lower_case": False},
        prompts={"prompts": {"query": "q: "}, "default_prompt_name": "query", "similarity_fn_name": "dot"},
    )
    prefix = export(f"hf:{source}", tmp_path / "x", verify=False).bundle.prefix
    done = export_hugging_face(prefix, tmp_path / "back")
    assert (done.architecture, done.library) == ("SentenceTransformer", "sentence-transformers")
    assert max(check.relative_difference for check in done.checks) < 1e-5
    written = [path.relative_to(tmp_path / "back") for path in (tmp_path / "back").rglob("*.safetensors")]
    assert set(written) == {path.relative_to(source) for path in source.rglob("*.safetensors")}
    for path in written:
        original = load_file(source / path)
        for key, array in load_file(tmp_path / "back" / path).items():
            np.testing.assert_array_equal(array, original[key], err_msg=f"{path}: {key}")
    found, expected = settings_of(tmp_path / "back"), settings_of(source)
    ignored = ("module_input_name",)
    assert {key: found[key] for key in expected if not key.endswith(ignored)} == {
        key: value for key, value in expected.items() if not key.endswith(ignored)
    }
    kinds = [module["type"].rpartition(".")[2] for module in json.loads((tmp_path / "back/modules.json").read_text())]
    assert kinds == ["Transformer", *(kind for kind, _ in CHAINS[name])]
    card = (tmp_path / "back" / "README.md").read_text()
    assert "library_name: sentence-transformers" in card.split("---")[1]
    assert 'SentenceTransformer("FOLDER")' in card
    # The way round once more gives the same bundle.
    again = export(f"hf:{tmp_path / 'back'}", tmp_path / "again", verify=False).bundle
    assert again.signature == Bundle.open(prefix).signature
    assert again.graph().to_json() == Bundle.open(prefix).graph().to_json()


@pytest.mark.parametrize("output", ["mean", "cls", "pooled"])
def test_an_encoder_becomes_a_transformer_with_a_pooling(bundles: dict[str, Path], tmp_path: Path, output: str) -> None:
    """The pooler of BERT is a Dense module on [CLS]."""
    library = None if output == "mean" else "sentence-transformers"
    done = export_hugging_face(bundles[output], tmp_path / "back", library=library)
    assert done.library == "sentence-transformers"
    again = export(f"hf:{tmp_path / 'back'}", tmp_path / "again").bundle
    assert str(again.signature.embedding) == {"pooled": "cls pooling, dense 32 tanh"}.get(output, f"{output} pooling")
    assert_close(Encoder(again.prefix).encode(TEXTS), Encoder(bundles[output]).encode(TEXTS))
    assert (tmp_path / "back" / "config.json").exists()


def test_a_plain_head_becomes_a_dense_module_that_gives_its_logits(cli: Cli, classifier: Path, tmp_path: Path) -> None:
    result = cli("hf", classifier, tmp_path / "back")
    assert result.code == 0, result.err
    assert "wrote" in result.out
    assert "SentenceTransformer, verified" in result.out
    assert "the output of the classification head (no, yes), before softmax or sigmoid" in result.err
    again = export(f"hf:{tmp_path / 'back'}", tmp_path / "again").bundle
    logits = Encoder(again.prefix).encode(TEXTS)
    powers = np.exp(logits - logits.max(axis=1, keepdims=True))
    expected = [list(prediction.probabilities.values()) for prediction in Classifier(classifier).predict(TEXTS)]
    np.testing.assert_allclose(powers / powers.sum(axis=1, keepdims=True), expected, atol=1e-6)
    line = refusal(cli("hf", classifier, tmp_path / "class", "--as", "transformers"), tmp_path / "class")
    assert "finetune --head family trains a head that it has" in line


def test_what_is_not_one_vector_for_a_text_is_refused(cli: Cli, bundles: dict[str, Path], tmp_path: Path) -> None:
    result = cli("hf", bundles["sequence"], tmp_path / "back", "--as", "sentence-transformers")
    assert "sentence-transformers gives one vector for a text; omit --as" in refusal(result, tmp_path / "back")
    source = write_sentence_folder(tmp_path / "st", ("Pooling", POOLING), ("Dense", dense(32, 4)))
    prefix = export(f"hf:{source}", tmp_path / "x", verify=False).bundle.prefix
    result = cli("hf", prefix, tmp_path / "back", "--as", "transformers")
    assert "ends in a sentence embedding" in refusal(result, tmp_path / "back")


def test_a_folder_is_overwritten_by_request_only(cli: Cli, bundles: dict[str, Path], tmp_path: Path) -> None:
    command = ("hf", bundles["mean"], tmp_path / "back", "--no-verify")
    assert cli(*command).code == 0
    assert "overwrite it with --force" in refusal(cli(*command), code=2)
    assert cli(*command, "--force").code == 0
    (tmp_path / "back" / "1_Mine").mkdir()
    assert "holds '1_Mine'" in refusal(cli(*command, "--force"), code=2)


def test_a_folder_that_computes_something_else_is_not_written(
    bundles: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from bertsym import VerificationError
    from bertsym.destinations import hugging_face
    from bertsym.destinations.sentence_transformers import sentence_modules

    def changed(bundle: Bundle) -> Any:
        modules = sentence_modules(bundle)
        return dataclasses.replace(modules, embedding=dataclasses.replace(modules.embedding, pooling=("max",)))

    monkeypatch.setattr(hugging_face, "sentence_modules", changed)
    with pytest.raises(VerificationError, match="differs from the reference encoder"):
        export_hugging_face(bundles["mean"], tmp_path / "back")
    assert not (tmp_path / "back").exists()
