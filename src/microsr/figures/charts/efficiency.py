"""Quality against cost: what the arithmetic and the time of each network buy. In: the table of metrics and each model's
run.json.
Out: a figure with a pair of panels a metric, and a table of what each training cost.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from scipy.optimize import isotonic_regression

from microsr.core.errors import UserError
from microsr.core.files import write_csv
from microsr.evaluation.names import method_name
from microsr.evaluation.summary import seed_interval
from microsr.evaluation.tables import read_table
from microsr.figures.charts.metrics import name_metric
from microsr.figures.figure import Record, group_paths
from microsr.figures.style import COLOURS, GREY, PAGE, new_figure, save, styled, tidy_panel

SHOWN = (
    ("distribution", "kernel_distance_tissue_features"),
    ("no_reference", "spectrum_distance"),
    ("no_reference", "consistency_scan_rmse"),
    ("truth", "measured_rmse"),
    ("truth", "psnr"),
    ("truth", "bronchiole_detected"),
)
MARKERS = "os^DvPXd"
COSTS = ["method", "network", "training_set", "seed", "gflop_per_pair", "pairs_per_second", "device", "threads"]
LINE = 0.115
"""Least distance of two names, inches."""


def make_efficiency(table: Path, runs: dict[str, list[Path]], output: Path, costs: Path) -> list[str]:
    """Write the figure and the table of costs (.csv, with COSTS), and return the metrics drawn.

    table: metrics.csv. runs: `method/training_set` -> run.json of each of its trainings. output: path without
    extension.

    Raises
    ------
    UserError
        A file cannot be read or lacks something, or the table has none of the metrics SHOWN for these models.
    """
    found = pd.DataFrame([_cost(name, path) for name, paths in runs.items() for path in paths], columns=COSTS)
    metrics = read_table(table)
    metrics = metrics[[key in SHOWN for key in zip(metrics["protocol"], metrics["metric"], strict=True)]]
    trained = metrics.dropna(subset="value").merge(found, on=["method", "training_set", "seed"])
    if trained.empty:
        raise UserError(f"{table} has none of these metrics for the trained models: {', '.join(m for _, m in SHOWN)}")
    save(draw_efficiency(trained), output)
    write_csv(costs, found, float_format="%.6g")
    return [metric for _, metric in SHOWN if metric in set(trained["metric"])]


def _cost(name: str, path: Path) -> tuple:
    """What run.json says of a training, in the order of COSTS."""
    method, _, training_set = name.partition("/")
    try:
        run = json.loads(path.read_text(encoding="utf-8"))
        speed, settings = run["speed"], run["settings"]
        gflop, pairs = float(run["arithmetic"]["gflop_per_pair"]), float(speed["pairs_per_second"])
        network, seed = settings["train"]["network"], str(settings["seed"])
        return method, network, training_set, seed, gflop, pairs, speed["device"], speed["threads"]
    except (OSError, ValueError, TypeError) as error:
        raise UserError(f"{path} does not say what the training cost ({error}); make it with `microsr train`") from None
    except KeyError as error:
        raise UserError(f"{path} does not say {error} of the training; make it with `microsr train`") from None


@styled
def draw_efficiency(trained: pd.DataFrame) -> Figure:
    """Draw each metric against GFLOP and against seconds a pair of patches, both logarithmic.

    trained: a row for each metric (columns of `evaluation.tables.COLUMNS`) with the cost of its training (COSTS).
    """
    trained = trained.assign(
        model=[f"{m}/{s}" for m, s in zip(trained["method"], trained["training_set"], strict=True)],
        seconds=1 / trained["pairs_per_second"],
    )
    machines = [f"{d}, {n} thread{'s' * (n > 1)}" for d, n in zip(trained["device"], trained["threads"], strict=True)]
    machine = machines[0] if len(set(machines)) == 1 else "on machines that differ"
    costs = {"gflop_per_pair": "GFLOP per pair", "seconds": "s per pair"}
    names = {model: method_name(model) for model in dict.fromkeys(trained["model"])}
    kinds = [kind for kind in SHOWN if ((trained["protocol"] == kind[0]) & (trained["metric"] == kind[1])).any()]

    rows, panel, heading, foot = -(-len(kinds) // 2), max(1.0, LINE * len(names)), 0.42, 0.4
    note = 0.18
    height = rows * (heading + panel + foot) + note
    margin, gap, room = 0.42, 0.1, 0.26 + 0.055 * max(map(len, names.values()))
    width = (PAGE / 2 - margin - gap - room) / 2
    figure = new_figure(PAGE, height)
    for number, (protocol, metric) in enumerate(kinds):
        row, column = divmod(number, 2)
        bottom = height - row * (heading + panel + foot) - heading - panel
        shown = trained[(trained["protocol"] == protocol) & (trained["metric"] == metric)]
        for place, (cost, label) in enumerate(costs.items()):
            left = column * PAGE / 2 + margin + place * (width + gap)
            axes = figure.add_axes((left / PAGE, bottom / height, width / PAGE, panel / height))
            levels = _panel(axes, shown, cost, list(names))
            axes.set_xlabel(label)
            if place == 0:
                name_metric(axes, protocol, metric, shown["unit"].iloc[0], 2 * width)
                axes.yaxis.get_offset_text().set_horizontalalignment("right")  # on the right of it are the words
            else:
                axes.tick_params(axis="y", labelleft=False, length=0)
                axes.yaxis.get_offset_text().set_visible(False)
                _name(axes, levels, names, panel)
            _cost_axis(axes, trained[cost])
    words = f"A pair is a clinical and a uCT patch in one step of the training, all four networks. Time: {machine}."
    figure.text(0.08 / PAGE, 0.06 / height, words, fontsize=6, color=GREY)
    return figure


def _panel(axes: Axes, shown: pd.DataFrame, cost: str, models: list[str]) -> dict[str, float]:
    """Draw each model's trainings, mean and interval; returns the means of those that have one."""
    means, ends = {}, []
    for place, model in enumerate(models):
        own = shown[shown["model"] == model].groupby("seed")[["value", cost]].mean()
        if own.empty:
            continue
        look = _look(place)
        values, x = own["value"].to_numpy(float), float(np.exp(np.log(own[cost]).mean()))
        means[model] = values.mean()
        low, high = seed_interval(values)
        ends += [*values, *(end for end in (low, high) if np.isfinite(end))]
        axes.axhline(means[model], color=look["color"], linewidth=0.5, alpha=0.6, linestyle=(0, (1, 2)), zorder=1)
        axes.plot([x, x], [low, high], color=look["color"], linewidth=0.9, zorder=2)
        axes.plot(own[cost], values, **look | {"markersize": 2.5, "markeredgewidth": 0}, alpha=0.5, zorder=3)
        axes.plot(x, means[model], **look, zorder=4, label=model)
    low, high = min(ends), max(ends)
    pad = 0.08 * (high - low) or 0.05 * abs(high) or 1.0
    axes.set_ylim(low - pad, high + pad)
    tidy_panel(axes)
    return means


def _name(axes: Axes, levels: dict[str, float], names: dict[str, str], panel: float) -> None:
    """Write each model's name to the right of the panels, as near to the height of its mean as the others allow.

    levels: mean of each model that has one. panel: height of the panels, inches.
    """
    low, high = axes.get_ylim()
    order = sorted(levels, key=levels.get)
    steps = LINE * np.arange(len(order))
    wanted = np.array([panel * (levels[model] - low) / (high - low) for model in order])
    # Heights in order, LINE or more apart, and nearest to those wanted.
    heights = np.clip(isotonic_regression(wanted - steps).x, 0, panel - steps[-1]) + steps
    inch = 1 / (axes.get_position().width * PAGE)
    outside = dict(transform=axes.transAxes, clip_on=False)
    for model, start, end in zip(order, wanted / panel, heights / panel, strict=True):
        look = _look(list(names).index(model))
        axes.plot([1, 1 + 0.1 * inch], [start, end], color=look["color"], linewidth=0.5, **outside)
        axes.plot(1 + 0.15 * inch, end, **look, **outside)
        axes.text(1 + 0.22 * inch, end, names[model], va="center_baseline", fontsize=6.5, **outside)


def _look(place: int) -> dict[str, Any]:
    """Colour and mark of a model, so that neither has to be told apart alone."""
    mark = dict(marker=MARKERS[place % len(MARKERS)], markersize=4.8, markeredgecolor="white", markeredgewidth=0.5)
    return mark | {"color": COLOURS[place % len(COLOURS)], "linestyle": "none"}


def _cost_axis(axes: Axes, costs: pd.Series) -> None:
    """A logarithmic axis over all costs, with ticks at 1, 2 and 5 times powers of ten, or where these crowd, at these
    alone.
    """
    low, high = costs.min() / 1.7, costs.max() * 1.7
    decades = 10.0 ** np.arange(np.floor(np.log10(low)), np.ceil(np.log10(high)) + 1)
    ticks = [tick for tick in np.multiply.outer(decades, (1, 2, 5)).ravel() if low <= tick <= high]
    if len(ticks) > 5:
        ticks = [tick for tick in decades if low <= tick <= high]
    axes.set_xscale("log")
    axes.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
    axes.set_xticks([], minor=True)
    axes.set_xlim(low, high)


def arguments(parser: argparse.ArgumentParser) -> None:
    """Flags of `microsr figures efficiency`."""
    parser.add_argument("--table", required=True, type=Path, help="table of `microsr evaluate collect` (.csv)")
    parser.add_argument(
        "--runs",
        required=True,
        nargs="+",
        metavar="NAME=PATH",
        help="run.json of `microsr train`; a name, method/training set, may come once for each seed",
    )
    parser.add_argument(
        "--costs", required=True, type=Path, help="table of what each training cost, to be written (.csv)"
    )


def draw(ns: argparse.Namespace) -> Record:
    """Draw the figure from its command line."""
    runs = group_paths(ns.runs, "runs")
    metrics = make_efficiency(ns.table, runs, ns.output, ns.costs)
    return Record({}, [ns.table, *(path for paths in runs.values() for path in paths)], {"metrics": metrics})
