"""Make models with transformers, and run ONNX files with optimum; compare_optimum runs it with a Python that has both.

make FOLDER TYPE ...: a small model of each class and type, in FOLDER/TYPE/TASK; prints the versions.
compare JOBS: prints a line for each job of a JSON file, and exits with 1 where outputs or answers differ.
"""

from __future__ import annotations

import importlib.metadata
import json
import math
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import optimum.onnxruntime
import torch
import transformers
from compare_transformers_texts import PIECES, PUNCTUATION, WORDS, make_pairs

LIMIT = 1e-5
#: task -> ending of the classes in transformers and optimum, and the pipeline
TASKS = {
    "encoder": ("Model", "feature-extraction"),
    "classification": ("ForSequenceClassification", "text-classification"),
    "tagging": ("ForTokenClassification", "token-classification"),
    "qa": ("ForQuestionAnswering", "question-answering"),
    "masked_lm": ("ForMaskedLM", "fill-mask"),
}
PREFIXES = {"bert": "Bert", "roberta": "Roberta", "distilbert": "DistilBert"}
SIZES = {
    "distilbert": {"dim": 48, "n_layers": 3, "n_heads": 4, "hidden_dim": 96, "max_position_embeddings": 160},
    "roberta": {"type_vocab_size": 1, "layer_norm_eps": 1e-5},
}
SIZE = {
    "hidden_size": 48,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "intermediate_size": 96,
    "max_position_embeddings": 160,
}
SPECIAL = ["[UNK]", "[CLS]", "[SEP]", "[MASK]"]
PAIRS = [pair for pair in make_pairs(60) if len(pair[1].split()) <= 20][:20]  # short enough for every model


def save_model(folder: Path, model_type: str, task: str) -> None:
    """Write a model whose weights are large, so that each of them matters, and a WordPiece tokenizer."""
    torch.manual_seed(0)
    sizes = SIZES.get(model_type, {})
    sizes = sizes if model_type == "distilbert" else {**SIZE, **sizes}
    names = ("O", "B-X", "I-X", "B-Y", "I-Y") if task == "tagging" else ("no", "maybe", "yes")
    labels = {"id2label": dict(enumerate(names))} if task in ("classification", "tagging") else {}
    tokens = [*SPECIAL, *WORDS, *PIECES, *PUNCTUATION]
    config = transformers.AutoConfig.for_model(model_type, vocab_size=len(tokens) + 1, **sizes, **labels)
    model = getattr(transformers, PREFIXES[model_type] + TASKS[task][0])(config).eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.normal_(0, 0.3)
            if "norm" in name.lower() and name.endswith("weight"):
                parameter.add_(1)
    model.save_pretrained(folder)
    pad_id = config.pad_token_id or 0
    (folder / "vocab.txt").write_text("\n".join([*tokens[:pad_id], "[PAD]", *tokens[pad_id:]]) + "\n")
    inputs = ["input_ids", "attention_mask", *(["token_type_ids"] if model_type == "bert" else [])]
    settings = {"tokenizer_class": "BertTokenizer", "model_max_length": 150, "model_input_names": inputs}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))


def make(folder: Path, *model_types: str) -> None:
    for model_type in model_types:
        for task in TASKS:
            (folder / model_type / task).mkdir(parents=True)
            save_model(folder / model_type / task, model_type, task)
    packages = ("optimum-onnx", "optimum", "transformers", "sentence-transformers", "onnxruntime", "torch")
    print(", ".join(f"{name} {importlib.metadata.version(name)}" for name in packages), flush=True)


def tokenize(tokenizer: Any, model: Any) -> Any:
    """A padded batch of texts, of pairs where the model answers questions."""
    questions, contexts = zip(*PAIRS)
    texts = (questions, contexts) if type(model).__name__.endswith("QuestionAnswering") else (contexts,)
    return tokenizer(*map(list, texts), padding=True, return_tensors="pt")


def output_difference(original: Any, tokenizer: Any, model: Any, other: Any) -> float:
    """The largest difference of any output for a batch of texts at their tokens, relative to its scale.

    The original computes in float64 from then on, since two programs in float32 may differ by twice what each rounds.
    """
    inputs, theirs = tokenize(tokenizer, original), tokenize(other, model)
    if any(not torch.equal(inputs[name], theirs[name]) for name in inputs):
        return math.inf
    with torch.no_grad():
        expected, found = original.double()(**inputs), model(**theirs)
    is_token, differences = inputs["attention_mask"].bool(), []
    for name in ("logits", "start_logits", "end_logits", "last_hidden_state"):
        if name in expected:
            one, two = expected[name], found[name]
            rows = is_token if one.shape[:2] == is_token.shape else slice(None)
            differences.append(float((one[rows] - two[rows]).abs().max() / one[rows].abs().max()))
    return max(differences)


def answers(name: str, model: Any, tokenizer: Any) -> Iterator[Any]:
    """What a pipeline answers to each text."""
    settings: dict[str, Any] = {"top_k": None} if name == "text-classification" else {}
    pipe = transformers.pipeline(name, model=model, tokenizer=tokenizer, device="cpu", **settings)
    for question, context in PAIRS:
        if name == "question-answering":
            yield pipe(question=question, context=context)
        else:
            yield pipe(f"{context} [MASK]" if name == "fill-mask" else context)


def answer_difference(found: Any, expected: Any) -> float:
    """The largest difference of the numbers of two answers; infinite for any other difference."""
    if isinstance(expected, dict) and isinstance(found, dict) and list(found) == list(expected):
        return answer_difference([*found.values()], [*expected.values()])
    if isinstance(expected, list) and isinstance(found, list) and len(found) == len(expected):
        return max(map(answer_difference, found, expected), default=0.0)
    if isinstance(expected, (float, np.floating)):
        return abs(float(found) - float(expected))
    return 0.0 if found == expected else math.inf


def compare(job: dict[str, str]) -> list[tuple[str, float]]:
    """Compare a written folder with its source: what was compared, and the difference."""
    source, written, task = Path(job["source"]), Path(job["written"]), job["task"]
    if task == "sentence":
        return compare_embeddings(source, written)
    ending, pipe = TASKS[task]
    ort = "ORTModelForFeatureExtraction" if task == "encoder" else f"ORTModel{ending}"
    auto = getattr(transformers, "AutoModel" if task == "encoder" else f"AutoModel{ending}")
    original, back = (auto.from_pretrained(folder).eval() for folder in (source, written))
    model = getattr(optimum.onnxruntime, ort).from_pretrained(written)
    tokenizers = [transformers.AutoTokenizer.from_pretrained(folder) for folder in (source, written)]
    expected = list(answers(pipe, original, tokenizers[0]))
    found = list(answers(pipe, model, tokenizers[1]))
    scale = max(1.0, float(np.abs(expected[0]).max())) if task == "encoder" else 1.0
    return [
        ("torch", output_difference(original, tokenizers[0], back, tokenizers[1])),
        (ort, output_difference(original, tokenizers[0], model, tokenizers[1])),
        (f"pipeline {pipe}", answer_difference(found, expected) / scale),
    ]


def compare_embeddings(source: Path, written: Path) -> list[tuple[str, float]]:
    from sentence_transformers import SentenceTransformer

    texts = [text for pair in PAIRS for text in pair]
    expected = SentenceTransformer(str(source), device="cpu").encode(texts)
    onnx = SentenceTransformer(str(written), backend="onnx", device="cpu").encode(texts)
    model = optimum.onnxruntime.ORTModelForCustomTasks.from_pretrained(written)
    tokenizer = transformers.AutoTokenizer.from_pretrained(written)
    embeddings = model(**tokenizer(texts, padding=True, truncation=True, return_tensors="pt")).sentence_embedding
    original = transformers.AutoModel.from_pretrained(source).eval()
    features = optimum.onnxruntime.ORTModelForFeatureExtraction.from_pretrained(written)
    scale = np.abs(expected).max()
    return [
        ("ORTModelForCustomTasks", float(np.abs(embeddings.numpy() - expected).max() / scale)),
        ("SentenceTransformer(backend='onnx')", float(np.abs(onnx - expected).max() / scale)),
        ("ORTModelForFeatureExtraction", output_difference(original, tokenizer, features, tokenizer)),
    ]


def main(command: str, *arguments: str) -> int:
    transformers.utils.logging.set_verbosity_error()
    if command == "make":
        make(Path(arguments[0]), *arguments[1:])
        return 0
    worst = 0.0
    for job in json.loads(Path(arguments[0]).read_text()):
        compared = compare(job)
        worst = max(worst, *(difference for _, difference in compared))
        model_type = "real" if job["task"] == "sentence" else Path(job["source"]).parent.name
        shown = "  ".join(f"{what} {difference:.1e}" for what, difference in compared)
        print(f"{model_type:<11} {job['task']:<15} {shown}", flush=True)
    print("equal" if worst <= LIMIT else f"NOT EQUAL: {worst:.1e}")
    return 0 if worst <= LIMIT else 1


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
