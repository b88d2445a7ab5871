"""Volumes in: DICOM, NIfTI, NRRD, MetaImage, TIFF stacks, 2-D images, stores and scanners' own formats -> Volume.

ITK fills what a header lacks with 1 mm and straightens what is sheared, at most with a warning. Here a volume whose
geometry is not certain is refused, with one line that says which file, what is wrong and what to do. Voxels are read
when asked for.
"""

from __future__ import annotations

import math
import os
import re
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from microsr.config.sheet import Scan
from microsr.core.errors import UserError
from microsr.core.registry import load_thing
from microsr.core.registry.read_only_formats import READ_ONLY
from microsr.formats import headers, layouts, textheaders
from microsr.formats.further import Format, further_format
from microsr.formats.images import KINDS, read_images
from microsr.formats.rawfile import Layout, open_slices
from microsr.formats.stores import kinds as stores
from microsr.volume.slices import Slices
from microsr.volume.storage import IDENTITY, Volume

if TYPE_CHECKING:
    import SimpleITK as sitk

FORMATS = {
    ".nii": "NIfTI", ".nii.gz": "NIfTI", ".nrrd": "NRRD", ".nhdr": "NRRD", ".mha": "MetaImage", ".mhd": "MetaImage",
    **{ending: kind.name for ending, kind in KINDS.items()},
}  # fmt: skip
Reader = Callable[[Scan, Path | None], Volume]
"""Opens a scan, given the folder for what has to be unpacked; see `read_scan`."""
PAIR = (".hdr", ".img", ".hdr.gz", ".img.gz")
"""Names of a NIfTI whose header and voxels are two files; other formats have such names too."""
PIXELS = ("UInt8", "Int8", "UInt16", "Int16", "UInt32", "Int32", "UInt64", "Int64", "Float32", "Float64")
"""SimpleITK's types of one value a pixel, by the names that are NumPy's too."""


def read_scan(scan: Scan, scratch: Path | None = None) -> Volume:
    """Open one modality of a case: its headers are read and checked now, its voxels when they are asked for.

    The array is [slices, rows, columns] of the file's type (float64 becomes float32), rescaled as its header says; unit
    "grey". It is a `Slices`, whose slices several threads may ask for; what is packed in one piece is unpacked first,
    into a temporary file in the folder `scratch` (the system's, if None), and what is slow to decode is kept in one.
    Only what is stored in an unusual way is read whole. Slices of a DICOM series ascend along their normal (for an
    axial scan: from the feet). `scan.spacing` overrides the file's: one or two numbers are the pixel size, the third is
    the slice distance. A folder of 2-D images, or one image, is a stack if the spacing has three numbers, otherwise
    independent slices (attributes["independent_slices"]; their z spacing is a placeholder). A path may be the URL of an
    OME-Zarr or N5 store, of which `scan.level` chooses a resolution. attributes["source"] holds format, size and
    spacing (x, y, z) of the whole input; attributes["slices"] and ["region"] the ranges taken (first row, end, first
    column, end).

    Raises
    ------
    UserError
        Anything that keeps the values or the geometry from being certain; what only the voxels can tell, such as NaN,
        when they are read.
    """
    path = Path(scan.path)
    reader = find_reader(path)
    return headers.complete_scan(reader(scan, scratch), scan)


def find_reader(path: Path) -> Reader:
    """What opens a file, a folder or an address, by its name and its first bytes.

    Raises
    ------
    UserError
        It does not exist, or is of no known format.
    """
    if stores.is_store(path):
        return stores.read
    if not path.exists():
        raise UserError(f"{path}: does not exist; correct the path")
    if path.is_dir():
        return _find_reader_of_folder(path)
    suffix = _suffix(path)
    if (kind := FORMATS.get(suffix)) is not None:
        if suffix in KINDS:
            return partial(_read_tiff, path) if kind == "TIFF" else partial(read_images, [path])
        return partial(_read_nifti, path) if kind == "NIfTI" else partial(_read_by_itk, path, kind)
    if further := further_format(suffix[1:]) or read_only_format(suffix[1:]):
        return partial(further.read, path)
    if path.name.lower().endswith(PAIR) and _is_nifti_pair(path):
        return partial(_read_nifti, path)
    from microsr.formats import dicom  # only here, as below: most scans that are read again have been imported before

    if not dicom.is_dicom(path):
        raise UserError(
            f"{path}: is of no known format; give DICOM, NIfTI, NRRD, MetaImage, TIFF or another of docs/data.md"
        )
    return partial(dicom.read, [path])


def _is_nifti_pair(path: Path) -> bool:
    from microsr.formats import dicom, nifti

    return not dicom.is_dicom(path) and nifti.is_pair(path)


def read_only_format(name: str) -> Format | None:
    """The format of this name that has a module of its own and is read alone; None if there is none."""
    place = READ_ONLY.get(name)
    return None if place is None else load_thing(place)


def _suffix(path: Path) -> str:
    name = re.sub(r";\d+$", "", path.name.lower())  # a version, as VMS has it: SCAN.ISQ;1
    return ".nii.gz" if name.endswith(".nii.gz") else Path(name).suffix


def _find_reader_of_folder(path: Path) -> Reader:
    from microsr.formats import dicom

    files = sorted((p for p in path.iterdir() if p.is_file() and not p.name.startswith(".")), key=_natural_key)
    images = [p for p in files if _suffix(p) in KINDS]
    slices = [p for p in files if _suffix(p) not in FORMATS and dicom.is_dicom(p)]
    if slices and images:
        raise UserError(f"{path}: holds DICOM files and images; keep one kind in the folder")
    alike = {p.suffix.lower() for p in slices} - {""}
    for other in set(files).difference(slices) if slices else ():
        if other.suffix.lower() in alike or other.stat().st_size == 0:  # as a slice whose beginning is damaged
            raise UserError(f"{other}: is no DICOM file, as those beside it; copy it again, or move it away")
    if slices:
        return partial(dicom.read, slices)
    if images:
        return partial(read_images, images)
    hint = "; it has sub-folders: give one of them" if any(p.is_dir() for p in path.iterdir()) else ""
    raise UserError(f"{path}: holds neither DICOM files nor images (PNG, TIFF, JPEG 2000, BMP){hint}")


def _natural_key(path: Path) -> list[str | int]:
    """Sorting key by which slice2 comes before slice10."""
    return [int(part) if part.isdigit() else part.lower() for part in re.split(r"(\d+)", path.name)]


def itk_reader(path: Path) -> sitk.ImageFileReader:
    """A reader whose header is read."""
    import SimpleITK as sitk  # only here, as below

    sitk.ProcessObject.SetGlobalWarningDisplay(False)
    reader = sitk.ImageFileReader()
    reader.SetFileName(str(path))
    try:
        reader.ReadImageInformation()
    except (RuntimeError, MemoryError) as error:
        raise UserError(f"{path}: cannot be read, it is damaged or of another kind ({headers.reason(error)})") from None
    if reader.GetNumberOfComponents() != 1:
        raise UserError(
            f"{path}: has {reader.GetNumberOfComponents()} values in a pixel (colour?); save it as grey values"
        )
    return reader


def itk_dtype(reader: sitk.ImageFileReader, other: np.dtype | None = None) -> np.dtype | None:
    """Type of the voxels; `other` if they have one that is none of PIXELS."""
    import SimpleITK as sitk

    kinds = {getattr(sitk, f"sitk{name}"): np.dtype(name.lower()) for name in PIXELS}
    return kinds.get(reader.GetPixelID(), other)


def itk_array(reader: sitk.ImageFileReader) -> np.ndarray:
    """All voxels, [slices, rows, columns]."""
    import SimpleITK as sitk

    needed = math.prod(reader.GetSize()) * itk_dtype(reader, np.dtype("f8")).itemsize
    if needed > os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"):
        raise UserError(
            f"{reader.GetFileName()}: has {needed / 1e9:.0f} GB of voxels by its header, more than the memory; copy it "
            "again if that is wrong, or save it unpacked, as NIfTI or NRRD"
        )
    try:
        image = reader.Execute()
    except (RuntimeError, MemoryError) as error:
        raise UserError(
            f"{reader.GetFileName()}: cannot be read, it is damaged or truncated ({headers.reason(error)})"
        ) from None
    array = sitk.GetArrayFromImage(image)
    array = array.reshape(array.shape[-3:] if array.ndim >= 3 else (1, *array.shape))
    return array.astype(np.float32) if array.dtype == np.float64 else array


def _read_by_itk(path: Path, kind: str, scan: Scan, scratch: Path | None) -> Volume:
    """An NRRD or MetaImage file, whose header ITK reads."""
    before = {"NRRD": textheaders.check_nrrd_text, "MetaImage": textheaders.check_meta_text}.get(kind)
    if before is not None:
        before(path)
    reader = itk_reader(path)
    size = reader.GetSize()
    headers.refuse_further_dimensions(size, path)
    check = {"NRRD": textheaders.check_nrrd, "MetaImage": textheaders.check_meta}.get(kind)
    if check is not None:
        check(path, reader)
    header = {"NRRD": textheaders.nrrd_spacing, "MetaImage": textheaders.meta_spacing}[kind]
    spacing = headers.spacing_of(scan, lambda: header(path, reader))
    straight = _direction(reader, path)
    size = [*size, 1][:3]
    headers.choose_range(scan, size[2])  # before the voxels, which may be many, are unpacked
    array = _voxels(kind, path, reader, tuple(size[::-1]), scratch)
    return headers.place_scan(array, kind, spacing, (*reader.GetOrigin(), 0.0)[:3], straight, scan)


def _read_tiff(path: Path, scan: Scan, scratch: Path | None) -> Volume:
    """A TIFF stack, or an image."""
    from microsr.formats.tiff import read_stack  # only here: few scans are TIFF

    stack = read_stack(path, scratch)
    if len(stack.slices) == 1:
        return read_images([path], scan, scratch)
    spacing = headers.spacing_of(scan, lambda: headers.tiff_spacing(path, stack.spacing))
    return headers.place_scan(stack.slices, "TIFF", spacing, (0.0, 0.0, 0.0), IDENTITY, scan)


def _read_nifti(path: Path, scan: Scan, scratch: Path | None) -> Volume:
    """A NIfTI file, or a pair of which `path` is one file."""
    from microsr.formats import nifti  # only here, as below

    header = nifti.read_header(path)
    spacing = headers.spacing_of(scan, header.given_spacing)
    headers.choose_range(scan, header.shape[0])
    array = open_slices(header.layout, header.shape, header.dtype, scratch)
    return headers.place_scan(array, "NIfTI", spacing, header.origin, header.direction, scan)


def _voxels(
    kind: str, path: Path, reader: sitk.ImageFileReader, shape: tuple[int, int, int], scratch: Path | None
) -> Slices:
    """The voxels of a file, unread if they lie in it in a known way."""
    dtype = itk_dtype(reader)
    find = {"NRRD": layouts.nrrd, "MetaImage": layouts.meta}[kind]
    found = find(path, dtype) if dtype is not None else None
    if isinstance(found, Layout):
        return open_slices(found, shape, dtype, scratch)
    array = itk_array(reader)
    return Slices(array.__getitem__, array.shape, array.dtype)


def _direction(reader: sitk.ImageFileReader, path: Path) -> tuple[float, ...]:
    size = reader.GetDimension()
    if size == 2:
        return IDENTITY
    matrix = np.reshape(reader.GetDirection(), (size, size))[:3, :3]
    return headers.straighten(matrix, path)[1]
