"""The model card of a trained bundle: what it says, and that untrusted texts in it stay texts."""

from __future__ import annotations

import contextlib
import dataclasses
import io
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import yaml
from conftest import Result, Tables
from huggingface_hub import ModelCard

from bertsym import Bundle, Classifier, NewHead, graft_head, lower
from bertsym.bundle import CARD
from bertsym.model_card.card import model_card
from bertsym.model_card.markup import code_span, table, yaml_text

Cli = Callable[..., Result]
HOSTILE = ("`<script>`", "a|b", "two\nlines", "``", " ", "[x](y)", "---", "\u202eback", "x" * 300, "**", "é😀")


@pytest.fixture(scope="module")
def bundle(classifier: Path) -> Bundle:
    return Bundle.open(classifier)


def test_a_trained_bundle_has_its_card(bundle: Bundle) -> None:
    assert bundle.path(CARD).read_text(encoding="utf-8") == bundle.text(CARD) == model_card(bundle)


def test_the_header_is_that_of_the_hub_with_the_metrics_that_were_kept(bundle: Bundle) -> None:
    data = ModelCard(bundle.text(CARD)).data
    assert (data.library_name, data.pipeline_tag, data.model_name) == (
        *("mxnet", "text-classification", "tiny-classification"),
    )
    training = bundle.manifest["training"]
    (kept,) = (each["metrics"] for each in training["evaluations"] if each["step"] == training["kept_step"])
    found = {each.metric_type: each.metric_value for each in data.eval_results}
    assert found == {name: pytest.approx(value, abs=1e-6) for name, value in kept.items() if name != "loss"}
    assert {each.dataset_name for each in data.eval_results} == {"dev.tsv"}
    assert data.base_model is None  # a folder, not a repository of the hub


def test_the_base_model_is_a_repository_of_the_hub(bundle: Bundle) -> None:
    source = {**bundle.manifest["source"], "repository": "org/name"}
    contents = dataclasses.replace(bundle.contents, manifest={**bundle.manifest, "source": source})
    data = ModelCard(model_card(dataclasses.replace(bundle, contents=contents))).data
    assert (data.base_model, data.model_name) == ("org/name", "name-classification")


def test_the_card_lists_data_settings_and_labels_without_folders(bundle: Bundle) -> None:
    card = bundle.text(CARD)
    for name, data in bundle.manifest["training"]["data"].items():
        assert f"| {name} | `{name}.tsv` | {data['rows']} | 0 | `{data['sha256']}` |" in card
    assert "In the order of the outputs: `no`, `yes`\n" in card
    assert "| epochs | `16` |\n| batch size | `16` |" in card
    assert "/tables" not in card


@pytest.mark.parametrize("text", HOSTILE)
def test_untrusted_texts_stay_texts(text: str) -> None:
    span = code_span(text)
    found = re.fullmatch(r"(`+)(.+)\1", span, re.DOTALL)
    assert found
    fence, inner = found.groups()
    assert fence not in re.findall("`+", inner)
    assert span.isprintable()
    assert len(span) < 120
    row = table(("a", "b"), [(code_span(text), "2")]).splitlines()[-1]
    assert len(re.findall(r"(?<!\\)\|", row)) == 3
    assert yaml.safe_load(f"name: {yaml_text(text)}") == {"name": text}


def test_hostile_labels_do_not_change_the_sections(bundle: Bundle) -> None:
    signature = dataclasses.replace(bundle.signature, class_names=HOSTILE)
    card = model_card(dataclasses.replace(bundle, signature=signature))
    headings = re.compile("^#.*", re.MULTILINE)
    assert headings.findall(card) == headings.findall(bundle.text(CARD))
    assert len(card.splitlines()) == len(bundle.text(CARD).splitlines())


def test_the_programs_in_python_run(
    bundle: Bundle, cli: Cli, tables: Tables, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of a text that is truncated, whose line of tokenize has another key."""
    text = "the happy cat " * 20
    monkeypatch.chdir(tmp_path)
    Path("inputs.jsonl").write_text(cli("tokenize", bundle.prefix, "--text", text).out)
    expected = Classifier(bundle.prefix).predict([text])[0].probabilities
    programs = re.findall("```python\n(.*?)```", bundle.text(CARD), re.DOTALL)
    printed = []
    for program in programs:
        with contextlib.redirect_stdout(io.StringIO()) as stream:
            exec(program.replace("PREFIX", str(bundle.prefix)).replace("a text", text), {})
        printed.append(stream.getvalue())
    assert len(printed) == 2
    assert printed[0] == f"{Classifier(bundle.prefix).predict([text])}\n"
    numbers = [float(number) for number in printed[1].strip("[]\n ").split()]
    np.testing.assert_allclose(numbers, [*expected.values()], rtol=1e-4)


def test_other_commands_do_not_pass_the_card_on(classifier: Path, bundles: dict[str, Path], tmp_path: Path) -> None:
    out = tmp_path / "x"
    for path in classifier.parent.glob(f"{classifier.name}-*"):
        out.with_name(path.name.replace(classifier.name, "x", 1)).write_bytes(path.read_bytes())
    assert Bundle.open(out).has(CARD)
    lower(classifier, tmp_path / "lowered", form="gluonnlp")
    graft_head(bundles["cls"], out, NewHead(num_classes=2), force=True)
    assert not list(tmp_path.glob(f"*-{CARD}"))
