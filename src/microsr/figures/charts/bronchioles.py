"""The bronchiole resolution curve: the share of airways that are detected against the diameter of their lumen, for each
method.

In: per method the tables of crossings that `microsr evaluate metrics` writes, of several cases and trainings. Out: a
figure with 95 % bootstrap bands over airways and trainings, and the smallest diameter of which 90 % are detected.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from microsr.core.csv_files import read_columns
from microsr.core.errors import UserError
from microsr.evaluation.bronchioles import COLUMNS, SHARE, detection_curve, interval, resample, smallest_diameter
from microsr.evaluation.names import method_name
from microsr.figures.figure import Record, group_paths
from microsr.figures.style import COLOURS, COLUMN, GREY, LINES, new_figure, save, styled, tidy_panel

DRAWS = 400
POINTS = 200
TICKS_MM = (0.4, 0.5, 0.6, 0.7, 0.8, 1.0, 1.2, 1.5, 2.0, 2.5, 3.0)


def make_bronchioles(tables: dict[str, list[Path]], output: Path) -> dict[str, Any]:
    """Write the figure and return, per method, the smallest diameter with its interval, mm (None: never reached).

    tables: `method/training_set` -> tables of crossings. output: path without extension.

    Raises
    ------
    UserError
        A file is no such table, or none holds a crossing.
    """
    pooled = {name: pd.concat([_read(path) for path in paths], ignore_index=True) for name, paths in tables.items()}
    if not any(len(table) for table in pooled.values()):
        raise UserError(
            f"{', '.join(str(p) for paths in tables.values() for p in paths)}: no airway to judge in any table"
        )
    limits = {name: _limits(table) for name, table in pooled.items()}
    save(draw_bronchioles(pooled, limits), output)
    return {name: [v if np.isfinite(v) else None for v in values] for name, values in limits.items()}


def _read(path: Path) -> pd.DataFrame:
    columns, text = (*COLUMNS, "case", "seed"), {"case": str, "seed": str}
    command = "microsr evaluate metrics --airways"
    table = read_columns(path, columns, "no table of crossings", command, keep_default_na=False, dtype=text)
    return table.assign(unit=[f"{c}/{a}" for c, a in zip(table["case"], table["airway"], strict=True)])


def _limits(table: pd.DataFrame) -> tuple[float, float, float]:
    value = smallest_diameter(table["diameter_mm"].to_numpy(float), table["detected"].to_numpy(float))
    return value, *interval(table, table["unit"].to_numpy(), table["seed"].to_numpy())


@styled
def draw_bronchioles(tables: dict[str, pd.DataFrame], limits: dict[str, tuple[float, float, float]]) -> Figure:
    """Draw the curve of each method with its band, and its smallest diameter with its interval at the level of 90 %.

    tables: diameter_mm, detected, unit, seed. limits: smallest diameter, low and high, mm; NaN where there is none.
    """
    keys = -(-len(tables) // 2)
    below, height = 0.58 + 0.29 * keys, 2.8 + 0.29 * keys
    figure = new_figure(COLUMN, height)
    axes = figure.add_axes((0.125, below / height, 0.79, (height - below - 0.24) / height))
    everything = np.concatenate([table["diameter_mm"].to_numpy(float) for table in tables.values()])
    low, high = everything.min(), everything.max() * 1.001
    grid = np.geomspace(low, high, POINTS)
    axes.axhline(SHARE, color=GREY, linewidth=0.6, linestyle=(0, (4, 3)), zorder=1)
    axes.annotate("90 %", (1, SHARE), xycoords=("axes fraction", "data"), xytext=(3, 0), textcoords="offset points",
                  va="center", fontsize=6, color=GREY)  # fmt: skip
    for place, (name, table) in enumerate(tables.items()):
        colour, line = COLOURS[place % len(COLOURS)], LINES[place % len(LINES)]
        axes.plot([], [], color=colour, linestyle=line, label=_legend(name, limits[name]))
        if table.empty:
            continue
        _curve(axes, table, grid, colour, line)
        _mark(axes, limits[name], high, colour, SHARE + 0.025 * (place - (len(tables) - 1) / 2))
    axes.set_xscale("log")
    ticks = [tick for tick in TICKS_MM if low <= tick <= high]
    axes.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
    axes.set_xticks([], minor=True)
    axes.set_xlim(low, high)
    axes.set_ylim(0, 1.04)
    axes.set_xlabel("lumen diameter (mm)")
    axes.set_ylabel("share of airways detected")
    airways = max(table["unit"].nunique() for table in tables.values())
    axes.set_title(f"Bronchiole resolution, {airways} airways", loc="left", fontweight="bold")
    tidy_panel(axes)
    figure.legend(
        *axes.get_legend_handles_labels(), loc="lower left", bbox_to_anchor=(0.03, 0.01), ncols=2, handlelength=3,
        title="smallest diameter of which 90 % are detected (95 % interval)", title_fontsize=6.5, alignment="left",
        borderaxespad=0, columnspacing=1,
    )  # fmt: skip
    return figure


def _curve(axes: Axes, table: pd.DataFrame, grid: np.ndarray, colour: str, line: Any) -> None:
    diameter, detected = table["diameter_mm"].to_numpy(float), table["detected"].to_numpy(float)
    within = (grid >= diameter.min()) & (grid <= diameter.max())
    draws = []
    for rows in resample(table["unit"].to_numpy(), table["seed"].to_numpy(), DRAWS):
        draws.append(np.interp(grid[within], *detection_curve(diameter[rows], detected[rows])[:2]))
    axes.fill_between(grid[within], *np.quantile(draws, [0.025, 0.975], axis=0), color=colour, alpha=0.18, linewidth=0)
    axes.plot(
        grid[within], np.interp(grid[within], *detection_curve(diameter, detected)[:2]), color=colour, linestyle=line
    )


def _mark(axes: Axes, limits: tuple[float, float, float], end: float, colour: str, level: float) -> None:
    value, low, high = limits
    if np.isfinite(low):
        axes.plot([low, high if np.isfinite(high) else end], [level, level], color=colour, linewidth=1.4, zorder=4)
    if np.isfinite(value):
        axes.plot(
            value, level, "o", color=colour, markersize=4.5, markeredgecolor="white", markeredgewidth=0.6, zorder=5
        )


def _legend(name: str, limits: tuple[float, float, float]) -> str:
    value, low, high = limits
    if not np.isfinite(value):
        return f"{method_name(name)}: never"
    ends = f"{low:.2f} to {high:.2f}" if np.isfinite(high) else f"from {low:.2f}"
    return f"{method_name(name)}: {value:.2f} mm\n({ends})"


def arguments(parser: argparse.ArgumentParser) -> None:
    """Flags of `microsr figures bronchioles`."""
    parser.add_argument(
        "--crossings",
        required=True,
        nargs="+",
        metavar="NAME=PATH",
        help="table (.bronchioles.csv) of `microsr evaluate metrics`; a name may come once for each case and training",
    )


def draw(ns: argparse.Namespace) -> Record:
    """Draw the figure from its command line."""
    tables = group_paths(ns.crossings, "crossings")
    limits = make_bronchioles(tables, ns.output)
    return Record({}, [path for paths in tables.values() for path in paths], {"smallest_bronchiole_mm": limits})
