"""Untrusted graphs run in a sandbox: outputs are identical, and every failure there is a one-line error here."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from commands import BERTSYM
from conftest import Result
from refusals import refusal
from third_party import checkpoint, save

from bertsym import BertsymError, ModelError, SymbolGraph, open_model, trusting
from bertsym.array import Array
from bertsym.bundle import file_digest
from bertsym.execution import sample_inputs, sandbox
from bertsym.execution.values import tensor_values
from bertsym.mxnet_runtime import mx

Cli = Callable[..., Result]
# An attribute that MXNet takes for a pointer; the validator would have refused it.
HOSTILE = {
    "nodes": [{"op": "_Native", "name": "e", "attrs": {"info": "0x41", "need_top_grad": "False"}, "inputs": []}],
    "arg_nodes": [],
    "node_row_ptr": [0, 1],
    "heads": [[0, 0, 0]],
}


def isolated(symbol: str, **arrays: np.ndarray[tuple[int, ...], np.dtype[np.float32]]) -> Array:
    """The value of symbol JSON that nobody checked."""
    values: list[Array] = sandbox.call("compute", symbol, "it", False, fused=True, params={}, inputs=arrays)
    return values[0]


def test_the_sandbox_computes_the_same_elements(tmp_path: Path) -> None:
    model = open_model(checkpoint(tmp_path / "m"))
    assert not model.trusted
    assert model.params is not None
    inputs = sample_inputs(model)
    apart = tensor_values(model.graph, model.params, inputs, where="it")
    with trusting():
        here = tensor_values(model.graph, model.params, inputs, where="it")
    np.testing.assert_array_equal(apart, here)


def test_a_bundle_whose_digests_were_checked_is_trusted(bundles: dict[str, Path]) -> None:
    assert open_model(bundles["cls"]).trusted
    assert not open_model(bundles["cls"], digests=False).trusted
    assert not open_model(f"{bundles['cls']}-symbol.json", f"{bundles['cls']}-0000.params").trusted


def test_a_crash_is_a_one_line_error_and_the_next_call_works() -> None:
    for _ in range(2):
        with pytest.raises(
            ModelError, match=r"^it: MXNet crashed on it \((exit code 255|SIG\w+)\): the file is damaged"
        ):
            isolated(json.dumps(HOSTILE))
    good = mx.sym.exp(mx.sym.var("x"), name="e").tojson()
    values = isolated(good, x=np.zeros((2, 2), np.float32))
    np.testing.assert_array_equal(values, np.ones((2, 2)))


def test_a_call_that_takes_too_long_is_killed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sandbox, "MAX_SECONDS", 1)
    symbol = mx.sym.var("x")
    for i in range(400):
        symbol = mx.sym.dot(symbol, symbol, name=f"d{i}")
    with pytest.raises(ModelError, match=r"^it: MXNet did not finish within \d seconds; --trust removes the limit$"):
        isolated(symbol.tojson(), x=np.zeros((2000, 2000), np.float32))


def test_a_call_that_needs_too_much_memory_is_refused() -> None:
    symbol = mx.sym.broadcast_to(mx.sym.var("x"), shape=(40_000, 40_000), name="b")
    with pytest.raises(ModelError, match=r"^it: ") as caught:
        isolated(symbol.tojson(), x=np.ones((1, 1), np.float32))
    assert "\n" not in str(caught.value)


def test_errors_keep_their_class(tmp_path: Path) -> None:
    graph = SymbolGraph.parse(mx.sym.dot(mx.sym.var("x"), mx.sym.var("y"), name="d").tojson())
    inputs = {"x": np.ones((2, 3), np.float32), "y": np.ones((2, 3), np.float32)}
    with pytest.raises(ModelError, match=r"^it: MXNet can't run it: ") as caught:
        tensor_values(graph, {}, inputs, where="it")
    with trusting(), pytest.raises(ModelError) as here:
        tensor_values(graph, {}, inputs, where="it")
    assert str(caught.value) == str(here.value)


def test_calls_of_several_threads_run_one_after_the_other() -> None:
    good = mx.sym.exp(mx.sym.var("x"), name="e").tojson()
    found: list[float] = []

    def ask(value: float) -> None:
        values = isolated(good, x=np.full((3,), value, np.float32))
        found.append(float(np.log(values[0])))

    threads = [threading.Thread(target=ask, args=(float(i),)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(map(round, found)) == [0, 1, 2, 3]


def test_modules_in_the_working_folder_are_not_imported(tmp_path: Path) -> None:
    prefix = checkpoint(tmp_path / "downloads" / "m")
    mark = tmp_path / "mark"
    for name in ("mxnet", "numpy", "json", "resource"):
        (tmp_path / "downloads" / f"{name}.py").write_text(f"open({str(mark)!r}, 'w')\nraise SystemExit(3)\n")
    program = tmp_path / "program" / "main.py"
    program.parent.mkdir()
    program.write_text("import sys\nfrom bertsym.cli.group import run\nsys.exit(run(['inspect', 'm', '--shapes']))\n")
    environment = {**os.environ, "PYTHONPATH": str(Path(sandbox.__file__).parents[2])}
    done = subprocess.run(
        [sys.executable, "-W", "ignore", program], cwd=prefix.parent, env=environment, capture_output=True, timeout=60
    )
    assert (done.returncode, done.stderr, mark.exists()) == (0, b"", False)


# What fails without any fault of the graph


def bind_and_run(prefix: Path, *before: str, **environment: str) -> None:
    command = [*before, *BERTSYM, "diff", str(prefix), str(prefix), "--run"]
    done = subprocess.run(command, env={**os.environ, **environment}, capture_output=True, text=True, timeout=100)
    assert (done.returncode, done.stderr) == (0, "")
    assert "no difference above the tolerance" in done.stdout


def test_a_good_file_runs_where_proc_is_not_mounted(tmp_path: Path) -> None:
    hidden = ["sh", "-c", 'mount -t tmpfs none /proc && exec "$@"', "sh"]
    for namespace in (["unshare", "--mount"], ["unshare", "--mount", "--map-root-user"]):
        if subprocess.run([*namespace, *hidden, "true"], capture_output=True).returncode == 0:
            return bind_and_run(checkpoint(tmp_path / "m"), *namespace, *hidden)
    pytest.skip("mount namespaces are not permitted")


def test_a_good_file_runs_with_the_threads_of_many_processors(tmp_path: Path) -> None:
    """Their stacks and arenas take more address space than a graph may."""
    bind_and_run(checkpoint(tmp_path / "m"), OMP_NUM_THREADS="64", MALLOC_ARENA_MAX="1000")


@pytest.mark.parametrize(
    ("program", "reason"),
    [
        ("import absent", "can't start: ModuleNotFoundError: No module named 'absent'"),
        ("import sys; sys.exit(3)", "can't start: exit code 3"),
        ("print('{}', flush=True); raise SystemExit(1)", "ended (exit code 1)"),
    ],
)
def test_a_sandbox_that_fails_blames_no_file(program: str, reason: str, monkeypatch: pytest.MonkeyPatch) -> None:
    sandbox._stop()
    monkeypatch.setattr(sandbox, "_START", program)
    message = f"the sandbox process {reason}; --trust runs the graph without a sandbox"
    with pytest.raises(BertsymError, match=rf"{re.escape(message)}$"):
        isolated(json.dumps(HOSTILE))


# From the command line


# Reads at 4,096 places in 16 GB, some of them unmapped; writes could make MXNet raise an error before it crashes. No
# validator can find it, because the graph computes the places from its inputs.
WILD_LENGTHS = 1 + mx.sym.broadcast_mul(mx.sym.var("y"), mx.sym.var("w_weight"), name="products")
WILD = SymbolGraph.parse(
    mx.sym.SequenceLast(mx.sym.var("x"), WILD_LENGTHS, use_sequence_length=True, name="last").tojson()
)
WILD_WEIGHT = {"w_weight": np.full((1,), 1e9, np.float32)}
WILD_SHAPES = ("--shape", "x=2,4096,1", "--shape", "y=4096")


def test_a_graph_that_crashes_mxnet_gives_a_one_line_error(cli: Cli, tmp_path: Path) -> None:
    prefix = save(tmp_path / "m", WILD, WILD_WEIGHT)
    said = refusal(cli("diff", prefix, prefix, "--run", *WILD_SHAPES))
    assert re.fullmatch(rf"Error: {prefix}: MXNet crashed on it \((exit code 255|SIG\w+)\): .* or malicious", said)


def test_a_symbol_bundle_runs_in_the_sandbox_whatever_its_digests(cli: Cli, tmp_path: Path) -> None:
    """Digests prove that the files are intact, not who wrote them."""
    prefix, out = save(tmp_path / "m", WILD, {"w_weight": np.zeros(1, np.float32)}), tmp_path / "out"
    assert cli("edit", prefix, out, "--rename", "products=places", *WILD_SHAPES).code == 0
    save(tmp_path / "hostile", WILD, WILD_WEIGHT)
    Path(f"{out}-0000.params").write_bytes((tmp_path / "hostile-0000.params").read_bytes())
    manifest = Path(f"{out}-manifest.json")
    document = json.loads(manifest.read_text())
    document["files"]["0000.params"]["sha256"] = file_digest(Path(f"{out}-0000.params"))
    manifest.write_text(json.dumps(document))
    assert not open_model(out).trusted
    assert "MXNet crashed on it" in refusal(cli("diff", out, out, "--run", *WILD_SHAPES))


def test_an_operator_that_is_not_known_is_allowed_by_name(cli: Cli, tmp_path: Path) -> None:
    for path in (Path(__file__).parent / "symbols" / "mxnet-1.9.1").glob("multi.json"):
        (tmp_path / "m-symbol.json").write_bytes(path.read_bytes())
    command = ("inspect", tmp_path / "m", "--shape", "data=4,12", "--shape", "scale=4,8")
    said = refusal(cli(*command))
    assert (
        "has the operator '_foreach', which is not allowed; if you trust the file, --allow-op _foreach accepts it"
        in said
    )
    assert cli(*command, "--allow-op", "_foreach").code == 0
    assert refusal(cli(*command, "--allow-op", "Custom"), code=2).startswith("Error: Custom can't be allowed")
    assert "does not have the operator 'x'" in refusal(cli(*command, "--allow-op", "x"), code=2)
    assert "not allowed" in refusal(cli(*command))  # and only for that command
