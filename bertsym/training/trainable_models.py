"""What a run trains: encoder and head together, or the head on the output of a frozen encoder."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Protocol

import numpy as np

from bertsym.acceleration.graphs import to_symbol
from bertsym.devices import contexts
from bertsym.encoders.catalogue import FULLY_CONNECTED, OUTPUTS
from bertsym.encoders.inputs import INPUT_NAMES, input_shapes
from bertsym.encoders.symbol_heads import graft, graft_for_inference, head_parameters
from bertsym.inference.mxnet_predictor import MXNetPredictor
from bertsym.mxnet_runtime import mx, mxnet_errors
from bertsym.symbol.params import Array
from bertsym.text.features import Features
from bertsym.training.base_model import Base
from bertsym.training.batch_source import ENCODED, BatchSource, EncodedSource, TokenSource
from bertsym.training.data import FinetuneData
from bertsym.training.encodings import encode
from bertsym.training.finetune_options import FinetuneOptions
from bertsym.training.layer_rates import with_rate_multipliers

Params = Mapping[str, Array]
EncodingsCache = Callable[[str, tuple[int, ...], Callable[[], Array]], Array]

_HEAD_ROWS = 1024  # encodings that a head classifies per call


class GraftedClassifier:
    """A base's encoder with a new head, or with its own: symbols and initial parameters."""

    def __init__(self, base: Base, num_classes: int, options: FinetuneOptions, max_length: int) -> None:
        self.base, self.max_length = base.bundle, max_length
        self.output = base.output  #: of the encoder, which the head reads
        #: the only sequence length that the graph accepts; None if it accepts any
        self.length = max_length if options.whole_sequence else None
        self.head_settings: dict[str, Any] = {
            "num_classes": num_classes,
            "dropout": base.dropout,
            "whole_sequence": options.whole_sequence,
        }
        self._device = options.device
        #: whether any parameter of the encoder is trained
        self.trains_encoder = not options.freeze_encoder and any(base.rates.get(name, 1) for name in base.params)
        with mxnet_errors(str(base.bundle.prefix)):
            self.encoder_symbol = to_symbol(base.graph)
        self.train_symbol = with_rate_multipliers(graft(self.encoder_symbol, **self.head_settings), base.rates)
        self.inference_symbol = graft_for_inference(self.encoder_symbol, **self.head_settings)
        self.base_params = base.params
        self.head_params = base.head_params or head_parameters(
            self.train_symbol,
            [*INPUT_NAMES, *self.base_params],
            input_shapes(1, self.length or 1, self.base.signature.input_names),
            options.seed,
        )

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
        """Return all parameters of the classifier, given the trained ones."""

    def predict_dev(self, trained: Params) -> Array:
        """Return the probabilities of the dev rows (rows, classes), as the written classifier computes them."""


class FullModel:
    """Encoder and head are trained together, on token ids."""

    def __init__(self, classifier: GraftedClassifier, data: FinetuneData) -> None:
        base, rows = classifier.base, data.train
        self.symbol = classifier.train_symbol
        self.params: Params = {**classifier.base_params, **classifier.head_params}
        self.batches: BatchSource = TokenSource(
            rows.features,
            rows.classes,
            base.config,
            base.signature.pad_id,
            classifier.max_length,
            classifier.length,
            base.signature.input_names,
        )
        self._predictor = classifier.predictor(classifier.inference_symbol)
        self._dev = data.dev.features

    def all_params(self, trained: Params) -> Params:
        """Return the trained parameters in the order of the classifier's."""
        return {name: trained[name] for name in self.params}

    def predict_dev(self, trained: Params) -> Array:
        """Return the probabilities of the dev rows."""
        self._predictor.set_params(trained)
        return self._predictor(self._dev)


class FrozenEncoderModel:
    """The head is trained alone, on encodings that are computed once.

    `cache` returns an array by name and shape, computed by its third argument unless an earlier process of the run has
    stored it. Encodings of the dev rows are computed only if this process `evaluates`.
    """

    def __init__(
        self,
        classifier: GraftedClassifier,
        data: FinetuneData,
        note: Callable[[str], object],
        cache: EncodingsCache | None,
        evaluates: bool,
    ) -> None:
        encoder = classifier.predictor(classifier.encoder_symbol)
        encoder.set_params(classifier.base_params)
        shape = (*([classifier.length] if classifier.length else []), classifier.base.config.units)

        def encodings(name: str, features: Features) -> Array:
            def compute() -> Array:
                note(f"encoder frozen: computing its output for the {len(features)} rows of {name} once")
                return encode(encoder, features)

            return cache(f"{name}-encodings", (len(features), *shape), compute) if cache else compute()

        train = encodings("train", data.train.features)
        self._dev = encodings("dev", data.dev.features) if evaluates else None
        head, settings = mx.sym.var(ENCODED), {**classifier.head_settings, "shapes": [(ENCODED, train.shape)]}
        self.symbol = graft(head, **settings)
        self._inference_symbol = graft_for_inference(head, **settings)
        self.params: Params = classifier.head_params
        self.batches: BatchSource = EncodedSource(train, data.train.classes)
        self._base_params = classifier.base_params

    def all_params(self, trained: Params) -> Params:
        """Return the encoder's parameters with the trained head."""
        return {**self._base_params, **{name: trained[name] for name in self.params}}

    def predict_dev(self, trained: Params) -> Array:
        """Return the probabilities of the dev rows, from their encodings."""
        assert self._dev is not None, "this process does not evaluate"
        arrays = {name: mx.nd.array(array) for name, array in trained.items()}
        chunks = np.array_split(self._dev, -(-len(self._dev) // _HEAD_ROWS))
        return np.concatenate(
            [
                self._inference_symbol.eval(mx.cpu(), **arrays, **{ENCODED: mx.nd.array(chunk)})[0].asnumpy()
                for chunk in chunks
            ]
        )
