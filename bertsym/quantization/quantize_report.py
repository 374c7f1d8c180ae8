"""The report of a quantization: the int8 model against the float32 model, and which layers are int8."""

from __future__ import annotations

from collections.abc import Mapping

from bertsym.bundle import Bundle
from bertsym.inference.engine_predictor import predictor_settings
from bertsym.quantization.measurement import Measured
from bertsym.reports.blocks import Cell, Report, Section, Table
from bertsym.reports.comparison import comparison_report
from bertsym.reports.data import LeftOutRows
from bertsym.reports.evaluation import EvaluatedModel
from bertsym.reports.paired import compare_evaluated
from bertsym.tasks.task import Examples, Task

NAMES = "float32", "int8"


def quantize_report(
    bundles: tuple[Bundle, Bundle],
    measured: tuple[Measured, Measured],
    task: Task,
    examples: Examples,
    left_out: LeftOutRows,
    layers: Mapping[str, str],
    with_texts: bool,
) -> Report:
    """Build the report of the float32 bundle and the int8 bundle; `layers` are FullyConnecteds and their precisions."""
    settings = predictor_settings(engine="mxnet")
    models = [
        EvaluatedModel(bundle, task, examples, each.outputs, each.metrics, left_out, settings)
        for bundle, each in zip(bundles, measured)
    ]
    comparison = compare_evaluated(models[0], models[1], NAMES, with_texts)
    speeds, sizes = [each.rows_per_second for each in measured], [each.params_bytes / 1e6 for each in measured]
    rows: list[tuple[Cell, ...]] = [
        ("rows per second", *(f"{speed:.1f}" for speed in speeds), f"{speeds[1] / speeds[0]:.2f}x"),
        ("ms per row", *(f"{1e3 / speed:.3f}" for speed in speeds), f"{speeds[0] / speeds[1]:.2f}x"),
        ("parameters, MB", *(f"{size:.1f}" for size in sizes), f"{sizes[1] / sizes[0]:.2f}x"),
    ]
    int8 = sum(precision == "int8" for precision in layers.values())
    layers_title = f"Layers: {int8} of {len(layers)} in int8"
    extra = Section(
        "Speed and size",
        [
            Table("Measurements", ("", *NAMES, "int8 / float32"), rows, note="On this machine, all rows in batches."),
            Table(layers_title, ("FullyConnected", "precision"), list(layers.items()), is_folded=True),
        ],
    )
    facts: dict[str, Cell] = {
        "speed": f"{speeds[1] / speeds[0]:.2f}x of float32",
        "parameters": f"{sizes[1]:.1f} MB, float32 {sizes[0]:.1f} MB",
    }
    return comparison_report(comparison, f"bertsym quantize: {bundles[1].prefix.name}", with_texts, [extra], facts)
