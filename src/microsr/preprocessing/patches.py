"""Training patches: squares clipped from an imported volume, wholly (or nearly) inside the lung or specimen.

In: one volume in the working format with its mask. Out: the patches, int16 HU, and an index that says where each
came from. Zheng et al. 2020, section 2: "2D patches clipped from the volumes", 32x32 clinical and 256x256 uCT.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import Any

import numpy as np

from microsr import config
from microsr.core.errors import UserError
from microsr.core.files import replacing, reserve, write_csv
from microsr.core.progress import Progress, logger
from microsr.core.provenance import write_run
from microsr.core.streams import Stream, numpy_stream
from microsr.preprocessing.patch_files import INDEX_COLUMNS
from microsr.preprocessing.positions import count_positions, draw_positions
from microsr.volume.storage import open_mask, open_volume


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
    patches' run.json has the volume's pixel size, spacing_mm: [x, y]. The random stream depends on seed, case and
    modality alone, so other cases do not matter.

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

    with replacing(output) as temporary:
        patches = np.lib.format.open_memmap(temporary, mode="w+", dtype=np.int16, shape=(len(positions), size, size))
        reserve(temporary, temporary.stat().st_size)
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


def _check_volume(source: Any, case: str, modality: str, path: Path, size: int) -> None:
    if source.unit != "HU":
        raise UserError(
            f"case {case}, {modality}: {path} has unit '{source.unit}', patches need HU; "
            f"import it with volumes.micro.calibration.method two_point or percentile"
        )
    _, rows, columns = source.shape
    if min(rows, columns) < size:
        raise UserError(
            f"case {case}, {modality}: {path} has slices of {rows}x{columns} pixels, too small for {size}x{size} "
            "patches; lower patches.clinical_size and patches.micro_size"
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
