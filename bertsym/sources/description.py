"""What a source is, without exporting it and without mxnet."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from bertsym.encoders.config import BertConfig
from bertsym.encoders.sentence_embedding import SentenceEmbedding
from bertsym.errors import ModelError
from bertsym.signature import embedding_json
from bertsym.sources.registry import load_source
from bertsym.text.tokenizer import TokenizerOptions, describe_special_tokens


@dataclass(frozen=True)
class SourceDescription:
    """What `export` would read of a source; `to_json` is what ``inspect --json`` prints of it."""

    source: str
    family: str
    config: BertConfig
    architecture: str | None  #: class of transformers whose head is exported
    task: str | None  #: of that head, like the next two
    reads: str | None  #: output of the encoder
    class_names: tuple[str, ...]
    head_error: str | None  #: why a head or a sentence embedding can't be exported
    embedding: SentenceEmbedding | None
    max_length: int  #: tokens at which texts are truncated
    tokenizer: TokenizerOptions
    has_tokenizer: bool  #: whether texts can be tokenized
    special_tokens: Mapping[str, str]  #: role -> token
    special_ids: Mapping[str, int]  #: role -> id
    notes: tuple[str, ...]  #: what `export` assumes and leaves out

    def to_json(self) -> dict[str, Any]:
        """Convert to JSON types."""
        return {
            "source": self.source,
            "family": self.family,
            "config": self.config.to_dict(),
            "head": self.architecture,
            "task": self.task,
            "encoder_output": self.reads,
            "class_names": list(self.class_names),
            "head_error": self.head_error,
            "embedding": embedding_json(self.embedding),
            "tokenizer": dataclasses.asdict(self.tokenizer) if self.has_tokenizer else None,
            "special_tokens": dict(self.special_tokens),
            "special_ids": dict(self.special_ids),
            "max_length": self.max_length,
            "notes": list(self.notes),
        }

    def lines(self) -> list[str]:
        """Describe the source for a terminal."""
        head = "none, the encoder alone"
        if self.head_error is not None:
            head = f"can't be exported: {self.head_error}"
        elif self.architecture is not None:
            head = f"{self.architecture} on {self.reads}, trained: {self.task}"
        elif self.embedding is not None:
            head = f"sentence embedding: {self.embedding}"
        fields = {
            "encoder": f"{self.family}, {self.config}",
            "head": head,
            **({"prompts": self.embedding.describe_prompts()} if self.embedding and self.embedding.prompts else {}),
            **({"classes": ", ".join(self.class_names)} if self.class_names else {}),
            "texts": self.tokenizer.describe(self.max_length if self.has_tokenizer else None, self.config.vocab_size),
            "special": describe_special_tokens(self.special_tokens, self.special_ids),
        }
        width = max(map(len, fields))
        return [
            f"{self.source}: a source, not a bundle; bertsym export {self.source} OUT writes a bundle",
            *(f"{name:<{width}}  {value}" for name, value in fields.items()),
        ]


def describe_source(source: str) -> SourceDescription:
    """Describe a source, such as ``hf:DIR``; raises what `load_source` raises."""
    head_error = None
    try:
        pretrained = load_source(source, with_head=True)
    except ModelError as error:
        pretrained = load_source(source)  # raises too, unless the head is what is wrong
        head_error = str(error)
    head, embedding = pretrained.head, pretrained.embedding
    left_out = (f"not exported: task head {pretrained.task_head}",) if pretrained.task_head else ()
    return SourceDescription(
        source,
        pretrained.config.family,
        pretrained.config,
        head.architecture if head is not None else None,
        head.task if head is not None else None,
        head.reads if head is not None else None,
        head.class_names if head is not None else (),
        head_error,
        embedding.embedding if embedding is not None else None,
        embedding.max_length if embedding is not None else pretrained.config.max_length,
        dataclasses.replace(pretrained.tokenizer, segments=pretrained.config.segments),
        pretrained.tokenizer_document is not None,
        pretrained.vocabulary.special_tokens,
        pretrained.vocabulary.special_ids,
        (*pretrained.notes, *left_out),
    )
