"""The clients in other languages print the predictions of every kind of task, by the signature."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
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

from bertsym import BundleTokenizer, DataError, Encoder, export, load

Line = list[object]

CLASSES = [*LABELS.values()]
#: task, and what is special of it; but for qa, texts are truncated without a stride
CASES = (
    "embedding",
    *("multilabel", "multilabel, thresholds and windows", "regression, sigmoid and windows"),
    *("tagging, windows", "qa, no answer", "qa, mpnet"),
)
# Where the printing is that of the Java client, an output for each text and one for each token.
FEW_CASES = ("regression, sigmoid and windows", "qa, mpnet")


@dataclass(frozen=True)
class Case:
    """A bundle, inputs, what a client prints for them, and the number of texts that are truncated."""

    prefix: Path
    rows: list[Record]
    table: list[Line]
    truncated: int


def pairs() -> tuple[list[str], list[str]]:
    """Questions and contexts of the tiny vocabulary, whose contexts differ in length; two need several windows."""
    rng = np.random.default_rng(3)
    questions = [" ".join(rng.choice(WORDS, size)) for size in (3, 1, 2, 4, 1, 2)]
    contexts = [" ".join(rng.choice(WORDS, size)) for size in (5, 90, 1, 20, 50, 8)]
    return questions, contexts


def texts_of(task: str) -> Sequence[Any]:
    """The arguments of predict."""
    questions, contexts = pairs()
    # The second word of the last sentence has no token.
    return [[*contexts[:-1], ["the", "\x07", "cat"]]] if task == "tagging" else [questions, contexts]


def rows_of(prefix: Path, arguments: Sequence[Any]) -> list[Record]:
    tokenizer = BundleTokenizer.open(prefix)
    rows: list[Record] = []
    for number, example in enumerate((each for chunk in tokenizer.text_examples(*arguments) for each in chunk), 1):
        assert not isinstance(example, DataError)
        rows += tokenizer.records(example, number)
    return rows


def middle(values: Iterable[Any]) -> list[float]:
    """Thresholds half way between the middle two of the values of each column."""
    found: list[float] = np.median(np.array([*values]), axis=0).tolist()
    return found


def change_settings(prefix: Path, **settings: object) -> None:
    bundle = SignedBundle(prefix)
    bundle.signature["task_settings"].update(settings)
    bundle.write(prefix)


def case_of(name: str, folder: Path) -> Case:
    task, _, variant = name.partition(", ")
    if task == "embedding":
        source = write_sentence_folder(folder / "hf", ("Pooling", POOLING), ("Dense", dense(32, 4)), ("Normalize", {}))
    elif variant == "mpnet":
        source = write_family(folder / "hf", "mpnet", task)
    else:
        source = write_headed(folder / "hf", task, headed_weights(task, seed=4))
    prefix = export(f"hf:{source}", folder / "m", verify=False).bundle.prefix
    if "windows" in variant:
        change_settings(prefix, stride=6)
    arguments = texts_of(task)
    if task == "embedding":
        embeddings = Encoder(prefix).encode(*arguments)
        return Case(prefix, rows_of(prefix, arguments), [list(row) for row in embeddings], 2)

    def predict() -> list[Any]:
        predictor: Any = load(prefix)  # whose class, and so the arguments of predict, depends on the task
        found: list[Any] = predictor.predict(*arguments)
        return found

    found = predict()
    if "thresholds" in variant:
        change_settings(
            prefix, thresholds=middle([*each.probabilities.values()] for each in found), label_delimiter="; "
        )
    elif "sigmoid" in variant:
        change_settings(prefix, sigmoid=True)
    elif variant == "no answer":
        margins = (np.log(each.no_answer_score) - np.log(each.best[0].score) for each in found)
        change_settings(prefix, no_answer_threshold=float(np.median([*margins])))
    found = predict()
    table: list[Line]
    if task == "multilabel":
        assert len({len(each.labels) for each in found}) > 1
        table = [["labels", *(f"p({label})" for label in CLASSES)]]
        table += [[each.delimiter.join(each.labels), *each.probabilities.values()] for each in found]
    elif task == "regression":
        table = [["value"], *[[each.value] for each in found]]
    elif task == "tagging":
        assert {tag for each in found for tag in each.tags} > {None}
        table = [["tags"]]
        table += [[" ".join(tag or "_" for tag in each.tags)] for each in found]
    else:
        places = [["", ""] if each.answer is None else [each.answer.start, each.answer.end] for each in found]
        assert ("" in places[0] + places[1]) == (variant == "no answer")
        table = [["start", "end", "score", "no_answer"]]
        table += [[*place, each.best[0].score, each.no_answer_score] for place, each in zip(places, found)]
    rows = rows_of(prefix, arguments)
    assert (len(rows) > len(found)) == (task == "qa" or "windows" in variant)
    return Case(prefix, rows, table, sum(each.truncated for each in found))


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
def test_predictions_are_those_of_python(language: str, case: Case) -> None:
    """Of long texts too, and those that were truncated are counted."""
    result = run(language, case.prefix, stdin=as_json_lines(case.rows))
    expected = "".join("\t".join(map(str, line)) + "\n" for line in case.table)
    # Embeddings are printed without a header.
    header = "" if isinstance(case.table[0][0], str) else "\t".join("x" for _ in case.table[0]) + "\n"
    assert compare(header + output(result), header + expected) <= 1e-5
    warnings = [line for line in result.stderr.splitlines() if line.startswith("warning: ")]
    assert warnings == [f"warning: {case.truncated} of 6 texts were truncated"] * (case.truncated > 0)


@pytest.fixture(scope="module")
def qa(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("qa")
    return export(f"hf:{write_headed(folder / 'hf', 'qa')}", folder / "m", verify=False).bundle.prefix


@each_with_its_own_reader
def test_a_question_without_a_context_is_refused(language: str, qa: Path) -> None:
    """Its only spans would be those of the question; so is a row without the places of its tokens."""
    first, the, cat, last = (VOCABULARY.index(token) for token in ("[CLS]", "the", "cat", "[SEP]"))
    offsets = [None, None, None, [0, 3], None]
    pair: Record = {"data0": [first, the, last, cat, last], "data1": [0, 0, 0, 1, 1], "data2": 5, "offsets": offsets}
    single: Record = {"data0": [first, the, cat, last], "data1": [0, 0, 0, 0], "data2": 4}
    line = error_line(run(language, qa, stdin=as_json_lines([pair, {**single, "offsets": [None] * 4}])))
    assert line == "error: row 2: no second text: a question needs a context"
    line = error_line(run(language, qa, stdin=as_json_lines([pair, single])))
    assert line == "error: row 2: no offsets: write the inputs with bertsym tokenize"
