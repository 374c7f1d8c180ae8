"""Prediction with OpenVINO: in float32, or the model that NNCF quantized."""

from __future__ import annotations

from typing import Any

import openvino
from job import read_job, read_rows, write_result
from padding import Batched, Logits
from timing import measure


def main() -> None:
    job = read_job()
    threads = job["threads"]
    shares = compile_model(job["xml"], threads, threads)
    batched = Batched(job, "np", *compile_model(job["xml"], threads, 1), shares)
    result = measure(job, read_rows(job["table"]), batched)
    way = "batches at once" if batched.at_once else "one batch at a time"
    write_result(**result, settings=f"openvino {openvino.__version__}, {threads} threads, {way}")


def compile_model(path: str, threads: int, streams: int) -> list[Logits]:
    """Compile a model whose streams share the threads; returns a function for each stream."""
    settings = {
        "INFERENCE_NUM_THREADS": threads,
        "NUM_STREAMS": streams,
        "PERFORMANCE_HINT": "LATENCY" if streams == 1 else "THROUGHPUT",
        "INFERENCE_PRECISION_HINT": "f32",  # otherwise bfloat16, where the processor has it
    }
    compiled = openvino.Core().compile_model(path, "CPU", settings)
    names = [port.any_name for port in compiled.inputs]

    def of_stream() -> Logits:
        request = compiled.create_infer_request()

        def logits(batch: Any) -> Any:
            request.infer({name: batch[name] for name in names}, share_inputs=True)
            return request.get_output_tensor().data.copy()

        return logits

    return [of_stream() for _ in range(streams)]


if __name__ == "__main__":
    main()
