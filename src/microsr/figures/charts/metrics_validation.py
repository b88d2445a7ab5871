"""What each metric makes of images whose faults are known, as a matrix: rows are metrics, columns images.

In: the table of `microsr evaluate validate`. Out: a figure.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from microsr.core.csv_files import read_rows
from microsr.evaluation.catalogue import CANDIDATES, METRICS, find_protocol
from microsr.figures.figure import Record
from microsr.figures.style import COLOURS, PAGE, new_figure, save, styled

COLUMNS = ("lung", "candidate", "protocol", "metric", "value", "loss", "verdict")
HEADS = {
    "blurred": "blurred", "shifted": "shifted", "other_lung": "another\nlung", "linear": "linear\nestimate",
    "nearest": "nearest", "noise_texture": "noise for\ntexture", "checkerboard": "checker-\nboard",
    "planted_airways": "airways\nplanted", "removed_airways": "airways\nremoved",
    "planted_nodules": "nodules\nplanted", "removed_nodules": "solids\nremoved",
}  # fmt: skip
"""The candidates in few words."""
GOOD, DARK = "as good", 0.55
"""The word in a cell of an image that a metric takes for as good as the truth; from which loss on letters are white."""
SHADES = colormaps["Blues"]
FRAME = COLOURS[1]
UNITS = {"1": "", "count": "", "um": ", µm"}
NAME, ROW, HEAD, CELL = 2.16, 0.176, 0.42, 0.45
"""Widths and heights in inches: the column of names, a row, the head, a cell."""


def make_metrics_validation(table: Path, output: Path) -> int:
    """Write the figure of metrics_validation.csv and return the number of metrics in it. output: path without
    extension.
    """
    made_by = "microsr evaluate validate"
    found = read_rows(table, COLUMNS, "no validation of the metrics", made_by, dtype={"lung": str})
    figure = draw_metrics_validation(found)
    save(figure, output)
    return len(_choose_shown(found))


def _choose_shown(table: pd.DataFrame) -> list[tuple[str, str, str]]:
    """Protocol, key and name of the metrics that have a row: those of the catalogue that are measured, no family."""
    there = set(zip(table["protocol"], table["metric"], strict=True))
    shown = [metric for metric in METRICS if (metric.protocol, metric.key) in there]
    return [(metric.protocol, metric.key, metric.name + UNITS.get(metric.unit, f", {metric.unit}")) for metric in shown]


@styled
def draw_metrics_validation(table: pd.DataFrame) -> Figure:
    """Draw each metric's loss of each image, mean over the lungs, with the mean of its values as text."""
    rows, columns = _choose_shown(table), [name for name in CANDIDATES if name in set(table["candidate"])]
    groups = list(dict.fromkeys(protocol for protocol, *_ in rows))
    height = HEAD + ROW * (len(rows) + len(groups)) + 0.3
    figure = new_figure(PAGE, height)
    axes = figure.add_axes((0, 0, 1, 1), xlim=(0, PAGE), ylim=(0, height))
    axes.set_axis_off()
    width = min(CELL, (PAGE - NAME - CELL - 0.05) / len(columns))
    lefts = {name: NAME + CELL + width * place for place, name in enumerate(columns)}
    axes.text(NAME + CELL / 2, height - HEAD / 2, "truth", ha="center", va="center", fontsize=6, fontweight="bold")
    for name, left in lefts.items():
        axes.text(left + width / 2, height - HEAD / 2, HEADS[name], ha="center", va="center", fontsize=6)
    means = table.groupby(["protocol", "metric", "candidate"])
    values, losses = means["value"].mean(), means["loss"].mean()
    good = means["verdict"].agg(lambda verdicts: bool((verdicts == GOOD).all()))
    y = height - HEAD
    for protocol in groups:
        y -= ROW
        axes.text(0.05, y + ROW / 2, find_protocol(protocol).title, va="center", fontsize=6.5, fontweight="bold")
        for _, key, title in (row for row in rows if row[0] == protocol):
            y -= ROW
            axes.text(0.05, y + ROW / 2, title, va="center", fontsize=6)
            truth = _number(values.get((protocol, key, "truth"), np.nan))
            axes.text(NAME + CELL / 2, y + ROW / 2, truth, ha="center", va="center", fontsize=6)
            for name, left in lefts.items():
                at = protocol, key, name
                _cell(axes, (left, y, width), values.get(at, np.nan), losses.get(at, np.nan), bool(good.get(at, False)))
    _legend(axes, 0.13)
    return figure


def _cell(axes: Axes, place: tuple[float, float, float], value: float, loss: float, good: bool) -> None:
    """A metric's value of an image, on a shade that says how bad it is, framed where the metric is fooled."""
    x, y, width = place
    known = np.isfinite(loss)
    shade = SHADES(float(np.clip(loss, 0, 1))) if known else "white"
    edge, line = (FRAME, 1.1) if good and known else ("white", 0.4)
    axes.add_patch(
        Rectangle((x + 0.012, y + 0.012), width - 0.024, ROW - 0.024, facecolor=shade, edgecolor=edge, linewidth=line)
    )
    ink = "white" if known and loss > DARK else "black"
    text = _number(value) if known else "–"
    axes.text(x + width / 2, y + ROW / 2, text, ha="center", va="center", fontsize=6, color=ink)


def _legend(axes: Axes, y: float) -> None:
    """What shades and frames mean."""
    axes.text(0.05, y, "no worse than the truth", va="center", fontsize=6)
    for step in range(40):
        axes.add_patch(Rectangle((1.1 + 0.025 * step, y - 0.05), 0.026, 0.1, facecolor=SHADES(step / 39), linewidth=0))
    axes.text(2.14, y, "as bad as the worst of the row", va="center", fontsize=6)
    axes.add_patch(Rectangle((3.75, y - 0.06), 0.3, 0.12, facecolor="white", edgecolor=FRAME, linewidth=1.1))
    axes.text(4.1, y, "fooled: not ranked below the truth", va="center", fontsize=6)


def _number(value: float) -> str:
    """Three digits, with a true minus sign."""
    if not np.isfinite(value):
        return "–" if np.isnan(value) else "∞"
    text = f"{value:.0f}" if abs(value) >= 100 or value == 0 else f"{value:.3g}"
    if abs(value) < 0.001 and value:
        text = "0"
    return text.replace("-", "−")


def arguments(parser: argparse.ArgumentParser) -> None:
    """Flags of `microsr figures metrics_validation`."""
    parser.add_argument("--table", required=True, type=Path, help="table of `microsr evaluate validate` (.csv)")


def draw(ns: argparse.Namespace) -> Record:
    """Draw the figure from its command line."""
    return Record({}, [ns.table], {"metrics": make_metrics_validation(ns.table, ns.output)})
