"""Export: pretrained weights -> encoder symbol -> chosen output -> verified bundle."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bertsym.bundle import Bundle, BundleContent, json_text, stage_bundle
from bertsym.encoders.catalogue import FINISHED_HEADS, LABEL_NAME, OUTPUTS, TRAINED_HEADS
from bertsym.encoders.forms import Form, choose_form
from bertsym.encoders.inputs import INPUT_NAMES
from bertsym.encoders.outputs import output_graph, output_parameters
from bertsym.encoders.symbol_heads import finished_graph, finished_shapes, initial_parameters
from bertsym.encoders.trained_heads import headed_graphs
from bertsym.errors import ModelError, UsageError
from bertsym.passes.input_guard import add_input_guard
from bertsym.signature import Signature, Tensor
from bertsym.sources import Pretrained, SourceOptions, load_source
from bertsym.symbol.graph import SymbolGraph
from bertsym.symbol.params import Array, LazyParameters, shapes_of
from bertsym.verifier import DEFAULT_RTOL, Check, verification_record, verify_bundle

_CHECK_LENGTHS = (16, 40)


@dataclass(frozen=True)
class ExportResult:
    """A written bundle, the comparisons that it passed, and notes on what was assumed and left out."""

    bundle: Bundle
    checks: list[Check]
    notes: tuple[str, ...]


def export(
    source: str,
    prefix: str | Path,
    *,
    output: str | None = None,
    task: str | None = None,
    num_classes: int | None = None,
    new_head: bool = False,
    headless: bool = False,
    form: str | None = None,
    target: str | None = None,
    guard: bool = False,
    literal_special_tokens: bool = False,
    seed: int = 0,
    options: SourceOptions = SourceOptions(),
    rtol: float = DEFAULT_RTOL,
    verify: bool = True,
    force: bool = False,
    command: list[str] | None = None,
    progress: Callable[[str], object] = lambda text: None,
) -> ExportResult:
    """Write a pretrained BERT as a bundle at `prefix`, after comparing it with the reference encoder.

    `source` is ``gluonnlp:MODEL/DATASET``, ``hf:DIR-OR-REPO``, ``params:FILE`` or ``random:MODEL``. The trained head of
    an ``hf:`` source is exported with its encoder, unless `headless` or an `output` asks for the encoder alone: ``cls``
    (the default), ``pooled``, ``mean`` (N, U) or ``sequence`` (N, T, U). `task` (``classification``, ``regression``,
    ``qa``) writes a finished, untrained head instead, of `num_classes` outputs, drawn from `seed`; where the source has
    a trained head, only with `new_head`. `form` is ``portable`` (the default), ``gluonnlp`` or ``fast``, written for
    the MXNet `target`, such as ``1.9``; as `encoders.forms.choose_form` describes. With `guard` the symbols clip their
    inputs to valid ranges, for callers that don't check them. With `literal_special_tokens`, words such as ``[SEP]`` in
    a text are text. Without `verify` nothing is compared. `command` is noted in the manifest; `progress` is called with
    what is done.

    Raises UsageError, ModelError, DataError or VerificationError; no files remain then.
    """
    num_classes = _check_task(task, num_classes, new_head)
    if task and headless:
        raise UsageError(f"--headless exports the encoder alone: give no --task {task} with it")
    chosen = choose_form(form, target)
    if task and output:
        raise UsageError(f"task {task} decides what its head reads: give no output with it")
    if output is not None and output not in OUTPUTS:
        raise UsageError(f"output {output!r} is not one of {', '.join(OUTPUTS)}")
    with stage_bundle(prefix, force) as stage:
        progress(f"reading {source}")
        pretrained = load_source(source, options, with_head=not (task or output or headless))
        head = pretrained.head
        output = FINISHED_HEADS[task][0] if task else head.reads if head is not None else output or "cls"
        if task and pretrained.task_head and not new_head:
            raise UsageError(
                f"{source} has a trained task head, {pretrained.task_head}, which --task {task} would replace by an "
                "untrained one; give --new-head for that, or export the source as it is, without --task"
            )
        if output == "pooled" and not pretrained.has_pooler:
            raise ModelError(f"{source}: has no pooler; export --output cls, mean or sequence")
        how = {"source": source, "command": command, "literal_special_tokens": literal_special_tokens}
        end = _end(pretrained, output, chosen, task, num_classes, seed)
        content = _content(pretrained, output, end, target, seed, how)
        if guard:
            content = _guarded(content)
        progress(f"writing a BERT of {pretrained.config}")
        staged = stage.write(content)
        checks = []
        if verify:
            progress("loading the files, comparing with the reference encoder")
            source_params = _merge_parameters(content.arg_params, pretrained.arg_params)
            checks = verify_bundle(staged, source_params, rtol, _CHECK_LENGTHS, str(prefix), pretrained.checkpoint)
            staged = stage.add_facts(staged, {"verification": verification_record(checks, rtol)})
    return ExportResult(staged.moved_to(prefix), checks, (*pretrained.notes, *_left_out(pretrained, output, task)))


def _left_out(pretrained: Pretrained, output: str, task: str | None) -> list[str]:
    """Notes on what follows the encoder in the source and not in the bundle."""
    notes = []
    if pretrained.task_head:
        rest = "the new head is untrained" if task else "this bundle is the encoder alone"
        notes.append(f"not exported: task head {pretrained.task_head}; {rest}")
    pooling = pretrained.pooling
    if pooling and pooling.output != output:
        advice = f"; export --output {pooling.output}" if pooling.output and not task else ""
        notes.append(f"{pooling.module}: {pooling.description}: not in this bundle{advice}")
    return notes


def _guarded(content: BundleContent) -> BundleContent:
    def guarded(symbol_json: str) -> str:
        graph = SymbolGraph.parse(symbol_json)
        add_input_guard(graph, *INPUT_NAMES)
        return graph.to_json()

    training = content.train_symbol_json
    return dataclasses.replace(
        content,
        symbol_json=guarded(content.symbol_json),
        train_symbol_json=None if training is None else guarded(training),
    )


def _merge_parameters(first: Mapping[str, Array], second: Mapping[str, Array]) -> LazyParameters:
    """Merge parameters without reading them; arrays in both must be equal."""
    return LazyParameters(
        {**shapes_of(first), **shapes_of(second)}, lambda name: first[name] if name in first else second[name]
    )


def _check_task(task: str | None, num_classes: int | None, new_head: bool) -> int:
    if task is None:
        if new_head:
            raise UsageError("--new-head needs --task")
        if num_classes is not None:
            raise UsageError("--num-classes needs --task classification")
        return 0
    if task not in FINISHED_HEADS:
        raise UsageError(f"task {task!r} is not one of {', '.join(FINISHED_HEADS)}")
    fixed = {"regression": 1, "qa": 2}.get(task)
    if fixed is not None and num_classes not in (None, fixed):
        raise UsageError(f"--task {task} has {fixed} output{'s' if fixed > 1 else ''}, not {num_classes}")
    num_classes = fixed or num_classes or 2
    if num_classes < (fixed or 2):
        raise UsageError(f"--num-classes must be at least 2, not {num_classes}")
    return num_classes


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


def _end(pretrained: Pretrained, output: str, form: Form, task: str | None, num_classes: int, seed: int) -> _End:
    config, head = pretrained.config, pretrained.head
    if head is not None:
        graph, train_graph = headed_graphs(config, head.task, head.reads, head.num_outputs, head.dropout, form)
        return _End(
            TRAINED_HEADS[head.task],
            graph,
            (head.num_outputs,),
            head.arg_params,
            head.task,
            head.class_names,
            pair=None,
            train_graph=train_graph,
        )
    if task:
        graph = finished_graph(config, task, num_classes, form=form)
        params = initial_parameters(finished_shapes(config, task, num_classes), seed)
        return _End("logits", graph, (num_classes,), params, task, trained=False)
    graph = output_graph(config, output, form)
    return _End("encoder", graph, (config.units,), {}, trained=pretrained.trained)


def _content(
    pretrained: Pretrained, output: str, end: _End, target: str | None, seed: int, how: dict[str, Any]
) -> BundleContent:
    config = pretrained.config
    names = output_parameters(config, output)
    known = shapes_of(pretrained.arg_params)
    encoder_params = LazyParameters({name: known[name] for name in names}, pretrained.arg_params.__getitem__)
    axes: tuple[int | str, ...] = ("batch", "length") if output == "sequence" else ("batch",)
    signature = Signature(
        kind=end.kind,
        output=output,
        output_name=f"{end.graph.output_names[0]}_output",
        output_shape=(*axes, *end.shape),
        max_length=config.max_length,
        tokenizer=dataclasses.replace(
            pretrained.tokenizer,
            segments=config.token_type_vocab_size,
            literal_special_tokens=pretrained.tokenizer.literal_special_tokens or how["literal_special_tokens"],
        ),
        pad_id=pretrained.vocabulary.index("[PAD]"),
        special_tokens=pretrained.vocabulary.special_tokens,
        task=end.task,
        class_names=end.class_names,
        label_inputs=(Tensor(LABEL_NAME, ("batch",)),) if end.train_graph is not None else (),
        trained=end.trained,
        encoder_trained=pretrained.trained,
        pair=end.pair,
        target_mxnet=target,
    )
    facts = {
        "source": {"spec": how["source"], **pretrained.origin},
        "command": how["command"],
        "seed": seed,
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
