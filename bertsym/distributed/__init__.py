"""Distributed training: the processes of a run, their liveness, and the collective operations of its workers."""
