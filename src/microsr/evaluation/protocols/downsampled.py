"""Protocol `downsampled`: a held-out uCT that was average-pooled and super-resolved, compared with itself.

In: the super-resolved volume made from the output of `microsr volumes downsample`, and the uCT. Out: PSNR, RMSE, SSIM
and MS-SSIM inside the specimen. The protocol of the authors' journal version (J. Med. Imaging 9(2), 2022), with its
formulas in metrics.py.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import numpy as np

from microsr import config
from microsr.core.errors import UserError
from microsr.core.progress import Progress
from microsr.core.provenance import write_run
from microsr.evaluation import metrics, tables
from microsr.physics.moments import Moments
from microsr.preprocessing.downsample import crop, pooled_mask
from microsr.volume import alignment
from microsr.volume.storage import Volume, open_mask, open_volume

PROTOCOL = "downsampled"


def evaluate(names: tables.Names, superresolved: Path, micro: Path, output: Path, settings: config.Evaluate) -> None:
    """Write the table of the protocol.

    superresolved: HU, made from the down-sampled uCT; by how much, its attribute `scale` says (8 if it has none).
    micro: the uCT itself, HU, with its specimen mask. Only clinical pixels (scale x scale blocks) wholly inside the
    specimen count.

    Raises
    ------
    UserError
        A volume is not in HU, or the two do not overlay.
    """
    started = time.time()
    image, true, mask = open_volume(superresolved), open_volume(micro), open_mask(micro)
    for volume, path in ((image, superresolved), (true, micro)):
        alignment.check_unit(volume, path)
    scale = image.attributes.get("scale", config.DEFAULT_SCALE)
    slices = micro_slices(image, superresolved, true, micro, scale)
    differences, similarity, multiscale = Moments(), Moments(), Moments()
    progress = Progress(len(slices), "slices")
    for i, z in enumerate(slices):
        pair = np.asarray(image.array[i]), crop(np.asarray(true.array[z]), scale)
        inside = metrics.magnify(pooled_mask(np.asarray(mask[z]), scale), scale)
        if inside.any():
            differences.add(metrics.truth_difference(*pair, inside))
            similarity.add(metrics.ssim_values(*pair, inside, settings.data_range_hu))
            multiscale.add(np.array(metrics.ms_ssim_value(*pair, inside, settings.data_range_hu)))
        progress.advance()
    progress.close()
    if not differences.number:
        raise UserError(
            f"{superresolved}: none of its slices holds any specimen of {micro}; super-resolve other slices"
        )
    rows = [
        (PROTOCOL, "psnr", metrics.psnr(differences, settings.data_range_hu), "dB"),
        (PROTOCOL, "rmse", metrics.rmse(differences), "HU"),
        (PROTOCOL, "ssim", metrics.ssim(similarity), "1"),
        (PROTOCOL, "ms_ssim", multiscale.mean, "1"),
    ]
    tables.write_table(output, names, rows)
    chosen = settings.model_dump(mode="json")
    inputs = [superresolved, micro]
    write_run(output, "evaluate.downsampled", chosen, inputs, started, micro_slices=slices)


def micro_slices(image: Volume, image_path: Path, true: Volume, true_path: Path, scale: int) -> list[int]:
    """The uCT slices that a super-resolved volume shows, found from where its slices lie.

    Raises
    ------
    UserError
        The volumes do not lie on one grid.
    """
    axes = np.reshape(true.direction, (3, 3))
    shape = tuple(n // scale * scale for n in true.shape[1:])
    ends = [(0, 0, 0), (image.shape[0] - 1, image.shape[1] - 1, image.shape[2] - 1)]
    steps = np.array([axes.T @ (image.point(end) - true.origin) / true.spacing for end in ends])[:, ::-1]
    found = np.rint(np.linspace(steps[0, 0], steps[1, 0], image.shape[0])).astype(int).tolist()
    expected = np.array([(found[0], 0, 0), (found[-1], shape[0] - 1, shape[1] - 1)])
    if (
        image.shape[1:] != shape
        or np.abs(steps - expected).max() > alignment.TOLERANCE
        or not 0 <= found[0] <= found[-1] < true.shape[0]
        or len(set(found)) != len(found)
    ):
        raise UserError(
            f"{image_path} does not lie on the pixels of {true_path} (its corners are at slice, row, column "
            f"{np.round(steps[0], 2).tolist()} and {np.round(steps[1], 2).tolist()}); super-resolve the down-sampled "
            "uCT of this case"
        )
    return found


def arguments(parser: argparse.ArgumentParser) -> None:
    """Flags of `microsr evaluate downsampled`, without those that every protocol has."""
    parser.add_argument("--superresolved", required=True, type=Path, help="super-resolved down-sampled uCT (OME-Zarr)")
    parser.add_argument("--micro", required=True, type=Path, help="the uCT itself (OME-Zarr with its specimen mask)")
    config.add_flags(parser, config.Evaluate, without=config.OF_PLAN)


def run(ns: argparse.Namespace) -> None:
    """Run the protocol from its command line."""
    names = (ns.case, ns.method, ns.training_set, ns.seed)
    evaluate(names, ns.superresolved, ns.micro, ns.output, config.from_flags(ns, config.Evaluate))
