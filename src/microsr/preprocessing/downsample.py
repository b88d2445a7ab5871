"""A uCT average-pooled to a clinical-like volume, whose super-resolution can be compared with the uCT itself.

The input of protocol `downsampled`, as in the authors' journal version (J. Med. Imaging 9(2), 2022). The pooling is f()
of Zheng et al. 2020: no scanner's blur, no noise, slices as thin as the uCT's. So it is an easier input than any
clinical CT, and the very kind that the 25 % mix trains on.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import numpy as np

from microsr import config
from microsr.core.errors import UserError
from microsr.core.files import replacing
from microsr.core.progress import logger
from microsr.core.provenance import write_run
from microsr.physics.pooling import average_pool
from microsr.volume import alignment
from microsr.volume.storage import Volume, create_volume, open_mask, open_volume

SLICES = 8
"""Slices taken unless told otherwise: enough for a mean, and seconds of work for every method."""


def downsample(micro: Path, output: Path, number: int = SLICES, scale: int = config.DEFAULT_SCALE) -> None:
    """Write a clinical-like volume: `number` evenly spaced slices of a uCT (all, if it has fewer), averaged over
    scale x scale pixels.

    micro: HU, with the specimen mask; rows and columns beyond a multiple of the scale are left out. The result's mask
    holds the pixels that lie wholly inside the specimen, its attribute `micro_slices` the uCT slices, and its geometry
    magnified by the scale (`volume.storage.magnified_geometry`) lies on the uCT's pixels.

    Raises
    ------
    UserError
        The uCT is not in HU, or no such block lies inside its specimen.
    """
    started = time.time()
    volume, mask = open_volume(micro), open_mask(micro)
    alignment.check_unit(volume, micro)
    usable = [z for z in range(volume.shape[0]) if pooled_mask(np.asarray(mask[z]), scale).any()]
    if not usable:
        raise UserError(
            f"{micro}: no {scale}x{scale} block lies inside its specimen; correct its mask, or use another uCT"
        )
    chosen = spread_evenly(usable[0], usable[-1], number)
    step = chosen[1] - chosen[0] if len(chosen) > 1 else 1
    x, y, z = volume.spacing
    facts = {k: v for k, v in volume.attributes.items() if k in ("case", "independent_slices", "display")}
    geometry = Volume(
        array=None,
        spacing=(scale * x, scale * y, step * z),
        origin=tuple(float(v) for v in volume.point((chosen[0], (scale - 1) / 2, (scale - 1) / 2))),
        direction=volume.direction,
        unit=volume.unit,
        attributes={**facts, "modality": "downsampled", "micro_slices": chosen},
    )
    shape = (len(chosen), *(n // scale for n in volume.shape[1:]))
    with replacing(output) as temporary:
        voxels, inside = create_volume(temporary, shape, geometry, mask=True)
        for i, z in enumerate(chosen):
            mean = average_pool(np.asarray(volume.array[z]), scale)
            voxels[i] = np.rint(mean).astype(np.int16)
            inside[i] = pooled_mask(np.asarray(mask[z]), scale)
    logger.info("uCT slices %s to %dx%d pixels", chosen, *shape[1:])
    write_run(output, "volumes.downsample", {"slices": number, "scale": scale}, [micro], started, micro_slices=chosen)


def crop(image: np.ndarray, scale: int) -> np.ndarray:
    """An image [rows, columns] without the rows and columns beyond a multiple of the scale."""
    return image[: image.shape[0] // scale * scale, : image.shape[1] // scale * scale]


def pooled_mask(mask: np.ndarray, scale: int) -> np.ndarray:
    """Which scale x scale blocks of a mask [rows, columns] lie wholly inside it: bool [rows // scale, columns //
    scale].
    """
    return average_pool(np.asarray(mask) != 0, scale) == 1


def spread_evenly(first: int, last: int, number: int) -> list[int]:
    """At most `number` whole numbers from first to last, all the same distance apart, with what is left at both ends
    alike.
    """
    number = min(number, last - first + 1)
    step = (last - first) // (number - 1) if number > 1 else 1
    start = first + (last - first - step * (number - 1)) // 2
    return list(range(start, start + step * number, step))


def arguments(parser: argparse.ArgumentParser) -> None:
    """Flags of `microsr volumes downsample`."""
    parser.add_argument("--micro", type=Path, required=True, help="imported uCT (OME-Zarr with its specimen mask)")
    parser.add_argument("--output", type=Path, required=True, help="volume in the working format (<name>.ome.zarr)")
    config.add_scale(parser)
    parser.add_argument("--number", type=int, default=SLICES, help="slices, evenly spaced (default: %(default)s)")


def run(ns: argparse.Namespace) -> None:
    """Run `microsr volumes downsample`."""
    if ns.number < 1:
        raise UserError(f"--number is {ns.number}, must be at least 1")
    downsample(ns.micro, ns.output, ns.number, ns.scale)
