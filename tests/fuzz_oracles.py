"""Answers from elsewhere, to which those of accepted mutations are compared.

Ids by the ``tokenizers`` library, probabilities by mxnet alone, exports by the numpy reference, rows by counting lines.
"""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from command_runner import Run
from conftest import hugging_face_weights
from reference import bert_forward
from signed_bundle import SignedBundle
from symbol_values import compute

from bertsym.array import Array
from bertsym.mxnet_runtime import mx

#: Largest difference of a probability, and of an encoder's output as a fraction of its scale.
PROBABILITY, RELATIVE = 1e-4, 1e-4
csv.field_size_limit(1 << 25)


def printed_inputs(run: Run) -> list[dict[str, Any]]:
    """What ``bertsym tokenize`` printed: data0, data1, data2 of each row."""
    return [json.loads(line) for line in run.out.splitlines()]


# Tokenizers


def differing_ids(
    tokenizer: Path, texts: Sequence[str], tokenized: Run, limit: int, has_segments: bool = True
) -> str | None:
    """Which text the tokenizers library encodes otherwise; texts that reach `limit` tokens are not compared.

    Without segments, all token types are 0. The parts of the file that do not affect encoding without truncation and
    padding are ignored.
    """
    from tokenizers import Tokenizer

    document = json.loads(tokenizer.read_text())
    pipeline = Tokenizer.from_str(json.dumps({**document, "truncation": None, "padding": None, "decoder": None}))
    inputs = printed_inputs(tokenized)
    if len(texts) != len(inputs):
        return f"{len(texts)} texts, {len(inputs)} rows printed"
    for text, row in zip(texts, inputs):
        expected = pipeline.encode(text)
        types = expected.type_ids if has_segments else [0] * len(expected.ids)
        if len(expected.ids) < limit and (expected.ids, types) != (row["data0"], row["data1"]):
            return f"{text!r:.80}: {row['data0']} {row['data1']}, not {expected.ids} {types}"
    return None


# Models


def computed_by_mxnet(prefix: Path, inputs: Mapping[str, Any]) -> Array:
    """The first output that mxnet computes from PREFIX's files for one row, as the files declare it."""
    arrays = mx.nd.load(f"{prefix}-0000.params")
    values = {name.partition(":")[2]: array.asnumpy() for name, array in arrays.items()}
    for name, value in inputs.items():
        values[name] = np.array([value], np.float32)
    output: Array = compute(Path(f"{prefix}-symbol.json").read_text(), values)[0][0]
    return output


def differing_probabilities(prefix: Path, predicted: Run, tokenized: Run) -> str | None:
    """Which row of ``bertsym predict`` differs from what mxnet computes, or which label is not the most probable."""
    inputs = printed_inputs(tokenized)
    header, *lines = predicted.out.split("\n")[:-1]
    names = [name[2:-1] for name in header.split("\t")[1:]]
    if len(lines) != len(inputs):
        return f"{len(inputs)} rows tokenized, {len(lines)} predicted"
    for line, row in zip(lines, inputs):
        label, *numbers = line.split("\t")
        printed = np.array(numbers, np.float64)
        expected = computed_by_mxnet(prefix, row)
        if printed.shape != expected.shape or not np.abs(printed - expected).max() <= PROBABILITY:
            return f"probabilities {printed} where mxnet computes {expected}"
        if label not in names or printed[names.index(label)] != printed.max():
            return f"label {label!r} of {dict(zip(names, printed))}"
    return None


def differing_outputs(prefix: Path, other: Path) -> str | None:
    """How the output of one bundle differs from that of another, for one row, as mxnet computes both."""
    inputs = {"data0": [3, 7, 9, 11, 4], "data1": [0] * 5, "data2": 5}
    before, after = computed_by_mxnet(prefix, inputs), computed_by_mxnet(other, inputs)
    if before.shape == after.shape and np.abs(before - after).max() <= RELATIVE * np.abs(before).max():
        return None
    return f"the output {before} became {after}"


def differing_export(prefix: Path, config_file: Path) -> str | None:
    """How the [CLS] output of an exported model differs from the numpy reference with this config.json."""
    config = {"layer_norm_eps": 1e-12, **json.loads(config_file.read_text())}
    ids = np.array([[3, 7, 9, 11, 4]])
    expected = bert_forward(hugging_face_weights(), config, ids, np.zeros_like(ids), np.array([5])).cls[0]
    output = computed_by_mxnet(prefix, {"data0": ids[0], "data1": np.zeros(5), "data2": 5})
    difference = float(np.abs(output - expected).max() / np.abs(expected).max())
    return None if difference <= RELATIVE else f"differs from the reference by {difference:.1e} of the scale"


# Tables


def table_rows(content: bytes, kind: str) -> list[tuple[int, dict[str, str]]] | None:
    """The line number of each row, and its cells by the names of the header where they are plain.

    None for a CSV file with lone quotation marks or carriage returns, whose rows are not its lines.
    """
    lines = content.removeprefix(b"\xef\xbb\xbf").split(b"\n")
    lines = lines[:-1] if not lines[-1] else lines
    if kind == "csv" and (b"\r" in content or any(line.count(b'"') % 2 or b'""' in line for line in lines)):
        return None
    records = [_record(line, kind) for line in lines]
    if kind == "jsonl":
        return list(enumerate((record if isinstance(record, dict) else {} for record in records), 1))
    first = next((i for i, line in enumerate(lines) if line.strip(b"\r")), 0)
    header, *rows = records[first:] or [[]]
    plain = len({*header}) == len(header)
    return [
        (i, dict(zip(header, row)) if plain and len(row) == len(header) else {})
        for i, row in enumerate(rows, first + 2)
    ]


def _record(line: bytes, kind: str) -> Any:
    try:
        text = line.decode().removesuffix("\r")
        if kind == "jsonl":
            return json.loads(text)
        return text.split("\t") if kind == "tsv" else next(csv.reader([text], strict=True), [])
    except (ValueError, RecursionError, csv.Error):
        return []


def differing_rows(
    name: str, content: bytes, kind: str, run: Run, known: Mapping[str, Sequence[float]], blank: bool
) -> str | None:
    """Whether each row was answered or reported, and each text of `known` answered as it always is."""
    rows = table_rows(content, kind)
    if rows is None:
        return None
    reported = {int(number) for number in re.findall(rf"^{re.escape(name)}, line (\d+): ", run.error, re.MULTILINE)}
    answers = run.out.split("\n")[1:-1]
    answered = rows if blank else [row for row in rows if row[0] not in reported]
    if len(answers) != len(answered):
        return f"{len(rows)} rows, {len(reported)} reported, {len(answers)} answered"
    for (number, row), answer in zip(answered, answers):
        values = answer.split("\t")[1:]
        if number in reported:
            if any(values):
                return f"line {number} is reported and answered"
        else:
            expected = known.get(str(row.get("text")))
            if expected is not None and not np.allclose(np.array(values, np.float64), expected, atol=PROBABILITY):
                return f"line {number}: {values}, not {expected}"
    return None


def differing_count(content: bytes, kind: str, rows: int) -> str | None:
    """Whether so many rows were read or left out, where an empty line is none."""
    found = table_rows(content, kind)
    if found is None:
        return None
    lines = [line.decode(errors="replace").removesuffix("\r") for line in content.split(b"\n")]
    full = [number for number, _ in found if (lines[number - 1].strip() if kind == "jsonl" else lines[number - 1])]
    return None if len(full) == rows else f"{len(full)} rows, {rows} read or left out"


def differing_training(prefix: Path, content: bytes, kind: str) -> str | None:
    """Whether a fine-tuned bundle has the classes of its training table, and was trained on all of its rows."""
    bundle = SignedBundle(prefix)
    names = bundle.signature["class_names"]
    rows = table_rows(content, kind) if kind != "jsonl" else None
    labels = {row["label"].strip() for _, row in rows or () if "label" in row}
    if rows is not None and {*names} != labels:
        return f"classes {names} of the labels {sorted(labels)}"
    return differing_count(content, kind, bundle.manifest["training"]["data"]["train"]["rows"])
