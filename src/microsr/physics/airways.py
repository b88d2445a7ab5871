"""Where airways cross the slices of a simulated truth: the table airways.csv, its places in pixels, and which crossings
are one airway.

Each row: slice (index in the clinical volume), x_mm, y_mm (patient coordinates, LPS), diameter_mm (lumen), wall_mm
(thickness), tilt_degrees (between the airway's axis and the slice normal), generation (0: the trunk).
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from scipy.spatial import cKDTree

from microsr.core.csv_files import read_columns
from microsr.core.errors import UserError
from microsr.volume.storage import Volume

COLUMNS = ("slice", "x_mm", "y_mm", "diameter_mm", "wall_mm", "tilt_degrees", "generation")
STEEPEST_TILT = 60.0
"""Airways that lie flatter in the slice are no rings, degrees."""
SAME_DIAMETER = 0.12
"""Crossings of one airway in next slices differ in diameter by at most this share."""
SAME_PLACE_MM = 0.2
"""And in place by at most this much more than their tilt moves them from slice to slice."""


def read_airways(path: Path) -> pd.DataFrame:
    """Read airways.csv: COLUMNS, one row a crossing.

    Raises
    ------
    UserError
        The file is no such table.
    """
    table = read_columns(path, COLUMNS, "no table of airways", "microsr simulate")
    try:
        return table.astype({c: int if c in ("slice", "generation") else float for c in COLUMNS})
    except ValueError as error:
        raise UserError(
            f"{path} holds something that is no number ({error}); make it with `microsr simulate`"
        ) from None


def crossings(path: Path, volume: Volume, slices: list[int], largest_mm: float) -> pd.DataFrame:
    """The crossings to judge, with `row`, `column` (fractional pixels of `volume`, a truth) and `airway` (a number)
    added.

    Kept: those in `slices`, less tilted than STEEPEST_TILT, with a lumen of at most `largest_mm`.
    """
    table = read_airways(path)
    table = table.assign(airway=same_airway(table, volume.spacing[2]))
    kept = table["slice"].isin(slices) & (table["tilt_degrees"] < STEEPEST_TILT) & (table["diameter_mm"] <= largest_mm)
    table = table[kept].reset_index(drop=True)
    cosines = np.reshape(volume.direction, (3, 3))[:2, :2] * volume.spacing[:2]
    corners = np.reshape([volume.point((z, 0, 0))[:2] for z in table["slice"]], (-1, 2))
    pixels = np.linalg.solve(cosines, (table[["x_mm", "y_mm"]].to_numpy() - corners).T)
    return table.assign(row=pixels[1], column=pixels[0])


def same_airway(table: pd.DataFrame, slice_mm: float) -> np.ndarray:
    """A number for each crossing, the same for crossings of one airway: next slices, one generation, fitting in place
    and diameter.

    Crossings of one airway are no independent evidence: the bootstrap draws airways. slice_mm: distance of the slices.
    """
    if table.empty:
        return np.zeros(0, int)
    moved = slice_mm * np.tan(np.radians(np.minimum(table["tilt_degrees"].to_numpy(), STEEPEST_TILT))) + SAME_PLACE_MM
    place = table[["x_mm", "y_mm"]].to_numpy(float)
    first, second = cKDTree(place).query_pairs(moved.max(), output_type="ndarray").T
    slices, generation, diameter = (table[c].to_numpy() for c in ("slice", "generation", "diameter_mm"))
    same = (np.abs(slices[first] - slices[second]) == 1) & (generation[first] == generation[second])
    same &= np.hypot(*(place[first] - place[second]).T) <= np.maximum(moved[first], moved[second])
    same &= np.abs(np.log(diameter[first] / diameter[second])) <= SAME_DIAMETER
    graph = coo_array((np.ones(same.sum()), (first[same], second[same])), shape=(len(table), len(table)))
    return connected_components(graph, directed=False)[1]
