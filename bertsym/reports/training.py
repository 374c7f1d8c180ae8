"""The report of a fine-tuning run: its curves, which epoch was kept, its seeds, and how good the model is."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta

import numpy as np

from bertsym.events import DevEvaluated, Event, Resumed, SeedStarted, StepDone
from bertsym.reports.blocks import Block, Cell, Facts, Figure, Lines, Report, Section, Table, Text
from bertsym.reports.data import data_section, truncation_fact, truncation_warnings
from bertsym.reports.evaluation import EvaluatedModel, error_sections, headline, metric_name, repeat_settings
from bertsym.reports.model import model_section, repeat_section
from bertsym.tasks.task import Examples

_MOST_POINTS = 1000
_CURVES = ("loss", "learning_rate", "gradient_norm", "samples_per_second")


@dataclass
class Run:
    """The curves of a run with one seed: at most 1,000 points, each the mean of as many steps."""

    seed: int | None = None
    resumed_after: int = 0  #: steps of earlier processes, which are not in the curves
    steps: list[int] = field(default_factory=list)  #: the last step of each point
    values: list[list[float]] = field(default_factory=list)  #: of each point, in the order of _CURVES
    evaluations: list[DevEvaluated] = field(default_factory=list)
    seconds: float = 0.0
    _size: int = 1  # steps of a point
    _sums: list[float] = field(default_factory=lambda: [0.0] * len(_CURVES))
    _count: int = 0

    def add(self, step: StepDone) -> None:
        """Add a step."""
        self.seconds += step.span.seconds
        for i, name in enumerate(_CURVES):
            self._sums[i] += getattr(step, name)
        self._count += 1
        if self._count == self._size:
            self.steps.append(step.step)
            self.values.append([each / self._size for each in self._sums])
            self._sums, self._count = [0.0] * len(_CURVES), 0
        if len(self.steps) == 2 * _MOST_POINTS:
            self.steps = self.steps[1::2]
            self.values = [list(np.mean(pair, axis=0)) for pair in zip(self.values[::2], self.values[1::2])]
            self._size *= 2

    def curve(self, name: str) -> tuple[Sequence[float], Sequence[float]]:
        """Return steps and values of a curve."""
        place = _CURVES.index(name)
        return [float(step) for step in self.steps], [values[place] for values in self.values]


class TrainingCurves:
    """A listener that keeps the curves of each run."""

    def __init__(self) -> None:
        self.runs = [Run()]

    def __call__(self, event: Event) -> None:
        """Add the event to the curves, if it belongs there."""
        if isinstance(event, SeedStarted):
            if event.number > 1:
                self.runs.append(Run())
            self.runs[-1].seed = event.seed
        elif isinstance(event, Resumed):
            self.runs[-1].resumed_after = event.step
        elif isinstance(event, StepDone):
            self.runs[-1].add(event)
        elif isinstance(event, DevEvaluated):
            self.runs[-1].evaluations.append(event)


@dataclass(frozen=True)
class Trained:
    """A finished run: what it kept, on which data, and its curves."""

    model: EvaluatedModel  #: the written bundle, with its outputs for the dev file
    train: Examples
    epoch: int  #: that was kept
    epochs: int
    step: int
    seed: int
    seeds: Mapping[int, Mapping[str, float]]  #: of several seeds, the dev metrics of each
    curves: TrainingCurves

    @property
    def run(self) -> Run:
        """The curves of the seed that was kept."""
        return next((run for run in self.curves.runs if run.seed == self.seed), self.curves.runs[0])


def training_report(found: Trained, with_texts: bool) -> Report:
    """Build the report of a fine-tuning run."""
    model = found.model
    assessment = model.assess(with_texts)
    intervals = {name: rows.interval() for name, rows in assessment.metrics.items()}
    chooser = model.bundle.manifest["training"]["options"]["metric"] or next(iter(model.metrics))
    kept = f"epoch {found.epoch} of {found.epochs}, step {found.step}"
    facts: dict[str, Cell] = {"kept": f"{kept}, by {metric_name(chooser, model.task)} on {model.examples.name}"}
    if found.seeds:
        first, interval = next(iter(intervals.items()))
        values = [metrics[first] for metrics in found.seeds.values()]
        digits = interval.decimals + 1
        spread = f"{metric_name(first, model.task)} {np.mean(values):.{digits}f} ± {np.std(values, ddof=1):.{digits}f}"
        facts[f"{len(values)} seeds"] = (
            f"{spread} (mean and standard deviation of the best epoch of each seed); seed {found.seed} is kept"
        )
    name = model.bundle.prefix.name
    signature = model.bundle.signature
    files = {"train": found.train, "dev": model.examples}
    facts["truncated"] = "; ".join(f"{name}: {truncation_fact(each)}" for name, each in files.items())
    facts["rows left out"] = "; ".join(f"{name}: {each.left_out or 'none'}" for name, each in files.items())
    sections = [
        Section("Training", list(_curves(found))),
        *error_sections(assessment, model, intervals),
        data_section(model.task, files, signature.max_length, model.left_out, with_texts),
        model_section(model.bundle),
        repeat_section({"seed": found.seed, **repeat_settings([model])}),
    ]
    answer = headline(model, assessment, intervals, f"{name} reaches", facts)
    warnings = [
        *_selection_warnings(found),
        *(text for each in files.values() for text in truncation_warnings(each, signature.max_length, "the model")),
    ]
    return Report(f"bertsym finetune: {name}", dataclasses.replace(answer, warnings=warnings), sections)


def _selection_warnings(found: Trained) -> list[str]:
    """Warn that the dev file chose what is kept, unless there was nothing to choose from."""
    training = found.model.bundle.manifest["training"]
    chosen = [
        *(["seed"] if found.seeds else []),
        *(["epoch"] if len(training["evaluations"]) > 1 else []),
        *(["thresholds"] if "tuned_metrics" in training else []),
    ]
    if not chosen:
        return []
    return [
        f"{found.model.examples.name} chose the {' and the '.join(chosen)}: its metrics are optimistic. "
        "Evaluate the model on rows that the training did not read."
    ]


def _curves(found: Trained) -> list[Block]:
    run = found.run
    blocks: list[Block] = []
    if run.resumed_after:
        blocks.append(Text(f"The run was resumed after step {run.resumed_after}: the curves begin there."))
    if run.steps:
        blocks += _figures(found, run)
        speeds = [each for each in run.curve("samples_per_second")[1] if math.isfinite(each)]
        blocks.append(
            Facts(
                {
                    "training time": str(timedelta(seconds=round(run.seconds))),
                    "samples per second": f"{np.median(speeds):.1f}" if speeds else None,
                    "batch": found.model.bundle.manifest["training"]["options"]["batch_size"],
                    "seed": found.seed,
                }
            )
        )
    evaluations = run.evaluations
    names = list(evaluations[0].metrics) if evaluations else []
    rows = [
        (each.epoch, each.step, each.loss, *each.metrics.values(), "yes" if each.step == found.step else None)
        for each in evaluations
    ]
    columns = ("epoch", "step", "train loss", *(f"dev {metric_name(name, found.model.task)}" for name in names), "kept")
    blocks.append(Table("Evaluations", columns, rows))
    if found.seeds:
        names = list(next(iter(found.seeds.values())))
        cells: list[Sequence[Cell]] = [
            (str(seed), *metrics.values(), "yes" if seed == found.seed else None)
            for seed, metrics in found.seeds.items()
        ]
        values = np.array([list(metrics.values()) for metrics in found.seeds.values()])
        cells.append(("mean", *values.mean(axis=0).tolist(), None))
        cells.append(("standard deviation", *values.std(axis=0, ddof=1).tolist(), None))
        blocks.append(Table("Seeds", ("seed", *(metric_name(name, found.model.task) for name in names), "kept"), cells))
    return blocks


def _figures(found: Trained, run: Run) -> list[Block]:
    kept = float(found.step)
    each_of = f"each point is the mean of {run.steps[0] - run.resumed_after:,} steps"
    caption = each_of if run.steps[0] - run.resumed_after > 1 else ""
    losses = {"train": run.curve("loss")}
    steps = [float(each.step) for each in run.evaluations]
    losses["dev"] = (steps, [each.metrics["loss"] for each in run.evaluations])
    figures: list[Block] = [
        Figure("loss", "Loss", Lines("step", "loss", losses, ("dev",), kept, "kept"), caption.capitalize())
    ]
    first = next(iter(run.evaluations[0].metrics)) if run.evaluations else "loss"
    metrics: dict[str, tuple[Sequence[float], Sequence[float]]] = {}
    for other in found.curves.runs:
        name = "dev" if other.seed is None else f"seed {other.seed}"
        metrics[name] = (
            [float(each.step) for each in other.evaluations],
            [each.metrics[first] for each in other.evaluations],
        )
    label = metric_name(first, found.model.task)
    plot = Lines("step", f"dev {label}", metrics, tuple(metrics), kept, "kept")
    figures.append(Figure("metric", f"{label[0].upper()}{label[1:]} on the dev file", plot))
    for curve, title in (
        ("learning_rate", "Learning rate"),
        ("gradient_norm", "Gradient norm"),
        ("samples_per_second", "Speed"),
    ):
        unit = {"samples_per_second": "samples per second"}.get(curve, title.lower())
        figures.append(Figure(curve.replace("_", "-"), title, Lines("step", unit, {unit: run.curve(curve)})))
    return figures
