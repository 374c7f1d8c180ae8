"""Using a classifier: forwards over many examples, evaluation of a table, prediction of texts."""
