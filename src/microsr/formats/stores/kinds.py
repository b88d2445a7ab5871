"""Which folders and addresses are chunked stores, and of which kind."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from microsr.core.errors import UserError
from microsr.core.urls import url
from microsr.formats.stores.access import open_files

if TYPE_CHECKING:
    from microsr.config.sheet import Scan
    from microsr.volume.storage import Volume

ZARR = ("zarr.json", ".zattrs", ".zgroup", ".zarray")
N5 = "attributes.json"
"""Files that a store has in its folder."""


def is_store(path: str | Path) -> bool:
    """Whether a path is a URL, or a folder that says it is Zarr or N5, by its files or its name."""
    if url(path):
        return True
    path = Path(path)
    return path.is_dir() and (
        any((path / name).is_file() for name in (*ZARR, N5)) or path.suffix.lower() in (".zarr", ".n5")
    )


def read(scan: Scan, scratch: Path | None) -> Volume:
    """Open a store; see `formats.readers.read_scan`.

    Raises
    ------
    UserError
        There is none, or it cannot be read with certainty.
    """
    from microsr.formats.stores import n5, ome_zarr  # only here: they are built on `formats.readers`, which asks here

    files = open_files(scan.path)
    if any(files.get(name) is not None for name in ZARR):
        return ome_zarr.read(files, scan, scratch)
    if files.get(N5) is not None or any(part.lower().endswith(".n5") for part in Path(files.name).parts):
        return n5.read(files, scan, scratch)
    raise UserError(
        f"{files.name}: holds no {', '.join(ZARR)} or {N5}, so it is no OME-Zarr or N5 store, or was copied in part; "
        "give the "
        "folder or address that has one of them"
    )
