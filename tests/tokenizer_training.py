"""Tokenizers of 400 tokens, trained on a small corpus with the pipelines of RoBERTa and XLM-R."""

from __future__ import annotations

import functools
import json
from typing import Any

from tokenizer_documents import TEXTS

SPECIAL = ("<s>", "<pad>", "</s>", "<unk>", "<mask>")
_SPACE = "\u2581"
CORPUS = (
    *TEXTS,
    "def main(argv):\n    for x in range(10):\n\t\treturn x  # ok\n\n",
    "The quick brown fox jumps over the lazy dog; it's what we've got, they'll say it's 42.",
    "안녕하세요 세계, 日本語のテキスト。 Les élèves français à l'école.",
    "<s> a </s> <mask> b   <mask>c <unk>",
)


@functools.cache
def _trained(model: str, special: tuple[str, ...]) -> str:
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    tokenizer: Any
    trainer: Any
    if model == "BPE":
        tokenizer = Tokenizer(models.BPE())
        tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        tokenizer.decoder = decoders.ByteLevel()
        alphabet = pre_tokenizers.ByteLevel.alphabet()
        trainer = trainers.BpeTrainer(
            vocab_size=400, special_tokens=[*special], initial_alphabet=alphabet, show_progress=False
        )
    else:
        tokenizer = Tokenizer(models.Unigram())
        tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
            [pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Metaspace(_SPACE, "always")]
        )
        tokenizer.decoder = decoders.Metaspace(_SPACE, "always")
        trainer = trainers.UnigramTrainer(
            vocab_size=400, special_tokens=[*special], unk_token="<unk>", show_progress=False
        )
    tokenizer.train_from_iterator(CORPUS * 3, trainer)
    text: str = tokenizer.to_str()
    return text


def trained(model: str, special: tuple[str, ...] = SPECIAL, **parts: Any) -> dict[str, Any]:
    """A tokenizer.json whose model, ``BPE`` or ``Unigram``, was trained; `parts` replace those of the document.

    The post-processor is RoBERTa's, of the special tokens ``<s>`` and ``</s>``.
    """
    document: dict[str, Any] = json.loads(_trained(model, special))
    start, end = special.index(special[0]), special.index(special[2])
    processor = {"type": "RobertaProcessing", "cls": [special[0], start], "sep": [special[2], end]}
    document["post_processor"] = {**processor, "trim_offsets": True, "add_prefix_space": False}
    return {**document, **parts}
