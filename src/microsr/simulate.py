"""A simulated case: the clinical CT of a lung with a tumour, the uCT of a specimen from it, and the truth behind the CT.

Stands in for the paper's patients (Zheng et al. 2020, Table 1) where no data is at hand. In: the settings `Simulate`, a case
name and a seed. Out: clinical.nii.gz (int16 HU), micro.nii.gz (uint16, the uCT's own grey scale), for a test case
truth.nii.gz (int16 HU, the clinical grid magnified in-plane), and run.json.
"""

from __future__ import annotations

import argparse
import time
import zlib
from pathlib import Path

import numpy as np
import SimpleITK as sitk
from scipy.ndimage import gaussian_filter, uniform_filter
from scipy.special import ndtr

from microsr import SCALE, UserError, config, provenance
from microsr.anatomy import AIR_HU, BLOOD_HU, Lung
from microsr.progress import Progress, logger
from microsr.space import Grid
from microsr.storage import Volume, magnified_geometry

BLOCK = 8
"""Slices rendered at a time; bounds the memory."""
SMALLEST_HU = -1024
"""Clinical scanners store 12 bits: HU are clipped here."""
MICRO_NOISE = 0.03
"""SD of the uCT's noise as a share of the contrast between air and tissue."""
MICRO_RINGS = 0.006
"""SD of the uCT's ring artefacts as a share of that contrast."""


def arguments(parser: argparse.ArgumentParser) -> None:
    """Command line of the step."""
    parser.add_argument(
        "--case", required=True, help="name of the case; decides, with the seed, everything drawn by chance"
    )
    parser.add_argument("--split", required=True, choices=("train", "test"), help="a test case also gets its truth")
    parser.add_argument("--seed", required=True, type=int, help="seed of the experiment")
    parser.add_argument("--output", required=True, type=Path, help="folder for the case's files")
    config.add_flags(parser, config.Simulate)


def main(ns: argparse.Namespace) -> None:
    """Run the step from its command line."""
    simulate(ns.output, ns.case, ns.split, ns.seed, config.from_flags(ns, config.Simulate))


def simulate(output: Path, case: str, split: str, seed: int, settings: config.Simulate) -> None:
    """Simulate one case and write its files into the folder `output`.

    Raises
    ------
    UserError
        The specimen does not fit into the lung.
    """
    started = time.time()
    output = Path(output)
    output.mkdir(parents=True, exist_ok=True)
    streams = np.random.default_rng([seed, zlib.crc32(case.encode())]).spawn(3)
    depth = settings.clinical_slices * settings.slice_spacing_mm
    lung = Lung(settings.clinical_size * settings.clinical_spacing_mm, depth, streams[0])
    grid = specimen_grid(lung, settings)
    clinical, truth = clinical_scan(lung, settings, streams[1])
    _write(output / "clinical.nii.gz", clinical)
    if split == "test":
        _write(output / "truth.nii.gz", truth)
    micro, scale = micro_scan(lung, grid, streams[2])
    _write(output / "micro.nii.gz", micro)
    facts = {
        "lung_half_axes_mm": lung.half_axes.tolist(),
        "tumour_centre_mm": lung.tumour.centre.tolist(),
        "tumour_diameter_mm": 2 * lung.tumour.radius,
        "specimen_centre_mm": [float(axis.mean()) for axis in (grid.x, grid.y, grid.z)],
        "micro_grey": scale,
    }
    chosen = settings.model_dump(mode="json") | {"case": case, "split": split, "seed": seed}
    provenance.write_run(output / "run.json", "simulate", chosen, [], started, drawn=facts)
    logger.info("%s: clinical %s, uCT %s in %.0f s", case, clinical.shape, micro.shape, time.time() - started)


def clinical_scan(lung: Lung, settings: config.Simulate, rng: np.random.Generator) -> tuple[Volume, Volume]:
    """The clinical CT of the lung's slab, int16 HU, and its truth, int16 HU, on the same grid magnified in-plane.

    In-plane the tissue is blurred by the point-spread function and then sampled at the pixels' centres, so that what lies above
    the Nyquist limit aliases as it does in a scanner; across slices it is weighted by the slice profile. The truth is a thin
    slice (an eighth of the slice distance) at each clinical slice's centre.
    """
    n, slices, spacing = settings.clinical_size, settings.clinical_slices, settings.slice_spacing_mm
    fine, step = settings.clinical_spacing_mm / SCALE, spacing / SCALE
    beyond = int(np.ceil(3 * settings.slice_sigma_mm / step))
    planes = (slices - 1) * SCALE + 1 + 2 * beyond
    grid = Grid.centred((0, 0, 0), (fine, fine, step), (planes, n * SCALE, n * SCALE))
    pixels = Grid.centred((0, 0, 0), (settings.clinical_spacing_mm,) * 2 + (spacing,), (slices, n, n))
    blur = _weights(pixels.x, grid.x, settings.psf_sigma_mm)
    profile = _weights(pixels.z, grid.z, settings.slice_sigma_mm)
    scan = np.zeros((slices, n, n), np.float32)
    truth = np.empty((slices, n * SCALE, n * SCALE), np.int16)
    progress = Progress(planes, "planes")
    for first in range(0, planes, BLOCK):
        block = lung.render(grid.planes(first, first + BLOCK))
        blurred = blur @ block @ blur.T
        scan += np.tensordot(profile[:, first : first + BLOCK], blurred, axes=1)
        for plane in range(first, first + len(block)):
            index, between = divmod(plane - beyond, SCALE)
            if between == 0 and 0 <= index < slices:
                truth[index] = np.rint(block[plane - first])
        progress.advance(len(block))
    progress.close()
    scan += settings.noise_hu * scanner_noise(scan.shape, settings, rng)
    voxels = np.rint(np.maximum(scan, SMALLEST_HU)).astype(np.int16)
    origin = tuple(float(axis[0]) for axis in (pixels.x, pixels.y, pixels.z))
    clinical = Volume(voxels, spacing=pixels.spacing, origin=origin)
    return clinical, Volume(truth, **magnified_geometry(clinical))


def _weights(samples: np.ndarray, places: np.ndarray, sigma: float) -> np.ndarray:
    """[samples, places] weights of a Gaussian about each sample, integrated over each place, with sum 1; float32."""
    step = places[1] - places[0]
    offset = places - samples[:, None]
    weights = ndtr((offset + step / 2) / sigma) - ndtr((offset - step / 2) / sigma)
    weights[np.abs(offset) > 4 * sigma + step] = 0
    return (weights / weights.sum(axis=1, keepdims=True)).astype(np.float32)


def scanner_noise(shape: tuple[int, int, int], settings: config.Simulate, rng: np.random.Generator) -> np.ndarray:
    """Noise of filtered back-projection, SD 1: power spectrum ~ f MTF(f)^2 in-plane, sampled after it is shaped.

    Neighbouring slices correlate by the slice profile. The spectrum goes up to four times the pixels' own Nyquist limit.
    """
    slices, rows, columns = shape
    over = 4
    fy = np.fft.fftfreq(rows * over, settings.clinical_spacing_mm / over)
    fx = np.fft.rfftfreq(columns * over, settings.clinical_spacing_mm / over)
    f = np.hypot(fy[:, None], fx)
    amplitude = np.sqrt(f) * np.exp(-2 * (np.pi * f * settings.psf_sigma_mm) ** 2)
    whole = np.concatenate([amplitude, amplitude[:, 1 : (columns * over + 1) // 2]], axis=1)
    amplitude /= np.sqrt(np.mean(whole**2))
    gap = settings.slice_spacing_mm * np.subtract.outer(np.arange(slices), np.arange(slices))
    correlation = np.exp(-(gap**2) / (4 * settings.slice_sigma_mm**2))
    mixing = np.linalg.cholesky(correlation + 1e-6 * np.eye(slices))
    noise = np.empty((slices, rows, columns), np.float32)
    for n in range(slices):
        white = rng.standard_normal((rows * over, columns * over), dtype=np.float32)
        shaped = np.fft.irfft2(np.fft.rfft2(white) * amplitude, s=white.shape)
        noise[n] = shaped[::over, ::over]
    return np.tensordot(mixing.astype(np.float32), noise, axes=1)


def specimen_grid(lung: Lung, settings: config.Simulate) -> Grid:
    """Where the specimen is cut: the place in the lung whose mix of tissue is most like the whole lung's, at the tumour if possible.

    Equal shares of tumour and vessels in both domains keep an unpaired training from inventing or removing them (Cohen et
    al. 2018).

    Raises
    ------
    UserError
        No such square fits into the lung.
    """
    side = settings.specimen_mm
    step = min(0.5, lung.field / 32)
    count = max(int(lung.field / step), 1)
    layers = max(round(lung.depth / step), 1)
    coarse = Grid.centred((0, 0, 0), (step, step, lung.depth / layers), (layers, count, count))
    hu = lung.render(coarse, foam=False)
    inside = lung.depth_inside(coarse) > step
    tumour = (lung.tumour.distance(coarse) < 0).astype(float)
    window = max(round(side / step), 1)

    def share(values: np.ndarray) -> np.ndarray:
        return uniform_filter((values * inside).mean(axis=0), window, mode="constant")

    whole = share(np.ones(coarse.shape)) > 0.999
    if not whole.any():
        largest = 2 * lung.half_axes.min() * 0.7
        raise UserError(
            f"simulate.specimen_mm: a specimen of {side:g} mm does not fit into the simulated lung of {lung.field:g} mm "
            f"(clinical_size x clinical_spacing_mm); make it at most about {largest:.0f} mm"
        )
    mean, square, ill = share(hu), share(hu.astype(float) ** 2), share(tumour)
    sd = np.sqrt(np.maximum(square - mean**2, 0))
    target = hu[inside]
    cost = np.abs(mean - target.mean()) + np.abs(sd - target.std())
    cost += 500 * np.abs(ill - tumour[inside].mean()) + 20 * (ill < 0.005)
    cost[~whole] = np.inf
    row, column = np.unravel_index(np.argmin(cost), cost.shape)
    centre = (float(coarse.x[column]), float(coarse.y[row]), 0.0)
    spacing = settings.micro_spacing_mm
    n = max(round(side / spacing), 1)
    layers = max(round(min(lung.depth, side) / spacing), 1)
    return Grid.centred(centre, (spacing,) * 3, (layers, n, n))


def micro_scan(lung: Lung, grid: Grid, rng: np.random.Generator) -> tuple[Volume, dict[str, float]]:
    """The uCT of the tissue in `grid`, cut to a rounded block with air around it: uint16 in a grey scale of its own.

    Returns the volume and {"air", "tissue"}: the grey values of air and of soft tissue.
    """
    air = rng.uniform(6000, 14000)
    contrast = rng.uniform(16000, 26000)
    cut = _block_outline(grid, rng)
    rings = gaussian_filter(rng.standard_normal(2 * len(grid.x)), 1.0)
    rings *= MICRO_RINGS * contrast / rings.std()
    axis = rng.uniform(-0.05, 0.05, 2) * len(grid.x)
    y, x = np.indices(grid.shape[1:], np.float32)
    radius = np.hypot(y - (len(grid.y) - 1) / 2 - axis[0], x - (len(grid.x) - 1) / 2 - axis[1])
    ring_image = np.interp(radius, np.arange(len(rings)), rings).astype(np.float32)
    grey = np.empty(grid.shape, np.uint16)
    for first in range(0, len(grid.z), BLOCK):
        hu = lung.render(grid.planes(first, first + BLOCK))
        share = cut * (hu - AIR_HU) / (BLOOD_HU - AIR_HU)
        noise = gaussian_filter(rng.standard_normal(share.shape, dtype=np.float32), 0.5, mode="wrap")
        noise *= MICRO_NOISE * contrast / noise.std()
        grey[first : first + BLOCK] = np.rint(np.clip(air + contrast * share + noise + ring_image, 0, 65535))
    volume = Volume(grey, spacing=grid.spacing, origin=(0.0, 0.0, 0.0), unit="grey")
    return volume, {"air": air, "tissue": air + contrast}


def _block_outline(grid: Grid, rng: np.random.Generator) -> np.ndarray:
    """Share of each pixel inside the specimen: a rounded square, cut a little unevenly, with air along its sides; [rows, columns]."""
    half = np.array([np.ptp(a) / 2 for a in (grid.y, grid.x)]) + grid.spacing[0] / 2
    y, x = np.meshgrid((grid.y - grid.y.mean()) / half[0], (grid.x - grid.x.mean()) / half[1], indexing="ij")
    angle = np.arctan2(y, x)
    uneven = sum(0.004 * np.cos(k * angle + rng.uniform(0, 2 * np.pi)) for k in (2, 3, 5, 7))
    radius = (np.abs(y) ** 10 + np.abs(x) ** 10) ** 0.1 + uneven
    return np.clip(0.5 + (0.965 - radius) * half.min() / grid.spacing[0], 0, 1).astype(np.float32)


def _write(path: Path, volume: Volume) -> None:
    image = sitk.GetImageFromArray(volume.array)
    image.SetSpacing(volume.spacing)
    image.SetOrigin(volume.origin)
    image.SetDirection(volume.direction)
    temporary = path.with_name(f".partial.{path.name}")
    sitk.WriteImage(image, str(temporary), useCompression=True)
    temporary.replace(path)
