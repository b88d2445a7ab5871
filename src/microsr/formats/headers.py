"""What the headers of NIfTI and TIFF files really say, and what the sheet says instead (of NRRD and MetaImage:
`textheaders`).

ITK takes a missing spacing for 1 mm, micrometres for millimetres, a truncated file for a whole one and a sheared grid
for a straight one. The checks here look for these before anything is read.
"""

from __future__ import annotations

import gzip
import logging
import re
import struct
import zlib
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from microsr.config.sheet import Scan
from microsr.core.errors import UserError

if TYPE_CHECKING:
    import SimpleITK as sitk
    import tifffile

FINEST, COARSEST = 1e-6, 1e3
"""Spacings, mm, beyond which a header is damaged."""
FARTHEST = 1e6
"""Distance of the first voxel from the patient's origin, mm, beyond which a header is damaged."""
NIFTI_HEADER, NIFTI_VOXELS = 348, 352
"""Bytes of the header of NIfTI-1 (SimpleITK knows no NIfTI-2), and before the first voxel in the same file."""
PNG = b"\x89PNG\r\n\x1a\n"
MOST_PACKED = 1040
"""Bytes that a byte of zlib or gzip becomes, at most."""
STRAIGHT = 2e-3
"""Largest deviation of direction cosines from perpendicular unit vectors (float32 headers)."""
GIVE_SPACING = "give it in the sheet (<modality>_spacing, mm as XxYxZ)"

logging.getLogger("tifffile").setLevel(logging.CRITICAL)  # its warnings are errors here, in our own words


def chosen_range(scan: Scan, count: int) -> tuple[int, int]:
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
    """The last, telling line of an ITK error, without what it quotes of a file: that may be a name."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    lines = [line for line in lines if not line.startswith("Reason: ")]  # errno of something else
    said = lines[-1].removeprefix("sitk::ERROR: ") if lines else type(error).__name__
    return re.sub('".*"', "...", said)[:160]


def positive(spacing: tuple[float, ...], path: Path) -> tuple[float, float, float]:
    """The first three of `spacing`, mm; a UserError if one is missing, no number, or beyond what can be."""
    if len(spacing) < 3 or not all(FINEST <= v <= COARSEST for v in spacing[:3]):
        raise UserError(f"{path}: has no voxel spacing, or an impossible one; {GIVE_SPACING}")
    return tuple(float(v) for v in spacing[:3])


def check_place(origin: tuple[float, ...], path: Path) -> None:
    """Refuse a first voxel that lies nowhere, or a kilometre from the patient."""
    if not np.abs(origin).max() <= FARTHEST:
        raise UserError(
            f"{path}: the place of its first voxel is impossible ({origin}); mend its header, or save it anew"
        )


def check_nifti_head(path: Path) -> None:
    """Refuse a header of NIfTI that is damaged, before ITK reads it: an infinite sform sends ITK round for ever.

    Raises
    ------
    UserError
        It is that of another format, or says what cannot be.
    """
    head = nifti_head(path)
    order = "<" if struct.unpack_from("<i", head)[0] == NIFTI_HEADER else ">"

    def field(place: int, form: str) -> np.ndarray:
        return np.array(struct.unpack_from(order + form, head, place))

    (offset,), single = field(108, "f"), head[344:348] == b"n+1\0"
    known = single or head[344:348] == b"ni1\0"
    dimensions, *extents = field(40, "8h")
    qform, sform = field(252, "2h") > 0
    damaged = {
        "format": not known or (single and not (offset >= NIFTI_VOXELS and offset == offset // 1)),
        "size": not 1 <= dimensions <= 7 or min(extents[:dimensions]) < 1,
        "unit": head[123] & 7 > 3 or head[123] >> 6 != 0,
        "spacing": not (np.abs(field(80, "3f")) <= COARSEST).all(),
        "qform": qform
        and not ((field(256, "3f") ** 2).sum() <= 1 + 1e-5 and np.abs(field(268, "3f")).max() <= FARTHEST),
        "sform": sform and not np.abs(field(280, "12f")).max() <= FARTHEST,
    }
    if any(damaged.values()):
        what = next(name for name, is_so in damaged.items() if is_so)
        raise UserError(
            f"{path}: the {what} in its header is none of NIfTI-1; copy it again, or save it anew as NIfTI-1"
        )


def check_nifti(path: Path, reader: sitk.ImageFileReader) -> None:
    """Refuse a truncated file, which ITK fills with garbage, and a place that ITK straightened or passed over.

    The length of a packed file is found when it is unpacked.
    """
    meta = {key: reader.GetMetaData(key) for key in reader.GetMetaDataKeys()}
    voxels = np.prod([int(meta[f"dim[{i}]"]) for i in range(1, int(meta["dim[0]"]) + 1)], dtype=np.int64)
    needed = float(meta["vox_offset"]) + voxels * int(meta["bitpix"]) / 8
    if path.suffix.lower() != ".gz" and not path.stat().st_size >= needed:
        raise UserError(f"{path}: is damaged or truncated ({needed:.0f} bytes expected); copy it again")
    if int(meta["sform_code"]) > 0 and reader.GetDimension() >= 3:
        affine = _sform(meta)
        found = np.reshape(reader.GetDirection(), (reader.GetDimension(),) * 2)[:3, :3]
        expected = np.diag([-1, -1, 1]) @ affine / np.maximum(np.linalg.norm(affine, axis=0), 1e-12)
        unit = reader.GetSpacing()[0] / (float(meta["pixdim[1]"]) or np.nan)  # of metres and micrometres
        origin = unit * np.array([-1, -1, 1]) * [float(meta[f"srow_{axis}"].split()[3]) for axis in "xyz"]
        apart = np.abs(origin - reader.GetOrigin()[:3]).max() - 1e-3 * min(reader.GetSpacing()[:3])
        if not (np.abs(found - expected).max() <= 5 * STRAIGHT and apart <= 1e-5 * np.abs(origin).max()):
            raise UserError(
                f"{path}: its axes are sheared, or its sform and qform disagree; resample it to an upright grid, or "
                "save it anew"
            )


def nifti_head(path: Path) -> bytes:
    """The header of a NIfTI file, packed or not.

    Raises
    ------
    UserError
        The file ends before it does.
    """
    try:
        with gzip.open(path) if path.suffix.lower() == ".gz" else path.open("rb") as stream:
            head = stream.read(NIFTI_HEADER)
    except (EOFError, gzip.BadGzipFile, zlib.error):
        head = b""
    if len(head) < NIFTI_HEADER:
        raise UserError(f"{path}: is damaged or truncated ({NIFTI_HEADER} bytes expected); copy it again")
    return head


def _sform(meta: dict[str, str]) -> np.ndarray:
    return np.array([[float(v) for v in meta[f"srow_{axis}"].split()[:3]] for axis in "xyz"])


def nifti_spacing(path: Path, reader: sitk.ImageFileReader) -> tuple[float, float, float]:
    """Spacing, mm; ITK converts it from the header's unit."""
    meta = {key: reader.GetMetaData(key) for key in reader.GetMetaDataKeys()}
    steps = [float(meta[f"pixdim[{i}]"]) for i in (1, 2, 3)]
    if min(steps) <= 0 or (steps == [1, 1, 1] and int(meta["xyzt_units"]) & 7 == 0):
        raise UserError(f"{path}: has no voxel spacing (0, or 1 x 1 x 1 without a unit); {GIVE_SPACING}")
    if int(meta["sform_code"]) > 0 and np.abs(np.linalg.norm(_sform(meta), axis=0) / steps - 1).max() > 1e-3:
        raise UserError(f"{path}: its sform and pixdim give different spacings; {GIVE_SPACING}")
    return positive(reader.GetSpacing(), path)


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


def tiff_spacing(path: Path, reader: sitk.ImageFileReader) -> tuple[float, float, float]:
    """TIFF has no slice distance, and its resolution tag is a printer's more often than a scanner's."""
    raise UserError(f"{path}: a TIFF stack has no voxel spacing of its own; {GIVE_SPACING}")


def check_tiff(path: Path) -> int:
    """Number of slices; refuses what SimpleITK would read in part or in another way than it is meant."""
    import tifffile  # only here: few scans are TIFF

    try:
        with tifffile.TiffFile(path) as tiff:
            pages, series = list(tiff.pages), tiff.series
            first = pages[0]
            shape = tuple(series[0].shape)
            end = max(o + n for p in pages for o, n in zip(p.dataoffsets, p.databytecounts, strict=True))
            whole = end <= tiff.filehandle.size and _next_page(tiff, pages[-1].offset) == 0
    except Exception as error:  # whatever a damaged file provokes in tifffile
        raise UserError(f"{path}: is not a readable TIFF file ({reason(error)}); copy it again") from None
    if not whole:
        raise UserError(f"{path}: is truncated; copy it again")
    if first.samplesperpixel != 1:
        raise UserError(f"{path}: has {first.samplesperpixel} values in a pixel (colour); save it as grey values")
    if first.photometric != tifffile.PHOTOMETRIC.MINISBLACK:
        kind = getattr(first.photometric, "name", first.photometric)
        raise UserError(f"{path}: its grey scale is inverted or a palette ({kind}); save it as plain grey values")
    if first.is_tiled:
        raise UserError(f"{path}: is a tiled TIFF; save it without tiles, or as NIfTI or NRRD")
    rows_columns = (first.imagelength, first.imagewidth)
    if len(series) != 1 or shape not in (rows_columns, (len(pages), *rows_columns)):
        raise UserError(
            f"{path}: its {len(pages)} TIFF pages are not one stack of slices (shape {'x'.join(map(str, shape))}); "
            "save it as NIfTI or NRRD"
        )
    return len(pages)


def _next_page(tiff: tifffile.TiffFile, offset: int) -> int:
    """Where the page after the one at `offset` is said to be: 0 after the last one."""
    layout, stream = tiff.tiff, tiff.filehandle
    stream.seek(offset)
    (tags,) = struct.unpack(layout.tagnoformat, stream.read(layout.tagnosize))
    stream.seek(offset + layout.tagnosize + tags * layout.tagsize)
    return struct.unpack(layout.offsetformat, stream.read(layout.offsetsize))[0]
