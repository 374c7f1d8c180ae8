"""``onnx --signature hf`` and ``--dtype float16``."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from conftest import CONFIG, Result
from family_folders import write_family
from headed import headed_weights, write_headed

from bertsym import OnnxOptions, export, export_onnx
from bertsym.onnx_export.libraries import open_session

Cli = Callable[..., Result]


@pytest.mark.parametrize("task", [None, "classification", "tagging", "qa"])
def test_the_signature_of_transformers_gives_the_logits_for_its_inputs(tmp_path: Path, task: str | None) -> None:
    export(f"hf:{write_family(tmp_path / 'hf', 'bert', task)}", tmp_path / "x", verify=False)
    done = export_onnx(tmp_path / "x", tmp_path / "x.onnx", OnnxOptions(signature="hf"))
    names = {None: ["last_hidden_state", "sentence_embedding"], "qa": ["start_logits", "end_logits"]}
    assert [tensor.name for tensor in done.outputs] == names.get(task, ["logits"])
    assert max(check.difference.relative for check in done.checks) < 1e-5
    session = open_session(tmp_path / "x.onnx")
    assert [(each.name, each.type, each.shape) for each in session.get_inputs()] == [
        (name, "tensor(int64)", ["batch", "length"]) for name in ("input_ids", "attention_mask", "token_type_ids")
    ]
    ids = np.array([[1, 7, 9, 2, 0, 0], [1, 5, 6, 7, 8, 2]])
    mask, types = (ids != 0).astype(np.int64), np.zeros_like(ids)
    padded = session.run(None, {"input_ids": ids, "attention_mask": mask, "token_type_ids": types})
    alone = session.run(
        None, {"input_ids": ids[:1, :4], "attention_mask": mask[:1, :4], "token_type_ids": types[:1, :4]}
    )
    for tensor, one, other in zip(done.outputs, padded, alone):
        of_tokens = (tensor.shape or ())[1:2] == ("length",)
        np.testing.assert_allclose(one[:1, :4] if of_tokens else one[:1], other, atol=1e-5)


@pytest.mark.parametrize(
    ("output", "form", "names"),
    [
        ("sequence", "portable", ["last_hidden_state"]),
        ("pooled", "portable", ["last_hidden_state", "pooler_output"]),
        ("mean", "gluonnlp", ["last_hidden_state", "sentence_embedding"]),  # which computes in the layout TNC
        ("cls", "fast", ["sentence_embedding"]),  # whose last layer computes position 0 alone
    ],
)
def test_an_encoder_gives_the_encodings_of_all_tokens_where_it_computes_them(
    exported: Callable[..., Path], tmp_path: Path, output: str, form: str, names: list[str]
) -> None:
    done = export_onnx(exported(output=output, form=form), tmp_path / "x.onnx", OnnxOptions(signature="hf"))
    assert [tensor.name for tensor in done.outputs] == names
    session = open_session(tmp_path / "x.onnx")
    ids = np.array([[2, 7, 9, 3], [2, 5, 3, 0]])
    fed = {"input_ids": ids, "attention_mask": (ids != 0).astype(np.int64), "token_type_ids": np.zeros_like(ids)}
    whole = export_onnx(exported(output="sequence"), tmp_path / "whole.onnx").path
    (expected,) = open_session(whole).run(None, {"data0": ids, "data1": fed["token_type_ids"], "data2": [4, 3]})
    for name, array in zip(names, session.run(None, fed)):
        if name == "last_hidden_state":
            np.testing.assert_allclose(array, expected, atol=1e-5)


def test_scores_of_starts_that_are_all_close_to_zero_are_compared_at_the_scale_of_the_layer(tmp_path: Path) -> None:
    """Products with the weights cancel out, so that only rounding is left of them."""
    weights = headed_weights("qa")
    norm = f"bert.encoder.layer.{CONFIG['num_hidden_layers'] - 1}.output.LayerNorm"
    weights["qa_outputs.weight"][0] = 1 / weights[f"{norm}.weight"]
    weights["qa_outputs.bias"][0] = -(weights[f"{norm}.bias"] / weights[f"{norm}.weight"]).sum()
    export(f"hf:{write_headed(tmp_path / 'hf', 'qa', weights)}", tmp_path / "x", verify=False)
    done = export_onnx(tmp_path / "x", tmp_path / "x.onnx", OnnxOptions(signature="hf"))
    assert {check.difference.name for check in done.checks} == {"start_logits", "end_logits"}


def test_a_family_without_token_types_has_no_input_for_them(tmp_path: Path) -> None:
    export(f"hf:{write_family(tmp_path / 'hf', 'distilbert', 'classification')}", tmp_path / "x", verify=False)
    done = export_onnx(tmp_path / "x", tmp_path / "x.onnx", OnnxOptions(signature="hf"))
    assert [tensor.name for tensor in done.inputs] == ["input_ids", "attention_mask"]


def test_weights_in_float16_halve_the_file_within_the_tolerance(tmp_path: Path, bundles: dict[str, Path]) -> None:
    whole = export_onnx(bundles["cls"], tmp_path / "whole.onnx")
    half = export_onnx(bundles["cls"], tmp_path / "half.onnx", OnnxOptions(dtype="float16"))
    assert half.path.stat().st_size < 0.75 * whole.path.stat().st_size
    assert 1e-7 < max(check.difference.relative for check in half.checks) < 1e-2


def test_only_a_bundle_has_the_signature_of_transformers(cli: Cli, bundles: dict[str, Path], tmp_path: Path) -> None:
    for name in ("symbol.json", "0000.params"):
        shutil.copy(f"{bundles['cls']}-{name}", tmp_path / f"x-{name}")
    result = cli("onnx", tmp_path / "x", tmp_path / "x.onnx", "--signature", "hf")
    assert (result.code, "--signature hf needs the bundle of a BERT" in result.error_line) == (2, True)
