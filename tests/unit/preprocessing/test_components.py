"""Connected components slice by slice: those of `scipy.ndimage.label`, whose whole labels they are found without."""

import numpy as np
import pytest
from scipy import ndimage

from microsr.preprocessing.components import Components, Masks, Runs, pack, unpack


def random_masks():
    """Masks of all densities and small shapes, with one row, column or slice among them, all false and all true."""
    rng = np.random.default_rng(0)
    for _ in range(200):
        yield rng.random(rng.integers(1, 9, 3)) < rng.random()
    yield np.zeros((3, 4, 5), bool)
    yield np.ones((3, 4, 5), bool)


def same_parts(ours, theirs):
    """Two label images that differ in their numbers only."""
    pairs = np.unique([ours.ravel(), theirs.ravel()], axis=1)
    return len(np.unique(pairs[0])) == len(np.unique(pairs[1])) == pairs.shape[1]


def test_parts_of_a_slice_are_those_of_label():
    for mask in (one[0] for one in random_masks()):
        labels, count = ndimage.label(mask)
        runs = Runs.of(mask)
        assert np.array_equal(runs.paint(), mask)
        assert runs.components[0] == count
        assert same_parts(runs.paint(1 + runs.components[1]), labels)
        sizes = np.bincount(labels.ravel(), minlength=count + 1)[1:]
        assert np.array_equal(np.sort(runs.component_sizes), np.sort(sizes))


def test_parts_of_a_volume_are_those_of_label():
    for mask in random_masks():
        labels, count = ndimage.label(mask)
        components, slices = Components(), [Runs.of(one) for one in mask]
        for runs in slices:
            components.add(runs)
        assert components.groups[0] == count
        ours = [runs.paint(1 + components.of_slice(z)[runs.components[1]]) for z, runs in enumerate(slices)]
        assert same_parts(np.array(ours), labels)
        sizes = np.bincount(labels.ravel(), minlength=count + 1)[1:]
        assert np.array_equal(np.sort(components.sizes), np.sort(sizes))


def test_chosen_parts_have_the_numbers_that_they_have_alone():
    """So that what was found in a slice with more components holds for the mask of the chosen ones."""
    rng = np.random.default_rng(0)
    for mask in (one[0] for one in random_masks()):
        runs = Runs.of(mask)
        chosen = runs.select(rng.random(runs.components[0]) < 0.5)
        alone = Runs.of(chosen.paint())
        assert chosen.components[0] == alone.components[0] and np.array_equal(chosen.components[1], alone.components[1])
        assert np.array_equal(chosen.component_sizes, alone.component_sizes)


def test_pixels_of_each_part_that_are_in_a_mask_within():
    rng = np.random.default_rng(0)
    for mask in (one[0] for one in random_masks()):
        runs, inner = Runs.of(mask), mask & (rng.random(mask.shape) < 0.5)
        expected = [inner[runs.paint(runs.components[1] == component)].sum() for component in range(runs.components[0])]
        assert runs.component_sizes_within(inner).tolist() == expected


def test_runs_at_the_border():
    mask = np.zeros((5, 6), bool)
    mask[2, 2] = mask[0, 3] = mask[3, 5] = mask[1, 0] = mask[4, 2] = True
    assert Runs.of(mask).at_border.tolist() == [True, True, False, True, True]


@pytest.mark.parametrize("shape", [(3, 5, 7), (2, 64, 64)])
def test_a_packed_mask_comes_back(shape):
    truth = np.random.default_rng(0).random(shape) < 0.3
    masks = Masks(shape)
    assert not np.asarray(masks).any() and masks.packed_slice(0) == b""
    for z in reversed(range(shape[0])):
        masks[z] = truth[z]
    assert np.array_equal(np.asarray(masks), truth)
    assert masks.packed_slice(1) == pack(truth[1].copy())
    assert unpack(b"", (2, 3)).sum() == 0


def test_a_mask_takes_a_few_kilobytes():
    lungs = np.hypot(*(np.indices((512, 512)) - 256)) < 200
    assert len(pack(lungs)) < 3000
