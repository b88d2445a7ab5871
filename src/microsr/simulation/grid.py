"""Regular grids, smooth random fields on them, and the partial volume of thin sheets: what the simulated lung is drawn
with.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from microsr.physics.tissues import Tissue

EVERYWHERE = (slice(None),) * 3


@dataclass(frozen=True)
class Grid:
    """A regular grid: centres of its voxels along each axis, mm, and its voxel size (x, y, z), mm."""

    x: np.ndarray
    y: np.ndarray
    z: np.ndarray
    spacing: tuple[float, float, float]

    @classmethod
    def around(
        cls, centre: tuple[float, float, float], spacing: tuple[float, float, float], shape: tuple[int, int, int]
    ) -> Grid:
        """A grid of `shape` (slices, rows, columns) about `centre` (x, y, z)."""
        x, y, z = (c + s * (np.arange(n) - (n - 1) / 2) for c, s, n in zip(centre, spacing, shape[::-1], strict=True))
        return cls(x, y, z, spacing)

    @property
    def shape(self) -> tuple[int, int, int]:
        """Slices, rows, columns."""
        return len(self.z), len(self.y), len(self.x)

    @property
    def width(self) -> float:
        """Side of a cube as large as a voxel, mm: the width over which a surface is blurred by partial volume."""
        return float(np.prod(self.spacing) ** (1 / 3))

    def planes(self, start: int, stop: int) -> Grid:
        """The slices start to stop (excluded)."""
        return Grid(self.x, self.y, self.z[start:stop], self.spacing)

    def box(self, low: np.ndarray, high: np.ndarray) -> tuple[slice, slice, slice]:
        """Indices (slices, rows, columns) of the voxels between two corners (x, y, z)."""
        return tuple(
            slice(*np.searchsorted(a, (lo, hi)))
            for a, lo, hi in zip((self.z, self.y, self.x), low[::-1], high[::-1], strict=True)
        )

    def cut(self, box: tuple[slice, slice, slice]) -> Grid:
        """The voxels in `box`, as `box` gives them."""
        return Grid(self.x[box[2]], self.y[box[1]], self.z[box[0]], self.spacing)


class Canvas:
    """What is drawn on a grid: HU, float32, and, if wanted, the tissue at each voxel's centre, uint8; [slices, rows,
    columns].
    """

    def __init__(self, grid: Grid, hu: np.ndarray, labelled: bool = False) -> None:
        self.grid, self.hu = grid, hu
        self.labels = np.full(grid.shape, Tissue.PARENCHYMA, np.uint8) if labelled else None

    def blend(
        self,
        share: np.ndarray,
        hu: np.ndarray | float,
        tissue: Tissue,
        place: tuple[slice | np.ndarray, ...] = EVERYWHERE,
        at_centre: np.ndarray | None = None,
    ) -> None:
        """Replace the given share of each voxel in `place` (a box, or indices) by a tissue of `hu`.

        at_centre: which voxels have that tissue at their centre; the default, half filled ones, holds for what is
        thicker than a voxel.
        """
        before = self.hu[place]
        self.hu[place] = before + share * (np.float32(hu) - before)
        if self.labels is not None:
            inside = share >= 0.5 if at_centre is None else at_centre
            self.labels[place] = np.where(inside, np.uint8(tissue), self.labels[place])


class SmoothField:
    """A random smooth function of space with mean 0 and SD 1: a sum of plane waves about one wavelength."""

    def __init__(self, wavelength: float, rng: np.random.Generator, waves: int = 10) -> None:
        directions = rng.normal(size=(waves, 3))
        directions /= np.linalg.norm(directions, axis=1, keepdims=True)
        self._k = directions * (2 * np.pi / wavelength) * rng.uniform(0.7, 1.4, (waves, 1))
        self._phase = rng.uniform(0, 2 * np.pi, waves)

    def __call__(self, grid: Grid) -> np.ndarray:
        """Values [slices, rows, columns], float32. On a grid a plane wave is a product of three factors: a matrix
        product.
        """
        kx, ky, kz = self._k.T
        x = np.exp(1j * np.outer(kx, grid.x))
        yz = np.exp(1j * (kz * grid.z[:, None] + self._phase))[:, None, :] * np.exp(1j * np.outer(grid.y, ky))
        left = np.concatenate([yz.real, -yz.imag], axis=2).astype(np.float32)
        right = np.concatenate([x.real, x.imag]).astype(np.float32)
        return left @ (right * np.float32(np.sqrt(2 / len(kx))))


def sheet_share(distance: np.ndarray, thickness: np.ndarray | float, width: float) -> np.ndarray:
    """Share of a voxel of `width` covered by a sheet of `thickness` whose middle is at `distance` (all mm, exact if
    parallel).
    """
    overlap = (thickness + width) / 2 - distance
    return np.clip(overlap / width, 0, np.minimum(thickness / width, 1))
