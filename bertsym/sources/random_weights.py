"""Random weights of a given architecture: for benchmarks, never for results."""

from __future__ import annotations

import string

import numpy as np

from bertsym.array import Array
from bertsym.encoders.config import INITIALIZER_RANGE, BertConfig
from bertsym.encoders.parameters import parameter_shapes
from bertsym.reference import Checkpoint
from bertsym.sources.pretrained import Pretrained
from bertsym.text.tokenizer import TokenizerOptions
from bertsym.text.vocabulary import Vocabulary
from bertsym.text.wordpiece import bert_document

_VOCAB_SIZE = 30522  # size of BERT's English uncased vocabulary


def load_random(model: str, seed: int = 0, vocab: str | None = None) -> Pretrained:
    """Draw weights as BERT initializes them: normal(0, 0.02), gamma 1, bias and beta 0.

    Without `vocab`, the vocabulary consists of letters and digits, enough for any ASCII text. Raises ModelError when
    `model` is not of the form bert_LAYERS_UNITS_HEADS.
    """
    vocabulary = Vocabulary.load(vocab) if vocab else _spelling_vocabulary()
    config = BertConfig.from_model_name(model, len(vocabulary))
    rng = np.random.default_rng(seed)
    arg_params = {name: _draw(name, shape, rng) for name, shape in parameter_shapes(config).items()}
    options = TokenizerOptions(lower_case=not vocabulary.looks_cased)
    return Pretrained(
        config,
        arg_params,
        vocabulary,
        options,
        bert_document(vocabulary, options),
        {"kind": "random", "pretrained": False, "seed": seed},
        Checkpoint("GluonNLP export", arg_params, config.to_dict()),
        ("RANDOM WEIGHTS: nothing is pretrained, use it for benchmarks only",),
    )


def _draw(name: str, shape: tuple[int, ...], rng: np.random.Generator) -> Array:
    if name.endswith("_gamma"):
        return np.ones(shape, np.float32)
    if name.endswith(("_beta", "_bias")):
        return np.zeros(shape, np.float32)
    return rng.standard_normal(shape, np.float32) * np.float32(INITIALIZER_RANGE)


def _spelling_vocabulary() -> Vocabulary:
    letters = string.ascii_lowercase + string.digits
    tokens = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *string.punctuation, *letters]
    tokens += [f"##{letter}" for letter in letters]
    return Vocabulary(tuple(tokens)).padded_to(_VOCAB_SIZE)
