"""Which slices a super-resolved volume holds, and whether two volumes lie in the same place: what every comparison
checks first.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from microsr.config import nearest_scale
from microsr.core.errors import UserError
from microsr.volume.slices import Slices
from microsr.volume.storage import Volume, magnified_geometry, open_mask, open_volume

TOLERANCE = 0.1
"""Largest distance, super-resolved pixels, between corners that should coincide; headers in float32 stay far below."""


def check_unit(volume: Volume, path: Path, unit: str = "HU") -> None:
    """Refuse a volume whose values are not in `unit`, as an uncalibrated uCT.

    Raises
    ------
    UserError
        It has another unit.
    """
    if volume.unit != unit:
        how = "; calibrate it (volumes.micro.calibration)" if unit == "HU" else ""
        raise UserError(f"{path} has unit '{volume.unit}', metrics need {unit}{how}")


def open_clinical(path: Path) -> Volume:
    """An imported clinical CT, open.

    Raises
    ------
    UserError
        It is no volume of the working format, or not in HU.
    """
    volume = open_volume(path)
    if volume.unit != "HU":
        raise UserError(f"{path} has unit '{volume.unit}', not HU; give a clinical CT")
    return volume


def held_slices(sr: Volume, sr_path: Path, clinical: Volume, clinical_path: Path) -> list[int]:
    """The clinical slices that the super-resolved volume holds, in rising order, from its attribute `slices`.

    Raises
    ------
    UserError
        The attribute does not fit the two volumes.
    """
    slices = sr.attributes.get("slices")
    known = range(clinical.shape[0])
    if slices is None or len(slices) != sr.shape[0] or sorted({*slices} & {*known}) != slices:
        raise UserError(
            f"{sr_path} holds {sr.shape[0]} slices and says they are {slices} of {clinical_path} "
            f"({clinical.shape[0]} slices); super-resolve it again from that volume"
        )
    return slices


def scale_of(fine: Volume, clinical: Volume) -> int:
    """By how much the pixels of `fine` are smaller than those of `clinical`: the factor, one of SCALES, that is nearest
    to the ratio of their columns; whether it is their ratio `check_input` tells.
    """
    return nearest_scale(fine.shape[2] / clinical.shape[2])


def check_input(sr: Volume, sr_path: Path, clinical: Volume, clinical_path: Path, slices: list[int]) -> int:
    """Refuse a super-resolved volume that does not lie where its input does; arguments as for `held_slices`.

    Returns its scale (`scale_of`).

    Raises
    ------
    UserError
        As `check_overlay`.
    """
    scale = scale_of(sr, clinical)
    grid = Volume(array=None, **magnified_geometry(clinical, scale))
    shape = (clinical.shape[0], scale * clinical.shape[1], scale * clinical.shape[2])
    check_overlay(sr, sr_path, grid, shape, clinical_path, slices)
    return scale


def check_overlay(
    sr: Volume, sr_path: Path, other: Volume, shape: tuple[int, int, int], other_path: Path, slices: list[int]
) -> None:
    """Refuse volumes whose corners are not in the same place.

    other, shape: on the SR grid, all clinical slices. slices: the clinical slices that `sr` holds.

    Raises
    ------
    UserError
        Sizes or corners differ; says by how many mm.
    """
    _, rows, columns = sr.shape
    if (rows, columns) != shape[1:] or max(slices) >= shape[0]:
        raise UserError(
            f"{sr_path} ({rows}x{columns} pixels, up to clinical slice {max(slices)}) and {other_path} "
            f"({shape[1]}x{shape[2]} on the super-resolved grid, {shape[0]} slices) do not overlay; check the sheet's "
            "paths and slices"
        )
    corners = [(0, slices[0], r, c) for r in (0, rows - 1) for c in (0, columns - 1)]
    if slices == list(range(slices[0], slices[0] + len(slices))):  # slices that are apart have no spacing to check
        corners.append((len(slices) - 1, slices[-1], 0, 0))
    gap = max(np.linalg.norm(sr.point((i, r, c)) - other.point((z, r, c))) for i, z, r, c in corners)
    if gap > TOLERANCE * min(sr.spacing[:2]):
        raise UserError(
            f"{sr_path} and {other_path} do not overlay: corners are {gap:.3g} mm apart (spacing {_mm(sr.spacing)} and "
            f"{_mm(other.spacing)}, origin {_mm(sr.origin)} and {_mm(other.origin)} on the super-resolved grid); "
            f"give both the same geometry"
        )


def known_region(truth: Path | None) -> Any:
    """Where a truth is known, uint8 [slices, rows, columns], as that of a specimen brought into its CT; None:
    everywhere, or there is no truth.
    """
    return open_mask(truth) if truth is not None and "region" in open_volume(truth).attributes else None


def where_known(mask: Any, truth: Path) -> Any:
    """The pixels of a clinical mask [slices, rows, columns] of which all of the truth is known, read by slice."""
    region = known_region(truth)
    if region is None:
        return mask

    def load(z: int) -> np.ndarray:
        clinical = np.asarray(mask[z]) != 0
        rows, columns = clinical.shape
        scale = region.shape[1] // rows
        return clinical & (np.asarray(region[z]).reshape(rows, scale, columns, scale) != 0).all(axis=(1, 3))

    return Slices(load, mask.shape, bool)


def _mm(values: tuple[float, ...]) -> str:
    return "x".join(f"{v:.6g}" for v in values)
