"""Embedding with sentence-transformers, which sorts the texts by their lengths, on PyTorch, onnxruntime or OpenVINO."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import sentence_transformers
import torch
from embed_timing import measure
from job import read_job, write_result
from sentence_transformers import SentenceTransformer


def main() -> None:
    job = read_job()
    torch.set_num_threads(job["threads"])
    model = {"torch": on_torch, "onnx": on_onnxruntime, "openvino": on_openvino}[job["backend"]](job)
    del model[2:]  # normalization
    model.max_seq_length = job["max_length"]
    result = measure(job, lambda texts: model.encode(texts, batch_size=32, show_progress_bar=False))
    versions = f"sentence-transformers {sentence_transformers.__version__}, torch {torch.__version__}"
    write_result(**result, settings=f"{versions}, {torch.get_num_threads()} threads")


def on_torch(job: dict[str, Any]) -> SentenceTransformer:
    return SentenceTransformer(job["model"], device="cpu")


def on_onnxruntime(job: dict[str, Any]) -> SentenceTransformer:
    """The graph as sentence-transformers converts it and optimum optimizes it for BERT."""
    import onnxruntime
    from sentence_transformers import export_optimized_onnx_model

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = job["threads"]
    kwargs: dict[str, Any] = {"provider": "CPUExecutionProvider", "session_options": options}
    folder = Path(f"{job['converted']}_onnx")
    if not (folder / "onnx" / "model_O3.onnx").exists():
        plain = SentenceTransformer(job["model"], device="cpu", backend="onnx", model_kwargs={**kwargs, "export": True})
        plain.save_pretrained(str(folder))
        export_optimized_onnx_model(plain, "O3", str(folder))
    kwargs["file_name"] = "onnx/model_O3.onnx"
    return SentenceTransformer(str(folder), device="cpu", backend="onnx", model_kwargs=kwargs)


def on_openvino(job: dict[str, Any]) -> SentenceTransformer:
    folder = Path(f"{job['converted']}_openvino")
    config = {
        "INFERENCE_NUM_THREADS": str(job["threads"]),
        "PERFORMANCE_HINT": "LATENCY",
        "INFERENCE_PRECISION_HINT": "f32",  # otherwise bfloat16, where the processor has it
    }
    kwargs = {"ov_config": config, "device": "CPU"}
    if not folder.exists():
        plain = SentenceTransformer(
            job["model"], device="cpu", backend="openvino", model_kwargs={**kwargs, "export": True}
        )
        plain.save_pretrained(str(folder))
    return SentenceTransformer(str(folder), device="cpu", backend="openvino", model_kwargs=kwargs)


if __name__ == "__main__":
    main()
