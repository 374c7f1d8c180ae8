"""The oldest MXNet that loads a graph: what decides it, what no MXNet loads, and that the table fits MXNet itself."""

from __future__ import annotations

import ast
import importlib.util
import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from bertsym import BertConfig, output_symbol
from bertsym.analysis import token_flow_rules
from bertsym.encoders import catalogue
from bertsym.execution import bounds_checks
from bertsym.mxnet_runtime import mx
from bertsym.onnx_export import operator_converters
from bertsym.passes import release_adaptation
from bertsym.symbol import operator_traits, operator_versions, shape_inference, upgrading
from bertsym.symbol.graph import SymbolGraph
from bertsym.symbol.operator_versions import Requirement, Unknown, is_operator, oldest_mxnet

SCRIPT = Path(__file__).parents[1] / "scripts" / "maintenance" / "operator_table.py"


@dataclass(frozen=True)
class Op:
    """A node."""

    op: str
    attrs: Mapping[str, str] = field(default_factory=dict)
    name: str = "node"


# What decides


@pytest.mark.parametrize(
    ("op", "attrs", "version"),
    [
        ("softmax", {"axis": "-1"}, "1.0.0"),
        ("softmax", {"temperature": "None"}, "1.3.0"),
        ("softmax", {"dtype": "float32"}, "1.5.0"),
        ("softmax", {"use_length": "True"}, "1.6.0"),
        ("Dropout", {"p": "0.1", "cudnn_off": "False"}, "1.5.0"),
        ("Dropout", {"p": "0.1", "axes": "(1,)"}, "1.2.0"),
        ("LeakyReLU", {"act_type": "gelu"}, "1.5.0"),
        ("LeakyReLU", {"act_type": "selu"}, "1.3.0"),
        ("_contrib_arange_like", {"axis": "1"}, "1.6.0"),
        ("_contrib_interleaved_matmul_selfatt_qk", {"heads": "2"}, "1.6.0"),
        ("SequenceMask", {"use_sequence_length": "True"}, "1.0.0"),
        ("SequenceMask", {"use_sequence_length": "True", "axis": "1"}, "1.1.0"),
        ("LayerNorm", {"axis": "-1", "eps": "1e-12"}, "1.2.0"),
        ("erf", {}, "1.4.0"),
        ("slice_like", {"axes": "(1,)"}, "1.2.0"),
        ("batch_dot", {"forward_stype": "default"}, "1.3.0"),
        ("Embedding", {"input_dim": "3", "output_dim": "2", "sparse_grad": "True"}, "1.3.0"),
        ("Embedding", {"input_dim": "3", "output_dim": "2"}, "1.0.0"),
        ("_npi_add", {}, "1.6.0"),
        ("_npi_add_scalar", {"scalar": "1"}, "1.6.0"),
        ("_plus_scalar", {"scalar": "1"}, "1.0.0"),
        ("_plus_scalar", {"scalar": "1", "is_int": "False"}, "1.0.0"),
        ("_rnn_param_concat", {"dim": "0", "num_args": "1"}, "1.3.0"),
        ("sum", {"axis": "None"}, "1.2.0"),
        ("diag", {"k": "None"}, "1.3.0"),
        ("Pooling", {"global_pool": "True"}, "1.2.0"),
        ("add_n", {"num_args": "2"}, "1.0.0"),
        ("_contrib_div_sqrt_dim", {}, "1.3.0"),
        ("cast", {"dtype": "int64"}, "1.2.0"),
        ("Cast", {"dtype": "bool"}, "1.6.0"),
        ("Activation", {"act_type": "softsign"}, "1.2.0"),
        ("broadcast_like", {"lhs_axes": "(0,)", "rhs_axes": "(0,)"}, "1.3.0"),
        ("_np_ones_like", {}, "1.6.0"),
        ("_npx_softmax", {"axis": "-1"}, "1.6.0"),
        ("Softmax", {}, "1.0.0"),
        ("FullyConnected", {"num_hidden": "3", "flatten": "False"}, "1.0.0"),
        ("split", {"num_outputs": "3", "axis": "1"}, "1.0.0"),
        ("expand_dims", {"axis": "1"}, "1.0.0"),
        ("shape_array", {}, "1.3.0"),
        ("_contrib_boolean_mask", {"axis": "0"}, "1.4.0"),
        ("take", {"mode": "raise"}, "1.3.0"),
        ("stack", {"axis": "1", "num_args": "2"}, "1.0.0"),
        ("norm", {"ord": "1"}, "1.0.0"),
        ("norm", {}, "1.0.0"),
        ("where", {}, "1.0.0"),
        ("amp_cast", {"dtype": "float16"}, "1.5.0"),
        ("moments", {}, "1.5.0"),
        ("_npi_matmul", {}, "1.7.0"),
    ],
)
def test_one_node_needs_the_first_version_whose_load_json_takes_it(
    op: str, attrs: dict[str, str], version: str
) -> None:
    """Each was loaded under the wheel of every version."""
    oldest = oldest_mxnet([Op(op, attrs)])
    assert (oldest.version, oldest.unknown) == (version, [])


def test_the_most_demanding_nodes_decide_with_their_reason() -> None:
    nodes = [
        Op("erf", name="e"),
        Op("LeakyReLU", {"act_type": "gelu"}, "g"),
        Op("softmax", {"use_length": "True"}, "s"),
        Op("softmax", {"use_length": "True"}, "t"),
    ]
    oldest = oldest_mxnet(nodes)
    assert oldest.requirements == [
        Requirement(oldest.version, "s", "softmax use_length"),
        Requirement(oldest.version, "t", "softmax use_length"),
    ]


def test_an_enum_s_value_is_a_reason() -> None:
    (requirement,) = oldest_mxnet([Op("LeakyReLU", {"act_type": "gelu"}, "g")]).requirements
    assert (requirement.node, requirement.reason) == ("g", "LeakyReLU act_type=gelu")


def test_a_new_operator_is_a_reason_without_its_attributes() -> None:
    (requirement,) = oldest_mxnet([Op("_contrib_interleaved_matmul_selfatt_qk", {"heads": "2"})]).requirements
    assert requirement.reason == "_contrib_interleaved_matmul_selfatt_qk"


def test_omitting_an_attribute_that_older_versions_require_is_a_reason() -> None:
    (requirement,) = oldest_mxnet([Op("Pooling", {"global_pool": "True", "kernel": "(1, 1)"})]).requirements
    assert requirement.reason == "Pooling without pool_type"


def test_a_graph_that_every_version_loads_has_no_requirements() -> None:
    oldest = oldest_mxnet([Op("FullyConnected", {"num_hidden": "4"})])
    assert (oldest.version, oldest.requirements, oldest.unknown) == ("1.0.0", [], [])


def test_the_graph_of_a_bert_loads_and_lists_its_requirements() -> None:
    config = BertConfig(num_layers=1, units=8, hidden_size=16, num_heads=2, vocab_size=50, max_length=12)
    oldest = oldest_mxnet(SymbolGraph.parse(output_symbol(config, "cls").tojson()).nodes)
    assert oldest.unknown == []
    assert all(requirement.version == oldest.version for requirement in oldest.requirements)


# Attributes that are the user's


def test_a_variable_may_have_any_attribute() -> None:
    variable = Op("null", {"lr_mult": "2", "colour": "red", "__init__": "zeros"})
    assert oldest_mxnet([variable]) == oldest_mxnet([])


def test_an_operator_may_have_any_attribute_in_double_underscores() -> None:
    assert oldest_mxnet([Op("softmax", {"__colour__": "red", "__ctx_group__": "a"})]) == oldest_mxnet([])


@pytest.mark.parametrize("attribute", ["ctx_group", "lr_mult", "wd_mult", "force_mirroring", "mirror_stage", "__half"])
def test_an_unknown_attribute_without_double_underscores_is_reported(attribute: str) -> None:
    assert oldest_mxnet([Op("softmax", {attribute: "1"})]).unknown == [Unknown("node", f"softmax {attribute}")]


def test_an_operator_without_parameters_takes_any() -> None:
    assert oldest_mxnet([Op("relu", {"colour": "red"})]) == oldest_mxnet([])


# What no version loads


@pytest.mark.parametrize(
    ("op", "attrs", "reason"),
    [
        ("Softmaxx", {}, "Softmaxx"),
        ("softmax", {"colour": "red"}, "softmax colour"),
        ("LeakyReLU", {"act_type": "swish"}, "LeakyReLU act_type=swish"),
        ("FullyConnected", {}, "FullyConnected without num_hidden"),
    ],
)
def test_a_node_that_no_version_loads_is_ignored_as_unknown(op: str, attrs: dict[str, str], reason: str) -> None:
    oldest = oldest_mxnet([Op(op, attrs, "odd")])
    assert (oldest.version, oldest.unknown) == ("1.0.0", [Unknown("odd", reason)])


def test_an_operator_removed_before_another_was_added_is_unknown() -> None:
    oldest = oldest_mxnet([Op("_np_ones_like", name="old"), Op("_npi_pad", {"pad_width": "((0,0),)"}, "new")])
    assert oldest.version == "1.7.0"
    assert oldest.unknown == [Unknown("old", "_np_ones_like (until 1.6.0)")]


# Names


@pytest.mark.parametrize("name", ["FullyConnected", "broadcast_plus", "_Plus", "reshape", "Reshape", "_npx_reshape"])
def test_operators_and_their_aliases_are_known(name: str) -> None:
    assert is_operator(name)


@pytest.mark.parametrize("name", ["null", "", "softmaxx", "_backward_Activation", "_np_ones_like"])
def test_variables_gradients_and_removed_operators_are_not_operators(name: str) -> None:
    assert not is_operator(name)


# The table


def script() -> ModuleType:
    spec = importlib.util.spec_from_file_location("operator_table", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_table_has_all_operators_of_the_installed_mxnet() -> None:
    assert mx.__version__ == "1.9.1"
    library = script()
    names = {name for name in library.registered() if not name.startswith("_backward_")}
    assert {name for name in names if not is_operator(name)} == set()
    table = json.loads(Path(operator_versions.__file__).with_name("operators.json").read_text())
    assert table["versions"][-1] == "1.9.0"
    missing = set()
    for name in names:
        entry = table["operators"][name]
        known = {attr for span, attrs in entry.get("attributes", {}).items() if "-" not in span for attr in attrs}
        kinds = library.parameters(name)
        assert set(kinds) <= known, name
        for attribute, kind in kinds.items():
            groups = entry.get("values", {}).get(attribute, {})
            declared = set(library.enum_values(kind) or ())
            missing |= {(name, attribute) for value in declared if not any(value in group for group in groups.values())}
    # Declared for every operator with a dtype, but this one refuses some.
    assert missing == {("_contrib_SparseEmbedding", "dtype")}


# What operators do


def test_aliases_and_defaults_of_the_traits_are_those_of_the_installed_mxnet() -> None:
    library = script()
    registered = {*library.registered()}
    for operator, found in operator_traits.TRAITS.items():
        if operator not in registered:
            assert operator == "CuDNNBatchNorm"  # in builds for GPUs only
            continue
        kinds = library.parameters(operator)
        for alias in found.aliases:
            assert library.parameters(alias) == kinds, alias
        for key, default in found.defaults.items():
            text = kinds[key].partition("default=")[2].strip("'")
            assert np.float32(text) == np.float32(default), (operator, key)


def test_traits_name_attributes_of_the_table() -> None:
    table = json.loads(Path(operator_versions.__file__).with_name("operators.json").read_text())["operators"]
    for operator, found in operator_traits.TRAITS.items():
        if operator == "CuDNNBatchNorm":  # in builds for GPUs only
            continue
        assert {operator, *found.aliases} <= {*table}
        attributes = {name for names in table[operator].get("attributes", {}).values() for name in names}
        assert {*found.defaults} <= attributes, operator


def test_auxiliary_states_are_parameters_and_no_name_is_listed_twice() -> None:
    names = [name for op, found in operator_traits.TRAITS.items() for name in (op, *found.aliases)]
    assert len(names) == len({*names})
    assert all(
        {*found.auxiliary} <= {*found.parameters} for found in operator_traits.TRAITS.values() if found.parameters
    )


def operators_in(path: Path) -> Iterator[str]:
    """Strings that a module compares with a node's operator, or gives to a method of a graph as one."""
    for node in ast.walk(ast.parse(path.read_text())):
        values: list[ast.expr] = []
        if isinstance(node, ast.Compare) and isinstance(node.left, ast.Attribute) and node.left.attr == "op":
            values = node.comparators
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
            values = [keyword.value for keyword in node.keywords if keyword.arg == "op"]
            if isinstance(node.func.value, ast.Name) and node.func.value.id in ("graph", "base", "rest"):
                values += node.args[:1] if node.func.attr == "add" else []
                values += node.args[1:2] if node.func.attr in ("replace", "insert_after") else []
        for value in values:
            for constant in ast.walk(value):
                if isinstance(constant, ast.Constant) and isinstance(constant.value, str):
                    yield constant.value


@pytest.mark.parametrize("package", ["symbol", "passes", "analysis", "execution", "bundle", "surgery"])
def test_operators_that_the_code_names_exist(package: str) -> None:
    folder = Path(operator_traits.__file__).parents[1] / package
    named = {name for path in folder.glob("*.py") for name in operators_in(path)}
    assert named - {"null", "it"}
    assert {name for name in named if name != "null" and not is_operator(name)} == set()


@pytest.mark.parametrize(
    "operators",
    [
        catalogue.OPERATORS,
        operator_converters.CONVERTERS,
        operator_converters.INTEGER_INPUTS,
        bounds_checks.RULES,
        release_adaptation._NEUTRAL,
        shape_inference._RULES,
        token_flow_rules.RULES,
        token_flow_rules._REDUCTIONS,
        upgrading._MISSING,
    ],
)
def test_operators_of_other_tables_exist(operators: Iterable[str]) -> None:
    assert {name for name in operators if name != "null" and not is_operator(name)} == set()
