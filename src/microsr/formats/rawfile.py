"""Voxels that lie in a file as they are, or compressed: read slice by slice, whatever the size of the file.

What is compressed is unpacked once, to a temporary file without a name, which is gone with the process.
"""

from __future__ import annotations

import bz2
import contextlib
import errno
import gzip
import math
import os
import shutil
import tempfile
import weakref
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np

from microsr.core.errors import UserError
from microsr.formats.headers import MOST_PACKED
from microsr.volume.slices import Slices

BLOCK = 1 << 20
"""Bytes that are unpacked at a time."""
MOST = {"bzip2": 40_000}
"""Bytes that a byte becomes, at most, of other ways of packing than zlib's."""
FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
"""Errors of a disk without room."""


@dataclass(frozen=True)
class Layout:
    """Where voxels lie, slice after slice.

    offset: bytes before the first voxel, or before each slice's. dtype: as stored, with its byte order. packed: "gzip",
    "zlib" or "bzip2" if the file is compressed from byte `packed_from` on; `offset` then counts unpacked bytes. scale:
    slope and intercept, to be applied in double precision. exact: nothing may follow the voxels.
    """

    path: Path
    offset: int | np.ndarray
    dtype: np.dtype
    packed: str | None = None
    packed_from: int = 0
    scale: tuple[float, float] | None = None
    exact: bool = False


def open_slices(layout: Layout, shape: tuple[int, int, int], dtype: np.dtype, scratch: Path | None) -> Slices:
    """Voxels [slices, rows, columns] as `dtype`, with float64 as float32.

    scratch: folder of the temporary file, None for the system's.

    Raises
    ------
    UserError
        The file is shorter than it must be, or there is no room to unpack it.
    """
    size = shape[1] * shape[2] * layout.dtype.itemsize
    final = np.dtype(np.float32) if dtype == np.float64 else dtype
    needed = layout.offset + size * shape[0] if isinstance(layout.offset, int) else int(layout.offset.max()) + size
    if needed > MOST.get(layout.packed, MOST_PACKED) * layout.path.stat().st_size:
        raise damage_error(layout.path, f"{needed} bytes expected")
    stream = layout.path.open("rb") if layout.packed is None else _unpack(layout, needed, scratch)
    try:
        size_there = os.fstat(stream.fileno()).st_size
        if size_there < needed or (layout.exact and size_there > needed):
            raise damage_error(layout.path, f"{needed} bytes expected, {size_there} found")
    except UserError:
        stream.close()
        raise
    starts = layout.offset
    if isinstance(starts, int):
        starts = starts + size * np.arange(shape[0], dtype=np.int64)

    def load(z: int) -> np.ndarray:
        voxels = os.pread(stream.fileno(), size, int(starts[z]))
        if len(voxels) < size:
            raise damage_error(layout.path, f"{needed} bytes expected")
        image = np.frombuffer(voxels, layout.dtype).reshape(shape[1:])
        if layout.scale is None:
            return image.astype(final, copy=False)
        slope, intercept = layout.scale
        return (image.astype(dtype).astype(np.float64) * slope + intercept).astype(final)

    slices = Slices(load, shape, final)
    weakref.finalize(slices, stream.close)
    return slices


def damage_error(path: Path, why: str) -> UserError:
    """The error of a file that ends too early, or cannot be unpacked or decoded."""
    return UserError(f"{path}: is damaged or truncated ({why}); copy it again")


def _unpack(layout: Layout, needed: int, scratch: Path | None) -> BinaryIO:
    """A temporary file with the unpacked content of a file, of which at least `needed` bytes are expected."""
    path, folder = layout.path, Path(scratch or tempfile.gettempdir())
    no_room = UserError(
        f"{path}: {folder} has no room to unpack it ({needed / 1e6:.0f} MB needed); free some, or unpack it elsewhere"
    )
    if shutil.disk_usage(folder).free < needed:
        raise no_room
    temporary = _temporary(folder)
    try:
        for block in map(memoryview, _blocks(layout)):
            while block:
                block = block[temporary.write(block) :]  # a disk that fills up takes a part of it first
    except (EOFError, gzip.BadGzipFile, zlib.error):
        temporary.close()
        raise damage_error(path, f"{needed} bytes expected") from None
    except OSError as error:
        temporary.close()
        if error.errno is None:  # as bzip2 says that its data are none
            raise damage_error(path, f"{needed} bytes expected") from None
        raise no_room from None if error.errno in FULL else error
    return temporary


def _blocks(layout: Layout) -> Iterator[bytes]:
    """The unpacked bytes of a file, a block at a time."""
    with layout.path.open("rb") as stream:
        stream.seek(layout.packed_from)
        if layout.packed in ("gzip", "bzip2"):
            with gzip.GzipFile(fileobj=stream) if layout.packed == "gzip" else bz2.BZ2File(stream) as unpacking:
                while block := unpacking.read(BLOCK):
                    yield block
        else:
            unpacking = zlib.decompressobj(47)  # zlib's or gzip's head, as MetaImage's library takes both
            while not unpacking.eof and (block := stream.read(BLOCK)):
                yield unpacking.decompress(block)


def _temporary(folder: Path | None) -> BinaryIO:
    return tempfile.TemporaryFile(dir=folder, buffering=0)


class TemporaryArrays:
    """Arrays of one shape and type, by number, in a temporary file; several threads may use it.

    folder: where the file is made, None for the system's folder.
    """

    def __init__(self, folder: Path | None, shape: tuple[int, ...], dtype: np.dtype) -> None:
        self._shape, self._dtype = shape, np.dtype(dtype)
        self._size = math.prod(shape) * self._dtype.itemsize
        self._file = _temporary(folder)
        weakref.finalize(self, self._file.close)

    def __setitem__(self, number: int, array: np.ndarray) -> None:
        """Write an array; OSError if there is no room."""
        left = np.ascontiguousarray(array, self._dtype).data.cast("B")
        while left:
            left = left[os.pwrite(self._file.fileno(), left, (number + 1) * self._size - len(left)) :]

    def __getitem__(self, number: int) -> np.ndarray:
        """Read an array that was written."""
        content = os.pread(self._file.fileno(), self._size, number * self._size)
        return np.frombuffer(content, self._dtype).reshape(self._shape)


def cache_slices(slices: Slices, scratch: Path | None) -> Slices:
    """Slices that are slow to decode: each is decoded once, and comes from a temporary file afterwards.

    Where there is no room for that file they are decoded every time.
    """
    folder = Path(scratch or tempfile.gettempdir())
    if shutil.disk_usage(folder).free < 2 * math.prod(slices.shape) * slices.dtype.itemsize:
        return slices
    decoded = TemporaryArrays(folder, slices.shape[1:], slices.dtype)
    there: set[int] = set()

    def load(z: int) -> np.ndarray:
        if z in there:
            return decoded[z]
        image = slices.load(z)
        with contextlib.suppress(OSError):
            decoded[z] = image
            there.add(z)
        return image

    return Slices(load, slices.shape, slices.dtype)
