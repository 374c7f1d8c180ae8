"""Export: pretrained weights -> encoder symbol -> chosen output -> verified bundle."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bertsym.bundle import Bundle, BundleContent, json_text, stage_bundle
from bertsym.encoders.catalogue import FINISHED_HEADS, OUTPUTS
from bertsym.encoders.forms import Form, choose_form
from bertsym.encoders.inputs import INPUT_NAMES
from bertsym.encoders.outputs import output_graph, output_parameters
from bertsym.encoders.symbol_heads import finished_graph, finished_shapes, initial_parameters
from bertsym.errors import ModelError, UsageError
from bertsym.passes.input_guard import add_input_guard
from bertsym.signature import Signature
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

    `source` is ``gluonnlp:MODEL/DATASET``, ``hf:DIR-OR-REPO``, ``params:FILE`` or ``random:MODEL``;
    `output` is ``cls`` (the default), ``pooled``, ``mean`` (N, U) or ``sequence`` (N, T, U). `task`
    (``classification``, ``regression``, ``qa``) writes a finished, untrained head instead, of
    `num_classes` outputs, drawn from `seed`; where the source has a trained head, only with `new_head`. `form` is
    ``portable`` (the default), ``gluonnlp`` or ``fast``, written for the MXNet `target`, such as ``1.9``; as
    `encoders.forms.choose_form` describes. With `guard` the symbol clips its inputs to valid ranges, for callers
    that don't check them. With `literal_special_tokens`, words such as ``[SEP]`` in a text are text. Without
    `verify` nothing is compared. `command` is noted in the manifest; `progress` is called with what is done.

    Raises UsageError, ModelError, DataError or VerificationError; no files remain then.
    """
    num_classes = _check_task(task, num_classes, new_head)
    chosen = choose_form(form, target)
    if task and output:
        raise UsageError(f"task {task} decides what its head reads: give no output with it")
    output = FINISHED_HEADS[task][0] if task else output or "cls"
    if output not in OUTPUTS:
        raise UsageError(f"output {output!r} is not one of {', '.join(OUTPUTS)}")
    with stage_bundle(prefix, force) as stage:
        progress(f"reading {source}")
        pretrained = load_source(source, options)
        if task and pretrained.task_head and not new_head:
            raise UsageError(
                f"{source} has a trained task head, {pretrained.task_head}, which --task {task} would replace by an "
                "untrained one; give --new-head for that, or export the encoder alone, without --task"
            )
        if output == "pooled" and not pretrained.has_pooler:
            raise ModelError(f"{source}: has no pooler; export --output cls, mean or sequence")
        how = {"source": source, "command": command, "literal_special_tokens": literal_special_tokens}
        content = _content(pretrained, output, chosen, target, task, num_classes, seed, how)
        if guard:
            content = dataclasses.replace(content, symbol_json=_guarded(content.symbol_json))
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


def _guarded(symbol_json: str) -> str:
    graph = SymbolGraph.parse(symbol_json)
    add_input_guard(graph, *INPUT_NAMES)
    return graph.to_json()


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


def _content(
    pretrained: Pretrained,
    output: str,
    form: Form,
    target: str | None,
    task: str | None,
    num_classes: int,
    seed: int,
    how: dict[str, Any],
) -> BundleContent:
    config = pretrained.config
    names = output_parameters(config, output)
    known = shapes_of(pretrained.arg_params)
    arg_params = LazyParameters({name: known[name] for name in names}, pretrained.arg_params.__getitem__)
    shape: tuple[Any, ...] = ("batch", "length") if output == "sequence" else ("batch",)
    if task:
        graph = finished_graph(config, task, num_classes, form=form)
        head = initial_parameters(finished_shapes(config, task, num_classes), seed)
        arg_params = _merge_parameters(arg_params, head)
    else:
        graph = output_graph(config, output, form)
    signature = Signature(
        kind="logits" if task else "encoder",
        output=output,
        output_name=f"{graph.output_names[0]}_output",
        output_shape=(*shape, num_classes if task else config.units),
        max_length=config.max_length,
        tokenizer=dataclasses.replace(
            pretrained.tokenizer,
            segments=config.token_type_vocab_size,
            literal_special_tokens=pretrained.tokenizer.literal_special_tokens or how["literal_special_tokens"],
        ),
        pad_id=pretrained.vocabulary.index("[PAD]"),
        special_tokens=pretrained.vocabulary.special_tokens,
        task=task,
        trained=pretrained.trained and task is None,
        encoder_trained=pretrained.trained,
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
        graph.to_json(),
        arg_params,
        pretrained.vocabulary,
        facts,
        tokenizer_json=None if document is None else json_text(document),
    )
