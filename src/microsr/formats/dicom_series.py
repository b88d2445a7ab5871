"""CT values as a DICOM series, one CT Image Storage file a slice: a simulated scan, or an image derived from a scan.

Bytes depend on nothing but the arguments: UIDs are hashes of what the series is made of, and no file has a time of
writing.
"""

from __future__ import annotations

import io
import json
import shutil
import struct
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
from pydicom.dataset import Dataset, FileDataset, FileMetaDataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, generate_uid

from microsr import __version__
from microsr.core.errors import UserError
from microsr.volume.orientation import plane
from microsr.volume.storage import Volume
from microsr.volume.viewing import display_window

INTERCEPT = -1024
"""HU of the stored value 0 of a simulated scan; the slope is 1."""
UNKNOWN = (
    "PatientName", "PatientID", "PatientBirthDate", "PatientSex", "StudyDate", "StudyTime", "AccessionNumber",
    "ReferringPhysicianName", "StudyID", "SeriesNumber", "AcquisitionNumber", "KVP", "PositionReferenceIndicator",
)  # fmt: skip
"""Elements that a CT image must have, empty where there is nothing to say."""
INHERITED: dict[str, tuple[str, ...] | None] = {
    "PatientPosition": ("HFS", "HFP", "HFDR", "HFDL", "FFS", "FFP", "FFDR", "FFDL"), "KVP": None,
    "SliceThickness": None, "LossyImageCompression": ("00", "01"), "LossyImageCompressionRatio": None,
    "LossyImageCompressionMethod": ("ISO_10918_1", "ISO_14495_1", "ISO_15444_1", "ISO_13818_2"),
}  # fmt: skip
"""What a derived series has from its source: how the scan was taken, and that values were once compressed with loss.
The terms that DICOM defines, or None: a number; so that no text and no identifier of a header comes through."""
SPATIAL_RESAMPLING = ("113085", "DCM", "Spatial resampling")
"""Value, scheme and meaning of the code."""
PLACE = (
    "SOPClassUID", "SOPInstanceUID", "SeriesInstanceUID", "Rows", "Columns", "PixelSpacing", "ImagePositionPatient",
    "ImageOrientationPatient",
)  # fmt: skip
"""What every image of a source must say."""
SAME_PLACE = 0.25
"""Largest distance between a derived image and its source, in pixels (its corners) or slice distances."""


def write_series(folder: Path, volume: Volume, case: str, seed: int, kernel: str) -> list[Path]:
    """Write a simulated scan (int16 HU from INTERCEPT on) into `folder`, which is emptied, one file a slice from the
    first on.

    The case's name stands where a patient's would.
    """
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    files = []
    for index, image in enumerate(volume.array):
        data = _header(volume, index, index + 1)
        data.ImageType = ["DERIVED", "PRIMARY", "AXIAL"]
        data.ManufacturerModelName = "simulated scanner"
        data.SeriesDescription = "Simulated lung"
        data.PatientName = data.PatientID = case
        data.PatientIdentityRemoved = "YES"
        data.DeidentificationMethod = "simulated, no person"
        data.BodyPartExamined = "CHEST"
        data.StudyInstanceUID = _uid(case, seed, "study")
        data.SeriesInstanceUID = _uid(case, seed, "series")
        data.FrameOfReferenceUID = _uid(case, seed, "frame")
        data.ConvolutionKernel = kernel
        data.SOPInstanceUID = _uid(case, seed, "image", index)
        data.PixelRepresentation, data.RescaleIntercept = 0, INTERCEPT
        files.append(folder / f"slice{index + 1:04d}.dcm")
        _save(files[-1], data, (image.astype(np.int32) - INTERCEPT).astype("<u2"))
    return files


@dataclass(frozen=True)
class _Source:
    """The series that another is derived from."""

    series: str
    technique: dict[str, Any]
    """What is INHERITED."""


class DerivedSeries:
    """Writes the slices of a derived CT, in any order, each as a file of its own into the existing `folder`.

    shape: slices, rows, columns. volume: geometry, unit and attributes (`array` is not used). attributes["description"]
    names the series, attributes["derivation"] says what was done. made_of: what decides the values, such as the
    checksums of model and input, as plain JSON values: two series get the same UIDs only if this, shape, geometry,
    attributes and source are the same.
    source: DICOM folder or file that the values come from; the new series says how it was taken (INHERITED), but not of
    whom: it has no patient, and a study of its own. series: UID of one of several series in that folder.

    Files are numbered along the slice normal (row x column), as a series is sorted by who reads it: a volume with a
    left-handed direction is numbered from its last slice to its first, and so keeps its place in the patient.

    Raises
    ------
    UserError
        The values are no HU, or `source` is no DICOM series or lies elsewhere.
    """

    def __init__(
        self,
        folder: Path,
        shape: tuple[int, int, int],
        volume: Volume,
        source: Path | None = None,
        series: str | None = None,
        made_of: Any = None,
    ) -> None:
        if volume.unit not in ("HU", "%"):
            raise UserError(
                f"{folder}: a DICOM CT holds HU, these values are in '{volume.unit}'; choose another format"
            )
        self._folder, self._shape, self._volume = folder, shape, volume
        self._source = None if source is None else _read_source(Path(source), series, volume, shape)
        facts = [made_of, shape, volume.spacing, volume.origin, volume.direction, volume.attributes]
        origin = self._source.series if self._source else "none"
        self._entropy = ("derived", origin, json.dumps(facts, sort_keys=True))
        self._turned = np.linalg.det(np.reshape(volume.direction, (3, 3))) < 0

    def path(self, position: int) -> Path:
        """File of the slice at `position`."""
        return self._folder / f"slice{self._number(position):0{max(4, len(str(self._shape[0])))}d}.dcm"

    def write(self, position: int, image: np.ndarray) -> None:
        """Write one slice, int16 HU [rows, columns]."""
        volume = self._volume
        data = _header(volume, position, self._number(position))
        data.ImageType = ["DERIVED", "SECONDARY", "AXIAL" if plane(volume.direction) == "axial" else "OTHER"]
        data.ManufacturerModelName = "microsr"
        data.PatientPosition, data.SeriesNumber = None, 1  # how the patient lay is known from a source only
        data.StudyInstanceUID = _uid(*self._entropy, "study")
        data.FrameOfReferenceUID = _uid(*self._entropy, "frame")
        data.SliceThickness = _decimal(_thickness(volume))
        if "scanned" in volume.attributes:
            data.ConvolutionKernel = _ascii(volume.attributes["scanned"]["kernel"], 16)
        if self._source is not None:
            for keyword, value in self._source.technique.items():
                setattr(data, keyword, value)
        data.SeriesDescription = _ascii(volume.attributes.get("description", "Processed CT"), 64)
        data.DerivationDescription = _ascii(
            volume.attributes.get("derivation", f"Processed by microsr {__version__}"), 1024
        )
        if {"derivation", "sampling"} & volume.attributes.keys():  # an import as it was scanned is not resampled
            data.DerivationCodeSequence = [_resampling_code()]
        data.SeriesInstanceUID = _uid(*self._entropy, "series")
        data.SOPInstanceUID = _uid(*self._entropy, "image", position)
        data.BurnedInAnnotation = "NO"
        if window := display_window(volume):
            black, white = window
            data.WindowCenter, data.WindowWidth = _decimal((black + white) / 2), _decimal(white - black)
        if volume.unit != "HU":
            data.RescaleType = "US"  # unspecified
        # Signed and without an intercept: the only way that keeps every int16 HU.
        data.PixelRepresentation, data.RescaleIntercept = 1, 0
        _save(self.path(position), data, np.asarray(image, "<i2"))

    def _number(self, position: int) -> int:
        return self._shape[0] - position if self._turned else position + 1


def _thickness(volume: Volume) -> float:
    """Slice thickness, mm: what the header of the import said; else the distance of the slices that the volume was
    made from, of which it may hold every second only.
    """
    facts = volume.attributes
    if "source" in facts:  # an import, whose attribute `slices` is a range
        return facts["source"].get("slice_thickness") or volume.spacing[2]
    listed = facts.get("slices", [])
    return volume.spacing[2] / (listed[1] - listed[0] if len(listed) > 1 else 1)


def _read_source(source: Path, series: str | None, volume: Volume, shape: tuple[int, int, int]) -> _Source:
    """The one series at `source` (of the UID `series`, if given)."""
    from microsr.formats.dicom import (
        LOCALIZERS,
        is_dicom,
    )  # only here: a simulated scan, which has no source, is spared SimpleITK

    if not source.exists():
        raise UserError(f"{source}: does not exist; give the DICOM folder that the volume was made from")
    found: dict[str, list[tuple[Dataset, Path]]] = {}

    def is_localizer(data: Dataset) -> bool:
        return not LOCALIZERS.isdisjoint(str(value).upper() for value in data.get("ImageType") or ())

    for path in sorted(source.iterdir()) if source.is_dir() else [source]:
        if path.is_file() and is_dicom(path):
            data = _read_header(path, (*PLACE, "ImageType"))
            if "Rows" in data and not is_localizer(data) and series in (None, data.get("SeriesInstanceUID")):
                found.setdefault(data.get("SeriesInstanceUID", ""), []).append((data, path))
    if len(found) != 1:
        what = f"holds {len(found)} series ({', '.join(found)})" if found else "holds no such DICOM series"
        raise UserError(f"{source}: {what}; give the folder of the one series that the volume was made from")
    images = next(iter(found.values()))
    for data, path in images:
        if lacking := [keyword for keyword in PLACE if data.get(keyword) in (None, "")]:
            raise UserError(
                f"{path}: has no {lacking[0]}, as a series of single slices has; write the result without a source"
            )
    nearest = _nearest(source, [data for data, _ in images], volume, shape)
    header = _read_header(images[nearest][1], INHERITED)
    return _Source(str(images[nearest][0].SeriesInstanceUID), _technique(header))


def _read_header(path: Path, keywords: Iterable[str]) -> Dataset:
    try:
        return pydicom.dcmread(path, stop_before_pixels=True, force=True, specific_tags=list(keywords))
    except (PermissionError, MemoryError):
        raise
    except Exception:  # whatever a damaged file provokes in pydicom
        raise UserError(f"{path}: has a damaged header; copy it again, or write the result without a source") from None


def _technique(header: Dataset) -> dict[str, Any]:
    """Those elements of INHERITED whose value is one that may be."""
    found = {}
    for keyword, allowed in INHERITED.items():
        try:
            value = header.get(keyword)
            if allowed is None:
                found[keyword] = _decimal(value)
            elif value in allowed:
                found[keyword] = str(value)
        except (TypeError, ValueError, OverflowError):
            continue  # absent, empty, or no number
    return found


def _nearest(source: Path, images: list[Dataset], volume: Volume, shape: tuple[int, int, int]) -> int:
    """The image that lies at the volume's first slice.

    How a scan was taken is to stand on the right volume only: a source whose first pixel is elsewhere (or, of a part of
    the slices' area, the pixel that attributes["corner"] names, row and column), or that does not cover the volume, is
    refused.
    """
    normal = np.reshape(volume.direction, (3, 3))[:, 2]
    along = np.array([np.dot(data.ImagePositionPatient, normal) for data in images], float)
    wanted = np.array([volume.point((position, 0, 0)) @ normal for position in range(shape[0])])
    distances = np.abs(along[:, None] - wanted)
    nearest = distances.argmin(axis=0)
    places = np.unique(along.round(4))  # some slices may be there twice
    step = np.median(np.diff(places)) if len(places) > 1 else volume.spacing[2]
    first = images[nearest[0]]
    axes = np.array(first.ImageOrientationPatient, float).reshape(2, 3)  # along columns' numbers, along rows'
    pixel = np.array([float(v) for v in first.PixelSpacing])[::-1]
    size = np.array([first.Columns, first.Rows])
    corners = [volume.point((0, r, c)) for r in (-0.5, shape[1] - 0.5) for c in (-0.5, shape[2] - 0.5)]
    start = np.array(first.ImagePositionPatient, float)
    found = np.array([axes @ (corner - start) for corner in corners]) / pixel + 0.5
    expected = np.array(volume.attributes.get("corner", (0, 0)))[::-1]
    apart = max(np.abs(found[0] - expected).max(), (found - size).max(), (-found).max())
    gap = distances.min(axis=0).max()
    if apart > SAME_PLACE or gap > SAME_PLACE * step:
        raise UserError(
            f"{source}: does not lie where the volume does (corners {apart:.3g} pixels apart, slices {gap:.3g} mm), so "
            "the volume was made from another series; give that one, or no source"
        )
    return int(nearest[0])


def _header(volume: Volume, index: int, number: int) -> FileDataset:
    """What every CT slice has: the slice `index` of `volume`, image `number` of its series."""
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = CTImageStorage
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    meta.ImplementationClassUID = _uid("microsr")
    meta.ImplementationVersionName = f"MICROSR_{__version__}"[:16]
    data = FileDataset("", {}, file_meta=meta, preamble=b"\0" * 128)
    data.is_little_endian, data.is_implicit_VR = True, False
    data.SOPClassUID = CTImageStorage
    data.Modality = "CT"
    data.Manufacturer = "microsr"
    data.SoftwareVersions = __version__
    for empty in UNKNOWN:
        setattr(data, empty, None)
    data.PatientPosition = "HFS"
    data.InstanceNumber = number
    matrix = np.reshape(volume.direction, (3, 3))
    place = volume.point((index, 0, 0))
    data.ImageOrientationPatient = [_decimal(v) for v in (*matrix[:, 0], *matrix[:, 1])]
    data.ImagePositionPatient = [_decimal(v) for v in place]
    data.SliceLocation = _decimal(place @ np.cross(matrix[:, 0], matrix[:, 1]))
    x, y, z = volume.spacing
    data.PixelSpacing = [_decimal(y), _decimal(x)]
    data.SliceThickness = data.SpacingBetweenSlices = _decimal(z)
    data.SamplesPerPixel = 1
    data.PhotometricInterpretation = "MONOCHROME2"
    data.BitsAllocated = data.BitsStored = 16
    data.HighBit = 15
    data.RescaleSlope, data.RescaleType = 1, "HU"
    return data


def _save(path: Path, data: FileDataset, stored: np.ndarray) -> None:
    """Write a slice whose header is complete but for the pixels (int16 or uint16, little-endian)."""
    data.file_meta.MediaStorageSOPInstanceUID = data.SOPInstanceUID
    data.Rows, data.Columns = stored.shape
    header = io.BytesIO()
    data.save_as(header, write_like_original=False)
    # Pixels are the last element. pydicom would keep several copies of them for a while, and hide why a write failed.
    with path.open("wb") as stream:
        stream.write(header.getbuffer())
        stream.write(b"\xe0\x7f\x10\x00OW\0\0" + struct.pack("<I", stored.nbytes))
        stream.write(np.ascontiguousarray(stored).data)


def _resampling_code() -> Dataset:
    """The code of what was done (CID 7203); pydicom's dictionary of all codes takes longer to load than a slice to
    write.
    """
    item = Dataset()
    item.CodeValue, item.CodingSchemeDesignator, item.CodeMeaning = SPATIAL_RESAMPLING
    return item


def _ascii(text: str, length: int) -> str:
    """Text that every character set can say."""
    return text.encode("ascii", "replace").decode()[:length]


def _uid(*facts: object) -> str:
    return generate_uid(entropy_srcs=["microsr", *map(str, facts)])


def _decimal(value: float) -> pydicom.valuerep.DSfloat:
    """A decimal string of at most 16 characters."""
    return pydicom.valuerep.DSfloat(float(value), auto_format=True)
