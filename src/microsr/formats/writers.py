"""Writers of int16 HU, slice by slice and in bounded memory: OME-Zarr, NIfTI, NRRD, MetaImage and DICOM series.

ITK and nibabel write these formats only from a volume that is whole in memory. Here a header is followed by the slices
as they come, and the bytes depend on nothing but what is written.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from microsr.core.errors import UserError
from microsr.core.progress import logger
from microsr.core.registry import formats
from microsr.formats.further import further_format
from microsr.volume.orientation import obliqueness
from microsr.volume.storage import CHUNK, Volume, create_volume, geometry_of, level_shapes, open_levels, write_slice

if TYPE_CHECKING:
    from microsr.formats.dicom_series import DerivedSeries

ENDINGS = {
    ".ome.zarr": "ome-zarr", ".zarr": "ome-zarr", ".nii.gz": "nifti.gz", ".nii": "nifti", ".nrrd": "nrrd",
    ".mha": "metaimage",
}  # fmt: skip
"""Format of a name, the first ending that fits."""
ENDINGS |= {f".{kind}": kind for kind in formats.FORMATS}
FORMATS = ("ome-zarr", "nifti", "nrrd", "metaimage", "dicom", *formats.FORMATS)
GZIP_LEVEL = 1
"""Of .nii.gz: 1 packs 130 MB/s to 61 %, 6 packs 95 MB/s to 61 % (a noisy CT, one core; zlib's own level 1: 65 MB/s to
64 %).
"""
HEADER_BYTES = {"ome-zarr": 4096, "nifti": 0, "nifti.gz": 4096, "nrrd": 0, "metaimage": 0, "dicom": 8192}
"""At most, for each file of OME-Zarr and for each slice of the others: headers, and the rest of a disk's last block."""


def kind_of(path: Path, kind: str | None = None) -> str:
    """Format of an output: "ome-zarr", "nifti", "nifti.gz", "nrrd", "metaimage", "dicom", or one of
    `core.registry.formats`.

    kind: one of FORMATS; None: what the name's ending says, and a name without ending (or that ends in dicom) is a
    folder of DICOM.

    Raises
    ------
    UserError
        The ending says nothing, or another thing than `kind`.
    """
    name = Path(path).name.lower()
    found = next((known for ending, known in ENDINGS.items() if name.endswith(ending)), None)
    if found is None and (kind == "dicom" or (kind is None and ("." not in name or name.endswith("dicom")))):
        return "dicom"
    if found is not None and kind in (None, found, found.removesuffix(".gz")):
        return found
    endings = ", ".join(ENDINGS)
    if kind is not None and kind not in FORMATS:
        raise UserError(f"{path}: '{kind}' is no known format; give one of {', '.join(FORMATS)}")
    if kind is not None:
        fitting = " or ".join(e for e, known in ENDINGS.items() if known.removesuffix(".gz") == kind) or "no ending"
        raise UserError(
            f"{path}: is to be {kind}, but its ending is not that of it ({fitting}); correct one of the two"
        )
    raise UserError(f"{path}: is of no known format; give a name that ends in {endings}, or without ending for DICOM")


def raw_bytes(kind: str, shape: tuple[int, int, int]) -> int:
    """Bytes that a volume of `shape` takes on the disk, at most, in a format.

    OME-Zarr has a third more pixels, in its coarser levels, but of CT values at most about 12 of 16 bits vary; they
    take less than the raw size together. Other values (of every HU from -32768 to 32767) would take a third more.
    """
    files = shape[0]
    if kind == "ome-zarr":
        files *= sum(-(-rows // CHUNK) * -(-columns // CHUNK) for _, rows, columns in level_shapes(shape, None))
    return 2 * int(np.prod(shape, dtype=np.int64)) + HEADER_BYTES.get(kind, 0) * files + 4096


class Writer(Protocol):
    """Writes the slices of one volume."""

    def write(self, position: int, image: np.ndarray) -> None:
        """Write the slice at `position`, int16 HU [rows, columns].

        A `Stream` takes the slices in their order, OME-Zarr and DICOM in any.

        Raises
        ------
        OSError
            The disk is full, say; the slices before are untouched.
        """
        ...

    def state(self) -> dict[str, Any]:
        """What going on needs, as plain JSON values. All slices written so far are with the operating system."""
        ...

    def close(self) -> None:
        """Close what is open."""
        ...


def open_writer(
    path: Path,
    kind: str,
    shape: tuple[int, int, int],
    like: Volume | dict[str, Any],
    state: dict[str, Any] | None = None,
    source: Path | None = None,
    series: str | None = None,
    made_of: Any = None,
) -> Writer:
    """A writer of a volume at `path`, whatever its name.

    kind: from `kind_of`. shape: slices, rows, columns. like: the Volume, or the keyword arguments of one, that gives
    geometry, unit and attributes. state: of a writer that was stopped; what was written beyond it is dropped. None:
    start afresh and replace what is there. source, series, made_of: for DICOM, what the volume is derived from and what
    decides its values (see `DerivedSeries`).

    Raises
    ------
    UserError
        The format cannot hold such a volume.
    ValueError
        What is there does not fit the state.
    """
    volume = geometry_of(like)
    _check_even(volume, kind)
    if kind == "ome-zarr":
        return _OmeZarr(path, shape, volume, state)
    if kind == "dicom":
        from microsr.formats.dicom_series import DerivedSeries  # only here, as below: each format has its own library

        return _Dicom(path, shape, DerivedSeries(path, shape, volume, source, series, made_of), state)
    if further := further_format(kind):
        return further.writer(path, shape, volume, state)
    header = {"nifti": nifti_header, "nifti.gz": nifti_header, "nrrd": nrrd_header, "metaimage": metaimage_header}[kind]
    return Stream(path, shape, header(shape, volume), state, packed=kind == "nifti.gz")


def _tell_oblique(path: Path, shape: tuple[int, int, int], volume: Volume) -> None:
    """Warn of a volume that programs which know OME-Zarr alone show more than a pixel from its place."""
    angle, name = obliqueness(volume.direction), path.name.removesuffix(".partial")
    if np.sin(np.radians(angle)) * max(np.multiply(shape[::-1], volume.spacing)) > min(volume.spacing):
        logger.warning(
            "%s: lies %.1f degrees askew in the patient, which OME-Zarr cannot say: other programs show it upright; "
            "NIfTI, NRRD, MetaImage and DICOM can say it",
            *(name, angle),
        )


def _check_even(volume: Volume, kind: str) -> None:
    """Slices that are unevenly spaced have no place in a format with one slice distance."""
    slices = volume.attributes.get("slices", [])
    if kind != "ome-zarr" and len(set(np.diff(slices))) > 1:
        raise UserError(
            f"slices {slices} are not evenly spaced, which {kind} cannot say; choose evenly spaced ones, or write "
            "OME-Zarr, which lists them"
        )


def _check(image: np.ndarray, shape: tuple[int, int, int], dtype: str = "<i2") -> np.ndarray:
    if image.shape != tuple(shape[1:]) or not np.can_cast(image.dtype, np.int16):
        raise ValueError(f"a slice is {image.dtype} {image.shape}, not int16 {tuple(shape[1:])}")
    return np.ascontiguousarray(image, dtype)


class _OmeZarr:
    def __init__(self, path: Path, shape: tuple[int, int, int], volume: Volume, state: dict | None) -> None:
        self._shape = shape
        if state is None:
            _remove(path)
            create_volume(path, shape, volume, levels=None)
            _tell_oblique(path, shape, volume)
        try:
            self._levels = open_levels(path)
        except UserError as error:
            raise ValueError(str(error)) from None
        for unfinished in path.rglob("*.partial") if state is not None else ():
            unfinished.unlink()  # chunks that a killed process was writing

    def write(self, position: int, image: np.ndarray) -> None:
        write_slice(self._levels, position, _check(image, self._shape))

    def state(self) -> dict[str, Any]:
        return {}

    def close(self) -> None:
        pass


class _Dicom:
    def __init__(self, path: Path, shape: tuple[int, int, int], series: DerivedSeries, state: dict | None) -> None:
        if state is None:
            _remove(path)
            path.mkdir()
        elif not path.is_dir():
            raise ValueError(f"{path} is gone")
        self._shape, self._series = shape, series

    def write(self, position: int, image: np.ndarray) -> None:
        self._series.write(position, _check(image, self._shape))

    def state(self) -> dict[str, Any]:
        return {}

    def close(self) -> None:
        pass


class Stream:
    """A writer of one file: a header, then the slices as they are, or each a gzip member (concatenated they are one
    gzip file).

    dtype: of the voxels in the file, int16 or what holds it, with its byte order. Other arguments as for `open_writer`.
    """

    def __init__(
        self,
        path: Path,
        shape: tuple[int, int, int],
        header: bytes,
        state: dict[str, Any] | None,
        packed: bool = False,
        dtype: str = "<i2",
    ) -> None:
        self._shape, self._is_packed, self._dtype, self._slices = shape, packed, dtype, 0
        if state is None:
            _remove(path)
            self._file = path.open("wb", buffering=0)
            self._append(header)
            return
        if not path.is_file() or path.stat().st_size < state["bytes"]:
            raise ValueError(f"{path} is shorter than it was")
        self._file, self._slices = path.open("r+b", buffering=0), state["slices"]
        self._file.truncate(state["bytes"])
        self._file.seek(state["bytes"])

    def write(self, position: int, image: np.ndarray) -> None:
        """See `Writer`."""
        if position != self._slices:
            raise ValueError(f"slice {position} is out of order, {self._slices} is next")
        self._append(_check(image, self._shape, self._dtype).data)
        self._slices += 1

    def _append(self, content: bytes | memoryview) -> None:
        rest = memoryview(_compress(content) if self._is_packed else content).cast("B")
        while rest:
            rest = rest[self._file.write(rest) :]

    def state(self) -> dict[str, Any]:
        """See `Writer`."""
        return {"bytes": self._file.tell(), "slices": self._slices}

    def close(self) -> None:
        """See `Writer`."""
        if not self._file.closed:
            os.fsync(self._file.fileno())
            self._file.close()


def write_nifti(path: Path, volume: Volume) -> None:
    """Write a volume that is in memory, of int16, uint16 or uint8, as .nii.gz. (ITK would say nothing where the disk is
    full.)
    """
    dtype = volume.array.dtype.newbyteorder("<")
    with path.open("wb") as stream:
        stream.write(_compress(nifti_header(volume.shape, volume, dtype)))
        for image in volume.array:
            stream.write(_compress(np.ascontiguousarray(image, dtype)))


def _compress(content: Any) -> bytes:
    """A gzip member; members one after the other are one gzip file."""
    import imagecodecs

    return imagecodecs.gzip_encode(content, level=GZIP_LEVEL)


def nifti_header(shape: tuple[int, int, int], volume: Volume, dtype: Any = "<i2") -> bytes:
    """The 352 bytes before the voxels of a .nii file: their type, mm, sform and qform from patient to RAS coordinates.

    Raises
    ------
    UserError
        NIfTI has no room for so many rows, columns or slices.
    """
    if max(shape) > np.iinfo(np.int16).max:
        raise UserError(f"NIfTI holds at most 32767 rows, columns and slices, not {shape}; choose another format")
    affine = np.eye(4)
    affine[:3, :3] = np.reshape(volume.direction, (3, 3)) * volume.spacing
    affine[:3, 3] = volume.origin
    affine = np.diag([-1.0, -1.0, 1.0, 1.0]) @ affine
    from nibabel import Nifti1Header

    header = Nifti1Header(endianness="<")
    header.set_data_dtype(dtype)
    header.set_data_shape(shape[::-1])
    header.set_sform(affine, code="scanner")
    header.set_qform(affine, code="scanner")
    header.set_xyzt_units("mm")
    header.set_slope_inter(1, 0)
    header["magic"], header["vox_offset"] = b"n+1", 352
    return header.binaryblock + bytes(4)


def nrrd_header(shape: tuple[int, int, int], volume: Volume) -> bytes:
    """The attached header of an NRRD file with raw little-endian int16."""
    axes = np.reshape(volume.direction, (3, 3)) * volume.spacing
    vectors = [",".join(map(_number, vector)) for vector in (*axes.T, volume.origin)]
    lines = [
        "NRRD0004",
        "type: int16",
        "dimension: 3",
        "space: left-posterior-superior",
        f"sizes: {_join_values(shape[::-1])}",
        f"space directions: {' '.join(f'({vector})' for vector in vectors[:3])}",
        "kinds: domain domain domain",
        "endian: little",
        "encoding: raw",
        'space units: "mm" "mm" "mm"',
        f"space origin: ({vectors[3]})",
    ]
    return "\n".join([*lines, "", ""]).encode()


def metaimage_header(shape: tuple[int, int, int], volume: Volume) -> bytes:
    """The header of a .mha file with raw little-endian int16; the fields are those that ITK writes."""
    matrix = np.reshape(volume.direction, (3, 3))
    lines = [
        "ObjectType = Image",
        "NDims = 3",
        "BinaryData = True",
        "BinaryDataByteOrderMSB = False",
        "CompressedData = False",
        f"TransformMatrix = {_join_values(matrix.T.ravel())}",
        f"Offset = {_join_values(volume.origin)}",
        "CenterOfRotation = 0 0 0",
        f"AnatomicalOrientation = {_axis_letters(matrix)}",
        f"ElementSpacing = {_join_values(volume.spacing)}",
        f"DimSize = {_join_values(shape[::-1])}",
        "ElementType = MET_SHORT",
        "ElementDataFile = LOCAL",
    ]
    return "\n".join([*lines, ""]).encode()


def _axis_letters(matrix: np.ndarray) -> str:
    """From which side each axis comes, as ITK names it: RAI for axes along left, posterior, superior."""
    sides = [max(range(3), key=lambda i: abs(axis[i])) for axis in matrix.T]
    return "".join("RAI"[side] if axis[side] > 0 else "LPS"[side] for side, axis in zip(sides, matrix.T, strict=True))


def _number(value: float) -> str:
    """The shortest text that is read as the same number."""
    return repr(float(value)) if value != int(value) else str(int(value))


def _join_values(values: Any) -> str:
    return " ".join(map(_number, values))


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    path.unlink(missing_ok=True)
