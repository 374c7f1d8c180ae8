"""Outputs, finished heads and operators that a bundle can have, as data."""

from __future__ import annotations

from dataclasses import dataclass

#: encoder output -> description; (N, U) float32, ``sequence`` (N, T, U)
OUTPUTS = {
    "cls": "the encoding of the [CLS] token, position 0 of the sequence",
    "pooled": "tanh(Dense) of the encoding of the [CLS] token, BERT's pooler",
    "mean": "the mean of the encodings of the valid tokens",
    "sequence": "the encodings of all tokens, zeroed at padding",
}

#: how the encodings of a text's tokens become one vector (N, U) -> description
POOLINGS = {
    **{output: OUTPUTS[output] for output in ("cls", "pooled", "mean")},
    "max": "the largest element of the encodings of the valid tokens, for each of the units",
}

#: task -> (encoder output that its finished head reads, prefix of the head's parameters as GluonNLP names them)
FINISHED_HEADS = {
    "classification": ("pooled", "bertclassifier0_dense0"),
    "regression": ("pooled", "bertregression0_dense0"),
    "qa": ("sequence", "bertforqa0_dense0"),
}

#: names of the layers that fine-tuning adds, and of the label
FULLY_CONNECTED, SOFTMAX, LABEL_NAME = "fc-finetune", "softmax", "softmax_label"

#: what a trained head may have before its last layer: a dense layer with an activation, and a LayerNorm
HEAD_TRANSFORM, HEAD_NORM = "fc-finetune-transform", "fc-finetune-transform-norm"


@dataclass(frozen=True)
class HeadTransform:
    """The dense layer HEAD_TRANSFORM before the last layer of a head."""

    activation: str  #: one of ``config.ACTIVATIONS``, or ``tanh``
    dropout: float = 0.0  #: before it


#: task of a head that ends in FULLY_CONNECTED -> ``kind`` of its bundle: probabilities of classes with names, or not
TRAINED_HEADS = {
    "classification": "classifier",
    "multilabel": "classifier",
    "tagging": "classifier",
    "regression": "logits",
    "qa": "logits",
    "masked_lm": "logits",
}

CLASS_LOSS = "loss"  #: the node of a weighted or smoothed cross entropy, the second output of a training symbol

#: the operators of all forms, their heads and losses
OPERATORS = frozenset(
    {
        "Activation",
        "BlockGrad",
        "Cast",
        "Concat",
        "Dropout",
        "Embedding",
        "FullyConnected",
        "L2Normalization",
        "LayerNorm",
        "LeakyReLU",
        "LinearRegressionOutput",
        "LogisticRegressionOutput",
        "MakeLoss",
        "Reshape",
        "SequenceMask",
        "SliceChannel",
        "SoftmaxOutput",
        "_contrib_arange_like",
        "_contrib_interleaved_matmul_selfatt_qk",
        "_contrib_interleaved_matmul_selfatt_valatt",
        "_div_scalar",
        "_greater_equal_scalar",
        "_mul_scalar",
        "_plus_scalar",
        "batch_dot",
        "broadcast_add",
        "broadcast_axis",
        "broadcast_div",
        "broadcast_minimum",
        "clip",
        "elemwise_add",
        "elemwise_mul",
        "erf",
        "expand_dims",
        "log_softmax",
        "max",
        "mean",
        "null",
        "one_hot",
        "ones_like",
        "slice_axis",
        "slice_like",
        "softmax",
        "sqrt",
        "stack",
        "sum",
        "transpose",
        "where",
        "zeros_like",
    }
)
