"""What a run trains: encoder and head together, or the head on the output of a frozen encoder."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Protocol

from bertsym.acceleration.graphs import to_symbol
from bertsym.array import Array
from bertsym.devices import contexts
from bertsym.encoders.catalogue import FULLY_CONNECTED, OUTPUTS
from bertsym.encoders.graph_heads import graft_onto_graph, label_shapes
from bertsym.encoders.inputs import INPUT_NAMES, input_shapes
from bertsym.encoders.symbol_heads import head_parameters
from bertsym.events import EventStream
from bertsym.inference.mxnet_predictor import MXNetPredictor
from bertsym.mxnet_runtime import mx, mxnet_errors
from bertsym.passes.class_loss import replace_softmax_loss
from bertsym.signature import Tensor
from bertsym.symbol.graph import SymbolGraph
from bertsym.tasks.task import Task
from bertsym.text.batches import bucket_length
from bertsym.text.features import Features
from bertsym.training.base_model import Base
from bertsym.training.batch_source import ENCODED, BatchSource, EncodedSource, TokenSource
from bertsym.training.data import FinetuneData
from bertsym.training.encodings import encode, encode_tokens
from bertsym.training.finetune_options import FinetuneOptions
from bertsym.training.layer_rates import with_rate_multipliers

Params = Mapping[str, Array]
EncodingsCache = Callable[[str, tuple[int, ...], Callable[[], Array]], Array]

_HEAD_ROWS = 1024  # encodings that a head reads per call


class GraftedModel:
    """A base's encoder with a new head for a task, or with its own: symbols and initial parameters."""

    def __init__(self, base: Base, task: Task, options: FinetuneOptions, max_length: int) -> None:
        self.base, self.task, self.max_length = base.bundle, task, max_length
        self.output = base.output  #: of the encoder, which the head reads
        #: the only sequence length that the graph accepts; None if it accepts any
        self.length = max_length if options.whole_sequence else None
        self._dropout, self._device = base.dropout, options.device
        #: whether any parameter of the encoder is trained
        self.trains_encoder = not options.freeze_encoder and any(base.rates.get(name, 1) for name in base.params)
        with mxnet_errors(str(base.bundle.prefix)):
            self.encoder_symbol = to_symbol(base.graph)
        self.inference_symbol, training = self.graft(base.graph)
        #: its loss is summed over the rows of a batch
        self.train_symbol = with_rate_multipliers(training, base.rates)
        #: for Module.fit, which divides by the number of rows, whatever their weights
        self.written_symbol = self.train_symbol
        if task.class_loss is not None:
            self.written_symbol = with_rate_multipliers(self.graft(base.graph, divides=True)[1], base.rates)
        self.base_params = base.params
        self.head_params = base.head_params or head_parameters(
            self.inference_symbol,
            [*INPUT_NAMES, *self.base_params],
            input_shapes(1, self.length or 1, self.base.signature.input_names),
            options.seed,
        )

    def graft(self, graph: SymbolGraph, *, divides: bool = False) -> tuple[Any, Any]:
        """Graft the head of the task onto the output of a graph: symbols for inference and for training.

        With `divides`, a weighted loss is divided by the sum of the weights, as `replace_softmax_loss` describes.
        """
        (output,) = graph.outputs
        inference, training, _ = graft_onto_graph(
            graph, output, self.task.name, self.task.num_outputs, self._dropout, self.base.config.units
        )
        loss = self.task.class_loss
        if loss is not None:
            replace_softmax_loss(training, self.task.num_outputs, loss.weights, loss.smoothing, divides=divides)
        return to_symbol(inference), to_symbol(training)

    @property
    def label_inputs(self) -> tuple[Tensor, ...]:
        """The inputs that only the training symbol has."""
        return tuple(Tensor(*each) for each in label_shapes(self.task.name, self.task.num_outputs).items())

    def describe_input(self) -> str:
        """Describe the classifier's input in one line."""
        units = self.base.config.units
        name = self.encoder_symbol.list_outputs()[0]
        reads = f"{FULLY_CONNECTED} reads {name}, {OUTPUTS[self.output]}: "
        if self.length is None:
            return f"{reads}{units} features"
        width = self.head_params[f"{FULLY_CONNECTED}_weight"].shape[1]
        return f"{reads}{self.length} x {units} = {width} features, which fixes the sequence length to {self.length}"

    def predictor(self, symbol: Any) -> MXNetPredictor:
        """Return a predictor of the encoder's or the classifier's symbol, still without parameters."""
        pad_id, device = self.base.signature.pad_id, contexts(self._device)
        return MXNetPredictor(symbol, self.base.config, pad_id, self.max_length, self.length, device)


class TrainableModel(Protocol):
    """A symbol that ends in its loss, with the parameters to train and the batches to train on."""

    symbol: Any
    params: Params  #: initial values of the parameters to train
    batches: BatchSource

    def all_params(self, trained: Params) -> Params:
        """Return all parameters of the model, given the trained ones."""

    def predict_dev(self, trained: Params, on_rows: Callable[[int], object] = lambda count: None) -> list[Any]:
        """Return what the task keeps of the outputs for the dev windows, as the written bundle computes them.

        `on_rows` is called with the number of windows in each finished batch.
        """


class FullModel:
    """Encoder and head are trained together, on token ids."""

    def __init__(self, model: GraftedModel, data: FinetuneData) -> None:
        base, features = model.base, data.train.features
        self.symbol = model.train_symbol
        self.params: Params = {**model.base_params, **model.head_params}
        self.batches: BatchSource = TokenSource(
            features,
            data.task.targets(data.train),
            base.config,
            base.signature.pad_id,
            model.max_length,
            model.length,
            base.signature.input_names,
        )
        self._predictor = model.predictor(model.inference_symbol)
        self._dev, self._task = data.dev.features, data.task

    def all_params(self, trained: Params) -> Params:
        """Return the trained parameters in the order of the model's."""
        return {name: trained[name] for name in self.params}

    def predict_dev(self, trained: Params, on_rows: Callable[[int], object] = lambda count: None) -> list[Any]:
        """Return what the task keeps of the outputs for the dev windows."""
        self._predictor.set_params(trained)
        return self._predictor.each(self._dev, self._task.keep, on_rows)


class FrozenEncoderModel:
    """The head is trained alone, on encodings that are computed once.

    `cache` returns an array by name and shape, computed by its third argument unless an earlier process of the run has
    stored it. Encodings of the dev windows are computed only if this process `evaluates`.
    """

    def __init__(
        self,
        model: GraftedModel,
        data: FinetuneData,
        events: EventStream,
        cache: EncodingsCache | None,
        evaluates: bool,
    ) -> None:
        encoder = model.predictor(model.encoder_symbol)
        encoder.set_params(model.base_params)
        self._task, self._dev_windows = data.task, data.dev.features

        def encodings(name: str, features: Features) -> Array:
            length = model.length
            if data.task.reads_tokens:
                length = bucket_length(int(features.lengths.max()), model.max_length)
            shape = (len(features), *([length] if length else []), model.base.config.units)

            def compute_chunk(chunk: Features, on_rows: Callable[[int], object]) -> Array:
                if data.task.reads_tokens and length is not None:
                    return encode_tokens(encoder, chunk, length, on_rows)
                return encoder(chunk, on_rows)

            def compute() -> Array:
                events.note(f"encoder frozen: computing its output for the {len(features)} rows of {name} once")
                return encode(compute_chunk, features, events.counter("encoding", len(features), name))

            return cache(f"{name}-encodings", shape, compute) if cache else compute()

        train = encodings("train", data.train.features)
        self._dev = encodings("dev", self._dev_windows) if evaluates else None
        graph = SymbolGraph.parse(mx.sym.var(ENCODED).tojson())
        self._inference_symbol, self.symbol = model.graft(graph)
        self.params: Params = model.head_params
        counts = data.train.features.lengths if data.task.reads_tokens else None
        self.batches: BatchSource = EncodedSource(train, data.task.targets(data.train), counts)
        self._base_params = model.base_params

    def all_params(self, trained: Params) -> Params:
        """Return the encoder's parameters with the trained head."""
        return {**self._base_params, **{name: trained[name] for name in self.params}}

    def predict_dev(self, trained: Params, on_rows: Callable[[int], object] = lambda count: None) -> list[Any]:
        """Return what the task keeps of the outputs for the dev windows, from their encodings."""
        assert self._dev is not None, "this process does not evaluate"
        arrays = {name: mx.nd.array(array) for name, array in trained.items()}
        windows, kept = self._dev_windows.examples, []
        for start in range(0, len(self._dev), _HEAD_ROWS):
            chunk = mx.nd.array(self._dev[start : start + _HEAD_ROWS])
            outputs = self._inference_symbol.eval(mx.cpu(), **arrays, **{ENCODED: chunk})[0].asnumpy()
            on_rows(len(outputs))
            kept += [self._task.keep(output, window) for output, window in zip(outputs, windows[start:])]
        return kept
