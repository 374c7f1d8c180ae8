"""BERT encoders in MXNet: configuration, parameters, graphs, outputs and heads."""
