#!/usr/bin/env python
"""Write a folder of tests/old_checkpoints: python write_checkpoint.py FOLDER, under any mxnet from 0.9.5 on."""

import json
import os
import sys

import mxnet as mx
import numpy as np


def network():
    """Convolution, BatchNorm and a classifier: parameters, auxiliary states and a label."""
    data = mx.sym.Convolution(mx.sym.Variable("data"), kernel=(3, 3), num_filter=4, name="conv0")
    data = mx.sym.BatchNorm(data, fix_gamma=False, name="bn0")
    data = mx.sym.Flatten(mx.sym.Activation(data, act_type="relu", name="relu0"), name="flat")
    return mx.sym.SoftmaxOutput(mx.sym.FullyConnected(data, num_hidden=3, name="fc"), name="softmax")


def main(folder):
    if not os.path.isdir(folder):
        os.makedirs(folder)
    net, random = network(), np.random.RandomState(0)
    inputs = random.normal(size=(2, 1, 6, 6)).astype(np.float32).round(3)
    executor = net.simple_bind(mx.cpu(), data=inputs.shape)
    for _, array in sorted(executor.arg_dict.items()):
        array[:] = random.normal(0, 0.4, array.shape)
    for _, array in sorted(executor.aux_dict.items()):
        array[:] = random.uniform(0.5, 2, array.shape)
    executor.arg_dict["data"][:] = inputs
    outputs = executor.forward(is_train=False)[0].asnumpy()
    parameters = {name: array for name, array in executor.arg_dict.items() if name not in ("data", "softmax_label")}
    mx.model.save_checkpoint(os.path.join(folder, "net"), 0, net, parameters, executor.aux_dict)
    with open(os.path.join(folder, "expected.json"), "w") as file:
        json.dump({"data": inputs.tolist(), "outputs": outputs.tolist()}, file)
        file.write("\n")


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    main(sys.argv[1])
