"""Metrics over whole data sets, with numpy alone."""
