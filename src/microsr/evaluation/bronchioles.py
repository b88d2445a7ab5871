"""The bronchiole resolution curve: from which lumen diameter on a super-resolved CT shows an airway as a ring with a
hole.

At a place where the truth is known to have an airway, the contrast of its wall ring to its lumen is measured with the
airway's own geometry. It is detected if at least half of the truth's contrast is there (as MTF50 asks for half) and if
the contrast exceeds the 95th percentile of what the same geometry finds at places in the parenchyma of the same slice,
where no airway is: texture that makes rings everywhere raises that bar with itself. In: truth, labels, crossings
(airways.py). Out: one row a crossing, and the curve.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import pandas as pd
from scipy.ndimage import distance_transform_edt
from scipy.optimize import isotonic_regression

from microsr.core.streams import Stream, numpy_stream
from microsr.physics.tissues import Tissue

SEARCH = 2
"""A ring may be off by this many pixels along rows and columns; the same search is made at the control places."""
HALF = 0.5
"""Share of the truth's contrast that must be there."""
FALSE_ALARMS = 0.05
"""Share of the control places that would pass as a ring."""
CONTROLS = 200
"""Control places a crossing."""
FEWEST_CONTROLS = 40
LEAST_CONTRAST_HU = 200.0
"""A crossing whose contrast in the truth itself is lower (a branching, a tilted end) is not judged."""
ANGLES = 8
"""Directions that are tried for the ellipse of a tilted airway, in the truth."""
BINS_MM = (0.5, 0.7, 0.9, 1.2, 1.6, 2.4)
"""Edges of the diameter bins of the table."""
SHARE = 0.9
"""Share of the airways that must be detected from the smallest diameter on."""
FEWEST = 10
"""Crossings that must have at least the smallest diameter, so that a few lucky ones do not make it."""
REPEATS = 1000
SEED = 0
"""Of the control places and of the bootstrap: the same for every method."""
COLUMNS = ["slice", "airway", "diameter_mm", "tilt_degrees", "score", "control", "detected"]


@dataclass(frozen=True)
class Ring:
    """Weights [side, side], side odd, about the pixel nearest to an airway's centre: mean of the wall minus mean of the
    lumen.
    """

    weights: np.ndarray
    row: int
    column: int

    @property
    def reach(self) -> int:
        """Pixels from the middle that are looked at, the search included."""
        return len(self.weights) // 2 + SEARCH

    def fits(self, shape: tuple[int, int]) -> bool:
        """Whether all that is looked at lies in an image of `shape`."""
        margins = (self.row, self.column, shape[0] - 1 - self.row, shape[1] - 1 - self.column)
        return min(margins) >= self.reach


def ring(crossing: Mapping[str, float], spacing: float, angle: float) -> Ring:
    """The ring of a crossing on pixels of `spacing` mm: a tilted tube's section is an ellipse, longer by 1 / cos(tilt)
    along `angle`.

    crossing: row, column, diameter_mm, wall_mm, tilt_degrees. angle: radians from the columns' axis. Pixels that the
    lumen's or the wall's border passes through count in part.
    """
    row, column = round(crossing["row"]), round(crossing["column"])
    radius, shrink = crossing["diameter_mm"] / 2, np.cos(np.radians(crossing["tilt_degrees"]))
    outer = radius + crossing["wall_mm"]
    half = int(np.ceil(outer / shrink / spacing)) + 1
    steps = np.arange(-half, half + 1)
    y, x = (steps[:, None] + row - crossing["row"]) * spacing, (steps + column - crossing["column"]) * spacing
    along, across = x * np.cos(angle) + y * np.sin(angle), y * np.cos(angle) - x * np.sin(angle)
    distance = np.hypot(along * shrink, across)
    lumen, whole = (np.clip((r - distance) / spacing + 0.5, 0, 1) for r in (radius, outer))
    wall = whole - lumen
    return Ring(wall / wall.sum() - lumen / lumen.sum(), row, column)


def contrast(image: np.ndarray, shape: Ring, rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
    """Highest wall-minus-lumen contrast within SEARCH pixels of each place (whole pixels, 1-D), HU."""
    steps = np.arange(-shape.reach, shape.reach + 1)
    looks = np.asarray(image)[rows[:, None, None] + steps[:, None], columns[:, None, None] + steps].astype(np.float32)
    views = np.lib.stride_tricks.sliding_window_view(looks, shape.weights.shape, axis=(1, 2))
    return np.einsum("kabij,ij->kab", views, shape.weights.astype(np.float32)).max(axis=(1, 2))


def judge_slice(
    image: np.ndarray, truth: np.ndarray, labels: np.ndarray, crossings: pd.DataFrame, spacing: float
) -> pd.DataFrame:
    """Score the crossings of one slice: COLUMNS, one row for each that can be judged.

    image, truth: HU, labels: `Tissue`, all [rows, columns] on the SR grid; spacing: its pixel size, mm. score: contrast
    as a share of the truth's; control: the score that only FALSE_ALARMS of the control places exceed; detected: 0 or 1.
    """
    rng = numpy_stream(Stream.BRONCHIOLE_CONTROLS, SEED, int(crossings["slice"].iloc[0])) if len(crossings) else None
    parenchyma = np.flatnonzero(labels == Tissue.PARENCHYMA)
    if rng is None or not len(parenchyma):
        return pd.DataFrame(columns=COLUMNS)
    room = distance_transform_edt((labels != Tissue.LUMEN) & (labels != Tissue.WALL))
    chosen = rng.choice(parenchyma, 20 * CONTROLS)
    rows, columns = np.unravel_index(chosen, labels.shape)
    far = np.minimum.reduce([rows, columns, labels.shape[0] - 1 - rows, labels.shape[1] - 1 - columns])
    found = []
    for crossing in crossings.to_dict("records"):
        best, true = _best_ring(truth, crossing, spacing)
        if true < LEAST_CONTRAST_HU:
            continue
        free = np.flatnonzero((room[rows, columns] > best.reach) & (far >= best.reach))[:CONTROLS]
        if len(free) < FEWEST_CONTROLS:
            continue
        own = contrast(image, best, np.array([best.row]), np.array([best.column]))[0]
        control = np.quantile(contrast(image, best, rows[free], columns[free]), 1 - FALSE_ALARMS)
        detected = int(own >= HALF * true and own > control)
        where = [crossing[c] for c in COLUMNS[:4]]
        found.append([*where, own / true, control / true, detected])
    return pd.DataFrame(found, columns=COLUMNS)


def _best_ring(truth: np.ndarray, crossing: Mapping[str, float], spacing: float) -> tuple[Ring, float]:
    """The ellipse direction with the highest contrast in the truth, and that contrast (-inf if the ring leaves the
    slice).
    """
    best, highest = None, -np.inf
    for angle in np.arange(ANGLES) * np.pi / ANGLES:
        shape = ring(crossing, spacing, angle)
        if shape.fits(truth.shape):
            value = contrast(truth, shape, np.array([shape.row]), np.array([shape.column]))[0]
            if value > highest:
                best, highest = shape, float(value)
    return best, highest


def detection_curve(diameter: np.ndarray, detected: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Diameters that occur, rising, the share detected there, and the number of crossings of each.

    The non-decreasing curve that fits best (isotonic regression), which assumes nothing else of its shape.
    """
    sizes, place = np.unique(diameter, return_inverse=True)
    number = np.bincount(place)
    return sizes, isotonic_regression(np.bincount(place, detected) / number, weights=number).x, number


def smallest_diameter(diameter: np.ndarray, detected: np.ndarray) -> float:
    """The diameter from which on SHARE of the crossings are detected, in the unit of `diameter`; infinite if never.

    From `detection_curve`. At least FEWEST crossings must have this diameter or more; NaN of fewer crossings.
    """
    if len(diameter) < FEWEST:
        return float("nan")
    sizes, curve, number = detection_curve(diameter, detected)
    reached = np.flatnonzero(curve >= SHARE - 1e-9)
    if not len(reached) or number[reached[0] :].sum() < FEWEST:
        return float("inf")
    return float(sizes[reached[0]])


def resample(units: np.ndarray, runs: np.ndarray, repeats: int = REPEATS) -> Iterator[np.ndarray]:
    """Bootstrap: row numbers of `repeats` draws of the units (airways) with replacement, and of the runs (trainings);
    seeded.

    units, runs: what each row belongs to. Every draw takes the same units in each of its runs, as methods are trained
    anew but the airways are those that there are.
    """
    if not len(units):
        return
    unit_names, unit = np.unique(units, return_inverse=True)
    run_names, run = np.unique(runs, return_inverse=True)
    order = np.argsort(run * len(unit_names) + unit, kind="stable")
    ends = np.cumsum(np.bincount((run * len(unit_names) + unit), minlength=len(run_names) * len(unit_names)))
    rows_of = np.split(order, ends[:-1])
    rng = numpy_stream(Stream.BOOTSTRAP, SEED)
    for _ in range(repeats):
        drawn_units = rng.integers(len(unit_names), size=len(unit_names))
        drawn_runs = rng.integers(len(run_names), size=len(run_names))
        yield np.concatenate([rows_of[r * len(unit_names) + u] for r in drawn_runs for u in drawn_units])


def interval(table: pd.DataFrame, units: np.ndarray, runs: np.ndarray) -> tuple[float, float]:
    """95 % bootstrap interval of `smallest_diameter` (percentiles) over the draws of `resample`.

    table: diameter_mm, detected. A draw in which SHARE is never reached counts as infinite, and so may an end of the
    interval be. NaN without crossings.
    """
    diameter, detected = table["diameter_mm"].to_numpy(float), table["detected"].to_numpy(float)
    found = [smallest_diameter(diameter[rows], detected[rows]) for rows in resample(units, runs)]
    if not found:
        return float("nan"), float("nan")
    low, high = np.quantile(np.nan_to_num(found, nan=np.inf, posinf=np.inf), [0.025, 0.975], method="nearest")
    return float(low), float(high)


def curve_rows(table: pd.DataFrame) -> list[tuple[str, float, str]]:
    """Metric, value and unit of the curve: share detected in each bin of BINS_MM and `smallest_bronchiole` with its
    interval.

    `bronchiole_detected_<bin>`: share of the crossings with a lumen of that many mm that are detected; higher is
    better, the truth gets about 1, NaN where there is no such crossing. `bronchiole_detected`: mean over the bins, each
    counting the same, as most airways are small. `smallest_bronchiole`, mm: `smallest_diameter`; lower is better, at
    best the smallest airway there is; infinite: never; NaN: fewer than FEWEST crossings. What fools all of them: a
    ring is all that is asked for, so that an airway drawn into an image by a method that knows where airways use to be
    counts; other structures that happen to make half a ring (a vessel in its place does not); and in few airways the
    interval, not the value, is the finding.
    """
    rows = []
    for low, high in pairwise(BINS_MM):
        inside = table.loc[(table["diameter_mm"] >= low) & (table["diameter_mm"] < high), "detected"]
        rows.append((f"bronchiole_detected_{low:g}-{high:g}", float(inside.astype(float).mean()), "1"))
    shares = [share for _, share, _ in rows if np.isfinite(share)]
    rows.append(("bronchiole_detected", float(np.mean(shares)) if shares else float("nan"), "1"))
    value = smallest_diameter(table["diameter_mm"].to_numpy(float), table["detected"].to_numpy(float))
    low, high = interval(table, table["airway"].to_numpy(), np.zeros(len(table)))
    names = ("smallest_bronchiole", "smallest_bronchiole_low", "smallest_bronchiole_high")
    return rows + [(name, v, "mm") for name, v in zip(names, (value, low, high), strict=True)]
