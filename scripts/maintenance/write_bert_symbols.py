#!/usr/bin/env python
"""Write the tiny BERTs in tests/symbols/gluonnlp-*: python write_bert_symbols.py FOLDER, under gluonnlp 0.6 to 0.10."""

import inspect
import json
import os
import sys
import zlib

import gluonnlp
import mxnet as mx
import numpy as np
from mxnet import gluon

LENGTH = 8
VOCABULARY = 50
BERT = {
    "units": 16,
    "hidden_size": 32,
    "num_layers": 2,
    "num_heads": 4,
    "max_length": 24,
    "dropout": 0.1,
    # Up to 0.8 only; the pretrained models there had these values.
    "attention_cell": "multi_head",
    "scaled": True,
    "use_residual": True,
}
RELU = {"activation": "relu", "layer_norm_eps": 1e-5}
# Before 0.8 BERTModel is not a HybridBlock: its users exported copies with the length of the sequence built in.
TRACEABLE = issubclass(gluonnlp.model.bert.BERTModel, gluon.HybridBlock)
NEWEST = gluonnlp.__version__ == "0.10.0"


class StaticEncoder(gluon.HybridBlock):
    """Runs the layers of an encoder up to 0.8 on sequences of one length, with operators that need no shapes."""

    def __init__(self, encoder):
        super().__init__(prefix=encoder.prefix, params=encoder.params)
        self.layers = [encoder.layer_norm, encoder.dropout_layer, encoder.transformer_cells]
        for layer in self.layers:
            self.register_child(layer)
        self.position_weight = self.params.get("position_weight")

    def hybrid_forward(self, F, embedded, valid_length=None, position_weight=None):
        norm, dropout, cells = self.layers
        mask = None
        if valid_length is not None:
            positions = F.arange(LENGTH).reshape((1, -1))
            mask = F.broadcast_lesser(positions, valid_length.reshape((-1, 1)))
            mask = F.broadcast_axes(F.expand_dims(mask, axis=1), axis=1, size=LENGTH)
        places = F.Embedding(F.arange(LENGTH), position_weight, BERT["max_length"], BERT["units"])
        sequence = norm(dropout(F.broadcast_add(embedded, F.expand_dims(places, axis=0))))
        for cell in cells:
            sequence, _ = cell(sequence, mask)
        if valid_length is None:
            return sequence
        return F.SequenceMask(sequence, sequence_length=valid_length, use_sequence_length=True, axis=1)


class StaticBert(gluon.HybridBlock):
    def __init__(self, bert):
        super().__init__(prefix=bert.prefix, params=bert.params)
        self.word_embed = bert.word_embed
        self.token_type_embed = bert.token_type_embed
        self.encoder = StaticEncoder(bert.encoder)
        self.pooler = getattr(bert, "pooler", None)

    def hybrid_forward(self, F, words, types, valid_length=None):
        sequence = self.encoder(self.word_embed(words) + self.token_type_embed(types), valid_length)
        if self.pooler is None:
            return sequence
        return sequence, self.pooler(sequence.slice(begin=(None, 0, None), end=(None, 1, None)))


class Head(gluon.HybridBlock):
    """A classifier, a regression or the span scores of question answering, as the scripts of GluonNLP built them."""

    def __init__(self, bert, kind, **kwargs):
        super().__init__(**kwargs)
        self.bert = bert
        self.kind = kind
        with self.name_scope():
            if kind == "qa":
                self.span_classifier = gluon.nn.Dense(2, flatten=False)
            else:
                self.classifier = gluon.nn.HybridSequential(prefix=self.prefix)
                self.classifier.add(gluon.nn.Dropout(0.1))
                self.classifier.add(gluon.nn.Dense({"classifier": 3, "regression": 1}[kind]))

    def hybrid_forward(self, F, words, types, valid_length=None):
        outputs = self.bert(words, types, valid_length)
        if self.kind == "qa":
            return self.span_classifier(outputs)
        return self.classifier(outputs[1])


def accepted(function, options):
    parameters = inspect.signature(function.__init__).parameters
    return {key: value for key, value in options.items() if key in parameters}


def make_bert(kind="BERTModel", static=False, pooler=True, pretraining=False, **changes):
    models = gluonnlp.model.bert
    options = dict(BERT, **changes)
    name = "staticbert" if static else "bert"
    encoder = models.BERTEncoder(prefix=name + "encoder0_", **accepted(models.BERTEncoder, options))
    model = getattr(models, kind)
    options = {
        "units": BERT["units"],
        "embed_size": BERT["units"],
        "embed_dropout": 0.1,
        "token_type_vocab_size": 2,
        "use_pooler": pooler,
        "use_decoder": pretraining,
        "use_classifier": pretraining,
    }
    bert = model(encoder, VOCABULARY, prefix=kind.lower().replace("bert", name) + "0_", **accepted(model, options))
    return StaticBert(bert) if static else bert


def make_head(kind, **options):
    bert = make_bert(pooler=kind != "qa", **options)
    if kind == "classifier" and hasattr(gluonnlp.model.bert, "BERTClassifier"):
        return gluonnlp.model.bert.BERTClassifier(bert, num_classes=3, dropout=0.1)
    return Head(bert, kind, prefix={"qa": "bertforqa0_"}.get(kind, "bert" + kind + "0_"))


def variants():
    """Yield each BERT by its name, with the inputs that it reads."""
    all_three = ("words", "types", "valid_length")
    static = not TRACEABLE
    if gluonnlp.__version__.startswith("0.7"):  # Its graphs are those of 0.6 but for what is new.
        yield "qa", lambda: make_head("qa", static=True), all_three
        yield "relu", lambda: make_bert(static=True, **RELU), all_three
        return
    yield "sequence", lambda: make_bert(pooler=False, static=static), all_three
    yield "sequence_no_length", lambda: make_bert(pooler=False, static=static), all_three[:2]
    yield "pooled", lambda: make_bert(static=static), all_three
    yield "classifier", lambda: make_head("classifier", static=static), all_three
    yield "qa", lambda: make_head("qa", static=static), all_three
    if static or NEWEST:
        yield "regression", lambda: make_head("regression", static=static), all_three
    if TRACEABLE:
        yield "classifier_no_length", lambda: make_head("classifier"), all_three[:2]
        yield "pretraining", lambda: make_bert(pretraining=True), (*all_three, "masked_positions")
        yield "roberta", lambda: make_bert("RoBERTaModel", pooler=False), ("words", "valid_length")
    if NEWEST:
        yield "relu", lambda: make_bert(**RELU), all_three
    if hasattr(gluonnlp.model.bert, "DistilBERTModel"):
        yield "distilbert", lambda: make_bert("DistilBERTModel", pooler=False), ("words", "valid_length")
    elif TRACEABLE:
        yield "static_classifier", lambda: make_head("classifier", static=True), all_three


def make_inputs():
    random = np.random.RandomState(0)
    inputs = {
        "words": random.randint(1, VOCABULARY, (2, LENGTH)),
        "types": np.array([[0] * 3 + [1] * 5, [0] * 2 + [1] * 3 + [0] * 3]),
        "valid_length": np.array([8, 5]),
        "masked_positions": np.array([[1, 6], [2, 4]]),
    }
    return {key: mx.nd.array(value, dtype="float32") for key, value in inputs.items()}


def fill(net, weights):
    """Give every parameter the values that its name stands for: biases that matter, and scales around 1."""
    for key, parameter in net.collect_params().items():
        random = np.random.RandomState(zlib.crc32(key.encode()))
        center, width = (1, 0.1) if key.endswith("gamma") else (0, 0.3)
        values = center + width * random.standard_normal(parameter.shape)
        parameter.set_data(mx.nd.array(values.astype("float32")))
        weights["arg:" + key] = parameter.data()


def run_symbol(path, weights, inputs):
    symbol = mx.sym.load(path)
    names = symbol.list_arguments()
    arguments = {key[4:]: array for key, array in weights.items() if key[4:] in names}
    return symbol.bind(mx.cpu(), dict(arguments, **inputs), grad_req="null").forward(is_train=False)


def write(folder, name, make, reads, weights):
    with mx.name.NameManager():
        net = make()
    every = make_inputs()
    arrays = [every[key] for key in reads]
    net.initialize()
    net(*arrays)  # Only now every parameter has its shape.
    fill(net, weights)
    net.hybridize()
    outputs = net(*arrays)
    outputs = list(outputs) if isinstance(outputs, (list, tuple)) else [outputs]
    prefix = os.path.join(folder, name)
    net.export(prefix)
    os.remove(prefix + "-0000.params")  # The weights of all of them are in one file, to keep the folder small.
    inputs = {f"data{index}": array for index, array in enumerate(arrays)}
    for one, other in zip(outputs, run_symbol(prefix + "-symbol.json", weights, inputs)):
        assert np.allclose(one.asnumpy(), other.asnumpy(), atol=1e-6)
    return {
        "reads": dict(zip(inputs, reads)),
        "inputs": {key: array.asnumpy().astype(int).tolist() for key, array in inputs.items()},
        "outputs": [np.round(output.asnumpy().astype("float64"), 6).tolist() for output in outputs],
    }


def main():
    folder = sys.argv[1]
    if not os.path.isdir(folder):
        os.makedirs(folder)
    weights = {}
    expected = {name: write(folder, name, make, reads, weights) for name, make, reads in variants()}
    mx.nd.save(os.path.join(folder, "weights-0000.params"), weights)
    with open(os.path.join(folder, "expected.json"), "w") as file:
        lines = [f'"{name}": {json.dumps(entry)}' for name, entry in expected.items()]
        file.write("{\n" + ",\n".join(lines) + "\n}\n")


if __name__ == "__main__":
    main()
