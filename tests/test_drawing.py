"""Pictures of graphs: what is in them, what is folded, and the files they become."""

from __future__ import annotations

import re
import struct
import xml.etree.ElementTree as ElementTree
from dataclasses import replace
from pathlib import Path

import pytest
from drawings import HOSTILE, LAYERS, bert_picture, plain_picture
from tools import needs

from bertsym.drawing.dot import graph_to_dot
from bertsym.drawing.formats import draw_picture, expanded_keys
from bertsym.drawing.node_style import KINDS, kind_of, shape_text
from bertsym.drawing.picture import Picture, Shape
from bertsym.errors import ModelError, UsageError
from bertsym.symbol.graph import SymbolGraph
from bertsym.symbol.node import Node, Output
from bertsym.web_page import visible

SVG = "{http://www.w3.org/2000/svg}"


@pytest.fixture(scope="module")
def bert() -> Picture:
    return bert_picture()


def drawn(picture: Picture, *expand: str) -> ElementTree.Element:
    return ElementTree.fromstring(draw_picture(picture, ".svg", expand))


def parts(svg: ElementTree.Element, kind: str) -> dict[str, ElementTree.Element]:
    """The groups of an SVG that have a class, by their ids."""
    return {group.get("id", ""): group for group in svg.iter(f"{SVG}g") if kind in (group.get("class") or "").split()}


def texts(element: ElementTree.Element) -> list[str]:
    """The lines of text in an element, no-break spaces as spaces."""
    lines = ("".join(text.itertext()) for text in element.iter(f"{SVG}text"))
    return [" ".join(line.split()) for line in lines]


def box(svg: ElementTree.Element, picture: Picture, name: str) -> ElementTree.Element | None:
    number = picture.graph.nodes.index(picture.graph.node(name))
    return parts(svg, "node").get(f"n{number}")


# The DOT text


def test_dot_text_is_deterministic_and_names_nodes_in_labels_only(bert: Picture) -> None:
    text = graph_to_dot(bert, {"layer 1"})
    assert text == graph_to_dot(bert_picture(), {"layer 1"})
    assert set(re.findall(r"^(\w+) \[", text, re.MULTILINE)) - {"graph", "node", "edge"}
    outside = re.sub(r"label=<.*?>(?=[,\];])|\"[^\"]*\"", "", text)
    assert "bertencoder0" not in outside
    assert "data0" not in outside


def test_an_output_that_many_layers_read_gets_a_stub_at_each_instead_of_long_edges(bert: Picture) -> None:
    mask = Output(bert.graph.node("bertencoder0_mask"))
    assert bert.shared == {mask}
    number = bert.index[mask.node]
    text = graph_to_dot(bert)
    assert len(re.findall(rf"^i\d+_{number}_0 -> g\d+ ", text, re.MULTILINE)) == LAYERS
    assert f"n{number} -> g" not in text
    assert "to layer 0 … layer 4" in text


def test_with_few_layers_the_mask_has_edges(bert: Picture) -> None:
    few = replace(bert, groups=bert.groups[:3])
    assert not few.shared
    assert (
        len(re.findall(rf"^n{few.index[few.graph.node('bertencoder0_mask')]} -> g", graph_to_dot(few), re.MULTILINE))
        == 3
    )


def test_parameters_stand_in_the_box_of_their_reader_with_their_shape(bert: Picture) -> None:
    assert [node.name for node in bert.drawn if node.is_variable] == ["data0", "data1", "data2", "softmax_label"]
    text = graph_to_dot(bert)
    assert "weight 30 × 8" in text
    assert "gamma, beta 8" in text
    assert bert.count_of(bert.groups[0].nodes) == "37 operators, 600 parameters"


def test_a_parameter_that_the_graph_ends_in_is_drawn() -> None:
    weight = Node("null", "weight")
    picture = Picture("one weight", graph=SymbolGraph([weight], [Output(weight)]), parameters=frozenset({"weight"}))
    assert picture.drawn == (weight,)


@pytest.mark.parametrize(
    ("op", "kind"),
    [
        ("FullyConnected", "product"),
        ("batch_dot", "product"),
        ("LayerNorm", "norm"),
        ("broadcast_add", "arithmetic"),
        ("_mul_scalar", "arithmetic"),
        ("Reshape", "shape"),
        ("softmax", "activation"),
        ("Embedding", "lookup"),
        ("null", "input"),
        ("Custom", "other"),
    ],
)
def test_every_operator_has_a_kind(op: str, kind: str) -> None:
    assert kind_of(Node(op, "name")) == kind
    assert kind in KINDS


@pytest.mark.parametrize(("shape", "text"), [(("N", "T", 768), "N × T × 768"), ((3,), "3"), ((), "scalar"), (None, "")])
def test_shapes_are_formatted(shape: Shape | None, text: str) -> None:
    assert shape_text(shape) == text


def test_text_is_made_visible_and_long_text_is_cut_in_the_middle() -> None:
    assert visible("a\nb\x00\ud800") == "a\\nb\\x00\\ud800"
    assert visible("a" * 50 + "b" * 50, 11) == "aaaaa…bbbbb"


# Which groups are open


@pytest.mark.parametrize("wanted", ["layer 3", "3", "Layer  3"])
def test_a_layer_is_named_by_its_key_or_its_number(bert: Picture, wanted: str) -> None:
    assert expanded_keys(bert, [wanted]) == {"layer 3"}


def test_all_layers_can_be_opened(bert: Picture) -> None:
    assert len(expanded_keys(bert, ["all"])) == LAYERS


def test_an_unknown_layer_and_suffix_are_usage_errors_that_name_the_possible_ones(bert: Picture) -> None:
    with pytest.raises(UsageError, match=r"^can't expand '5': choose layer 0, .*layer 4 or all$"):
        draw_picture(bert, ".svg", ["5"])
    with pytest.raises(UsageError, match=r"^can't draw '\.pdf' files: the name must end in \.svg, \.png or \.html$"):
        draw_picture(bert, ".pdf")
    with pytest.raises(UsageError, match=r"^can't expand '0': this graph has no encoder layers$"):
        draw_picture(plain_picture("one"), ".html", ["0"])


@pytest.mark.parametrize("suffix", [".svg", ".png", ".html"])
def test_a_missing_graphviz_is_a_one_line_error_with_the_fix(
    bert: Picture, suffix: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ModelError, match=r"^drawing needs .* \(Debian: apt-get install graphviz\)$"):
        draw_picture(bert, suffix)


def test_the_message_of_dot_is_the_error(bert: Picture, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    program = tmp_path / "dot"
    program.write_text("#!/bin/sh\necho 'Format: \"svg\" not recognized' >&2\necho more >&2\nexit 1\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ModelError, match=r'^dot failed: Format: "svg" not recognized$'):
        draw_picture(bert, ".svg")


# SVG and PNG


@needs("dot")
def test_every_layer_is_one_box(bert: Picture) -> None:
    svg = drawn(bert)
    folded = parts(svg, "folded")
    assert [texts(folded[f"g{number}"])[:2] for number in range(LAYERS)] == [
        [f"layer {number}", "attention of 2 heads"] for number in range(LAYERS)
    ]
    assert len(folded) == LAYERS
    assert box(svg, bert, "bertencoder0_transformer1_proj") is None
    assert {"A small BERT", "output"} <= set(texts(svg))


@needs("dot")
def test_an_open_layer_shows_its_nodes_by_short_names(bert: Picture) -> None:
    svg = drawn(bert, "1")
    assert set(parts(svg, "folded")) == {"g0", "g2", "g3", "g4"}
    assert set(parts(svg, "expanded")) == {"g1"}
    for node in bert.drawn:
        shown = box(svg, bert, node.name) is not None
        assert shown == (node in bert.groups[1].nodes or node not in bert.group_of), node
    projection = box(svg, bert, "bertencoder0_transformer1_proj")
    assert projection is not None
    assert texts(projection) == ["FullyConnected", "proj", "weight 8 × 8", "bias 8"]
    assert projection.findtext(f"{SVG}title") == "bertencoder0_transformer1_proj"


@needs("dot")
def test_only_the_cls_slice_is_coloured(bert: Picture) -> None:
    svg = drawn(bert, "all")
    fills = {
        node.name: shape.get("fill")
        for node in bert.drawn
        for shape in parts(svg, "node")[f"n{bert.index[node]}"].iter(f"{SVG}path")
    }
    assert {name for name, fill in fills.items() if fill == KINDS["highlight"].fill} == {"cls_slice", "cls"}
    assert len(fills) == len(bert.drawn)


@needs("dot")
def test_a_folded_layer_with_the_slice_in_it_is_marked(bert: Picture) -> None:
    inside = replace(bert, highlighted=frozenset({bert.graph.node("bertencoder0_transformer2_proj")}))
    assert [name for name, part in parts(drawn(inside), "folded").items() if "highlight" in part.get("class", "")] == [
        "g2"
    ]


@needs("dot")
def test_edges_show_shapes_and_the_path_is_stronger(bert: Picture) -> None:
    edges = parts(drawn(bert), "edge").values()
    labels = [text for edge in edges for text in texts(edge)]
    assert labels.count("N × T × 8") == LAYERS  # between layers, and to the slice
    assert "N × 8" in labels
    strong = [edge for edge in edges if {"path", "highlight"} & set(edge.get("class", "").split())]
    # From the word embedding, with its two ways into the sum, to the output.
    assert len(strong) > LAYERS
    assert {path.get("stroke-width") for edge in strong for path in edge.iter(f"{SVG}path")} == {"1.8", "2.2"}
    assert len(strong) < len(edges)


def test_an_input_of_an_expanded_layer_is_one_arrow(bert: Picture) -> None:
    before = bert.index[bert.graph.node("bertencoder0_transformer0_positionwiseffn0_layernorm0_fwd")]
    text = graph_to_dot(bert, {"layer 0", "layer 1"})
    assert len(re.findall(rf"^n{before} -> ", text, re.MULTILINE)) == 1
    assert len(re.findall(rf"^j1_{before}_0 -> ", text, re.MULTILINE)) == 4  # query, key, value and around them


@needs("dot")
def test_files_are_deterministic_and_do_not_name_graphviz(bert: Picture) -> None:
    svg = draw_picture(bert, ".svg")
    assert svg == draw_picture(bert_picture(), ".svg")
    assert svg.startswith(b"<?xml")
    assert b"<!--" not in svg
    assert b"DOCTYPE" not in svg
    assert b"raphviz" not in svg
    assert draw_picture(bert, ".png") == draw_picture(bert_picture(), ".png")


@needs("dot")
def test_a_png_has_a_plausible_size(bert: Picture) -> None:
    data = draw_picture(bert, ".PNG")
    assert data[:8] == b"\x89PNG\r\n\x1a\n"
    width, height = struct.unpack(">II", data[16:24])
    assert width > 600
    assert height > 1500


@needs("dot")
def test_a_graph_of_several_outputs_shows_each() -> None:
    picture = plain_picture("one", "two")
    one, two = picture.graph.node("one"), picture.graph.node("two")
    both = replace(picture, graph=SymbolGraph(picture.graph.nodes, [Output(one), Output(two)]))
    assert {"output 0", "output 1"} <= set(texts(drawn(both)))


# Hostile names


@needs("dot")
def test_names_of_any_characters_are_shown_as_they_are() -> None:
    picture = replace(plain_picture(*HOSTILE), title=HOSTILE[0], sentence=f"`{HOSTILE[1]}` {HOSTILE[2]}")
    svg = drawn(picture)
    assert [texts(part)[1] for key, part in parts(svg, "product").items()] == [visible(name) for name in HOSTILE]
    assert [part.findtext(f"{SVG}title") for part in parts(svg, "product").values()] == [
        visible(name) for name in HOSTILE
    ]
