"""Reading questions about contexts: SQuAD's JSON, JSON Lines, tables and lines."""

from __future__ import annotations

import hashlib
import io
import json
from pathlib import Path
from typing import Any

import pytest

from bertsym import DataError, UsageError
from bertsym.datasets.columns import Columns
from bertsym.text.questions import Answer, Question, QuestionReader
from bertsym.text.table_format import TableFormat

CONTEXT = "Ada wrote the first program. She lived in London."


def squad(*questions: Any, context: Any = CONTEXT) -> dict[str, Any]:
    return {"version": "v2.0", "data": [{"title": "Ada", "paragraphs": [{"context": context, "qas": list(questions)}]}]}


def question(answers: Any, **more: Any) -> dict[str, Any]:
    return {"id": "q1", "question": "Who wrote it?", "answers": answers, **more}


def answer(text: Any = "Ada", start: Any = 0) -> dict[str, Any]:
    return {"text": text, "answer_start": start}


def read(path: Path, content: Any, labelled: bool = True, **how: Any) -> list[Question | DataError]:
    if isinstance(content, list):
        content = "".join(json.dumps(line) + "\n" for line in content)
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    reader = QuestionReader(path, TableFormat(**how), labelled)
    found = list(reader.each())
    if path.suffix in (".json", ".jsonl"):
        assert reader.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    return found


def test_squad_has_answers_with_places_or_none(tmp_path: Path) -> None:
    path = tmp_path / "dev.json"
    # The id is a number in GermanQuAD.
    impossible = question([], is_impossible=True, plausible_answers=[answer("London", 42)], id=43)
    found = read(path, squad(question([answer(), answer("wrote", 4)]), impossible))
    assert found == [
        Question(
            f"{path}: data[0].paragraphs[0].qas[0]",
            "Who wrote it?",
            CONTEXT,
            (Answer("Ada", 0), Answer("wrote", 4)),
            "q1",
        ),
        Question(f"{path}: data[0].paragraphs[0].qas[1]", "Who wrote it?", CONTEXT, (), "43"),
    ]
    (unlabelled,) = read(path, squad({"question": "Who?"}), labelled=False)
    assert isinstance(unlabelled, Question)
    assert (unlabelled.answers, unlabelled.id) == (None, None)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (squad(question([answer(start="0")])), 'qas[0].answers[0].answer_start: "0" is not an integer'),
        (squad(question([answer(start=-1)])), "qas[0].answers[0].answer_start: -1 is not in the range"),
        (squad(question([{"text": "Ada"}])), 'qas[0].answers[0]: the key "answer_start" is missing'),
        (squad(question("Ada")), 'qas[0].answers: "Ada" is not an array'),
        (squad({"id": "q1", "question": "Who?"}), 'qas[0]: the key "answers" is missing'),
        (squad({"id": "q1", "question": " ", "answers": []}), "qas[0].question: is empty"),
        (squad(question([]), context=None), "paragraphs[0].context: null is not a string"),
        ({"data": [{"title": "x"}]}, 'data[0]: the key "paragraphs" is missing'),
    ],
)
def test_an_error_in_squad_names_the_key(tmp_path: Path, content: Any, message: str) -> None:
    path = tmp_path / "dev.json"
    (found,) = read(path, content)
    assert isinstance(found, DataError)
    assert str(found).startswith(f"{path}: data[0]")
    assert message in str(found)


@pytest.mark.parametrize(
    ("content", "message"),
    [({"version": "2.0"}, 'the key "data" is missing'), ("[1]", "is not a JSON object"), ("{", "not valid JSON")],
)
def test_a_file_that_is_not_squad_is_an_error(tmp_path: Path, content: Any, message: str) -> None:
    with pytest.raises(DataError, match=message):
        read(tmp_path / "dev.json", content)


def test_a_question_after_a_bad_one_is_read(tmp_path: Path) -> None:
    bad, good = read(tmp_path / "dev.json", squad(question([answer(start=None)]), question([answer()])))
    assert isinstance(bad, DataError)
    assert isinstance(good, Question)


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"answers": {"text": ["Ada"], "answer_start": [0]}}, (Answer("Ada", 0),)),
        ({"answers": {"text": [], "answer_start": []}}, ()),
        ({"answers": [answer("London", 42)]}, (Answer("London", 42),)),
        ({"answers": ["London", "Ada"]}, (Answer("London"), Answer("Ada"))),
        ({"answer": "London"}, (Answer("London"),)),
        ({"answer": None}, ()),
        ({"answer": ""}, ()),
        ({"answers": [answer()], "is_impossible": True}, ()),
    ],
)
def test_answers_of_json_lines_have_several_forms(tmp_path: Path, fields: Any, expected: Any) -> None:
    line = {"question": "Who?", "context": CONTEXT, "id": 7, **fields}
    path = tmp_path / "dev.jsonl"
    assert read(path, [line]) == [Question(f"{path}, line 1", "Who?", CONTEXT, expected, "7", 1)]
    (same,) = read(tmp_path / "lines.json", [line])
    assert isinstance(same, Question)
    assert same.answers == expected


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ({"question": "Who?"}, 'line 1: the key "context" is missing'),
        ({"question": "Who?", "context": 5, "answer": "x"}, "line 1: context: 5 is not a string"),
        ({"question": "Who?", "context": CONTEXT}, "line 1: expected one of the keys 'answers' and 'answer'"),
        ({"question": "Who?", "context": CONTEXT, "answer": 5}, "line 1: answer: 5 is not an array"),
        (
            {"question": "Who?", "context": CONTEXT, "answers": {"text": ["a", "b"], "answer_start": [1]}},
            "line 1: answers: 2 texts but 1 values of answer_start",
        ),
    ],
)
def test_an_error_in_json_lines_names_the_line(tmp_path: Path, line: Any, message: str) -> None:
    (found,) = read(tmp_path / "dev.jsonl", [line])
    assert isinstance(found, DataError)
    assert message in str(found)


@pytest.mark.parametrize(
    ("found", "place"),
    [
        (Answer("Ada", 0), (0, 3)),
        (Answer("London", 42), (42, 48)),
        (Answer("London"), (42, 48)),
        (Answer("Ada", 1), None),
        (Answer("Paris"), None),
        (Answer("London.", 900), None),
        (Answer("", 0), None),
    ],
)
def test_an_answer_has_a_place_if_it_is_in_its_context(found: Answer, place: Any) -> None:
    assert found.place(CONTEXT) == place


def test_questions_of_tables_and_streams_have_no_answers(tmp_path: Path) -> None:
    table = f"id\tquestion\tcontext\nq1\tWho?\t{CONTEXT}\n"
    (found,) = read(tmp_path / "dev.tsv", table, labelled=False)
    assert isinstance(found, Question)
    assert (found.question, found.context, found.answers, found.line) == ("Who?", CONTEXT, None, 2)
    (named,) = read(tmp_path / "dev.csv", "q,c\nWho?,Ada\n", labelled=False, columns=Columns("q", "c"))
    assert isinstance(named, Question)
    assert named.context == "Ada"
    stream = QuestionReader(io.BytesIO(f"Who?\t{CONTEXT}\nWho?\n".encode()), labelled=False)
    good, bad = stream.each()
    assert isinstance(good, Question)
    assert good.context == CONTEXT
    assert "standard input, line 2: 1 columns, two texts expected" in str(bad)


def test_a_labelled_table_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"must be SQuAD's JSON \(.json\) or JSON Lines"):
        read(tmp_path / "dev.tsv", "question\tcontext\tanswer\n")
    with pytest.raises(DataError, match="which column is the context"):
        read(tmp_path / "dev.tsv", "question\tid\nWho?\tq1\n", labelled=False)
