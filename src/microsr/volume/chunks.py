"""Whole slices straight into the chunk files of a Zarr array, for steps whose time is that of writing.

Zarr hands each chunk from thread to thread, and Python runs in one of them at a time: it takes as long as packing the
chunk.
"""

from __future__ import annotations

import struct
from pathlib import Path

import google_crc32c
import numpy as np
import zarr
from numcodecs import Blosc
from zarr.codecs import BloscCodec, Crc32cCodec

from microsr.volume.orientation import Reversed
from microsr.volume.storage import Stored

SHUFFLES = {"noshuffle": Blosc.NOSHUFFLE, "shuffle": Blosc.SHUFFLE, "bitshuffle": Blosc.BITSHUFFLE}


class SliceWriter:
    """Writes slices of an array [slices, rows, columns] with chunks of one slice, as `volume.storage.create_volume`
    makes it.

    Several threads may write different slices. The files are those that Zarr writes, chunks of the fill value too.
    """

    def __init__(self, array: zarr.Array | Stored) -> None:
        codec, *check = array.compressors
        if (
            not isinstance(codec, BloscCodec)
            or [type(one) for one in check] != [Crc32cCodec]
            or array.chunks[0] != 1
            or array.filters
            or array.shards
        ):
            raise ValueError(f"{array.path}: its chunks are not slices packed by Blosc with a checksum")
        self._count, self._order = array.shape[0], getattr(array, "order", Reversed())
        self._folder = Path(array.store.root) / array.path
        self._key = array.metadata.encode_chunk_key
        self._chunk, self._dtype, self._fill = array.chunks[1:], array.dtype, array.fill_value
        self._codec = Blosc(codec.cname.value, codec.clevel, SHUFFLES[codec.shuffle.value], codec.blocksize)

    def __setitem__(self, z: int, image: np.ndarray) -> None:
        """Write a slice, [rows, columns] of the array's type."""
        z, image = self._order.stored_position(z, self._count), self._order.stored_image(image)
        for row in range(0, image.shape[0], self._chunk[0]):
            for column in range(0, image.shape[1], self._chunk[1]):
                block = image[row : row + self._chunk[0], column : column + self._chunk[1]]
                self._write((z, row // self._chunk[0], column // self._chunk[1]), block)

    def _write(self, place: tuple[int, int, int], block: np.ndarray) -> None:
        if block.shape != self._chunk:
            short = [(0, full - there) for full, there in zip(self._chunk, block.shape, strict=True)]
            block = np.pad(block, short, constant_values=self._fill)
        file = self._folder / self._key(place)
        file.parent.mkdir(parents=True, exist_ok=True)
        packed = self._codec.encode(np.ascontiguousarray(block, self._dtype))
        with file.open("wb") as stream:
            stream.write(packed)
            stream.write(struct.pack("<I", google_crc32c.value(packed)))
