"""Folders of the small models of ``family_models``, as the classes of transformers save them."""

from __future__ import annotations

import json
from pathlib import Path

from family_models import CLASSES, CONFIGS, ENDINGS, LABELS, encoder_weights, head_weights
from safetensors.numpy import save_file

_NAMES = {str(i): f"class {i}" for i in range(LABELS)}


def vocabulary(pad_id: int, size: int = 53) -> list[str]:
    """Tokens of a WordPiece tokenizer whose padding has this id."""
    tokens = ["[UNK]", "[CLS]", "[SEP]", "[MASK]", *(chr(ord("a") + i) for i in range(26))]
    tokens += [f"##{token}" for token in tokens[4 : 4 + size - len(tokens) - 1]]
    return [*tokens[:pad_id], "[PAD]", *tokens[pad_id:]]


def write_family(folder: Path, model_type: str, task: str | None = None, **changes: object) -> Path:
    """A folder of an encoder, with the head for a `task` of ENDINGS; keywords change config.json."""
    config = CONFIGS[model_type]
    weights = encoder_weights(model_type)
    segments = "embeddings.token_type_embeddings.weight"
    if "type_vocab_size" in changes:
        weights[segments] = weights[segments][: int(str(changes["type_vocab_size"]))]
    name = f"{CLASSES[model_type]}Model"
    if task is not None:
        weights = {f"{model_type}.{key}": array for key, array in weights.items()}
        weights.update(head_weights(model_type, task))
        name = f"{CLASSES[model_type]}{ENDINGS[task]}"
    folder.mkdir(parents=True, exist_ok=True)
    labels = {"id2label": _NAMES} if task in ("classification", "tagging") else {}
    (folder / "config.json").write_text(json.dumps({**config, "architectures": [name], **labels, **changes}))
    (folder / "vocab.txt").write_text("\n".join(vocabulary(int(str(config["pad_token_id"])))) + "\n")
    (folder / "tokenizer_config.json").write_text(
        json.dumps({"do_lower_case": True, "tokenizer_class": "BertTokenizer"})
    )
    save_file(weights, folder / "model.safetensors")
    return folder
