"""The tokenizer files of a Hugging Face folder: vocab.txt, tokenizer.json, tokenizer_config.json."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from bertsym import files
from bertsym.errors import DataError, ModelError
from bertsym.text.tokenizer import TokenizerOptions
from bertsym.text.vocabulary import Vocabulary

_WORDPIECE_CLASSES = ("BertTokenizer", "BertTokenizerFast", "PreTrainedTokenizerFast", "TokenizersBackend")


def read_tokenizer(folder: Path) -> tuple[Vocabulary, TokenizerOptions, list[Path]]:
    """The vocabulary, how text is normalised, and the files that said so, the vocabulary's first.

    tokenizer_config.json decides, then tokenizer.json, then whether the vocabulary looks cased. Raises
    DataError or ModelError, naming the file.
    """
    text_path, fast_path, config_path = (
        folder / name for name in ("vocab.txt", "tokenizer.json", "tokenizer_config.json")
    )
    fast = read_json(fast_path) if fast_path.exists() else {}
    config = read_json(config_path) if config_path.exists() else {}
    vocabulary = _read_vocabulary(text_path, fast_path, fast)
    for key in ("unk", "sep", "pad", "cls"):
        token = config.get(f"{key}_token")
        token = token.get("content") if isinstance(token, dict) else token
        if token not in (None, f"[{key.upper()}]"):
            raise ModelError(f"{config_path}: {key}_token is {token!r}, only '[{key.upper()}]' is supported")
    normalizer = fast.get("normalizer") or {}
    # One step in a Sequence is as good as the step.
    if normalizer.get("type") == "Sequence" and len(normalizer.get("normalizers", [])) == 1:
        normalizer = normalizer["normalizers"][0]

    def setting(key: str, normalizer_key: str) -> bool | None:
        value = config.get(key, normalizer.get(normalizer_key))
        if value not in (None, True, False):
            raise ModelError(f"{config_path}: {key} is {value!r}, not true or false")
        return value

    lower = setting("do_lower_case", "lowercase")
    options = TokenizerOptions(
        lower_case=not vocabulary.looks_cased if lower is None else lower,
        strip_accents=setting("strip_accents", "strip_accents"),
        split_chinese=setting("tokenize_chinese_chars", "handle_chinese_chars") is not False,
        kind=_kind(config.get("tokenizer_class"), normalizer.get("type")),
    )
    return vocabulary, options, [path for path in (text_path, fast_path, config_path) if path.exists()]


def _kind(tokenizer_class: Any, normalizer: Any) -> str:
    if tokenizer_class not in (None, *_WORDPIECE_CLASSES):
        return str(tokenizer_class)
    if normalizer not in (None, "BertNormalizer"):
        return f"WordPiece after {normalizer}"
    return "wordpiece"


def _read_vocabulary(text_path: Path, fast_path: Path, fast: dict[str, Any]) -> Vocabulary:
    """The longer one of vocab.txt and tokenizer.json, which may add tokens to it."""
    found = [Vocabulary.load(text_path)] if text_path.exists() else []
    if fast:
        found.append(_fast_vocabulary(fast, fast_path))
    if not found:
        raise DataError(f"{text_path.parent}: no vocab.txt and no tokenizer.json")
    for index, (one, other) in enumerate(zip(found[0].tokens, found[-1].tokens)):
        if one != other:
            raise DataError(f"{fast_path}: token {index} is {other!r}, but {one!r} in {text_path.name}")
    return max(found, key=len)


def _fast_vocabulary(document: dict[str, Any], path: Path) -> Vocabulary:
    try:
        kind = document["model"].get("type", "WordPiece")
        settings = {
            "continuing_subword_prefix": document["model"].get("continuing_subword_prefix", "##"),
            "unk_token": document["model"].get("unk_token", "[UNK]"),
        }
        index = dict(document["model"]["vocab"])
        index.update({token["content"]: token["id"] for token in document.get("added_tokens") or []})
    except (KeyError, TypeError, AttributeError, ValueError):
        raise ModelError(f"{path}: not a tokenizer file") from None
    if kind != "WordPiece":
        raise ModelError(f"{path}: a {kind} tokenizer, BERT's is WordPiece")
    for key, usual in (("continuing_subword_prefix", "##"), ("unk_token", "[UNK]")):
        if settings[key] != usual:
            raise ModelError(f"{path}: {key} is {settings[key]!r}, only {usual!r} is supported")
    by_id = {number: token for token, number in index.items() if type(number) is int}
    if by_id.keys() != set(range(len(index))):
        raise DataError(f"{path}: the ids of the {len(index)} tokens are not 0 to {len(index) - 1}")
    try:
        return Vocabulary(tuple(str(by_id[number]) for number in range(len(by_id))))
    except DataError as error:
        raise DataError(f"{path}: {error}") from None


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object from a file; raises ModelError."""
    try:
        return files.read_json(path)
    except FileNotFoundError:
        raise ModelError(f"{path}: no such file") from None
    except OSError as error:
        raise ModelError(f"{path}: {error.strerror}") from None
