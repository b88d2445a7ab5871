"""uCT on another grid: anti-aliased resampling to the clinical pixel size / scale, or plain averaging of pixels.

Both are separable, one weight matrix an axis, so that a volume goes through slice by slice.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import TypeVar

import numpy as np

UPSAMPLING = 0.9
"""Resampling to as little as this share of the voxel size passes for none: it makes no detail."""
BAND = 32
"""New rows or columns that are computed at once, from the old ones that they have a share in."""
ALONE = 1 << 18
"""Products of matrices with at most so many multiplications are computed by one thread (OpenBLAS)."""

Plane = TypeVar("Plane")
Bands = list[tuple[slice, slice, np.ndarray]]
"""Weights in bands: the new part, the old part that it is made of, and the weights [new, old] between them."""


@dataclass(frozen=True)
class Axis:
    """One axis of the new grid: weights [new, old] (None: unchanged) and the new spacing, mm."""

    weights: np.ndarray | None
    spacing: float
    size: int

    @cached_property
    def cover(self) -> np.ndarray | None:
        """Shares of the old pixels in the new ones, none negative, rows sum to 1."""
        if self.weights is None:
            return None
        positive = np.abs(self.weights)
        return positive / positive.sum(axis=1, keepdims=True)

    @cached_property
    def weight_bands(self) -> Bands | None:
        """The weights in bands; None: unchanged."""
        return None if self.weights is None else bands(self.weights)

    @cached_property
    def cover_bands(self) -> Bands | None:
        """`cover` in bands; None: unchanged."""
        return None if self.weights is None else bands(self.cover)


def bands(weights: np.ndarray) -> Bands:
    """Weights [new, old] without most of their zeros."""
    found = []
    for first in range(0, len(weights), BAND):
        part = weights[first : first + BAND]
        used = np.flatnonzero(part.any(axis=0))
        old = slice(int(used[0]), int(used[-1]) + 1)
        found.append((slice(first, first + len(part)), old, np.ascontiguousarray(part[:, old])))
    return found


def identity_axis(size: int, spacing: float) -> Axis:
    """The axis as it is."""
    return Axis(None, spacing, size)


def averaging_axis(size: int, spacing: float, count: int) -> Axis:
    """Means of `count` neighbours; an incomplete last group is left out."""
    if count == 1:
        return identity_axis(size, spacing)
    new = size // count
    weights = np.repeat(np.eye(new, dtype=np.float32) / np.float32(count), count, axis=1)
    return Axis(np.pad(weights, ((0, 0), (0, size - new * count))), spacing * count, new)


def resampling_axis(size: int, spacing: float, target: float) -> Axis:
    """Anti-aliased resampling to `target` mm: Keys' cubic kernel (a = -0.5), widened by the reduction.

    The new grid starts at the same edge as the old one and stays within it.
    """
    scale = target / spacing
    new = int(np.floor(size / scale + 1e-6))
    centres = (np.arange(new) + 0.5) * scale - 0.5
    return Axis(interpolation_weights(size, centres, scale), target, new)


def interpolation_weights(size: int, centres: np.ndarray, scale: float) -> np.ndarray:
    """Weights [centres, size], float32, of places at the old pixels' numbers `centres`, `scale` old pixels wide each.

    Keys' kernel, widened where they are wider than a pixel; rows sum to 1.
    """
    weights = _keys((np.arange(size)[None, :] - np.asarray(centres)[:, None]) / max(scale, 1.0))
    weights /= weights.sum(axis=1, keepdims=True)
    return weights.astype(np.float32)


def _keys(t: np.ndarray) -> np.ndarray:
    """Cubic convolution kernel (Keys 1981), a = -0.5."""
    t = np.abs(t)
    inner = (1.5 * t - 2.5) * t**2 + 1
    outer = ((-0.5 * t + 2.5) * t - 4) * t + 2
    return np.where(t <= 1, inner, np.where(t < 2, outer, 0.0))


def in_plane(image: np.ndarray, rows: Bands | None, columns: Bands | None) -> np.ndarray:
    """A slice [rows, columns] on the new grid, float32; rows, columns: bands of the axes y and x, None if unchanged."""
    image = image.astype(np.float32)
    if rows is not None:
        image = _multiply(rows, image, np.empty((rows[-1][0].stop, image.shape[1]), np.float32))
    if columns is not None:
        new = np.empty((image.shape[0], columns[-1][0].stop), np.float32)
        image = _multiply(columns, image.T, new.T).T
    return image


def _multiply(bands: Bands, image: np.ndarray, new: np.ndarray) -> np.ndarray:
    """Fill `new` with the weights' product with `image`."""
    count = image.shape[1]
    for here, old, weights in bands:
        # Several slices are resampled at once; threads within each product would only wait for each other.
        width = max(1, ALONE // weights.size)
        whole = count // width * width
        if whole:
            np.matmul(weights, _strips(image[old, :whole], width), out=_strips(new[here, :whole], width))
        new[here, whole:] = weights @ image[old, whole:]
    return new


def _strips(image: np.ndarray, width: int) -> np.ndarray:
    """A view of an image [rows, columns] as strips [strip, rows, width]."""
    return image.reshape(len(image), -1, width).swapaxes(0, 1)


def gather_planes(planes: Iterable[Plane], weights: np.ndarray | None) -> Iterator[tuple[np.ndarray, list[Plane]]]:
    """For each new slice the numbers of the old slices that it is made of, and their planes.

    planes: what is known of the old slices, in order; each is taken once, and held for as long as it is needed.
    weights: those of the axis z [new, old], None if it is unchanged.
    """
    coming = enumerate(planes)
    if weights is None:
        yield from ((np.array([z]), [plane]) for z, plane in coming)
        return
    held: dict[int, Plane] = {}
    for row in weights:
        wanted = np.flatnonzero(row)
        held = {z: plane for z, plane in held.items() if z >= wanted[0]}
        while wanted[-1] not in held:
            z, plane = next(coming)
            held[z] = plane
        yield wanted, [held[z] for z in wanted]
