"""Where a scan lies: its header's spacing or the sheet's, and the slices and region that the sheet chooses, for all
formats; and what TIFF and PNG really say (of NIfTI: `nifti`; of NRRD and MetaImage: `textheaders`).

ITK takes a missing spacing for 1 mm, micrometres for millimetres, a truncated file for a whole one and a sheared grid
for a straight one. The checks here look for these before anything is read.
"""

from __future__ import annotations

import logging
import re
import struct
import zlib
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from microsr.config.sheet import Scan
from microsr.core.errors import UserError
from microsr.volume.slices import Slices
from microsr.volume.storage import Volume

FINEST, COARSEST = 1e-6, 1e3
"""Spacings, mm, beyond which a header is damaged."""
FARTHEST = 1e6
"""Distance of the first voxel from the patient's origin, mm, beyond which a header is damaged."""
PNG = b"\x89PNG\r\n\x1a\n"
MOST_PACKED = 1040
"""Bytes that a byte of zlib or gzip becomes, at most."""
STRAIGHT = 5e-3
"""Largest deviation of direction cosines from perpendicular unit vectors: of cosines rounded to three digits, 2e-3."""
GIVE_SPACING = "give it, mm as XxYxZ: <modality>_spacing in the sheet, or --spacing"

logging.getLogger("tifffile").setLevel(logging.CRITICAL)  # its warnings are errors here, in our own words


def choose_range(scan: Scan, count: int) -> tuple[int, int]:
    """First slice and end (excluded) of `scan.slices` among `count` slices.

    Raises
    ------
    UserError
        The range is empty or reaches beyond the volume.
    """
    first, end = (scan.slices or ":").split(":")
    start, stop = int(first or 0), int(end or count)
    if not start < stop <= count:
        raise UserError(f"{scan.path}: slices {scan.slices} do not fit: the volume has {count} slices, numbered from 0")
    return start, stop


def choose_region(scan: Scan, size: tuple[int, int]) -> tuple[slice, slice]:
    """Rows and columns of `scan.region` in slices of `size` (rows, columns).

    Raises
    ------
    UserError
        The region is empty or reaches beyond the slice.
    """
    parts = []
    for text, length in zip((scan.region or ":,:").split(","), size, strict=True):
        first, end = text.split(":")
        parts.append(slice(int(first or 0), int(end or length)))
    if not all(part.start < part.stop <= length for part, length in zip(parts, size, strict=True)):
        raise UserError(
            f"{scan.path}: region {scan.region} does not fit: a slice has {size[0]} rows and {size[1]} columns, from 0 "
            "on"
        )
    return parts[0], parts[1]


def sheet_spacing(scan: Scan) -> list[float]:
    """The one to three numbers of `scan.spacing`, mm; empty if it gives none.

    Raises
    ------
    UserError
        A number is missing, malformed or not positive.
    """
    try:
        values = [float(v) for v in scan.spacing.split("x")] if scan.spacing else []
    except ValueError:
        values = [0.0]
    if not all(0 < v < np.inf for v in values):
        raise UserError(
            f"{scan.path}: spacing {scan.spacing!r} is malformed; write mm as X, XxY or XxYxZ, e.g. 0.6x0.6x1.25"
        )
    return values


def reason(error: Exception) -> str:
    """The last, telling line of an ITK error, without addresses in memory and without what it quotes of a file: that
    may be a name.
    """
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    lines = [line for line in lines if not line.startswith("Reason: ")]  # errno of something else
    said = lines[-1].removeprefix("sitk::ERROR: ") if lines else type(error).__name__
    return re.sub(r'".*"', "...", re.sub(r"\(0x[0-9a-fA-F]+\)", "", said))[:160]


def require_positive(spacing: tuple[float, ...], path: Path) -> tuple[float, float, float]:
    """The first three of `spacing`, mm; a UserError if one is missing, no number, or beyond what can be."""
    if len(spacing) < 3 or not all(FINEST <= v <= COARSEST for v in spacing[:3]):
        raise UserError(f"{path}: has no voxel spacing, or an impossible one; {GIVE_SPACING}")
    return tuple(float(v) for v in spacing[:3])


def refuse_further_dimensions(size: Sequence[int], path: Path) -> None:
    """Refuse more than one 3-D volume: size is that of all dimensions."""
    if any(extent > 1 for extent in size[3:]):
        raise UserError(f"{path}: has {len(size)} dimensions ({'x'.join(map(str, size))}); give one 3-D volume")


def check_place(origin: tuple[float, ...], path: Path) -> None:
    """Refuse a first voxel that lies nowhere, or a kilometre from the patient."""
    if not np.abs(origin).max() <= FARTHEST:
        raise UserError(
            f"{path}: the place of its first voxel is impossible ({origin}); mend its header, or save it anew"
        )


def straighten(axes: np.ndarray, path: Path) -> tuple[np.ndarray, tuple[float, ...]]:
    """Lengths of three axes (the columns of `axes`), and the nearest perpendicular directions, row by row.

    Cosines that were rounded to a few digits are a little off; a shear is more than that.

    Raises
    ------
    UserError
        The axes are sheared, or one of them is none.
    """
    lengths = np.linalg.norm(axes, axis=0)
    cosines = axes / np.maximum(lengths, 1e-12)
    if not np.abs(cosines.T @ cosines - np.eye(3)).max() <= STRAIGHT:
        raise UserError(f"{path}: its axes are not perpendicular (sheared); resample it to an upright grid")
    left, _, right = np.linalg.svd(cosines)
    return lengths, tuple(float(v) for v in (left @ right).ravel())


def spacing_of(scan: Scan, header_spacing: Callable[[], tuple[float, float, float]]) -> tuple[float, float, float]:
    """Spacing (x, y, z): the sheet's numbers where it gives them, else the header's."""
    given = sheet_spacing(scan)
    if len(given) == 3:
        return tuple(given)
    found = header_spacing()
    if given:
        return given[0], given[-1], found[2]
    return found


def place_scan(
    array: Slices, kind: str, spacing: tuple[float, float, float], origin: tuple[float, float, float],
    direction: tuple[float, ...], scan: Scan,
) -> Volume:  # fmt: skip
    """The slices of a file's `array` [slices, rows, columns] that `scan` chooses, in their place, with the facts of
    their source.

    kind: name of the format. spacing: from `spacing_of`. origin (x, y, z, mm), direction: the file's.

    Raises
    ------
    UserError
        The place is impossible, or there are no such slices.
    """
    size = list(array.shape[::-1])
    check_place(origin, Path(scan.path))
    first, end = choose_range(scan, size[2])
    volume = Volume(array, spacing, origin, direction, "grey", {"source": _source(kind, size, spacing, scan)})
    origin = tuple(float(v) for v in volume.point((first, 0, 0))) if first else origin
    return replace(volume, array=array.take(first, end), origin=origin)


def complete_scan(volume: Volume, scan: Scan) -> Volume:
    """The volume that a format opened, with the region that `scan` chooses, its facts, and no value that is no number.

    Raises
    ------
    UserError
        The format cannot follow the scan (resample, level), or the region does not fit.
    """
    source = volume.attributes["source"]
    if scan.resample and source["format"] != "DICOM":
        raise UserError(f"{scan.path}: only a DICOM series can be resampled; leave resample out")
    if scan.level and "level" not in source:
        raise UserError(f"{scan.path}: has one resolution only; leave the level out, or give 0")
    if scan.region:
        rows, columns = choose_region(scan, volume.shape[1:])
        origin = tuple(float(v) for v in volume.point((0, rows.start, columns.start)))
        volume = replace(volume, array=volume.array.crop(rows, columns), origin=origin)
        volume.attributes["region"] = [rows.start, rows.stop, columns.start, columns.stop]
    if scan.slices:
        volume.attributes["slices"] = list(choose_range(scan, source["size"][2]))
    return replace(volume, array=volume.array.refuse_nan(scan.path)) if volume.array.dtype.kind == "f" else volume


def _source(kind: str, size: list[int], spacing: tuple, scan: Scan) -> dict:
    return {"format": kind, "size": size, "spacing": list(spacing), "spacing_from": "sheet" if scan.spacing else "file"}


def check_png(path: Path) -> None:
    """Refuse a PNG whose parts are not whole or too small for its pixels: libpng fills them up, with a warning.

    Raises
    ------
    UserError
        A part is missing, or its checksum is wrong.
    """
    content = memoryview(path.read_bytes())
    kinds, place = [], len(PNG)
    while content[:place][: len(PNG)] == PNG and place + 12 <= len(content):
        (size,) = struct.unpack_from(">I", content, place)
        end = place + 12 + size
        if (
            end > len(content)
            or zlib.crc32(content[place + 4 : end - 4]) != struct.unpack_from(">I", content, end - 4)[0]
        ):
            break
        kinds.append(bytes(content[place + 4 : place + 8]))
        place = end
    pixels = struct.unpack_from(">2I", content, 16) if kinds[:1] == [b"IHDR"] else (1, 1)
    if (
        not kinds
        or kinds[-1] != b"IEND"
        or b"IDAT" not in kinds
        or pixels[0] * pixels[1] > 8 * MOST_PACKED * len(content)
    ):
        raise UserError(f"{path}: is damaged or truncated, or no PNG; copy it again")


def tiff_spacing(path: Path, found: tuple[float, float, float] | None) -> tuple[float, float, float]:
    """The spacing found in a TIFF stack; refuses one without: its resolution tag is a printer's more often than a
    scanner's.
    """
    if found is None:
        raise UserError(f"{path}: a TIFF stack has no voxel spacing of its own; {GIVE_SPACING}")
    return found
