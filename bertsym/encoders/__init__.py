"""What a BERT is in MXNet: its configuration, its parameters, its encoder graph, outputs and heads."""
