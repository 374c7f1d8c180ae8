"""A bundle that another process replaces while it is opened or used: everything that is read is of one bundle."""

from __future__ import annotations

import dataclasses
import shutil
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
from checkpoints import texts
from conftest import VOCABULARY, Tables

from bertsym import Bundle, BundleTokenizer, FinetuneOptions, finetune
from bertsym.bundle import BundleContent, open_any, stage_bundle
from bertsym.events import FileTokenised
from bertsym.execution import model_values
from bertsym.inference.mxnet_predictor import MXNetPredictor
from bertsym.model import Model, open_model
from bertsym.onnx_export.metadata import metadata
from bertsym.text.features import Features
from bertsym.text.vocabulary import Vocabulary
from bertsym.verifier import verify_bundle

HEAD = "fc-finetune_weight"
OTHER_VOCABULARY = (*VOCABULARY[:-1], "##other")


def put(source: Path, target: Path) -> None:
    """Replace the bundle `target` with a copy of `source`, as every command does."""
    with stage_bundle(target, force=True) as stage:
        for path in source.parent.glob(f"{source.name}-*"):
            shutil.copy(path, stage.prefix.with_name(path.name.replace(source.name, target.name, 1)))


def swapped(source: Path, out: Path) -> Path:
    """The bundle of another model in every file: other head or embedding, dropout, vocabulary and maximum length."""
    bundle = Bundle.open(source)
    texts = []
    for name in ("symbol.json", "train-symbol.json"):
        path = Path(f"{source}-{name}")
        texts.append(path.read_text().replace('"p": "0.1"', '"p": "0.3"') if path.exists() else None)
    changed = HEAD if bundle.has_head else "bertmodel0_word_embed_embedding0_weight"
    tokenizer = bundle.tokenizer_json()
    assert texts[0] is not None
    assert tokenizer is not None
    with stage_bundle(out) as stage:
        stage.write(
            BundleContent(
                bundle.config,
                dataclasses.replace(bundle.signature, max_length=20),
                texts[0],
                {name: array[::-1] if name == changed else array for name, array in bundle.params().items()},
                Vocabulary(OTHER_VOCABULARY),
                {"source": {"spec": "another"}, "command": None},
                texts[1],
                tokenizer.replace(f'"{VOCABULARY[-1]}"', f'"{OTHER_VOCABULARY[-1]}"'),
            )
        )
    return out


@pytest.fixture(scope="module")
def other(classifier: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A classifier that gives the first class where `classifier` gives the second."""
    return swapped(classifier, tmp_path_factory.mktemp("other") / "other")


def predicted(bundle: Bundle) -> object:
    """Probabilities of a text, tokenised and predicted with what was opened."""
    tokenizer = BundleTokenizer(bundle.signature, bundle)
    features = Features([each for some in tokenizer.encode(["the cat was happy"]) for each in some.examples])
    return MXNetPredictor.from_bundle(bundle)(features).round(5).tolist()


def verified(bundle: Bundle) -> object:
    """The comparison of MXNet's loaders with the parameters of the opened bundle."""
    checks = verify_bundle(bundle, bundle.params(), 1e-5, (7, 16), "the bundle")
    return [(check.loader, round(check.scale, 5)) for check in checks]


USES: dict[str, Callable[[Bundle], object]] = {
    "parameters": lambda bundle: bundle.params()[HEAD].tolist(),
    "vocabulary": lambda bundle: bundle.vocabulary(),
    "prediction": predicted,
    "verification": verified,
}
MODEL_USES: dict[str, Callable[[Model], object]] = {
    "graph": lambda model: model.graph.to_json(),
    "training graph": lambda model: [graph.to_json() for graph in [model.train_graph()] if graph is not None],
    "ONNX metadata": metadata,
    "sandbox": lambda model: [values.round(5).tolist() for values in model_values(model, texts(9))],
}


@pytest.mark.parametrize("use", USES)
def test_an_opened_bundle_does_not_change_when_its_files_do(
    use: str, classifier: Path, other: Path, tmp_path: Path
) -> None:
    target = tmp_path / "model"
    put(classifier, target)
    bundle = Bundle.open(target)
    expected = USES[use](bundle)
    bundle = Bundle.open(target)
    put(other, target)
    assert USES[use](bundle) == expected
    assert USES[use](Bundle.open(target)) != expected


@pytest.mark.parametrize("use", MODEL_USES)
def test_an_opened_model_does_not_change_when_its_files_do(
    use: str, classifier: Path, other: Path, tmp_path: Path
) -> None:
    """The digests of large files are not compared, and so the model is not trusted: its graph runs in the sandbox."""
    target = tmp_path / "model"
    put(classifier, target)
    expected = MODEL_USES[use](open_model(target, digests=False))
    model = open_model(target, digests=False)
    put(other, target)
    assert MODEL_USES[use](model) == expected
    assert MODEL_USES[use](open_model(target, digests=False)) != expected


def test_fine_tuning_writes_the_vocabulary_of_the_base_that_it_opened(
    bundles: dict[str, Path], tables: Tables, tmp_path: Path
) -> None:
    target, other = tmp_path / "base", swapped(bundles["cls"], tmp_path / "other")
    put(bundles["cls"], target)

    def replace(event: object) -> None:
        if isinstance(event, FileTokenised):
            put(other, target)

    options = FinetuneOptions(epochs=1)
    written = finetune(target, tables.train, tables.dev, tmp_path / "out", options=options, on_event=replace)
    assert Bundle.open(target).vocabulary() == Vocabulary(OTHER_VOCABULARY)
    assert written.bundle.vocabulary() == Vocabulary(tuple(VOCABULARY))


@pytest.mark.parametrize("digests", [True, False])
def test_a_bundle_that_is_being_replaced_is_opened_as_old_or_new(
    digests: bool, classifier: Path, other: Path, tmp_path: Path
) -> None:
    target = tmp_path / "model"

    def identity(bundle: object) -> tuple[object, ...]:
        assert isinstance(bundle, Bundle)
        head = bundle.params()[HEAD].tolist()
        return bundle.signature.max_length, head, bundle.vocabulary(), bundle.manifest["files"]

    known = [identity(open_any(prefix)) for prefix in (classifier, other)]
    put(classifier, target)
    ended = threading.Event()

    def replace() -> None:
        while not ended.is_set():
            for source in (other, classifier):
                put(source, target)

    writer = threading.Thread(target=replace)
    writer.start()
    try:
        for _ in range(30):
            assert identity(open_any(target, digests=digests)) in known
    finally:
        ended.set()
        writer.join()
