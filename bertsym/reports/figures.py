"""Draw figures by matplotlib, as PNG and SVG files and as SVG elements of a page in the colours of its scheme."""

from __future__ import annotations

import importlib.util
import io
import re
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from bertsym.errors import InstallationError
from bertsym.reports.blocks import (
    MOST_LABELS,
    Bars,
    Figure,
    Heatmap,
    Histogram,
    Intervals,
    Lines,
    Plot,
    Reliability,
    Scatter,
)
from bertsym.web_page import PALETTE, visible

#: colours of figures, light and dark, by the names of their CSS variables
COLOURS = {
    "plot-1": ("#1d5fbf", "#7fb2ff"),
    "plot-2": ("#c2571a", "#f0a36b"),
    "plot-3": ("#2a7f62", "#6fcfae"),
    "plot-4": ("#8a4fb0", "#c79be6"),
    "plot-weak": ("#b9c9e2", "#33486a"),
}
_LIGHT = {name: colours[0] for name, colours in {**COLOURS, **PALETTE}.items()}
_SERIES = [_LIGHT[f"plot-{i}"] for i in range(1, 5)]
_WIDTH, _HEIGHT = 5.2, 3.3  # inches
_DPI = 160


def require_matplotlib() -> None:
    """Raise InstallationError, which says how to install it, where matplotlib is missing."""
    if importlib.util.find_spec("matplotlib") is None:
        raise InstallationError("a report needs matplotlib, which is not installed: pip install 'bertsym[report]'")


def draw_figure(figure: Figure) -> tuple[bytes, bytes]:
    """Draw a figure as an SVG file and as a PNG file."""
    import matplotlib

    with matplotlib.rc_context(_style()):
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure as Canvas

        plot = figure.plot
        height = 1 + 0.4 * len(plot.labels) if isinstance(plot, Intervals) else _HEIGHT
        canvas = Canvas(figsize=(_WIDTH, height), layout="constrained")
        FigureCanvasAgg(canvas)
        _DRAWERS[type(plot)](canvas, plot)
        svg, png = io.BytesIO(), io.BytesIO()
        # Without a date, so that equal numbers give equal files.
        canvas.savefig(svg, format="svg", metadata={"Date": None, "Creator": "bertsym"})
        canvas.set_layout_engine(None)  # the second file has the layout of the first, which takes a third of the time
        canvas.savefig(png, format="png", dpi=_DPI, metadata={"Software": "bertsym"})
    return svg.getvalue(), png.getvalue()


def svg_element(file: bytes, name: str, title: str) -> str:
    """Return the element of an SVG file for a page: colours as variables, ids unique by the name of the figure."""
    svg = file.decode()
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>\s*", "", svg, flags=re.DOTALL)
    svg = re.sub(r"<defs>\s*<style[^>]*>\*\{([^}]*)\}</style>\s*</defs>", "", svg)
    svg = re.sub(r'\bid="', f'id="{name}-', svg)
    svg = re.sub(r'xlink:href="#', f'href="#{name}-', svg)
    svg = re.sub(r"url\(#", f"url(#{name}-", svg)
    for variable, colour in _LIGHT.items():
        svg = svg.replace(colour, f"var(--{variable})")
    svg = re.sub(r' xmlns:xlink="[^"]*"', "", svg)
    return svg.replace("<svg ", f'<svg role="img" aria-label="{_attribute(title)}" ', 1).strip()


def _attribute(text: str) -> str:
    return text.replace("&", "&amp;").replace('"', "&quot;").replace("<", "&lt;")


def _style() -> dict[str, Any]:
    ink, muted, rule = _LIGHT["ink"], _LIGHT["muted"], _LIGHT["rule"]
    return {
        "svg.fonttype": "none",
        "svg.hashsalt": "bertsym",
        # Several fonts, as the texts may be in any script.
        "font.family": ["DejaVu Sans"],
        "font.size": 9.5,
        "text.color": ink,
        "text.parse_math": False,
        "axes.labelcolor": muted,
        "axes.edgecolor": rule,
        "axes.facecolor": "none",
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.grid": True,
        "axes.axisbelow": True,
        "grid.color": rule,
        "grid.linewidth": 0.6,
        "xtick.color": muted,
        "ytick.color": muted,
        "figure.facecolor": _LIGHT["raised"],
        "savefig.facecolor": _LIGHT["raised"],
        "legend.frameon": False,
        "legend.labelcolor": ink,
        "lines.linewidth": 1.8,
    }


def _label(text: str, most: int = 22) -> str:
    return visible(text, most)


def _draw_lines(canvas: Any, plot: Lines) -> None:
    axes = canvas.subplots()
    for number, (name, (x, y)) in enumerate(plot.lines.items()):
        points = name in plot.dotted or len(x) == 1
        axes.plot(x, y, color=_SERIES[number % 4], label=_label(name), marker="o" if points else "", markersize=5)
    if plot.marked is not None:
        axes.axvline(plot.marked, color=_LIGHT["muted"], linestyle="--", linewidth=1, label=plot.mark_label)
    axes.set(xlabel=plot.x_label, ylabel=plot.y_label)
    axes.xaxis.get_major_locator().set_params(integer=True)
    if len(plot.lines) > 1 or plot.marked is not None:
        axes.legend()


def _draw_bars(canvas: Any, plot: Bars) -> None:
    axes = canvas.subplots()
    labels = plot.labels[:MOST_LABELS]
    width = 0.8 / len(plot.series)
    places = np.arange(len(labels))
    for number, (name, values) in enumerate(plot.series.items()):
        shift = (number - (len(plot.series) - 1) / 2) * width
        axes.bar(places + shift, values[:MOST_LABELS], width * 0.94, color=_SERIES[number % 4], label=_label(name, 30))
    if plot.is_logarithmic:
        # Plain numbers: texts are not parsed as formulas, because labels may have a $.
        axes.set_yscale("log")
        axes.yaxis.set_major_formatter(lambda value, _: f"{value:.0e}")
    if plot.limit is not None:
        axes.axhline(plot.limit, color=_LIGHT["muted"], linestyle="--", linewidth=1, label=plot.limit_label)
    crowded = len(labels) > 6 or max(map(len, labels), default=0) > 10
    axes.set_xticks(places, [_label(each) for each in labels], rotation=40 if crowded else 0)
    if crowded:
        for text in axes.get_xticklabels():
            text.set(ha="right", rotation_mode="anchor")
    axes.set_ylabel(plot.y_label)
    axes.grid(axis="x", visible=False)
    if len(plot.series) > 1 or plot.limit is not None:
        _legend_above(axes)


def _draw_histogram(canvas: Any, plot: Histogram) -> None:
    axes = canvas.subplots()
    for number, (name, counts) in enumerate(plot.series.items()):
        total = max(1, sum(counts))
        share = [100 * count / total for count in counts]
        axes.stairs(share, plot.edges, fill=number == 0, alpha=0.35 if number == 0 else 1, color=_SERIES[number % 4])
        axes.stairs(share, plot.edges, color=_SERIES[number % 4], linewidth=1.6, label=_label(name, 30))
    if plot.limit is not None:
        axes.axvline(plot.limit, color=_LIGHT["muted"], linestyle="--", linewidth=1, label=plot.limit_label)
    axes.set(xlabel=plot.x_label, ylabel=plot.y_label)
    if all((2 * edge) % 2 == 1 for edge in plot.edges):  # integers in the centres of their bins
        axes.xaxis.get_major_locator().set_params(integer=True)
    axes.grid(axis="x", visible=False)
    if len(plot.series) > 1 or plot.limit is not None:
        _legend_above(axes)


def _legend_above(axes: Any) -> None:
    axes.legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=2)


def _draw_scatter(canvas: Any, plot: Scatter) -> None:
    axes = canvas.subplots()
    axes.scatter(plot.x, plot.y, s=14, color=_SERIES[0], alpha=0.55, linewidths=0)
    ends = [min([*plot.x, *plot.y]), max([*plot.x, *plot.y])]
    axes.plot(ends, ends, color=_LIGHT["muted"], linestyle="--", linewidth=1, label="predicted = correct")
    axes.set(xlabel=plot.x_label, ylabel=plot.y_label)
    axes.legend()


def _draw_heatmap(canvas: Any, plot: Heatmap) -> None:
    axes = canvas.subplots()
    counts = np.asarray(plot.counts, np.float64)
    shares = counts / np.maximum(1, counts.sum(axis=1, keepdims=True))
    size = len(plot.labels)
    labels = [_label(each, 16) for each in plot.labels]
    axes.set(xlim=(-0.5, size - 0.5), ylim=(size - 0.5, -0.5), xlabel=plot.x_label, ylabel=plot.y_label)
    for i in range(size):
        for j in range(size):
            colour = _SERIES[0] if i == j else _SERIES[1]
            axes.add_patch(_square(i, j, colour, float(shares[i, j])))
            if size <= 12:
                axes.text(j, i, f"{int(counts[i, j]):,}", ha="center", va="center", color=_LIGHT["ink"])
    crowded = size * max(map(len, labels)) > 45
    if size <= MOST_LABELS:
        axes.set_xticks(range(size), labels, rotation=40 if crowded else 0)
        axes.set_yticks(range(size), labels)
        if crowded:
            for text in axes.get_xticklabels():
                text.set(ha="right", rotation_mode="anchor")
    axes.grid(visible=False)
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)


def _square(row: int, column: int, colour: str, share: float) -> Any:
    from matplotlib.patches import Rectangle

    place = (column - 0.48, row - 0.48)
    return Rectangle(place, 0.96, 0.96, facecolor=colour, alpha=0.06 + 0.6 * share, linewidth=0)


def _draw_reliability(canvas: Any, plot: Reliability) -> None:
    axes, below = canvas.subplots(2, 1, sharex=True, height_ratios=[3, 1])
    bins = len(plot.counts)
    edges = np.linspace(0, 1, bins + 1)
    used = [i for i, count in enumerate(plot.counts) if count]
    axes.plot([0, 1], [0, 1], color=_LIGHT["muted"], linestyle="--", linewidth=1, label="perfectly calibrated")
    confidence, accuracy = ([values[i] for i in used] for values in (plot.confidence, plot.accuracy))
    axes.plot(confidence, accuracy, color=_SERIES[0], marker="o", markersize=5, label="this model")
    axes.set(xlim=(0, 1), ylim=(0, 1.02), ylabel="accuracy")
    _legend_above(axes)
    below.stairs(plot.counts, edges, fill=True, color=_LIGHT["plot-weak"])
    below.set(xlabel="confidence", ylabel="predictions")


def _draw_intervals(canvas: Any, plot: Intervals) -> None:
    axes = canvas.subplots()
    places = np.arange(len(plot.labels))
    errors = [
        [value - low for value, low in zip(plot.values, plot.lows)],
        [high - value for value, high in zip(plot.values, plot.highs)],
    ]
    axes.axvline(0, color=_LIGHT["muted"], linestyle="--", linewidth=1)
    axes.errorbar(plot.values, places, xerr=errors, fmt="o", color=_SERIES[0], capsize=4)
    axes.set_yticks(places, [_label(each, 30) for each in plot.labels])
    axes.set(ylim=(len(places) - 0.4, -0.6), xlabel=plot.x_label)
    axes.grid(axis="y", visible=False)


_DRAWERS: Mapping[type[Plot], Callable[[Any, Any], None]] = {
    Lines: _draw_lines,
    Bars: _draw_bars,
    Histogram: _draw_histogram,
    Scatter: _draw_scatter,
    Heatmap: _draw_heatmap,
    Reliability: _draw_reliability,
    Intervals: _draw_intervals,
}
