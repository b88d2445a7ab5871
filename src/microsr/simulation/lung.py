"""A simulated lung with a tumour, as a function of space: HU on any regular grid, from clinical pixels down to uCT
voxels.

The lung is drawn once, from one random stream; `Lung.draw` then evaluates it wherever it is asked to, so that a
clinical scan, its truth and a uCT specimen show the same tissue. Structures thinner than a voxel (alveolar walls are
about 10 um) appear as partial volume: the tissue they hold is the same on every grid. Lengths in mm; coordinates x, y,
z about the centre.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from microsr.physics.tissues import Tissue
from microsr.simulation import trees, tubes
from microsr.simulation.alveoli import Foam
from microsr.simulation.grid import Canvas, Grid, SmoothField
from microsr.simulation.septa import Septa
from microsr.simulation.tumour import Tumour

AIR_HU = -1000.0
BLOOD_HU = 45.0
AIRWAY_WALL_HU = 25.0
MUSCLE_HU, FAT_HU = 50.0, -95.0


@dataclass(frozen=True)
class Parameters:
    """What differs from lung to lung, beside the course of its branches; each drawn evenly from the range given."""

    tissue_share: float
    """Alveolar walls with their capillaries in the parenchyma: 0.12 to 0.145, -875 to -848 HU without vessels."""
    alveolus_mm3: float
    """Mean alveolar volume: 0.0036 to 0.0048 mm^3 (Ochs et al. 2004: 0.0042)."""
    terminal_mm: float
    """Lumen of a terminal bronchiole: 0.62 to 0.70 mm (Litzlbauer: 0.66)."""
    pi10_mm: float
    """Wall of an airway whose lumen has a circumference of 10 mm: 0.44 to 0.49 mm."""
    artery_ratio: float
    """Artery diameter over the lumen of its airway: 0.9 to 1.15 (k: about equal)."""
    lobule_mm: float
    """Distance of interlobular septa: 11 to 18 mm (k: 10 to 20)."""
    tumour_mm: float
    """Diameter of the solid tumour: 6 to 12 mm, at most a fifth of the field."""
    glass_share: float
    """Tissue share in the ground glass around it: 0.36 to 0.48, -624 to -498 HU."""
    glass_mm: float
    """Depth of the ground glass: 1.5 to 3.5 mm."""

    @classmethod
    def draw(cls, field: float, rng: np.random.Generator) -> Parameters:
        """Parameters of one lung in a field of so many mm."""
        ranges = {
            "tissue_share": (0.12, 0.145),
            "alveolus_mm3": (0.0036, 0.0048),
            "terminal_mm": (0.62, 0.70),
            "pi10_mm": (0.44, 0.49),
            "artery_ratio": (0.9, 1.15),
            "lobule_mm": (11, 18),
            "tumour_mm": (6, 12),
            "glass_share": (0.36, 0.48),
            "glass_mm": (1.5, 3.5),
        }
        values = {name: float(rng.uniform(*bounds)) for name, bounds in ranges.items()}
        values["tumour_mm"] = min(values["tumour_mm"], 0.2 * field)
        return cls(**values)


class Lung:
    """The lung of one simulated patient, in a square field of soft tissue, around a slab of slices.

    field: in-plane side, mm. depth: thickness of the slab that will be scanned, mm.
    """

    def __init__(self, field: float, depth: float, rng: np.random.Generator) -> None:
        self.field, self.depth = field, depth
        self.parameters = Parameters.draw(field, rng)
        self.half_axes = field * rng.uniform(0.452, 0.468, 2)
        self._power = rng.uniform(2.5, 3.2)
        self._outline = SmoothField(0.4 * field, rng)
        self._gravity = rng.uniform(0.05, 0.1) / field
        self._patchy = [(SmoothField(14.0, rng), 0.04), (SmoothField(3.0, rng), 0.05), (SmoothField(1.2, rng), 0.05)]
        self._fat, self._fibres = SmoothField(13.0, rng), SmoothField(2.5, rng)
        self._foam_rng = rng.spawn(1)[0]
        self._grow(rng)
        angle, out = rng.uniform(0, 2 * np.pi), rng.uniform(0.35, 0.6)
        centre = np.array([*(out * self.half_axes * (np.cos(angle), np.sin(angle))), rng.uniform(-0.25, 0.25) * depth])
        chosen = self.parameters
        self.tumour = Tumour(
            centre, chosen.tumour_mm, chosen.glass_share, chosen.tissue_share, chosen.glass_mm, BLOOD_HU, AIR_HU, rng
        )

    def _grow(self, rng: np.random.Generator) -> None:
        """Bronchi with arteries come up from below the slab, veins leave above it, so that the trunks stay outside."""
        chosen = self.parameters
        a, b = self.half_axes
        far, near = self.depth / 2 + min(rng.uniform(14, 20), self.field / 3), self.depth / 2 + 5
        count = int(4 * a * b * (far + near) / trees.ACINUS_MM3 * trees.POINTS_PER_ACINUS)
        visible = (-self.depth / 2 - 2, self.depth / 2 + 2)

        def tree(below: float) -> trees.Tree:
            points = rng.uniform(-1, 1, (count, 2))
            points = points[(np.abs(points) ** self._power).sum(axis=1) < 0.97] * (a, b)
            height = rng.uniform(-far, near, (len(points), 1)) * below
            root = np.array([side * rng.uniform(0.5, 0.9) * a, rng.uniform(-0.4, 0.4) * b, -1.1 * far * below])
            return trees.grow(np.hstack([points, height]), root, visible, rng, chosen.lobule_mm**3 / trees.ACINUS_MM3)

        side, below = rng.choice([-1, 1], 2)
        bronchial = tree(below)
        self.airways, arteries = trees.bundles(bronchial, chosen.terminal_mm, chosen.pi10_mm, chosen.artery_ratio, rng)
        self._vessels = tubes.Tubes.join([arteries, trees.veins(tree(-below), chosen.terminal_mm, self.airways)])
        extent = np.array([a, b, self.depth / 2 + 1])
        self._septa = Septa(np.array(bronchial.lobules), -extent, extent, rng)

    @cached_property
    def _foam(self) -> Foam:
        return Foam(self._foam_rng, self.parameters.alveolus_mm3)

    def render(self, grid: Grid, foam: bool = True, offset_hu: float = 0.0) -> np.ndarray:
        """HU, float32 [slices, rows, columns], on `grid` (see `draw`)."""
        return self.draw(grid, foam, offset_hu=offset_hu).hu

    def draw(self, grid: Grid, foam: bool = True, labelled: bool = False, offset_hu: float = 0.0) -> Canvas:
        """HU on `grid`, and the tissues if `labelled`; memory about 8 times the HU.

        foam: False leaves the alveoli out and shows their mean instead, which is quick and good for coarse grids.
        offset_hu: of the parenchyma alone, by more tissue in its walls, as in a lung that holds less air.
        """
        density = np.full(grid.shape, self.parameters.tissue_share + offset_hu / (BLOOD_HU - AIR_HU), np.float32)
        density *= (1 + self._gravity * grid.y).astype(np.float32)[:, None]
        for field, amount in self._patchy:
            density *= 1 + np.float32(amount) * field(grid)
        if foam:
            density *= self._foam(grid)
        np.minimum(density, 1, out=density)
        density *= np.float32(BLOOD_HU - AIR_HU)
        density += np.float32(AIR_HU)
        canvas = Canvas(grid, density, labelled)
        self.tumour.paint_glass(canvas)
        self._septa.paint(canvas)
        tubes.paint_vessels(canvas, self._vessels, BLOOD_HU)
        tubes.paint_vessels(canvas, self.tumour.spicules, self.tumour.hu, Tissue.TUMOUR)
        tubes.paint_airways(canvas, self.airways, AIRWAY_WALL_HU, AIR_HU)
        self.tumour.paint_solid(canvas)
        self._enclose(canvas)
        return canvas

    def crossings(self, z: float) -> dict[str, np.ndarray]:
        """The airway lumens that the plane at `z` cuts, wholly inside the lung and outside the tumour
        (`simulation.tubes.crossings`).
        """
        found = tubes.crossings(self.airways, z)
        kept = []
        for x, y, diameter in zip(found["x_mm"], found["y_mm"], found["diameter_mm"], strict=True):
            at = Grid(np.array([x]), np.array([y]), np.array([z]), (0.1, 0.1, 0.1))
            clear = min(self.depth_inside(at).item(), self.tumour.distance(at).item())
            kept.append(clear > diameter / 2)
        return {name: values[np.array(kept, bool)] for name, values in found.items()}

    def depth_inside(self, grid: Grid) -> np.ndarray:
        """Distance from the pleura into the lung, mm, negative outside (exact near the pleura only)."""
        a, b = self.half_axes
        radius = (np.abs(grid.y[:, None] / b) ** self._power + np.abs(grid.x / a) ** self._power) ** (1 / self._power)
        inside = ((1 - radius) * min(a, b)).astype(np.float32)
        return inside - np.float32(0.012 * self.field) * np.tanh(self._outline(grid))

    def _enclose(self, canvas: Canvas) -> None:
        """The chest wall: pleura and muscle, fat further out."""
        grid, inside = canvas.grid, self.depth_inside(canvas.grid)
        outside = np.clip(0.5 - inside / np.float32(grid.width), 0, 1)
        rows, columns = np.nonzero((outside > 0).any(axis=0))
        depth = -inside[:, rows, columns]
        fat = np.clip((self._fat(grid)[:, rows, columns] + 0.3) * 3, 0, 1) * np.clip(depth - 1.2, 0, 1)
        wall = MUSCLE_HU + 12 * self._fibres(grid)[:, rows, columns] + fat * (FAT_HU - MUSCLE_HU)
        view = canvas.hu[:, rows, columns]
        canvas.hu[:, rows, columns] = view + outside[:, rows, columns] * (wall - view)
        if canvas.labels is not None:
            canvas.labels[inside < 0] = Tissue.OUTSIDE
