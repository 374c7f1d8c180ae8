"""Passes: functions that change a graph in place into another one that computes the same."""
