"""HDF5, and NeXus in it, as synchrotrons write volumes: one data set, read by h5py chunk by chunk.

Which one: that of the sheet's column <modality>_series (its path, as /entry/data/data); else NeXus' default; else the
only one of three dimensions. HDF5 has no voxel size of its own: NeXus' axes have one where they are even and have a
unit, and the attribute `element_size_um` (z, y, x) of ilastik's and Fiji's plug-ins.
"""

from __future__ import annotations

import math
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from microsr.core.errors import UserError
from microsr.formats import headers
from microsr.formats.rawfile import damage_error
from microsr.formats.stores.chunked import ChunkedSlices
from microsr.formats.stores.ome_zarr import choose_box
from microsr.formats.uct.extra import load
from microsr.formats.units import in_mm
from microsr.volume.slices import Slices
from microsr.volume.storage import IDENTITY, Volume

if TYPE_CHECKING:
    from microsr.config.sheet import Scan

MOST_SETS = 1000
"""Data sets that are looked at."""
EVEN = 1e-3
"""Largest deviation of an axis' steps from their mean, in steps."""


class Hdf5:
    """Reads .h5, .hdf5, .nxs and the like."""

    def read(self, path: Path, scan: Scan, scratch: Path | None) -> Volume:
        """Open a volume, whose chunks are read when they are asked for; see `formats.further.Format`."""
        h5py = load("h5py", path)
        try:
            file = h5py.File(path, "r")
        except OSError:
            raise damage_error(path, "it is no whole HDF5 file") from None
        try:
            return self._open(h5py, file, path, scan, scratch)
        except UserError:
            file.close()
            raise

    def _open(self, h5py: Any, file: Any, path: Path, scan: Scan, scratch: Path | None) -> Volume:
        try:
            array = _choose(h5py, file, path, scan)
            missing = array.is_virtual and any(
                name != "." and not (path.parent / name).is_file() for _, name, _, _ in array.virtual_sources()
            )
            steps = _spacing(array)
            shape, chunk, dtype = tuple(array.shape), array.chunks, np.dtype(array.dtype)
        except UserError:
            raise
        except Exception as error:  # whatever a damaged file provokes in HDF5
            raise damage_error(path, f"HDF5 says {type(error).__name__}") from None
        if missing:
            raise UserError(f"{path}: its data set lies in other files, of which one is not there; lay it there")
        if dtype.kind not in "iuf" or dtype.itemsize > 8:
            raise UserError(f"{path}: its data set holds no grey values ({dtype.kind}{dtype.itemsize}); choose another")
        lock, final = threading.Lock(), np.dtype(np.float32) if dtype.kind == "f" else dtype.newbyteorder("=")

        def read(*area: slice) -> np.ndarray:
            try:
                with lock:
                    return array[area].astype(final, copy=False)
            except Exception as error:  # whatever a damaged chunk provokes, or a way of packing that is not there
                raise damage_error(
                    path, f"{headers.reason(error)}; if it is packed in a rare way: python -m pip install hdf5plugin"
                ) from None

        spacing = headers.spacing_of(scan, lambda: headers.require_positive(steps or (), path))
        if chunk is None:
            slices = Slices(
                lambda z: read(slice(z, z + 1))[0],
                shape,
                final,
                lambda z, *area: read(slice(z, z + 1), *area)[0],
            )
        else:

            def read_chunk(index: tuple[int, int, int]) -> np.ndarray:
                return read(*(slice(n * c, min((n + 1) * c, s)) for n, c, s in zip(index, chunk, shape, strict=True)))

            asked = choose_box(scan, shape)
            slices = ChunkedSlices(read_chunk, lambda index: True, shape, chunk, final, 0, str(path), scratch, asked)
        return headers.place_scan(slices, "HDF5", spacing, (0.0, 0.0, 0.0), IDENTITY, scan)


def _choose(h5py: Any, file: Any, path: Path, scan: Scan) -> Any:
    """The data set of three dimensions to read."""
    if scan.series is not None:
        found = file.get(scan.series)
        if not isinstance(found, h5py.Dataset) or found.ndim != 3 or 0 in found.shape:
            raise UserError(f"{path}: has no data set {scan.series} of three dimensions; it has {_list(h5py, file)}")
        return found
    group = file
    while isinstance(group, h5py.Group) and isinstance(name := group.attrs.get("default"), str):
        group = group.get(name)
    signal = group.attrs.get("signal") if isinstance(group, h5py.Group) else None
    if isinstance(signal, str) and isinstance(found := group.get(signal), h5py.Dataset) and found.ndim == 3:
        return found
    volumes = _volumes(h5py, file)
    if len(volumes) != 1:
        raise UserError(
            f"{path}: holds {len(volumes)} data sets of three dimensions; choose one by its path (sheet: "
            "<modality>_series, "
            f"command: --series); it has {_list(h5py, file)}"
        )
    return volumes[0]


def _volumes(h5py: Any, file: Any) -> list[Any]:
    """Data sets of numbers in three dimensions, each once, however many links lead to it."""
    found: list[Any] = []

    def visit(name: str, thing: Any) -> bool | None:
        if isinstance(thing, h5py.Dataset) and thing.ndim == 3 and thing.dtype.kind in "iuf" and 0 not in thing.shape:
            found.append(thing)
        return True if len(found) >= MOST_SETS else None

    file.visititems(visit)
    return found


def _list(h5py: Any, file: Any) -> str:
    """The first data sets of three dimensions."""
    volumes = _volumes(h5py, file)[:5]
    return "; ".join(f"{one.name} ({'x'.join(map(str, one.shape))})" for one in volumes) or "none"


def _spacing(array: Any) -> tuple[float, float, float] | None:
    """Spacing (x, y, z, mm) that goes with a data set; None: there is none that is certain."""
    try:
        if "element_size_um" in array.attrs:
            found = np.asarray(array.attrs["element_size_um"], float).ravel() / 1000
        else:
            names = array.parent.attrs.get("axes")
            if names is None or len(names) != 3:
                return None
            found = np.array([_step(array.parent[str(name)], n) for name, n in zip(names, array.shape, strict=True)])
    except Exception:  # whatever is not there, or no number: the sheet has to give it
        return None
    usable = found.shape == (3,) and all(headers.FINEST <= v <= headers.COARSEST for v in found)
    return tuple(float(v) for v in found[::-1]) if usable else None


def _step(axis: Any, count: int) -> float:
    """Distance of the voxels along an axis, mm; NaN if they are uneven or have no unit."""
    places = np.asarray(axis, float)
    steps = np.diff(places)
    mean = float(steps.mean()) if places.shape == (count,) and count > 1 else math.nan
    even = np.abs(steps - mean).max() <= EVEN * abs(mean) if math.isfinite(mean) else False
    return in_mm(mean, axis.attrs["units"]) if even else math.nan


FORMAT = Hdf5()
