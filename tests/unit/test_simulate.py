"""The simulated lung and its two scanners, against hand-computed geometry, partial volume, blur and noise."""

import functools
import math
from types import SimpleNamespace

import numpy as np
import pytest
import SimpleITK as sitk
from scipy.special import ndtr

from microsr import UserError, config, foam, trees
from microsr.anatomy import AIR_HU, AIRWAY_WALL_HU, BLOOD_HU, Lung
from microsr.simulate import clinical_scan, micro_scan, scanner_noise, simulate, specimen_grid
from microsr.space import Grid, sheet_share

SMALL = config.Simulate(clinical_size=24, clinical_slices=2, specimen_mm=4.0, noise_hu=10)


@functools.cache
def small_lung() -> Lung:
    return Lung(24 * 0.625, 2 * 0.6, np.random.default_rng(3))


def tube(radius: float, start=(0.0, 0.0, -5.0), end=(0.0, 0.0, 5.0)) -> trees.Tubes:
    return trees.Tubes(np.array([start]), np.array([end]), np.array([radius]), np.array([radius]))


def test_a_sheet_thinner_than_the_voxel_is_partial_volume():
    # 0.02 mm in a voxel of 0.1 mm: a fifth when wholly inside, half of that on the voxel's face, nothing beyond
    assert sheet_share(np.array([0.0, 0.04, 0.05, 0.06]), 0.02, 0.1) == pytest.approx([0.2, 0.2, 0.1, 0.0], abs=1e-12)
    assert sheet_share(np.array([0.0]), 0.3, 0.1) == pytest.approx([1.0])


def test_a_vessel_covers_the_area_of_its_circle_and_half_of_a_voxel_on_its_border():
    grid = Grid.centred((0, 0, 0), (0.05,) * 3, (1, 101, 101))
    share = trees.coverage(grid, tube(1.0))[0]
    assert share.sum() * 0.05**2 == pytest.approx(math.pi, rel=0.005)
    assert share[50, 50] == 1 and share[50, 70] == pytest.approx(0.5, abs=1e-4)
    assert share[50, 71] == pytest.approx(0) and share[50, 69] == pytest.approx(1)


def test_an_oblique_tube_has_an_elliptic_section():
    grid = Grid.centred((0, 0, 0), (0.05,) * 3, (1, 101, 121))
    share = trees.coverage(grid, tube(1.0, (-4.0, 0.0, -4.0), (4.0, 0.0, 4.0)))[0]
    assert share.sum() * 0.05**2 == pytest.approx(math.pi * math.sqrt(2), rel=0.01)


def test_an_airway_is_a_ring_of_the_stated_thickness_around_air():
    spacing, radius = 0.05, 1.0
    grid = Grid.centred((0, 0, 0), (spacing,) * 3, (1, 121, 121))
    hu = np.full(grid.shape, -850, np.float32)
    trees.paint_airways(hu, grid, tube(radius), AIRWAY_WALL_HU, AIR_HU)
    thickness = float(trees.wall_thickness(2 * radius))
    assert thickness == pytest.approx(0.25)
    row = hu[0, 60]
    distance = np.abs(grid.x)
    assert np.all(row[distance < radius - spacing] == AIR_HU)
    assert np.all(row[(distance > 1.03) & (distance < 1.22)] == AIRWAY_WALL_HU)
    assert np.all(row[distance > 1.28] == -850)
    # along the ray the wall's tissue above its surroundings, voxel by voxel, adds up to its thickness
    right = grid.x > 0.5
    tissue = np.where(grid.x < 1.1, (row - AIR_HU) / (AIRWAY_WALL_HU - AIR_HU), (row + 850) / (AIRWAY_WALL_HU + 850))
    assert tissue[right].sum() * spacing == pytest.approx(thickness, abs=0.002)


def test_a_lumen_stays_open_where_two_airways_meet():
    grid = Grid.centred((0, 0, 0), (0.1,) * 3, (1, 41, 81))
    hu = np.zeros(grid.shape, np.float32)
    trees.paint_airways(hu, grid, tube(1.0).joined(tube(0.6, (0, 0, 0), (4, 0, 0))), AIRWAY_WALL_HU, AIR_HU)
    assert np.all(hu[0, 20, 40:75] == AIR_HU)


def test_a_tree_obeys_murrays_law_and_reaches_its_tissue():
    assert trees.murray_diameter(1) / trees.murray_diameter(2) == pytest.approx(0.7937, abs=1e-4)
    points = np.random.default_rng(0).uniform(-10, 10, (200, 3))
    curves = trees.grow(points, np.array([0.0, 0.0, -15.0]), (-10, 10), np.random.default_rng(1))
    ends = np.array([curve[-1] for curve, _ in curves])
    gaps = np.linalg.norm(points[:, None] - ends, axis=2).min(axis=1)
    assert gaps.max() < 1e-6
    assert max(radii.max() for _, radii in curves) < 1.06 * trees.murray_diameter(200) / 2


def test_foam_holds_the_same_tissue_at_uct_and_at_clinical_eighth_voxels():
    alveoli = foam.Foam(np.random.default_rng(5))
    fields = {s: alveoli(Grid.centred((0, 0, 0), (s,) * 3, (round(5 / s),) * 3)) for s in (0.05, 0.078125)}
    for tissue in fields.values():
        assert tissue.mean() == pytest.approx(1, abs=0.03)
        assert tissue.min() >= 0
    assert fields[0.05].std() > 1.2 * fields[0.078125].std() > 0.5  # the finer voxel sees more of a wall


def test_blurred_parenchyma_air_and_blood_have_their_hu():
    lung = small_lung()
    clinical, truth = clinical_scan(lung, SMALL.model_copy(update={"noise_hu": 0.0}), np.random.default_rng(0))
    pixels = Grid.centred((0, 0, 0), clinical.spacing, clinical.shape)
    inside = (lung.depth_inside(pixels) > 1.5) & (lung.tumour.distance(pixels) > 3)
    assert -880 < np.median(clinical.array[inside]) < -810
    assert truth.array.min() == AIR_HU
    assert 0 < truth.array.max() < 120


def test_the_lung_is_closed_off_from_the_image_border_by_soft_tissue():
    lung = Lung(30, 1.2, np.random.default_rng(8))
    grid = Grid.centred((0, 0, 0), (0.3, 0.3, 0.3), (4, 100, 100))
    hu = lung.render(grid, foam=False)
    border = np.concatenate([hu[:, 0], hu[:, -1], hu[:, :, 0], hu[:, :, -1]], axis=1)
    assert border.min() > -200 and border.max() < 150
    assert (hu < -400).mean() > 0.6


def test_the_same_place_has_the_same_tissue_whatever_grid_asks():
    lung = small_lung()
    whole = Grid.centred((1, 2, 0), (0.08,) * 3, (6, 40, 40))
    part = whole.part((slice(2, 5), slice(10, 30), slice(5, 25)))
    assert lung.render(part) == pytest.approx(lung.render(whole)[2:5, 10:30, 5:25], abs=0.5)


def scan_of(pattern, **changes):
    settings = SMALL.model_copy(update={"noise_hu": 0.0, "clinical_slices": 5, **changes})
    lung = SimpleNamespace(render=lambda g: np.broadcast_to(pattern(g), g.shape).astype(np.float32))
    return clinical_scan(lung, settings, np.random.default_rng(0))[0].array


def test_an_edge_is_blurred_by_the_point_spread_function():
    # 1000 HU step at x = 0; pixel centres at odd multiples of 0.3125 mm
    row = scan_of(lambda g: np.where(g.x > 0, 0, AIR_HU), psf_sigma_mm=0.33)[2, 12]
    expected = 1000 * ndtr((np.arange(24) - 11.5) * 0.625 / 0.33) - 1000
    assert row == pytest.approx(expected, abs=1)


def test_an_edge_across_slices_is_blurred_by_the_slice_profile():
    column = scan_of(lambda g: np.where(g.z > 0.3, 0, AIR_HU)[:, None, None])[:, 12, 12]
    step = 0.6 / 8  # the edge lies on a plane's centre, so it is half a step further up
    expected = 1000 * ndtr(((np.arange(5) - 2) * 0.6 - 0.3 - step / 2) / 0.29) - 1000
    assert column == pytest.approx(expected, abs=2)


def test_what_lies_above_the_nyquist_limit_aliases_instead_of_being_averaged_away():
    # 1 cycle/mm: point samples at 0.625 mm alias to 0.6 cycles/mm with amplitude MTF = exp(-2 (pi sigma f)^2)
    image = scan_of(lambda g: 400 * np.cos(2 * np.pi * g.x), psf_sigma_mm=0.2)
    x = (np.arange(24) - 11.5) * 0.625
    mtf = math.exp(-2 * (math.pi * 0.2) ** 2)
    assert image[2, 12, 3:-3] == pytest.approx(400 * mtf * np.cos(2 * np.pi * x)[3:-3], abs=3)


def test_scanner_noise_has_unit_sd_no_mean_and_a_spectrum_that_rises_from_zero():
    settings = SMALL.model_copy(update={"psf_sigma_mm": 0.33})
    noise = scanner_noise((30, 64, 64), settings, np.random.default_rng(2))
    assert noise.std() == pytest.approx(1, abs=0.03)
    power = (np.abs(np.fft.fft2(noise)) ** 2).mean(axis=0)
    assert power[0, 1] < 0.4 * power[0, 12]
    neighbours = np.mean(noise[1:] * noise[:-1])
    assert neighbours == pytest.approx(math.exp(-(0.6**2) / (4 * 0.29**2)), abs=0.05)


def test_clinical_noise_has_the_sd_that_was_asked_for():
    still = scan_of(lambda g: np.zeros(1), clinical_size=64)
    noisy = scan_of(lambda g: np.zeros(1), clinical_size=64, noise_hu=25.0)
    assert still.std() == 0
    assert noisy.std() == pytest.approx(25, rel=0.08)


def test_uct_has_its_own_grey_scale_noise_and_air_around_a_block():
    grid = Grid.centred((0, 0, 0), (0.1,) * 3, (4, 100, 100))
    lung = SimpleNamespace(render=lambda g: np.full(g.shape, BLOOD_HU, np.float32))
    volume, scale = micro_scan(lung, grid, np.random.default_rng(4))
    contrast = scale["tissue"] - scale["air"]
    centre, corner = volume.array[:, 30:70, 30:70].astype(float), volume.array[:, :3, :3].astype(float)
    assert volume.array.dtype == np.uint16 and volume.unit == "grey"
    assert centre.mean() == pytest.approx(scale["tissue"], abs=0.01 * contrast)
    assert corner.mean() == pytest.approx(scale["air"], abs=0.03 * contrast)
    assert centre.std() / contrast == pytest.approx(math.hypot(0.03, 0.006), abs=0.003)


def test_the_specimen_lies_inside_the_lung_and_has_its_mix():
    settings = config.Simulate(clinical_size=48, clinical_slices=4, specimen_mm=8.0)
    lung = Lung(30, 2.4, np.random.default_rng(6))
    grid = specimen_grid(lung, settings)
    assert grid.shape == (48, 160, 160)
    assert lung.depth_inside(grid.part((slice(None, None, 8), slice(None, None, 8), slice(None, None, 8)))).min() > 0
    coarse = Grid.centred((0, 0, 0), (0.3,) * 3, (8, 100, 100))
    lung_mean = lung.render(coarse, foam=False)[lung.depth_inside(coarse) > 0.5].mean()
    block = grid.part((slice(None, None, 6), slice(None, None, 6), slice(None, None, 6)))
    assert lung.render(block, foam=False).mean() == pytest.approx(lung_mean, abs=40)


def test_a_specimen_larger_than_the_lung_is_refused_in_one_line(tmp_path):
    with pytest.raises(UserError, match=r"specimen_mm: a specimen of 20 mm does not fit"):
        simulate(tmp_path, "test1", "test", 1, SMALL.model_copy(update={"specimen_mm": 20.0}))


def test_files_repeat_byte_for_byte_cases_differ_and_truth_overlays_the_clinical_ct(tmp_path):
    for folder, case in (("a", "test1"), ("b", "test1"), ("c", "test2")):
        simulate(tmp_path / folder, case, "test", 1, SMALL)
    simulate(tmp_path / "d", "train1", "train", 1, SMALL)
    for name in ("clinical", "micro", "truth"):
        first, second, other = ((tmp_path / f / f"{name}.nii.gz").read_bytes() for f in "abc")
        assert first == second != other
    assert not (tmp_path / "d/truth.nii.gz").exists()
    clinical, truth, micro = (sitk.ReadImage(str(tmp_path / f"a/{n}.nii.gz")) for n in ("clinical", "truth", "micro"))
    assert clinical.GetSize() == (24, 24, 2) and truth.GetSize() == (192, 192, 2)
    assert clinical.GetSpacing() == pytest.approx((0.625, 0.625, 0.6))
    assert truth.GetSpacing() == pytest.approx((0.078125, 0.078125, 0.6))
    # the outer edges of the first pixels coincide, and so do the slices
    edge = [c - s / 2 for c, s in zip(clinical.GetOrigin(), clinical.GetSpacing(), strict=True)]
    assert [o - s / 2 for o, s in zip(truth.GetOrigin(), truth.GetSpacing(), strict=True)] == pytest.approx(edge)
    assert micro.GetSpacing() == pytest.approx((0.05, 0.05, 0.05)) and micro.GetSize() == (80, 80, 24)
    assert (clinical.GetPixelID(), micro.GetPixelID()) == (sitk.sitkInt16, sitk.sitkUInt16)
    # and they show the same tissue: the pooled truth follows the clinical CT
    pooled = sitk.GetArrayFromImage(truth).reshape(2, 24, 8, 24, 8).mean(axis=(2, 4))
    assert np.corrcoef(pooled.ravel(), sitk.GetArrayFromImage(clinical).ravel())[0, 1] > 0.97
