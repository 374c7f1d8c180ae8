#!/usr/bin/env python
"""Write tests/tensorflow_checkpoints: python write_tf_checkpoint.py FOLDER, with TensorFlow (tried with 2.21).

Tiny BERTs with the names of Google's modeling.py and random weights, each in a folder of its own: one as it comes from
pretraining, and fine-tuned ones of run_classifier.py and run_squad.py. TensorFlow computes what they output.
"""

import json
import sys
from pathlib import Path

import numpy as np
import tensorflow as tf

WORDS = ("the", "a", "cat", "dog", "sat", "ran", "##s", "##ing", ".", "?")
TOKENS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *WORDS]
CONFIG = {
    "attention_probs_dropout_prob": 0.1,
    "hidden_act": "gelu",
    "hidden_dropout_prob": 0.1,
    "hidden_size": 12,
    "initializer_range": 0.02,
    "intermediate_size": 20,
    "max_position_embeddings": 16,
    "num_attention_heads": 3,
    "num_hidden_layers": 2,
    "type_vocab_size": 2,
    "vocab_size": len(TOKENS),
}
CLASSES = 3
UNITS, HIDDEN = CONFIG["hidden_size"], CONFIG["intermediate_size"]
IDS = [[2, 5, 7, 11, 13, 3, 8, 3], [2, 6, 8, 9, 3, 0, 0, 0]]
TYPES = [[0, 0, 0, 0, 0, 0, 1, 1], [0, 0, 0, 0, 0, 0, 0, 0]]
LENGTHS = [8, 5]

PREDICTIONS = "cls/predictions"
PRETRAINING = {
    f"{PREDICTIONS}/transform/dense/kernel": (UNITS, UNITS),
    f"{PREDICTIONS}/transform/dense/bias": (UNITS,),
    f"{PREDICTIONS}/transform/LayerNorm/gamma": (UNITS,),
    f"{PREDICTIONS}/transform/LayerNorm/beta": (UNITS,),
    f"{PREDICTIONS}/output_bias": (len(TOKENS),),
    "cls/seq_relationship/output_weights": (2, UNITS),
    "cls/seq_relationship/output_bias": (2,),
}
CLASSIFIER = {"output_weights": (CLASSES, UNITS), "output_bias": (CLASSES,)}
SQUAD = {"cls/squad/output_weights": (2, UNITS), "cls/squad/output_bias": (2,)}


def encoder_shapes():
    """Name -> shape of the encoder's weights, with the pooler."""
    shapes = {
        "bert/embeddings/word_embeddings": (len(TOKENS), UNITS),
        "bert/embeddings/token_type_embeddings": (2, UNITS),
        "bert/embeddings/position_embeddings": (CONFIG["max_position_embeddings"], UNITS),
    }
    norms, dense = ["bert/embeddings/LayerNorm"], {"bert/pooler/dense": (UNITS, UNITS)}
    for i in range(CONFIG["num_hidden_layers"]):
        layer = f"bert/encoder/layer_{i}"
        dense.update({f"{layer}/attention/self/{part}": (UNITS, UNITS) for part in ("query", "key", "value")})
        dense[f"{layer}/attention/output/dense"] = (UNITS, UNITS)
        dense[f"{layer}/intermediate/dense"] = (UNITS, HIDDEN)
        dense[f"{layer}/output/dense"] = (HIDDEN, UNITS)
        norms += [f"{layer}/attention/output/LayerNorm", f"{layer}/output/LayerNorm"]
    for name, shape in dense.items():
        shapes.update({f"{name}/kernel": shape, f"{name}/bias": shape[1:]})
    for name in norms:
        shapes.update({f"{name}/gamma": (UNITS,), f"{name}/beta": (UNITS,)})
    return shapes


def random_weights(shapes, seed):
    random = np.random.default_rng(seed)
    return {name: tf.constant(random.normal(0, 0.5, shape), tf.float32) for name, shape in shapes.items()}


def layer_norm(x, weights, name):
    mean, variance = tf.nn.moments(x, -1, keepdims=True)
    normalized = (x - mean) / tf.sqrt(variance + 1e-12)
    return normalized * weights[f"{name}/gamma"] + weights[f"{name}/beta"]


def dense(x, weights, name):
    return x @ weights[f"{name}/kernel"] + weights[f"{name}/bias"]


def gelu(x):
    return tf.nn.gelu(x, approximate=False)


def encode(weights):
    """The encodings of all tokens (N, T, U)."""
    heads, (count, length) = CONFIG["num_attention_heads"], np.shape(IDS)
    x = tf.gather(weights["bert/embeddings/word_embeddings"], IDS)
    x += tf.gather(weights["bert/embeddings/token_type_embeddings"], TYPES)
    x += weights["bert/embeddings/position_embeddings"][:length]
    x = layer_norm(x, weights, "bert/embeddings/LayerNorm")
    mask = (1 - tf.sequence_mask(LENGTHS, length, tf.float32))[:, None, None] * -1e9
    for i in range(CONFIG["num_hidden_layers"]):
        layer = f"bert/encoder/layer_{i}"
        query, key, value = (
            tf.transpose(
                tf.reshape(dense(x, weights, f"{layer}/attention/self/{part}"), (count, length, heads, -1)),
                (0, 2, 1, 3),
            )
            for part in ("query", "key", "value")
        )
        scores = tf.matmul(query, key, transpose_b=True) / np.sqrt(UNITS / heads).astype(np.float32)
        attended = tf.matmul(tf.nn.softmax(scores + mask), value)
        attended = tf.reshape(tf.transpose(attended, (0, 2, 1, 3)), (count, length, UNITS))
        attended = dense(attended, weights, f"{layer}/attention/output/dense")
        x = layer_norm(x + attended, weights, f"{layer}/attention/output/LayerNorm")
        inner = gelu(dense(x, weights, f"{layer}/intermediate/dense"))
        x = layer_norm(x + dense(inner, weights, f"{layer}/output/dense"), weights, f"{layer}/output/LayerNorm")
    return x


def compute(weights):
    """What the head of the weights outputs, and what it reads."""
    sequence = encode(weights)
    pooled = tf.tanh(dense(sequence[:, 0], weights, "bert/pooler/dense"))
    outputs = {"sequence": sequence, "pooled": pooled}
    if "output_bias" in weights:
        logits = tf.matmul(pooled, weights["output_weights"], transpose_b=True) + weights["output_bias"]
        outputs["head"] = tf.nn.softmax(logits)
    elif "cls/squad/output_bias" in weights:
        outputs["head"] = (
            tf.matmul(sequence, weights["cls/squad/output_weights"], transpose_b=True)
            + weights["cls/squad/output_bias"]
        )
    else:
        transformed = gelu(dense(sequence, weights, f"{PREDICTIONS}/transform/dense"))
        transformed = layer_norm(transformed, weights, f"{PREDICTIONS}/transform/LayerNorm")
        outputs["head"] = (
            tf.matmul(transformed, weights["bert/embeddings/word_embeddings"], transpose_b=True)
            + weights[f"{PREDICTIONS}/output_bias"]
        )
    return outputs


def save(prefix, tensors):
    names = sorted(tensors)
    tf.raw_ops.SaveV2(
        prefix=str(prefix), tensor_names=names, shape_and_slices=[""] * len(names), tensors=[tensors[n] for n in names]
    )


def save_in_shards(prefix, tensors, count):
    names, parts = sorted(tensors), [f"{prefix}_part{i}" for i in range(count)]
    for i, part in enumerate(parts):
        save(part, {name: tensors[name] for name in names[i::count]})
    tf.raw_ops.MergeV2Checkpoints(checkpoint_prefixes=parts, destination_prefix=str(prefix), delete_old_dirs=False)


def write(folder, weights, prefix, shards=1, **others):
    folder.mkdir(parents=True, exist_ok=True)
    outputs = compute(weights)
    save_in_shards(folder / prefix, {**weights, **others}, shards)
    (folder / "bert_config.json").write_text(json.dumps(CONFIG, indent=2) + "\n")
    (folder / "vocab.txt").write_text("\n".join(TOKENS) + "\n")
    expected = {"token_ids": IDS, "token_types": TYPES, "valid_length": LENGTHS}
    expected.update({name: array.numpy().astype(float).round(6).tolist() for name, array in outputs.items()})
    (folder / "expected.json").write_text(json.dumps(expected) + "\n")


def main(folder):
    encoder = encoder_shapes()
    write(folder / "pretrained", random_weights({**encoder, **PRETRAINING}, 0), "bert_model.ckpt")
    weights = random_weights({**encoder, **CLASSIFIER}, 1)
    slots = {f"{name}/{slot}": tf.zeros_like(weights[name]) for name in CLASSIFIER for slot in ("adam_m", "adam_v")}
    write(folder / "classifier", weights, "model.ckpt-343", **slots, global_step=tf.constant(343, tf.int64))
    write(folder / "squad", random_weights({**encoder, **SQUAD}, 2), "model.ckpt-21", shards=2)


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    main(Path(sys.argv[1]))
