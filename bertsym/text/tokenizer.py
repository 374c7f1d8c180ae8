"""BERT's WordPiece tokenisation, by Hugging Face's ``tokenizers``."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from bertsym.errors import ModelError, UsageError
from bertsym.text.vocabulary import Vocabulary


@dataclass(frozen=True)
class TokenizerOptions:
    """How text is normalised before WordPiece.

    ``kind`` is ``wordpiece``, or ``sentencepiece`` for vocabularies whose texts bertsym can't tokenise.
    ``strip_accents`` None means: as ``lower_case``, as in the original BERT.
    """

    lower_case: bool
    strip_accents: bool | None = None
    split_chinese: bool = True
    kind: str = "wordpiece"


@dataclass(frozen=True)
class Encoded:
    """Token ids of one text or pair with [CLS] and [SEP], and its token types, of one length."""

    token_ids: list[int]
    token_types: list[int]
    truncated: bool
    unknown: int  #: number of [UNK]


class Tokenizer:
    """Texts and pairs to token ids, truncated longest first to `max_length` tokens.

    Raises ModelError when the vocabulary is not a WordPiece one.
    """

    def __init__(self, vocabulary: Vocabulary, options: TokenizerOptions, max_length: int) -> None:
        if options.kind != "wordpiece":
            raise ModelError(
                f"this model's vocabulary is {options.kind}: bertsym can export it but not tokenise texts for it"
            )
        from tokenizers import Tokenizer as Pipeline
        from tokenizers import models, normalizers, pre_tokenizers, processors

        self.max_length = max_length
        self._unknown_id = vocabulary.index("[UNK]")
        index = {token: i for i, token in enumerate(vocabulary.tokens)}
        pipeline: Any = Pipeline(models.WordPiece(index, unk_token="[UNK]", max_input_chars_per_word=100))
        pipeline.normalizer = normalizers.BertNormalizer(
            clean_text=True,
            handle_chinese_chars=options.split_chinese,
            strip_accents=options.strip_accents,
            lowercase=options.lower_case,
        )
        pipeline.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
        pipeline.post_processor = processors.BertProcessing(
            ("[SEP]", vocabulary.index("[SEP]")), ("[CLS]", vocabulary.index("[CLS]"))
        )
        pipeline.enable_truncation(max_length, strategy="longest_first")
        self._pipeline = pipeline

    def encode(self, texts: Sequence[str], pairs: Sequence[str] | None = None) -> list[Encoded]:
        """Encode texts, or pairs of them. Words such as ``[SEP]`` in a text are text, not special tokens.

        Raises UsageError when it can't fit (max_length below 3 for a text, 5 for a pair).
        """
        # [CLS], and for each text a token and [SEP].
        shortest = 3 if pairs is None else 5
        if self.max_length < shortest:
            raise UsageError(f"max length {self.max_length} is too short, {shortest} is the least")
        inputs = list(texts) if pairs is None else list(zip(texts, pairs))
        return [
            Encoded(
                encoding.ids,
                encoding.type_ids,
                bool(encoding.overflowing),
                encoding.ids.count(self._unknown_id),
            )
            for encoding in self._pipeline.encode_batch(inputs)
        ]
