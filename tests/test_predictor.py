"""Forwards for inference: what they compute, in which order, and with how many bound graphs."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import CONFIG, VOCABULARY, hugging_face_weights, write_hugging_face
from reference import bert_forward

from bertsym import Classifier, ExportOptions, FinetuneOptions, ModelError, export, finetune
from bertsym.acceleration.inference_symbols import FastInference, InferenceSymbols
from bertsym.array import Array
from bertsym.bundle import SYMBOL, Bundle
from bertsym.inference import executors
from bertsym.inference.mxnet_predictor import MXNetPredictor
from bertsym.inference.prefetch import gather, prefetch
from bertsym.mxnet_runtime import mx
from bertsym.text.batches import inference_length
from bertsym.text.features import Features
from bertsym.text.tokenizer import Encoded

OUTPUTS = ("cls", "pooled", "mean", "sequence")
MANY = [3, 17, 5, 24, 9, 9, 4, 24, 11, 3, 16, 8, 20, 12, 7, 5, 13]


def features(lengths: list[int], seed: int = 0) -> Features:
    rng = np.random.default_rng(seed)
    examples = []
    for length in lengths:
        ids = rng.integers(6, len(VOCABULARY), size=length - 2).tolist()
        second = length // 2
        examples.append(Encoded([3, *ids, 4], [0] * (length - second) + [1] * second, False, 0))
    return Features(examples)


def expected(rows: Features, output: str) -> Array:
    """By a BERT in numpy, each row alone and so without padding."""
    values = []
    for example in rows.examples:
        ids, types = np.array([example.token_ids]), np.array([example.token_types])
        values.append(bert_forward(hugging_face_weights(), CONFIG, ids, types, np.array([ids.shape[1]]))[output][0])
    return np.array(values) if output != "sequence" else np.concatenate(values)


def predictor(prefix: Path, **settings: Any) -> MXNetPredictor:
    return MXNetPredictor.from_bundle(Bundle.open(prefix), **settings)


# What is computed


@pytest.mark.parametrize("output", OUTPUTS)
@pytest.mark.parametrize("lengths", [[7], [4], [9, 9], [36, 36], [6, 11, 3], MANY, [36] * 20], ids=str)
def test_every_output_is_that_of_a_bert_in_numpy(bundles: dict[str, Path], output: str, lengths: list[int]) -> None:
    bundle = Bundle.open(bundles[output])
    fixed = max(lengths) if output == "sequence" else None
    symbol = mx.sym.load(str(bundle.path(SYMBOL)))
    mine = MXNetPredictor(symbol, bundle.config, 0, 40, fixed)
    mine.set_params(bundle.params())
    rows = features(lengths)
    values = mine(rows)
    if output == "sequence":
        values = np.concatenate([value[: len(row.token_ids)] for value, row in zip(values, rows.examples)])
    np.testing.assert_allclose(values, expected(rows, output), atol=1e-5)


def stock(bundle: Bundle, rows: Features) -> Array:
    """By the bundle's own symbol, each row alone."""
    symbol, arrays = mx.sym.load(str(bundle.path(SYMBOL))), bundle.params()
    values = []
    for row in rows.inputs():
        inputs = {name: mx.nd.array(np.atleast_1d(value)) for name, value in row.items()}
        inputs = {name: array.reshape((1, -1)) if name != "data2" else array for name, array in inputs.items()}
        known = {**{name: mx.nd.array(array) for name, array in arrays.items()}, **inputs}
        executor = symbol.bind(mx.cpu(), {name: known[name] for name in symbol.list_arguments()}, grad_req="null")
        values.append(executor.forward(is_train=False)[0].asnumpy()[0])
    return np.array(values)


@pytest.mark.parametrize("output", ["cls", "pooled", "mean"])
def test_a_classifier_gives_what_its_symbol_gives(bundles: dict[str, Path], tmp_path: Path, output: str) -> None:
    table = tmp_path / "t.tsv"
    table.write_text("text\tlabel\n" + "the happy cat\ta\nthe sad dog\tb\n" * 4)
    options = FinetuneOptions(epochs=1, max_length=24)
    bundle = finetune(bundles[output], table, table, tmp_path / "x", options=options).bundle
    rows = features(MANY)
    np.testing.assert_allclose(MXNetPredictor.from_bundle(bundle)(rows), stock(bundle, rows), atol=1e-5)


def test_a_classifier_of_the_whole_sequence_takes_its_one_length(bundles: dict[str, Path], tmp_path: Path) -> None:
    table = tmp_path / "t.tsv"
    table.write_text("text\tlabel\n" + "the happy cat\ta\nthe sad dog\tb\n" * 4)
    options = FinetuneOptions(epochs=1, max_length=12, whole_sequence=True)
    bundle = finetune(bundles["sequence"], table, table, tmp_path / "x", options=options).bundle
    classifier = Classifier(bundle.prefix)
    one = classifier.predict(["the happy cat"])[0].probabilities["a"]
    many = classifier.predict(["the happy cat", "the sad dog sat on the old mat"] * 6)
    assert [each.probabilities["a"] for each in many[::2]] == pytest.approx([one] * 6, abs=1e-6)


@pytest.mark.parametrize("form", ["gluonnlp", "fast"])
def test_other_forms_compute_equal_outputs(tiny_hf: Path, tmp_path: Path, form: str) -> None:
    bundle = export(f"hf:{tiny_hf}", tmp_path / "x", ExportOptions(form=form)).bundle
    rows = features(MANY)
    np.testing.assert_allclose(MXNetPredictor.from_bundle(bundle)(rows), expected(rows, "cls"), atol=1e-5)


def test_a_bert_of_one_layer_is_predicted(tmp_path: Path) -> None:
    weights = hugging_face_weights(num_hidden_layers=1)
    folder = write_hugging_face(tmp_path / "hf", weights, num_hidden_layers=1)
    bundle = export(f"hf:{folder}", tmp_path / "x").bundle
    rows = features(MANY)
    np.testing.assert_allclose(MXNetPredictor.from_bundle(bundle)(rows), stock(bundle, rows), atol=1e-5)


def test_nothing_is_masked_where_nothing_is_padded(classifier: Path) -> None:
    bundle = Bundle.open(classifier)
    symbols = FastInference(mx.sym.load(str(bundle.path(SYMBOL))), bundle.params().shapes).symbols
    masked = {name: "data2" in symbol.list_arguments() for name, symbol in vars(symbols).items()}
    assert masked == {"padded": True, "unpadded": False, "few": True}


# Rows and batches


def test_results_are_in_the_order_of_the_rows_however_many_there_are(classifier: Path) -> None:
    mine = predictor(classifier)
    rows = Features(features(MANY).examples * 5)
    alone = np.concatenate([mine(Features([example])) for example in rows.examples[: len(MANY)]])
    np.testing.assert_allclose(mine(rows)[-len(MANY) :], alone, atol=1e-6)
    np.testing.assert_allclose(mine(Features(rows.examples[:7])), alone[:7], atol=1e-6)


@pytest.mark.parametrize("batch_size", [1, 3, 32, 1000])
def test_the_batch_size_changes_nothing(classifier: Path, batch_size: int) -> None:
    rows = features(MANY)
    done: list[int] = []
    values = predictor(classifier, batch_size=batch_size)(rows, done.append)
    np.testing.assert_allclose(values, predictor(classifier)(rows), atol=1e-6)
    assert sum(done) == len(MANY)


@pytest.mark.parametrize(("longest", "length"), [(1, 4), (8, 8), (33, 36), (65, 72), (129, 144), (511, 512)])
def test_the_step_of_padded_lengths_grows_with_the_length(longest: int, length: int) -> None:
    assert inference_length(longest, 512) == length
    assert inference_length(longest, longest) == longest


def test_a_limited_number_of_graphs_is_bound_and_the_last_used_are_kept(
    classifier: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(executors, "_MAX_GRAPHS", 3)
    mine = predictor(classifier)
    rows = features(MANY)
    first = mine(rows)
    for length in range(3, 24):
        mine(features([length]))
    assert [len(each._bound) <= each.capacity == 3 for each in mine._executors] == [True] * len(mine._executors)
    np.testing.assert_array_equal(mine(rows), first)


@pytest.mark.parametrize("graphs", [2, 3])
def test_single_texts_of_any_length_bind_no_graph_again(
    classifier: Path, monkeypatch: pytest.MonkeyPatch, graphs: int
) -> None:
    monkeypatch.setattr(executors, "_MAX_GRAPHS", graphs)
    mine = predictor(classifier)
    bound = mine._executors[0]._bound
    for length in range(3, 25):
        mine(features([length]))
    kept = list(bound.values())
    assert len(kept) <= graphs
    for length in range(3, 25):
        mine(features([length]))
    assert set(bound.values()) == set(kept)


def test_large_models_keep_fewer_graphs(classifier: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert predictor(classifier)._executors[0].capacity == executors._MAX_GRAPHS
    monkeypatch.setattr(executors, "_MAX_WEIGHTS", 100_000)
    assert predictor(classifier)._executors[0].capacity < executors._MAX_GRAPHS


def test_embedding_tables_do_not_count_towards_the_limit_of_graphs(
    classifier: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    params = Bundle.open(classifier).params()
    tables = sum(params[name].nbytes for name in params if "embedding0_weight" in name)
    products = sum(params[name].nbytes for name in params) - tables
    assert tables > 0
    monkeypatch.setattr(executors, "_MAX_WEIGHTS", 9 * products)
    assert predictor(classifier)._executors[0].capacity == 9


def test_off_the_cpu_each_shape_is_bound_once(classifier: Path) -> None:
    """There is one symbol for batches with padding and without."""
    bundle = Bundle.open(classifier)
    symbol = mx.sym.load(str(bundle.path(SYMBOL)))
    weights = executors.Weights(bundle.params(), mx.cpu())
    mine = executors.Executors(mx.cpu(), InferenceSymbols(*[symbol] * 3), weights, 0)
    for lengths in ([8, 8], [8, 5], [8, 8]):
        mine.forward(features(lengths).batch(np.arange(2), 8, 0, bundle.config))
    assert len(mine._bound) == 1


class Picky(mx.operator.CustomOp):  # type: ignore[misc]
    def forward(self, is_train: bool, req: Any, in_data: Any, out_data: Any, aux: Any) -> None:
        if in_data[0].asnumpy()[0, 0] == 13:
            raise ValueError("thirteen")
        self.assign(out_data[0], req[0], in_data[0])


class PickyProp(mx.operator.CustomOpProp):  # type: ignore[misc]
    def create_operator(self, ctx: Any, shapes: Any, dtypes: Any) -> Picky:
        return Picky()


def test_an_unreported_error_of_a_forward_does_not_affect_the_next() -> None:
    mx.operator.register("picky")(PickyProp)
    symbol = mx.sym.Custom(mx.sym.var("data0"), op_type="picky")
    mine = executors.Executors(mx.cpu(), InferenceSymbols(*[symbol] * 3), executors.Weights({}, mx.cpu()), 0)

    def forward(value: float) -> Any:
        ids = np.full((1, 2), value, np.float32)
        return mine.forward({"data0": ids, "data2": np.array([2], np.float32)})

    assert forward(1).asnumpy().tolist() == [[1, 1]]
    forward(13)
    assert forward(2).asnumpy().tolist() == [[2, 2]]


def test_a_missing_parameter_is_named(classifier: Path) -> None:
    params = dict(Bundle.open(classifier).params())
    del params["fc-finetune_bias"]
    with pytest.raises(ModelError, match=r"^missing parameters: fc-finetune_bias$"):
        predictor(classifier).set_params(params)


# More than one


def test_two_classifiers_in_one_process_do_not_disturb_each_other(classifier: Path, bundles: dict[str, Path]) -> None:
    one, other, rows = predictor(classifier), predictor(bundles["cls"]), features(MANY)
    apart = predictor(classifier)(rows), predictor(bundles["cls"])(rows)
    for _ in range(2):
        np.testing.assert_array_equal(one(rows), apart[0])
        np.testing.assert_array_equal(other(rows), apart[1])


def test_threads_may_share_a_classifier(classifier: Path) -> None:
    mine = predictor(classifier)
    asked = [features(MANY, seed) for seed in range(4)]
    answers: dict[int, Array] = {}
    threads = [threading.Thread(target=lambda i=i: answers.update({i: mine(asked[i])})) for i in range(len(asked))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    for i, rows in enumerate(asked):
        np.testing.assert_allclose(answers[i], mine(rows), atol=1e-6)


def test_an_output_that_is_not_finite_is_refused_and_the_next_is_computed(classifier: Path) -> None:
    mine, params = predictor(classifier), dict(Bundle.open(classifier).params())
    good = mine(features(MANY))
    mine.set_params({**params, "fc-finetune_bias": np.full(2, np.nan, np.float32)})
    with pytest.raises(ModelError, match=r"softmax_output is not finite"):
        mine(features(MANY))
    mine.set_params(params)
    np.testing.assert_array_equal(mine(features(MANY)), good)


# Reading ahead


def test_rows_read_ahead_keep_their_order_and_errors_their_place() -> None:
    def values() -> Iterator[int]:
        yield from range(5)
        raise ModelError("at the end")

    seen: list[int] = []
    with pytest.raises(ModelError, match="at the end"):
        seen.extend(prefetch(values()))
    assert seen == list(range(5))
    assert list(prefetch([])) == []


def test_the_next_item_is_produced_while_one_is_used() -> None:
    made = [threading.Event() for _ in range(3)]

    def values() -> Iterator[int]:
        for i, event in enumerate(made):
            event.set()
            yield i

    reader = prefetch(values())
    assert next(reader) == 0
    assert made[1].wait(10)


def test_values_are_gathered_as_they_arrive_within_limits() -> None:
    more = [threading.Event() for _ in range(3)]

    def values() -> Iterator[int]:
        yield 0
        for i, event in enumerate(more):
            assert event.wait(10)
            yield from [i + 1] * (7 if i else 1)

    reader = gather(values(), lambda value: value, 5, 9)
    assert next(reader) == [0]
    more[0].set()
    assert next(reader) == [1]
    more[1].set()
    rest = [next(reader) for _ in range(2)]
    more[2].set()
    rest += reader
    assert [value for taken in rest for value in taken] == [2] * 7 + [3] * 7
    assert all(len(taken) <= 5 and sum(taken[:-1]) < 9 for taken in rest)


def test_reading_ahead_stops_with_its_reader() -> None:
    closed = threading.Event()

    def values() -> Iterator[int]:
        try:
            while True:
                yield 0
        finally:
            closed.set()

    source = values()
    reader = prefetch(source)
    next(reader)
    reader.close()  # type: ignore[attr-defined]
    del reader, source
    assert closed.wait(10)
