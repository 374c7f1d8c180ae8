"""``hf:`` names of the hub and its cache, in processes of their own: huggingface_hub reads its settings once."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import Result, hugging_face_weights, write_hugging_face
from refusals import refusal

from bertsym import Bundle

Cli = Callable[..., Result]


@pytest.fixture
def hub_home(tmp_path: Path) -> Path:
    """HF_HOME with ``org/tiny`` in its cache, as a download leaves it: branch main, and a revision v1."""
    home = tmp_path / "hf_home"
    storage = home / "hub" / "models--org--tiny"
    for ref, seed in (("main", 0), ("v1", 1)):
        plain = write_hugging_face(tmp_path / ref, hugging_face_weights(seed))
        commit = f"{seed:040x}"
        snapshot = storage / "snapshots" / commit
        snapshot.mkdir(parents=True)
        (storage / "blobs").mkdir(exist_ok=True)
        for i, path in enumerate(sorted(plain.iterdir())):
            blob = storage / "blobs" / f"{ref}{i}"
            path.rename(blob)
            (snapshot / path.name).symlink_to(os.path.relpath(blob, snapshot))
        (storage / "refs").mkdir(exist_ok=True)
        (storage / "refs" / ref).write_text(commit)
    return home


class _Portal(BaseHTTPRequestHandler):
    """Answers everything with a page, as a captive portal does."""

    def do_GET(self) -> None:
        self.send_response(200)
        self.end_headers()
        self.wfile.write(b"<html>please log in</html>")

    def log_message(self, format: str, *args: Any) -> None:
        pass


@pytest.fixture(params=["closed", "portal"])
def useless_endpoint(request: pytest.FixtureRequest) -> Iterator[str]:
    """The address of a hub that refuses connections, or that isn't one."""
    if request.param == "closed":
        with socket.socket() as bound:
            bound.bind(("127.0.0.1", 0))
            yield f"http://127.0.0.1:{bound.getsockname()[1]}"
        return
    with HTTPServer(("127.0.0.1", 0), _Portal) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


def run_python(home: Path, arguments: list[str], **environment: str) -> subprocess.CompletedProcess[str]:
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(("HF_", "HUGGING"))}
    return subprocess.run(
        [sys.executable, *arguments],
        env={**inherited, "HF_HOME": str(home), **environment},
        capture_output=True,
        text=True,
        timeout=120,
    )


def test_a_cached_repository_is_exported_offline(hub_home: Path, tmp_path: Path) -> None:
    prefix = tmp_path / "out" / "base"
    result = run_python(hub_home, ["-m", "bertsym", "export", "hf:org/tiny", str(prefix)], HF_HUB_OFFLINE="1")
    assert result.returncode == 0, result.stderr
    bundle = Bundle.open(prefix)
    assert bundle.manifest["source"]["spec"] == "hf:org/tiny"
    expected = hugging_face_weights()["embeddings.word_embeddings.weight"]
    np.testing.assert_array_equal(bundle.params()["bertmodel0_word_embed_embedding0_weight"], expected)


def test_a_cached_revision_is_read_when_the_hub_is_not_to_be_reached(hub_home: Path, useless_endpoint: str) -> None:
    program = (
        "from bertsym.sources import load_source\n"
        "for name in ('hf:org/tiny', 'hf:org/tiny@v1'):\n"
        "    print(repr(float(load_source(name).arg_params['bertmodel0_pooler_bias'][0])))"
    )
    result = run_python(hub_home, ["-c", program], HF_ENDPOINT=useless_endpoint, NO_PROXY="127.0.0.1")
    assert result.returncode == 0, result.stderr
    expected = [float(hugging_face_weights(seed)["pooler.dense.bias"][0]) for seed in (0, 1)]
    assert [float(line) for line in result.stdout.split()] == expected


@pytest.mark.parametrize("name", ["org/absent", "org/tiny@absent"])
def test_an_unknown_repository_is_a_one_line_error(hub_home: Path, tmp_path: Path, name: str) -> None:
    prefix = tmp_path / "out" / "base"
    result = run_python(hub_home, ["-m", "bertsym", "export", f"hf:{name}", str(prefix)], HF_HUB_OFFLINE="1")
    line = refusal(Result(result.returncode, result.stdout, result.stderr), prefix.parent)
    assert line.startswith(f"Error: {name}: neither a folder nor in the Hugging Face cache")


@pytest.mark.parametrize(
    "name", ["no/such/folder", "../absent", "/absent/folder", "a b", "org/", ".hidden/x", "~no-user/x"]
)
def test_neither_a_folder_nor_a_repository_name_is_a_one_line_error(cli: Cli, tmp_path: Path, name: str) -> None:
    line = refusal(cli("export", f"hf:{name}", tmp_path / "out" / "base"), tmp_path / "out")
    assert f"{name}: neither a folder nor a repository name like ORG/NAME" in line
