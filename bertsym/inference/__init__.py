"""Inference with a classifier: batched forward passes, prediction of texts, evaluation on a table."""
