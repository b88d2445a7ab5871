"""Branching tubes of the simulated lung: airways with their arteries, and veins, as tapered segments, grown and drawn.

A tree is grown by dividing the tissue it supplies: a branch runs towards the centre of its territory, the territory is cut in
two across its longest extent, and each half gets a daughter (the space-filling idea of Tawhai and of Kitaoka). Diameters
follow Murray's law, d ~ (supplied volume)^(1/3), which makes a daughter 0.79 of its parent in a symmetric division.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from microsr.space import Grid

TERMINAL_MM3 = 14.0
"""Tissue supplied by the finest branch that is drawn, mm^3 (about a tenth of an acinus)."""
TERMINAL_DIAMETER_MM = 0.25
"""Diameter of that branch, mm."""
SMALLEST_LUMEN_MM = 0.5
"""Airways end here: what follows is alveolated and part of the foam."""


@dataclass(frozen=True)
class Tubes:
    """Round tapered segments: [n, 3] ends (x, y, z in mm) and [n] radii at both ends (mm)."""

    start: np.ndarray
    end: np.ndarray
    start_radius: np.ndarray
    end_radius: np.ndarray

    @classmethod
    def empty(cls) -> Tubes:
        """No segments."""
        return cls(np.empty((0, 3)), np.empty((0, 3)), np.empty(0), np.empty(0))

    @classmethod
    def along(cls, curves: list[tuple[np.ndarray, np.ndarray]]) -> Tubes:
        """Segments along curves, each given as [m, 3] points and [m] radii."""
        if not curves:
            return cls.empty()
        return cls(
            np.concatenate([p[:-1] for p, _ in curves]),
            np.concatenate([p[1:] for p, _ in curves]),
            np.concatenate([r[:-1] for _, r in curves]),
            np.concatenate([r[1:] for _, r in curves]),
        )

    def joined(self, other: Tubes) -> Tubes:
        """Both sets of segments."""
        pairs = zip(vars(self).values(), vars(other).values(), strict=True)
        return Tubes(*(np.concatenate(pair) for pair in pairs))


def grow(
    points: np.ndarray, root: np.ndarray, visible: tuple[float, float], rng: np.random.Generator
) -> list[tuple[np.ndarray, np.ndarray]]:
    """Centre lines and radii of a tree that supplies `points`.

    points: [n, 3] mm, one for each TERMINAL_MM3 of tissue. root: where the trunk starts. visible: range of z, mm; branches
    whose territory stays away from it are left out. Returns curves for `Tubes.along`, from trunk to twigs.
    """
    curves = []
    trunk = points.mean(axis=0) - root
    todo = [(points, root, trunk / np.linalg.norm(trunk))]
    while todo:
        territory, start, heading = todo.pop()
        reach = np.append(territory[:, 2], start[2])
        if reach.max() < visible[0] or reach.min() > visible[1]:
            continue
        centre = territory.mean(axis=0)
        end = centre if len(territory) == 1 else start + rng.uniform(0.38, 0.5) * (centre - start)
        length = np.linalg.norm(end - start)
        radius = murray_diameter(len(territory)) / 2
        if length < 1e-3:
            continue
        bend = start + heading * length * 0.45 + rng.normal(0, 0.06 * length, 3)
        curves.append(_bezier(start, bend, end, radius))
        if len(territory) == 1:
            continue
        heading = (end - bend) / np.linalg.norm(end - bend)
        across = territory - centre
        across = across - np.outer(across @ heading, heading)
        axis = np.linalg.svd(across.T @ across)[0][:, 0]
        side = across @ axis
        upper = side > np.quantile(side, rng.uniform(0.36, 0.64))
        if upper.all() or not upper.any():
            upper = np.arange(len(territory)) % 2 == 0
        todo += [(territory[upper], end, heading), (territory[~upper], end, heading)]
    return curves


def murray_diameter(terminals: int) -> float:
    """Diameter, mm, of a branch that supplies this many terminal territories (Murray's law)."""
    return TERMINAL_DIAMETER_MM * terminals ** (1 / 3)


def wall_thickness(lumen_diameter: np.ndarray | float) -> np.ndarray | float:
    """Airway wall, mm: about 12 % of the lumen diameter and a little more, so relatively thicker in small airways."""
    return 0.05 + 0.1 * np.asarray(lumen_diameter)


def bundles(
    curves: list[tuple[np.ndarray, np.ndarray]], lumen_ratio: float, rng: np.random.Generator
) -> tuple[Tubes, Tubes]:
    """Lumens of the airways, and the arteries that run beside them.

    curves: from `grow`; their radii are the arteries'. lumen_ratio: airway lumen over artery diameter. Where airways have
    ended, the artery moves onto the centre line.
    """
    beside = rng.normal(size=3)
    lumens, arteries = [], []
    for points, radii in curves:
        lumen = radii * lumen_ratio
        room = lumen + wall_thickness(2 * lumen) + radii
        fade = np.clip((2 * lumen - SMALLEST_LUMEN_MM) / 0.2, 0, 1)
        tangent = np.gradient(points, axis=0)
        tangent /= np.linalg.norm(tangent, axis=1, keepdims=True)
        away = beside - (tangent @ beside)[:, None] * tangent
        away /= np.linalg.norm(away, axis=1, keepdims=True) + 0.1
        arteries.append((points + away * (fade * room)[:, None], radii))
        if 2 * lumen.max() >= SMALLEST_LUMEN_MM:
            lumens.append((points, lumen))
    return Tubes.along(lumens), Tubes.along(arteries)


def coverage(grid: Grid, tubes: Tubes) -> np.ndarray:
    """Share of each voxel inside the tubes, float32 [slices, rows, columns]: exact for a flat wall across a cubic voxel."""
    filled = np.zeros(grid.shape, np.float32)
    reach = np.maximum(tubes.start_radius, tubes.end_radius)[:, None] + grid.width
    low, high = np.minimum(tubes.start, tubes.end) - reach, np.maximum(tubes.start, tubes.end) + reach
    edges = np.array([(a[0], a[-1]) for a in (grid.x, grid.y, grid.z)])
    for n in np.nonzero(((low <= edges[:, 1]) & (high >= edges[:, 0])).all(axis=1))[0]:
        box = grid.box(low[n], high[n])
        x, y, z = (
            (a - c).astype(np.float32)
            for a, c in zip((grid.x[box[2]], grid.y[box[1]], grid.z[box[0]]), tubes.start[n], strict=True)
        )
        if 0 in (len(x), len(y), len(z)):
            continue
        z, y = z[:, None, None], y[:, None]
        run = (tubes.end[n] - tubes.start[n]).astype(np.float32)
        along = np.clip((z * run[2] + y * run[1] + x * run[0]) / max(run @ run, np.float32(1e-9)), 0, 1)
        distance = (x - along * run[0]) ** 2
        distance += (y - along * run[1]) ** 2
        distance += (z - along * run[2]) ** 2
        np.sqrt(distance, out=distance)
        along *= np.float32(tubes.end_radius[n] - tubes.start_radius[n])
        along += np.float32(tubes.start_radius[n])
        along -= distance
        along *= np.float32(1 / grid.width)
        along += np.float32(0.5)
        view = filled[box]
        np.maximum(view, np.minimum(along, 1), out=view)
    return filled


def paint_tubes(hu: np.ndarray, grid: Grid, tubes: Tubes, tube_hu: float) -> None:
    """Fill `tubes` with `tube_hu`, in place."""
    hu += coverage(grid, tubes) * (np.float32(tube_hu) - hu)


def paint_airways(hu: np.ndarray, grid: Grid, lumens: Tubes, wall_hu: float, air_hu: float) -> None:
    """Airway walls around `lumens`, and air in them, in place; the lumens stay open where branches meet."""
    outer = Tubes(
        lumens.start,
        lumens.end,
        lumens.start_radius + wall_thickness(2 * lumens.start_radius),
        lumens.end_radius + wall_thickness(2 * lumens.end_radius),
    )
    paint_tubes(hu, grid, outer, wall_hu)
    paint_tubes(hu, grid, lumens, air_hu)


def _bezier(start: np.ndarray, bend: np.ndarray, end: np.ndarray, radius: float) -> tuple[np.ndarray, np.ndarray]:
    """A quadratic curve in pieces about as long as it is wide, tapering by a tenth."""
    pieces = int(np.clip(np.linalg.norm(end - start) / max(2 * radius, 0.4), 2, 10))
    t = np.linspace(0, 1, pieces + 1)
    points = np.outer((1 - t) ** 2, start) + np.outer(2 * t * (1 - t), bend) + np.outer(t**2, end)
    return points, radius * (1.05 - 0.1 * t)
