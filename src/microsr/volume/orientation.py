"""How a volume's axes lie in the patient: along which axis of his each one runs, and what plane its slices are."""

from __future__ import annotations

import itertools
from typing import Any, NamedTuple

import numpy as np

PLANES = {2: "axial", 1: "coronal", 0: "sagittal"}
"""What slices are called whose normal runs along the patient's z, y or x."""
ALONG = np.cos(np.radians(30))
"""Cosine of the angle between a slice's normal and the patient's axis up to which the slice has the plane's name: a
gantry tilts by 30 degrees at most."""


def plane(direction: tuple[float, ...]) -> str:
    """What the slices are: "axial", "coronal", "sagittal" or "oblique". direction: 3x3 cosines, row by row, LPS."""
    normal = np.abs(np.reshape(direction, (3, 3))[:, 2])
    along = int(normal.argmax())
    return PLANES[along] if normal[along] >= ALONG - 1e-6 else "oblique"


def nearest_axes(direction: tuple[float, ...]) -> tuple[tuple[int, int, int], tuple[bool, bool, bool]]:
    """Of the volume's x, y and z (column, row, slice): the patient's axis (0, 1, 2) that each runs along, no two along
    the same one, and whether it runs towards right, anterior or inferior, against it.
    """
    matrix = np.reshape(direction, (3, 3))
    along = max(itertools.permutations(range(3)), key=lambda axes: sum(abs(matrix[a, i]) for i, a in enumerate(axes)))
    return along, tuple(bool(matrix[a, i] < 0) for i, a in enumerate(along))


def obliqueness(direction: tuple[float, ...]) -> float:
    """Largest angle, degrees, between an axis of the volume and the patient's axis that it runs along."""
    matrix = np.reshape(direction, (3, 3))
    along, _ = nearest_axes(direction)
    cosines = [min(1.0, abs(matrix[a, i])) for i, a in enumerate(along)]
    return float(np.degrees(np.arccos(min(cosines))))


class Reversed(NamedTuple):
    """Which axes of an array [slices, rows, columns] are stored against the order in which a volume numbers them."""

    slices: bool = False
    rows: bool = False
    columns: bool = False

    def stored_image(self, image: np.ndarray) -> np.ndarray:
        """A slice [rows, columns] as it is stored, or a stored one as the volume has it: a view."""
        return image[:: -1 if self.rows else 1, :: -1 if self.columns else 1]

    def stored_position(self, z: int, count: int) -> int:
        """Where the slice `z` of `count` is stored, or which one is stored at `z`."""
        return count - 1 - z if self.slices else z

    def read(self, array: Any, key: Any) -> np.ndarray:
        """What `key`, in the volume's order and with no negative step, chooses of a stored array; of ranges no more is
        read than they span.
        """
        keys = key if isinstance(key, tuple) else (key,)
        if not all(isinstance(one, int | np.integer | slice) for one in keys):
            return self.read(array, slice(None))[key]
        keys = (*keys, *[slice(None)] * (3 - len(keys)))
        stored, orders = [], []
        for one, count, turned in zip(keys, array.shape, self, strict=True):
            chosen = range(count)[one]
            if not isinstance(chosen, range):
                stored.append(count - 1 - chosen if turned else chosen)
            elif not turned:
                stored.append(one)
                orders.append(slice(None))
            elif not chosen:
                stored.append(slice(0, 0))
                orders.append(slice(None))
            else:
                low, high = chosen[0], chosen[-1]
                stored.append(slice(count - 1 - high, count - low))
                orders.append(slice(high - low, None, -chosen.step))
        return array[tuple(stored)][tuple(orders)]


def stored_order(direction: tuple[float, ...]) -> Reversed:
    """How a volume is stored so that its axes run along the patient's, not against them."""
    _, (columns, rows, slices) = nearest_axes(direction)
    return Reversed(slices, rows, columns)
