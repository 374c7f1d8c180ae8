"""The traditional pipeline: GluonNLP's own symbol with a grafted head, Module API, texts padded to max_length.

As MXNet's example of fine-tuning BERT by the Module API does it, with GluonNLP's bertadam and with clipping.
"""

from __future__ import annotations

import time
from typing import Any

import numpy as np
from gluonnlp_common import encode, learning_rate, mx, settings
from job import read_job, write_result


def main() -> None:
    job = read_job()
    mx.random.seed(job["seed"])
    np.random.seed(job["seed"])
    prefix = job["gluonnlp_prefix"]
    train, dev = (
        iterator(encode(prefix, job[name], job["max_length"], pad=True), job["batch_size"], name == "train")
        for name in ("train", "dev")
    )
    result: dict[str, Any] = {"epoch_seconds": [], "step_seconds": [], "dev_seconds": [], "accuracy": []}
    module = None
    steps = -(-train.num_data // job["batch_size"]) * job["epochs"]
    for epoch in range(job["epochs"]):
        start = time.perf_counter()
        module = module or fitted_out(prefix, train)
        train.reset()
        for i, batch in enumerate(train):
            begun = time.perf_counter()
            step = epoch * steps // job["epochs"] + i + 1
            module._optimizer.set_learning_rate(learning_rate(step, steps, job["learning_rate"]))
            module.forward_backward(batch)
            gradients = [array for arrays in module._exec_group.grad_arrays for array in arrays if array is not None]
            # SoftmaxOutput sums over the batch; the limit applies to the mean.
            mx.gluon.utils.clip_global_norm(gradients, float(job["batch_size"]))
            module.update()
            mx.nd.waitall()
            result["step_seconds"].append(time.perf_counter() - begun)
        end = time.perf_counter()
        result["epoch_seconds"].append(end - start)
        probabilities = module.predict(dev).asnumpy()
        result["accuracy"].append(float((probabilities.argmax(1) == dev.label[0][1].asnumpy()).mean()))
        result["dev_seconds"].append(time.perf_counter() - end)
    write_result(**result, rows=train.num_data, settings=settings())


def iterator(rows: list[tuple[Any, ...]], batch_size: int, shuffle: bool) -> Any:
    ids, valid, types, labels = (np.array(column, np.float32) for column in zip(*rows))
    return mx.io.NDArrayIter(
        {"data0": ids, "data1": types, "data2": valid}, {"softmax_label": labels}, batch_size, shuffle
    )


def fitted_out(prefix: str, train: Any) -> Any:
    symbol, arg_params, _ = mx.model.load_checkpoint(prefix, 0)
    head = mx.sym.FullyConnected(mx.sym.Dropout(symbol, p=0.1), num_hidden=2, name="fc-finetune")
    module = mx.mod.Module(mx.sym.SoftmaxOutput(head, name="softmax"), ["data0", "data1", "data2"], ["softmax_label"])
    module.bind(train.provide_data, train.provide_label)
    module.init_params(mx.init.Normal(0.02), arg_params, {}, allow_missing=True)
    options = {"learning_rate": 0.0, "epsilon": 1e-6, "wd": 0.01, "rescale_grad": 1 / train.batch_size}
    module.init_optimizer(kvstore=None, optimizer="bertadam", optimizer_params=options)
    return module


if __name__ == "__main__":
    main()
