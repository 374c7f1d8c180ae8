"""Symbol graphs and parameter files as data. Nothing here imports mxnet: a hostile file is only looked at."""
