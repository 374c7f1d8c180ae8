"""JSON from outside is parsed without ambiguity, and a value of a wrong type is an error that names file and key."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from bertsym.errors import BertsymError, DataError, ModelError
from bertsym.json_reader import MAX_DEPTH, MAX_DIGITS, JsonValue, json_object, parse_json, read_json

Read = Callable[[JsonValue], Any]


def value_of(text: str) -> JsonValue:
    return json_object(f'{{"key": {text}}}', "config.json")["key"]


# Parsing


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"a": 1, "a": 1}', 'the key "a" is repeated'),
        ('{"nodes": [{}, {"attrs": {"k": "1", "k": "2"}}]}', 'nodes[1].attrs: the key "k" is repeated'),
        ('{"a": {"x": 1, "x": 2}, "a": 3}', 'the key "x" is repeated'),
        ('{"a": "\\ud800"}', "a lone surrogate"),
        ('{"\\udc00": 1}', "a lone surrogate"),
        ('{"a": NaN}', "NaN is not a JSON number"),
        ('{"a": -Infinity}', "-Infinity is not a JSON number"),
        ('{"a": 1e999}', "the number 1e999 is beyond the range of float64"),
        ('{"a": 1' + "0" * MAX_DIGITS + "}", f"a number of {MAX_DIGITS + 1} digits"),
        ("[" * MAX_DEPTH + "[]" + "]" * MAX_DEPTH, f"more than {MAX_DEPTH} levels"),
        ("[" * 100_000, f"more than {MAX_DEPTH} levels"),
        ('{"a": 01}', "delimiter"),
        ('{"a": 1} {}', "Extra data: line 1 column 10"),
        ("\ufeff{}", "BOM"),
        ("", "Expecting value: line 1 column 1"),
    ],
)
def test_text_that_parsers_read_differently_is_refused(text: str, message: str) -> None:
    with pytest.raises(ValueError) as caught:  # noqa: PT011
        parse_json(text)
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ('{"a": [1, 2.5, "x", null, true]}', {"a": [1, 2.5, "x", None, True]}),
        ('"\\ud83d\\ude00"', "\U0001f600"),
        ('"a\tb"', "a\tb"),
        ("[" * MAX_DEPTH + "]" * MAX_DEPTH, None),
        ("1" + "0" * (MAX_DIGITS - 1), 10 ** (MAX_DIGITS - 1)),
    ],
)
def test_other_json_is_parsed_as_by_python(text: str, value: Any) -> None:
    found = parse_json(text)
    assert value is None or found == value


def test_a_repeated_key_is_found_in_a_large_object() -> None:
    """In linear time: a search that compared all pairs would take hours."""
    keys = ", ".join(f'"{i}": 0' for i in range(300_000))
    with pytest.raises(ValueError, match='the key "299999" is repeated'):
        parse_json("{" + keys + ', "299999": 1}')


# Files


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"\xff{}", "not UTF-8 text: byte 0 is 0xff"),
        (b"{", "not valid JSON: Expecting property name"),
        (b"[1]", "an array is not a JSON object"),
        (None, "No such file or directory"),
    ],
)
def test_a_file_without_a_json_object_is_refused_by_name(tmp_path: Path, content: bytes | None, message: str) -> None:
    path = tmp_path / "config.json"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(DataError) as caught:
        read_json(path, DataError)
    assert str(caught.value).startswith(f"{path}: ")
    assert message in str(caught.value)


# Values


@pytest.mark.parametrize(
    ("read", "text", "value"),
    [
        (JsonValue.integer, "-3", -3),
        (JsonValue.number, "3", 3),
        (JsonValue.number, "1e300", 1e300),
        (JsonValue.boolean, "false", False),
        (JsonValue.text, '""', ""),
        (JsonValue.texts, '["a", "b"]', ("a", "b")),
        (JsonValue.object, '{"a": [1]}', {"a": [1]}),
        (JsonValue.file_name, '"model-00001.safetensors"', "model-00001.safetensors"),
        (lambda value: value.integer(0, 3), "3", 3),
        (lambda value: value.choice("a", None), "null", None),
        (lambda value: value.optional(JsonValue.text), "null", None),
        (lambda value: value.optional(JsonValue.text), '"a"', "a"),
        (lambda value: [element.integer() for element in value.elements(2, 2)], "[1, 2]", [1, 2]),
        (lambda value: {key: inner.integer() for key, inner in value.items()}, '{"a": 1}', {"a": 1}),
        (lambda value: value.get("a").is_null, "{}", True),
        (lambda value: value.get("a", 7).integer(), "{}", 7),
    ],
)
def test_a_value_is_read_by_its_type(read: Read, text: str, value: Any) -> None:
    assert read(value_of(text)) == value


@pytest.mark.parametrize(
    ("read", "text", "message"),
    [
        (JsonValue.integer, '"12"', '"12" is not an integer'),
        (JsonValue.integer, "true", "true is not an integer"),
        (JsonValue.integer, "1.0", "1.0 is not an integer"),
        (JsonValue.integer, "9007199254740993", "9007199254740993 is not in the range"),
        (lambda value: value.integer(1, 4), "0", "0 is not in the range 1 to 4"),
        (JsonValue.number, "null", "null is not a number"),
        (JsonValue.number, "1" + "0" * 400, "... is not in the range -inf to inf"),
        (lambda value: value.number(0, 1), "1.5", "1.5 is not in the range 0 to 1"),
        (JsonValue.boolean, "1", "1 is not true or false"),
        (JsonValue.text, "[]", "an array is not a string"),
        (JsonValue.texts, '["a", null]', "null is not a string"),
        (JsonValue.items, "[]", "an array is not an object"),
        (JsonValue.elements, "{}", "an object is not an array"),
        (lambda value: value.elements(2, 2), "[1]", "1 elements, expected 2"),
        (lambda value: value.elements(2), "[1]", "1 elements, expected at least 2"),
        (lambda value: value["a"], "{}", 'the key "a" is missing'),
        (lambda value: value.get("a"), "3", "3 is not an object"),
        (lambda value: value.choice("a", None), "1", '1 is not one of "a", null'),
        (lambda value: value.choice(1), "true", "true is not one of 1"),
        (JsonValue.text, "null", "null is not a string"),
        (JsonValue.integer, '"' + "x" * 500 + '"', "... is not an integer"),
        (JsonValue.integer, '"\\u001b[2J"', '"\\u001b[2J" is not an integer'),
        *[
            (JsonValue.file_name, text, f"{text} is not a file name")
            for text in ('""', '".."', '"a/b"', '"a\\\\b"', '"a\\u0000b"')
        ],
        (JsonValue.file_name, '"' + "é" * 128 + '"', "is not a file name"),
    ],
)
def test_a_value_of_another_type_is_refused_with_file_and_key(read: Read, text: str, message: str) -> None:
    with pytest.raises(ModelError) as caught:
        read(value_of(text))
    line = str(caught.value)
    assert line.startswith("config.json: key")
    assert message in line
    assert line.isprintable()
    assert len(line) < 200


def test_the_path_of_a_key_is_that_of_javascript() -> None:
    document = json_object('{"files": {"symbol.json": {"size": [0, "1"]}}}', "m.json", DataError)
    with pytest.raises(BertsymError) as caught:
        document["files"]["symbol.json"]["size"].elements()[1].integer()
    assert type(caught.value) is DataError
    assert str(caught.value) == 'm.json: files["symbol.json"].size[1]: "1" is not an integer'
