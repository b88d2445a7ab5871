"""The metrics of all methods: one panel a metric, one dot a training, the interval over trainings. In: the table of
metrics.
Out: a figure of one protocol's metrics, or of the few that answer the question of the comparison (HEADLINE).
"""

from __future__ import annotations

import argparse
import textwrap
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from microsr.config import REFERENCES
from microsr.core.errors import UserError
from microsr.evaluation.catalogue import HEADLINE, Metric, find_metric, find_protocol
from microsr.evaluation.names import DEFAULT_TRAINING_SETS, method_name, method_rank
from microsr.evaluation.summary import centre, join_trainings, summarise
from microsr.evaluation.tables import read_table
from microsr.figures.figure import Record
from microsr.figures.style import COLOURS, GREY, PAGE, TALLEST, new_figure, save, styled, tidy_panel

LAYOUTS = (
    (3, 0.19, 0.22, 0.1),
    (3, 0.14, 0.22, 0.05),
    (4, 0.14, 0.2, 0.05),
    (4, 0.105, 0.2, 0.02),
    (5, 0.1, 0.16, -0.05),
    (6, 0.1, 0.14, -0.05),
)
"""Columns of panels; inches a method, between columns and above a title: from the roomiest, the first that fits on a
page.
"""
NOT_DRAWN = ("smallest_bronchiole_low", "smallest_bronchiole_high")
"""Ends of an interval, which figures/bronchioles draws."""
MOST_MODELS = 24
"""More rows make a panel that nobody reads: then the pooled models alone are drawn, and tables have the others."""
LABEL = 0.46
"""Inches kept free for the number behind a bar."""


def make_metrics(table: Path, output: Path, protocol: str | None = None, split: str = "test") -> list[str]:
    """Write the figure of metrics.csv and return the metrics drawn.

    output: path without extension. protocol: all metrics of this protocol that are defined anywhere, and of what is
    known the truth alone, so that they fit on a page; None: HEADLINE. split: what the cases are
    for; any but test is said in the figure.

    Raises
    ------
    UserError
        The table cannot be read, or holds no such metric.
    """
    found = choose_models(read_table(table))
    if protocol is None:
        order = {key: place for place, key in enumerate(HEADLINE)}
        found["place"] = [order.get(key) for key in zip(found["protocol"], found["metric"], strict=True)]
        found = found.dropna(subset="place").sort_values("place", kind="stable")
    else:
        found = found[(found["protocol"] == protocol) & ~found["method"].isin(REFERENCES[1:])]
        measured = found.groupby("metric")["value"].transform("count") > 0
        found = found[measured & ~found["metric"].isin(NOT_DRAWN)]
    if found.empty:
        raise UserError(f"{table} holds no metrics of protocol {protocol or ', '.join(p for p, _ in HEADLINE)}")
    save(draw_metrics(found, split), output)
    return list(dict.fromkeys(found["metric"]))


def choose_models(table: pd.DataFrame) -> pd.DataFrame:
    """The rows of the models that are drawn: joined as in the summary, and of more than MOST_MODELS the pooled ones."""
    joined = join_trainings(table)
    many = len(joined[["method", "training_set"]].drop_duplicates()) > MOST_MODELS
    if many and "pooled" in set(joined["training_set"]):
        return joined[joined["training_set"].isin(DEFAULT_TRAINING_SETS)].copy()
    return joined


@styled
def draw_metrics(table: pd.DataFrame, split: str = "test") -> Figure:
    """Draw a bar to the mean, a dot for each training and their 95 % interval, for each method in each metric.

    What is known of a case (config.REFERENCES) is grey, and the truth's score is a line through the panel. Where every
    method was trained once, the dots are the cases.
    """
    table = table.assign(model=[f"{m}/{t}" for m, t in zip(table["method"], table["training_set"], strict=True)])
    models = sorted(table["model"].unique(), key=method_rank)
    names = [method_name(model) for model in models]
    kinds = list(table[["protocol", "metric"]].drop_duplicates().itertuples(index=False, name=None))
    margin, foot = 0.2 + 0.053 * max(map(len, names)), 0.22
    for most, line, gap, space in LAYOUTS:
        columns, panel = min(most, len(kinds)), 0.06 + line * len(models)
        rows = -(-len(kinds) // columns)
        width = (PAGE - margin - 0.08 - gap * (columns - 1)) / columns
        lines = max(_title(protocol, metric, "HU", width).count("\n") + 1 for protocol, metric in kinds)
        heading = 0.24 + 0.1 * lines + space
        height = rows * (heading + panel + foot) + 0.14
        if height <= TALLEST:
            break
    figure = new_figure(PAGE, height)
    for number, (protocol, metric) in enumerate(kinds):
        row, column = divmod(number, columns)
        left, bottom = margin + column * (width + gap), height - row * (heading + panel + foot) - heading - panel
        axes = figure.add_axes((left / PAGE, bottom / height, width / PAGE, panel / height))
        shown = table[(table["protocol"] == protocol) & (table["metric"] == metric)]
        _panel(axes, shown, models, width)
        name_metric(axes, protocol, metric, shown["unit"].iloc[0], width)
        axes.set_yticks(range(len(models)), names if column == 0 else [])
    if split != "test":
        figure.text(0.01, 0.03 / height, f"Of {split} cases, not of test cases.", fontsize=6, color=GREY, va="bottom")
    return figure


def name_metric(axes: Axes, protocol: str, metric: str, unit: str, width: float) -> None:
    """Write above a panel what it shows, which way is better and the protocol, in at most `width` inches."""
    axes.set_title(
        _title(protocol, metric, unit, width), pad=12, loc="left", fontweight="bold", fontsize=7, linespacing=1
    )
    better = find_metric(protocol, metric).better
    about = f"{better}, {find_protocol(protocol).short}" if width > 1.6 else better
    axes.annotate(
        about, (0, 1), xytext=(0, 3), xycoords="axes fraction", textcoords="offset points", fontsize=6, color=GREY
    )


def _title(protocol: str, metric: str, unit: str, width: float) -> str:
    """The metric's name and its unit, on as many lines as `width` inches ask for."""
    unit = f" ({unit.replace('um', 'µm')})" if unit not in ("", "1", "count") else ""
    return textwrap.fill(find_metric(protocol, metric).name + unit, int(width / 0.0595), break_long_words=False)


def _number(value: float, metric: Metric) -> str:
    """Three digits, without a power of ten where the number is large."""
    if not np.isfinite(value):
        return "none" if np.isnan(value) else "never" if metric.never else "∞"
    return (f"{value:.0f}" if abs(value) >= 1000 else f"{value:.3g}").replace("-", "−")


def _panel(axes: Axes, shown: pd.DataFrame, models: list[str], width: float) -> None:
    metric = find_metric(shown["protocol"].iloc[0], shown["metric"].iloc[0])
    finite = shown["value"][np.isfinite(shown["value"])]
    # From zero, so that lengths compare; the room on the right is the labels'.
    low, high = min([0.0, *finite]), max([0.0, *finite])
    span = high - low or 1.0
    methods = [m for m in dict.fromkeys(model.partition("/")[0] for model in models) if m not in REFERENCES]
    truth = shown.loc[shown["method"] == "truth", "value"].mean()
    if np.isfinite(truth):
        axes.axvline(truth, color=GREY, linewidth=0.8, linestyle=(0, (4, 2)), zorder=3, label="truth")
    found = summarise(shown).set_index(["method", "training_set"])
    for place, model in enumerate(models):
        own = shown[shown["model"] == model]
        if own.empty:
            continue
        chance = "seed" if own["seed"].nunique() > 1 else "case"
        facts = found.loc[tuple(own[["method", "training_set"]].iloc[0])]
        values = np.array([centre(each.to_numpy(float)[:, None], metric) for _, each in own.groupby(chance)["value"]])
        values = values[np.isfinite(values)]
        method = model.partition("/")[0]
        colour = GREY if method in REFERENCES else COLOURS[methods.index(method) % len(COLOURS)]
        if len(values):
            mean = facts["mean"] if np.isfinite(facts["mean"]) else 0
            axes.barh(place, mean, height=0.62, color=colour, alpha=0.35, zorder=2)
            heights = place + (np.linspace(-0.2, 0.2, len(values)) if len(values) > 1 else np.zeros(1))
            axes.plot(
                values,
                heights,
                "o",
                color=colour,
                markersize=3.2,
                markeredgecolor="white",
                markeredgewidth=0.4,
                zorder=3,
            )
        ends = facts[["low", "high"]].to_numpy(float)
        if np.isfinite(ends[0]):
            axes.plot(
                [ends[0], ends[1] if np.isfinite(ends[1]) else high],
                [place, place],
                color="black",
                linewidth=0.9,
                zorder=4,
            )
        beyond = max([0.0, *values, *ends[np.isfinite(ends)]])
        whole = facts["cases"] * facts["seeds"]
        never = f" (never {facts['never']}/{whole})" if 0 < facts["never"] < whole else ""
        axes.annotate(
            _number(facts["mean"], metric) + never, (beyond, place), xytext=(5, 0),
            textcoords="offset points", va="center", fontsize=6, zorder=5,
            bbox={"boxstyle": "square,pad=0.1", "facecolor": "white", "edgecolor": "none", "alpha": 0.8},
        )  # fmt: skip
    room = LABEL / (width - LABEL)
    axes.set_xlim(low - (0.05 * span if low < 0 else 0), high + room * span)
    axes.xaxis.set_major_locator(MaxNLocator(max(2, int(width / 0.32))))
    axes.set_ylim(len(models) - 0.5, -0.5)
    axes.axvline(0, color="black", linewidth=0.6, zorder=4)
    axes.spines["left"].set_visible(low == 0)
    axes.tick_params(axis="y", length=0)
    tidy_panel(axes, "x")
    # No power of ten at the end of the axis, which the title below would meet.
    axes.xaxis.set_major_formatter(lambda tick, _: f"{tick:.3g}".replace("-", "−"))


def arguments(parser: argparse.ArgumentParser) -> None:
    """Flags of `microsr figures metrics`."""
    parser.add_argument("--table", required=True, type=Path, help="table of `microsr evaluate collect` (.csv)")
    parser.add_argument("--protocol", help="show all metrics of one protocol instead of the few that matter most")
    parser.add_argument("--split", default="test", choices=("test", "validation"), help="what the cases are for")


def draw(ns: argparse.Namespace) -> Record:
    """Draw the figure from its command line."""
    return Record({}, [ns.table], {"metrics": make_metrics(ns.table, ns.output, ns.protocol, ns.split)})
