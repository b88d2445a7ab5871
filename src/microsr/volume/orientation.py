"""How a volume's axes lie in the patient: along which axis of his each one runs, and what plane its slices are."""

from __future__ import annotations

import itertools

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
