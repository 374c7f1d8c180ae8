"""Write a bundle as a folder that transformers or sentence-transformers loads: config, weights, tokenizer, card."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from bertsym.array import Array
from bertsym.atomic_writing import sync_folder, work_folder, write_text
from bertsym.bundle import Bundle, json_text
from bertsym.destinations.hugging_face_classes import (
    TransformersClass,
    choose_class,
    config_document,
    encoder_class,
    written_config,
)
from bertsym.destinations.safetensors_writer import write_safetensors
from bertsym.destinations.sentence_transformers import (
    FILES,
    FOLDERS,
    SENTENCE_TRANSFORMERS,
    TRANSFORMERS,
    SentenceModules,
    choose_library,
    sentence_modules,
)
from bertsym.encoders.config import BertConfig
from bertsym.encoders.folding import unfold_parameters
from bertsym.encoders.parameters import POOLER, POSITIONS, RELATIVE_BUCKETS, TOKEN_TYPES, expand, own_layers
from bertsym.errors import ModelError, UsageError, VerificationError
from bertsym.families import list_names
from bertsym.model import ModelSource
from bertsym.model_card.card import model_card
from bertsym.sources.hugging_face import load_hugging_face
from bertsym.surgery.bundle_options import BundleOptions
from bertsym.surgery.lower import lower
from bertsym.symbol.params import LazyParameters, shapes_of
from bertsym.verifier import DEFAULT_RTOL, Check, verify_bundle

#: files of earlier writes that --force replaces; a folder with any other file is left alone
_FILES = (
    *("config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json"),
    *("vocab.txt", "README.md", *FILES),
    *("model.onnx", "model.onnx.data"),  # which `bertsym onnx` writes beside them for optimum; old after this write
)


@dataclass(frozen=True)
class HuggingFaceResult:
    """A written folder for transformers or sentence-transformers."""

    folder: Path
    architecture: str  #: the class that loads it, such as ``BertForSequenceClassification``
    library: str  #: one of ``destinations.sentence_transformers.LIBRARIES``
    checks: list[Check]  #: comparisons of the folder, read back, with the bundle
    notes: tuple[str, ...]


def export_hugging_face(
    model: str | Path | ModelSource,
    folder: str | Path,
    *,
    library: str | None = None,
    options: BundleOptions = BundleOptions(),
    force: bool = False,
    verify: bool = True,
    progress: Callable[[str], object] = lambda text: None,
) -> HuggingFaceResult:
    """Write a bundle, or any BERT, as a folder for transformers or sentence-transformers, with equal outputs.

    A `model` that is not the bundle of a BERT needs `options`: its bundle is made first, as by `lower`.
    `library` is ``transformers`` or ``sentence-transformers``; None: `choose_library` decides. In a folder of
    sentence-transformers, the embedding of a text is the output of the bundle or, of a classifier, its logits.

    The folder is read back before it appears: every weight must be bit-equal to its parameter, and with `verify` the
    outputs of the bundle are compared with the reference encoder and head (numpy, float64) on the weights and the
    config.json of the folder.

    Raises:
        UsageError: `folder` exists, without `force`, or holds files that are not those of such a folder; or `library`
            is not supported; or an option is missing or does not fit.
        ModelError: the model is damaged, int8, or computes what the library can't express.
        DataError: a file of the options can't be read.
        VerificationError: the outputs differ. No folder is written then.
    """
    source, target = ModelSource.of(model), Path(folder)
    if not options.is_given:
        bundle = source.open().bundle
        if not isinstance(bundle, Bundle):
            raise UsageError(
                f"{source.path}: not the bundle of a BERT: give --vocab vocab.txt or --tokenizer tokenizer.json, and "
                "--labels for a head with classes"
            )
        return _export(bundle, target, library, force, verify, progress)
    _check_target(target, force)
    with work_folder(target.with_name(f"{target.name}-bundle")) as work:
        progress("making the bundle, comparing it with the symbol")
        name = Path(source.path).name.removesuffix("-symbol.json")
        bundle = lower(source, work.path / name, options=options).bundle
        assert isinstance(bundle, Bundle)  # as with all options
        try:
            return _export(bundle, target, library, force, verify, progress)
        except ModelError as error:  # which names the bundle
            raise ModelError(str(error).replace(str(bundle.prefix), str(source.path))) from None


def _export(
    bundle: Bundle,
    target: Path,
    library: str | None,
    force: bool,
    verify: bool,
    progress: Callable[[str], object],
) -> HuggingFaceResult:
    precision = bundle.signature.precision
    if precision != "float32":
        raise ModelError(f"{bundle.prefix}: is {precision}; give the float32 bundle that it was made from")
    modules = sentence_modules(bundle) if choose_library(bundle, library) == SENTENCE_TRANSFORMERS else None
    chosen = choose_class(bundle) if modules is None else encoder_class(bundle)
    params: Mapping[str, Array] = bundle.params()
    if bundle.is_folded:
        params = unfold_parameters(params, bundle.config)
    config = config_document(bundle, chosen)
    _check_target(target, force)
    with work_folder(target) as work:
        staged = work.path / "folder"
        try:
            staged.mkdir()
            progress(f"writing {chosen.name}")
            weights = _weights(bundle, chosen, params, modules)
            write_safetensors(staged / "model.safetensors", weights, {"format": "pt"})
            if modules is not None:
                modules.write(staged, bundle, params)
            texts = {"config.json": json_text(config), **_tokenizer_files(bundle)}
            texts["README.md"] = model_card(bundle, chosen.name, modules.embedding if modules is not None else None)
            for name, text in texts.items():
                write_text(staged / name, text)
            sync_folder(staged)
        except OSError as error:
            raise ModelError(f"{target}: cannot write: {error.strerror or error}") from None
        progress("reading the folder back" + (", comparing with the bundle" if verify else ""))
        checks = _verify(bundle, params, staged, written_config(bundle, chosen.family), modules, verify, str(target))
        if target.exists():
            shutil.rmtree(target)
        os.rename(staged, target)
        sync_folder(target.parent)
    architecture = chosen.name if modules is None else "SentenceTransformer"
    used = TRANSFORMERS if modules is None else SENTENCE_TRANSFORMERS
    return HuggingFaceResult(target, architecture, used, checks, _notes(bundle, chosen, modules))


def _check_target(target: Path, force: bool) -> None:
    if not os.path.lexists(target):
        if not target.parent.is_dir():
            raise UsageError(f"{target}: the folder {target.parent} does not exist")
        return
    if not target.is_dir():
        raise UsageError(f"{target}: exists and is not a folder")
    names = sorted(path.name for path in target.iterdir())
    others = [name for name in names if name not in _FILES and not re.fullmatch(FOLDERS, name)]
    if others:
        raise UsageError(f"{target}: holds {others[0]!r}, which is not a file of such a folder; choose another folder")
    if not force and any(target.iterdir()):
        raise UsageError(f"{target} exists: choose another folder, or overwrite it with --force")


def _weights(
    bundle: Bundle, chosen: TransformersClass, params: Mapping[str, Array], modules: SentenceModules | None
) -> Mapping[str, Array]:
    """The weights of the class by their names in transformers, read on demand."""
    config = written_config(bundle, chosen.family)
    shapes = {**shapes_of(params)}
    shapes[POSITIONS] = (config.position_rows, config.embedding_width)
    if config.token_type_vocab_size != bundle.config.token_type_vocab_size:
        shapes[TOKEN_TYPES] = (config.token_type_vocab_size, config.embedding_width)
    elsewhere = {RELATIVE_BUCKETS, *(modules.names.values() if modules is not None else ())}
    table, prefix = chosen.family.names, "" if chosen.head is None else chosen.family.names.prefix
    layers = own_layers(bundle.config)
    names = {
        prefix + theirs: ours
        for our_template, their_template in table.names.items()
        for ours, theirs in zip(expand(our_template, layers), expand(their_template, layers))
        if ours in shapes
    }
    if chosen.head is not None:
        names.update(chosen.head.weights)
    unused = [name for name in shapes if name not in names.values() and name not in elsewhere]
    if unused:
        raise ModelError(f"{bundle.prefix}: {unused[0]} has no place in {chosen.name}")

    def read(name: str) -> Array:
        ours = names[name]
        if ours not in (POSITIONS, TOKEN_TYPES):
            return params[ours]
        array = params[ours] if ours in params else np.zeros((0, config.embedding_width), np.float32)
        return np.pad(array, ((shapes[ours][0] - len(array), 0), (0, 0)))

    return LazyParameters({theirs: shapes[ours] for theirs, ours in names.items()}, read)


def _tokenizer_files(bundle: Bundle) -> dict[str, str]:
    """The texts of the tokenizer's files by name; none where the bundle has no tokenizer."""
    document, signature = bundle.tokenizer_json(), bundle.signature
    if document is None:
        return {}
    tokens = {f"{role}_token": token for role, token in signature.special_tokens.items()}
    inputs = ["input_ids", "token_type_ids", "attention_mask"]
    if signature.tokenizer.segments == 1:
        inputs.remove("token_type_ids")
    settings: dict[str, Any] = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "model_max_length": signature.max_length,
        "model_input_names": inputs,
        "clean_up_tokenization_spaces": False,
        **({"split_special_tokens": True} if signature.tokenizer.literal_special_tokens else {}),
        **tokens,
    }
    files = {
        "tokenizer.json": document,
        "tokenizer_config.json": json_text(settings),
        "special_tokens_map.json": json_text(tokens),
    }
    if bundle.has("vocab.txt"):
        files["vocab.txt"] = bundle.text("vocab.txt")
    return files


def _verify(
    bundle: Bundle,
    expected: Mapping[str, Array],
    staged: Path,
    config: BertConfig,
    modules: SentenceModules | None,
    compares: bool,
    where: str,
) -> list[Check]:
    """Read the folder as a source; raises VerificationError for a weight or an output that differs.

    `config` is that of the folder, whose position table may begin with rows that the bundle does not have.
    """
    found = load_hugging_face(str(staged), with_head=bundle.has_head or modules is not None)
    arrays = {**found.arg_params, **(found.head.arg_params if found.head is not None else {})}
    if modules is not None:
        embedding = found.embedding
        if embedding is None or (embedding.embedding, embedding.max_length) != (
            modules.embedding,
            bundle.signature.max_length,
        ):
            raise VerificationError(f"{where}: modules.json was read back as {embedding}, not {modules.embedding}")
        arrays.update({ours: embedding.arg_params[name] for name, ours in modules.names.items()})
    added = config.position_rows - bundle.config.position_rows
    for name in expected:
        array = arrays[name][added:] if name == POSITIONS else arrays.get(name)
        if array is None or not np.array_equal(array, expected[name]):
            raise VerificationError(f"{where}: {name} was read back with other elements")
    if found.config != config:
        raise VerificationError(f"{where}: config.json was read back as {found.config}, not {config}")
    if not compares:
        return []
    return verify_bundle(bundle, arrays, DEFAULT_RTOL, (16, 40), where, found.checkpoint)


def _notes(bundle: Bundle, chosen: TransformersClass, modules: SentenceModules | None) -> tuple[str, ...]:
    """What a user of the folder must know."""
    notes = []
    if modules is not None and bundle.has_head:
        names = f" ({list_names(bundle.signature.class_names)})" if bundle.signature.class_names else ""
        probabilities = ", before softmax or sigmoid" if bundle.signature.kind == "classifier" else ""
        notes.append(f"the embedding of a text is the output of the {bundle.signature.task} head{names}{probabilities}")
    elif chosen.head is None and modules is None:
        notes.append(f"the output {bundle.signature.output} is computed from last_hidden_state by the caller")
        if chosen.family.names.pooler and not all(name in bundle.params() for name in POOLER):
            notes.append(f"the bundle has no pooler: {chosen.name} initialises one, and pooler_output is meaningless")
    if bundle.tokenizer_json() is None:
        notes.append("the bundle has no tokenizer, so the folder has none")
    return tuple(notes)
