"""Resampling of uCT: nothing moves, nothing gains or loses density, and nothing finer than the new pixels comes
through.
"""

import numpy as np
import pytest

from microsr.preprocessing.resampling import (
    BAND,
    averaging_axis,
    bands,
    gather_planes,
    identity_axis,
    in_plane,
    resampling_axis,
)


def run(volume, x, y, z):
    """All new slices, each the sum of old ones with their weights."""
    planes = (in_plane(image, y.weight_bands, x.weight_bands) for image in volume)
    weights = np.eye(len(volume)) if z.weights is None else z.weights
    return np.array([
        sum(w * image for w, image in zip(weights[new, old], images, strict=True))
        for new, (old, images) in enumerate(gather_planes(planes, z.weights))
    ])  # fmt: skip


def test_a_position_keeps_its_value():
    """Each voxel holds its own position in mm; so does each new one, away from the border."""
    size, spacing, target = 80, 0.05, 0.078
    position = (np.arange(size) + 0.5) * spacing
    axis = resampling_axis(size, spacing, target)
    expected = (np.arange(axis.size) + 0.5) * target
    assert (axis.weights @ position)[3:-3] == pytest.approx(expected[3:-3], abs=0.01 * target)
    assert axis.size == int(80 * 0.05 / 0.078) and axis.spacing == target


def test_uniform_density_stays():
    assert resampling_axis(100, 0.04, 0.078).weights.sum(axis=1) == pytest.approx(1)
    assert averaging_axis(100, 0.04, 3).weights.sum(axis=1) == pytest.approx(1)


def test_the_same_grid_changes_nothing():
    assert np.allclose(resampling_axis(20, 0.05, 0.05).weights, np.eye(20), atol=1e-6)


def test_what_the_new_pixels_cannot_show_is_removed():
    """Stripes of 2.5 voxels on a grid three times coarser would alias to stripes of 15 voxels by plain sampling."""
    stripes = np.cos(2 * np.pi * np.arange(600) / 2.5)
    kept = resampling_axis(600, 1, 3).weights @ stripes
    assert np.abs(kept[5:-5]).max() < 0.05
    slow = np.cos(2 * np.pi * np.arange(600) / 60)
    assert np.abs((resampling_axis(600, 1, 3).weights @ slow)[5:-5]).max() > 0.95


def test_noise_keeps_one_level_everywhere():
    """Interpolation without a wide kernel leaves a pattern of sharp and smooth pixels, which a discriminator would
    see.
    """
    level = np.sqrt((resampling_axis(400, 0.05, 0.078).weights ** 2).sum(axis=1))[5:-5]
    assert level.max() / level.min() < 1.1


def test_area_averages_are_plain_means_and_leave_out_the_rest():
    volume = np.arange(2 * 5 * 7, dtype=np.uint16).reshape(2, 5, 7)
    new = run(volume, averaging_axis(7, 0.1, 2), averaging_axis(5, 0.1, 2), identity_axis(2, 0.1))
    assert new.shape == (2, 2, 3)
    assert new[1, 1, 2] == volume[1, 2:4, 4:6].mean()
    assert averaging_axis(7, 0.1, 2).spacing == pytest.approx(0.2)


def test_means_of_one_are_the_pixels_as_they_are():
    assert averaging_axis(7, 0.1, 1) == identity_axis(7, 0.1)


def test_slices_are_resampled_along_with_rows_and_columns():
    rng = np.random.default_rng(0)
    volume = rng.normal(size=(12, 10, 14))
    x, y, z = resampling_axis(14, 1, 1.7), resampling_axis(10, 1, 1.3), resampling_axis(12, 1, 2)
    expected = np.einsum("ai,bj,ck,ijk->abc", z.weights, y.weights, x.weights, volume)
    assert np.allclose(run(volume, x, y, z), expected, atol=1e-5)


@pytest.mark.parametrize("shape", [(60, 700), (700, 60), (33, 34)])
def test_bands_and_strips_of_a_large_slice_are_its_whole_product(shape):
    image = np.random.default_rng(0).normal(0, 1000, shape)
    y, x = (resampling_axis(n, 1, 1.56) for n in shape)
    assert np.allclose(in_plane(image, y.weight_bands, x.weight_bands), y.weights @ image @ x.weights.T, atol=0.01)
    assert np.allclose(in_plane(image, y.cover_bands, None), y.cover @ image, atol=0.01)
    assert np.allclose(in_plane(image, None, x.cover_bands), image @ x.cover.T, atol=0.01)


def test_bands_hold_each_new_row_once_and_few_old_ones():
    found = bands(resampling_axis(400, 1, 1.6).weights)
    assert [new for new, _, _ in found] == [slice(first, min(first + BAND, 250)) for first in range(0, 250, BAND)]
    assert all(weights.shape == (new.stop - new.start, old.stop - old.start) for new, old, weights in found)
    assert max(old.stop - old.start for _, old, _ in found) < 1.6 * (BAND + 5)


class Plane:
    """A plane that says whether it is still held."""

    held = 0

    def __init__(self, z):
        self.z = z
        Plane.held += 1

    def __del__(self):
        Plane.held -= 1


def test_each_old_slice_is_taken_once_and_held_no_longer_than_needed():
    weights = resampling_axis(400, 1, 1.6).weights
    taken = []
    for new, (old, planes) in enumerate(gather_planes((taken.append(z) or Plane(z) for z in range(400)), weights)):
        assert [plane.z for plane in planes] == list(old) == np.flatnonzero(weights[new]).tolist()
        assert taken == list(range(old[-1] + 1)), "nothing is taken before it is needed"
        assert Plane.held < 12
