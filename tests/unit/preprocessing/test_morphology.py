"""Work on masks: equal to SciPy's, to the last bit."""

import numpy as np
import pytest
from scipy import ndimage

from microsr.preprocessing.morphology import average_neighbours, close_by_disc, erode, fill_holes


def random_masks(number=40):
    rng = np.random.default_rng(0)
    for _ in range(number):
        shape = rng.integers(1, 40, 2)
        yield ndimage.gaussian_filter(rng.standard_normal(shape), rng.random() * 2) > rng.normal(0, 0.2)


@pytest.mark.parametrize("limits", [(-3, 3), (-32768, 32767), (-1100, 500)])
def test_means_of_three_by_three(limits):
    rng = np.random.default_rng(0)
    for _ in range(20):
        image = rng.integers(*limits, rng.integers(1, 40, 2)).astype(np.int16)
        expected = ndimage.uniform_filter(image.astype(np.float32), 3)
        assert average_neighbours(image).dtype == np.float32 and np.array_equal(average_neighbours(image), expected)


def test_erosion_with_all_neighbours():
    for mask in random_masks():
        assert np.array_equal(erode(mask), ndimage.binary_erosion(mask, np.ones((3, 3)), border_value=1))


@pytest.mark.parametrize("radius", [0.4, 1, 1.5, 2, 3.3, 11])
@pytest.mark.parametrize("pixel", [(1, 1), (0.7, 0.7), (0.5, 1.25), (3, 0.3)])
def test_closing_is_that_by_distances(radius, pixel):
    for mask in random_masks():
        if not mask.any():
            assert not close_by_disc(mask, radius, pixel).any()
            continue
        grown = ndimage.distance_transform_edt(~mask, pixel) <= radius
        if not grown.all():
            grown = ndimage.distance_transform_edt(grown, pixel) > radius
        assert np.array_equal(close_by_disc(mask, radius, pixel), grown)


@pytest.mark.parametrize("largest", [0, 3, 20, np.inf])
def test_filled_holes_are_those_up_to_a_size(largest):
    for mask in random_masks():
        holes, count = ndimage.label(ndimage.binary_fill_holes(mask) & ~mask)
        fill = np.bincount(holes.ravel(), minlength=count + 1) <= largest
        fill[0] = False
        assert np.array_equal(fill_holes(mask, largest), mask | fill[holes])
