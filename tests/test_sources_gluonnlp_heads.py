"""Trained heads of ``.params`` files, as the scripts of GluonNLP save them: each is exported, or refused by name."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from checkpoints import computed
from conftest import CONFIG, VOCABULARY, Result, hugging_face_weights
from gluonnlp_models import bert_model
from refusals import refusal
from symbol_values import SYMBOLS
from test_lower_third_party import exactly

from bertsym import Bundle, load
from bertsym.array import Array
from bertsym.mxnet_runtime import mx, nlp

Cli = Callable[..., Result]
TEXTS = {
    "data0": np.array([[3, 6, 8, 11, 4], [3, 9, 4, 0, 0]], np.float32),
    "data1": np.array([[0, 0, 0, 1, 1], [0, 0, 0, 0, 0]], np.float32),
    "data2": np.array([5, 3], np.float32),
}


class Regression(mx.gluon.HybridBlock):  # type: ignore[misc]
    """As BERTRegression of scripts/bert/model/classification.py."""

    def __init__(self, bert: Any, **settings: Any) -> None:
        super().__init__(**settings)
        self.bert = bert
        with self.name_scope():
            self.regression = mx.gluon.nn.HybridSequential()
            self.regression.add(mx.gluon.nn.Dropout(0.1))
            self.regression.add(mx.gluon.nn.Dense(1))

    def hybrid_forward(self, F: Any, words: Any, types: Any, length: Any) -> Any:
        return self.regression(self.bert(words, types, length)[1])


class Tokens(mx.gluon.HybridBlock):  # type: ignore[misc]
    """As BertForQA of scripts/bert/model/qa.py, and BERTTagger of scripts/bert/model/ner.py."""

    def __init__(self, bert: Any, encoder: str, dense: str, outputs: int, **settings: Any) -> None:
        super().__init__(**settings)
        self.names = (encoder, dense)
        setattr(self, encoder, bert)
        with self.name_scope():
            setattr(self, dense, mx.gluon.nn.Dense(outputs, flatten=False))

    def hybrid_forward(self, F: Any, words: Any, types: Any, length: Any) -> Any:
        encoder, dense = (getattr(self, name) for name in self.names)
        return dense(encoder(words, types, length)[0])


def classifier(bert: Any, outputs: int = 3, dropout: float = 0.1) -> Any:
    return nlp.model.BERTClassifier(bert, num_classes=outputs, dropout=dropout, prefix="bertclassifier0_")


def softmax(values: Array) -> Array:
    exponentials = np.exp(values - values.max(axis=-1, keepdims=True))
    result: Array = exponentials / exponentials.sum(axis=-1, keepdims=True)
    return result


def same(values: Array) -> Array:
    return values


# name -> network, kind of task, number of labels, a weight of the head, and what the bundle computes from its outputs
NETS: dict[str, tuple[Callable[[Any], Any], str, int, str, Callable[[Array], Array]]] = {
    "BERTClassifier": (classifier, "classification", 3, "classifier.1.weight", softmax),
    "BERTClassifier without dropout": (
        lambda bert: classifier(bert, 2, 0.0),
        *("classification", 2, "classifier.0.weight", softmax),
    ),
    "BERTClassifier of one output": (
        lambda bert: classifier(bert, 1),
        *("regression", 0, "classifier.1.weight", same),
    ),
    "BERTRegression": (
        lambda bert: Regression(bert, prefix="bertregression0_"),
        *("regression", 0, "regression.1.weight", same),
    ),
    "BertForQA": (
        lambda bert: Tokens(bert, "bert", "span_classifier", 2, prefix="bertforqa0_"),
        *("qa", 0, "span_classifier.weight", same),
    ),
    "BERTTagger": (
        lambda bert: Tokens(bert, "bert_model", "tag_classifier", 4, prefix="berttagger0_"),
        *("tagging", 4, "tag_classifier.weight", softmax),
    ),
}


@pytest.fixture
def vocab(tmp_path: Path) -> Path:
    path = tmp_path / "vocab.txt"
    path.write_text("\n".join(VOCABULARY) + "\n")
    return path


def saved(make: Callable[[Any], Any], folder: Path, exported: bool = False) -> tuple[Path, Array]:
    """The parameters of a network on the tiny BERT, and what it computes for TEXTS."""
    net = make(bert_model(CONFIG, hugging_face_weights()))
    for name in ("classifier", "regression", "span_classifier", "tag_classifier"):
        if hasattr(net, name):
            getattr(net, name).initialize(mx.init.Normal(0.5))
    inputs = [mx.nd.array(array) for array in TEXTS.values()]
    if exported:
        net.hybridize()
    outputs: Array = net(*inputs).asnumpy()
    if exported:
        net.export(str(folder / "net"))
        return folder / "net-0000.params", outputs
    net.save_parameters(str(folder / "net.params"))
    return folder / "net.params", outputs


@pytest.mark.parametrize(
    ("name", "exported"), [*((name, False) for name in NETS), ("BERTClassifier", True), ("BERTRegression", True)]
)
def test_a_trained_head_is_exported_with_its_encoder(
    name: str, exported: bool, cli: Cli, vocab: Path, tmp_path: Path
) -> None:
    make, task, count, weight, expected = NETS[name]
    params, outputs = saved(make, tmp_path, exported)
    assert exported or weight in mx.nd.load(str(params))
    labels = ("--labels", ",".join("abcd"[:count])) if count else ()
    new = tmp_path / "new"
    result = cli("export", f"params:{params}", new, "--vocab", vocab, "--num-heads", 4, *labels)
    assert result.code == 0, result.err
    assert "not exported" not in result.out
    signature = Bundle.open(new).signature
    assert (signature.task, signature.class_names, signature.trained) == (task, tuple("abcd"[:count]), True)
    model: Any = load(new)
    assert model.task.name == task
    ours, theirs = computed(new, TEXTS)[0], expected(outputs)
    valid = np.arange(5) < TEXTS["data2"][:, np.newaxis]
    if ours.ndim == 3:
        ours, theirs = ours[valid], theirs[valid]
    assert np.abs(ours - theirs).max() < 2e-5 * np.abs(theirs).max()


def test_the_parameters_of_an_exported_qa_model_are_enough(cli: Cli, tmp_path: Path) -> None:
    old = exactly(SYMBOLS / "gluonnlp-0.10.0/qa-symbol.json", tmp_path / "of")
    (tmp_path / "vocab.txt").write_text("\n".join(VOCABULARY[:50]) + "\n")
    arguments = ("--vocab", tmp_path / "vocab.txt", "--num-heads", 4)
    assert cli("export", f"params:{old}-0000.params", tmp_path / "new", *arguments).code == 0
    theirs, ours = (computed(prefix, TEXTS)[0][0] for prefix in (old, tmp_path / "new"))
    assert np.abs(ours - theirs).max() < 2e-5 * np.abs(theirs).max()


def test_a_head_without_names_of_its_classes_is_refused(cli: Cli, vocab: Path, tmp_path: Path) -> None:
    params, _ = saved(classifier, tmp_path)
    arguments = ("export", f"params:{params}", tmp_path / "out" / "x", "--vocab", vocab, "--num-heads", 4)
    line = refusal(cli(*arguments), tmp_path / "out", code=2)
    assert "its classification head has 3 outputs without names: give --labels with 3 names, in the order" in line
    assert line.endswith("; --headless exports the encoder alone")
    line = refusal(cli(*arguments, "--labels", "no,yes"), tmp_path / "out", code=2)
    assert "--labels: 2 names (no, yes), but the head has 3 outputs: give 3 names" in line


@pytest.mark.parametrize("name", ["classifier.0", "classifier.2", "classifier", "span_classifier"])
def test_another_head_is_refused_by_name(name: str, cli: Cli, vocab: Path, tmp_path: Path) -> None:
    bert_model(CONFIG, hugging_face_weights()).save_parameters(str(tmp_path / "bert.params"))
    arrays = {f"bert.{key}": array for key, array in mx.nd.load(str(tmp_path / "bert.params")).items()}
    head = {f"{name}.weight": mx.nd.ones((3, 32)), f"{name}.bias": mx.nd.ones(3)}
    if name == "classifier.0":  # two layers
        head.update({"classifier.1.weight": mx.nd.ones((3, 32)), "classifier.1.bias": mx.nd.ones(3)})
    mx.nd.save(str(tmp_path / "net.params"), {**arrays, **head})
    arguments = ("--vocab", vocab, "--num-heads", 4, "--labels", "a,b,c")
    line = refusal(
        cli("export", f"params:{tmp_path / 'net.params'}", tmp_path / "out" / "x", *arguments), tmp_path / "out"
    )
    assert "--headless exports the encoder alone" in line
    assert name in line or "BertForQA with 3 outputs" in line
