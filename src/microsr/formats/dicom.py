"""DICOM in: a folder or file of single-frame slices -> one Volume, sorted along the slice normal.

ITK's own series reader stacks slices under a warning when they are unevenly spaced, tilted or repeated; here the
geometry is read from each header and such a series is refused, with the reason. Only geometry and rescaling are kept
from the headers.
"""

from __future__ import annotations

import filecmp
import itertools
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import SimpleITK as sitk

from microsr.config.sheet import Scan
from microsr.core.errors import UserError
from microsr.core.progress import logger
from microsr.formats.headers import GIVE_SPACING, STRAIGHT, choose_range, reason, sheet_spacing
from microsr.formats.rawfile import cache_slices
from microsr.volume.even import even_grid
from microsr.volume.slices import Slices, in_order
from microsr.volume.storage import Volume

CT_IMAGE = "1.2.840.10008.5.1.4.1.1.2"
"""SOP class of a CT slice."""
NOT_IMAGES = tuple(
    f"1.2.840.10008.{tail}"
    for tail in ("1.3.10", "5.1.4.1.1.11", "5.1.4.1.1.66", "5.1.4.1.1.88", "5.1.4.1.1.104", "5.1.4.1.1.481.3",
                 "5.1.4.1.1.481.5", "5.1.4.1.1.481.8")
)  # fmt: skip
"""SOP classes without pixels (directory, presentation state, raw data, report, PDF, RT structures and plans)."""
WITH_PIXELS = ("Image", "Segmentation", "Parametric Map", "RT Dose", "Photography", "Surface Scan", "Video")
"""Words in the names of SOP classes of which each object has pixels; one without them is damaged."""
LOCALIZERS = {"LOCALIZER", "SCOUT", "TOPOGRAM", "SURVIEW"}
"""Values of ImageType of a projection that the slices are planned on."""
SAME_DIRECTION = 1e-3
"""Largest difference of two slices' direction cosines."""
GAP_TOLERANCE = 0.1
"""Largest deviation of a slice from an even grid, in slice distances."""
SHIFT_TOLERANCE = 0.5
"""Largest sideways drift over the whole volume, in pixels."""
DECISIVE = [
    "Rows", "Columns", "BitsAllocated", "BitsStored", "HighBit", "PixelData", "ImagePositionPatient",
    "ImageOrientationPatient",
]  # fmt: skip
"""Elements that pydicom reads too."""
UNDEFINED = 0xFFFFFFFF
"""Length of pixels that are compressed."""
PHOTOMETRIC = ("MONOCHROME1", "PALETTE COLOR")
"""Photometric interpretations of one value a pixel that are refused by name."""
MOST_PIXELS, MOST_PACKED = 1 << 26, 1000
"""Pixels that a slice may have whatever the size of its file, and beyond that for each of its bytes."""
TYPES = {
    sitk.sitkUInt8: np.uint8, sitk.sitkInt8: np.int8, sitk.sitkUInt16: np.uint16, sitk.sitkInt16: np.int16,
    sitk.sitkUInt32: np.uint32, sitk.sitkInt32: np.int32, sitk.sitkFloat32: np.float32, sitk.sitkFloat64: np.float32,
}  # fmt: skip


@dataclass(frozen=True)
class Slice:
    """What one file's header says; lengths in mm, patient coordinates (LPS). problem: why it cannot be a CT slice."""

    path: Path
    series: str
    problem: str | None
    size: tuple[int, int]
    pixel_type: int
    is_localizer: bool
    pixel_spacing: tuple[float, float] | None
    position: np.ndarray
    row: np.ndarray
    column: np.ndarray
    thickness: float | None
    padding: float | None
    window: tuple[float, float] | None
    """Values that a viewer first shows black and white, the first of several."""

    @property
    def normal(self) -> np.ndarray:
        """Unit vector from slice to slice."""
        return np.cross(self.row, self.column)


def is_dicom(path: Path) -> bool:
    """Whether the file is DICOM, with or without the 128-byte preamble."""
    with path.open("rb") as stream:
        if stream.read(132)[128:] == b"DICM":
            return True
    try:
        _reader(path).ReadImageInformation()
    except RuntimeError:
        return False
    return True


def read(files: Iterable[Path], scan: Scan, scratch: Path | None = None) -> Volume:
    """Open one series, whose pixels are read when they are asked for; rescale slope and intercept are applied file by
    file (values as the scanner means them, unit "grey").

    MONOCHROME1 is refused: it asks for an inverted display only, so that a CT's values are HU all the same, but GDCM
    hands them out inverted; and in other modalities nobody can tell which of the two was meant.

    Raises
    ------
    UserError
        Several series and none chosen, a damaged file, or slices that do not form a regular, unsheared grid; those
        that are parallel can be put on one (`scan.resample`).
    """
    from microsr.formats import enhanced  # which is built on this module

    files = list(files)
    images = [path for path in files if not sop_class(path).startswith(NOT_IMAGES)]
    if many := [path for path in images if sop_class(path) in enhanced.CLASSES]:
        if len(images) > 1:
            raise UserError(f"{many[0]}: is an enhanced CT, all slices in one file, among other images; give that file")
        return enhanced.read(many[0], scan, scratch)
    series: dict[str, list[Slice]] = defaultdict(list)
    without_pixels = 0
    for header in in_order(_header, files):
        if header is not None:
            series[header.series].append(header)
        else:
            without_pixels += 1
    if not series:
        raise UserError(f"{scan.path}: holds no DICOM image; give the folder of one CT series")
    slices_of = _without_localizers(series, scan)
    chosen = _choose_series(slices_of, scan)
    for one in chosen:
        if one.problem:
            raise UserError(f"{one.path}: {one.problem}")
    once = _without_copies(chosen)
    volume = build_volume(once, _pixels, scan, scratch)
    passed_over = {
        "without pixels": without_pixels,
        "localizers": sum(map(len, series.values())) - sum(map(len, slices_of.values())),
        "copies of others": len(chosen) - len(once),
    }
    if any(passed_over.values()):
        said = ", ".join(f"{number} {what}" for what, number in passed_over.items() if number)
        logger.info("%s: DICOM files are passed over: %s", scan.path, said)
    return volume


def build_volume(
    slices: Sequence[Slice], pixels: Callable[[Sequence[Slice]], Slices], scan: Scan, scratch: Path | None
) -> Volume:
    """The volume that slices in any order make. pixels: gives those of sorted ones.

    Raises
    ------
    UserError
        They do not form a regular, unsheared grid.
    """
    slices = _sort_slices(list(slices), scan.path)
    (first, end), given = choose_range(scan, len(slices)), sheet_spacing(scan)
    array = cache_slices(pixels(slices[first:end]), scratch)
    if scan.resample and end - first > 1:
        array, volume_facts, padding = _resample(array, slices[first:end], given)
    else:
        volume_facts, padding = _geometry(slices[first:end], given, scan.path, first), slices[first].padding
    source = {
        "format": "DICOM",
        "size": [*slices[0].size, len(slices)],
        "spacing": list(volume_facts["spacing"]),
        "spacing_from": "sheet" if scan.spacing else "file",
        "slice_thickness": slices[first].thickness,
        "padding": padding,
    } | ({"resampled": scan.resample} if scan.resample else {})
    source |= {"window": list(window)} if (window := slices[first].window) else {}
    return Volume(array, **volume_facts, unit="grey", attributes={"source": source})


def _reader(path: Path) -> sitk.ImageFileReader:
    sitk.ProcessObject.SetGlobalWarningDisplay(False)
    reader = sitk.ImageFileReader()
    reader.SetImageIO("GDCMImageIO")
    reader.SetFileName(str(path))
    return reader


def perpendicular(row: np.ndarray, column: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The nearest perpendicular unit vectors of two that are so up to rounding."""
    row, column = (vector / max(np.linalg.norm(vector), 1e-6) for vector in (row, column))
    off = (row @ column) / 2
    row, column = row - off * column, column - off * row
    return row / max(np.linalg.norm(row), 1e-6), column / max(np.linalg.norm(column), 1e-6)


def sop_class(path: Path) -> str:
    """Media storage SOP class of a file with a preamble, "" if it has none."""
    with path.open("rb") as stream:
        start = stream.read(1024)
    at = start.find(b"\x02\x00\x02\x00UI")
    length = int.from_bytes(start[at + 6 : at + 8], "little")
    return start[at + 8 : at + 8 + length].decode("ascii", "replace").strip("\0 ") if at >= 0 else ""


def _header(path: Path) -> Slice | None:
    """The header of an image file, None for a DICOM file without pixels."""
    if sop_class(path).startswith(NOT_IMAGES):
        return None
    reader = _reader(path)
    try:
        reader.ReadImageInformation()
    except RuntimeError:
        if _has_no_pixels(path) and sop_class(path) != CT_IMAGE:  # a CT without pixels is a damaged one
            return None
        raise UserError(
            f"{path}: cannot be read as a DICOM image; it is damaged, truncated or of another kind"
        ) from None

    def text(tag: str) -> str:
        return reader.GetMetaData(tag).strip() if reader.HasMetaDataKey(tag) else ""

    def first_number(tag: str) -> float | None:
        try:
            return float(text(tag).split("\\")[0])
        except ValueError:
            return None

    def numbers(tag: str, count: int) -> list[float] | None:
        try:
            values = [float(v) for v in text(tag).split("\\")]
        except ValueError:
            return None
        return values if len(values) == count and np.isfinite(values).all() else None

    position, orientation = numbers("0020|0032", 3), numbers("0020|0037", 6)
    row, column = np.split(np.array(orientation or [1.0, 0, 0, 0, 1, 0]), 2)
    lengths = np.linalg.norm(row), np.linalg.norm(column)
    problem = None
    if reader.GetNumberOfComponents() != 1:
        problem = f"is a colour image ({reader.GetNumberOfComponents()} components); give a grey-value CT"
    elif text("0028|0008") not in ("", "1"):
        count = text("0028|0008") if text("0028|0008").isdecimal() else "several"
        problem = f"holds {count} frames in one file; convert it to single-frame files or NIfTI (e.g. with dcm2niix)"
    elif "MOSAIC" in text("0008|0008").split("\\"):
        problem = "is a mosaic of slices in one image; convert it to NIfTI (e.g. with dcm2niix)"
    elif text("0028|0004") != "MONOCHROME2":
        kind = (
            text("0028|0004") if text("0028|0004") in PHOTOMETRIC else "no MONOCHROME2"
        )  # no text from a header is shown
        problem = f"is {kind}, so its values may be read inverted; convert it to MONOCHROME2"
    elif position is None or orientation is None:
        problem = "has no ImagePositionPatient or ImageOrientationPatient; give a CT series, or convert it to NIfTI"
    elif min(lengths) < 0.9 or abs(row @ column) > STRAIGHT:
        problem = (
            f"has an ImageOrientationPatient whose two directions are not perpendicular ({orientation}); "
            "mend the header"
        )
    elif np.prod(reader.GetSize(), dtype=float) > max(MOST_PIXELS, MOST_PACKED * path.stat().st_size):
        problem = (
            f"has {'x'.join(map(str, reader.GetSize()[:2]))} pixels by its header, too many for its size; copy it again"
        )
    elif reader.GetPixelID() not in TYPES:
        problem = f"has an unsupported pixel type ({sitk.GetPixelIDValueAsString(reader.GetPixelID())})"
    else:
        problem = _find_damage(path, reader.GetSize()[:2], [text("0028|1053"), text("0028|1052")])
    directions = perpendicular(row, column)
    pixel = numbers("0028|0030", 2)
    thickness = numbers("0018|0050", 1)
    return Slice(
        path=path,
        series=text("0020|000e"),
        problem=problem,
        size=tuple(reader.GetSize()[:2]),
        pixel_type=reader.GetPixelID(),
        is_localizer=not LOCALIZERS.isdisjoint(text("0008|0008").upper().split("\\")),
        pixel_spacing=(pixel[1], pixel[0]) if pixel and min(pixel) > 0 else None,
        position=np.array(position or [0.0, 0, 0]),
        row=directions[0],
        column=directions[1],
        thickness=thickness[0] if thickness and thickness[0] > 0 else None,
        padding=_padding(
            numbers("0028|0120", 1), numbers("0028|1053", 1), numbers("0028|1052", 1), text("0028|0103") == "1"
        ),
        window=window_of(first_number("0028|1050"), first_number("0028|1051")),
    )


def window_of(centre: float | None, width: float | None) -> tuple[float, float] | None:
    """Values shown black and white, of a window's centre and width; None: there is none, or it is damaged."""
    if centre is None or width is None or not np.isfinite([centre, width]).all() or width < 1:
        return None
    return centre - width / 2, centre + width / 2


def _has_no_pixels(path: Path) -> bool:
    """Whether a file that is no image for GDCM is a sound object of another kind: a value map, a protocol, an ECG."""
    import pydicom  # only here, as below

    try:
        data = pydicom.dcmread(path)
        kind = data.SOPClassUID
        is_image = any(word in kind.name for word in WITH_PIXELS) and not kind.is_private
        return not is_image and not {"Rows", "Columns", "PixelData"} & set(data.dir())
    except Exception:  # whatever a damaged header provokes in pydicom
        return False


def _without_localizers(series: dict[str, list[Slice]], scan: Scan) -> dict[str, list[Slice]]:
    """The series without localizers, if anything is left of those that are asked for."""
    asked = [one for uid, slices in series.items() if scan.series in (None, uid) for one in slices]
    if asked and all(one.is_localizer for one in asked):
        path = asked[0].path if len(asked) == 1 else scan.path
        raise UserError(
            f"{path}: is a localizer by its ImageType, a projection and no CT slice; give the series of the slices"
        )
    left = {uid: [one for one in slices if not one.is_localizer] for uid, slices in series.items()}
    return {uid: slices for uid, slices in left.items() if slices}


def _without_copies(slices: list[Slice]) -> list[Slice]:
    """Each slice once, where files are copies of one another: of one place and size, and with the same values."""
    once: dict[tuple, list[Slice]] = defaultdict(list)
    for one in slices:
        place = (*one.position.round(4), *one.row.round(4), *one.column.round(4), *one.size)
        if not any(_are_copies(one, other) for other in once[place]):
            once[place].append(one)
    return list(itertools.chain.from_iterable(once.values()))


def _are_copies(one: Slice, other: Slice) -> bool:
    if filecmp.cmp(one.path, other.path, shallow=False):
        return True
    alike = (one.pixel_spacing, one.thickness, one.padding) == (other.pixel_spacing, other.thickness, other.padding)
    return alike and np.array_equal(_read_pixels(one.path), _read_pixels(other.path))


def _find_damage(path: Path, size: tuple[int, int], rescale: list[str]) -> str | None:
    """What GDCM passes over in a damaged file, None if there is nothing: it is read as pydicom reads it.

    size: columns and rows as GDCM has them. rescale: slope and intercept as the header says them.
    """
    import pydicom  # only here: an imported volume, or a scan of another format, needs none of it

    try:
        slope, intercept = (float(text or default) for text, default in zip(rescale, "10", strict=True))
        if slope == 0 or not np.isfinite([slope, intercept]).all():
            return "has an invalid rescale slope or intercept; mend its header"
        data = pydicom.dcmread(path, force=True, specific_tags=DECISIVE)
        place = [data.get(name) for name in ("ImagePositionPatient", "ImageOrientationPatient")]
        if (data.Columns, data.Rows) != size or [len(values) for values in place] != [3, 6]:
            return "has a damaged header; copy it again"
        held, bits = data.get_item("PixelData").length, data.BitsAllocated
        row = data.Columns * bits // 8
        if held != UNDEFINED and not 0 <= held - data.Rows * row < max(row, 2):
            return f"has {held} bytes of pixels, not {data.Rows * row}; it is damaged or truncated, copy it again"
        if data.get("HighBit", data.BitsStored - 1) != data.BitsStored - 1 or data.BitsStored > bits:
            return f"has {data.BitsStored} of {bits} bits, or a highest bit that does not fit them; mend its header"
    except Exception:  # whatever a damaged header provokes in pydicom
        return "has a damaged header; copy it again"
    return None


def _padding(
    stored: list[float] | None, slope: list[float] | None, intercept: list[float] | None, signed: bool
) -> float | None:
    """PixelPaddingValue after rescaling."""
    if stored is None:
        return None
    value = stored[0] - 65536 if signed and stored[0] > 32767 else stored[0]  # some scanners write it as unsigned
    return value * (slope[0] if slope else 1.0) + (intercept[0] if intercept else 0.0)


def _choose_series(series: dict[str, list[Slice]], scan: Scan) -> list[Slice]:
    if scan.series is None and len(series) == 1:
        return next(iter(series.values()))
    if scan.series in series:
        return series[scan.series]
    listed = "; ".join(
        f"{uid or '(no UID)'} ({len(s)} slices of {s[0].size[0]}x{s[0].size[1]}, "
        f"{_millimetres(s[0].pixel_spacing or ())}, thickness {s[0].thickness or 'unknown'} mm)"
        for uid, s in sorted(series.items())
    )
    problem = f"has no series {scan.series}" if scan.series else f"holds {len(series)} series"
    raise UserError(
        f"{scan.path}: {problem}; choose one by its UID (sheet: <modality>_series, command: --series): {listed}"
    )


def _millimetres(values: Iterable[float]) -> str:
    return " x ".join(f"{v:.4g}" for v in values) + " mm"


def _sort_slices(slices: list[Slice], where: str) -> list[Slice]:
    """Slices in ascending order along their normal; refuses what cannot be one stack."""
    first = slices[0]
    for other in slices[1:]:
        if other.size != first.size or not np.allclose(other.pixel_spacing or 0, first.pixel_spacing or 0, rtol=1e-4):
            raise UserError(
                f"{where}: slices differ in size or pixel spacing ({first.path.name} and {other.path.name}); "
                "keep the files of one scan in the folder"
            )
        if max(np.abs(other.row - first.row).max(), np.abs(other.column - first.column).max()) > SAME_DIRECTION:
            raise UserError(
                f"{where}: slices differ in orientation ({first.path.name} and {other.path.name}: a localiser, or a "
                "gantry tilt that varies); keep the files of one orientation"
            )
    slices = sorted(slices, key=lambda s: float(s.position @ first.normal))
    for one, next_one in itertools.pairwise(slices):
        if (next_one.position - one.position) @ first.normal < 1e-3:
            raise UserError(
                f"{where}: two slices at one position ({one.path.name} and {next_one.path.name}): two scans, or a "
                "copy; keep one of them"
            )
    return slices


def _pixel_size(first: Slice, given: list[float]) -> tuple[float, float]:
    """Pixel size (x, y), mm. given: what the sheet says of it."""
    pixel = (given[0], given[min(1, len(given) - 1)]) if given else first.pixel_spacing
    if pixel is None:
        raise UserError(f"{first.path}: has no PixelSpacing; {GIVE_SPACING}")
    return float(pixel[0]), float(pixel[1])


def _resample(array: Slices, slices: list[Slice], given: list[float]) -> tuple[Slices, dict[str, Any], float]:
    """Sorted slices on an even, untilted grid: their array, its spacing, origin and direction, and the value of what is
    outside all slices. given: the sheet's spacing.
    """
    first = slices[0]
    pixel = _pixel_size(first, given)
    axes = np.stack([first.row, first.column, first.normal], axis=1)
    places = (np.array([one.position for one in slices]) - first.position) @ axes
    grid = even_grid(array, places, pixel, given[2] if len(given) == 3 else None, first.padding)
    facts = {
        "spacing": (*pixel, grid.distance),
        "origin": tuple(float(v) for v in first.position + axes @ grid.corner),
        "direction": tuple(float(v) for v in axes.ravel()),
    }
    return grid.array, facts, grid.outside


def _geometry(slices: list[Slice], given: list[float], where: str, before: int) -> dict[str, Any]:
    """Spacing, origin and direction of sorted slices; refuses uneven gaps and shear.

    given: the sheet's spacing. where: the scan, to name. before: as for `_check_even`.
    """
    first = slices[0]
    pixel = _pixel_size(first, given)
    if len(slices) == 1:
        distance = first.thickness
    else:
        steps = np.array([s.position for s in slices]) - first.position
        along = steps @ first.normal
        distance = along[-1] / (len(slices) - 1)
        _check_even(along, slices, where, before)
        sideways = np.linalg.norm(steps - np.outer(along, first.normal), axis=1).max()
        if sideways > SHIFT_TOLERANCE * min(pixel):
            angle = np.degrees(np.arctan2(sideways, along[-1]))
            raise UserError(
                f"{where}: slices are shifted sideways against each other (gantry tilt of {angle:.1f} degrees); have "
                "them put on an upright grid (<modality>_resample is even in the sheet, or --resample even)"
            )
    distance = given[2] if len(given) == 3 else distance
    if distance is None:
        raise UserError(
            f"{first.path}: is one slice without SliceThickness, so without a slice distance; {GIVE_SPACING}"
        )
    direction = np.stack([first.row, first.column, first.normal], axis=1)
    return {
        "spacing": (*pixel, float(distance)),
        "origin": tuple(float(v) for v in first.position),
        "direction": tuple(float(v) for v in direction.ravel()),
    }


def _is_even(along: np.ndarray) -> bool:
    """Whether slices at these places along their normal are on an even grid."""
    gaps, steps = np.diff(along), along - along[0]
    usual = float(np.median(gaps))
    grid = np.linspace(0, steps[-1], len(steps))
    return (
        np.abs(steps - grid).max() <= GAP_TOLERANCE * usual and np.abs(gaps - usual).max() <= 2 * GAP_TOLERANCE * usual
    )


def _even_part(along: np.ndarray) -> tuple[int, int]:
    """First slice and end of the longest part that is on an even grid; of several the first."""
    best, first = (0, min(2, len(along))), 0
    for end in range(2, len(along) + 1):
        while not _is_even(along[first:end]):
            first += 1
        if end - first > best[1] - best[0]:
            best = first, end
    return best


def _check_even(along: np.ndarray, slices: list[Slice], where: str, before: int) -> None:
    """Refuse slices that are not on an even grid. before: slices of the series before the first of them."""
    if _is_even(along):
        return
    gaps = np.diff(along)
    usual = float(np.median(gaps))
    odd = int(np.abs(gaps - usual).argmax())
    first, end = (before + z for z in _even_part(along))
    raise UserError(
        f"{where}: slice gaps vary: {gaps[odd]:.3f} mm between {slices[odd].path.name} and "
        f"{slices[odd + 1].path.name}, {usual:.3f} mm elsewhere; a slice is missing or two scans are mixed (take the "
        f"even part {first}:{end} by <modality>_slices in the sheet, or --slices, or have all put on an even grid: "
        "<modality>_resample is even in the sheet, or --resample even)"
    )


def _pixels(slices: list[Slice]) -> Slices:
    """Rescaled values, [slices, rows, columns], unread."""
    columns, rows = slices[0].size
    dtype = np.result_type(*(TYPES[s.pixel_type] for s in slices))

    def load(z: int) -> np.ndarray:
        return _read_pixels(slices[z].path).astype(dtype, copy=False)

    return Slices(load, (len(slices), rows, columns), dtype)


def _read_pixels(path: Path) -> np.ndarray:
    """Rescaled values of a slice, [rows, columns]."""
    try:
        image = _reader(path).Execute()
    except (RuntimeError, MemoryError) as error:
        raise UserError(f"{path}: pixels cannot be read, the file is damaged or truncated ({reason(error)})") from None
    return sitk.GetArrayFromImage(image)[0]
