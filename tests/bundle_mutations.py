"""Changes of a signed bundle that stay consistent across its files, or almost."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import numpy as np
from graph_mutations import GRAPH_MUTATIONS, Mutation
from signed_bundle import PARAMS, SIGNATURE, TRAIN_SYMBOL, VOCAB_JSON, VOCAB_TXT, SignedBundle, operators

HEAD = ("fc-finetune_weight", "fc-finetune_bias")
WORDS = "bertmodel0_word_embed_embedding0_weight"
HUGE = 10**400
ODD: tuple[Any, ...] = (None, True, 0, 1, -1, 2.0, 2.5, 1e308, float("nan"), HUGE, "", "2", "x" * 3000, [], [[]], {})
ODD_NAMES = ("", " ", "a\tb", "\x1b[31m", "é", "\u202e", "\ud800", "x" * 3000, "label", "None", "0", "\u2028", "\x00")


def _resize(bundle: SignedBundle, name: str, rows: int, rng: random.Random) -> None:
    """Resize the first axis of a parameter, with random new rows."""
    array = bundle.params[name]
    fresh = np.random.default_rng(rng.randrange(2**32)).normal(0, 0.3, (rows, *array.shape[1:]))
    fresh[: len(array)] = array[:rows]
    bundle.params[name] = fresh.astype(array.dtype)


def _declare(bundle: SignedBundle, rng: random.Random) -> None:
    """Let the graphs follow the shapes of the parameters."""
    for graph in bundle.graphs:
        for node in graph["nodes"]:
            array = bundle.params.get(node["name"])
            if array is not None and "__shape__" in node.get("attrs", {}):
                node["attrs"]["__shape__"] = str(array.shape)
        for node in operators(graph, "Embedding"):
            weight = bundle.params[graph["nodes"][node["inputs"][1][0]]["name"]]
            node["attrs"].update(input_dim=str(weight.shape[0]), output_dim=str(weight.shape[1]))
        for node in operators(graph, "FullyConnected"):
            weight = bundle.params[graph["nodes"][node["inputs"][1][0]]["name"]]
            node["attrs"]["num_hidden"] = str(weight.shape[0])


# Classes


def _set_classes(bundle: SignedBundle, names: list[str]) -> None:
    bundle.signature["class_names"] = names


def _classes(bundle: SignedBundle) -> list[str]:
    return list(bundle.signature["class_names"])


def resize_classes(bundle: SignedBundle, rng: random.Random) -> None:
    """Give the signature more or fewer classes, and the head and the graphs too, or not."""
    count = rng.choice((0, 1, 3, 3, 3, 5, 1000))
    names = [*_classes(bundle), *map(str, range(1000))][:count]
    _set_classes(bundle, names)
    depth = rng.randrange(4)
    if depth >= 1:
        bundle.signature["outputs"][0]["shape"][-1] = count
    if depth >= 2 and count:
        for name in HEAD:
            if name in bundle.params:
                _resize(bundle, name, count, rng)
    if depth >= 3:
        _declare(bundle, rng)


def rename_classes(bundle: SignedBundle, rng: random.Random) -> None:
    """Rename classes, at times to names that no table holds, or reverse their order."""
    names = _classes(bundle) or ["a"]
    if rng.random() < 0.3:
        names.reverse()
    else:
        names[rng.randrange(len(names))] = rng.choice((*ODD_NAMES, names[0]))
    _set_classes(bundle, names)


# Sizes


def grow_config_and_params(bundle: SignedBundle, rng: random.Random) -> None:
    """Multiply a size in the config and the parameters, and at times in the graphs."""
    key, part, axis = rng.choice(
        (
            ("hidden_size", "ffn_1", 0),
            ("max_length", "position_weight", 0),
            ("token_type_vocab_size", "token_type_embed", 0),
            ("vocab_size", "word_embed", 0),
            ("units", "", -1),
            ("num_layers", "", 0),
            ("num_heads", "", 0),
        )
    )
    factor = rng.choice((2, 3, 7))
    bundle.config[key] = bundle.config[key] * factor
    for name, array in list(bundle.params.items()):
        if key == "num_layers" and "transformer0" in name:
            bundle.params[name.replace("transformer0", "transformer2")] = array
        elif key not in ("num_layers", "num_heads") and part in name:
            bundle.params[name] = np.concatenate([array] * factor, axis)
            if key == "hidden_size":  # what reads it
                other = name.replace("ffn_1", "ffn_2")
                if other.endswith("_weight"):
                    bundle.params[other] = np.concatenate([bundle.params[other]] * factor, 1)
    if rng.random() < 0.5:
        _declare(bundle, rng)
    if key == "max_length" and rng.random() < 0.5:
        bundle.signature["max_length"] = bundle.config[key]


def grow_vocabulary(bundle: SignedBundle, rng: random.Random) -> None:
    """Add tokens, and let embedding, config, tokenizer and graphs grow with them, all or some."""
    added = [rng.choice(("walk", "[E1]", "##x", "日", f"t{i}")) + str(i) for i in range(rng.choice((1, 3, 200)))]
    bundle.lines += added
    parts = rng.choice(("all", "all", "vocab.json", "config", "params", "tokenizer", "graph"))
    if parts != "vocab.json":
        tokens = bundle.documents[VOCAB_JSON]
        tokens["idx_to_token"] = [*tokens["idx_to_token"], *added]
        if isinstance(tokens.get("token_to_idx"), dict):
            tokens["token_to_idx"].update({token: len(bundle.lines) - len(added) + i for i, token in enumerate(added)})
    if parts != "config":
        bundle.config["vocab_size"] = len(bundle.lines)
    if parts != "params":
        _resize(bundle, WORDS, len(bundle.lines), rng)
    if parts != "graph":
        _declare(bundle, rng)
    model = bundle.documents.get("tokenizer.json", {}).get("model", {})
    if parts != "tokenizer" and isinstance(model.get("vocab"), dict):
        model["vocab"].update({token: len(bundle.lines) - len(added) + i for i, token in enumerate(added)})


def change_vocabulary(bundle: SignedBundle, rng: random.Random) -> None:
    """Reorder, repeat or replace tokens, in one file or in all."""
    lines = bundle.lines
    special = lines.index(rng.choice(("[CLS]", "[SEP]", "[UNK]", "[PAD]", "[MASK]")))
    change = rng.randrange(5)
    if change == 0:
        other = rng.randrange(len(lines))
        lines[special], lines[other] = lines[other], lines[special]
    elif change == 1:
        lines[special] = rng.choice(("[cls]", "<s>", "", "[SEP]", "the"))
    elif change == 2:
        lines[rng.randrange(len(lines))] = rng.choice((*ODD_NAMES, "the", "a b", "##", "cat\r"))
    elif change == 3:
        rng.shuffle(lines)
    else:
        lines.append(rng.choice(("", "", "the", " ")))
    if rng.random() < 0.5:
        tokens = bundle.documents[VOCAB_JSON]
        tokens["idx_to_token"] = list(lines)
        if isinstance(tokens.get("token_to_idx"), dict):
            tokens["token_to_idx"] = {token: i for i, token in enumerate(lines)}
    model = bundle.documents.get("tokenizer.json", {}).get("model", {})
    if rng.random() < 0.5 and "vocab" in model:
        model["vocab"] = {token: i for i, token in enumerate(lines)}


def change_vocabulary_bytes(bundle: SignedBundle, rng: random.Random) -> None:
    """Write vocab.txt with other line ends, a byte order mark or a control character."""
    change = rng.choice(
        (
            lambda text: text.replace("\n", "\r\n"),
            lambda text: "\ufeff" + text,
            lambda text: text.rstrip("\n"),
            lambda text: text + "\n\n",
            lambda text: text.replace("\n", "\u2028", 3),
            lambda text: text.replace("cat", "c\x00t"),
        )
    )
    bundle.texts[VOCAB_TXT] = change


# Files


def mix_bundles(bundle: SignedBundle, rng: random.Random) -> None:
    """Take some files, and at times the config, from another bundle."""
    other = bundle.others[rng.choice(sorted(bundle.others))]
    manifest = json.loads(Path(f"{other}-manifest.json").read_text())
    names = sorted({*bundle.names, TRAIN_SYMBOL} & {*manifest["files"]})
    for name in rng.sample(names, rng.randrange(1, len(names))):
        bundle.contents[name] = Path(f"{other}-{name}").read_bytes()
        if name not in bundle.names:
            bundle.names.append(name)
    if rng.random() < 0.4:
        bundle.manifest["config"] = manifest["config"]
    if rng.random() < 0.3:
        bundle.manifest["source"] = manifest["source"]


def drop_or_add_file(bundle: SignedBundle, rng: random.Random) -> None:
    """Drop a file from the manifest, or add one that no bundle has."""
    name = rng.choice(bundle.names)
    if rng.random() < 0.5:
        bundle.names.remove(name)
        del bundle.manifest["files"][name]
    else:
        other = rng.choice(("0001.params", "extra.json", "../x.json", "symbol.json ", "vocab.txt.bak", TRAIN_SYMBOL))
        if "/" not in other:
            bundle.contents[other] = b"{}"
            bundle.names.append(other)
        else:
            bundle.manifest["files"][other] = dict(bundle.manifest["files"][name])


def change_manifest_value(bundle: SignedBundle, rng: random.Random) -> None:
    """Give a value of the manifest another type, range or spelling."""
    value = rng.choice(ODD)
    change = rng.randrange(6)
    if change == 0:
        bundle.manifest["format_version"] = rng.choice((*ODD, 3, 1.0, "2", [2]))
    elif change == 1:
        bundle.config[rng.choice(list(bundle.config))] = value
    elif change == 2:
        bundle.manifest[rng.choice(list(bundle.manifest))] = value
    elif change == 3:
        bundle.config["unknown"] = value
    elif change == 4:
        bundle.manifest["command"] = rng.choice(([value], [["a"]], ["\x1b[31m", "x"], "bertsym", [None]))
    else:
        bundle.manifest["base"] = rng.choice(({"config": value}, {"files": value, "command": value}, value))


def change_manifest_text(bundle: SignedBundle, rng: random.Random) -> None:
    """Write the manifest with repeated keys, a huge number, other digests or a byte order mark."""
    change = rng.choice(
        (
            lambda text: text.replace('"format_version"', '"format_version": 9, "format_version"', 1),
            lambda text: text.replace('"config": {', '"config": null, "config": {', 1),
            lambda text: text.replace('"units": 32', '"units": 64, "units": 32', 1),
            lambda text: text.replace('"num_heads": 4', f'"num_heads": 1{"0" * 5000}', 1),
            lambda text: "\ufeff" + text,
            lambda text: text.replace('"sha256": "', '"sha256": "A', 1),
            lambda text: text.replace('"num_heads": 4', '"num_heads": 4.0', 1),
            lambda text: text.replace('"num_heads": 4', '"num_heads": 04', 1),
            lambda text: text.replace('"num_heads": 4', '"num_heads": NaN', 1),
            lambda text: text + "{}",
        )
    )
    bundle.texts["manifest.json"] = change


def change_signature_value(bundle: SignedBundle, rng: random.Random) -> None:
    """Give a value of the signature, at any depth, another type, range or spelling."""
    places: list[tuple[Any, Any]] = []
    waiting: list[Any] = [bundle.signature]
    while waiting:
        here = waiting.pop()
        if isinstance(here, (dict, list)):
            keys = list(here) if isinstance(here, dict) else list(range(len(here)))
            places += [(here, key) for key in keys]
            waiting += [here[key] for key in keys]
    container, key = rng.choice(places)
    container[key] = rng.choice((*ODD, *ODD_NAMES, "1.5", "logits", "encoder", "pooled", "int8", 41, 3, [0, 0], ["a"]))


def contradict_signature(bundle: SignedBundle, rng: random.Random) -> None:
    """Give the signature a valid value that is not this bundle's."""
    tokens, ids = bundle.signature["special_tokens"], bundle.signature["special_ids"]
    role, other = rng.sample([*ids], 2)
    changes: tuple[dict[str, Any], ...] = (
        {"max_length": rng.choice((1, 2, 3, 4, 5, 39, 40, 41, 10**9, 2**63))},
        {"pair": rng.choice((True, None))},
        {"kind": rng.choice(("encoder", "logits", "classifier", "symbol"))},
        {"encoder_output": rng.choice(("pooled", "mean", "sequence", "cls"))},
        {"precision": "int8"},
        {"guarded": True},
        {"trained": False},
        {"task": rng.choice(("classification", "qa", "x", None))},
        {"dataset": rng.choice(("mrpc", "x", None))},
        {"family": "roberta"},
        {"embedding": rng.choice(("mean", 5, {}, {"pooling": ["mean"]}, {"pooling": [], "layers": [{"type": "x"}]}))},
        {"task_settings": rng.choice(({}, [0.5], {"metrics": ["f1"]}, {"metrics": 1}, {"positive_label": "x"}))},
        {"pad_id": rng.choice((1, 2, 7, 52, 53, -1, 2**31))},
        {"special_tokens": rng.choice(({}, {"cls": "[SEP]", "sep": "[CLS]"}, {"pad": "the"}, {"cls": "nowhere"}))},
        {"special_tokens": {**tokens, rng.choice(("mask", "unk")): "cat"}},
        {"special_ids": {**ids, role: rng.choice((ids[other], 7, 52, 10**6, -1, 2**31, 2**64, 3.0, "3", None))}},
        {"special_ids": {key: ids[key] for key in ids if key != role}},
        {"special_ids": {**ids, rng.choice(("end", "", "PAD")): 3}},
        {
            "special_tokens": {**tokens, role: tokens[other], other: tokens[role]},
            "special_ids": {**ids, role: ids[other], other: ids[role]},
        },
        {"label_inputs": rng.choice(([], [{"name": "x", "shape": None, "dtype": "float32", "meaning": ""}]))},
        {"inputs": rng.sample(bundle.signature["inputs"], rng.choice((2, 3, 3)))},
        {"encoder_trained": False},
        {"tokenizer": {**bundle.signature["tokenizer"], "literal_special_tokens": True}},
        {"tokenizer": {**bundle.signature["tokenizer"], "segments": rng.choice((0, 1, 3, -1))}},
        {"tokenizer": {**bundle.signature["tokenizer"], "refused_id": rng.choice((None, 0, 1, 7, 10**6, -1, "1"))}},
        {
            "tokenizer": {
                **bundle.signature["tokenizer"],
                "model": rng.choice(("WordPiece", "BPE", "Unigram", None, "x")),
            }
        },
        {"tokenizer": {**bundle.signature["tokenizer"], "lower_case": False, "strip_accents": True}},
        {"minimum_mxnet": rng.choice(("9.9.9", "1", "", "x"))},
        {"form": rng.choice(("gluonnlp", "fast", "x"))},
    )
    bundle.signature.update(rng.choice(changes))
    if rng.random() < 0.3:
        length = rng.choice((0, 1, 24, 40, 41, 2**40))
        for tensor in bundle.signature["inputs"][:2]:
            tensor["shape"][1] = length
    if rng.random() < 0.3:
        bundle.signature["columns"].update(rng.choice(({"text": "1"}, {"pair": "text"}, {"header": False})))


# Parameters


def swap_kinds(bundle: SignedBundle, rng: random.Random) -> None:
    """Write arguments as auxiliary states."""
    names = sorted(bundle.params)
    chosen = rng.choice((names, names[:1], [name for name in names if "gamma" in name], [names[-1]]))
    bundle.auxiliary ^= set(chosen)


def change_elements(bundle: SignedBundle, rng: random.Random) -> None:
    """Write elements that are huge, tiny or not finite; exchange or transpose arrays."""
    name = rng.choice(sorted(bundle.params))
    array = np.array(bundle.params[name])
    change = rng.randrange(4)
    if change == 0:
        flat = array.reshape(-1)
        flat[rng.randrange(flat.size)] = rng.choice((np.nan, np.inf, 3e38, 1e-45, -1e20))
        bundle.params[name] = array
    elif change == 1:
        alike = [key for key in sorted(bundle.params) if bundle.params[key].shape == array.shape]
        key = rng.choice(alike)
        bundle.params[name], bundle.params[key] = bundle.params[key], array
    elif change == 2:
        bundle.params[name] = np.ascontiguousarray(array.T).reshape(array.T.shape)
    else:
        bundle.params[name] = array * np.float32(rng.choice((0, -1, 1e3, 1e20)))


def rename_or_reshape_params(bundle: SignedBundle, rng: random.Random) -> None:
    """Add, remove, rename or reshape a parameter."""
    name = rng.choice(sorted(bundle.params))
    change = rng.randrange(4)
    if change == 0:
        bundle.params[rng.choice(("extra", "data0", "softmax_label", "x" * 200, "é"))] = bundle.params[name]
    elif change == 1:
        del bundle.params[name]
    elif change == 2:
        bundle.params[rng.choice(("extra", "data1", f"{name}2"))] = bundle.params.pop(name)
    else:
        array = bundle.params[name]
        bundle.params[name] = array.reshape(rng.choice(((1, *array.shape), (*array.shape, 1), (-1,))))


def nest_document(bundle: SignedBundle, rng: random.Random) -> None:
    """Put deeply nested lists or a huge number into a JSON file, under a key that nobody reads."""
    name = rng.choice((SIGNATURE, *[name for name in bundle.documents if name != SIGNATURE]))
    value = rng.choice(("[" * 70 + "]" * 70, "[" * 100000 + "]" * 100000, "9" * 5000, "1e999", '"\\ud800"', "-0"))
    bundle.texts[name] = lambda text: text.replace("{", f'{{"unknown": {value}, ', 1)
    if rng.random() < 0.2:
        bundle.contents[PARAMS] = b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n"


BUNDLE_MUTATIONS: tuple[Mutation, ...] = (
    *GRAPH_MUTATIONS,
    *(resize_classes, rename_classes, grow_config_and_params, grow_vocabulary, change_vocabulary),
    *(change_vocabulary_bytes, mix_bundles, mix_bundles, drop_or_add_file, change_manifest_value, change_manifest_text),
    *(
        change_signature_value,
        change_signature_value,
        contradict_signature,
        contradict_signature,
        swap_kinds,
        change_elements,
    ),
    *(rename_or_reshape_params, nest_document),
)
