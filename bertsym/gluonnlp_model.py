"""GluonNLP's BERTModel, the second implementation with which the reference encoder is compared."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from bertsym.array import Array
from bertsym.encoders.config import BertConfig
from bertsym.encoders.inputs import INPUT_NAMES
from bertsym.encoders.parameters import POOLER, parameter_shapes
from bertsym.errors import ModelError
from bertsym.execution.loaders import to_mxnet
from bertsym.mxnet_runtime import mx, nlp


class GluonNLPModel:
    """GluonNLP's BERTModel with given weights."""

    def __init__(self, config: BertConfig, arg_params: Mapping[str, Array]) -> None:
        self._has_pooler = all(name in arg_params for name in POOLER)
        encoder = nlp.model.BERTEncoder(
            num_layers=config.num_layers,
            units=config.units,
            hidden_size=config.hidden_size,
            max_length=config.max_length,
            num_heads=config.num_heads,
            layer_norm_eps=config.layer_norm_eps,
            prefix="bertencoder0_",
        )
        self._net = nlp.model.BERTModel(
            encoder,
            vocab_size=config.vocab_size,
            token_type_vocab_size=config.token_type_vocab_size,
            units=config.units,
            embed_size=config.units,
            use_pooler=self._has_pooler,
            use_decoder=False,
            use_classifier=False,
            prefix="bertmodel0_",
        )
        parameters = self._net.collect_params()
        parameters.setattr("grad_req", "null")
        expected = parameter_shapes(config, self._has_pooler)
        if set(parameters) != set(expected):
            raise ModelError(f"GluonNLP's BERTModel names its weights differently: {set(parameters) ^ set(expected)}")
        for name in expected:
            parameters[name]._load_init(to_mxnet(arg_params[name]), mx.cpu())
        self._net.hybridize()  # the same numbers, without the time of a Python function for each operator

    def encode(self, output: str, inputs: Mapping[str, Array]) -> Array:
        """One of ``catalogue.OUTPUTS``; the sequence is not zeroed at padding."""
        token_ids, token_types, valid_length = (inputs[name] for name in INPUT_NAMES)
        answer = self._net(*map(mx.nd.array, (token_ids, token_types, valid_length)))
        sequence, pooled = answer if self._has_pooler else (answer, None)
        sequence = np.asarray(sequence.asnumpy())
        if output == "pooled":
            assert pooled is not None
            return np.asarray(pooled.asnumpy())
        if output == "cls":
            return np.asarray(sequence[:, 0])
        if output == "mean":
            return np.stack([row[: int(n)].mean(axis=0) for row, n in zip(sequence, valid_length)])
        return sequence
