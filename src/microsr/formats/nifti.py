"""NIfTI-1 and NIfTI-2 in: what a header says, and where the voxels lie, in one file or in a pair .hdr and .img.

The header is read here and not by ITK, which refuses cosines that were rounded, adds scl_inter where scl_slope is 0,
knows no NIfTI-2, takes a file for packed by its name alone, and is sent round for ever by an infinite sform.
"""

from __future__ import annotations

import gzip
import math
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from microsr.core.errors import UserError
from microsr.formats.headers import (
    COARSEST,
    FARTHEST,
    GIVE_SPACING,
    refuse_further_dimensions,
    require_positive,
    straighten,
)
from microsr.formats.rawfile import Layout, damage_error

SIZES = (348, 540)
"""Bytes of a header of NIfTI-1 and NIfTI-2, which are its first number."""
TYPES = {
    2: "u1", 4: "i2", 8: "i4", 16: "f4", 64: "f8", 256: "i1", 512: "u2", 768: "u4", 1024: "i8", 1280: "u8",
}  # fmt: skip
OTHER_TYPES = {
    1: "1 bit", 32: "complex numbers", 128: "colours", 1536: "128-bit floats", 1792: "complex numbers",
    2048: "complex numbers", 2304: "colours",
}  # fmt: skip
"""Types of voxels that are not read, and what to call them."""
UNITS = {0: 1.0, 1: 1000.0, 2: 1.0, 3: 0.001}
"""mm in a unit of length; 0: none is said."""
GZIP = b"\x1f\x8b"
SAME_PLACE = 1e-2
"""Largest difference of the cosines of sform and qform."""


@dataclass(frozen=True)
class Header:
    """What the header of a NIfTI file says. shape: slices, rows, columns. direction, origin (mm): LPS, as a Volume has
    them. spacing: x, y, z, mm; None: it has none. dtype: of the voxels, rescaled.
    """

    path: Path
    shape: tuple[int, int, int]
    spacing: tuple[float, float, float] | None
    origin: tuple[float, float, float]
    direction: tuple[float, ...]
    dtype: np.dtype
    layout: Layout

    def given_spacing(self) -> tuple[float, float, float]:
        """The spacing; a UserError if there is none."""
        if self.spacing is None:
            raise UserError(f"{self.path}: has no voxel spacing (0, or 1 x 1 x 1 without a unit); {GIVE_SPACING}")
        return self.spacing


def pair_of(path: Path) -> tuple[Path, Path] | None:
    """Header and voxels of a pair, of which `path` is one; None: its name is not that of a pair's file."""
    name, packed = path.name, ""
    if name.lower().endswith(".gz"):
        name, packed = name[:-3], name[-3:]
    stem, ending = name[:-4], name[-4:]
    if ending.lower() not in (".hdr", ".img"):
        return None
    endings = (".HDR", ".IMG") if ending.isupper() else (".hdr", ".img")
    return _beside(path, stem + endings[0], packed), _beside(path, stem + endings[1], packed)


def _beside(path: Path, name: str, packed: str) -> Path:
    """The file of this name in the same folder, packed or not."""
    as_it_is, other = path.with_name(name + packed), path.with_name(name)
    return as_it_is if as_it_is.is_file() else other


def is_pair(path: Path) -> bool:
    """Whether `path` is a file of a pair whose header is one of NIfTI or ANALYZE, or is not there; other formats have
    such names too.
    """
    found = pair_of(path)
    if found is None or not found[0].is_file():
        return found is not None
    start = _head(found[0])[:4]
    return any(int.from_bytes(start, order) in SIZES for order in ("little", "big"))


def read_header(path: Path) -> Header:
    """Read the header of a NIfTI file, or of a pair, of which `path` is either file.

    Raises
    ------
    UserError
        It is that of another format, says what cannot be, or leaves the place of the voxels uncertain.
    """
    pair = pair_of(path)
    header_file, voxels_file = pair or (path, path)
    if not header_file.is_file():
        raise UserError(f"{path}: its header, {header_file.name}, is not there; put the two files into one folder")
    if not voxels_file.is_file():
        raise UserError(f"{path}: its voxels, {voxels_file.name}, are not there; put the two files into one folder")
    head = _fields(header_file, single=pair is None)
    order = "<" if head.dtype["sizeof_hdr"].byteorder in "<|=" else ">"
    dimensions, *extents = (int(n) for n in head["dim"])
    refuse_further_dimensions(extents[:dimensions], path)
    shape = tuple(([*extents[: min(dimensions, 3)], 1, 1])[2::-1])
    kind = int(head["datatype"])
    if kind in OTHER_TYPES:
        raise UserError(
            f"{path}: its voxels are {OTHER_TYPES[kind]}; save it with grey values, as 16-bit integers or 32-bit floats"
        )
    slope, intercept = float(head["scl_slope"]), float(head["scl_inter"])
    scale = None
    if math.isfinite(slope) and slope != 0:  # where it is 0, the intercept does not count either
        if not math.isfinite(intercept):
            raise UserError(f"{path}: its scl_inter is no number; mend its header, or save it anew")
        scale = (slope, intercept) if (slope, intercept) != (1, 0) else None
    stored = np.dtype(order + TYPES[kind])
    dtype = stored.newbyteorder("=") if scale is None or kind == 64 else np.dtype(np.float32)
    packed = "gzip" if _is_packed(voxels_file) else None
    layout = Layout(voxels_file, int(head["vox_offset"]), stored, packed, scale=scale)
    unit = UNITS[int(head["xyzt_units"]) & 7]
    steps = np.abs(np.array(head["pixdim"][1:4], float))
    axes, origin = _place(path, head, steps)
    spacing, direction = straighten(axes, path)
    unset = (steps == 1).all() and int(head["xyzt_units"]) & 7 == 0 and not origin.any()
    known = dimensions >= 3 and np.array(head["pixdim"][1:4], float).min() > 0 and not unset
    if known:
        if np.abs(spacing / steps - 1).max() > 1e-3:
            raise UserError(f"{path}: its sform and pixdim give different spacings; {GIVE_SPACING}")
        spacing = require_positive(tuple(unit * spacing), path)
    place = tuple(float(unit * v) for v in origin)
    return Header(path, shape, spacing if known else None, place, direction, dtype, layout)


def _head(path: Path) -> bytes:
    """The first bytes of a file, unpacked."""
    try:
        with gzip.open(path) if _is_packed(path) else path.open("rb") as stream:
            return stream.read(max(SIZES))
    except (EOFError, gzip.BadGzipFile, zlib.error):
        return b""


def _is_packed(path: Path) -> bool:
    """Whether a file is packed, whatever its name."""
    with path.open("rb") as stream:
        return stream.read(2) == GZIP


def _fields(path: Path, single: bool) -> Any:
    """The fields of a header, a record; single: the voxels follow in the same file."""
    from nibabel import nifti1, nifti2  # only here: few scans are NIfTI

    head, known = _head(path), {348: nifti1, 540: nifti2}
    order, size = next(
        ((o, n) for o in "<>" for n in SIZES if int.from_bytes(head[:4], "little" if o == "<" else "big") == n),
        ("<", min(SIZES)),
    )
    if len(head) < size:
        raise damage_error(path, f"{size} bytes expected")
    record = np.frombuffer(head[:size], known[size].header_dtype.newbyteorder(order))[0]
    magic = bytes(head[344:348]) if size == min(SIZES) else bytes(head[4:8])
    if not single and magic[:2] not in (b"ni", b"n+"):
        raise UserError(f"{path}: is ANALYZE 7.5, which does not say which side is left; save it as NIfTI")
    dimensions, *extents = (int(n) for n in record["dim"])
    offset, kind = float(record["vox_offset"]), int(record["datatype"])
    qform, sform = record["qform_code"] > 0, record["sform_code"] > 0
    quaternion = np.array([record[f"quatern_{c}"] for c in "bcd"], float)
    shift = np.array([record[f"qoffset_{c}"] for c in "xyz"], float)
    rows = np.array([record[f"srow_{c}"] for c in "xyz"], float)
    expected = {(348, True): b"n+1\0", (348, False): b"ni1\0", (540, True): b"n+2\0", (540, False): b"ni2\0"}
    unit = int(record["xyzt_units"])
    far = FARTHEST / UNITS.get(unit & 7, 1.0)
    wrong = {
        "format": int.from_bytes(head[:4], "little" if order == "<" else "big") != size
        or magic != expected[size, single]
        or not (offset >= (size + 4 if single else 0) and offset == offset // 1),
        "size": not 1 <= dimensions <= 7 or min(extents[:dimensions]) < 1,
        "type": kind not in TYPES.keys() | OTHER_TYPES.keys()
        or (kind in TYPES and int(record["bitpix"]) != 8 * np.dtype(TYPES[kind]).itemsize),
        "unit": unit & 7 > 3 or not 0 <= unit < 64,
        "spacing": not (np.abs(np.array(record["pixdim"][1:4], float)) <= far / FARTHEST * COARSEST).all(),
        "qform": qform and not ((quaternion**2).sum() <= 1 + 1e-5 and np.abs(shift).max() <= far),
        "sform": sform and not np.abs(rows).max() <= far,
    }
    if any(wrong.values()):
        what = next(name for name, is_so in wrong.items() if is_so)
        raise UserError(
            f"{path}: the {what} in its header is not valid in NIfTI; copy it again, or save it anew as NIfTI-1"
        )
    return record


def _place(path: Path, head: Any, steps: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Axes (columns: x, y, z) and origin in the header's unit, LPS: the sform's if there is one, else the qform's.

    A file that says neither is in place as its voxels are counted.
    """
    to_lps = np.array([-1.0, -1.0, 1.0])
    steps = np.where(steps > 0, steps, 1.0)
    found = []
    if head["sform_code"] > 0:
        rows = np.array([head[f"srow_{c}"] for c in "xyz"], float)
        found.append((rows[:, :3], rows[:, 3]))
    if head["qform_code"] > 0:
        b, c, d = (float(head[f"quatern_{k}"]) for k in "bcd")
        a = math.sqrt(max(0.0, 1.0 - (b * b + c * c + d * d)))
        turn = np.array([
            [a * a + b * b - c * c - d * d, 2 * (b * c - a * d), 2 * (b * d + a * c)],
            [2 * (b * c + a * d), a * a + c * c - b * b - d * d, 2 * (c * d - a * b)],
            [2 * (b * d - a * c), 2 * (c * d + a * b), a * a + d * d - b * b - c * c],
        ])  # fmt: skip
        turn[:, 2] *= -1 if head["pixdim"][0] < 0 else 1
        found.append((turn * steps, np.array([head[f"qoffset_{k}"] for k in "xyz"], float)))
    if not found:
        return np.diag(steps), np.zeros(3)
    (axes, origin), *others = found
    for other, shift in others if head["sform_code"] > 1 else ():
        cosines = np.abs(axes / np.maximum(np.linalg.norm(axes, axis=0), 1e-12) - other / steps).max()
        apart = np.abs(origin - shift).max()
        if not (cosines <= SAME_PLACE and apart <= 1e-3 * steps.min() + 1e-5 * np.abs(origin).max()):
            straighten(to_lps[:, None] * axes, path)
            raise UserError(
                f"{path}: its sform and qform give different places; save it anew with the one that is right in both"
            )
    return to_lps[:, None] * axes, to_lps * origin
