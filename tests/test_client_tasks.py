"""The clients in other languages print the predictions of every kind of task, by the signature."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import VOCABULARY, WORDS
from family_folders import write_family
from headed import LABELS, headed_weights, write_headed
from sentence_folders import POOLING, dense, write_sentence_folder
from signed_bundle import SignedBundle
from test_clients import (
    LANGUAGES,
    OWN_READERS,
    Record,
    as_json_lines,
    compare,
    each_with_its_own_reader,
    error_line,
    output,
    run,
)

from bertsym import Bundle, BundleTokenizer, export
from bertsym.inference.mxnet_predictor import MXNetPredictor
from bertsym.symbol.params import Array
from bertsym.text.features import Features
from bertsym.text.tokenizer import Encoded

Line = list[object]

CLASSES = [*LABELS.values()]
CASES = (
    "embedding",
    *("multilabel", "multilabel, thresholds", "regression", "regression, sigmoid", "tagging", "qa", "qa, no answer"),
    "qa, mpnet",
)
# Where the printing is that of the Java client, an output for each text and one for each token.
FEW_CASES = ("regression", "qa, mpnet")


@dataclass(frozen=True)
class Case:
    """A bundle, inputs, and what a client prints for them."""

    prefix: Path
    rows: list[Record]
    table: list[Line]


def pairs() -> tuple[list[str], list[str]]:
    """Questions and contexts of the tiny vocabulary, whose contexts differ in length and may be longer than 30."""
    rng = np.random.default_rng(3)
    questions = [" ".join(rng.choice(WORDS, size)) for size in (3, 1, 2, 4, 1, 2)]
    contexts = [" ".join(rng.choice(WORDS, size)) for size in (5, 35, 1, 20, 32, 8)]
    return questions, contexts


def encoded(prefix: Path) -> list[Encoded]:
    return [window for windows in BundleTokenizer.open(prefix).encode_windows(*pairs()) for window in windows]


def outputs_of(prefix: Path, windows: list[Encoded], per_token: bool) -> list[Array]:
    """What the predictor of Python computes, without padding."""
    predictor = MXNetPredictor.from_bundle(Bundle.open(prefix))
    return predictor.each(Features(windows), lambda values, row: values[: len(row.token_ids)] if per_token else values)


def best_span(logits: Array, window: Encoded) -> tuple[int, int, float, float]:
    """First and last token of the best span of the context, its score, and that of no answer."""
    assert window.alignment is not None
    context = np.flatnonzero(window.alignment.texts == 1)
    spans = [(i, j) for i in context for j in context if i <= j < i + 30]
    scores = [float(logits[i, 0]) + float(logits[j, 1]) for i, j in spans]
    best = int(np.argmax(scores))
    return (*spans[best], scores[best], float(logits[0].sum()))


def middle(values: Array) -> list[float]:
    """Thresholds half way between the middle two of the values of each column."""
    found: list[float] = np.median(values, axis=0).tolist()
    return found


def case_of(name: str, folder: Path) -> Case:
    task, _, variant = name.partition(", ")
    if task == "embedding":
        source = write_sentence_folder(folder / "hf", ("Pooling", POOLING), ("Dense", dense(32, 4)), ("Normalize", {}))
    elif variant == "mpnet":
        source = write_family(folder / "hf", "mpnet", task)
    else:
        source = write_headed(folder / "hf", task, headed_weights(task, seed=4))
    prefix = export(f"hf:{source}", folder / "m", verify=False).bundle.prefix
    windows = encoded(prefix)
    outputs = outputs_of(prefix, windows, task in ("tagging", "qa"))
    settings: dict[str, Any] = {}
    table: list[Line]
    if task == "embedding":
        table = [list(row) for row in outputs]
    elif task == "multilabel":
        delimiter, thresholds = ",", [0.5] * len(CLASSES)
        if variant:
            delimiter, thresholds = "; ", middle(np.array(outputs))
            settings = {"thresholds": thresholds, "label_delimiter": delimiter}
        labels = [[c for c, value, least in zip(CLASSES, row, thresholds) if value >= least] for row in outputs]
        assert len({len(row) for row in labels}) > 1
        table = [["labels", *(f"p({c})" for c in CLASSES)]]
        table += [[delimiter.join(row), *values] for row, values in zip(labels, outputs)]
    elif task == "regression":
        settings = {"sigmoid": True} if variant else {}
        values = np.array(outputs)
        table = [["value"], *(1 / (1 + np.exp(-values)) if variant else values).astype(object)]
    elif task == "tagging":
        tags = [[CLASSES[best] for best in row.argmax(axis=1)] for row in outputs]
        assert len({tag for row in tags for tag in row}) > 1
        table = [["tags"]]
        table += [[" ".join(row)] for row in tags]
    else:
        spans = [best_span(logits, window) for logits, window in zip(outputs, windows)]
        assert len({end - start for start, end, *_ in spans}) > 1
        threshold = np.inf
        if variant == "no answer":
            (threshold,) = middle(np.array([[no_answer - score] for *_, score, no_answer in spans]))
            settings = {"no_answer_threshold": threshold}
        table = [["start", "end", "score", "no_answer"]]
        for start, end, score, no_answer in spans:
            has_none = no_answer - score > threshold
            table.append(["" if has_none else start, "" if has_none else end, score, no_answer])
    if settings:
        bundle = SignedBundle(prefix)
        bundle.signature["task_settings"].update(settings)
        bundle.write(prefix)
    names = Bundle.open(prefix).signature.input_names
    return Case(prefix, list(Features(windows).inputs(names)), table)


@pytest.fixture(scope="module")
def case(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Case:
    return case_of(request.param, tmp_path_factory.mktemp("case"))


@pytest.mark.parametrize(
    ("case", "language"),
    [
        pytest.param(case, *language.values, marks=language.marks)
        for case in CASES
        for language in (LANGUAGES if case in FEW_CASES else OWN_READERS)
    ],
    indirect=["case"],
)
def test_predictions_are_those_of_the_outputs_that_python_computes(language: str, case: Case) -> None:
    printed = output(run(language, case.prefix, stdin=as_json_lines(case.rows)))
    expected = "".join("\t".join(map(str, line)) + "\n" for line in case.table)
    # Embeddings are printed without a header.
    header = "" if isinstance(case.table[0][0], str) else "\t".join("x" for _ in case.table[0]) + "\n"
    assert compare(header + printed, header + expected) <= 1e-5


@pytest.fixture(scope="module")
def qa(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("qa")
    return export(f"hf:{write_headed(folder / 'hf', 'qa')}", folder / "m", verify=False).bundle.prefix


@each_with_its_own_reader
def test_a_question_without_a_context_is_refused(language: str, qa: Path) -> None:
    """Its only spans would be those of the question."""
    first, the, cat, last = (VOCABULARY.index(token) for token in ("[CLS]", "the", "cat", "[SEP]"))
    pair: Record = {"data0": [first, the, last, cat, last], "data1": [0, 0, 0, 1, 1], "data2": 5}
    single: Record = {"data0": [first, the, cat, last], "data1": [0, 0, 0, 0], "data2": 4}
    line = error_line(run(language, qa, stdin=as_json_lines([pair, single])))
    assert line == "error: row 2: no second text: a question needs a context"
