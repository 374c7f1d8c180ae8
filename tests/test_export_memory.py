"""Export holds one array at a time; comparing it holds the model once."""

from __future__ import annotations

import resource
import subprocess
import sys
import tracemalloc
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import Result, hugging_face_weights, write_hugging_face
from tools import AS_A_COMMAND

from bertsym import Bundle, ParamsFile, SourceOptions, export, load_source
from bertsym.array import Array

#: 64 MB of float32 in 5 layers; the largest array has 4 MB
LARGE: dict[str, Any] = {
    "num_hidden_layers": 5,
    "hidden_size": 512,
    "intermediate_size": 2048,
    "num_attention_heads": 8,
}
MIB = 1 << 20


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("large") / "hf"
    return write_hugging_face(folder, hugging_face_weights(**LARGE), **LARGE)


def total(arrays: Mapping[str, Array]) -> int:
    return sum(array.nbytes for array in arrays.values())


@pytest.mark.parametrize("kind", ["hf", "params"])
def test_a_source_reads_each_array_when_it_is_asked_for(large: Path, tmp_path: Path, kind: str) -> None:
    source, options = f"hf:{large}", SourceOptions()
    if kind == "params":
        export(source, tmp_path / "b", verify=False)
        source, options = f"params:{tmp_path / 'b'}-0000.params", SourceOptions(f"{large}/vocab.txt", num_heads=8)
    tracemalloc.start()
    try:
        weights = load_source(source, options).arg_params
        size = total(weights)
        assert size > 60 * MIB
        assert tracemalloc.get_traced_memory()[1] < size / 4
        held = [array.copy() for array in weights.values()]
        assert tracemalloc.get_traced_memory()[1] > total(dict(zip(weights, held)))
    finally:
        tracemalloc.stop()


def test_pages_of_a_file_of_parameters_are_given_back(large: Path, tmp_path: Path) -> None:
    export(f"hf:{large}", tmp_path / "b", verify=False)
    params = ParamsFile(f"{tmp_path / 'b'}-0000.params")

    def resident() -> int:
        return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()

    before = resident()
    sums = {name: float(np.abs(array).sum()) for name, array in params.items()}
    assert resident() - before < total(params) / 4
    first = params[next(iter(sums))]
    assert params["bertmodel0_token_type_embed_embedding0_weight"].any()
    assert float(np.abs(first).sum()) == next(iter(sums.values()))  # its pages come again


def test_without_verification_the_same_files_are_written(cli: Any, tiny_hf: Path, tmp_path: Path) -> None:
    written: Result = cli("export", f"hf:{tiny_hf}", tmp_path / "quick", "--no-verify")
    assert written.code == 0
    assert "not verified" in written.out
    assert "max difference" not in written.out
    export(f"hf:{tiny_hf}", tmp_path / "compared")
    quick, compared = Bundle.open(tmp_path / "quick"), Bundle.open(tmp_path / "compared")
    assert quick.manifest["files"] == compared.manifest["files"]
    assert "--no-verify" in quick.manifest["command"]


def peak_of(*words: object) -> int:
    """Largest resident memory of a command, in bytes."""
    # Not getrusage's maximum, which begins with the memory of the process that started this one.
    program = (
        f"{AS_A_COMMAND}import sys\n"
        "from bertsym.cli.group import run\n"
        "code = run(sys.argv[1:])\n"
        "print(*[line.split()[1] for line in open('/proc/self/status') if line.startswith('VmHWM')])\n"
        "sys.exit(code)"
    )
    command = [sys.executable, "-c", program, *map(str, words)]
    return 1024 * int(subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()[-1])


def test_verification_holds_the_model_once(tmp_path: Path) -> None:
    shapes = {**LARGE, "num_hidden_layers": 8}
    weights = {name: array / np.float32(16) for name, array in hugging_face_weights(**shapes).items()}
    large = write_hugging_face(tmp_path / "hf", weights, **shapes)
    tiny = write_hugging_face(tmp_path / "tiny")
    floor = peak_of("export", f"hf:{tiny}", tmp_path / "t")
    peak = peak_of("export", f"hf:{large}", tmp_path / "b")
    size = total(ParamsFile(f"{tmp_path / 'b'}-0000.params"))
    assert size > 95 * MIB
    assert peak - floor < 1.4 * size
