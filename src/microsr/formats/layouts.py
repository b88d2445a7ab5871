"""Where the voxels of an NRRD, MetaImage or TIFF file lie, so that single slices can be read.

SimpleITK has read the header, and says what type the voxels are to become. A file that is stored in a way not known
here has no layout (None): SimpleITK reads it whole.
"""

from __future__ import annotations

import math
import os
import re
import threading
from pathlib import Path

import numpy as np

from microsr.formats import headers
from microsr.formats.rawfile import Layout, damage_error
from microsr.formats.textheaders import text_header
from microsr.volume.slices import Slices

TIFF_PACKED = ("LZW", "ADOBE_DEFLATE", "DEFLATE", "PACKBITS")
"""Names of the ways of packing, of tifffile.COMPRESSION."""


def meta(path: Path, dtype: np.dtype) -> Layout | None:
    """Of a MetaImage file whose voxels, `dtype`, follow its header or lie in one other file."""
    fields, end = text_header(path, "ElementDataFile", "=")
    file = fields.get("ElementDataFile", "")
    voxels = path if file.lower() == "local" else path.parent / file
    skipped = "none" if "HeaderSizePerSlice" in fields else fields.get("HeaderSize", "0")
    offset = end if voxels == path else int(skipped) if skipped.isdecimal() else -1

    def says(*keys: str) -> bool:
        return any(fields.get(key, "")[:1].lower() in ("t", "1") for key in keys)

    is_text = "BinaryData" in fields and not says("BinaryData")
    if is_text or not _is_file(voxels) or offset < 0 or (voxels == path and "HeaderSize" in fields):
        return None
    stored = dtype.newbyteorder(">" if says("BinaryDataByteOrderMSB", "ElementByteOrderMSB") else "<")
    if says("CompressedData"):
        return Layout(voxels, 0, stored, "zlib", offset, exact=True)
    return Layout(voxels, offset, stored, exact=True)


def nrrd(path: Path, dtype: np.dtype) -> Layout | None:
    """Of a NRRD file whose voxels, `dtype`, are raw, gzip or bzip2 and follow its header or lie in one other file."""
    fields, end = text_header(path, "", ":")
    file = fields.get("data file", fields.get("datafile"))
    voxels = path if file is None else path.parent / file
    encoding = fields.get("encoding", "").lower()
    skips = {fields.get(key, "0") for key in ("byte skip", "byteskip", "line skip", "lineskip")}
    if encoding in ("ascii", "text", "txt") and voxels == path:
        _check_numbers(path, end, fields, dtype)
    if encoding not in ("raw", "gzip", "gz", "bzip2", "bz2") or skips != {"0"} or not _is_file(voxels):
        return None
    start = end if voxels == path else 0
    stored = dtype.newbyteorder(">" if fields.get("endian", "").lower() == "big" else "<")
    if encoding == "raw":
        return Layout(voxels, start, stored, exact=True)
    return Layout(voxels, 0, stored, "bzip2" if encoding.startswith("b") else "gzip", start, exact=True)


def _check_numbers(path: Path, start: int, fields: dict[str, str], dtype: np.dtype) -> None:
    """Refuse voxels in a text of which one is no number, or too many: SimpleITK reads some of them."""
    with path.open("rb") as stream:
        stream.seek(start)
        words = stream.read().split()
    needed = math.prod(int(size) for size in fields["sizes"].split())
    whole = re.compile(rb"[-+]?\d+" if dtype.kind in "iu" else rb"[-+]?(\d+\.?\d*|\.\d+)([eE][-+]?\d+)?")
    if len(words) != needed or not all(map(whole.fullmatch, words)):
        raise damage_error(path, f"{needed} numbers expected")


def _is_file(path: Path) -> bool:
    """Whether there is a file; a name that no system can have is not an error."""
    return os.path.isfile(path)  # noqa: PTH113


def tiff(path: Path, dtype: np.dtype) -> Layout | Slices | None:
    """Of a TIFF stack: where its pages lie, or the pages, decoded one by one; None: read it whole."""
    import tifffile  # only here, as in `headers`

    stack, plain = tifffile.TiffFile(path), tifffile.COMPRESSION.NONE
    try:
        pages = list(stack.pages)
        first = pages[0]
        shape = (len(pages), first.imagelength, first.imagewidth)
        stored = dtype.newbyteorder(stack.byteorder)
        upright = all(page.tags.valueof("Orientation", 1) == 1 for page in pages)
        alike = all(page.dtype == dtype and page.bitspersample == 8 * dtype.itemsize for page in pages)
        ways = {page.compression for page in pages}
    except Exception as error:  # whatever a damaged file provokes in tifffile
        stack.close()
        raise damage_error(path, headers.reason(error)) from None
    if not upright or not alike or not ways <= {plain, *(tifffile.COMPRESSION[name] for name in TIFF_PACKED)}:
        stack.close()
        return None
    if ways == {plain} and all(page.is_contiguous for page in pages):
        stack.close()
        return Layout(path, np.array([page.dataoffsets[0] for page in pages], np.int64), stored)
    lock = threading.RLock()

    def load(z: int) -> np.ndarray:
        try:
            with lock:
                page = stack.pages[z]
            return page.asarray(lock=lock, maxworkers=1).reshape(shape[1:])
        except Exception as error:  # whatever a decoder raises
            raise damage_error(path, headers.reason(error)) from None

    return Slices(load, shape, dtype)
