"""Lung parenchyma: alveoli and alveolar ducts as a foam of thin walls, at any voxel size."""

from __future__ import annotations

import numpy as np
from scipy.spatial import cKDTree

from microsr.space import Grid, SmoothField, sheet_share

ALVEOLI_PER_MM3 = 170.0
"""Ochs et al. 2004."""
ALVEOLAR_WALL_MM = 0.008
FOAM_TILE_MM = 2.4
FOAM_STEP_MM = 0.025


class Foam:
    """Alveoli: a periodic Voronoi foam with alveolar ducts, laid out in space turned and warped so that no repetition shows."""

    def __init__(self, rng: np.random.Generator) -> None:
        cells = round(FOAM_TILE_MM * ALVEOLI_PER_MM3 ** (1 / 3))
        pitch = FOAM_TILE_MM / cells
        seeds = (np.stack(np.meshgrid(*[np.arange(cells)] * 3), axis=-1).reshape(-1, 3) + 0.5) * pitch
        seeds = (seeds + rng.normal(0, 0.27 * pitch, seeds.shape)) % FOAM_TILE_MM
        n = round(FOAM_TILE_MM / FOAM_STEP_MM)
        points = np.stack(np.meshgrid(*[(np.arange(n) + 0.5) * FOAM_STEP_MM] * 3, indexing="ij"), axis=-1)
        distance, nearest = cKDTree(seeds, boxsize=FOAM_TILE_MM).query(points.reshape(-1, 3), k=2)
        first, second = nearest.T
        between = np.abs(seeds[first] - seeds[second])
        between = np.linalg.norm(np.minimum(between, FOAM_TILE_MM - between), axis=1)
        to_wall = (distance[:, 1] ** 2 - distance[:, 0] ** 2) / (2 * between)
        thickness = ALVEOLAR_WALL_MM * self._relative_thickness(seeds, first, second, rng)
        self._tissue = sheet_share(to_wall, thickness, FOAM_STEP_MM).reshape(n, n, n)
        self._tissue /= self._tissue.mean()
        self._averaged: dict[float, np.ndarray] = {}
        self._turn = np.linalg.qr(rng.normal(size=(3, 3)))[0]
        self._warps = [[(SmoothField(11.0, rng, 6), 0.3), (SmoothField(2.7, rng, 6), 0.06)] for _ in range(3)]

    @staticmethod
    def _relative_thickness(
        seeds: np.ndarray, first: np.ndarray, second: np.ndarray, rng: np.random.Generator
    ) -> np.ndarray:
        """Walls differ; those between two cells of the same alveolar duct are open."""
        waves = rng.integers(-2, 3, (2, 5, 3))
        phase = rng.uniform(0, 2 * np.pi, (2, 5, 1))
        fields = np.cos(2 * np.pi / FOAM_TILE_MM * waves @ seeds.T + phase).sum(axis=1)
        duct = np.hypot(*(fields / fields.std(axis=1, keepdims=True))) < 0.62
        low, high = np.minimum(first, second).astype(np.uint64), np.maximum(first, second).astype(np.uint64)
        own = (low * np.uint64(2654435761) + high * np.uint64(40503)) % np.uint64(1021)
        return np.where(duct[first] & duct[second], 0.0, np.exp(rng.normal(0, 0.4, 1021))[own])

    def __call__(self, grid: Grid) -> np.ndarray:
        """Tissue relative to its mean, so that density times this is a tissue fraction; float32 [slices, rows, columns]."""
        width = round(grid.width, 9)
        if width not in self._averaged:
            self._averaged[width] = self._averaged_over(width)
        table = self._averaged[width]
        n = len(table)
        index = np.zeros(grid.shape, np.int32)
        for axis, warps in zip(self._turn, self._warps, strict=True):
            place = sum((amplitude / FOAM_TILE_MM) * field(grid) for field, amplitude in warps)
            place += ((axis[2] * grid.z[:, None] + axis[1] * grid.y) / FOAM_TILE_MM).astype(np.float32)[:, :, None]
            place += (axis[0] / FOAM_TILE_MM * grid.x).astype(np.float32)
            place -= np.floor(place)
            place *= n
            index *= n
            index += np.minimum(place, n - 1).astype(np.int32)
        return table.ravel()[index]

    def _averaged_over(self, width: float) -> np.ndarray:
        """The tile averaged over a voxel (a Gaussian of the same variance as a cube) and sampled twice as finely."""
        n = len(self._tissue)
        frequency = np.fft.fftfreq(n, FOAM_STEP_MM)
        variance = max(width**2 - FOAM_STEP_MM**2, 0) / 12
        low_pass = np.exp(-2 * (np.pi * frequency) ** 2 * variance)
        half_step = np.exp(-1j * np.pi * frequency * FOAM_STEP_MM / 2)
        factor = low_pass * half_step
        spectrum = np.fft.fftn(self._tissue) * factor[:, None, None] * factor[:, None] * factor
        fine = np.zeros((2 * n,) * 3, complex)
        place = np.fft.fftfreq(n, 1 / n).astype(int)
        fine[np.ix_(place, place, place)] = spectrum * 8
        return np.clip(np.fft.ifftn(fine).real, 0, None).astype(np.float32)
