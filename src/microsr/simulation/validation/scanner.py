"""The simulated clinical scanner, measured as a physicist measures a real one: MTF from a slanted edge, noise power in
air.

MTF and noise power are computed by pylinac, which knows nothing of this project. A real scan in two kernels tests
whether the blurs of this family are those of a scanner.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import SimpleITK as sitk
from pylinac.core.mtf import EdgeSpreadFunctionMTF
from pylinac.core.nps import noise_power_spectrum_1d, noise_power_spectrum_2d, radial_average
from scipy.interpolate import PchipInterpolator
from scipy.optimize import least_squares
from scipy.signal.windows import hann

from microsr import config
from microsr.core.errors import UserError
from microsr.physics.scanner import (
    FLATTEST,
    KERNELS,
    STEEPEST,
    Kernel,
    frequency_ratio,
    noise,
    project,
    sampled_noise_power,
    sampling,
)
from microsr.simulation.grid import Grid
from microsr.simulation.validation.checks import NONE, Check

DIDSR = "FDA/DIDSR phantom scripts"
CHOSEN = "chosen for this project: no published figure at hand"
PONTANA = "Pontana 2015, air at 120 kVp: soft 18, lung kernel 38 HU"
PUBLISHED = {"B30": (3.5, 5.9), "D45": (5.6, 9.4)}
"""MTF50 and MTF10, lp/cm."""
BIN_MM = 0.03125
"""Width of the bins into which a slanted edge's pixels are sorted: fine, for their own blur to be small."""
EDGE = 8
"""Pixels in which the slanted edge is drawn, along a clinical one."""
ROI = 64
"""Side of a region in which noise is measured, pixels."""

Transfer = Callable[[np.ndarray], np.ndarray]
"""A filter: what it passes at frequencies in cycles per mm."""


def measure_mtf(kernel: Kernel, pixel_mm: float) -> EdgeSpreadFunctionMTF:
    """pylinac's MTF, frequency in cycles per mm, of an edge slanted by 3 degrees and scanned with `kernel`.

    The slant spreads the pixels' distances from the edge, so that the MTF is seen beyond the pixels' Nyquist limit.
    """
    n = 64
    coarse = Grid.around((0, 0, 0), (pixel_mm,) * 3, (1, n, n))
    fine = Grid.around((0, 0, 0), (pixel_mm / EDGE,) * 3, (1, n * EDGE, n * EDGE))
    slant = math.radians(3)

    def distance(grid: Grid) -> np.ndarray:
        return grid.x * math.cos(slant) - grid.y[:, None] * math.sin(slant)

    tissue = np.clip(distance(fine) / fine.spacing[0] + 0.5, 0, 1).astype(np.float32)
    image = project(tissue[None], kernel, coarse.y, coarse.x, fine.y, fine.x)[0]
    near, middle = distance(coarse), 6.0
    inside = (np.abs(near) < middle) & (np.abs(coarse.y[:, None]) < 0.4 * n * pixel_mm)
    index = ((near[inside] + middle) / BIN_MM).astype(int)
    count = np.bincount(index)
    filled = count > 0
    # The pixels of a bin do not lie about its middle: their mean distance is where their mean is the edge's value.
    where, value = (np.bincount(index, v[inside])[filled] / count[filled] for v in (near, image))
    even = np.arange(-middle + BIN_MM, middle - BIN_MM, BIN_MM)
    edge = PchipInterpolator(where, value)(even)
    return EdgeSpreadFunctionMTF(
        [edge], sample_spacing=BIN_MM, num_samples=4096, windowing=None
    )  # no noise to suppress


def check_mtf(pixel_mm: float) -> list[Check]:
    """MTF50, MTF10 and the MTF's curve of each kernel, from a simulated edge."""
    checks = []
    for name, kernel in KERNELS.items():
        measured = measure_mtf(kernel, pixel_mm)
        source = DIDSR if name in PUBLISHED else CHOSEN
        for place, percent in enumerate((50, 10)):
            published = PUBLISHED.get(name)
            expected = (0.98 * published[place], 1.02 * published[place]) if published else NONE
            value = 10 * measured.relative_resolution(percent)
            checks.append(Check(f"mtf{percent}", name, value, expected, "lp/cm", source))
        for f in np.arange(0, 2.01, 0.1):
            value, model = float(np.interp(f, measured.freq, measured.mtf)), float(kernel.mtf(f))
            expected = (model - 0.02, model + 0.02)
            checks.append(Check("mtf", name, value, expected, "1", "the kernel's MTF in closed form", x=10 * f))
    return checks


def check_slice_profile(scanner: config.Scanner) -> list[Check]:
    """Full width at half maximum of the slice profile: how much a thin sheet at z adds to a slice."""
    z = np.arange(-200, 201) * 0.01
    profile = sampling(np.array([0.0]), z, scanner.slice_sigma_mm)[0]
    width = float(np.ptp(z[profile >= profile.max() / 2]))
    source = "Sensation 64 at nominal 0.6 mm, FWHM 0.66-0.69 mm"
    return [Check("slice_profile_fwhm", "scanner", width, (0.65, 0.70), "mm", source)]


def check_noise(scanner: config.Scanner, slice_mm: float, rng: np.random.Generator) -> list[Check]:
    """Standard deviation of the noise in simulated air, and its power spectrum for each kernel, by pylinac."""
    checks, pixel = [], scanner.pixel_mm
    for name, kernel in KERNELS.items():
        used = scanner.model_copy(update={"kernel": name})
        air = -1000 + scanner.noise_hu * noise((30, 2 * ROI, 2 * ROI), used, slice_mm, rng)
        regions = [s[r : r + ROI, c : c + ROI] for s in air for r in (0, ROI) for c in (0, ROI)]
        power = noise_power_spectrum_2d(pixel, regions)
        if name == scanner.kernel:
            spread = float(np.sqrt(power.sum()) / (ROI * pixel))  # the spectrum's integral is the variance
            checks.append(Check("noise_sd", f"air, {name}", spread, (18, 38), "HU", PONTANA))
        model = scanner.noise_hu**2 * pixel**2 * sampled_noise_power(kernel, pixel, (ROI, ROI))
        measured, expected = noise_power_spectrum_1d(power), radial_average(np.fft.fftshift(model))
        frequency = radial_average(np.hypot(*np.indices((ROI, ROI)) - ROI // 2)) / (ROI * pixel)
        # Below the second ring a region is too small to tell a frequency from its mean.
        peak = expected[: ROI // 2].max()
        seen = [k for k in range(2, ROI // 2) if expected[k] > 0.1 * peak]
        deviation = float(np.mean(np.abs(measured[seen] / expected[seen] - 1)))
        source = "filtered back-projection: NPS ~ f MTF(f)^2, folded by sampling"
        checks.append(Check("nps_deviation", name, 100 * deviation, (0, 5), "%", source))
        for k in range(2, ROI // 2, 2):
            leaked = 0.025 * peak  # what a region's sharp border spreads over all frequencies
            around = (0.9 * expected[k] - leaked, 1.1 * expected[k] + leaked)
            checks.append(Check("nps", name, measured[k], around, "HU^2 mm^2", source, x=10 * frequency[k]))
    return checks


def read_kernel_pair(sharp: Path, soft: Path) -> tuple[np.ndarray, np.ndarray, float]:
    """One scan in two kernels: HU [slices, rows, columns] of the sharp and of the soft one, and their pixel size, mm.

    Raises
    ------
    UserError
        A file cannot be read, or the two are not on one grid of square pixels.
    """
    try:
        images = [sitk.ReadImage(str(path)) for path in (sharp, soft)]
    except RuntimeError:
        raise UserError(f"--kernel_pair: {sharp} or {soft} cannot be read; give two CT volumes of one scan") from None
    first, second = images
    width, height = first.GetSpacing()[:2]
    same = first.GetSize() == second.GetSize() and np.allclose(first.GetSpacing(), second.GetSpacing())
    if not same or abs(width - height) > 1e-3 * width:
        raise UserError(
            f"--kernel_pair: {sharp} and {soft} are not on one grid of square pixels; give the two kernels of one scan"
        )
    return *(sitk.GetArrayFromImage(image).astype(np.float32) for image in images), width


class KernelPair:
    """What blur turns the sharp kernel's images into the soft kernel's: the real one, and the model's.

    sharp, soft: HU [slices, rows, columns]; pixel_mm: mm. Fitted on every second slice; the others are for the test.
    """

    def __init__(self, sharp: np.ndarray, soft: np.ndarray, pixel_mm: float) -> None:
        self._sharp, self._soft, self._pixel = sharp, soft, pixel_mm
        size = min(sharp.shape[1:])
        taper = np.outer(hann(size, sym=False), hann(size, sym=False))
        first, second = (
            np.fft.fft2((v - v.mean(axis=(1, 2), keepdims=True))[::2, :size, :size] * taper) for v in (sharp, soft)
        )
        ring = np.rint(self._frequencies((size, size)) * size * pixel_mm).astype(int).ravel()

        def by_ring(values: np.ndarray) -> np.ndarray:
            return np.bincount(ring, values.sum(axis=0).ravel())[1 : size // 2 + 1]

        self.frequency = np.arange(1, size // 2 + 1) / (size * pixel_mm)
        self._power = by_ring(np.abs(first) ** 2)
        self.transfer = by_ring((second * first.conj()).real) / self._power

    def _frequencies(self, shape: tuple[int, int]) -> np.ndarray:
        fy, fx = (np.fft.fftfreq(n, self._pixel) for n in shape)
        return np.hypot(fy[:, None], fx)

    def fit(self, start: list[tuple[float, float]]) -> list[Kernel]:
        """The kernels that best explain the transfer: one, whose MTF it is, or two, soft and sharp, whose MTFs' ratio
        it is.

        start: MTF50 (lp/cm) and the share of the family's range of MTF10 / MTF50 for each kernel, to start from. Of two
        kernels the ratio is determined, each by itself is not.
        """
        steep, flat = (1.001 * frequency_ratio(STEEPEST), 0.999 * frequency_ratio(FLATTEST))

        def kernels(p: np.ndarray) -> list[Kernel]:
            return [Kernel(m, m * (steep + share * (flat - steep))) for m, share in zip(p[::2], p[1::2], strict=True)]

        weight = np.sqrt(self._power / self._power.sum())

        def difference(p: np.ndarray) -> np.ndarray:
            return weight * (transfer_of(kernels(p))(self.frequency) - self.transfer)

        lower, upper = [0.5, 0.0] * len(start), [20.0, 1.0] * len(start)
        return kernels(least_squares(difference, np.ravel(start), bounds=(lower, upper)).x)

    def rmse(self, transfer: Transfer) -> float:
        """RMS difference, HU, between the soft images and the sharp ones filtered by `transfer`, a function of cycles
        per mm.

        Over the slices that were not fitted, away from the border, where the filter's reach ends.
        """
        margin = 16
        sharp = np.pad(self._sharp[1::2], ((0, 0), (margin, margin), (margin, margin)), mode="reflect")
        filtered = np.fft.ifft2(np.fft.fft2(sharp) * transfer(self._frequencies(sharp.shape[1:]))).real
        inner = slice(2 * margin, -2 * margin)
        difference = filtered[:, inner, inner] - self._soft[1::2, margin:-margin, margin:-margin]
        return float(np.sqrt(np.mean(difference**2)))


def transfer_of(kernels: list[Kernel]) -> Transfer:
    """The filter, a function of cycles per mm, that is one kernel's MTF, or takes the second's images to the
    first's.
    """
    if len(kernels) == 1:
        return kernels[0].mtf
    # Where the sharp kernel passes nothing there is nothing to restore.
    return lambda f: kernels[0].mtf(f) / np.maximum(kernels[1].mtf(f), 1e-12)


def check_kernel_pair(sharp: np.ndarray, soft: np.ndarray, pixel_mm: float) -> list[Check]:
    """How near blurs of this family bring a real sharp-kernel scan to the soft-kernel one (see `KernelPair`)."""
    pair = KernelPair(sharp, soft, pixel_mm)
    single = pair.fit([(2.0, 0.5)])
    double = min((pair.fit([(1.2, 0.8), (s, 0.1)]) for s in (1.9, 4.0)), key=lambda k: pair.rmse(transfer_of(k)))
    source = "real scan in two kernels (Lung-PET-CT-Dx A0001), slices that were not fitted"
    filters = {
        "one kernel": transfer_of(single),
        "two kernels": transfer_of(double),
        "from lung to B30, not fitted": transfer_of([KERNELS["B30"], KERNELS["lung"]]),
        "any isotropic filter": lambda f: np.interp(f, [0, *pair.frequency], [1, *pair.transfer]),
    }
    before = pair.rmse(np.ones_like)
    checks = [Check("pair_rmse", "before", before, NONE, "HU", source)]
    for group, transfer in filters.items():
        after = pair.rmse(transfer)
        explained = 100 * (1 - (after / before) ** 2)
        fitted = group in ("one kernel", "two kernels")
        checks.append(Check("pair_rmse", group, after, NONE, "HU", source))
        aim = (95.0, 100.0) if fitted else NONE
        checks.append(Check("pair_explained", group, explained, aim, "%", "aim of this project: most of the variance"))
    for f, value in zip(pair.frequency[::3], pair.transfer[::3], strict=True):
        for group in list(filters)[:2]:
            model = float(filters[group](f))
            around = (model - 0.05, model + 0.05)
            checks.append(Check("pair_transfer", group, value, around, "1", f"the model's, +-0.05: {group}", x=10 * f))
    return checks
