"""A mask that is given: a label volume of any format that is read, or a DICOM segmentation, on the grid of the scan
that it is of.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from microsr.config.sheet import Scan
from microsr.core.errors import UserError
from microsr.formats.images import KINDS
from microsr.formats.readers import read_scan
from microsr.formats.stores import kinds as stores
from microsr.preprocessing.components import Masks
from microsr.volume.slices import in_order
from microsr.volume.storage import Volume

TOLERANCE = 0.1
"""Largest distance, voxels, between a voxel of the scan and one of its mask; headers in float32 stay below."""


def read_mask(path: str, scan: Scan, volume: Volume, scratch: Path | None = None) -> Masks:
    """Read the mask of a scan: true where the label volume at `path` is not 0.

    scan, volume: what the mask is of, and what was read of it. The mask has the voxels of the scan: all of them, the
    part that was taken, or any other block, outside of which nothing is inside; its rows, columns and slices may be
    numbered the other way round. Formats that have no place (TIFF, images) need all or the part taken. Of a DICOM
    segmentation is inside what any of its segments holds. scratch: folder of temporary files. Returns bool, of the
    volume's shape.

    Raises
    ------
    UserError
        The mask cannot be read, lies on another grid, or has nothing inside the volume.
    """
    # only here, as below: few volumes have a mask in a file
    from microsr.preprocessing.regions.segmentation import find_segmentation

    segmentation = None if "://" in path else find_segmentation(Path(path))
    if segmentation is None:
        mask = read_scan(_mask_scan(path, scan, volume), scratch)
    else:
        mask = _read_segmentation(segmentation, scan, volume)
    columns, rows, slices = _fit(path, scan, volume, mask)
    found = Masks(volume.shape)

    def take(z: int) -> None:
        position = slices.of(z)
        if not 0 <= position < len(mask.array):
            return
        labels = mask.array[position]
        turned = rows.axis == 0  # rows of the volume are columns of the mask
        labels = labels.T if turned else labels
        kept_rows, kept_columns = (
            axis.indices(count, size)
            for axis, count, size in zip((rows, columns), volume.shape[1:], labels.shape, strict=True)
        )
        inside = np.zeros(volume.shape[1:], bool)
        inside[np.ix_(kept_rows[0], kept_columns[0])] = labels[np.ix_(kept_rows[1], kept_columns[1])] != 0
        found[z] = inside

    for _ in in_order(take, range(len(found))):
        pass
    if not any(found.packed_slice(z) for z in range(len(found))):
        raise UserError(f"{path}: has nothing but 0 where {scan.path} lies; correct the mask, or the sheet")
    return found


def _read_segmentation(path: Path, scan: Scan, volume: Volume) -> Volume:
    """A DICOM segmentation, refused if it says that its places are of another frame than a DICOM scan's."""
    from microsr.preprocessing.regions.segmentation import find_frame_of_reference, read_segmentation

    mask, frame = read_segmentation(path, volume.spacing[2])
    of_scan = find_frame_of_reference(Path(scan.path), scan.series)
    if frame and of_scan and frame != of_scan:
        raise UserError(
            f"{path}: is in another frame of reference than {scan.path}, so its places are not those of the scan; give "
            "the segmentation of this series, or one that was resampled onto it, as NIfTI"
        )
    return mask


class _Axis:
    """Where the voxels along an axis of the volume lie in the mask: along `axis` (x, y, z), from `first` on, up or
    down.
    """

    def __init__(self, axis: int, step: int, first: int) -> None:
        self.axis, self._step, self._first = axis, step, first

    def of(self, index: int) -> int:
        return self._first + self._step * index

    def indices(self, count: int, size: int) -> tuple[np.ndarray, np.ndarray]:
        """Those of `count` voxels that lie within the mask's `size`, and where they lie."""
        places = self._first + self._step * np.arange(count)
        there = (places >= 0) & (places < size)
        return np.flatnonzero(there), places[there]


def _has_no_place(path: str) -> bool:
    """Whether a mask is an image, a stack of TIFF or a folder of images."""
    file = Path(path)
    if file.is_dir() and not stores.is_store(path):
        return any(one.suffix.lower() in KINDS for one in file.iterdir())
    return file.suffix.lower() in KINDS


def _mask_scan(path: str, scan: Scan, volume: Volume) -> Scan:
    """What is to be read of a mask: the same level of a store; the same size of a voxel, where the file has none."""
    spacing = scan.spacing
    if _has_no_place(path):
        sizes = volume.spacing[: 2 if volume.attributes.get("independent_slices") else 3]
        spacing = "x".join(f"{size:.9f}" for size in sizes)
    return Scan(path=path, spacing=spacing, level=scan.level if stores.is_store(path) else None)


def _fit(path: str, scan: Scan, volume: Volume, mask: Volume) -> tuple[_Axis, _Axis, _Axis]:
    """Where x, y and z of the volume lie in the mask."""
    if _has_no_place(path) or volume.attributes.get("independent_slices"):
        return _fit_by_size(path, scan, volume, mask)
    to_mask = np.linalg.inv(np.reshape(mask.direction, (3, 3)) * mask.spacing)
    matrix = to_mask @ (np.reshape(volume.direction, (3, 3)) * volume.spacing)
    start = to_mask @ (np.asarray(volume.origin) - mask.origin)
    whole, first = np.rint(matrix), np.rint(start)
    corners = np.array(np.meshgrid(*[(0, n - 1) for n in volume.shape[::-1]])).reshape(3, -1)
    off = np.abs((matrix - whole) @ corners + (start - first)[:, None]).max()
    if not (np.abs(whole).sum(axis=0) == 1).all() or not (np.abs(whole).sum(axis=1) == 1).all():
        what = f"voxels of {_mm(mask)} mm, not {_mm(volume)}" if _mm(mask) != _mm(volume) else "it is turned"
    elif abs(whole[2, 2]) != 1:
        what = "its slices run along another axis"
    elif off > TOLERANCE:
        what = f"voxels of {_mm(mask)} and {_mm(volume)} mm that lie up to {off:.2g} voxels apart"
    else:
        axes = [int(np.abs(whole[:, n]).argmax()) for n in range(3)]
        return tuple(_Axis(axis, int(whole[axis, n]), int(first[axis])) for n, axis in enumerate(axes))
    raise UserError(
        f"{path}: its grid is not that of {scan.path}: {what}; resample the mask onto the scan's grid, by the nearest "
        "neighbour (docs/data.md, Masks)"
    )


def _fit_by_size(path: str, scan: Scan, volume: Volume, mask: Volume) -> tuple[_Axis, _Axis, _Axis]:
    """As `_fit`, of a mask that does not say where it lies."""
    firsts = [0, 0, 0]
    if mask.shape != volume.shape:
        columns, rows, slices = volume.attributes["source"]["size"]
        cut = volume.attributes.get("region") or [0, rows, 0, columns]
        firsts = [cut[2], cut[0], (volume.attributes.get("slices") or [0])[0]]
        if mask.shape != (slices, rows, columns) or scan.resample:
            raise UserError(
                f"{path}: has {mask.shape[0]} slices of {mask.shape[2]}x{mask.shape[1]} pixels, not those of "
                f"{scan.path} ({slices} of {columns}x{rows}) nor of the part taken; its format does not say where it "
                "lies: give a mask of the scan's size, or one as NIfTI, NRRD or MetaImage with its place"
            )
    return tuple(_Axis(axis, 1, first) for axis, first in enumerate(firsts))


def _mm(volume: Volume) -> str:
    return " x ".join(f"{v:.4g}" for v in volume.spacing)
