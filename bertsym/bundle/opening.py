"""Open a bundle: check that its files are unchanged and consistent."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bertsym.atomic_writing import is_replacing, recover
from bertsym.bundle.consistency import check_bert, check_kinds
from bertsym.bundle.contents import Contents, file_states, read_contents
from bertsym.bundle.files import (
    MANIFEST,
    SIGNATURE,
    SYMBOL,
    TOKENIZER,
    TRAIN_SYMBOL,
    VOCAB_TXT,
    bundle_paths,
    file_path,
)
from bertsym.encoders.config import BertConfig
from bertsym.encoders.folding import is_folded
from bertsym.errors import BertsymError, ModelError, join_names
from bertsym.json_reader import json_object
from bertsym.signature import Signature, SymbolSignature
from bertsym.symbol.graph import SymbolGraph
from bertsym.symbol.params import ParamsFile
from bertsym.text.pipeline import check_ids, check_vocabulary
from bertsym.text.tokenizer import Tokenizer, TokenizerOptions
from bertsym.text.vocabulary import Vocabulary

_ATTEMPTS, _PAUSE = 20, 0.05  # attempts to open a bundle that is being replaced, and seconds between them


@dataclass(frozen=True)
class _Files:
    prefix: Path
    contents: Contents

    @property
    def manifest(self) -> dict[str, Any]:
        """The manifest."""
        return self.contents.manifest

    def path(self, name: str) -> Path:
        """The path of one of FILE_NAMES, for messages only: another bundle may have replaced the file."""
        return file_path(self.prefix, name)

    def has(self, name: str) -> bool:
        """Whether the bundle has one of FILE_NAMES."""
        return name in self.manifest["files"]

    def digests(self) -> dict[str, str]:
        """The SHA-256 of each file by its name, without that of the manifest."""
        return {name: entry["sha256"] for name, entry in self.manifest["files"].items()}

    def params(self) -> ParamsFile:
        """The parameters by name, memory-mapped."""
        return self.contents.params

    def text(self, name: str) -> str:
        """The text of an existing file: one of FILE_NAMES except PARAMS, VOCAB_JSON and MANIFEST."""
        return self.contents.texts[name]

    def graph(self, name: str = SYMBOL) -> SymbolGraph:
        """Parse the graph of SYMBOL or TRAIN_SYMBOL; raises ModelError."""
        return SymbolGraph.parse(self.text(name), str(self.path(name)))

    def _parse_vocabulary(self, special_tokens: Mapping[str, str]) -> Vocabulary | None:
        text = self.contents.texts.get(VOCAB_TXT)
        return None if text is None else Vocabulary.parse(text, self.path(VOCAB_TXT), special_tokens)

    def tokenizer_json(self) -> str | None:
        """The text of PREFIX-tokenizer.json; None when there is none."""
        return self.contents.texts.get(TOKENIZER)

    def tokenizer(self, options: TokenizerOptions, max_length: int) -> Tokenizer:
        """Build the tokenizer; raises ModelError when the bundle has none, or one that can't be run."""
        document = self.tokenizer_json()
        if document is None:
            raise ModelError(f"{self.prefix}: the bundle has no tokenizer: the model needs a {options.kind} tokenizer")
        return Tokenizer(document, str(self.path(TOKENIZER)), options, max_length)


@dataclass(frozen=True)
class SymbolBundle(_Files):
    """A bundle of any symbol, such as a part of a BERT; `open_any` opens it."""

    signature: SymbolSignature

    def vocabulary(self) -> Vocabulary | None:
        """Parse the WordPiece vocabulary of the BERT that the symbol was made from; None without one."""
        origin = self.signature.origin
        return None if origin is None else self._parse_vocabulary(origin["special_tokens"])

    def moved_to(self, prefix: str | Path) -> SymbolBundle:
        """Return the bundle after its files were moved."""
        return dataclasses.replace(self, prefix=Path(prefix))

    def check_content(self) -> None:
        """Raise ModelError unless signature, parameters and graphs are consistent."""
        params = self.params()
        inputs = {tensor.name for tensor in self.signature.inputs}
        labels = {tensor.name for tensor in self.signature.label_inputs}
        graphs = {name: self.graph(name) for name in (SYMBOL, TRAIN_SYMBOL) if self.has(name)}
        check_kinds(graphs, params.infos, self.path)
        for name, graph in graphs.items():
            # A training symbol of another program has its label in the only graph.
            extra = labels if name == TRAIN_SYMBOL else labels.intersection(graph.variables)
            unlike = set(graph.variables) ^ {*inputs, *params, *extra}
            if unlike:
                raise ModelError(
                    f"{self.path(name)}: variables differ from inputs and parameters: {join_names(sorted(unlike), 5)}"
                )


@dataclass(frozen=True)
class Bundle(_Files):
    """A bundle of a BERT, with or without a head."""

    config: BertConfig
    signature: Signature

    @classmethod
    def open(cls, prefix: str | Path) -> Bundle:
        """Open a bundle; check the digest of every file, and that the files are consistent.

        Raises ModelError, naming the file.
        """
        bundle = open_any(prefix)
        if isinstance(bundle, SymbolBundle):
            raise ModelError(
                f"{prefix}: the bundle of a symbol, not of a BERT that export writes: use inspect, extract, graft, "
                f"edit, lower, diff, draw and onnx; bertsym lower {prefix} OUT --vocab FILE --labels NAMES makes the "
                "bundle of a BERT of it, if it has a BERT"
            )
        return bundle

    def vocabulary(self) -> Vocabulary | None:
        """Parse the WordPiece vocabulary; None for a model with another tokenizer. Raises DataError."""
        return self._parse_vocabulary(self.signature.special_tokens)

    def check_content(self) -> None:
        """Raise ModelError unless signature, config, vocabulary, parameters and graphs are consistent."""
        names = [name for name in (SYMBOL, TRAIN_SYMBOL) if self.has(name)]
        graphs = {name: self.graph(name) for name in names}
        self._check_vocabulary()
        infos = self.params().infos
        check_bert(self.config, self.signature, infos, graphs, self.path)
        check_kinds(graphs, infos, self.path)

    def _check_vocabulary(self) -> None:
        vocabulary, signature, rows = self._parse_vocabulary({}), self.signature, self.config.vocab_size
        tokens: Mapping[str, int] = {}
        if vocabulary is not None:
            if len(vocabulary) != rows:
                raise ModelError(f"{self.path(VOCAB_TXT)}: {len(vocabulary)} tokens, but vocab_size is {rows}")
            tokens = {token: number for number, token in enumerate(vocabulary.tokens)}
        text = self.tokenizer_json()
        if text is not None:
            document = json_object(text, str(self.path(TOKENIZER)))
            if vocabulary is None:
                tokens = check_ids(document, rows)
            else:
                check_vocabulary(document, vocabulary)
        special = signature.special_tokens
        for role, token in special.items():
            if token not in tokens:
                raise ModelError(f"{self.path(SIGNATURE)}: special token {token!r} is not in the vocabulary")
            if signature.special_ids.get(role) != tokens[token]:
                raise ModelError(
                    f"{self.path(SIGNATURE)}: special_ids: {role} is not {tokens[token]}, the id of {token!r}"
                )
        for role in signature.special_ids.keys() | {"pad", "cls", "sep"}:
            if role not in special:
                raise ModelError(f"{self.path(SIGNATURE)}: special_tokens has no {role}")
        if vocabulary is not None and "unk" not in special:
            raise ModelError(f"{self.path(SIGNATURE)}: special_tokens has no unk")
        if signature.pad_id != signature.special_ids["pad"]:
            raise ModelError(f"{self.path(SIGNATURE)}: pad_id {signature.pad_id} is not the id of the pad token")

    def moved_to(self, prefix: str | Path) -> Bundle:
        """Return the bundle after its files were moved."""
        return dataclasses.replace(self, prefix=Path(prefix))

    @property
    def has_head(self) -> bool:
        """Whether the symbol ends in a head."""
        return self.signature.kind != "encoder"

    @property
    def is_folded(self) -> bool:
        """Whether query, key and value of layers are folded into one parameter."""
        return is_folded(self.params())


def recover_bundle(prefix: Path) -> None:
    """Recover from a process that died while it replaced the bundle; raises ModelError."""
    if prefix.name:
        recover(prefix, [path.name for path in bundle_paths(prefix)])


def open_any(prefix: str | Path, *, digests: bool = True) -> Bundle | SymbolBundle:
    """Open a bundle of a BERT or of any symbol; without `digests`, the digests of large files are not compared.

    If another process replaces the bundle meanwhile, the old or the new bundle is opened, never a mixture. Raises
    ModelError, naming the file.
    """
    prefix = Path(prefix)
    for attempt in range(_ATTEMPTS):
        time.sleep(_PAUSE if attempt else 0)
        recover_bundle(prefix)  # waits for a process that is replacing it
        before = file_states(prefix)
        compared = digests or attempt > 0  # without digests, unchanged files prove consistency
        found: Bundle | SymbolBundle | BertsymError
        try:
            found = _open(prefix, compared)
        except BertsymError as error:
            found = error
        if compared and not isinstance(found, BertsymError):
            return found
        if file_states(prefix) == before and not is_replacing(prefix):
            if isinstance(found, BertsymError):
                raise found
            return found
    raise ModelError(f"{prefix}: another process replaced it {_ATTEMPTS} times while it was being opened: try again")


def has_bundle(prefix: Path) -> bool:
    """Whether a bundle exists at `prefix`, even while another process replaces it."""
    path = file_path(prefix, MANIFEST)
    for _ in range(_ATTEMPTS):
        recover_bundle(prefix)
        before = file_states(prefix)
        if path.exists():
            return True
        if file_states(prefix) == before and not is_replacing(prefix):
            break
    return False


def _open(prefix: Path, digests: bool) -> Bundle | SymbolBundle:
    contents = read_contents(prefix, digests)
    document = json_object(contents.texts[SIGNATURE], str(file_path(prefix, SIGNATURE)))
    bundle: Bundle | SymbolBundle
    if contents.config is not None:
        bundle = Bundle(prefix, contents, contents.config, Signature.from_json(document))
    else:
        bundle = SymbolBundle(prefix, contents, SymbolSignature.from_json(document))
    bundle.check_content()
    return bundle
