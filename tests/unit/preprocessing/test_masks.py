"""Masks: lung is told from air, bowel gas, mattress and soft tissue; a specimen from the air around it."""

import numpy as np
import pytest
import whole_masks
from scipy import ndimage

from microsr.config import ClinicalVolume
from microsr.config.sheet import Scan
from microsr.core.errors import UserError
from microsr.formats.readers import read_scan
from microsr.preprocessing import masks
from microsr.preprocessing.hounsfield import clinical_hu
from microsr.preprocessing.masks import Padding, at_full_size, find_padding, lung_mask, specimen_outline
from microsr.volume.slices import Slices

SETTINGS = ClinicalVolume()
SPACING = (1.0, 1.0, 1.0)


def lung(hu, settings=SETTINGS, spacing=SPACING, padding=None):
    hu = np.rint(hu).astype(np.int16)
    return np.asarray(lung_mask(hu, spacing, settings, np.zeros(hu.shape, bool) if padding is None else padding))


def outlined(grey, levels, independent):
    return np.asarray(specimen_outline(grey, levels, independent, Padding(grey, (0,))))


def ellipse(row, column, height, width, shape=(64, 64)):
    r, c = np.indices(shape)
    return ((r - row) / height) ** 2 + ((c - column) / width) ** 2 < 1


LUNGS = ellipse(32, 16, 15, 8) | ellipse(32, 48, 15, 8)


def test_both_lungs_with_their_vessels_and_nothing_else(chest):
    mask = lung(chest)
    inner, outer = ndimage.binary_erosion(LUNGS), ndimage.binary_dilation(LUNGS)
    assert (mask | ~inner).all(), "the vessels, 3 mm thick, belong to the lung"
    assert not (mask & ~outer).any(), "trachea, chest wall and outside air do not"


def test_closing_takes_up_what_is_thinner_and_leaves_what_is_thicker(chest):
    chest[:, 14:28, 47:50] = 40  # a septum of 3 mm from the pleura inwards
    assert lung(chest)[:, 22:27, 48].all()
    assert not lung(chest, ClinicalVolume(closing_mm=1))[:, 22:27, 48].any()


def test_a_nodule_within_the_lung_is_filled_whatever_the_closing(chest):
    chest[:, ellipse(32, 48, 5, 5)] = 40
    assert lung(chest, ClinicalVolume(closing_mm=0))[:, ellipse(32, 48, 5, 5)].all()


def test_gas_of_the_bowel_is_not_lung(chest):
    chest[:, ellipse(50, 32, 5, 9)] = -1000
    assert not lung(chest)[:, 48:].any()


def test_a_mattress_below_the_patient_is_not_lung(chest):
    chest[:, 58:64, 6:58] = 40
    chest[:, 59:63, 7:57] = np.random.default_rng(0).normal(-920, 20, (6, 4, 50))
    assert not lung(chest)[:, 57:].any()


def test_padding_is_never_lung(chest):
    padding = np.zeros(chest.shape, bool)
    padding[:, :, :20] = True
    chest[padding] = -1000
    mask = lung(chest, padding=padding)
    assert not mask[padding].any() and mask[:, 25, 22].all()


def test_padding_between_two_parts_of_a_lung_is_not_closed(chest):
    padding = np.zeros(chest.shape, bool)
    padding[:, 24:40, 15:17] = True
    chest[padding] = -1000
    mask = lung(chest, padding=padding)
    assert not mask[padding].any() and mask[:, 24:40, [13, 18]].all()


def test_lung_that_touches_the_border_everywhere_is_lung():
    crop = np.random.default_rng(0).normal(-860, 60, (3, 40, 40))
    crop[:, 18:21] = 30  # a vessel from border to border
    assert lung(crop).all()


def test_a_crop_with_lung_and_outside_air_tells_them_apart():
    rng = np.random.default_rng(0)
    crop = rng.normal(-870, 40, (3, 40, 40))
    crop[:, :, 24:30] = 40
    crop[:, :, 30:] = rng.normal(-1000, 40, (3, 40, 10))
    mask = lung(crop)
    assert mask[:, :, :23].all() and not mask[:, :, 25:].any()


def test_a_thin_wall_at_the_border_does_not_become_lung():
    """A chest inside soft tissue that touches the border of the image, as the simulator makes it."""
    hu = np.full((3, 48, 48), 40.0)
    hu[:, 2:46, 2:46] = -850
    mask = lung(hu, spacing=(0.6, 0.6, 0.6))
    assert not mask[:, :1].any() and not mask[:, :, -1:].any()
    assert mask[:, 3:45, 3:45].all()


def test_a_ct_without_lung_is_refused():
    with pytest.raises(UserError, match="holds no lung"):
        lung(np.random.default_rng(0).normal(40, 20, (2, 32, 32)))


def test_rider_has_two_lungs_and_no_mattress(shared_data):
    scan = Scan(path=str(shared_data / "clinical/rider_lung_kernel_dicom"), slices="110:130")
    volume = clinical_hu(read_scan(scan), scan.path)
    hu, padding = np.asarray(volume.array), np.asarray(volume.array.padding)
    mask = lung(hu, spacing=volume.spacing, padding=padding)
    assert not mask[padding].any()
    middle = mask[10]
    _, count = ndimage.label(middle)
    assert count == 2, "a right and a left lung"
    assert 0.25 < middle.mean() < 0.4
    assert not middle[460:].any(), "the mattress is left out"
    assert -870 < np.median(hu[mask]) < -830


def test_kernel_pair_has_nearly_the_same_lung_in_both(shared_data):
    masks = []
    for kernel in ("B-soft", "L-sharp"):
        scan = Scan(path=str(shared_data / f"clinical/kernelpair_A0001_{kernel}.nii.gz"))
        volume = clinical_hu(read_scan(scan), scan.path)
        masks.append(np.asarray(lung_mask(volume.array, volume.spacing, SETTINGS, volume.array.padding)))
    soft, sharp = masks
    assert 2 * (soft & sharp).sum() / (soft.sum() + sharp.sum()) > 0.99
    assert soft[8, 0, 40] and soft[8, -1, 40], "the crop's border cuts the lung"
    assert not soft[39, 0, 0], "the air outside the chest is not lung"


def test_padding_is_a_flat_region_at_the_border():
    grey = np.random.default_rng(0).integers(1, 200, (60, 80))
    grey[:20, :5] = 0
    grey[30:40, 30:40] = 0
    expected = np.zeros(grey.shape, bool)
    expected[:20, :5] = True
    assert np.array_equal(find_padding(grey, (0,)), expected), "zeros within the specimen are values"
    assert not find_padding(grey, (999,)).any()
    assert find_padding(grey - 3024, (-3024,)).sum() == 100


def foam(shape, share, rng):
    """Air spaces of a few pixels between walls that fill `share` of the area."""
    noise = np.abs([ndimage.gaussian_filter(one, 1.5) for one in rng.standard_normal(shape)])
    return noise < np.quantile(noise, share)


@pytest.mark.parametrize("share", [0.15, 0.5])
def test_a_specimen_is_outlined_with_its_air_spaces(share):
    rng = np.random.default_rng(3)
    inside = np.hypot(*(np.indices((300, 300)) - 150)) < 100
    truth = np.array([inside, inside])
    grey = 1000 + 4000 * (truth * foam(truth.shape, share, rng)) + rng.normal(0, 300, truth.shape)
    outline = outlined(grey, (1000, 5000), False)
    mask = np.array([at_full_size(one, (300, 300)) for one in outline])
    assert 2 * (mask & truth).sum() / (mask.sum() + truth.sum()) > 0.97


def test_a_specimen_that_fills_the_field_is_all_specimen():
    rng = np.random.default_rng(3)
    grey = 1000 + 4000 * foam((1, 200, 240), 0.2, rng) + rng.normal(0, 200, (1, 200, 240))
    assert at_full_size(outlined(grey, (1000, 5000), True)[0], (200, 240)).mean() > 0.99


def test_air_alone_is_no_specimen():
    grey = np.random.default_rng(3).normal(1000, 200, (2, 100, 100))
    assert not outlined(grey, (1000, 5000), False).any()


def test_black_corners_do_not_bend_the_outline():
    rng = np.random.default_rng(3)
    grey = 1000 + 4000 * foam((1, 200, 200), 0.3, rng) + rng.normal(0, 200, (1, 200, 200))
    corner = np.add.outer(np.arange(200), np.arange(200)) < 60
    grey[0, corner] = 0
    mask = at_full_size(outlined(grey, (1000, 5000), True)[0], (200, 200)) & ~find_padding(grey[0], (0,))
    assert not mask[corner].any() and mask[~corner].mean() > 0.99


def blobs(rng, shape, sigma):
    """Smooth noise with an SD of 1."""
    noise = ndimage.gaussian_filter(rng.standard_normal(shape), sigma)
    return noise / noise.std()


@pytest.mark.parametrize("seed", range(12))
def test_the_lung_found_slice_by_slice_is_that_of_the_whole_volume(chest, seed):
    """Chests and blobs with noise, nodules, bowel gas, mattress and padding, thin and thick slices, several pixel
    sizes.
    """
    rng = np.random.default_rng(seed)
    if seed % 3:
        hu = chest + 25 * blobs(rng, chest.shape, 0)
        hu[:, ellipse(32, 48, 5, 4)] = 40
        hu[3:, ellipse(50, 32, 5, 9)] = -1000
        hu[:, 59:63, 7:57] = rng.normal(-900, 60, (6, 4, 50))
    else:
        hu = -500 + 450 * blobs(rng, (9, 70, 50), (1, 3, 3)) + 60 * blobs(rng, (9, 70, 50), 0)
    hu = np.rint(hu).astype(np.int16)
    padding = np.zeros(hu.shape, bool)
    if seed % 2 and seed % 3:
        padding[1:, :, : 6 + seed] = True
        hu[padding] = -1000
    settings = ClinicalVolume(closing_mm=(0, 3, 4, 7)[seed % 4])
    spacing = ((1.0, 1.0, 1.0), (0.7, 0.5, 2.0), (0.3, 0.9, 1.0))[seed % 3]
    expected = whole_masks.lung_mask(hu, spacing, settings, padding)
    assert 0.02 < expected.mean() < 0.9
    assert np.array_equal(lung(hu, settings, spacing, padding), expected), "the rule is in tests/whole_masks.py too"


@pytest.mark.parametrize("independent", [False, True])
@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.uint16, np.int32, np.float32])
@pytest.mark.parametrize("share", [0.12, 0.25, 0.5])
def test_the_outline_found_slice_by_slice_is_that_of_the_whole_volume(monkeypatch, share, dtype, independent):
    """Foam in blobs in a round field of view, on a grid that does not divide the image evenly; thin foam and thick."""
    for module in (masks, whole_masks):
        monkeypatch.setattr(module, "COARSE_PIXELS", 40)
    rng = np.random.default_rng(int(100 * share))
    shape = (7, 90, 110)
    specimen = blobs(rng, shape, (1, 9, 9)) > 0.3
    grey = 60 + 140 * (specimen * foam(shape, share, rng)) + rng.normal(0, 12, shape)
    grey = np.clip(grey, 1, 255).astype(dtype)
    row, column = np.indices(shape[1:])
    grey[:, np.hypot(row - 45, column - 55) > 52] = 0
    expected = whole_masks.specimen_outline(grey, (60, 200), independent, (0,))
    assert 0.05 < expected.mean() < 0.8
    assert np.array_equal(outlined(grey, (60, 200), independent), expected), "see tests/whole_masks.py"


def test_padding_with_a_value_of_its_own_is_no_tissue(monkeypatch):
    """A declared padding value above that of tissue, beside zeros."""
    for module in (masks, whole_masks):
        monkeypatch.setattr(module, "COARSE_PIXELS", 40)
    rng = np.random.default_rng(0)
    grey = np.rint(60 + 140 * foam((3, 90, 110), 0.3, rng) + rng.normal(0, 9, (3, 90, 110))).astype(np.int16)
    grey[:, :30], grey[:, :, :10] = 3000, 0
    found = specimen_outline(grey, (60, 200), False, Padding(grey, (0, 3000)))
    assert np.array_equal(np.asarray(found), whole_masks.specimen_outline(grey, (60, 200), False, (0, 3000)))
    assert not np.asarray(found)[:, :8].any()


@pytest.mark.parametrize("size", [(90, 110), (40, 33), (97, 41), (120, 80), (33, 200)])
def test_a_coarse_slice_is_brought_to_full_size_as_by_linear_interpolation(monkeypatch, size):
    for module in (masks, whole_masks):
        monkeypatch.setattr(module, "COARSE_PIXELS", 40)
    factor = -(-max(size) // 40)
    coarse = blobs(np.random.default_rng(0), [-(-n // factor) for n in size], 1) > 0
    assert np.array_equal(at_full_size(coarse, size), whole_masks.at_full_size(coarse, size))


@pytest.mark.parametrize("values", [(0, 2), (0, 1, 3)])
def test_padding_is_that_of_labelled_regions(monkeypatch, values):
    for module in (masks, whole_masks):
        monkeypatch.setattr(module, "PADDING_SHARE", 0.02)
    rng = np.random.default_rng(0)
    for _ in range(50):
        grey = rng.integers(0, 4, (30, 40)) * (blobs(rng, (30, 40), 2) > -0.5)
        assert np.array_equal(find_padding(grey, values), whole_masks.padded(grey, values))


def test_padding_is_looked_for_once_in_a_slice():
    grey = np.random.default_rng(0).integers(1, 200, (2, 60, 80))
    grey[:, :20, :5] = 0
    asked = []
    array = Slices(lambda z: asked.append(z) or grey[z], grey.shape, grey.dtype)
    padding = Padding(array, (0,))
    for _ in range(3):
        assert np.array_equal(padding[1], find_padding(grey[1], (0,)))
    assert asked == [1]
    assert padding.packed_slice(0, grey[0]) == padding.packed_slice(0) and asked == [1], (
        "nor is it read if it is at hand"
    )


@pytest.mark.parametrize("seed", range(8))
def test_the_median_content_is_exact_though_only_its_neighbours_are_held(seed):
    rng = np.random.default_rng(seed)
    images = rng.gamma(2, 0.03 * (1 + seed), (5, 40, 31)).astype(np.float32)
    if seed == 7:
        images[:] = np.float32(0.07)
    counts = sum(np.bincount(masks._bins(i[i >= masks.SOME_CONTENT]), minlength=masks.MEDIAN_BINS + 1) for i in images)
    expected = min(float(np.median(images[images >= masks.SOME_CONTENT])), masks.USUAL_CONTENT)
    assert masks._median(counts, iter(images)) == expected


def test_the_median_of_an_even_number_lies_between_two_distant_values():
    rng = np.random.default_rng(0)
    image = np.concatenate([rng.uniform(0.08, 0.0801, 50), rng.uniform(0.2, 0.2001, 50)]).astype(np.float32)
    counts = np.bincount(masks._bins(image), minlength=masks.MEDIAN_BINS + 1)
    assert masks._median(counts, iter([image[::2], image[1::2]])) == float(np.median(image))
