"""A trained classifier with its matrix products in int8, by mxnet's own quantization."""
