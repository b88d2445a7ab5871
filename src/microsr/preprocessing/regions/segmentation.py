"""DICOM segmentations (SEG; DICOM PS3.3, A.51): masks that a radiologist's workstation writes, as label volumes.

Each frame is a slice of one segment, has a place of its own, and is there only where the segment is. Here the frames
become a volume on the grid of the slices that they are of: 1 where any segment is, else 0.
"""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np

from microsr.core.errors import UserError
from microsr.formats import dicom
from microsr.formats.rawfile import damage_error
from microsr.volume.slices import Slices
from microsr.volume.storage import Volume

CLASSES = ("1.2.840.10008.5.1.4.1.1.66.4", "1.2.840.10008.5.1.4.1.1.66.7")
"""SOP classes: Segmentation, and Label Map Segmentation."""
PLAIN = ("1.2.840.10008.1.2", "1.2.840.10008.1.2.1", "1.2.840.10008.1.2.1.99")
"""Transfer syntaxes of little-endian frames that are not packed one by one."""
INSIDE = 0.5
"""Share of a pixel from which on it is inside, of fractional segmentations."""
OFF = 0.1
"""Largest distance, slice distances, of a frame from the slice that it is of."""


def find_segmentation(path: Path) -> Path | None:
    """The file of a segmentation: `path`, or the one file in that folder; None: it is something else."""
    files = [path] if path.is_file() else sorted(path.glob("*")) if path.is_dir() else []
    is_one = len(files) == 1 and files[0].is_file() and dicom.sop_class(files[0]) in CLASSES
    return files[0] if is_one else None


def read_segmentation(path: Path, distance: float) -> tuple[Volume, str]:
    """Read a segmentation: uint8, 1 inside any segment, from its first to its last frame's slice; and the UID of the
    frame of reference in which its places are.

    distance: of the slices that it is of, mm; between frames there may be several.

    Raises
    ------
    UserError
        It is damaged, packed, or its frames lie between the slices.
    """
    import pydicom  # only here, as in `enhanced`

    try:
        data = pydicom.dcmread(path)
        syntax = str(data.file_meta.TransferSyntaxUID)
        if syntax not in PLAIN:
            raise UserError(
                f"{path}: its frames are packed in a way that is not read ({syntax[:64]}); save it without compression "
                "or as NIfTI"
            )
        places, axes, spacing = _geometry(data)
        frames = _Frames(data, len(places))
    except UserError:
        raise
    except Exception as error:  # whatever a damaged header provokes in pydicom
        raise damage_error(path, f"its header: {type(error).__name__}") from None
    along = (places - places[0]) @ axes[:, 2] / distance
    steps = np.rint(along - along.min()).astype(int)
    off = float(np.abs(along - along.min() - steps).max())
    if off > OFF:
        raise UserError(
            f"{path}: its frames lie up to {off:.2g} slice distances beside the scan's slices, {distance:.4g} mm "
            "apart; give the segmentation of this series"
        )
    numbers: dict[int, list[int]] = defaultdict(list)
    for number, step in enumerate(steps):
        numbers[int(step)].append(number)
    shape = (int(steps.max()) + 1, int(data.Rows), int(data.Columns))

    def load(z: int) -> np.ndarray:
        inside = np.zeros(shape[1:], bool)
        for number in numbers.get(z, ()):
            inside |= frames[number]
        return inside.view(np.uint8)

    origin = places[int(steps.argmin())]
    volume = Volume(
        Slices(load, shape, np.dtype(np.uint8)), (*spacing, float(distance)), tuple(map(float, origin)),
        tuple(map(float, axes.ravel())), "label", {"source": {"format": "DICOM SEG", "size": list(shape[::-1])}},
    )  # fmt: skip
    return volume, str(data.get("FrameOfReferenceUID", ""))


def find_frame_of_reference(scan: Path, series: str | None = None) -> str | None:
    """UID of the frame of reference of a DICOM scan, a file or a folder; None: it is of another format, or says none.

    series: its UID, where the folder holds several.
    """
    import pydicom  # only here, as above

    files = sorted(scan.iterdir()) if scan.is_dir() else [scan]
    for path in files:
        if path.is_file() and dicom.is_dicom(path):
            wanted = ["FrameOfReferenceUID", "SeriesInstanceUID", "Rows"]
            data = pydicom.dcmread(path, stop_before_pixels=True, force=True, specific_tags=wanted)
            if "Rows" in data and series in (None, data.get("SeriesInstanceUID")):
                return str(data.get("FrameOfReferenceUID", "")) or None
    return None


def _geometry(data: Any) -> tuple[np.ndarray, np.ndarray, tuple[float, float]]:
    """Places of the frames [frame, 3], their axes (columns: along a row, along a column, normal) and the pixel size (x,
    y), mm.
    """
    shared = data.SharedFunctionalGroupsSequence[0]
    groups = data.PerFrameFunctionalGroupsSequence
    if len(groups) != int(data.NumberOfFrames) or not groups:
        raise ValueError("frames")

    def group(one: Any, name: str) -> Any:
        return (one.get(name) or shared.get(name))[0]

    orientations = np.array([group(one, "PlaneOrientationSequence").ImageOrientationPatient for one in groups], float)
    pixels = np.array([group(one, "PixelMeasuresSequence").PixelSpacing for one in groups], float)
    places = np.array([group(one, "PlanePositionSequence").ImagePositionPatient for one in groups], float)
    if np.ptp(orientations, axis=0).max() > dicom.SAME_DIRECTION or np.ptp(pixels, axis=0).max() > 1e-4:
        raise ValueError("frames of several grids")
    if not np.isfinite(places).all() or pixels.min() <= 0:
        raise ValueError("places")
    row, column = dicom.perpendicular(*orientations[0].reshape(2, 3))
    return places, np.stack([row, column, np.cross(row, column)], axis=1), (float(pixels[0, 1]), float(pixels[0, 0]))


class _Frames:
    """The frames of a segmentation, unpacked when they are asked for: bool [rows, columns]."""

    def __init__(self, data: Any, count: int) -> None:
        self._shape = int(data.Rows), int(data.Columns)
        self._bits = int(data.BitsAllocated)
        size = self._shape[0] * self._shape[1]
        held = np.frombuffer(data.PixelData, np.uint8)
        if self._bits not in (1, 8, 16) or min(self._shape) < 1 or len(held) < -(-count * size * self._bits // 8):
            raise ValueError("pixels")
        self._held, self._size = held, size
        fractional = str(data.get("SegmentationType", "")) == "FRACTIONAL"
        self._least = max(INSIDE * float(data.MaximumFractionalValue), 1) if fractional else 1

    def __getitem__(self, number: int) -> np.ndarray:
        first = number * self._size
        if self._bits == 1:  # frames do not begin at whole bytes
            part = self._held[first // 8 : -(-(first + self._size) // 8)]
            pixels = np.unpackbits(part, bitorder="little")[first % 8 :][: self._size]
        else:
            pixels = self._held.view(f"<u{self._bits // 8}")[first : first + self._size]
        return (pixels >= self._least).reshape(self._shape)
