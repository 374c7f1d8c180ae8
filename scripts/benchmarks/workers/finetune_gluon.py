"""Fine-tuning like GluonNLP's script for classifiers: hybridized BERTClassifier, Trainer, bucketing sampler."""

from __future__ import annotations

import time
from typing import Any

import numpy as np
from gluonnlp_common import bert_model, encode, learning_rate, mx, nlp, settings
from job import read_job, write_result


def main() -> None:
    job = read_job()
    mx.random.seed(job["seed"])
    np.random.seed(job["seed"])
    net = classifier(job)
    train, dev = (encode(job["prefix"], job[name], job["max_length"], pad=False) for name in ("train", "dev"))
    loss = mx.gluon.loss.SoftmaxCELoss()
    loss.hybridize(static_alloc=True)
    options = {"learning_rate": 0.0, "epsilon": 1e-6, "wd": 0.01}
    trainer = mx.gluon.Trainer(net.collect_params(), "bertadam", options, update_on_kvstore=False)
    for parameter in net.collect_params(".*beta|.*gamma|.*bias").values():
        parameter.wd_mult = 0.0
    parameters = [parameter for parameter in net.collect_params().values() if parameter.grad_req != "null"]
    batches = loader(train, job["batch_size"])
    result: dict[str, Any] = {"epoch_seconds": [], "step_seconds": [], "dev_seconds": [], "accuracy": []}
    steps, step = len(batches) * job["epochs"], 0
    for _ in range(job["epochs"]):
        start = time.perf_counter()
        for batch in batches:
            ids, valid, types, labels = on_cpu(batch)
            begun = time.perf_counter()
            step += 1
            trainer.set_learning_rate(learning_rate(step, steps, job["learning_rate"]))
            with mx.autograd.record():
                value = loss(net(ids, types, valid), labels).mean()
            value.backward()
            trainer.allreduce_grads()
            nlp.utils.clip_grad_global_norm(parameters, 1)
            trainer.update(1)
            value.asscalar()
            result["step_seconds"].append(time.perf_counter() - begun)
        mx.nd.waitall()
        end = time.perf_counter()
        result["epoch_seconds"].append(end - start)
        result["accuracy"].append(accuracy(net, dev, job["batch_size"]))
        result["dev_seconds"].append(time.perf_counter() - end)
    write_result(**result, rows=len(train), settings=settings())


def classifier(job: dict[str, Any]) -> Any:
    bert = bert_model(job["config"])
    net = nlp.model.BERTClassifier(bert, num_classes=2, dropout=0.1)
    net.initialize(mx.init.Normal(0.02))
    weights = mx.nd.load(f"{job['prefix']}-0000.params")
    for name, parameter in bert.collect_params().items():
        parameter.set_data(weights[f"arg:{name}"])
    net.hybridize(static_alloc=True)
    return net


def loader(rows: list[tuple[Any, ...]], batch_size: int, shuffle: bool = True) -> Any:
    pad, stack = nlp.data.batchify.Pad, nlp.data.batchify.Stack
    sampler = nlp.data.FixedBucketSampler(
        [int(valid) for _, valid, _, _ in rows], batch_size, num_buckets=10, ratio=0, shuffle=shuffle
    )
    batchify = nlp.data.batchify.Tuple(
        pad(axis=0, pad_val=0), stack("float32"), pad(axis=0, pad_val=0), stack("float32")
    )
    return mx.gluon.data.DataLoader(mx.gluon.data.SimpleDataset(rows), batch_sampler=sampler, batchify_fn=batchify)


def on_cpu(batch: Any) -> list[Any]:
    """Copy the loader's arrays from shared memory, which a hybridized net does not accept."""
    return [array.as_in_context(mx.cpu()) for array in batch]


def accuracy(net: Any, rows: list[tuple[Any, ...]], batch_size: int) -> float:
    right = 0
    for batch in loader(rows, batch_size, shuffle=False):
        ids, valid, types, labels = on_cpu(batch)
        right += int((net(ids, types, valid).asnumpy().argmax(1) == labels.asnumpy()).sum())
    return right / len(rows)


if __name__ == "__main__":
    main()
