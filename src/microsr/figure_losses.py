"""The loss curves: one panel a loss, one line a model. In: the histories that training writes. Out: a figure."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import NullFormatter

from microsr.figure_style import COLOURS, WIDTH, method_name, new_figure, save, styled, tidy_panel
from microsr.tables import read_rows

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
    rows = -(-(len(quantities) + 1) // columns)  # the last place is the legend's
    height = 0.3 + 1.4 * rows
    figure = new_figure(WIDTH, height)
    grid = figure.add_gridspec(
        rows, columns, left=0.055, right=0.983, top=1 - 0.22 / height, bottom=0.36 / height, wspace=0.32, hspace=0.5
    )  # fmt: skip
    for number, quantity in enumerate(quantities):
        axes = figure.add_subplot(grid[number // columns, number % columns], title=quantity.replace("_rate", " rate"))
        logged = []
        for model, (name, table) in enumerate(tables.items()):
            if quantity not in table or table[quantity].isna().all():
                continue
            colour = COLOURS[model % len(COLOURS)]
            steps, values = _thinned(table["step"], table[quantity])
            logged.append(values)
            if quantity == "learning_rate":
                axes.plot(steps, values, color=colour, label=method_name(name))
                continue
            axes.plot(steps, values, color=colour, alpha=0.3, linewidth=0.5)
            axes.plot(steps, smoothed(values), color=colour, label=method_name(name))
        everything = np.concatenate(logged)
        if quantity != "learning_rate" and everything.min() > 0 and np.ptp(np.log(everything)) > np.log(LOG_RANGE):
            axes.set_yscale("log")
            axes.yaxis.set_minor_formatter(NullFormatter())  # its labels would run into the next panel
        if quantity == "learning_rate":
            axes.set_ylim(bottom=0)
        tidy_panel(axes)
        if number + columns >= len(quantities):
            axes.set_xlabel("step")
    key = figure.add_subplot(grid[len(quantities) // columns, len(quantities) % columns])
    key.set_axis_off()
    for model, name in enumerate(tables):
        key.plot([], [], color=COLOURS[model % len(COLOURS)], label=method_name(name))
    key.plot([], [], color="#888888", alpha=0.4, linewidth=0.5, label="as logged")
    key.legend(loc="center left", title="mean over 5 %\nof the steps", title_fontsize=6, alignment="left")
    return figure


def smoothed(values: np.ndarray) -> np.ndarray:
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


def _thinned(steps: pd.Series, values: pd.Series) -> tuple[np.ndarray, np.ndarray]:
    known = values.notna().to_numpy()
    x, y = steps.to_numpy(float)[known], values.to_numpy(float)[known]
    bins = np.arange(len(y)) // -(-len(y) // POINTS)
    counts = np.bincount(bins)
    return np.bincount(bins, x) / counts, np.bincount(bins, y) / counts
