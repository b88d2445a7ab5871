"""Super-resolve the slices of a clinical CT, 8 times in-plane, with bicubic interpolation or a trained generator G1.

Anything that up-samples is an `Upsampler`: tiles of a slice in, with a halo of real pixels around them, tiles at uCT scale
out. The result does not depend on the tiles: nothing beyond the halo influences a pixel, and a generator's noise belongs to
the slice, not to the tile.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from microsr import SCALE, UserError, config
from microsr.checkpoint import load_generator
from microsr.devices import choose_device
from microsr.layers import bicubic_upsample
from microsr.networks import draw_noise
from microsr.progress import Progress, logger
from microsr.provenance import write_run
from microsr.sampling import normalise, to_hu
from microsr.storage import Volume, create_volume, magnified_geometry, open_volume

UNLIKE = 0.15
"""Pixel sizes that differ by more than this share are worth a warning: so much do scans of one protocol differ."""


class Upsampler(Protocol):
    """A way of super-resolving slices."""

    halo: int
    """Clinical pixels around a tile that influence it."""
    spacing_mm: float | None
    """Pixel size that it was trained for, mm; None: any, or unknown."""

    def prepare(self, index: int, size: tuple[int, int]) -> list[Tensor]:
        """What belongs to the whole slice `index` of `size` (rows, columns): planes at several scales, cut like the slice."""
        ...

    def __call__(self, tile: Tensor, planes: list[Tensor]) -> Tensor:
        """[1, 1, h, w] HU and its part of the planes to [1, 1, 8h, 8w] HU, float32."""
        ...


class Bicubic:
    """Cubic convolution, the paper's first baseline."""

    halo = 2
    spacing_mm = None

    def prepare(self, index: int, size: tuple[int, int]) -> list[Tensor]:
        """Nothing."""
        return []

    def __call__(self, tile: Tensor, planes: list[Tensor]) -> Tensor:
        """See `Upsampler`."""
        return bicubic_upsample(tile)


class Generator:
    """A trained G1; what exceeds its intensity window (bone, say) is added back by interpolation, so that HU are kept."""

    def __init__(self, model: Path, device: str) -> None:
        self._g1, facts = load_generator(model)
        self._g1.to(device, memory_format=torch.channels_last)
        self._window, self._seed, self._device = tuple(facts["window_hu"]), facts["seed"], device
        self.halo = max(self._g1.halo, 2)
        self.spacing_mm = facts["clinical_spacing_mm"]

    def prepare(self, index: int, size: tuple[int, int]) -> list[Tensor]:
        """The slice's noise, a function of the model's seed and the slice's index."""
        entropy = np.random.SeedSequence([self._seed, index, 4]).generate_state(1, np.uint64)
        generator = torch.Generator().manual_seed(int(entropy[0] >> 1))
        return draw_noise(self._g1.noise_scales, 1, size, generator, "cpu")

    def __call__(self, tile: Tensor, planes: list[Tensor]) -> Tensor:
        """See `Upsampler`."""
        a = normalise(tile, self._window).to(self._device, memory_format=torch.channels_last)
        a_sr = self._g1(a, [plane.to(self._device) for plane in planes]).float().cpu()
        excess = tile - tile.clamp(*self._window)
        a_sr = to_hu(a_sr, self._window)
        return a_sr + bicubic_upsample(excess) if excess.any() else a_sr


def tiles(size: tuple[int, int], tile: int, halo: int) -> Iterator[tuple[tuple[slice, slice], tuple[slice, slice]]]:
    """Cut a slice of `size` (rows, columns): for each tile the region to read, halo included, and the region to keep.

    At the slice's border there is no halo: a network pads a tile there as it would pad the whole slice.
    """
    for top in range(0, size[0], tile):
        for left in range(0, size[1], tile):
            keep = [(start, min(start + tile, end)) for start, end in zip((top, left), size, strict=True)]
            read = [(max(s - halo, 0), min(e + halo, end)) for (s, e), end in zip(keep, size, strict=True)]
            yield tuple(slice(*r) for r in read), tuple(slice(*k) for k in keep)


@torch.inference_mode()
def upsample_slice(hu: np.ndarray, index: int, upsampler: Upsampler, tile: int) -> np.ndarray:
    """Super-resolve one slice.

    hu: float or int [rows, columns] in HU. index: the slice's number in its volume. Returns float32 [8 rows, 8 columns] HU,
    the same for every `tile` up to float rounding.
    """
    image = torch.from_numpy(np.asarray(hu, np.float32))[None, None]
    planes = upsampler.prepare(index, hu.shape)
    result = np.empty([SCALE * n for n in hu.shape], np.float32)
    for read, keep in tiles(hu.shape, tile, upsampler.halo):
        parts = []
        for plane in planes:
            scale = plane.shape[-1] // hu.shape[-1]
            parts.append(plane[..., _times(read[0], scale), _times(read[1], scale)])
        done = upsampler(image[..., read[0], read[1]], parts)[0, 0]
        inner = [
            slice(SCALE * (k.start - r.start), SCALE * (k.stop - r.start)) for k, r in zip(keep, read, strict=True)
        ]
        result[_times(keep[0], SCALE), _times(keep[1], SCALE)] = done[inner[0], inner[1]].numpy()
    return result


def _times(part: slice, scale: int) -> slice:
    return slice(scale * part.start, scale * part.stop)


def superresolve(
    source: Path,
    output: Path,
    upsampler: Upsampler,
    slices: str | list[int],
    tile: int,
) -> None:
    """Super-resolve `slices` ("all" or indices) of the volume at `source` into a volume at `output`, int16 HU.

    The output's attribute "slices" lists the clinical slices it holds; its geometry makes it overlay the input when they
    are consecutive.

    Raises
    ------
    UserError
        A slice does not exist.
    """
    volume = open_volume(source)
    count, rows, columns = volume.shape
    wanted = list(range(count)) if slices == "all" else sorted(set(slices))
    if wanted[-1] >= count:
        raise UserError(f"superresolve.slices: {wanted[-1]} does not exist; {source} has slices 0 to {count - 1}")
    pixel, trained = volume.spacing[0], upsampler.spacing_mm
    if trained is not None and abs(pixel / trained - 1) > UNLIKE:
        logger.warning(
            "%s has pixels of %.3g mm, the model was trained on %.3g mm: what it draws is of another size than lung's",
            *(source, pixel, trained),
        )
    voxels, _ = create_volume(output, (len(wanted), SCALE * rows, SCALE * columns), _geometry(volume, wanted))
    limits = np.iinfo(np.int16)
    progress = Progress(len(wanted), "slice", interval=10.0)
    for position, index in enumerate(wanted):
        result = upsample_slice(volume.array[index], index, upsampler, tile)
        voxels[position] = np.clip(np.rint(result), limits.min, limits.max).astype(np.int16)
        progress.advance()
    progress.close()


def _geometry(volume: Volume, wanted: list[int]) -> dict:
    geometry = magnified_geometry(volume.slices(wanted[0], wanted[0] + 1))
    steps = np.diff(wanted)
    x, y, z = geometry["spacing"]
    if len(steps):
        geometry["spacing"] = (x, y, z * float(steps[0]))
    facts = {k: v for k, v in volume.attributes.items() if k in ("case", "modality")}
    return geometry | {"unit": volume.unit, "attributes": facts | {"slices": wanted}}


def arguments(parser: argparse.ArgumentParser) -> None:
    """Flags of `microsr superresolve`."""
    parser.add_argument("--input", type=Path, required=True, help="imported clinical CT")
    way = parser.add_mutually_exclusive_group(required=True)
    way.add_argument("--model", type=Path, help="generator.pt of a trained model")
    way.add_argument("--upsampler", choices=["bicubic"], help="interpolation")
    parser.add_argument("--output", type=Path, required=True, help="super-resolved volume, OME-Zarr")
    config.add_flags(parser, config.Superresolve)
    config.add_flags(parser, config.Compute)


def main(namespace: argparse.Namespace) -> None:
    """Run `microsr superresolve`."""
    started = time.time()
    settings = config.from_flags(namespace, config.Superresolve)
    compute = config.from_flags(namespace, config.Compute)
    torch.set_num_threads(compute.threads)
    device = choose_device(compute.device)
    upsampler = Generator(namespace.model, device) if namespace.model else Bicubic()
    superresolve(namespace.input, namespace.output, upsampler, settings.slices, compute.tile)
    name = namespace.output.name.removesuffix(".ome.zarr")
    inputs = [namespace.input, *([namespace.model] if namespace.model else [])]
    described = settings.model_dump() | {"upsampler": "generator" if namespace.model else "bicubic"}
    write_run(namespace.output.with_name(f"{name}.run.json"), "superresolve", described, inputs, started, device=device)
