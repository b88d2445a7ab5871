"""Patches and their index as `microsr patches` writes them: read by what learns from patches, compares or draws
them.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, get_args

import numpy as np

from microsr.config.cases import KernelName
from microsr.core.csv_files import read_rows
from microsr.core.errors import UserError, brief

if TYPE_CHECKING:
    import pandas as pd

INDEX_COLUMNS = ["case", "modality", "slice", "row", "column", "size"]
SCAN_COLUMNS = [*INDEX_COLUMNS, "kernel", "slice_sigma_mm"]
NEIGHBOUR_COLUMNS = ["slice_mm", "before", "after"]
"""Further ones of scans of several slices: their distance, and how many of those on either side the uCT reaches; what
is beyond repeats the last of them.
"""
SCANNER_COLUMNS = ["scan", "region", "quantity", "x", "y", "value", "unit"]
"""Of the table of `microsr scanner`."""


def open_patches(path: Path) -> np.memmap:
    """The patches at `path`, int16 HU [patch, row, column], memory-mapped.

    Raises
    ------
    UserError
        The file holds no square patches.
    """
    try:
        patches = np.load(path, mmap_mode="r")
    except PermissionError:
        raise
    except Exception as error:  # whatever a damaged header provokes; code in a file is not run
        raise UserError(f"{path} holds no patches ({brief(error)}); make it with `microsr patches`") from None
    if not isinstance(patches, np.memmap):
        raise UserError(f"{path} holds no patches, but an archive; make it with `microsr patches`")
    if patches.ndim != 3 or patches.shape[1] != patches.shape[2] or not len(patches):
        raise UserError(f"{path} has shape {patches.shape}, not (patches, size, size); make it with `microsr patches`")
    if patches.dtype.kind not in "iuf" or patches.offset + patches.nbytes != path.stat().st_size:
        raise UserError(
            f"{path} holds no patches, but {patches.dtype}, or not as many as it says; make it with `microsr patches`"
        )
    return patches


def read_index(path: Path) -> pd.DataFrame:
    """Where patches came from, INDEX_COLUMNS, a row for each patch.

    Raises
    ------
    UserError
        The file is no such table, or lists places that are none.
    """
    places = dict.fromkeys(INDEX_COLUMNS[2:], "int64")
    how = {"dtype": {"case": str, "modality": str, **places}, "keep_default_na": False}
    table = read_rows(path, INDEX_COLUMNS, "no index of patches", "microsr patches", **how)
    if (table[list(places)] < [0, 0, 0, 1]).to_numpy().any():
        raise UserError(f"{path} lists patches at impossible places; make it with `microsr patches`")
    return table


def read_scans(path: Path, neighbours: bool = False) -> pd.DataFrame:
    """The scanner of each scan of uCT patches, SCAN_COLUMNS, a row for each scan, the scans of the first patch first.

    neighbours: with NEIGHBOUR_COLUMNS.

    Raises
    ------
    UserError
        The file is no such table, or names a kernel that does not exist.
    """
    how = {"dtype": {"case": str, "modality": str, "kernel": str}, "keep_default_na": False}
    columns = SCAN_COLUMNS + (NEIGHBOUR_COLUMNS if neighbours else [])
    table = read_rows(path, columns, "no table of scans", "microsr pairs", **how)
    if not table["kernel"].isin(get_args(KernelName)).all():
        raise UserError(f"{path} names a kernel that does not exist; make it with `microsr pairs`")
    return table


def read_scanner(path: Path) -> pd.DataFrame:
    """What was measured of the scanner, SCANNER_COLUMNS, as `microsr scanner` wrote it.

    Raises
    ------
    UserError
        The file is no such table.
    """
    texts = {"dtype": {"scan": str, "region": str, "quantity": str}, "keep_default_na": False}
    table = read_rows(
        path, SCANNER_COLUMNS, "no table of scanners", "microsr scanner", **texts, na_values={"x": [""], "y": [""]}
    )
    quantities = set(zip(table["region"], table["quantity"], strict=True))
    if not {("stated", "sd"), ("stated", "mtf50"), ("stated", "pixel"), ("noise", "pixel")} <= quantities:
        raise UserError(f"{path} is no complete table of scanners; make it with `microsr scanner`")
    return table


def read_noise(path: Path) -> list[np.ndarray]:
    """The measured noise power of each scan, HU^2 [size, size], zero frequency first, from a table of scanners.

    Raises
    ------
    UserError
        The file is no such table, or no scan's noise power was measured.
    """
    table, found = read_scanner(path), []
    for scan, rows in table[table["quantity"] == "power"].groupby("scan", sort=False):
        size, power = math.isqrt(len(rows)), rows["value"].to_numpy(float)
        if size * size != len(rows) or not (np.isfinite(power).all() and (power >= 0).all() and power.any()):
            raise UserError(f"{path} has no whole noise power of {scan}; make it with `microsr scanner`")
        found.append(power.reshape(size, size))
    if not found:
        raise UserError(
            f"{path} has no noise power, as there was too little even lung or soft tissue to measure it; set "
            "methods.<name>.noise to stated, and scanner.noise_hu"
        )
    return found
