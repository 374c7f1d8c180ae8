"""Reports: pages with figures and numbers about a training, an evaluation, or two models."""
