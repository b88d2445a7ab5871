"""What the text headers of NRRD and MetaImage files really say.

ITK reads a number up to the first character that is none, takes a field that it does not know for a remark, and is led
by a damaged header to write where it must not. So the text is read here first, and what ITK made of it is compared with
it.
"""

from __future__ import annotations

import difflib
import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from microsr.core.errors import UserError
from microsr.formats.headers import GIVE_SPACING, require_positive

if TYPE_CHECKING:
    import SimpleITK as sitk

MEND = "mend its header, or save it anew"
NRRD_SPACES = {
    "right-anterior-superior": (-1, -1, 1), "ras": (-1, -1, 1), "left-anterior-superior": (1, -1, 1), "las": (1, -1, 1),
}  # fmt: skip
"""Signs that turn a space into LPS, as ITK does; others are taken for LPS."""
META_FIELDS = (
    "ObjectType", "ObjectSubType", "TransformType", "NDims", "Name", "ID", "ParentID", "CompressedData",
    "CompressedDataSize", "BinaryData", "BinaryDataByteOrderMSB", "ElementByteOrderMSB", "Color", "Position", "Offset",
    "Origin", "Orientation", "Rotation", "TransformMatrix", "CenterOfRotation", "ElementSpacing", "DistanceUnits",
    "AnatomicalOrientation", "Comment", "AcquisitionDate", "DimSize", "HeaderSize", "HeaderSizePerSlice", "Modality",
    "SequenceID", "ElementMin", "ElementMax", "ElementNumberOfChannels", "ElementSize", "ElementNBits",
    "ElementToIntensityFunctionSlope", "ElementToIntensityFunctionOffset", "ElementType", "ElementDataFile",
)  # fmt: skip
"""Fields that MetaImage defines; a file may have others, for remarks."""
SAME = ("Offset", "Position", "Origin"), ("TransformMatrix", "Rotation", "Orientation")
"""Names of one field each."""
ENCODINGS = ("raw", "gzip", "gz", "bzip2", "bz2", "hex", "ascii", "text", "txt")
"""Ways in which NRRD stores voxels that are read."""
SHOWN = re.compile(r"[\w./%+() -]{1,100}")
"""Names of files that a message shows."""
YES, NO = ("true", "t", "1"), ("false", "f", "0")
SAME_COSINES = 2e-3
"""Largest difference of direction cosines in two readings of one header."""
ALIKE = 0.75
"""Likeness from which on a field that MetaImage does not define is a misspelt one."""
UNITS = (
    "um",
    "\xb5m",
    "micron",
    "microns",
    "micrometer",
    "micrometre",
    "nm",
    "cm",
    "m",
    "meter",
    "metre",
    "in",
    "inch",
    "pixel",
)
"""Units that an error names; others may be anything."""


def text_header(path: Path, last: str, separator: str) -> tuple[dict[str, str], int]:
    """Fields of a text header that ends with a blank line or the field `last`, and its length in bytes.

    Names of NRRD's fields (separator ":") are in lower case, as it has them in any.

    Raises
    ------
    UserError
        A field is there twice.
    """
    fields: dict[str, str] = {}
    with path.open("rb") as stream:
        while line := stream.readline(65536):
            text = line.decode("latin-1").strip()
            key, found, value = (part.strip() for part in text.partition(separator))
            if found and not text.startswith("#"):
                key = key if separator == "=" else key.lower() + ":=" * value.startswith("=")  # := is a remark of NRRD
                if key in fields:
                    raise UserError(f"{path}: says a field of its header twice; {MEND}")
                fields[key] = value
            elif separator == "=" and text and not text.startswith("#"):
                fields[text] = ""  # a field that has lost its separator must not be passed over
            if not text or key == last:
                break
        return fields, stream.tell()


def numbers(text: str, shape: tuple[int, ...], path: Path, what: str) -> np.ndarray:
    """All numbers of a field, float64.

    Raises
    ------
    UserError
        One is no finite number, or there are more or fewer.
    """
    try:
        found = np.array([float(word) for word in text.split()], float).reshape(shape)
    except ValueError:
        found = np.array(np.nan)
    if not np.isfinite(found).all():
        raise UserError(f"{path}: its {what} is damaged; {MEND}")
    return found


def _check_axes(path: Path, reader: sitk.ImageFileReader, axes: np.ndarray, origin: np.ndarray) -> None:
    """Refuse a place that ITK has understood otherwise than its header says: axes (columns: x, y, z) and origin,
    LPS.
    """
    found = np.reshape(reader.GetDirection(), axes.shape) * reader.GetSpacing()
    step, far = np.linalg.norm(axes, axis=0), np.abs(origin).max()
    alike = (np.abs(found - axes) <= SAME_COSINES * step).all()
    if not (alike and np.abs(origin - reader.GetOrigin()).max() <= 1e-3 * step.min() + 1e-6 * far):
        raise UserError(f"{path}: its place is damaged; {MEND}")


def _check_sizes(path: Path, count: str, sizes: str, what: str) -> None:
    """Refuse a number of dimensions and sizes that are none."""
    if not re.fullmatch("[1-9]", count) or not re.fullmatch(r"[1-9]\d{0,9}( +[1-9]\d{0,9})*", sizes):
        raise UserError(f"{path}: its {what} is damaged; {MEND}")
    numbers(sizes, (int(count),), path, what)


def check_nrrd_text(path: Path) -> None:
    """Refuse a header of NRRD that is damaged, before ITK reads it.

    Raises
    ------
    UserError
        A field is there twice, its numbers are none, or its voxels are in a file that is not there, or packed in
        another way.
    """
    fields, _ = text_header(path, "", ":")
    _check_sizes(path, fields.get("dimension", ""), fields.get("sizes", ""), "sizes")
    _nrrd_place(path, fields, int(fields["dimension"]))
    if fields.get("encoding", "raw").lower() not in ENCODINGS:
        raise UserError(
            f"{path}: its encoding is not among those that are read ({', '.join(ENCODINGS)}); save it raw or with gzip"
        )
    for name in fields.keys() & {"data file", "datafile"}:
        _check_data_files(path, fields[name], text_header(path, name, ":")[1])


def _nrrd_place(path: Path, fields: dict[str, str], count: int) -> tuple[np.ndarray, np.ndarray] | None:
    """Axes (columns: x, y, z) and origin, LPS; None: not said of a volume in space."""
    if count != 3 or "space directions" not in fields or "none" in fields["space directions"]:
        return None
    flip = np.array(NRRD_SPACES.get(fields.get("space", "").lower(), (1, 1, 1)))
    axes, origin = (re.sub("[(),]", " ", fields.get(key, "0 0 0")) for key in ("space directions", "space origin"))
    axes = flip[:, None] * numbers(axes, (3, 3), path, "space directions").T
    return axes, flip * numbers(origin, (3,), path, "space origin")


def check_nrrd(path: Path, reader: sitk.ImageFileReader) -> None:
    """Refuse numbers that ITK reads in part, passing over what follows."""
    fields, _ = text_header(path, "", ":")
    count = reader.GetDimension()
    place = _nrrd_place(path, fields, count)
    if place is not None:
        _check_axes(path, reader, *place)
    elif "spacings" in fields and "nan" not in fields["spacings"].lower():
        spacing = numbers(fields["spacings"], (count,), path, "spacings")
        if not np.allclose(spacing, reader.GetSpacing(), rtol=1e-6):
            raise UserError(f"{path}: its spacings are damaged; {MEND}")


def nrrd_spacing(path: Path, reader: sitk.ImageFileReader) -> tuple[float, float, float]:
    """Spacing, mm; NRRD gives it as `space directions` or `spacings`, or not at all."""
    fields, _ = text_header(path, "", ":")
    given = fields.get("space directions") or fields.get("spacings", "nan")
    if "nan" in given.lower():
        raise UserError(f"{path}: has no voxel spacing; {GIVE_SPACING}")
    _check_unit(path, fields.get("space units", fields.get("units", "")).replace('"', " ").split())
    return require_positive(reader.GetSpacing(), path)


def check_meta_text(path: Path) -> None:
    """Refuse a header of MetaImage that is damaged, before ITK reads it: it might write where it must not.

    Raises
    ------
    UserError
        A field is missing, misspelt, there twice or of another kind, asks for the values to be rescaled, which ITK
        passes over, or names a file that is not there.
    """
    fields, end = text_header(path, "ElementDataFile", "=")
    defined = {name.lower(): name for name in META_FIELDS}
    for key in fields.keys() - set(META_FIELDS):
        likely = difflib.get_close_matches(key.lower(), defined, 1, ALIKE)
        if likely or not key:
            raise UserError(f"{path}: its field {defined[likely[0]] if likely else ''} is misspelt or damaged; {MEND}")
    for name in ("ElementType", "ElementDataFile"):
        if not fields.get(name):
            raise UserError(f"{path}: has no {name}, or its header is damaged; {MEND}")
    for name in ("BinaryData", "CompressedData", "BinaryDataByteOrderMSB", "ElementByteOrderMSB"):
        if fields.get(name, "0").lower() not in (*YES, *NO):
            raise UserError(f"{path}: its {name} is neither True nor False; {MEND}")
    _check_sizes(path, fields.get("NDims", ""), fields.get("DimSize", ""), "DimSize")
    _meta_place(path, fields, int(fields["NDims"]))
    size = fields.get("CompressedDataSize")
    held = path.stat().st_size - end if fields["ElementDataFile"].lower() == "local" else None
    packed = fields.get("CompressedData", "0").lower() in YES
    if size is not None and (not packed or not size.isdecimal() or held not in (None, int(size))):
        raise UserError(f"{path}: its CompressedDataSize is damaged; {MEND}")
    given = [fields.get(f"ElementToIntensityFunction{name}", one) for name, one in (("Slope", "1"), ("Offset", "0"))]
    if [numbers(text, (), path, "ElementToIntensityFunction") for text in given] != [1, 0]:
        raise UserError(
            f"{path}: asks for its values to be rescaled (ElementToIntensityFunction); save it with final values"
        )
    if held is None:
        _check_data_files(path, fields["ElementDataFile"], end)


def _check_data_files(path: Path, named: str, end: int) -> None:
    """Refuse a header whose voxels are not there. named: as it names their files: one, LIST (the lines from byte `end`
    on name them), or a pattern with first and last number and step.
    """
    words = named.split()
    names = [named]
    if words and words[0].lower() == "list":
        with path.open("rb") as stream:
            stream.seek(end)
            names = [line.strip() for line in stream.read(1 << 20).decode("latin-1").splitlines() if line.strip()]
    elif len(words) >= 4 and re.fullmatch(r"[^%]*%0?\d*d[^%]*", words[0]) and all(map(str.isdecimal, words[1:4])):
        first, last, step = map(int, words[1:4])
        names = [words[0] % number for number in range(first, last + 1, max(step, 1))]
    for name in names:
        if not os.path.isfile(path.parent / name):  # noqa: PTH113 - of a name that no system can have, too
            shown = f", {name}," if SHOWN.fullmatch(name) else ""
            raise UserError(f"{path}: its voxels{shown} are not there; put the files into one folder, or {MEND}")


def _meta_place(path: Path, fields: dict[str, str], count: int) -> tuple[np.ndarray, np.ndarray] | None:
    """Axes (columns: x, y, z) and origin; None: without a spacing."""
    found = [[name for name in same if name in fields] for same in SAME]
    if any(len(names) > 1 for names in found):
        raise UserError(
            f"{path}: must say its place (TransformMatrix) and that of its first voxel (Offset) at most once; {MEND}"
        )
    axes, origin = np.eye(count), np.zeros(count)
    if found[0]:
        origin = numbers(fields[found[0][0]], (count,), path, found[0][0])
    if found[1]:
        axes = numbers(fields[found[1][0]], (count, count), path, found[1][0]).T
    name = _meta_spacing_field(fields)
    return None if name is None else (axes * numbers(fields[name], (count,), path, name), origin)


def _meta_spacing_field(fields: dict[str, str]) -> str | None:
    """Which field of MetaImage gives the spacing; ElementSize does where there is no other."""
    return next((name for name in ("ElementSpacing", "ElementSize") if name in fields), None)


def check_meta(path: Path, reader: sitk.ImageFileReader) -> None:
    """Refuse numbers that ITK reads in part, passing over what follows."""
    fields, _ = text_header(path, "ElementDataFile", "=")
    place = _meta_place(path, fields, reader.GetDimension())
    if place is not None and min(reader.GetSpacing()) > 0:
        _check_axes(path, reader, *place)


def meta_spacing(path: Path, reader: sitk.ImageFileReader) -> tuple[float, float, float]:
    """Spacing, mm; MetaImage gives it as ElementSpacing or ElementSize, or not at all."""
    fields, _ = text_header(path, "ElementDataFile", "=")
    if _meta_spacing_field(fields) is None:
        raise UserError(f"{path}: has no ElementSpacing; {GIVE_SPACING}")
    _check_unit(path, fields.get("DistanceUnits", "").split())
    return require_positive(reader.GetSpacing(), path)


def _check_unit(path: Path, units: Sequence[str]) -> None:
    """ITK takes these numbers for mm, whatever the header says."""
    other = [u for u in units if u.lower() not in ("mm", "millimeter", "millimetre", "?", "none")]
    if other:
        named = other[0] if other[0].lower() in UNITS else "another unit"
        raise UserError(f"{path}: its spacing is in {named}, not mm; {GIVE_SPACING}")
