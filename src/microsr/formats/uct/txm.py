"""Zeiss (Xradia) TXM: a reconstruction, slice by slice in streams of an OLE container, which olefile opens.

Layout as the libraries dxchange and txrm2tiff know it: ImageInfo/ImageWidth, ImageHeight, NoOfImages, DataType and
PixelSize (um); slice n, from 1 on, is the stream ImageData<1 + (n - 1) // 100>/Image<n>.
"""

from __future__ import annotations

import math
import struct
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from microsr.formats import headers
from microsr.formats.rawfile import damage_error
from microsr.formats.uct.extra import load
from microsr.volume.slices import Slices
from microsr.volume.storage import IDENTITY, Volume

if TYPE_CHECKING:
    from microsr.config.sheet import Scan

TYPES = {3: "u1", 5: "<u2", 10: "<f4"}
"""Of voxels, by the numbers of DataType."""


class Txm:
    """Reads .txm."""

    def read(self, path: Path, scan: Scan, scratch: Path | None) -> Volume:
        """Open a volume, whose slices are read when they are asked for; see `formats.further.Format`."""
        olefile = load("olefile", path)
        try:
            store = olefile.OleFileIO(path)
            columns, rows, count, kind = (
                _number(store, name, "<I") for name in ("ImageWidth", "ImageHeight", "NoOfImages", "DataType")
            )
            size = _number(store, "PixelSize", "<f") / 1000 if store.exists("ImageInfo/PixelSize") else math.nan
            stored = np.dtype(TYPES[kind])
            lacking = [n for n in (1, count) if not store.exists(_stream(n))]
        except Exception as error:  # whatever a damaged file provokes in olefile
            raise damage_error(path, f"it is no whole TXM: {type(error).__name__}") from None
        length = columns * rows * stored.itemsize
        if not 1 <= length <= path.stat().st_size or lacking or count < 1:
            raise damage_error(path, f"it has no whole slice {lacking[0] if lacking else 1} of {count}")
        lock = threading.Lock()

        def read_slice(z: int) -> np.ndarray:
            try:
                with lock:
                    content = store.openstream(_stream(z + 1)).read()
            except Exception as error:  # as above
                raise damage_error(path, f"slice {z}: {headers.reason(error)}") from None
            if len(content) != length:
                raise damage_error(path, f"slice {z}: {length} bytes expected, {len(content)} found")
            return np.frombuffer(content, stored).reshape(rows, columns).astype(stored.newbyteorder("="))

        spacing = headers.spacing_of(scan, lambda: headers.require_positive((size,) * 3, path))
        slices = Slices(read_slice, (count, rows, columns), stored.newbyteorder("="))
        return headers.place_scan(slices, "TXM", spacing, (0.0, 0.0, 0.0), IDENTITY, scan)


def _number(store: Any, name: str, form: str) -> Any:
    return struct.unpack_from(form, store.openstream(f"ImageInfo/{name}").read())[0]


def _stream(number: int) -> str:
    """Of a slice, counted from 1 on."""
    return f"ImageData{1 + (number - 1) // 100}/Image{number}"


FORMAT = Txm()
