"""Figure of the calibration: histograms of each uCT's grey values and of the same in HU, beside the clinical CT of the
same case.

In: imported volumes, which keep the calibration that was found. Out: a figure. Grey values are computed back from the
HU (grey = (HU - offset) / slope), so they are those of the imported grid; some slices are read.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from microsr.core.errors import UserError
from microsr.figures.style import COLOURS, GREY, PAGE, new_figure, save, styled, tidy_panel
from microsr.volume.storage import Volume, open_mask, open_volume

SLICES = 12
"""Slices read of each volume, evenly spread."""
BIN_HU = 10.0
RANGE_HU = (-1200.0, 400.0)
MICRO, CLINICAL = COLOURS[0], COLOURS[1]
MARKS = {"air_grey": "air", "tissue_grey": "soft tissue", "low_grey": "low", "high_grey": "high"}
"""Facts of a calibration that are marked, and their names."""


def make_calibration(micro: list[Path], clinical: list[Path], output: Path) -> dict[Path, list[int]]:
    """Write the figure, a row for each uCT, and return the slices read of each volume.

    clinical: of the same cases, as far as there are any; each needs a mask, as the uCT does. output: path without
    extension.

    Raises
    ------
    UserError
        A volume cannot be read, or a uCT does not say how it was calibrated.
    """
    read: dict[Path, list[int]] = {}
    lungs = {}
    for path in clinical:
        volume = open_volume(path)
        read[path] = choose_slices(volume.shape[0])
        lungs[volume.attributes.get("case")] = counts(path, volume, read[path])
    rows = []
    for path in micro:
        volume = open_volume(path)
        facts = volume.attributes.get("calibration")
        if not isinstance(facts, dict) or not facts.get("slope"):
            raise UserError(f"{path}: does not say how it was calibrated; make it again with `microsr volumes micro`")
        read[path] = choose_slices(volume.shape[0])
        case = volume.attributes.get("case", path.parent.name)
        rows.append((case, facts, counts(path, volume, read[path]), lungs.get(case)))
    save(draw_calibration(rows), output)
    return read


def choose_slices(slices: int) -> list[int]:
    """At most SLICES of so many slices, evenly spread."""
    number = min(slices, SLICES)
    return sorted({int((n + 0.5) * slices / number) for n in range(number)})


def counts(path: Path, volume: Volume, slices: list[int]) -> np.ndarray:
    """Shares of the pixels inside the mask in bins of BIN_HU over RANGE_HU; what lies beyond counts in the last
    bins.
    """
    mask, edges = open_mask(path), _edges()
    found = np.zeros(len(edges) - 1)
    for z in slices:
        inside = np.asarray(volume.array[z], np.float32)[np.asarray(mask[z]) > 0]
        found += np.histogram(inside.clip(RANGE_HU[0], RANGE_HU[1] - 1), edges)[0]
    return found / max(found.sum(), 1)


@styled
def draw_calibration(rows: list[tuple[str, dict[str, Any], np.ndarray, np.ndarray | None]]) -> Figure:
    """Draw a row for each case: its name, the facts of its calibration, shares of uCT pixels, and of clinical pixels or
    None.
    """
    top, panel, heading, foot = 0.08, 1.15, 0.26, 0.42
    height = top + len(rows) * (heading + panel + foot)
    figure = new_figure(PAGE, height)
    left, gap = 0.55, 0.65
    side = (PAGE - left - gap - 0.12) / 2
    for number, (case, facts, micro, clinical) in enumerate(rows):
        bottom = height - top - (number + 1) * (heading + panel + foot) + foot
        for column, draw in enumerate((_grey, _hu)):
            box = ((left + column * (side + gap)) / PAGE, bottom / height, side / PAGE, panel / height)
            draw(figure.add_axes(box), case, facts, micro, clinical)
    return figure


def _grey(axes: Axes, case: str, facts: dict[str, Any], micro: np.ndarray, clinical: np.ndarray | None) -> None:
    slope, offset = facts["slope"], facts["offset"]
    grey = (_edges() - offset) / slope
    axes.stairs(micro * 100, grey, color=MICRO, fill=True, alpha=0.35)
    axes.stairs(micro * 100, grey, color=MICRO)
    for key, name in MARKS.items():
        if key in facts:
            _mark(axes, facts[key], f"{name} {facts[key]:.5g}")
    axes.set_title(f"{case}, uCT before: grey values", loc="left", fontweight="bold")
    axes.set_xlabel("grey value (from HU, slope and offset)")
    _finish(axes, grey)


def _hu(axes: Axes, case: str, facts: dict[str, Any], micro: np.ndarray, clinical: np.ndarray | None) -> None:
    edges = _edges()
    axes.stairs(micro * 100, edges, color=MICRO, fill=True, alpha=0.35)
    axes.stairs(micro * 100, edges, color=MICRO, label="uCT, specimen")
    if clinical is not None:
        axes.stairs(clinical * 100, edges, color=CLINICAL, linestyle=(0, (4, 1.5)), label="clinical CT")
    for key, name in MARKS.items():
        if key in facts:
            value = facts["slope"] * facts[key] + facts["offset"]
            _mark(axes, value, f"{name} {value:.4g}".replace("-", "−"))
    axes.set_title(
        f"{case}, after: HU = {facts['slope']:.4g} × grey {facts['offset']:+.5g}".replace("-", "−"),
        loc="left",
        fontweight="bold",
    )
    axes.set_xlabel("HU")
    axes.legend(loc="upper center", bbox_to_anchor=(0.55, 0.92))
    _finish(axes, edges)


def _mark(axes: Axes, value: float, words: str) -> None:
    axes.axvline(value, color="black", linewidth=0.8, linestyle=(0, (1, 1)))
    axes.annotate(
        words, (value, 1), xytext=(2, -1), xycoords=("data", "axes fraction"), textcoords="offset points", fontsize=6,
        color=GREY, va="top",
    )  # fmt: skip


def _finish(axes: Axes, edges: np.ndarray) -> None:
    axes.set_xlim(min(edges), max(edges))
    axes.set_ylim(0, 1.15 * axes.get_ylim()[1])  # room for the words at the marks
    axes.set_ylabel("% of pixels")
    tidy_panel(axes)


def _edges() -> np.ndarray:
    return np.arange(RANGE_HU[0], RANGE_HU[1] + BIN_HU / 2, BIN_HU)
