"""What a run starts from: an encoder without a head, and the trained head that it continues."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass

from bertsym.array import Array
from bertsym.bundle import Bundle
from bertsym.encoders.catalogue import FULLY_CONNECTED, HEAD_TRANSFORM, HeadTransform
from bertsym.encoders.forms import choose_form
from bertsym.encoders.graph_heads import add_cls_slice, head_dropout, without_head
from bertsym.encoders.inputs import INPUT_NAMES, TOKEN_TYPES
from bertsym.encoders.parameters import POOLER
from bertsym.encoders.trained_heads import record_read
from bertsym.errors import ModelError, UsageError
from bertsym.families import FAMILIES, text_head
from bertsym.passes.input_guard import add_input_guard
from bertsym.passes.token_types import drop_token_types
from bertsym.symbol.graph import SymbolGraph
from bertsym.symbol.params import shapes_of
from bertsym.tasks.task import Task
from bertsym.text.labels import abbreviate_labels
from bertsym.training.finetune_options import DROPOUT_PROBABILITY, FinetuneOptions
from bertsym.training.layer_rates import rate_multipliers

_HEAD_PARAMETERS = (f"{FULLY_CONNECTED}_weight", f"{FULLY_CONNECTED}_bias")


@dataclass(frozen=True)
class Base:
    """The encoder of a bundle, and its head where the run continues that."""

    bundle: Bundle
    graph: SymbolGraph  #: of the encoder
    output: str  #: of the encoder, a key of ``encoders.catalogue.OUTPUTS``
    params: Mapping[str, Array]  #: of the encoder
    head_params: Mapping[str, Array] | None  #: of the head that is continued
    dropout: float  #: in the head
    rates: Mapping[str, float]  #: factors of the learning rate of parameters that have one; 0: frozen

    @property
    def continues(self) -> bool:
        """Whether the run continues a trained head."""
        return self.head_params is not None

    def with_classes(self, task: Task, table: str) -> Task:
        """Return the task with its classes in the order of the head that is continued.

        `table` is the training file that the classes are from. Raises ModelError unless they are those of the head.
        """
        if not self.continues:
            return task
        names, labels = self.bundle.signature.class_names, task.class_names
        if set(names) == set(labels):
            return dataclasses.replace(task, class_names=names)
        raise ModelError(
            f"{self.bundle.prefix}: its trained head has the classes {abbreviate_labels(names)}, but {table} has "
            f"the labels {abbreviate_labels(labels)}; --new-head replaces the head, export --headless exports the "
            "encoder alone"
        )


def open_base(bundle: Bundle, task: Task, options: FinetuneOptions) -> Base:
    """Take a bundle apart into what a run for a task starts from; raises ModelError and UsageError."""
    signature, graph, params = bundle.signature, bundle.graph(), bundle.params()
    if signature.precision != "float32":
        raise ModelError(
            f"{bundle.prefix}: is {signature.precision}; fine-tune the float32 bundle that it was made from"
        )
    if bundle.is_folded:
        raise ModelError(
            f"{bundle.prefix}: has fused QKV weights, for inference only; fine-tune the bundle that it was made from, "
            "and apply bertsym lower --fold to the result"
        )
    output, head_params, dropout = signature.output, None, options.dropout
    if bundle.has_head:
        continues = not options.new_head
        if continues and not (signature.trained and signature.task == task.name):
            state = f"a head for {signature.task}" if signature.trained else "an untrained head"
            raise ModelError(
                f"{bundle.prefix}: has {state}, which finetune --task {task.name} can't continue; --new-head replaces "
                "it, and bertsym export --headless or graft --head none make a bundle of the encoder alone"
            )
        if continues:
            head_params = {name: params[name] for name in _HEAD_PARAMETERS}
            dropout = head_dropout(graph) if dropout is None else dropout
        if continues and options.freeze_encoder and f"{HEAD_TRANSFORM}_weight" in params:
            raise UsageError(
                f"{bundle.prefix}: --freeze-encoder trains one layer, and the trained head has two; train without "
                "--freeze-encoder, or give --new-head for a new head of one layer"
            )
        graph = without_head(graph, keep_transform=continues)
        if output == "sequence" and not (options.whole_sequence or task.reads_tokens or continues):
            output = "cls"
            add_cls_slice(graph, bundle.config.units)
    if options.head == "family" and head_params is not None:
        raise UsageError(
            f"{bundle.prefix}: --head family makes a new head, but training continues its trained head; give --new-head"
        )
    if task.reads_tokens:
        if output != "sequence":
            graph, output = _build_graph(bundle, task, "sequence"), "sequence"
    elif options.head == "family":
        graph, output = _family_graph(bundle, task, options)
    elif signature.embedding is not None:
        raise ModelError(
            f"{bundle.prefix}: ends in a sentence embedding ({signature.embedding}), not in an output of the encoder; "
            "export its source with --headless for a classifier on [CLS], or with --output mean"
        )
    _check_output(bundle, output, task, options, head_params is not None)
    variables = set(graph.variables)
    encoder = {name: params[name] for name in params if name in variables}
    rates = rate_multipliers(bundle.prefix, graph, shapes_of(encoder), options)
    dropout = DROPOUT_PROBABILITY if dropout is None else dropout
    return Base(bundle, graph, output, encoder, head_params, dropout, rates)


def _family_graph(bundle: Bundle, task: Task, options: FinetuneOptions) -> tuple[SymbolGraph, str]:
    """Build the graph up to the last layer of the head that the family has, and name the output that the head reads."""
    head = text_head(FAMILIES[bundle.config.family])
    if options.whole_sequence:
        raise UsageError(f"--whole-sequence: the head of the family reads {head.reads}; omit it, or --head family")
    if head.reads == "pooled" and not all(name in bundle.params() for name in POOLER):
        raise ModelError(
            f"{bundle.prefix}: has no pooler, which --head family reads; export the model with --output pooled"
        )
    transform = None
    if head.has_transform:
        if options.freeze_encoder:
            raise UsageError("--freeze-encoder trains one layer, and --head family has two; omit one of the options")
        dropout = DROPOUT_PROBABILITY if options.dropout is None else options.dropout
        transform = HeadTransform(head.activation or bundle.config.activation, dropout if head.drops_input else 0.0)
    return _build_graph(bundle, task, head.reads, transform), head.reads


def _build_graph(bundle: Bundle, task: Task, reads: str, transform: HeadTransform | None = None) -> SymbolGraph:
    """Build the graph of a bundle's encoder in the same form, ending in what the last layer of a head reads."""
    signature = bundle.signature
    form = choose_form(signature.form, signature.target_mxnet)
    graph: SymbolGraph = record_read(bundle.config, task.name, reads, form, transform).graph()
    if TOKEN_TYPES not in signature.input_names:
        drop_token_types(graph, bundle.params().shapes, form)
    if signature.guarded:
        add_input_guard(graph, *INPUT_NAMES)
    return graph


def _check_output(bundle: Bundle, output: str, task: Task, options: FinetuneOptions, continues: bool) -> None:
    name = bundle.signature.output_name if not bundle.has_head else f"{output}_output"
    if task.reads_tokens:
        if options.whole_sequence:
            raise UsageError(f"--whole-sequence: {task.name} reads each token by itself; omit it")
        return
    if output == "sequence" and not options.whole_sequence:
        raise UsageError(
            f"{bundle.prefix} ends in {name}, the sequence output (N, T, {bundle.config.units}), which "
            "would fix the classifier to one sequence length; export with --output cls, pooled or mean, or accept that "
            "with --whole-sequence"
        )
    if options.whole_sequence and output != "sequence":
        raise UsageError(
            f"{bundle.prefix} ends in {name}, but --whole-sequence needs a bundle exported with --output sequence"
        )
    length = bundle.signature.length
    if (
        continues
        and length is not None
        and options.resolve_max_length(bundle.config.max_length, task.default_max_length) != length
    ):
        raise UsageError(f"{bundle.prefix}: its head takes texts of {length} tokens only: give --max-length {length}")
