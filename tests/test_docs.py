"""The documentation: its examples run and print what it shows, and nothing public is missing from it."""

from __future__ import annotations

import contextlib
import dataclasses
import importlib.util
import io
import re
import shutil
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

import click
import pytest
from conftest import VOCABULARY, Result, Tables
from language import strings
from sentence_folders import POOLING, dense, write_sentence_folder

import bertsym
from bertsym.bundle import FILE_NAMES
from bertsym.cli.group import COMMANDS
from bertsym.cli.group import cli as group
from bertsym.execution.engines import ENGINES
from bertsym.sources.registry import load_source

Cli = Callable[..., Result]

ROOT = Path(__file__).parent.parent
DOCS = ROOT / "docs"
PAGES = {
    str(path.relative_to(ROOT)): path.read_text(encoding="utf-8")
    for path in (ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "SECURITY.md", *sorted(DOCS.rglob("*.md")))
}
RUN = ("console", "python")
SHOWN = ("text", "{toctree}", "{click}", "{eval-rst}", "{include}")  # not commands, or run by Sphinx
#: languages of blocks in README.md that set things up; scripts/demo and .ci/run run them
SETUP = {"README.md": ("sh",)}

FENCE = re.compile(r"(?:<!-- not run: (?P<reason>[^>]+) -->\n)?^```(?P<language>\S+)\n(?P<body>.*?)^```$", re.M | re.S)


@dataclass(frozen=True)
class Block:
    language: str
    body: str
    reason: str | None  #: why it is not run


def blocks(page: str) -> list[Block]:
    return [Block(match["language"], match["body"], match["reason"]) for match in FENCE.finditer(PAGES[page])]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, tiny_hf: Path, tables: Tables) -> Path:
    """What the examples start from: Hugging Face folders, tables, and a symbol that GluonNLP 0.6 exported."""
    made = tmp_path_factory.mktemp("docs")
    shutil.copytree(tiny_hf, made / "bert")
    write_sentence_folder(
        made / "sentences",
        *(("Pooling", POOLING), ("Dense", dense(32, 16)), ("Normalize", {})),
        prompts={
            **{"prompts": {"query": "the ", "document": ""}, "default_prompt_name": "query"},
            "similarity_fn_name": "cosine",
        },
    )
    shutil.copytree(ROOT / "bertsym" / "demo" / "data", made / "readme")
    shutil.copytree(tiny_hf, made / "readme" / "minilm")
    for table in (tables.train, tables.dev):
        shutil.copy(table, made / table.name)
    (made / "old").mkdir()
    old = Path(__file__).parent / "symbols" / "gluonnlp-0.6.0"
    shutil.copy(old / "sequence-symbol.json", made / "old" / "model-symbol.json")
    shutil.copy(old / "weights-0000.params", made / "old" / "model-0000.params")
    shutil.copy(old / "classifier-symbol.json", made / "old" / "classifier-symbol.json")
    shutil.copy(old / "weights-0000.params", made / "old" / "classifier-0000.params")
    (made / "old" / "vocab.txt").write_text("\n".join(VOCABULARY[:50]) + "\n")
    cola = made / "cola"
    cola.mkdir()
    for table in (tables.train, tables.dev):
        rows = [line.split("\t") for line in table.read_text().splitlines()[1:]]
        lines = [f"gj04\t{int(label == 'yes')}\t\t{text}\n" for label, text in rows]
        (cola / table.name).write_text("".join(lines))
    (cola / "test.tsv").write_text("index\tsentence\n0\tthe happy cat sat\n")
    return made


@pytest.fixture(scope="module")
def done() -> dict[str, Result]:
    """The commands that were run, with their results: a command that several pages show runs once."""
    return {}


def run_console(body: str, cli: Cli, done: dict[str, Result]) -> None:
    """Run the commands of a block; each line that it shows occurs in what they print, in this order."""
    for part in re.split(r"^\$ ", body, flags=re.M)[1:]:
        command, *shown = part.splitlines()
        words = re.findall(r'"[^"]*"|\S+', command.partition("   #")[0])
        assert words[0] == "bertsym", f"not a command of bertsym: {command}"
        if command not in done:
            done[command] = cli(*(word.strip("\"'") for word in words[1:]))
        result = done[command]
        failing = any(line.startswith("Error: ") for line in shown)
        assert (result.code != 0) == failing, f"{command}: exit code {result.code}\n{result.err}"
        printed = numbers_aside(result.err + result.out)
        for line in shown:
            text = numbers_aside(line.removesuffix("..."))
            assert text in printed, f"{command} does not print {line!r} but\n{result.out}{result.err}"
            printed = printed[printed.index(text) + len(text) :]


def run_python(body: str, page: str, names: dict[str, object]) -> None:
    """Run a block; what follows ``# ->`` in it begins the line that is printed there."""
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        exec(compile(body, page, "exec"), names)
    lines = iter(printed.getvalue().splitlines())
    for shown in re.findall(r"# -> (.+)$", body, re.MULTILINE):
        assert any(numbers_aside(line).startswith(numbers_aside(shown)) for line in lines), (
            f"{shown!r} is not printed, but\n{printed.getvalue()}"
        )


def numbers_aside(text: str) -> str:
    """The text without its figures: README.md shows those of real weights, and the tests run a tiny model."""
    return re.sub(r"\d+", "N", text)


@pytest.mark.parametrize("page", [page for page in PAGES if any(block.language in RUN for block in blocks(page))])
def test_the_examples_of_a_page_print_the_shown_output(
    page: str, cli: Cli, folder: Path, done: dict[str, Result], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(folder / "readme" if page == "README.md" else folder)
    monkeypatch.setitem(ENGINES, "mxnet", dataclasses.replace(ENGINES["mxnet"], loaders=()))
    names: dict[str, object] = {}
    for block in blocks(page):
        if block.reason is not None:
            continue
        if block.language == "console":
            run_console(block.body, cli, done)
        elif block.language == "python":
            run_python(block.body, page, names)


def test_each_block_is_run_or_has_a_reason(capsys: pytest.CaptureFixture[str]) -> None:
    every = [block for page in PAGES for block in blocks(page)]
    run = sum(block.language in RUN and block.reason is None for block in every)
    with capsys.disabled():
        print(f"examples of the documentation: {run} run, {sum(block.reason is not None for block in every)} not run")
    for page in PAGES:
        for block in blocks(page):
            known = (*RUN, *SHOWN, *SETUP.get(page, ()))
            assert block.reason or block.language in known, f"{page}: a block of {block.language}"


def commands() -> Iterator[click.Command]:
    context = click.Context(group)
    for name in COMMANDS:
        command = group.get_command(context, name)
        assert command is not None
        yield command


#: options of scripts and of other programs, by page
OTHER_OPTIONS = {
    "docs/benchmarks.md": {"--part", "--work", "--quick", "--plots", "--folder", "--model"},
    "docs/how-to/choose-the-output.md": {"--results"},
    "docs/how-to/fine-tune.md": {"--logdir"},
    "docs/how-to/several-machines.md": {"--servers"},
    "docs/version-grid.md": {"--embedding"},
    "docs/how-to/install.md": {"--no-deps", "--with", "--overrides", "--from", "--rm"},
}


def test_every_option_that_is_named_exists() -> None:
    options = {
        option
        for command in commands()
        for parameter in command.params
        for option in (*parameter.opts, *parameter.secondary_opts)
    }
    for page, text in PAGES.items():
        named = set(re.findall(r"(?<![\w-])(--[a-z][a-z-]+)", text)) - {"--help"}
        assert named <= options | {"--verbose"} | OTHER_OPTIONS.get(page, set()), page


def test_every_option_has_a_help_text() -> None:
    for command in commands():
        for parameter in command.params:
            if isinstance(parameter, click.Option):
                assert parameter.help, f"{command.name} {parameter.opts[0]}"


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_is_in_the_readme(command: str) -> None:
    assert f"| `bertsym {command} " in PAGES["README.md"]


def test_every_public_name_is_in_the_reference_and_nothing_else() -> None:
    listed = re.findall(r"^\.\. auto(?!module)\w+:: bertsym\.(\w+)$", PAGES["docs/api.md"], re.MULTILINE)
    assert sorted(listed) == sorted(set(bertsym.__all__))


@pytest.mark.parametrize("name", [name for name in bertsym.__all__ if name.endswith(("Error", "Stopped"))])
def test_every_error_class_is_in_troubleshooting(name: str) -> None:
    assert f"| `{name}` |" in PAGES["docs/troubleshooting.md"]


def test_the_test_matrix_has_the_pythons_of_ci_and_one_environment_without_mxnet() -> None:
    row = r"^\| (3\.\d+)\S* \| [\d.]+ \| (mxnet [\d.]+, )?onnxruntime [\d.]+ \| passed: \d+ passed"
    rows = [(python, bool(mxnet)) for python, mxnet in re.findall(row, PAGES["docs/test-matrix.md"], re.MULTILINE)]
    run = re.search(r"^scripts/test_matrix \S*/3\.\{([\d,]+)\}", (ROOT / ".ci/run").read_text(), re.MULTILINE)
    assert run is not None
    pythons = [f"3.{minor}" for minor in run[1].split(",")]
    assert rows == [*((python, True) for python in pythons), (pythons[-1], False)]


@pytest.mark.parametrize("name", FILE_NAMES)
def test_every_file_of_the_bundle_is_described(name: str) -> None:
    assert f"`PREFIX-{name}`" in PAGES["docs/bundle-format.md"]


def test_every_kind_of_source_is_described() -> None:
    page = PAGES["docs/how-to/export-hugging-face.md"]
    kinds = ("gluonnlp", "hf", "params", "tf", "random")
    with pytest.raises(bertsym.BertsymError) as raised:
        load_source("other")
    assert ", ".join(f"{kind}:..." for kind in kinds) in str(raised.value)
    for kind in kinds:
        assert f"`{kind}:" in page


def test_every_message_in_troubleshooting_is_in_the_code() -> None:
    texts = [text.text for path in sorted((ROOT / "bertsym").rglob("*.py")) for text in strings(path)]
    rows = re.findall(
        r"^\| (`[^|]+) \| ", PAGES["docs/troubleshooting.md"].partition("## Error classes")[0], re.MULTILINE
    )
    assert len(rows) > 15
    for row in rows:
        message = re.findall(r"`([^`]+)`", row)[0]
        parts = [part.strip(" :;,()") for part in message.split("...")]
        assert any(all(part in text for part in parts) for text in texts), f"no message of the code is {message!r}"


def test_the_readme_is_short() -> None:
    assert PAGES["README.md"].count("\n") <= 150


@pytest.mark.parametrize("page", PAGES)
def test_links_to_files_lead_to_files(page: str) -> None:
    text = re.sub(r"```.*?```", "", PAGES[page], flags=re.S)
    for target in re.findall(r"\]\((?!https?:|#)([^)#\s]+)", text):
        place = (ROOT / page).parent / target
        if not place.exists() and page in ("CONTRIBUTING.md", "SECURITY.md"):
            place = DOCS / target
        assert place.exists(), target


def check_site() -> ModuleType:
    path = ROOT / "scripts" / "maintenance" / "check_site.py"
    spec = importlib.util.spec_from_file_location("check_site", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["check_site"] = module
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize(
    ("html", "faults"),
    [
        ('<a href="other.html#here">', []),
        ('<a href="https://example.org">', []),
        ('<a href="missing.html">', ["page.html: link to missing.html: no such file"]),
        ('<a href="other.html#there">', ["page.html: link to other.html#there: the page does not have this id"]),
        ('<script src="https://example.org/x.js">', ["page.html: fetches https://example.org/x.js"]),
        ("<style>@import '//example.org/x.css'</style>", ["page.html: fetches //example.org/x.css"]),
    ],
)
def test_the_site_is_checked_for_dead_links_and_fetches(html: str, faults: list[str], tmp_path: Path) -> None:
    (tmp_path / "page.html").write_text(html)
    (tmp_path / "other.html").write_text('<h1 id="here">')
    assert check_site().check(tmp_path) == faults
