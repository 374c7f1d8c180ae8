"""Export: pretrained weights -> encoder symbol -> chosen output -> verified bundle."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bertsym.array import Array
from bertsym.bundle import Bundle, BundleContent, json_text, stage_bundle
from bertsym.encoders.catalogue import FINISHED_HEADS, OUTPUTS, TRAINED_HEADS
from bertsym.encoders.embedding_graph import embedding_graph
from bertsym.encoders.forms import Form, choose_form
from bertsym.encoders.graph_heads import label_shapes
from bertsym.encoders.inputs import INPUT_NAMES, TOKEN_TYPES
from bertsym.encoders.outputs import output_graph, output_parameters
from bertsym.encoders.sentence_embedding import EMBEDDING, SentenceEmbedding
from bertsym.encoders.symbol_heads import finished_graph, finished_shapes, initial_parameters
from bertsym.encoders.trained_heads import headed_graphs
from bertsym.errors import ModelError, UsageError
from bertsym.passes.input_guard import add_input_guard
from bertsym.passes.token_types import drop_token_types
from bertsym.signature import Signature, Tensor, bert_inputs
from bertsym.sources import Pretrained, SourceOptions, load_source
from bertsym.symbol.graph import SymbolGraph
from bertsym.symbol.params import LazyParameters, shapes_of
from bertsym.verifier import DEFAULT_RTOL, Check, verification_record, verify_bundle

_CHECK_LENGTHS = (16, 40)
_FIXED_OUTPUTS = {"regression": 1, "qa": 2}  # of finished heads
_WITHOUT_TYPES = tuple(name for name in INPUT_NAMES if name != TOKEN_TYPES)


@dataclass(frozen=True)
class ExportResult:
    """A written bundle, the comparisons that it passed, and notes on what was assumed and left out."""

    bundle: Bundle
    checks: list[Check]
    notes: tuple[str, ...]


@dataclass(frozen=True)
class ExportOptions:
    """What to export of a source, and in which form of the encoder.

    The trained head of a source, or the sentence embedding of a sentence-transformers folder, is exported with its
    encoder, unless `task` asks for an untrained head, or `headless` or `output` for the encoder alone.

    Raises UsageError for a value that does not exist and for values that exclude each other.
    """

    output: str | None = None  #: ``cls`` (the default), ``pooled``, ``mean`` (N, U) or ``sequence`` (N, T, U)
    task: str | None = None  #: kind of an untrained head that ends in logits, a key of ``FINISHED_HEADS``
    num_classes: int | None = None  #: of the head; None: 2 for classification
    new_head: bool = False  #: write the untrained head even where the source has a trained one
    headless: bool = False  #: export the encoder alone, as an `output` does too
    form: str | None = None  #: a key of ``encoders.forms.FORMS``; None: ``portable``
    target: str | None = None  #: release line of MXNet such as ``1.9``; None: as `encoders.forms.choose_form` has it
    guard: bool = False  #: clip the inputs to their valid ranges in the graph
    #: inputs of the symbol, by default all of ``encoders.inputs.INPUTS``; without ``data1``, all token types are 0
    inputs: tuple[str, ...] = INPUT_NAMES
    literal_special_tokens: bool = False  #: words such as ``[SEP]`` in a text are plain text
    seed: int = 0  #: of the head's weights

    def __post_init__(self) -> None:
        choose_form(self.form, self.target)
        if self.inputs not in (INPUT_NAMES, _WITHOUT_TYPES):
            raise UsageError(
                f"inputs {','.join(self.inputs)} are neither {','.join(INPUT_NAMES)} nor {','.join(_WITHOUT_TYPES)}"
            )
        if self.task is None and self.new_head:
            raise UsageError("--new-head needs --task")
        if self.task is None and self.num_classes is not None:
            raise UsageError("--num-classes needs --task classification")
        if self.task is not None:
            self._check_head(self.task)
        if self.output not in (None, *OUTPUTS):
            raise UsageError(f"output {self.output!r} is not one of {', '.join(OUTPUTS)}")

    def _check_head(self, task: str) -> None:
        if self.headless:
            raise UsageError(f"--headless exports the encoder alone: omit --task {task}")
        if self.output is not None:
            raise UsageError(f"task {task} determines what its head reads: omit the output")
        if task not in FINISHED_HEADS:
            raise UsageError(f"task {task!r} is not one of {', '.join(FINISHED_HEADS)}")
        fixed = _FIXED_OUTPUTS.get(task)
        if fixed is not None and self.num_classes not in (None, fixed):
            raise UsageError(f"--task {task} has {fixed} output{'s' if fixed > 1 else ''}, not {self.num_classes}")
        if self.num_outputs < (fixed or 2):
            raise UsageError(f"--num-classes must be at least 2, not {self.num_outputs}")

    @property
    def encoder_output(self) -> str:
        """The output of the encoder that the symbol ends in, or that the untrained head reads."""
        return FINISHED_HEADS[self.task][0] if self.task else self.output or "cls"

    @property
    def keeps_head(self) -> bool:
        """Whether the trained head or sentence embedding of a source is exported with its encoder."""
        return not (self.task or self.output or self.headless)

    @property
    def num_outputs(self) -> int:
        """The number of outputs of the head."""
        if self.num_classes is not None:
            return self.num_classes
        return _FIXED_OUTPUTS.get(self.task or "", 2)


def export(
    source: str,
    out: str | Path,
    options: ExportOptions = ExportOptions(),
    *,
    source_options: SourceOptions = SourceOptions(),
    rtol: float = DEFAULT_RTOL,
    verify: bool = True,
    force: bool = False,
    progress: Callable[[str], object] = lambda text: None,
) -> ExportResult:
    """Write a pretrained BERT as a bundle at `out`, after comparing it with the reference encoder.

    Args:
        source: ``gluonnlp:MODEL/DATASET``, ``hf:DIR-OR-REPO``, ``params:FILE``, ``tf:DIR`` or
            ``random:MODEL``.
        out: prefix of the bundle's files.
        options: what is written.
        source_options: what the source needs besides its name.
        rtol: largest difference from the reference encoder's outputs, relative to their scale.
        verify: whether to compare at all.
        force: whether to overwrite a bundle at `out`.
        progress: called with each step before it begins.

    Raises UsageError, ModelError, DataError or VerificationError; no files remain then.
    """
    with stage_bundle(out, force) as stage:
        progress(f"reading {source}")
        pretrained = load_source(source, source_options, with_head=options.keeps_head)
        output = options.encoder_output if pretrained.head is None else pretrained.head.reads
        if pretrained.embedding is not None:
            output = EMBEDDING
        _check_source(source, pretrained, output, options)
        content = _content(source, pretrained, output, options)
        if options.inputs != INPUT_NAMES:
            content = _without_token_types(content, choose_form(options.form, options.target))
        if options.guard:
            content = _with_graphs_changed(content, lambda graph: add_input_guard(graph, *INPUT_NAMES))
        progress(f"writing a BERT of {pretrained.config}")
        staged = stage.write(content)
        checks = []
        if verify:
            progress("loading the files, comparing with the reference encoder")
            source_params = _merge_parameters(content.arg_params, pretrained.arg_params)
            checks = verify_bundle(staged, source_params, rtol, _CHECK_LENGTHS, str(out), pretrained.checkpoint)
            staged = stage.add_facts(staged, {"verification": verification_record(checks, rtol)})
    notes = (*pretrained.notes, *_left_out(pretrained, output, options))
    return ExportResult(staged.moved_to(out), checks, notes)


def _check_source(source: str, pretrained: Pretrained, output: str, options: ExportOptions) -> None:
    """Raise an error where a source does not have what is asked of it, or has a head that would be lost."""
    if options.task and pretrained.task_head and not options.new_head:
        raise UsageError(
            f"{source} has a trained task head, {pretrained.task_head}, which --task {options.task} would replace with "
            "an untrained one; give --new-head for that, or export the source as it is, without --task"
        )
    types = pretrained.config.segments
    if TOKEN_TYPES not in options.inputs and types > 1:
        raise UsageError(
            f"{source} has {types} token types, which the input {TOKEN_TYPES} selects: export it with all inputs, "
            f"without --inputs {','.join(options.inputs)}"
        )
    if output == "pooled" and not pretrained.has_pooler:
        raise ModelError(f"{source}: has no pooler; export --output cls, mean or sequence")


def _left_out(pretrained: Pretrained, output: str, options: ExportOptions) -> list[str]:
    """Notes on what follows the encoder in the source and not in the bundle."""
    notes = []
    if pretrained.task_head:
        rest = "the new head is untrained" if options.task else "this bundle is the encoder alone"
        if pretrained.embedding is not None:
            rest = "sentence-transformers does not read it"
        notes.append(f"not exported: task head {pretrained.task_head}; {rest}")
    pooling = pretrained.pooling
    if pooling and pooling.output != output:
        ways = [f"export --output {pooling.output}"] if pooling.output in OUTPUTS and not options.task else []
        ways += [f"embed --pooling {pooling.output}"] if pooling.output else []
        advice = f"; {' or '.join(ways)}" if ways else ""
        notes.append(f"{pooling.module}: {pooling.description}: not in this bundle{advice}")
    return notes


def _with_graphs_changed(content: BundleContent, change: Callable[[SymbolGraph], object]) -> BundleContent:
    """Apply `change` in place to the graph for inference and to that for training."""

    def changed(symbol_json: str) -> str:
        graph = SymbolGraph.parse(symbol_json)
        change(graph)
        return graph.to_json()

    training = content.train_symbol_json
    return dataclasses.replace(
        content,
        symbol_json=changed(content.symbol_json),
        train_symbol_json=None if training is None else changed(training),
    )


def _without_token_types(content: BundleContent, form: Form) -> BundleContent:
    """Let every token have the type 0, without an input for it."""
    shapes = shapes_of(content.arg_params)
    signature = dataclasses.replace(content.signature, inputs=bert_inputs(names=_WITHOUT_TYPES))
    content = dataclasses.replace(content, signature=signature)
    return _with_graphs_changed(content, lambda graph: drop_token_types(graph, shapes, form))


def _merge_parameters(first: Mapping[str, Array], second: Mapping[str, Array]) -> LazyParameters:
    """Merge parameters without reading them; arrays in both must be equal."""
    return LazyParameters(
        {**shapes_of(first), **shapes_of(second)}, lambda name: first[name] if name in first else second[name]
    )


@dataclass(frozen=True)
class _End:
    """What a bundle ends in: an output of the encoder, or a head on it."""

    kind: str  #: as in the signature, like the fields with names of its own
    graph: SymbolGraph
    shape: tuple[int, ...]  #: of the output, after the axes of texts and tokens
    arg_params: Mapping[str, Array]  #: of the head
    task: str | None = None
    class_names: tuple[str, ...] = ()
    trained: bool = True
    pair: bool | None = False
    train_graph: SymbolGraph | None = None
    task_settings: Mapping[str, Any] = field(default_factory=dict)
    max_length: int | None = None  #: of the texts; None: the positions of the encoder
    embedding: SentenceEmbedding | None = None


def _end(pretrained: Pretrained, options: ExportOptions) -> _End:
    config, head = pretrained.config, pretrained.head
    form = choose_form(options.form, options.target)
    if head is not None:
        graph, train_graph = headed_graphs(
            config, head.task, head.reads, head.num_outputs, head.dropout, form, head.transform
        )
        return _End(
            TRAINED_HEADS[head.task],
            graph,
            (head.num_outputs,),
            head.arg_params,
            head.task,
            head.class_names,
            pair=None,
            train_graph=train_graph,
            task_settings=head.settings,
            max_length=head.max_length,
        )
    if pretrained.embedding is not None:
        embedding = pretrained.embedding.embedding
        return _End(
            "encoder",
            embedding_graph(config, embedding, form),
            (embedding.width(config.units),),
            pretrained.embedding.arg_params,
            trained=pretrained.trained,
            max_length=pretrained.embedding.max_length,
            embedding=embedding,
        )
    if options.task:
        graph = finished_graph(config, options.task, options.num_outputs, form=form)
        params = initial_parameters(finished_shapes(config, options.task, options.num_outputs), options.seed)
        return _End("logits", graph, (options.num_outputs,), params, options.task, trained=False)
    graph = output_graph(config, options.encoder_output, form)
    return _End("encoder", graph, (config.units,), {}, trained=pretrained.trained)


def _content(source: str, pretrained: Pretrained, output: str, options: ExportOptions) -> BundleContent:
    end = _end(pretrained, options)
    config = pretrained.config
    names = output_parameters(config, output)
    known = shapes_of(pretrained.arg_params)
    encoder_params = LazyParameters({name: known[name] for name in names}, pretrained.arg_params.__getitem__)
    axes: tuple[int | str, ...] = ("batch", "length") if output == "sequence" else ("batch",)
    labels = label_shapes(end.task, *end.shape) if end.task is not None and end.train_graph is not None else {}
    signature = Signature(
        kind=end.kind,
        output=output,
        output_name=f"{end.graph.output_names[0]}_output",
        output_shape=(*axes, *end.shape),
        max_length=end.max_length or config.max_length,
        tokenizer=dataclasses.replace(
            pretrained.tokenizer,
            segments=config.segments,
            literal_special_tokens=pretrained.tokenizer.literal_special_tokens or options.literal_special_tokens,
            # transformers counts positions from the tokens that are not padding.
            refused_id=config.position_offset - 1 if config.position_offset else None,
        ),
        pad_id=pretrained.vocabulary.special_ids["pad"],
        special_tokens=pretrained.vocabulary.special_tokens,
        inputs=bert_inputs(segments=config.segments),
        family=config.family,
        special_ids=pretrained.vocabulary.special_ids,
        embedding=end.embedding,
        task=end.task,
        class_names=end.class_names,
        task_settings=end.task_settings,
        label_inputs=tuple(Tensor(*each) for each in labels.items()),
        trained=end.trained,
        encoder_trained=pretrained.trained,
        pair=end.pair,
        target_mxnet=options.target,
    )
    facts = {
        "source": {"spec": source, **pretrained.origin},
        "seed": options.seed,
    }
    document = pretrained.tokenizer_document
    return BundleContent(
        config,
        signature,
        end.graph.to_json(),
        _merge_parameters(encoder_params, end.arg_params),
        pretrained.vocabulary,
        facts,
        None if end.train_graph is None else end.train_graph.to_json(),
        None if document is None else json_text(document),
    )
