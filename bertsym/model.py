"""Open a symbol with its parameters, from a bundle or from any files that MXNet wrote."""

from __future__ import annotations

import collections
import functools
import hashlib
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from bertsym.analysis.classifier_report import ClassifierReport, report_classifiers
from bertsym.analysis.detected_encoder import DetectedEncoder
from bertsym.analysis.encoder_detection import declared_shapes, require_encoder
from bertsym.analysis.places import name_places
from bertsym.analysis.symbolic_shapes import BATCH, LENGTH, Axes, rename_axes
from bertsym.analysis.token_flow import Traces, trace_tokens
from bertsym.bundle import (
    MANIFEST,
    PARAMS,
    SYMBOL,
    TRAIN_SYMBOL,
    Bundle,
    SymbolBundle,
    file_path,
    has_bundle,
    open_any,
)
from bertsym.errors import ModelError, UsageError, join_names
from bertsym.file_reader import read_bytes
from bertsym.symbol.graph import SymbolGraph
from bertsym.symbol.node import VARIABLE, Output
from bertsym.symbol.node_names import find_output
from bertsym.symbol.params import Parameters, ParamsFile
from bertsym.symbol.upgrading import add_auxiliary_states
from bertsym.symbol.validation import check_entries, check_params, check_symbol
from bertsym.symbol.variable_roles import auxiliary_states, input_variables, label_variables

Shapes = dict[str, tuple[int, ...]]


@dataclass(frozen=True)
class ModelSource:
    """The path of a model, with its parameter file, epoch or input shapes.

    Functions that read a model take its path or a ModelSource.
    """

    path: str | Path  #: prefix of a bundle or checkpoint, or a symbol file
    params: str | Path | None = None  #: the parameter file, where it is not beside the symbol
    epoch: int | None = None  #: number of a checkpoint's parameter file; None: 0, or the only or last one
    #: shapes of inputs by name, for inputs whose shapes the graph does not declare, or None
    shapes: Mapping[str, tuple[int, ...]] | None = None

    @classmethod
    def of(cls, model: str | Path | ModelSource) -> ModelSource:
        """The source of a model that is given in either way."""
        return model if isinstance(model, ModelSource) else cls(model)

    def open(self, *, digests: bool = True, symbol_alone: bool = False) -> Model:
        """Open the model, as `open_model`."""
        return open_model(self.path, self.params, epoch=self.epoch, digests=digests, symbol_alone=symbol_alone)


@dataclass(frozen=True)
class Model:
    """A graph with its parameters, if any, and its bundle, if it has one."""

    name: str  #: as the caller gave it
    symbol_path: Path
    graph: SymbolGraph
    params: Parameters | None
    params_path: Path | None
    bundle: Bundle | SymbolBundle | None
    #: whether it is a BERT's bundle whose digests were checked, or was made of one: MXNet may run it in this process
    trusted: bool = False
    #: shapes of inputs by name, known from the model that this one is derived from
    known_axes: Mapping[str, Axes] = field(default_factory=dict)
    notes: tuple[str, ...] = ()  #: for the user, about reading the files
    symbol_digest: str = ""  #: SHA-256 of the symbol file of a model that is not a bundle

    @functools.cached_property
    def param_shapes(self) -> Shapes:
        """Name -> shape of the parameters, from the header of their file."""
        return self.params.shapes if self.params is not None else {}

    @functools.cached_property
    def encoder(self) -> DetectedEncoder | None:
        """The BERT encoder of the graph."""
        return None if isinstance(self._detection, ModelError) else self._detection

    def require_encoder(self) -> DetectedEncoder:
        """Return the BERT encoder of the graph; raises ModelError, with the reason, if there is none."""
        if isinstance(self._detection, ModelError):
            raise ModelError(f"{self.name}: {self._detection}")
        return self._detection

    @functools.cached_property
    def _detection(self) -> DetectedEncoder | ModelError:
        try:
            return require_encoder(self.graph, self.param_shapes)
        except ModelError as error:
            return error

    @functools.cached_property
    def signature_axes(self) -> dict[Output, Axes]:
        """Shapes of inputs and outputs in the signature of a symbol's bundle, free axes as N and T."""
        if not isinstance(self.bundle, SymbolBundle):
            return {}
        signature = self.bundle.signature
        variables = {node.name: Output(node) for node in self.graph.nodes if node.is_variable}
        ends = [*(variables[tensor.name] for tensor in signature.inputs), *self.graph.outputs]
        shapes = [tensor.shape for tensor in (*signature.inputs, *signature.outputs)]
        names = {"batch": BATCH, "length": LENGTH}
        return {end: rename_axes(shape, names) for end, shape in zip(ends, shapes) if shape is not None}

    @functools.cached_property
    def traces(self) -> Traces:
        """What the tensors downstream of the encoder hold."""
        return trace_tokens(self.graph, self.encoder, self.params) if self.encoder else {}

    @functools.cached_property
    def classifier_reports(self) -> list[ClassifierReport]:
        """What each classifier of the graph reads, or what the graph ends in."""
        return report_classifiers(self.graph, self.encoder, self.traces, self.param_shapes)

    @functools.cached_property
    def inputs(self) -> list[str]:
        """Variables that are neither parameters nor labels."""
        return input_variables(self.graph, self.param_shapes)

    def output(self, text: str) -> Output:
        """The tensor that a node names (``NODE``, ``NODE:INDEX``, ``NODE#2``), or a place in the encoder.

        Places are ``embeddings``, ``layer 5``, ``cls``, ``pooled``, ``mean`` and ``sequence``; a node of that name
        takes precedence. Raises UsageError, with the nearest names, for a node or place that does not exist.
        """
        name = text.lower()
        if self.encoder is None or text in {node.name for node in self.graph.nodes}:
            return self.graph.output(text)
        if name in self.places:
            return self.places[name]
        match = re.fullmatch(r"layer[ :]?(\d{1,9})", name)
        if match:
            if int(match[1]) >= len(self.encoder.layers):
                raise UsageError(f"{self.name} has layers 0 to {len(self.encoder.layers) - 1}: there is no {text}")
            return self.encoder.layers[int(match[1])].output
        return find_output(self.graph.nodes, text, self.places)

    @functools.cached_property
    def places(self) -> dict[str, Output]:
        """The tensors of the encoder that have names of their own, as far as the graph has them."""
        return name_places(self.encoder, self.traces) if self.encoder is not None else {}

    @functools.cached_property
    def label_inputs(self) -> list[str]:
        """Variables that only a loss reads."""
        return [name for name in label_variables(self.graph) if name not in self.param_shapes]

    def train_graph(self) -> SymbolGraph | None:
        """The bundle's graph for training, where there is one; raises ModelError."""
        if self.bundle is None or not self.bundle.has(TRAIN_SYMBOL):
            return None
        return self.bundle.graph(TRAIN_SYMBOL)

    @property
    def digests(self) -> dict[str, str]:
        """SHA-256 of the files as they were read, by their names in a bundle, otherwise by their own names."""
        if self.bundle is not None:
            files = {name: entry["sha256"] for name, entry in self.bundle.manifest["files"].items()}
            return {**files, MANIFEST: self.bundle.contents.manifest_digest}
        found = {self.symbol_path.name: self.symbol_digest}
        if isinstance(self.params, ParamsFile):
            found[self.params.path.name] = self.params.digest()
        return found

    @property
    def parameters(self) -> list[str]:
        """Variables whose elements come from the parameter file."""
        others = {*self.inputs, *self.label_inputs}
        return [name for name in self.graph.variables if name not in others]

    @property
    def missing(self) -> list[str]:
        """Parameters of the graph that the file does not have."""
        return [name for name in self.parameters if name not in self.param_shapes] if self.params is not None else []

    @property
    def misshapen(self) -> list[str]:
        """Parameters whose shape differs from that of their variable in the graph."""
        declared = declared_shapes(self.graph)
        return [name for name, shape in self.param_shapes.items() if declared.get(name, shape) != shape]

    @property
    def superfluous(self) -> list[str]:
        """Arrays of the parameter file that the graph does not read."""
        known = set(self.graph.variables)
        return [name for name in self.param_shapes if name not in known]


def open_model(
    symbol: str | Path,
    params: str | Path | None = None,
    *,
    epoch: int | None = None,
    digests: bool = True,
    symbol_alone: bool = False,
) -> Model:
    """Open a bundle's or a checkpoint's PREFIX, or a ``-symbol.json`` file, with or without a parameter file.

    The parameters of a PREFIX are those of `epoch`, or ``PREFIX-0000.params``, or those of the last epoch;
    ``PREFIX-0003.params`` stands for both files of that epoch. With `digests` the files of a bundle are compared with
    their SHA-256.

    With `symbol_alone`, a symbol that is named by its own path is opened without parameters where the files beside it
    can't be read; a note says why.

    Raises UsageError when there is nothing at `symbol` and ModelError for invalid files.
    """
    try:
        return _open_files(symbol, params, epoch, digests)
    except ModelError as error:
        path = Path(symbol)
        if not symbol_alone or params is not None or epoch is not None or path.suffix != ".json":
            raise
        graph, digest = _read_graph(path)
        notes = (f"opened without parameters: {error}", *_graph_notes(graph, path))
        return Model(str(symbol), path, graph, None, None, None, notes=notes, symbol_digest=digest)


def _open_files(symbol: str | Path, params: str | Path | None, epoch: int | None, digests: bool) -> Model:
    name = str(symbol)
    path = Path(symbol)
    if not name:
        raise UsageError("the PREFIX is empty: give a folder and the start of a file name, such as out/model")
    if path.is_dir() or not path.name:
        raise UsageError(f"{name} is a folder: give the PREFIX of the files in it, or a symbol file")
    stem = path.with_name(re.sub(r"-((train-)?symbol\.json|\d{4,}\.params)$", "", path.name) or path.name)
    listed = has_bundle(stem)
    checkpoint = re.fullmatch(r"(.+)-\d{4,}\.params", path.name)
    if checkpoint and params is None and epoch is None and file_path(path.with_name(checkpoint[1]), SYMBOL).exists():
        path, params = path.with_name(checkpoint[1]), path
    elif name.endswith(".params") and params is None:
        raise UsageError(f"{name} has parameters and no graph: give the symbol file, or the PREFIX of both")
    if params is None and epoch is None and listed and path in (stem, file_path(stem, SYMBOL)):
        return _open_bundle(name, stem, digests)
    prefix = path
    if path.suffix == ".json" and path.exists():
        symbol_path = path
        prefix = path.with_name(re.sub(r"(-train)?-symbol$", "", path.stem))
    else:
        symbol_path = file_path(path, SYMBOL)
        if not symbol_path.exists():
            raise UsageError(f"{name}: no {symbol_path.name} in {symbol_path.parent}, and no such symbol file")
    graph, digest = _read_graph(symbol_path)
    found = Path(params) if params is not None else _find_params(prefix, epoch)
    arrays = ParamsFile(found) if found is not None else None
    notes = (*_graph_notes(graph, symbol_path), *(_params_notes(graph, arrays) if arrays is not None else ()))
    return Model(name, symbol_path, graph, arrays, found, None, notes=notes, symbol_digest=digest)


def _open_bundle(name: str, prefix: Path, digests: bool) -> Model:
    try:
        bundle = open_any(prefix, digests=digests)
    except ModelError as error:
        raise ModelError(f"{error}; to use the files as they are, give --params too") from None
    graph, path = bundle.graph(), bundle.path(SYMBOL)
    check_entries(graph, str(path))
    notes = (*_graph_notes(graph, path), *_params_notes(graph, bundle.params()))
    # Digests prove what was written, not by whom: a BERT's graph is checked, so that it can do no harm.
    trusted = isinstance(bundle, Bundle) and digests
    return Model(name, path, graph, bundle.params(), bundle.path(PARAMS), bundle, trusted, notes=notes)


def _read_graph(path: Path) -> tuple[SymbolGraph, str]:
    """Read the graph of a symbol file, and the SHA-256 of the bytes."""
    try:
        content = read_bytes(path)
    except OSError as error:
        raise ModelError(f"{path}: {error.strerror}") from None
    graph = SymbolGraph.decode(content, str(path))
    add_auxiliary_states(graph, str(path))
    check_entries(graph, str(path))
    return graph, hashlib.sha256(content).hexdigest()


def _graph_notes(graph: SymbolGraph, path: Path) -> Iterator[str]:
    """Note peculiarities of a symbol file."""
    raw = (graph.document or {})["nodes"]
    count = collections.Counter(node["name"] for node in raw if node["op"] == VARIABLE)
    repeated = [name for name, number in count.items() if number > 1]
    if repeated:
        yield (
            f"several variables are named {', '.join(repeated[:3])}: they are read as one, as in SymbolBlock; Module "
            "can't bind such a file"
        )
    added = [name for name in graph.variables if name not in count]
    if added:
        yield f"{path}: auxiliary states that MXNet did not store before 0.9 are added: {join_names(added)}"


def _params_notes(graph: SymbolGraph, params: ParamsFile) -> Iterator[str]:
    """Note sparse arrays, and arrays that are stored with another kind than in the graph."""
    if params.sparse:
        yield f"{params.path}: sparse arrays become dense: {join_names(params.sparse)}"
    states = set(auxiliary_states(graph))
    for stored, kind in (("arg", "auxiliary states"), ("aux", "arguments")):
        differing = [
            name
            for name in graph.variables
            if (info := params.infos.get(name)) and info.kind == stored and (name in states) == (stored == "arg")
        ]
        if differing:
            yield f"{params.path}: stored as {stored}:, but {kind} of the graph: {join_names(differing)}"


def suggest_export(model: Model) -> str:
    """End a message about missing parameters: how to save them, where gluon named them by its blocks."""
    shapes = model.param_shapes
    if len(model.superfluous) < len(shapes) or not any(re.match(r"\w+\.\w", name) for name in shapes):
        return ""
    return (
        f"; names such as {next(iter(shapes))!r} are those of Block.save_parameters: save the parameters with "
        "HybridBlock.export or collect_params().save"
    )


def _find_params(prefix: Path, epoch: int | None) -> Path | None:
    if epoch is not None:
        path = file_path(prefix, f"{epoch:04d}.params")
        if not path.exists():
            raise UsageError(f"{path.name}: no such file in {path.parent}")
        return path
    pattern = re.compile(re.escape(prefix.name) + r"-\d{4,}\.params")
    there = [path for path in prefix.parent.iterdir() if pattern.fullmatch(path.name)]
    there.sort(key=lambda path: int(path.stem.rpartition("-")[2]))
    first = file_path(prefix, PARAMS)
    return first if first in there else (there[-1] if there else None)


def require_params(model: Model, *, finite: bool = True, part: SymbolGraph | None = None) -> Parameters:
    """The parameters; raises ModelError where some are missing or do not fit, and for a graph that could harm MXNet.

    With `part`, only that part of the graph is looked at. Parameters of unknown origin are read whole, to see that they
    are `finite`.
    """
    graph = model.graph if part is None else part
    check_symbol(graph, model.name)
    if model.params is None:
        raise ModelError(f"{model.name}: there are no parameters beside {model.symbol_path.name}; name their file")
    read = set(graph.variables)
    missing = [name for name in model.missing if name in read]
    if missing:
        raise ModelError(
            f"{model.name}: {len(missing)} parameters of the graph are missing in {model.params_path}: "
            f"{join_names(missing)}{suggest_export(model)}"
        )
    if not model.trusted:
        check_params(graph, model.params, str(model.params_path), finite=finite)
    return model.params
