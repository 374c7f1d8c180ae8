"""Let mxnet 1.9.1 and gluonnlp 0.10.0 import on Pythons and numpys that are newer than they are, and mxnet sooner."""
