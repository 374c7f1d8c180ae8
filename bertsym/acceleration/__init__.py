"""Graphs rewritten in memory for speed on this machine's CPU: the same functions of the same parameters.

These graphs are never written to a file.
"""
