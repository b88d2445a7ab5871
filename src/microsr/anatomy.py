"""A simulated lung with a tumour, as a function of space: HU on any regular grid, from clinical pixels down to uCT voxels.

The lung is drawn once, from one random stream; `Lung.render` then evaluates it wherever it is asked to, so that a clinical
scan, its truth and a uCT specimen show the same tissue. Structures thinner than a voxel (alveolar walls are about 8 um)
appear as partial volume: the tissue they hold is the same on every grid. Lengths in mm; coordinates x, y, z about the centre.
"""

from __future__ import annotations

from functools import cached_property

import numpy as np
from scipy.spatial import Voronoi, cKDTree

from microsr import trees
from microsr.foam import Foam
from microsr.space import Grid, SmoothField, sheet_share

AIR_HU = -1000.0
BLOOD_HU = 45.0
AIRWAY_WALL_HU = 25.0
SEPTUM_HU = 10.0
MUSCLE_HU, FAT_HU = 50.0, -95.0


class Tumour:
    """A lobulated, spiculated solid nodule whose front invades the alveoli: thickened walls and ground glass around it."""

    def __init__(self, centre: np.ndarray, diameter: float, rng: np.random.Generator) -> None:
        self.centre, self.radius = centre, diameter / 2
        self.hu = rng.uniform(20, 45)
        self._axes = rng.uniform(0.85, 1.15, 3)
        self._lobes = [
            (SmoothField(1.4 * self.radius, rng), 0.13 * self.radius),
            (SmoothField(1.6, rng), 0.16),
            (SmoothField(0.5, rng), 0.09),
        ]
        self._inside = SmoothField(2.0, rng)
        self._glass = rng.uniform(1.0, 2.0)
        self._glass_depth = rng.uniform(0.8, 1.8)

    def spicules(self, rng: np.random.Generator) -> trees.Tubes:
        """Thin strands that run outwards from the border."""
        curves = []
        for _ in range(rng.integers(14, 26)):
            out = rng.normal(size=3) * (1, 1, 0.5)
            out /= np.linalg.norm(out)
            t = np.linspace(0, 1, 6)[:, None]
            reach = 0.8 * self.radius + t * rng.uniform(0.5, 1.1) * self.radius
            bent = out + rng.normal(0, 0.22, 3) * t**2
            curves.append((self.centre + bent * reach, rng.uniform(0.2, 0.4) * (1.05 - t[:, 0]) ** 1.3 + 0.03))
        return trees.Tubes.along(curves)

    def paint(self, hu: np.ndarray, grid: Grid) -> None:
        """Put the tumour into `hu` in place; what is there already shines through at the invading front."""
        reach = 1.5 * self.radius + 4.0
        box = grid.box(self.centre - reach, self.centre + reach)
        part = grid.part(box)
        if 0 in part.shape:
            return
        distance = self.distance(part)
        view = hu[box]
        glass = 1 + self._glass * np.exp(np.minimum(-distance / self._glass_depth, 0))
        view[...] = AIR_HU + np.minimum((view - AIR_HU) * glass, self.hu - AIR_HU)
        solid = np.clip(0.5 - distance / max(0.15, part.width), 0, 1)
        view += solid * (self.hu + 12 * self._inside(part) - view)

    def distance(self, grid: Grid) -> np.ndarray:
        """Distance to the border, mm, negative inside (near the border; a rough measure elsewhere)."""
        x, y, z = ((a - c) / e for a, c, e in zip((grid.x, grid.y, grid.z), self.centre, self._axes, strict=True))
        distance = np.sqrt(z[:, None, None] ** 2 + y[:, None] ** 2 + x**2).astype(np.float32) - np.float32(self.radius)
        for field, amplitude in self._lobes:
            distance += np.float32(amplitude) * field(grid)
        return distance


class Septa:
    """Interlobular septa: some of the sheets between neighbouring lobules, gently bent."""

    def __init__(self, low: np.ndarray, high: np.ndarray, rng: np.random.Generator, lobule_mm: float = 14.0) -> None:
        count = max(int(np.prod(high - low + lobule_mm) / lobule_mm**3), 8)
        self._seeds = rng.uniform(low - lobule_mm / 2, high + lobule_mm / 2, (count, 3))
        self._tree = cKDTree(self._seeds)
        cells = Voronoi(self._seeds)
        self._sheets = []
        for (i, j), corners in zip(cells.ridge_points, cells.ridge_vertices, strict=True):
            present, thickness = rng.random() < 0.4, rng.uniform(0.04, 0.1)
            if present and -1 not in corners:
                around = cells.vertices[corners]
                self._sheets.append((i, j, np.maximum(around.min(0), low), np.minimum(around.max(0), high), thickness))
        self._bend, self._strength = SmoothField(9.0, rng), SmoothField(6.0, rng)

    def paint(self, hu: np.ndarray, grid: Grid) -> None:
        """Put the septa into `hu` in place."""
        for i, j, low, high, thickness in self._sheets:
            box = grid.box(low - 0.5, high + 0.5)
            part = grid.part(box)
            if 0 in part.shape:
                continue
            normal = self._seeds[j] - self._seeds[i]
            normal /= np.linalg.norm(normal)
            middle = normal @ (self._seeds[i] + self._seeds[j]) / 2
            distance = 0.35 * self._bend(part)
            distance += (normal[2] * part.z[:, None] + normal[1] * part.y - middle).astype(np.float32)[:, :, None]
            distance += (normal[0] * part.x).astype(np.float32)
            thickness = thickness * np.clip(0.5 + self._strength(part), 0, 1.5)
            found = np.nonzero(np.abs(distance) < (thickness + part.width) / 2)
            points = np.stack([part.x[found[2]], part.y[found[1]], part.z[found[0]]], axis=1)
            owner = self._tree.query(points)[1]
            mine = (owner == i) | (owner == j)
            found = tuple(f[mine] for f in found)
            view = hu[box]
            view[found] += sheet_share(np.abs(distance[found]), thickness[found], part.width) * (
                SEPTUM_HU - view[found]
            )


class Lung:
    """The lung of one simulated patient, in a square field of soft tissue, around a slab of slices.

    field: in-plane side, mm. depth: thickness of the slab that will be scanned, mm.
    """

    def __init__(self, field: float, depth: float, rng: np.random.Generator) -> None:
        self.field, self.depth = field, depth
        self.half_axes = field * rng.uniform(0.452, 0.468, 2)
        self._power = rng.uniform(2.5, 3.2)
        self._outline = SmoothField(0.4 * field, rng)
        self._density = rng.uniform(0.125, 0.155)
        self._gravity = rng.uniform(0.05, 0.15) / field
        self._patchy = [(SmoothField(14.0, rng), 0.05), (SmoothField(3.0, rng), 0.05), (SmoothField(1.2, rng), 0.05)]
        self._fat, self._fibres = SmoothField(13.0, rng), SmoothField(2.5, rng)
        self._foam_rng = rng.spawn(1)[0]
        self._grow(rng)
        diameter = min(rng.uniform(6, 12), 0.2 * field)
        angle, out = rng.uniform(0, 2 * np.pi), rng.uniform(0.35, 0.6)
        centre = np.array([*(out * self.half_axes * (np.cos(angle), np.sin(angle))), rng.uniform(-0.25, 0.25) * depth])
        self.tumour = Tumour(centre, diameter, rng)
        self._vessels = self._vessels.joined(self.tumour.spicules(rng))
        extent = np.array([*self.half_axes, depth / 2 + 1])
        self._septa = Septa(-extent, extent, rng)

    def _grow(self, rng: np.random.Generator) -> None:
        """Bronchi with arteries come up from below the slab, veins leave above it, so that the trunks stay outside."""
        a, b = self.half_axes
        far, near = self.depth / 2 + min(rng.uniform(14, 20), self.field / 3), self.depth / 2 + 5
        count = int(4 * a * b * (far + near) / trees.TERMINAL_MM3)
        visible = (-self.depth / 2 - 2, self.depth / 2 + 2)

        def tree(below: float) -> list[tuple[np.ndarray, np.ndarray]]:
            points = rng.uniform(-1, 1, (count, 2))
            points = points[(np.abs(points) ** self._power).sum(axis=1) < 0.97] * (a, b)
            height = rng.uniform(-far, near, (len(points), 1)) * below
            root = np.array([side * rng.uniform(0.5, 0.9) * a, rng.uniform(-0.4, 0.4) * b, -1.1 * far * below])
            return trees.grow(np.hstack([points, height]), root, visible, rng)

        side, below = rng.choice([-1, 1], 2)
        self._lumens, arteries = trees.bundles(tree(below), rng.uniform(0.9, 1.15), rng)
        self._vessels = arteries.joined(trees.Tubes.along(tree(-below)))

    @cached_property
    def _foam(self) -> Foam:
        return Foam(self._foam_rng)

    def render(self, grid: Grid, foam: bool = True) -> np.ndarray:
        """HU, float32 [slices, rows, columns], on `grid`; memory about 8 times the result.

        foam: False leaves the alveoli out and shows their mean instead, which is quick and good for coarse grids.
        """
        density = np.full(grid.shape, self._density, np.float32)
        density *= (1 + self._gravity * grid.y).astype(np.float32)[:, None]
        for field, amount in self._patchy:
            density *= 1 + np.float32(amount) * field(grid)
        if foam:
            density *= self._foam(grid)
        hu = AIR_HU + (BLOOD_HU - AIR_HU) * np.minimum(density, 1)
        del density
        self.tumour.paint(hu, grid)
        self._septa.paint(hu, grid)
        trees.paint_tubes(hu, grid, self._vessels, BLOOD_HU)
        trees.paint_airways(hu, grid, self._lumens, AIRWAY_WALL_HU, AIR_HU)
        self._enclose(hu, grid)
        return hu

    def depth_inside(self, grid: Grid) -> np.ndarray:
        """Distance from the pleura into the lung, mm, negative outside (exact near the pleura only)."""
        a, b = self.half_axes
        radius = (np.abs(grid.y[:, None] / b) ** self._power + np.abs(grid.x / a) ** self._power) ** (1 / self._power)
        inside = ((1 - radius) * min(a, b)).astype(np.float32)
        return inside - np.float32(0.012 * self.field) * np.tanh(self._outline(grid))

    def _enclose(self, hu: np.ndarray, grid: Grid) -> None:
        inside = self.depth_inside(grid)
        outside = np.clip(0.5 - inside / np.float32(grid.width), 0, 1)
        rows, columns = np.nonzero((outside > 0).any(axis=0))
        depth = -inside[:, rows, columns]
        fat = np.clip((self._fat(grid)[:, rows, columns] + 0.3) * 3, 0, 1) * np.clip(depth - 1.2, 0, 1)
        wall = MUSCLE_HU + 12 * self._fibres(grid)[:, rows, columns] + fat * (FAT_HU - MUSCLE_HU)
        view = hu[:, rows, columns]
        hu[:, rows, columns] = view + outside[:, rows, columns] * (wall - view)
