"""What a training run prints while it runs."""

from __future__ import annotations

import io
import re
from pathlib import Path

import pytest
from conftest import Tables
from runs import OPTIONS

from bertsym import finetune
from bertsym.monitoring.display import TextDisplay


class Terminal(io.StringIO):
    """Text that counts as a terminal."""

    def isatty(self) -> bool:
        return True


@pytest.fixture(scope="module", params=[Terminal, io.StringIO], ids=["terminal", "file"])
def printed(
    request: pytest.FixtureRequest, bundles: dict[str, Path], tables: Tables, tmp_path_factory: pytest.TempPathFactory
) -> tuple[bool, str]:
    """Whether the stream is a terminal, and what a run of three epochs printed on it."""
    stream = request.param()
    out = tmp_path_factory.mktemp("run") / "x"
    finetune(bundles["cls"], tables.train, tables.dev, out, options=OPTIONS, on_event=TextDisplay(stream))
    return stream.isatty(), stream.getvalue()


def test_epochs_rates_norms_and_the_time_left_are_printed(printed: tuple[bool, str]) -> None:
    is_terminal, text = printed
    assert "epoch 2 of 3" in text
    if is_terminal:
        dev_bar = r"epoch 2 of 3  evaluating dev\.tsv: .* 0/21 .*step 12  loss 0\.\d{4}  best dev accuracy 0\.\d{4}  "
        assert re.search(dev_bar + r"0:00:\d\d left", text)
    else:  # where a bar of steps is drawn depends on the speed
        assert "evaluating" not in text
        steps = r"^epoch 3 of 3  step 6/6  loss 0\.\d+  lr 1\.\d+e-04  gradient norm \d+\.\d+  .* samples/s  "
        assert re.search(rf"{steps}best dev accuracy 0\.\d{{4}}  0:00:00 left$", text, re.MULTILINE)


def test_an_evaluation_is_a_line_of_its_own(printed: tuple[bool, str]) -> None:
    lines = [line.rpartition("\r")[2] for line in printed[1].splitlines()]
    found = [line for line in lines if "dev: accuracy" in line]
    assert [line.partition(":")[0] for line in found] == [f"epoch {i} of 3, step {6 * i}" for i in (1, 2, 3)]
