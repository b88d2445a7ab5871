"""The tumour of a simulated lung: a solid nodule with spicules and an invading front, and the ground glass around
it.
"""

from __future__ import annotations

import numpy as np

from microsr.physics.tissues import Tissue
from microsr.simulation.grid import Canvas, Grid, SmoothField
from microsr.simulation.tubes import Tubes

GLASS_THICKENING = 1.8
"""Alveolar walls in ground glass over normal ones; the rest of its tissue fills alveoli."""


class Tumour:
    """A lobulated, spiculated nodule whose front invades the alveoli, in ground glass.

    diameter: of the solid part, mm. glass_share: tissue share in the ground glass, where the lung around has
    `lung_share`.
    glass_mm: depth of the ground glass. blood_hu, air_hu: HU of tissue and of gas.
    """

    def __init__(
        self,
        centre: np.ndarray,
        diameter: float,
        glass_share: float,
        lung_share: float,
        glass_mm: float,
        blood_hu: float,
        air_hu: float,
        rng: np.random.Generator,
    ) -> None:
        self.centre, self.radius = centre, diameter / 2
        self.hu = float(rng.uniform(20, 45))
        self._axes = rng.uniform(0.85, 1.15, 3)
        self._lobes = [
            (SmoothField(1.4 * self.radius, rng), 0.13 * self.radius),
            (SmoothField(1.6, rng), 0.16),
            (SmoothField(0.5, rng), 0.09),
        ]
        self._inside = SmoothField(2.0, rng)
        self._glass_mm, self._air_hu = glass_mm, air_hu
        self._fill_hu = (glass_share - GLASS_THICKENING * lung_share) * (blood_hu - air_hu)
        self._glass_edge, self._filling = SmoothField(2.5, rng), SmoothField(0.8, rng)
        self.spicules = self._grow_spicules(rng)

    def _grow_spicules(self, rng: np.random.Generator) -> Tubes:
        """Thin strands that run outwards from the border."""
        strands = []
        for _ in range(rng.integers(14, 26)):
            out = rng.normal(size=3) * (1, 1, 0.5)
            out /= np.linalg.norm(out)
            t = np.linspace(0, 1, 6)[:, None]
            reach = 0.8 * self.radius + t * rng.uniform(0.5, 1.1) * self.radius
            bent = out + rng.normal(0, 0.22, 3) * t**2
            radii = rng.uniform(0.2, 0.4) * (1.05 - t[:, 0]) ** 1.3 + 0.03
            strands.append(Tubes.from_curve(self.centre + bent * reach, radii))
        return Tubes.join(strands)

    def _box(self, grid: Grid) -> tuple[slice, slice, slice]:
        reach = 1.5 * self.radius + self._glass_mm + 3.0
        return grid.box(self.centre - reach, self.centre + reach)

    def paint_glass(self, canvas: Canvas) -> None:
        """Thicken the alveolar walls and half fill the alveoli in a ragged zone about the tumour, in place."""
        box = self._box(canvas.grid)
        inner = canvas.grid.cut(box)
        if 0 in inner.shape:
            return
        zone = self._glass_mm + np.float32(0.5) * self._glass_edge(inner) - self.distance(inner)
        zone = np.clip(0.5 + zone / np.float32(0.5), 0, 1)
        view = canvas.hu[box]
        tissue = (view - np.float32(self._air_hu)) * (1 + np.float32(GLASS_THICKENING - 1) * zone)
        tissue += np.float32(self._fill_hu) * zone * (1 + np.float32(0.25) * self._filling(inner))
        view[...] = np.minimum(tissue, np.float32(self.hu - self._air_hu)) + np.float32(self._air_hu)
        if canvas.labels is not None:
            canvas.labels[box][zone >= 0.75] = Tissue.GLASS

    def paint_solid(self, canvas: Canvas) -> None:
        """Put the solid tumour in place of what is there, which shines through at the invading front."""
        box = self._box(canvas.grid)
        inner = canvas.grid.cut(box)
        if 0 in inner.shape:
            return
        solid = np.clip(0.5 - self.distance(inner) / np.float32(max(0.15, inner.width)), 0, 1)
        canvas.blend(solid, np.float32(self.hu) + np.float32(12) * self._inside(inner), Tissue.TUMOUR, box)

    def distance(self, grid: Grid) -> np.ndarray:
        """Distance to the border, mm, negative inside (near the border; a rough measure elsewhere)."""
        x, y, z = ((a - c) / e for a, c, e in zip((grid.x, grid.y, grid.z), self.centre, self._axes, strict=True))
        distance = np.sqrt(z[:, None, None] ** 2 + y[:, None] ** 2 + x**2).astype(np.float32) - np.float32(self.radius)
        for field, amplitude in self._lobes:
            distance += np.float32(amplitude) * field(grid)
        return distance
