"""Power spectra against answers worked out by hand."""

import numpy as np
import pytest
from scipy.signal import windows

from microsr.physics.spectrum import hann, mean_power, radial_power, windows_at


@pytest.fixture
def rng():
    return np.random.default_rng(0)


def test_white_noise_has_its_variance_as_power_at_every_frequency(rng):
    for size in (8, 32, 128):
        frequencies, power = radial_power(mean_power(rng.normal(0, 50, (400, size, size))))
        assert frequencies[0] == 1 / size and frequencies[-1] == 0.5 and len(frequencies) == size // 2
        assert np.abs(power[2:] - np.log10(2500)).max() < 0.06


def test_the_taper_is_scipys():
    assert all(np.array_equal(hann(size), windows.hann(size, sym=False)) for size in (2, 31, 64, 128))


def test_a_wave_has_its_power_at_its_own_frequency():
    wave = 100 * np.cos(2 * np.pi * np.arange(64) * 12 / 64) * np.ones((64, 1))
    frequencies, power = radial_power(mean_power([wave - 800]))
    assert frequencies[power.argmax()] == 12 / 64
    others = np.abs(frequencies - 12 / 64) > 2.5 / 64
    assert np.allclose(power[others], np.log10(1 / 12))


def test_a_flat_image_has_the_power_of_rounding_and_no_more():
    _, power = radial_power(mean_power([np.full((32, 32), -800)]))
    assert np.allclose(power, np.log10(1 / 12))


def test_a_window_loses_its_mean_as_the_taper_weighs_it():
    """Else what is bright in the middle, where the taper is 1, would leak a constant into the lowest rings."""
    middle = np.zeros((64, 64))
    middle[24:40, 24:40] = 100
    power = mean_power([middle - 800])
    assert power[0, 0] == pytest.approx(0, abs=1e-12)
    taper = np.outer(*[np.sin(np.pi * np.arange(64) / 64) ** 2] * 2)
    values = (middle - np.sum(middle * taper) / np.sum(taper)) * taper
    by_hand = np.sum(values * np.exp(-2j * np.pi * np.arange(64) / 64))
    assert power[0, 1] == pytest.approx(abs(by_hand) ** 2 / np.sum(taper**2))


def test_the_power_of_several_windows_is_their_mean_and_of_none_an_error(rng):
    three = rng.normal(0, 50, (3, 16, 16))
    assert mean_power(three) == pytest.approx(np.mean([mean_power([window]) for window in three], axis=0))
    with pytest.raises(ValueError, match="at least one window"):
        mean_power([])


def test_rings_are_means_over_all_directions_one_step_wide():
    power = np.arange(64.0).reshape(8, 8) + 1
    frequencies, rings = radial_power(power)
    assert frequencies.tolist() == [1 / 8, 2 / 8, 3 / 8, 4 / 8]
    step = [0, 1, 2, 3, -4, -3, -2, -1]
    of_ring = [
        [power[i, j] for i in range(8) for j in range(8) if round(np.hypot(step[i], step[j])) == r] for r in range(1, 5)
    ]
    assert rings == pytest.approx(np.log10([np.mean(values) for values in of_ring]))
    assert radial_power(np.full((9, 9), 1e-3))[1] == pytest.approx(np.full(4, np.log10(1 / 12)))


def test_windows_are_cut_where_they_start():
    array = np.arange(2 * 5 * 6).reshape(2, 5, 6)
    first, second = windows_at(array, np.array([[1, 0, 2], [0, 3, 4]]), 2)
    assert first.tolist() == [[32, 33], [38, 39]] and second.tolist() == [[22, 23], [28, 29]]
