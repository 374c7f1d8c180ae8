"""The tokenizer of a Hugging Face folder as one document, with the ids that transformers assigns.

transformers reads tokenizer.json, or builds BERT's pipeline from vocab.txt. Its BertTokenizer then sets the
normalization of tokenizer_config.json and adds the tokens that several files name.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bertsym.errors import DataError, ModelError
from bertsym.json_reader import JsonValue, read_json
from bertsym.sources.added_tokens import LISTS, AddedTokens, SpecialToken, numbered_tokens, special_tokens
from bertsym.sources.slow_tokenizers.class_rules import SLOW_FILES, add_class_steps, convert_slow
from bertsym.sources.tokenizer_classes import CLASS_OF_MODEL, CLASSES, bert_options, find_differences
from bertsym.text.pipeline import Pipeline
from bertsym.text.tokenizer import TokenizerOptions
from bertsym.text.tokenizer_model import MODELS, model_tokens
from bertsym.text.vocabulary import ROLES, Vocabulary, read_vocabulary, unused_row
from bertsym.text.wordpiece import (
    MAX_WORD,
    read_options,
    wordpiece_document,
)

VOCAB, FAST, CONFIG = "vocab.txt", "tokenizer.json", "tokenizer_config.json"
TOKEN_MAP, ADDED = "special_tokens_map.json", "added_tokens.json"
TOKENIZER_FILES = (VOCAB, FAST, CONFIG, TOKEN_MAP, ADDED)  #: the vocabulary first; SLOW_FILES where both are missing
_NEEDED = ("pad", "unk", "cls", "sep")  # roles of special tokens that a model needs; unk only for WordPiece
_WORDPIECE = {"continuing_subword_prefix", "max_input_chars_per_word"}
_DOCUMENT = ("added_tokens", "normalizer", "pre_tokenizer", "post_processor", "decoder")


@dataclass(frozen=True)
class FoundTokenizer:
    """The tokenizer of a folder; its `document` is None when bertsym does not support the class."""

    vocabulary: Vocabulary
    options: TokenizerOptions
    document: dict[str, Any] | None
    files: tuple[Path, ...]  #: the files that were read, the vocabulary first
    notes: tuple[str, ...]  #: what was assumed


def read_tokenizer(
    folder: Path,
    rows: int,
    positions: int = 0,
    model_class: str | None = None,
    model_type: str | None = None,
    lower_case: bool = False,
) -> FoundTokenizer:
    """Read the tokenizer of a model with `rows` rows in its token embedding and texts of at most `positions` tokens.

    `model_class` and `model_type` are ``tokenizer_class`` and ``model_type`` of config.json, which decide the class
    where tokenizer_config.json names none. With `lower_case`, texts are lower-cased first. Raises DataError or
    ModelError, naming the file.
    """
    paths = {name: folder / name for name in TOKENIZER_FILES if (folder / name).exists()}
    is_slow = not paths.keys() & {VOCAB, FAST}
    if is_slow and not any((folder / name).exists() for name in SLOW_FILES):
        raise DataError(f"{folder}: no tokenizer: no {FAST}, {VOCAB}, {', '.join(SLOW_FILES)}")
    files = {name: read_json(path) for name, path in paths.items() if name != VOCAB}
    config = files.get(CONFIG, JsonValue({}, str(folder / CONFIG)))
    name = config.get("tokenizer_class")
    family_class = CLASS_OF_MODEL.get(model_type or "", "BertTokenizer")
    tokenizer_class = (model_class if name.is_null else name.text()) or family_class
    known, family = CLASSES.get(tokenizer_class.removesuffix("Fast")), CLASSES[family_class]
    rule = known or dataclasses.replace(family, models=MODELS, build=None)
    if FAST not in files and rule.build is None:
        rule = dataclasses.replace(family, build=family.build if known else None)
    notes: list[str] = []
    extra_files: tuple[Path, ...] = ()
    _check_settings(config, positions, notes)
    defaults = {} if known and rule.build is None else rule.special_tokens
    special = special_tokens(config, files.get(TOKEN_MAP), {f"{role}_token": defaults[role] for role in defaults})
    if known is None:
        notes.append(f"{tokenizer_class} is not supported: texts can't be tokenised for this model")
    if FAST in files:
        document = fast_document(files[FAST], rule.models)
        index = model_tokens(JsonValue(document["model"], str(paths[FAST]), "model"))
        different = len(index)
        if VOCAB in paths:
            _compare_vocabularies(paths[VOCAB], index, rows, notes)
    elif is_slow:
        classes = (tokenizer_class.removesuffix("Fast"), family_class)
        slow = convert_slow(folder, classes, _special_roles(special, family.special_tokens))
        document, extra_files = slow.document, slow.files
        index = model_tokens(JsonValue(document["model"], str(extra_files[0]), "model"))
        different = len(index)
    else:
        found = read_vocabulary(paths[VOCAB], rows, strip=True, special_tokens={})
        notes += found.notes
        unknown = next((token.content for token in special if token.key == "unk_token"), defaults["unk"])
        document = wordpiece_document(found.vocabulary.tokens, unknown)
        index, different = document["model"]["vocab"], found.different
    added = _add_tokens(AddedTokens(index, different), files, config, rows, special, rule.extra_tokens, notes)
    document["added_tokens"] = added.document()
    where = extra_files[0] if is_slow else paths[FAST] if FAST in paths else paths[VOCAB]
    roles = _roles(document["model"], index, added, special, family.special_tokens, where)
    every = {**index, **{content: token["id"] for content, token in added.tokens.items()}}
    vocabulary = list_tokens(every, roles, document["model"]["type"] == "WordPiece", rows, where, notes)
    read = sorted((*extra_files, *paths.values()), key=where.__ne__)
    if known is None:
        options = dataclasses.replace(bert_options(config), kind=tokenizer_class, model=None)
        return FoundTokenizer(vocabulary, options, None, tuple(read), tuple(notes))
    value = JsonValue(document, str(where))
    built = None if rule.build is None else rule.build(config, vocabulary, document)
    if built is not None:
        if document["model"]["type"] == "WordPiece" and "do_lower_case" not in config:
            _note_capitals(files.get(FAST), vocabulary, where, notes)
        if is_slow:
            add_class_steps(document, built["normalizer"])
        _complete(document, built)
    Pipeline(document, str(where))
    different_parts = find_differences(value, built) if built is not None and FAST in files else []
    if different_parts:
        notes.append(
            f"{FAST}: {', '.join(different_parts)} taken from the file, as in transformers 4; for a "
            f"{tokenizer_class}, transformers 5 takes the class's own instead"
        )
    literal = config.get("split_special_tokens", False).boolean()
    options = read_options(value, vocabulary, literal)
    if lower_case and not options.lower_case:
        steps = [{"type": "Lowercase"}, document["normalizer"]]
        document["normalizer"] = {"type": "Sequence", "normalizers": [step for step in steps if step is not None]}
        options = read_options(value, vocabulary, literal)
    return FoundTokenizer(vocabulary, options, document, tuple(read), tuple(notes))


def _special_roles(special: Sequence[SpecialToken], defaults: Mapping[str, str]) -> dict[str, str]:
    """Return the special tokens by role: those that the files or the class name, else `defaults`."""
    named = {token.key.removesuffix("_token"): token.content for token in special if token.key.endswith("_token")}
    return {**defaults, **named}


def _note_capitals(fast: JsonValue | None, vocabulary: Vocabulary, where: Path, notes: list[str]) -> None:
    """Note that texts of a cased model are lower-cased; its normalizer, or else its vocabulary, shows the case."""
    normalizer = fast.get("normalizer").raw if fast is not None else None
    if isinstance(normalizer, dict) and normalizer.get("type") == "BertNormalizer":
        is_cased = normalizer.get("lowercase") is False
    else:
        is_cased = normalizer is None and vocabulary.looks_cased
    if is_cased:
        notes.append(
            f"{where.name} is of a cased model, but texts are lower-cased, as in transformers; if that is wrong, "
            f"set do_lower_case to false in {CONFIG}"
        )


def _check_settings(config: JsonValue, positions: int, notes: list[str]) -> None:
    """Note ignored settings for long texts; raise for tokenizer files chosen by the version of transformers."""
    if config.get("fast_tokenizer_files").raw:
        raise config["fast_tokenizer_files"].fault(f"not supported, only {FAST} is read; remove the key to use that")
    side, length = config.get("truncation_side"), config.get("model_max_length").raw
    if not side.is_null and side.choice("left", "right") == "left":
        notes.append(f"{CONFIG}: truncation_side left is ignored: long texts lose their end")
    if isinstance(length, int) and length < positions:
        notes.append(f"{CONFIG}: model_max_length {length} is ignored: texts are truncated at {positions} tokens")


def fast_document(fast: JsonValue, models: Sequence[str]) -> dict[str, Any]:
    """Read tokenizer.json, which may lack keys that older versions of the library did not write."""
    document = {**fast.object(), "truncation": None, "padding": None}
    for key in _DOCUMENT:
        document.setdefault(key, None)
    fast["model"]["vocab"]
    model = fast["model"].object()
    if "type" not in model and _WORDPIECE.issubset(model):
        model = {"type": "WordPiece", **model}
    checked = JsonValue(model, fast.where, "model")
    # Without a type and without the keys of WordPiece, the library reads a model as WordLevel.
    if checked["type"].choice(*models) == "WordPiece":
        model = {
            "type": "WordPiece",
            "unk_token": "[UNK]",
            "continuing_subword_prefix": "##",
            "max_input_chars_per_word": MAX_WORD,
            **model,
        }
        JsonValue(model, fast.where, "model")["continuing_subword_prefix"].choice("##")
    document["model"] = model
    return document


def _complete(document: dict[str, Any], built: Mapping[str, Any]) -> None:
    """Set what the class of transformers sets: its options, and its components where the document has none."""
    for key in ("normalizer", "pre_tokenizer", "post_processor"):
        if document[key] is None:
            document[key] = built[key]
    normalizer, own = document["normalizer"], built["normalizer"]
    if _has_type(normalizer, "BertNormalizer") and _has_type(own, "BertNormalizer"):
        document["normalizer"] = {**own, **normalizer, **{key: own[key] for key in own if key != "clean_text"}}
    words, own = document["pre_tokenizer"], built["pre_tokenizer"]
    if _has_type(words, "ByteLevel") and _has_type(own, "ByteLevel"):
        document["pre_tokenizer"] = {**words, "add_prefix_space": own["add_prefix_space"]}


def _has_type(component: Any, kind: str) -> bool:
    return isinstance(component, dict) and component.get("type") == kind


def _add_tokens(
    added: AddedTokens,
    files: Mapping[str, JsonValue],
    config: JsonValue,
    rows: int,
    special: list[SpecialToken],
    extra: Sequence[str],
    notes: list[str],
) -> AddedTokens:
    """Add the tokens of all files and `special` tokens in the order of transformers.

    The tokens `extra` are added unless a file lists others.
    """
    fast = files.get(FAST)
    if fast is not None and fast.get("added_tokens").is_null:
        fast = None
    # First the tokens of the file itself, then all declared tokens, which may change flags.
    stated = [
        (number, content, flags, FAST)
        for number, content, flags in numbered_tokens(JsonValue({}, config.where), None, fast, [])
    ]
    source = CONFIG if "added_tokens_decoder" in config else ADDED
    stated += (
        (number, content, flags, source)
        for number, content, flags in numbered_tokens(config, files.get(ADDED), fast, special)
    )
    for number, content, flags, file in stated:
        is_new = content not in added.tokens
        given = added.add(content, flags) if content else number
        if is_new and given != number:
            notes.append(f"{file}: {content!r:.60} has the id {number}, but transformers gives it {given}")
    for token in special:
        if token.content in added.tokens or not token.content:
            continue
        if token.key.endswith("_token") and added.next_id(token.content) >= rows:
            if token.where is not None and token.key.removesuffix("_token") in _NEEDED:
                raise ModelError(
                    f"{token.where}: {token.key} is {token.content!r:.60}, which is not in the vocabulary and has no "
                    f"row in the token embedding of {rows} rows"
                )
            notes.append(f"{token.key} {token.content!r:.60} has no row in the token embedding: it is left out")
            continue
        added.add(token.content, token.flags)
    has_lists = any(key in file for file in (config, files.get(TOKEN_MAP, config)) for key in LISTS)
    for content in () if has_lists else extra:
        if added.next_id(content) < rows:
            added.add(content, {"special": True})
    return added


def _roles(
    model: Mapping[str, Any],
    index: Mapping[str, int],
    added: AddedTokens,
    special: list[SpecialToken],
    family: Mapping[str, str],
    where: Path,
) -> dict[str, str]:
    """Return the special tokens by role: those of the files or of the class, else those of the model's family."""
    named = {token.key.removesuffix("_token"): token for token in special if token.key.endswith("_token")}
    roles = {}
    for role in ROLES:
        token = named[role].content if role in named else family.get(role)
        needed = role in _NEEDED and (role != "unk" or model["type"] == "WordPiece")
        if token is not None and (needed or token in index or token in added.tokens):
            roles[role] = token
    if model["type"] == "WordPiece":
        unknown = roles.setdefault("unk", model["unk_token"])
        if unknown != model["unk_token"]:
            raise ModelError(
                f"{where}: model.unk_token: {model['unk_token']!r:.60}, but the unknown token of the class or of "
                f"{CONFIG} is {unknown!r:.60}"
            )
    return roles


def _compare_vocabularies(path: Path, index: Mapping[str, int], rows: int, notes: list[str]) -> None:
    """Note where vocab.txt differs from the vocabulary of tokenizer.json, which takes precedence."""
    try:
        tokens = read_vocabulary(path, rows, strip=True).vocabulary.tokens
    except DataError as error:
        notes.append(f"{error}; {FAST} counts, as in transformers")
        return
    for number, token in enumerate(tokens):
        if token != unused_row(number) and index.get(token, number) != number:
            notes.append(
                f"{VOCAB} differs from {FAST}, which counts, as in transformers: {token!r:.60} has the ids {number} "
                f"and {index[token]}"
            )
            return


def list_tokens(
    index: Mapping[str, int],
    special: Mapping[str, str],
    is_wordpiece: bool,
    rows: int,
    where: Path,
    notes: list[str],
) -> Vocabulary:
    """List the tokens of `index` by id; an id without a token is an unused row, with a note.

    Raises DataError when two tokens share an id, or when a special token that a model needs is missing.
    """
    tokens: dict[int, str] = {}
    for token, number in index.items():
        if number in tokens:
            raise DataError(f"{where}: {tokens[number]!r:.60} and {token!r:.60} have one id, {number}")
        tokens[number] = token
    last, first = max(tokens, default=-1), min(tokens, default=0)
    if first < 0 or last >= max(rows, len(tokens)):
        number = first if first < 0 else last
        raise DataError(
            f"{where}: {tokens[number]!r:.60} has the id {number}, the ids of an embedding of {rows} rows are 0 to "
            f"{rows - 1}"
        )
    missing = [number for number in range(last + 1) if number not in tokens]
    if missing:
        notes.append(f"{where.name}: ids without a token: {len(missing)}; the first is named {unused_row(missing[0])}")
    try:
        rows_by_id = tuple(tokens.get(number, unused_row(number)) for number in range(last + 1))
        return Vocabulary(rows_by_id, special, is_wordpiece)
    except DataError as error:
        raise DataError(f"{where}: {error}") from None
