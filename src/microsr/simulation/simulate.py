"""A simulated case: the clinical CT of a lung with a tumour, the uCT of a specimen from it, and the truth behind the
CT.

Stands in for the paper's patients (Zheng et al. 2020, Table 1) where no data is at hand. In: the settings `Simulate`
and `Scanner`, a case name and a seed. Out: clinical.nii.gz (int16 HU), the same as a DICOM series in dicom/,
micro.nii.gz (uint16, the uCT's own grey scale) and run.json; for all but a training case also truth.nii.gz (int16 HU,
the clinical grid magnified in-plane), thick_truth.nii.gz (the same, averaged over the slice profile), labels.nii.gz
(uint8, `Tissue`, same grid), noise_free.nii.gz (the clinical CT before its noise), repeat.nii.gz (the same lung scanned
again) and airways.csv (`airway_table`).
"""

from __future__ import annotations

import argparse
import dataclasses
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
from scipy.ndimage import correlate1d, gaussian_filter, uniform_filter

from microsr import config
from microsr.core import provenance
from microsr.core.errors import UserError
from microsr.core.files import replacing, write_csv
from microsr.core.progress import Progress, logger
from microsr.core.streams import Stream, numpy_stream
from microsr.formats.dicom_series import write_series
from microsr.formats.writers import write_nifti
from microsr.physics import scanner
from microsr.physics.pooling import average_pool
from microsr.simulation.grid import Grid
from microsr.simulation.lung import AIR_HU, BLOOD_HU, Lung
from microsr.volume.storage import Volume, magnified_geometry

BLOCK_PIXELS = 5_000_000
"""Fine pixels drawn at a time, whole planes, at least one; bounds the memory (about 40 bytes each)."""
DRAWN = 8
"""Fine pixels, at least, along a clinical one, and planes from one clinical slice to the next: what is scanned is drawn
this finely whatever the scale, so that a scan does not depend on it (a scale of 16 draws its own pixels)."""
STREAMS = 5
"""Of a case: anatomy, noise, uCT, noise of the repeated scan, place of a specimen."""
MICRO_NOISE = 0.03
"""SD of the uCT's noise as a share of the contrast between air and tissue."""
MICRO_RINGS = 0.006
"""SD of the uCT's ring artefacts as a share of that contrast."""


def arguments(parser: argparse.ArgumentParser) -> None:
    """Command line of the step."""
    parser.add_argument(
        "--case", required=True, help="name of the case; decides, with the seed, everything drawn by chance"
    )
    parser.add_argument(
        "--split",
        required=True,
        choices=("train", "validation", "test"),
        help="all but a training case also get their truth",
    )
    parser.add_argument(
        "--lung",
        help="name of the case whose lung this is: then only the scan is made, of a training case only the uCT",
    )
    parser.add_argument("--seed", required=True, type=int, help="seed of the experiment")
    parser.add_argument("--output", required=True, type=Path, help="folder for the case's files")
    config.add_scale(parser)
    config.add_flags(parser, config.Simulate)
    config.add_flags(parser, config.Scanner)


def main(ns: argparse.Namespace) -> None:
    """Run the step from its command line."""
    settings, scanned_by = config.from_flags(ns, config.Simulate), config.from_flags(ns, config.Scanner)
    if ns.lung is not None:
        make = cut_again if ns.split == "train" else scan_again
        make(ns.output, ns.case, ns.lung, ns.seed, settings, scanned_by, ns.scale)
    else:
        simulate(ns.output, ns.case, ns.split, ns.seed, settings, scanned_by, ns.scale)


def scan_again(
    output: Path,
    case: str,
    lung: str,
    seed: int,
    settings: config.Simulate,
    scanned_by: config.Scanner,
    scale: int = config.DEFAULT_SCALE,
) -> None:
    """Scan the lung of another case, `lung`, with this scanner: clinical.nii.gz, noise_free.nii.gz and run.json.

    The noise is what the other scan's was made of, so that two scanners are compared by what they do to it.
    """
    started = time.time()
    output = Path(output)
    output.mkdir(parents=True, exist_ok=True)
    anatomy, noise, *_ = numpy_stream(Stream.CASE, seed, lung).spawn(STREAMS)
    still, _ = scan_slab(_make_lung(settings, scanned_by, anatomy), settings, scanned_by, scale, with_truth=False)
    _write(output / "clinical.nii.gz", with_noise(still, scanned_by, noise))
    _write(output / "noise_free.nii.gz", _round_hu(still))
    chosen = {"case": case, "lung": lung, "seed": seed, "scale": scale}
    chosen |= settings.model_dump(mode="json") | scanned_by.model_dump(mode="json")
    provenance.write_run(output / "run.json", "simulate", chosen, [], started)
    logger.info("%s: the lung of %s again, %s in %.0f s", case, lung, still.shape, time.time() - started)


def cut_again(
    output: Path,
    case: str,
    lung: str,
    seed: int,
    settings: config.Simulate,
    scanned_by: config.Scanner,
    scale: int = config.DEFAULT_SCALE,
) -> None:
    """Cut another specimen from the lung of another case, `lung`: micro.nii.gz and run.json.

    It is what `simulate` with these settings makes of that case: its noise, rings and grey scale are those of the
    other specimen, so that two specimens are compared by what is in them.

    Raises
    ------
    UserError
        The specimen does not fit into the lung.
    """
    started = time.time()
    output = Path(output)
    output.mkdir(parents=True, exist_ok=True)
    anatomy, _, micro_rng, _, place = numpy_stream(Stream.CASE, seed, lung).spawn(STREAMS)
    made = _make_lung(settings, scanned_by, anatomy)
    grid = specimen_grid(made, settings, place)
    micro, facts = _write_micro(output, made, grid, micro_rng, settings)
    chosen = {"case": case, "lung": lung, "seed": seed, "scale": scale}
    chosen |= settings.model_dump(mode="json") | scanned_by.model_dump(mode="json")
    provenance.write_run(output / "run.json", "simulate", chosen, [], started, drawn=facts)
    logger.info("%s: a specimen of %s, uCT %s in %.0f s", case, lung, micro.shape, time.time() - started)


def _round_hu(still: Volume) -> Volume:
    """A scan without noise, int16 HU."""
    return dataclasses.replace(still, array=np.rint(still.array).astype(np.int16))


def _write_micro(
    output: Path, lung: Lung, grid: Grid, rng: np.random.Generator, settings: config.Simulate
) -> tuple[Volume, dict[str, object]]:
    """Scan a specimen by uCT and write micro.nii.gz; what the record says of it."""
    micro, grey = micro_scan(lung, grid, rng, settings.micro_offset_hu)
    _write(output / "micro.nii.gz", micro)
    return micro, {
        "specimen_centre_mm": [float(axis.mean()) for axis in (grid.x, grid.y, grid.z)],
        "micro_grey": grey,
    }


def _make_lung(settings: config.Simulate, scanned_by: config.Scanner, anatomy: np.random.Generator) -> Lung:
    """The lung in the field and depth that are scanned."""
    side, depth = settings.clinical_size * scanned_by.pixel_mm, settings.clinical_slices * settings.slice_spacing_mm
    return Lung(side, depth, anatomy)


def simulate(
    output: Path,
    case: str,
    split: str,
    seed: int,
    settings: config.Simulate,
    scanned_by: config.Scanner,
    scale: int = config.DEFAULT_SCALE,
) -> None:
    """Simulate one case and write its files into the folder `output`; scale: clinical pixel / pixel of the truth.

    Raises
    ------
    UserError
        The specimen does not fit into the lung.
    """
    started = time.time()
    output = Path(output)
    output.mkdir(parents=True, exist_ok=True)
    anatomy, first, micro_rng, second, place = numpy_stream(Stream.CASE, seed, case).spawn(STREAMS)
    lung = _make_lung(settings, scanned_by, anatomy)
    grid = specimen_grid(lung, settings, place)
    still, known = scan_slab(lung, settings, scanned_by, scale, with_truth=split != "train")
    clinical = with_noise(still, scanned_by, first)
    _write(output / "clinical.nii.gz", clinical)
    with replacing(output / "dicom") as temporary:
        write_series(temporary, clinical, case, seed, scanned_by.kernel)
    if split != "train":
        _write(output / "truth.nii.gz", known.truth)
        _write(output / "thick_truth.nii.gz", known.thick)
        _write(output / "labels.nii.gz", known.labels)
        _write(output / "noise_free.nii.gz", _round_hu(still))
        _write(output / "repeat.nii.gz", with_noise(still, scanned_by, second))
        write_csv(output / "airways.csv", airway_table(lung, clinical))
    del known
    micro, of_specimen = _write_micro(output, lung, grid, micro_rng, settings)
    facts = {
        "parameters": dataclasses.asdict(lung.parameters),
        "lung_half_axes_mm": lung.half_axes.tolist(),
        "tumour_centre_mm": lung.tumour.centre.tolist(),
        **of_specimen,
    }
    chosen = {"case": case, "split": split, "seed": seed, "scale": scale}
    chosen |= settings.model_dump(mode="json") | scanned_by.model_dump(mode="json")
    provenance.write_run(output / "run.json", "simulate", chosen, [], started, drawn=facts)
    logger.info("%s: clinical %s, uCT %s in %.0f s", case, clinical.shape, micro.shape, time.time() - started)


@dataclasses.dataclass(frozen=True)
class Known:
    """What the clinical slices show, on the clinical grid magnified in-plane."""

    truth: Volume
    """Thin slices (an eighth of the slice distance) at the clinical slices' centres, int16 HU."""
    thick: Volume
    """The mean over the slice profile, int16 HU: what is left to recover in-plane."""
    labels: Volume
    """Tissues of `truth`, uint8."""


def scan_slab(
    lung: Lung,
    settings: config.Simulate,
    scanned_by: config.Scanner,
    scale: int = config.DEFAULT_SCALE,
    with_truth: bool = True,
) -> tuple[Volume, Known | None]:
    """The clinical CT of the lung's slab without noise, float32 HU, and what it shows; None unless `with_truth`.

    In-plane the tissue is blurred by the kernel's point-spread function and then sampled at the pixels' centres, so
    that what lies above the Nyquist limit aliases as it does in a scanner; across slices it is weighted by the slice
    profile. The truth's pixels, `scale` to a clinical one, are the means of the fine ones that are drawn, and their
    tissue is the one that most of these have.
    """
    n, slices, spacing = settings.clinical_size, settings.clinical_slices, settings.slice_spacing_mm
    drawn = max(DRAWN, scale)
    fine, step, block_side = scanned_by.pixel_mm / drawn, spacing / DRAWN, drawn // scale
    beyond = int(np.ceil(3 * scanned_by.slice_sigma_mm / step))
    planes = (slices - 1) * DRAWN + 1 + 2 * beyond
    grid = Grid.around((0, 0, 0), (fine, fine, step), (planes, n * drawn, n * drawn))
    pixels = Grid.around((0, 0, 0), (scanned_by.pixel_mm,) * 2 + (spacing,), (slices, n, n))
    kernel = scanner.KERNELS[scanned_by.kernel]
    profile = scanner.sampling(pixels.z, grid.z, scanned_by.slice_sigma_mm)
    scan = np.zeros((slices, n, n), np.float32)
    origin = tuple(float(axis[0]) for axis in (pixels.x, pixels.y, pixels.z))
    still = Volume(scan, spacing=pixels.spacing, origin=origin)
    known = None
    if with_truth:
        magnified = magnified_geometry(still, scale)
        truth, thick = (Volume(np.empty((slices, n * scale, n * scale), np.int16), **magnified) for _ in range(2))
        known = Known(truth, thick, Volume(np.empty(truth.shape, np.uint8), **magnified, unit="label"))
    sums, means = scanner.Sums(profile), scanner.Sums(profile)
    progress = Progress(planes, "planes")
    for block in _blocks(grid):
        canvas = lung.draw(grid.planes(block.start, block.stop), labelled=with_truth)
        scanned = scanner.project(canvas.hu, kernel, pixels.y, pixels.x, grid.y, grid.x)
        for plane in range(block.start, block.stop):
            for index, image in sums.add(plane, scanned[plane - block.start]):
                scan[index] = image
            if known is None:
                continue
            for index, mean in means.add(plane, canvas.hu[plane - block.start]):
                known.thick.array[index] = np.rint(_means(mean, block_side))
            index, between = divmod(plane - beyond, DRAWN)
            if between == 0 and 0 <= index < slices:
                known.truth.array[index] = np.rint(_means(canvas.hu[plane - block.start], block_side))
                known.labels.array[index] = _commonest(canvas.labels[plane - block.start], block_side)
        progress.advance(block.stop - block.start)
        del canvas, scanned
    progress.close()
    return still, known


def _means(image: np.ndarray, side: int) -> np.ndarray:
    """An image averaged over blocks of `side` x `side` pixels."""
    return image if side == 1 else average_pool(image, side)


def _commonest(labels: np.ndarray, side: int) -> np.ndarray:
    """The label that most of each block of `side` x `side` pixels have, of equals the smallest code: uint8."""
    if side == 1:
        return labels
    codes = np.unique(labels)
    shares = np.stack([average_pool(labels == code, side, np.float32) for code in codes])
    return codes[shares.argmax(axis=0)]


def _blocks(grid: Grid) -> list[slice]:
    """Ranges of planes to be drawn at a time."""
    planes, rows, columns = grid.shape
    size = int(np.clip(BLOCK_PIXELS // (rows * columns), 1, planes))
    return [slice(first, min(first + size, planes)) for first in range(0, planes, size)]


def with_noise(still: Volume, scanned_by: config.Scanner, rng: np.random.Generator) -> Volume:
    """A scan with the scanner's noise, int16 HU, clipped as the scanner does."""
    scan = np.empty(still.shape, np.int16)
    for z, grain in enumerate(scanner.noise_slices(still.shape, scanned_by, still.spacing[2], rng)):
        scan[z] = scanner.add_noise(still.array[z], grain, scanned_by.noise_hu)
    return dataclasses.replace(still, array=scan)


def airway_table(lung: Lung, clinical: Volume) -> pd.DataFrame:
    """The airway lumens that the truth's slices cut, one row each.

    slice: index in the clinical volume. x_mm, y_mm: where the airway's axis crosses it, patient coordinates (LPS).
    diameter_mm: of the lumen, across its axis. wall_mm: thickness. tilt_degrees: between the axis and the slice's
    normal. generation: 0 is the trunk from which this lung's airways come.
    """
    tables = []
    for index in range(clinical.shape[0]):
        found = pd.DataFrame(lung.crossings(float(clinical.point((index, 0, 0))[2])))
        found.insert(0, "slice", index)
        tables.append(found.round({"x_mm": 3, "y_mm": 3, "diameter_mm": 3, "wall_mm": 3, "tilt_degrees": 1}))
    return pd.concat(tables, ignore_index=True)


def specimen_grid(lung: Lung, settings: config.Simulate, rng: np.random.Generator | None = None) -> Grid:
    """Where the specimen is cut: by `settings.specimen` at random (by `rng`), as near to the tumour as it fits, or,
    matched, at the place in the lung whose mix of tissue is most like the whole lung's, with some of the tumour if
    possible.

    Matched, equal shares of tumour and vessels in both domains keep an unpaired training from inventing or removing
    them (Cohen et al. 2018). What a training sees are patches, which lie wholly inside and so show the middle
    more often than the rim: the mix is that of all patches half as wide as the specimen.

    Raises
    ------
    UserError
        No such square fits into the lung.
    """
    side = settings.specimen_mm
    step = min(0.5, lung.field / 32)
    count = max(int(lung.field / step), 1)
    layers = max(round(lung.depth / step), 1)
    coarse = Grid.around((0, 0, 0), (step, step, lung.depth / layers), (layers, count, count))
    hu = lung.render(coarse, foam=False)
    inside = lung.depth_inside(coarse) > step
    tumour = (lung.tumour.distance(coarse) < 0).astype(float)
    window = max(round(side / step), 1)
    patch = max(window // 2, 1)

    def of_patches(values: np.ndarray) -> np.ndarray:
        """Mean over the lung in a patch about each place."""
        return uniform_filter((values * inside).mean(axis=0), patch, mode="constant")

    def of_specimen(values: np.ndarray) -> np.ndarray:
        """Mean over the patches of a specimen about each place."""
        return uniform_filter(of_patches(values), window - patch, mode="constant")

    ones = np.ones(coarse.shape)
    whole = uniform_filter(inside.all(axis=0).astype(float), window, mode="constant") > 0.999
    if not whole.any():
        largest = 2 * lung.half_axes.min() * 0.7
        raise UserError(
            f"simulate.specimen_mm: a specimen of {side:g} mm does not fit into the simulated lung of {lung.field:g} "
            f"mm (simulate.clinical_size x scanner.pixel_mm); make it at most about {largest:.0f} mm"
        )
    if settings.specimen == "random":
        cost = rng.random(whole.shape)
    elif settings.specimen == "tumour":
        x, y, _ = lung.tumour.centre
        cost = np.hypot(coarse.x - x, coarse.y[:, None] - y)
    else:
        fits = of_patches(ones) > 0.999
        mean, square, ill = hu, hu.astype(float) ** 2, tumour
        target, target_square, target_ill = (of_patches(v)[fits].mean() for v in (mean, square, ill))
        mean, square, ill = (of_specimen(v) for v in (mean, square, ill))
        sd, target_sd = np.sqrt(np.maximum(square - mean**2, 0)), np.sqrt(target_square - target**2)
        cost = np.abs(mean - target) + np.abs(sd - target_sd)
        cost += 500 * np.abs(ill - target_ill) + 20 * (ill < 0.005)
    cost[~whole] = np.inf
    row, column = np.unravel_index(np.argmin(cost), cost.shape)
    centre = (float(coarse.x[column]), float(coarse.y[row]), 0.0)
    spacing = settings.micro_spacing_mm
    n = max(round(side / spacing), 1)
    layers = max(round(min(lung.depth, side) / spacing), 1)
    return Grid.around(centre, (spacing,) * 3, (layers, n, n))


def micro_scan(
    lung: Lung, grid: Grid, rng: np.random.Generator, offset_hu: float = 0.0
) -> tuple[Volume, dict[str, float]]:
    """The uCT of the tissue in `grid`, cut to a rounded block with air around it: uint16 in a grey scale of its own.

    offset_hu: how much denser than the patient's the parenchyma is.
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
    noise = _grain(grid.shape, rng)
    for block in _blocks(grid):
        share = lung.render(grid.planes(block.start, block.stop), offset_hu=offset_hu)
        share -= np.float32(AIR_HU)
        share *= cut * np.float32(1 / (BLOOD_HU - AIR_HU))
        for image, plane in zip(share, range(block.start, block.stop), strict=True):
            value = air + contrast * (image + np.float32(MICRO_NOISE) * next(noise)) + ring_image
            grey[plane] = np.rint(np.clip(value, 0, 65535))
    volume = Volume(grey, spacing=grid.spacing, origin=(0.0, 0.0, 0.0), unit="grey")
    return volume, {"air": air, "tissue": air + contrast}


def _grain(shape: tuple[int, int, int], rng: np.random.Generator) -> Iterator[np.ndarray]:
    """Planes of noise with SD 1, float32, drawn one after the other: correlated over about a voxel, in-plane and
    across.
    """
    tap = np.exp(-2.0)  # of a Gaussian with a sigma of half a voxel, one voxel away
    scale = np.float32((1 + 2 * tap**2) ** -1.5)
    before, here = rng.standard_normal((2, *shape[1:]), dtype=np.float32)
    for _ in range(shape[0]):
        after = rng.standard_normal(shape[1:], dtype=np.float32)
        plane = here + np.float32(tap) * (before + after)
        yield scale * correlate1d(correlate1d(plane, [tap, 1, tap], 0, mode="wrap"), [tap, 1, tap], 1, mode="wrap")
        before, here = here, after


def _block_outline(grid: Grid, rng: np.random.Generator) -> np.ndarray:
    """Share of each pixel inside the specimen: a rounded square, cut a little unevenly, with air along its sides;
    [rows, columns].
    """
    half = np.array([np.ptp(a) / 2 for a in (grid.y, grid.x)]) + grid.spacing[0] / 2
    y, x = np.meshgrid((grid.y - grid.y.mean()) / half[0], (grid.x - grid.x.mean()) / half[1], indexing="ij")
    angle = np.arctan2(y, x)
    uneven = sum(0.004 * np.cos(k * angle + rng.uniform(0, 2 * np.pi)) for k in (2, 3, 5, 7))
    radius = (np.abs(y) ** 10 + np.abs(x) ** 10) ** 0.1 + uneven
    return np.clip(0.5 + (0.965 - radius) * half.min() / grid.spacing[0], 0, 1).astype(np.float32)


def _write(path: Path, volume: Volume) -> None:
    with replacing(path) as temporary:
        write_nifti(temporary, volume)
