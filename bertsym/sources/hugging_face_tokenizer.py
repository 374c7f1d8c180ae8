"""The tokenizer of a Hugging Face folder as one document, with the ids that transformers assigns.

transformers reads tokenizer.json, or builds BERT's pipeline from vocab.txt. Its BertTokenizer then sets the
normalization of tokenizer_config.json and adds the tokens that several files name.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bertsym.errors import DataError, ModelError
from bertsym.json_reader import JsonValue, read_json
from bertsym.sources.added_tokens import AddedTokens, numbered_tokens, special_tokens
from bertsym.text.pipeline import Pipeline
from bertsym.text.tokenizer import TokenizerOptions
from bertsym.text.vocabulary import Vocabulary, read_vocabulary, unused_row
from bertsym.text.wordpiece import (
    BERT_PRE_TOKENIZER,
    MAX_WORD,
    bert_document,
    bert_normalizer,
    bert_template,
    differences,
    read_options,
)

VOCAB, FAST, CONFIG = "vocab.txt", "tokenizer.json", "tokenizer_config.json"
TOKEN_MAP, ADDED = "special_tokens_map.json", "added_tokens.json"
TOKENIZER_FILES = (VOCAB, FAST, CONFIG, TOKEN_MAP, ADDED)  #: the vocabulary first
#: classes of transformers, without the suffix Fast, that are BERT's under other names
_BERT_CLASSES = ("BertTokenizer", "DistilBertTokenizer", "ElectraTokenizer", "MobileBertTokenizer")
#: classes that use tokenizer.json unchanged
_PLAIN_CLASSES = ("PreTrainedTokenizer", "TokenizersBackend")
_REQUIRED = {"unk_token": "[UNK]", "sep_token": "[SEP]", "pad_token": "[PAD]", "cls_token": "[CLS]"}
_DEFAULTS = {**_REQUIRED, "mask_token": "[MASK]"}
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


def read_tokenizer(folder: Path, rows: int, positions: int = 0, model_class: str | None = None) -> FoundTokenizer:
    """Read the tokenizer of a model with `rows` rows in its token embedding and texts of at most `positions` tokens.

    `model_class` is ``tokenizer_class`` of config.json, the default for tokenizer_config.json. Raises
    DataError or ModelError, naming the file.
    """
    paths = {name: folder / name for name in TOKENIZER_FILES if (folder / name).exists()}
    if not paths.keys() & {VOCAB, FAST}:
        raise DataError(f"{folder}: no {VOCAB} and no {FAST}")
    files = {name: read_json(path) for name, path in paths.items() if name != VOCAB}
    config = files.get(CONFIG, JsonValue({}, str(folder / CONFIG)))
    name = config.get("tokenizer_class")
    tokenizer_class = (model_class if name.is_null else name.text()) or "BertTokenizer"
    is_known = tokenizer_class.removesuffix("Fast") in (*_BERT_CLASSES, *_PLAIN_CLASSES)
    is_bert = tokenizer_class.removesuffix("Fast") in _BERT_CLASSES or FAST not in files
    notes: list[str] = []
    _check_settings(config, positions, notes)
    if not is_known:
        notes.append(f"{tokenizer_class} is not supported: texts can't be tokenised for this model")
    options = _bert_options(config)
    if FAST in files:
        document = _fast_document(files[FAST])
        index: dict[str, int] = document["model"]["vocab"]
        different = len(index)
        if VOCAB in paths:
            _compare_vocabularies(paths[VOCAB], index, rows, notes)
    else:
        found = read_vocabulary(paths[VOCAB], rows, strip=True)
        notes += found.notes
        document = bert_document(found.vocabulary, options)
        index, different = document["model"]["vocab"], found.different
    added = _add_tokens(AddedTokens(index, different), files, config, rows, is_bert, notes)
    document["added_tokens"] = added.document()
    where = paths[FAST] if FAST in paths else paths[VOCAB]
    vocabulary = _vocabulary(index, added, rows, where, notes)
    read = sorted((paths[name] for name in TOKENIZER_FILES if name in paths), key=where.__ne__)
    if not is_known:
        options = dataclasses.replace(options, kind=tokenizer_class)
        return FoundTokenizer(vocabulary, options, None, tuple(read), tuple(notes))
    if is_bert:
        if "do_lower_case" not in config and _keeps_capitals(files.get(FAST), vocabulary):
            notes.append(
                f"{where.name} is of a cased model, but texts are lower-cased, as in transformers; if that is wrong, "
                f"set do_lower_case to false in {CONFIG}"
            )
        _apply_options(document, vocabulary, options)
    value = JsonValue(document, str(where))
    Pipeline(document, str(where))
    if is_bert:
        other = differences(value, vocabulary, options)
        if other:
            notes.append(
                f"{FAST}: {', '.join(other)} taken from the file, as in transformers 4; for a {tokenizer_class}, "
                "transformers 5 takes BERT's own instead"
            )
    options = read_options(value, vocabulary, config.get("split_special_tokens", False).boolean())
    return FoundTokenizer(vocabulary, options, document, tuple(read), tuple(notes))


def _keeps_capitals(fast: JsonValue | None, vocabulary: Vocabulary) -> bool:
    """Whether a tokenizer belongs to a cased model, by its normalizer or else by its vocabulary."""
    normalizer = fast.get("normalizer").raw if fast is not None else None
    if isinstance(normalizer, dict) and normalizer.get("type") == "BertNormalizer":
        return normalizer.get("lowercase") is False
    return normalizer is None and vocabulary.looks_cased


def _bert_options(config: JsonValue) -> TokenizerOptions:
    """Read the options of BertTokenizer from tokenizer_config.json, with the defaults of transformers."""
    strip = config.get("strip_accents")
    return TokenizerOptions(
        lower_case=config.get("do_lower_case", True).boolean(),
        strip_accents=None if strip.is_null else strip.boolean(),
        split_chinese=config.get("tokenize_chinese_chars", True).boolean(),
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


def _fast_document(fast: JsonValue) -> dict[str, Any]:
    """Read tokenizer.json, which may lack keys that older versions of the library did not write."""
    document = {**fast.object(), "truncation": None, "padding": None}
    for key in _DOCUMENT:
        document.setdefault(key, None)
    model = {
        "type": "WordPiece",
        "unk_token": "[UNK]",
        "continuing_subword_prefix": "##",
        "max_input_chars_per_word": MAX_WORD,
        **fast["model"].object(),
    }
    document["model"] = model
    checked = JsonValue(model, fast.where, "model")
    checked["type"].choice("WordPiece")
    checked["continuing_subword_prefix"].choice("##")
    checked["unk_token"].choice("[UNK]")
    for token, number in checked["vocab"].object().items():
        if type(number) is not int:
            raise checked["vocab"][token].fault(f"{number!r:.60} is not a token id")
    if not _WORDPIECE.issubset(fast["model"].object()):
        fast["model"]["type"].text()  # the library reads a model without a type and without these keys as WordLevel
    return document


def _apply_options(document: dict[str, Any], vocabulary: Vocabulary, options: TokenizerOptions) -> None:
    """Set what BertTokenizer of transformers sets: its options, and its components where the document has none."""
    own = bert_normalizer(options)
    normalizer = document["normalizer"]
    if normalizer is None:
        document["normalizer"] = own
    elif isinstance(normalizer, dict) and normalizer.get("type") == "BertNormalizer":
        document["normalizer"] = {**own, **normalizer, **{key: own[key] for key in own if key != "clean_text"}}
    if document["pre_tokenizer"] is None:
        document["pre_tokenizer"] = BERT_PRE_TOKENIZER
    if document["post_processor"] is None:
        document["post_processor"] = bert_template(vocabulary.index("[CLS]"), vocabulary.index("[SEP]"))


def _add_tokens(
    added: AddedTokens,
    files: Mapping[str, JsonValue],
    config: JsonValue,
    rows: int,
    is_bert: bool,
    notes: list[str],
) -> AddedTokens:
    """Add the tokens of all files, in the order of transformers."""
    special = special_tokens(config, files.get(TOKEN_MAP), _DEFAULTS if is_bert else {})
    for token in special:
        usual = _REQUIRED.get(token.key)
        if usual is not None and token.content != usual:
            raise ModelError(f"{token.where}: {token.key} is {token.content!r:.60}, only {usual!r} is supported")
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
            notes.append(f"{token.key} {token.content!r:.60} has no row in the token embedding: it is left out")
            continue
        added.add(token.content, token.flags)
    return added


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


def _vocabulary(index: Mapping[str, int], added: AddedTokens, rows: int, where: Path, notes: list[str]) -> Vocabulary:
    """List all tokens by id; an id without a token is an unused row. Raises DataError when two tokens share an id."""
    tokens: dict[int, str] = {}
    every = {**index, **{content: token["id"] for content, token in added.tokens.items()}}
    for token, number in every.items():
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
        return Vocabulary(tuple(tokens.get(number, unused_row(number)) for number in range(last + 1)))
    except DataError as error:
        raise DataError(f"{where}: {error}") from None
