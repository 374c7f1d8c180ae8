"""Write a bertsym classifier with a pooler as an equivalent Hugging Face folder."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

from job import read_job, write_result
from safetensors.numpy import save_file

from bertsym import Bundle
from bertsym.encoders.parameters import expand
from bertsym.sources.weight_names import HUGGING_FACE


def main() -> None:
    job = read_job()
    bundle, out = Bundle.open(job["prefix"]), Path(job["out"])
    arrays = bundle.params()
    weights = {"classifier.weight": arrays["fc-finetune_weight"], "classifier.bias": arrays["fc-finetune_bias"]}
    for ours, theirs in HUGGING_FACE.names.items():
        layers = bundle.config.num_layers
        weights |= {f"bert.{name}": arrays[mine] for mine, name in zip(expand(ours, layers), expand(theirs, layers))}
    out.mkdir(parents=True)
    for path in Path(job["model"]).glob("*token*.json"):
        shutil.copy(path, out)
    shutil.copy(Path(job["model"]) / "vocab.txt", out)
    config = json.loads((Path(job["model"]) / "config.json").read_text(encoding="utf-8"))
    labels = {str(i): label for i, label in enumerate(bundle.signature.class_names)}
    (out / "config.json").write_text(json.dumps({**config, "id2label": labels}), encoding="utf-8")
    save_file({name: array.copy() for name, array in weights.items()}, out / "model.safetensors", {"format": "pt"})
    write_result(out=str(out))


if __name__ == "__main__":
    main()
