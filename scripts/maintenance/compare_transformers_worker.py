"""Save small models of transformers' classes with outputs and predictions, and tokenizers with their ids, under torch.

One JSON argument: ``models`` and ``tokenizers`` by folder, and ``texts`` and ``pairs``, JSON files.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from compare_transformers_predictions import PREDICTIONS, TAGS, ask_pipeline, predict_all
from compare_transformers_texts import PIECES, PUNCTUATION, WORDS

VOCABULARY = ["[UNK]", "[CLS]", "[SEP]", "[MASK]", *WORDS, *PIECES, *PUNCTUATION]  # without the padding
LENGTHS = (140, 1, 33, 7)  # beyond all buckets of relative positions
PROBLEMS = {
    "multilabel": "multi_label_classification",
    "classification": "single_label_classification",
    "regression": "regression",
}
LABELS = {"regression": ("LABEL_0",), "qa": ("LABEL_0", "LABEL_1"), "tagging": TAGS}
#: families whose positions begin after that of the padding
OFFSET = ("roberta", "xlm-roberta", "camembert", "mpnet")
LAST_LAYERS = ("classifier", "out_proj", "qa_outputs")
SIZES = {
    "bert": {
        "hidden_size": 48,
        "num_hidden_layers": 3,
        "num_attention_heads": 4,
        "intermediate_size": 96,
        "max_position_embeddings": 160,
    },
    "distilbert": {"dim": 48, "n_layers": 3, "n_heads": 4, "hidden_dim": 96, "max_position_embeddings": 160},
}


def save_model(
    folder: Path, architecture: str, task: str, model_type: str, settings: dict[str, Any], pairs: list[tuple[str, str]]
) -> None:
    """Write config.json, weights, a tokenizer, outputs.npz and, for a model with a task, its predictions.

    Outputs and predictions are computed in float64 from the float32 weights: predictions.json as bertsym documents
    them, pipeline.json by transformers' pipeline.
    """
    torch.manual_seed(0)
    config = transformers.AutoConfig.for_model(
        model_type,
        vocab_size=len(VOCABULARY) + 1,
        id2label=dict(enumerate(LABELS.get(task, ("LABEL_0", "LABEL_1", "LABEL_2")))),
        problem_type=PROBLEMS.get(task),
        **SIZES.get(model_type, SIZES["bert"]),
        **settings,
    )
    model = getattr(transformers, architecture)(config).eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.normal_(0, 0.3)
            # So that texts and tokens have different answers.
            if "norm" in name.lower() and name.endswith("weight"):
                parameter.add_(1)
            if name.split(".")[-2] in LAST_LAYERS and name.endswith("bias"):
                parameter.zero_()
    model.save_pretrained(folder)
    pad_id = config.pad_token_id or 0
    tokens = [*VOCABULARY[:pad_id], "[PAD]", *VOCABULARY[pad_id:]]
    (folder / "vocab.txt").write_text("\n".join(tokens) + "\n")
    (folder / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "BertTokenizer"}))

    rng = np.random.default_rng(0)
    shape = len(LENGTHS), max(LENGTHS)
    first = pad_id + 1  # RoBERTa counts positions without tokens that have the id of the padding
    token_ids = rng.integers(first, len(tokens), size=shape)
    token_types = rng.integers(getattr(config, "type_vocab_size", 1), size=shape)
    mask = np.arange(shape[1]) < np.array(LENGTHS)[:, None]
    segments = {"token_type_ids": torch.tensor(token_types)} if hasattr(config, "type_vocab_size") else {}
    with torch.no_grad():
        found = model.double()(
            input_ids=torch.tensor(token_ids), attention_mask=torch.tensor(mask.astype(np.int64)), **segments
        )
    arrays = {"data0": token_ids, "data1": token_types, "data2": np.array(LENGTHS)}
    np.savez(folder / "outputs.npz", output=_output(task, found).numpy(), **arrays)
    if task == "qa" or task in PREDICTIONS:
        tokenizer = transformers.BertTokenizerFast.from_pretrained(folder)
        length = config.max_position_embeddings - (first if model_type in OFFSET else 0)
        (folder / "predictions.json").write_text(json.dumps(predict_all(model, tokenizer, task, length, pairs)))
        (folder / "pipeline.json").write_text(json.dumps(ask_pipeline(model, tokenizer, task, length, pairs)))


def save_tokenizer(folder: Path, tokenizer_class: str, model_type: str, texts: list[str]) -> None:
    """Train a tokenizer on some of the texts; write its files and, of all texts and pairs, ids.json."""
    # A special token in a text would be a piece of a Unigram too.
    corpus = [text for text in texts[::2] if not {*text} & {*"<["}]
    made = getattr(transformers, tokenizer_class)()
    made.train_new_from_iterator(corpus, 1000, show_progress=False).save_pretrained(folder)
    (folder / "config.json").write_text(json.dumps({"model_type": model_type}))
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    rows: list[tuple[str, ...]] = [*((text,) for text in texts), *zip(texts, texts[::-1])]
    encoded = [tokenizer(*row, return_token_type_ids=True) for row in rows]
    ids = [(row, each["input_ids"], each["token_type_ids"]) for row, each in zip(rows, encoded)]
    (folder / "ids.json").write_text(json.dumps(ids))


def _output(task: str, found: Any) -> torch.Tensor:
    if task == "qa":
        return torch.stack([found.start_logits, found.end_logits], dim=-1)
    if task == "encoder":
        return found.last_hidden_state
    if task == "pretraining":
        return found.prediction_logits
    if task in ("classification", "tagging"):
        return found.logits.softmax(-1)
    return found.logits.sigmoid() if task == "multilabel" else found.logits


if __name__ == "__main__":
    transformers.utils.logging.disable_progress_bar()
    jobs = json.loads(sys.argv[1])
    pairs = json.loads(Path(jobs["pairs"]).read_text())
    for folder, job in jobs["models"].items():
        save_model(Path(folder), pairs=pairs, **job)
    # Version 4 trains a tokenizer only from one that has a vocabulary.
    for folder, job in jobs["tokenizers"].items() if transformers.__version__ >= "5" else ():
        save_tokenizer(Path(folder), texts=json.loads(Path(jobs["texts"]).read_text()), **job)
