"""Fine-tuning by several processes."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from bertsym.distributed.cluster import Cluster
from bertsym.distributed.exchange import WORKER_TIMEOUT, join, serve
from bertsym.errors import UsageError
from bertsym.text.tables import TableFormat
from bertsym.training.finetune import FinetuneResult, finetune, prepare
from bertsym.training.options import FinetuneOptions
from bertsym.training.progress import SilentProgress


def finetune_distributed(
    prefix: str | Path,
    train: str | Path,
    dev: str | Path,
    out: str | Path,
    *,
    worker_timeout: float = WORKER_TIMEOUT,
    task: str = "classification",
    options: FinetuneOptions = FinetuneOptions(),
    table_format: TableFormat = TableFormat(),
    **others: Any,
) -> FinetuneResult | None:
    """Take part in a `finetune` by several processes, in the role that the environment's DMLC_* variables tell.

    All are called alike. Each worker computes its rows of every batch, so that a step is that of one process; the
    first one evaluates and writes, and only for it something is returned. `others` are further arguments of `finetune`.

    A process that ends, or is not heard for `worker_timeout` seconds, ends the run: after a checkpoint of the last step
    WorkersLost is raised, or where that can't be, the process ends with one line and exit code 1. Raises UsageError
    for wrong variables, and what `finetune` raises.
    """
    if not worker_timeout > 0:
        raise UsageError(f"worker_timeout is {worker_timeout}, seconds above 0 are needed")
    cluster = Cluster.from_environment(os.environ)
    if cluster.role != "worker":
        serve(cluster, worker_timeout)
        return None
    with join(cluster, worker_timeout) as workers:
        if workers.rank == 0:
            return finetune(
                prefix,
                train,
                dev,
                out,
                task=task,
                options=options,
                table_format=table_format,
                workers=workers,
                **others,
            )
        silent = SilentProgress()
        prepare(prefix, train, dev, task, options, table_format, silent).fit(silent, workers).run()
        return None
