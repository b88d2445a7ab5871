"""Power spectra of image windows, per pixel, and their radial average: what a texture is made of, whatever its place.

Shared by the domain check, the metrics and the figures. Frequencies are in cycles per pixel, power in HU^2: white
noise of standard deviation s has power s^2 at every frequency, whatever the window's size.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np

ROUNDING_POWER = 1 / 12
"""Power of the rounding to whole HU, HU^2 (variance of a uniform error of width 1): less is not in the data."""


def mean_power(windows: Iterable[np.ndarray]) -> np.ndarray:
    """Mean 2-D power spectrum of square windows [size, size] of one size, HU^2 [size, size], zero frequency first.

    Each window loses its mean and is tapered by a Hann window, so that its borders add nothing that is not in the
    image.
    """
    total, number, taper = 0.0, 0, None
    for window in windows:
        if taper is None:
            profile = hann(len(window))
            taper = np.outer(profile, profile)
        values = np.asarray(window, float)
        tapered = (values - np.average(values, weights=taper)) * taper
        total = total + np.abs(np.fft.fft2(tapered)) ** 2
        number += 1
    if taper is None:
        raise ValueError("mean_power needs at least one window")
    return total / (number * np.sum(taper**2))


def hann(size: int) -> np.ndarray:
    """The periodic Hann window [size]: the numbers of `scipy.signal.windows.hann(size, sym=False)`, whose module takes
    a second to load.
    """
    return 0.5 + 0.5 * np.cos(np.linspace(-np.pi, np.pi, size + 1))[:-1]


def windows_at(array: Any, positions: np.ndarray, size: int) -> Iterable[np.ndarray]:
    """The windows [size, size] of array [slices, rows, columns] that start at positions [number, 3], one by one."""
    for z, row, column in positions.tolist():
        yield np.asarray(array[z, row : row + size, column : column + size])


def radial_power(power: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Frequencies (cycles per pixel, 1/size to 1/2) and log10 of the power (HU^2) averaged over each ring of
    directions.

    power: from `mean_power`. Rings are 1/size wide. Power is taken as no less than ROUNDING_POWER.
    """
    size = len(power)
    step = np.fft.fftfreq(size) * size
    ring = np.rint(np.hypot(step[:, None], step[None, :])).astype(int).ravel()
    last = size // 2
    means = np.bincount(ring, power.ravel())[1 : last + 1] / np.bincount(ring)[1 : last + 1]
    return np.arange(1, last + 1) / size, np.log10(np.maximum(means, ROUNDING_POWER))
