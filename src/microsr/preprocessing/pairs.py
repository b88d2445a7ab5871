"""Pairs: for each uCT patch what a clinical scanner would show of it, without noise, made from the uCT volume.

In: an imported uCT volume, the index of the patches cut from it, the scanner. Out: the scans, int16 HU, and a table
with the scanner of each. The volume is seen through the scanner's whole operator (docs/simulation.md): the slice
profile across slices, the kernel's point-spread function in-plane, sampling at the clinical pixels' centres. Both see
beyond the patch's border, what the volume holds there. The noise is left to the training, which draws it anew. A scan
may have neighbouring slices, as a scanner's lie: their profiles overlap.
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
from microsr.preprocessing.patch_files import NEIGHBOUR_COLUMNS, SCAN_COLUMNS, read_index
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
    parser.add_argument(
        "--slices", type=int, choices=config.NEIGHBOURS, default=1, help="of each scan, the patch's own in the middle"
    )
    parser.add_argument(
        "--clinical", nargs="+", type=Path, default=[], help="imported clinical CTs (OME-Zarr), whose distances of "
        "slices the scans' slices have where --slice_spacing_mm is not given",
    )  # fmt: skip
    config.add_scale(parser)
    config.add_flags(parser, config.Pairs)
    config.add_flags(parser, config.Scanner, without=["noise_hu"])


def main(ns: argparse.Namespace) -> None:
    """Run the step from its command line."""
    settings, scanner = config.from_flags(ns, config.Pairs), config.from_flags(ns, config.Scanner)
    files = (ns.volume, ns.index, ns.seed, ns.output, ns.table)
    scan_patches(ns.case, *files, settings, scanner, ns.scale, ns.slices, ns.clinical)


def measure_spacing(clinical: Sequence[Path]) -> tuple[float, float]:
    """Smallest and largest distance of the slices of imported clinical CTs, mm.

    Raises
    ------
    UserError
        There is no such CT with more than one slice.
    """
    volumes = [open_volume(path) for path in clinical]
    found = [volume.spacing[2] for volume in volumes if not _is_flat(volume)]
    if not found:
        named = ", ".join(map(str, clinical)) or "none is named"
        raise UserError(
            f"pairs.slice_spacing_mm must be given, in mm as [0.6, 0.8]: no clinical CT ({named}) says how far apart "
            "neighbouring slices are"
        )
    return min(found), max(found)


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
    slices: int = 1,
    clinical: Sequence[Path] = (),
) -> None:
    """Scan each patch of a uCT volume without noise, `settings.scanners` times.

    volume: in the working format, HU. index: of its patches, as `microsr patches` writes it. output: .npy, int16 HU
    [scan x slice, row, column], the scans of the first patch first. table: .csv with SCAN_COLUMNS, a row for each scan,
    and of several slices NEIGHBOUR_COLUMNS. As many of the volume's pixels as `scale` says are taken for one of the
    scanner's, whatever they measure, as a network takes them; all of the volume is scaled alike. slices: of each scan,
    the patch's own in the middle, as far apart as is drawn from `settings.slice_spacing_mm`, or if that is None from
    what the imported CTs `clinical` have; a slice beyond the volume repeats the last one in it, as at the end of a
    scan. The scanners drawn depend on seed and case alone.

    Raises
    ------
    UserError
        The volume is not in HU, or the patches are not of it; it is too thin for neighbouring slices, or nothing says
        how far apart they are.
    """
    started = time.time()
    source, places = open_volume(volume), read_index(index)
    _check(source, places, volume, index, scale)
    stream = numpy_stream(Stream.SCANNERS, seed, _number(case))
    scanners = draw_scanners(len(places), settings, scanner, stream)
    count, size = settings.scanners, int(places["size"].iloc[0])
    corners = places[["slice", "row", "column"]].to_numpy()
    apart = np.zeros(len(scanners))
    if slices > 1:
        span = settings.slice_spacing_mm or measure_spacing(clinical)
        settings = settings.model_copy(update={"slice_spacing_mm": span})
        apart = stream.uniform(*span, len(scanners))
    widest = max(sigma for _, sigma in scanners)
    view = View(source, scanner.pixel_mm, widest, scale, (slices // 2) * float(apart.max()))
    if slices > 1:
        _check_depth(case, volume, view, (slices - 1) * float(apart.max()))
    _tell(case, source, view, scanner)
    centres, reached = view.place_neighbours(corners[:, 0].repeat(count), apart, slices)
    shape = (len(scanners) * slices, size // scale, size // scale)
    with replacing(output) as temporary:
        scans = np.lib.format.open_memmap(temporary, mode="w+", dtype=np.int16, shape=shape)
        reserve(temporary, temporary.stat().st_size)
        progress = Progress(len(places), "patches")
        for patch in np.argsort(corners[:, 0], kind="stable"):  # from slice to slice, so that few are held
            own = slice(patch * count, (patch + 1) * count)
            planes = [view.scan(corners[patch], size, scanners[own], places) for places in centres[own].T]
            scans[own.start * slices : own.stop * slices] = np.stack(planes, axis=1).reshape(-1, *shape[1:])
            progress.advance()
        progress.close()
        scans.flush()
    rows = places.loc[places.index.repeat(count)].assign(
        kernel=[kernel for kernel, _ in scanners], slice_sigma_mm=[round(sigma, 4) for _, sigma in scanners]
    )
    if slices > 1:
        rows = rows.assign(**dict(zip(NEIGHBOUR_COLUMNS, (apart.round(4), *reached.T), strict=True)))
    write_csv(table, rows[SCAN_COLUMNS + (NEIGHBOUR_COLUMNS if slices > 1 else [])])
    chosen = settings.model_dump(mode="json") | scanner.model_dump(mode="json", exclude={"noise_hu"})
    chosen |= {"seed": seed, "scale": scale, "slices": slices}
    write_run([output, table], "pairs", chosen, [volume, index, *clinical], started, case=case)


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
    """A uCT volume as scanners see it, patch by patch. Of its slices it holds as many as a scan's slices span."""

    def __init__(
        self, source: Volume, pixel_mm: float, widest_sigma_mm: float, scale: int, around_mm: float = 0.0
    ) -> None:
        """source: HU. pixel_mm: of the scanner; lengths in the volume are enlarged so that `scale` pixels are one.
        around_mm: distance of a scan's farthest slice from its own.
        """
        self.enlarged = pixel_mm / scale / source.spacing[0]
        """The scanner's lengths over the volume's own."""
        self._scale, self._pixel, self.fine_mm = scale, pixel_mm, pixel_mm / scale
        independent = _is_flat(source)
        slice_mm = source.spacing[2] * self.enlarged
        self.slice_mm = None if independent else slice_mm
        """Distance of the slices, enlarged; None: they have none, or there is one."""
        self.depth_mm = 0.0 if independent else source.shape[0] * slice_mm
        self._size = source.shape
        held = 1 if independent else 2 * math.ceil((REACH * widest_sigma_mm + around_mm) / slice_mm) + 3
        self._slice = functools.lru_cache(held)(lambda z: np.asarray(source.array[z]))

    def place_neighbours(self, own: np.ndarray, apart: np.ndarray, slices: int) -> tuple[np.ndarray, np.ndarray]:
        """Where the slices of scans are centred, in slices of the volume and parts of them, float64 [scan, slice]; and
        how many before and after its own the volume reaches, int64 [scan, 2].

        own: the middle one of each. apart: distance of each scan's slices, mm. A centre beyond the volume is that of
        the last slice in it.
        """
        if slices == 1:
            return own[:, None].astype(float), np.zeros((len(own), 2), np.int64)
        step, most = apart / self.slice_mm, slices // 2
        room = np.stack([own, self._size[0] - 1 - own], axis=1)
        reached = np.minimum(np.floor(room / step[:, None] + 1e-6), most).astype(np.int64)
        offsets = np.clip(np.arange(-most, most + 1), -reached[:, :1], reached[:, 1:])
        return np.clip(own[:, None] + offsets * step[:, None], 0, self._size[0] - 1), reached

    def scan(
        self, corner: Sequence[int], size: int, scanners: Sequence[tuple[str, float]], centres: Sequence[float] = ()
    ) -> np.ndarray:
        """The patch of `size` pixels at `corner` (slice, row, column), int16 HU [scanner, size / scale, size / scale].

        A clinical pixel is the scanner's at the centre of scale x scale pixels of the patch. Slice profile and
        point-spread function see all of the volume around it; beyond the volume there is nothing, and the weights of
        what is there are scaled to sum 1. centres: of each scanner's slice, in slices of the volume and parts of them;
        none: all on the patch's.
        """
        z, *first = (int(n) for n in corner)
        centres = centres if len(centres) else [z] * len(scanners)
        profiles = np.stack([self._profile(at, sigma) for at, (_, sigma) in zip(centres, scanners, strict=True)])
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

    def _profile(self, z: float, sigma: float) -> np.ndarray:
        """Weights of the volume's slices in a clinical slice centred on slice z, float32; their sum is 1."""
        if self.slice_mm is None:
            return (np.arange(self._size[0]) == z).astype(np.float32)
        places = np.arange(self._size[0]) * self.slice_mm
        return sampling(np.array([z * self.slice_mm]), places, sigma)[0]


def _is_flat(volume: Volume) -> bool:
    """Whether the slices of a volume have no neighbours."""
    return bool(volume.attributes.get("independent_slices")) or volume.shape[0] == 1


def _check_depth(case: str, volume: Path, view: View, wanted_mm: float) -> None:
    """Refuse a uCT in which no patch has neighbouring slices on both sides."""
    if view.depth_mm < wanted_mm:
        thick = f"is {view.depth_mm:.2g} mm thick" if view.slice_mm else "has slices without neighbours"
        raise UserError(
            f"case {case}: {volume} {thick}, and neighbouring clinical slices span {wanted_mm:.2g} mm; set "
            "methods.<name>.slices to a smaller number, 1 for single slices, or use another uCT"
        )


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
