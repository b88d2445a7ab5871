"""Table 1 of the paper as a figure: pixels, slices, pixel size and slice thickness of every volume. In: volumes.csv.
Out: a figure.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import pandas as pd
from matplotlib.figure import Figure

from microsr.figures.figure import Record
from microsr.figures.style import PAGE, TALLEST, new_figure, save, styled
from microsr.figures.typeset import read_volumes

LINE = 0.17
"""Inches from row to row, less where the rows would not fit on a page."""
SHARES = (0.14, 0.15, 0.1, 0.14, 0.15, 0.15)
"""Widths of the columns behind the case's, which is as wide as its names; text stands on the left of the first two and
on the right of the others.
"""


def make_volumes(table: Path, output: Path) -> int:
    """Write the figure of volumes.csv and return the number of volumes; output: path without extension.

    Raises
    ------
    UserError
        The file is no table of volumes.
    """
    shown = read_volumes(table)
    save(draw_volumes(shown), output)
    return len(shown)


@styled
def draw_volumes(table: pd.DataFrame) -> Figure:
    """Draw the table of `figures.typeset.read_volumes` between three rules, as booktabs would."""
    edge, head = 0.06, 0.38
    line = max(min(LINE, (TALLEST - head - 0.1) / len(table)), 0.095)
    height = head + line * len(table) + 0.1
    figure = new_figure(PAGE, height)
    axes = figure.add_axes((0, 0, 1, 1), xlim=(0, PAGE), ylim=(height, 0))
    axes.set_axis_off()
    left, first = edge, max(1.2, 0.2 + 0.058 * table.iloc[:, 0].str.len().max())
    widths = [first, *(share / sum(SHARES) * (PAGE - 2 * edge - first) for share in SHARES)]
    for place, (name, width) in enumerate(zip(table.columns, widths, strict=True)):
        x, side = (left, "left") if place < 2 else (left + width, "right")
        for up, words in enumerate(name.replace(" (", "\n(").split("\n")[::-1]):
            axes.text(x, head - 0.1 - 0.12 * up, words, ha=side, va="baseline", fontweight="bold")
        for row, text in enumerate(table[name]):
            axes.text(x, head + line * (row + 0.5) + 0.02, text, ha=side, va="center", parse_math=False)
        left += width
    for y, thickness in ((0.04, 0.9), (head - 0.03, 0.5), (height - 0.04, 0.9)):
        axes.plot([edge, PAGE - edge], [y, y], color="black", linewidth=thickness)
    return figure


def arguments(parser: argparse.ArgumentParser) -> None:
    """Flags of `microsr figures volumes`."""
    parser.add_argument("--table", required=True, type=Path, help="table of `microsr volumes table` (.csv)")


def draw(ns: argparse.Namespace) -> Record:
    """Draw the figure from its command line."""
    return Record({}, [ns.table], {"volumes": make_volumes(ns.table, ns.output)})
