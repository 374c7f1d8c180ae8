"""Graphs as they are computed here, which need not be how they are written for every MXNet: the same functions of the
same parameters, made quick on a CPU. Nothing of it is ever written to a file."""
