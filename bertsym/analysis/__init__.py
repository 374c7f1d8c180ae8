"""Analysis of a graph without mxnet: its BERT encoder, and which tokens reach its classifiers."""
