"""Plot the points of `scale.py`: an .svg file for each figure."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("svg")
import matplotlib.pyplot as plt
from job import read_job, write_result
from matplotlib.ticker import LogLocator, StrMethodFormatter

_LOGARITHMIC = ("latency", "throughput", "layers", "graphs")  # figures with logarithmic axes
_DOUBLED = (*_LOGARITHMIC, "batch")  # figures whose x is doubled from point to point


def main() -> None:
    job = read_job()
    matplotlib.rcParams["svg.hashsalt"] = "bertsym"  # equal points give equal files
    for figure, (x, y) in job["figures"].items():
        points = [point for point in job["points"] if point["figure"] == figure]
        if points:
            plot(figure, points, x, y, Path(job["out"]) / f"{figure}.svg")
    write_result(out=job["out"])


def plot(figure: str, points: list[dict[str, Any]], x: str, y: str, path: Path) -> None:
    canvas, axes = plt.subplots(figsize=(5.5, 3.6), layout="constrained")
    curves = list(dict.fromkeys(point["curve"] for point in points))
    if figure == "start":
        axes.barh(curves, [point["y"] for point in points])
        axes.invert_yaxis()
        axes.set_xlabel(y)
    else:
        for curve in curves:
            found = sorted((point["x"], point["y"]) for point in points if point["curve"] == curve)
            axes.plot(*zip(*found), marker="o", markersize=4, label=curve)
        axes.set_xlabel(x)
        axes.set_ylabel(y)
        axes.grid(alpha=0.3)
        if figure in _DOUBLED:
            axes.set_xscale("log")
            ticks = sorted({point["x"] for point in points})
            axes.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
        if figure in _LOGARITHMIC:
            axes.set_yscale("log")
            values = [point["y"] for point in points]
            axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5) if max(values) < 100 * min(values) else (1,)))
            axes.yaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
        else:
            axes.set_ylim(bottom=0)
        axes.minorticks_off()
        if len(curves) > 1:
            axes.legend(frameon=False)
    canvas.savefig(path, metadata={"Date": None})
    plt.close(canvas)


if __name__ == "__main__":
    main()
