"""Where there is lung in a clinical CT, and specimen in a uCT volume: the regions that patches and metrics come from."""

from __future__ import annotations

import math

import numpy as np
from scipy import ndimage
from skimage.morphology import convex_hull_image
from skimage.transform import resize

from microsr import UserError
from microsr.config import ClinicalVolume

AIR_BELOW_HU = -950.0
"""A region of which the greater part is below this is air (around the patient, trachea, stomach), not lung."""
LARGEST_HOLE_MM = 30.0
"""Structures wholly within the lung in a slice are filled up to this diameter (a T1 tumour)."""
SOFT_ABOVE_HU = -300.0
"""Soft tissue, which gives the outline of the body."""
BODY_PIXELS, BODY_SLICES = 128, 32
"""The body's outline is looked at on about this many pixels a side and this many slices."""
SMALLEST_PART = 0.05
"""Connected parts smaller than this share of the largest are dropped."""
COARSE_PIXELS = 256
"""The specimen's outline is found on a grid of about this many pixels a side."""
WIDTH_SHARE = 0.02
"""SD of the Gaussian that averages over air spaces, as a share of the image's shorter side."""
SOME_CONTENT, USUAL_CONTENT = 0.05, 0.3
"""Least mean tissue content of inflated lung, and that of a usual specimen: more than half of it is specimen in any case."""
PADDING_SHARE = 5e-4
"""Smallest padded region, as a share of the slice."""


def lung_mask(
    hu: np.ndarray, spacing: tuple[float, float, float], settings: ClinicalVolume, padding: np.ndarray
) -> np.ndarray:
    """Lung of a clinical CT, with vessels, small airways and tumours inside, without trachea and outside air.

    hu: int16 [slices, rows, columns]. spacing: x, y, z, mm. padding: true outside the reconstructed field (never lung).
    Lung and outside air are told apart by value, not by touching the border, so that a crop inside the lung works as well.
    Returns bool [slices, rows, columns].

    Raises
    ------
    UserError
        There is no lung (no file name: the caller knows it).
    """
    lung = np.zeros(hu.shape, bool)
    for z in range(hu.shape[0]):
        lung[z] = _aerated(hu[z], padding[z], settings.lung_below_hu)
    lung = _large_parts(_within_body(lung, hu, padding))
    if not lung.any():
        raise UserError(
            f"holds no lung: nothing below {settings.lung_below_hu:g} HU but air below {AIR_BELOW_HU:g} HU; give a chest CT "
            "in HU, or raise volumes.clinical.lung_below_hu"
        )
    for z in np.flatnonzero(lung.any(axis=(1, 2))):
        lung[z] = _closed(lung[z], spacing[:2], settings.closing_mm) & ~padding[z]
    return lung


def _aerated(hu: np.ndarray, padding: np.ndarray, below: float) -> np.ndarray:
    """Connected regions below the threshold in a slice that are not mostly air."""
    # A sharp kernel's noise reaches far beyond tissue and air; padding must not make its neighbours look like lung.
    smooth = ndimage.uniform_filter(np.where(padding, 0, hu).astype(np.float32), 3)
    low = (smooth < below) & (hu < below) & ~padding  # both, since smoothing alone opens thin walls
    labels, count = ndimage.label(low)
    if not count:
        return low
    core = labels * ndimage.binary_erosion(low, np.ones((3, 3)), border_value=1)  # the rim is partly tissue
    of_air = np.bincount(core[smooth < AIR_BELOW_HU], minlength=count + 1)
    keep = of_air <= 0.5 * np.bincount(core.ravel(), minlength=count + 1)
    keep[0] = False
    return keep[labels]


def _large_parts(mask: np.ndarray) -> np.ndarray:
    """Connected parts of a volume that are not small against the largest."""
    labels, count = ndimage.label(mask)
    if count < 2:
        return mask
    size = np.bincount(labels.ravel())
    size[0] = 0
    return (size >= SMALLEST_PART * size.max())[labels]


def _within_body(lung: np.ndarray, hu: np.ndarray, padding: np.ndarray) -> np.ndarray:
    """Without parts outside the body's convex outline (mattress, table, clothes).

    A crop, whose border is not mostly air and padding, shows no whole outline: there all parts stay.
    """
    step = math.ceil(max(hu.shape[1:]) / BODY_PIXELS)
    labels, count = ndimage.label(lung)
    chosen = np.flatnonzero(lung.any(axis=(1, 2)))[:: max(1, len(hu) // BODY_SLICES)]
    size, within = np.zeros(count + 1), np.zeros(count + 1)
    air_at_border = []
    for z in chosen:
        air = (hu[z] < AIR_BELOW_HU) | padding[z]
        air_at_border.append(np.concatenate([air[0], air[-1], air[:, 0], air[:, -1]]).mean())
        part = labels[z, ::step, ::step]
        size += np.bincount(part.ravel(), minlength=count + 1)
        soft, _ = ndimage.label(hu[z, ::step, ::step] > SOFT_ABOVE_HU)
        if soft.any():
            body = soft == np.bincount(soft[soft > 0]).argmax()
            within += np.bincount(part[convex_hull_image(body)], minlength=count + 1)
    if not len(chosen) or np.median(air_at_border) < 0.5:
        return lung
    inside = within > 0.5 * size
    inside[0] = False
    return inside[labels]


def _closed(mask: np.ndarray, pixel: tuple[float, float], closing_mm: float) -> np.ndarray:
    """Closing of a slice by a disc of diameter `closing_mm`, then holes filled up to LARGEST_HOLE_MM; pixel: x, y, mm."""
    margin = [math.ceil(closing_mm / p) + 1 for p in pixel[::-1]]
    ends = [np.flatnonzero(mask.any(axis=axis))[[0, -1]] for axis in (1, 0)]
    box = tuple(slice(max(0, first - m), last + 1 + m) for (first, last), m in zip(ends, margin, strict=True))
    part = mask[box]
    if closing_mm > 0:
        # Lung and wall continue beyond the image's border, so that neither grows nor shrinks where it cuts them.
        wide = np.pad(part, [(m, m) for m in margin], mode="edge")
        grown = ndimage.distance_transform_edt(~wide, pixel[::-1]) <= closing_mm / 2
        if not grown.all():
            grown = ndimage.distance_transform_edt(grown, pixel[::-1]) > closing_mm / 2
        part = part | grown[margin[0] : -margin[0], margin[1] : -margin[1]]
    closed = mask.copy()
    closed[box] = _filled(part, math.pi / 4 * LARGEST_HOLE_MM**2 / (pixel[0] * pixel[1]))
    return closed


def _filled(mask: np.ndarray, largest: float = np.inf) -> np.ndarray:
    """A 2-D mask whose holes of at most `largest` pixels are filled."""
    holes, count = ndimage.label(ndimage.binary_fill_holes(mask) & ~mask)
    if not count:
        return mask
    fill = np.bincount(holes.ravel()) <= largest
    fill[0] = False
    return mask | fill[holes]


def padded(grey: np.ndarray, fill: tuple[float, ...]) -> np.ndarray:
    """Pixels of a 2-D slice outside the reconstructed field: flat regions of one of the values `fill` at the border."""
    flat = np.isin(grey, fill)
    border = np.zeros(grey.shape, bool)
    border[[0, -1], :] = border[:, [0, -1]] = True
    if not (flat & border).any():
        return np.zeros(grey.shape, bool)
    labels, _ = ndimage.label(flat)
    size = np.bincount(labels.ravel())
    outside = np.zeros(size.size, bool)
    outside[labels[border]] = True
    outside &= size >= PADDING_SHARE * grey.size
    outside[0] = False
    return outside[labels]


def specimen_outline(
    volume: np.ndarray, levels: tuple[float, float], independent: bool, fill: tuple[float, ...]
) -> np.ndarray:
    """Coarse mask of a specimen with its air spaces; `at_full_size` brings it back to a slice's size.

    volume: grey values [slices, rows, columns]. levels: grey values of air and of tissue. independent: the slices do not
    belong together. fill: values of pixels outside the field of view. Returns bool [slices, coarse rows, coarse columns].
    Septa are often thinner than a voxel, so what counts is the local mean of the tissue content, (grey - air) / (tissue - air),
    over an area wider than an air space.
    """
    factor = math.ceil(max(volume.shape[1:]) / COARSE_PIXELS)
    air, tissue = levels
    fine, around = [], []
    for grey in volume:
        field = ~padded(grey, fill)
        content = _block_mean(np.where(field, (grey.astype(np.float32) - air) / (tissue - air), 0), factor)
        share = _block_mean(field.astype(np.float32), factor)
        width = WIDTH_SHARE * min(share.shape)
        inside = np.maximum(ndimage.gaussian_filter(share, width), 1e-6)
        around.append(np.where(share > 0.5, ndimage.gaussian_filter(content, width) / inside, 0))
        fine.append(ndimage.gaussian_filter(content, 1))
    some = np.array(around)[np.array(around) >= SOME_CONTENT]
    if not some.size:
        return np.zeros((len(volume), *share.shape), bool)
    least = min(float(np.median(some)), USUAL_CONTENT) / 2
    # The wide mean says where specimen is, tissue itself where it ends.
    radius = math.ceil(2 * width)
    outline = np.array(
        [_filled((a >= least) & _bridged(f >= least, radius)) for a, f in zip(around, fine, strict=True)]
    )
    return np.array([_large_parts(one) for one in outline]) if independent else _large_parts(outline)


def _bridged(mask: np.ndarray, radius: int) -> np.ndarray:
    """Closing of a 2-D mask by a disc; beyond the border it goes on mirrored."""
    wide = np.pad(mask, radius, mode="symmetric")
    if not wide.any():
        return mask
    grown = ndimage.distance_transform_edt(~wide) <= radius
    if not grown.all():
        grown = ndimage.distance_transform_edt(grown) > radius
    return grown[radius:-radius, radius:-radius]


def at_full_size(coarse: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    """A coarse slice of `specimen_outline` as a bool slice of `shape`."""
    factor = math.ceil(max(shape) / COARSE_PIXELS)
    fine = resize(coarse.astype(np.float32), tuple(n * factor for n in coarse.shape), order=1, mode="edge")
    return fine[: shape[0], : shape[1]] > 0.5


def _block_mean(image: np.ndarray, factor: int) -> np.ndarray:
    rows, columns = (math.ceil(n / factor) for n in image.shape)
    padding = [(0, rows * factor - image.shape[0]), (0, columns * factor - image.shape[1])]
    return np.pad(image, padding, mode="edge").reshape(rows, factor, columns, factor).mean(axis=(1, 3))
