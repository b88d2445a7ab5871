"""A mask by values: the voxels of a volume within a range, closed, filled and without small parts."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from microsr.core.errors import UserError
from microsr.preprocessing.components import Components, Masks, Runs
from microsr.preprocessing.masks import are_large, block_sums, close, select_components
from microsr.volume.slices import Slices, in_order

if TYPE_CHECKING:
    from microsr.config import ClinicalVolume, MicroVolume


def values_outline(
    volume: np.ndarray | Slices,
    pixel: tuple[float, float],
    settings: ClinicalVolume | MicroVolume,
    padding: np.ndarray | Slices,
    factor: int = 1,
    independent: bool = False,
) -> Masks:
    """Where a volume's values lie within `settings.mask_range`, by the means of factor x factor pixels.

    volume: [slices, rows, columns]. pixel: x, y, mm. padding: true outside the field of view; such blocks are outside,
    if it is most of them. independent: the slices do not belong together. In each slice gaps up to `closing_mm` are
    closed and holes up to `fill_mm` filled; of the connected parts those smaller than
    `preprocessing.masks.SMALLEST_COMPONENT` of the largest are dropped. Returns bool [slices, rows / factor, columns /
    factor], rounded up.

    Raises
    ------
    UserError
        No voxel lies within the range (no file name: the caller knows it).
    """
    lowest, highest = settings.mask_range
    coarse = (math.ceil(volume.shape[1] / factor), math.ceil(volume.shape[2] / factor))
    outline, components = Masks((len(volume), *coarse)), Components()
    wide = (factor * pixel[0], factor * pixel[1])

    def find(z: int) -> tuple[Runs, float, float]:
        grey, outside = volume[z], padding[z]
        mean, field = (grey, ~outside) if factor == 1 else _block_means(grey, outside, factor)
        mask = (mean >= lowest) & (mean <= highest) & field
        runs = Runs.of(close(mask, wide, settings) if mask.any() else mask)
        runs = runs.select(are_large(runs.component_sizes)) if independent else runs
        outline[z] = runs.paint()
        return runs, grey.min(), grey.max()

    low, high = math.inf, -math.inf
    for runs, least, most in in_order(find, range(len(volume))):
        components.add(runs)
        low, high = min(low, least), max(high, most)
    if not components.sizes.size:
        raise UserError(
            f"no voxel lies within mask_range, {lowest:g} to {highest:g}; its values are {low:g} to {high:g}: correct "
            "the range"
        )
    if not independent:
        keep = are_large(components.sizes)
        for z in range(len(outline)):
            outline[z] = select_components(outline[z], components.of_slice(z), keep)
    return outline


def _block_means(grey: np.ndarray, outside: np.ndarray, factor: int) -> tuple[np.ndarray, np.ndarray]:
    """Means within the field of view, and which blocks are mostly in it."""
    inside = block_sums(~outside, factor)
    sums = block_sums(np.where(outside, np.zeros((), grey.dtype), grey), factor)
    return sums / np.maximum(inside, 1), inside > factor**2 / 2
