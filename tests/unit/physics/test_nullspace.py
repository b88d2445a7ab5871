"""What the scanner measures and what it cannot: an orthogonal split of a slice, of the scanner that the simulation
uses.
"""

import numpy as np
import pytest

from microsr.physics.nullspace import Split, measured_rmse, null_rmse
from microsr.physics.scanner import KERNELS, project

SHAPE = (24, 20)
SPACING = (0.6, 0.7)


@pytest.fixture
def image():
    return np.random.default_rng(0).normal(0, 100, (192, 160)).astype(np.float32)


def scan(image, kernel):
    """The project's own scanner on the same grid; x first in SPACING, rows first in SHAPE."""
    (across, down), (rows, columns) = SPACING, SHAPE
    coarse = np.arange(rows) * down, np.arange(columns) * across
    fine = (np.arange(8 * rows) - 3.5) * down / 8, (np.arange(8 * columns) - 3.5) * across / 8
    return project(image[None], kernel, *coarse, *fine)[0]


@pytest.mark.parametrize("name", KERNELS)
def test_the_parts_are_orthogonal_and_add_up_over_the_whole_slice(image, name):
    measured = Split(KERNELS[name], SPACING, SHAPE, 8).project(image)
    null = image - measured
    total, parts = (
        np.sum(image.astype(float) ** 2),
        np.sum(measured.astype(float) ** 2) + np.sum(null.astype(float) ** 2),
    )
    assert parts == pytest.approx(total, rel=1e-5)
    assert np.vdot(measured, null) == pytest.approx(0, abs=1e-5 * total)


def test_measuring_again_changes_nothing(image):
    split = Split(KERNELS["lung"], SPACING, SHAPE, 8)
    once = split.project(image)
    assert np.allclose(split.project(once), once, atol=1e-2)
    assert np.abs(split.project(image - once)).max() < 1e-2


def test_the_scanner_sees_the_measured_part_and_nothing_of_the_null_space(image):
    """With a kernel whose gain is nowhere below the cut-off, and away from the ends that the split joins."""
    kernel = KERNELS["lung"]
    split = Split(kernel, SPACING, SHAPE, 8)
    measured = split.project(image)
    inside = np.s_[4:-4, 4:-4]
    assert split.measurable == 1
    assert np.abs(scan(image - measured, kernel)[inside]).max() < 0.05
    assert scan(measured, kernel)[inside] == pytest.approx(scan(image, kernel)[inside], abs=0.05)
    assert np.abs(scan(image, kernel)[inside]).max() > 20


def test_a_constant_is_measured_and_fine_stripes_are_not():
    split = Split(KERNELS["B30"], SPACING, SHAPE, 8)
    constant, stripes = np.full((192, 160), 70.0), np.tile([50.0, 50, -50, -50], (192, 40))
    assert split.project(constant) == pytest.approx(constant, abs=0.5)
    assert np.abs(split.project(stripes)).max() < 0.5


def test_a_soft_kernel_measures_less():
    image = np.random.default_rng(1).normal(0, 100, (192, 160))
    shares = [
        np.mean(Split(KERNELS[name], SPACING, SHAPE, 8).project(image) ** 2) / 1e4 for name in ("B30", "D45", "lung")
    ]
    assert shares[0] < shares[1] <= shares[2] + 1e-3
    assert shares[2] == pytest.approx(1 / 64, rel=0.15)  # as many dimensions as clinical pixels


@pytest.mark.parametrize("name", ["B30", "lung"])
def test_of_a_slow_wave_as_much_is_null_space_as_its_aliases_pass_the_scanner(name):
    """Null share of a wave f along one axis: 1 - T(f)^2 / sum of T^2 over the frequencies that alias to it."""
    wave = 100 * np.cos(2 * np.pi * 2 * np.arange(160) / 160) * np.ones((192, 1))
    null = wave - Split(KERNELS[name], SPACING, SHAPE, 8).project(wave)
    period, (across, down) = 20 * 0.6, SPACING
    aliases = np.hypot((2 / period + np.arange(-3, 4) / across)[:, None], np.arange(-3, 4) / down)
    gains = KERNELS[name].mtf(aliases) ** 2
    expected = 1 - gains[3, 3] / gains.sum()
    assert np.mean(null**2) / np.mean(wave**2) == pytest.approx(expected, abs=0.004)


@pytest.mark.parametrize("wave", range(1, 11))
def test_what_a_twentieth_of_the_largest_gain_passes_is_measured_and_what_less_passes_is_not(wave):
    """Waves along the rows that the soft kernel passes by 97 to 1 %, alone among those which alias to them, but at the
    limit.
    """
    image = 100 * np.cos(2 * np.pi * wave * np.arange(160) / 160 + 0.3) * np.ones((192, 1))
    measured = Split(KERNELS["B30"], SPACING, SHAPE, 8).project(image)
    gain = float(KERNELS["B30"].mtf(wave / (20 * SPACING[0])))
    if gain < 0.05:
        assert np.abs(measured).max() < 1e-3
    else:
        assert gain > 0.1 and measured == pytest.approx(image, abs=3)


def test_root_mean_squares_say_hu():
    assert measured_rmse(9.0) == 3 and null_rmse(16.0) == 4


def test_the_best_linear_estimate_without_noise_is_what_the_scanner_measures(image):
    """Of a signal with the same power at all frequencies, with a kernel whose gain is nowhere below the cut-off."""
    kernel = KERNELS["lung"]
    split = Split(kernel, SPACING, SHAPE, 8)
    found = split.estimate(scan(image, kernel), np.ones(image.shape), np.zeros(SHAPE))
    inside = np.s_[40:-40, 40:-40]
    assert found[inside] == pytest.approx(split.project(image)[inside], abs=0.05 * float(image.std()))


def test_noise_makes_the_best_linear_estimate_smaller(image):
    split = Split(KERNELS["lung"], SPACING, SHAPE, 8)
    seen, power = scan(image, KERNELS["lung"]), np.full(image.shape, 100.0**2)
    quiet, loud = (np.std(split.estimate(seen, power, np.full(SHAPE, noise**2))) for noise in (1.0, 100.0))
    assert loud < 0.2 * quiet
