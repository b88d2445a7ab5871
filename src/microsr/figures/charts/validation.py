"""The validation as a picture: what was measured of the simulated lung and scanner, on the range that the literature
gives.

In: the table of `microsr validate`. Out: a figure.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from microsr.figures.figure import Record
from microsr.figures.style import COLOURS, GREY, PAGE, new_figure, save, styled, tidy_panel
from microsr.simulation.validation.checks import read_checks

KERNEL_COLOURS = {"B30": COLOURS[0], "D45": COLOURS[2], "lung": COLOURS[1]}
NAMES = {
    "mtf50": "MTF 50 %",
    "mtf10": "MTF 10 %",
    "slice_profile_fwhm": "slice profile, FWHM",
    "nps_deviation": "noise spectrum, deviation",
    "noise_sd": "noise SD",
    "pair_explained": "kernel pair, explained",
    "hu": "HU",
    "tissue_fraction": "tissue share",
    "alveoli": "alveoli",
    "alveolar_volume": "alveolar volume",
    "alveolar_facets": "faces of an alveolus",
    "surface_density": "alveolar surface",
    "wall_thickness": "alveolar wall",
    "diameter_ratio": "child/parent diameter",
    "length_to_diameter": "airway length/diameter",
    "branch_length": "branch length",
    "daughter_angle": "angle of daughters",
    "terminal_lumen": "lumen",
    "pi10_wall": "airway wall, Pi10",
}
"""Quantities as a reader knows them."""
UNITS = {"1": "", "um": "µm", "um^3": "µm³", "per mm^3": "per mm³", "mm^2/mm^3": "mm²/mm³", "degrees": "°"}
PAIR_STYLES = {"one kernel": ("-", COLOURS[5]), "two kernels": ((0, (4, 1.2)), COLOURS[1])}
LOOKS = {
    verdict: {"marker": mark, "color": colour, "markersize": 3.2, "linestyle": "none"}
    for verdict, mark, colour in (("within", "o", COLOURS[0]), ("outside", "D", COLOURS[1]))
}
"""A measured value, by whether it is within the expected range: told apart in grey print too."""
FIRST_GROUP = ("mtf50", "mtf10", "slice_profile_fwhm", "nps_deviation", "noise_sd", "pair_explained", "hu")
"""Quantities in the left column of the list: the scanner and the HU it shows."""


def make_validation(table: Path, output: Path) -> dict[str, int]:
    """Write the figure of validation.csv and return how many figures are within and outside their range.

    output: path without extension.
    """
    checks = read_checks(table)
    save(draw_validation(checks), output)
    verdicts = checks.loc[checks["x"].isna(), "verdict"].value_counts()
    return {verdict: int(verdicts.get(verdict, 0)) for verdict in ("within", "outside")}


@styled
def draw_validation(checks: pd.DataFrame) -> Figure:
    """Draw curves above (measured: dots; expected: bands or lines) and, below, each number on its expected range."""
    single = checks[checks["x"].isna() & (checks["verdict"] != "no figure")]
    single = single.sort_values("quantity", key=lambda column: column.map(list(NAMES).index), kind="stable")
    listed = [single[single["quantity"].isin(FIRST_GROUP) == first] for first in (True, False)]
    rows = max(map(len, listed))
    panel, gap, head = 1.45, 0.62, 0.3
    below = 0.35 + 0.155 * rows
    height = head + 2 * (panel + gap) + below
    figure = new_figure(PAGE, height)

    def place(left: float, top: float, width: float, high: float, **more: str) -> Axes:
        return figure.add_axes((left / PAGE, 1 - (top + high) / height, width / PAGE, high / height), **more)

    lefts, width = (0.48, 2.93, 5.4), 1.68
    tops = (head, head + panel + gap)
    mtf, noise, pair = (place(left, tops[0], width, panel) for left in lefts)
    diameter, length, tissue = (place(left, tops[1], width, panel) for left in lefts)
    _kernels(mtf, checks, "mtf")
    mtf.set(title="(a) MTF of a slanted edge", xlabel="line pairs per cm", ylabel="MTF", xlim=(0, 20))
    _kernels(noise, checks, "nps")
    noise.set(title="(b) Noise power in air", xlabel="line pairs per cm", ylabel="HU² mm²", xlim=(0, 8.2))
    noise.legend(loc="upper right", handlelength=1)
    _draw_published(mtf, checks)
    _pair(pair, checks)
    _generations(diameter, checks, "airway_diameter")
    diameter.set(title="(d) Airway lumen", xlabel="generation", ylabel="mm")
    _generations(length, checks, "length_to_diameter")
    length.set(title="(e) Airway length / diameter", xlabel="generation", ylabel="ratio")
    _tissues(tissue, single[single["quantity"] == "hu"])
    for axes in (mtf, noise, pair, diameter, length, tissue):
        axes.title.set(fontweight="bold", ha="left", x=0)
        tidy_panel(axes)
    top = tops[1] + panel + gap - 0.07
    for number, (part, left) in enumerate(zip(listed, (1.45, 5.08), strict=True)):
        _list(place(left, top + 0.2, 0.75, 0.155 * rows), part, rows)
        if not number:
            figure.text(
                0.01,
                1 - top / height,
                "(g) Each number on its expected range (grey); orange diamond: outside",
                fontsize=7.5,
                fontweight="bold",
                va="top",
            )
    return figure


def _kernels(axes: Axes, checks: pd.DataFrame, quantity: str) -> None:
    """Measured curves as dots on the bands that are expected, one colour a kernel."""
    for (name, colour), mark in zip(KERNEL_COLOURS.items(), "os^", strict=False):
        rows = checks[(checks["quantity"] == quantity) & (checks["group"] == name)]
        axes.fill_between(rows["x"], rows["low"], rows["high"], color=colour, alpha=0.25, linewidth=0)
        axes.plot(rows["x"], rows["measured"], mark, color=colour, markersize=2.4, markeredgewidth=0, label=name)
    axes.set_ylim(bottom=0)


def _draw_published(axes: Axes, checks: pd.DataFrame) -> None:
    """The published MTF50 and MTF10 as crosses."""
    for quantity, level in (("mtf50", 0.5), ("mtf10", 0.1)):
        rows = checks[(checks["quantity"] == quantity) & checks["low"].notna()]
        label = "published" if level == 0.5 else None
        axes.plot((rows["low"] + rows["high"]) / 2, [level] * len(rows), "kx", markersize=5, label=label, zorder=4)
    axes.legend(loc="upper right")


def _pair(axes: Axes, checks: pd.DataFrame) -> None:
    """What the real scan's soft kernel passes of its sharp one, beside the model's."""
    axes.set(title="(c) Soft / sharp, real scan", xlabel="line pairs per cm", ylabel="transfer")
    rows = checks[checks["quantity"] == "pair_transfer"]
    if rows.empty:
        axes.set(xticks=[], yticks=[])
        axes.text(0.5, 0.5, "no kernel pair given", transform=axes.transAxes, ha="center", color=GREY)
        return
    real = rows[rows["group"] == rows["group"].iloc[0]]
    axes.plot(real["x"], real["measured"], "ko", markersize=2, label="measured")
    rmse = checks[checks["quantity"] == "pair_rmse"].set_index("group")["measured"]
    for group, (line, colour) in PAIR_STYLES.items():
        model = rows[rows["group"] == group]
        label = f"{group}\n({rmse['before']:.0f} to {rmse[group]:.0f} HU)"
        axes.plot(model["x"], (model["low"] + model["high"]) / 2, linestyle=line, color=colour, label=label)
    axes.set(ylim=(0, 1.05), xlim=(0, None))
    axes.legend(loc="upper right", handlelength=2, fontsize=6, borderaxespad=0)


def _generations(axes: Axes, checks: pd.DataFrame, quantity: str) -> None:
    rows = checks[(checks["quantity"] == quantity) & checks["x"].notna()].sort_values("x")
    axes.fill_between(rows["x"], rows["low"], rows["high"], color=GREY, alpha=0.25, linewidth=0, label="expected")
    for verdict, look in LOOKS.items():
        some = rows[rows["verdict"] == verdict]
        axes.plot(some["x"], some["measured"], **look)
    axes.set_ylim(bottom=0)


def _tissues(axes: Axes, rows: pd.DataFrame) -> None:
    """HU by tissue: the expected range as a bar, the measured value as a dot."""
    axes.set(title="(f) HU by tissue")
    for place, row in enumerate(rows.itertuples()):
        low, high = (row.low, row.high) if row.high - row.low > 30 else (row.low - 15, row.low + 15)
        axes.bar(place, high - low, bottom=low, width=0.7, color=GREY, alpha=0.3)
        axes.plot(place, row.measured, **LOOKS[row.verdict])
    axes.set_xticks(range(len(rows)), rows["group"].replace({"parenchyma": "paren-\nchyma", "glass": "ground\nglass"}))
    axes.tick_params(axis="x", labelsize=6, length=0)
    axes.set_ylabel("HU", labelpad=0)
    axes.margins(y=0.08)


def _list(axes: Axes, rows: pd.DataFrame, slots: int) -> None:
    """One line a number: its name, its place on the expected range, and the numbers."""
    axes.axvspan(0, 1, color=GREY, alpha=0.2, linewidth=0)
    for place, row in enumerate(rows.itertuples()):
        inside = row.verdict == "within"
        x = float(np.clip((row.measured - row.low) / (row.high - row.low), -0.6, 1.6))
        axes.plot(x, place, zorder=3, **LOOKS[row.verdict])
        name = f"{NAMES[row.quantity]}, {row.group}"
        axes.annotate(
            name, (0, place), xycoords=("axes fraction", "data"), xytext=(-4, 0), textcoords="offset points",
            ha="right", va="center", fontsize=6,
        )  # fmt: skip
        unit, scale = UNITS.get(row.unit, row.unit), 1.0
        if abs(row.measured) >= 1e5:
            unit, scale = f"10⁶ {unit}", 1e-6
        value, low, high = (_short(scale * number) for number in (row.measured, row.low, row.high))
        text = f"{value} ({low} to {high}) {unit}".replace("-", "−")
        axes.annotate(
            text, (1, place), xycoords=("axes fraction", "data"), xytext=(4, 0), textcoords="offset points",
            ha="left", va="center", fontsize=6, color="black" if inside else COLOURS[1],
        )  # fmt: skip
    axes.set(xlim=(-0.7, 1.7), ylim=(slots - 0.5, -0.5), xticks=[], yticks=[])
    for spine in axes.spines.values():
        spine.set_visible(False)


def _short(value: float) -> str:
    """Three digits, without a power of ten."""
    return f"{value:.0f}" if abs(value) >= 100 else f"{value:.3g}"


def arguments(parser: argparse.ArgumentParser) -> None:
    """Flags of `microsr figures validation`."""
    parser.add_argument("--table", required=True, type=Path, help="table of `microsr validate` (.csv)")


def draw(ns: argparse.Namespace) -> Record:
    """Draw the figure from its command line."""
    return Record({}, [ns.table], {"verdicts": make_validation(ns.table, ns.output)})
