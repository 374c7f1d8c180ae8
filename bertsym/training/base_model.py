"""What a run starts from: an encoder without a head, and the trained head that it continues."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from bertsym.bundle import Bundle
from bertsym.encoders.catalogue import FULLY_CONNECTED, HEAD_TRANSFORM
from bertsym.encoders.graph_heads import DROPOUT, add_cls_slice, without_head
from bertsym.errors import ModelError, UsageError
from bertsym.symbol.attributes import decimal
from bertsym.symbol.graph import SymbolGraph
from bertsym.symbol.params import Array, shapes_of
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
    def class_names(self) -> tuple[str, ...] | None:
        """Classes of the head that is continued; None for a new head."""
        return self.bundle.signature.class_names if self.head_params is not None else None

    def ordered(self, labels: Sequence[str], table: str) -> tuple[str, ...]:
        """The labels of the training table in the order of the classes.

        Raises ModelError unless they are the classes of the head that is continued.
        """
        names = self.class_names
        if names is None or set(names) == set(labels):
            return names or tuple(labels)
        raise ModelError(
            f"{self.bundle.prefix}: its trained head has the classes {abbreviate_labels(names)}, but {table} has "
            f"the labels {abbreviate_labels(labels)}; --new-head replaces the head, export --headless exports the "
            "encoder alone"
        )


def open_base(bundle: Bundle, options: FinetuneOptions) -> Base:
    """Take a bundle apart into what a run with these options starts from; raises ModelError and UsageError."""
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
        if continues and not (signature.trained and signature.is_single_label):
            state = f"a head for {signature.task}" if signature.trained else "an untrained head"
            raise ModelError(
                f"{bundle.prefix}: has {state}, which finetune can't continue; --new-head replaces it, and bertsym "
                "export --headless or graft --head none make a bundle of the encoder alone"
            )
        if continues:
            head_params = {name: params[name] for name in _HEAD_PARAMETERS}
            if dropout is None:
                dropouts = [node for node in graph.nodes if node.name == DROPOUT]
                dropout = decimal(dropouts[0].attrs, "p", 0.5) if dropouts else 0.0
        if continues and options.freeze_encoder and f"{HEAD_TRANSFORM}_weight" in params:
            raise UsageError(
                f"{bundle.prefix}: --freeze-encoder trains one layer, and the trained head has two; train without "
                "--freeze-encoder, or give --new-head for a new head of one layer"
            )
        graph = without_head(graph, keep_transform=continues)
        if output == "sequence" and not options.whole_sequence and not continues:
            output = "cls"
            add_cls_slice(graph, bundle.config.units)
    _check_output(bundle, output, options, head_params is not None)
    variables = set(graph.variables)
    encoder = {name: params[name] for name in params if name in variables}
    rates = rate_multipliers(bundle.prefix, graph, shapes_of(encoder), options)
    dropout = DROPOUT_PROBABILITY if dropout is None else dropout
    return Base(bundle, graph, output, encoder, head_params, dropout, rates)


def _check_output(bundle: Bundle, output: str, options: FinetuneOptions, continues: bool) -> None:
    name = bundle.signature.output_name if not bundle.has_head else f"{output}_output"
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
    if continues and length is not None and options.resolve_max_length(bundle.config.max_length) != length:
        raise UsageError(f"{bundle.prefix}: its head takes texts of {length} tokens only: give --max-length {length}")
