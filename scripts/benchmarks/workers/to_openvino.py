"""Convert an ONNX file to OpenVINO, and quantize it to int8 by NNCF with static ranges."""

from __future__ import annotations

import nncf
import openvino
from job import read_job, read_rows, write_result
from transformers import AutoTokenizer


def main() -> None:
    job = read_job()
    folder = job["folder"]
    model = openvino.convert_model(job["onnx"])
    openvino.save_model(model, f"{folder}/openvino.xml", compress_to_fp16=False)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    names = [port.any_name for port in model.inputs]

    def inputs_of(row: dict[str, str]) -> dict[str, object]:
        encoded = tokenizer(row["text"], row["text_pair"], truncation=True, max_length=128, return_tensors="np")
        return {name: encoded[name] for name in names}

    rows = read_rows(job["calibration"])[: job["rows"]]
    quantized = nncf.quantize(
        model,
        nncf.Dataset(rows, inputs_of),
        subset_size=len(rows),
        model_type=nncf.ModelType.TRANSFORMER,
        preset=nncf.QuantizationPreset.MIXED,
    )
    openvino.save_model(quantized, f"{folder}/openvino_int8.xml")
    write_result(folder=folder, nncf=nncf.__version__)


if __name__ == "__main__":
    main()
