"""Pictures of a symbol graph: SVG and PNG by Graphviz, and an HTML page that folds open. Nothing here imports mxnet."""
