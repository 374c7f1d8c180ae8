"""Quantize trained classifiers to int8 with mxnet's own quantization."""
