"""What the bundle of a BERT has and a symbol lacks: tokenizer, class names, maximum length, task."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from bertsym.bundle import json_text
from bertsym.encoders.catalogue import TRAINED_HEADS
from bertsym.encoders.config import BertConfig
from bertsym.encoders.graph_heads import HEADS
from bertsym.errors import UsageError
from bertsym.families import FAMILIES
from bertsym.signature import Signature
from bertsym.sources.hugging_face_tokenizer import FoundTokenizer
from bertsym.sources.tokenizer_files import read_document_tokenizer, read_vocabulary_tokenizer
from bertsym.text.labels import abbreviate_labels, check_labels, match_class_names
from bertsym.text.tokenizer import WORDPIECE, TokenizerOptions
from bertsym.text.vocabulary import Vocabulary
from bertsym.text.wordpiece import bert_document


@dataclass(frozen=True)
class BundleOptions:
    """What `lower`, `edit`, `graft_head`, `remove_head` and `extract` add to a symbol, for `predict` and `evaluate`.

    With any of them, the result is the bundle of a BERT, or an error that names what is missing. Raises UsageError for
    values that exclude each other, and for labels that can't be class names.
    """

    vocab: str | Path | None = None  #: ``vocab.txt`` or GluonNLP's vocabulary JSON
    tokenizer: str | Path | None = None  #: ``tokenizer.json``, in place of `vocab`
    sentencepiece: str | Path | None = None  #: model of GluonNLP's BERTSPTokenizer, in addition to `vocab`
    pad_vocab: bool = False  #: whether rows of the token embedding without a token are named ``[unused row N]``
    lower_case: bool | None = None  #: None: as `vocab` looks
    labels: tuple[str, ...] | None = None  #: class names, in the order of the outputs
    max_length: int | None = None  #: tokens at which texts are truncated; None: the longest that the model takes
    task: str | None = None  #: kind of task, a key of ``encoders.graph_heads.HEADS``; None: as the head shows

    def __post_init__(self) -> None:
        if self.vocab is not None and self.tokenizer is not None:
            raise UsageError("give --vocab or --tokenizer, not both")
        if self.sentencepiece is not None and self.vocab is None:
            raise UsageError("--sentencepiece needs --vocab, the vocabulary that goes with it")
        if self.lower_case is not None and self.tokenizer is not None:
            option = "--lower-case" if self.lower_case else "--cased"
            raise UsageError(f"{option}: a tokenizer.json has its own normalizer: use this option with --vocab only")
        if self.pad_vocab and self.vocab is None and self.tokenizer is None:
            raise UsageError("--pad-vocab needs --vocab or --tokenizer")
        if self.task not in (None, *HEADS):
            raise UsageError(f"task {self.task!r} is not one of {', '.join(HEADS)}")
        check_labels(self.labels or ())

    @property
    def is_given(self) -> bool:
        """Whether there is any option."""
        return self != BundleOptions()

    def describe(self) -> list[str]:
        """Describe each option that is given in one line."""
        given = {name: value for name, value in vars(self).items() if value is not None and value is not False}
        if self.lower_case is not None:
            given["lower_case"] = self.lower_case
        return [
            f"set {name} {abbreviate_labels(value) if isinstance(value, tuple) else value}"
            for name, value in given.items()
        ]


@dataclass(frozen=True)
class BertOrigin:
    """The exported BERT that a symbol is derived from."""

    config: BertConfig
    signature: Signature
    vocabulary: Vocabulary | None
    tokenizer_json: str | None


@dataclass(frozen=True)
class ChosenTokenizer:
    """The tokenizer of a bundle that is written."""

    vocabulary: Vocabulary | None  #: None if the tokenizer is not WordPiece
    options: TokenizerOptions
    document: str | None  #: the text of tokenizer.json
    special_tokens: Mapping[str, str]
    special_ids: Mapping[str, int]
    notes: tuple[str, ...] = ()

    def sign(self, signature: Signature, segments: int) -> Signature:
        """Return a signature with this tokenizer; `segments` is the number of token types of the model."""
        return dataclasses.replace(
            signature,
            tokenizer=dataclasses.replace(self.options, segments=segments),
            pad_id=self.special_ids["pad"],
            special_tokens=self.special_tokens,
            special_ids=self.special_ids,
        )


def choose_tokenizer(options: BundleOptions, config: BertConfig, origin: BertOrigin | None) -> ChosenTokenizer:
    """Choose the tokenizer that the options name or, without one, that of the BERT that the symbol is derived from.

    Raises UsageError, naming the option, if there is none; DataError or ModelError for a file that can't be read or
    that has another number of tokens than the model's token embedding.
    """
    found = _read_tokenizer(options, config)
    refused_id = config.position_offset - 1 if config.position_offset else None
    if found is not None:
        if found.document is None:
            raise UsageError(f"{options.vocab} has SentencePiece pieces: give their model with --sentencepiece FILE")
        return ChosenTokenizer(
            found.vocabulary,
            dataclasses.replace(found.options, refused_id=refused_id),
            json_text(found.document),
            found.vocabulary.special_tokens,
            found.vocabulary.special_ids,
            found.notes,
        )
    if origin is None or origin.tokenizer_json is None:
        raise UsageError("it has no tokenizer: give --vocab vocab.txt or --tokenizer tokenizer.json")
    chosen = ChosenTokenizer(
        origin.vocabulary,
        origin.signature.tokenizer,
        origin.tokenizer_json,
        origin.signature.special_tokens,
        origin.signature.special_ids,
    )
    return chosen if options.lower_case is None else _with_case(chosen, options.lower_case)


def _read_tokenizer(options: BundleOptions, config: BertConfig) -> FoundTokenizer | None:
    if options.vocab is not None:
        return read_vocabulary_tokenizer(
            options.vocab,
            config.vocab_size,
            lower_case=options.lower_case,
            pad_vocab=options.pad_vocab,
            sentencepiece=options.sentencepiece,
        )
    if options.tokenizer is not None:
        model_type = next(iter(FAMILIES[config.family].model_types))
        return read_document_tokenizer(options.tokenizer, config.vocab_size, model_type, pad_vocab=options.pad_vocab)
    return None


def _with_case(chosen: ChosenTokenizer, lower_case: bool) -> ChosenTokenizer:
    """Return BERT's own tokenizer with another case; raises UsageError for any other tokenizer."""
    if chosen.vocabulary is None or chosen.options.kind != WORDPIECE:
        option = "--lower-case" if lower_case else "--cased"
        raise UsageError(f"{option}: the tokenizer has its own normalizer: give another tokenizer with --tokenizer")
    options = dataclasses.replace(chosen.options, lower_case=lower_case)
    return dataclasses.replace(chosen, options=options, document=json_text(bert_document(chosen.vocabulary, options)))


def choose_class_names(
    options: BundleOptions, task: str | None, num_outputs: int, known: tuple[str, ...] = ()
) -> tuple[str, ...]:
    """Return the class names of a head: those of the options or, if it has so many outputs, the `known` ones.

    Raises UsageError, naming the option, for missing names, for names of another number, and for names of a task that
    has none.
    """
    has_classes = TRAINED_HEADS.get(task or "") == "classifier"
    if options.labels is None and has_classes and len(known) == num_outputs:
        return known
    return match_class_names(options.labels, task, num_outputs, has_classes=has_classes)


def choose_max_length(options: BundleOptions, default: int, longest: int, only: int | None = None) -> int:
    """Return the maximum length of texts, by default `default`; raises UsageError for one above `longest`.

    `only` is the only length of a head that reads all tokens at once.
    """
    given = options.max_length
    if given is None:
        return only or default
    if only is not None and given != only:
        raise UsageError(f"--max-length {given}: the head reads exactly {only} tokens: omit --max-length")
    if not 1 <= given <= longest:
        raise UsageError(f"--max-length {given}: the model takes 1 to {longest} tokens")
    return given


def apply_options(
    options: BundleOptions, origin: BertOrigin, signature: Signature
) -> tuple[Signature, ChosenTokenizer]:
    """Return the `signature` of a bundle derived from `origin` with the options applied, and a tokenizer.

    Raises the errors of the functions that choose each.
    """
    if options.task not in (None, signature.task):
        raise UsageError(f"--task {options.task}: the head of this bundle is one for {signature.task}: omit --task")
    chosen = choose_tokenizer(options, origin.config, origin)
    outputs = signature.output_shape[-1]
    assert isinstance(outputs, int)
    class_names = choose_class_names(options, signature.task, outputs, signature.class_names)
    settings = dict(signature.task_settings)
    if class_names != signature.class_names and settings.get("positive_label") not in (None, *class_names):
        renamed = dict(zip(signature.class_names, class_names))
        settings["positive_label"] = renamed.get(settings["positive_label"])
    signed = dataclasses.replace(
        chosen.sign(signature, signature.tokenizer.segments),
        class_names=class_names,
        task_settings=settings,
        max_length=choose_max_length(options, signature.max_length, origin.config.max_length, signature.length),
    )
    return signed, chosen
