"""Metrics of a super-resolved CT, without a reference and with the truth.

The paper leaves "quantitative evaluation of SR results" as future work (Zheng et al. 2020, section 4). Each
function says what its number means, its unit, which way is better and what fools it. Volumes come in slice by
slice: `Moments` gathers what a metric needs of each slice.
"""

from __future__ import annotations

import itertools
import math

import numpy as np
from scipy.ndimage import correlate1d

from microsr.physics.moments import Moments
from microsr.physics.pooling import average_pool
from microsr.physics.scanner import Kernel, project, sampling
from microsr.physics.spectrum import ROUNDING_POWER, radial_power

SSIM_SIGMA = 1.5
"""Width of SSIM's Gaussian weights, pixels (Wang et al. 2004)."""
SSIM_REACH = 6
"""Pixels beyond the mask that SSIM inside it can see: its weights are cut off at 3.5 sigma."""
MS_SSIM_SIDE = 176
"""Smallest side, pixels, over which MS-SSIM's fifth scale still holds one 11x11 weight window."""
MS_SSIM_TILE = 1024
"""Largest side that is scored at once, pixels; bounds the memory (300 bytes a pixel)."""
MS_SSIM_REACH = 5
"""Pixels beyond its own that each weight window of MS-SSIM spans: 11 x 11."""
MS_SSIM_WEIGHTS = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)
"""Exponents of the scales, finest first (Wang, Simoncelli and Bovik 2003)."""
AIR_HU = -1000.0


def magnify(mask: np.ndarray, scale: int) -> np.ndarray:
    """A clinical mask [rows, columns] on the super-resolved grid, by nearest neighbour: bool [scale * rows, scale *
    columns].
    """
    return np.repeat(np.repeat(np.asarray(mask) != 0, scale, axis=0), scale, axis=1)


def pooled_difference(superresolved: np.ndarray, clinical: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Average-pooled SR minus the clinical input, HU, at each pixel of one slice's lung mask.

    superresolved: HU [scale * rows, scale * columns]; clinical, mask: [rows, columns]. Returns one dimension.
    """
    inside = np.asarray(mask) != 0
    return _pool_like(superresolved, inside)[inside] - np.asarray(clinical, float)[inside]


def _pool_like(superresolved: np.ndarray, like: np.ndarray) -> np.ndarray:
    """f of an SR slice: its means over the clinical pixels, of which `like` has as many."""
    return average_pool(superresolved, len(superresolved) // len(like))


def consistency_rmse(differences: Moments) -> float:
    """How far the SR image departs from its own input: root mean square of `pooled_difference`, HU.

    The test of the paper's l_downsample on unseen data. Best is the truth's own value, which is not 0: the scan has
    noise, blurs, and averages over the slice's thickness. 0 means that pooling gives the input back. What fools it:
    nearest-neighbour up-sampling scores 0 without adding anything, and a network that keeps the scan's noise scores
    below the truth.
    """
    return float(np.sqrt(differences.mean_square))


def scan_in_plane(superresolved: np.ndarray, kernel: Kernel, spacing: tuple[float, float], scale: int) -> np.ndarray:
    """An SR slice as the scanner sees it in-plane: blurred by the kernel's PSF, sampled at the pixels' centres.

    superresolved: HU [scale * rows, scale * columns]; spacing: clinical pixel size (x, y), mm. Returns float32 HU
    [rows, columns].
    """
    shape = (n // scale for n in superresolved.shape)
    axes = [(np.arange(n) * step, n, step) for n, step in zip(shape, spacing[::-1], strict=True)]
    rows, columns = (coarse for coarse, _, _ in axes)
    fine_rows, fine_columns = ((np.arange(scale * n) - (scale - 1) / 2) * step / scale for _, n, step in axes)
    return project(np.asarray(superresolved, np.float32)[None], kernel, rows, columns, fine_rows, fine_columns)[0]


def slice_weights(slice_mm: float, sigma_mm: float) -> np.ndarray:
    """Weights by which a clinical slice averages SR slices `slice_mm` apart; their number is odd, their sum is 1.

    sigma_mm: of the slice profile, a Gaussian. Each SR slice stands for the tissue that is nearer to it than to the
    others; those beyond two standard deviations are left out.
    """
    reach = max(1, math.ceil(2 * sigma_mm / slice_mm - 0.5))
    return sampling(np.zeros(1), slice_mm * np.arange(-reach, reach + 1), sigma_mm)[0].astype(float)


def consistency_scan_rmse(differences: Moments) -> float:
    """How far the SR volume, scanned again, departs from its own input: root mean square of the difference, HU.

    Scanned again: `scan_in_plane`, then `slice_weights` across the slices whose neighbours are super-resolved too; of
    single slices, in-plane alone. Best is the truth's own value, which is not 0: the scan has noise (scanner.noise_hu),
    and a thin slice does not stand for all that a clinical one averages. Tests what training does not optimise: the
    paper's f is average pooling, the scanner is not. What fools it: an image that explains the noise too scores below
    the truth, which is over-fitting, not quality; and a kernel that is not the scan's (config `scanner.kernel`) shifts
    all methods alike.
    """
    return float(np.sqrt(differences.mean_square))


def mean_shift(differences: Moments) -> float:
    """How much brighter the SR lung is than the input lung: mean of `pooled_difference`, HU.

    Nearer to 0 is better; positive: denser than the input. Shows the drift of absolute intensity that instance
    normalisation allows. What fools it: too bright and too dark regions cancel; read it beside consistency_rmse.
    """
    return differences.mean


def spectrum_distance(superresolved: np.ndarray, micro: np.ndarray, scale: int) -> float:
    """How much the fine texture's strength differs from real uCT: mean absolute difference of log10 radial power.

    Over the rings above the clinical Nyquist limit (1 / (2 scale) cycles per SR pixel: finer structure cannot come from
    the input) up to 1/2; no unit: 1 means a factor of 10 in power on average. Lower is better, 0 is uCT's own texture.
    superresolved, micro: 2-D power spectra of the same size from `physics.spectrum.mean_power`. What fools it: it sees
    how much structure of each size there is, not where it is nor what it looks like, so noise shaped like uCT scores 0;
    the uCT's own noise counts as structure; below the rounding to whole HU nothing is seen, which bounds the distance
    of very smooth images; and the rings end at 1/2 cycles per pixel, so that a checkerboard of single pixels, in the
    corner of the spectrum, is left to `checkerboard`.
    """
    if superresolved.shape != micro.shape:
        raise ValueError(f"spectra of different windows cannot be compared: {superresolved.shape}, {micro.shape}")
    frequencies, own = radial_power(superresolved)
    _, reference = radial_power(micro)
    return float(np.mean(np.abs(own - reference)[frequencies > 1 / (2 * scale)]))


def checkerboard(power: np.ndarray, scale: int) -> float:
    """How far a pattern that repeats every 2, 4, ... pixels, up to the scale, stands out: the highest peak of log10
    power, 0 = none.

    Up-sampling by strides leaves a pattern that repeats with the stride, hence power at multiples of 1 / scale cycles
    per pixel along rows, columns and both. Each such point is compared with what its neighbourhood predicts for it; 1
    means ten times the power. Best is what chance gives, up to about 0.2, and 0.3 from a dozen windows. power: 2-D
    power spectrum of windows of a multiple of the scale, at least 32 pixels, from `physics.spectrum.mean_power`. What
    fools it: a pattern that changes with the image hides (nearest-neighbour up-sampling, all of blocks, gets about
    0.5), small windows show a weak one less (64 against 128: half a unit), and a true lattice at such a frequency would
    count.

    There are three predictions, and the highest counts: a quadratic surface through log10 power around the point,
    for which power laws and Gaussian fall-off are no peak, and the means along its row and its column, for which
    the ridge of an edge or a slope is none. The Hann window's own leakage, one frequency step around a peak, is
    left out of them.
    """
    size = len(power)
    logarithm = np.log10(np.maximum(power, ROUNDING_POWER))
    neighbourhoods = _neighbourhoods(max(2, size // 32))
    highest = 0.0
    for u, v in np.ndindex(scale, scale):
        if (u, v) != (0, 0):
            point = np.array([u, v]) * size // scale
            values = (logarithm[tuple((point + offsets).T % size)] @ weights for offsets, weights in neighbourhoods)
            highest = max(highest, logarithm[tuple(point)] - max(values))
    return float(highest)


def _neighbourhoods(reach: int) -> list[tuple[np.ndarray, np.ndarray]]:
    """Three times offsets, 2 to `reach` steps away [number, 2], and weights by which values there predict the
    middle.
    """
    steps = np.arange(-reach, reach + 1)
    around = np.array([(i, j) for i in steps for j in steps if max(abs(i), abs(j)) >= 2])
    i, j = around.T.astype(float)
    surface = np.column_stack([np.ones_like(i), i, j, i * i, i * j, j * j])
    line = steps[np.abs(steps) >= 2]
    mean = np.full(len(line), 1 / len(line))
    row, column = np.column_stack([0 * line, line]), np.column_stack([line, 0 * line])
    return [(around, np.linalg.pinv(surface)[0]), (row, mean), (column, mean)]


def truth_difference(superresolved: np.ndarray, truth: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """SR minus truth, HU, at each pixel of one slice's lung mask; all [rows, columns] on the SR grid, result 1-D."""
    inside = np.asarray(mask) != 0
    return np.asarray(superresolved, float)[inside] - np.asarray(truth, float)[inside]


def psnr(differences: Moments, data_range: float) -> float:
    """Peak signal-to-noise ratio against the truth: 10 log10(data_range^2 / mean square of `truth_difference`), dB.

    Higher is better, infinite for the truth itself. data_range: HU, to be stated with the value: doubling it adds 6 dB.
    What fools it: it rewards blur, as a smooth image loses less than a sharp one whose details are slightly displaced.
    """
    if differences.mean_square == 0:
        return float("inf")
    return float(10 * np.log10(data_range**2 / differences.mean_square))


def rmse(differences: Moments) -> float:
    """Root mean square of `truth_difference`, HU, over the lung or one tissue; NaN where there is none of it.

    Lower is better, 0 for the truth itself. What fools it: as PSNR, it rewards blur.
    """
    return float(np.sqrt(differences.mean_square)) if differences.number else float("nan")


def ssim_map(superresolved: np.ndarray, truth: np.ndarray, mask: np.ndarray, data_range: float) -> np.ndarray:
    """SSIM with the truth (Wang et al. 2004; Gaussian weights, sigma 1.5) at each pixel of one slice's mask, NaN
    elsewhere.

    All [rows, columns] on the SR grid, in HU; data_range: HU. Variances and the covariance are the weighted means of
    equations 14 to 16 there, not the sample ones (scikit-image's own choice), which are larger by 1/120.
    """
    inside = np.asarray(mask) != 0
    found = np.full(inside.shape, np.nan, np.float32)
    if not inside.any():
        return found
    box = tuple(_span(inside.any(axis=1 - axis), inside.shape[axis]) for axis in (0, 1))
    from skimage.metrics import structural_similarity  # only here: most of what uses this module knows no truth

    _, values = structural_similarity(
        np.asarray(superresolved[box], np.float32),
        np.asarray(truth[box], np.float32),
        data_range=data_range,
        gaussian_weights=True,
        sigma=SSIM_SIGMA,
        use_sample_covariance=False,
        full=True,
    )
    found[box] = np.where(inside[box], values, np.nan)
    return found


def ssim_values(superresolved: np.ndarray, truth: np.ndarray, mask: np.ndarray, data_range: float) -> np.ndarray:
    """`ssim_map` at the pixels of the mask, in one dimension; the mean over all slices is `ssim`."""
    return ssim_map(superresolved, truth, mask, data_range)[np.asarray(mask) != 0]


def ssim(values: Moments) -> float:
    """Structural similarity with the truth inside the lung: mean of `ssim_values`, no unit.

    Higher is better, 1 for the truth itself. What fools it: a wide data range makes everything alike in the flat
    parts of the lung, and as PSNR it takes texture that is right in kind but not in place for an error.
    """
    return values.mean if values.number else float("nan")


def ms_ssim_value(superresolved: np.ndarray, truth: np.ndarray, mask: np.ndarray, data_range: float) -> float:
    """MS-SSIM of one slice (Wang, Simoncelli and Bovik 2003; five scales, 11x11 Gaussian, sigma 1.5), no unit.

    All [rows, columns] on the SR grid, in HU; data_range: HU. Over the box around the mask, with the truth put outside
    the mask, so that only the lung counts (by its share of the box; compare methods on one case, not cases); a box
    longer than MS_SSIM_TILE is cut into equal tiles, whose values are averaged by their share of the lung. HU are
    counted from air. NaN without lung, or if the image is too small for five scales (176 pixels). Higher is better, 1
    for the truth itself. What fools it: as SSIM; its coarse scales, which any consistent method gets right, weigh most.
    """
    inside = np.asarray(mask) != 0
    if min(inside.shape) < MS_SSIM_SIDE or not inside.any():
        return float("nan")
    spans = (_span(inside.any(axis=1 - axis), inside.shape[axis], MS_SSIM_SIDE) for axis in (0, 1))
    tiles = [tile for tile in itertools.product(*map(_tiles, spans)) if inside[tile].any()]
    values = [_ms_ssim(superresolved[tile], truth[tile], inside[tile], data_range) for tile in tiles]
    return float(np.average(values, weights=[np.count_nonzero(inside[tile]) for tile in tiles]))


def _ms_ssim(superresolved: np.ndarray, truth: np.ndarray, inside: np.ndarray, data_range: float) -> float:
    true = np.asarray(truth, np.float32) - np.float32(AIR_HU)
    image = np.where(inside, np.asarray(superresolved, np.float32) - np.float32(AIR_HU), true)
    found = 1.0
    for weight in MS_SSIM_WEIGHTS:
        whole, contrast = _similarity(image, true, data_range)
        found *= max(whole if weight == MS_SSIM_WEIGHTS[-1] else contrast, 0.0) ** weight
        image, true = (average_pool(one, 2, np.float32) for one in (image, true))
    return float(found)


def _similarity(image: np.ndarray, truth: np.ndarray, data_range: float) -> tuple[float, float]:
    """Mean SSIM of an image that is reflected at its edges, and the mean of its contrast-structure part where the
    weights lie wholly in the image.

    float32, five times as fast: variances, small differences of large squares, are then good to 0.001 only.
    """
    steps = np.arange(-MS_SSIM_REACH, MS_SSIM_REACH + 1)
    weights = np.exp(-((steps / SSIM_SIGMA) ** 2) / 2)
    weights /= weights.sum()
    whole = (slice(MS_SSIM_REACH, -MS_SSIM_REACH),) * 2

    def mean(values: np.ndarray) -> np.ndarray:
        return correlate1d(correlate1d(values, weights, 0, mode="mirror"), weights, 1, mode="mirror")

    own, other = mean(image), mean(truth)
    variances = np.maximum(mean(image * image) - own * own, 0) + np.maximum(mean(truth * truth) - other * other, 0)
    low, high = (np.float32((share * data_range) ** 2) for share in (0.01, 0.03))
    contrast = (2 * (mean(image * truth) - own * other) + high) / (variances + high)
    similarity = contrast * (2 * own * other + low) / (own * own + other * other + low)
    return float(similarity.mean(dtype=float)), float(contrast[whole].mean(dtype=float))


def _tiles(span: slice) -> list[slice]:
    number = -(-(span.stop - span.start) // MS_SSIM_TILE)
    edges = np.linspace(span.start, span.stop, number + 1).astype(int).tolist()
    return [slice(*pair) for pair in itertools.pairwise(edges)]


def _span(occupied: np.ndarray, length: int, shortest: int = 1) -> slice:
    """The occupied range with room for SSIM's weights, and `shortest` pixels if the image has them."""
    first, last = np.flatnonzero(occupied)[[0, -1]]
    start, stop = max(int(first) - SSIM_REACH, 0), min(int(last) + SSIM_REACH + 1, length)
    if stop - start < shortest:
        start = max(min(start - (shortest - stop + start) // 2, length - shortest), 0)
        stop = min(start + shortest, length)
    return slice(start, stop)
