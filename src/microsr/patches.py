"""Training patches: squares clipped from an imported volume, wholly (or nearly) inside the lung or specimen.

In: one volume in the working format with its mask. Out: the patches, int16 HU, and an index that says where each
came from. Zheng et al. 2020, section 2: "2D patches clipped from the volumes", 32x32 clinical and 256x256 uCT.
"""

from __future__ import annotations

import argparse
import math
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from microsr import UserError, brief, config
from microsr.csv_files import read_rows
from microsr.files import replacing, reserve, write_csv
from microsr.progress import Progress, logger
from microsr.provenance import write_run
from microsr.storage import open_mask, open_volume
from microsr.streams import Stream, numpy_stream

if TYPE_CHECKING:
    import pandas as pd

INDEX_COLUMNS = ["case", "modality", "slice", "row", "column", "size"]


def arguments(parser: argparse.ArgumentParser) -> None:
    """Command-line arguments of the step."""
    parser.add_argument("--case", required=True, help="name of the case")
    parser.add_argument("--modality", required=True, choices=("clinical", "micro"))
    parser.add_argument("--volume", required=True, type=Path, help="imported volume (OME-Zarr)")
    parser.add_argument("--seed", required=True, type=int)
    parser.add_argument("--output", required=True, type=Path, help="patches (.npy)")
    parser.add_argument("--index", required=True, type=Path, help="where each patch came from (.csv)")
    config.add_flags(parser, config.Patches)


def main(ns: argparse.Namespace) -> None:
    """Run the step from its command line."""
    settings = config.from_flags(ns, config.Patches)
    extract(ns.case, ns.modality, ns.volume, ns.seed, ns.output, ns.index, settings)


def extract(
    case: str, modality: str, volume: Path, seed: int, output: Path, index: Path, settings: config.Patches
) -> None:
    """Write `settings.per_case` patches of one volume, drawn uniformly over the admissible positions of all slices.

    volume: in the working format, HU, with a mask. output: .npy, int16 HU [patch, row, column]. index: .csv with
    INDEX_COLUMNS, a row for each patch in the same order; row and column are those of the patch's first pixel. The
    patches' run.json has the volume's pixel size, spacing_mm: [x, y]. The random stream depends on seed, case and modality
    alone, so other cases do not matter.

    Raises
    ------
    UserError
        The volume is not in HU, is smaller than a patch, or has no position with enough of the mask.
    """
    started = time.time()
    source, mask = open_volume(volume), open_mask(volume)
    size = settings.clinical_size if modality == "clinical" else settings.micro_size
    _check_volume(source, case, modality, volume, size)
    stream = numpy_stream(Stream.PATCHES, seed, f"{case}/{modality}")
    counts = count_positions(mask, size, settings.inside)
    if not counts.sum():
        raise UserError(_no_position(case, modality, volume, mask, size, settings.inside))
    if counts.sum() < settings.per_case:
        logger.warning(
            "case %s, %s: %d patches from only %d different positions; lower patches.per_case or patches.%s_size",
            *(case, modality, settings.per_case, counts.sum(), modality),
        )
    positions = draw_positions(mask, size, settings.inside, settings.per_case, stream, counts)

    with replacing(output) as part:
        patches = np.lib.format.open_memmap(part, mode="w+", dtype=np.int16, shape=(len(positions), size, size))
        reserve(part, part.stat().st_size)
        drawn = np.unique(positions[:, 0])
        progress = Progress(len(drawn), "slices")
        for z in drawn:
            image = np.asarray(source.array[int(z)])
            for number in np.flatnonzero(positions[:, 0] == z):
                _, row, column = positions[number]
                patches[number] = image[row : row + size, column : column + size]
            progress.advance()
        progress.close()
        patches.flush()

    import pandas as pd  # only here, as in `tables`

    table = pd.DataFrame(positions, columns=["slice", "row", "column"]).assign(case=case, modality=modality, size=size)
    write_csv(index, table[INDEX_COLUMNS])
    write_run(
        [output, index],
        step="patches",
        settings=settings.model_dump(mode="json") | {"seed": seed},
        inputs=[volume],
        started=started,
        case=case,
        modality=modality,
        spacing_mm=list(source.spacing[:2]),
        admissible_positions=int(counts.sum()),
    )


def open_patches(path: Path) -> np.ndarray:
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
    if not isinstance(patches, np.ndarray):
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
        raise UserError(f"{path} lists patches at places that are none; make it with `microsr patches`")
    return table


def admissible(mask: np.ndarray, size: int, inside: float) -> np.ndarray:
    """Where a size x size window may start: at least the share `inside` of it lies in the mask.

    mask: [rows, columns], non-zero inside. Returns bool [rows - size + 1, columns - size + 1], empty if the window does
    not fit. Box sums come from an integral image, so that the cost does not grow with the window.
    """
    if min(mask.shape) < size:
        return np.zeros((max(mask.shape[0] - size + 1, 0), max(mask.shape[1] - size + 1, 0)), bool)
    integral = np.zeros((mask.shape[0] + 1, mask.shape[1] + 1), np.int32)
    integral[1:, 1:] = (mask != 0).cumsum(0, dtype=np.int32).cumsum(1, dtype=np.int32)
    box = integral[size:, size:] - integral[:-size, size:] - integral[size:, :-size] + integral[:-size, :-size]
    # The share is a decimal fraction from the user: 0.7 of 100 pixels must mean 70, not 71.
    return box >= math.ceil(inside * size**2 - 1e-6)


def count_positions(mask: Any, size: int, inside: float, slices: Sequence[int] | None = None) -> np.ndarray:
    """Number of admissible positions on each of `slices` (None: all) of a mask [slices, rows, columns], read by slice."""
    chosen = range(mask.shape[0]) if slices is None else slices
    return np.array([np.count_nonzero(admissible(np.asarray(mask[int(z)]), size, inside)) for z in chosen], np.int64)


def draw_positions(
    mask: Any,
    size: int,
    inside: float,
    number: int,
    stream: np.random.Generator,
    counts: np.ndarray,
    slices: Sequence[int] | None = None,
) -> np.ndarray:
    """Draw windows uniformly, with replacement, from the admissible positions of a mask [slices, rows, columns].

    counts: from `count_positions` with the same mask, size, share and slices. Returns int64 [number, 3]: slice,
    first row, first column. The first windows of a longer draw are those of a shorter one.
    """
    chosen = np.arange(mask.shape[0]) if slices is None else np.asarray(slices)
    ends = np.cumsum(counts)
    ranks = stream.integers(ends[-1], size=number)
    which = np.searchsorted(ends, ranks, side="right")
    positions = np.empty((number, 3), np.int64)
    for i in np.unique(which):
        allowed = admissible(np.asarray(mask[int(chosen[i])]), size, inside)
        here = which == i
        flat = np.flatnonzero(allowed)[ranks[here] - (ends[i] - counts[i])]
        positions[here] = np.column_stack([np.full(flat.size, chosen[i]), *np.unravel_index(flat, allowed.shape)])
    return positions


def _check_volume(source: Any, case: str, modality: str, path: Path, size: int) -> None:
    if source.unit != "HU":
        raise UserError(
            f"case {case}, {modality}: {path} has unit '{source.unit}', patches need HU; "
            f"import it with volumes.micro.calibration.method two_point or percentile"
        )
    _, rows, columns = source.shape
    if min(rows, columns) < size:
        raise UserError(
            f"case {case}, {modality}: {path} has slices of {rows}x{columns} pixels, too small for {size}x{size} patches; "
            f"lower patches.clinical_size and patches.micro_size"
        )


def _no_position(case: str, modality: str, path: Path, mask: Any, size: int, inside: float) -> str:
    where = f"case {case}, {modality}: {path}"
    extent = mask_extent(mask)
    if extent is None:
        return f"{where}: the mask is empty, there is nowhere to take patches; correct volumes.{modality}, import again"
    slices, rows, columns = (f"{first} to {last}" for first, last in extent)
    return (
        f"{where}: no {size}x{size} patch lies inside the mask by {inside:g} (mask: slices {slices}, rows {rows}, "
        f"columns {columns}); lower patches.clinical_size and patches.micro_size, or patches.inside"
    )


def mask_extent(mask: Any) -> list[tuple[int, int]] | None:
    """First and last slice, row and column that hold a mask pixel, read by slice; None if there is none."""
    occupied = [np.zeros(n, bool) for n in mask.shape]
    for z in range(mask.shape[0]):
        inside = np.asarray(mask[z]) != 0
        occupied[0][z] = inside.any()
        occupied[1] |= inside.any(axis=1)
        occupied[2] |= inside.any(axis=0)
    if not occupied[0].any():
        return None
    return [(int(np.flatnonzero(axis)[0]), int(np.flatnonzero(axis)[-1])) for axis in occupied]
