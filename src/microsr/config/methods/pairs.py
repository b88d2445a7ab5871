"""Settings of the methods that learn from pairs, uCT patches and their scans: regression and posterior."""

from __future__ import annotations

from typing import Literal

from microsr.config.methods.method import TrainedMethod
from microsr.config.pairs import Slices, Span
from microsr.config.section import Fraction, Weight


class PairedMethod(TrainedMethod):
    """A method that learns from pairs; noise is added to the scans anew at each step."""

    seen_by: Literal["stated", "drawn"]
    """Scanner of a sample's scan. stated: section scanner; drawn: one of the patch's scans (section pairs) at random,
    with noise of an SD drawn from noise_range: so the model need not know the scanner.
    """
    noise: Literal["stated", "measured"] = "stated"
    """Noise of a sample's scan. stated: SD scanner.noise_hu, with the grain of the scan's kernel, which has no
    direction; measured: SD and two-dimensional spectrum, streaks included, of one of the training set's clinical CTs
    (microsr scanner).
    """
    noise_range: Span = (0.5, 2.0)
    """Where scanners are drawn: range of the noise's SD, times scanner.noise_hu or the measured SD."""
    slices: Slices = 1
    """Clinical slices that G1 sees, the one to super-resolve in the middle. 3 or 5 need uCT volumes, not single slices,
    and scans whose slices are as far apart as pairs.slice_spacing_mm says.
    """

    @property
    def uses_noise(self) -> bool:
        """Whether training depends on the scanner's noise."""
        return True

    @property
    def files(self) -> tuple[str, ...]:
        """What the files hold that it learns from."""
        return (*super().files, *(["scanner_table"] if self.noise == "measured" else []))


class RegressionMethod(PairedMethod):
    """G1 alone, without randomness, by its mean squared error on pairs: the mean of all that a scan allows."""

    kind: Literal["regression"] = "regression"
    """The best single answer to PSNR, and a smooth one."""
    seen_by: Literal["stated", "drawn"] = "stated"
    """As of every method that learns from pairs; by the scanner as stated, unless told otherwise."""


class PosteriorMethod(PairedMethod):
    """G1 alone, by proper scores of two draws on pairs: each draw one of the images that a scan allows."""

    kind: Literal["posterior"] = "posterior"
    """Draws differ where the scan leaves it open; their mean is an estimate, their spread its uncertainty."""
    seen_by: Literal["stated", "drawn"] = "drawn"
    """As of every method that learns from pairs; by drawn scanners, unless told otherwise."""
    alpha: Fraction = 0.95
    """Almost fair scores: 1 is fair, less holds the draws from falling together (Lang et al. 2024)."""
    pools: Weight = 1.0
    """Weight of the CRPS of means over 1, 2, 4, ... pixels a side, up to a clinical one."""
    neighbourhoods: Weight = 1.0
    """Weight of the energy score of neighbourhoods of a clinical pixel (8 x 8 at a scale of 8)."""
    spectrum: Weight = 0.5
    """Weight of the score of Fourier modes."""
