"""The truth of a real clinical CT, inside its specimen: the specimen's own uCT on the fine grid of the clinical slices.

In: both volumes imported, and a transform of the uCT's points to the clinical CT's. Out: the truth (a thin slice in the
middle of each clinical one), and its mean over the slice profile, each with a mask of where it is known; elsewhere it
is air. The uCT is interpolated by cubic splines, once; what is finer than a fine pixel is averaged before.
"""

from __future__ import annotations

import argparse
import math
import time
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from scipy import ndimage

from microsr import config
from microsr.core.errors import UserError
from microsr.core.files import replacing
from microsr.core.progress import Progress, logger
from microsr.core.provenance import write_run
from microsr.physics.moments import Moments
from microsr.physics.pooling import average_pool
from microsr.preprocessing.downsample import pooled_mask
from microsr.preprocessing.hounsfield import AIR_HU, as_int16
from microsr.preprocessing.registered.transform import Affine, read_transform
from microsr.preprocessing.resampling import UPSAMPLING
from microsr.volume import alignment
from microsr.volume.storage import Volume, create_volume, magnified_geometry, open_mask, open_volume
from microsr.volume.viewing import image_window

REACH = 3.0
"""The slice profile, a Gaussian, is followed up to so many standard deviations."""
KNOWN_SHARE = 0.95
"""Share of the slice profile that must lie in the specimen for a mean over it."""
MARGIN = 8
"""Voxels around what is interpolated, which the spline's coefficients depend on."""
MOST_VOXELS = 1 << 22
"""A block of the uCT that is interpolated at once has about so many voxels at most."""
SMALLEST_TILE = 16
"""Side, fine pixels, below which a tile is not cut any further."""
CLOSE = 0.5
"""Correlation of the truth's mean over a clinical pixel with the CT below which the transform is doubted."""


class Outputs(NamedTuple):
    """Where the truth and, if asked for, its mean over the slice profile go."""

    truth: Path
    thick_truth: Path | None = None


def lay_over(
    micro: Path,
    clinical: Path,
    transform: Path,
    case: str,
    scanner: config.Scanner,
    outputs: Outputs,
    scale: int = config.DEFAULT_SCALE,
) -> None:
    """Write what a clinical CT shows of a specimen, at uCT scale, where it is known.

    micro, clinical: imported, in HU, with masks. transform: see `read_transform`. scanner: `slice_sigma_mm` is the
    slice profile. scale: of the magnification. The outputs are on the clinical grid magnified in-plane, all clinical
    slices; their masks say where the specimen is. A warning says so if the truth does not look like the CT.

    Raises
    ------
    UserError
        The transform cannot be used, the uCT is too coarse, no stack or not in HU, or lies beside the clinical CT.
    """
    started = time.time()
    source, ct = open_volume(micro), open_volume(clinical)
    for volume, path in ((source, micro), (ct, clinical)):
        alignment.check_unit(volume, path)
    placed = read_transform(transform)
    fine = replace(ct, array=None, **magnified_geometry(ct, scale))
    shape = (ct.shape[0], scale * ct.shape[1], scale * ct.shape[2])
    _check_voxels(source, micro, fine.spacing[:2], placed.scale)
    box = _overlap(source, placed, fine, shape)
    if box is None:
        other = _overlap(source, placed.inverse, fine, shape)
        hint = "; its inverse does: micro_to_clinical maps points of the uCT to the CT" if other else ""
        raise UserError(f"{transform}: does not bring {micro} into {clinical}{hint}; correct the transform")
    view = _View(source, open_mask(micro), placed, fine, scanner.slice_sigma_mm, outputs.thick_truth is not None)

    facts = {
        "case": case,
        "region": "specimen",
        "specimen_slices": list(box[0]),
        "source": source.attributes.get("source", {}),
        "display": list(image_window(ct)),
    }
    looks: list[Moments] = [Moments() for _ in range(5)]
    with ExitStack() as stack:
        opened = {}
        for name, path in outputs._asdict().items():
            if path is not None:
                like = replace(fine, unit="HU", attributes={**facts, "modality": name})
                opened[name] = create_volume(stack.enter_context(replacing(path)), shape, like, mask=True)
        inside = clinical_inside = 0
        progress = Progress(shape[0], "slices")
        mask = open_mask(clinical)
        for z in range(shape[0]):
            found = view.slice(z, box, shape[1:]) if box[0][0] <= z < box[0][1] else {}
            for name, (voxels, region) in opened.items():
                image, known = found.get(name) or _nothing(shape[1:])
                voxels[z], region[z] = image, known.view(np.uint8)
            if found:
                image, known = found["truth"]
                inside += int(np.count_nonzero(known))
                clinical_inside += int(np.count_nonzero(pooled_mask(known, scale) & (np.asarray(mask[z]) != 0)))
                image, known = found.get("thick_truth", found["truth"])
                pooled = pooled_mask(known, scale)
                _look(looks, average_pool(image, scale)[pooled], np.asarray(ct.array[z], float)[pooled])
            progress.advance()
        progress.close()
        if not clinical_inside:
            raise UserError(
                f"{transform}: brings nothing of the specimen of {micro} into the mask of {clinical}; correct the "
                "transform, or the masks"
            )
    likeness = _correlation(looks)
    logger.info(
        "the specimen lies in slices %d to %d, %d clinical pixels; it correlates with the CT by %.2f",
        *(box[0][0], box[0][1] - 1, clinical_inside, likeness),
    )
    if not likeness >= CLOSE:
        logger.warning(
            "%s: the truth that it makes correlates with the CT by %.2f only; is it the registration of these two, "
            "from uCT to CT?",
            *(transform, likeness),
        )
    settings = {"slice_sigma_mm": scanner.slice_sigma_mm, "scale": scale}
    written = [path for path in outputs if path is not None]
    write_run(
        written, "volumes.registered", settings, [micro, clinical, transform], started, correlation=likeness,
        slices=list(range(*box[0])), clinical_pixels=clinical_inside, truth_pixels=inside,
    )  # fmt: skip


def _nothing(shape: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    return np.full(shape, AIR_HU, np.int16), np.zeros(shape, bool)


def _look(sums: list[Moments], truth: np.ndarray, ct: np.ndarray) -> None:
    """Add the pixels of a slice to what a correlation is made of."""
    if truth.size:
        for moments, values in zip(sums, (truth, ct, truth * truth, ct * ct, truth * ct), strict=True):
            moments.add(values)


def _correlation(sums: list[Moments]) -> float:
    if not sums[0].number:
        return math.nan
    a, b, aa, bb, ab = (moments.mean for moments in sums)
    spread = math.sqrt(max(aa - a * a, 0) * max(bb - b * b, 0))
    return float((ab - a * b) / spread) if spread else math.nan


def _check_voxels(micro: Volume, path: Path, fine: tuple[float, float], scale: float) -> None:
    if micro.attributes.get("independent_slices"):
        raise UserError(f"{path}: its slices do not belong together, so it cannot be placed in a CT; give a stack")
    coarsest = scale * max(micro.spacing)
    if min(fine) < UPSAMPLING * coarsest:
        raise UserError(
            f"{path}: its voxels of {coarsest:.4g} mm are coarser than the truth's pixels of {min(fine):.4g} mm, so "
            "that it is no truth; import it with finer voxels (volumes.micro)"
        )


def _index_map(micro: Volume, placed: Affine, fine: Volume) -> Affine:
    """From indices (slice, row, column) of the fine grid to those of the uCT."""
    back = placed.inverse
    to_index = np.linalg.inv(np.reshape(micro.direction, (3, 3)) * micro.spacing)
    matrix = to_index @ back.matrix @ (np.reshape(fine.direction, (3, 3)) * fine.spacing)
    shift = to_index @ (back(np.asarray(fine.origin)) - micro.origin)
    return Affine(matrix[::-1, ::-1], shift[::-1])


def _corners(box: list[tuple[float, float]]) -> np.ndarray:
    """Corners [8, 3] of first and last indices along each axis."""
    return np.array(np.meshgrid(*box)).reshape(3, -1).T


def _overlap(micro: Volume, placed: Affine, fine: Volume, shape: tuple[int, int, int]) -> list[tuple[int, int]] | None:
    """First and end of the slices, rows and columns of the fine grid between which the uCT lies; None if nowhere."""
    ends = [(-0.5, n - 0.5) for n in micro.shape]
    there = _index_map(micro, placed, fine).inverse(_corners(ends))
    first = np.maximum(np.floor(there.min(axis=0)).astype(int), 0)
    end = np.minimum(np.ceil(there.max(axis=0)).astype(int) + 1, shape)
    return None if (first >= end).any() else [(int(a), int(b)) for a, b in zip(first, end, strict=True)]


class _View:
    """What a clinical slice shows of a uCT at fine pixels.

    micro, mask: the uCT and its specimen. placed: from its points to the CT's. fine: geometry of the fine grid. sigma:
    SD of the slice profile, mm. thick: whether the mean over it is asked for.
    """

    def __init__(self, micro: Volume, mask: Any, placed: Affine, fine: Volume, sigma: float, thick: bool) -> None:
        self._micro, self._mask, self._map = micro, mask, _index_map(micro, placed, fine)
        pixel = min(fine.spacing[:2])
        # Whole voxels that a fine pixel is the mean of, along each of the uCT's axes.
        sizes = placed.scale * np.array(micro.spacing[::-1])
        self._means = np.maximum(np.floor(pixel / sizes + 0.01), 1).astype(int)
        reach = math.ceil(REACH * sigma / pixel) if thick else 0
        places = np.arange(-reach, reach + 1) * pixel
        weights = np.exp(-0.5 * (places / sigma) ** 2) if thick else np.ones(1)
        self._weights = weights / weights.sum()
        self._places = places / fine.spacing[2]
        """Of the planes that make a slice, in clinical slices."""

    def slice(
        self, z: int, box: list[tuple[int, int]], shape: tuple[int, int]
    ) -> dict[str, tuple[np.ndarray, np.ndarray]]:
        """HU (int16) and where they are known (bool), [rows, columns], of the truth and of its mean over the
        profile.
        """
        names = ["truth", "thick_truth"][: 2 if len(self._weights) > 1 else 1]
        found = {name: _nothing(shape) for name in names}
        tiles = [(box[1], box[2])]
        while tiles:
            rows, columns = tiles.pop()
            block = self._block(z, rows, columns)
            if block is None:
                continue
            if self._is_large(block) and max(rows[1] - rows[0], columns[1] - columns[0]) > SMALLEST_TILE:
                tiles += _halves(rows, columns)
                continue
            place = (slice(*rows), slice(*columns))
            for name, (hu, known) in self._tile(z, rows, columns, block).items():
                image, region = found[name]
                image[place], region[place] = np.where(known, hu, AIR_HU), known
        return found

    def _block(self, z: int, rows: tuple[int, int], columns: tuple[int, int]) -> list[tuple[int, int]] | None:
        """First and end of the uCT's slices, rows and columns that a tile is made of; None if it is outside."""
        places = (z + self._places[0], z + self._places[-1])
        there = self._map(_corners([places, (rows[0], rows[1] - 1), (columns[0], columns[1] - 1)]))
        first = np.floor(there.min(axis=0) / self._means).astype(int) - MARGIN
        end = np.ceil(there.max(axis=0) / self._means).astype(int) + 1 + MARGIN
        first, end = np.maximum(first, 0), np.minimum(end, np.array(self._micro.shape) // self._means)
        if (first >= end).any():
            return None
        return [(int(n * a), int(n * b)) for n, a, b in zip(self._means, first, end, strict=True)]

    def _is_large(self, block: list[tuple[int, int]]) -> bool:
        sizes = [(end - first) // n for (first, end), n in zip(block, self._means, strict=True)]
        return math.prod(sizes) > MOST_VOXELS

    def _read(self, array: Any, block: list[tuple[int, int]]) -> np.ndarray:
        """A block of the uCT, or of its mask, averaged over as many voxels as a fine pixel holds."""
        (first, end), rows, columns = block
        along, down, across = (int(n) for n in self._means)
        shape = ((end - first) // along, (rows[1] - rows[0]) // down, (columns[1] - columns[0]) // across)
        found = np.zeros(shape, np.float32)
        for z in range(first, end):
            image = np.asarray(array[z])[slice(*rows), slice(*columns)]
            if down * across > 1:
                image = image.reshape(shape[1], down, shape[2], across).mean(axis=(1, 3), dtype=np.float32)
            found[(z - first) // along] += image
        return found / along

    def _tile(
        self, z: int, rows: tuple[int, int], columns: tuple[int, int], block: list[tuple[int, int]]
    ) -> dict[str, tuple[np.ndarray, np.ndarray]]:
        """HU and where they are known, of a tile."""
        shape = (len(self._places), rows[1] - rows[0], columns[1] - columns[0])
        step = self._places[1] - self._places[0] if len(self._places) > 1 else 1.0
        begin = np.array([z + self._places[0], rows[0], columns[0]])
        # Indices of the tile to those of the block, whose voxels are means of several.
        matrix = self._map.matrix * [step, 1.0, 1.0] / self._means[:, None]
        start = np.array([first for first, _ in block])
        offset = (self._map(begin) - start - (self._means - 1) / 2) / self._means
        inside = self._read(self._mask, block)
        if not inside.any():
            return {}
        share = ndimage.affine_transform(inside, matrix, offset, shape, order=1, mode="constant", prefilter=False)
        known = share >= 0.5
        if not known.any():
            return {}
        hu = ndimage.affine_transform(
            self._read(self._micro.array, block), matrix, offset, shape, np.float32, order=3, mode="nearest"
        )
        middle = len(self._places) // 2
        found = {"truth": (as_int16(hu[middle]), known[middle])}
        if len(self._places) > 1:
            weights = self._weights[:, None, None] * known
            total = weights.sum(axis=0)
            mean = (weights * hu).sum(axis=0) / np.maximum(total, 1e-6)
            found["thick_truth"] = as_int16(mean), total >= KNOWN_SHARE
        return found


def _halves(rows: tuple[int, int], columns: tuple[int, int]) -> list[tuple[tuple[int, int], tuple[int, int]]]:
    """A tile, cut in two across its longer side."""
    if rows[1] - rows[0] >= columns[1] - columns[0]:
        middle = sum(rows) // 2
        return [((rows[0], middle), columns), ((middle, rows[1]), columns)]
    middle = sum(columns) // 2
    return [(rows, (columns[0], middle)), (rows, (middle, columns[1]))]


def arguments(parser: argparse.ArgumentParser) -> None:
    """Flags of `microsr volumes registered`."""
    parser.add_argument("--case", required=True, help="name of the case")
    parser.add_argument("--micro", type=Path, required=True, help="imported uCT (OME-Zarr with its specimen mask)")
    parser.add_argument("--clinical", type=Path, required=True, help="imported clinical CT (OME-Zarr with its mask)")
    parser.add_argument(
        "--micro_to_clinical",
        type=Path,
        required=True,
        help="ITK transform of the uCT's points to the CT's (.tfm, ...)",
    )
    parser.add_argument("--output", type=Path, required=True, help="truth (<name>.ome.zarr)")
    parser.add_argument("--thick_output", type=Path, help="its mean over the slice profile (<name>.ome.zarr)")
    config.add_scale(parser)
    config.add_flags(parser, config.Scanner)


def run(ns: argparse.Namespace) -> None:
    """Run `microsr volumes registered`."""
    scanner = config.from_flags(ns, config.Scanner)
    outputs = Outputs(ns.output, ns.thick_output)
    lay_over(ns.micro, ns.clinical, ns.micro_to_clinical, ns.case, scanner, outputs, ns.scale)
