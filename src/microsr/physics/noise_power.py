"""A scan's noise, measured: its standard deviation and its two-dimensional power spectrum, and noise drawn like it.

Streaks have a direction, which no round spectrum has. The noise is what two neighbouring slices do not have in common,
where lung or soft tissue is even. Frequencies are in cycles per pixel, power in HU^2 per pixel, as in
`physics.spectrum`.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.fft import irfft2, next_fast_len, rfft2
from scipy.ndimage import uniform_filter

from microsr.physics.scanner import Kernel, sampled_noise_power

LAG = 8
"""Pixels, down and along, up to which noise is held to be correlated; a spectrum has twice as many frequencies."""
EVEN = 1.6
"""A pixel lies evenly where its surroundings vary by at most this much more than in the quietest tenth of them."""
SMOOTHED, SURROUNDINGS, BACKGROUND, LOCAL = 3, 5, 7, 15
"""Sides of squares, pixels: what is averaged so that structure stands out of the noise; what must vary little; what is
taken off a slice before it is compared with the next; where noise is taken for the same.
"""
HIGH = 0.25
"""Slices are compared from this frequency on: what is coarser is vessels and walls as well."""
COARSE = 0.125
"""Below this frequency, of 8 pixels and more, structure that changes from slice to slice is stronger than noise."""
SHAPE_FROM = 0.2
"""Spectra are compared with a kernel's from this frequency on, for the same reason."""
FEWEST, FEWEST_OF_SPECTRUM = 300, 2000
"""Even pixels from which a standard deviation, and a spectrum, is told."""
FAINT = 0.02
"""Power below this share of the mean is not told apart."""
RATIO = 1.68
"""mtf10 / mtf50 of measured kernels, which a fitted one is given."""
MTF50 = np.geomspace(2.0, 16.0, 61)
"""Kernels, by their mtf50 in lp/cm, that a spectrum is compared with."""
UNRELATED = 0.05
"""A correlation of neighbouring slices below this says only that the slice profile is narrow."""


@dataclass(frozen=True)
class NoisePower:
    """The noise of a scan.

    power: HU^2 [2 LAG, 2 LAG], zero frequency first, rows first. correlation: of the noise in neighbouring slices.
    pixels: how many it was measured on. local: 10th and 90th percentile of its standard deviation over places, HU.
    """

    power: np.ndarray
    correlation: float
    pixels: int
    local: tuple[float, float]

    @property
    def sd(self) -> float:
        """Standard deviation, HU."""
        return math.sqrt(self.power.mean())

    @property
    def streaks(self) -> tuple[float, float]:
        """How many times as long as wide the noise's grains are, 1 if round; and the direction of their length:
        degrees from a row's direction towards a column's, from -90 to below 90.
        """
        step = np.fft.fftfreq(len(self.power))
        inner = np.abs(step) < 0.5  # the Nyquist frequency has no sign
        power, step = self.power[np.ix_(inner, inner)], step[inner]
        down, along = np.meshgrid(step, step, indexing="ij")
        mixed = (power * along * down).sum()
        values, axes = np.linalg.eigh([[(power * along**2).sum(), mixed], [mixed, (power * down**2).sum()]])
        angle = math.degrees(math.atan2(*axes[::-1, 0]))  # along it the image changes least
        return math.sqrt(values[1] / max(values[0], 1e-12)), (angle + 90) % 180 - 90

    def mtf50(self, pixel_mm: float) -> float:
        """The mtf50, lp/cm, of the kernel whose noise is most like this: by the spectrum, averaged over directions."""
        frequency, power, weight = _rings(self.power)
        fine = frequency >= SHAPE_FROM

        def misfit(mtf50: float) -> float:
            other = _rings(expected_power(Kernel(mtf50, RATIO * mtf50), pixel_mm))[1]
            floor = FAINT * power.mean(), FAINT * other.mean()
            difference = np.log((power + floor[0])[fine] / (other + floor[1])[fine])
            middle = np.average(difference, weights=weight[fine])
            return float(np.average((difference - middle) ** 2, weights=weight[fine]))

        return min(MTF50.tolist(), key=misfit)

    def slice_sigma_mm(self, slice_mm: float) -> float | None:
        """Slice profile as a Gaussian's sigma, mm, by how the noise of neighbouring slices correlates; None: it hardly
        does.
        """
        if self.correlation < UNRELATED:
            return None
        return slice_mm / (2 * math.sqrt(-math.log(self.correlation)))


def expected_power(kernel: Kernel, pixel_mm: float) -> np.ndarray:
    """The noise power of a kernel as a measurement shows it, [2 LAG, 2 LAG], mean 1: as blurred by what is cut off."""
    whole = np.fft.fftshift(np.fft.ifft2(sampled_noise_power(kernel, pixel_mm, (8 * LAG, 8 * LAG))).real)
    near = slice(3 * LAG, 5 * LAG)
    return np.maximum(np.fft.fft2(np.fft.ifftshift(whole[near, near] * _taper())).real, 0)


def _taper() -> np.ndarray:
    """Weights of correlations, which end at LAG: [2 LAG, 2 LAG]."""
    weights = 0.5 + 0.5 * np.cos(np.pi * np.arange(-LAG, LAG) / LAG)
    return np.outer(weights, weights)


def _rings(power: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Frequency, mean power and number of values of each ring of directions."""
    size = len(power)
    step = np.fft.fftfreq(size) * size
    ring = np.rint(np.hypot(step[:, None], step[None, :])).astype(int).ravel()
    count = np.bincount(ring)
    means = np.bincount(ring, np.maximum(power, 1e-6).ravel()) / np.maximum(count, 1)
    there = np.flatnonzero(count)[1:]
    return there / size, means[there], count[there]


class _Correlations:
    """Mean products of an image's pixels up to LAG apart, over all pairs of which both lie in a mask."""

    def __init__(self) -> None:
        self._products, self._pairs = 0.0, 0.0

    def add(self, image: np.ndarray, mask: np.ndarray) -> None:
        self._products = self._products + _correlate(np.where(mask, image, 0))
        self._pairs = self._pairs + _correlate(mask.astype(float))

    @property
    def power(self) -> np.ndarray:
        """Their Fourier transform, tapered: [2 LAG, 2 LAG], not below 0."""
        means = self._products / np.maximum(self._pairs, 1) * _taper()
        return np.maximum(np.fft.fft2(np.fft.ifftshift(means)).real, 0).astype(float)


def _correlate(image: np.ndarray) -> np.ndarray:
    """Sums of products of pixels that lie -LAG to LAG - 1 rows and columns apart: [2 LAG, 2 LAG]."""
    size = [next_fast_len(n + LAG, real=True) for n in image.shape]
    found = irfft2(np.abs(rfft2(image, size)) ** 2, size)
    return np.roll(found, (LAG, LAG), (0, 1))[: 2 * LAG, : 2 * LAG]


def measure(
    pairs: Sequence[tuple[np.ndarray, np.ndarray]], inside: Callable[[int, np.ndarray], np.ndarray]
) -> NoisePower | None:
    """The noise of pairs of neighbouring slices [rows, columns], HU, of one size; None: they hold too little to tell.

    inside: from a pair's number and the smoothed mean of its slices, the region that is looked at. Of it, what is even
    counts. What both slices of a pair show alike falls out of their difference; so does the share of the noise that
    their profiles have in common, which is told by how fine structure correlates. What structure is left counts as
    noise.
    """
    spreads, regions = [], []
    for number, (first, second) in enumerate(pairs):
        smooth = uniform_filter((first + second) / 2, SMOOTHED, mode="nearest")
        mean, square = (uniform_filter(x, SURROUNDINGS, mode="nearest") for x in (smooth, smooth**2))
        spreads.append(np.sqrt(np.maximum(square - mean**2, 0)))
        regions.append(inside(number, smooth))
    everywhere = np.concatenate([spread[region] for spread, region in zip(spreads, regions, strict=True)])
    if not everywhere.size:
        return None
    limit = EVEN * np.percentile(everywhere, 10)
    apart, single, local, pixels = _Correlations(), _Correlations(), [], 0
    for (first, second), spread, region in zip(pairs, spreads, regions, strict=True):
        even = region & (spread <= limit)
        if not even.any():
            continue
        pixels += int(even.sum())
        difference = first - second
        difference = np.where(even, difference - difference[even].mean(), 0)
        apart.add(difference, even)
        for image in (first, second):
            single.add(image - _mean_in(image, even, BACKGROUND), even)
        local.append(np.sqrt(_mean_in(difference**2, even, LOCAL)[even]))
    power, both = apart.power, single.power
    step = np.fft.fftfreq(2 * LAG)
    fine = np.hypot(step[:, None], step[None, :]) >= HIGH
    if pixels < FEWEST or not power.any() or not both[fine].any():
        return None
    correlation = float(np.clip(1 - power[fine].sum() / (2 * both[fine].sum()), 0, 0.95))
    own = 2 * (1 - correlation)
    low, high = np.percentile(np.concatenate(local), (10, 90)) / math.sqrt(own)
    return NoisePower(_without_coarse(power / own), correlation, pixels, (float(low), float(high)))


def _without_coarse(power: np.ndarray) -> np.ndarray:
    """The spectrum, in which what is coarser than COARSE counts for no more than what is as coarse."""
    step = np.fft.fftfreq(len(power))
    ring = np.rint(np.hypot(step[:, None], step[None, :]) * len(power))
    last = round(COARSE * len(power))
    return np.where(ring < last, np.minimum(power, power[ring == last].mean()), power)


def _mean_in(image: np.ndarray, mask: np.ndarray, size: int) -> np.ndarray:
    """Mean of the pixels of a mask in the square around each pixel."""
    sums, share = (uniform_filter(x, size, mode="constant") for x in (np.where(mask, image, 0), mask.astype(float)))
    return sums / np.maximum(share, 1e-6)


def draw(power: np.ndarray, shape: tuple[int, int], random: np.random.Generator) -> np.ndarray:
    """Gaussian noise with a measured spectrum, float32 [rows, columns], mean 0, of the variance `power.mean()`.

    power: HU^2 [size, size], zero frequency first. It is cut from a larger field, as `physics.scanner.noise` is.
    """
    size = len(power)
    high, wide = (next_fast_len(n + size, real=True) for n in shape)
    white = random.standard_normal((high, wide), dtype=np.float32)
    amplitude = _amplitude(np.asarray(power, float).tobytes(), size, high, wide)
    return np.fft.irfft2(np.fft.rfft2(white) * amplitude, s=white.shape)[: shape[0], : shape[1]].astype(np.float32)


@functools.lru_cache(maxsize=64)
def _amplitude(power: bytes, size: int, rows: int, columns: int) -> np.ndarray:
    """Root of the spectrum at the frequencies of a larger field: its correlations, with none beyond them."""
    near = np.fft.fftshift(np.fft.ifft2(np.frombuffer(power).reshape(size, size)).real)
    field = np.zeros((rows, columns))
    field[:size, :size] = near
    wide = np.fft.rfft2(np.roll(field, (-(size // 2), -(size // 2)), (0, 1))).real
    return np.sqrt(np.maximum(wide, 0)).astype(np.float32)
