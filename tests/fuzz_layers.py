"""Which layer of bertsym an input reached, by the innermost function in the traceback of the error."""

from __future__ import annotations

import collections
from collections.abc import Iterable

from command_runner import Run

COMPUTED = "computed"
#: Prefixes of ``module:function``, without ``bertsym.``, and their layers; the first that fits counts. Helpers that
#: serve several layers are not listed: then the function that called them counts.
LAYERS = (
    ("bundle.contents:_read_manifest", "manifest"),
    ("bundle.contents:_check", "manifest"),
    ("bundle.consistency", "bundle consistency"),
    ("bundle.opening", "bundle consistency"),
    ("bundle", "files and JSON"),
    ("signature:of_type", ""),
    ("signature", "signature"),
    ("file_reader", "files and JSON"),
    ("json_reader", ""),
    ("text.vocabulary", "vocabulary"),
    ("text.tables", "table"),
    ("text.features", "table"),
    ("text", "tokenizer"),
    ("sources.hugging_face_tokenizer", "tokenizer"),
    ("sources.added_tokens", "tokenizer"),
    ("symbol.params", "params"),
    ("symbol", "graph validation"),
    ("analysis", "graph validation"),
    ("execution.sandbox", "sandbox"),
    ("execution", "MXNet"),
    ("mxnet_runtime", "MXNet"),
    ("inference.mxnet_predictor", "MXNet"),
    ("inference.executors", "MXNet"),
    ("acceleration", "MXNet"),
    ("inference.classifier", "signature"),
    ("inference", "inference"),
    ("encoders.config", "config"),
    ("address_space", "MXNet"),
    ("sources", "source"),
    ("verifier", "verification"),
    ("training", "training"),
    ("quantization", "quantization"),
    ("surgery", "surgery"),
    ("onnx_export", "ONNX"),
    ("cli", "command line"),
)


def layer_of(run: Run) -> str:
    """The layer in which a command ended."""
    if run.code == 0:
        return COMPUTED
    for function in run.origin:
        name = function.removeprefix("bertsym.")
        layer = next((layer for start, layer in LAYERS if name.startswith(start)), name.partition(":")[0])
        if layer:
            return layer
    return "command line"


def counts_table(ends: Iterable[tuple[str, str]]) -> str:
    """A table of counts: a line for each layer, a column for each kind of input."""
    counts = collections.Counter(ends)
    kinds = sorted({kind for kind, _ in counts})
    totals = collections.Counter(layer for _, layer in counts.elements())
    rows = [("reached", *kinds, "all")]
    rows += [
        (layer, *(str(counts[kind, layer]) for kind in kinds), str(total)) for layer, total in totals.most_common()
    ]
    rows.append(
        ("all", *(str(sum(counts[kind, layer] for layer in totals)) for kind in kinds), str(sum(totals.values())))
    )
    widths = [max(map(len, column)) for column in zip(*rows)]
    return "\n".join("  ".join(cell.rjust(width) for cell, width in zip(row, widths)) for row in rows)
