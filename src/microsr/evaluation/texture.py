"""Texture of a super-resolved CT, without a reference: where there should be none, and how its HU are spread.

A vessel is filled with blood and an airway with air, so that a slice through either is flat at every scale; real-lung
trials filled both with grain that no spectrum taken from the whole lung shows.
"""

from __future__ import annotations

import numpy as np
from scipy.ndimage import minimum_filter, uniform_filter

from microsr.physics.moments import Moments
from microsr.physics.tissues import SOLID_HU

AIRWAY_HU = -950.0
"""Below this in the mean of 3x3 clinical pixels it is air: normal parenchyma is at -880 to -820."""
HISTOGRAM_HU = (-1200, 4000)
"""What is beyond counts as the nearest of these."""


def solid_places(clinical: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Clinical pixels that are solid with all their 8 neighbours (HU above SOLID_HU) and inside the mask: bool [rows,
    columns].

    Neighbours that are solid keep the border of the vessel, which is no texture, out of the pixel.
    """
    solid = (np.asarray(clinical) > SOLID_HU) & (np.asarray(mask) != 0)
    return minimum_filter(solid, 3, mode="constant", cval=False)


def airway_places(clinical: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Clinical pixels whose 3x3 neighbourhood has a mean below AIRWAY_HU and lies inside the mask: bool [rows,
    columns].

    The mean, as single pixels of air and of parenchyma differ by about four times the noise only.
    """
    air = uniform_filter(np.asarray(clinical, float), 3, mode="nearest") < AIRWAY_HU
    return air & minimum_filter(np.asarray(mask) != 0, 3, mode="constant", cval=False)


def detail_at(superresolved: np.ndarray, places: np.ndarray) -> np.ndarray:
    """What a plane through each clinical pixel's block does not explain, HU, in the blocks of the clinical pixels
    `places`; 1-D.

    superresolved: HU [scale * rows, scale * columns]. Scaled by sqrt(n / (n - 3)), n pixels a block, for the plane's
    three coefficients, so that white noise of standard deviation s has root mean square s. A gradient across the block
    is no texture; a wave shorter than the block is.
    """
    rows, columns = places.shape
    scale = len(superresolved) // rows
    blocks = np.reshape(superresolved, (rows, scale, columns, scale)).transpose(0, 2, 1, 3)[places]
    values = blocks.reshape(len(blocks), scale * scale)
    y, x = np.indices((scale, scale)) - (scale - 1) / 2
    plane, _ = np.linalg.qr(np.column_stack([np.ones(scale * scale), y.ravel(), x.ravel()]))
    return ((values - values @ plane @ plane.T) * np.sqrt(scale**2 / (scale**2 - 3))).ravel()


def _spread(detail: Moments) -> float:
    return float(np.sqrt(detail.mean_square)) if detail.number else float("nan")


def texture_in_vessels(detail: Moments) -> float:
    """Grain where the input says solid tissue: root mean square of `detail_at` the `solid_places`, HU.

    Best is the noise of the uCT (a tissue's real micro-structure is some tens of HU at most), not 0; NaN if the slices
    hold no vessel of three clinical pixels. What fools it: smooth images score 0, bicubic too, so read it beside
    spectrum_distance; calcium and air in a tumour are real detail; a vessel lost altogether (turned to alveoli) counts
    as grain, which is right, but a vessel turned to smooth air scores 0; what the input does not show as solid is not
    looked at.
    """
    return _spread(detail)


def texture_in_airways(detail: Moments) -> float:
    """Grain where the input says air: root mean square of `detail_at` the `airway_places`, HU.

    Best is the noise of the uCT, not 0; NaN if the slices hold no airway of about two clinical pixels across. What
    fools it: smooth images score 0; severe emphysema and trapped air are as black as an airway and have real walls.
    """
    return _spread(detail)


def histogram(windows: np.ndarray) -> np.ndarray:
    """Shares of the whole HU in HISTOGRAM_HU among the pixels of `windows` (any shape, HU); sum 1."""
    low, high = HISTOGRAM_HU
    values = np.clip(np.rint(windows), low, high).astype(int).ravel() - low
    return np.bincount(values, minlength=high - low + 1) / values.size


def histogram_distance(superresolved: np.ndarray, micro: np.ndarray) -> float:
    """How far HU would have to be moved to turn one histogram into the other: Wasserstein-1 distance, HU (Rubner et al.
    2000).

    Lower is better, 0: the SR lung holds each HU as often as real uCT. superresolved, micro: from `histogram`. What
    fools it: it does not see where a pixel is, so that shuffled pixels score as well as lung; a lung less inflated than
    the specimen is shifted through no fault of the method, and so is one with more vessels in its windows; the uCT's
    own noise widens the target.
    """
    # As scipy.stats.wasserstein_distance, whose module takes a second to load: the area between the cumulative shares.
    own, reference = np.cumsum(superresolved), np.cumsum(micro)
    return float(np.sum(np.abs(own / own[-1] - reference / reference[-1])))
