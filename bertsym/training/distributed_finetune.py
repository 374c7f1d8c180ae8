"""Fine-tuning with several processes."""

from __future__ import annotations

import os
from pathlib import Path

from bertsym.distributed.cluster import Cluster
from bertsym.distributed.exchange import join, serve
from bertsym.events import EventStream, Listener
from bertsym.training.finetune import FinetuneResult, train_and_write, train_without_writing
from bertsym.training.finetune_inputs import FinetuneRequest
from bertsym.training.finetune_options import CheckpointOptions, FinetuneOptions


def finetune_distributed(
    prefix: str | Path,
    train: str | Path,
    dev: str | Path | None,
    out: str | Path,
    *,
    options: FinetuneOptions = FinetuneOptions(),
    checkpoints: CheckpointOptions = CheckpointOptions(),
    on_event: Listener = lambda event: None,
    force: bool = False,
) -> FinetuneResult | None:
    """Take part in a `finetune` with several processes, in the role given by the environment's DMLC_* variables.

    All processes call it with equal arguments. Each worker computes its rows of every batch, so that a step equals that
    of a single process. The first worker evaluates, writes the bundle, and is the only process with a result.

    If a process ends, or sends no message for `options.worker_timeout` seconds, the run ends: WorkersLost is raised
    after a checkpoint of the last step, or the process exits with one line and exit code 1 if that is impossible.
    Raises UsageError for invalid variables, and the errors of `finetune`.
    """
    cluster = Cluster.from_environment(os.environ)
    if cluster.role != "worker":
        serve(cluster, options.worker_timeout)
        return None
    with join(cluster, options.worker_timeout) as workers:
        if workers.rank == 0:
            request = FinetuneRequest(prefix, train, dev, options, EventStream(on_event), workers)
            return train_and_write(request, out, checkpoints, force)
        train_without_writing(FinetuneRequest(prefix, train, dev, options, EventStream(), workers))
        return None
