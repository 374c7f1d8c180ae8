"""Files that are well formed and contradict each other are refused in one line, or the answer is right.

Signed bundles, tokenizers, configs and tables are mutated with their structure in mind, and given to commands.
BERTSYM_FUZZ is the range of inputs, 0:16 by default; a number always stands for the same input. With -s, a table shows
how many inputs reached which layer.
"""

from __future__ import annotations

import json
import os
import queue
import random
import shutil
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import fuzz_oracles as oracles
import numpy as np
import pytest
from bundle_mutations import BUNDLE_MUTATIONS
from command_runner import Run, Runner
from config_mutations import CONFIG_MUTATIONS
from conftest import VOCABULARY, Tables
from family_folders import write_family
from family_models import encoder_weights
from fuzz_layers import counts_table, layer_of
from safetensors.numpy import save_file
from signed_bundle import TOKENIZER, SignedBundle
from table_mutations import POOL, TABLE_MUTATIONS, some_table
from tokenizer_documents import steps
from tokenizer_mutations import TEXTS, TOKENIZER_MUTATIONS, repeat_key
from tokenizer_training import SLOW, metaspace, trained
from trained_tokenizer_mutations import TEXTS as TRAINED_TEXTS
from trained_tokenizer_mutations import TRAINED_TOKENIZER_MUTATIONS

FIRST, LAST = map(int, os.environ.get("BERTSYM_FUZZ", "0:16").split(":"))
SEED, WORKERS, MAX_LENGTH = 13, 2, 24
FIRST_INT8 = 100  # input that may be of an int8 bundle, which takes seconds to make
ON_ANY_BUNDLE: tuple[tuple[str, ...], ...] = (
    *(("inspect", "mutated", "--json"), ("verify", "mutated"), ("extract", "mutated", "out/x", "--output", "cls")),
    *(("edit", "mutated", "out/x", "--rename", "fc=fd"), ("onnx", "mutated", "out/x.onnx")),
    ("lower", "mutated", "out/x"),
)
WORDPIECE = "WordPiece"
TRAINED = {"BPE": 38, "Unigram": 38}  #: models of the tokenizers of RoBERTas, and the lengths of these
#: The class that transformers loads without a rule of its own: tokenizer.json alone decides.
AS_IT_IS = {"tokenizer_class": "PreTrainedTokenizerFast"}
#: Errors by which a mutation says that it does not apply to this original.
NOT_APPLICABLE = (LookupError, TypeError, ValueError, StopIteration)


@dataclass
class Attempt:
    """One input, the commands that were run on it, and what was found wrong."""

    number: int
    folder: Path
    runner: Runner
    originals: Originals
    rng: random.Random
    what: str = ""
    runs: list[Run] = field(default_factory=list)
    compared: int = 0  #: answers that were compared with one from elsewhere
    fault: str | None = None

    def __str__(self) -> str:
        return f"{self.what}: {self.fault}: {self.runs[-1].error.strip()[-400:]}"

    def run(self, *arguments: str) -> Run | None:
        """Run a command in the folder; returns how it ended if it succeeded."""
        run = self.runner.run(self.folder, *arguments)
        self.runs.append(run)
        self.what += f"; bertsym {' '.join(arguments)}"
        self.fault = self.fault or run.fault or self._unnamed(run)
        return run if run.code == 0 and not self.fault else None

    def check(self, oracle: Callable[..., str | None], *arguments: Any) -> None:
        """Compare an answer by a function that returns what is wrong with it, or None."""
        self.compared += 1
        try:
            difference = oracle(*arguments)
        except BaseException as error:  # a panic of a Rust library is not an Exception
            if isinstance(error, KeyboardInterrupt):
                raise
            difference = f"{oracle.__name__} failed: {type(error).__name__}: {error}"
        if difference and not self.fault:
            self.fault = f"wrong answer: {difference}"

    def mutate(self, mutations: tuple[Callable[..., Any], ...], make: Callable[[], Any]) -> tuple[Any, Any]:
        """Make an original and mutate it; returns it, and what the mutation returned."""
        while True:
            mutation, original = self.rng.choice(mutations), make()
            try:
                result = mutation(original, self.rng)
            except NOT_APPLICABLE:
                continue
            self.what = f"{self.number}: {mutation.__name__}{self.what}"
            return original, result

    def _unnamed(self, run: Run) -> str | None:
        files = {path.name for path in self.folder.rglob("*") if path.is_file()}
        names = files | {"mutated", "out/x", "train.tsv", "dev.tsv"}
        return "the error names no file" if run.code == 1 and not any(name in run.error for name in names) else None


@dataclass(frozen=True)
class Originals:
    """What is mutated: bundles' prefixes, Hugging Face folders by the tokenizer's model, and answers that are known."""

    bundles: Mapping[str, Path]
    hugging_face: Mapping[str, Path]
    tables: Tables
    known: Mapping[str, list[float]]  #: probabilities of the texts of POOL


@pytest.fixture(scope="session")
def fuzz_originals(
    tiny_hf: Path, classifier: Path, bundles: dict[str, Path], tables: Tables, tmp_path_factory: pytest.TempPathFactory
) -> Originals:
    from bertsym import Classifier, QuantizeOptions, SourceOptions, export, lower, quantize

    folder = tmp_path_factory.mktemp("fuzz")
    lower(classifier, folder / "guarded", guard=True)
    lower(classifier, folder / "folded", fold=True)
    prefixes = {"classifier": classifier, "encoder": bundles["cls"], "pooled": bundles["pooled"]}
    prefixes.update({name: folder / name for name in ("guarded", "folded")})
    if LAST > FIRST_INT8:
        quantize(classifier, folder / "int8", tables.dev, QuantizeOptions(max_drop=1))
        prefixes["int8"] = folder / "int8"
    hugging_face = {WORDPIECE: folder / "hf", **{model: write_roberta(folder / model, model) for model in TRAINED}}
    shutil.copytree(tiny_hf, hugging_face[WORDPIECE])
    config = {"do_lower_case": True, "model_max_length": 40}
    (hugging_face[WORDPIECE] / "tokenizer_config.json").write_text(json.dumps(config))
    for model in TRAINED:
        source = SourceOptions(pad_vocab=True)
        prefixes[model] = folder / f"roberta-{model}"
        export(f"hf:{hugging_face[model]}", prefixes[model], source_options=source, verify=False)
    known = {text: [*row.probabilities.values()] for text, row in zip(POOL, Classifier(classifier).predict(POOL))}
    return Originals(prefixes, hugging_face, tables, known)


def write_roberta(folder: Path, model: str) -> Path:
    """A folder of a RoBERTa whose tokenizer has a trained `model`, with ten unused rows in the token embedding."""
    document = TOKENIZERS[model]()
    weights = encoder_weights("roberta")
    rows = len(document["model"]["vocab"]) + 10
    words = "embeddings.word_embeddings.weight"
    weights[words] = np.random.default_rng(0).normal(0, 0.4, (rows, weights[words].shape[1])).astype(np.float32)
    write_family(folder, "roberta", vocab_size=rows)
    save_file(weights, folder / "model.safetensors")
    (folder / "vocab.txt").unlink()
    (folder / "tokenizer.json").write_text(json.dumps(document))
    (folder / "tokenizer_config.json").write_text(json.dumps(AS_IT_IS))
    return folder


def copy_bundle(prefix: Path, target: Path) -> None:
    for path in prefix.parent.glob(f"{prefix.name}-*"):
        if path.is_file():
            shutil.copy(path, f"{target}-{path.name.removeprefix(f'{prefix.name}-')}")


# Kinds of inputs


def try_bundle(attempt: Attempt) -> None:
    """A bundle whose files were changed together, and signed."""
    rng, bundles = attempt.rng, attempt.originals.bundles
    names = ["classifier", "classifier", "classifier", "guarded", "folded", "encoder", "pooled", *TRAINED]
    names += ["int8"] * (attempt.number >= FIRST_INT8)
    name = rng.choice(names)
    others = {other: bundles[other] for other in names if other != name}
    bundle, _ = attempt.mutate(BUNDLE_MUTATIONS, lambda: SignedBundle(bundles[name], others))
    attempt.what += f" of {name}"
    prefix = attempt.folder / "mutated"
    bundle.write(prefix)
    use_bundle(attempt, prefix, with_head=name not in ("encoder", "pooled", *TRAINED))


def use_bundle(attempt: Attempt, prefix: Path, with_head: bool) -> None:
    """Run commands on a bundle, and compare what they answer."""
    texts = attempt.folder / "texts.jsonl"
    texts.write_text("".join(json.dumps({"text": text}) + "\n" for text in POOL[:4]))
    table = ("texts.jsonl", "--text-column", "text")
    dev = str(attempt.originals.tables.dev)
    on_head = (("evaluate", "mutated", dev), ("quantize", "mutated", "out/x", "--calibrate", dev))
    on_encoder = (
        ("finetune", "mutated", "--train", dev, "--dev", dev, "--epochs", "1", "--max-length", "16", "out/x"),
        ("graft", "mutated", "out/x", "--num-classes", "2"),
    )
    commands = (*ON_ANY_BUNDLE, *(on_head if with_head else on_encoder))
    command = attempt.rng.choice(commands)
    if attempt.rng.random() < 0.65:
        tokenized = attempt.run("tokenize", "mutated", *table)
        predicted = attempt.run("predict", "mutated", *table) if tokenized and with_head else None
        if tokenized and predicted:
            attempt.check(oracles.differing_probabilities, prefix, predicted, tokenized)
        if not tokenized or (with_head and not predicted):
            return
    if attempt.run(*command) and command[0] == "lower":
        attempt.check(oracles.differing_outputs, prefix, attempt.folder / "out" / "x")


def tokenizer_document() -> dict[str, Any]:
    """The tokenizer.json of the tiny model, as the tokenizers library writes it."""
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors

    vocabulary = {token: index for index, token in enumerate(VOCABULARY)}
    pipeline = Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]"))
    pipeline.normalizer = normalizers.BertNormalizer(lowercase=True)
    pipeline.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    pipeline.add_special_tokens(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"])
    special = [(token, vocabulary[token]) for token in ("[CLS]", "[SEP]")]
    pipeline.post_processor = processors.TemplateProcessing("[CLS] $A [SEP]", "[CLS] $A [SEP] $B:1 [SEP]:1", special)
    document: dict[str, Any] = json.loads(pipeline.to_str())
    return document


#: model of a tokenizer -> an original document
TOKENIZERS: dict[str, Callable[[], dict[str, Any]]] = {
    WORDPIECE: tokenizer_document,
    "BPE": lambda: trained("BPE"),
    "Unigram": lambda: trained("Unigram", normalizer=steps(*SLOW), pre_tokenizer=metaspace()),
}


def mutate_tokenizer(attempt: Attempt, model: str, make: Callable[[], Any]) -> tuple[Any, Any]:
    """As `Attempt.mutate`, by the mutations for the tokenizer's model."""
    own = TRAINED_TOKENIZER_MUTATIONS if model in TRAINED else TOKENIZER_MUTATIONS
    result = attempt.mutate((*own, repeat_key), make)
    attempt.what += f" of {model}"
    return result


def try_tokenizer(attempt: Attempt) -> None:
    """A Hugging Face folder with a changed tokenizer.json, exported and asked for ids."""
    model = attempt.rng.choice((*TOKENIZERS,))
    document, change = mutate_tokenizer(attempt, model, TOKENIZERS[model])
    text = json.dumps(document, ensure_ascii=attempt.rng.random() < 0.5)
    text = change(text) if change else text
    shutil.copytree(attempt.originals.hugging_face[model], attempt.folder, dirs_exist_ok=True)
    (attempt.folder / "tokenizer_config.json").write_text(json.dumps(AS_IT_IS))
    if attempt.rng.random() < 0.5:
        (attempt.folder / "vocab.txt").unlink(missing_ok=True)
    path = attempt.folder / "tokenizer.json"
    path.write_bytes(text.encode("utf-8", "surrogatepass"))
    # The tokens of a RoBERTa may become fewer or, up to its rows, more.
    padding = ("--pad-vocab",) if model in TRAINED else ()
    if attempt.run("export", "hf:.", "mutated", "--no-verify", *padding):
        ask_for_ids(attempt, path, TRAINED.get(model, 40), has_segments=model not in TRAINED)


def ask_for_ids(attempt: Attempt, tokenizer: Path, limit: int, has_segments: bool) -> None:
    """Tokenize texts, and compare with the library."""
    texts = (*TEXTS, *TRAINED_TEXTS)
    file = attempt.folder / "texts.jsonl"
    file.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    tokenized = attempt.run("tokenize", "mutated", file.name, "--text-column", "text")
    if tokenized:
        attempt.check(oracles.differing_ids, tokenizer, texts, tokenized, limit, has_segments)


def try_bundle_tokenizer(attempt: Attempt) -> None:
    """A signed bundle with a changed tokenizer.json."""
    name = attempt.rng.choice(("classifier", *TRAINED))
    bundle = SignedBundle(attempt.originals.bundles[name])
    original = json.dumps(bundle.documents[TOKENIZER])
    document, change = mutate_tokenizer(attempt, name, lambda: json.loads(original))
    bundle.documents[TOKENIZER] = document
    if change:
        bundle.texts[TOKENIZER] = change
    bundle.write(attempt.folder / "mutated")
    limit = TRAINED.get(name, MAX_LENGTH)
    ask_for_ids(attempt, attempt.folder / f"mutated-{TOKENIZER}", limit, has_segments=name not in TRAINED)


def try_config(attempt: Attempt) -> None:
    """A Hugging Face folder with changed small files, exported and compared with the reference."""
    shutil.copytree(attempt.originals.hugging_face[WORDPIECE], attempt.folder, dirs_exist_ok=True)
    attempt.mutate(CONFIG_MUTATIONS, lambda: attempt.folder)
    if attempt.run("export", "hf:.", "mutated", "--no-verify"):
        attempt.check(oracles.differing_export, attempt.folder / "mutated", attempt.folder / "config.json")
        attempt.run("tokenize", "mutated", "--text", "the happy cat")


def try_table(attempt: Attempt) -> None:
    """A changed table, through every command that reads one."""
    rng, tables = attempt.rng, attempt.originals.tables
    kind = rng.choice(("tsv", "tsv", "csv", "jsonl"))
    table, _ = attempt.mutate(TABLE_MUTATIONS, lambda: some_table(kind, rng))
    content, name = table.content(), f"table.{kind}"
    (attempt.folder / name).write_bytes(content)
    command = rng.choice(("predict", "predict", "evaluate", "evaluate", "tokenize", "finetune", "quantize"))
    copy_bundle(
        attempt.originals.bundles["encoder" if command == "finetune" else "classifier"], attempt.folder / "mutated"
    )
    options: tuple[str, ...] = ()
    if rng.random() < 0.15:
        choices = (
            ("--no-header",),
            ("--header",),
            ("--format", "csv"),
            ("--text-column", "2"),
            ("--label-column", "1"),
        )
        options = rng.choice(choices)
    if command == "predict":
        on_error = rng.choice(("fail", "skip", "blank"))
        run = attempt.run("predict", "mutated", name, "--on-error", on_error, *options)
        if run and not options:
            known = attempt.originals.known
            attempt.check(oracles.differing_rows, name, content, kind, run, known, on_error == "blank")
    elif command == "evaluate":
        run = attempt.run("evaluate", "mutated", name, "--on-error", "skip", "--json", *options)
        if run and not options:
            counts = json.loads(run.out)
            attempt.check(oracles.differing_count, content, kind, counts["rows"] + counts["left_out"])
    elif command == "tokenize":
        run = attempt.run("tokenize", "mutated", name, *options)
        if run and not options:
            attempt.check(oracles.differing_count, content, kind, len(oracles.printed_inputs(run)))
    elif command == "quantize":
        attempt.run("quantize", "mutated", "out/int8", "--calibrate", name, "--dev", str(tables.dev), *options)
    else:
        finetune(attempt, name, content, kind, options)


def finetune(attempt: Attempt, name: str, content: bytes, kind: str, options: tuple[str, ...]) -> None:
    """Train on the table; the classes must be its labels, and no row must be lost."""
    settings = ("--epochs", "1", "--max-length", "16", "--batch-size", "8", *options)
    run = attempt.run("finetune", "mutated", "--train", name, "--dev", name, "out/tuned", *settings)
    if run and not options:
        attempt.check(oracles.differing_training, attempt.folder / "out" / "tuned", content, kind)


KINDS: dict[str, tuple[Callable[[Attempt], None], int]] = {
    "bundle": (try_bundle, 9),
    "tokenizer": (try_tokenizer, 3),
    "bundle's tokenizer": (try_bundle_tokenizer, 2),
    "config": (try_config, 3),
    "table": (try_table, 5),
}


@pytest.mark.timeout(900 if LAST - FIRST <= 100 else 0)
def test_a_contradictory_input_is_refused_or_computed_correctly(fuzz_originals: Originals, tmp_path: Path) -> None:
    runners: queue.Queue[Runner] = queue.Queue()
    for _ in range(WORKERS):
        runners.put(Runner())

    def one(number: int) -> tuple[str, Attempt]:
        rng = random.Random(f"{SEED} {number}")
        (kind,) = rng.choices(list(KINDS), [weight for _, weight in KINDS.values()])
        folder = tmp_path / str(number)
        (folder / "out").mkdir(parents=True)
        attempt = Attempt(number, folder, runners.get(), fuzz_originals, rng)
        try:
            KINDS[kind][0](attempt)
        finally:
            runners.put(attempt.runner)
        shutil.rmtree(folder)
        if attempt.fault:
            print(attempt, flush=True)
        return kind, attempt

    with ThreadPoolExecutor(WORKERS) as pool:
        attempts = list(pool.map(one, range(FIRST, LAST)))
    while not runners.empty():
        runners.get().stop()
    print("\n" + counts_table((kind, layer_of(attempt.runs[-1])) for kind, attempt in attempts))
    runs = [(run, attempt.what) for _, attempt in attempts for run in attempt.runs]
    memory, largest = max((run.memory, what) for run, what in runs)
    seconds, slowest = max((run.worked, what) for run, what in runs)
    compared = sum(attempt.compared for _, attempt in attempts)
    print(f"{len(runs)} commands, {sum(run.worked for run, _ in runs):.0f} s, {compared} answers compared")
    print(f"at most {memory >> 20} MiB ({largest}), {seconds:.1f} s ({slowest})")
    faults = [str(attempt) for _, attempt in attempts if attempt.fault]
    assert not faults, "\n" + "\n".join(faults)
