"""Enhanced CT (DICOM PS3.3, A.38): one file with all slices as frames, each with a place and a rescaling of its own.

Where the frames are and what they mean is taken from the functional groups, by pydicom; that they form a volume is then
checked as of single slices (`formats.dicom`). Frames are read when they are asked for; of packed ones the packed bytes
are held in memory.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from microsr.config.sheet import Scan
from microsr.core.errors import UserError
from microsr.formats import dicom
from microsr.formats.headers import STRAIGHT, reason
from microsr.formats.rawfile import damage_error
from microsr.volume.slices import Slices
from microsr.volume.storage import Volume

CLASSES = ("1.2.840.10008.5.1.4.1.1.2.1", "1.2.840.10008.5.1.4.1.1.2.2")
"""SOP classes: Enhanced CT, and Legacy Converted Enhanced CT."""
PLAIN = ("1.2.840.10008.1.2", "1.2.840.10008.1.2.1")
"""Transfer syntaxes of little-endian voxels that are not packed."""
DECODERS = {
    "1.2.840.10008.1.2.4.57": "jpegsof3_decode", "1.2.840.10008.1.2.4.70": "jpegsof3_decode",
    "1.2.840.10008.1.2.4.80": "jpegls_decode", "1.2.840.10008.1.2.4.81": "jpegls_decode",
    "1.2.840.10008.1.2.4.90": "jpeg2k_decode", "1.2.840.10008.1.2.4.91": "jpeg2k_decode",
}  # fmt: skip
"""Functions of imagecodecs, by transfer syntax."""
MOST_FRAMES = 1 << 16


@dataclass(frozen=True)
class Frame(dicom.Slice):
    """A frame as a slice; `number` counts in the file, from 0."""

    number: int
    slope: float
    intercept: float


def read(path: Path, scan: Scan, scratch: Path | None) -> Volume:
    """Open the volume; rescaled frame by frame, unit "grey"; see `formats.readers.read_scan`.

    Raises
    ------
    UserError
        It is damaged or truncated, or its frames are no CT slices on a regular grid.
    """
    import pydicom  # only here: few scans are such

    try:
        with path.open("rb") as stream:
            data = pydicom.dcmread(stream, stop_before_pixels=True)
            place = stream.tell()
        frames = _frames(path, data)
        stored = _stored_type(data)
    except UserError:
        raise
    except Exception as error:  # whatever a damaged header provokes in pydicom
        raise damage_error(path, f"its header: {type(error).__name__}") from None
    load = _loader(path, place, data, len(frames), stored)
    if any(frame.is_localizer for frame in frames):
        raise UserError(f"{path}: has frames that are localizers; give a file of CT slices")
    volume = dicom.build_volume(frames, lambda slices: _pixels(slices, stored, load), scan, scratch)
    volume.attributes["source"]["enhanced"] = True
    return volume


def _frames(path: Path, data: Any) -> list[Frame]:
    count, size = int(data.NumberOfFrames), (int(data.Columns), int(data.Rows))
    shared, groups = data.SharedFunctionalGroupsSequence[0], data.PerFrameFunctionalGroupsSequence
    if not 1 <= count <= MOST_FRAMES or len(groups) != count or min(size) < 1:
        raise damage_error(path, f"{count} frames, {len(groups)} functional groups")
    if data.SamplesPerPixel != 1 or data.PhotometricInterpretation != "MONOCHROME2":
        raise UserError(f"{path}: is in colour, or its values may be read inverted; convert it to MONOCHROME2")

    def frame(number: int) -> Frame:
        def group(name: str) -> Any:
            found = groups[number].get(name) or shared.get(name)
            if not found:
                raise damage_error(path, f"frame {number} has no {name}")
            return found[0]

        measures, values = group("PixelMeasuresSequence"), group("PixelValueTransformationSequence")
        position = np.array(group("PlanePositionSequence").ImagePositionPatient, float)
        row, column = np.array(group("PlaneOrientationSequence").ImageOrientationPatient, float).reshape(2, 3)
        lengths = np.linalg.norm(row), np.linalg.norm(column)
        y, x = (float(v) for v in measures.PixelSpacing)
        slope, intercept = float(values.RescaleSlope), float(values.RescaleIntercept)
        numbers = [*position, *row, *column, x, y, slope, intercept]
        if position.shape != (3,) or not np.isfinite(numbers).all() or min(x, y) <= 0 or slope == 0:
            raise damage_error(path, f"frame {number} has an impossible place, size or rescaling")
        if min(lengths) < 0.9 or abs(row @ column) > STRAIGHT:
            raise damage_error(path, f"frame {number} has no two perpendicular directions")
        directions = dicom.perpendicular(row, column)
        kinds = groups[number].get("CTImageFrameTypeSequence") or shared.get("CTImageFrameTypeSequence")
        kind = {str(k).upper() for k in (kinds[0].get("FrameType", []) if kinds else [])}
        thickness = float(measures.get("SliceThickness") or 0)
        padding = data.get("PixelPaddingValue")
        return Frame(
            path=path, series=str(data.get("SeriesInstanceUID", "")), problem=None, size=size, pixel_type=0,
            is_localizer=not dicom.LOCALIZERS.isdisjoint(kind), pixel_spacing=(x, y), position=position,
            row=directions[0], column=directions[1], thickness=thickness if thickness > 0 else None,
            padding=None if padding is None else float(padding) * slope + intercept,
            window=_window(groups[number].get("FrameVOILUTSequence") or shared.get("FrameVOILUTSequence")),
            number=number, slope=slope, intercept=intercept,
        )  # fmt: skip

    return [frame(number) for number in range(count)]


def _window(said: Any) -> tuple[float, float] | None:
    """See `dicom.Slice.window`."""

    def first(value: Any) -> float | None:
        try:
            return float(value if isinstance(value, float) else value[0])
        except (TypeError, ValueError, IndexError):
            return None

    return dicom.window_of(first(said[0].get("WindowCenter")), first(said[0].get("WindowWidth"))) if said else None


def _stored_type(data: Any) -> np.dtype:
    bits, held = int(data.BitsAllocated), int(data.BitsStored)
    if bits not in (8, 16) or not 1 <= held <= bits or int(data.get("HighBit", held - 1)) != held - 1:
        raise ValueError("bits")
    return np.dtype(f"<{'i' if int(data.PixelRepresentation) else 'u'}{bits // 8}")


def _loader(path: Path, place: int, data: Any, count: int, stored: np.dtype) -> Callable[[int], np.ndarray]:
    """What gives the stored values of a frame. place: byte of the element PixelData."""
    import imagecodecs
    from pydicom.encaps import generate_pixel_data_frame

    shape, syntax = (int(data.Rows), int(data.Columns)), str(data.file_meta.get("TransferSyntaxUID", ""))
    size = shape[0] * shape[1] * stored.itemsize
    explicit = syntax != PLAIN[0]
    start = place + (12 if explicit else 8)
    with path.open("rb") as stream:
        stream.seek(place)
        head = stream.read(start - place)
        held = int.from_bytes(head[-4:], "little")
        if len(head) < start - place or head[:4] != b"\xe0\x7f\x10\x00":
            raise damage_error(path, "it has no pixels")
        content = b"" if syntax in PLAIN else stream.read()
    if syntax in PLAIN:
        there = min(path.stat().st_size - start, held)
        if there < size * count or held > size * count + 1:
            raise damage_error(path, f"{size * count} bytes of pixels expected, {there} found")

        def plain(number: int) -> np.ndarray:
            with path.open("rb") as stream:
                content = os.pread(stream.fileno(), size, start + number * size)
            return np.frombuffer(content, stored).reshape(shape)

        return plain
    if syntax not in DECODERS:
        raise UserError(
            f"{path}: its frames are packed in a way that is not supported ({syntax[:64]}); convert it to NIfTI"
        )
    try:
        packed = list(generate_pixel_data_frame(content, count))
    except Exception as error:  # whatever damaged fragments provoke in pydicom
        raise damage_error(path, reason(error)) from None
    if len(packed) != count:
        raise damage_error(path, f"{count} frames expected, {len(packed)} found")

    def unpack(number: int) -> np.ndarray:
        try:
            image = getattr(imagecodecs, DECODERS[syntax])(packed[number])
            if image.shape != shape or image.dtype.itemsize != stored.itemsize:
                raise ValueError(f"{image.shape[1]}x{image.shape[0]}")
        except Exception as error:  # whatever a decoder says of damaged bytes
            raise damage_error(path, f"frame {number}: {reason(error)}") from None
        return image.view(stored)

    return unpack


def _pixels(frames: list[Frame], stored: np.dtype, load: Callable[[int], np.ndarray]) -> Slices:
    """Rescaled values, unread: of 16 bits where all of them are whole numbers that fit."""
    slopes, intercepts = (np.array([getattr(f, key) for f in frames]) for key in ("slope", "intercept"))
    limits = np.iinfo(stored)
    ends = np.concatenate([slopes * limits.min + intercepts, slopes * limits.max + intercepts])
    whole = (slopes == slopes.round()).all() and (intercepts == intercepts.round()).all()
    final = np.dtype(np.int32 if whole and np.abs(ends).max() < 1 << 31 else np.float32)
    if whole and ends.min() >= -(1 << 15) and ends.max() < 1 << 15:
        final = np.dtype(np.int16)

    def one(z: int) -> np.ndarray:
        frame = frames[z]
        return (load(frame.number) * frame.slope + frame.intercept).astype(final)

    columns, rows = frames[0].size
    return Slices(one, (len(frames), rows, columns), final)
