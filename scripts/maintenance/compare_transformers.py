#!/usr/bin/env python
"""Compare models of transformers with the reference encoders and with exported bundles, and tokenizers by their ids.

    compare_transformers [FAMILY ...]

transformers makes a small model of each class with large random weights, saves it and computes it in float64. The
reference encoder computes the saved weights, and MXNet computes the bundle that bertsym exports, on the same inputs.
The predictions of a bundle with a task for 50 texts (labels, tags, entities, values, answers with their offsets) are
compared with those of a plain forward of torch and the documented decoding, and with those of the task's pipeline in
transformers; its version 5 has none for question answering.
transformers also trains a tokenizer of each family's class, saves it as tokenizer.json and encodes 200 texts and 200
pairs, which bertsym encodes too; texts whose ids or token types differ are listed. Version 4 of transformers can't
train them; their line then says "not compared".
Exit code 1 where the reference differs by more than 1e-6 of an output's scale, a bundle by more than 1e-5, a prediction
by more than 1e-5 (the value of a regression: of the largest value), ids differ, or a folder is not exported.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from compare_transformers_texts import make_pairs, make_texts

from bertsym import export, load
from bertsym.array import Array
from bertsym.encoders.inputs import INPUT_NAMES
from bertsym.errors import BertsymError
from bertsym.execution.loaders import load_module
from bertsym.exporter import ExportOptions
from bertsym.mxnet_runtime import quiet_stderr
from bertsym.reference import HUGGING_FACE_HEADS, Checkpoint, Inputs, encoder_outputs, probabilities
from bertsym.sources.hugging_face_tokenizer import read_tokenizer
from bertsym.sources.safetensors_file import SafetensorsFiles
from bertsym.text.tokenizer import Tokenizer

WORKER = Path(__file__).with_name("compare_transformers_worker.py")
#: model_type -> family, and how the names of transformers' classes begin
FAMILIES = {
    "bert": ("bert", "Bert"),
    "ernie": ("ernie", "Ernie"),
    "roberta": ("roberta", "Roberta"),
    "xlm-roberta": ("roberta", "XLMRoberta"),
    "camembert": ("roberta", "Camembert"),
    "distilbert": ("distilbert", "DistilBert"),
    "electra": ("electra", "Electra"),
    "albert": ("albert", "Albert"),
    "mpnet": ("mpnet", "MPNet"),
}
#: model_type -> class of its tokenizer
TOKENIZERS = {
    "bert": "BertTokenizer",
    "roberta": "RobertaTokenizer",
    "xlm-roberta": "XLMRobertaTokenizer",
    "camembert": "CamembertTokenizer",
    "distilbert": "DistilBertTokenizer",
    "electra": "ElectraTokenizer",
    "albert": "AlbertTokenizer",
    "mpnet": "MPNetTokenizer",
}
TEXTS, PAIRS = 200, 50
SETTINGS: dict[str, dict[str, Any]] = {
    "ernie": {"hidden_act": "relu", "type_vocab_size": 4},
    "roberta": {"type_vocab_size": 1, "layer_norm_eps": 1e-5},
    "electra": {"embedding_size": 24},
    "albert": {"embedding_size": 24},
}
ENDINGS = {
    "encoder": "Model",
    "classification": "ForSequenceClassification",
    "multilabel": "ForSequenceClassification",
    "regression": "ForSequenceClassification",
    "tagging": "ForTokenClassification",
    "qa": "ForQuestionAnswering",
    "masked_lm": "ForMaskedLM",
    "pretraining": "ForPreTraining",
}
WITHOUT_PRETRAINING = ("roberta", "xlm-roberta", "camembert", "distilbert", "mpnet", "electra")
TOKENS = "embeddings.word_embeddings.weight"
REFERENCE_TOLERANCE, TOLERANCE = 1e-6, 1e-5


def make_models(root: Path, model_types: list[str]) -> tuple[dict[Path, tuple[str, str]], dict[Path, str]]:
    """Write a folder for each class and tokenizer; returns families and tasks of models, and types of tokenizers."""
    folders, jobs = {}, {}
    for model_type in model_types:
        family, prefix = FAMILIES[model_type]
        for task, ending in ENDINGS.items():
            if task == "pretraining" and model_type in WITHOUT_PRETRAINING:
                continue
            folder = root / model_type / task
            folder.mkdir(parents=True)
            folders[folder] = family, task
            jobs[str(folder)] = {
                "architecture": prefix + ending,
                "task": task,
                "model_type": model_type,
                "settings": SETTINGS.get(model_type, {}),
            }
    tokenizers = {root / name / "tokenizer": name for name in model_types if name in TOKENIZERS}
    classes = {
        str(folder): {"tokenizer_class": TOKENIZERS[name], "model_type": name} for folder, name in tokenizers.items()
    }
    texts = root / "texts.json"
    texts.write_text(json.dumps(make_texts(TEXTS)))
    pairs = root / "pairs.json"
    pairs.write_text(json.dumps(make_pairs(PAIRS)))
    python = os.environ.get("BENCH_TORCH_PYTHON", sys.executable)
    environment = {**os.environ, "HF_HUB_OFFLINE": "1"}
    work = {"models": jobs, "tokenizers": classes, "texts": str(texts), "pairs": str(pairs)}
    subprocess.run([python, str(WORKER), json.dumps(work)], check=True, env=environment)
    return folders, tokenizers


def reference_output(folder: Path, family: str, task: str, inputs: dict[str, Array]) -> Array:
    """What the reference computes of the weights in a folder."""
    config = json.loads((folder / "config.json").read_text())
    arrays = SafetensorsFiles([folder / "model.safetensors"])
    prefix = next(name for name in arrays if name.endswith(TOKENS)).removesuffix(TOKENS)
    weights = {name.removeprefix(prefix): arrays[name] for name in arrays}
    checkpoint = Checkpoint("Hugging Face", weights, config)
    (encodings,) = encoder_outputs(family, checkpoint, [Inputs(*(inputs[name] for name in INPUT_NAMES))])
    if task == "encoder":
        return encodings.sequence
    values = HUGGING_FACE_HEADS[config["architectures"][0]].values(encodings, weights, config)
    return probabilities(task, values) if task in ("classification", "tagging", "multilabel") else values


def bundle_output(folder: Path, task: str, inputs: dict[str, Array]) -> Array:
    """What MXNet computes of the exported bundle."""
    options = ExportOptions(output="sequence") if task == "encoder" else ExportOptions()
    bundle = export(f"hf:{folder}", folder / "bundle", options, verify=False).bundle
    with quiet_stderr():
        return load_module(bundle.graph().to_json(), bundle.params(), inputs, ())(inputs)[0]


def largest_difference(found: Array, expected: Array, is_token: Array) -> float:
    """As a fraction of the scale; transformers computes something at padding too, which is left out."""
    if expected.ndim == 3:
        found, expected = found[is_token], expected[is_token]
    return float(np.abs(found - expected).max() / np.abs(expected).max())


def compare(folder: Path, family: str, task: str) -> tuple[str, bool]:
    """Differences of the reference and of the bundle from transformers, and whether both are small enough."""
    with np.load(folder / "outputs.npz") as arrays:
        inputs = {name: arrays[name].astype(np.float32) for name in INPUT_NAMES}
        expected = arrays["output"]
    is_token = np.arange(inputs[INPUT_NAMES[0]].shape[1]) < inputs[INPUT_NAMES[2]][:, None]
    reference = largest_difference(reference_output(folder, family, task, inputs), expected, is_token)
    try:
        bundle = largest_difference(bundle_output(folder, task, inputs), expected, is_token)
    except BertsymError as error:
        return f"reference {reference:.1e}   not exported: {error}", False
    is_equal = reference <= REFERENCE_TOLERANCE and bundle <= TOLERANCE
    return f"reference {reference:.1e}   bundle {bundle:.1e}", is_equal


def compare_predictions(folder: Path) -> tuple[str, bool]:
    """Compare what a bundle predicts with predictions.json; returns a line, and whether the difference is small."""
    expected = json.loads((folder / "predictions.json").read_text())
    model: Any = load(folder / "bundle")
    questions, contexts = zip(*make_pairs(PAIRS))
    predictions = model.predict(questions, contexts) if model.task.name == "qa" else model.predict(contexts)
    found = json.loads(json.dumps([prediction.to_json() for prediction in predictions]))
    scale = max(1.0, *(abs(each.get("value", 0.0)) for each in expected))
    differences = [prediction_difference(*each) / scale for each in zip(found, expected)]
    differing = sum(difference > TOLERANCE for difference in differences)
    line = f"{len(expected)} predictions, {differing} differ, at most by {max(differences):.1e}"
    answers = json.loads((folder / "pipeline.json").read_text())
    if answers is None:
        return f"{line}; transformers has no pipeline", not differing
    differences = [
        prediction_difference(pipeline_part(each), answer) / scale
        for each, answer in zip(found, answers)
        if answer is not None
    ]
    others = sum(difference > TOLERANCE for difference in differences)
    line += f"; of {len(differences)} answers of the pipeline {others} differ, at most by {max(differences):.1e}"
    return line, not differing and not others


def pipeline_part(prediction: Any) -> Any:
    """What transformers' pipelines answer, of a prediction in bertsym's JSON."""
    if "probabilities" in prediction and "tags" not in prediction:
        return [*prediction["probabilities"].values()]
    if "value" in prediction:
        return [prediction["value"]]
    if "tags" in prediction:
        return [[each[name] for name in ("type", "start", "end", "score")] for each in prediction["entities"]]
    return [prediction[name] for name in ("answer", "start", "end", "score")]


def prediction_difference(found: Any, expected: Any) -> float:
    """The largest difference of two JSON values' numbers; infinite for any other difference."""
    if isinstance(expected, float) and isinstance(found, float):
        return abs(found - expected)
    if isinstance(expected, dict) and isinstance(found, dict) and list(found) == list(expected):
        return prediction_difference([*found.values()], [*expected.values()])
    if isinstance(expected, list) and isinstance(found, list) and len(found) == len(expected):
        return max(map(prediction_difference, found, expected), default=0.0)
    return 0.0 if found == expected else math.inf


def compare_ids(folder: Path, model_type: str) -> tuple[list[str], bool]:
    """Lines about the texts that bertsym encodes otherwise than transformers, and whether there is none."""
    rows = json.loads((folder / "ids.json").read_text())
    size = len(json.loads((folder / "tokenizer.json").read_text())["model"]["vocab"])
    try:
        found = read_tokenizer(folder, size, model_type=model_type)
        tokenizer = Tokenizer(json.dumps(found.document), "tokenizer.json", found.options, 10**6)
        pairs = [(tokenizer.encode(*([text] for text in texts))[0], ids, types) for texts, ids, types in rows]
    except BertsymError as error:
        return [f"not read: {error}"], False
    differing = [
        f"  {texts}: {mine.token_ids} {mine.token_types}, not {ids} {types}"
        for (texts, _, _), (mine, ids, types) in zip(rows, pairs)
        if (mine.token_ids, mine.token_types) != (ids, types)
    ]
    first = f"{len(rows)} texts and pairs, {len(differing)} differ"
    return [first, *map("{:.600}".format, differing), *(f"  note: {note}" for note in found.notes)], not differing


def main() -> int:
    """Print a line for each class; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("families", nargs="*", metavar="FAMILY", help=f"of {', '.join(FAMILIES)}; default: all")
    model_types = parser.parse_args().families or list(FAMILIES)
    failures = 0
    with tempfile.TemporaryDirectory() as root:
        models, tokenizers = make_models(Path(root), model_types)
        for folder, (family, task) in models.items():
            line, is_equal = compare(folder, family, task)
            failures += not is_equal
            print(f"{folder.parent.name:<12} {task:<15} {line}", flush=True)
            if (folder / "predictions.json").exists() and (folder / "bundle-symbol.json").exists():
                line, is_equal = compare_predictions(folder)
                failures += not is_equal
                print(f"{'':<12} {'':<15} {line}", flush=True)
        for folder, model_type in tokenizers.items():
            is_written = (folder / "ids.json").exists()
            lines, is_equal = compare_ids(folder, model_type) if is_written else (["not compared"], True)
            failures += not is_equal
            print(f"{model_type:<12} {TOKENIZERS[model_type]:<20} " + "\n".join(lines), flush=True)
    return int(failures > 0)


if __name__ == "__main__":
    sys.exit(main())
