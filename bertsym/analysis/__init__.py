"""The BERT encoder in a graph, and what is computed of it; told by the graph alone, without mxnet."""
