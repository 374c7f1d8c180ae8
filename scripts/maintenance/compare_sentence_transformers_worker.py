"""Make and compute models with sentence-transformers; compare_sentence_transformers runs it with a Python that has it.

make FOLDER: small models, each in a folder; prints the versions.
embed MODELS TEXTS: the embeddings of texts by models; MODELS is a JSON file, FILE.npy that is written -> folder.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import sentence_transformers
import torch
import transformers
from sentence_transformers import SentenceTransformer

LETTERS = "abcdefghijklmnopqrstuvwxyz"
DENSE = {
    "identity": torch.nn.Identity,
    "tanh": torch.nn.Tanh,
    "relu": torch.nn.ReLU,
    "gelu": torch.nn.GELU,
    "sigmoid": torch.nn.Sigmoid,
}
UNITS = 32


def modules() -> Any:
    """The module with the classes, which is in another place in older versions."""
    try:
        from sentence_transformers.sentence_transformer import modules as found
    except ImportError:
        from sentence_transformers import models as found
    return found


def write_transformer(folder: Path) -> None:
    """A small BERT with large random weights, so that every one matters, and a vocabulary of letters."""
    tokens = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *LETTERS, *(f"##{letter}" for letter in LETTERS)]
    config = transformers.BertConfig(
        vocab_size=len(tokens),
        hidden_size=UNITS,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=48,
        max_position_embeddings=40,
    )
    model = transformers.BertModel(config)
    with torch.no_grad():
        for weight in model.parameters():
            weight.add_(torch.randn_like(weight) * 0.3)
    model.save_pretrained(folder)
    (folder / "vocab.txt").write_text("\n".join(tokens) + "\n")
    settings = {"tokenizer_class": "BertTokenizer", "model_max_length": 40, "do_lower_case": True}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))


def make(folder: Path) -> None:
    """A model for each mode of pooling and activation, several modes and layers, prompts."""
    torch.manual_seed(0)
    write_transformer(folder.parent / "transformer")
    found = modules()

    def save(name: str, pooling: Any, *others: Any, **settings: Any) -> None:
        transformer = found.Transformer(str(folder.parent / "transformer"))
        SentenceTransformer(modules=[transformer, pooling, *others], device="cpu", **settings).save(str(folder / name))

    for mode in ("cls", "mean", "max", "mean_sqrt_len_tokens"):
        save(mode, found.Pooling(UNITS, pooling_mode=mode))
    for name, activation in DENSE.items():
        layer = found.Dense(UNITS, 16, bias=name != "relu", activation_function=activation())
        save(f"dense-{name}", found.Pooling(UNITS, pooling_mode="mean"), layer, found.Normalize())
    flags = {"pooling_mode_cls_token": True, "pooling_mode_max_tokens": True, "pooling_mode_mean_tokens": True}
    several = found.Pooling(UNITS, **flags)
    layers = [found.Dense(3 * UNITS, 24), found.Normalize(), found.Dense(24, 8, activation_function=torch.nn.GELU())]
    prompts = {"query": "q u e r y ", "document": ""}
    save("several", several, *layers, prompts=prompts, default_prompt_name="query")


def main(command: str, *arguments: str) -> None:
    if command == "make":
        make(Path(arguments[0]))
        print(f"sentence-transformers {sentence_transformers.__version__}, torch {torch.__version__}")
        return
    models, texts = (json.loads(Path(path).read_text()) for path in arguments)
    for out, model in models.items():
        np.save(out, SentenceTransformer(model, device="cpu").encode(texts))


if __name__ == "__main__":
    main(*sys.argv[1:])
