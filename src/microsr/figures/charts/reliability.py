"""Whether the spread of draws can be believed: coverage by tissue, the truth's rank among the draws, and how often the
truth is solid where so many draws are.

In: per method the tables of curves that `microsr evaluate uncertainty` writes, of several cases and trainings. Out: a
figure with 95 % intervals of the mean over them, as tables of metrics have them, and the ideal of each panel.
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
from microsr.evaluation.catalogue import find_metric
from microsr.evaluation.names import method_name
from microsr.evaluation.protocols.uncertainty import CURVES, LUNG, POOLED, ideal_coverage, interval_ranks
from microsr.evaluation.summary import centre, interval
from microsr.figures.figure import Record, group_paths
from microsr.figures.style import COLOURS, GREY, LINES, PAGE, new_figure, save, styled, tidy_panel

GROUPS = {LUNG: "all pixels", POOLED: "clinical pixels", "glass": "ground glass"}
"""What groups are called that are not called by their own name."""
MARKERS = ("o", "s", "^", "D")
COVERAGE = find_metric("uncertainty", "coverage_90")


def make_reliability(tables: dict[str, list[Path]], output: Path) -> dict[str, Any]:
    """Write the figure and return the coverage of each group, by method, with its ideal.

    tables: `method/training_set` -> tables of curves. output: path without extension.

    Raises
    ------
    UserError
        A file is no such table.
    """
    pooled = {name: pd.concat([_read(path) for path in paths], ignore_index=True) for name, paths in tables.items()}
    save(draw_reliability(pooled), output)
    found = {}
    for name, table in pooled.items():
        values = {group: centre(grid, COVERAGE) for group, grid in coverage(table).items()}
        found[name] = {group: None if np.isnan(value) else round(value, 4) for group, value in values.items()}
        found[name]["ideal"] = round(ideal_coverage(draws_of(table)), 4)
    return {"coverage_90": found}


def _read(path: Path) -> pd.DataFrame:
    command = "microsr evaluate uncertainty"
    text = {"case": str, "seed": str, "curve": str, "group": str}
    table = read_columns(path, tuple(CURVES), "no table of curves", command, dtype=text, na_values={"share": [""]})
    if set(table["curve"]) != {"rank", "solid"}:
        raise UserError(f"{path}: has curves {', '.join(sorted(set(table['curve'])))}; make it again with `{command}`")
    return table


def draws_of(table: pd.DataFrame) -> int:
    """How many draws the curves are of: as many as the highest rank."""
    return int(table.loc[table["curve"] == "rank", "at"].max())


def coverage(table: pd.DataFrame) -> dict[str, np.ndarray]:
    """Share of the truth in the 90 % interval, by group: [cases, seeds]."""
    low, high = interval_ranks(draws_of(table))
    inside = table[(table["curve"] == "rank") & table["at"].between(low, high)]
    sums = inside.groupby(["group", "case", "seed"], sort=False)["share"].sum(min_count=high - low + 1).reset_index()
    return {group: own.pivot(index="case", columns="seed", values="share").to_numpy(float)
            for group, own in sums.groupby("group", sort=False)}  # fmt: skip


def mean_curve(table: pd.DataFrame, curve: str, group: str) -> pd.DataFrame:
    """Mean over cases and seeds, with the ends of its interval: at, share, low, high, ideal; where there are pixels."""
    own = table[(table["curve"] == curve) & (table["group"] == group)]
    rows = []
    for at, points in own.groupby("at"):
        grid = points.pivot(index="case", columns="seed", values="share").to_numpy(float)
        if np.isfinite(grid).any():
            low, high, _ = interval(grid, COVERAGE)
            rows.append((at, centre(grid, COVERAGE), low, high, points["ideal"].mean()))
    return pd.DataFrame(rows, columns=["at", "share", "low", "high", "ideal"], dtype=float)


@styled
def draw_reliability(tables: dict[str, pd.DataFrame]) -> Figure:
    """Draw coverage by tissue, ranks and the reliability of P(solid) side by side; a colour for each method."""
    keys, labels = 0.2 * -(-len(tables) // 3), 1.02
    height = 2.95 + keys
    figure = new_figure(PAGE, height)
    width, gap = (PAGE - labels - 0.1 - 2 * 0.55) / 3, 0.55
    bottom, tall = (0.45 + keys) / height, 2.02 / height
    panels = [figure.add_axes(((labels + n * (width + gap)) / PAGE, bottom, width / PAGE, tall)) for n in range(3)]
    for place, (name, table) in enumerate(tables.items()):
        colour, line = COLOURS[place % len(COLOURS)], LINES[place % len(LINES)]
        shift = 0.24 * (place - (len(tables) - 1) / 2) / max(1, len(tables) - 1) if len(tables) > 1 else 0.0
        _coverage(panels[0], table, colour, MARKERS[place % len(MARKERS)], shift)
        number = draws_of(table)
        words = f"{method_name(name)}, {number} draws"
        _curve(panels[1], mean_curve(table, "rank", LUNG), colour, line, words, number + 1)
        _curve(panels[2], mean_curve(table, "solid", LUNG), colour, line)
    cases, seeds = (max(table[key].nunique() for table in tables.values()) for key in ("case", "seed"))
    of = f"{cases} lung{'s' * (cases > 1)}" + (f", {seeds} trainings" if seeds > 1 else ", one training")
    _finish(panels, tables)
    figure.text(0.1 / PAGE, 1 - 0.07 / height, f"Can the spread of the draws be believed? ({of})",
                fontsize=8, fontweight="bold", va="top")  # fmt: skip
    figure.legend(*panels[1].get_legend_handles_labels(), loc="lower left", ncols=3, handlelength=3, borderaxespad=0.2)
    return figure


def _coverage(axes: Axes, table: pd.DataFrame, colour: str, marker: str, shift: float) -> None:
    axes.axvline(ideal_coverage(draws_of(table)), color=GREY, linewidth=0.8, linestyle=(0, (4, 3)), zorder=1)
    for place, grid in enumerate(coverage(table).values()):
        low, high, _ = interval(grid, COVERAGE)
        axes.plot([low, high], [place + shift] * 2, color=colour, linewidth=1.2, zorder=2)
        axes.plot(centre(grid, COVERAGE), place + shift, marker, color=colour, markersize=4, zorder=3)


def _curve(
    axes: Axes, curve: pd.DataFrame, colour: str, line: Any, label: str | None = None, times: float = 1.0
) -> None:
    axes.fill_between(curve["at"], times * curve["low"], times * curve["high"], color=colour, alpha=0.2, linewidth=0)
    axes.plot(
        curve["at"], times * curve["share"], color=colour, linestyle=line, marker="o", markersize=2.5, label=label
    )


def _finish(panels: list[Axes], tables: dict[str, pd.DataFrame]) -> None:
    """Axes, titles and ideals."""
    first = next(iter(tables.values()))
    groups = list(coverage(first))
    panels[0].set_yticks(range(len(groups)), [GROUPS.get(group, group) for group in groups])
    panels[0].set_ylim(len(groups) - 0.4, -0.6)
    panels[0].set_xlim(0, 1)
    panels[0].set_xlabel("share of the truth in the 90 % interval")
    panels[0].set_title("Coverage", loc="left")
    panels[1].axhline(1, color=GREY, linewidth=0.8, linestyle=(0, (4, 3)), zorder=1)
    panels[1].set_ylim(0, max(2.0, panels[1].get_ylim()[1]))
    panels[1].set_xlabel("draws below the truth")
    panels[1].set_ylabel("pixels, times the ideal")
    panels[1].set_title("Ranks", loc="left")
    ideal = mean_curve(first, "solid", LUNG)
    panels[2].plot(ideal["at"], ideal["ideal"], color=GREY, linewidth=0.8, linestyle=(0, (4, 3)), zorder=1)
    panels[2].set_xlim(-0.02, 1.02)
    panels[2].set_ylim(-0.02, 1.02)
    panels[2].set_xlabel("solid share of the other draws")
    panels[2].set_ylabel("solid share of the truth")
    panels[2].set_title("P(solid)", loc="left")
    tidy_panel(panels[0], "x")
    for axes in panels[1:]:
        tidy_panel(axes)


def arguments(parser: argparse.ArgumentParser) -> None:
    """Flags of `microsr figures reliability`."""
    parser.add_argument(
        "--curves",
        required=True,
        nargs="+",
        metavar="NAME=PATH",
        help="table (.curves.csv) of `microsr evaluate uncertainty`; a name may come once for each case and training",
    )


def draw(ns: argparse.Namespace) -> Record:
    """Draw the figure from its command line."""
    tables = group_paths(ns.curves, "curves")
    return Record({}, [path for paths in tables.values() for path in paths], make_reliability(tables, ns.output))
