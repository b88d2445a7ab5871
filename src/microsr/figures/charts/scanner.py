"""The scanner as it was measured, as a picture: the noise's power, its streaks, and its size beside what is stated."""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from microsr.figures.figure import Record
from microsr.figures.style import COLOURS, PAGE, new_figure, save, styled, tidy_panel
from microsr.physics.noise_power import RATIO, expected_power
from microsr.physics.scanner import Kernel
from microsr.preprocessing.patch_files import read_scanner

REGIONS = {"lung": ("lung", "o"), "soft_tissue": ("soft tissue", "s")}


def make_scanner(table: Path, output: Path) -> float:
    """Write the figure of scanner.csv and return the mean noise, HU (nan: none was measured). output: path without
    extension.

    Raises
    ------
    UserError
        The file is no table of `microsr scanner`.
    """
    found = read_scanner(table)
    save(draw_scanner(found), output)
    return float(_values(found, "noise", "sd").mean())


@styled
def draw_scanner(table: pd.DataFrame) -> Figure:
    """Draw the two-dimensional noise power, its course in two directions and the noise of each scan."""
    figure = new_figure(PAGE, 2.6)
    grid = figure.add_gridspec(
        1, 3, left=0.07, right=0.985, top=0.76, bottom=0.17, wspace=0.42, width_ratios=(0.9, 1.2, 1.2)
    )
    image = figure.add_subplot(grid[0], title="(a) Noise power", xlabel="cycles per pixel, along", ylabel="down")
    course = figure.add_subplot(
        grid[1], title="(b) Two directions", xlabel="cycles per pixel", ylabel="power, share of the mean"
    )
    sizes = figure.add_subplot(grid[2], title="(c) Noise of each scan", ylabel="standard deviation, HU")
    power = mean_power(table)
    if power is None:
        for axes in (image, course):
            axes.text(0.5, 0.5, "too little even tissue", ha="center", va="center", transform=axes.transAxes)
            axes.set(xticks=[], yticks=[])
    else:
        size = len(power)
        shown = np.fft.fftshift(power)
        extent = (-0.5 - 0.5 / size, 0.5 - 0.5 / size, 0.5 - 0.5 / size, -0.5 - 0.5 / size)
        image.imshow(shown, cmap="gray", extent=extent, vmin=0, interpolation="nearest")
        half = np.arange(size // 2 + 1) / size
        for values, name, colour, line in (
            (power[0], "along the rows", COLOURS[0], "-"), (power[:, 0], "down the columns", COLOURS[1], "--"),
        ):  # fmt: skip
            course.plot(half, values[: size // 2 + 1], color=colour, linestyle=line, label=name)
        mtf50, pixel = (float(_values(table, "stated", quantity).iloc[0]) for quantity in ("mtf50", "pixel"))
        expected = expected_power(Kernel(mtf50, RATIO * mtf50), pixel)
        course.plot(half, expected[0, : size // 2 + 1], color="black", linestyle=":", label="as stated")
        course.set_ylim(bottom=0)
        course.legend(loc="best", handlelength=2.4)
    scans = list(dict.fromkeys(table.loc[table["scan"] != "", "scan"]))
    for place, (region, (name, mark)) in enumerate(REGIONS.items()):
        rows = table[(table["region"] == region) & (table["quantity"] == "sd")]
        places = [scans.index(scan) for scan in rows["scan"]]
        sizes.plot(places, rows["value"], mark, color=COLOURS[place], markersize=4, label=name)
    for scan, low, high in _ranges(table):
        sizes.plot([scans.index(scan)] * 2, [low, high], color="grey", linewidth=0.8, zorder=0)
    stated = float(_values(table, "stated", "sd").iloc[0])
    sizes.axhline(stated, color="black", linestyle=":", label="as stated")
    sizes.set_xticks(range(len(scans)), scans, rotation=0 if len(scans) < 5 else 90)
    sizes.set_xlim(-0.6, len(scans) - 0.4)
    sizes.set_ylim(bottom=0)
    sizes.legend(loc="best", handlelength=2)
    for axes in (image, course, sizes):
        axes.title.set(fontweight="bold")
    for axes in (course, sizes):
        tidy_panel(axes)
    figure.text(0.012, 0.965, words(table), fontsize=7, va="top", linespacing=1.35)
    return figure


def words(table: pd.DataFrame) -> str:
    """What was measured, in a line: means over the scans, and what is stated."""

    def tell(quantity: str, form: str) -> str:
        found, stated = _values(table, "noise", quantity), _values(table, "stated", quantity)
        measured = format(found.mean(), form) if len(found) else "not measured"
        return measured + (f" (stated {stated.iloc[0]:{form}})" if len(stated) else "")

    parts = [f"Noise {tell('sd', '.0f')} HU", f"slice profile {tell('slice_sigma', '.2f')} mm"]
    parts.append(f"pixels {tell('pixel', '.3f')} mm")
    if len(_values(table, "noise", "streaks")):
        parts.append(f"grains {tell('streaks', '.2f')} times as long as wide, at {tell('direction', '.0f')}°")
    return "; ".join(parts).replace("-", "−")


def mean_power(table: pd.DataFrame) -> np.ndarray | None:
    """The noise power of all scans, each with mean 1: [size, size], zero frequency first; None: none was measured."""
    rows = table[(table["region"] == "noise") & (table["quantity"] == "power")]
    found = []
    for _, own in rows.groupby("scan", sort=False):
        size = round(len(own) ** 0.5)
        power = own["value"].to_numpy(float)[: size * size].reshape(size, size)
        found.append(power / power.mean())
    return np.mean(found, axis=0) if found else None


def _ranges(table: pd.DataFrame) -> list[tuple[str, float, float]]:
    rows = table[table["region"] == "noise"].pivot_table(index="scan", columns="quantity", values="value")
    if not {"sd_low", "sd_high"} <= set(rows):
        return []
    return [(scan, row["sd_low"], row["sd_high"]) for scan, row in rows.dropna(subset=["sd_low"]).iterrows()]


def _values(table: pd.DataFrame, region: str, quantity: str) -> pd.Series:
    return table.loc[(table["region"] == region) & (table["quantity"] == quantity), "value"]


def arguments(parser: argparse.ArgumentParser) -> None:
    """Flags of `microsr figures scanner`."""
    parser.add_argument("--table", required=True, type=Path, help="table of `microsr scanner` (.csv)")


def draw(ns: argparse.Namespace) -> Record:
    """Draw the figure from its command line."""
    return Record({}, [ns.table], {"noise_hu": make_scanner(ns.table, ns.output)})
