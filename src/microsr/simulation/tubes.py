"""Round tapered segments of the simulated lung, airways and vessels: how they cover voxels, and where they cross a
slice.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from microsr.physics.tissues import Tissue
from microsr.simulation.grid import Canvas, Grid


@dataclass(frozen=True)
class Tubes:
    """Round tapered segments: [n, 3] ends (x, y, z in mm), [n] radii at both ends, [n] wall thickness (mm), [n]
    generation.

    A vessel's wall is part of it: 0.
    """

    start: np.ndarray
    end: np.ndarray
    start_radius: np.ndarray
    end_radius: np.ndarray
    wall: np.ndarray
    generation: np.ndarray

    @classmethod
    def empty(cls) -> Tubes:
        """No segments."""
        point, length = np.empty((0, 3)), np.empty(0)
        return cls(point, point, length, length, length, np.empty(0, int))

    @classmethod
    def from_curve(cls, curve: np.ndarray, radii: np.ndarray, wall: float = 0.0, generation: int = 0) -> Tubes:
        """Segments along a curve, [m, 3] points and [m] radii."""
        n = len(curve) - 1
        return cls(curve[:-1], curve[1:], radii[:-1], radii[1:], np.full(n, wall), np.full(n, generation))

    @classmethod
    def join(cls, groups: list[Tubes]) -> Tubes:
        """All segments of `groups`."""
        if not groups:
            return cls.empty()
        return cls(*(np.concatenate(values) for values in zip(*(vars(p).values() for p in groups), strict=True)))

    def select(self, which: np.ndarray) -> Tubes:
        """The segments `which`, a mask or indices."""
        return Tubes(*(values[which] for values in vars(self).values()))

    @property
    def outer_radius(self) -> np.ndarray:
        """Largest outer radius of each segment, mm."""
        return np.maximum(self.start_radius, self.end_radius) + self.wall


def paint_vessels(canvas: Canvas, tubes: Tubes, hu: float, tissue: Tissue = Tissue.VESSEL) -> None:
    """Fill `tubes` with `hu`, in place."""
    canvas.blend(coverage(canvas.grid, tubes), hu, tissue)


def paint_airways(canvas: Canvas, lumens: Tubes, wall_hu: float, air_hu: float) -> None:
    """Airway walls around `lumens`, and air in them, in place; the lumens stay open where branches meet."""
    outer, inner = np.zeros((2, *canvas.grid.shape), np.float32)
    for segment, box, share in _shares(canvas.grid, lumens):
        view = inner[box]
        np.maximum(view, np.clip(share, 0, 1), out=view)
        share += np.float32(lumens.wall[segment] / canvas.grid.width)
        view = outer[box]
        np.maximum(view, np.minimum(share, 1), out=view)
    canvas.blend(outer, wall_hu, Tissue.WALL)
    canvas.blend(inner, air_hu, Tissue.LUMEN)


def coverage(grid: Grid, tubes: Tubes) -> np.ndarray:
    """Share of each voxel inside the tubes, float32 [slices, rows, columns]: exact for a flat wall across a cubic
    voxel.
    """
    filled = np.zeros(grid.shape, np.float32)
    for _, box, share in _shares(grid, tubes):
        view = filled[box]
        np.maximum(view, np.minimum(share, 1), out=view)
    return filled


def _shares(grid: Grid, tubes: Tubes) -> Iterator[tuple[int, tuple[slice, slice, slice], np.ndarray]]:
    """For each segment within reach: its index, the voxels about it, and 0.5 + (radius - distance) / voxel width
    there.
    """
    reach = tubes.outer_radius[:, None] + grid.width
    low, high = np.minimum(tubes.start, tubes.end) - reach, np.maximum(tubes.start, tubes.end) + reach
    edges = np.array([(a[0], a[-1]) for a in (grid.x, grid.y, grid.z)])
    near = np.nonzero(((low <= edges[:, 1]) & (high >= edges[:, 0])).all(axis=1))[0]
    axes = (grid.x, grid.y, grid.z)
    first, last = (
        np.stack([np.searchsorted(a, corner[near, i]) for i, a in enumerate(axes)]) for corner in (low, high)
    )
    for n, (i, j, k), (i_end, j_end, k_end) in zip(near, first.T, last.T, strict=True):
        if i == i_end or j == j_end or k == k_end:
            continue
        start, run = tubes.start[n], (tubes.end[n] - tubes.start[n]).astype(np.float32)
        x = (grid.x[i:i_end] - start[0]).astype(np.float32)
        y = (grid.y[j:j_end] - start[1]).astype(np.float32)[:, None]
        z = (grid.z[k:k_end] - start[2]).astype(np.float32)[:, None, None]
        along = (z * run[2] + y * run[1] + x * run[0]) / max(run @ run, np.float32(1e-9))
        np.clip(along, 0, 1, out=along)
        distance = (x - along * run[0]) ** 2
        distance += (y - along * run[1]) ** 2
        distance += (z - along * run[2]) ** 2
        np.sqrt(distance, out=distance)
        along *= np.float32(tubes.end_radius[n] - tubes.start_radius[n])
        along += np.float32(tubes.start_radius[n])
        along -= distance
        along *= np.float32(1 / grid.width)
        along += np.float32(0.5)
        yield n, (slice(k, k_end), slice(j, j_end), slice(i, i_end)), along


def crossings(tubes: Tubes, z: float) -> dict[str, np.ndarray]:
    """Where centre lines cross the plane at `z`: place (x, y), inner diameter and wall there (mm), tilt, generation.

    tilt: angle between the segment's axis and the plane's normal, degrees, 0 to 90.
    """
    ends = tubes.start[:, 2], tubes.end[:, 2]
    hit = tubes.select((np.minimum(*ends) <= z) & (z < np.maximum(*ends)))
    run = hit.end - hit.start
    share = (z - hit.start[:, 2]) / run[:, 2]
    place = hit.start + share[:, None] * run
    return {
        "x_mm": place[:, 0],
        "y_mm": place[:, 1],
        "diameter_mm": 2 * (hit.start_radius + share * (hit.end_radius - hit.start_radius)),
        "wall_mm": hit.wall,
        "tilt_degrees": np.degrees(np.arccos(np.abs(run[:, 2]) / np.linalg.norm(run, axis=1))),
        "generation": hit.generation,
    }
