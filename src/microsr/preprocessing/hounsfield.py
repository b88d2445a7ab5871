"""Clinical CT as int16 HU slice by slice, with the padding outside the reconstructed field as air."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from microsr.core.errors import UserError
from microsr.preprocessing.components import Masks
from microsr.preprocessing.masks import find_padding
from microsr.volume.slices import Slices, in_order, refuse_constant
from microsr.volume.storage import Volume

AIR_HU = -1000
LOWEST_HU = -1500
"""No tissue and no noise in air is below this: padding."""
AERATED_SHARE = 1e-3
"""A CT of the chest in HU has at least this share of voxels below -300 HU."""
HIGHEST_HU = 4000
"""No bone is above this: metal, or a scan that is not in HU."""
METAL_SHARE = 0.01
"""A CT of the chest in HU has at most this share of voxels above HIGHEST_HU: implants have less."""
SMALLEST_SPREAD = 100
"""HU between the lowest and the highest value of any CT: what spreads less is scaled to 0..1 or the like."""


class HuSlices(Slices):
    """HU, int16, of grey values that are HU; `padding`, bool, says where they are outside the field, and set to air."""

    def __init__(self, grey: Slices, padding: Slices) -> None:
        super().__init__(self._hu, grey.shape, np.int16)
        self._grey, self.padding = grey, padding

    def _hu(self, z: int) -> np.ndarray:
        return np.where(self.padding[z], np.int16(AIR_HU), as_int16(self._grey[z]))


def as_int16(values: np.ndarray) -> np.ndarray:
    """Values rounded and clipped to int16."""
    if values.dtype == np.int16:
        return values
    limits = np.iinfo(np.int16)
    whole = np.rint(values) if values.dtype.kind == "f" else values.astype(np.int64)
    return np.clip(whole, limits.min, limits.max, out=whole).astype(np.int16)


def clinical_hu(volume: Volume, where: str, is_chest: bool = True) -> Volume:
    """A clinical CT as a scanner or `read_scan` gives it, in HU: int16, unit "HU", its array `HuSlices`.

    Goes over the slices once, to see whether they are HU and where they are padding; they are read again when asked
    for.
    where: the file or folder, for messages. is_chest: whether there must be lung and hardly any metal.

    Raises
    ------
    UserError
        It is constant, holds values that are no numbers, or is not the HU of a chest CT, or of any.
    """
    declared = volume.attributes.get("source", {}).get("padding")
    # A padding value among the tissues (0, say) cannot be told from tissue and is left as it is.
    fill = (declared,) if declared is not None and declared <= AIR_HU else ()
    # The lowest value of the volume is a padding value too, which is known at the end: it may be in the slices whose
    # own lowest value is below that of all before. For these both possibilities are kept.
    padding, if_lowest = Masks(volume.shape), Masks(volume.shape)
    lowest = np.inf

    def look(z: int) -> tuple[float, float, int, int, int]:
        grey = np.asarray(volume.array[z])
        low, high = grey.min(), grey.max()
        outside = grey < LOWEST_HU
        padding[z] = first = second = outside | find_padding(grey, fill)
        if low <= min(AIR_HU, lowest):
            if_lowest[z] = second = first if low in fill else outside | find_padding(grey, (*fill, low))
        aerated = grey < -300
        counts = (np.count_nonzero(aerated & ~mask) for mask in (first, second))
        return low, high, *counts, np.count_nonzero(grey > HIGHEST_HU)

    found = []
    for seen in in_order(look, range(volume.shape[0])):
        lowest = min(lowest, seen[0])
        found.append(seen)
    lows, highs, aerated, aerated_if_lowest, extreme = map(np.array, zip(*found, strict=True))
    refuse_constant(lows.min(), highs.max(), where)
    holds_lowest = (lows == lows.min()) & (lows <= AIR_HU)
    voxels = np.prod(volume.shape)
    if not is_chest:
        _refuse_no_hu(lows.min(), highs.max(), where)
    elif (
        np.where(holds_lowest, aerated_if_lowest, aerated).sum() < AERATED_SHARE * voxels
        or extreme.sum() > METAL_SHARE * voxels
    ):
        raise UserError(
            f"{where}: values from {lows.min():g} to {highs.max():g} are not the HU of a chest CT (air -1000, water "
            "0); give the scan with its rescale slope and intercept applied (another organ: volumes.clinical.organ, or "
            "--organ, other)"
        )
    known = Slices(lambda z: (if_lowest if holds_lowest[z] else padding)[z], volume.shape, bool)
    return replace(volume, array=HuSlices(volume.array, known), unit="HU")


def _refuse_no_hu(low: float, high: float, where: str) -> None:
    """Refuse values that are no CT's HU, whatever it shows: those of a rock or an implant may be high."""
    if high - low < SMALLEST_SPREAD or low < np.iinfo(np.int16).min or high > np.iinfo(np.int16).max:
        raise UserError(
            f"{where}: values from {low:g} to {high:g} are not HU (air -1000, water 0); give the scan with its rescale "
            "slope and intercept applied"
        )
