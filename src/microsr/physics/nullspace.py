"""The split of an image into what the clinical scanner measures and what it cannot: its row space and its null space.

In: a slice on the super-resolved grid and the scanner's kernel. Out: two images whose sum is the slice. What a
super-resolved slice has in the null space and the truth has not was made up (hallucination maps: Bhadra et al., IEEE
TMI 40(11), 2021).

The in-plane scan H is a blur by the PSF and a sampling at every 8th pixel (between pixels; 8 stands for the scale). On
a slice whose ends are joined both are diagonal or folding in frequency: each clinical frequency q collects the 64 fine
frequencies that alias to it, weighted by the transfer function T. So H's singular value decomposition is known exactly,
with singular values s(q) = sqrt(sum |T|^2) / 8 over the aliases, whatever the kernel; no iteration is needed, and the
kernel need not be separable. Joining the ends differs from `physics.scanner.project`, which cuts the PSF off there, in
a margin of one PSF (1 to 3 mm) of the field only, which holds no lung.
"""

from __future__ import annotations

import numpy as np
from scipy.fft import fft, fft2, ifft2

from microsr.physics.scanner import Kernel, sampling

CUTOFF = 0.05
"""Singular values below this share of the largest count as null space: at 30 HU noise they carry no more than noise of
a contrast of 600 HU."""


class Split:
    """The orthogonal projector onto what the scanner measures of one slice.

    kernel: the scanner's. spacing: clinical pixel size (x, y), mm. shape: clinical (rows, columns). scale: pixels of
    the SR grid along a clinical one.
    """

    def __init__(self, kernel: Kernel, spacing: tuple[float, float], shape: tuple[int, int], scale: int) -> None:
        self._scale, self._fine = scale, tuple(scale * n for n in shape)
        transfer = np.zeros(self._fine, np.complex64)
        for weight, sigma in zip(kernel.weights, kernel.sigmas, strict=True):
            down, across = (_transfer(n, step, sigma, scale) for n, step in zip(shape, spacing[::-1], strict=True))
            transfer += np.outer(weight * down, across)
        # [alias, clinical frequency] along each axis
        self._transfer = transfer.reshape(scale, shape[0], scale, shape[1])
        square = np.sum(np.abs(self._transfer) ** 2, axis=(0, 2))
        kept = square >= CUTOFF**2 * square.max()
        self._inverse = np.where(kept, 1 / np.where(kept, square, 1), 0).astype(np.float32)
        self.measurable = float(np.mean(kept))
        """Share of the scan's numbers that are above the cut-off."""

    def project(self, image: np.ndarray) -> np.ndarray:
        """The part of `image` [rows, columns] on the SR grid that the scanner measures, float32; the rest is null
        space.

        Orthogonal: the mean squares of the two parts add up to the image's, over the whole slice (Pythagoras).
        """
        spectrum = fft2(np.asarray(image, np.float32)).reshape(self._transfer.shape)
        scanned = np.einsum("aibj,aibj->ij", self._transfer, spectrum)
        back = np.conj(self._transfer) * (scanned * self._inverse)[None, :, None, :]
        return ifft2(back.reshape(self._fine), overwrite_x=True).real

    def estimate(self, scan: np.ndarray, signal: np.ndarray, noise: np.ndarray) -> np.ndarray:
        """The best linear estimate of a slice from its scan: the Wiener filter, float32 [rows, columns] on the SR grid.

        scan: HU [clinical rows, columns], of mean 0 as the signal is taken to be. signal, noise: power in HU^2 a pixel
        at the frequencies of the SR slice and of the scan. Best in mean square for a slice of this power whose
        frequencies know nothing of each other; the slice profile is not part of it.
        """
        signal = np.asarray(signal, np.float32).reshape(self._transfer.shape)
        seen = np.einsum("aibj,aibj->ij", np.abs(self._transfer) ** 2, signal) + self._scale**2 * noise
        back = np.conj(self._transfer) * signal * (self._scale**2 * fft2(scan) / seen)[None, :, None, :]
        return ifft2(back.reshape(self._fine)).real.astype(np.float32)


def _transfer(number: int, step: float, sigma: float, scale: int) -> np.ndarray:
    """Transfer function [scale * number] along one axis of `physics.scanner.sampling` with `number` pixels of `step`
    mm, ends joined.
    """
    places = (np.arange(scale * number) - (scale - 1) / 2) * step / scale
    middle = number // 2
    weights = sampling(np.array([middle * step]), places, sigma)[0]
    return np.conj(fft(np.roll(weights.astype(float), -scale * middle)))


def measured_rmse(mean_square: float) -> float:
    """Error that the scanner could have seen: root mean square of the measured part of SR minus truth in the lung, HU.

    Lower is better; a method that believes its input keeps it near the scan's noise, blown up where the scanner's gain
    is small. With `null_rmse` it makes up the whole error: measured^2 + null^2 = rmse^2. What fools it: noise taken
    over from the input is counted here with real mistakes; the slice profile is not part of the in-plane operator, so
    that what neighbouring slices add to the scan counts as measured error of every method.
    """
    return float(np.sqrt(mean_square))


def null_rmse(mean_square: float) -> float:
    """Error that the scanner could not have seen: root mean square of the null-space part of SR minus truth in the
    lung, HU.

    Lower is better. An image with an empty null space has the truth's own null-space content here: above that,
    structure was invented (hallucinated), below it, structure was recovered from what the training taught. What fools
    it: as every mean square it punishes texture that is right in kind but not in place, so that near-bicubic smoothness
    scores well.
    """
    return float(np.sqrt(mean_square))
