"""Parse untrusted JSON without ambiguity and read it by type; every error names the file and the key."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from bertsym.errors import BertsymError, ModelError
from bertsym.file_reader import read_bytes

MAX_DEPTH = 64  #: levels of nesting; more would exhaust Python's stack in recursive code
MAX_DIGITS = 1000  #: digits of a number; Python's own limit is 4300 and depends on the environment
MAX_FILE_NAME = 255  #: bytes
MAX_INTEGER = 2**53  #: the largest integer that every JSON parser reads exactly

_SHOWN = 60  # characters of a value in a message
_IDENTIFIER = re.compile(r"[A-Za-z_][\w-]*", re.ASCII)

T = TypeVar("T")


def parse_json(text: str) -> Any:
    """Parse JSON and refuse what parsers read differently; control characters in strings are allowed.

    Raises ValueError for text that is not JSON, a repeated key, a lone surrogate in a string, NaN or an infinity, a
    number of more than MAX_DIGITS digits, and more than MAX_DEPTH levels of nesting.
    """
    repeated: list[tuple[dict[str, Any], str]] = []

    def to_object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found = dict(pairs)
        if len(found) < len(pairs):
            repeated.append((found, _first_repeated(key for key, _ in pairs)))
        return found

    try:
        value = json.loads(
            text,
            strict=False,
            object_pairs_hook=to_object,
            parse_int=_integer,
            parse_float=_decimal,
            parse_constant=_refuse_constant,
        )
    except json.JSONDecodeError as error:
        raise ValueError(f"not valid JSON: {error}") from None
    except RecursionError:
        raise ValueError(f"more than {MAX_DEPTH} levels of arrays and objects") from None
    _check_depth(value)
    if repeated:
        owner, key = repeated[0]
        path = next((path for path, inner in _objects(value) if inner is owner), "")
        raise ValueError(f"{f'{path}: ' if path else ''}the key {_shown(key)} is repeated")
    if "\\ud" in text.lower():
        try:
            json.dumps(value, ensure_ascii=False).encode()
        except UnicodeEncodeError:
            raise ValueError("a string has a lone surrogate, which is not valid Unicode") from None
    return value


def read_json(path: str | Path, error: type[BertsymError] = ModelError) -> JsonValue:
    """Read a file that holds a JSON object; raises `error`, which names the file, also if the file does not exist."""
    return json_object(_read_text(path, error), str(path), error)


def read_json_array(path: str | Path, error: type[BertsymError] = ModelError) -> JsonValue:
    """Read a file that holds a JSON array; raises `error` as `read_json` does."""
    return _parse(_read_text(path, error), str(path), error, list, "a JSON array")


def json_object(text: str, where: str, error: type[BertsymError] = ModelError) -> JsonValue:
    """Parse a text that holds a JSON object; raises `error`, whose message begins with `where`."""
    return _parse(text, where, error, dict, "a JSON object")


def _read_text(path: str | Path, error: type[BertsymError]) -> str:
    try:
        return read_bytes(path).decode("utf-8")
    except OSError as fault:
        raise error(f"{path}: {fault.strerror}") from None
    except UnicodeDecodeError as fault:
        raise error(f"{path}: not UTF-8 text: byte {fault.start} is 0x{fault.object[fault.start]:02x}") from None


def _parse(text: str, where: str, error: type[BertsymError], kind: type, name: str) -> JsonValue:
    try:
        value = parse_json(text)
    except ValueError as fault:
        raise error(f"{where}: {fault}") from None
    if type(value) is not kind:
        raise error(f"{where}: {_shown(value)} is not {name}")
    return JsonValue(value, where, error=error)


@dataclass(frozen=True)
class JsonValue:
    """A value in a JSON document, with the file and the path of its key.

    >>> config = JsonValue({"num_hidden_layers": "12"}, "config.json")
    >>> config["num_hidden_layers"].integer(1, 256)
    Traceback (most recent call last):
    bertsym.errors.ModelError: config.json: num_hidden_layers: "12" is not an integer

    The methods that read a type raise `error` for a value of another type.
    """

    raw: Any  #: the value in the types of Python's json module
    where: str
    path: str = ""
    error: type[BertsymError] = ModelError

    def __getitem__(self, key: str) -> JsonValue:
        """Return the value of an object's key; raises `error` if the key is missing."""
        self._check(dict, "an object")
        if key not in self.raw:
            raise self.fault(f"the key {_shown(key)} is missing")
        return JsonValue(self.raw[key], self.where, _join_path(self.path, key), self.error)

    def __contains__(self, key: str) -> bool:
        self._check(dict, "an object")
        return key in self.raw

    def get(self, key: str, default: Any = None) -> JsonValue:
        """Return the value of an object's key, or `default` if the key is missing."""
        self._check(dict, "an object")
        return JsonValue(self.raw.get(key, default), self.where, _join_path(self.path, key), self.error)

    def items(self) -> Iterator[tuple[str, JsonValue]]:
        """Iterate over the keys and values of an object."""
        self._check(dict, "an object")
        return ((key, self[key]) for key in self.raw)

    def elements(self, least: int = 0, most: int | None = None) -> list[JsonValue]:
        """Return the elements of an array of `least` to `most` elements."""
        self._check(list, "an array")
        if not least <= len(self.raw) <= (len(self.raw) if most is None else most):
            raise self.fault(f"{len(self.raw)} elements, expected {_range(least, most)}")
        return [
            JsonValue(element, self.where, f"{self.path}[{index}]", self.error)
            for index, element in enumerate(self.raw)
        ]

    @property
    def is_null(self) -> bool:
        """Whether the value is null."""
        return self.raw is None

    @property
    def is_text(self) -> bool:
        """Whether the value is a string."""
        return isinstance(self.raw, str)

    def optional(self, read: Callable[[JsonValue], T]) -> T | None:
        """Return `read(value)`, or None for null."""
        return None if self.is_null else read(self)

    def object(self) -> dict[str, Any]:
        """Return an object as a dictionary; its values are not checked."""
        self._check(dict, "an object")
        found: dict[str, Any] = self.raw
        return found

    def text(self) -> str:
        """Return a string."""
        self._check(str, "a string")
        found: str = self.raw
        return found

    def texts(self) -> tuple[str, ...]:
        """Return an array of strings."""
        self._check(list, "an array")
        if not all(type(element) is str for element in self.raw):
            return tuple(element.text() for element in self.elements())  # which names the element
        return tuple(self.raw)

    def choice(self, *choices: T) -> T:
        """Return the value, which must be one of `choices`: strings, numbers, booleans or None for null."""
        for choice in choices:
            if type(choice) is type(self.raw) and choice == self.raw:
                return choice
        raise self.fault(f"{_shown(self.raw)} is not one of {', '.join(map(_shown, choices))}")

    def file_name(self) -> str:
        """Return a file name: a string without a path."""
        name = self.text()
        if name in ("", ".", "..") or set(name) & set("/\\\0") or len(name.encode()) > MAX_FILE_NAME:
            raise self.fault(f"{_shown(name)} is not a file name")
        return name

    def boolean(self) -> bool:
        """Return a boolean."""
        self._check(bool, "true or false")
        return bool(self.raw)

    def integer(self, least: int = -MAX_INTEGER, most: int = MAX_INTEGER) -> int:
        """Return an integer from `least` to `most`; 1.0 is not an integer."""
        self._check(int, "an integer")
        if not least <= self.raw <= most:
            raise self.fault(f"{_shown(self.raw)} is not in the range {least} to {most}")
        return int(self.raw)

    def number(self, least: float = -math.inf, most: float = math.inf) -> float:
        """Return a finite number from `least` to `most`; an integer stays an int."""
        if type(self.raw) not in (int, float):
            raise self.fault(f"{_shown(self.raw)} is not a number")
        # An int of hundreds of digits compares with a float, but does not convert to one.
        if not max(least, -_LARGEST) <= self.raw <= min(most, _LARGEST):
            raise self.fault(f"{_shown(self.raw)} is not in the range {least:g} to {most:g}")
        found: float = self.raw
        return found

    def fault(self, message: str) -> BertsymError:
        """Return an error about the value, whose message begins with the file and the path of the key."""
        return self.error(": ".join(part for part in (self.where, self.path, message) if part))

    def _check(self, kind: type, name: str) -> None:
        if type(self.raw) is not kind:
            raise self.fault(f"{_shown(self.raw)} is not {name}")


_LARGEST = 1.7976931348623157e308  # the largest finite float64


def _join_path(path: str, key: str) -> str:
    """Append a key to a path, in JavaScript's notation: ``files["symbol.json"].size``."""
    if _IDENTIFIER.fullmatch(key):
        return f"{path}.{key}" if path else key
    return f"{path}[{_shown(key)}]"


def _shown(value: Any) -> str:
    """Format a value for a message: as JSON on one line, shortened."""
    if isinstance(value, (dict, list)):
        return "an object" if isinstance(value, dict) else "an array"
    value = value[: 2 * _SHOWN] if isinstance(value, str) else value
    text = json.dumps(value, ensure_ascii=False)
    text = text if text.isprintable() else json.dumps(value)
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}..."


def _range(least: int, most: int | None) -> str:
    if most is None:
        return f"at least {least}"
    return str(least) if least == most else f"{least} to {most}"


def _integer(text: str) -> int:
    if len(text) > MAX_DIGITS:
        raise ValueError(f"a number of {len(text)} digits")
    return int(text)


def _decimal(text: str) -> float:
    number = float(text)
    if math.isinf(number):
        raise ValueError(f"the number {text[:_SHOWN]} is beyond the range of float64")
    return number


def _refuse_constant(text: str) -> float:
    raise ValueError(f"{text} is not a JSON number")


def _first_repeated(keys: Iterable[str]) -> str:
    seen: set[str] = set()
    for key in keys:
        if key in seen:
            break
        seen.add(key)
    return key


def _children(value: Any) -> Iterable[Any]:
    return value.values() if isinstance(value, dict) else value


def _check_depth(value: Any) -> None:
    level = [value] if isinstance(value, (dict, list)) else []
    for _ in range(MAX_DEPTH + 1):
        if not level:
            return
        level = [inner for outer in level for inner in _children(outer) if isinstance(inner, (dict, list))]
    raise ValueError(f"more than {MAX_DEPTH} levels of arrays and objects")


def _objects(value: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """Yield every object in a value, with its path."""
    if isinstance(value, dict):
        yield path, value
        for key, inner in value.items():
            yield from _objects(inner, _join_path(path, key))
    elif isinstance(value, list):
        for index, inner in enumerate(value):
            yield from _objects(inner, f"{path}[{index}]")
