"""Changes of config.json, tokenizer_config.json and the other small files of a Hugging Face folder."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

Mutation = Callable[[Path, random.Random], None]

HUGE = 10**400
VALUES: tuple[Any, ...] = (
    *(None, True, False, 0, -1, 1, 2, 2.0, 2.5, 1e-30, 1e308, float("inf"), float("nan"), HUGE, 2**31, 2**63),
    *("", "2", "4", "gelu", "x" * 5000, "\ud800", "\x00", [], [2], {}, {"x": 1}, [[]]),
)
TOKENIZER_KEYS = (
    *("do_lower_case", "strip_accents", "tokenize_chinese_chars", "do_basic_tokenize", "never_split"),
    *("model_max_length", "tokenizer_class", "cls_token", "unk_token", "pad_token", "added_tokens_decoder"),
    *("additional_special_tokens", "truncation_side", "padding_side", "clean_up_tokenization_spaces"),
)


def _edit(path: Path, change: Callable[[dict[str, Any]], object]) -> None:
    document = json.loads(path.read_text()) if path.exists() else {}
    change(document)
    path.write_text(json.dumps(document))


def change_config_value(folder: Path, rng: random.Random) -> None:
    """Give a value of config.json another type or range."""

    def change(config: dict[str, Any]) -> None:
        config[rng.choice(list(config))] = rng.choice(VALUES)

    _edit(folder / "config.json", change)


def drop_config_key(folder: Path, rng: random.Random) -> None:
    """Remove a key of config.json, or spell it as another family does."""

    def change(config: dict[str, Any]) -> None:
        key = rng.choice(list(config))
        value = config.pop(key)
        if rng.random() < 0.5:
            config[rng.choice(("n_layers", "dim", "n_heads", "hidden_dim", "activation", key.upper()))] = value

    _edit(folder / "config.json", change)


def contradict_weights(folder: Path, rng: random.Random) -> None:
    """Give config.json valid values of another model, or of one that is not supported."""
    changes: tuple[dict[str, Any], ...] = (
        {"num_attention_heads": rng.choice((1, 2, 8, 16, 32, 3, 5))},
        {"layer_norm_eps": rng.choice((1e-5, 1e-3, 1.0, 0, -1.0, 1e-45, "1e-12"))},
        {"hidden_act": rng.choice(("gelu_fast", "GELU", "swish", "gelu_10", ["gelu"], {"a": 1}))},
        {"num_hidden_layers": rng.choice((1, 3, 0))},
        {"hidden_size": rng.choice((16, 64, 33)), "num_attention_heads": 1},
        {"intermediate_size": rng.choice((24, 96))},
        {"vocab_size": rng.choice((52, 54, 10**6))},
        {"max_position_embeddings": rng.choice((1, 2, 20, 41, 512))},
        {"type_vocab_size": rng.choice((1, 3, 0))},
        {"hidden_dropout_prob": rng.choice((0, 0.0, 1.0, 1.5, -0.1, "0.1", 0.999999))},
        {"position_embedding_type": rng.choice(("relative_key", "relative_key_query", "rotary", None))},
        {"is_decoder": True},
        {"add_cross_attention": True},
        {"model_type": rng.choice(("roberta", "distilbert", "albert", "BERT", "bert-japanese", "electra"))},
        {"num_labels": 7, "id2label": {"0": "a", "1": "a"}, "label2id": {"a": 0, "b": 0}, "problem_type": "x"},
        {"id2label": rng.choice(([], {"x": "a"}, {"0": 1}, "a", None)), "architectures": rng.choice((None, "x", [1]))},
        {"pruned_heads": {"0": [1]}},
        {"quantization_config": {"quant_method": "bitsandbytes"}},
        {"torch_dtype": "float16", "dtype": "x", "classifier_dropout": -3},
        {"text_config": {"hidden_size": 7}, "embedding_size": 8, "chunk_size_feed_forward": 2},
        {"tie_word_embeddings": False, "output_hidden_states": True, "use_cache": "x", "pad_token_id": 10**9},
    )
    _edit(folder / "config.json", lambda config: config.update(rng.choice(changes)))


def change_config_text(folder: Path, rng: random.Random) -> None:
    """Write repeated keys, comments, other spellings of numbers, or another encoding."""
    path = folder / rng.choice(("config.json", "config.json", "tokenizer_config.json"))
    text = path.read_text()
    key, value = rng.choice((("num_attention_heads", 2), ("hidden_size", 64), ("do_lower_case", False), ("x", 1)))
    changed: tuple[str | bytes, ...] = (
        text.replace("{", f'{{"{key}": {json.dumps(value)}, ', 1),
        text[:-1] + f', "{key}": {json.dumps(value)}}}',
        "\ufeff" + text,
        text.encode("utf-16"),
        text.encode("latin-1") + b"\xff",
        text.replace(": 32", ": 3.2e1"),
        text.replace(": 32", ": 0x20"),
        text.replace(": 32", ": 32" + "0" * 5000),
        text.replace(": 4,", ": Infinity,"),
        text.replace(",", ",\n//\n", 1),
        text.replace("}", ",}"),
        text + text,
        f"[{text}]",
        "null",
        text.replace("{", '{"x": ' + "[" * 3000 + "]" * 3000 + ", ", 1),
        text.replace("{", '{"x": "\\ud800", "\\udfff": 1, ', 1),
        " " * 1000000 + text,
    )
    content = rng.choice(changed)
    path.write_bytes(content if isinstance(content, bytes) else content.encode())


def change_tokenizer_config(folder: Path, rng: random.Random) -> None:
    """Give tokenizer_config.json a value that is odd or not supported."""
    special: tuple[Any, ...] = (
        {"model_max_length": rng.choice((10**30, -1, 4, 2, 0, "512", 1e30))},
        {"tokenizer_class": rng.choice(("RobertaTokenizer", "BertJapaneseTokenizer", "X", 5, None))},
        {"cls_token": rng.choice(({"content": "[CLS]"}, {"content": 5}, "<s>", None, "the"))},
        {"unk_token": rng.choice(("<unk>", "the", {"__type": "AddedToken", "content": "[UNK]", "lstrip": True}))},
        {"never_split": rng.choice((["the"], "the", [5]))},
        {"truncation_side": "left", "padding_side": "left"},
        {"do_basic_tokenize": False},
        {"added_tokens_decoder": {rng.choice(("1", "53", "-1", "x", "1e3")): {"content": "[E1]", "special": True}}},
        {"added_tokens_decoder": rng.choice(([], {"1": "x"}, {"1": {"content": 5}}, {"1": {"content": ""}}, "x"))},
        {"additional_special_tokens": rng.choice((["[E1]"], ["the", "the"], "x", [None], [{"content": "happy"}]))},
    )
    change = rng.choice(special) if rng.random() < 0.6 else {rng.choice(TOKENIZER_KEYS): rng.choice(VALUES)}
    _edit(folder / "tokenizer_config.json", lambda config: config.update(change))


def contradict_special_tokens(folder: Path, rng: random.Random) -> None:
    """Write special_tokens_map.json and added_tokens.json that contradict the vocabulary."""
    tokens: Any = rng.choice(
        (
            {"cls_token": "the", "sep_token": "[SEP]"},
            {"unk_token": {"content": "<unk>", "single_word": False}},
            {"mask_token": "[E1]", "additional_special_tokens": ["[E1]", "happy"]},
            {"pad_token": 5},
            {"sep_token": None, "x": []},
            [],
        )
    )
    added: Any = rng.choice(
        ({"[E1]": 1}, {"[E1]": 53}, {"the": 1}, {"[E1]": -1}, {"a": 2.5}, {"": 1}, {"[E1]": "1"}, {"x": HUGE}, [], "x")
    )
    if rng.random() < 0.6:
        (folder / "special_tokens_map.json").write_text(json.dumps(tokens))
    if rng.random() < 0.6:
        (folder / "added_tokens.json").write_text(json.dumps(added))


def add_sentence_transformers(folder: Path, rng: random.Random) -> None:
    """Add the files by which sentence-transformers describes pooling, often damaged."""
    (folder / "modules.json").write_text(
        json.dumps(
            rng.choice(
                (
                    [{"idx": 0, "path": "", "type": "sentence_transformers.models.Transformer"}],
                    [{"path": "1_Pooling", "type": "sentence_transformers.models.Pooling"}],
                    [{"path": "../1_Pooling", "type": "Pooling"}, {"path": "2_Normalize", "type": 5}],
                    [5],
                    [{"type": None}],
                    {},
                    "x",
                )
            )
        )
    )
    pooling: Any = rng.choice(({"pooling_mode_mean_tokens": True}, {"pooling_mode_cls_token": "x"}, [], 5, {"a": HUGE}))
    (folder / "1_Pooling").mkdir(exist_ok=True)
    (folder / "1_Pooling" / "config.json").write_text(json.dumps(pooling))
    limit: Any = rng.choice(({"max_seq_length": rng.choice((256, 4, 0, -1, "x", None, HUGE, 1.5))}, [], 5))
    (folder / "sentence_bert_config.json").write_text(json.dumps(limit))


CONFIG_MUTATIONS: tuple[Mutation, ...] = (
    *(
        change_config_value,
        change_config_value,
        drop_config_key,
        contradict_weights,
        contradict_weights,
        change_config_text,
    ),
    *(change_tokenizer_config, change_tokenizer_config, contradict_special_tokens, add_sentence_transformers),
)
