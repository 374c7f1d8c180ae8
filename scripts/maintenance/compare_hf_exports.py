#!/usr/bin/env python
"""Compare folders that `bertsym hf` makes of third-party symbols with the symbols, in transformers.

    compare_hf_exports

GluonNLP 0.10 makes a BERTClassifier with random weights and exports it; the encoder of GluonNLP 0.6 is that of
tests/symbols. MXNet computes both on random token ids with padding; bertsym hf writes a folder of each, which
transformers loads and computes on the same ids. Exit code 1 where logits or hidden states differ by more than 1e-5 of
their scale.
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


def write_vocabulary(path: Path, size: int) -> None:
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    path.write_text("\n".join([*special, *(f"word{i}" for i in range(size - len(special)))]) + "\n")


def export_classifier(prefix: Path, words: int) -> None:
    """Export a BERTClassifier of GluonNLP, as its users do; no code of bertsym makes the symbol."""
    from bertsym.mxnet_runtime import mx, nlp  # mxnet and gluonnlp, with what new versions of numpy lack

    encoder = nlp.model.BERTEncoder(**SIZES)
    bert = nlp.model.BERTModel(
        encoder,
        vocab_size=words,
        token_type_vocab_size=2,
        units=48,
        embed_size=48,
        use_decoder=False,
        use_classifier=False,
    )
    net = nlp.model.BERTClassifier(bert, num_classes=len(LABELS))
    net.initialize(mx.init.Normal(0.3))
    net.hybridize(static_alloc=True)
    ones = mx.nd.ones((2, 8))
    net(ones, ones, mx.nd.array([8, 8]))
    net.export(str(prefix))


def compute(prefix: Path, inputs: dict[str, Any]) -> Any:
    """The first output of a symbol in MXNet."""
    from bertsym.mxnet_runtime import mx

    symbol, arguments, _ = mx.model.load_checkpoint(str(prefix), 0)
    names = symbol.list_arguments()
    arrays = {**arguments, **{name: mx.nd.array(array) for name, array in inputs.items()}}
    executor = symbol.bind(mx.cpu(), {name: arrays[name] for name in names}, grad_req="null")
    return executor.forward(is_train=False)[0].asnumpy()


def make_inputs(words: int, length: int) -> dict[str, Any]:
    random, lengths = np.random.default_rng(0), np.array([length, 1, length // 2])
    return {
        "data0": random.integers(words, size=(3, length)),
        "data1": random.integers(2, size=(3, length)),
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
        export_classifier(folder / "classifier", 90)
        for name in ("sequence-symbol.json", "weights-0000.params"):
            shutil.copy(SYMBOLS / "gluonnlp-0.6.0" / name, folder / "old" / name.replace("weights", "sequence"))
        cases = {
            "GluonNLP 0.10 BERTClassifier": (folder / "classifier", 90, 24, LABELS),
            "GluonNLP 0.6 encoder": (folder / "old" / "sequence", 50, 8, None),
        }
        for name, (prefix, words, length, labels) in cases.items():
            vocab, target = folder / f"vocab{words}.txt", folder / f"{prefix.name}-hf"
            write_vocabulary(vocab, words)
            export_hugging_face(prefix, target, options=BundleOptions(vocab=vocab, labels=labels))
            inputs = make_inputs(words, length)
            np.savez(target / "outputs.npz", output=compute(prefix, inputs), **inputs)
            command = [os.environ["BENCH_TORCH_PYTHON"], __file__, str(target)]
            printed = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout.split()
            difference, model_class = printed[-2:]
            print(f"{name:<30} {model_class:<32} {difference} of the scale")
            worst = max(worst, float(difference))
    return 0 if worst <= TOLERANCE else 1


if __name__ == "__main__":
    if "--help" in sys.argv or len(sys.argv) > 2:
        sys.exit(__doc__)
    sys.exit(compare_in_transformers(Path(sys.argv[1])) if len(sys.argv) == 2 else main())
