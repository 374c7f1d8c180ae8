#!/usr/bin/env python
"""Compare folders that `bertsym hf` makes of third-party symbols with the symbols, in transformers.

    compare_hf_exports

GluonNLP 0.10 makes a BERTClassifier and a RoBERTaClassifier with random weights and exports them; the encoder of
GluonNLP 0.6 is that of tests/symbols. MXNet computes each on random token ids with padding; bertsym hf writes a folder
of each, which transformers loads and computes on the same ids. Exit code 1 where logits or hidden states differ by more
than 1e-5 of their scale.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

SYMBOLS = Path(__file__).parents[2] / "tests" / "symbols"
LABELS = ("no", "maybe", "yes")
SIZES = {"num_layers": 3, "units": 48, "hidden_size": 96, "num_heads": 4, "max_length": 64}
TOLERANCE = 1e-5


def write_vocabulary(path: Path, size: int, pad_id: int) -> None:
    tokens = ["[UNK]", "[CLS]", "[SEP]", "[MASK]", *(f"word{i}" for i in range(size - 5))]
    path.write_text("\n".join([*tokens[:pad_id], "[PAD]", *tokens[pad_id:]]) + "\n")


def export_classifier(prefix: Path, words: int, *, is_roberta: bool) -> None:
    """Export a classifier of GluonNLP, as its users do; no code of bertsym makes the symbol."""
    from bertsym.mxnet_runtime import mx, nlp  # mxnet and gluonnlp, with what new versions of numpy lack

    models = nlp.model
    sizes: dict[str, Any] = {"vocab_size": words, "units": 48, "embed_size": 48, "use_decoder": False}
    if is_roberta:
        net = models.RoBERTaClassifier(
            models.RoBERTaModel(models.BERTEncoder(layer_norm_eps=1e-5, **SIZES), **sizes), num_classes=len(LABELS)
        )
    else:
        bert = models.BERTModel(models.BERTEncoder(**SIZES), token_type_vocab_size=2, use_classifier=False, **sizes)
        net = models.BERTClassifier(bert, num_classes=len(LABELS))
    net.initialize(mx.init.Normal(0.3))
    net.hybridize(static_alloc=True)
    ones = mx.nd.ones((2, 8))
    net(ones, *([] if is_roberta else [ones]), mx.nd.array([8, 8]))
    net.export(str(prefix))


def compute(prefix: Path, inputs: dict[str, Any]) -> Any:
    """The first output of a symbol in MXNet."""
    from bertsym.mxnet_runtime import mx

    symbol, arguments, _ = mx.model.load_checkpoint(str(prefix), 0)
    names = symbol.list_arguments()
    arrays = {**arguments, **{name: mx.nd.array(array) for name, array in inputs.items()}}
    executor = symbol.bind(mx.cpu(), {name: arrays[name] for name in names}, grad_req="null")
    return executor.forward(is_train=False)[0].asnumpy()


def make_inputs(words: int, length: int, *, is_roberta: bool) -> dict[str, Any]:
    """Token ids, token types and lengths; those of a RoBERTa have no type but 0, and no id of the padding."""
    random, lengths = np.random.default_rng(0), np.array([length, 1, length // 2])
    return {
        "data0": random.integers(2 if is_roberta else 0, words, size=(3, length)),
        "data1": random.integers(1 if is_roberta else 2, size=(3, length)),
        "data2": lengths,
    }


def compare_in_transformers(folder: Path) -> None:
    """Run a folder in transformers and print the largest difference from outputs.npz, relative to its scale."""
    import torch
    import transformers

    saved = np.load(folder / "outputs.npz")
    model_class = getattr(transformers, json.loads((folder / "config.json").read_text())["architectures"][0])
    model = model_class.from_pretrained(folder).eval()
    is_token = np.arange(saved["data0"].shape[1]) < saved["data2"][:, None]
    with torch.no_grad():
        output = model(
            input_ids=torch.tensor(saved["data0"]),
            token_type_ids=torch.tensor(saved["data1"]),
            attention_mask=torch.tensor(is_token.astype(np.int64)),
        )[0].numpy()
    rows = is_token if output.ndim == 3 else slice(None)
    difference = np.abs(output[rows] - saved["output"][rows]).max() / np.abs(saved["output"]).max()
    print(f"{float(difference):.1e} {model_class.__name__}")


def main() -> int:
    from bertsym import BundleOptions, export_hugging_face

    worst = 0.0
    with tempfile.TemporaryDirectory() as made:
        folder = Path(made)
        (folder / "old").mkdir()
        export_classifier(folder / "classifier", 90, is_roberta=False)
        export_classifier(folder / "roberta", 90, is_roberta=True)
        for name in ("sequence-symbol.json", "weights-0000.params"):
            shutil.copy(SYMBOLS / "gluonnlp-0.6.0" / name, folder / "old" / name.replace("weights", "sequence"))
        cases = {
            "GluonNLP 0.10 BERTClassifier": (folder / "classifier", 90, 24, LABELS),
            "GluonNLP 0.10 RoBERTaClassifier": (folder / "roberta", 90, 24, LABELS),
            "GluonNLP 0.6 encoder": (folder / "old" / "sequence", 50, 8, None),
        }
        for name, (prefix, words, length, labels) in cases.items():
            is_roberta = prefix.name == "roberta"
            vocab, target = folder / f"{prefix.name}.txt", folder / f"{prefix.name}-hf"
            write_vocabulary(vocab, words, 1 if is_roberta else 0)
            export_hugging_face(prefix, target, options=BundleOptions(vocab=vocab, labels=labels))
            inputs = make_inputs(words, length, is_roberta=is_roberta)
            # A RoBERTa of GluonNLP takes token ids and lengths.
            fed = {"data0": inputs["data0"], "data1": inputs["data2"]} if is_roberta else inputs
            np.savez(target / "outputs.npz", output=compute(prefix, fed), **inputs)
            command = [os.environ["BENCH_TORCH_PYTHON"], __file__, str(target)]
            printed = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout.split()
            difference, model_class = printed[-2:]
            print(f"{name:<31} {model_class:<32} {difference} of the scale")
            worst = max(worst, float(difference))
    return 0 if worst <= TOLERANCE else 1


if __name__ == "__main__":
    if "--help" in sys.argv or len(sys.argv) > 2:
        sys.exit(__doc__)
    sys.exit(compare_in_transformers(Path(sys.argv[1])) if len(sys.argv) == 2 else main())
