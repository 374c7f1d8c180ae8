"""Open a bundle: check that its files are unchanged and consistent."""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from bertsym.analysis.constants import reads_fed_lengths
from bertsym.analysis.encoder_detection import require_encoder
from bertsym.atomic_writing import is_replacing, recover
from bertsym.bundle.contents import Contents, file_states, read_contents
from bertsym.bundle.files import (
    MANIFEST,
    PARAMS,
    SIGNATURE,
    SYMBOL,
    TOKENIZER,
    TRAIN_SYMBOL,
    VOCAB_TXT,
    bundle_paths,
    file_path,
)
from bertsym.encoders.catalogue import (
    FINISHED_HEADS,
    FULLY_CONNECTED,
    HEAD_TRANSFORM,
    LABEL_NAME,
    OPERATORS,
    OUTPUTS,
    TRAINED_HEADS,
)
from bertsym.encoders.config import BertConfig
from bertsym.encoders.folding import folded_shapes, is_folded
from bertsym.encoders.inputs import INPUT_NAMES, TOKEN_IDS, TOKEN_TYPES, VALID_LENGTH, input_shapes
from bertsym.encoders.parameters import head_shapes, parameter_shapes
from bertsym.errors import BertsymError, ModelError, join_names
from bertsym.json_reader import json_object
from bertsym.signature import Signature, SymbolSignature, Tensor, bert_inputs
from bertsym.symbol.attributes import integers
from bertsym.symbol.graph import SymbolGraph
from bertsym.symbol.params import ArrayInfo, ParamsFile
from bertsym.symbol.quantized_layers import OPERATORS as QUANTIZED_OPERATORS
from bertsym.symbol.quantized_layers import fused_layers
from bertsym.symbol.shape_inference import infer_tensor_shapes
from bertsym.symbol.validation import check_symbol
from bertsym.symbol.variable_roles import shared_auxiliary_states
from bertsym.text.pipeline import check_ids, check_vocabulary
from bertsym.text.tokenizer import Tokenizer, TokenizerOptions
from bertsym.text.vocabulary import Vocabulary

MAX_ELEMENTS = 1 << 27  #: of a tensor at the input sizes of `_TRIED`
_ATTEMPTS, _PAUSE = 20, 0.05  # attempts to open a bundle that is being replaced, and seconds between them
# Batch size and length; primes, so that a Reshape to another number does not fit both by chance.
_TRIED = ((11, 5), (13, 7))


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
                "edit, lower, diff, draw and onnx"
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


def check_kinds(
    graphs: Mapping[str, SymbolGraph], infos: Mapping[str, ArrayInfo], path: Callable[[str], object]
) -> None:
    """Raise ModelError unless exactly the auxiliary states of the graphs are stored as ``aux:``."""
    states = shared_auxiliary_states(graphs)
    for info in infos.values():
        kind = "aux" if info.name in states else "arg"
        if info.kind != kind:
            stored = f"stored as {info.kind}:" if info.kind else "stored without its kind"
            raise ModelError(f"{path(PARAMS)}: parameter {info.name} is {stored}, but it is {kind}: in the graph")


def check_bert(
    config: BertConfig,
    signature: Signature,
    infos: Mapping[str, ArrayInfo],
    graphs: Mapping[str, SymbolGraph],
    path: Callable[[str], object],
) -> None:
    """Raise ModelError unless parameters and graphs match config and signature.

    `graphs` are by file name (SYMBOL, TRAIN_SYMBOL); `path` returns the path of a file for messages.
    """
    if signature.family != config.family:
        raise ModelError(f"{path(SIGNATURE)}: family {signature.family}, but that of the config is {config.family}")
    labels = (Tensor(LABEL_NAME, ("batch",)),) if TRAIN_SYMBOL in graphs else ()
    # Without the input of token types, every token has the type 0.
    all_type_0 = TOKEN_TYPES not in signature.input_names and config.segments < 2
    taken = [name for name in INPUT_NAMES if name != TOKEN_TYPES or not all_type_0]
    _check_tensors("inputs", signature.inputs, bert_inputs(signature.length, taken), path(SIGNATURE))
    _check_tensors("label inputs", signature.label_inputs, labels, path(SIGNATURE))
    expected = folded_shapes(_expected_shapes(config, signature, infos, path(SIGNATURE)), infos)
    shapes = {name: info.shape for name, info in infos.items()}
    quantized = signature.precision == "int8"
    if quantized:
        # Folded weights and int8 weights have other names.
        expected = {name: shape for name, shape in expected.items() if name in shapes}
        _check_quantized(config, shapes, graphs, path)
    elif signature.precision != "float32":
        raise ModelError(f"{path(SIGNATURE)}: precision {signature.precision!r} is not one of float32, int8")
    differing = sorted(
        name
        for name in shapes.keys() | expected
        if shapes.get(name) != expected.get(name) and (name in expected or not quantized)
    )
    if differing:
        raise ModelError(f"{path(PARAMS)}: parameters differ from the config: {join_names(differing, 5)}")
    dtypes = ("float32", "int8") if quantized else ("float32",)
    for info in infos.values():
        if np.dtype(info.dtype).name not in dtypes:
            raise ModelError(f"{path(PARAMS)}: {info.name} is {np.dtype(info.dtype).name}, not {' or '.join(dtypes)}")
    for name, graph in graphs.items():
        extra = {LABEL_NAME} if name == TRAIN_SYMBOL else set()
        check_symbol(graph, str(path(name)), OPERATORS | QUANTIZED_OPERATORS if quantized else OPERATORS)
        _check_addresses(graph, config, path(name))
        unlike = set(graph.variables) ^ {*signature.input_names, *extra, *shapes}
        if unlike:
            raise ModelError(
                f"{path(name)}: variables differ from inputs and parameters: {join_names(sorted(unlike), 5)}"
            )
        _check_sizes(graph, config, signature, shapes, path(name))
        outputs = [f"{output}_output" for output in graph.output_names]
        if outputs != [signature.output_name]:
            raise ModelError(f"{path(name)}: ends in {', '.join(outputs)}, not in {signature.output_name}")


def _check_tensors(what: str, found: Sequence[Tensor], expected: Sequence[Tensor], where: object) -> None:
    """Raise ModelError unless names, shapes and dtypes of the tensors are those that bertsym feeds."""

    def described(tensors: Sequence[Tensor]) -> str:
        shown = (f"{each.name} ({', '.join(map(str, each.shape or '?'))}) {each.dtype}" for each in tensors)
        return ", ".join(shown) or "none"

    if described(found) != described(expected):
        raise ModelError(f"{where}: the {what} are {described(found):.200}, not {described(expected)}")


def _check_addresses(graph: SymbolGraph, config: BertConfig, where: object) -> None:
    """Raise ModelError for lengths that are not checked, and for a Reshape to sizes that are not in the config."""
    for node in graph.nodes:
        if node.op == "Reshape":
            sizes = {*integers(node.attrs, "shape")}
            if not sizes <= {-1, 0, 1, config.num_heads, config.units} or "target_shape" in node.attrs:
                raise ModelError(f"{where}: node {node.name!r} reshapes to sizes that are not in the config")
        has_lengths = node.op in ("SequenceMask", "softmax") and len(node.inputs) > 1
        if has_lengths and not reads_fed_lengths(node, (TOKEN_IDS, TOKEN_TYPES), VALID_LENGTH):
            raise ModelError(f"{where}: node {node.name!r} reads lengths that are not computed from {VALID_LENGTH}")


def _check_sizes(
    graph: SymbolGraph, config: BertConfig, signature: Signature, shapes: Mapping[str, tuple[int, ...]], where: object
) -> None:
    """Raise ModelError unless all shapes fit, and the output's is the signature's, for any batch size and length."""
    for batch, length in _TRIED:
        length = signature.length or min(length, config.max_length)
        known = {**shapes, **dict(input_shapes(batch, length)), LABEL_NAME: (batch,)}
        found = infer_tensor_shapes(graph, known, str(where))
        free = {"batch": batch, "length": length}
        expected = tuple(free.get(str(size), size) for size in signature.output_shape)
        if found[graph.outputs[0]] != expected:
            raise ModelError(
                f"{where}: the output has the shape {found[graph.outputs[0]]}, the signature says {expected}"
            )
        for output, shape in found.items():
            if math.prod(shape) > MAX_ELEMENTS:
                raise ModelError(f"{where}: {output} has the shape {shape} for inputs of {batch} x {length}")


def _check_quantized(
    config: BertConfig,
    shapes: Mapping[str, tuple[int, ...]],
    graphs: Mapping[str, SymbolGraph],
    path: Callable[[str], object],
) -> None:
    """Raise ModelError unless the graph is an encoder of `config` with int8 layers."""
    for name, graph in graphs.items():
        where = path(name)
        try:
            layers = [layer for layer in fused_layers(graph).values() if layer.quantized]
            encoder = require_encoder(graph, shapes)
        except ModelError as error:
            raise ModelError(f"{where}: {error}") from None
        found = (len(encoder.layers), encoder.units, encoder.embedding_size, encoder.vocab_size, encoder.max_length)
        expected = (config.num_layers, config.units, config.embedding_size, config.vocab_size, config.max_length)
        if not layers or found != expected:
            raise ModelError(f"{where}: not an int8 graph of an encoder with this config")


def _expected_shapes(
    config: BertConfig, signature: Signature, infos: Mapping[str, ArrayInfo], where: object
) -> dict[str, tuple[int, ...]]:
    if signature.output not in OUTPUTS:
        raise ModelError(f"{where}: output {signature.output!r} is not one of {', '.join(OUTPUTS)}")
    if not 1 <= (signature.length or 1) <= signature.max_length:
        raise ModelError(f"{where}: length {signature.length} is not in 1 to {signature.max_length}, the max length")
    if signature.max_length > config.max_length:
        raise ModelError(
            f"{where}: max length {signature.max_length} exceeds the {config.max_length} positions of the config"
        )
    shapes = parameter_shapes(config, pooler=signature.output == "pooled")
    if signature.kind == "encoder":
        return shapes
    task = signature.task
    is_finished = signature.kind == "logits" and f"{FULLY_CONNECTED}_bias" not in infos
    if task is None or (task not in FINISHED_HEADS if is_finished else TRAINED_HEADS.get(task) != signature.kind):
        raise ModelError(f"{where}: kind {signature.kind!r}, task {signature.task!r} is unknown")
    outputs = signature.output_shape[-1] if signature.output_shape else None
    if not isinstance(outputs, int):
        raise ModelError(f"{where}: the shape of the output does not end in a number: {signature.output_shape}")
    if signature.kind == "classifier" and outputs != len(signature.class_names):
        raise ModelError(f"{where}: {len(signature.class_names)} class names for {outputs} outputs")
    width = config.units * (signature.length or 1)
    if not is_finished:
        has_transform = f"{HEAD_TRANSFORM}_weight" in infos
        return {**shapes, **head_shapes(config, task, outputs, width=width, has_transform=has_transform)}
    prefix = FINISHED_HEADS[task][1]
    return {**shapes, f"{prefix}_weight": (outputs, width), f"{prefix}_bias": (outputs,)}


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
