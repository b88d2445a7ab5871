"""The clinical scanner: in-plane blur by reconstruction kernel, sampling at the pixels' centres, and noise with its
grain.

The one description of it: the simulation scans with it, training may take it as its down-sampling, and the metrics
judge with it. A kernel's isotropic MTF is a mixture of Gaussians, so that every operator is a short sum of separable
matrices. Lengths in mm, frequencies in cycles per mm; named kernels are stated in line pairs per cm, as scanners' data
sheets do.
"""

from __future__ import annotations

import functools
import math
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from scipy.fft import next_fast_len
from scipy.sparse import csr_array
from scipy.special import ndtr

from microsr import config

VARIANCE_RATIO = 2.0
"""Variance of the mixture's second Gaussian PSF over that of the first."""
FLATTEST, STEEPEST = -0.5, 1.0
"""Range of the mixture's `a`, over which mtf10 / mtf50 falls steadily; above it the MTF would rise before it falls."""
REACH = 4.0
"""A Gaussian is cut off at this many standard deviations."""
ALIASES = 4
"""Multiples of the sampling frequency, on either side, whose noise is folded back by the sampling."""
NOISE_MARGIN = 64
"""Pixels by which the noise field is larger than what is cut from it: noise as far apart as this is not correlated."""
NEGLIGIBLE = 1e-9
"""Correlation below which the noise of two slices is drawn as if they had none."""
SMALLEST_HU = -1024
"""Clinical scanners store 12 bits: HU are clipped here."""


@dataclass(frozen=True)
class Kernel:
    """A reconstruction kernel by the frequencies, line pairs per cm, at which its MTF is 50 % and 10 %.

    MTF(f) = (1 + a) g(f) - a g(f)^VARIANCE_RATIO with g a Gaussian: `a` sets the ratio of the two frequencies, g's
    width their scale. A positive `a` lets the MTF fall faster than a Gaussian, as that of measured kernels does (mtf10
    / mtf50 about 1.68; a Gaussian's is 1.82), and gives the PSF a faint negative ring.

    Raises
    ------
    ValueError
        The ratio mtf10 / mtf50 is not one of this family (1.56 to 1.91).
    """

    mtf50: float
    mtf10: float

    def __post_init__(self) -> None:
        """Refuse what the family cannot be."""
        if self.mtf50 <= 0 or not frequency_ratio(STEEPEST) <= self.mtf10 / self.mtf50 <= frequency_ratio(FLATTEST):
            raise ValueError(f"mtf50 {self.mtf50:g} and mtf10 {self.mtf10:g} lp/cm: the ratio must be 1.56 to 1.91")

    @functools.cached_property
    def weights(self) -> tuple[float, float]:
        """Weights of the mixture's Gaussians; their sum is 1."""
        from scipy.optimize import brentq  # only here: the module is large, and many steps need no kernel

        a = brentq(lambda a: frequency_ratio(a) - self.mtf10 / self.mtf50, FLATTEST, STEEPEST)
        return 1 + a, -a

    @functools.cached_property
    def sigmas(self) -> tuple[float, float]:
        """Standard deviations of the Gaussians in the PSF, mm."""
        level = _level(-self.weights[1], 0.5)
        sigma = math.sqrt(-math.log(level) / 2) / (math.pi * self.mtf50 / 10)
        return sigma, sigma * math.sqrt(VARIANCE_RATIO)

    def mtf(self, frequency: np.ndarray | float) -> np.ndarray:
        """MTF at frequencies in cycles per mm: 1 at 0."""
        square = 2 * (np.pi * np.asarray(frequency)) ** 2
        return sum(w * np.exp(-square * s**2) for w, s in zip(self.weights, self.sigmas, strict=True))

    def psf(self, distance: np.ndarray | float) -> np.ndarray:
        """Point-spread function, per mm^2, at distances in mm from its centre; its integral over the plane is 1."""
        square = np.asarray(distance) ** 2
        pairs = zip(self.weights, self.sigmas, strict=True)
        return sum(w * np.exp(-square / (2 * s**2)) / (2 * np.pi * s**2) for w, s in pairs)

    def edge(self, distance: np.ndarray | float) -> np.ndarray:
        """Image of a unit step, at signed distances in mm from it: 0 far below, 1/2 on the step, 1 far above."""
        return sum(w * ndtr(np.asarray(distance) / s) for w, s in zip(self.weights, self.sigmas, strict=True))


def _level(a: float, mtf: float) -> float:
    """The value of g at which (1 + a) g - a g^2 equals `mtf`."""
    return 2 * mtf / (1 + a + math.sqrt((1 + a) ** 2 - 4 * a * mtf))


def frequency_ratio(a: float) -> float:
    """mtf10 / mtf50 of the mixture."""
    return math.sqrt(math.log(_level(a, 0.1)) / math.log(_level(a, 0.5)))


KERNELS = {"B30": Kernel(3.5, 5.9), "D45": Kernel(5.6, 9.4), "lung": Kernel(8.5, 14.3)}
"""B30 (soft) and D45 (sharper): Siemens, from the FDA/DIDSR phantom scripts. lung: a sharp lung kernel; no published
figure is at hand, so its MTF50 is 8.5 lp/cm by choice and its shape that of the other two."""


def sampling(samples: np.ndarray, places: np.ndarray, sigma: float) -> np.ndarray:
    """[samples, places] weights of a Gaussian about each sample, integrated over each place; each row's sum is 1;
    float32.

    samples: coordinates of the samples, mm. places: evenly spaced centres of the fine pixels, mm. sigma: mm.
    """
    step = places[1] - places[0]
    offset = places - np.asarray(samples)[:, None]
    weights = ndtr((offset + step / 2) / sigma) - ndtr((offset - step / 2) / sigma)
    weights[np.abs(offset) > REACH * sigma + step] = 0
    return (weights / weights.sum(axis=1, keepdims=True)).astype(np.float32)


def operators(
    kernel: Kernel, rows: np.ndarray, columns: np.ndarray, fine_rows: np.ndarray, fine_columns: np.ndarray
) -> list[tuple[np.ndarray, np.ndarray]]:
    """The in-plane scan as pairs (R, C) of float32 matrices: an image x is scanned to the sum of R x C^T over the
    pairs.

    rows, columns: coordinates of the clinical pixels' centres, mm; fine_rows, fine_columns: those of x. R is
    [rows, fine_rows], C is [columns, fine_columns].
    """
    pairs = zip(kernel.weights, kernel.sigmas, strict=True)
    return [(np.float32(w) * sampling(rows, fine_rows, s), sampling(columns, fine_columns, s)) for w, s in pairs]


class Projection:
    """The in-plane scan of one plane after another: blur by the kernel's PSF, then sampling at the pixels' centres, so
    that fine detail aliases.

    Coordinates in mm as for `operators`. Beyond the plane the PSF is cut off and its weights are scaled to sum 1.
    """

    def __init__(
        self, kernel: Kernel, rows: np.ndarray, columns: np.ndarray, fine_rows: np.ndarray, fine_columns: np.ndarray
    ) -> None:
        # A PSF spans a few dozen of up to thousands of fine pixels: sparse, it costs a hundredth.
        found = operators(kernel, rows, columns, fine_rows, fine_columns)
        self._pairs = [(csr_array(down), csr_array(across)) for down, across in found]
        self._shape = len(rows), len(columns)

    def __call__(self, plane: np.ndarray) -> np.ndarray:
        """A plane of HU [fine rows, fine columns] as float32 HU [rows, columns]."""
        image = np.zeros(self._shape, np.float32)
        for down, across in self._pairs:
            image += (across @ (down @ plane).T).T
        return image


def project(
    block: np.ndarray,
    kernel: Kernel,
    rows: np.ndarray,
    columns: np.ndarray,
    fine_rows: np.ndarray,
    fine_columns: np.ndarray,
) -> np.ndarray:
    """Scan planes in-plane, as `Projection`.

    block: HU [planes, fine rows, fine columns]; coordinates in mm as for `operators`. Returns float32 HU [planes, rows,
    columns].
    """
    scan_plane = Projection(kernel, rows, columns, fine_rows, fine_columns)
    scanned = np.empty((len(block), len(rows), len(columns)), np.float32)
    for number, plane in enumerate(block):
        scanned[number] = scan_plane(plane)
    return scanned


def noise_power(kernel: Kernel, frequency: np.ndarray | float) -> np.ndarray:
    """Noise power spectrum of filtered back-projection before sampling, ~ f MTF(f)^2; arbitrary scale."""
    return np.abs(frequency) * kernel.mtf(frequency) ** 2


def sampled_noise_power(kernel: Kernel, pixel_mm: float, shape: tuple[int, int]) -> np.ndarray:
    """`noise_power` folded by sampling every `pixel_mm`, at the frequencies of a 2-D FFT [rows, columns]; mean 1.

    What lies above the Nyquist limit of the pixels is noise below it (aliasing), so this is not zero at zero frequency.
    """
    folds = np.arange(-ALIASES, ALIASES + 1) / pixel_mm
    fy, fx = (np.fft.fftfreq(n, pixel_mm) for n in shape)
    power = np.zeros(shape)
    for up in folds:
        for along in folds:
            power += noise_power(kernel, np.hypot(fy[:, None] + up, fx + along))
    return power / power.mean()


@functools.lru_cache(maxsize=16)
def _amplitude(kernel: Kernel, pixel_mm: float, rows: int, columns: int) -> np.ndarray:
    return np.sqrt(sampled_noise_power(kernel, pixel_mm, (rows, columns)))[:, : columns // 2 + 1].astype(np.float32)


def noise(
    shape: tuple[int, int, int], scanner: config.Scanner, slice_mm: float, rng: np.random.Generator
) -> np.ndarray:
    """Noise of filtered back-projection, mean 0, SD 1 whatever the shape; float32 [slices, rows, columns].

    In-plane its power spectrum is ~ f MTF(f)^2, shaped before sampling (see `sampled_noise_power`: the sampled noise
    has the folded spectrum, so it is drawn with that one directly). Slices `slice_mm` apart correlate by the slice
    profile, whose autocorrelation is a Gaussian of variance 2 slice_sigma_mm^2. It is cut from a larger field, whose
    far ends are tied by the Fourier transform.
    """
    field = np.empty(shape, np.float32)
    for z, grain in enumerate(noise_slices(shape, scanner, slice_mm, rng)):
        field[z] = grain
    return field


def mix_slices(slices: int, slice_mm: float, sigma_mm: float) -> tuple[np.ndarray, int]:
    """How the noise of slices `slice_mm` apart is mixed of independent noise, and how many slices it is tied over.

    Float32 [slices, slices], of which each row gives a slice as a sum of the layers up to its own; its correlation is
    that of Gaussian slice profiles.
    """
    gap = slice_mm * np.subtract.outer(np.arange(slices), np.arange(slices))
    correlation = np.exp(-((gap / (2 * sigma_mm)) ** 2))
    correlation[correlation < NEGLIGIBLE] = 0
    mixing = np.linalg.cholesky(correlation + 1e-6 * np.eye(slices)).astype(np.float32)
    return mixing, int(np.count_nonzero(correlation[0]))


def noise_slices(
    shape: tuple[int, int, int], scanner: config.Scanner, slice_mm: float, rng: np.random.Generator
) -> Iterator[np.ndarray]:
    """The slices of `noise`, float32 [rows, columns], one after the other; few are held."""
    slices, rows, columns = shape
    high, wide = (next_fast_len(n + NOISE_MARGIN, real=True) for n in (rows, columns))
    amplitude = _amplitude(KERNELS[scanner.kernel], scanner.pixel_mm, high, wide)
    mixing, reach = mix_slices(slices, slice_mm, scanner.slice_sigma_mm)
    layers: deque[np.ndarray] = deque(maxlen=reach)
    for z in range(slices):
        white = rng.standard_normal((high, wide), dtype=np.float32)
        layers.append(np.fft.irfft2(np.fft.rfft2(white) * amplitude, s=white.shape)[:rows, :columns].astype(np.float32))
        shares = mixing[z, z + 1 - len(layers) : z + 1]
        yield sum(share * layer for share, layer in zip(shares, layers, strict=True))


def add_noise(image: np.ndarray, grain: np.ndarray, noise_hu: float) -> np.ndarray:
    """A slice of a scan with its noise, int16 HU, clipped as a scanner does.

    image: HU without noise [rows, columns]. grain: noise of SD 1, from `noise_slices`. noise_hu: SD of the noise, HU.
    """
    limits = np.iinfo(np.int16)
    values = image + np.float32(noise_hu) * grain
    return np.rint(np.clip(values, SMALLEST_HU, limits.max)).astype(np.int16)


class Sums:
    """Weighted sums of planes that come one after the other, as a slice profile makes of them.

    weights: [sums, planes], the first and the last plane of a sum none before those of the sum before. Few sums are
    held: each is given out when its last plane has come.
    """

    def __init__(self, weights: np.ndarray) -> None:
        self._weights = weights
        self._last = [int(np.flatnonzero(row)[-1]) for row in weights]
        self._begun: dict[int, np.ndarray] = {}

    def add(self, number: int, plane: np.ndarray) -> Iterator[tuple[int, np.ndarray]]:
        """Take the plane `number`; gives the number and values of each sum that is whole by it.

        Plane by plane, so that a sum does not depend on how many come at a time.
        """
        for index in map(int, np.flatnonzero(self._weights[:, number])):
            share = self._weights[index, number] * plane
            self._begun[index] = self._begun[index] + share if index in self._begun else share
            if number == self._last[index]:
                yield index, self._begun.pop(index)
