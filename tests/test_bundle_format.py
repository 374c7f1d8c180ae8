"""The format of a bundle: what its signature says, and that every command passes it on."""

from __future__ import annotations

import dataclasses
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from conftest import VOCABULARY, Result, Tables
from refusals import refusal
from tokenizer_documents import document as tokenizer_document

from bertsym import Bundle
from bertsym.bundle import SYMBOL, TRAIN_SYMBOL, BundleContent, open_any, stage_bundle
from bertsym.signature import bert_inputs
from bertsym.text.tokenizer import TokenizerOptions
from bertsym.text.vocabulary import Vocabulary

Cli = Callable[..., Result]

# Not as our own JSON writer has it.
TOKENIZER_JSON = json.dumps(tokenizer_document(tokens=VOCABULARY), indent=1).replace("\n", "\r\n")


def signature(prefix: Path) -> dict[str, Any]:
    document: dict[str, Any] = json.loads(Path(f"{prefix}-signature.json").read_text(encoding="utf-8"))
    return document


def rewritten(source: Path, out: Path, **changes: object) -> Path:
    """A bundle with a tokenizer.json, and with changes of its signature."""
    bundle = Bundle.open(source)
    train = bundle.path(TRAIN_SYMBOL)
    content = BundleContent(
        bundle.config,
        dataclasses.replace(bundle.signature, **changes),  # type: ignore[arg-type]
        bundle.path(SYMBOL).read_text(),
        bundle.params(),
        bundle.vocabulary(),
        {"source": bundle.manifest["source"], "command": None, "seed": 0},
        train.read_text() if train.exists() else None,
        TOKENIZER_JSON,
    )
    with stage_bundle(out) as stage:
        stage.write(content)
    return out


def literal_special_tokens(prefix: Path) -> TokenizerOptions:
    return dataclasses.replace(Bundle.open(prefix).signature.tokenizer, literal_special_tokens=True)


@pytest.fixture(scope="module")
def encoder(bundles: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    literal = literal_special_tokens(bundles["cls"])
    return rewritten(bundles["cls"], tmp_path_factory.mktemp("encoder") / "base", tokenizer=literal)


@pytest.fixture(scope="module")
def mrpc(classifier: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A classifier that was trained on a known data set."""
    literal = literal_special_tokens(classifier)
    return rewritten(classifier, tmp_path_factory.mktemp("mrpc") / "model", dataset="mrpc", tokenizer=literal)


def test_the_signature_of_a_classifier_holds_every_key_of_the_format(classifier: Path) -> None:
    found = signature(classifier)
    del found["outputs"], found["minimum_mxnet"], found["form"]
    tensors = {name: [(each["name"], each["shape"]) for each in found.pop(name)] for name in ("inputs", "label_inputs")}
    assert tensors == {
        "inputs": [("data0", ["batch", "length"]), ("data1", ["batch", "length"]), ("data2", ["batch"])],
        "label_inputs": [("softmax_label", ["batch"])],
    }
    assert found == {
        "kind": "classifier",
        "family": "bert",
        "encoder_output": "cls",
        "embedding": None,
        "max_length": 24,
        "task": "classification",
        "dataset": None,
        "class_names": ["no", "yes"],
        "task_settings": {"metrics": ["accuracy", "f1"], "stride": None, "positive_label": None},
        "trained": True,
        "encoder_trained": True,
        "pair": False,
        "columns": {
            **{"text": "text", "pair": None, "label": "label", "header": True},
            "names": {"text": None, "pair": None, "label": None},
        },
        "dropped_labels": [],
        "pad_id": 0,
        "special_tokens": {"pad": "[PAD]", "unk": "[UNK]", "cls": "[CLS]", "sep": "[SEP]", "mask": "[MASK]"},
        "special_ids": {"pad": 0, "unk": 2, "cls": 3, "sep": 4, "mask": 5},
        "tokenizer": {
            "kind": "wordpiece",
            "lower_case": True,
            "strip_accents": None,
            "split_chinese": True,
            "segments": 2,
            "literal_special_tokens": False,
            "model": "WordPiece",
            "refused_id": None,
        },
        "target_mxnet": None,
        "guarded": False,
        "precision": "float32",
    }


def test_task_and_dataset_are_distinguished(cli: Cli, bundles: dict[str, Path], tmp_path: Path) -> None:
    rows = "".join(f"{i % 2}\t1\t2\tthe {'happy' if i % 2 else 'sad'} cat\tthe dog\n" for i in range(16))
    table = tmp_path / "mrpc.tsv"
    table.write_text("Quality\t#1 ID\t#2 ID\t#1 String\t#2 String\n" + rows)
    arguments = ("--train", table, "--dev", table, "--task", "mrpc", "--epochs", 1)
    assert cli("finetune", bundles["cls"], *arguments, tmp_path / "model").code == 0
    found = signature(tmp_path / "model")
    assert (found["task"], found["dataset"]) == ("classification", "mrpc")
    # evaluate takes the columns and metrics of the data set.
    assert cli("evaluate", tmp_path / "model", table).code == 0


SIGNED = [dict(vars(tensor)) for tensor in bert_inputs()]
TWICE = SIGNED[-1]
EMBEDDING: dict[str, Any] = {
    **{"pooling": ["mean"], "layers": [], "normalized": False},
    **{"prompts": {}, "default_prompt_name": None, "similarity": None},
}
KEPT = ("family", "encoder_output", "pad_id", "special_tokens", "tokenizer", "encoder_trained")
HEAD = ("task", "dataset", "class_names", "trained", "pair", "columns", "dropped_labels", "max_length")


@pytest.mark.parametrize(
    ("command", "arguments", "keys"),
    [
        ("edit", ["--dropout", "off"], (*HEAD, *KEPT, "label_inputs")),
        ("lower", ["--target-mxnet", "1.9"], (*HEAD, *KEPT, "label_inputs")),
        ("lower", ["--fold"], (*HEAD, *KEPT)),
        ("quantize", ["--calibrate", "DEV", "--max-drop", 1], (*HEAD, *KEPT)),
        ("graft", ["--head", "none"], KEPT),
        ("extract", ["--output", "cls"], KEPT),
        ("extract", ["--output", "fc-finetune"], (*HEAD, *KEPT)),
        ("edit", ["--rename", "data0=tokens"], (*HEAD, *KEPT)),
        ("finetune", ["--train", "TRAIN", "--dev", "DEV", "--epochs", 1], KEPT),
        ("graft", ["--num-classes", 3], KEPT),
        ("graft", ["--head", "regression"], KEPT),
    ],
    ids=lambda value: None if isinstance(value, tuple) else str(value),
)
def test_a_command_keeps_all_fields_that_it_does_not_change(
    cli: Cli, mrpc: Path, encoder: Path, tables: Tables, tmp_path: Path, command: str, arguments: list[Any], keys: Any
) -> None:
    """A symbol that is no longer a BERT of export's has the signature as its origin."""
    on_encoder = command == "finetune" or (command == "graft" and "none" not in arguments)
    source, out = encoder if on_encoder else mrpc, tmp_path / "out"
    paths = {"TRAIN": tables.train, "DEV": tables.dev}
    done = cli(command, source, out, *(paths.get(word, word) for word in arguments))
    assert done.code == 0, done.err
    bundle = open_any(out)
    assert bundle.tokenizer_json() == TOKENIZER_JSON
    assert Path(f"{out}-tokenizer.json").read_bytes() == TOKENIZER_JSON.encode()
    assert bundle.vocabulary() == Vocabulary(tuple(VOCABULARY))
    found, expected = signature(out), signature(source)
    found = found["origin"] if found["kind"] == "symbol" else found
    assert {key: found[key] for key in keys} == {key: expected[key] for key in keys}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"embedding": EMBEDDING}, "the output embedding of an encoder and the key embedding need each other"),
        (
            {"embedding": {**EMBEDDING, "pooling": ["x"]}},
            'embedding.pooling[0]: "x" is not one of "cls", "max", "mean"',
        ),
        ({"embedding": {**EMBEDDING, "normalized": True}}, "embedding.normalized: true is not one of false"),
        ({"embedding": {**EMBEDDING, "default_prompt_name": "q"}}, 'embedding.default_prompt_name: "q" is not one of'),
        ({"task_settings": [0.5, 0.5]}, "task_settings: an array is not an object"),
        ({"target_mxnet": "2.0"}, 'target_mxnet: "2.0" is not one of "1.4", "1.5", "1.6", "1.7", "1.8", "1.9"'),
        ({"family": "roberta"}, "family roberta, but that of the config is bert"),
        ({"pad_id": 1}, "pad_id 1 is not the id of the pad token"),
        ({"pad_id": 10**9}, "pad_id 1000000000 is not the id of the pad token"),
        ({"special_tokens": {"pad": "[PAD]", "cls": "<s>"}}, "special token '<s>' is not in the vocabulary"),
        (
            {"special_tokens": {"pad": "[PAD]", "start": "[CLS]"}},
            "role 'start' is not one of pad, unk, cls, sep, mask, bos, eos",
        ),
        ({"special_ids": {"pad": 0, "unk": 2, "cls": 4, "sep": 4, "mask": 5}}, "special_ids: cls is not 3, the id of"),
        ({"special_ids": {"pad": 0, "unk": 2, "bos": 3, "sep": 4, "mask": 5}}, "special_ids: cls is not 3, the id of"),
        ({"inputs": []}, "the inputs are none, not data0 (batch, length) float32, data1 "),
        (
            {"inputs": [*SIGNED, TWICE]},
            "data2 (batch) float32, data2 (batch) float32, not data0 ",
        ),
        (
            {"inputs": [dict(vars(tensor)) for tensor in bert_inputs(16)]},
            "the inputs have the fixed length 16, but max_length is 24: they must be equal",
        ),
        ({"label_inputs": []}, "the label inputs are none, not softmax_label (batch) float32"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else None,
)
def test_a_signature_that_cannot_be_honoured_is_refused_by_name(
    cli: Cli, classifier: Path, tmp_path: Path, changes: dict[str, object], message: str
) -> None:
    for path in classifier.parent.glob(f"{classifier.name}-*"):
        shutil.copy(path, tmp_path)
    prefix = tmp_path / classifier.name
    resign(prefix, signature={**signature(prefix), **changes})
    line = refusal(cli("predict", prefix, "--text", "happy"))
    assert f"{prefix}-signature.json: " in line
    assert message in line


def resign(prefix: Path, **documents: object) -> None:
    """Replace JSON files of a bundle, and their digests."""
    import hashlib

    path = Path(f"{prefix}-manifest.json")
    manifest = json.loads(path.read_text())
    for name, document in documents.items():
        content = json.dumps(document).encode()
        Path(f"{prefix}-{name}.json").write_bytes(content)
        manifest["files"][f"{name}.json"] = {"size": len(content), "sha256": hashlib.sha256(content).hexdigest()}
    path.write_text(json.dumps(manifest))
