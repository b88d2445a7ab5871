"""Lung parenchyma: alveoli and alveolar ducts as a foam of thin walls, at any voxel size."""

from __future__ import annotations

import numpy as np
from scipy import fft
from scipy.spatial import cKDTree

from microsr.simulation.grid import Grid, SmoothField, sheet_share

ALVEOLUS_MM3 = 0.0042
"""Mean volume of an alveolus (Ochs et al. 2004)."""
ALVEOLI_PER_MM3 = 170.0
"""Ochs et al. 2004; with ALVEOLUS_MM3 they fill 71 % of the parenchyma, alveolar ducts the rest."""
DUCT_SHARE = 1 - ALVEOLI_PER_MM3 * ALVEOLUS_MM3
MOUTH_SHARE = 0.35
"""Share of the faces between an alveolus and a duct that are open."""
CELLS = 20
"""Cells along a side of the tile that is repeated."""
STEPS = 112
"""Voxels along a side of the tile."""


class Foam:
    """Alveoli: a periodic Voronoi foam with alveolar ducts, laid out in space turned and warped so that no repetition
    shows.

    alveolus_mm3: mean volume of a cell. Cells along the crossing of two random wave fields are ducts: the faces between
    them are open, so that they join to branching channels about 0.4 mm wide. The walls' thickness follows from the
    tissue share that the caller multiplies with (about 10 um for 14 %).
    """

    def __init__(self, rng: np.random.Generator, alveolus_mm3: float = ALVEOLUS_MM3) -> None:
        pitch = alveolus_mm3 ** (1 / 3)
        self.tile, self.step = CELLS * pitch, CELLS * pitch / STEPS
        seeds = (np.stack(np.meshgrid(*[np.arange(CELLS)] * 3), axis=-1).reshape(-1, 3) + 0.5) * pitch
        self.seeds = (seeds + rng.normal(0, 0.3 * pitch, seeds.shape)) % self.tile
        self.duct = self._ducts(rng)
        axis = (np.arange(STEPS) + 0.5) * self.step
        points = np.stack(np.meshgrid(axis, axis, axis, indexing="ij"), axis=-1).reshape(-1, 3)
        distance, nearest = cKDTree(self.seeds, boxsize=self.tile).query(points, k=2)
        first, second = nearest.T
        between = np.abs(self.seeds[first] - self.seeds[second])
        between = np.linalg.norm(np.minimum(between, self.tile - between), axis=1)
        to_wall = (distance[:, 1] ** 2 - distance[:, 0] ** 2) / (2 * between)
        thickness = 0.05 * pitch * self._relative_thickness(first, second, rng)
        self._tissue = sheet_share(to_wall, thickness, self.step).reshape(STEPS, STEPS, STEPS).astype(np.float32)
        self._tissue /= self._tissue.mean()
        self._averaged: dict[float, np.ndarray] = {}
        self._turn = np.linalg.qr(rng.normal(size=(3, 3)))[0]
        self._warps = [[(SmoothField(11.0, rng, 6), 0.35), (SmoothField(2.7, rng, 6), 0.06)] for _ in range(3)]

    def _ducts(self, rng: np.random.Generator) -> np.ndarray:
        """Which cells are ducts: DUCT_SHARE of them, along the lines where two random periodic fields vanish."""
        waves = rng.integers(-2, 3, (2, 8, 3))
        phase = rng.uniform(0, 2 * np.pi, (2, 8, 1))
        fields = np.cos(2 * np.pi / self.tile * waves @ self.seeds.T + phase).sum(axis=1)
        away = np.hypot(*(fields / fields.std(axis=1, keepdims=True)))
        return away < np.quantile(away, DUCT_SHARE)

    def _relative_thickness(self, first: np.ndarray, second: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """Walls differ; those within a duct, and some between a duct and its alveoli, are open."""
        low, high = np.minimum(first, second).astype(np.uint64), np.maximum(first, second).astype(np.uint64)
        face = (low * np.uint64(2654435761) + high * np.uint64(40503)) % np.uint64(1021)
        mouth = (rng.random(1021) < MOUTH_SHARE)[face]
        ducts = self.duct[first].astype(np.int8) + self.duct[second]
        opened = (ducts == 2) | ((ducts == 1) & mouth)
        return np.where(opened, 0.0, np.exp(rng.normal(0, 0.4, 1021))[face])

    def __call__(self, grid: Grid) -> np.ndarray:
        """Tissue relative to its mean, so that density times this is a tissue fraction; float32 [slices, rows,
        columns].
        """
        width = round(grid.width, 9)
        if width not in self._averaged:
            self._averaged[width] = self._average_over(width)
        table = self._averaged[width]
        n = len(table)
        index = np.zeros(grid.shape, np.int32)
        for axis, warps in zip(self._turn, self._warps, strict=True):
            place = sum(np.float32(amplitude / self.tile) * field(grid) for field, amplitude in warps)
            place += ((axis[2] * grid.z[:, None] + axis[1] * grid.y) / self.tile).astype(np.float32)[:, :, None]
            place += (axis[0] / self.tile * grid.x).astype(np.float32)
            place -= np.floor(place)
            place *= n
            index *= n
            index += np.minimum(place, n - 1).astype(np.int32)
        return table.ravel()[index]

    def _average_over(self, width: float) -> np.ndarray:
        """The tile averaged over a voxel (a Gaussian of the same variance as a cube) and sampled twice as finely."""
        frequency = np.fft.fftfreq(STEPS, self.step)
        variance = max(width**2 - self.step**2, 0) / 12
        low_pass = np.exp(-2 * (np.pi * frequency) ** 2 * variance)
        half_step = np.exp(-1j * np.pi * frequency * self.step / 2)
        factor = (low_pass * half_step).astype(np.complex64)
        spectrum = fft.fftn(self._tissue) * factor[:, None, None] * factor[:, None] * factor
        fine = np.zeros((2 * STEPS,) * 3, np.complex64)
        place = np.fft.fftfreq(STEPS, 1 / STEPS).astype(int)
        fine[np.ix_(place, place, place)] = spectrum * np.float32(8)
        fine = np.clip(fft.ifftn(fine, overwrite_x=True).real, 0, None)
        return fine / fine.mean()  # what ringing put below zero was cut off
