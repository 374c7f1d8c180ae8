"""Embeddings: one vector for each text, by the encoder of any bundle."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np

from bertsym.array import Array
from bertsym.atomic_writing import open_atomically
from bertsym.bundle import Bundle
from bertsym.encoders.catalogue import POOLINGS
from bertsym.encoders.sentence_embedding import EMBEDDING
from bertsym.errors import DataError, ModelError, UsageError
from bertsym.inference.bundle_tokenizer import BundleTokenizer
from bertsym.inference.embedding_files import check_suffix, open_writer
from bertsym.inference.engine_predictor import open_predictor
from bertsym.inference.mxnet_predictor import BATCH_SIZE
from bertsym.inference.prefetch import prefetch
from bertsym.passes.token_pooling import pool_tokens
from bertsym.symbol.graph import SymbolGraph
from bertsym.text.bad_rows import BadRows
from bertsym.text.features import Features
from bertsym.text.table_format import TableFormat
from bertsym.text.tokenizer import Encoded

_SHORTEST_NORM = 1e-12  # as torch.nn.functional.normalize has it


@dataclass(frozen=True)
class Embedding:
    """The vector of a text, (U,) float32."""

    vector: Array
    truncated: bool = False  #: whether the text was longer than the maximum length


@dataclass(frozen=True)
class EmbedOptions:
    """How texts become vectors, on which device."""

    pooling: str | None = None  #: a key of ``encoders.catalogue.POOLINGS``; None: as in `Encoder`
    normalize: bool = False  #: scale each vector to the length 1
    prompt: str | None = None  #: text that is put before each text; None: as in `Encoder.choose_prompt`
    prompt_name: str | None = None  #: prompt of a bundle of a sentence embedding, instead of `prompt`
    max_length: int | None = None  #: tokens to which texts are truncated; None: the maximum of the bundle
    device: str = "cpu"
    batch_size: int = BATCH_SIZE  #: most rows that are computed together
    #: at a row that can't be read: ``fail``, ``skip`` to leave it out, or ``blank`` to write NaN, in JSON null, for it
    on_error: str = "fail"

    def __post_init__(self) -> None:
        if self.prompt is not None and self.prompt_name is not None:
            raise UsageError("give --prompt or --prompt-name, not both")


@dataclass(frozen=True)
class EmbedResult:
    """A written file of embeddings."""

    path: Path
    rows: int  #: rows of the file
    units: int  #: elements of each vector
    max_length: int  #: tokens to which texts were truncated
    truncated: int  #: number of truncated texts
    prompt: str  #: text that was put before each text
    unreadable: int  #: number of rows that were left out, or blank with ``on_error="blank"``


class Encoder:
    """The encoder of a bundle, opened to compute one vector for each text.

    Args:
        prefix: prefix of a bundle of a BERT, headless or with any head, which is left out.
        pooling: how the encodings of a text's tokens become one vector: ``cls``, ``pooled``, ``mean`` or ``max``
            (``encoders.catalogue.POOLINGS``). None: the output of the bundle, such as its sentence embedding, or what
            its head reads.
        max_length: tokens to which texts are truncated, with special tokens; None: the maximum of the bundle.
        device: ``cpu``, or GPUs such as ``gpu:0,1``.
        batch_size: most texts that are computed together.

    Raises:
        ModelError: the bundle is not one of a BERT, or does not have what the pooling needs.
        UsageError: a value does not exist, or `pooling` is None for a bundle that ends in the sequence output.
    """

    def __init__(
        self,
        prefix: str | Path,
        pooling: str | None = None,
        *,
        max_length: int | None = None,
        device: str = "cpu",
        batch_size: int = BATCH_SIZE,
    ) -> None:
        self.bundle: Bundle = Bundle.open(prefix)
        self.pooling: str = _choose_pooling(self.bundle, pooling)
        signature = self.bundle.signature
        self.max_length: int = signature.max_length if max_length is None else max_length
        if not 1 <= self.max_length <= signature.max_length:
            raise UsageError(f"max length {max_length} is not in 1 to {signature.max_length}, the maximum of {prefix}")
        # Texts of a trained classifier may be pairs or not: its head does not read them here.
        signature = dataclasses.replace(signature, max_length=self.max_length, trained=False)
        self._tokenizer = BundleTokenizer(signature, self.bundle)
        self._predictor = open_predictor(
            self.bundle, device, batch_size, _pooled_graph(self.bundle, self.pooling), selects=True
        )

    @property
    def units(self) -> int:
        """The number of elements of a vector."""
        config, embedding = self.bundle.config, self.bundle.signature.embedding
        return embedding.width(config.units) if embedding is not None and self.pooling == EMBEDDING else config.units

    def choose_prompt(self, prompt: str | None = None, prompt_name: str | None = None) -> str:
        """Return the text to put before each text, as sentence-transformers chooses it.

        It is `prompt`, or the bundle's prompt `prompt_name`, or the bundle's default prompt, or nothing. Raises
        UsageError for the name of a prompt that does not exist.
        """
        if prompt is not None:
            return prompt
        embedding = self.bundle.signature.embedding
        prompts = embedding.prompts if embedding is not None else {}
        if prompt_name is None:
            default = embedding.default_prompt_name if embedding is not None else None
            return prompts[default] if default is not None else ""
        if prompt_name not in prompts:
            known = f"only {', '.join(prompts)}" if prompts else "and has no prompts"
            raise UsageError(f"{self.bundle.prefix}: does not have the prompt {prompt_name!r:.80}, {known}")
        return prompts[prompt_name]

    def encode(
        self,
        texts: Sequence[str],
        pairs: Sequence[str] | None = None,
        *,
        normalize: bool = False,
        prompt: str | None = None,
        prompt_name: str | None = None,
        on_rows: Callable[[int], object] = lambda count: None,
    ) -> Array:
        """Compute the vectors of texts, or of text pairs, in their order: (N, U) float32.

        With `normalize`, each vector has the length 1. `prompt`, or the bundle's prompt `prompt_name`, is put before
        each text, such as ``"query: "`` where a model was trained so, as `choose_prompt` describes. `on_rows` is called
        with the number of texts in each finished batch. Raises DataError for an empty text, ModelError for a vector
        that is not finite, and UsageError for the name of a prompt that does not exist.
        """
        chosen = self.choose_prompt(prompt, prompt_name)
        chunks = [
            self._predictor(features, on_rows) for features in self._tokenizer.encode(texts, pairs, prompt=chosen)
        ]
        vectors: Array = np.concatenate(chunks) if chunks else np.empty((0, self.units), np.float32)
        return _normalized(vectors) if normalize else vectors

    def encode_each(
        self,
        source: str | Path | BinaryIO,
        table_format: TableFormat = TableFormat(),
        warn: Callable[[str], object] = lambda text: None,
        *,
        normalize: bool = False,
        prompt: str | None = None,
        prompt_name: str | None = None,
        full_chunks: bool = False,
        on_rows: Callable[[int], object] = lambda count: None,
    ) -> Iterator[Embedding | DataError]:
        """Yield the vector of each row of a table or stream, in order and in constant memory.

        The error of an unreadable row, which names the line, takes its place. Reads rows and raises errors of the table
        as `BundleTokenizer.encode_each` does; the other arguments are those of `encode`.
        """
        chosen = self.choose_prompt(prompt, prompt_name)
        chunks = self._tokenizer.encode_each(source, table_format, warn, prompt=chosen, full_chunks=full_chunks)
        for chunk in prefetch(chunks):
            features = Features([example for example in chunk if isinstance(example, Encoded)])
            vectors = self._predictor(features, on_rows) if len(features) else np.empty((0, self.units), np.float32)
            rest = iter(_normalized(vectors) if normalize else vectors)
            for example in chunk:
                if isinstance(example, DataError):
                    on_rows(1)
                    yield example
                else:
                    yield Embedding(next(rest), example.truncated)


def embed(
    model: str | Path,
    source: str | Path | BinaryIO,
    out: str | Path,
    options: EmbedOptions = EmbedOptions(),
    *,
    table_format: TableFormat = TableFormat(),
    force: bool = False,
    on_rows: Callable[[int], object] = lambda count: None,
    warn: Callable[[str], object] = lambda text: None,
) -> EmbedResult:
    """Write the vectors of all texts of a table or stream to a file, in their order and in constant memory.

    The file appears at `out` when it is complete.

    Args:
        model: prefix of a bundle, headless or with any head.
        source: a table of texts, or a stream with one text per line.
        out: a ``.npy`` file, an array (rows, U) float32, or a ``.jsonl`` file with ``{"embedding": [...]}`` per row.
        options: pooling, normalization, prompt, and where it is computed.
        table_format: format and columns of the table.
        force: whether to overwrite a file at `out`.
        on_rows: called with the number of rows in each finished batch.
        warn: called with each warning about the table, and with each row that can't be read.

    Raises:
        UsageError, DataError, ModelError: an argument, the table or the bundle is invalid; `out` is then unchanged.
    """
    target = Path(out)
    check_suffix(target)
    bad_rows = BadRows(options.on_error, warn, shown=None)
    rows = truncated = 0
    with open_atomically(target, force) as file:
        encoder = Encoder(
            model,
            options.pooling,
            max_length=options.max_length,
            device=options.device,
            batch_size=options.batch_size,
        )
        prompt = encoder.choose_prompt(options.prompt, options.prompt_name)
        writer = open_writer(target, file, encoder.units)
        for embedding in encoder.encode_each(
            source,
            table_format,
            warn,
            normalize=options.normalize,
            prompt=prompt,
            full_chunks=True,  # so that equal texts give equal bytes
            on_rows=on_rows,
        ):
            rows += 1
            if isinstance(embedding, Embedding):
                writer.write(embedding.vector)
                truncated += embedding.truncated
                continue
            bad_rows(embedding)
            if options.on_error == "blank":
                writer.write(None)
        bad_rows.finish(rows)
        writer.finish()
    written = rows - bad_rows.count if options.on_error == "skip" else rows
    return EmbedResult(target, written, encoder.units, encoder.max_length, truncated, prompt, bad_rows.count)


def _choose_pooling(bundle: Bundle, pooling: str | None) -> str:
    output = bundle.signature.output
    if pooling not in (None, *POOLINGS):
        raise UsageError(f"pooling {pooling!r} is not one of {', '.join(POOLINGS)}")
    if pooling is None and output not in (*POOLINGS, EMBEDDING):
        ends = "its head reads" if bundle.has_head else "it ends in"
        raise UsageError(
            f"{bundle.prefix}: {ends} the encodings of all tokens, not one vector for a text: choose --pooling cls, "
            "mean or max"
        )
    return pooling or output


def _pooled_graph(bundle: Bundle, pooling: str) -> SymbolGraph | None:
    """The bundle's graph without its head, with another end if the pooling needs it; None for the graph as it is."""
    if not bundle.has_head and pooling == bundle.signature.output:
        return None
    graph = bundle.graph()
    try:
        pool_tokens(graph, bundle.params().shapes, pooling)
    except ModelError as error:
        raise ModelError(f"{bundle.prefix}: pooling {pooling}: {error}") from None
    return graph


def _normalized(vectors: Array) -> Array:
    """Scale vectors to the length 1: (N, U)."""
    scaled: Array = vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), _SHORTEST_NORM)
    return scaled
