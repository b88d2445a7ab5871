"""Interlobular septa of a simulated lung: thin, gently bent sheets between neighbouring lobules."""

from __future__ import annotations

import numpy as np
from scipy.spatial import Voronoi, cKDTree

from microsr.physics.tissues import Tissue
from microsr.simulation.grid import Canvas, SmoothField, sheet_share

SEPTUM_HU = 10.0
PRESENT = 0.55
"""Share of the sheets between lobules that are complete enough to be seen."""


class Septa:
    """Sheets halfway between the lobules' `centres`, [n, 3] mm, inside the box from `low` to `high`; 0.08 to 0.14 mm
    thick.
    """

    def __init__(self, centres: np.ndarray, low: np.ndarray, high: np.ndarray, rng: np.random.Generator) -> None:
        around = np.concatenate([np.eye(3), -np.eye(3)]) * 20 * np.max(high - low)
        self._centres = np.concatenate([centres, around])
        self._tree = cKDTree(self._centres)
        cells = Voronoi(self._centres)
        self._sheets = []
        for (i, j), corners in zip(cells.ridge_points, cells.ridge_vertices, strict=True):
            present, thickness = rng.random() < PRESENT, rng.uniform(0.08, 0.14)
            if present and -1 not in corners and max(i, j) < len(centres):
                edge = cells.vertices[corners]
                self._sheets.append((i, j, np.maximum(edge.min(0), low), np.minimum(edge.max(0), high), thickness))
        self._bend, self._strength = SmoothField(9.0, rng), SmoothField(6.0, rng)

    def paint(self, canvas: Canvas) -> None:
        """Put the septa into the canvas, in place."""
        for i, j, low, high, thickness in self._sheets:
            box = canvas.grid.box(low - 0.5, high + 0.5)
            inner = canvas.grid.cut(box)
            if 0 in inner.shape:
                continue
            normal = self._centres[j] - self._centres[i]
            normal /= np.linalg.norm(normal)
            middle = normal @ (self._centres[i] + self._centres[j]) / 2
            distance = np.float32(0.35) * self._bend(inner)
            distance += (normal[2] * inner.z[:, None] + normal[1] * inner.y - middle).astype(np.float32)[:, :, None]
            distance += (normal[0] * inner.x).astype(np.float32)
            np.abs(distance, out=distance)
            found = np.nonzero(distance < (1.5 * thickness + inner.width) / 2)
            points = np.stack([inner.x[found[2]], inner.y[found[1]], inner.z[found[0]]], axis=1)
            owner = self._tree.query(points)[1]
            mine = (owner == i) | (owner == j)
            found = tuple(f[mine] for f in found)
            local = thickness * np.clip(0.7 + self._strength(inner)[found], 0, 1.2)
            share = sheet_share(distance[found], local, inner.width)
            place = tuple(f + s.start for f, s in zip(found, box, strict=True))
            canvas.blend(share, SEPTUM_HU, Tissue.SEPTUM, place, distance[found] < local / 2)
