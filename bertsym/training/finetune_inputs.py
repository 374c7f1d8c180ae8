"""What a fine-tuning run reads, checked: the base bundle, the tables and the options, and the model that is trained."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bertsym.bundle import Bundle
from bertsym.datasets.dataset import DataSet
from bertsym.datasets.registry import find_dataset
from bertsym.devices import contexts
from bertsym.distributed.workers import ALONE, Workers
from bertsym.errors import UsageError
from bertsym.events import EventStream
from bertsym.tasks import kind_of
from bertsym.text.tokenizer import TokenizerOptions
from bertsym.training.base_model import Base, open_base
from bertsym.training.checkpoints import library_versions
from bertsym.training.data import FinetuneData, read_data
from bertsym.training.finetune_options import FinetuneOptions
from bertsym.training.trainable_models import GraftedModel
from bertsym.training.trainer import CPU_SHARDS


@dataclass(frozen=True)
class FinetuneRequest:
    """The arguments of `finetune` that every worker of a distributed run has."""

    prefix: str | Path
    train: str | Path
    dev: str | Path | None
    options: FinetuneOptions
    events: EventStream
    workers: Workers = ALONE


@dataclass(frozen=True)
class FinetuneInputs:
    """The validated inputs of a run."""

    dataset: DataSet
    data: FinetuneData
    model: GraftedModel
    facts: dict[str, Any]  #: for the manifest
    settings: dict[str, Any]  #: everything that the result depends on, by names for messages


@dataclass(frozen=True)
class FinetuneFiles:
    """What a run reads: the base bundle and both tables."""

    dataset: DataSet
    start: Base
    data: FinetuneData
    max_length: int
    seed: int  #: by which `dev_fraction` draws the dev rows


def load_files(request: FinetuneRequest) -> FinetuneFiles:
    """Read and check the base bundle and both tables."""
    options = request.options
    dataset = find_dataset(options.task)
    task, base = kind_of(dataset).create(dataset, options.task_options), Bundle.open(request.prefix)
    if options.metric is not None and options.metric != "loss":
        task = dataclasses.replace(task, metrics=tuple(dict.fromkeys([options.metric, *task.metrics])))
    if (request.dev is None) == (options.dev_fraction is None):
        raise UsageError("give either a dev table or dev_fraction, which takes the dev rows from the training table")
    start = open_base(base, task, options)
    max_length = options.resolve_max_length(base.config.max_length, task.default_max_length)
    contexts(options.device)  # raises before the files are read if the device does not exist
    tokenizer = base.tokenizer(tokenizer_options(base, options), max_length)
    keeps_texts = options.report is not None and options.report.texts
    data = read_data(request.train, request.dev, task, dataset, start, options, tokenizer, request.events, keeps_texts)
    if start.continues:
        request.events.note(f"continuing the trained head of {base.prefix}")
    return FinetuneFiles(dataset, start, data, max_length, options.seed)


def build_inputs(request: FinetuneRequest, files: FinetuneFiles) -> FinetuneInputs:
    """Build the model of a run with the seed of its options, and describe the run."""
    options, dataset, start, data = request.options, files.dataset, files.start, files.data
    task, base, max_length = data.task, start.bundle, files.max_length
    model = GraftedModel(start, data.task, options, max_length)
    request.events.note(model.describe_input())
    layout = data.train.layout
    hyperparameters = {**options.to_dict(), "max_length": max_length, "dropout": start.dropout}
    loss = data.task.class_loss
    if options.dev_fraction is not None and files.seed != options.seed:
        hyperparameters["dev_seed"] = files.seed
    facts = {
        "options": hyperparameters,
        "task": task.name,
        "dataset": dataset.dataset,
        "loss": loss.to_json() if loss is not None else None,
        "data": {name: rows.facts() for name, rows in (("train", data.train), ("dev", data.dev))},
    }
    settings = {
        **hyperparameters,
        "task": task.name,
        "dataset": dataset.dataset,
        "task settings": task.settings(),
        "class names": list(data.task.class_names),
        "loss": str(loss) if loss is not None else None,
        **{f"{name} table": rows.sha256 for name, rows in (("train", data.train), ("dev", data.dev))},
        "columns": f"{layout.columns}, {'with' if layout.header else 'without'} header",
        "dropped labels": ", ".join(map(repr, data.drop_labels)) or "none",
        **{f"base bundle's {name}": entry["sha256"] for name, entry in base.manifest["files"].items()},
        "shards": CPU_SHARDS,
        **library_versions(),
    }
    return FinetuneInputs(dataset, data, model, facts, settings)


def tokenizer_options(base: Bundle, options: FinetuneOptions) -> TokenizerOptions:
    """Return the options of the base's tokenizer for this run."""
    literal = base.signature.tokenizer.literal_special_tokens or options.literal_special_tokens
    return dataclasses.replace(base.signature.tokenizer, literal_special_tokens=literal)
