"""Where the voxels of an NRRD or MetaImage file lie, so that single slices can be read.

SimpleITK has read the header, and says what type the voxels are to become. A file that is stored in a way not known
here has no layout (None): SimpleITK reads it whole.
"""

from __future__ import annotations

import math
import os
import re
from pathlib import Path

import numpy as np

from microsr.formats.rawfile import Layout, damage_error
from microsr.formats.textheaders import text_header


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
