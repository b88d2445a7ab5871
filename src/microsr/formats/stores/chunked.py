"""Slices of a volume that is stored in chunks several slices deep.

A chunk is decoded once, whatever asks for its slices and how often: its slices lie in a temporary file afterwards.
"""

from __future__ import annotations

import contextlib
import itertools
import math
import shutil
import tempfile
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

from microsr.core.errors import UserError
from microsr.core.progress import logger
from microsr.formats.rawfile import TemporaryArrays
from microsr.volume.slices import Slices

Shape = tuple[int, int, int]
LARGEST = 1 << 31
"""Bytes of a slice, at most."""


class ChunkedSlices(Slices):
    """Slices [slices, rows, columns] out of chunks.

    read: gives the chunk at an index (along slices, rows, columns), which at the end of the volume may be smaller, or
    None if the store has none; has: whether the store has it, which costs little. fill: what stands for a chunk that is
    missing. name: of the store. scratch: folder of the temporary file, None for the system's. asked: shape of what will
    be asked for. keep: whether decoded chunks are kept, as where they come from a server; those of several slices are
    kept anyway, where there is room for twice what is asked.

    Raises
    ------
    UserError
        The first or last slice of `asked` has no chunk at all, or slices are too large to be; when one is asked for,
        too.
    """

    def __init__(
        self, read: Callable[[Shape], np.ndarray | None], has: Callable[[Shape], bool], shape: Shape, chunk: Shape,
        dtype: np.dtype, fill: float, name: str, scratch: Path | None, asked: tuple[slice, slice, slice],
        keep: bool = False,
    ) -> None:  # fmt: skip
        self.shape, self.dtype = shape, np.dtype(dtype)
        self._read, self._chunk, self._fill, self._name, self._scratch = read, chunk, fill, name, scratch
        lengths = [part.stop - part.start for part in asked]
        self._room = 2 * math.prod(lengths) * self.dtype.itemsize
        self._grid = tuple(-(-n // c) for n, c in zip(shape, chunk, strict=True))
        self._keep = keep or chunk[0] > 1
        self._decoded: TemporaryArrays | None = None
        self._there: dict[int, bool] = {}
        self._locks = [threading.Lock() for _ in range(64)]
        self._opening, self._told = threading.Lock(), False
        if math.prod(lengths[1:]) * self.dtype.itemsize > LARGEST:
            raise UserError(
                f"{name}: its slices have {lengths[1]} rows and {lengths[2]} columns, too many; take a part "
                "(<modality>_region), a "
                "coarser level, or copy its metadata again if they are wrong"
            )
        for z in (asked[0].start, asked[0].stop - 1):
            if not any(has((z // chunk[0], y, x)) for y, x in self._over(*asked[1:])):
                raise self._without(z)

    def load(self, z: int) -> np.ndarray:
        """Read a slice."""
        return self.window(z, slice(0, self.shape[1]), slice(0, self.shape[2]))

    def window(self, z: int, rows: slice, columns: slice) -> np.ndarray:
        """Rows and columns of a slice; only the chunks that hold them are read."""
        image = np.full((rows.stop - rows.start, columns.stop - columns.start), self._fill, self.dtype)
        height, width = self._chunk[1:]
        found = lacking = 0
        for y, x in self._over(rows, columns):
            plane = self._plane((z // self._chunk[0], y, x), z % self._chunk[0])
            found, lacking = found + (plane is not None), lacking + (plane is None)
            if plane is None:
                continue
            top, left = max(rows.start, y * height), max(columns.start, x * width)
            bottom, right = min(rows.stop, (y + 1) * height), min(columns.stop, (x + 1) * width)
            taken = plane[top - y * height : bottom - y * height, left - x * width : right - x * width]
            image[top - rows.start : bottom - rows.start, left - columns.start : right - columns.start] = taken
        if not found:
            raise self._without(z)
        if lacking and not self._told:
            self._told = True
            logger.warning(
                "%s: lacks chunks, as %d of %d in slice %d, which are taken for its fill value %g; compare it with its "
                "source if "
                "its writer does not leave out empty ones", self._name, lacking, found + lacking, z, self._fill,
            )  # fmt: skip
        return image

    def _over(self, rows: slice, columns: slice) -> Iterator[tuple[int, int]]:
        """Places, along rows and columns, of the chunks that hold a part of a slice."""
        height, width = self._chunk[1:]
        return itertools.product(
            range(rows.start // height, -(-rows.stop // height)),
            range(columns.start // width, -(-columns.stop // width)),
        )

    def _without(self, z: int) -> UserError:
        return UserError(
            f"{self._name}: its slice {z} has no chunk at all; copy the store again, or leave the slice out "
            "(<modality>_slices) "
            "if its writer left out what is empty"
        )

    def _plane(self, index: Shape, depth: int) -> np.ndarray | None:
        """A slice of a chunk [rows, columns], as large as chunks are; None if the store does not have the chunk."""
        number = int(np.ravel_multi_index(index, self._grid))
        if self._there.get(number):
            return self._decoded[number * self._chunk[0] + depth]
        with self._locks[number % len(self._locks)]:
            if self._there.get(number):
                return self._decoded[number * self._chunk[0] + depth]
            if self._there.get(number) is False:
                return None
            chunk = self._read(index)
            if chunk is None:
                self._there[number] = False
                return None
            self._put(number, chunk)
        return chunk[depth]

    def _put(self, number: int, chunk: np.ndarray) -> None:
        """Keep a decoded chunk, if there is room; else it is decoded again for every slice."""
        with self._opening:
            if self._keep and self._decoded is None:
                folder = Path(self._scratch or tempfile.gettempdir())
                self._keep = shutil.disk_usage(folder).free > self._room
                if self._keep:
                    self._decoded = TemporaryArrays(folder, self._chunk[1:], self.dtype)
        if not self._keep:
            return
        whole = np.zeros(self._chunk[1:], self.dtype)
        with contextlib.suppress(OSError):
            for depth, plane in enumerate(chunk):
                whole[: plane.shape[0], : plane.shape[1]] = plane
                self._decoded[number * self._chunk[0] + depth] = whole
            self._there[number] = True
