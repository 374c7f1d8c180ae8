"""The operators of the portable form and its heads, all of MXNet 1.5; a bundle has no others."""

OPERATORS = frozenset(
    {
        "Activation",
        "Cast",
        "Dropout",
        "Embedding",
        "FullyConnected",
        "LayerNorm",
        "LeakyReLU",
        "Reshape",
        "SequenceMask",
        "SoftmaxOutput",
        "_mul_scalar",
        "batch_dot",
        "broadcast_add",
        "broadcast_div",
        "elemwise_add",
        "expand_dims",
        "null",
        "slice_axis",
        "slice_like",
        "softmax",
        "sum",
        "transpose",
        "zeros_like",
    }
)
