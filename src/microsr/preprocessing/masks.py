"""Where there is lung in a clinical CT, and specimen in a uCT volume: the regions that patches and metrics come from
where no other ones are asked for (`preprocessing.regions`).
"""

from __future__ import annotations

import functools
import math
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from scipy import ndimage

from microsr.config import ClinicalVolume, MicroVolume
from microsr.core.errors import UserError
from microsr.formats.rawfile import TemporaryArrays
from microsr.preprocessing.components import Components, Masks, Runs, pack, unpack
from microsr.preprocessing.morphology import average_neighbours, close_by_disc, erode, fill_holes
from microsr.preprocessing.resampling import Bands, bands, in_plane
from microsr.volume.slices import Slices, in_order

AIR_BELOW_HU = -950.0
"""A region of which the greater part is below this is air (around the patient, trachea, stomach), not lung."""
SOFT_ABOVE_HU = -300.0
"""Soft tissue, which gives the outline of the body."""
BODY_PIXELS, BODY_SLICES = 128, 32
"""The body's outline is looked at on about this many pixels a side and this many slices."""
SMALLEST_COMPONENT = 0.05
"""Connected components smaller than this share of the largest are dropped."""
COARSE_PIXELS = 256
"""The specimen's outline is found on a grid of about this many pixels a side."""
WIDTH_SHARE = 0.02
"""SD of the Gaussian that averages over air spaces, as a share of the image's shorter side."""
SOME_CONTENT, USUAL_CONTENT = 0.05, 0.3
"""Least mean tissue content of inflated lung, and that of a usual specimen: more than half of it is specimen in any
case.
"""
PADDING_SHARE = 5e-4
"""Smallest padded region, as a share of the slice."""
MEDIAN_BINS = 4096
"""Bins of the histogram by which the median of a whole volume is found."""


def lung_mask(
    hu: np.ndarray | Slices, spacing: tuple[float, float, float], settings: ClinicalVolume, padding: np.ndarray | Slices
) -> Slices:
    """Lung of a clinical CT, with vessels, small airways and tumours inside, without trachea and outside air.

    hu: int16 [slices, rows, columns]. spacing: x, y, z, mm. padding: true outside the reconstructed field (never lung).
    Lung and outside air are told apart by value, not by touching the border, so that a crop inside the lung works as
    well. Returns bool [slices, rows, columns]: what takes the whole volume is done, a slice is finished when it is
    asked for.

    Raises
    ------
    UserError
        There is no lung (no file name: the caller knows it).
    """
    low, components = Masks(hu.shape), Components()

    def find_aerated(z: int) -> Runs:
        runs = _find_aerated(hu[z], padding[z], settings.lung_below_hu)
        low[z] = runs.paint()
        return runs

    for runs in in_order(find_aerated, range(len(hu))):
        components.add(runs)
    keep = _within_body(low, components, hu, padding)
    keep &= are_large(np.where(keep, components.sizes, 0))
    if not keep.any():
        raise UserError(
            f"holds no lung: nothing below {settings.lung_below_hu:g} HU but air below {AIR_BELOW_HU:g} HU; give a "
            "chest CT in HU, raise volumes.clinical.lung_below_hu, or choose another volumes.clinical.mask"
        )

    def finish_slice(z: int) -> np.ndarray:
        mask = select_components(low[z], components.of_slice(z), keep)
        return close(mask, spacing[:2], settings) & ~padding[z] if mask.any() else mask

    return Slices(finish_slice, hu.shape, bool)


def _find_aerated(hu: np.ndarray, padding: np.ndarray, below: float) -> Runs:
    """Connected regions below the threshold in a slice that are not mostly air."""
    # A sharp kernel's noise reaches far beyond tissue and air; padding must not make its neighbours look like lung.
    smooth = average_neighbours(np.where(padding, 0, hu))
    low = (smooth < below) & (hu < below) & ~padding  # both, since smoothing alone opens thin walls
    runs = Runs.of(low)
    core = erode(low)  # the rim is partly tissue
    of_air = runs.component_sizes_within(core & (smooth < AIR_BELOW_HU))
    return runs.select(of_air <= 0.5 * runs.component_sizes_within(core))


def are_large(sizes: np.ndarray) -> np.ndarray:
    """Components that are not small against the largest."""
    return sizes >= SMALLEST_COMPONENT * sizes.max(initial=1)


def select_components(mask: np.ndarray, component: np.ndarray, keep: np.ndarray) -> np.ndarray:
    """A slice of a mask with only its components that belong to a component, in 3-D, to keep."""
    return Runs.of(mask).select(keep[component]).paint()


def _within_body(
    low: Masks, components: Components, hu: np.ndarray | Slices, padding: np.ndarray | Slices
) -> np.ndarray:
    """Which connected components of `low` are not outside the body's convex outline (mattress, table, clothes).

    A crop, whose border is not mostly air and padding, shows no whole outline: there all components stay.
    """
    count = components.groups[0]
    step = math.ceil(max(hu.shape[1:]) / BODY_PIXELS)
    chosen = [z for z in range(len(low)) if low.packed_slice(z)][:: max(1, len(hu) // BODY_SLICES)]

    def compare_with_body(z: int) -> tuple[float, np.ndarray, np.ndarray]:
        image, runs = hu[z], Runs.of(low[z])
        air = (image < AIR_BELOW_HU) | padding[z]
        at_border = np.concatenate([air[0], air[-1], air[:, 0], air[:, -1]]).mean()
        component = runs.paint(1 + components.of_slice(z)[runs.components[1]])[::step, ::step]
        soft = Runs.of(image[::step, ::step] > SOFT_ABOVE_HU)
        body = np.zeros(component.shape, bool)
        if len(soft):
            from skimage.morphology import convex_hull_image  # only here: uCT, which needs none, is spared its loading

            body = convex_hull_image(soft.paint(soft.components[1] == soft.component_sizes.argmax()))
        return at_border, component[component > 0] - 1, component[body & (component > 0)] - 1

    size, within = np.zeros(count), np.zeros(count)
    air_at_border = []
    for at_border, everywhere, inside in in_order(compare_with_body, chosen):
        air_at_border.append(at_border)
        size += np.bincount(everywhere, minlength=count)
        within += np.bincount(inside, minlength=count)
    if not chosen or np.median(air_at_border) < 0.5:
        return np.ones(count, bool)
    return within > 0.5 * size


def close(mask: np.ndarray, pixel: tuple[float, float], settings: ClinicalVolume | MicroVolume) -> np.ndarray:
    """Closing of a slice that is not empty by a disc of diameter `closing_mm`, then holes filled up to the area of one
    of `fill_mm`; pixel: x, y, mm.
    """
    closing_mm = settings.closing_mm
    margin = [math.ceil(closing_mm / p) + 1 for p in pixel[::-1]]
    ends = [np.flatnonzero(mask.any(axis=axis))[[0, -1]] for axis in (1, 0)]
    box = tuple(slice(max(0, first - m), last + 1 + m) for (first, last), m in zip(ends, margin, strict=True))
    window = mask[box]
    if closing_mm > 0:
        # Lung and wall continue beyond the image's border, so that neither grows nor shrinks where it cuts them.
        wide = np.pad(window, [(m, m) for m in margin], mode="edge")
        grown = close_by_disc(wide, closing_mm / 2, pixel[::-1])
        window = window | grown[margin[0] : -margin[0], margin[1] : -margin[1]]
    closed = mask.copy()
    closed[box] = fill_holes(window, math.pi / 4 * settings.fill_mm**2 / (pixel[0] * pixel[1]))
    return closed


class Padding(Slices):
    """Where slices lie outside the reconstructed field (`find_padding`): found when first asked for, then kept packed.

    array: grey values [slices, rows, columns]. fill: values of pixels outside the field.
    """

    def __init__(self, array: np.ndarray | Slices, fill: tuple[float, ...]) -> None:
        super().__init__(lambda z: unpack(self.packed_slice(z), self.shape[1:]), array.shape, bool)
        self._array, self.fill = array, fill
        self._packed: list[bytes | None] = [None] * len(array)

    def packed_slice(self, z: int, grey: np.ndarray | None = None) -> bytes:
        """A slice as it is kept (see `Masks.packed_slice`); grey: its values, where they are at hand."""
        if self._packed[z] is None:
            self._packed[z] = pack(find_padding(self._array[z] if grey is None else grey, self.fill))
        return self._packed[z]


def find_padding(grey: np.ndarray, fill: tuple[float, ...]) -> np.ndarray:
    """Pixels of a 2-D slice outside the reconstructed field: flat regions of one of the values `fill` at the border."""
    edges = grey[[0, -1]], grey[:, [0, -1]]
    if not any(np.isin(edge, fill).any() for edge in edges):
        return np.zeros(grey.shape, bool)
    runs = Runs.of(functools.reduce(np.logical_or, [grey == value for value in set(fill)]))
    outside = np.zeros(runs.components[0], bool)
    outside[runs.components[1][runs.at_border]] = True
    return runs.select(outside & (runs.component_sizes >= PADDING_SHARE * grey.size)).paint()


def specimen_outline(
    volume: np.ndarray | Slices,
    levels: tuple[float, float],
    independent: bool,
    padding: Padding,
    scratch: Path | None = None,
) -> Masks:
    """Coarse mask of a specimen with its air spaces; `at_full_size` brings it back to a slice's size.

    volume: grey values [slices, rows, columns]. levels: grey values of air and of tissue. independent: the slices do
    not belong together. scratch: folder of a temporary file. Returns bool [slices, coarse rows, coarse columns]. Septa
    are often thinner than a voxel, so what counts is the local mean of the tissue content, (grey - air) / (tissue -
    air), over an area wider than an air space.
    """
    factor = coarse_factor(volume.shape[1:])
    coarse = (math.ceil(volume.shape[1] / factor), math.ceil(volume.shape[2] / factor))
    outline, components = Masks((len(volume), *coarse)), Components()
    means = TemporaryArrays(scratch, (2, *coarse), np.float32)

    def look(z: int) -> np.ndarray:
        grey = volume[z]
        outside = padding.packed_slice(z, grey)
        if outside and any(padding.fill):
            grey = np.where(padding[z], 0, grey)
        means[z] = around, _ = _means(grey, outside, levels, factor)
        return np.bincount(_bins(around[around >= SOME_CONTENT]), minlength=MEDIAN_BINS + 1)

    counts = np.zeros(MEDIAN_BINS + 1, np.int64)
    for found in in_order(look, range(len(volume))):
        counts += found
    if not counts.any():
        return outline
    least = _median(counts, (means[z][0] for z in range(len(volume)))) / 2
    # The wide mean says where specimen is, tissue itself where it ends.
    radius = math.ceil(2 * WIDTH_SHARE * min(coarse))

    def outline_slice(z: int) -> Runs:
        around, fine = means[z]
        runs = Runs.of(fill_holes((around >= least) & _bridge_gaps(fine >= least, radius)))
        runs = runs.select(are_large(runs.component_sizes)) if independent else runs
        outline[z] = runs.paint()
        return runs

    for runs in in_order(outline_slice, range(len(volume))):
        components.add(runs)
    if not independent:
        keep = are_large(components.sizes)
        for z in range(len(outline)):
            outline[z] = select_components(outline[z], components.of_slice(z), keep)
    return outline


def _means(grey: np.ndarray, padding: bytes, levels: tuple[float, float], factor: int) -> np.ndarray:
    """Tissue content of a slice on the coarse grid, float32 [2, rows, columns]: a wide mean within the field, a narrow
    mean.

    grey: 0 outside the field. padding: packed.
    """
    air, tissue = levels
    pixels = factor**2
    share, inside = _field(padding, grey.shape, factor)
    content = (block_sums(grey, factor) - air * pixels * share) / (pixels * (tissue - air))
    content = content.astype(np.float32)
    around = np.where(share > 0.5, _average(content, WIDTH_SHARE * min(content.shape)) / inside, 0)
    return np.stack([around, _average(content, 1)])


@functools.lru_cache(maxsize=4)
def _field(padding: bytes, shape: tuple[int, int], factor: int) -> tuple[np.ndarray, np.ndarray]:
    """Share of the field of view in each coarse pixel, and its wide mean; many slices have the same."""
    share = (block_sums(~unpack(padding, shape), factor) / factor**2).astype(np.float32)
    return share, np.maximum(_average(share, WIDTH_SHARE * min(share.shape)), 1e-6)


def _average(image: np.ndarray, sd: float) -> np.ndarray:
    """Gaussian average: `scipy.ndimage.gaussian_filter` as a product of matrices, in a fifth of its time."""
    rows, columns = (_gaussian(n, sd) for n in image.shape)
    return in_plane(image, rows, columns)


@functools.lru_cache(maxsize=8)
def _gaussian(size: int, sd: float) -> Bands:
    return bands(ndimage.gaussian_filter1d(np.eye(size), sd, axis=0).astype(np.float32))


def block_sums(image: np.ndarray, factor: int) -> np.ndarray:
    """Sums of factor x factor pixels; what the last rows and columns lack is repeated."""
    short = [(0, -n % factor) for n in image.shape]
    image = np.pad(image, short, mode="edge") if any(n for _, n in short) else image
    exact = np.int32 if image.dtype.itemsize <= 2 and image.dtype.kind != "f" else np.float64
    rows = image[::factor].astype(exact)
    for n in range(1, factor):
        rows += image[n::factor]
    sums = rows[:, ::factor].copy()
    for n in range(1, factor):
        sums += rows[:, n::factor]
    return sums


def _bins(values: np.ndarray) -> np.ndarray:
    """Bin of each of some values from SOME_CONTENT on; the last one holds all from USUAL_CONTENT on."""
    width = (USUAL_CONTENT - SOME_CONTENT) / MEDIAN_BINS
    return np.minimum((values - SOME_CONTENT) / width, MEDIAN_BINS).astype(np.int64)


def _median(counts: np.ndarray, images: Iterator[np.ndarray]) -> float:
    """Median of the values of at least SOME_CONTENT in all `images`, but at most USUAL_CONTENT.

    counts: their histogram (`_bins`). Of the values only those in the middle's bins are held.
    """
    ends = np.cumsum(counts)
    ranks = np.array([(ends[-1] - 1) // 2, ends[-1] // 2])
    first, last = np.searchsorted(ends, ranks, "right")
    if first == MEDIAN_BINS:
        return USUAL_CONTENT
    middle = []
    for image in images:
        values = image[image >= SOME_CONTENT]
        bins = _bins(values)
        middle.append(np.minimum(values[(bins >= first) & (bins <= last)], USUAL_CONTENT))
    return float(np.median(np.sort(np.concatenate(middle))[ranks - (ends[first] - counts[first])]))


def _bridge_gaps(mask: np.ndarray, radius: int) -> np.ndarray:
    """Closing of a 2-D mask by a disc; beyond the border it goes on mirrored."""
    wide = np.pad(mask, radius, mode="symmetric")
    return close_by_disc(wide, radius, (1, 1))[radius:-radius, radius:-radius]


def coarse_factor(shape: tuple[int, int]) -> int:
    """Pixels of a slice of `shape` along each side of one of the grid that a uCT's mask is found on."""
    return math.ceil(max(shape) / COARSE_PIXELS)


def at_full_size(coarse: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    """A slice of a mask on the coarse grid (`coarse_factor`) as a bool slice of `shape`: linear interpolation, cut at
    one half.
    """
    factor = coarse_factor(shape)
    whole = (2 * factor) ** 2
    values = coarse.astype(np.min_scalar_type(whole))
    fine = _interpolate(np.ascontiguousarray(_interpolate(values.T, factor).T), factor)
    return fine[: shape[0], : shape[1]] > whole // 2


def _interpolate(image: np.ndarray, factor: int) -> np.ndarray:
    """2 * factor times the linear interpolation of an image of whole numbers to `factor` times the rows."""
    fine = np.empty((factor, *image.shape), image.dtype)
    before, after = image[[0, *range(len(image) - 1)]], image[[*range(1, len(image)), len(image) - 1]]
    for n in range(factor):
        shift = 2 * n + 1 - factor  # of the new row from the old row's middle, in halves of new rows
        other = before if shift < 0 else after
        fine[n] = (2 * factor - abs(shift)) * image + abs(shift) * other
    return fine.swapaxes(0, 1).reshape(-1, image.shape[1])
