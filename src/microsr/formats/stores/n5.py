"""N5 stores: one level of a data set s0, s1, ..., or a single one, as a scan.

Spec: github.com/saalfeldlab/n5. zarr 3 reads it no more, and what is needed of it is small: a block is a header of a
few numbers and packed voxels, the first byte the highest. The first dimension is x, which varies fastest.
"""

from __future__ import annotations

import bz2
import json
import lzma
import math
import operator
import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from microsr.core.errors import UserError
from microsr.formats import headers
from microsr.formats.rawfile import damage_error
from microsr.formats.stores.chunked import ChunkedSlices
from microsr.formats.stores.ome_zarr import check_blosc, choose_box, choose_level
from microsr.formats.units import in_mm
from microsr.volume.storage import IDENTITY, Volume

if TYPE_CHECKING:
    from microsr.config.sheet import Scan
    from microsr.formats.stores.access import Files

TYPES = {
    "uint8": ">u1", "uint16": ">u2", "uint32": ">u4", "uint64": ">u8", "int8": ">i1", "int16": ">i2", "int32": ">i4",
    "int64": ">i8", "float32": ">f4", "float64": ">f8",
}  # fmt: skip
MOST_LEVELS = 30
LARGEST = 1 << 31
"""Bytes of a block, at most."""


def _zstd(content: bytes) -> bytes:
    import imagecodecs

    return imagecodecs.zstd_decode(content)


def _blosc(content: bytes) -> bytes:
    import numcodecs.blosc

    check_blosc(content)
    return numcodecs.blosc.decompress(content)


UNPACK: dict[str, Callable[[bytes], bytes]] = {
    "raw": bytes, "gzip": lambda content: zlib.decompress(content, 47), "bzip2": bz2.decompress, "xz": lzma.decompress,
    "zstd": _zstd, "blosc": _blosc,
}  # fmt: skip
"""By the names that N5 has for ways of packing; "gzip" is zlib's where its `useZlib` is true."""


def read(files: Files, scan: Scan, scratch: Path | None) -> Volume:
    """Open a data set, or a level of it, whose blocks are read when they are asked for; see
    `formats.readers.read_scan`.

    Raises
    ------
    UserError
        It is no data set of three dimensions, contradicts itself, or lacks blocks.
    """
    above, levels = _attributes(files, ""), [""]
    if "dimensions" not in above:
        levels = []
        while len(levels) < MOST_LEVELS and "dimensions" in _attributes(files, f"s{len(levels)}/"):
            levels.append(f"s{len(levels)}/")
    if not levels:
        raise UserError(
            f"{files.name}: is a folder of N5, but no data set; give the folder in it that holds s0, or the data set "
            "itself, as "
            "STORE.n5/volumes/raw"
        )
    level = choose_level(scan, len(levels), files.name)
    here, finest = (_attributes(files, prefix) for prefix in (levels[level], levels[0]))
    try:
        size, block = ([operator.index(n) for n in here[key]] for key in ("dimensions", "blockSize"))
        stored = np.dtype(TYPES[here["dataType"]])
        packed = here["compression"]["type"] if "compression" in here else here["compressionType"]
        unpack = UNPACK.get(packed)
    except (KeyError, TypeError, ValueError, OverflowError):
        raise damage_error(files.name, "its attributes are not those of N5") from None
    if bool in map(type, (*here["dimensions"], *here["blockSize"])):
        raise damage_error(files.name, "its attributes are not those of N5")
    if len(size) != 3 or len(block) != 3:
        raise UserError(f"{files.name}: has {len(size)} dimensions; give a data set of 3, x, y and z")
    if min(*size, *block) < 1 or max(size) >= 1 << 40 or math.prod(block) * stored.itemsize > LARGEST:
        raise damage_error(files.name, "its attributes are not those of N5")
    if unpack is None:
        raise UserError(
            f"{files.name}: is packed in a way that is not supported (supported: {', '.join(UNPACK)}); save it anew "
            "with one of these"
        )
    axes = here.get("axes", above.get("axes", ["x", "y", "z"]))
    if not isinstance(axes, list) or [str(name).lower() for name in axes] != ["x", "y", "z"]:
        raise UserError(f"{files.name}: its axes are said to be others than x, y and z, in this order; save it anew")
    spacing, origin = _place(scan, files.name, above if level or levels != [""] else {}, finest, here, level)

    def name_chunk(index: tuple[int, int, int]) -> str:
        return levels[level] + "/".join(str(n) for n in reversed(index))

    def load(index: tuple[int, int, int]) -> np.ndarray | None:
        key = name_chunk(index)
        if (content := files.get(key)) is None:
            return None
        extents = [min(b, s - n * b) for n, b, s in zip(reversed(index), block, size, strict=True)]
        try:
            mode, count = struct.unpack_from(">2H", content)
            there = struct.unpack_from(f">{count}I", content, 4)
            start = 4 + 4 * count + 4 * (mode == 1)
            if mode > 1 or count != 3 or any(t < e or t > b for t, e, b in zip(there, extents, block, strict=True)):
                raise ValueError("its header")
            voxels = np.frombuffer(unpack(content[start:]), stored).reshape(there[::-1])
        except Exception as error:  # whatever a damaged block provokes in what unpacks it
            raise damage_error(files.name, f"its block {key}: {type(error).__name__}") from None
        x, y, z = extents
        return voxels[:z, :y, :x].astype(stored.newbyteorder("="))

    shape = tuple(reversed(size))
    slices = ChunkedSlices(
        load, lambda index: files.has(name_chunk(index)), shape, tuple(reversed(block)), stored.newbyteorder("="), 0,
        files.name, scratch, choose_box(scan, shape), keep="://" in files.name,
    )  # fmt: skip
    volume = headers.place_scan(slices, "N5", spacing, origin, IDENTITY, scan)
    volume.attributes["source"] |= {"level": level, "levels": len(levels)}
    return volume


def _attributes(files: Files, prefix: str) -> dict[str, Any]:
    text = files.get(f"{prefix}attributes.json")
    try:
        found = json.loads(text or "{}")
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, dict):
        raise damage_error(files.name, "its attributes.json is no JSON")
    return found


def _place(
    scan: Scan, name: str, above: dict[str, Any], finest: dict[str, Any], here: dict[str, Any], level: int
) -> tuple[tuple[float, float, float], tuple[float, float, float]]:
    """Spacing and origin of a level. N5 has several habits of giving a size: where they disagree, it is not certain."""
    own, of_finest = _resolution(here), _resolution(finest)
    of_finest = _resolution(above) if of_finest is None else of_finest
    factors = _lengths(here.get("downsamplingFactors"))
    found = of_finest if not level else None
    if level and factors is not None and of_finest is not None:
        scaled = of_finest * factors
        found = scaled if own is None or np.allclose(own, scaled, rtol=1e-3) or np.allclose(own, of_finest) else None
    elif level and factors is None:
        found = own
    spacing = headers.spacing_of(scan, lambda: headers.require_positive(() if found is None else tuple(found), name))
    if factors is None or not level:
        return spacing, (0.0, 0.0, 0.0)
    # A voxel of a level is the mean of as many of the finest as its factors say.
    return spacing, tuple(float(s * (f - 1) / (2 * f)) for s, f in zip(spacing, factors, strict=True))


def _lengths(values: Any) -> np.ndarray | None:
    """Three positive numbers, x, y and z; None if it is something else."""
    try:
        found = np.array(values, float)
    except (TypeError, ValueError):
        return None
    return found if found.shape == (3,) and (found > 0).all() and np.isfinite(found).all() else None


def _resolution(attributes: dict[str, Any]) -> np.ndarray | None:
    """Voxel size, mm, as n5-viewer or Paintera give it; None if there is none, or it has no unit."""
    given = attributes.get("pixelResolution")
    sizes, unit = (given.get("dimensions"), given.get("unit")) if isinstance(given, dict) else (given, None)
    if sizes is None:
        sizes = attributes.get("resolution")
    if unit is None:
        units = attributes.get("units", attributes.get("unit"))
        unit = units[0] if isinstance(units, list) and units and all(u == units[0] for u in units) else units
    sizes = _lengths(sizes)
    found = None if sizes is None else _lengths([in_mm(size, str(unit)) for size in sizes])
    return found
