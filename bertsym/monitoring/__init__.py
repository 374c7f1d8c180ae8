"""Listeners of the events of a run: what a terminal shows, and logs."""
