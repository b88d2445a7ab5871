"""Masks of volumes that are whole in memory, by SciPy's plain tools: what the masks found slice by slice must be equal
to.
"""

import math

import numpy as np
from scipy import ndimage
from skimage.morphology import convex_hull_image
from skimage.transform import resize

from microsr.preprocessing.masks import (
    AIR_BELOW_HU,
    BODY_PIXELS,
    BODY_SLICES,
    COARSE_PIXELS,
    PADDING_SHARE,
    SMALLEST_COMPONENT,
    SOFT_ABOVE_HU,
    SOME_CONTENT,
    USUAL_CONTENT,
    WIDTH_SHARE,
)


def hu_and_padding(grey, declared):
    """HU as int16 with padding turned into air, and the padding."""
    fill = tuple(v for v in (declared, grey.min()) if v is not None and v <= -1000)
    padding = np.array([(image < -1500) | padded(image, fill) for image in grey])
    return np.where(padding, -1000, np.clip(np.rint(grey), -32768, 32767)).astype(np.int16), padding


def lung_mask(hu, spacing, settings, padding):
    lung = np.zeros(hu.shape, bool)
    for z in range(hu.shape[0]):
        lung[z] = _aerated(hu[z], padding[z], settings.lung_below_hu)
    lung = _large_parts(_within_body(lung, hu, padding))
    for z in np.flatnonzero(lung.any(axis=(1, 2))):
        lung[z] = _closed(lung[z], spacing[:2], settings.closing_mm) & ~padding[z]
    return lung


def _aerated(hu, padding, below):
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


def _large_parts(mask):
    labels, count = ndimage.label(mask)
    if count < 2:
        return mask
    size = np.bincount(labels.ravel())
    size[0] = 0
    return (size >= SMALLEST_COMPONENT * size.max())[labels]


def _within_body(lung, hu, padding):
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


def _closed(mask, pixel, closing_mm):
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
    closed[box] = _filled(part, math.pi / 4 * 30**2 / (pixel[0] * pixel[1]))
    return closed


def _filled(mask, largest=np.inf):
    holes, count = ndimage.label(ndimage.binary_fill_holes(mask) & ~mask)
    if not count:
        return mask
    fill = np.bincount(holes.ravel()) <= largest
    fill[0] = False
    return mask | fill[holes]


def padded(grey, fill):
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


def specimen_outline(volume, levels, independent, fill):
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


def _bridged(mask, radius):
    wide = np.pad(mask, radius, mode="symmetric")
    if not wide.any():
        return mask
    grown = ndimage.distance_transform_edt(~wide) <= radius
    if not grown.all():
        grown = ndimage.distance_transform_edt(grown) > radius
    return grown[radius:-radius, radius:-radius]


def at_full_size(coarse, shape):
    factor = math.ceil(max(shape) / COARSE_PIXELS)
    fine = resize(coarse.astype(np.float32), tuple(n * factor for n in coarse.shape), order=1, mode="edge")
    return fine[: shape[0], : shape[1]] > 0.5


def _block_mean(image, factor):
    rows, columns = (math.ceil(n / factor) for n in image.shape)
    padding = [(0, rows * factor - image.shape[0]), (0, columns * factor - image.shape[1])]
    return np.pad(image, padding, mode="edge").reshape(rows, factor, columns, factor).mean(axis=(1, 3))
