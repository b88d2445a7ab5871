"""uCT on another grid: anti-aliased resampling to the clinical pixel size / 8, or plain averaging of pixels.

Both are separable, one weight matrix an axis, so that a volume goes through slice by slice.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Axis:
    """One axis of the new grid: weights [new, old] (None: unchanged) and the new spacing, mm."""

    weights: np.ndarray | None
    spacing: float
    size: int

    @property
    def cover(self) -> np.ndarray | None:
        """Shares of the old pixels in the new ones, none negative, rows sum to 1."""
        if self.weights is None:
            return None
        positive = np.abs(self.weights)
        return positive / positive.sum(axis=1, keepdims=True)


def unchanged(size: int, spacing: float) -> Axis:
    """The axis as it is."""
    return Axis(None, spacing, size)


def averaged(size: int, spacing: float, count: int) -> Axis:
    """Means of `count` neighbours; an incomplete last group is left out."""
    if count == 1:
        return unchanged(size, spacing)
    new = size // count
    weights = np.repeat(np.eye(new, dtype=np.float32) / np.float32(count), count, axis=1)
    return Axis(np.pad(weights, ((0, 0), (0, size - new * count))), spacing * count, new)


def resampled(size: int, spacing: float, target: float) -> Axis:
    """Anti-aliased resampling to `target` mm: Keys' cubic kernel (a = -0.5), widened by the reduction.

    The new grid starts at the same edge as the old one and stays within it.
    """
    scale = target / spacing
    new = int(np.floor(size / scale + 1e-6))
    centres = (np.arange(new) + 0.5) * scale - 0.5
    weights = _keys((np.arange(size)[None, :] - centres[:, None]) / max(scale, 1.0))
    weights /= weights.sum(axis=1, keepdims=True)
    return Axis(weights.astype(np.float32), target, new)


def _keys(t: np.ndarray) -> np.ndarray:
    """Cubic convolution kernel (Keys 1981), a = -0.5."""
    t = np.abs(t)
    inner = (1.5 * t - 2.5) * t**2 + 1
    outer = ((-0.5 * t + 2.5) * t - 4) * t + 2
    return np.where(t <= 1, inner, np.where(t < 2, outer, 0.0))


def apply(load: Callable[[int], np.ndarray], rows: np.ndarray | None, columns: np.ndarray | None, slices: np.ndarray | None,
          count: int) -> Iterator[np.ndarray]:  # fmt: skip
    """Slices of the new grid, float32, one after the other.

    load: gives an old slice [rows, columns] by its index; each is asked for once, in order. rows, columns, slices: weights
    [new, old], None for an unchanged axis. count: number of old slices.
    """
    if slices is None:
        slices = np.eye(count, dtype=np.float32)
    held: dict[int, np.ndarray] = {}
    for weights in slices:
        wanted = np.flatnonzero(weights)
        for z in [z for z in held if z < wanted[0]]:
            del held[z]
        for z in wanted:
            if z not in held:
                held[z] = _in_plane(load(int(z)), rows, columns)
        yield sum(weights[z] * held[z] for z in wanted)


def _in_plane(image: np.ndarray, rows: np.ndarray | None, columns: np.ndarray | None) -> np.ndarray:
    image = image.astype(np.float32)
    if rows is not None:
        image = rows @ image
    return image @ columns.T if columns is not None else image
