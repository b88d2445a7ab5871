"""Volumes in: DICOM, NIfTI, NRRD, MetaImage, TIFF stacks and 2-D images -> Volume, through SimpleITK.

ITK fills what a header lacks with 1 mm and straightens what is sheared, at most with a warning. Here a volume whose geometry
is not certain is refused, with one line that says which file, what is wrong and what to do.
"""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import SimpleITK as sitk

from microsr import UserError, dicom, headers
from microsr.config import Scan
from microsr.storage import IDENTITY, Volume

FORMATS = {
    ".nii": "NIfTI", ".nii.gz": "NIfTI", ".nrrd": "NRRD", ".nhdr": "NRRD", ".mha": "MetaImage", ".mhd": "MetaImage",
    ".tif": "TIFF", ".tiff": "TIFF", ".png": "PNG",
}  # fmt: skip
IMAGES = (".png", ".tif", ".tiff")


def read_scan(scan: Scan) -> Volume:
    """Read one modality of a case.

    The array is [slices, rows, columns] of the file's type, rescaled as its header says; unit "grey". Slices of a DICOM series
    ascend along their normal (for an axial scan: from the feet). `scan.spacing` overrides the file's: one or two numbers are
    the pixel size, the third is the slice distance. A folder of 2-D images, or one image, is a stack if the spacing has three
    numbers, otherwise independent slices (attributes["independent_slices"]; their z spacing is a placeholder).
    attributes["source"] holds format, size and spacing (x, y, z) of the whole input; attributes["slices"] the range taken.

    Raises
    ------
    UserError
        Anything that keeps the values or the geometry from being certain.
    """
    path = Path(scan.path)
    if not path.exists():
        raise UserError(f"{path}: does not exist; correct the path")
    if path.is_dir():
        volume = _read_folder(path, scan)
    elif (suffix := _suffix(path)) in FORMATS:
        volume = _read_images([path], scan) if FORMATS[suffix] == "PNG" else _read_file(path, scan)
    elif dicom.is_dicom(path):
        volume = dicom.read([path], scan)
    else:
        raise UserError(f"{path}: is of no known format; give DICOM, NIfTI, NRRD, MetaImage, TIFF or PNG")
    if scan.slices:
        volume.attributes["slices"] = list(headers.chosen_range(scan, volume.attributes["source"]["size"][2]))
    _check_values(volume.array, path)
    return volume


def _suffix(path: Path) -> str:
    name = path.name.lower()
    return ".nii.gz" if name.endswith(".nii.gz") else path.suffix.lower()


def _read_folder(path: Path, scan: Scan) -> Volume:
    files = sorted((p for p in path.iterdir() if p.is_file() and not p.name.startswith(".")), key=_natural)
    images = [p for p in files if _suffix(p) in IMAGES]
    slices = [p for p in files if _suffix(p) not in FORMATS and dicom.is_dicom(p)]
    if slices and images:
        raise UserError(f"{path}: holds DICOM files and images; keep one kind in the folder")
    if slices:
        return dicom.read(slices, scan)
    if images:
        return _read_images(images, scan)
    hint = "; it has sub-folders: give one of them" if any(p.is_dir() for p in path.iterdir()) else ""
    raise UserError(f"{path}: holds neither DICOM files nor PNG or TIFF images{hint}")


def _natural(path: Path) -> list[str | int]:
    """Sorting key by which slice2 comes before slice10."""
    return [int(part) if part.isdigit() else part.lower() for part in re.split(r"(\d+)", path.name)]


def _check_values(array: np.ndarray, path: Path) -> None:
    if array.dtype.kind == "f" and not all(np.isfinite(one).all() for one in array):
        raise UserError(f"{path}: holds values that are not numbers (NaN or infinite); mend the volume")
    if array.min() == array.max():
        raise UserError(f"{path}: is constant ({array.flat[0]} everywhere); give a volume with content")


def _reader(path: Path) -> sitk.ImageFileReader:
    """A reader whose header is read."""
    sitk.ProcessObject.SetGlobalWarningDisplay(False)
    reader = sitk.ImageFileReader()
    reader.SetFileName(str(path))
    try:
        reader.ReadImageInformation()
    except RuntimeError as error:
        raise UserError(f"{path}: cannot be read ({headers.reason(error)})") from None
    if reader.GetNumberOfComponents() != 1:
        raise UserError(
            f"{path}: has {reader.GetNumberOfComponents()} values in a pixel (colour?); save it as grey values"
        )
    return reader


def _array(reader: sitk.ImageFileReader) -> np.ndarray:
    try:
        image = reader.Execute()
    except RuntimeError as error:
        raise UserError(
            f"{reader.GetFileName()}: cannot be read, it is damaged or truncated ({headers.reason(error)})"
        ) from None
    array = sitk.GetArrayFromImage(image)
    return array.astype(np.float32) if array.dtype == np.float64 else array


def _read_file(path: Path, scan: Scan) -> Volume:
    """NIfTI, NRRD, MetaImage or TIFF: one file that holds the whole volume."""
    kind = FORMATS[_suffix(path)]
    if kind == "TIFF":
        pages = headers.check_tiff(path)
        if pages == 1:
            return _read_images([path], scan)
    reader = _reader(path)
    size = reader.GetSize()
    if any(extent > 1 for extent in size[3:]):
        raise UserError(f"{path}: has {len(size)} dimensions ({'x'.join(map(str, size))}); give one 3-D volume")
    check = {"NIfTI": headers.check_nifti, "MetaImage": headers.check_meta}.get(kind)
    if check is not None:
        check(path, reader)
    header = {
        "NIfTI": headers.nifti_spacing,
        "NRRD": headers.nrrd_spacing,
        "MetaImage": headers.meta_spacing,
        "TIFF": headers.tiff_spacing,
    }[kind]
    spacing = _with_sheet(scan, lambda: header(path, reader))
    straight = _direction(reader, path)
    array = _array(reader)
    array = array.reshape(array.shape[-3:] if array.ndim >= 3 else (1, *array.shape))
    origin = (*reader.GetOrigin(), 0.0)[:3]
    source = _source(kind, [*size, 1][:3], spacing, scan)
    volume = Volume(array, spacing, origin, straight, "grey", {"source": source})
    first, end = headers.chosen_range(scan, array.shape[0])
    if (first, end) == (0, array.shape[0]):
        return volume
    part = volume.slices(first, end)
    return replace(part, array=part.array.copy())  # frees the rest


def _source(kind: str, size: list[int], spacing: tuple, scan: Scan) -> dict:
    return {"format": kind, "size": size, "spacing": list(spacing), "spacing_from": "sheet" if scan.spacing else "file"}


def _with_sheet(scan: Scan, header_spacing) -> tuple[float, float, float]:
    """Spacing (x, y, z): the sheet's numbers where it gives them, else the header's."""
    given = headers.sheet_spacing(scan)
    if len(given) == 3:
        return tuple(given)
    found = header_spacing()
    if given:
        return given[0], given[-1], found[2]
    return found


def _direction(reader: sitk.ImageFileReader, path: Path) -> tuple[float, ...]:
    size = reader.GetDimension()
    if size == 2:
        return IDENTITY
    matrix = np.reshape(reader.GetDirection(), (size, size))[:3, :3]
    if np.abs(matrix.T @ matrix - np.eye(3)).max() > headers.STRAIGHT:
        raise UserError(f"{path}: its axes are not perpendicular (sheared); resample it to an upright grid")
    return tuple(float(v) for v in matrix.ravel())


def _read_images(files: list[Path], scan: Scan) -> Volume:
    """2-D images in the order given: a stack with three numbers of spacing, else independent slices."""
    given = headers.sheet_spacing(scan)
    if not given:
        raise UserError(
            f"{scan.path}: 2-D images have no pixel size of their own; give it in the sheet (<modality>_spacing, mm: "
            "X or XxY for independent slices, XxYxZ for a stack)"
        )
    first, end = headers.chosen_range(scan, len(files))
    array = None
    for z, path in enumerate(files[first:end]):
        if _suffix(path) != ".png" and headers.check_tiff(path) != 1:
            raise UserError(f"{path}: is a stack inside a folder of images; give the file itself")
        reader = _reader(path)
        image = _array(reader)
        image = image.reshape(image.shape[-2:])
        if array is None:
            array = np.empty((end - first, *image.shape), image.dtype)
        if image.shape != array.shape[1:] or image.dtype != array.dtype:
            raise UserError(
                f"{path}: is {image.shape[1]}x{image.shape[0]} ({image.dtype}), the images before it are "
                f"{array.shape[2]}x{array.shape[1]} ({array.dtype}); make them alike, or give each its own case"
            )
        array[z] = image
    stack = len(given) == 3
    kind = FORMATS[_suffix(files[0])]
    spacing = (given[0], given[min(1, len(given) - 1)], given[2] if stack else given[0])
    size = [array.shape[2], array.shape[1], len(files)]
    attributes = {"source": _source(kind, size, (*spacing[:2], spacing[2] if stack else None), scan)}
    if not stack:
        attributes["independent_slices"] = True
    origin = (0.0, 0.0, first * spacing[2] if stack else 0.0)
    return Volume(array, spacing, origin, IDENTITY, "grey", attributes)
