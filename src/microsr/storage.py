"""A volume and its working format: OME-Zarr 0.5, one chunk row per slice, geometry and mask inside.

Voxels are indexed [slice, row, column]; spacing, origin and direction are in the order x, y, z (column, row, slice) and in
patient coordinates (LPS, mm), as in SimpleITK. OME-Zarr has no direction, so the attribute `microsr` holds the full geometry.
"""

from __future__ import annotations

import shutil
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import zarr

from microsr import SCALE, UserError

IDENTITY = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0)


@dataclass(frozen=True)
class Volume:
    """Voxels with their place in the patient.

    array: [slices, rows, columns]; a NumPy array, or a Zarr array that reads what is indexed (`volume.array[3]`).
    spacing, origin: x, y, z in mm. direction: 3x3 cosines, row by row. unit: "HU" or "grey" (uncalibrated).
    attributes: further plain facts (slice indices, calibration); never a name or an id from a DICOM header.
    """

    array: Any
    spacing: tuple[float, float, float]
    origin: tuple[float, float, float] = (0.0, 0.0, 0.0)
    direction: tuple[float, ...] = IDENTITY
    unit: str = "HU"
    attributes: dict[str, Any] = field(default_factory=dict)

    @property
    def shape(self) -> tuple[int, int, int]:
        """Slices, rows, columns."""
        return self.array.shape

    def point(self, index: tuple[float, float, float]) -> np.ndarray:
        """Patient coordinates (x, y, z in mm) of a fractional voxel index given as (slice, row, column)."""
        offset = np.asarray(index[::-1], float) * self.spacing
        return np.asarray(self.origin) + np.reshape(self.direction, (3, 3)) @ offset

    def slices(self, start: int, stop: int) -> Volume:
        """The slices start to stop (excluded), in place."""
        origin = tuple(float(v) for v in self.point((start, 0, 0)))
        return replace(self, array=self.array[start:stop], origin=origin)


def magnified_geometry(volume: Volume, scale: int = SCALE) -> dict[str, Any]:
    """Spacing, origin and direction of `volume` magnified in-plane: it covers the same area, so that the two overlay.

    The first pixel's centre moves by half the difference of the pixel sizes.
    """
    x, y, z = volume.spacing
    shift = (1 / scale - 1) / 2
    origin = tuple(float(v) for v in volume.point((0, shift, shift)))
    return {"spacing": (x / scale, y / scale, z), "origin": origin, "direction": volume.direction}


def create_volume(
    path: Path, shape: tuple[int, int, int], like: Volume | dict[str, Any], dtype: str = "int16", mask: bool = False
) -> tuple[zarr.Array, zarr.Array | None]:
    """Create an empty volume at `path` (replacing one that is there) and return its voxels and mask, to be filled by slice.

    like: the Volume, or the keyword arguments of one, that gives geometry, unit and attributes.
    """
    facts = (
        like if isinstance(like, dict) else {k: getattr(like, k) for k in Volume.__dataclass_fields__ if k != "array"}
    )
    volume = Volume(array=None, **facts)
    if Path(path).exists():
        shutil.rmtree(path)
    group = zarr.create_group(str(path))
    translation = [float(v) for v in volume.origin[::-1]]
    group.attrs["ome"] = _multiscale("voxels", volume.spacing, translation)
    group.attrs["microsr"] = {
        "spacing": list(map(float, volume.spacing)),
        "origin": list(map(float, volume.origin)),
        "direction": list(map(float, volume.direction)),
        "unit": volume.unit,
        "attributes": volume.attributes,
    }
    chunks = (1, min(shape[1], 1024), min(shape[2], 1024))
    voxels = group.create_array("0", shape=shape, chunks=chunks, dtype=dtype, dimension_names=("z", "y", "x"))
    if not mask:
        return voxels, None
    labels = group.create_group("labels")
    labels.attrs["ome"] = {"version": "0.5", "labels": ["mask"]}
    label = labels.create_group("mask")
    label.attrs["ome"] = {
        **_multiscale("mask", volume.spacing, translation),
        "image-label": {"source": {"image": "../../"}},
    }
    inside = label.create_array("0", shape=shape, chunks=chunks, dtype="uint8", dimension_names=("z", "y", "x"))
    return voxels, inside


def write_volume(path: Path, volume: Volume, mask: np.ndarray | None = None) -> None:
    """Write a volume that is in memory; HU are rounded to int16.

    mask: [slices, rows, columns], true inside the lung or specimen.
    """
    voxels, inside = create_volume(path, volume.shape, volume, mask=mask is not None)
    limits = np.iinfo(np.int16)
    for z in range(volume.shape[0]):
        voxels[z] = np.clip(np.rint(volume.array[z]), limits.min, limits.max).astype(np.int16)
        if mask is not None:
            inside[z] = mask[z].astype(np.uint8)


def open_volume(path: Path) -> Volume:
    """Open a volume in the working format without reading its voxels.

    Raises
    ------
    UserError
        `path` is not such a volume.
    """
    try:
        group = zarr.open_group(str(path), mode="r")
        facts = group.attrs["microsr"]
        array = group["0"]
    except (KeyError, FileNotFoundError, ValueError) as error:
        raise UserError(
            f"{path} is not a volume in the working format ({error}); make it with `microsr volumes`"
        ) from None
    geometry = {key: tuple(facts[key]) for key in ("spacing", "origin", "direction")}
    return Volume(array, **geometry, unit=facts["unit"], attributes=facts["attributes"])


def open_mask(path: Path) -> zarr.Array:
    """The mask of a volume in the working format, uint8 [slices, rows, columns]: 1 inside the lung or specimen."""
    try:
        return zarr.open_group(str(path), mode="r")["labels/mask/0"]
    except (KeyError, FileNotFoundError):
        raise UserError(f"{path} has no mask; make it with `microsr volumes`") from None


def _multiscale(name: str, spacing: tuple[float, ...], translation: list[float]) -> dict[str, Any]:
    transformations = [
        {"type": "scale", "scale": [float(v) for v in spacing[::-1]]},
        {"type": "translation", "translation": translation},
    ]
    axes = [{"name": a, "type": "space", "unit": "millimeter"} for a in "zyx"]
    datasets = [{"path": "0", "coordinateTransformations": transformations}]
    return {"version": "0.5", "multiscales": [{"name": name, "axes": axes, "datasets": datasets}]}
