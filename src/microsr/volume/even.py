"""Parallel slices that are unevenly spaced or shifted against each other, as by a tilted gantry, put on an even grid
whose axes are perpendicular: linear between slices and within them, as dcm2niix does it.

Nothing is sharper for it: between slices that are far apart the new ones are mixtures of the two.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from microsr.volume.slices import Slices

MOST = 2
"""Times as many slices as there were, at most, whatever the smallest gap is (as dcm2niix has it)."""
OUTSIDE = -2000
"""Value beyond the slices where none is declared, HU; no tissue has it. 0 of values that have no sign."""
EVEN = 0.05
"""Share by which gaps may differ without a need for more slices."""
WHOLE = 1e-3
"""Share of a pixel or gap that is none."""


@dataclass(frozen=True)
class EvenGrid:
    """Slices on an even grid.

    array: [slices, rows, columns], unread. distance: mm between slices. corner: place of the first pixel, mm along
    rows, columns and normal, from the first pixel of the first slice given. outside: the value where no slice was.
    """

    array: Slices
    distance: float
    corner: tuple[float, float, float]
    outside: float


def even_grid(
    slices: Slices, places: np.ndarray, pixel: tuple[float, float], distance: float | None, padding: float | None
) -> EvenGrid:
    """Slices [slices, rows, columns], whose order is that of their places, on an even grid.

    places: of the first pixel of each slice, mm along rows, columns and normal, [slices, 3], the first one 0. pixel: x,
    y, mm. distance: of the new slices, mm; None: the smallest gap, unless that makes more than MOST times as many.
    padding: declared value of what is outside the field.
    """
    along = places[:, 2]
    count, distance = _steps(along, distance)
    shifts = places[:, :2] / pixel
    first = np.floor(shifts.min(axis=0) + WHOLE).astype(int)
    extra = np.ceil(shifts.max(axis=0) - WHOLE).astype(int) - first
    rows, columns = slices.shape[1] + int(extra[1]), slices.shape[2] + int(extra[0])
    outside = float(OUTSIDE if slices.dtype.kind in "if" else 0)
    if padding is not None and np.array(padding).astype(slices.dtype) == padding:
        outside = float(padding)

    def move(z: int) -> tuple[np.ndarray, np.ndarray]:
        """A slice on the new pixels, float64, and where they lie in it."""
        return _shift(slices.load(z), shifts[z] - first, (rows, columns))

    def load(number: int) -> np.ndarray:
        place = number * distance
        above = int(np.searchsorted(along, place - WHOLE * distance).clip(0, len(along) - 1))
        image, inside = move(above)
        if along[above] - place > WHOLE * distance:
            below, there = move(above - 1)
            share = (place - along[above - 1]) / (along[above] - along[above - 1])
            image, inside = (1 - share) * below + share * image, inside & there
        image = np.where(inside, image, outside)
        return (image if slices.dtype.kind == "f" else np.rint(image)).astype(slices.dtype)

    corner = (float(first[0] * pixel[0]), float(first[1] * pixel[1]), 0.0)
    return EvenGrid(Slices(load, (count, rows, columns), slices.dtype), distance, corner, outside)


def _steps(along: np.ndarray, distance: float | None) -> tuple[int, float]:
    """Number of slices and their distance, mm."""
    whole = float(along[-1])
    if distance is not None:
        return math.floor(whole / distance + WHOLE) + 1, distance
    gaps = np.diff(along)
    if gaps.max() - gaps.min() <= EVEN * gaps.min():
        return len(along), whole / max(len(along) - 1, 1)
    steps = math.floor(whole / gaps.min() + WHOLE)
    if steps + 1 > MOST * len(along):
        steps = MOST * len(along) - 1
        return steps + 1, whole / steps
    return steps + 1, float(gaps.min())


def _shift(image: np.ndarray, shift: np.ndarray, shape: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    """An image moved by `shift` pixels (x, y; not negative) into one of `shape` [rows, columns], linear in both, and
    which pixels of that lie within it.
    """
    found, inside = image.astype(float), np.ones(image.shape, bool)
    for axis, amount in ((0, float(shift[1])), (1, float(shift[0]))):
        whole = math.floor(amount + WHOLE)
        fraction = amount - whole if amount - whole > WHOLE else 0.0
        size = list(found.shape)
        size[axis] = shape[axis]
        moved, there = np.zeros(size), np.zeros(size, bool)
        at = [slice(None), slice(None)]
        at[axis] = slice(whole, whole + found.shape[axis])
        moved[tuple(at)], there[tuple(at)] = found, inside
        if fraction:  # a pixel lies between one of the image and the one before it
            moved = (1 - fraction) * moved + fraction * np.roll(moved, 1, axis)
            there &= np.roll(there, 1, axis)
        found, inside = moved, there
    return found, inside
