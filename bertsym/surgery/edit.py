"""Edit names, attributes and dropout of a symbol, in all its graphs and in its parameters."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from bertsym.bundle import Bundle, has_bundle
from bertsym.encoders.config import BertConfig
from bertsym.errors import ModelError, UsageError, join_names
from bertsym.execution import listed_outputs
from bertsym.model import Model, ModelSource, require_params, suggest_export
from bertsym.passes.dropout_insertion import insert_dropout
from bertsym.signature import Signature
from bertsym.surgery.bundle_options import BundleOptions
from bertsym.surgery.output_comparison import Difference, check_equal, compare
from bertsym.surgery.result_writing import Changed, SurgeryResult, changed_model, end_shapes, label_inputs, write
from bertsym.symbol.attributes import decimal
from bertsym.symbol.graph import SymbolGraph
from bertsym.symbol.node import Node
from bertsym.symbol.node_names import number_repeated, references


@dataclass(frozen=True)
class Edits:
    """Changes to a symbol, made in this order: names, attributes, dropout.

    ``renames`` and ``prefixes`` are pairs of old and new; a rename may be a pattern with the same number of ``*`` on
    both sides. If a rule matches several nodes with the same name, their new names are numbered: ``NEW``, ``NEW_2``.
    ``OLD#2`` matches only the second node named ``OLD``. ``attributes`` are triples of a node or pattern, attribute and
    value. ``dropout`` is the new probability of all Dropout nodes, or ``off``, which removes them; with a probability
    above 0, a BERT gets the nodes that it lacks too, in the places of `insert_dropout`.
    """

    renames: tuple[tuple[str, str], ...] = ()
    prefixes: tuple[tuple[str, str], ...] = ()
    attributes: tuple[tuple[str, str, str], ...] = ()
    dropout: float | str | None = None


@dataclass(frozen=True)
class EditResult:
    """Result of `edit`."""

    changes: list[str]  #: one line per change
    written: SurgeryResult | None  #: None after a dry run


def edit(
    source: str | Path | ModelSource,
    out: str | Path | None,
    edits: Edits,
    *,
    options: BundleOptions = BundleOptions(),
    force: bool = False,
) -> EditResult:
    """Change a symbol and write it as a bundle at `out`; if `out` is None, nothing is written (a dry run).

    Parameters are renamed with their variables. A source with ``params`` or ``epoch`` replaces the symbol's own
    parameters; all names and shapes must be equal. A head whose parameters change counts as trained. With `options`,
    the result is the bundle of a BERT, whatever the symbol is; its nodes can be renamed only if it was one before.

    Outputs are compared with those of the original on random inputs. They must be equal within tolerance unless
    attributes are set, in which case the difference is reported.

    Raises UsageError for a name or pattern that matches no node, for names that collide and if there is nothing to
    change, and ModelError or VerificationError; `out` is then unchanged.
    """
    source = ModelSource.of(source)
    given = source.params is not None or source.epoch is not None
    if edits == Edits() and not given and not options.is_given:
        raise UsageError(
            "nothing to change: give a rename, a prefix, an attribute, dropout, other parameters, or an option of the "
            "bundle, such as labels"
        )
    model = source.open()
    if given:
        model = _replace_params(source.path, model)
    train = model.train_graph()
    graphs = [model.graph.copy(), *([train] if train is not None else [])]
    edits = _name_nodes(model, graphs, edits)
    renamed = _match_names(graphs, edits)
    changes = list(
        dict.fromkeys(
            f"rename {old} -> {new_names[node]}"
            for graph, new_names in zip(graphs, renamed)
            for node, old in references(graph.nodes).items()
            if node in new_names
        )
    )
    every = {node.name: new for new_names in renamed for node, new in new_names.items()}
    # new names of inputs, labels and parameters, which both graphs share
    names = {node.name: new for new_names in renamed for node, new in new_names.items() if node.is_variable}
    if options.is_given and (names or (every and not isinstance(model.bundle, Bundle))):
        raise UsageError(
            f"{model.name}: the nodes of a BERT's bundle have fixed names: rename none where the result becomes one"
        )
    for graph, new_names in zip(graphs, renamed):
        graph.rename(new_names)
    changes += _set_attributes(graphs, edits.attributes)
    changes += _set_dropout(graphs, edits.dropout, model, every)
    if given:
        changes.append(f"parameters of {model.params_path}")
    changes += options.describe()
    if not changes:
        raise UsageError(
            f"{model.name}: every attribute and Dropout already has this value, there is nothing to change"
        )
    if out is None:
        for graph in graphs:
            listed_outputs(graph, model.name, trusted=model.trusted)
        return EditResult(changes, None)

    read = set(model.graph.variables)  # an unread array may have the new name of another array
    values = {names.get(name, name): array for name, array in require_params(model).items() if name in read}
    changed = changed_model(model, graphs[0], values, names=names)
    config = _update_config(model, changed)
    trained, encoder_trained = _find_training_state(model)
    shapes = {names.get(name, name): shape for name, shape in (source.shapes or {}).items()}
    result = Changed(
        changed,
        graphs[1] if train is not None else None,
        label_inputs=label_inputs(model, names),
        signature=_update_signature(model, changed, bool(trained), encoder_trained),
        config=config,
        trained=trained,
        is_bert=config is not None or not isinstance(model.bundle, Bundle),
        shapes=end_shapes(changed, shapes),
        options=options,
        given_shapes=shapes,
    )

    def check() -> list[Difference]:
        pairs = list(zip(model.graph.outputs, changed.graph.outputs))
        differences = compare(model, changed, pairs, renamed=names, shapes=source.shapes)
        if not edits.attributes:
            check_equal(differences, str(out))
        return differences

    return EditResult(changes, write(model, result, out, check, force=force))


def _replace_params(symbol: str | Path, model: Model) -> Model:
    """Return the model at `symbol`, with its bundle, but with the parameters of `model`.

    Raises ModelError, which lists the arrays, unless their names and shapes are those of the graph's parameters.
    """
    try:
        own = ModelSource(symbol).open()
    except ModelError:
        if has_bundle(Path(symbol)):
            raise
        own = dataclasses.replace(model, params=None, params_path=None)  # the symbol's own file is unreadable
    assert model.params is not None
    assert model.params_path is not None
    found, read = model.param_shapes, set(model.graph.variables)
    expected = {name: shape for name, shape in own.param_shapes.items() if name in read}
    missing = [name for name in dict.fromkeys([*expected, *model.missing]) if name not in found]
    misshapen = [
        f"{name} {found[name]} instead of {shape}"
        for name, shape in expected.items()
        if found.get(name, shape) != shape
    ]
    # The symbol's own file may have parameters of other symbols too.
    is_own = own.params_path is not None and own.params_path.resolve() == model.params_path.resolve()
    faults = {
        "missing": missing,
        "of another shape": misshapen,
        "not read by the graph": model.superfluous if not is_own else [],
    }
    if any(faults.values()):
        listing = "; ".join(f"{len(names)} {fault}: {join_names(names)}" for fault, names in faults.items() if names)
        raise ModelError(f"{model.params_path}: not the parameters of {symbol}: {listing}{suggest_export(model)}")
    if own.bundle is None:
        return model
    return dataclasses.replace(
        own, params=model.params, params_path=model.params_path, trusted=False, notes=model.notes
    )


def _name_nodes(model: Model, graphs: Sequence[SymbolGraph], edits: Edits) -> Edits:
    """Replace names of places in the encoder, such as ``layer 5`` and ``pooled``, with the names of their nodes.

    Raises UsageError, with the nearest names, for a name that is neither, unless it is a pattern.
    """

    def node(name: str) -> str:
        if "*" in name or any(graph.find(name) for graph in graphs):
            return name
        return references(model.graph.nodes)[model.output(name).node]

    return dataclasses.replace(
        edits,
        renames=tuple((node(old), new) for old, new in edits.renames),
        attributes=tuple((node(name), key, value) for name, key, value in edits.attributes),
    )


def _match_names(graphs: Sequence[SymbolGraph], edits: Edits) -> list[dict[Node, str]]:
    """Map nodes of each graph to their new names; if a rule matches several nodes, their names are numbered."""
    rules = [(*_compile_rename(old, new), f"{old}={new}") for old, new in edits.renames]
    rules += [
        (re.compile(re.escape(old) + "(.*)", re.DOTALL), f"{_escape_template(new)}\\g<1>", f"{old}={new}")
        for old, new in edits.prefixes
    ]
    found: list[dict[Node, str]] = [{} for _ in graphs]
    for pattern, template, text in rules:
        hit = False
        for graph, names in zip(graphs, found):
            for node, reference in references(graph.nodes).items():
                match = pattern.fullmatch(node.name) or pattern.fullmatch(reference)
                if match:
                    hit = True
                    new = match.expand(template)
                    if names.get(node, new) != new:
                        raise UsageError(f"{node.name} would be renamed twice, to {names[node]} and to {new}")
                    names[node] = new
        if not hit:
            raise UsageError(f"{text}: no node matches: bertsym inspect --nodes lists the names")
    numbered = (number_repeated(graph.nodes, names) for graph, names in zip(graphs, found))
    return [{node: new for node, new in names.items() if new != node.name} for names in numbered]


def _compile_rename(old: str, new: str) -> tuple[re.Pattern[str], str]:
    if not old or not new:
        raise UsageError(f"{old}={new}: a rename is OLD=NEW")
    if old.count("*") != new.count("*"):
        raise UsageError(f"{old}={new}: both sides need the same number of *")
    pattern = "(.*)".join(re.escape(part) for part in old.split("*"))
    parts = new.split("*")
    template = _escape_template(parts[0]) + "".join(
        f"\\g<{i}>{_escape_template(part)}" for i, part in enumerate(parts[1:], 1)
    )
    return re.compile(pattern, re.DOTALL), template


def _escape_template(text: str) -> str:
    return text.replace("\\", "\\\\")


def _set_attributes(graphs: Sequence[SymbolGraph], attributes: Sequence[tuple[str, str, str]]) -> list[str]:
    changes: dict[str, None] = {}
    for pattern, key, value in attributes:
        if not any(graph.find(pattern) for graph in graphs):
            raise UsageError(f"{pattern}: no node matches: bertsym inspect --nodes lists the names")
        for graph in graphs:
            names = references(graph.nodes)
            with graph.edit():
                for node in graph.find(pattern):
                    if node.attrs.get(key) != value:
                        changes[f"set {names[node]}.{key} {node.attrs.get(key, '(unset)')} -> {value}"] = None
                        graph.set_attribute(node, key, value)
    return list(changes)


def _insert_dropout(graph: SymbolGraph, model: Model, p: float, renamed: Mapping[str, str]) -> Iterator[str]:
    """Insert Dropout where a BERT lacks it, and describe each new node; `renamed` are the new names of nodes."""
    if model.encoder is None or not p:
        return
    last = [report.classifier.name for report in model.classifier_reports if report.classifier is not None]
    shapes = {renamed.get(name, name): shape for name, shape in model.param_shapes.items()}
    inserted = insert_dropout(graph, shapes, p, {renamed.get(name, name) for name in last})
    for name, source in inserted.sources.items():
        yield f"insert {name} (Dropout), p {p}, after {source}"


def _set_dropout(
    graphs: Sequence[SymbolGraph], dropout: float | str | None, model: Model, renamed: Mapping[str, str]
) -> list[str]:
    if dropout is None:
        return []
    if not (isinstance(dropout, (int, float)) and 0 <= dropout < 1) and dropout != "off":
        raise UsageError(f"dropout {dropout} is neither off nor in [0, 1)")
    changes: dict[str, None] = {}
    for graph in graphs:
        names = references(graph.nodes)
        with graph.edit():
            for node in graph.find(op="Dropout"):
                if isinstance(dropout, str):
                    changes[f"remove {names[node]} (Dropout)"] = None
                    graph.remove(node, bypass=True)
                elif node.attrs.get("p") != str(dropout):
                    changes[f"set {names[node]}.p {node.attrs.get('p', '(unset)')} -> {dropout}"] = None
                    graph.set_attribute(node, "p", str(dropout))
            if not isinstance(dropout, str):
                changes.update(dict.fromkeys(_insert_dropout(graph, model, dropout, renamed)))
    if dropout != "off" and not any(graph.find(op="Dropout") for graph in graphs):
        why = "no BERT in which it could be inserted" if dropout else "none is inserted for the probability 0"
        raise UsageError(
            f"the symbol has no Dropout whose probability could be set to {dropout}, and {why}: omit --dropout"
        )
    return list(changes)


def _update_signature(model: Model, changed: Model, trained: bool, encoder_trained: bool) -> Signature | None:
    """Update the signature with the new name of the output and the new state of training."""
    if not isinstance(model.bundle, Bundle):
        return None
    signature = model.bundle.signature
    return dataclasses.replace(
        signature,
        output_name=f"{changed.graph.output_names[0]}_output",
        trained=trained,
        encoder_trained=encoder_trained,
        # Whether the head was trained on pairs of texts is unknown.
        pair=None if model.bundle.has_head and trained and not signature.trained else signature.pair,
    )


def _find_training_state(model: Model) -> tuple[bool | None, bool]:
    """Return ``trained`` and ``encoder_trained`` of the signature; replaced parameters count as trained."""
    if model.bundle is None:
        return None, False
    assert model.params is not None
    signature, own, params = model.bundle.signature, model.bundle.params(), model.params
    changed = {name for name in own if not np.array_equal(own[name], params[name])} if params is not own else set()
    classifiers = [report.classifier for report in model.classifier_reports if report.classifier is not None]
    head = {entry.node.name for node in classifiers for entry in node.inputs[1:]}
    encoder_trained = not isinstance(signature, Signature) or signature.encoder_trained
    return signature.trained or bool(changed & head if head else changed), encoder_trained or bool(changed - head)


def _update_config(model: Model, changed: Model) -> BertConfig | None:
    """Update the config with dropout and epsilon of the changed graph; None if layers differ."""
    encoder = changed.encoder
    if not isinstance(model.bundle, Bundle) or encoder is None:
        return None
    softmax = {layer.softmax for layer in encoder.layers}
    inside = encoder.embedding_nodes.union(*(layer.nodes for layer in encoder.layers))
    found: dict[bool, set[float]] = {True: set(), False: set()}
    for node in changed.graph.find(op="Dropout"):
        if node in inside:
            found[node.inputs[0].node in softmax].add(decimal(node.attrs, "p", 0.5))
    if any(len(values) > 1 for values in found.values()):
        return None
    return dataclasses.replace(
        model.bundle.config,
        dropout=next(iter(found[False]), 0.0),
        attention_dropout=next(iter(found[True]), 0.0),
        layer_norm_eps=encoder.layer_norm_eps,
    )
