"""The loss curves: one panel a loss, one line a model. In: the histories that training writes. Out: a figure."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import NullFormatter

from microsr.config import named_paths
from microsr.core.csv_files import read_rows
from microsr.evaluation.names import method_name
from microsr.figures.figure import Record
from microsr.figures.style import COLOURS, LINES, PAGE, SMALLEST_TEXT, TALLEST, new_figure, save, styled, tidy_panel

FACTS = ("step", "epoch", "learning_rate")
NO_LOSS = (*FACTS, "skipped")
POINTS = 1000
"""Most points of a curve that are drawn; longer histories are averaged down to it."""
LOG_RANGE = 50.0
"""A loss that spans more than this factor is drawn on a logarithmic axis."""


def make_losses(histories: dict[str, Path], output: Path) -> list[str]:
    """Write the loss curves of some models and return the losses drawn.

    histories: model (method/training_set) -> history.csv with columns step, epoch, learning_rate and one for each loss.
    output: path without extension.
    """
    tables = {}
    for name, path in histories.items():
        tables[name] = read_rows(path, FACTS, "no training history", "microsr train")
    save(draw_losses(tables), output)
    return _quantities(tables)[:-1]


@styled
def draw_losses(tables: dict[str, pd.DataFrame]) -> Figure:
    """Draw each loss that a model has against the step, smoothed over the values as logged, and the learning rate."""
    quantities = _quantities(tables)
    columns = 4
    rows = -(-len(quantities) // columns)
    names = [method_name(name) for name in tables]
    keys = -(-(len(names) + 1) // columns)
    below = 0.36 + 0.15 * keys
    height = min(0.3 + 1.4 * rows + below, TALLEST)
    figure = new_figure(PAGE, height)
    grid = figure.add_gridspec(
        rows, columns, left=0.055, right=0.983, top=1 - 0.3 / height, bottom=(0.32 + below) / height,
        wspace=0.32, hspace=0.6,
    )  # fmt: skip
    for number, quantity in enumerate(quantities):
        axes = figure.add_subplot(grid[number // columns, number % columns])
        # On the right, at one height: on the left may be a power of ten.
        axes.set_title(quantity.replace("_rate", " rate"), loc="right", y=1.02)
        logged = []
        for model, table in enumerate(tables.values()):
            if quantity not in table or table[quantity].isna().all():
                continue
            steps, values = _thin(table["step"], table[quantity])
            logged.append(values)
            if quantity == "learning_rate":
                axes.plot(steps, values, label=names[model], **_look(model))
                continue
            axes.plot(steps, values, color=_look(model)["color"], alpha=0.3, linewidth=0.5)
            axes.plot(steps, smooth(values), label=names[model], **_look(model))
        everything = np.concatenate(logged)
        if quantity != "learning_rate" and everything.min() > 0 and np.ptp(np.log(everything)) > np.log(LOG_RANGE):
            axes.set_yscale("log")
            axes.yaxis.set_minor_formatter(NullFormatter())  # its labels would run into the next panel
        if quantity == "learning_rate":
            axes.set_ylim(bottom=0)
        tidy_panel(axes)
        if number + columns >= len(quantities):
            axes.set_xlabel("step")
    lines = [Line2D([], [], label=name, **_look(model)) for model, name in enumerate(names)]
    lines.append(Line2D([], [], color="#888888", alpha=0.5, linewidth=0.5, label="as logged"))
    figure.legend(
        handles=lines, loc="lower left", bbox_to_anchor=(0.05, 0.02 / height), ncols=columns, handlelength=3,
        title="mean over 5 % of the steps", title_fontsize=SMALLEST_TEXT, alignment="left", borderaxespad=0,
    )  # fmt: skip
    return figure


def _look(model: int) -> dict[str, Any]:
    return {"color": COLOURS[model % len(COLOURS)], "linestyle": LINES[model % len(LINES)]}


def smooth(values: np.ndarray) -> np.ndarray:
    """Running mean over a centred window of 5 % of the values (an odd number); the window shrinks at the ends."""
    half = len(values) // 40
    series = pd.Series(np.asarray(values, float))
    return series.rolling(2 * half + 1, center=True, min_periods=1).mean().to_numpy()


def _quantities(tables: dict[str, pd.DataFrame]) -> list[str]:
    """The losses that some model has, in the order of the histories; the learning rate last."""
    found: dict[str, None] = {}
    for table in tables.values():
        found |= dict.fromkeys(c for c in table.columns if c not in NO_LOSS and table[c].notna().any())
    return [*found, "learning_rate"]


def _thin(steps: pd.Series, values: pd.Series) -> tuple[np.ndarray, np.ndarray]:
    known = values.notna().to_numpy()
    x, y = steps.to_numpy(float)[known], values.to_numpy(float)[known]
    bins = np.arange(len(y)) // -(-len(y) // POINTS)
    counts = np.bincount(bins)
    return np.bincount(bins, x) / counts, np.bincount(bins, y) / counts


def arguments(parser: argparse.ArgumentParser) -> None:
    """Flags of `microsr figures losses`."""
    parser.add_argument("--history", required=True, nargs="+", metavar="NAME=PATH", help="history.csv of each model")


def draw(ns: argparse.Namespace) -> Record:
    """Draw the figure from its command line."""
    histories = named_paths(ns.history, "history")
    return Record({}, list(histories.values()), {"losses": make_losses(histories, ns.output)})
