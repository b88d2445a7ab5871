"""Branching trees of the simulated lung: airways with their arteries, and veins.

A tree is grown by dividing the tissue it supplies: a branch runs towards the centre of its territory, the territory is
cut in two across its longest extent, and each half gets a daughter (the space-filling idea of Tawhai and of Kitaoka).
Conducting diameters follow Murray's law, d ~ (supplied volume)^(1/3), which makes a daughter 0.79 of its parent in an
even division; a territory of one acinus has the terminal bronchiole.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from scipy.spatial import cKDTree

from microsr.simulation.tubes import Tubes

ACINUS_MM3 = 130.0
"""Tissue supplied by one terminal bronchiole (Litzlbauer)."""
POINTS_PER_ACINUS = 8
"""Trees are followed this far into the acinus: three generations of respiratory bronchioles with their arteries."""
ACINAR_RATIO = 0.94
"""Daughter over parent diameter in the acinus: 0.66 to 0.34 mm within 11 generations (Litzlbauer)."""
ACINAR_WALL_MM = 0.05
"""Wall of a respiratory bronchiole, half alveoli (k)."""
PI10_LUMEN_MM = 10 / np.pi
"""Lumen whose circumference is 10 mm, at which Pi10 states the airway wall's thickness."""


@dataclass(frozen=True)
class Branch:
    """One branch: its centre line [m, 3] (mm), a taper [m] about 1, the acini it supplies, and its generation (0:
    trunk).
    """

    points: np.ndarray
    taper: np.ndarray
    acini: float
    generation: int


@dataclass
class Tree:
    """The branches of a tree, trunk first, and the centres [n, 3] of the lobules that it supplies."""

    branches: list[Branch] = field(default_factory=list)
    lobules: list[np.ndarray] = field(default_factory=list)


def grow(
    points: np.ndarray,
    root: np.ndarray,
    visible: tuple[float, float],
    rng: np.random.Generator,
    lobule_acini: float = 20.0,
) -> Tree:
    """Grow a tree that supplies `points`.

    points: [n, 3] mm, POINTS_PER_ACINUS for each acinus of tissue. root: where the trunk starts. visible: range of z,
    mm; branches whose territory stays away from it are left out. lobule_acini: size of a lobule.
    """
    tree = Tree()
    trunk = points.mean(axis=0) - root
    todo = [(points, root, trunk / np.linalg.norm(trunk), 0, False)]
    while todo:
        territory, start, heading, generation, within_lobule = todo.pop()
        centre = territory.mean(axis=0)
        acini = len(territory) / POINTS_PER_ACINUS
        if not within_lobule and acini <= lobule_acini:
            within_lobule = True
            tree.lobules.append(centre)
        reach = np.append(territory[:, 2], start[2])
        hidden = reach.max() < visible[0] or reach.min() > visible[1]
        if hidden and within_lobule:
            continue
        reached = rng.uniform(0.45, 0.57) if acini >= 1 else rng.uniform(0.35, 0.5)
        end = start + reached * (centre - start)
        length = np.linalg.norm(end - start)
        if length < 1e-3:
            continue
        bend = start + heading * length * 0.45 + rng.normal(0, 0.06 * length, 3)
        if not hidden:
            tree.branches.append(Branch(*_bezier(start, bend, end, lumen_diameter(acini)), acini, generation))
        if len(territory) == 1:
            continue
        heading = (end - bend) / np.linalg.norm(end - bend)
        upper = _upper_half(territory - centre, heading, rng.uniform(0.36, 0.64))
        for half in (upper, ~upper):
            todo.append((territory[half], end, heading, generation + 1, within_lobule))
    return tree


def _upper_half(offsets: np.ndarray, heading: np.ndarray, share: float) -> np.ndarray:
    """Which points lie beyond a cut along `heading`, across their longest extent; both sides get some."""
    across = offsets - np.outer(offsets @ heading, heading)
    axis = np.linalg.eigh(across.T @ across)[1][:, -1]
    order = np.argsort(np.argsort(across @ axis, kind="stable"))
    return order >= np.clip(round(share * len(offsets)), 1, len(offsets) - 1)


def murray_diameter(acini: float, terminal_mm: float = 0.66) -> float:
    """Diameter, mm, of a branch that supplies this many acini (Murray's law)."""
    return terminal_mm * acini ** (1 / 3)


def lumen_diameter(acini: float, terminal_mm: float = 0.66) -> float:
    """Airway lumen, mm: Murray's law down to the terminal bronchiole, the acinus's slower fall beyond."""
    if acini >= 1:
        return murray_diameter(acini, terminal_mm)
    return terminal_mm * ACINAR_RATIO ** -np.log2(acini)


def wall_thickness(lumen_mm: float, pi10_mm: float = 0.465) -> float:
    """Wall, mm, of a conducting airway: in proportion to its lumen, `pi10_mm` where the lumen's circumference is 10 mm.

    So 0.10 mm in a terminal bronchiole and 0.15 mm at 1 mm lumen.
    """
    return pi10_mm * lumen_mm / PI10_LUMEN_MM


def bundles(
    tree: Tree, terminal_mm: float, pi10_mm: float, artery_ratio: float, rng: np.random.Generator
) -> tuple[Tubes, Tubes]:
    """The airways of `tree` (lumens with walls), and the arteries that run beside them.

    artery_ratio: artery diameter over airway lumen; in the acinus arteries follow Murray's law.
    """
    beside = rng.normal(size=3)
    lumens, arteries = [], []
    for branch in tree.branches:
        lumen = lumen_diameter(branch.acini, terminal_mm) / 2 * branch.taper
        artery = artery_ratio * murray_diameter(branch.acini, terminal_mm) / 2 * branch.taper
        wall = wall_thickness(2 * lumen.mean(), pi10_mm) if branch.acini >= 1 else ACINAR_WALL_MM
        tangent = np.gradient(branch.points, axis=0)
        tangent /= np.linalg.norm(tangent, axis=1, keepdims=True)
        away = beside - (tangent @ beside)[:, None] * tangent
        away /= np.linalg.norm(away, axis=1, keepdims=True) + 0.1
        arteries.append(Tubes.from_curve(branch.points + away * (lumen + wall + artery)[:, None], artery))
        lumens.append(Tubes.from_curve(branch.points, lumen, wall, branch.generation))
    return Tubes.join(lumens), Tubes.join(arteries)


def veins(tree: Tree, terminal_mm: float, airways: Tubes) -> Tubes:
    """The veins of `tree`, which keep away from `airways` and the arteries beside them: they run between the
    bundles.
    """
    middles = cKDTree((airways.start + airways.end) / 2)
    bundle = 3.5 * airways.outer_radius
    found = []
    for branch in tree.branches:
        radius = murray_diameter(branch.acini, terminal_mm) / 2 * branch.taper
        distance, nearest = middles.query(branch.points)
        push = np.maximum(bundle[nearest] - distance, 0) / np.maximum(distance, 1e-3)
        away = branch.points - middles.data[nearest]
        found.append(Tubes.from_curve(branch.points + push[:, None] * away, radius))
    return Tubes.join(found)


def _bezier(start: np.ndarray, bend: np.ndarray, end: np.ndarray, width: float) -> tuple[np.ndarray, np.ndarray]:
    """A quadratic curve in pieces about as long as it is wide, with a taper of a tenth."""
    pieces = int(np.clip(np.linalg.norm(end - start) / max(width, 0.4), 2, 10))
    t = np.linspace(0, 1, pieces + 1)
    points = np.outer((1 - t) ** 2, start) + np.outer(2 * t * (1 - t), bend) + np.outer(t**2, end)
    return points, 1.05 - 0.1 * t
