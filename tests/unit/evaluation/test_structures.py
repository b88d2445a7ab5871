"""Borders are as far off as they were moved, and objects are lost and invented where they were taken and put."""

import numpy as np
import pandas as pd
import pytest
from scipy.ndimage import gaussian_filter

from microsr.evaluation.structures import (
    BORDER_SEARCH_MM,
    SIZES_MM,
    Objects,
    airway_holes,
    airways,
    border_distances,
    lesions,
    lumen_borders,
    missing_objects,
    open_by_ball,
    open_slices_by_ball,
    pool,
    small_solids,
    tumour_border_error_um,
    wall_error_um,
    wall_errors,
)

SPACING = 0.078
SIDE = 128


def disc(row, column, radius_mm, side=SIDE):
    """Distance-based share of each pixel inside a disc, so that its border is exact to a part of a pixel."""
    y, x = np.indices((side, side))
    return np.clip((radius_mm - np.hypot(y - row, x - column) * SPACING) / SPACING + 0.5, 0, 1)


def airway(radius_mm, wall_mm=0.2, row=64.3, column=60.7):
    outer, lumen = disc(row, column, radius_mm + wall_mm), disc(row, column, radius_mm)
    return -860 + 860 * outer - 1000 * lumen


def crossing(radius_mm, wall_mm=0.2):
    return pd.DataFrame(
        [{"row": 64.3, "column": 60.7, "diameter_mm": 2 * radius_mm, "wall_mm": wall_mm, "tilt_degrees": 0.0}]
    )


def blob(row, column, radius_mm, value=40.0):
    share = disc(row, column, radius_mm)
    return -860 + (value + 860) * share


def test_the_border_of_a_round_lumen_is_its_radius():
    borders = lumen_borders(airway(0.9), crossing(0.9).iloc[0], SPACING)
    assert len(borders) == 16
    assert borders == pytest.approx(np.full(16, 0.9), abs=0.05)


def test_an_airway_is_a_hole_with_a_wall_around():
    lung = np.ones((SIDE, SIDE), bool)
    ring, hole = airway(0.5), np.minimum(-860, -860 - 140 * disc(64, 60, 0.5))
    half = np.where(np.arange(SIDE) < 61, ring, hole)
    found = airway_holes(ring, lung, SPACING)
    assert found[64, 60] and np.count_nonzero(found) * SPACING**2 == pytest.approx(np.pi * 0.4**2, rel=0.3)
    assert not airway_holes(hole, lung, SPACING).any() and not airway_holes(half, lung, SPACING).any()
    assert not airway_holes(airway(0.15), lung, SPACING).any(), "too small"
    assert not airway_holes(ring, ~lung, SPACING).any(), "not in the lung"


def test_an_airway_is_lost_where_it_was_and_invented_where_it_is_not():
    """In the image one is where the truth has it, one has moved by more than its radius, and two are new."""
    lung = np.ones((SIDE, SIDE), bool)
    kept, was, moved, new, other = (
        airway(0.4, row=row, column=column) for row, column in ((30, 30), (30, 90), (42, 90), (90, 30), (90, 90))
    )

    def together(*rings):
        return sum(ring + 860 for ring in rings) - 860

    assert airways(together(kept, moved, new, other), together(kept, was), lung, SPACING).tolist() == [1, 3, 2]
    assert airways(together(kept, was), together(kept, was), lung, SPACING).tolist() == [0, 0, 2]


def test_the_lumen_of_a_tilted_airway_is_an_ellipse_that_is_followed_to_its_ends():
    """Tilted by 60 degrees it is twice as long as wide, beyond what the border of a round one is looked for."""
    y, x = np.indices((SIDE, SIDE)) - np.reshape([64.3, 60.7], (2, 1, 1))
    outer, lumen = (np.clip((r - np.hypot(x / 2, y) * SPACING) / SPACING + 0.5, 0, 1) for r in (1.0, 0.8))
    truth, tilted = -860 + 860 * outer - 1000 * lumen, crossing(0.8).assign(tilt_degrees=60.0)
    angle = np.arange(16) * np.pi / 8
    borders = lumen_borders(truth, tilted.iloc[0], SPACING)
    assert borders == pytest.approx(0.8 / np.hypot(np.cos(angle) / 2, np.sin(angle)), abs=0.08)
    errors = wall_errors(truth, truth, tilted, SPACING)
    assert len(errors) == 16 and not errors.any(), "no ray is taken for a branching"


def test_a_lumen_too_wide_by_a_tenth_of_a_millimetre_is_100_um_off():
    truth = airway(0.8)
    assert wall_error_um(wall_errors(truth, truth, crossing(0.8), SPACING)) == 0
    assert wall_error_um(wall_errors(airway(0.9), truth, crossing(0.8), SPACING)) == pytest.approx(100, abs=20)
    assert wall_error_um(wall_errors(airway(0.7), truth, crossing(0.8), SPACING)) == pytest.approx(100, abs=20)


def test_the_border_does_not_depend_on_the_scale_of_grey():
    truth = airway(0.8)
    assert wall_error_um(wall_errors(0.5 * truth - 300, truth, crossing(0.8), SPACING)) == 0


def test_an_opening_in_the_wall_is_no_border():
    truth = airway(0.8)
    truth[60:68, 60:] = -1000
    assert 8 <= len(wall_errors(truth, truth, crossing(0.8), SPACING)) < 16


def test_without_airways_there_is_no_wall_error():
    assert np.isnan(wall_error_um(wall_errors(airway(0.8), airway(0.8), crossing(0.8)[:0], SPACING)))


def test_a_tumour_too_large_by_a_ring_is_off_by_its_width():
    truth, label = blob(64, 64, 2.5), disc(64, 64, 2.5) > 0.5
    assert tumour_border_error_um(border_distances(truth, truth, label, SPACING)) == 0
    error = tumour_border_error_um(border_distances(blob(64, 64, 2.9), truth, label, SPACING))
    assert error == pytest.approx(400, abs=40)


def test_a_missing_tumour_counts_as_far_off_and_no_tumour_as_none():
    truth, label = blob(64, 64, 2.5), disc(64, 64, 2.5) > 0.5
    gone = np.full((SIDE, SIDE), -860.0)
    assert tumour_border_error_um(border_distances(gone, truth, label, SPACING)) == 1000 * BORDER_SEARCH_MM
    assert np.isnan(tumour_border_error_um(border_distances(truth, truth, np.zeros_like(label), SPACING)))


def test_a_vessel_elsewhere_does_not_count_as_tumour():
    truth, label = blob(64, 40, 2), disc(64, 40, 2) > 0.5
    image = np.maximum(truth, blob(64, 110, 1))
    assert tumour_border_error_um(border_distances(image, truth, label, SPACING)) == 0


def test_opening_keeps_what_is_thick_enough():
    solid = (disc(40, 40, 0.5) > 0.5) | (disc(90, 90, 0.2) > 0.5)
    found = open_by_ball(solid, 0.7, (SPACING, SPACING))
    assert found[40, 40] and not found[90, 90]
    assert found.sum() > 0.9 * np.count_nonzero(disc(40, 40, 0.5) > 0.5)
    assert not open_by_ball(disc(40, 40, 0.3) > 0.5, 0.7, (SPACING, SPACING)).any()
    assert open_by_ball(disc(40, 40, 0.38) > 0.5, 0.7, (SPACING, SPACING)).any()


def test_objects_are_missing_if_less_than_half_of_them_is_there():
    objects = np.zeros((8, 20), bool)
    objects[2:6, 2:6] = objects[2:6, 12:16] = True
    other = objects.copy()
    assert missing_objects(objects, other) == (0, 2)
    other[2:4] = False
    assert missing_objects(objects, other) == (0, 2)
    other[4, 12:16] = False
    assert missing_objects(objects, other) == (1, 2)
    assert missing_objects(np.zeros_like(objects), other) == (0, 0)


def counts(image, truth, lung=None):
    """Counts of `small_solids` of each size with any."""
    lung = np.ones(np.shape(image), bool) if lung is None else lung
    found = small_solids(image, truth, lung, SPACING)
    assert found.shape == (len(SIZES_MM) - 1, 4)
    return {SIZES_MM[place]: row.tolist() for place, row in enumerate(found) if row.any()}


def test_vessels_lost_and_vessels_invented_are_counted_in_the_lung_only():
    lung = np.ones((SIDE, SIDE), bool)
    empty = np.full((SIDE, SIDE), -860.0)
    two = np.maximum(blob(30, 30, 0.6), blob(90, 90, 0.6))
    one, other = blob(30, 30, 0.6), np.maximum(blob(30, 30, 0.6), blob(64, 100, 0.6))
    assert counts(two, two) == {1.0: [0, 2, 0, 2]}
    assert counts(one, two) == {1.0: [1, 2, 0, 1]}
    assert counts(other, two) == {1.0: [1, 2, 1, 2]}
    assert counts(two, empty) == {1.0: [0, 0, 2, 2]}
    lung[:, 64:] = False
    assert counts(other, two, lung) == {1.0: [0, 1, 0, 1]}


@pytest.mark.parametrize(("radius_mm", "size"), [(0.28, 0.3), (0.33, 0.3), (0.45, 0.625), (0.65, 1.0), (1.3, 1.0)])
def test_a_structure_counts_where_its_thickness_says_below_a_clinical_pixel_too(radius_mm, size):
    empty, vessel = np.full((SIDE, SIDE), -860.0), blob(60.3, 60.7, radius_mm)
    assert counts(vessel, vessel) == {size: [0, 1, 0, 1]}, "its rim is no structure of a smaller size"
    assert counts(empty, vessel) == {size: [1, 1, 0, 0]} and counts(vessel, empty) == {size: [0, 0, 1, 1]}


def test_what_is_too_thin_or_a_lesion_is_no_small_structure():
    assert counts(blob(60, 60, 0.08), blob(60, 60, 0.08)) == {}
    assert counts(blob(64, 64, 1.8), blob(64, 64, 1.8)) == {}


def test_a_vessel_that_tapers_has_several_sizes_and_its_thin_end_may_be_lost_alone():
    y, x = np.indices((SIDE, SIDE))
    half = np.where(x < 60, 0.65, 0.25)
    along = (x > 10) & (x < 118)
    vessel = np.where(along & (np.abs(y - 64) * SPACING < half), 40.0, -860.0)
    assert counts(vessel, vessel) == {0.3: [0, 1, 0, 1], 1.0: [0, 1, 0, 1]}
    assert counts(np.where(x < 62, vessel, -860), vessel) == {0.3: [1, 1, 0, 0], 1.0: [0, 1, 0, 1]}


def test_a_vessel_with_pores_of_a_pixel_is_solid_and_two_that_nearly_touch_are_two():
    """Noise makes such pores; the blur of 0.1 mm closes them."""
    porous = blob(40, 40, 0.7)
    porous[::4, ::4] = -860
    two = np.maximum(blob(90, 64, 0.5), blob(90, 64 + 1.4 / SPACING, 0.5))
    assert sum(row[1] for row in counts(porous, porous).values()) == 1
    assert sum(row[1] for row in counts(two, two).values()) == 2


def test_solid_is_above_minus_300_hu():
    dense = np.full((20, 20), -299.0)
    lung = np.zeros(dense.shape, bool)
    lung[1:-1, 1:-1] = True
    assert counts(dense, dense - 2, lung) == {1.0: [0, 0, 1, 1]} and counts(dense - 2, dense - 2, lung) == {}


def test_a_thin_wall_is_no_solid_structure():
    thin = np.full((SIDE, SIDE), -860.0)
    thin[:, 60:62] = 40
    assert counts(thin, thin) == {}


def ball(centre, radius_mm, shape=(9, 48, 48), spacing=(0.6, 0.3125, 0.3125)):
    offset = (np.indices(shape) - np.reshape(centre, (3, 1, 1, 1))) * np.reshape(spacing, (3, 1, 1, 1))
    return np.where(np.linalg.norm(offset, axis=0) < radius_mm, 40.0, -860.0)


def lesions_of(image, truth):
    slices = zip(image, truth, np.ones(image.shape, bool), strict=True)
    return lesions(slices, (0.6, 0.3125, 0.3125))


def random_solids(seed, shape, spacing):
    """Solid parts, bool, of all sizes and shapes, about as large as a lesion."""
    smooth = gaussian_filter(np.random.default_rng(seed).standard_normal(shape), 1.2 / np.array(spacing))
    return smooth > 0.5 * smooth.std()


# At spacings of 0.5 and 1 mm some pixels are as far away as a ball reaches, exactly.
@pytest.mark.parametrize(
    "spacing", [(0.6, 0.3125, 0.3125), (1.25, 0.4, 0.3), (0.5, 0.5, 0.5), (1.0, 1.0, 1.0), (5.0, 0.35, 0.35)]
)
@pytest.mark.parametrize("slices", [1, 3, 17])
def test_what_is_found_slice_by_slice_is_what_is_found_in_the_whole_volume(spacing, slices):
    solid, other = (random_solids(seed, (slices, 40, 48), spacing) for seed in (1, 2))
    both = np.stack([solid, other], axis=1)
    slices, found = map(np.stack, zip(*open_slices_by_ball(iter(both), 3.0, spacing), strict=True))
    expected = open_by_ball(solid, 3.0, spacing)
    assert np.array_equal(slices, both)
    assert np.array_equal(found[:, 0], expected) and np.array_equal(found[:, 1], open_by_ball(other, 3.0, spacing))
    assert 0 < expected.sum() < solid.sum() or len(solid) == 1
    objects = Objects()
    for one, there in zip(solid, other, strict=True):
        objects.add(one, there)
    assert objects.missing() == missing_objects(solid, other)


def test_objects_that_meet_in_a_later_slice_only_are_one():
    legs = np.zeros((3, 5, 9), bool)
    legs[:, 2, 2] = legs[:, 2, 6] = True
    legs[2, 2, 2:7] = True
    for volume, number in ((legs, 1), (legs[::-1], 1), (legs[:2], 2)):
        objects = Objects()
        for one in volume:
            objects.add(one, np.zeros_like(one))
        assert objects.missing() == (number, number)


def test_lesions_hold_as_many_slices_as_a_lesion_is_thick(peak_memory):
    lung, spacing = np.ones((64, 64), bool), (0.6, 0.3125, 0.3125)

    def slices(number):
        for z in range(number):
            image = np.roll(ball((4, 24, 24), 2.5, (9, 64, 64))[min(z % 12, 8)], z, axis=1)
            yield image, image, lung

    few, many = (peak_memory(lambda n=n: lesions(slices(n), spacing)) for n in (20, 100))
    assert many - few < 80 * 1000, "bytes a slice, of 4096 pixels"


def test_a_planted_lesion_is_invented_and_a_removed_one_is_lost():
    truth = ball((4, 14, 14), 2)
    planted = np.maximum(truth, ball((4, 34, 34), 2))
    assert lesions_of(truth, truth) == (0, 0)
    assert lesions_of(planted, truth) == (0, 1)
    assert lesions_of(truth, planted) == (1, 0)
    assert lesions_of(ball((4, 34, 34), 2), truth) == (1, 1)


def test_what_is_thinner_than_three_millimetres_is_no_lesion():
    empty = np.full((9, 48, 48), -860.0)
    assert lesions_of(ball((4, 20, 20), 1.2), empty) == (0, 0)
    assert lesions_of(ball((4, 20, 20), 1.9), empty) == (0, 1)


def test_a_slab_goes_on_beyond_its_ends():
    slab = ball((4, 20, 20), 4)[3:5]
    assert lesions_of(slab, np.full_like(slab, -860)) == (0, 1)
    for end in (0, -1):
        only = np.full((3, 48, 48), -860.0)
        only[end] = slab[0]
        assert lesions_of(only, np.full_like(only, -860)) == (0, 1)
        assert lesions_of(np.insert(only, [0, 3], -860, axis=0), np.full((5, 48, 48), -860.0)) == (0, 0)


def test_pool_is_the_mean_of_4x4_pixels():
    image = np.zeros((8, 8))
    image[:4, 4:] = np.arange(16).reshape(4, 4)
    assert pool(image, 8).tolist() == [[0, 7.5], [0, 0]]
