"""Pairs: for each uCT patch what a clinical scanner would show of it, without noise, made from the uCT volume.

In: an imported uCT volume, the index of the patches cut from it, the scanner. Out: the scans, int16 HU, and a table
with the scanner of each. The volume is seen through the scanner's whole operator (docs/simulation.md): the slice
profile across slices, the kernel's point-spread function in-plane, sampling at the clinical pixels' centres. Both see
beyond the patch's border, what the volume holds there. The noise is left to the training, which draws it anew.
"""

from __future__ import annotations

import argparse
import functools
import math
import time
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from microsr import config
from microsr.core.errors import UserError
from microsr.core.files import replacing, reserve, write_csv
from microsr.core.progress import Progress, logger
from microsr.core.provenance import write_run
from microsr.core.streams import Stream, numpy_stream
from microsr.physics.scanner import KERNELS, REACH, project, sampling
from microsr.preprocessing.patch_files import SCAN_COLUMNS, read_index
from microsr.volume.storage import Volume, open_volume

if TYPE_CHECKING:
    import pandas as pd

UNLIKE = 0.15
"""Pixel sizes that differ by more than this share are worth a message."""
FWHM = 2 * math.sqrt(2 * math.log(2))
"""Width of a Gaussian at half of its height, in standard deviations."""


def arguments(parser: argparse.ArgumentParser) -> None:
    """Command-line arguments of the step."""
    parser.add_argument("--case", required=True, help="name of the case")
    parser.add_argument("--volume", required=True, type=Path, help="imported uCT volume (OME-Zarr)")
    parser.add_argument("--index", required=True, type=Path, help="where each patch came from (.csv)")
    parser.add_argument("--seed", required=True, type=int)
    parser.add_argument("--output", required=True, type=Path, help="scans of the patches (.npy)")
    parser.add_argument("--table", required=True, type=Path, help="scanner of each scan (.csv)")
    config.add_scale(parser)
    config.add_flags(parser, config.Pairs)
    config.add_flags(parser, config.Scanner, without=["noise_hu"])


def main(ns: argparse.Namespace) -> None:
    """Run the step from its command line."""
    settings, scanner = config.from_flags(ns, config.Pairs), config.from_flags(ns, config.Scanner)
    scan_patches(ns.case, ns.volume, ns.index, ns.seed, ns.output, ns.table, settings, scanner, ns.scale)


def scan_patches(
    case: str,
    volume: Path,
    index: Path,
    seed: int,
    output: Path,
    table: Path,
    settings: config.Pairs,
    scanner: config.Scanner,
    scale: int = config.DEFAULT_SCALE,
) -> None:
    """Scan each patch of a uCT volume without noise, `settings.scanners` times.

    volume: in the working format, HU. index: of its patches, as `microsr patches` writes it. output: .npy, int16 HU
    [scan, row, column], the scans of the first patch first. table: .csv with SCAN_COLUMNS, a row for each scan. As
    many of the volume's pixels as `scale` says are taken for one of the scanner's, whatever they measure, as a network
    takes them; all of the volume is scaled alike. The scanners drawn depend on seed and case alone.

    Raises
    ------
    UserError
        The volume is not in HU, or the patches are not of it.
    """
    started = time.time()
    source, places = open_volume(volume), read_index(index)
    _check(source, places, volume, index, scale)
    scanners = draw_scanners(len(places), settings, scanner, numpy_stream(Stream.SCANNERS, seed, _number(case)))
    count, size = settings.scanners, int(places["size"].iloc[0])
    view = View(source, scanner.pixel_mm, max(sigma for _, sigma in scanners), scale)
    _tell(case, source, view, scanner)
    shape = (len(scanners), size // scale, size // scale)
    corners = places[["slice", "row", "column"]].to_numpy()
    with replacing(output) as temporary:
        scans = np.lib.format.open_memmap(temporary, mode="w+", dtype=np.int16, shape=shape)
        reserve(temporary, temporary.stat().st_size)
        progress = Progress(len(places), "patches")
        for patch in np.argsort(corners[:, 0], kind="stable"):  # from slice to slice, so that few are held
            own = slice(patch * count, (patch + 1) * count)
            scans[own] = view.scan(corners[patch], size, scanners[own])
            progress.advance()
        progress.close()
        scans.flush()
    rows = places.loc[places.index.repeat(count)].assign(
        kernel=[kernel for kernel, _ in scanners], slice_sigma_mm=[round(sigma, 4) for _, sigma in scanners]
    )
    write_csv(table, rows[SCAN_COLUMNS])
    chosen = settings.model_dump(mode="json") | scanner.model_dump(mode="json", exclude={"noise_hu"})
    chosen |= {"seed": seed, "scale": scale}
    write_run([output, table], "pairs", chosen, [volume, index], started, case=case)


def draw_scanners(
    patches: int, settings: config.Pairs, stated: config.Scanner, stream: np.random.Generator
) -> list[tuple[str, float]]:
    """Kernel and slice profile (sigma, mm) of each scan, patch by patch: the stated ones, then drawn ones."""
    shape = (patches, settings.scanners - 1)
    kernels = stream.choice(settings.kernels, shape)
    sigmas = stated.slice_sigma_mm * stream.uniform(*settings.slice_sigma, shape)
    found = []
    for drawn in zip(kernels.tolist(), sigmas.tolist(), strict=True):
        found += [(stated.kernel, stated.slice_sigma_mm), *zip(*drawn, strict=True)]
    return found


class View:
    """A uCT volume as scanners see it, patch by patch. Of its slices it holds as many as the widest profile spans."""

    def __init__(self, source: Volume, pixel_mm: float, widest_sigma_mm: float, scale: int) -> None:
        """source: HU. pixel_mm: of the scanner; lengths in the volume are enlarged so that `scale` pixels are one."""
        self.enlarged = pixel_mm / scale / source.spacing[0]
        """The scanner's lengths over the volume's own."""
        self._scale, self._pixel, self.fine_mm = scale, pixel_mm, pixel_mm / scale
        independent = source.attributes.get("independent_slices") or source.shape[0] == 1
        slice_mm = source.spacing[2] * self.enlarged
        self.slice_mm = None if independent else slice_mm
        """Distance of the slices, enlarged; None: they have none, or there is one."""
        self.depth_mm = 0.0 if independent else source.shape[0] * slice_mm
        self._size = source.shape
        held = 1 if independent else 2 * math.ceil(REACH * widest_sigma_mm / slice_mm) + 3
        self._slice = functools.lru_cache(held)(lambda z: np.asarray(source.array[z]))

    def scan(self, corner: Sequence[int], size: int, scanners: Sequence[tuple[str, float]]) -> np.ndarray:
        """The patch of `size` pixels at `corner` (slice, row, column), int16 HU [scanner, size / scale, size / scale].

        A clinical pixel is the scanner's at the centre of scale x scale pixels of the patch. Slice profile and
        point-spread function see all of the volume around it; beyond the volume there is nothing, and the weights of
        what is there are scaled to sum 1.
        """
        z, *first = (int(n) for n in corner)
        profiles = np.stack([self._profile(z, sigma) for _, sigma in scanners])
        kernels = [KERNELS[name] for name, _ in scanners]
        margin = 1 + math.ceil(REACH * max(max(kernel.sigmas) for kernel in kernels) / self.fine_mm)
        rows, columns = (
            np.arange(max(start - margin, 0), min(start + size + margin, length))
            for start, length in zip(first, self._size[1:], strict=True)
        )
        seen = np.flatnonzero(profiles.any(axis=0))
        box = (slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1))
        stack = np.stack([self._slice(int(n))[box] for n in seen]).astype(np.float32)
        planes = np.tensordot(profiles[:, seen], stack, axes=1)
        fine = [(axis - start + 0.5) * self.fine_mm for axis, start in zip((rows, columns), first, strict=True)]
        pixels = (np.arange(size // self._scale) + 0.5) * self._pixel
        scans = [
            project(plane[None], kernel, pixels, pixels, *fine) for plane, kernel in zip(planes, kernels, strict=True)
        ]
        return np.rint(np.concatenate(scans)).astype(np.int16)

    def _profile(self, z: int, sigma: float) -> np.ndarray:
        """Weights of the volume's slices in a clinical slice centred on slice z, float32; their sum is 1."""
        if self.slice_mm is None:
            return (np.arange(self._size[0]) == z).astype(np.float32)
        places = np.arange(self._size[0]) * self.slice_mm
        return sampling(places[z : z + 1], places, sigma)[0]


def _number(case: str) -> int:
    return zlib.crc32(case.encode())


def _check(source: Volume, places: pd.DataFrame, volume: Path, index: Path, scale: int) -> None:
    if source.unit != "HU":
        raise UserError(
            f"{volume} has unit '{source.unit}', scans need HU; "
            "import it with volumes.micro.calibration.method two_point or percentile"
        )
    sizes = places["size"].unique()
    ends = places[["row", "column"]].to_numpy() + places[["size"]].to_numpy()
    beyond = (places["slice"] >= source.shape[0]).any() or (ends > source.shape[1:]).any()
    if len(sizes) > 1 or sizes[0] % scale or beyond:
        raise UserError(f"{index} lists other patches than uCT patches of {volume}; make both with this experiment")


def _tell(case: str, source: Volume, view: View, scanner: config.Scanner) -> None:
    """Say what the scans lack."""
    width = FWHM * scanner.slice_sigma_mm
    if view.slice_mm is None:
        logger.warning(
            "case %s: its uCT slices have no neighbours, so their scans are without a slice profile: sharper than a "
            "scanner's of %.2g mm",
            *(case, width),
        )
    elif view.depth_mm < 2 * width:
        logger.warning(
            "case %s: its uCT is %.2g mm thick, and a clinical slice is seen as wide as %.2g mm: the scans use what "
            "there is",
            *(case, view.depth_mm, 2 * width),
        )
    if abs(view.enlarged - 1) > UNLIKE:
        logger.warning(
            "case %s: its uCT pixels are of %.3g mm, and taken for %.3g mm, the scanner's %.3g mm / scale: the scans "
            "show its structures %.2g times as large as they are",
            *(case, source.spacing[0], view.fine_mm, scanner.pixel_mm, view.enlarged),
        )
