"""The bundle: the files that every command reads or writes, always as one, digested and validated.

========================  =====================================================================
PREFIX-symbol.json        inference symbol, without label; ends in ``softmax_output`` with a head
PREFIX-train-symbol.json  only with a head: the same graph ending in SoftmaxOutput ``softmax``
PREFIX-0000.params        exactly the symbol's parameters, ``arg:`` names, float32
PREFIX-vocab.txt          WordPiece vocabulary, a token a line
PREFIX-vocab.json         the same as GluonNLP writes it
PREFIX-signature.json     inputs, outputs, labels, tokenisation, oldest MXNet
PREFIX-manifest.json      SHA-256 and size of each file, source, config, versions, command
========================  =====================================================================
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from bertsym.bert.catalogue import FINISHED_HEADS, FULLY_CONNECTED, LABEL_NAME, OPERATORS, OUTPUTS
from bertsym.bert.config import BertConfig
from bertsym.bert.inputs import INPUT_NAMES
from bertsym.bert.parameters import parameter_shapes
from bertsym.errors import ModelError, UsageError
from bertsym.signature import Signature
from bertsym.symbol.graph import SymbolGraph
from bertsym.symbol.params import Array, ParamsFile, write_params
from bertsym.text.vocabulary import Vocabulary

FORMAT_VERSION = 1
_LIBRARIES = ("bertsym", "mxnet", "gluonnlp", "numpy", "tokenizers")  # what is written depends on them
SYMBOL, TRAIN_SYMBOL, PARAMS = "symbol.json", "train-symbol.json", "0000.params"
VOCAB_TXT, VOCAB_JSON = "vocab.txt", "vocab.json"
SIGNATURE, MANIFEST = "signature.json", "manifest.json"
FILE_NAMES = (SYMBOL, TRAIN_SYMBOL, PARAMS, VOCAB_TXT, VOCAB_JSON, SIGNATURE, MANIFEST)


@dataclass(frozen=True)
class Bundle:
    """A bundle on disk whose digests were checked; `open` it."""

    prefix: Path
    config: BertConfig
    signature: Signature
    manifest: dict[str, Any]

    @classmethod
    def open(cls, prefix: str | Path) -> Bundle:
        """Check the size and the digest of every file, and that they belong together.

        Raises ModelError, naming the file.
        """
        prefix = Path(prefix)
        path = file_path(prefix, MANIFEST)
        try:
            manifest = _read_json(path)
        except FileNotFoundError:
            raise ModelError(f"{prefix}: no bundle here, {path.name} is missing in {path.parent}") from None
        try:
            if manifest["format_version"] != FORMAT_VERSION:
                raise ModelError(f"{path}: bundle format {manifest['format_version']}, {FORMAT_VERSION} is known")
            for name, entry in manifest["files"].items():
                if name not in FILE_NAMES:
                    raise ModelError(f"{path}: unknown file {name!r}")
                _check_digest(file_path(prefix, name), entry)
            for name in (SYMBOL, PARAMS, VOCAB_TXT, SIGNATURE):
                if name not in manifest["files"]:
                    raise ModelError(f"{path}: does not list {name}")
            config = BertConfig.from_dict(manifest["config"])
            signature = Signature.from_json(_read_json(file_path(prefix, SIGNATURE)))
            bundle = cls(prefix, config, signature, manifest)
            bundle._check_content()
        except (KeyError, TypeError, IndexError, AttributeError, ValueError) as error:
            raise ModelError(f"{path}: damaged ({type(error).__name__}: {error})") from None
        return bundle

    def _check_content(self) -> None:
        """Signature, config, parameters and graphs must tell the same."""
        expected = self._expected_shapes()
        shapes = {name: info.shape for name, info in self.params().infos.items()}
        if shapes != expected:
            differing = sorted(name for name in shapes.keys() | expected if shapes.get(name) != expected.get(name))
            raise ModelError(f"{self.path(PARAMS)}: not the parameters of this config: {', '.join(differing[:5])}")
        for name, extra in ((SYMBOL, set()), (TRAIN_SYMBOL, {LABEL_NAME})):
            if name in self.manifest["files"]:
                path = self.path(name)
                graph = SymbolGraph.load(path)
                graph.check_only(OPERATORS, str(path))
                unlike = set(graph.variables) ^ {*INPUT_NAMES, *extra, *expected}
                if unlike:
                    raise ModelError(f"{path}: its variables are not inputs and parameters: {sorted(unlike)[:5]}")
                outputs = [f"{output}_output" for output in graph.output_names]
                if outputs != [self.signature.output_name]:
                    raise ModelError(f"{path}: ends in {', '.join(outputs)}, not in {self.signature.output_name}")

    def _expected_shapes(self) -> dict[str, tuple[int, ...]]:
        config, signature, where = self.config, self.signature, self.path(SIGNATURE)
        if signature.output not in OUTPUTS or not 1 <= (signature.length or 1) <= signature.max_length:
            raise ModelError(f"{where}: encoder output {signature.output!r}, length {signature.length}")
        if signature.max_length > config.max_length:
            raise ModelError(f"{where}: max length {signature.max_length}, the table has {config.max_length} positions")
        shapes = parameter_shapes(config, pooler=signature.output == "pooled")
        if signature.kind == "encoder":
            return shapes
        if signature.kind == "classifier":
            prefix, outputs = FULLY_CONNECTED, len(signature.labels)
        elif signature.kind == "logits" and signature.task in FINISHED_HEADS:
            prefix, outputs = FINISHED_HEADS[signature.task][1], signature.output_shape[-1]
        else:
            raise ModelError(f"{where}: kind {signature.kind!r}, task {signature.task!r} is unknown")
        width = config.units * (signature.length or 1)
        return {**shapes, f"{prefix}_weight": (outputs, width), f"{prefix}_bias": (outputs,)}

    def moved_to(self, prefix: str | Path) -> Bundle:
        """The same bundle after its files were moved."""
        return dataclasses.replace(self, prefix=Path(prefix))

    def path(self, name: str) -> Path:
        """The path of one of FILE_NAMES."""
        return file_path(self.prefix, name)

    @property
    def has_head(self) -> bool:
        """Whether the symbol ends in a head rather than in an output of the encoder."""
        return self.signature.kind != "encoder"

    def params(self) -> ParamsFile:
        """The parameters by name, mapped and not copied."""
        return ParamsFile(self.path(PARAMS))

    def vocabulary(self) -> Vocabulary:
        """The vocabulary."""
        return Vocabulary.load(self.path(VOCAB_TXT))


@dataclass(frozen=True)
class BundleContent:
    """What `Stage.write` writes. ``facts`` go into the manifest as they are."""

    config: BertConfig
    signature: Signature
    symbol_json: str
    arg_params: Mapping[str, Array]
    vocabulary: Vocabulary
    facts: Mapping[str, Any]
    train_symbol_json: str | None = None


@dataclass(frozen=True)
class Stage:
    """A bundle in the making, in a temporary folder beside its place, which is `target`."""

    prefix: Path
    target: str

    def write(self, content: BundleContent) -> Bundle:
        """Write all files, then read them back: the bundle, still in the temporary folder."""
        with _write_errors(self.target):
            self._write_files(content)
        return Bundle.open(self.prefix)

    def _write_files(self, content: BundleContent) -> None:
        texts = {
            SYMBOL: content.symbol_json,
            TRAIN_SYMBOL: content.train_symbol_json,
            VOCAB_TXT: content.vocabulary.to_text(),
            VOCAB_JSON: content.vocabulary.to_gluonnlp_json(),
            SIGNATURE: _json_text(content.signature.to_json()),
        }
        entries = {PARAMS: self._write_params(content.arg_params)}
        for name, text in texts.items():
            if text is not None:
                entries[name] = self._write_text(name, text)
        manifest = {
            "format": "bertsym bundle",
            "format_version": FORMAT_VERSION,
            "files": {name: entries[name] for name in FILE_NAMES if name in entries},
            "config": content.config.to_dict(),
            **content.facts,
            "versions": {name: version(name) for name in _LIBRARIES},
        }
        self._write_text(MANIFEST, _json_text(manifest))

    def _write_text(self, name: str, text: str) -> dict[str, Any]:
        path = file_path(self.prefix, name)
        with open(path, "wb") as file:
            file.write(text.encode("utf-8", "backslashreplace"))  # a path in the manifest may not be UTF-8
            _sync(file)
        return _digest(path)

    def _write_params(self, arg_params: Mapping[str, Array]) -> dict[str, Any]:
        path = file_path(self.prefix, PARAMS)
        with open(path, "wb") as file:
            write_params(file, arg_params)
            _sync(file)
        return _digest(path)


@contextlib.contextmanager
def stage_bundle(prefix: str | Path, force: bool = False) -> Iterator[Stage]:
    """Make a bundle at `prefix` whole or not at all.

    Yields a Stage; on success its files move to `prefix`, on any exception nothing is left and files that
    were there stay. Raises UsageError at once when files of a bundle exist and `force` is False, and
    ModelError when the folder can't be written.
    """
    text, prefix = str(prefix), Path(prefix)
    with _write_errors(text):
        if not prefix.name or text.endswith(os.sep) or prefix.is_dir():
            raise UsageError(f"{text}: a PREFIX is a folder and the beginning of a file name, as in out/model")
        _check_target(prefix, force)
    with contextlib.ExitStack() as stack:
        with _write_errors(text):
            stack.enter_context(_made_parents(prefix.parent))
            folder = Path(tempfile.mkdtemp(prefix=f".{prefix.name}.", dir=prefix.parent))
            stack.callback(shutil.rmtree, folder, ignore_errors=True)
            os.chmod(folder, 0o755)
        stage = Stage(folder / prefix.name, text)
        yield stage
        with _write_errors(text):
            # Again: somebody may have written there meanwhile.
            _check_target(prefix, force)
            _move_into_place(stage.prefix, prefix)


def _check_target(prefix: Path, force: bool) -> None:
    for path in bundle_paths(prefix):
        if path.is_dir() and not path.is_symlink():
            raise UsageError(f"{path} is a folder: choose another PREFIX")
        if os.path.lexists(path) and not force:
            raise UsageError(f"{path} exists: choose another PREFIX, or overwrite with --force")


@contextlib.contextmanager
def _write_errors(where: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise ModelError(f"{where}: can't write the bundle: {error.strerror or error}") from None


def file_path(prefix: Path, name: str) -> Path:
    """PREFIX-NAME."""
    return prefix.with_name(f"{prefix.name}-{name}")


def bundle_paths(prefix: Path) -> list[Path]:
    """The paths of all files that a bundle at `prefix` may have."""
    return [file_path(prefix, name) for name in FILE_NAMES]


@contextlib.contextmanager
def _made_parents(folder: Path) -> Iterator[None]:
    """Make missing folders; remove them again when the body fails."""
    missing = [path for path in (folder, *folder.parents) if not path.exists()]
    try:
        folder.mkdir(parents=True, exist_ok=True)
        yield
    except BaseException:
        for path in missing:
            with contextlib.suppress(OSError):
                path.rmdir()
        raise


def _move_into_place(staged: Path, prefix: Path) -> None:
    """Replace the bundle at `prefix`; a failure half-way puts the old one back."""
    backup = staged.parent / "replaced"
    backup.mkdir()
    moves: list[tuple[Path, Path]] = []
    for name in FILE_NAMES:
        target = file_path(prefix, name)
        moves += [(target, backup / name), (file_path(staged, name), target)]
    begun: list[tuple[Path, Path]] = []
    try:
        for source, target in moves:
            if os.path.lexists(source):
                # Noted first: a signal may come right after the move.
                begun.append((source, target))
                os.replace(source, target)
        _sync_folder(prefix.parent)
    except BaseException:
        for source, target in reversed(begun):
            if not os.path.lexists(source):
                os.replace(target, source)
        raise


def _sync(file: Any) -> None:
    file.flush()
    os.fsync(file.fileno())


def _sync_folder(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def file_digest(path: Path) -> str:
    """SHA-256 of a file, in hexadecimal; raises OSError."""
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def _digest(path: Path) -> dict[str, Any]:
    return {"sha256": file_digest(path), "size": path.stat().st_size}


def _check_digest(path: Path, entry: Mapping[str, Any]) -> None:
    try:
        size = path.stat().st_size
        if size != entry["size"]:
            raise ModelError(f"{path}: {size} bytes, the manifest says {entry['size']}")
        if file_digest(path) != entry["sha256"]:
            raise ModelError(f"{path}: its SHA-256 is not the one in the manifest, the file has changed")
    except OSError as error:
        raise ModelError(f"{path}: {error.strerror}") from None


def _json_text(document: Any) -> str:
    return json.dumps(document, indent=2, ensure_ascii=False) + "\n"


def _read_json(path: Path) -> dict[str, Any]:
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError):
        raise ModelError(f"{path}: not JSON") from None
    if not isinstance(document, dict):
        raise ModelError(f"{path}: not a JSON object")
    return document
