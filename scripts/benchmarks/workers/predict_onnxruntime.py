"""Prediction with onnxruntime, on the graph from its transformers optimizer, in float32 or with int8 weights."""

from __future__ import annotations

from typing import Any

import onnxruntime
from job import read_job, read_rows, write_result
from padding import Batched, Logits
from timing import measure


def main() -> None:
    job = read_job()
    batched = Batched(job, "np", session(job["onnx"], job["threads"]), [session(job["onnx"], 1)] * job["threads"])
    result = measure(job, read_rows(job["table"]), batched)
    way = "batches at once" if batched.at_once else "one batch at a time"
    write_result(**result, settings=f"onnxruntime {onnxruntime.__version__}, {job['threads']} threads, {way}")


def session(path: str, threads: int) -> Logits:
    """Open a session; it may be run by several threads at a time."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL
    opened = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    names = [tensor.name for tensor in opened.get_inputs()]

    def logits(batch: Any) -> Any:
        return opened.run(None, {name: batch[name] for name in names})[0]

    return logits


if __name__ == "__main__":
    main()
