"""Read ``pytorch_model.bin``, a pickle, with torch where it is installed: weights only, so that no code is run."""

from __future__ import annotations

import importlib.util
import re
import shlex
import warnings
from collections.abc import Iterable, Iterator, Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

from bertsym.array import Array
from bertsym.compat.installing import install_command, version_numbers
from bertsym.errors import ModelError
from bertsym.families.name_table import printable
from bertsym.file_reader import open_regular, refuse_lfs_pointer

# weights_only of older versions runs code from a crafted file (CVE-2025-32434).
_OLDEST_TORCH = (2, 6)
# Copies every file of the folder but the pickles, and writes all weights, those of a head and of the modules of
# sentence-transformers, which are in folders of their own, included.
_CONVERSION = (
    "import shutil, torch; from pathlib import Path; from safetensors.torch import save_file; "
    "a, b = Path({source!r}), Path({target!r}); "
    "shutil.copytree(a, b, ignore=shutil.ignore_patterns('pytorch_model*')); "
    "[save_file({{n: t.clone().contiguous() for f in d.glob('pytorch_model*.bin') "
    "for n, t in torch.load(f, map_location='cpu', weights_only=True).items()}}, "
    "b / d.relative_to(a) / 'model.safetensors') "
    "for d in {{f.parent for f in a.rglob('pytorch_model*.bin')}} if not list(d.glob('*.safetensors'))]"
)


def has_torch() -> bool:
    """Whether torch is installed; it is not imported."""
    return importlib.util.find_spec("torch") is not None


def missing_torch(folder: Path) -> str:
    """Say how the pickles of a folder, and of the folders in it, are read or converted where torch is missing."""
    command = _CONVERSION.format(source=str(folder), target=f"{folder}-safetensors")
    return (
        f"{install_command('torch')} lets bertsym read it, without running code from it; or convert the whole folder "
        f"{folder} where torch and safetensors are installed: python -c {shlex.quote(command)}"
    )


class PyTorchFiles(Mapping[str, Array]):
    """The tensors of one or more pickles by name, converted one by one on demand.

    The files are mapped into memory, where their format allows it (torch 1.6 and newer wrote them); `notes` name files
    that had to be read whole.

    Raises ModelError, naming the file, for a file that is missing, damaged, a Git LFS pointer, holds anything but
    tensors by name, or would run code; and for a torch that is too old to read it safely.
    """

    def __init__(self, paths: Iterable[Path]) -> None:
        self._tensors: dict[str, Any] = {}
        self.notes: tuple[str, ...] = ()
        for path in paths:
            found = self._load(path)
            twice = self._tensors.keys() & found.keys()
            if twice:
                raise ModelError(f"{path}: {printable(min(twice))} is in another shard too")
            self._tensors.update(found)

    def _load(self, path: Path) -> dict[str, Any]:
        _check_version(path)
        try:
            with open_regular(path) as file:
                start = file.read(64)
        except OSError as error:
            raise ModelError(f"{path}: {error.strerror}") from None
        refuse_lfs_pointer(path, start)
        is_zip = start.startswith(b"PK")
        if not is_zip:
            self.notes += (f"{path.name} has the format of torch before 1.6, which is read whole into memory",)
        import torch

        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # about the protocol of the pickle
                found = torch.load(path, map_location="cpu", weights_only=True, mmap=is_zip)
        except Exception as error:
            is_refused = type(error).__name__ == "UnpicklingError"
            what = "torch refuses it, because it holds more than weights or is damaged" if is_refused else "damaged"
            raise ModelError(f"{path}: {what}: {_reason(error)}") from None
        return dict(_tensors(path, found))

    def __getitem__(self, name: str) -> Array:
        import torch

        tensor = self._tensors[name].detach()
        array: Array = (tensor.float() if tensor.dtype is torch.bfloat16 else tensor).numpy()
        return array

    def __iter__(self) -> Iterator[str]:
        return iter(self._tensors)

    def __len__(self) -> int:
        return len(self._tensors)


def _check_version(path: Path) -> None:
    found = version("torch")
    if version_numbers(found) < _OLDEST_TORCH:
        oldest = ".".join(map(str, _OLDEST_TORCH))
        raise ModelError(
            f"{path} is a pickle, and torch {found} may run code from it: {install_command(f'torch>={oldest}')}"
        )


def _tensors(path: Path, found: Any) -> Iterator[tuple[str, Any]]:
    import torch

    if not isinstance(found, Mapping):
        raise ModelError(f"{path}: holds a {type(found).__name__}, expected tensors by name")
    for name, tensor in found.items():
        if not isinstance(name, str) or not isinstance(tensor, torch.Tensor):
            raise ModelError(
                f"{path}: {printable(str(name)):.80} is a {type(tensor).__name__}, expected tensors by name"
            )
        if tensor.layout is not torch.strided or tensor.is_quantized or tensor.is_complex() or tensor.is_meta:
            raise ModelError(f"{path}: {printable(name)} is not a dense tensor of real numbers")
        yield name, tensor


def _reason(error: Exception) -> str:
    """Return the reason in an error of torch, without its advice, such as to read the file unsafely."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()] or [type(error).__name__]
    reason = next((line for line in lines if re.search("unsupported", line, re.IGNORECASE)), lines[0])
    return reason.partition(". ")[0].partition(", please")[0].rstrip(".")[:200]
