"""Draw a symbol, with the layers of its encoder and the inputs of its classifiers."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from importlib.metadata import version
from pathlib import Path

from bertsym.analysis.sentences import classifier_sentence
from bertsym.atomic_writing import write_atomically
from bertsym.drawing.formats import SUFFIXES, draw_picture, expanded_keys
from bertsym.drawing.netron import netron_text
from bertsym.drawing.picture import Group, Picture
from bertsym.errors import ModelError, UsageError
from bertsym.execution import Shape, all_shapes
from bertsym.model import Model, ModelSource
from bertsym.symbol.node import Node, Output

NETRON = ".netron"


def draw(
    source: str | Path | ModelSource,
    out: str | Path,
    *,
    expand: Iterable[str] = (),
    force: bool = False,
    on_note: Callable[[str], object] = lambda note: None,
) -> Path:
    """Draw a symbol as an ``.svg``, ``.png`` or ``.html`` file, or as a ``.netron`` file for Netron.

    Each layer of a BERT is folded into one box; `expand` lists the layers to open (``3``, ``layer 3``, ``all``). The
    shapes on the edges are inferred by MXNet: for a BERT with free batch size N and length T, for other symbols from
    the source's `shapes`. If the source is the path of a symbol file and the files next to it can't be read, only
    the symbol is drawn, and `on_note` is called with the reason.

    Returns the path. Raises UsageError for another suffix, an unknown layer, and an existing file unless `force` is
    given, and ModelError if Graphviz is missing or the file can't be written.
    """
    path = Path(out)
    if path.suffix.lower() not in (*SUFFIXES, NETRON):
        kinds = ", ".join(SUFFIXES)
        raise UsageError(f"{out}: unknown suffix {path.suffix!r}: use one of {kinds}, {NETRON}")
    if path.is_dir():
        raise UsageError(f"{out} is a folder: give the name of a file in it")
    if path.exists() and not force:
        raise UsageError(f"{out} exists: choose another name, or overwrite with --force")
    source = ModelSource.of(source)
    shapes = source.shapes
    model = source.open(digests=False, symbol_alone=True)
    for note in model.notes:
        on_note(note)
    if path.exists() and path.resolve() in _files(model):
        raise UsageError(f"{out} is a file of the symbol itself: choose another name")
    picture = picture_of(model, shapes)
    if path.suffix.lower() == NETRON:
        expanded_keys(picture, expand)  # draw_picture does so for the other formats
        written = model.graph.mxnet_version or "1.9.1"
        content = netron_text(picture, f"MXNet v{written}", f"bertsym {version('bertsym')}").encode()
    else:
        content = draw_picture(picture, path.suffix, expand)
    _write(path, content)
    return path


def picture_of(model: Model, shapes: Mapping[str, Shape] | None = None) -> Picture:
    """Build the picture of a model: layers, inputs of classifiers, shapes."""
    graph, encoder = model.graph, model.encoder
    reports = model.classifier_reports
    title = str(encoder) if encoder is not None else f"{Path(model.name).name}, {len(graph.nodes)} nodes"
    groups: tuple[Group, ...] = ()
    path: set[Node] = set()
    highlighted: set[Node] = set()
    if encoder is not None:
        groups = tuple(
            Group(
                i,
                f"layer {i}",
                f"attention of {layer.num_heads or '?'} heads, feed-forward {layer.hidden_size or '?'}",
                layer.nodes,
            )
            for i, layer in enumerate(encoder.layers)
        )
        # Without the nodes that compute the mask.
        path.update(
            node
            for node in graph.between(encoder.token_embedding, encoder.embedding_output.node)
            if node in encoder.embedding_nodes
        )
        path.update(node for layer in encoder.layers for node in layer.nodes)
        for report in reports:
            path.update(report.nodes)
            highlighted.update(node for node in report.nodes if _is_cls_slice(model, node))
        path.update(node for node in graph.nodes if node.is_variable and node.name == encoder.token_ids)
    return Picture(
        title=title,
        sentence="; ".join(map(classifier_sentence, reports)),
        graph=graph,
        groups=groups,
        shapes=_shapes(model, shapes),
        highlighted=frozenset(highlighted),
        path=frozenset(path),
        parameters=frozenset(model.parameters),
        dtype=_dtype(model),
    )


def _dtype(model: Model) -> str:
    kinds = {info.dtype for info in model.params.infos.values()} if model.params is not None else set()
    names = {"<f4": "float32", "<f2": "float16", "<f8": "float64"}
    return names.get(next(iter(kinds)), "?") if len(kinds) == 1 else "?"


def _is_cls_slice(model: Model, node: Node) -> bool:
    trace = model.traces.get(Output(node))
    return trace is not None and trace.is_cls and not trace.steps and node.op != "Dropout"


def _shapes(model: Model, shapes: Mapping[str, Shape] | None) -> Mapping[Output, tuple[int | str, ...]]:
    try:
        return all_shapes(model, shapes)
    except ModelError:
        if shapes:
            raise
        # A graph that MXNet can't load can still be drawn.
        return {output: trace.axes for output, trace in model.traces.items()}


def _files(model: Model) -> set[Path]:
    return {path.resolve() for path in (model.symbol_path, model.params_path) if path is not None}


def _write(path: Path, content: bytes) -> None:
    try:
        write_atomically(path, content)
    except OSError as error:
        raise ModelError(f"{path}: can't write the picture: {error.strerror or error}") from None
