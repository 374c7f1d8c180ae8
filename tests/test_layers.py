"""Imports run downwards only, and mxnet is imported when it is needed."""

from __future__ import annotations

import ast
import functools
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest
from tools import AS_A_COMMAND, run_python

import bertsym
from bertsym.cli.group import COMMANDS

PACKAGE = Path(bertsym.__file__).parent

# Module or folder -> what it may import of bertsym, folders with everything in them. The longest entry counts.
ALLOWED: dict[str, set[str]] = {
    "errors": set(),
    "array": {"errors", "compat.installing"},
    "terminal": set(),
    "events": set(),
    "monitoring": {"errors", "events", "metrics", "monitoring", "terminal"},
    "web_page": set(),
    "file_reader": {"errors"},
    "json_reader": {"errors", "file_reader"},
    "provenance": {"compat.installing"},
    "locking": set(),
    "atomic_writing": {"errors", "file_reader", "locking"},
    "forking": set(),
    "processors": set(),
    "address_space": {"errors", "processors"},
    "compat": {"errors", "compat"},
    "mxnet_runtime": {"errors", "address_space", "compat", "forking", "processors"},
    "demo": {"errors", "compat"},
    "diagnosis": {"errors", "address_space", "compat", "processors", "analysis.known_defects", "execution.engines"},
    "devices": {"errors", "mxnet_runtime"},
    "symbol": {"errors", "file_reader", "json_reader", "symbol"},
    "datasets": {"errors", "file_reader", "json_reader", "datasets"},
    "text": {"errors", "file_reader", "json_reader", "datasets", "text"},
    "text.features": {"errors", "text", "encoders.config", "encoders.inputs"},
    "metrics": {"metrics"},
    "reports.blocks": set(),
    "reports.options": set(),
    "reports.assessment": {"metrics", "reports.blocks"},
    "reports.classification": {"metrics", "reports.blocks", "reports.assessment"},
    "reports.regression": {"reports.blocks", "reports.assessment"},
    "reports.tagging": {"metrics", "reports.blocks", "reports.assessment"},
    "reports.questions": {"reports.blocks", "reports.assessment"},
    "tasks": {
        *("errors", "events", "json_reader", "datasets", "text", "metrics", "tasks"),
        *("reports.blocks", "reports.assessment"),
        *("reports.classification", "reports.regression", "reports.tagging", "reports.questions"),
        *("encoders.catalogue", "encoders.graph_heads"),
    },
    "encoders": {"errors", "mxnet_runtime", "symbol", "encoders"},
    "encoders.config": {"errors"},
    "encoders.inputs": {"errors", "encoders.config"},
    "encoders.parameters": {"errors", "encoders.catalogue", "encoders.config"},
    "encoders.folding": {"encoders.config", "encoders.parameters"},
    "encoders.catalogue": set(),
    "encoders.sentence_embedding": set(),
    "encoders.forms": {"errors"},
    "encoders.spec": {"encoders.config", "encoders.inputs", "encoders.parameters"},
    "analysis": {
        "errors",
        "symbol",
        "analysis",
        "encoders.catalogue",
        "encoders.config",
        "encoders.inputs",
        "families",
    },
    "analysis.encoder_extraction": {
        "errors",
        "symbol",
        "analysis",
        "encoders.config",
        "encoders.parameters",
        "encoders.spec",
    },
    "encoders.graph_heads": {"symbol", "encoders.catalogue"},
    "passes": {"errors", "symbol", "families", "analysis", "encoders", "passes"},
    "families": {"encoders.catalogue", "encoders.parameters", "families"},
    "signature": {
        *("json_reader", "datasets", "text", "families"),
        *("encoders.forms", "encoders.inputs", "encoders.sentence_embedding"),
    },
    "bundle": {
        "errors",
        "provenance",
        "file_reader",
        "json_reader",
        "atomic_writing",
        "bundle",
        "signature",
        "symbol",
        "analysis",
        "text",
        "encoders.config",
        "encoders.inputs",
        "encoders.catalogue",
        "encoders.folding",
        "encoders.forms",
        "encoders.graph_heads",
        "encoders.parameters",
        "encoders.sentence_embedding",
    },
    "model": {"errors", "file_reader", "symbol", "analysis", "bundle"},
    "execution.engines": {
        "errors",
        "compat",
        "mxnet_runtime",
        "symbol",
        "signature",
        "passes",
        "onnx_export.graph_conversion",
        "onnx_export.operator_converters",
        "onnx_export.libraries",
        "onnx_export.fused_encoder",
        "analysis",
        "encoders.config",
        "encoders.folding",
    }
    | {"execution.engines", "execution.loaders"},
    "execution": {
        "errors",
        "address_space",
        "compat.quick_import",
        "forking",
        "mxnet_runtime",
        "symbol",
        "encoders.inputs",
        "analysis",
        "model",
        "execution",
    },
    "inspection": {
        "errors",
        "text.tokenizer",
        "symbol",
        "signature",
        "encoders.inputs",
        "encoders.sentence_embedding",
        "analysis",
        "bundle",
        "model",
        "execution",
        "inspection",
        "terminal",
    },
    "surgery": {
        "errors",
        "file_reader",
        "json_reader",
        "signature",
        "symbol",
        "encoders",
        "analysis",
        "passes",
        "bundle",
        "model",
        "execution",
        "families",
        "sources.hugging_face_tokenizer",
        "sources.tokenizer_files",
        "surgery",
        "terminal",
        "datasets",
        "text",
    },
    "surgery.diff_report": {"reports", "surgery"},
    "onnx_export": {"errors", "symbol", "onnx_export"},
    "onnx_export.libraries": {"errors", "compat.installing", "processors"},
    "onnx_export.int8_comparison": {"errors", "symbol", "execution", "surgery.output_comparison", "onnx_export"},
    "onnx_export.graph_conversion": {"errors", "signature", "symbol", "onnx_export"},
    "onnx_export.fused_encoder": {"errors", "symbol", "encoders.folding", "encoders.parameters", "encoders.spec"},
    "onnx_export.metadata": {"bundle", "model"},
    "onnx_export.transformers_signature": {
        *("errors", "signature", "symbol", "analysis.symbolic_shapes", "bundle", "model"),
    },
    "onnx_export.onnx_exporter": {
        "errors",
        "atomic_writing",
        "mxnet_runtime",
        "processors",
        "signature",
        "symbol",
        "analysis.symbolic_shapes",
        "bundle",
        "encoders.catalogue",
        "encoders.folding",
        "encoders.inputs",
        "model",
        "passes",
        "execution",
        "surgery.output_comparison",
        "verifier",
        "onnx_export",
    },
    "drawing": {"errors", "web_page", "symbol", "drawing"},
    "drawing.draw": {"errors", "atomic_writing", "symbol", "analysis.sentences", "model", "execution", "drawing"},
    "reports": {
        *(
            "errors",
            "events",
            "web_page",
            "atomic_writing",
            "provenance",
            "metrics",
            "tasks",
            "bundle",
            "drawing",
            "model",
        ),
        "reports",
    },
    "reference": {"errors", "reference"},
    "sources": {
        "errors",
        "compat.installing",
        "reference",
        "file_reader",
        "json_reader",
        "symbol",
        "text",
        "signature",
        "encoders.catalogue",
        "encoders.config",
        "encoders.parameters",
        "encoders.relative_positions",
        "encoders.sentence_embedding",
        "families",
        "bundle",
        "sources",
    },
    "sources.gluonnlp_zoo": {"errors", "mxnet_runtime", "text", "encoders.config", "sources"},
    "gluonnlp_model": {"errors", "mxnet_runtime", "encoders", "execution.loaders"},
    "verifier": {
        "errors",
        "compat.installing",
        "reference",
        "file_reader",
        "signature",
        "mxnet_runtime",
        "gluonnlp_model",
        "symbol",
        "encoders",
        "bundle",
        "execution.engines",
        "execution.loaders",
    },
    "model_card": {
        *(
            "errors",
            "bundle",
            "encoders.catalogue",
            "encoders.sentence_embedding",
            "families",
            "terminal",
            "model_card",
        ),
    },
    "destinations": {
        *(
            "errors",
            "model_card",
            "atomic_writing",
            "symbol",
            "families",
            "bundle",
            "sources",
            "verifier",
            "destinations",
        ),
        *("encoders.catalogue", "encoders.config", "encoders.folding", "encoders.graph_heads", "encoders.parameters"),
        *("encoders.sentence_embedding", "model", "surgery"),
    },
    "exporter": {"errors", "signature", "symbol", "encoders", "passes", "bundle", "sources", "verifier"},
    "acceleration": {
        "errors",
        "mxnet_runtime",
        "symbol",
        "encoders",
        "analysis",
        "passes",
        "acceleration",
    },
    "inference.bundle_tokenizer": {
        "errors",
        "json_reader",
        "signature",
        "text",
        "encoders.inputs",
        "bundle",
        "inference.prefetch",
        "inference.task_bundle",
        "tasks",
    },
    "inference.prefetch": {"errors", "text"},
    "inference.task_bundle": {
        *("errors", "json_reader", "datasets", "signature", "text", "tasks", "bundle", "symbol", "analysis"),
    },
    "training.finetune_options": {"errors", "reports.options", "tasks", "text"},
    "inference.embedding_files": {"errors", "symbol.params"},
    "inference.embed": {
        "errors",
        "atomic_writing",
        "symbol",
        "text",
        "encoders.catalogue",
        "encoders.sentence_embedding",
        "passes",
        "bundle",
        "inference",
    },
    "inference.engine_selection": {
        *("errors", "atomic_writing", "compat.installing", "forking", "mxnet_runtime", "symbol", "text", "inference"),
    },
    "inference": {
        "errors",
        "events",
        "execution.engines",
        "forking",
        "mxnet_runtime",
        "processors",
        "devices",
        "acceleration",
        "passes",
        "symbol",
        "datasets",
        "metrics",
        "tasks",
        "text",
        "encoders.config",
        "encoders.inputs",
        "bundle",
        "reports",
        "inference",
    },
    "distributed": {"errors", "mxnet_runtime", "symbol", "distributed", "terminal"},
    "training.layer_rates": {"errors", "symbol", "encoders", "analysis", "acceleration", "training.finetune_options"},
    "training": {
        "errors",
        "events",
        "model_card",
        "forking",
        "file_reader",
        "json_reader",
        "atomic_writing",
        "signature",
        "mxnet_runtime",
        "devices",
        "symbol",
        "datasets",
        "metrics",
        "tasks",
        "families",
        "text",
        "encoders",
        "passes",
        "bundle",
        "verifier",
        "acceleration",
        "inference",
        "distributed",
        "reports",
        "training",
    },
    "quantization": {
        "errors",
        "events",
        "model_card",
        "mxnet_runtime",
        "processors",
        "signature",
        "symbol",
        "datasets",
        "metrics",
        "tasks",
        "text",
        "encoders.inputs",
        "analysis.encoder_detection",
        "bundle",
        "passes",
        "acceleration",
        "inference",
        "reports",
        "quantization",
    },
    "cli": {
        "errors",
        "events",
        "monitoring",
        "terminal",
        "atomic_writing",
        "compat.installing",
        "compat.quick_import",
        "mxnet_runtime",
        "provenance",
        "model",
        "datasets",
        "metrics",
        "tasks",
        "text",
        "encoders.catalogue",
        "encoders.forms",
        "encoders.graph_heads",
        "bundle",
        "sources",
    }
    | {"symbol.validation", "execution.sandbox", "execution.engines"}
    | {
        "reports.options",
        "reports.writing",
        "destinations",
        "exporter",
        "verifier",
        "training",
        "inference",
        "inspection",
        "surgery",
        "drawing",
        "onnx_export",
    }
    | {"onnx_export", "quantization", "diagnosis", "demo", "cli"},
    "__main__": {"cli"},
}
# Nothing of these may lead to mxnet, however far the way is.
WITHOUT_MXNET = (
    *(
        "errors",
        "events",
        "monitoring",
        "file_reader",
        "json_reader",
        "atomic_writing",
        "forking",
        "address_space",
        "symbol",
        "datasets",
        "text",
        "bundle",
    ),
    *("encoders.config", "encoders.inputs", "encoders.catalogue", "encoders.parameters", "encoders.graph_heads"),
    *("encoders.forms", "encoders.spec", "encoders.graph", "passes"),
    *("reference", "analysis", "model", "inference.bundle_tokenizer"),
    *("drawing.formats", "drawing.netron"),
    *("onnx_export.graph_conversion", "onnx_export.metadata"),
)

Imports = Mapping[str, set[str]]


def module_name(path: Path) -> str:
    """``text.tables`` for bertsym/text/tables.py, ``text`` for its __init__, "" for the package's own."""
    parts = path.relative_to(PACKAGE).with_suffix("").parts
    return ".".join(part for part in parts if part != "__init__")


#: functions of mxnet that read a symbol from a path, and attributes that are looked for in the modules
BY_PATH = {"mx.sym.load", "mx.symbol.load", "mx.model.load_checkpoint"}
READERS = {"load_json", *(name.rpartition(".")[2] for name in BY_PATH)}

MODULES = {module_name(path): path for path in PACKAGE.rglob("*.py")}


@dataclass(frozen=True)
class Uses:
    """What a module uses: modules of bertsym, top packages of everything else, attributes such as ``mx.sym.load``."""

    ours: set[str]
    others: set[str]
    attributes: set[str]


def imported_names(node: ast.AST) -> list[str]:
    """Dotted names that a statement imports."""
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    if isinstance(node, ast.ImportFrom):
        assert node.level == 0, "relative import"
        return [f"{node.module}.{alias.name}" for alias in node.names]
    return []


def uses_of(path: Path) -> Uses:
    """What a file uses, in functions and under TYPE_CHECKING too."""
    uses = Uses(set(), set(), set())
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Attribute) and node.attr in READERS:
            uses.attributes.add(ast.unparse(node))
        for name in imported_names(node):
            top, _, rest = name.partition(".")
            if top != "bertsym":
                uses.others.add(top)
            else:
                uses.ours.add(rest if rest in MODULES else rest.rpartition(".")[0])
    return uses


@functools.cache  # only the processes that run these tests parse all modules
def package_uses() -> dict[str, Uses]:
    return {name: uses_of(path) for name, path in MODULES.items()}


@functools.cache
def package_imports() -> dict[str, set[str]]:
    """Map each module to the modules of bertsym that it imports."""
    return {name: uses.ours for name, uses in package_uses().items()}


def within(name: str, area: str) -> bool:
    return name == area or name.startswith(f"{area}.")


def violations(imports: Imports) -> list[str]:
    """Imports that the table doesn't allow; the package's own __init__ is above all but the command line."""
    found = []
    for module, targets in imports.items():
        areas = [area for area in ALLOWED if within(module, area)]
        if module == "":
            found += [f"bertsym -> {target}" for target in targets if within(target, "cli")]
        elif not areas:
            found.append(f"{module} has no place in the table")
        else:
            allowed = {"array", *ALLOWED[max(areas, key=len)]}
            found += [
                f"{module} -> {target}" for target in targets if not any(within(target, area) for area in allowed)
            ]
    return sorted(found)


def reachable(imports: Imports, start: str, folders: bool = True) -> set[str]:
    """All modules that importing one imports; with the __init__ of their folders, unless that is not wanted."""
    seen: set[str] = set()
    waiting = [start]
    while waiting:
        name = waiting.pop()
        if name not in seen:
            seen.add(name)
            waiting += imports.get(name, set())
            parent = name.rpartition(".")[0]
            if parent and folders:
                waiting.append(parent)
    return seen


# Downwards only


def test_imports_run_downwards_only() -> None:
    assert len(package_imports()) > 40
    assert violations(package_imports()) == []


@pytest.mark.parametrize(
    ("module", "target"),
    [
        ("symbol.graph", "bundle"),
        ("symbol.params", "mxnet_runtime"),
        ("symbol.params", "text.tables"),
        ("errors", "symbol.graph"),
        ("text.tables", "encoders.inputs"),
        ("text.features", "encoders.graph"),
        ("text.features", "bundle"),
        ("encoders.config", "mxnet_runtime"),
        ("encoders.symbol_heads", "bundle"),
        ("bundle", "mxnet_runtime"),
        ("bundle", "encoders.outputs"),
        ("bundle", "training.finetune_options"),
        ("sources.hugging_face", "mxnet_runtime"),
        ("onnx_export.graph_conversion", "execution.values"),
        ("verifier", "exporter"),
        ("training.trainer", "exporter"),
        ("metrics.classification", "training.trainer"),
        ("inference", "training.trainer"),
        ("mxnet_runtime", "cli.group"),
        ("training.finetune", "cli.options"),
        ("exporter", "cli"),
        ("", "cli"),
        ("new_module", "errors"),
    ],
)
def test_an_import_upwards_would_be_found(module: str, target: str) -> None:
    changed = {**package_imports(), module: package_imports().get(module, set()) | {target}}
    assert len(violations(changed)) == 1


def test_every_entry_of_the_table_is_a_module() -> None:
    assert [area for area in ALLOWED if area not in MODULES] == []
    assert [f"{area}: {name}" for area, names in ALLOWED.items() for name in names if name not in MODULES] == []


def cycles(imports: Imports) -> list[str]:
    """Imports that lead back to where they came from."""
    return sorted(
        f"{module} -> {target}"
        for module, targets in imports.items()
        for target in targets
        if module in reachable(imports, target, folders=False)
    )


def test_there_are_no_import_cycles() -> None:
    assert cycles(package_imports()) == []
    assert cycles({**package_imports(), "text.label_sets": {"text.tables"}}) == [
        "text.label_sets -> text.tables",
        "text.tables -> text.label_sets",
    ]


def test_mxnet_and_gluonnlp_are_imported_through_runtime_alone() -> None:
    """The zoo patches mxnet's download, after gluonnlp has been imported through mxnet_runtime."""
    direct = {name for name, uses in package_uses().items() if {"mxnet", "gluonnlp"} & uses.others}
    assert direct <= {"sources.gluonnlp_zoo"}


def test_mxnet_is_given_the_text_that_our_own_writer_wrote() -> None:
    """Its JSON parser and ours read some files differently, and a path may lead to another file by now."""
    used = {name: uses.attributes for name, uses in package_uses().items()}
    assert {name: found & BY_PATH for name, found in used.items() if found & BY_PATH} == {}
    assert "mx.sym.load_json" in used["acceleration.graphs"]


def test_symbols_parameters_texts_and_bundles_never_lead_to_mxnet() -> None:
    """A hostile file is only looked at: none of these can reach libmxnet."""
    for area in WITHOUT_MXNET:
        for module in (name for name in MODULES if within(name, area)):
            assert "mxnet_runtime" not in reachable(package_imports(), module), module
    assert "mxnet_runtime" in reachable(package_imports(), "encoders.outputs")


# mxnet only when it is needed


HEAVY = "sorted({'mxnet', 'gluonnlp'} & set(sys.modules))"


def test_modules_that_do_not_need_mxnet_do_not_import_mxnet() -> None:
    modules = [f"bertsym.{name}" for name in MODULES if any(within(name, area) for area in WITHOUT_MXNET)]
    assert len(modules) > 10
    code = (
        f"import sys, json, importlib\nfor name in {modules}: importlib.import_module(name)\nprint(json.dumps({HEAVY}))"
    )
    assert run_python(code) == []


def test_importing_the_package_does_not_import_mxnet() -> None:
    used = "bertsym.output_symbol(bertsym.BertConfig(1, 8, 8, 2, 9), 'cls')"
    lines = [f"{AS_A_COMMAND}import sys, json, bertsym\nfound = []"]
    for statement in ("pass", "bertsym.FinetuneOptions()", "bertsym.graft", used):
        lines += [statement, f"found.append({HEAVY})"]
    assert run_python("\n".join([*lines, "print(json.dumps(found))"])) == [[], [], [], ["mxnet"]]


USAGE: list[tuple[list[str], int]] = [
    (["--help"], 0),
    (["-h"], 0),
    (["--version"], 0),
    *[([command, "--help"], 0) for command in COMMANDS],
    (["export"], 2),
    (["export", "hf:somewhere"], 2),
    (["export", "hf:somewhere", "out", "--output", "everything"], 2),
    (["export", "hf:somewhere", "out", "--output", "mean", "--cls-slice"], 2),
    (["export", "hf:somewhere", "out", "--num-classes", "1"], 2),
    (["finetune", "base", "--train", "t.tsv", "--dev", "d.tsv"], 2),
    (["finetune", "base", "--epochs", "many"], 2),
    (["finetune", "base", "--train", "t.tsv", "--dev", "d.tsv", "o", "--epochs", "0"], 2),
    (["predict"], 2),
    (["predict", "model", "file", "--text", "a text"], 2),
    (["tokenize", "model", "file", "--text", "a text"], 2),
    (["tokenize", "no model", "--text", "a text"], 1),
    (["evaluate", "model"], 2),
    (["verify", "model", "--rtol", "-1"], 2),
    (["predict", "model", "--text", "a", "--device", "tpu"], 1),
    (["export", "tensorflow:model", "out"], 2),
    (["export", "hf:.", "out", "--vocab", "x"], 2),
    (["export", "hf:.", "out", "--num-classes", "3"], 2),
    (["export", "hf:.", "out", "--task", "regression", "--num-classes", "3"], 2),
    (["export", "hf:.", "."], 2),
    (["finetune", "base", "--train", "t.tsv", "--dev", "d.tsv", "o", "--log-json", "nowhere/log"], 2),
    (["train"], 2),
    ([], 2),
    (["--unknown"], 2),
    (["export", "--unknown"], 2),
]


def test_help_and_usage_errors_never_import_mxnet() -> None:
    """All in one interpreter, since none of them may import it; with the exit codes."""
    lines = [
        "import sys, json, contextlib, io",
        "from bertsym.cli.group import run",
        "answers = []",
        f"for arguments in {[arguments for arguments, _ in USAGE]}:",
        "    out, err = io.StringIO(), io.StringIO()",
        "    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):",
        "        code = run(arguments)",
        f"    answers.append([code, bool(out.getvalue()), bool(err.getvalue()), {HEAVY}])",
        "print(json.dumps(answers))",
    ]
    answers = run_python("\n".join(lines))
    assert isinstance(answers, list)
    for (arguments, code), answer in zip(USAGE, answers):
        # Help is what was asked for and goes to standard output, an error to standard error.
        assert answer == [code, code == 0, code != 0, []], arguments
    assert len(answers) == len(USAGE)


@pytest.mark.parametrize(("arguments", "code"), [(["--help"], 0), (["export"], 2), (["finetune", "--help"], 0)])
def test_the_program_itself_does_not_import_mxnet_for_help(arguments: list[str], code: int) -> None:
    result = subprocess.run(
        [sys.executable, "-X", "importtime", "-m", "bertsym", *arguments], capture_output=True, text=True, timeout=60
    )
    imported = {line.rpartition("|")[2].strip() for line in result.stderr.splitlines() if "import time:" in line}
    assert "bertsym.cli.group" in imported
    assert not {"mxnet", "gluonnlp"} & imported
    assert result.returncode == code
