"""Google's checkpoints of BERT: a TensorFlow checkpoint, bert_config.json and vocab.txt, as the source ``tf:``.

The weights get the names and the layout that they have in Hugging Face's BERT, of which Google's is the original.
"""

from __future__ import annotations

import dataclasses
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from bertsym.array import Array
from bertsym.bundle import file_digest
from bertsym.errors import ModelError, UsageError
from bertsym.families import BERT, list_names, printable
from bertsym.json_reader import JsonValue, read_json
from bertsym.sources.hugging_face import read_config
from bertsym.sources.mapping import map_weights, resolve_names
from bertsym.sources.pretrained import Pretrained, TaskHead, TrainedHead
from bertsym.sources.task_heads import read_head
from bertsym.sources.tensor_bundle import INDEX, TensorBundle
from bertsym.text.labels import match_class_names
from bertsym.text.tokenizer import TokenizerOptions
from bertsym.text.vocabulary import check_vocabulary_size, read_vocabulary
from bertsym.text.wordpiece import bert_document

CONFIG, VOCAB = "bert_config.json", "vocab.txt"
_PRETRAINED = f"bert_model.ckpt{INDEX}"  # as Google published them

# Weights of heads: those of pretraining, run_classifier.py and run_squad.py -> the name in transformers.
_HEADS = {
    "cls/predictions/output_bias": "cls.predictions.bias",
    "cls/seq_relationship/output_weights": "cls.seq_relationship.weight",
    "cls/seq_relationship/output_bias": "cls.seq_relationship.bias",
    "output_weights": "classifier.weight",
    "output_bias": "classifier.bias",
    "cls/squad/output_weights": "qa_outputs.weight",
    "cls/squad/output_bias": "qa_outputs.bias",
}
_ENDINGS = ((r"embeddings$", "embeddings.weight"), (r"\.(kernel|gamma)$", ".weight"), (r"\.beta$", ".bias"))
_OPTIMIZER = r"(.*/)?(adam_[mv]|lamb_[mv]|Adam(_1)?|AdamWeightDecayOptimizer(_1)?|beta[12]_power|global_step)"
_OBJECTS = "_CHECKPOINTABLE_OBJECT_GRAPH"  # in checkpoints of tf.train.Checkpoint


def load_tensorflow(
    location: str,
    vocab: str | None = None,
    lower_case: bool | None = None,
    pad_vocab: bool = False,
    ignore_weights: Sequence[str] = (),
    with_head: bool = False,
    labels: tuple[str, ...] | None = None,
) -> Pretrained:
    """Read a BERT from a folder with one checkpoint, or from the prefix of a checkpoint.

    bert_config.json and, unless `vocab` is given, vocab.txt are in its folder. With `with_head`, the trained head of
    run_classifier.py or run_squad.py, or else that of masked language modelling, is read too; `labels` name the classes
    of the first one. With `lower_case` None, the vocabulary decides. Weights that match a glob of `ignore_weights` are
    left out.

    Raises UsageError for a glob that matches no weight or a weight of the encoder and for labels that do not fit, and
    ModelError or DataError, naming the file, for anything that is missing, damaged or not supported.
    """
    prefix = _find_checkpoint(Path(os.path.expanduser(location)))
    bundle = TensorBundle(prefix)
    document = _read_document(prefix.parent / CONFIG)
    config = read_config(document, BERT)
    index = bundle.files[0]
    if _OBJECTS in bundle:
        raise ModelError(f"{index}: a checkpoint of tf.train.Checkpoint, with other names than Google's BERT")
    weights = _TransformersNames(bundle, index)
    names = resolve_names(weights, BERT.names, str(index), ignore_weights)
    arg_params = map_weights(weights, names, config)
    head: TrainedHead | None = None
    notes: tuple[str, ...] = ()
    if with_head:
        document = _with_head_settings(document, names.heads, weights, labels)
        head, names, notes = read_head(document, BERT, names, weights, config)
    elif labels is not None:
        raise UsageError("--labels names the classes of the trained head, which is not exported: omit --labels")
    path = Path(vocab) if vocab is not None else prefix.parent / VOCAB
    found = read_vocabulary(path, config.vocab_size, strip=True)
    vocabulary = found.vocabulary.padded_to(config.vocab_size) if pad_vocab else found.vocabulary
    check_vocabulary_size(vocabulary, config.vocab_size, str(path))
    options = TokenizerOptions(not vocabulary.looks_cased if lower_case is None else lower_case)
    files = [prefix.parent / CONFIG, *bundle.files, path]
    origin = {
        "kind": "tf",
        "pretrained": True,
        "files": {path.name: file_digest(path) for path in sorted(files)},
        **names.facts,
    }
    return Pretrained(
        config,
        arg_params,
        vocabulary,
        options,
        bert_document(vocabulary, options),
        origin,
        names.checkpoint(weights, document.object()),
        (*names.notes, *notes, *found.notes),
        TaskHead(names.task_head) if names.task_head else None,
        head,
    )


def _find_checkpoint(path: Path) -> Path:
    """Find the prefix of a checkpoint: that which a path names, or that of the only one in a folder."""
    if not path.is_dir():
        return path.with_name(re.sub(rf"({re.escape(INDEX)}|\.data-\d{{5}}-of-\d{{5}})$", "", path.name))
    found = sorted(each.name for each in path.glob(f"*{INDEX}"))
    if not found:
        raise ModelError(f"{path}: not a TensorFlow checkpoint: no {_PRETRAINED} or other file that ends in {INDEX}")
    if len(found) > 1:
        example = path / found[-1].removesuffix(INDEX)
        raise ModelError(f"{path}: {len(found)} checkpoints, {list_names(found)}; choose one, such as tf:{example}")
    return path / found[0].removesuffix(INDEX)


def _read_document(path: Path) -> JsonValue:
    if not path.exists():
        raise ModelError(f"{path}: no such file; copy it from the pretrained model")
    return read_json(path)


def _with_head_settings(
    document: JsonValue, heads: Mapping[str, str], weights: Mapping[str, Array], labels: tuple[str, ...] | None
) -> JsonValue:
    """Add to bert_config.json what it does not have: the class of the head, and its labels.

    A checkpoint of run_classifier.py or run_squad.py has no other head; that of pretraining has both of its heads.
    Raises UsageError for labels that do not fit.
    """
    settings: dict[str, Any] = {}
    if labels is not None and "classifier.weight" not in heads:
        raise UsageError("--labels: the checkpoint has no head whose outputs are classes: omit --labels")
    if "classifier.weight" in heads:
        count = sum(weights[heads["classifier.weight"]].shape[:1])  # 0 for a damaged one without axes
        settings = {"architectures": ["BertForSequenceClassification"], "num_labels": count}
        if count > 1:  # run_classifier.py always ends in a softmax
            settings["problem_type"] = "single_label_classification"
        if labels is not None:
            names = match_class_names(labels, "classification", count, has_classes=count > 1)
            settings["id2label"] = {str(i): name for i, name in enumerate(names)}
    elif "qa_outputs.weight" in heads:
        settings["architectures"] = ["BertForQuestionAnswering"]
    elif "cls.predictions.bias" in heads:
        has_next_sentence = "cls.seq_relationship.weight" in heads
        settings["architectures"] = ["BertForPreTraining" if has_next_sentence else "BertForMaskedLM"]
    return dataclasses.replace(document, raw={**document.object(), **settings})


class _TransformersNames(Mapping[str, Array]):
    """The weights of a checkpoint by their names in transformers, without the variables of an optimizer.

    Raises ModelError for two variables of one name.
    """

    def __init__(self, bundle: TensorBundle, where: Path) -> None:
        self._bundle = bundle
        self._originals: dict[str, str] = {}
        for name in bundle:
            if re.fullmatch(_OPTIMIZER, name):
                continue
            spelled = _spell(name)
            if spelled in self._originals:
                raise ModelError(f"{where}: {printable(self._originals[spelled])} and {printable(name)} are one weight")
            self._originals[spelled] = name

    def __getitem__(self, name: str) -> Array:
        original = self._originals[name]
        array = self._bundle[original]
        # A kernel is (inputs, outputs), and the layer computes x W; in torch and MXNet it is (outputs, inputs).
        return array.T if original.endswith("/kernel") else array

    def __iter__(self) -> Iterator[str]:
        return iter(self._originals)

    def __len__(self) -> int:
        return len(self._originals)


def _spell(name: str) -> str:
    """Convert a name: ``bert/encoder/layer_0/output/dense/kernel`` -> ``bert.encoder.layer.0.output.dense.weight``."""
    if name in _HEADS:
        return _HEADS[name]
    spelled = re.sub(r"/layer_(\d+)/", r"/layer/\1/", name).replace("/", ".")
    for pattern, replacement in _ENDINGS:
        spelled = re.sub(pattern, replacement, spelled)
    return spelled
