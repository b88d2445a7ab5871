"""Scanco's ISQ (a reconstruction as scanned) and AIM (as evaluated), versions 020 and 030, read slice by slice.

Values are the scanner's integers, uncalibrated as those of any uCT. Layouts: Scanco's own description of ISQ, and for
AIM what VTK and ITK (ITKIOScanco) know of it.
"""

from __future__ import annotations

import math
import struct
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from microsr.core.errors import UserError
from microsr.formats import headers
from microsr.formats.rawfile import Layout, damage_error, open_slices
from microsr.volume.storage import IDENTITY, Volume

if TYPE_CHECKING:
    from microsr.config.sheet import Scan

BLOCK = 512
ISQ, RECONSTRUCTION = b"CTDATA-HEADER_V1", 3
"""First bytes of an ISQ, and of its types the one that is no projections."""
AIM_030 = b"AIMDATA_V030"
TYPES = {0x10001: "i1", 0x160001: "u1", 0xD0001: "u1", 0x20002: "<i2", 0x170002: "<u2", 0x30004: "<i4"}
"""Of AIM, by their numbers; others are packed, vectors or VAX floats."""
LONGEST = 1 << 24
"""Bytes of a header, with its log, at most."""


class Isq:
    """Reads .isq."""

    def read(self, path: Path, scan: Scan, scratch: Path | None) -> Volume:
        """Open a volume, whose slices are read when they are asked for; see `formats.further.Format`."""
        with path.open("rb") as stream:
            head = stream.read(BLOCK)
        if len(head) < BLOCK or head[:16] != ISQ:
            raise damage_error(path, "its header is not that of an ISQ")
        kind, *_ = struct.unpack_from("<i", head, 16)
        pixels, lengths = struct.unpack_from("<3i", head, 44), struct.unpack_from("<3i", head, 56)
        (blocks,) = struct.unpack_from("<i", head, 508)
        if kind != RECONSTRUCTION:
            raise UserError(
                f"{path}: holds projections or another kind of data ({kind}), no reconstruction; give its ISQ"
            )
        if min(pixels) < 1 or blocks < 0:
            raise damage_error(path, "its header is not that of an ISQ")
        steps = tuple(length / n / 1000 for n, length in zip(pixels, lengths, strict=True))
        return _open_voxels(path, scan, scratch, BLOCK * (blocks + 1), "<i2", pixels, steps, (0, 0, 0), "ISQ")


class Aim:
    """Reads .aim."""

    def read(self, path: Path, scan: Scan, scratch: Path | None) -> Volume:
        """Open a volume, whose slices are read when they are asked for; see `formats.further.Format`."""
        with path.open("rb") as stream:
            head = stream.read(BLOCK)
        new = head[:12] == AIM_030
        start, whole = (16, "q") if new else (0, "i")
        try:
            before, described, log = struct.unpack_from(f"<3{whole}", head, start)
            place = start + before + (12 if new else 20)
            (kind,) = struct.unpack_from("<i", head, place)
            facts = struct.unpack_from(f"<21{whole}", head, place + 4)
            place += 4 + 21 * struct.calcsize(whole)
            known = (before, described) in ((20, 140), (40, 224)) and 0 <= log < LONGEST
            steps = (
                [1e-6 * n for n in struct.unpack_from("<3q", head, place)] if new else _vax(head[place : place + 12])
            )
        except struct.error:
            known = False
        if not known or min(facts[3:6]) < 1:
            raise damage_error(path, "its header is not that of an AIM, version 020 or 030")
        if kind not in TYPES:
            raise UserError(
                f"{path}: is an AIM of packed or other values (type 0x{kind & 0xFFFFFFFF:x}); save it anew as short or "
                "char"
            )
        origin = [s * n for s, n in zip(steps, facts[:3], strict=True)]
        first = start + before + described + log
        return _open_voxels(path, scan, scratch, first, TYPES[kind], facts[3:6], steps, origin, "AIM")


def _open_voxels(
    path: Path, scan: Scan, scratch: Path | None, start: int, dtype: str, pixels: tuple, steps: tuple, origin: tuple,
    kind: str,
) -> Volume:  # fmt: skip
    """Voxels that begin at byte `start`; pixels, steps, origin: x, y, z, in mm."""
    stored = np.dtype(dtype)
    spacing = headers.spacing_of(scan, lambda: headers.require_positive(tuple(steps), path))
    origin = tuple(float(v) for v in origin)
    shape = tuple(int(n) for n in reversed(pixels))
    slices = open_slices(Layout(path, start, stored), shape, stored.newbyteorder("="), scratch)
    return headers.place_scan(slices, kind, spacing, origin, IDENTITY, scan)


def _vax(content: bytes) -> list[float]:
    """VAX F floats: the two halves of an IEEE float are swapped, and its exponent is 2 more."""
    words = np.frombuffer(content, "<u2").reshape(-1, 2)[:, ::-1]
    found = [float(v) / 4 for v in np.ascontiguousarray(words).view("<f4").ravel()]
    return [v if math.isfinite(v) else math.nan for v in found]


ISQ_FORMAT, AIM_FORMAT = Isq(), Aim()
