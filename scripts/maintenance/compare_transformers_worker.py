"""Save a small model of a class of transformers with its outputs, under torch: one JSON argument, a job."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import torch
import transformers

VOCABULARY = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *(f"word{i}" for i in range(95))]
LENGTHS = (24, 1, 13, 7)
PROBLEMS = {"multilabel": "multi_label_classification", "classification": "single_label_classification"}


def main(folder: Path, architecture: str, task: str) -> None:
    """Write config.json, model.safetensors, vocab.txt and outputs.npz."""
    torch.manual_seed(0)
    config = transformers.BertConfig(
        vocab_size=len(VOCABULARY),
        hidden_size=48,
        num_hidden_layers=3,
        num_attention_heads=4,
        intermediate_size=96,
        max_position_embeddings=32,
        num_labels={"regression": 1, "qa": 2}.get(task, 3),
        problem_type=PROBLEMS.get(task),
    )
    model = getattr(transformers, architecture)(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(0, 0.3)
    model.save_pretrained(folder)
    (folder / "vocab.txt").write_text("\n".join(VOCABULARY) + "\n")

    rng = np.random.default_rng(0)
    shape = len(LENGTHS), max(LENGTHS)
    token_ids, token_types = rng.integers(len(VOCABULARY), size=shape), rng.integers(2, size=shape)
    mask = np.arange(shape[1]) < np.array(LENGTHS)[:, None]
    with torch.no_grad():
        found = model(
            input_ids=torch.tensor(token_ids),
            token_type_ids=torch.tensor(token_types),
            attention_mask=torch.tensor(mask.astype(np.int64)),
        )
        is_span = task == "qa"
        output = torch.stack([found.start_logits, found.end_logits], dim=-1) if is_span else found.logits
        if task in ("classification", "tagging"):
            output = output.softmax(-1)
        if task == "multilabel":
            output = output.sigmoid()
    np.savez(folder / "outputs.npz", data0=token_ids, data1=token_types, data2=np.array(LENGTHS), output=output.numpy())


if __name__ == "__main__":
    job = json.loads(sys.argv[1])
    main(Path(job["folder"]), job["architecture"], job["task"])
