#!/usr/bin/env python
"""Write the symbols in tests/symbols/mxnet-*: python write_symbols.py FOLDER, under any mxnet from 0.11 on."""

import os
import sys

import mxnet as mx
from mxnet import gluon

contrib = mx.sym.contrib if hasattr(mx.sym, "contrib") else mx.contrib.sym


def resnet50():
    net = gluon.model_zoo.vision.resnet50_v1(prefix="resnet50_")
    return net(mx.sym.var("data"))


def lstm():
    steps = 4
    words = mx.sym.Embedding(mx.sym.var("data"), input_dim=30, output_dim=8, name="words")
    cells = mx.rnn.SequentialRNNCell()
    cells.add(mx.rnn.LSTMCell(num_hidden=6, prefix="lower_"))
    cells.add(mx.rnn.LSTMCell(num_hidden=6, prefix="upper_"))
    outputs, _ = cells.unroll(steps, inputs=words, merge_outputs=True)
    hidden = mx.sym.Reshape(outputs, shape=(-1, 6))
    scores = mx.sym.FullyConnected(hidden, num_hidden=30, name="scores")
    label = mx.sym.Reshape(mx.sym.var("softmax_label"), shape=(-1,))
    return mx.sym.SoftmaxOutput(scores, label, name="softmax")


def lstm_fused():
    sequence, hidden, cell = mx.sym.RNN(
        data=mx.sym.var("data"),
        parameters=mx.sym.var("parameters", init=mx.init.Uniform(0.1)),
        state=mx.sym.var("state", shape=(4, 2, 6)),
        state_cell=mx.sym.var("state_cell", shape=(4, 2, 6)),
        state_size=6,
        num_layers=2,
        bidirectional=True,
        mode="lstm",
        p=0.2,
        state_outputs=True,
        name="rnn",
    )
    return mx.sym.Group([sequence, hidden, mx.sym.mean(cell, axis=-1, name="mean")])


def lstm_gluon():
    net = gluon.rnn.LSTM(6, num_layers=2, bidirectional=True, input_size=8, prefix="lstm_")
    states = [mx.sym.var("hidden"), mx.sym.var("cell")]
    outputs, states = net(mx.sym.var("data"), states)
    return mx.sym.Group([outputs, *states])


def convolution(data, filters, stride, name):
    data = mx.sym.Convolution(
        data, num_filter=filters, kernel=(3, 3), stride=(stride, stride), pad=(1, 1), no_bias=True, name=name
    )
    data = mx.sym.BatchNorm(data, fix_gamma=False, name=name + "_norm")
    return mx.sym.Activation(data, act_type="relu", name=name + "_relu")


def ssd():
    classes = 3
    data = mx.sym.var("data")
    label = mx.sym.var("label", shape=(0, 4, 5))
    body = convolution(data, 8, 2, "body1")
    body = mx.sym.Pooling(body, kernel=(2, 2), stride=(2, 2), pool_type="max", name="pool1")
    scales = [convolution(body, 16, 1, "scale1")]
    scales.append(convolution(scales[0], 16, 2, "scale2"))
    anchors, scores, boxes = [], [], []
    for index, (scale, size) in enumerate(zip(scales, [(0.2, 0.27), (0.5, 0.6)]), 1):
        ratios = (1.0, 2.0, 0.5)
        count = len(size) + len(ratios) - 1
        name = f"scale{index}_"
        anchor = contrib.MultiBoxPrior(scale, sizes=size, ratios=ratios, clip=True, name=name + "anchors")
        anchors.append(mx.sym.Flatten(anchor))
        for rows, depth, kind in ((scores, classes + 1, "scores"), (boxes, 4, "boxes")):
            row = mx.sym.Convolution(scale, num_filter=count * depth, kernel=(3, 3), pad=(1, 1), name=name + kind)
            rows.append(mx.sym.Flatten(mx.sym.transpose(row, axes=(0, 2, 3, 1))))
    anchors = mx.sym.Reshape(mx.sym.concat(*anchors, dim=1), shape=(0, -1, 4), name="anchors")
    boxes = mx.sym.concat(*boxes, dim=1, name="boxes")
    scores = mx.sym.Reshape(mx.sym.concat(*scores, dim=1), shape=(0, -1, classes + 1))
    scores = mx.sym.transpose(scores, axes=(0, 2, 1), name="scores")
    target = contrib.MultiBoxTarget(
        anchors,
        label,
        scores,
        overlap_threshold=0.5,
        ignore_label=-1,
        negative_mining_ratio=3,
        negative_mining_thresh=0.5,
        minimum_negative_samples=0,
        variances=(0.1, 0.1, 0.2, 0.2),
        name="target",
    )
    chances = mx.sym.SoftmaxOutput(
        scores,
        target[2],
        ignore_label=-1,
        use_ignore=True,
        grad_scale=1.0,
        multi_output=True,
        normalization="valid",
        name="chances",
    )
    distance = mx.sym.smooth_l1(target[1] * (boxes - target[0]), scalar=1.0, name="distance")
    loss = mx.sym.MakeLoss(distance, grad_scale=1.0, normalization="valid", name="box_loss")
    classes_found = mx.sym.MakeLoss(target[2], grad_scale=0, name="classes")
    found = contrib.MultiBoxDetection(
        chances, boxes, anchors, nms_threshold=0.45, force_suppress=False, nms_topk=400, name="found"
    )
    return mx.sym.Group([chances, loss, classes_found, mx.sym.BlockGrad(found, name="detections")])


def multi():
    """Put together what a reader may stumble over: many outputs, hidden attributes, odd names, a subgraph."""
    weight = mx.sym.var(
        "weight", shape=(8, 0), dtype="float32", init=mx.init.Xavier(magnitude=2), lr_mult=0.5, wd_mult=0.0
    )
    parts = mx.sym.SliceChannel(mx.sym.var("data", shape=(4, 12)), num_outputs=3, axis=1, name="parts")
    with mx.AttrScope(ctx_group="first", __note__="a\tb"):
        one = mx.sym.FullyConnected(parts[0], weight, num_hidden=8, name="one")
        one = mx.sym.BatchNorm(one, name="norm", momentum=0.8, attr={"__force_mirroring__": "True"})
    with mx.AttrScope(ctx_group="second"):
        two = mx.sym.FullyConnected(parts[2], weight, mx.sym.var("bias", init="zeros"), num_hidden=8, name="two")
    odd = mx.sym.elemwise_add(one, two, name='odd "quoted" back\\slash é 名')
    dense = gluon.nn.Dense(8, in_units=8, activation="tanh", prefix="dense_")
    twice = dense(dense(odd))
    outputs = [twice, parts[1], odd.get_internals()["norm_output"], (odd * 2 + 1) / 3]
    outputs.append(mx.sym.topk(twice, k=2, ret_typ="both", name="best")[1])
    if hasattr(contrib, "foreach"):
        steps, last = contrib.foreach(
            lambda item, state: (mx.sym.broadcast_mul(item, mx.sym.var("scale")) + state, state + item),
            mx.sym.expand_dims(twice, axis=0),
            mx.sym.zeros((4, 8)),
            name="loop",
        )
        outputs += [steps, last]
    return mx.sym.Group(outputs)


def numpy_shape():
    return mx.sym.FullyConnected(mx.sym.var("data", shape=(-1, 0)), num_hidden=4, flatten=False, name="scores")


def main():
    folder = sys.argv[1]
    if not os.path.isdir(folder):
        os.makedirs(folder)
    writers = [lstm, lstm_fused, ssd, multi]
    if mx.__version__ in ("1.4.1", "1.9.1"):  # 150 kB, and nearly the same under the others.
        writers.append(resnet50)
    if hasattr(contrib, "foreach"):  # mxnet 1.3; before it the layer reads the shape of its input
        writers.append(lstm_gluon)
    for writer in writers:
        with mx.name.NameManager():
            writer().save(os.path.join(folder, writer.__name__ + ".json"))
    if hasattr(getattr(mx, "util", None), "np_shape"):  # mxnet 1.5
        with mx.util.np_shape(True):
            numpy_shape().save(os.path.join(folder, "numpy_shape.json"))


if __name__ == "__main__":
    main()
