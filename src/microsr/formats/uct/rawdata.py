"""Voxels without a header in the same file: with Nikon's (Volume Graphics') .vgi beside, or a header of the user's.

The user's is YAML, NAME.raw.yaml beside NAME.raw (or .vol): see `Header`. Nothing of it is guessed, and the file must
have just as many bytes as it says.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import numpy as np
import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from microsr.core.errors import UserError
from microsr.formats import headers
from microsr.formats.rawfile import Layout, damage_error, open_slices
from microsr.formats.units import in_mm
from microsr.volume.storage import IDENTITY, Volume

if TYPE_CHECKING:
    from microsr.config.sheet import Scan

Extent = Annotated[int, Field(ge=1, le=1 << 20)]
VGI_TYPES = {
    ("unsigned integer", 8): "u1", ("unsigned integer", 16): "u2", ("unsigned integer", 32): "u4", ("integer", 8): "i1",
    ("integer", 16): "i2", ("integer", 32): "i4", ("float", 32): "f4", ("float", 64): "f8",
}  # fmt: skip
LONGEST = 1 << 20
"""Bytes of a header, at most."""


class Header(BaseModel):
    """What the user says of a file of voxels."""

    model_config = ConfigDict(extra="forbid", strict=True)

    dtype: Literal["uint8", "int8", "uint16", "int16", "uint32", "int32", "float32", "float64"]
    """Type of a voxel."""
    size: Annotated[list[Extent], Field(min_length=3, max_length=3)]
    """Columns, rows and slices: x varies fastest, z slowest."""
    spacing: Annotated[list[float], Field(min_length=3, max_length=3)] | None = None
    """mm, in the same order; else the sheet gives it."""
    offset: Annotated[int, Field(ge=0)] = 0
    """Bytes before the first voxel."""
    order: Literal["little", "big"] = "little"
    """Of the bytes of a voxel."""


class Raw:
    """Reads .raw and .vol with a header beside."""

    def read(self, path: Path, scan: Scan, scratch: Path | None) -> Volume:
        """Open a volume, whose slices are read when they are asked for; see `formats.further.Format`."""
        given = path.with_name(f"{path.name}.yaml")
        if not given.is_file() and path.with_suffix(".vgi").is_file():
            return VGI.read(path.with_suffix(".vgi"), scan, scratch)
        if not given.is_file():
            raise UserError(
                f"{path}: has no header; write {given.name} beside it, as "
                f"`{{dtype: uint16, size: [512, 512, 300], spacing: "
                "[0.01, 0.01, 0.01]}`, or give the header that describes it (.vgi, .mhd or .nhdr)"
            )
        try:
            said = Header.model_validate(yaml.safe_load(_text(given)))
        except ValidationError as error:
            first = error.errors()[0]
            keys = ", ".join(Header.model_fields)
            raise UserError(
                f"{given}: {'.'.join(str(part) for part in first['loc'][:2])[:40]}: is missing, unknown or of another "
                "kind; "
                f"it may say {keys} (docs/data.md)"
            ) from None
        except (yaml.YAMLError, ValueError, RecursionError):
            raise damage_error(given, "it is no YAML") from None
        stored = np.dtype(said.dtype).newbyteorder({"little": "<", "big": ">"}[said.order])
        return _open_voxels(path, scan, scratch, said.offset, stored, said.size, said.spacing or (), "raw")


class Vgi:
    """Reads .vgi."""

    def read(self, path: Path, scan: Scan, scratch: Path | None) -> Volume:
        """Open a volume, whose slices are read when they are asked for; see `formats.further.Format`."""
        text = _text(path)
        parts = re.split(r"^[\[{]", text, flags=re.MULTILINE)
        files = [_fields(part) for part in parts if re.match(r"file\d+\]", part, re.IGNORECASE)]
        if len(files) != 1:
            raise UserError(f"{path}: describes {len(files)} files of voxels, not one; save it as one")
        (said,), whole = files, _fields(text)
        try:
            size = [int(n) for n in said["size"].split()]
            stored = np.dtype(VGI_TYPES[said["datatype"].lower(), int(said["bitsperelement"])]).newbyteorder("<")
            steps = [in_mm(float(n), whole.get("unit", "")) for n in whole.get("resolution", "").split()]
            offset = int(said.get("skipheader", "0"))
            name = re.split(r"[\\/]", said["name"])[-1]
        except (KeyError, ValueError):
            raise damage_error(path, "its size, type or file is not as Volume Graphics has them") from None
        if len(size) != 3 or min(size) < 1 or offset < 0 or said.get("fileformat", "raw").lower() != "raw":
            raise damage_error(path, "its size, type or file is not as Volume Graphics has them")
        voxels = path.with_name(name) if name else path
        if not voxels.is_file() or name in (".", ".."):
            raise UserError(f"{path}: its file of voxels is not beside it; lay it there, under the name that it says")
        return _open_voxels(voxels, scan, scratch, offset, stored, size, steps, "VGI")


def _fields(text: str) -> dict[str, str]:
    """Fields `key = value`, keys in lower case; of several of a name the first."""
    found: dict[str, str] = {}
    for line in text.splitlines():
        key, there, value = line.partition("=")
        if there:
            found.setdefault(key.strip().lower(), value.strip())
    return found


def _text(path: Path) -> str:
    with path.open("rb") as stream:
        return stream.read(LONGEST).decode("latin-1")


def _open_voxels(
    path: Path,
    scan: Scan,
    scratch: Path | None,
    offset: int,
    stored: np.dtype,
    size: list[int],
    steps: tuple,
    kind: str,
) -> Volume:
    spacing = headers.spacing_of(scan, lambda: headers.require_positive(tuple(steps), Path(scan.path)))
    layout = Layout(path, offset, stored, exact=True)
    slices = open_slices(layout, tuple(reversed(size)), stored.newbyteorder("="), scratch)
    return headers.place_scan(slices, kind, spacing, (0.0, 0.0, 0.0), IDENTITY, scan)


RAW, VGI = Raw(), Vgi()
