"""TIFF as microscopes, scanners and Fiji write it: pages or one page with all slices, strips or tiles, packed or not.

tifffile knows all of these; a page is decoded when its slice is asked for. Of a size only OME-TIFF's and ImageJ's are
taken, which have a unit: the resolution tag is a printer's more often than a scanner's.
"""

from __future__ import annotations

import re
import struct
import threading
import weakref
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from xml.etree import ElementTree

import numpy as np

from microsr.core.errors import UserError
from microsr.formats import headers
from microsr.formats.rawfile import Layout, cache_slices, damage_error, open_slices
from microsr.formats.units import in_mm
from microsr.volume.slices import Slices

if TYPE_CHECKING:
    import tifffile

TURNS = {
    2: lambda image: image[:, ::-1], 3: lambda image: image[::-1, ::-1], 4: lambda image: image[::-1],
    5: lambda image: image.T, 6: lambda image: image.T[:, ::-1], 7: lambda image: image.T[::-1, ::-1],
    8: lambda image: image.T[::-1],
}  # fmt: skip
"""What makes an image upright, by the number of its tag Orientation; 1 is upright."""
MOST_CHANNELS = 4
"""A stack along an axis that is said to be that of channels has more; ImageJ and tifffile call slices so, too."""


@dataclass(frozen=True)
class Stack:
    """A TIFF file of grey values: its slices, unread, and its spacing (x, y, z, mm), or None."""

    slices: Slices
    spacing: tuple[float, float, float] | None


def read_stack(path: Path, scratch: Path | None) -> Stack:
    """Open a TIFF file of one stack of slices, or of one.

    Raises
    ------
    UserError
        It is damaged, truncated, inverted or in colour, or its pages are no stack.
    """
    import tifffile  # only here: few scans are TIFF

    stream = None
    try:
        stream = tifffile.TiffFile(path, _multifile=False)
        found = _describe(stream, path)
    except UserError:
        stream.close()
        raise
    except Exception as error:  # whatever a damaged file provokes in tifffile
        if stream is not None:
            stream.close()
        raise UserError(f"{path}: is not a readable TIFF file ({headers.reason(error)}); copy it again") from None
    (pages, place), (stored, turn), (shape, spacing) = found
    if place is not None and turn is None:
        stream.close()
        return Stack(open_slices(Layout(path, place, stored), shape, _final(stored), scratch), spacing)
    slices = _decode(stream, pages, shape, stored, turn, path)
    return Stack(cache_slices(slices, scratch) if len(slices) > 1 else slices, spacing)


def _final(stored: np.dtype) -> np.dtype:
    return np.dtype(np.float32) if stored.kind == "f" else stored.newbyteorder("=")


def _describe(stream: tifffile.TiffFile, path: Path) -> Any:
    """Pages and the place of plain voxels (or None); their type and what turns them; shape and spacing."""
    import tifffile

    pages, series = list(stream.pages), stream.series
    first = pages[0]
    ends = [o + n for p in pages for o, n in zip(p.dataoffsets, p.databytecounts, strict=True)]
    counts = [n for p in pages for n in p.databytecounts]
    if max(ends) > stream.filehandle.size or min(counts) < 1 or _next_page(stream, pages[-1].offset) != 0:
        raise UserError(f"{path}: is truncated; copy it again")
    if first.samplesperpixel != 1:
        raise UserError(f"{path}: has {first.samplesperpixel} values in a pixel (colour); save it as grey values")
    if first.photometric != tifffile.PHOTOMETRIC.MINISBLACK:
        kind = getattr(first.photometric, "name", first.photometric)
        raise UserError(f"{path}: its grey scale is inverted or a palette ({kind}); save it as plain grey values")
    if first.dtype is None or first.dtype.kind not in "iuf" or first.dtype.itemsize > 8:
        raise UserError(f"{path}: has {first.bitspersample} bits a pixel, no grey values; save it anew")
    shape = tuple(int(n) for n in series[0].shape)
    area = (first.imagelength, first.imagewidth)
    count = int(np.prod(shape[:-2], dtype=np.int64))
    if stream.is_imagej and count < int((stream.imagej_metadata or {}).get("images", 1)):
        raise UserError(f"{path}: is truncated; copy it again")  # tifffile takes the first of them for all
    many = [a for a, n in zip(series[0].axes, shape, strict=True) if n > 1 and a not in "YX"]
    planes = list(series[0].pages)
    if (
        len(series) != 1
        or shape[-2:] != area
        or 0 in shape
        or len(many) > 1
        or (many == ["C"] and count <= MOST_CHANNELS)
        or first.imagedepth != 1
    ):
        raise UserError(
            f"{path}: its {len(pages)} TIFF pages are not one stack of slices (shape {'x'.join(map(str, shape))}); "
            "save it as NIfTI or NRRD"
        )
    others = set(re.findall(r'FileName="([^"]*)"', stream.ome_metadata or "")) if stream.is_ome else set()
    if len(others) > 1 or any(page is None for page in planes):
        raise UserError(f"{path}: is one file of several of an OME-TIFF; save it as one file")
    orientations = {page.tags.valueof("Orientation", 1) for page in pages}
    turns = {(p.dtype, p.imagelength, p.imagewidth) for p in pages}
    if len(orientations) > 1 or not orientations <= {1, *TURNS} or len(turns) > 1:
        raise UserError(f"{path}: its pages differ in size, type or orientation; save it as NIfTI or NRRD")
    stored = np.dtype(first.dtype).newbyteorder(stream.byteorder)
    place: Any = None
    plain = first.bitspersample == 8 * stored.itemsize
    if plain and {page.compression for page in pages} == {tifffile.COMPRESSION.NONE}:
        if series[0].dataoffset is not None:  # also all slices behind one page
            place = int(series[0].dataoffset)
            if place + stored.itemsize * count * area[0] * area[1] > stream.filehandle.size:
                raise UserError(f"{path}: is truncated; copy it again")
        elif len(pages) == count and all(page.is_contiguous for page in pages):
            place = np.array([page.dataoffsets[0] for page in planes], np.int64)
    if place is None and len(planes) != count:
        raise damage_error(path, f"{count} pages expected, {len(planes)} found")
    (number,) = orientations
    upright = (count, *(area if number < 5 else area[::-1]))
    return (planes, place), (stored, TURNS.get(number)), (upright, _spacing(stream, first) if count > 1 else None)


def _decode(
    stream: tifffile.TiffFile, pages: list[Any], shape: tuple[int, int, int], stored: np.dtype, turn: Any, path: Path
) -> Slices:
    lock, final = threading.RLock(), _final(stored)

    def load(z: int) -> np.ndarray:
        try:
            image = pages[z].asarray(lock=lock, maxworkers=1)
            image = image.reshape(image.shape[-2:])
            image = image if turn is None else turn(image)
            return np.ascontiguousarray(image.reshape(shape[1:]), final)
        except Exception as error:  # whatever a decoder raises
            raise damage_error(path, headers.reason(error)) from None

    slices = Slices(load, shape, final)
    weakref.finalize(slices, stream.close)
    return slices


def _spacing(stream: tifffile.TiffFile, first: Any) -> tuple[float, float, float] | None:
    """Spacing (x, y, z, mm) that OME or ImageJ gives with its unit; None if there is none."""
    found: list[float] = []
    try:
        if stream.is_ome:
            pixels = ElementTree.fromstring(stream.ome_metadata).find(".//{*}Pixels")
            for axis in "XYZ":
                unit = pixels.get(f"PhysicalSize{axis}Unit", "um")  # OME's own, where none is said
                found.append(in_mm(float(pixels.get(f"PhysicalSize{axis}")), unit))
        elif stream.is_imagej:
            said = stream.imagej_metadata
            for name in ("XResolution", "YResolution"):
                number, per = first.tags.valueof(name)
                found.append(in_mm(per / number, said.get("unit", "")))
            found.append(in_mm(float(said["spacing"]), said.get("zunit", said.get("unit", ""))))
    except Exception:  # whatever is not there, or no number: the sheet has to give it
        return None
    usable = len(found) == 3 and all(headers.FINEST <= v <= headers.COARSEST for v in found)
    return tuple(found) if usable else None


def _next_page(stream: tifffile.TiffFile, offset: int) -> int:
    """Where the page after the one at `offset` is said to be: 0 after the last one."""
    layout, file = stream.tiff, stream.filehandle
    file.seek(offset)
    (tags,) = struct.unpack(layout.tagnoformat, file.read(layout.tagnosize))
    file.seek(offset + layout.tagnosize + tags * layout.tagsize)
    return struct.unpack(layout.offsetformat, file.read(layout.offsetsize))[0]
