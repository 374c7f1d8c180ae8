"""Convert a Hugging Face folder to ONNX, fused by onnxruntime's optimizer for BERT, in float32 and dynamic int8."""

from __future__ import annotations

from pathlib import Path

import torch
from job import read_job, write_result
from onnx import TensorProto
from onnxruntime.quantization import QuantType, quantize_dynamic
from onnxruntime.transformers.fusion_options import FusionOptions
from onnxruntime.transformers.optimizer import optimize_model
from transformers import BertForSequenceClassification

_INPUTS = ["input_ids", "attention_mask", "token_type_ids"]
_FUSED = ("EmbedLayerNormalization", "Attention", "BiasGelu", "SkipLayerNormalization")


def main() -> None:
    job = read_job()
    folder = Path(job["folder"])
    # The optimizer recognizes only the eager implementation of attention.
    model = BertForSequenceClassification.from_pretrained(folder, attn_implementation="eager", dtype=torch.float32)
    ids = torch.randint(model.config.vocab_size, (2, 16))
    axes = {name: {0: "batch", 1: "length"} for name in _INPUTS}
    torch.onnx.export(
        model.eval(),
        (ids, torch.ones_like(ids), torch.zeros_like(ids)),
        str(folder / "plain.onnx"),
        input_names=_INPUTS,
        output_names=["logits"],
        dynamic_axes={**axes, "logits": {0: "batch"}},
        opset_version=17,
        dynamo=False,
    )
    config = model.config
    fused = optimize_model(
        str(folder / "plain.onnx"),
        "bert",
        num_heads=config.num_attention_heads,
        hidden_size=config.hidden_size,
        optimization_options=FusionOptions("bert"),
    )
    counts = fused.get_fused_operator_statistics()
    if not all(counts[name] for name in _FUSED):
        raise SystemExit(f"onnxruntime's optimizer did not fuse all of BERT: {counts}")
    fused.save_model_to_file(str(folder / "fused.onnx"))
    quantize_dynamic(
        folder / "fused.onnx",
        folder / "int8.onnx",
        weight_type=QuantType.QInt8,
        per_channel=True,
        extra_options={"DefaultTensorType": TensorProto.FLOAT},  # shape inference does not support fused operators
    )
    write_result(fused={name: counts[name] for name in _FUSED})


if __name__ == "__main__":
    main()
