"""What the headers of NIfTI, NRRD, MetaImage and TIFF files really say, and what the sheet says instead.

ITK takes a missing spacing for 1 mm, micrometres for millimetres, a truncated file for a whole one and a sheared grid for a
straight one. The checks here look for these before anything is read.
"""

from __future__ import annotations

import logging
import struct
from pathlib import Path

import numpy as np
import SimpleITK as sitk
import tifffile

from microsr import UserError
from microsr.config import Scan

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
    if any(v <= 0 for v in values):
        raise UserError(
            f"{scan.path}: spacing {scan.spacing!r} is malformed; write mm as X, XxY or XxYxZ, e.g. 0.6x0.6x1.25"
        )
    return values


def reason(error: Exception) -> str:
    """The last, telling line of an ITK error."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    lines = [line for line in lines if not line.startswith("Reason: ")]  # errno of something else
    return lines[-1].removeprefix("sitk::ERROR: ")[:160] if lines else type(error).__name__


def _positive(spacing: tuple[float, ...], path: Path) -> tuple[float, float, float]:
    if len(spacing) < 3 or not all(np.isfinite(v) and v > 0 for v in spacing[:3]):
        raise UserError(f"{path}: has no voxel spacing; {GIVE_SPACING}")
    return tuple(float(v) for v in spacing[:3])


def check_nifti(path: Path, reader: sitk.ImageFileReader) -> None:
    """Refuse a truncated file, which ITK fills with garbage, and an sform that ITK straightened or passed over.

    The length of a packed file is found when it is unpacked.
    """
    meta = {key: reader.GetMetaData(key) for key in reader.GetMetaDataKeys()}
    voxels = np.prod([int(meta[f"dim[{i}]"]) for i in range(1, int(meta["dim[0]"]) + 1)], dtype=np.int64)
    needed = float(meta["vox_offset"]) + voxels * int(meta["bitpix"]) / 8
    if path.suffix.lower() != ".gz" and path.stat().st_size < needed:
        raise UserError(f"{path}: is damaged or truncated ({needed:.0f} bytes expected); copy it again")
    if int(meta["sform_code"]) > 0 and reader.GetDimension() >= 3:
        affine = _sform(meta)
        found = np.reshape(reader.GetDirection(), (reader.GetDimension(),) * 2)[:3, :3]
        expected = np.diag([-1, -1, 1]) @ affine / np.maximum(np.linalg.norm(affine, axis=0), 1e-12)
        if np.abs(found - expected).max() > 5 * STRAIGHT:
            raise UserError(
                f"{path}: its axes are sheared, or its sform and qform disagree; resample it to an upright grid, or save it anew"
            )


def _sform(meta: dict[str, str]) -> np.ndarray:
    return np.array([[float(v) for v in meta[f"srow_{axis}"].split()[:3]] for axis in "xyz"])


def nifti_spacing(path: Path, reader: sitk.ImageFileReader) -> tuple[float, float, float]:
    """Spacing, mm; ITK converts it from the header's unit."""
    meta = {key: reader.GetMetaData(key) for key in reader.GetMetaDataKeys()}
    steps = [float(meta[f"pixdim[{i}]"]) for i in (1, 2, 3)]
    if min(steps) <= 0 or (steps == [1, 1, 1] and int(meta["xyzt_units"]) & 7 == 0):
        raise UserError(f"{path}: has no voxel spacing (0, or 1 x 1 x 1 without a unit); {GIVE_SPACING}")
    if int(meta["sform_code"]) > 0 and np.abs(np.linalg.norm(_sform(meta), axis=0) / steps - 1).max() > 0.01:
        raise UserError(f"{path}: its sform and pixdim give different spacings; {GIVE_SPACING}")
    return _positive(reader.GetSpacing(), path)


def text_header(path: Path, last: str, separator: str) -> tuple[dict[str, str], int]:
    """Fields of a text header that ends with a blank line or the field `last`, and its length in bytes."""
    fields = {}
    with path.open("rb") as stream:
        while line := stream.readline(65536):
            text = line.decode("latin-1").strip()
            key, found, value = text.partition(separator)
            if found and not text.startswith("#"):
                fields[key.strip().lower()] = value.strip()
            if not text or key.strip().lower() == last:
                break
        return fields, stream.tell()


def nrrd_spacing(path: Path, reader: sitk.ImageFileReader) -> tuple[float, float, float]:
    """Spacing, mm; NRRD gives it as `space directions` or `spacings`, or not at all."""
    fields, _ = text_header(path, "", ":")
    given = fields.get("space directions") or fields.get("spacings", "nan")
    if "nan" in given.lower():
        raise UserError(f"{path}: has no voxel spacing; {GIVE_SPACING}")
    _check_unit(path, fields.get("space units", fields.get("units", "")).replace('"', " ").split())
    return _positive(reader.GetSpacing(), path)


def check_meta(path: Path, reader: sitk.ImageFileReader) -> None:
    """Refuse a rescaling of the values, which ITK passes over."""
    fields, _ = text_header(path, "elementdatafile", "=")
    slope = float(fields.get("elementtointensityfunctionslope", 1))
    if (slope, float(fields.get("elementtointensityfunctionoffset", 0))) != (1, 0):
        raise UserError(
            f"{path}: asks for its values to be rescaled (ElementToIntensityFunction); save it with final values"
        )


def meta_spacing(path: Path, reader: sitk.ImageFileReader) -> tuple[float, float, float]:
    """Spacing, mm; MetaImage gives it as ElementSpacing, or not at all."""
    fields, _ = text_header(path, "elementdatafile", "=")
    if "elementspacing" not in fields:
        raise UserError(f"{path}: has no ElementSpacing; {GIVE_SPACING}")
    _check_unit(path, fields.get("distanceunits", "").split())
    return _positive(reader.GetSpacing(), path)


def _check_unit(path: Path, units: list[str]) -> None:
    """ITK takes these numbers for mm, whatever the header says."""
    other = [u for u in units if u.lower() not in ("mm", "millimeter", "millimetre", "?", "none")]
    if other:
        raise UserError(f"{path}: its spacing is in {other[0]}, not mm; {GIVE_SPACING}")


def tiff_spacing(path: Path, reader: sitk.ImageFileReader) -> tuple[float, float, float]:
    """TIFF has no slice distance, and its resolution tag is a printer's more often than a scanner's."""
    raise UserError(f"{path}: a TIFF stack has no voxel spacing of its own; {GIVE_SPACING}")


def check_tiff(path: Path) -> int:
    """Number of slices; refuses what SimpleITK would read in part or in another way than it is meant."""
    try:
        with tifffile.TiffFile(path) as tiff:
            pages, series = list(tiff.pages), tiff.series
            first = pages[0]
            shape = tuple(series[0].shape)
            end = max(o + n for p in pages for o, n in zip(p.dataoffsets, p.databytecounts, strict=True))
            whole = end <= tiff.filehandle.size and _next_page(tiff, pages[-1].offset) == 0
    except (tifffile.TiffFileError, OSError, ValueError, IndexError, struct.error) as error:
        raise UserError(f"{path}: is not a readable TIFF file ({error})") from None
    if not whole:
        raise UserError(f"{path}: is truncated; copy it again")
    if first.samplesperpixel != 1:
        raise UserError(f"{path}: has {first.samplesperpixel} values in a pixel (colour); save it as grey values")
    if first.photometric != tifffile.PHOTOMETRIC.MINISBLACK:
        raise UserError(
            f"{path}: its grey scale is inverted or a palette ({first.photometric.name}); save it as plain grey values"
        )
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
