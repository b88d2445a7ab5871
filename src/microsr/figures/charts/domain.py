"""The domain check as a picture: clinical patches beside average-pooled uCT patches. In: its table. Out: a figure."""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from microsr.core.errors import UserError
from microsr.figures.figure import Record
from microsr.figures.style import COLOURS, PAGE, new_figure, save, styled, tidy_panel

COLUMNS = ("domain", "quantity", "x", "value", "unit")
DOMAINS = {
    "clinical": ("clinical CT", COLOURS[1], "-"),
    "pooled_micro": ("uCT, average-pooled", COLOURS[0], (0, (4, 1.2))),
}


def make_domain(table: Path, output: Path) -> bool:
    """Write the figure of domain.csv and return whether the two domains agree. output: path without extension."""
    try:
        found = pd.read_csv(table)
    except (pd.errors.ParserError, pd.errors.EmptyDataError, FileNotFoundError) as error:
        raise UserError(f"{table} is no domain check ({error}); make it with `microsr domain`") from None
    wanted = {(d, q) for d in DOMAINS for q in ("mean", "sd", "histogram", "spectrum")} | {("difference", "verdict")}
    if set(COLUMNS) - set(found) or wanted - set(zip(found["domain"], found["quantity"], strict=True)):
        raise UserError(f"{table} is no complete domain check; make it with `microsr domain`")
    save(draw_domain(found), output)
    return bool(_value(found, "difference", "verdict"))


@styled
def draw_domain(table: pd.DataFrame) -> Figure:
    """Draw histogram, mean and SD, and spectrum of both domains, with the verdict in plain words above."""
    figure = new_figure(PAGE, 2.75)
    grid = figure.add_gridspec(
        1, 3, left=0.065, right=0.99, top=0.72, bottom=0.16, wspace=0.36, width_ratios=(1.25, 0.8, 1.25)
    )
    histogram = figure.add_subplot(grid[0], title="(a) Histogram", xlabel="HU", ylabel="share of pixels, %")
    moments = figure.add_subplot(grid[1], title="(b) Mean and SD", ylabel="HU")
    spectrum = figure.add_subplot(
        grid[2], title="(c) Spectrum", xlabel="cycles per clinical pixel", ylabel="log10 power, HU²"
    )
    for place, (domain, (name, colour, line)) in enumerate(DOMAINS.items()):
        x, share = _curve(table, domain, "histogram")
        histogram.step(x, 100 * share, where="mid", color=colour, linestyle=line, label=name)
        histogram.fill_between(x, 100 * share, step="mid", color=colour, alpha=0.12, linewidth=0)
        mean, sd = (_value(table, domain, quantity) for quantity in ("mean", "sd"))
        moments.errorbar(place, mean, yerr=sd, fmt="o", color=colour, capsize=3, markersize=4, linewidth=1.1)
        moments.annotate(
            f"{mean:.0f} ± {sd:.0f}".replace("-", "−"),
            (place, mean + sd),
            xytext=(0, 4),
            textcoords="offset points",
            ha="center",
            fontsize=6,
        )
        spectrum.plot(*_curve(table, domain, "spectrum"), color=colour, linestyle=line, label=name)
    histogram.set_xlim(*_occupied_range(table))
    histogram.set_ylim(bottom=0)
    spectrum.legend(loc="upper right", handlelength=2.4)
    moments.set_xticks([0, 1], ["clinical", "uCT, pooled"])
    moments.set_xlim(-0.6, 1.6)
    moments.margins(y=0.18)
    for axes in (histogram, moments, spectrum):
        axes.title.set(fontweight="bold")
        tidy_panel(axes)
    agree, words = verdict(table)
    figure.text(
        0.012,
        0.965,
        agree,
        fontsize=8.5,
        fontweight="bold",
        va="top",
        color="black" if "agree:" in agree else COLOURS[1],
    )
    figure.text(0.012, 0.895, words, fontsize=6.5, va="top", linespacing=1.35)
    return figure


def verdict(table: pd.DataFrame) -> tuple[str, str]:
    """The verdict in plain words, and the four differences with their limits, on two lines."""
    difference = {q: _value(table, "difference", q) for q in ("mean", "sd", "histogram", "spectrum")}
    limit = {q: _value(table, "limit", q) for q in difference}
    agree = bool(_value(table, "difference", "verdict"))
    first = (
        "Clinical and pooled uCT patches agree: fit for training"
        if agree
        else "Clinical and pooled uCT patches disagree: training would turn noise into structure"
    )
    words = (
        f"Pooled uCT against clinical: mean {difference['mean']:+.0f} HU (limit ±{limit['mean']:g}), "
        f"SD × {difference['sd']:.2f} (between × {1 / limit['sd']:.2f} and × {limit['sd']:.2f}),\n"
        f"histograms overlap by {difference['histogram']:.2f} (at least {limit['histogram']:g}), "
        f"spectra differ by {difference['spectrum']:.2f} in log10 power on average (limit {limit['spectrum']:.2f})"
    )
    return first, words.replace("-", "−")


def _value(table: pd.DataFrame, domain: str, quantity: str) -> float:
    return float(table.loc[(table["domain"] == domain) & (table["quantity"] == quantity), "value"].iloc[0])


def _curve(table: pd.DataFrame, domain: str, quantity: str) -> tuple[np.ndarray, np.ndarray]:
    rows = table[(table["domain"] == domain) & (table["quantity"] == quantity)].sort_values("x")
    return rows["x"].to_numpy(float), rows["value"].to_numpy(float)


def _occupied_range(table: pd.DataFrame) -> tuple[float, float]:
    """Range of HU that holds all but the last 0.05 % of either histogram, a bin wider."""
    rows = table[(table["quantity"] == "histogram") & table["domain"].isin(list(DOMAINS)) & (table["value"] > 5e-4)]
    x = np.unique(table.loc[table["quantity"] == "histogram", "x"].dropna())
    step = float(np.diff(x).min()) if len(x) > 1 else 1.0
    return float(rows["x"].min() - 1.5 * step), float(rows["x"].max() + 1.5 * step)


def arguments(parser: argparse.ArgumentParser) -> None:
    """Flags of `microsr figures domain`."""
    parser.add_argument("--table", required=True, type=Path, help="table of `microsr domain` (.csv)")


def draw(ns: argparse.Namespace) -> Record:
    """Draw the figure from its command line."""
    return Record({}, [ns.table], {"agree": make_domain(ns.table, ns.output)})
