"""A uCT volume on its new grid, calibrated and with the mask of its specimen, slice by slice."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from microsr.preprocessing.calibration import Mapping
from microsr.preprocessing.components import unpack
from microsr.preprocessing.hounsfield import as_int16
from microsr.preprocessing.masks import Padding
from microsr.preprocessing.resampling import Axis, gather_planes, in_plane
from microsr.volume.slices import Slices, in_order

MOST_OUTSIDE = 0.02
"""A new voxel of which a greater share is outside the field of view is air."""


class Plane(NamedTuple):
    """A slice in the new grid's rows and columns: grey values, and the shares (or masks) outside the field and of
    specimen.

    None: nowhere.
    """

    grey: np.ndarray
    outside: np.ndarray | None
    specimen: np.ndarray | None


class Stack(NamedTuple):
    """What a new slice is made of: its number, and the numbers and planes of old slices."""

    new: int
    old: np.ndarray
    planes: list[Plane]


class Regridded:
    """A uCT volume of grey values on a new grid, in HU.

    array: grey values [slices, rows, columns]. specimen: its mask, bool, of the same shape. axes: x, y, z. air_hu:
    value outside the field of view.
    """

    def __init__(
        self,
        array: Slices,
        padding: Padding,
        specimen: Slices,
        axes: tuple[Axis, Axis, Axis],
        mapping: Mapping,
        air_hu: float,
    ) -> None:
        self._array, self._padding, self._specimen = array, padding, specimen
        self._x, self._y, self._z = axes
        self._mapping, self._air = mapping, as_int16(np.array([air_hu]))
        self._unchanged = all(axis.weights is None for axis in axes)
        self._outside = functools.lru_cache(maxsize=4)(lambda packed: self._cover(unpack(packed, array.shape[1:])))
        self.shape = tuple(axis.size for axis in axes[::-1])

    def stacks(self) -> Iterator[Stack]:
        """What each new slice is made of, from the first to the last; for `finish_slice`."""
        planes = in_order(self._plane, range(len(self._array)))
        return (Stack(new, *old) for new, old in enumerate(gather_planes(planes, self._z.weights)))

    def finish_slice(self, stack: Stack) -> tuple[np.ndarray, np.ndarray, int]:
        """HU (int16) and specimen mask (bool) of a new slice, and the number of voxels in the specimen."""
        weights, cover = None, None
        if self._z.weights is not None:
            weights, cover = (kind[stack.new, stack.old] for kind in (self._z.weights, self._z.cover))
        grey, outside, specimen = zip(*stack.planes, strict=True)
        hu = as_int16(self._mapping(_combine(grey, weights)))
        mask = _lie_above(0.5, _combine(specimen, cover), hu.shape)
        beyond = _lie_above(MOST_OUTSIDE, _combine(outside, cover), hu.shape)
        if beyond.any():
            hu[beyond] = self._air
            mask &= ~beyond
        return hu, mask, np.count_nonzero(mask)

    def _plane(self, z: int) -> Plane:
        grey, packed = self._array[z], self._padding.packed_slice(z)
        specimen = self._specimen[z]
        if not self._unchanged:
            grey = in_plane(grey, self._y.weight_bands, self._x.weight_bands)
        return Plane(grey, self._outside(packed) if packed else None, self._cover(specimen) if specimen.any() else None)

    def _cover(self, mask: np.ndarray) -> np.ndarray:
        """A mask as shares of the new pixels; where the grid is the old one, as it is."""
        return mask if self._unchanged else in_plane(mask, self._y.cover_bands, self._x.cover_bands)


def _combine(images: tuple[np.ndarray | None, ...], weights: np.ndarray | None) -> np.ndarray | None:
    """Weighted sum of images, the weights of which sum to one; None: zero everywhere."""
    if weights is None or all(image is images[0] for image in images):
        return images[0]
    return sum(weight * image for weight, image in zip(weights, images, strict=True) if image is not None)


def _lie_above(limit: float, shares: np.ndarray | None, shape: tuple[int, int]) -> np.ndarray:
    """Where shares, or a mask, are above a limit between 0 and 1."""
    if shares is None:
        return np.zeros(shape, bool)
    return shares if shares.dtype == bool else shares > limit
