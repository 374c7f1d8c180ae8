"""A BERT that GluonNLP wrote, or anybody, in another form: the same numbers, parameters, outputs and names."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from checkpoints import computed, gluonnlp_checkpoint
from conftest import Result, in_turn
from symbol_values import BERTS, expected, label, values_for
from third_party import CONFIG, checkpoint, random_weight, save, some_graph

from bertsym import BertConfig, ModelSource, SymbolGraph, extract, lower
from bertsym.analysis.encoder_detection import require_encoder
from bertsym.array import Array
from bertsym.encoders.spec import EncoderSpec
from bertsym.mxnet_runtime import mx, nlp
from bertsym.symbol.operator_versions import oldest_mxnet
from bertsym.symbol.params import ParamsFile

Cli = Callable[..., Result]
FORMS = ("portable", "fast", "gluonnlp")
POSITIONS = {"data3": (2, 2)}
LAYER_1 = "bertencoder0_transformer1_positionwiseffn0_layernorm0_fwd"


def label_if_path(value: object) -> str | None:
    return label(value) if isinstance(value, Path) else None


def exactly(path: Path, folder: Path) -> Path:
    """PREFIX of a symbol in tests/symbols with a parameter file of just its arrays."""
    folder.mkdir(parents=True, exist_ok=True)
    graph = SymbolGraph.load(path)
    params = ParamsFile(path.parent / "weights-0000.params")
    return save(folder / "old", graph, {name: params[name] for name in graph.variables if name in params})


def inputs_of(path: Path) -> dict[str, Array]:
    return {name: np.asarray(rows, np.float32) for name, rows in expected(path)["inputs"].items()}


def shapes_of(path: Path) -> Mapping[str, tuple[int, ...]]:
    return POSITIONS if "data3" in inputs_of(path) else {}


def assert_close(outputs: list[Array], others: list[Array], atol: float = 1e-5) -> None:
    assert len(outputs) == len(others) > 0
    for output, other in zip(outputs, others):
        assert output.shape == other.shape
        assert np.abs(output - other).max() <= atol * np.abs(other).max()


def loads_in(prefix: Path, release: str) -> bool:
    found = oldest_mxnet(SymbolGraph.load(f"{prefix}-symbol.json").nodes)
    return not found.unknown and tuple(map(int, found.version.split("."))) <= tuple(map(int, release.split(".")))


def random_texts(length: int, config: BertConfig = CONFIG) -> dict[str, Array]:
    rng = np.random.default_rng(length)
    ids, types = rng.integers(config.vocab_size, size=(3, length)), rng.integers(2, size=(3, length))
    arrays = {"data0": ids, "data1": types, "data2": np.array([length, 1, length - 1])}
    return {name: array.astype(np.float32) for name, array in arrays.items()}


# Every symbol that GluonNLP 0.6 to 0.10 wrote


@pytest.mark.parametrize(
    ("path", "form", "target"),
    in_turn(BERTS, [("portable", "1.4"), ("fast", "1.7"), ("gluonnlp", None)]),
    ids=label_if_path,
)
def test_berts_of_gluonnlp_compute_the_recorded_outputs(
    path: Path, form: str, target: str | None, tmp_path: Path
) -> None:
    if (path.parent.name, path.name, target) in [
        (f"gluonnlp-{version}", "pretraining-symbol.json", "1.4") for version in ("0.9.2", "0.10.0")
    ]:
        target = "1.6"  # the decoder takes an operator of 1.6, see test_encoder_extraction
    old = exactly(path, tmp_path)
    written = lower(ModelSource(old, shapes=shapes_of(path)), tmp_path / "new", form=form, target=target)
    assert written.verified
    assert written.notes == []
    new = tmp_path / "new"
    outputs = computed(new, inputs_of(path))
    assert_close(outputs, computed(old, inputs_of(path)))
    wanted = [np.asarray(rows, np.float32) for rows in expected(path)["outputs"]]
    assert_close(outputs, wanted, atol=1.5e-5)  # they have six decimals
    assert Path(f"{new}-0000.params").read_bytes() == Path(f"{old}-0000.params").read_bytes()
    graphs = [SymbolGraph.load(f"{prefix}-symbol.json") for prefix in (old, new)]
    assert graphs[0].output_names == graphs[1].output_names
    assert sorted(graphs[0].variables) == sorted(graphs[1].variables)
    if target:
        release = {"1.4": "1.4.1", "1.6": "1.6.0", "1.7": "1.7.0"}[target]
        assert graphs[1].mxnet_version == release
        assert loads_in(new, release)
        if target in ("1.4", "1.7"):
            assert not any(node.attrs.get("act_type") == "gelu" for node in graphs[1].nodes)


def test_there_are_enough_symbols_of_gluonnlp() -> None:
    assert len(BERTS) > 35


@pytest.mark.parametrize(
    ("path", "form"),
    in_turn([path for path in BERTS if "-0.6" in str(path) or "static" in path.name], FORMS),
    ids=label_if_path,
)
def test_a_static_bert_takes_any_length_afterwards(path: Path, form: str, tmp_path: Path) -> None:
    old = exactly(path, tmp_path)
    lower(old, tmp_path / "new", form=form)
    inputs = inputs_of(path)
    longer = {name: np.pad(rows, ((0, 0), (0, 5)), constant_values=1) for name, rows in inputs.items() if rows.ndim > 1}
    if "data2" not in inputs:
        shorter = {name: rows[:, :5] for name, rows in inputs.items()}
        assert computed(tmp_path / "new", shorter)[0].shape[0] == 2
        return
    outputs = computed(tmp_path / "new", {**longer, "data2": inputs["data2"]})
    wanted = computed(old, inputs)
    if outputs[0].ndim == 3:
        # Scores of tokens: the scores at padding are not compared.
        outputs[0], wanted[0] = outputs[0][1:, :5], wanted[0][1:, :5]
    assert_close(outputs, wanted)


@pytest.mark.parametrize("form", FORMS)
def test_the_biases_of_gluonnlp_0_9_stay_where_they_are_added(form: str, tmp_path: Path) -> None:
    """It adds them in another order than its names say; 0.10 with the same weights has other numbers."""
    path = next(path for path in BERTS if label(path) == "gluonnlp-0.9.2/sequence-symbol")
    other = path.parent.parent / "gluonnlp-0.10.0" / path.name
    lower(exactly(path, tmp_path / "9"), tmp_path / "nine", form=form)
    lower(exactly(other, tmp_path / "10"), tmp_path / "ten", form=form)
    weights = [ParamsFile(tmp_path / folder / "old-0000.params") for folder in ("9", "10")]
    assert all(np.array_equal(weights[0][name], weights[1][name]) for name in weights[0])
    nine, ten = (computed(tmp_path / name, inputs_of(path))[0] for name in ("nine", "ten"))
    assert np.abs(nine - ten).max() > 0.01
    # And once more to another form.
    assert lower(tmp_path / "nine", tmp_path / "again", form=FORMS[FORMS.index(form) - 1]).verified


def test_weights_that_were_fine_tuned_are_kept(tmp_path: Path) -> None:
    path = next(path for path in BERTS if label(path) == "gluonnlp-0.10.0/classifier-symbol")
    old = exactly(path, tmp_path)
    tuned = {name: 0.9 * array + 0.01 for name, array in ParamsFile(f"{old}-0000.params").items()}
    save(old, SymbolGraph.load(f"{old}-symbol.json"), tuned)
    lower(old, tmp_path / "new", form="fast")
    assert_close(computed(tmp_path / "new", inputs_of(path)), computed(old, inputs_of(path)))


def test_a_file_of_an_epoch_is_lowered_without_its_unread_arrays(tmp_path: Path) -> None:
    old = gluonnlp_checkpoint(tmp_path / "old", "sequence")
    Path(f"{old}-0000.params").rename(f"{old}-0003.params")
    bundle = lower(ModelSource(old, epoch=3), tmp_path / "new").bundle
    read = {name for name in SymbolGraph.load(f"{old}-symbol.json").variables if not name.startswith("data")}
    assert set(bundle.params()) == read < set(ParamsFile(f"{old}-0003.params"))


# Names


@pytest.mark.parametrize(
    ("path", "form"),
    in_turn([path for path in BERTS if "classifier" in path.name or "pretraining" in path.name], FORMS),
    ids=label_if_path,
)
def test_an_encoder_is_found_without_its_names(path: Path, form: str, tmp_path: Path) -> None:
    graph = SymbolGraph.load(path)
    names = {node.name: f"n{i}" for i, node in enumerate(graph.nodes)}
    graph.rename(names)
    values = {names[name]: array for name, array in values_for(path).items() if name in names}
    inputs = {names[name]: rows for name, rows in inputs_of(path).items()}
    params = {name: array for name, array in values.items() if name not in inputs}
    old = save(tmp_path / "old", graph, params)
    shapes = {names[name]: shape for name, shape in shapes_of(path).items()}
    assert lower(ModelSource(old, shapes=shapes), tmp_path / "new", form=form).verified
    assert_close(computed(tmp_path / "new", inputs), computed(old, inputs))
    assert SymbolGraph.load(f"{tmp_path / 'new'}-symbol.json").output_names == graph.output_names


@pytest.mark.parametrize(("version", "form"), in_turn(["0.6.0", "0.8.3", "0.9.2", "0.10.0"], FORMS))
def test_layers_that_are_outputs_stay_outputs_under_their_names(form: str, version: str, tmp_path: Path) -> None:
    whole = gluonnlp_checkpoint(tmp_path / "whole", "sequence", version)
    words = SymbolGraph.load(f"{whole}-symbol.json").find("*word_embed_embedding0_fwd")[0].name
    extract(whole, tmp_path / "old", ["embeddings", "layer 0", "layer 1", words])
    path = next(path for path in BERTS if label(path) == f"gluonnlp-{version}/sequence-symbol")
    lower(tmp_path / "old", tmp_path / "new", form=form)
    assert_close(computed(tmp_path / "new", inputs_of(path)), computed(tmp_path / "old", inputs_of(path)))
    names = [SymbolGraph.load(tmp_path / f"{name}-symbol.json").output_names for name in ("old", "new")]
    assert names[0] == names[1]
    assert len(set(names[0])) == 4


@pytest.mark.parametrize("form", FORMS)
def test_a_time_major_mask_that_is_an_output_stays_an_output(form: str, tmp_path: Path) -> None:
    whole = gluonnlp_checkpoint(tmp_path / "whole", "sequence")
    extract(whole, tmp_path / "old", ["bertencoder0_sequencemask0"])
    lower(tmp_path / "old", tmp_path / "new", form=form)
    path = next(path for path in BERTS if label(path) == "gluonnlp-0.10.0/sequence-symbol")
    (answer,) = computed(tmp_path / "new", inputs_of(path))
    assert answer.shape == (8, 2, 16)
    assert_close([answer], computed(tmp_path / "old", inputs_of(path)))


@pytest.mark.parametrize(("version", "form"), in_turn(["0.8.3", "0.10.0", "0.8.3"], FORMS))
def test_a_head_can_read_several_layers(form: str, version: str, tmp_path: Path) -> None:
    old = gluonnlp_checkpoint(tmp_path, "sequence", version)
    graph = SymbolGraph.load(f"{old}-symbol.json")
    encoder = require_encoder(graph, ParamsFile(f"{old}-0000.params").shapes)
    with graph.edit():
        parts = [encoder.embedding_output, *(layer.output for layer in encoder.layers), encoder.layers[0].output]
        graph.set_outputs([graph.add("Concat", "all_layers", parts, {"dim": "2", "num_args": "4"})])
    graph.cleanup()
    Path(f"{old}-symbol.json").write_text(graph.to_json())
    lower(old, tmp_path / "new", form=form)
    path = next(path for path in BERTS if label(path) == f"gluonnlp-{version}/sequence-symbol")
    assert_close(computed(tmp_path / "new", inputs_of(path)), computed(old, inputs_of(path)))
    assert SymbolGraph.load(f"{tmp_path / 'new'}-symbol.json").output_names == ["all_layers"]


@pytest.mark.parametrize("form", FORMS)
def test_names_of_downstream_nodes_are_kept(form: str, tmp_path: Path) -> None:
    """A head whose operators, including its output, have the names of operators of the new encoder."""
    path = next(path for path in BERTS if label(path) == "gluonnlp-0.8.3/classifier-symbol")
    old = exactly(path, tmp_path)
    graph = SymbolGraph.load(f"{old}-symbol.json")
    taken = [LAYER_1, f"{LAYER_1}_", "bertencoder0_mask", "bertencoder0_embed", "bertencoder0_batch_major2"]
    head = [node.name for node in graph.nodes[::-1] if not node.is_variable][: len(taken)]
    graph.rename(dict(zip(head, taken)))
    Path(f"{old}-symbol.json").write_text(graph.to_json())
    lower(old, tmp_path / "new", form=form)
    assert_close(computed(tmp_path / "new", inputs_of(path)), computed(old, inputs_of(path)))
    new = SymbolGraph.load(f"{tmp_path / 'new'}-symbol.json")
    assert new.output_names == graph.output_names == [LAYER_1]
    assert len({node.name for node in new.nodes}) == len(new.nodes)


def test_variables_keep_their_attributes(tmp_path: Path) -> None:
    kept = {"__lr_mult__": "0.5", "__wd_mult__": "0.0", "__init__": '["zero", {}]', "__mine__": "x"}
    old = gluonnlp_checkpoint(tmp_path, "classifier")
    graph = SymbolGraph.load(f"{old}-symbol.json")
    variables = [node for node in graph.nodes if node.is_variable]
    for node in variables:
        for key, value in kept.items():
            graph.set_attribute(node, key, value)
    Path(f"{old}-symbol.json").write_text(graph.to_json())
    lower(old, tmp_path / "new")
    new = SymbolGraph.load(f"{tmp_path / 'new'}-symbol.json")
    for node in variables:
        assert kept.items() <= new.node(node.name).attrs.items()
        dtype = node.attrs.get("__dtype__")
        assert new.node(node.name).attrs.get("__dtype__") == dtype
    assert mx.sym.load(f"{tmp_path / 'new'}-symbol.json").attr_dict()["bertclassifier0_dense0_weight"]["__init__"]


# Graphs that no exporter writes


@pytest.mark.parametrize("form", FORMS)
def test_weights_that_layers_share_stay_shared(form: str, tmp_path: Path) -> None:
    def share(graph: SymbolGraph) -> None:
        for name in graph.variables:
            if "transformer1" in name:
                graph.rewire(graph.node(name), graph.node(name.replace("transformer1", "transformer0")))

    old = checkpoint(tmp_path / "old", share)
    lower(old, tmp_path / "new", form=form)
    assert_close(computed(tmp_path / "new", random_texts(9)), computed(old, random_texts(9)))
    assert Path(f"{tmp_path / 'new'}-0000.params").read_bytes() == Path(f"{old}-0000.params").read_bytes()


@pytest.mark.parametrize(
    ("changes", "form"), in_turn([{"num_layers": 1}, {"num_heads": 1}, {"num_heads": 8}, {"max_length": 5}], FORMS)
)
def test_encoders_of_any_size_are_lowered(form: str, changes: dict[str, Any], tmp_path: Path) -> None:
    sizes: dict[str, Any] = {"num_layers": 2, "units": 8, "hidden_size": 12, "num_heads": 2, "vocab_size": 60}
    config = BertConfig(**{**sizes, "max_length": 20, **changes})
    old = checkpoint(tmp_path / "old", graph=some_graph(config=config), config=config)
    lower(old, tmp_path / "new", form=form)
    texts = random_texts(5, config)
    assert_close(computed(tmp_path / "new", texts), computed(old, texts))


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("activation", ["gelu", "relu"])
def test_inputs_that_an_encoder_does_not_read_are_dropped(form: str, activation: str, tmp_path: Path) -> None:
    from bertsym.encoders.graph import encoder_graph

    spec = EncoderSpec(CONFIG, "words", None, None, {}, activation)
    graph = encoder_graph(spec)
    old = checkpoint(tmp_path / "old", graph=graph)
    lower(old, tmp_path / "new", form=form)
    texts = {"words": random_texts(9)["data0"]}
    assert_close(computed(tmp_path / "new", texts), computed(old, texts))


def test_superfluous_attributes_of_a_newer_mxnet_are_removed_for_an_older_one(tmp_path: Path) -> None:
    """And a gelu of the head is one that the target computes right."""

    def add_head(graph: SymbolGraph) -> None:
        with graph.edit():
            gelu = graph.add("LeakyReLU", "head_gelu", graph.outputs, {"act_type": "gelu"})
            neutral = {"axis": "-1", "dtype": "None", "temperature": "None", "use_length": "False"}
            dropped = graph.add("Dropout", "head_dropout", [gelu], {"p": "0.1", "cudnn_off": "False"})
            graph.set_outputs([graph.add("softmax", "scores", [dropped], neutral)])

    old = checkpoint(tmp_path / "old", add_head)
    assert not loads_in(old, "1.5.1")
    lower(old, tmp_path / "new", target="1.4")
    assert loads_in(tmp_path / "new", "1.4.1")
    assert_close(computed(tmp_path / "new", random_texts(9)), computed(old, random_texts(9)))
    lower(old, tmp_path / "nine", target="1.9")
    attrs = SymbolGraph.load(f"{tmp_path / 'nine'}-symbol.json").node("scores").attrs
    assert attrs["use_length"] == "False"


# The nets of GluonNLP itself


class Regression(nlp.model.BERTClassifier):  # type: ignore[misc]
    """One number, as its users write it."""

    def __init__(self, bert: Any, **options: Any) -> None:
        super().__init__(bert, num_classes=1, **options)


class BertForQA(mx.gluon.HybridBlock):  # type: ignore[misc]
    """Scores of start and end, as in GluonNLP's scripts."""

    def __init__(self, bert: Any, **options: Any) -> None:
        super().__init__(**options)
        self.bert = bert
        with self.name_scope():
            self.span_classifier = mx.gluon.nn.Dense(2, flatten=False)

    def hybrid_forward(self, F: Any, words: Any, types: Any, lengths: Any) -> Any:
        return self.span_classifier(self.bert(words, types, lengths))


NETS: dict[str, Callable[[Any], Any]] = {
    "BERTClassifier": lambda bert: nlp.model.BERTClassifier(bert, num_classes=4, dropout=0.1),
    "regression": Regression,
    "BertForQA": BertForQA,
}


@pytest.mark.parametrize(("kind", "form"), in_turn(NETS, FORMS))
def test_a_net_that_gluonnlp_exports_is_lowered(kind: str, form: str, tmp_path: Path) -> None:
    encoder = nlp.model.BERTEncoder(num_layers=3, units=12, hidden_size=20, max_length=30, num_heads=3)
    bert = nlp.model.BERTModel(
        encoder, vocab_size=200, token_type_vocab_size=2, units=12, embed_size=12,
        use_pooler=kind != "BertForQA", use_decoder=False, use_classifier=False,
    )  # fmt: skip
    net = NETS[kind](bert)
    net.initialize()
    texts = random_texts(11, BertConfig(3, 12, 20, 3, 200))
    arrays = [mx.nd.array(texts[name]) for name in ("data0", "data1", "data2")]
    net(*arrays)  # gives every parameter its shape
    for name, parameter in net.collect_params().items():
        parameter.set_data(mx.nd.array(random_weight(name, parameter.shape)))
    net.hybridize()
    answer = net(*arrays).asnumpy()
    net.export(str(tmp_path / "old"))
    lower(tmp_path / "old", tmp_path / "new", form=form)
    assert_close(computed(tmp_path / "new", texts), [answer])
    new = SymbolGraph.load(f"{tmp_path / 'new'}-symbol.json")
    assert any(node.op.startswith("_contrib_interleaved") for node in new.nodes) == (form == "gluonnlp")


# From the command line


def test_the_command_prints_the_written_files(cli: Cli, tmp_path: Path) -> None:
    old, out = gluonnlp_checkpoint(tmp_path, "classifier"), tmp_path / "new"
    done = cli("lower", old, out, "--target-mxnet", "1.4", "--form", "fast")
    assert (done.code, done.err) == (0, "note: 13 parameters that the graph does not read are left out\n")
    first, second, wrote, reads, ends, same, loads = done.out.splitlines()
    assert "at length 16: max difference" in first
    assert "at length 7: max difference" in second
    assert wrote == f"wrote {out}-*, verified; 41 arrays of parameters"
    assert reads == "  inputs: data0 (batch, length), data1 (batch, length), data2 (batch)"
    assert ends.endswith("(batch, 3)")
    assert same == "  equal results through Module, SymbolBlock, C predict API"
    assert loads == "  loads in MXNet 1.4.0 and later"
    assert loads_in(out, "1.4.1")


@pytest.mark.parametrize("name", ["data0", "data1"])
def test_outputs_are_compared_at_the_given_length(name: str, tmp_path: Path) -> None:
    written = lower(ModelSource(checkpoint(tmp_path / "old"), shapes={name: (2, 9)}), tmp_path / "new")
    assert [check.name for check in written.checks] == ["cls at length 9"]


@pytest.mark.parametrize("version", ["0.6.0", "0.8.3", "0.9.2", "0.10.0"])
@pytest.mark.parametrize(("name", "first_only"), [("classifier", True), ("qa", False), ("pooled", False)])
def test_the_fast_form_computes_no_more_than_is_read(name: str, first_only: bool, version: str, tmp_path: Path) -> None:
    """Under a pooler position 0 of the last layer alone, unless the sequence is an output too; and no mask of it."""
    old = gluonnlp_checkpoint(tmp_path, name, version)
    lower(old, tmp_path / "new", form="fast")
    graph = SymbolGraph.load(f"{tmp_path / 'new'}-symbol.json")
    encoder = require_encoder(graph, ParamsFile(f"{tmp_path / 'new'}-0000.params").shapes)
    assert encoder.layers[-1].first_only is first_only
    masks = [node for node in graph.find(op="SequenceMask") if node.name != "bertencoder0_mask_padding"]
    assert bool(masks) is not first_only
