"""Tagging: one tag for each word of a sentence, and the entities that the tags form."""

from __future__ import annotations

import dataclasses
import operator
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from bertsym.array import Array
from bertsym.datasets.columns import Columns
from bertsym.datasets.dataset import DataSet
from bertsym.encoders.catalogue import LABEL_NAME
from bertsym.encoders.graph_heads import IGNORED
from bertsym.errors import DataError, UsageError
from bertsym.json_reader import JsonValue
from bertsym.metrics.classification import cross_entropy
from bertsym.metrics.metric_rows import entity_rows
from bertsym.metrics.tagging import (
    OUTSIDE,
    SCHEMES,
    Entity,
    check_scheme,
    count_entities,
    evaluate_tags,
    find_entities,
    is_entity_tag,
    tag_accuracy,
)
from bertsym.reports.assessment import Assessment, ExampleRows, label_plot
from bertsym.reports.blocks import Bars
from bertsym.reports.tagging import TaggedSentence, tagging_sections
from bertsym.tasks.example_chunks import collect_examples, require_some
from bertsym.tasks.options import TaskOptions
from bertsym.tasks.tag_prediction import JSON_KEYS, EntitySpan, TagPrediction
from bertsym.tasks.task import Example, Examples, Reading, Source, Task
from bertsym.text.labels import abbreviate_labels
from bertsym.text.sentences import (
    SENTENCE_FORMATS,
    TEXT_LINES,
    Sentence,
    SentenceReader,
    join_words,
    split_at_punctuation,
    split_at_spaces,
    split_text,
)
from bertsym.text.tokenizer import Encoded, Tokenizer
from bertsym.text.word_pieces import FirstPieces, find_first_pieces, words_at


@dataclass(frozen=True)
class Words:
    """The words of an example, and the tokens that represent them."""

    sentence: Sentence
    pieces: FirstPieces


@dataclass(frozen=True)
class TagTargets:
    """The labelled tokens of each window, as indices, and their classes."""

    windows: Sequence[tuple[Array, Array]]

    def labels(self, rows: Array, length: int) -> dict[str, Array]:
        """Return the class of each token of some windows, (N, length) float32, and IGNORED for other tokens."""
        values: Array = np.full((len(rows), length), IGNORED, np.float32)
        for labels, row in zip(values, rows):
            tokens, classes = self.windows[row]
            labels[tokens] = classes
        return {LABEL_NAME: values}

    def count(self, rows: Array) -> int:
        """Return the number of labelled tokens."""
        return sum(len(self.windows[row][0]) for row in rows)


@dataclass(frozen=True)
class Tagging(Task):
    """One tag for each word; softmax and cross entropy on the first token of each word.

    The metrics are those of entities where all tags are entity tags, and the accuracy otherwise.
    """

    name = "tagging"
    known_metrics = ("f1", "precision", "recall", "accuracy")
    default_metrics = known_metrics

    scheme: str | None = None  #: a key of ``metrics.tagging.SCHEMES``, which all sentences must follow
    stride: int | None = None  #: overlap of the windows of a long sentence, in tokens; None: it is truncated

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.scheme not in (None, *SCHEMES):
            raise UsageError(f"scheme {self.scheme!r} is not one of {', '.join(SCHEMES)}")

    @classmethod
    def create(cls, dataset: DataSet, options: TaskOptions = TaskOptions()) -> Tagging:
        """Create the task for training."""
        options.require_only(cls.name, cls.option_names())
        metrics = dataset.metrics or cls.default_metrics
        return cls(metrics=metrics, scheme=options.scheme, stride=options.stride)

    @classmethod
    def option_names(cls) -> tuple[str, ...]:
        """Return the options of tagging."""
        return ("scheme", "stride")

    inference_option_names = option_names

    @classmethod
    def read_settings(cls, document: JsonValue) -> dict[str, Any]:
        """Read the metrics, the scheme and the stride."""
        scheme = document.get("scheme").optional(lambda value: value.choice(*SCHEMES))
        stride = document.get("stride").optional(lambda value: value.integer(0))
        return {**super().read_settings(document), "scheme": scheme, "stride": stride}

    @property
    def has_entities(self) -> bool:
        """Whether all tags are entity tags, such as ``B-PER``; parts of speech are not."""
        return all(map(is_entity_tag, self.class_names))

    # Reading

    def read(self, source: Source, reading: Reading, labelled: bool = True) -> Examples:
        """Read and tokenise all sentences."""
        reader = self._reader(source, reading, labelled)
        checked = (self._checked(each, reader) for each in reader.each())
        encoded = self._encode(checked, reading, reader.name)
        rows, left_out = collect_examples(encoded, reading, reader.name, "sentences")
        missing = sum(row.source.pieces.missing for row in rows)
        if missing:
            longer = "; --stride reads long sentences in windows" if any(row.truncated for row in rows) else ""
            reading.warn(f"warning: {reader.name}: {missing} words have no token and no tag{longer}")
        return Examples(reader.name, rows, reader.sha256, left_out)

    def examples(self, source: Source, reading: Reading) -> Iterator[list[Example | DataError]]:
        """Yield the sentences of a file, or the texts of a stream with one text per line."""
        reader = self._reader(source, reading, labelled=False)
        encoded = self._encode(reader.each(), reading, reader.name)
        yield from require_some(encoded, source, reader.name, "sentences")

    def encode_texts(
        self, texts: Sequence[str | Sequence[str]], pairs: Sequence[str] | None, reading: Reading
    ) -> Iterator[list[Example | DataError]]:
        """Yield texts, or lists of words, as examples; raises UsageError for pairs, DataError for an empty text."""
        if isinstance(texts, str):
            raise UsageError("texts must be a list of texts, not a single text")
        if pairs is not None:
            raise UsageError("tagging takes single texts: omit the second text")
        split = _splitter(reading.tokenizer)
        sentences = []
        for number, text in enumerate(texts, 1):
            words = [text] if isinstance(text, str) else text
            if not words or not all(word.strip() for word in words):
                raise DataError(f"text {number} of {len(texts)} is empty, or has an empty word")
            is_text = isinstance(text, str)
            sentences.append(
                split_text(words[0], number, split) if is_text else join_words(words, [number] * len(words))
            )
        return self._encode(sentences, reading, "the texts")

    def _reader(self, source: Source, reading: Reading, labelled: bool) -> SentenceReader:
        how = reading.table_format
        if how.columns != Columns() or how.header is not None or how.drop_labels:
            raise UsageError("tagging reads sentences, not tables: omit the options for header, columns and labels")
        if how.kind not in (None, *SENTENCE_FORMATS):
            raise UsageError(f"format {how.kind!r}: tagging reads {', '.join(SENTENCE_FORMATS)}")
        is_stream = not isinstance(source, (str, Path))
        kind = how.kind or (TEXT_LINES if is_stream and not labelled else None)
        return SentenceReader(source, kind, labelled, _splitter(reading.tokenizer))

    def _checked(self, sentence: Sentence | DataError, reader: SentenceReader) -> Sentence | DataError:
        """Return a labelled sentence, or an error if a tag is not a class, or is wrong in the scheme."""
        if isinstance(sentence, DataError) or sentence.tags is None:
            return sentence
        if self.scheme is not None and (fault := check_scheme(sentence.tags, self.scheme)) is not None:
            place, why = fault
            return reader.error(sentence.lines[place], why)
        for line, tag in zip(sentence.lines, sentence.tags):
            if self.class_names and tag not in self.class_names:
                return reader.error(line, f"tag {tag!r} is not one of the tags {abbreviate_labels(self.class_names)}")
        return sentence

    def _encode(
        self, sentences: Iterable[Sentence | DataError], reading: Reading, where: str
    ) -> Iterator[list[Example | DataError]]:
        """Tokenise sentences in chunks; the error of a sentence that can't be tokenised takes its place."""
        tokenizer = reading.tokenizer
        for chunk in reading.chunking(sentences, lambda each: len(each.text) if isinstance(each, Sentence) else 0):
            good = [each for each in chunk if isinstance(each, Sentence)]
            split = iter(tokenizer.encode_words([each.words for each in good if each.is_split], self.stride))
            whole = [each.text for each in good if not each.is_split]
            texts = iter(tokenizer.encode_windows(whole, stride=self.stride))
            yield [
                self._example(each, next(split if each.is_split else texts), where)
                if isinstance(each, Sentence)
                else each
                for each in chunk
            ]

    def _example(self, sentence: Sentence, encoded: list[Encoded] | DataError, where: str) -> Example | DataError:
        line = sentence.lines[0]
        if isinstance(encoded, DataError):
            return DataError(f"{where}, line {line}: {encoded}")
        alignments = [window.alignment for window in encoded if window.alignment is not None]
        words = [words_at(each.offsets, sentence.offsets) if each.words is None else each.words for each in alignments]
        texts = [each.texts == 0 for each in alignments]
        pieces = find_first_pieces(words, texts, len(sentence.offsets), self.stride or 0)
        if pieces.missing == len(sentence.offsets):
            return DataError(f"{where}, line {line}: a sentence without tokens (only control characters?)")
        return Example(line, tuple(encoded), sentence.tags, Words(sentence, pieces))

    # Labels

    def labels_of(self, example: Example) -> tuple[str, ...]:
        """Return the tags."""
        return tuple(example.target)

    def with_labels(self, train: Examples) -> Tagging:
        """Return this task with the tags of a training file as classes: first ``O``, then the others, sorted."""
        tags = {tag for row in train.rows for tag in row.target}
        if len(tags) < 2:
            raise DataError(f"{train.name}: every tag is {tags.pop()!r}; a tagger needs at least 2 tags")
        class_names = sorted(tags, key=lambda tag: (tag != OUTSIDE, tag))
        task = dataclasses.replace(self, class_names=tuple(class_names))
        return task if task.has_entities else dataclasses.replace(task, metrics=("accuracy",))

    def label_warnings(self, train: Examples) -> Iterator[str]:
        """Yield a warning about tags that are entity tags and tags that are not in one file."""
        tags = Counter(tag for row in train.rows for tag in row.target)
        entity_tags = [tag for tag in tags if is_entity_tag(tag) and tag != OUTSIDE]
        others = [tag for tag in tags if not is_entity_tag(tag)]
        if entity_tags and others:
            yield (
                f"warning: {train.name}: tags such as {entity_tags[0]} and {others[0]}; entities are found where all "
                "tags are O, or B-, I-, E- or S- and a type: the only metric is the accuracy of the tags"
            )

    # Training

    def targets(self, examples: Examples) -> TagTargets:
        """Prepare the class of the first token of each word; other tokens have none."""
        index = {tag: number for number, tag in enumerate(self.class_names)}
        windows = []
        for row in examples.rows:
            classes = np.array([index[tag] for tag in row.target], np.float32)
            for window in range(len(row.windows)):
                words, tokens = row.source.pieces.in_window(window)
                windows.append((tokens, classes[words]))
        return TagTargets(windows)

    def loss(self, outputs: Sequence[Array], labels: Mapping[str, Array]) -> float:
        """Return the cross entropy, summed over the labelled tokens."""
        classes = labels[LABEL_NAME]
        labelled = classes != IGNORED
        if not labelled.any():
            return 0.0
        return int(labelled.sum()) * cross_entropy(outputs[0][labelled], classes[labelled].astype(np.int64))

    # Inference

    def token_places(self, example: Example, window: int) -> dict[str, list[Any]]:
        """Return ``words``: the index of the token of each word, None for a word without one.

        The words of all windows, one after the other, are those of the sentence.
        """
        pieces = example.source.pieces
        # A word without a token is among the words of the window of the word before it.
        windows = np.maximum.accumulate(np.maximum(pieces.windows, 0))
        tokens = pieces.tokens[windows == window].tolist()
        return {"words": [token if token >= 0 else None for token in tokens]}

    def evaluate(self, outputs: Sequence[Array], examples: Examples) -> dict[str, float]:
        """Compute the metrics over all sentences, and the cross entropy over all words with a token.

        A word without a token counts as a word outside of entities.
        """
        index = {tag: number for number, tag in enumerate(self.class_names)}
        tags: list[Sequence[str]] = [row.target for row in examples.rows]
        predicted, parts = [], []
        for row, values in zip(examples.rows, self._word_outputs(outputs, examples.rows)):
            found = row.source.pieces.windows >= 0
            predicted.append([tag or OUTSIDE for tag in self._tags(values, found)])
            classes = np.array([index[tag] for tag in row.target])
            parts.append(values[found, classes[found]])
        if self.has_entities:
            scores = evaluate_tags(tags, predicted, self.scheme)
        else:
            scores = {"accuracy": tag_accuracy(tags, predicted)}
        right = np.concatenate(parts)[:, np.newaxis]
        loss = cross_entropy(right, np.zeros(len(right), np.int64))
        return {**{name: scores[name] for name in self.metrics if name in scores}, "loss": loss}

    @property
    def columns(self) -> tuple[str, ...]:
        """Return the tags of the words and the entities."""
        return ("tags", "entities")

    @property
    def json_keys(self) -> tuple[str, ...]:
        """Return the keys of `TagPrediction.to_json`."""
        return JSON_KEYS

    def predictions(self, outputs: Sequence[Array], examples: Sequence[Example]) -> Iterator[TagPrediction]:
        """Yield the tags of each sentence, and its entities."""
        for row, values in zip(examples, self._word_outputs(outputs, examples)):
            found = row.source.pieces.windows >= 0
            tags = self._tags(values, found)
            best = [float(value) if has else None for value, has in zip(values.max(axis=1), found)]
            sentence = row.source.sentence
            yield TagPrediction(
                sentence.words, sentence.offsets, tags, best, self._entities(sentence, tags, best), row.truncated
            )

    # Reports

    def assess(self, outputs: Sequence[Array], examples: Examples, rows: ExampleRows) -> Assessment:
        """Describe the errors by type of entity, or by tag, and the sentences with most of them."""
        counts, tags, sentences = [], [], []
        for row, found in zip(examples.rows, self.predictions(outputs, examples.rows)):
            predicted = [tag or OUTSIDE for tag in found.tags]
            counts.append(count_entities(row.target, predicted, self.scheme) if self.has_entities else (0, 0, 0))
            tags.append((sum(map(operator.eq, row.target, predicted)), len(predicted)))
            known = [probability for probability in found.probabilities if probability is not None]
            sentence = row.source.sentence
            correct, guessed = (frozenset(self._units(each)) for each in (row.target, predicted))
            sentences.append(TaggedSentence(sentence.text, sentence.offsets, correct, guessed, float(np.mean(known))))
        words = np.array(tags, np.float64)
        names = self.metrics if self.has_entities else ("accuracy",)
        metrics = entity_rows(np.array(counts, np.float64), words, names)
        what = "entities" if self.has_entities else "tags"
        scores = words[:, 0] / words[:, 1]
        return Assessment(metrics, scores, "words with the correct tag", tagging_sections(sentences, rows, what))

    def _units(self, tags: Sequence[str]) -> Iterator[Entity]:
        """Yield the entities of a sentence, or each tag as an entity where tags have no prefixes."""
        if self.has_entities:
            yield from find_entities(tags, self.scheme)
        else:
            yield from (Entity(tag, place, place + 1) for place, tag in enumerate(tags))

    def target_plot(self, files: Mapping[str, Examples]) -> Bars:
        """Return the fraction of each type of entity among all of them, or of each tag."""
        counts = {
            name: Counter(unit.type for row in each.rows for unit in self._units(row.target))
            for name, each in files.items()
        }
        kinds = sorted({kind for found in counts.values() for kind in found})
        return label_plot(kinds, counts, "entities" if self.has_entities else "tags")

    def target_text(self, example: Example) -> str:
        """Return the tags."""
        return " ".join(example.target)

    def example_texts(self, example: Example) -> tuple[str, ...]:
        """Return the sentence."""
        return (example.source.sentence.text,)

    def _word_outputs(self, outputs: Sequence[Array], examples: Sequence[Example]) -> Iterator[Array]:
        """Yield the probabilities of the tags of each word, (words, C), 0 for a word without a token."""
        windows = iter(outputs)
        for row in examples:
            pieces = row.source.pieces
            values: Array = np.zeros((len(pieces.windows), len(self.class_names)), np.float32)
            for number in range(len(row.windows)):
                words, tokens = pieces.in_window(number)
                values[words] = next(windows)[tokens]
            yield values

    def _tags(self, values: Array, found: Array) -> list[str | None]:
        best = values.argmax(axis=1)
        return [self.class_names[number] if has else None for number, has in zip(best, found)]

    def _entities(self, sentence: Sentence, tags: list[str | None], scores: list[float | None]) -> list[EntitySpan]:
        if not self.has_entities:
            return []
        spans = []
        for kind, first, end in find_entities([tag or OUTSIDE for tag in tags], self.scheme):
            start, stop = sentence.offsets[first][0], sentence.offsets[end - 1][1]
            score = float(np.mean([score for score in scores[first:end] if score is not None]))
            spans.append(EntitySpan(kind, start, stop, sentence.text[start:stop], score))
        return spans


def _splitter(tokenizer: Tokenizer) -> Any:
    """Return how a text is split into words: as the tokenizer does, or as transformers does for its family."""
    return split_at_punctuation if tokenizer.is_wordpiece else split_at_spaces
