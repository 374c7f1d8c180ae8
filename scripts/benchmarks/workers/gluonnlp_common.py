"""Shared parts of the GluonNLP peers, without bertsym: the model, tokenized pairs, the schedule."""

from __future__ import annotations

import warnings
from typing import Any

from job import read_rows

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    import gluonnlp as nlp
    import mxnet as mx

WARMUP = 0.1


def encode(prefix: str, path: str, max_length: int, pad: bool) -> list[tuple[Any, ...]]:
    """Return (token ids, valid length, token types, label) of each row, from GluonNLP's own transform."""
    with open(f"{prefix}-vocab.json", encoding="utf-8") as file:
        vocabulary = nlp.vocab.BERTVocab.from_json(file.read())
    tokenizer = nlp.data.BERTTokenizer(vocabulary, lower=True)
    transform = nlp.data.BERTSentenceTransform(tokenizer, max_length, pad=pad, pair=True)
    return [(*transform((row["text"], row["text_pair"])), int(row["label"])) for row in read_rows(path)]


def learning_rate(step: int, steps: int, peak: float) -> float:
    """Return the learning rate of a step, counted from 1: warm-up for a tenth of the steps, then decay to 0."""
    warmup = int(steps * WARMUP)
    return peak * step / warmup if step < warmup else peak * (steps - step) / (steps - warmup)


def bert_model(config: dict[str, Any]) -> Any:
    """Return GluonNLP's BERTModel with a pooler, built from a Hugging Face config."""
    encoder = nlp.model.BERTEncoder(
        num_layers=config["num_hidden_layers"],
        units=config["hidden_size"],
        hidden_size=config["intermediate_size"],
        max_length=config["max_position_embeddings"],
        num_heads=config["num_attention_heads"],
        dropout=0.1,
        prefix="bertencoder0_",
    )
    return nlp.model.BERTModel(
        encoder,
        vocab_size=config["vocab_size"],
        token_type_vocab_size=2,
        units=config["hidden_size"],
        embed_size=config["hidden_size"],
        use_decoder=False,
        use_classifier=False,
        prefix="bertmodel0_",
    )


def settings() -> str:
    return f"mxnet {mx.__version__}, gluonnlp {nlp.__version__}"
