"""Use a bundle while another process replaces it; count results per model, results that mix two models, and errors.

Two classifiers have different class names. The other process writes them in turn to one prefix; meanwhile this process
predicts with, verifies and opens the bundle. The exit code is 1 if a result mixes both models, or for an error.

Linux x86-64 only, since it runs MXNet.
"""

from __future__ import annotations

import argparse
import collections
import contextlib
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from bertsym import Bundle, Classifier, FinetuneOptions, export, finetune, verify
from bertsym.bundle import SYMBOL, TRAIN_SYMBOL, BundleContent, stage_bundle

TEXT = "a happy dog"
#: labels of sad and happy texts; after sorting, happy has index 1 and 0
LABELS = {"first": ("no", "yes"), "second": ("1", "0")}
WORDS = ("cat", "dog", "bird", "film", "story", "house", "tree", "park")


def train(folder: Path) -> dict[str, Path]:
    """Fine-tune both classifiers; returns their prefixes by name."""
    base = export("random:bert_1_32_2", folder / "base", verify=False).bundle.prefix
    options = FinetuneOptions(epochs=40, learning_rate=1e-2, batch_size=16)
    prefixes = {}
    for name, (sad, happy) in LABELS.items():
        table = folder / f"{name}.tsv"
        rows = [f"{label}\ta {mood} {word}\n" for word in WORDS for label, mood in ((sad, "sad"), (happy, "happy"))]
        table.write_text("label\ttext\n" + "".join(rows), encoding="utf-8")
        prefixes[name] = finetune(base, table, table, folder / name, options=options).bundle.prefix
    return prefixes


def replace(target: Path, sources: list[Path], count: int) -> None:
    """Write the source bundles in turn to the target."""
    bundles = [Bundle.open(source) for source in sources]
    for i in range(count):
        bundle = bundles[i % len(bundles)]
        symbol, facts = bundle.text(SYMBOL), {"source": bundle.manifest["source"], "command": None}
        content = BundleContent(
            bundle.config,
            bundle.signature,
            symbol,
            bundle.params(),
            bundle.vocabulary(),
            facts,
            bundle.text(TRAIN_SYMBOL),
            tokenizer_json=bundle.tokenizer_json(),
        )
        with stage_bundle(target, force=True) as stage:
            stage.write(content)


def classifier_of(labels: tuple[str, ...]) -> str:
    """Return the name of the classifier with these labels."""
    return next(name for name, known in LABELS.items() if {*known} == {*labels})


def predict(target: Path) -> str:
    """Predict; returns the name of the classifier with the predicted label."""
    label = Classifier(target).predict([TEXT])[0].label
    return next((name for name, (_, happy) in LABELS.items() if label == happy), "MIXED")


def open_bundle(target: Path) -> str:
    """Open the bundle; returns the name of the classifier that signature and parameters belong to."""
    bundle = Bundle.open(target)
    name = classifier_of(bundle.signature.class_names)
    expected = Bundle.open(target.with_name(name)).params()["fc-finetune_weight"]
    return name if (bundle.params()["fc-finetune_weight"] == expected).all() else "MIXED"


def verify_bundle(target: Path) -> str:
    """Verify the bundle: digests, and outputs against the reference."""
    verify(target)
    return "passed"


@contextlib.contextmanager
def replaced(target: Path, sources: list[Path], count: int) -> Iterator[subprocess.Popen[bytes]]:
    """Start another process that replaces the bundle `count` times."""
    command = [sys.executable, "-W", "ignore", __file__, "--replace", str(count), str(target), *map(str, sources)]
    with subprocess.Popen(command) as process:
        try:
            yield process
        finally:
            process.kill()


def main() -> None:
    """Replace the bundle, or use it and count the results."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--replacements", type=int, default=50, metavar="N", help="number of replacements")
    parser.add_argument("--replace", nargs="+", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.replace:
        count, target, *sources = arguments.replace
        replace(Path(target), [Path(source) for source in sources], int(count))
        return
    counts: collections.Counter[str] = collections.Counter()
    with tempfile.TemporaryDirectory(prefix="soak-") as folder:
        prefixes, target = list(train(Path(folder)).values()), Path(folder, "model")
        replace(target, prefixes, 1)
        with replaced(target, prefixes, arguments.replacements) as process:
            while process.poll() is None:
                for use in (predict, open_bundle, verify_bundle):
                    try:
                        outcome = use(target)
                    except Exception as error:
                        outcome = f"ERROR: {type(error).__name__}: {error}".replace(f"{folder}{os.sep}", "")
                    counts[f"{use.__name__}: {outcome}"] += 1
        if process.returncode:
            sys.exit(f"the process that replaces the bundle exited with code {process.returncode}")
    print(f"{arguments.replacements} replacements")
    for name, count in sorted(counts.items()):
        print(f"{count:6} {name}")
    if any("MIXED" in name or "ERROR" in name for name in counts):
        sys.exit(1)


if __name__ == "__main__":
    main()
