"""The HTML page of a picture: its cards, its safety, and how it behaves in a browser."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from drawings import HOSTILE, LAYERS, bert_picture, plain_picture
from tools import needs

from bertsym import BertConfig, output_symbol
from bertsym.drawing.cards import cards_of
from bertsym.drawing.formats import draw_picture
from bertsym.drawing.node_style import KINDS
from bertsym.drawing.picture import Group, Picture, Shape
from bertsym.symbol.graph import SymbolGraph
from bertsym.symbol.node import Output


@pytest.fixture(scope="module")
def bert() -> Picture:
    return bert_picture()


def page_data(page: str) -> Any:
    found = re.search(r'<script type="application/json" id="data">(.*?)</script>', page, re.DOTALL)
    assert found
    return json.loads(found[1])


@needs("dot")
def test_hostile_names_stay_text_in_the_page() -> None:
    picture = replace(plain_picture(*HOSTILE), title=HOSTILE[0], sentence=f"`{HOSTILE[1]}` {HOSTILE[2]}")
    page = draw_picture(picture, ".html").decode()
    assert page.count("</script>") == 2
    assert "<i>'" not in page
    assert [node["name"] for node in page_data(page)["nodes"] if node] == ["data", *HOSTILE]


@needs("dot")
def test_the_page_is_a_column_of_cards_with_the_layers_folded(bert: Picture) -> None:
    page = draw_picture(bert, ".html", ["3"]).decode()
    opened = re.findall(r'<details class="[^"]*" id="card\d+"( open)?><summary><h2>(.*?)</h2>', page)
    layers = [(" open" if number == 3 else "", f"layer {number}") for number in range(LAYERS)]
    assert opened == [(" open", "inputs and embeddings"), *layers, (" open", "output and head")]
    assert page.count("<svg ") == LAYERS + 2
    assert page.count("also reads <code>bertencoder0_mask</code>") == LAYERS
    assert page.count("N × T × 8</span>") == LAYERS
    assert "<code>fc-finetune</code> reads <code>cls</code> = [CLS]" in page


@needs("dot")
def test_every_node_is_on_the_page_once(bert: Picture) -> None:
    page = draw_picture(bert, ".html").decode()
    boxes = re.findall(r'<g id="n(\d+)" class="box [^"]*" data-node="\1"', page)
    assert sorted(map(int, boxes)) == sorted(bert.index[node] for node in bert.drawn)
    ids = re.findall(r'\bid="([^"]*)"', page)
    assert len(ids) == len(set(ids))


def test_a_label_is_in_the_card_of_the_head_and_the_length_with_the_inputs(bert: Picture) -> None:
    cards = cards_of(bert)
    assert [node.name for node in cards[-1].nodes if node.is_variable] == ["softmax_label"]
    assert [node.name for node in cards[0].nodes if node.is_variable] == ["data0", "data1", "data2"]
    assert sorted(bert.index[node] for card in cards for node in card.nodes) == [
        bert.index[node] for node in bert.drawn
    ]


def test_nodes_between_two_groups_have_a_card_of_their_own() -> None:
    picture = plain_picture("first", "between", "second")
    groups = tuple(
        Group(i, name, "", frozenset({picture.graph.node(name)})) for i, name in enumerate(("first", "second"))
    )
    titles = [card.title for card in cards_of(replace(picture, groups=groups))]
    assert titles == ["inputs and embeddings", "first", "between first and second", "second"]


@needs("dot")
def test_a_graph_without_groups_is_one_card() -> None:
    page = draw_picture(plain_picture("one", "two"), ".html").decode()
    assert page.count("<details") == page.count("<svg ") == 1


@needs("dot")
def test_the_page_is_deterministic_and_fetches_nothing(bert: Picture) -> None:
    page = draw_picture(bert, ".html").decode()
    assert set(re.findall(r"\w+=[\"']https?://[^\"']*", page)) == {'xmlns="http://www.w3.org/2000/svg'}
    assert page.count("://") == page.count('xmlns="http://www.w3.org/2000/svg"')
    assert not re.search(r"@import|url\(|src=", page)
    assert page == draw_picture(bert_picture(), ".html").decode()


@needs("dot")
@pytest.mark.slow
def test_the_page_of_bert_base_is_small() -> None:
    graph = SymbolGraph.parse(output_symbol(BertConfig(12, 768, 3072, 12, 30522), "cls").tojson())
    groups = tuple(
        Group(i, f"layer {i}", "", frozenset(graph.find(f"bertencoder0_transformer{i}_*"))) for i in range(12)
    )
    shapes: dict[Output, Shape] = {Output(node): ("N", "T", 768) for node in graph.nodes}
    parameters = frozenset(set(graph.variables) - {"data0", "data1", "data2"})
    picture = Picture("BERT base", "", graph, groups, shapes, parameters=parameters)
    assert len(draw_picture(picture, ".html")) < 1_500_000


# In a browser

in_a_browser = needs("dot", "chromium", "playwright")


class Visit:
    """A page in the browser, with what must not happen on it."""

    def __init__(self, browser: Any, path: Path, **options: Any) -> None:
        self.page: Any = browser.new_context(viewport={"width": 1300, "height": 900}, **options).new_page()
        self.page.set_default_timeout(10_000)
        self.requests: list[str] = []
        self.complaints: list[str] = []
        self.page.on("request", lambda request: self.requests.append(request.url))
        self.page.on("console", lambda message: self.complaints.append(message.text))
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))
        self.page.on("dialog", self._refuse)
        self.page.goto(path.as_uri())

    def _refuse(self, dialog: Any) -> None:
        self.complaints.append(dialog.message)
        dialog.dismiss()

    def node(self, picture: Picture, name: str) -> Any:
        return self.page.locator(f"#n{picture.index[picture.graph.node(name)]}")

    def card(self, title: str) -> Any:
        return self.page.locator("details", has=self.page.get_by_role("heading", name=title, exact=True))

    def panel(self) -> str:
        return " ".join(self.page.locator("#panel").inner_text().split())


@pytest.fixture(scope="module")
def bert_page(bert: Picture, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("page") / "bert.html"
    path.write_bytes(draw_picture(bert, ".html"))
    return path


@pytest.fixture
def visit(browser: Any, bert_page: Path) -> Iterator[Visit]:
    visit = Visit(browser, bert_page)
    yield visit
    visit.page.context.close()
    assert visit.requests == [bert_page.as_uri()]
    assert visit.complaints == []


PROJECTION = "bertencoder0_transformer2_proj"


@in_a_browser
def test_a_layer_opens_and_shows_its_nodes(visit: Visit, bert: Picture) -> None:
    assert not visit.node(bert, PROJECTION).is_visible()
    visit.card("layer 2").locator("summary").click()
    assert visit.node(bert, PROJECTION).is_visible()
    assert not visit.node(bert, "bertencoder0_transformer3_proj").is_visible()
    visit.card("layer 2").locator("summary").click()
    assert not visit.node(bert, PROJECTION).is_visible()


@in_a_browser
def test_all_layers_open_and_fold(visit: Visit, bert: Picture) -> None:
    visit.page.get_by_role("button", name="Open all").click()
    assert all(
        visit.node(bert, node.name).is_visible()
        for node in bert.groups[4].nodes
        if node in bert.index and not node.is_variable
    )
    visit.page.get_by_role("button", name="Fold all").click()
    assert visit.page.locator("svg:visible").count() == 0


@in_a_browser
def test_clicking_a_node_shows_its_details(visit: Visit, bert: Picture) -> None:
    visit.node(bert, "cls_slice").click()
    panel = visit.panel()
    assert panel.startswith("slice_axis cls_slice in output and head [CLS] slice")
    assert "axis 1 begin 0 end 1" in panel
    assert "bertencoder0_transformer4_positionwiseffn0_layernorm0_fwd N × T × 8" in panel
    visit.node(bert, "fc-finetune").click()
    assert "num_hidden 3" in visit.panel()
    assert "fc-finetune_weight" in visit.panel()


@in_a_browser
def test_a_node_is_reached_with_the_keyboard(visit: Visit, bert: Picture) -> None:
    visit.node(bert, "cls_slice").focus()
    assert "slice_axis cls_slice" in visit.panel()
    visit.card("layer 0").locator("summary").focus()
    visit.page.keyboard.press("Enter")
    visit.page.keyboard.press("Tab")
    assert visit.page.evaluate("document.activeElement.closest('details').id") == "card1"
    assert visit.page.evaluate("document.activeElement.dataset.node") is not None


@in_a_browser
def test_the_names_in_the_panel_lead_to_their_nodes(visit: Visit, bert: Picture) -> None:
    visit.node(bert, "cls_slice").click()
    name = "bertencoder0_transformer4_positionwiseffn0_layernorm0_fwd"
    visit.page.locator("#panel").get_by_role("button", name=name).click()
    assert visit.node(bert, name).is_visible()
    assert f"LayerNorm {name} in layer 4" in visit.panel()


@in_a_browser
def test_a_stub_links_to_its_producer(visit: Visit, bert: Picture) -> None:
    visit.card("layer 2").locator("summary").click()
    visit.card("layer 2").locator(".stub", has_text="bertencoder0_mask").click()
    assert "expand_dims bertencoder0_mask in inputs and embeddings" in visit.panel()


@in_a_browser
@pytest.mark.parametrize("text", [PROJECTION, "TRANSFORMER2_PROJ", f"{PROJECTION}_weight"])
def test_search_finds_and_opens_a_node_by_its_name_or_its_parameter(visit: Visit, bert: Picture, text: str) -> None:
    visit.page.get_by_role("searchbox").fill(text)
    visit.page.keyboard.press("Enter")
    assert visit.node(bert, PROJECTION).is_visible()
    assert f"FullyConnected {PROJECTION} in layer 2" in visit.panel()
    assert visit.page.evaluate("document.activeElement.id") == f"n{bert.index[bert.graph.node(PROJECTION)]}"


@in_a_browser
def test_search_reports_no_matches_and_the_number_of_further_matches(visit: Visit) -> None:
    visit.page.get_by_role("searchbox").fill("nothing like it")
    assert visit.page.locator("#found").inner_text() == "no name contains this text"
    visit.page.get_by_role("searchbox").fill("transformer")
    assert re.search(r"and \d+ more$", visit.page.locator("#found").inner_text())
    visit.page.keyboard.press("Escape")
    assert not visit.page.locator("#found").is_visible()


@in_a_browser
def test_light_and_dark_have_their_own_colours_and_the_slice_is_in_colour_in_both(
    browser: Any, bert: Picture, bert_page: Path
) -> None:
    pages, slices = set(), set()
    for scheme, column in [("light", "fill"), ("dark", "dark_fill")]:
        visit = Visit(browser, bert_page, color_scheme=scheme)
        pages.add(visit.page.evaluate("getComputedStyle(document.body).backgroundColor"))
        shape = visit.node(bert, "cls_slice").locator("path")
        slices.add(shape.evaluate("path => getComputedStyle(path).fill"))
        wanted = getattr(KINDS["highlight"], column)
        assert (
            shape.evaluate("path => getComputedStyle(path).fill")
            == f"rgb({', '.join(map(str, bytes.fromhex(wanted[1:])))})"
        )
        visit.page.context.close()
    assert len(pages) == len(slices) == 2


@in_a_browser
def test_without_javascript_layers_still_open(browser: Any, bert: Picture, bert_page: Path) -> None:
    visit = Visit(browser, bert_page, java_script_enabled=False)
    assert not visit.page.locator("#tools").is_visible()
    assert not visit.page.locator("#panel").is_visible()
    visit.card("layer 2").locator("summary").click()
    assert visit.node(bert, PROJECTION).is_visible()
    visit.page.context.close()


@in_a_browser
def test_hostile_names_execute_nothing_and_are_found(browser: Any, tmp_path: Path) -> None:
    path = tmp_path / "hostile.html"
    picture = replace(plain_picture(*HOSTILE), title=HOSTILE[0])
    path.write_bytes(draw_picture(picture, ".html"))
    visit = Visit(browser, path)
    for name in HOSTILE:
        visit.page.get_by_role("searchbox").fill(name.splitlines()[0])
        visit.page.keyboard.press("Enter")
        assert visit.page.locator("#panel p.name").first.text_content() == name
        assert visit.page.locator("#panel dd").last.text_content() == name
    assert visit.complaints == []
    visit.page.context.close()
