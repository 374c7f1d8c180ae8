"""Predictions of models of transformers under torch, decoded as bertsym documents it, text by text in float64.

They have the form of bertsym's JSON. What transformers' own pipelines answer is a part of it: `ask_pipeline`.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable
from typing import Any

import torch
import transformers

TAGS = ("O", "B-X", "I-X", "B-Y", "I-Y")
LONGEST_ANSWER, N_BEST, MAX_STRIDE = 30, 5, 128

Forward = Callable[[Any], Any]
Json = dict[str, Any]


def predict_classes(forward: Forward, tokenizer: Any, text: str, length: int, labels: list[str]) -> Json:
    """The most probable label, and the probability of each."""
    values = forward(tokenizer(text, truncation=True, max_length=length)).logits[0].softmax(-1).tolist()
    return {"label": labels[values.index(max(values))], "probabilities": dict(zip(labels, values))}


def predict_labels(forward: Forward, tokenizer: Any, text: str, length: int, labels: list[str]) -> Json:
    """The labels whose probability is at least 0.5, and the probability of each."""
    values = forward(tokenizer(text, truncation=True, max_length=length)).logits[0].sigmoid().tolist()
    chosen = [label for label, value in zip(labels, values) if value >= 0.5]
    return {"labels": chosen, "probabilities": dict(zip(labels, values))}


def predict_value(forward: Forward, tokenizer: Any, text: str, length: int, labels: list[str]) -> Json:
    """The output itself."""
    return {"value": forward(tokenizer(text, truncation=True, max_length=length)).logits[0, 0].item()}


def predict_tags(forward: Forward, tokenizer: Any, text: str, length: int, labels: list[str]) -> Json:
    """The tag of each word, at its first piece, and the entities that the tags form, as transformers groups them."""
    places = [match.span() for match in re.finditer(r"\w+|[^\w\s]", text)]
    words = [text[start:end] for start, end in places]
    encoded = tokenizer(words, is_split_into_words=True, truncation=True, max_length=length)
    values = forward(encoded).logits[0].softmax(-1)
    tags: list[str | None] = [None] * len(words)
    probabilities: list[float | None] = [None] * len(words)
    for token, word in reversed(list(enumerate(encoded.word_ids()))):
        if word is not None:
            tags[word] = labels[int(values[token].argmax())]
            probabilities[word] = values[token].max().item()
    groups: list[tuple[str, list[int]]] = []
    previous = "O"
    for word, tag in enumerate(each or "O" for each in tags):
        if tag != "O" and (tag[0] == "B" or tag[2:] != previous[2:]):
            groups.append((tag[2:], []))
        if tag != "O":
            groups[-1][1].append(word)
        previous = tag
    entities = []
    for kind, members in groups:
        start, end = places[members[0]][0], places[members[-1]][1]
        score = sum(probabilities[word] or 0.0 for word in members) / len(members)
        entities.append({"type": kind, "start": start, "end": end, "text": text[start:end], "score": score})
    offsets = [list(place) for place in places]
    return {"tokens": words, "offsets": offsets, "tags": tags, "probabilities": probabilities, "entities": entities}


def predict_answer(forward: Forward, tokenizer: Any, question: str, context: str, length: int) -> Json:
    """The spans with the highest product of the probabilities of start and end, of all windows of the context."""
    stride = min(length // 3, MAX_STRIDE)
    encoded = tokenizer(
        question,
        context,
        truncation="only_second",
        max_length=length,
        stride=stride,
        return_overflowing_tokens=True,
        return_offsets_mapping=True,
    )
    found: dict[tuple[int, int], float] = {}
    none = 1.0
    for number, offsets in enumerate(encoded["offset_mapping"]):
        window = {name: encoded[name][number] for name in ("input_ids", "attention_mask", "token_type_ids")}
        output = forward(window)
        allowed = [0, *(i for i, text in enumerate(encoded.sequence_ids(number)) if text == 1)]
        starts, ends = (logits[0, allowed].softmax(-1).tolist() for logits in (output.start_logits, output.end_logits))
        none = min(none, starts[0] * ends[0])
        for i, j in itertools.product(range(1, len(allowed)), repeat=2):
            if i <= j < i + LONGEST_ANSWER:
                place = offsets[allowed[i]][0], offsets[allowed[j]][1]
                found[place] = max(found.get(place, 0.0), starts[i] * ends[j])
    best = sorted(found.items(), key=lambda item: -item[1])[:N_BEST]
    spans = [{"answer": context[start:end], "start": start, "end": end, "score": score} for (start, end), score in best]
    return {"id": None, **spans[0], "no_answer_score": none, "n_best": spans}


PREDICTIONS = {
    "classification": predict_classes,
    "multilabel": predict_labels,
    "regression": predict_value,
    "tagging": predict_tags,
}


def predict_all(model: Any, tokenizer: Any, task: str, length: int, pairs: list[tuple[str, str]]) -> list[Json]:
    """Return the predictions for the contexts, or for the questions about them; `length` is that of the inputs."""
    takes_types = getattr(model.config, "type_vocab_size", 1) > 1
    labels = [model.config.id2label[i] for i in range(model.config.num_labels)]

    def forward(window: Any) -> Any:
        names = ["input_ids", "attention_mask", *(["token_type_ids"] if takes_types else [])]
        return model(**{name: torch.tensor([window[name]]) for name in names})

    with torch.no_grad():
        if task == "qa":
            return [predict_answer(forward, tokenizer, *pair, length) for pair in pairs]
        return [PREDICTIONS[task](forward, tokenizer, context, length, labels) for _, context in pairs]


def ask_pipeline(model: Any, tokenizer: Any, task: str, length: int, pairs: list[tuple[str, str]]) -> list[Any] | None:
    """Return the answers of transformers' pipeline for the task, as `pipeline_part` has them; None without a pipeline.

    The answer is None for a text that needs several windows: there the pipelines do not what bertsym documents. That
    for tags takes no longer text, and that for questions adds the scores of spans with the same text.
    """
    if task == "qa" and not hasattr(transformers, "QuestionAnsweringPipeline"):
        return None  # version 5 has none
    if getattr(model.config, "type_vocab_size", 1) == 1:
        tokenizer.model_input_names = ["input_ids", "attention_mask"]
    name = {"tagging": "token-classification", "qa": "question-answering"}.get(task, "text-classification")
    options = {"aggregation_strategy": "first"} if task == "tagging" else {}
    pipeline: Any = transformers.pipeline(name, model=model, tokenizer=tokenizer, **options)
    answers: list[Any] = []
    for question, context in pairs:
        texts = (question, context) if task == "qa" else (context,)
        if task in ("tagging", "qa") and len(tokenizer(*texts)["input_ids"]) > length:
            answers.append(None)
        elif task == "tagging":
            answers.append([[each["entity_group"], *_place(each)] for each in pipeline(context)])
        elif task == "qa":
            found = pipeline(
                question=question,
                context=context,
                max_seq_len=length,
                doc_stride=min(length // 3, MAX_STRIDE),
                max_answer_len=LONGEST_ANSWER,
                align_to_words=False,
            )
            answers.append([found["answer"], *_place(found)])
        else:
            scores = {
                each["label"]: each["score"]
                for each in pipeline(context, top_k=None, truncation=True, max_length=length)
            }
            answers.append([scores[label] for label in model.config.id2label.values()])
    return answers


def _place(found: Json) -> list[Any]:
    return [found["start"], found["end"], float(found["score"])]
