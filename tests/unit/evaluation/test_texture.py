"""Grain in vessels and airways is seen where it is, and only there; HU histograms differ by what they are shifted."""

import numpy as np
import pytest
from scipy.stats import wasserstein_distance

from microsr.evaluation.texture import (
    HISTOGRAM_HU,
    airway_places,
    detail_at,
    histogram,
    histogram_distance,
    solid_places,
    texture_in_airways,
    texture_in_vessels,
)
from microsr.physics.moments import Moments


@pytest.fixture
def rng():
    return np.random.default_rng(0)


def lung_with(value, size):
    """A clinical slice of 12x12 pixels of parenchyma with a square of `value` HU, and its mask."""
    clinical = np.full((12, 12), -850.0)
    clinical[4 : 4 + size, 4 : 4 + size] = value
    return clinical, np.ones((12, 12))


def vessel_texture(image, places):
    return texture_in_vessels(Moments().add(detail_at(image, places)))


def test_solid_places_are_those_whose_neighbours_are_solid_too():
    clinical, mask = lung_with(40, 4)
    assert np.argwhere(solid_places(clinical, mask)).tolist() == [[5, 5], [5, 6], [6, 5], [6, 6]]
    mask[4, 4] = 0
    assert np.argwhere(solid_places(clinical, mask)).tolist() == [[5, 6], [6, 5], [6, 6]]
    assert not solid_places(np.full((12, 12), 40.0), np.zeros((12, 12))).any()


def test_airway_places_are_air_in_the_mean_so_that_noise_is_no_airway(rng):
    clinical, mask = lung_with(-1000, 3)
    assert np.argwhere(airway_places(clinical, mask)).tolist() == [[5, 5]]
    noisy = -860 + rng.normal(0, 30, (200, 200))
    assert not airway_places(noisy, np.ones((200, 200))).any()


def test_a_pixel_at_the_border_of_the_mask_or_of_the_image_is_no_airway():
    mask = np.zeros((12, 12))
    mask[3:8, 5:] = 1
    assert np.argwhere(airway_places(np.full((12, 12), -1000.0), mask)).tolist() == [
        [row, column] for row in (4, 5, 6) for column in range(6, 11)
    ]


def test_a_vessel_begins_above_minus_300_and_an_airway_below_minus_950_hu():
    mask = np.ones((12, 12))
    assert [solid_places(np.full((12, 12), hu), mask).any() for hu in (-300.0, -299.0)] == [False, True]
    assert [airway_places(np.full((12, 12), hu), mask).any() for hu in (-950.0, -951.0)] == [False, True]


def test_white_noise_in_a_vessel_has_its_own_standard_deviation(rng):
    clinical, mask = lung_with(40, 8)
    places = solid_places(clinical, mask)
    image = rng.normal(40, 25, (96, 96))
    assert vessel_texture(image, places) == pytest.approx(25, rel=0.05)
    assert texture_in_airways(Moments().add(detail_at(image, places))) == pytest.approx(25, rel=0.05)
    large = rng.normal(0, 25, (800, 800))
    assert vessel_texture(large, np.ones((100, 100), bool)) == pytest.approx(25, rel=0.004), "64/61, not 64/62"


def test_grain_elsewhere_and_gradients_do_not_count(rng):
    clinical, mask = lung_with(40, 4)
    places = solid_places(clinical, mask)
    row, column = np.indices((96, 96))
    image = 5.0 * row - 3 * column
    image[~np.kron(places, np.ones((8, 8), bool))] += rng.normal(0, 200, np.count_nonzero(~places) * 64)
    assert vessel_texture(image, places) == pytest.approx(0, abs=1e-9)


def test_stripes_in_a_vessel_are_seen():
    clinical, mask = lung_with(40, 4)
    stripes = 40 + 50.0 * (-1) ** (np.indices((96, 96))[0] // 2)
    assert vessel_texture(stripes, solid_places(clinical, mask)) == pytest.approx(50, rel=0.1)


def test_without_a_vessel_there_is_no_number():
    clinical, mask = lung_with(40, 2)
    assert np.isnan(vessel_texture(np.zeros((96, 96)), solid_places(clinical, mask)))


def test_histogram_distance_is_scipys(rng):
    values = np.arange(HISTOGRAM_HU[0], HISTOGRAM_HU[1] + 1)
    own, other = histogram(rng.normal(-800, 60, 4000)), histogram(rng.normal(-700, 300, 9000))
    assert histogram_distance(own, other) == pytest.approx(wasserstein_distance(values, values, own, other), rel=1e-14)


def test_histogram_distance_is_the_shift_and_half_the_mixture(rng):
    values = rng.normal(-800, 80, (50, 50)).round()
    own = histogram(values)
    assert histogram_distance(own, own) == 0
    assert histogram_distance(histogram(values + 30), own) == pytest.approx(30)
    assert histogram_distance(histogram([[-1000, 0]]), histogram([[-1000, -1000]])) == pytest.approx(500)


def test_histogram_counts_what_is_beyond_its_range_at_its_ends():
    found = histogram(np.array([-5000, -1200, 4000, 9000]))
    assert found[0] == found[-1] == 0.5 and found.sum() == 1
