"""Fixtures: a tiny BERT as Hugging Face ships it, the bundles made of it, tables, and the command line."""

from __future__ import annotations

import dataclasses
import fcntl
import gc
import itertools
import json
import os
import shutil
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from command_runner import Run, Runner
from launching import Launch, launching
from safetensors.numpy import save_file

from bertsym.array import Array
from bertsym.cli.group import run
from bertsym.execution.engines import ENGINES
from bertsym.text.tokenizer import Tokenizer, TokenizerOptions
from bertsym.text.vocabulary import Vocabulary
from bertsym.text.wordpiece import bert_document

# Otherwise each of some hundred processes compiles bertsym again, which is a fifth of the work of a command.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
sys.dont_write_bytecode = False  # which the sandbox's process inherits
# No test cuts the power. Otherwise the processes wait for the disk for a tenth of their time.
os.fsync = lambda fd: None

WORDS = [
    "the",
    "a",
    "cat",
    "dog",
    "bird",
    "sat",
    "ran",
    "flew",
    "slept",
    "on",
    "in",
    "under",
    "mat",
    "park",
    "tree",
    "house",
    "red",
    "blue",
    "old",
    "young",
    "small",
    "large",
    "good",
    "bad",
    "happy",
    "sad",
    "quickly",
    "slowly",
    "film",
    "story",
    "was",
    "is",
    "very",
    "not",
    "and",
    "but",
    "never",
    "always",
    ".",
    ",",
    "!",
    "?",
]
PIECES = [f"##{piece}" for piece in ("s", "ed", "ing", "ly", "er")]
VOCABULARY = ["[PAD]", "[unused0]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *WORDS, *PIECES]

CONFIG: dict[str, Any] = {
    "model_type": "bert",
    "hidden_act": "gelu",
    "num_hidden_layers": 2,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_attention_heads": 4,
    "vocab_size": len(VOCABULARY),
    "max_position_embeddings": 40,
    "type_vocab_size": 2,
    "layer_norm_eps": 1e-12,
    "hidden_dropout_prob": 0.1,
    "attention_probs_dropout_prob": 0.1,
}


def hugging_face_weights(seed: int = 0, **changes: Any) -> dict[str, Array]:
    """Weights of CONFIG, with `changes`, under Hugging Face's names, large enough that every one of them matters."""
    rng = np.random.default_rng(seed)
    config = {**CONFIG, **changes}
    units, hidden = config["hidden_size"], config["intermediate_size"]
    shapes: dict[str, tuple[int, ...]] = {
        "embeddings.word_embeddings.weight": (config["vocab_size"], units),
        "embeddings.position_embeddings.weight": (config["max_position_embeddings"], units),
        "embeddings.token_type_embeddings.weight": (config["type_vocab_size"], units),
        "embeddings.LayerNorm.weight": (units,),
        "embeddings.LayerNorm.bias": (units,),
        "pooler.dense.weight": (units, units),
        "pooler.dense.bias": (units,),
    }
    for i in range(config["num_hidden_layers"]):
        for name, shape in {
            "attention.self.query": (units, units),
            "attention.self.key": (units, units),
            "attention.self.value": (units, units),
            "attention.output.dense": (units, units),
            "intermediate.dense": (hidden, units),
            "output.dense": (units, hidden),
        }.items():
            shapes[f"encoder.layer.{i}.{name}.weight"] = shape
            shapes[f"encoder.layer.{i}.{name}.bias"] = shape[:1]
        for name in ("attention.output", "output"):
            shapes[f"encoder.layer.{i}.{name}.LayerNorm.weight"] = (units,)
            shapes[f"encoder.layer.{i}.{name}.LayerNorm.bias"] = (units,)
    return {
        name: (rng.normal(0, 0.3, shape) + (1 if name.endswith("LayerNorm.weight") else 0)).astype(np.float32)
        for name, shape in shapes.items()
    }


def write_hugging_face(folder: Path, weights: dict[str, Array] | None = None, **config: object) -> Path:
    """A Hugging Face folder of the tiny BERT; keywords change config.json."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps({**CONFIG, **config}))
    (folder / "vocab.txt").write_text("\n".join(VOCABULARY) + "\n")
    (folder / "tokenizer_config.json").write_text(json.dumps({"do_lower_case": True}))
    save_file(weights if weights is not None else hugging_face_weights(), folder / "model.safetensors")
    return folder


#: the files that take longest, which come first: with one of them last, one process of xdist would wait for the other
SLOWEST = (
    *("test_clients.py", "test_distributed.py", "test_client_tasks.py", "test_version_grid.py", "test_resume.py"),
    *("test_jvm_clients.py", "test_trained_heads.py", "test_reports.py", "test_forms.py", "test_symbol_round_trip.py"),
    *("test_tasks_everywhere.py", "test_families.py", "test_docs.py", "test_training_signals.py", "test_lower.py"),
    *("test_lower_third_party.py", "test_quantize.py", "test_onnx.py", "test_finetune.py", "test_compat.py"),
    *("test_bad_rows.py", "test_kill_runs.py", "test_data_parallel.py", "test_task_kinds.py", "test_sandbox.py"),
    *("test_large_graphs.py", "test_two_inputs.py", "test_guard.py", "test_completion.py", "test_graft_head.py"),
    *("test_mutations.py", "test_onnx_int8.py", "test_events.py", "test_platforms.py", "test_atomic.py"),
    *("test_bundle_files.py", "test_fuzzing.py", "test_every_model.py", "test_encoder_numbers.py", "test_predict.py"),
    *("test_tagging.py", "test_address_space.py", "test_export_memory.py", "test_classifier_report.py", "test_diff.py"),
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put the slowest files first."""
    places = {name: place for place, name in enumerate(SLOWEST)}
    items.sort(key=lambda item: places.get(item.path.name, len(places)))


def pytest_collection_finish() -> None:
    """Keep the collected tests out of garbage collections, of which each verification makes several."""
    gc.collect()
    gc.freeze()


def pytest_unconfigure(config: pytest.Config) -> None:
    """Print, as the last line, how many tests were skipped and why."""
    reporter: Any = config.pluginmanager.get_plugin("terminalreporter")
    if reporter is None or hasattr(config, "workerinput"):
        return
    skipped = reporter.stats.get("skipped", [])
    reasons = Counter(report.longrepr[2].removeprefix("Skipped: ") for report in skipped)
    counted = "; ".join(f"{count}: {reason}" for reason, count in reasons.most_common())
    print(f"skipped: {len(skipped)}" + (f" ({counted})" if counted else ""))


def in_turn(cases: Iterable[Any], others: Iterable[Any]) -> list[tuple[Any, ...]]:
    """Pair each case with one of the others in turn, for cases whose product would prove nothing more."""
    pairs = zip(cases, itertools.cycle(others))
    return [(case, *(other if isinstance(other, tuple) else (other,))) for case, other in pairs]


def tiny_tokenizer(max_length: int = 24) -> Tokenizer:
    """The tokenizer of the tiny BERT."""
    options = TokenizerOptions(lower_case=True)
    document = bert_document(Vocabulary(tuple(VOCABULARY)), options)
    return Tokenizer(json.dumps(document), "tokenizer.json", options, max_length)


@dataclass(frozen=True)
class Result:
    code: int
    out: str
    err: str

    @property
    def error_line(self) -> str:
        """The one line of an error; fails when there is more to read."""
        lines = self.err.strip().splitlines()
        assert len(lines) == 1, self.err
        assert "Traceback" not in self.err
        return lines[0]


@pytest.fixture
def cli(capfd: pytest.CaptureFixture[str]) -> Callable[..., Result]:
    """Run a command line in this process: cli("export", "hf:...", prefix)."""

    def call(*arguments: object) -> Result:
        capfd.readouterr()
        code = run([str(argument) for argument in arguments])
        out, err = capfd.readouterr()
        return Result(code, out, err)

    return call


@pytest.fixture(scope="session")
def runner() -> Iterator[Runner]:
    """A process that has imported mxnet, and forks for each command."""
    process = Runner()
    yield process
    process.stop()


@pytest.fixture
def forked(runner: Runner, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Run]:
    """Run a command line in a process of its own, without its imports: forked("predict", prefix, stdin=b"text")."""
    folder = tmp_path_factory.mktemp("forked")

    def call(*arguments: object, stdin: bytes = b"") -> Run:
        return runner.run(folder, *map(str, arguments), stdin=stdin)

    return call


@pytest.fixture(scope="module", autouse=True)
def frozen() -> None:
    """Keep what has been imported, or made for several files, out of garbage collections too."""
    gc.collect()
    gc.freeze()


@pytest.fixture(autouse=True)
def every_loader(monkeypatch: pytest.MonkeyPatch) -> None:
    """Load all that surgery writes through the C predict API too, otherwise only done for auxiliary states."""
    loaders = ("Module", "SymbolBlock", "C predict API")
    monkeypatch.setitem(ENGINES, "mxnet", dataclasses.replace(ENGINES["mxnet"], loaders=loaders))


Once = Callable[[str, Callable[[Path], object]], Path]


@pytest.fixture(scope="session")
def once(tmp_path_factory: pytest.TempPathFactory) -> Once:
    """Make a folder of files once for all processes of xdist: once(name, make), where make(folder) fills it."""
    base = tmp_path_factory.getbasetemp()
    shared = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "shared"
    shared.mkdir(exist_ok=True)

    def made(name: str, make: Callable[[Path], object]) -> Path:
        folder = shared / name
        with open(shared / f"{name}.lock", "w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not (shared / f"{name}.done").exists():
                folder.mkdir(exist_ok=True)
                make(folder)
                (shared / f"{name}.done").touch()
        return folder

    return made


@pytest.fixture(scope="session")
def tiny_hf(once: Once) -> Path:
    """A folder with the tiny BERT as Hugging Face ships it."""
    return once("tiny", write_hugging_face)


_DEFAULTS = [("form", "portable"), ("target", None)]  # of `export`


@pytest.fixture(scope="session")
def exported(tiny_hf: Path, once: Once) -> Callable[..., Path]:
    """Prefix of a bundle of the tiny BERT, by options of `export`; no test may change its files.

    Forms other than the default, of which there are many, are not verified when they are exported: the tests that ask
    for them compare what they compute.
    """
    from bertsym import ExportOptions, export

    def prefix(**options: Any) -> Path:
        chosen = {key: value for key, value in sorted(options.items()) if (key, value) not in _DEFAULTS}
        folder = "-".join(["exported", *(f"{key}={value}" for key, value in chosen.items())])
        name = options.get("output") or options.get("task") or "cls"
        verify = not {"form", "target"} & chosen.keys()

        def make(made: Path) -> None:
            export(f"hf:{tiny_hf}", made / name, ExportOptions(**options), verify=verify)

        return once(folder, make) / name

    return prefix


@pytest.fixture(scope="session")
def bundles(exported: Callable[..., Path]) -> dict[str, Path]:
    """Prefixes of the tiny BERT's bundles, by output."""
    return {output: exported(output=output) for output in ("cls", "pooled", "mean", "sequence")}


@pytest.fixture(scope="session")
def without_dropout(once: Once) -> Path:
    """Prefix of the tiny BERT without dropout: its steps do not depend on which pass or worker computes which row."""
    from bertsym import ExportOptions, export

    def make(folder: Path) -> None:
        write_hugging_face(folder / "hf", hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0)
        export(f"hf:{folder / 'hf'}", folder / "base", ExportOptions(output="cls"))

    return once("without-dropout", make) / "base"


@dataclass(frozen=True)
class Tables:
    """A learnable toy task: does the text hold a happy word; and the same for pairs."""

    train: Path
    dev: Path


@pytest.fixture(scope="session")
def tables(tmp_path_factory: pytest.TempPathFactory) -> Tables:
    """Single texts, ``label<TAB>text``, the label ``yes`` when the text says happy, else ``no``."""
    folder = tmp_path_factory.mktemp("tables")
    rng = np.random.default_rng(0)
    others = [word for word in WORDS if word not in ("happy", "sad")]
    for name, count in (("train", 90), ("dev", 21)):
        lines = ["label\ttext"]
        for i in range(count):
            words = list(rng.choice(others, rng.integers(3, 14)))
            words.insert(int(rng.integers(len(words) + 1)), "happy" if i % 2 else "sad")
            lines.append(f"{'yes' if i % 2 else 'no'}\t{' '.join(words)}")
        (folder / f"{name}.tsv").write_text("\n".join(lines) + "\n")
    return Tables(folder / "train.tsv", folder / "dev.tsv")


@pytest.fixture(scope="session")
def classifier(bundles: dict[str, Path], tables: Tables, once: Once) -> Path:
    """Prefix of a classifier that was fine-tuned on `tables` and has learned it; no test may change its files."""
    from bertsym import FinetuneOptions, finetune

    options = FinetuneOptions(epochs=16, batch_size=16, learning_rate=1e-2, max_length=24)

    def make(folder: Path) -> None:
        finetune(bundles["cls"], tables.train, tables.dev, folder / "happy", options=options)

    return once("classifier", make) / "happy"


@pytest.fixture(scope="session")
def int8_classifier(classifier: Path, tables: Tables, once: Once) -> Callable[..., Path]:
    """Prefix of the classifier in int8, calibrated on the training table; no test may change its files."""
    from bertsym import QuantizeOptions, quantize

    def prefix(granularity: str = "channel-wise", processors: str = "avx2") -> Path:
        def make(folder: Path) -> None:
            options = QuantizeOptions(granularity=granularity, processors=processors)
            quantize(classifier, folder / "int8", tables.train, options, dev=tables.dev)

        return once(f"int8-{granularity}-{processors}", make) / "int8"

    return prefix


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """Chromium, without what it does in the background."""
    from playwright.sync_api import sync_playwright

    arguments = [
        *("--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update"),
        *("--disable-sync", "--no-first-run"),
    ]
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=arguments)
        yield browser
        browser.close()


@pytest.fixture
def launch() -> Iterator[Launch]:
    """Start launch_local: launch(workers, *command, grace=...). All its processes are killed after the test."""
    with launching() as start:
        yield start
