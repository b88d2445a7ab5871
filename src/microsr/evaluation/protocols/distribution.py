"""Protocol `distribution`: does the super-resolved lung look like uCT, whatever is where? Distances between window
features.

In: a super-resolved volume with its lung mask, uCT volumes with their specimen masks, and the tissue features of
features.py.
Out: the Frechet and the kernel distance between both sets of windows, and the same between two halves of the uCT: the
floor that real tissue itself keeps.
"""

from __future__ import annotations

import argparse
import time
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from torchmetrics.image.fid import FrechetInceptionDistance
from torchmetrics.image.kid import KernelInceptionDistance

from microsr.core.errors import UserError
from microsr.core.progress import logger
from microsr.core.provenance import write_run
from microsr.core.streams import Stream, numpy_stream
from microsr.evaluation import tables
from microsr.evaluation.tissue_features import cut, load
from microsr.preprocessing import positions
from microsr.volume import alignment
from microsr.volume.storage import Volume, open_mask, open_volume

WINDOWS = 512
"""Windows of each set, the same number everywhere: the Frechet distance depends on it."""
SIZES = (64, 32)
"""Sides of the windows, pixels: the larger if it has room in every volume; the distances depend on it."""
ENOUGH_ROOM = 8
"""Windows, each half overlapping the next, that must fit into a mask for a size to be taken."""
AERATED_HU = -700.0
"""Windows of a mean below this are taken: tumour and large vessels are few in a case, and their share of a specimen
would decide the distances, not its texture. For a super-resolved CT the mean is its input's, so that the places are
every method's."""
CANDIDATES = 4
"""Windows drawn for each one taken; where too few are aerated, the least dense of the others fill the set."""
SEED = 0
"""The windows' places are always the same, so that methods are compared on the same tissue."""
PROTOCOL = "distribution"

Region = tuple[Any, Sequence[int]]
"""A mask [slices, rows, columns], read by slice, and the slices of it that count; or only these slices, by their
number.
"""


class _Given(nn.Module):
    """Features that are known already, for torchmetrics."""

    def __init__(self, number: int) -> None:
        super().__init__()
        self.num_features = number

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        return features


def frechet_distance(first: np.ndarray, second: np.ndarray) -> float:
    """Frechet distance between two sets of features [windows, features] (Heusel et al. 2017), as between two Gaussians.

    |difference of means|^2 + trace(C1 + C2 - 2 (C1 C2)^(1/2)); no unit: a feature's spread over simulated lung is 1.
    Lower is better, 0 for equal means and covariances. What fools it: two sets of the same tissue are not at 0 but at a
    floor that falls with the number of windows (read it beside `frechet_distance_tissue_features_floor`), only means
    and covariances count, and textures that the network takes for the same are the same. It sees neither places nor
    truth: another patient's lung scores nearly as well as the right one, and dense tissue is left out (AERATED_HU).
    """
    return _compute(FrechetInceptionDistance(_Given(first.shape[1])), first, second)


def kernel_distance(first: np.ndarray, second: np.ndarray) -> float:
    """Squared maximum mean discrepancy between two sets of features, kernel (x.y / features + 1)^3 (Binkowski et al.
    2018).

    No unit. Lower is better; unbiased, so that two sets from one distribution scatter about 0, on either side, whatever
    their number. What fools it: as `frechet_distance`; and windows that overlap count as if they did not.
    """
    number = min(len(first), len(second))
    return _compute(KernelInceptionDistance(_Given(first.shape[1]), subsets=1, subset_size=number), first, second)


def _compute(metric: Any, first: np.ndarray, second: np.ndarray) -> float:
    metric.update(torch.from_numpy(np.asarray(first, np.float64)), real=True)
    metric.update(torch.from_numpy(np.asarray(second, np.float64)), real=False)
    found = metric.compute()
    return float(found[0] if isinstance(found, tuple) else found)


def evaluate(
    names: tables.Names, superresolved: Path, clinical: Path, micro: list[Path], features: Path, output: Path
) -> None:
    """Write the table of the protocol.

    superresolved: HU, attribute `slices` the slices of `clinical` that it holds. clinical: its input, with the lung
    mask.
    micro: HU, with specimen masks. features: of `microsr features`.

    Raises
    ------
    UserError
        A mask has no room for a window, a volume is not in HU, or the super-resolved one is not of this clinical one.
    """
    started = time.time()
    network, facts = load(features)
    volume, ct, mask = open_volume(superresolved), open_volume(clinical), open_mask(clinical)
    references = [open_volume(path) for path in micro]
    for image, path in zip([volume, *references], [superresolved, *micro], strict=True):
        alignment.check_unit(image, path)
    slices = alignment.held_slices(volume, superresolved, ct, clinical)
    scale = alignment.check_input(volume, superresolved, ct, clinical, slices)
    lung = mask, slices
    halves = [_halves(open_mask(path)) for path in micro]
    size, counts = _size(lung, halves, scale, superresolved, micro)

    stream = numpy_stream(Stream.FEATURE_WINDOWS, SEED)
    places = _places(ct.array, lung, counts[0], size // scale, WINDOWS, stream)
    places = np.column_stack([np.searchsorted(slices, places[:, 0]), scale * places[:, 1:]])
    described = network.describe(cut(volume.array, places, size))
    real = [
        _micro_features(network, references, [h[i] for h in halves], counts[1 + i :: 2], size, stream) for i in (0, 1)
    ]
    whole = np.concatenate([real[0][::2], real[1][::2]])
    rows = []
    for name, distance in (("frechet_distance", frechet_distance), ("kernel_distance", kernel_distance)):
        rows.append((PROTOCOL, f"{name}_tissue_features", distance(whole, described), "1"))
        rows.append((PROTOCOL, f"{name}_tissue_features_floor", distance(*real), "1"))
    logger.info("%d windows of %dx%d pixels in each set", WINDOWS, size, size)
    tables.write_table(output, names, rows)
    settings = {"windows": WINDOWS, "size": size, "seed": SEED}
    paths = [superresolved, clinical, *micro, features]
    write_run(output, "evaluate.distribution", settings, paths, started, features=facts)


def _halves(mask: Any) -> tuple[Region, Region]:
    """Two regions with half the specimen each: its first slices and its last, or left and right where only one slice
    holds any.
    """
    amount = np.array([np.count_nonzero(mask[z]) for z in range(mask.shape[0])])
    occupied = np.flatnonzero(amount)
    if len(occupied) > 1:
        first = int(np.searchsorted(np.cumsum(amount), amount.sum() / 2)) + 1
        return (mask, range(first)), (mask, range(first, len(amount)))
    z = int(amount.argmax())
    specimen = np.asarray(mask[z]) != 0
    amount = np.cumsum(specimen.sum(axis=0))
    left = np.arange(len(amount)) <= np.searchsorted(amount, amount[-1] / 2)
    return ({z: specimen & left}, [z]), ({z: specimen & ~left}, [z])


def _size(
    lung: Region, halves: list[tuple[Region, Region]], scale: int, path: Path, micro: list[Path]
) -> tuple[int, list[np.ndarray]]:
    """The largest window that has room in the lung and in each half of each specimen, and the positions on their
    slices.
    """
    for size in SIZES:
        regions = [(lung, size // scale), *((half, size) for pair in halves for half in pair)]
        counts = [positions.count_positions(m, side, 1.0, z) for (m, z), side in regions]
        room = [n.sum() / (side / 2) ** 2 for n, (_, side) in zip(counts, regions, strict=True)]
        if min(room) >= ENOUGH_ROOM:
            return size, counts
    if min(room) == 0:
        paths = [path, *(p for p in micro for _ in (0, 1))]
        raise UserError(
            f"{paths[int(np.argmin(room))]}: its mask (of a uCT, each half of it) has no room for a window of "
            f"{size}x{size} pixels, which the distances need; correct the mask or choose other slices"
        )
    return size, counts


def _places(
    array: Any, region: Region, counts: np.ndarray, size: int, number: int, stream: np.random.Generator
) -> np.ndarray:
    """Places [number, 3] of aerated windows inside a region of a volume in HU, drawn evenly.

    counts: of `preprocessing.positions.count_positions` in the region.
    """
    mask, slices = region
    drawn = positions.draw_positions(mask, size, 1.0, CANDIDATES * number, stream, counts, slices)
    mean = cut(array, drawn, size).mean(axis=(1, 2))
    taken = np.argsort(np.maximum(mean, AERATED_HU), kind="stable")[:number]
    dense = np.count_nonzero(mean[taken] > AERATED_HU)
    if dense:
        logger.warning("%d of %d windows are denser than %g HU; is this lung?", dense, number, AERATED_HU)
    return drawn[taken]


def _micro_features(
    network: Any,
    volumes: list[Volume],
    regions: list[Region],
    counts: list[np.ndarray],
    size: int,
    stream: np.random.Generator,
) -> np.ndarray:
    """Features of WINDOWS windows, as many from each volume, in an order by chance."""
    shares = np.diff(np.linspace(0, WINDOWS, len(volumes) + 1).astype(int))
    found = [
        network.describe(cut(volume.array, _places(volume.array, region, count, size, share, stream), size))
        for volume, region, count, share in zip(volumes, regions, counts, shares, strict=True)
        if share
    ]
    return stream.permutation(np.concatenate(found))


def arguments(parser: argparse.ArgumentParser) -> None:
    """Flags of `microsr evaluate distribution`, without those that every protocol has."""
    parser.add_argument("--superresolved", required=True, type=Path, help="super-resolved CT (OME-Zarr)")
    parser.add_argument("--clinical", required=True, type=Path, help="its input (OME-Zarr with the lung mask)")
    parser.add_argument("--micro", required=True, nargs="+", type=Path, help="uCT volumes with their specimen masks")
    parser.add_argument("--features", required=True, type=Path, help="features.pt of `microsr features`")


def run(ns: argparse.Namespace) -> None:
    """Run the protocol from its command line."""
    torch.set_num_threads(1)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # torchmetrics tells of its memory, which is small here
        names = (ns.case, ns.method, ns.training_set, ns.seed)
        evaluate(names, ns.superresolved, ns.clinical, ns.micro, ns.features, ns.output)
