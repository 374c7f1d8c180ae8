"""Hugging Face folders as people have them: files that were not downloaded, shards, prefixes, no model_type."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import Result, write_hugging_face
from refusals import refusal

Cli = Callable[..., Result]

POINTER = "version https://git-lfs.github.com/spec/v1\noid sha256:53aa51172d142c89d9012cce15ae4d6c\nsize 90868376\n"


@pytest.mark.parametrize("file", ["config.json", "vocab.txt"])
def test_a_git_lfs_pointer_in_place_of_a_text_file_is_named(cli: Cli, tmp_path: Path, file: str) -> None:
    folder = write_hugging_face(tmp_path / "hf")
    (folder / file).write_text(POINTER)
    line = refusal(cli("export", f"hf:{folder}", tmp_path / "out" / "base"), tmp_path / "out")
    assert f"{folder / file}: a Git LFS pointer instead of the file; run `git lfs pull`" in line
