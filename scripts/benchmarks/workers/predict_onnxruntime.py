"""Prediction with onnxruntime, on the graph from its transformers optimizer, in float32 or with int8 weights."""

from __future__ import annotations

from typing import Any

import onnxruntime
from job import read_job, read_rows, write_result
from padding import Batched
from timing import measure


def main() -> None:
    job = read_job()
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = job["threads"]
    options.inter_op_num_threads = 1
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL
    session = onnxruntime.InferenceSession(job["onnx"], options, providers=["CPUExecutionProvider"])
    names = [tensor.name for tensor in session.get_inputs()]

    def logits(batch: Any) -> Any:
        return session.run(None, {name: batch[name] for name in names})[0]

    result = measure(job, read_rows(job["table"]), Batched(job["folder"], job["max_length"], "np", logits))
    write_result(**result, settings=f"onnxruntime {onnxruntime.__version__}, {job['threads']} threads")


if __name__ == "__main__":
    main()
