"""Detect a BERT encoder in any symbol, by its graph and not by its names.

A BERT (Devlin et al. 2018) adds a token embedding to other embeddings, normalises the sum, and applies layers of
LayerNorm(x + attention(x)) and LayerNorm(x + feed-forward(x)). All forms share this chain of residual LayerNorms: those
of GluonNLP 0.6 to 0.10, and those that bertsym writes.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence, Set

from bertsym.analysis.detected_encoder import DetectedEncoder, DetectedForm, Layer
from bertsym.analysis.input_clips import clipped_ids, is_guarded
from bertsym.encoders.config import MAX_LAYERS
from bertsym.errors import ModelError
from bertsym.symbol.attributes import integer, integers, sizes
from bertsym.symbol.graph import SymbolGraph
from bertsym.symbol.node import Node, Output
from bertsym.symbol.operator_traits import Effect, decimal_of, flag_of, operators_with, traits, with_aliases
from bertsym.symbol.structure import ancestors_outside, readers_by_node
from bertsym.symbol.variable_roles import input_variables

ADDITIONS = operators_with(Effect.ADD)
#: operators whose output is their first input, or that in another order or precision
PASSING = operators_with(Effect.IDENTITY, Effect.DROPOUT, Effect.CAST, Effect.TRANSPOSE)
INTERLEAVED = "_contrib_interleaved_matmul_selfatt_qk"  #: product of queries and keys, from (T, N, 3 * U)
_PRODUCTS = operators_with(Effect.BATCHED_PRODUCT)
_RESHAPES = operators_with(Effect.IDENTITY, Effect.CAST, Effect.RESHAPE)


def detect_encoder(graph: SymbolGraph, shapes: Mapping[str, tuple[int, ...]] | None = None) -> DetectedEncoder | None:
    """Detect the BERT encoder of a graph; None without one. `shapes` are the known shapes of parameters."""
    try:
        return require_encoder(graph, shapes)
    except ModelError:
        return None


def require_encoder(graph: SymbolGraph, shapes: Mapping[str, tuple[int, ...]] | None = None) -> DetectedEncoder:
    """As `detect_encoder`, but raises ModelError, naming the node that is not part of a BERT."""
    declared = declared_shapes(graph)
    # Inputs may declare shapes too, but the lengths are not a matrix.
    matrices = {name for name, shape in declared.items() if len(shape) > 1}
    inputs = set(input_variables(graph, {*matrices, *(shapes or ())}))
    shapes = {**declared, **(shapes or {})}
    table = _find_token_embedding(graph)
    norms = [node for node in graph.nodes if node.op == "LayerNorm"]
    if table is None:
        begin = next(
            (f", the graph begins with {node.name} ({node.op})" for node in graph.nodes if not node.is_variable), ""
        )
        raise ModelError(f"no BERT: no Embedding reads token ids{begin}")
    readers = graph.descendants(table)
    first = next((node for node in norms if node in readers), None)
    if first is None:
        reader = next((f": {node.name} ({node.op}) reads it" for node in graph.consumers(table)), "")
        raise ModelError(f"no BERT: no LayerNorm follows the token embedding {table.name}{reader}")
    layers, projection = _find_layers(graph, Output(first), norms), None
    if not layers:
        projection = _find_projection(graph, first)
        layers = _find_layers(graph, Output(projection), norms) if projection else ()
    if not layers:
        raise ModelError(
            f"no BERT: {first.name} is not followed by LayerNorm(x + attention(x)) and LayerNorm(x + feed-forward(x))"
        )
    inside = {node for layer in layers for node in layer.nodes}
    before = graph.ancestors(layers[-1].output.node) - inside
    embedding = frozenset(node for node in before if not node.is_variable or node.name in inputs)
    tables = [node for node in before if node.op == "Embedding" and node is not table]
    token_ids = _ids_variable(table)
    types = next((node for node in tables if _ids_variable(node) not in (None, token_ids)), None)
    types = types or next((node for node in tables if _zeros_variable(node)), None)
    token_types = (_ids_variable(types) or _zeros_variable(types)) if types else _find_unused(graph, inputs, before)
    token_types = None if token_types == token_ids else token_types
    valid_length = _find_valid_length(graph, layers, inputs - {token_ids, token_types})
    rows, offset = _find_positions(graph, first, table, types, shapes)
    relative = _find_relative_bias(graph, first, layers[0])
    return DetectedEncoder(
        layers=layers,
        embedding_nodes=embedding,
        token_embedding=table,
        embedding_output=Output(projection or first),
        units=_size(projection.attrs, "num_hidden") if projection else _size(table.attrs, "output_dim"),
        vocab_size=_size(table.attrs, "input_dim"),
        token_type_vocab_size=_size(types.attrs, "input_dim") if types else 0 if token_types else None,
        max_length=None if rows is None else rows - offset,
        length=_find_fixed_length(embedding),
        layer_norm_eps=decimal_of(first, "eps"),
        token_ids=token_ids,
        token_types=token_types,
        valid_length=valid_length,
        form=_detect_form(before | inside, layers, relative),
        guarded=token_ids is not None and is_guarded(graph, token_ids, token_types, valid_length),
        position_offset=offset,
        embedding_size=_size(table.attrs, "output_dim") if projection else None,
        # By the LayerNorm: other parameters may be folded or int8 in some of the layers only.
        shares_layers=len(layers) > 1 and len({layer.output.node.inputs[1] for layer in layers}) == 1,
        relative_bias=relative,
    )


def skip_passthrough(output: Output) -> Output:
    """Follow an output back through dropout, casts and transposes."""
    while output.node.op in PASSING and output.node.inputs:
        output = output.node.inputs[0]
    return output


def selects_first_token(node: Node) -> bool:
    """Whether a node slices position 0 of (N, T, U), and keeps the axis."""
    if node.op == "slice_axis":
        return [integer(node.attrs, key, -1) for key in ("axis", "begin", "end")] == [1, 0, 1]
    begin, end = integers(node.attrs, "begin"), integers(node.attrs, "end")
    whole = all(first in (0, None) for first in begin) and all(last is None for last in (*end[:1], *end[2:]))
    return node.op == "slice" and len(end) > 1 and end[1] == 1 and whole and not integers(node.attrs, "step")


def declared_shapes(graph: SymbolGraph) -> dict[str, tuple[int, ...]]:
    """Return the shapes that variables declare, by name."""
    found = {node.name: sizes(node.attrs, "__shape__") for node in graph.nodes if node.is_variable}
    return {name: shape for name, shape in found.items() if shape is not None}


def _find_token_embedding(graph: SymbolGraph) -> Node | None:
    tables = [node for node in graph.nodes if node.op == "Embedding" and _ids_variable(node) is not None]
    return max(tables, key=lambda node: integer(node.attrs, "input_dim", 0), default=None)


def _ids_variable(node: Node) -> str | None:
    """Name of the variable with the ids that a table is read at, clipped or not; None if the ids are computed."""
    entry = skip_passthrough(clipped_ids(node) or node.inputs[0])
    return entry.node.name if entry.node.is_variable else None


def _zeros_variable(table: Node) -> str | None:
    """Name of the variable whose shape alone a table's ids have: all ids are 0; None for other ids."""
    source = skip_passthrough(table.inputs[0]).node
    if source.op != "zeros_like" or not source.inputs[0].node.is_variable:
        return None
    return source.inputs[0].node.name


def _find_unused(graph: SymbolGraph, inputs: Set[str], nodes: Set[Node]) -> str | None:
    """Find the input among `nodes` of which only the shape is read: token types where there is no segment table."""
    for node in graph.nodes:
        if node in nodes and node.is_variable and node.name in inputs:
            readers = graph.consumers(node)
            read = [entry.node for reader in readers for entry in reader.inputs[: traits(reader.op).shape_only]]
            if node not in read:
                return node.name
    return None


def _find_projection(graph: SymbolGraph, first: Node) -> Node | None:
    """Find the FullyConnected on the normalised embeddings."""
    waiting = [first]
    while waiting:
        for reader in graph.consumers(waiting.pop()):
            if reader.op == "FullyConnected":
                return reader
            if reader.op in PASSING:
                waiting.append(reader)
    return None


def _find_layers(graph: SymbolGraph, state: Output, norms: list[Node]) -> tuple[Layer, ...]:
    """Find the layers downstream of `state`, the input of the first one; `norms` are in the order of the graph."""
    layers: list[Layer] = []
    residuals, readers = _residuals(norms), readers_by_node(graph.nodes)
    numbers = {node: number for number, node in enumerate(graph.nodes)}
    below: set[Node] = set()  # ancestors of the layer's input, which has those of the layers before among its own
    while True:
        attention, read = residuals.get(state, (None, state))
        feed_forward, _ = residuals.get(Output(attention), (None, state)) if attention else (None, state)
        if attention is None or feed_forward is None:
            return tuple(layers)
        if len(layers) == MAX_LAYERS:
            raise ModelError(f"no BERT: more than {MAX_LAYERS} layers")
        # Dropout and transposes upstream of the residual connection belong to the embeddings.
        below |= ancestors_outside(read.node, below)
        nodes = _reached(sorted(ancestors_outside(feed_forward, below), key=numbers.__getitem__), read.node)
        softmax = [node for node in nodes if node.op in ("softmax", "SoftmaxActivation")]
        if len(softmax) != 1 or softmax[0] not in graph.ancestors(attention, within={*nodes}):
            return tuple(layers)
        layers.append(
            Layer(
                _with_own_inputs(readers, nodes, below),
                softmax[0],
                _find_num_heads(graph, softmax[0], nodes),
                _find_hidden_size(nodes, attention),
                Output(feed_forward),
                not _is_added(attention, state),
            )
        )
        state = Output(feed_forward)


def _residuals(norms: list[Node]) -> dict[Output, tuple[Node, Output]]:
    """State -> the first LayerNorm of a sum with the state, or with its position 0, and the summand."""
    found: dict[Output, tuple[Node, Output]] = {}
    for norm in norms:
        addition = skip_passthrough(norm.inputs[0]).node
        if addition.op in ADDITIONS:
            for entry in addition.inputs:
                source = skip_passthrough(entry).node
                for read in (entry, *(source.inputs[:1] if selects_first_token(source) else ())):
                    found.setdefault(skip_passthrough(read), (norm, read))
    return found


def _reached(nodes: Iterable[Node], start: Node) -> list[Node]:
    """List those of the `nodes`, in topological order, that depend on `start` through each other."""
    reached = {start}
    found = []
    for node in nodes:
        if node is not start and any(entry.node in reached for entry in node.inputs):
            reached.add(node)
            found.append(node)
    return found


def _is_added(norm: Node, state: Output) -> bool:
    return any(skip_passthrough(entry) == state for entry in skip_passthrough(norm.inputs[0]).node.inputs)


def _with_own_inputs(
    readers: Mapping[Node, Sequence[Node]], nodes: Iterable[Node], below: Set[Node]
) -> frozenset[Node]:
    """Add the operators that only these nodes read: reshaped weights, a mask for this layer."""
    own = set(nodes)
    waiting = list(own)
    while waiting:
        for entry in waiting.pop().inputs:
            node = entry.node
            known = node in own or node.is_variable or node in below
            if not known and all(reader in own for reader in readers[node]):
                own.add(node)
                waiting.append(node)
    return frozenset(own)


def _find_num_heads(graph: SymbolGraph, softmax: Node, nodes: Sequence[Node]) -> int | None:
    """Find the number of attention heads; `nodes` are those of the layer, in the order of the graph."""
    inside = {*nodes}
    before = graph.ancestors(softmax, within=inside)
    product = next((node for node in reversed(nodes) if node.op in _PRODUCTS and node in before), None)
    if product is None:
        return None
    if product.op == INTERLEAVED:
        return _size(product.attrs, "heads")
    before = graph.ancestors(product, within=inside)
    # Before the product, (N, T, U) is reshaped to (0, 0, heads, -1) and transposed.
    for node in reversed(nodes):
        if node in before and node.op in with_aliases("Reshape"):
            shape = integers(node.attrs, "shape")
            if len(shape) == 4 and shape[0] in (0, -1) and shape[2] is not None and shape[2] > 0:
                return shape[2]
    return None


def _find_hidden_size(nodes: Sequence[Node], attention: Node) -> int | None:
    """Find the width of the feed-forward network; `nodes` are those of the layer, in the order of the graph."""
    dense = next((node for node in _reached(nodes, attention) if node.op == "FullyConnected"), None)
    return _size(dense.attrs, "num_hidden") if dense else None


def _find_positions(
    graph: SymbolGraph, first: Node, tokens: Node, types: Node | None, shapes: Mapping[str, tuple[int, ...]]
) -> tuple[int | None, int]:
    """Find the rows of the position table, and the row that the first token reads.

    The table is a weight as wide as the token embedding that no other table uses.
    """
    units = integer(tokens.attrs, "output_dim", 0)
    known = {entry.node for table in (tokens, types) if table for entry in table.inputs}
    before = graph.ancestors(first)
    for node in graph.nodes:
        if node in before and node.is_variable and node not in known:
            shape = shapes.get(node.name, ())
            if len([size for size in shape if size != 1]) == 2 and shape[-1] == units:
                return shape[-2], _find_offset(graph, node)
    tables = [node for node in before if node.op == "Embedding" and node not in (tokens, types)]
    return _size(tables[0].attrs, "input_dim") if tables else None, 0


def _find_offset(graph: SymbolGraph, table: Node) -> int:
    """Find the first row that is read of a position table: where a slice of it begins, or the counting of positions."""
    readers = graph.consumers(table)
    while len(readers) == 1 and readers[0].op in _RESHAPES:
        readers = graph.consumers(readers[0])
    if len(readers) != 1:
        return 0
    (reader,) = readers
    if reader.op == "slice_axis" and integer(reader.attrs, "axis", -1) in (0, 1):
        return max(integer(reader.attrs, "begin", 0), 0)
    if reader.op == "slice":
        return max((begin or 0 for begin in integers(reader.attrs, "begin")[:2]), default=0)
    if reader.op == "Embedding" and reader.inputs[0].node.op == "_contrib_arange_like":
        return integer(reader.inputs[0].node.attrs, "start", 0)
    return 0


def _find_fixed_length(embedding: frozenset[Node]) -> int | None:
    """Find the length of GluonNLP's static BERT, which counts positions up to a fixed number."""
    for node in embedding:
        if node.op == "_arange" and not flag_of(node, "infer_range"):
            start, stop = integer(node.attrs, "start", 0), integers(node.attrs, "stop")
            # MXNet stores arange(n) as start n without a stop.
            return start if not stop or stop[0] is None else stop[0] - start
    return None


def _find_valid_length(graph: SymbolGraph, layers: tuple[Layer, ...], others: set[str]) -> str | None:
    """Find the other input on which the attention depends."""
    needed = graph.ancestors(layers[0].softmax)
    return next((node.name for node in graph.nodes if node in needed and node.name in others), None)


def _find_relative_bias(graph: SymbolGraph, first: Node, layer: Layer) -> Node | None:
    """Find the Embedding whose rows are added to the attention's scores: it reads none of the tokens."""
    needed = graph.ancestors(layer.softmax) - graph.ancestors(first)
    return next((node for node in graph.nodes if node in needed and node.op == "Embedding"), None)


def _detect_form(nodes: set[Node], layers: Sequence[Layer], relative_bias: Node | None) -> DetectedForm:
    operators = {node.op for node in nodes}
    if INTERLEAVED in operators:
        return DetectedForm("gluonnlp", is_interleaved=True)
    if "slice_like" in operators and "_contrib_arange_like" not in operators:
        scores = skip_passthrough(layers[0].softmax.inputs[0]).node
        spreads_mask = "broadcast_axis" in operators or (relative_bias is not None and scores.op == "elemwise_add")
        name = "fast" if spreads_mask or layers[-1].first_only else "portable"
        return DetectedForm(name, has_fused_qkv=_has_slices_of_units(nodes))
    return DetectedForm("gluonnlp")


def _has_slices_of_units(nodes: set[Node]) -> bool:
    """Whether query, key and value are slices of one product."""
    return any(node.op == "slice_axis" and integer(node.attrs, "axis", 0) == 2 for node in nodes)


def _size(attrs: Mapping[str, str], key: str) -> int | None:
    return integer(attrs, key, 0) or None
