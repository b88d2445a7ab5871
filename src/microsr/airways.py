"""Where airways cross the slices of a simulated truth: the table airways.csv, its places in pixels, and which crossings are one airway.

Each row: slice (index in the clinical volume), x_mm, y_mm (patient coordinates, LPS), diameter_mm (lumen), wall_mm (thickness),
tilt_degrees (between the airway's axis and the slice normal), generation (0: the trunk).
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from scipy.spatial import cKDTree

from microsr import UserError
from microsr.storage import Volume

COLUMNS = ("slice", "x_mm", "y_mm", "diameter_mm", "wall_mm", "tilt_degrees", "generation")
STEEPEST_TILT = 60.0
"""Airways that lie flatter in the slice are no rings, degrees."""
SAME_DIAMETER = 0.05
"""Crossings of one airway differ in diameter by at most this share."""


def read_airways(path: Path) -> pd.DataFrame:
    """Read airways.csv: COLUMNS, one row a crossing.

    Raises
    ------
    UserError
        The file is no such table.
    """
    try:
        table = pd.read_csv(path)
    except (OSError, ValueError) as error:
        raise UserError(f"{path} is no table of airways ({error}); make it with `microsr simulate`") from None
    missing = [column for column in COLUMNS if column not in table]
    if missing:
        raise UserError(f"{path} has no column {missing[0]}; make it with `microsr simulate`")
    try:
        return table.astype({c: int if c in ("slice", "generation") else float for c in COLUMNS})
    except ValueError as error:
        raise UserError(
            f"{path} holds something that is no number ({error}); make it with `microsr simulate`"
        ) from None


def crossings(path: Path, volume: Volume, slices: list[int], largest_mm: float) -> pd.DataFrame:
    """The crossings to judge, with `row`, `column` (fractional pixels of `volume`, a truth) and `airway` (a number) added.

    Kept: those in `slices`, less tilted than STEEPEST_TILT, with a lumen of at most `largest_mm`.
    """
    table = read_airways(path)
    table = table.assign(airway=same_airway(table))
    kept = table["slice"].isin(slices) & (table["tilt_degrees"] < STEEPEST_TILT) & (table["diameter_mm"] <= largest_mm)
    table = table[kept].reset_index(drop=True)
    cosines = np.reshape(volume.direction, (3, 3))[:2, :2] * volume.spacing[:2]
    corners = np.reshape([volume.point((z, 0, 0))[:2] for z in table["slice"]], (-1, 2))
    pixels = np.linalg.solve(cosines, (table[["x_mm", "y_mm"]].to_numpy() - corners).T)
    return table.assign(row=pixels[1], column=pixels[0])


def same_airway(table: pd.DataFrame) -> np.ndarray:
    """A number for each crossing, the same for crossings of one airway: next slices, one generation, near in place and diameter.

    Crossings of one airway are no independent evidence: the bootstrap draws airways.
    """
    place = table[["x_mm", "y_mm"]].to_numpy(float)
    if len(table) == 0:
        return np.zeros(0, int)
    diameter = table["diameter_mm"].to_numpy(float)
    # In the distance of two slices, about 0.6 mm, an airway tilted by 60 degrees moves by 1 mm.
    pairs = cKDTree(place).query_pairs(1.5, output_type="ndarray")
    first, second = pairs.T
    apart = np.abs(np.diff(table["slice"].to_numpy()[pairs], axis=1))[:, 0]
    same = (apart == 1) & (table["generation"].to_numpy()[first] == table["generation"].to_numpy()[second])
    same &= np.abs(diameter[first] - diameter[second]) <= SAME_DIAMETER * np.maximum(diameter[first], diameter[second])
    graph = coo_array((np.ones(same.sum()), (first[same], second[same])), shape=(len(table), len(table)))
    return connected_components(graph, directed=False)[1]
