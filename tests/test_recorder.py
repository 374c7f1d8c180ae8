"""Graphs are built without mxnet, by calls that give the same JSON, byte for byte, as the same calls of mx.sym."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable
from typing import Any

import pytest

import bertsym.encoders.graph
from bertsym import BertConfig
from bertsym.encoders.catalogue import FINISHED_HEADS, OUTPUTS
from bertsym.encoders.forms import FORMS, Form
from bertsym.encoders.graph import record_encoder
from bertsym.encoders.outputs import record_output
from bertsym.encoders.spec import EncoderSpec
from bertsym.encoders.symbol_heads import record_finished
from bertsym.mxnet_runtime import mx
from bertsym.symbol.recorder import sym

CONFIG = BertConfig(2, 8, 12, 2, 30)
RUN_ONLY = ("training", "interleaved", "pixels")  # forms that are never written
MODULES = [
    f"bertsym.encoders.{name}"
    for name in (
        "graph",
        "outputs",
        "symbol_heads",
        *(f"graph.{m.name}" for m in pkgutil.iter_modules(bertsym.encoders.graph.__path__)),
    )
]


def by_mxnet(build: Callable[[], Any], monkeypatch: pytest.MonkeyPatch) -> str:
    """The JSON of what `build` makes with mx.sym in the recorder's place."""
    with monkeypatch.context() as patch:
        for name in MODULES:
            patch.setattr(importlib.import_module(name), "sym", mx.sym)
        return str(build().tojson())


def check(build: Callable[[], Any], monkeypatch: pytest.MonkeyPatch) -> None:
    expected = by_mxnet(build, monkeypatch)
    assert build().tojson() == expected


@pytest.mark.parametrize("output", OUTPUTS)
@pytest.mark.parametrize("erf", [False, True])
@pytest.mark.parametrize("name", [*FORMS, *RUN_ONLY])
def test_every_output_in_every_form_is_recorded_as_mxnet_writes_it(
    name: str, erf: bool, output: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    check(lambda: record_output(CONFIG, output, Form(name, erf)), monkeypatch)


@pytest.mark.parametrize("name", FORMS)
@pytest.mark.parametrize("task", FINISHED_HEADS)
def test_every_finished_head_is_recorded_as_mxnet_writes_it(
    name: str, task: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    check(lambda: record_finished(CONFIG, task, 3, 0.1, Form(name)), monkeypatch)


@pytest.mark.parametrize("name", [*FORMS, *RUN_ONLY])
@pytest.mark.parametrize(
    "spec",
    [
        EncoderSpec(CONFIG, "words", None, None, {}, "relu"),
        EncoderSpec(CONFIG, concatenated_biases=True),
        EncoderSpec(CONFIG, names={"bertencoder0_position_weight": "positions"}),
    ],
    ids=["token ids alone", "biases in turn", "another name"],
)
def test_encoders_of_any_size_and_outputs_of_layers_are_recorded_as_mxnet_writes_them(
    name: str, spec: EncoderSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    check(lambda: record_encoder(spec, Form(name), [0, 2, 1]), monkeypatch)


def test_an_operator_that_mxnet_does_not_have_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="'FullyConected' is not an operator of MXNet"):
        _ = sym.FullyConected
