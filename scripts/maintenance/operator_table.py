#!/usr/bin/env python
"""Write the table of MXNet's operators by version, bertsym/symbol/operators.json.

    operator_table.py dump >DUMP            under each mxnet: what libmxnet accepts; runs on Python 3.6
    operator_table.py merge DUMP... >TABLE  under any Python: merge the dumps to one table

A merge needs a dump of every release line of the table.

The descriptions of libmxnet are incomplete (an operator without parameters takes any attribute, some parameters are
required although no type lists them), so a dump also loads many graphs of one node.

Linux x86-64 only, since it runs MXNet.
"""

import ctypes
import json
import os
import re
import signal
import sys

INPUTS = ("NDArray", "Symbol")
ENUM = re.compile(r"\{(.*?)\}")
FIELD = re.compile(r"^(\w+) : (.+)$", re.MULTILINE)
MADE_UP = "no_such_attribute"
# Examples of the kinds of values that only some versions accept.
EXAMPLES = ("None", "-1", "(-1,)", "(None,)")


# Dump


def dump():
    import mxnet

    names = [name for name in registered() if not name.startswith("_backward_")]
    return {"version": mxnet.__version__, "operators": {name: describe(name) for name in names}}


def registered():
    """Return the sorted possible values of a node's "op", including aliases and internal operators."""
    from mxnet.base import _LIB, check_call

    size = ctypes.c_uint()
    names = ctypes.POINTER(ctypes.c_char_p)()
    check_call(_LIB.NNListAllOpNames(ctypes.byref(size), ctypes.byref(names)))
    return sorted(names[i].decode() for i in range(size.value))


def parameters(operator):
    """Map attributes to types as libmxnet writes them: "int, required", "{'elu', 'gelu'},optional, default='elu'"."""
    from mxnet.base import _LIB, check_call

    # Creators are listed without aliases, but an alias has the handle of its operator.
    handle = ctypes.c_void_p()
    check_call(_LIB.NNGetOpHandle(operator.encode(), ctypes.byref(handle)))
    name, description, variadic, returned = (ctypes.c_char_p() for _ in range(4))
    size = ctypes.c_uint()
    names, types, descriptions = (ctypes.POINTER(ctypes.c_char_p)() for _ in range(3))
    answers = (name, description, size, names, types, descriptions, variadic, returned)
    check_call(_LIB.MXSymbolGetAtomicSymbolInfo(handle, *[ctypes.byref(answer) for answer in answers]))
    pairs = sorted((names[i].decode(), types[i].decode()) for i in range(size.value))
    return {name: kind for name, kind in pairs if not kind.startswith(INPUTS)}


def enum_values(kind):
    """Return the values of an enum type, or None for another type."""
    found = ENUM.match(kind)
    return sorted(value.strip().strip("'") for value in found.group(1).split(",")) if found else None


def describe(operator):
    """Describe the attributes of an operator.

    open: any attribute is accepted; attributes: names; required: attributes without which a node doesn't load;
    values: values of enums; refused: attribute -> the EXAMPLES that it does not accept.
    """
    kinds = parameters(operator)
    # Descriptions omit some, such as num_args of add_n; the error for an unknown attribute lists all.
    fields = load(operator, [{MADE_UP: "1"}])[0].partition("Possible Arguments")[2]
    for name, kind in FIELD.findall(fields):
        kinds.setdefault(name, kind)
    needed = {name: some_value(kind) for name, kind in kinds.items() if "optional" not in kind}
    values = {name: enum_values(kind) for name, kind in kinds.items() if enum_values(kind)}
    plain = [name for name in kinds if name not in values]

    graphs = [needed, dict(needed, **{MADE_UP: "1"})]
    graphs += [{name: value for name, value in needed.items() if name != left_out} for left_out in needed]
    graphs += [dict(needed, **{name: value}) for name in values for value in values[name]]
    graphs += [dict(needed, **{name: example}) for name in plain for example in EXAMPLES]
    answers = load(operator, graphs)

    good, unknown = answers.pop(0), answers.pop(0)
    without = dict(zip(needed, answers))
    example_answers = iter(answers[len(answers) - len(plain) * len(EXAMPLES) :])
    refused = {name: [example for example in EXAMPLES if next(example_answers) != ""] for name in plain}
    if good != "":
        # Such as Custom, which needs the name of a registered operator.
        sys.stderr.write(f"{operator}: not loaded, described by libmxnet alone: {good[-100:]}\n")
        return described("Cannot find argument" not in unknown, kinds, list(needed), values, {})
    enum_answers = iter(answers[len(needed) :])
    # Some values are declared but not implemented, such as mode=raise of take before 1.3.
    values = {name: [value for value in values[name] if next(enum_answers) == ""] for name in values}
    required = [name for name in needed if without[name] != ""]
    return described(unknown == "", kinds, required, values, {name: kind for name, kind in refused.items() if kind})


def described(is_open, kinds, required, values, refused):
    return {"open": is_open, "attributes": list(kinds), "required": required, "values": values, "refused": refused}


def some_value(kind):
    values = enum_values(kind)
    return values[-1] if values else "(1,)" if re.match("Shape|tuple", kind) else "1"


def load(operator, graphs):
    """Why a node with each of the attributes is refused, "" if it isn't."""
    import mxnet

    answers = []
    while len(answers) < len(graphs):
        # In a process of its own: the library aborts on some, and never ends on others.
        reader, writer = os.pipe()
        child = os.fork()
        if child == 0:
            os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
            for attrs in graphs[len(answers) :]:
                signal.alarm(2)
                os.write(writer, json.dumps(refusal(mxnet, operator, attrs)).encode() + b"\n")
            os._exit(0)
        os.close(writer)
        with os.fdopen(reader) as lines:
            answers += [json.loads(line) for line in lines]
        os.waitpid(child, 0)
        if len(answers) < len(graphs):
            answers.append("aborts")
    return answers


def refusal(mxnet, operator, attrs):
    node = {"op": operator, "name": "node", "attrs": attrs, "inputs": []}
    graph = {"nodes": [node], "arg_nodes": [], "node_row_ptr": [0, 1], "heads": [[0, 0, 0]]}
    try:
        mxnet.sym.load_json(json.dumps(graph))
    except mxnet.base.MXNetError as error:
        return str(error).split("Stack trace")[0].strip() or "?"
    return ""


# Merge


def merge(dumps):
    """The table: its versions, and operator -> what dumps of `describe` say, each fact by the versions it holds in.

    "1.4.0" are all from 1.4.0 on, "1.0.0-1.6.0" those only, and facts of the same versions are one list.
    Of "refused", only what other versions take is kept.
    """
    # A wheel stands for its release line: 1.5.1 for 1.5.0.
    lines = {re.sub(r"^(\d+\.\d+)\..*", r"\1.0", each["version"]): each["operators"] for each in dumps}
    if len(lines) < len(dumps):
        raise SystemExit("two dumps of one release line")
    versions = sorted(lines, key=lambda version: [int(part) for part in version.split(".")])
    names = sorted({name for operators in lines.values() for name in operators})
    table = {}
    for name in names:
        there = {version: lines[version][name] for version in versions if name in lines[version]}
        table[name] = entry(there, versions)
    return versions, table


def entry(there, versions):
    def grouped(facts):
        """Version -> its facts, as span -> the facts that hold in it."""
        groups = {}
        for fact in sorted(set().union(*facts.values())):
            key = span([version for version in there if fact in facts[version]], versions)
            groups.setdefault(key, []).append(fact)
        return {key: groups[key] for key in sorted(groups)}

    def each(key, name=None):
        return {version: found[key] if name is None else found[key].get(name, []) for version, found in there.items()}

    merged = {"in": span(list(there), versions)}
    is_open = [version for version, found in there.items() if found["open"]]
    if is_open:
        merged["open"] = span(is_open, versions)
    for key in ("attributes", "required"):
        merged[key] = grouped(each(key))
    enums = sorted({name for found in there.values() for name in found["values"]})
    merged["values"] = {name: grouped(each("values", name)) for name in enums}
    merged["refused"] = {}
    for name in sorted({name for found in there.values() for name in found["refused"]}):
        known = [set(found["refused"].get(name, [])) for found in there.values() if name in found["attributes"]]
        refused = each("refused", name)
        groups = grouped({version: set(refused[version]) - set.intersection(*known) for version in refused})
        if groups:
            merged["refused"][name] = groups
    return {key: value for key, value in merged.items() if value}


def span(holds, versions):
    first, last = versions.index(holds[0]), versions.index(holds[-1])
    if len(holds) != last - first + 1:
        raise SystemExit(f"{holds} is not without gaps")
    return holds[0] if holds[-1] == versions[-1] else holds[0] + "-" + holds[-1]


def write(versions, table):
    """One operator a line."""
    lines = [f"{json.dumps(name)}: {json.dumps(found)}" for name, found in table.items()]
    print('{{"versions": {},\n"operators": {{\n{}\n}}}}'.format(json.dumps(versions), ",\n".join(lines)))


def main(arguments):
    if arguments == ["dump"]:
        json.dump(dump(), sys.stdout)
    elif arguments[:1] == ["merge"] and arguments[1:]:
        dumps = []
        for path in arguments[1:]:
            with open(path) as file:
                dumps.append(json.load(file))
        write(*merge(dumps))
    else:
        sys.exit(__doc__)


if __name__ == "__main__":
    main(sys.argv[1:])
