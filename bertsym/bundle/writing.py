"""Write a bundle atomically."""

from __future__ import annotations

import contextlib
import dataclasses
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from bertsym.analysis.detected_encoder import DetectedEncoder
from bertsym.analysis.encoder_detection import require_encoder
from bertsym.array import Array
from bertsym.atomic_writing import work_folder, write_file, write_text
from bertsym.bundle.contents import FORMAT_VERSION
from bertsym.bundle.files import (
    CARD,
    FILE_NAMES,
    MANIFEST,
    PARAMS,
    SIGNATURE,
    SYMBOL,
    TOKENIZER,
    TRAIN_SYMBOL,
    VOCAB_JSON,
    VOCAB_TXT,
    bundle_paths,
    file_path,
    json_text,
)
from bertsym.bundle.opening import Bundle, SymbolBundle, open_any
from bertsym.encoders.config import BertConfig
from bertsym.encoders.forms import TARGETS
from bertsym.errors import ModelError, UsageError
from bertsym.provenance import current_command, installed_versions
from bertsym.signature import Signature, SymbolSignature
from bertsym.symbol.graph import SymbolGraph
from bertsym.symbol.operator_versions import oldest_mxnet
from bertsym.symbol.params import shapes_of, write_params
from bertsym.symbol.variable_roles import shared_auxiliary_states
from bertsym.text.vocabulary import Vocabulary

AnyBundle = TypeVar("AnyBundle", bound="Bundle | SymbolBundle")


@dataclass(frozen=True)
class BundleContent:
    """Content of a BERT bundle. ``facts`` are copied to the manifest."""

    config: BertConfig
    signature: Signature
    symbol_json: str
    arg_params: Mapping[str, Array]
    vocabulary: Vocabulary | None  #: None if the model has no WordPiece vocabulary
    facts: Mapping[str, Any]
    train_symbol_json: str | None = None
    tokenizer_json: str | None = None  #: written verbatim
    encoder: DetectedEncoder | None = None  #: of the symbol, if it was detected before


@dataclass(frozen=True)
class SymbolContent:
    """Content of a bundle of any other symbol."""

    signature: SymbolSignature
    symbol_json: str
    params: Mapping[str, Array]
    vocabulary: Vocabulary | None
    facts: Mapping[str, Any]
    train_symbol_json: str | None = None
    tokenizer_json: str | None = None  #: written verbatim


@dataclass(frozen=True)
class Stage:
    """An unfinished bundle, in a temporary folder beside `target`."""

    prefix: Path
    target: str
    scratch: Path  #: folder for other temporary files, on the same disk; removed with the Stage

    def write(self, content: BundleContent) -> Bundle:
        """Write all files, read them back and return the bundle, still in the temporary folder."""
        facts = {"config": content.config.to_dict(), **content.facts}
        self._write_files(_for_versions(content), content.arg_params, facts)
        return Bundle.open(self.prefix)

    def write_symbol(self, content: SymbolContent) -> SymbolBundle:
        """Write a symbol that is not a BERT as `export` writes it; otherwise as `write`."""
        self._write_files(content, content.params, {"config": None, **content.facts})
        bundle = open_any(self.prefix)
        assert isinstance(bundle, SymbolBundle)
        return bundle

    def add_facts(self, bundle: AnyBundle, facts: Mapping[str, Any]) -> AnyBundle:
        """The bundle that was written here, with further keys in its manifest."""
        manifest = {**bundle.manifest, **facts}
        with _write_errors(self.target):
            digest = write_text(file_path(self.prefix, MANIFEST), json_text(manifest))["sha256"]
        contents = dataclasses.replace(bundle.contents, manifest=manifest, manifest_digest=digest)
        return dataclasses.replace(bundle, contents=contents)

    def add_card(self, bundle: Bundle, text: str) -> Bundle:
        """The bundle that was written here, with a model card."""
        with _write_errors(self.target):
            entry = write_text(file_path(self.prefix, CARD), text)
        entries = {**bundle.manifest["files"], CARD: entry}
        files = {name: entries[name] for name in FILE_NAMES if name in entries}
        contents = dataclasses.replace(bundle.contents, texts={**bundle.contents.texts, CARD: text})
        return self.add_facts(dataclasses.replace(bundle, contents=contents), {"files": files})

    def _write_files(
        self,
        content: BundleContent | SymbolContent,
        params: Mapping[str, Array],
        facts: Mapping[str, Any],
    ) -> None:
        symbols = {SYMBOL: content.symbol_json, TRAIN_SYMBOL: content.train_symbol_json}
        auxiliary = shared_auxiliary_states({name: SymbolGraph.parse(text) for name, text in symbols.items() if text})
        vocabulary = content.vocabulary
        texts = {
            **symbols,
            TOKENIZER: content.tokenizer_json,
            VOCAB_TXT: vocabulary.to_text() if vocabulary and vocabulary.is_wordpiece else None,
            VOCAB_JSON: vocabulary.to_gluonnlp_json() if vocabulary and vocabulary.is_wordpiece else None,
            SIGNATURE: json_text(content.signature.to_json()),
        }
        with _write_errors(self.target):
            entries = {
                PARAMS: write_file(file_path(self.prefix, PARAMS), lambda file: write_params(file, params, auxiliary))
            }
            for name, text in texts.items():
                if text is not None:
                    entries[name] = write_text(file_path(self.prefix, name), text)
            manifest = {
                "format": "bertsym bundle",
                "format_version": FORMAT_VERSION,
                "files": {name: entries[name] for name in FILE_NAMES if name in entries},
                "command": current_command(),
                **facts,
                "guarded": content.signature.guarded,
                "versions": installed_versions(),
            }
            write_text(file_path(self.prefix, MANIFEST), json_text(manifest))


def _for_versions(content: BundleContent) -> BundleContent:
    """Complete the signature with form, oldest MXNet and guard of the graphs; note the target MXNet in the graphs."""
    graphs = [SymbolGraph.parse(text) for text in (content.symbol_json, content.train_symbol_json) if text]
    oldest = oldest_mxnet(node for graph in graphs for node in graph.nodes).version
    encoder = content.encoder or require_encoder(graphs[0], shapes_of(content.arg_params))
    if content.signature.target_mxnet is not None:
        for graph in graphs:
            graph.set_mxnet_version(TARGETS[content.signature.target_mxnet].release)
    return dataclasses.replace(
        content,
        signature=dataclasses.replace(
            content.signature, form=encoder.form.name, minimum_mxnet=oldest, guarded=encoder.guarded
        ),
        symbol_json=graphs[0].to_json(),
        train_symbol_json=graphs[1].to_json() if len(graphs) > 1 else None,
    )


@contextlib.contextmanager
def stage_bundle(prefix: str | Path, force: bool = False) -> Iterator[Stage]:
    """Write a bundle at `prefix` atomically.

    Yields a Stage. On success its files move to `prefix`; on any exception they are removed, and existing files are
    unchanged. Raises UsageError at once when files of a bundle exist and `force` is False, BertsymError when another
    process is writing to `prefix`, and ModelError when the folder can't be written.
    """
    text, prefix = str(prefix), Path(prefix)
    with contextlib.ExitStack() as stack:
        with _write_errors(text):
            if not prefix.name or text.endswith(os.sep) or prefix.is_dir():
                raise UsageError(
                    f"{text!r} is not a PREFIX: give a folder and the start of a file name, such as out/model"
                )
            stack.enter_context(_made_parents(prefix.parent))
            folder = stack.enter_context(work_folder(prefix, [path.name for path in bundle_paths(prefix)]))
            _check_target(prefix, force)
        yield Stage(folder.new / prefix.name, text, folder.path)
        with _write_errors(text):
            # Again: another process may have written there meanwhile.
            _check_target(prefix, force)
            folder.replace()


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


@contextlib.contextmanager
def _made_parents(folder: Path) -> Iterator[None]:
    """Create missing folders; remove them if the body fails."""
    missing = [path for path in (folder, *folder.parents) if not path.exists()]
    try:
        folder.mkdir(parents=True, exist_ok=True)
        yield
    except BaseException:
        for path in missing:
            with contextlib.suppress(OSError):
                path.rmdir()
        raise
