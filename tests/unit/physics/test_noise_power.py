"""Noise of a known size, grain, direction and slice profile is measured as it is, and drawn as it was measured."""

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from microsr.config import Scanner
from microsr.physics import noise_power
from microsr.physics.noise_power import LAG, draw, measure
from microsr.physics.scanner import KERNELS, noise

PIXEL_MM, SLICE_MM = 0.625, 0.6
STREAKED = 2.0, 25.0
"""Length over width of the grains, and their direction, degrees."""


def everywhere(number, smooth):
    return np.ones(smooth.shape, bool)


def pairs_of(stack):
    return [(stack[z], stack[z + 1]) for z in range(0, len(stack) - 1, 2)]


def scan(kernel="lung", sd=30.0, sigma=0.29, slices=8, size=96, seed=0):
    scanner = Scanner(kernel=kernel, slice_sigma_mm=sigma)
    return sd * noise((slices, size, size), scanner, SLICE_MM, np.random.default_rng(seed))


@pytest.fixture(scope="module")
def streaks():
    """A spectrum, HU^2, of SD 40 HU whose grains are STREAKED."""
    ratio, angle = STREAKED[0], np.radians(STREAKED[1])
    down, along = np.meshgrid(*[np.fft.fftfreq(2 * LAG)] * 2, indexing="ij")
    length, width = along * np.cos(angle) + down * np.sin(angle), down * np.cos(angle) - along * np.sin(angle)
    power = np.exp(-((ratio * length) ** 2 + width**2) / (2 * 0.15**2))
    return 1600 * power / power.mean()


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize(("sd", "sigma"), [(12.0, 0.29), (60.0, 0.45)])
def test_noise_is_measured_as_it_is(kernel, sd, sigma):
    found = measure(pairs_of(scan(kernel, sd, sigma)), everywhere)
    assert found.sd == pytest.approx(sd, rel=0.05)
    assert found.slice_sigma_mm(SLICE_MM) == pytest.approx(sigma, rel=0.12)
    assert found.mtf50(PIXEL_MM) == pytest.approx(KERNELS[kernel].mtf50, rel=0.12)
    assert found.streaks[0] < 1.05 and found.local[0] < sd < found.local[1]


def test_noise_of_slices_that_have_nothing_in_common_tells_no_profile():
    found = measure(pairs_of(scan(sigma=0.1)), everywhere)
    assert found.slice_sigma_mm(SLICE_MM) is None and found.sd == pytest.approx(30, rel=0.05)


def test_a_profile_is_told_from_a_correlation_of_a_twentieth_on():
    def told(correlation):
        return noise_power.NoisePower(np.ones((2 * LAG, 2 * LAG)), correlation, 5000, (1, 1)).slice_sigma_mm(SLICE_MM)

    assert told(0.045) is None
    assert told(0.055) == pytest.approx(SLICE_MM / 2 / np.sqrt(np.log(1 / 0.055)))


def test_structure_in_both_slices_and_in_one_is_not_taken_for_noise():
    random, stack = np.random.default_rng(1), scan(size=160) - 850.0
    blobs = gaussian_filter(random.normal(size=stack.shape), (0.5, 2, 2))
    stack += 800 * (blobs > 2.5 * blobs.std())
    stack += gaussian_filter(random.normal(size=stack.shape[1:]), 12)[None] * 3000
    found = measure(pairs_of(stack), everywhere)
    assert found.sd == pytest.approx(30, rel=0.12)


def test_a_lone_pixel_has_all_frequencies_alike():
    """Its square is the mean product of the one pair that there is."""
    image, mask = np.full((20, 20), 3.0), np.zeros((20, 20), bool)
    mask[7, 9] = True
    sums = noise_power._Correlations()
    sums.add(image, mask)
    np.testing.assert_allclose(sums.power, np.full((2 * LAG, 2 * LAG), 9.0))


def test_streaks_have_their_length_and_direction(streaks):
    random = np.random.default_rng(2)
    found = measure(pairs_of([draw(streaks, (128, 128), random) for _ in range(12)]), everywhere)
    assert found.streaks[0] == pytest.approx(STREAKED[0], rel=0.1)
    assert found.streaks[1] == pytest.approx(STREAKED[1], abs=4)
    assert found.sd == pytest.approx(40, rel=0.05)


def test_noise_is_drawn_with_the_spectrum_that_was_measured(streaks):
    drawn = np.stack([draw(streaks, (12, 16), np.random.default_rng(n)) for n in range(3000)])
    assert drawn.dtype == np.float32 and drawn.shape == (3000, 12, 16)
    assert drawn.std() == pytest.approx(40, rel=0.02) and abs(drawn.mean()) < 1
    correlations = np.fft.ifft2(streaks).real
    for down, along in ((0, 1), (1, 0), (2, 3), (-1, 3)):
        first = drawn[:, max(-down, 0) : 12 - max(down, 0), : 16 - along]
        second = drawn[:, max(down, 0) : 12 + min(down, 0), along:]
        assert (first * second).mean() == pytest.approx(correlations[down, along], abs=40)
    assert np.array_equal(drawn[5], draw(streaks, (12, 16), np.random.default_rng(5)))


def test_too_little_tells_nothing():
    assert measure(pairs_of(scan(slices=2, size=16)), everywhere) is None
    assert measure(pairs_of(scan()), lambda number, smooth: np.zeros(smooth.shape, bool)) is None
    assert measure(pairs_of(np.zeros((4, 64, 64))), everywhere) is None, "without any noise there is nothing to say"
