"""The metrics' formulas against answers worked out by hand, and what must and must not move them."""

import numpy as np
import pytest
import torch
from scipy import stats
from scipy.ndimage import gaussian_filter, zoom
from scipy.spatial import cKDTree
from skimage.metrics import structural_similarity
from torchmetrics.functional.image import multiscale_structural_similarity_index_measure

from microsr.evaluation.metrics import (
    checkerboard,
    consistency_rmse,
    consistency_scan_rmse,
    magnify,
    mean_shift,
    ms_ssim_value,
    pooled_difference,
    psnr,
    rmse,
    scan_in_plane,
    slice_weights,
    spectrum_distance,
    ssim,
    ssim_values,
    truth_difference,
)
from microsr.physics.moments import Moments
from microsr.physics.pooling import average_pool
from microsr.physics.scanner import KERNELS
from microsr.physics.spectrum import mean_power, windows_at

SIDE = 512


@pytest.fixture
def rng():
    return np.random.default_rng(0)


@pytest.fixture(scope="module")
def alveoli():
    """Walls between the cells of random points, in HU: texture with edges in every direction."""
    points = np.random.default_rng(5).uniform(0, SIDE, (1500, 2))
    pixels = np.stack(np.indices((SIDE, SIDE)), axis=-1)
    near = cKDTree(points).query(pixels, k=2)[0]
    walls = np.where(near[..., 1] - near[..., 0] < 3, -300.0, -950.0)
    return np.rint(gaussian_filter(walls, 0.7))


def power_of(image, size=128, number=128):
    corners = np.random.default_rng(1).integers(0, len(image) - size, (number, 2))
    positions = np.column_stack([np.zeros(number, int), corners])
    return mean_power(windows_at(image[None], positions, size))


def difference(superresolved, clinical, mask=None):
    mask = np.ones(clinical.shape) if mask is None else mask
    return Moments().add(pooled_difference(superresolved, clinical, mask))


def test_moments_of_parts_are_those_of_the_whole():
    moments = Moments().add(np.array([1, 2])).add(np.array([[6]]))
    assert moments.mean == 3 and moments.mean_square == pytest.approx((1 + 4 + 36) / 3)


def test_average_pool_is_the_mean_of_each_8x8_block():
    image = np.zeros((16, 8))
    image[0, 0], image[15, 7] = 64, 128
    assert average_pool(image, 8).tolist() == [[1.0], [2.0]]


def test_average_pool_does_not_overflow_int16():
    assert average_pool(np.full((2, 8, 8), 30000, np.int16), 8).tolist() == [[[30000.0]], [[30000.0]]]


def test_magnified_mask_covers_the_same_tissue():
    mask = np.array([[0, 1], [0, 0]], np.uint8)
    large = magnify(mask, 8)
    assert large.shape == (16, 16) and large[:8, 8:].all() and large.sum() == 64


def test_pooled_sr_equals_input_for_nearest_upsampling(rng):
    clinical = rng.integers(-1000, 200, (12, 10))
    nearest = np.kron(clinical, np.ones((8, 8)))
    assert consistency_rmse(difference(nearest, clinical)) == 0
    assert mean_shift(difference(nearest, clinical)) == 0


def test_ten_hu_more_everywhere_shift_the_mean_by_ten_and_cost_ten(rng):
    clinical = rng.integers(-1000, 200, (12, 10))
    brighter = np.kron(clinical, np.ones((8, 8))) + 10
    assert mean_shift(difference(brighter, clinical)) == pytest.approx(10)
    assert consistency_rmse(difference(brighter, clinical)) == pytest.approx(10)


def test_errors_of_both_signs_cancel_in_the_shift_but_not_in_consistency():
    clinical = np.zeros((2, 2))
    error = np.kron([[30, -30], [40, -40]], np.ones((8, 8)))
    assert mean_shift(difference(error, clinical)) == 0
    assert consistency_rmse(difference(error, clinical)) == pytest.approx(np.sqrt((900 + 1600) / 2))


def test_texture_with_zero_mean_in_each_clinical_pixel_costs_no_consistency(rng):
    texture = rng.normal(0, 100, (24, 24))
    texture -= np.kron(average_pool(texture, 8), np.ones((8, 8)))
    assert consistency_rmse(difference(texture, np.zeros((3, 3)))) == pytest.approx(0, abs=1e-9)


def test_only_the_lung_counts():
    clinical, superresolved = np.zeros((2, 2)), np.zeros((16, 16))
    superresolved[:8, :8], superresolved[8:, 8:] = 7, 999
    mask = np.array([[1, 1], [1, 0]], np.uint8)
    assert mean_shift(difference(superresolved, clinical, mask)) == pytest.approx(7 / 3)


def test_spectrum_distance_of_uct_to_itself_is_zero_and_to_other_windows_of_it_small(alveoli):
    power = power_of(alveoli)
    assert spectrum_distance(power, power, 8) == 0
    assert spectrum_distance(power_of(alveoli[::-1].T), power, 8) < 0.1


def test_spectrum_distance_of_white_noise_of_double_amplitude_is_log10_of_4(rng):
    noise = rng.normal(0, 30, (SIDE, SIDE))
    assert spectrum_distance(power_of(2 * noise), power_of(noise), 8) == pytest.approx(np.log10(4), abs=1e-6)
    assert spectrum_distance(power_of(noise), power_of(2 * noise), 8) == pytest.approx(np.log10(4), abs=1e-6)


def test_spectrum_distance_of_the_bicubic_version_is_large(alveoli):
    bicubic = zoom(average_pool(alveoli, 8), 8, order=3, mode="nearest", grid_mode=True)
    assert spectrum_distance(power_of(np.rint(bicubic)), power_of(alveoli), 8) > 2


def test_spectrum_distance_ignores_what_the_clinical_ct_resolves(alveoli):
    n = 128
    power = power_of(alveoli)
    step = np.rint(np.hypot(*np.meshgrid(*[np.fft.fftfreq(n) * n] * 2)))
    assert spectrum_distance(np.where(step <= n // 16, 1000 * power, power), power, 8) == 0
    changed = spectrum_distance(np.where(step == n // 16 + 1, 10 * power, power), power, 8)
    assert changed == pytest.approx(1 / (n // 2 - n // 16))


def test_spectra_of_different_windows_are_not_compared(alveoli):
    with pytest.raises(ValueError, match="different windows"):
        spectrum_distance(power_of(alveoli, 64), power_of(alveoli, 128), 8)


def test_no_checkerboard_in_noise_smooth_images_alveoli_and_flat_images(rng, alveoli):
    noise = rng.normal(0, 500, (SIDE, SIDE))
    natural = [noise, gaussian_filter(noise, 1), gaussian_filter(4 * noise, 4), alveoli, np.full((SIDE, SIDE), -800)]
    slope = np.add.outer(np.arange(SIDE), 2 * np.arange(SIDE))
    bicubic = zoom(average_pool(alveoli + noise, 8), 8, order=3, mode="nearest", grid_mode=True)
    for image in [*natural, slope, bicubic]:
        for size in (128, 64):
            assert checkerboard(power_of(np.rint(image), size), 8) < 0.35


def test_smooth_spectra_have_no_peak_however_steep():
    squared = np.add.outer(np.fft.fftfreq(64) ** 2, np.fft.fftfreq(64) ** 2)
    assert checkerboard(1e80 * np.exp(-4 * np.pi**2 * 4**2 * squared / 2), 8) < 1e-6
    assert checkerboard(1e6 * np.maximum(squared, 1e-9) ** -1.5, 8) < 0.1


@pytest.mark.parametrize("period", [8, 4, 2])
def test_a_pattern_of_the_stride_is_seen_in_alveoli(alveoli, rng, period):
    repeats = SIDE // period
    pattern = np.tile(rng.normal(0, 10, (period, period)), (repeats, repeats))
    for size in (128, 64, 32):
        assert checkerboard(power_of(np.rint(alveoli + pattern), size), 8) > 1


@pytest.mark.parametrize("signs", ["rows", "columns", "both"])
def test_a_checkerboard_of_single_pixels_is_seen_along_rows_columns_and_both(alveoli, signs):
    row, column = np.indices((SIDE, SIDE))
    wave = (-1.0) ** {"rows": row, "columns": column, "both": row + column}[signs]
    assert checkerboard(power_of(alveoli + 10 * wave), 8) > 1


def test_a_pattern_of_another_period_is_no_checkerboard(alveoli):
    wave = 30 * np.cos(2 * np.pi * np.arange(SIDE) / 5) * np.ones((SIDE, 1))
    assert checkerboard(power_of(alveoli + wave), 8) < 0.35


def test_checkerboard_is_ten_times_the_power_for_each_unit(rng):
    noise, n = rng.normal(0, 30, (SIDE, SIDE)), 128
    power = power_of(noise, n, 256)
    weaker, stronger = power.copy(), power.copy()
    weaker[n // 4, n // 8] = 10**2 * 30**2
    stronger[n // 4, n // 8] = 10**3 * 30**2
    assert checkerboard(weaker, 8) == pytest.approx(2, abs=0.1)
    assert checkerboard(stronger, 8) - checkerboard(weaker, 8) == pytest.approx(1)


def test_psnr_of_a_known_error():
    truth = np.zeros((4, 4))
    error = np.where(np.eye(4) > 0, 14.0, 999.0)
    differences = Moments().add(truth_difference(truth + error, truth, np.eye(4)))
    assert psnr(differences, 1400) == pytest.approx(40)
    assert psnr(differences, 2800) == pytest.approx(40 + 20 * np.log10(2))


def test_psnr_of_the_truth_is_infinite():
    assert psnr(Moments().add(np.zeros(5)), 1400) == np.inf


def test_ssim_of_the_truth_is_one_and_of_noise_less(rng):
    truth, mask = rng.normal(-800, 100, (40, 40)), np.ones((40, 40))
    assert ssim(Moments().add(ssim_values(truth, truth, mask, 1400))) == pytest.approx(1)
    assert ssim(Moments().add(ssim_values(truth + rng.normal(0, 100, (40, 40)), truth, mask, 1400))) < 0.95


def test_ssim_of_two_flat_images_is_the_luminance_term():
    """With no variance SSIM is (2 a b + C1) / (a^2 + b^2 + C1), C1 = (0.01 range)^2 (Wang et al. 2004)."""
    a, b, c1 = 100.0, 200.0, (0.01 * 1400) ** 2
    flat = np.ones((24, 24))
    values = ssim_values(a * flat, b * flat, flat, 1400)
    assert np.allclose(values, (2 * a * b + c1) / (a**2 + b**2 + c1), atol=1e-5)


def test_ssim_weighs_squared_deviations_without_correcting_for_the_number_of_pixels():
    """Of a chessboard +-A and a flat image, where A^2 is C2: C2 / (A^2 + C2) = 1/2 (Wang et al. 2004, equations 14 to
    16).
    """
    chessboard = 0.03 * 1400 * (-1.0) ** np.indices((40, 40)).sum(axis=0)
    middle = np.pad(np.ones((28, 28)), 6)  # at the image's ends, which are mirrored, the chessboard is another
    values = ssim_values(chessboard, np.zeros((40, 40)), middle, 1400)
    assert np.abs(values - 1 / 2).max() < 2e-4, "a sample covariance of 11x11 pixels gives 0.4979"


def test_ssim_inside_the_mask_is_that_of_the_whole_image_there(rng):
    truth = rng.normal(-800, 100, (64, 80))
    image = truth + rng.normal(0, 60, truth.shape)
    mask = np.zeros(truth.shape)
    mask[0:24, 30:60] = 1
    mask[20:30, 40] = 1
    settings = {"data_range": 1400, "gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False}
    _, whole = structural_similarity(image, truth, full=True, **settings)
    assert np.allclose(ssim_values(image, truth, mask, 1400), whole[mask > 0], atol=1e-3)


def test_ssim_of_a_slice_without_lung_counts_nothing():
    assert ssim_values(np.zeros((32, 32)), np.zeros((32, 32)), np.zeros((32, 32)), 1400).size == 0


def test_an_image_scanned_by_the_scanner_itself_is_consistent(rng):
    """A slow wave (period 8 mm) loses the kernel's MTF there, in the samples at the clinical pixels' centres."""
    kernel, spacing, frequency = KERNELS["B30"], (0.5, 0.625), 1 / 8
    fine, coarse = (np.arange(512) - 3.5) * 0.5 / 8, np.arange(64) * 0.5
    image = 300 * np.cos(2 * np.pi * frequency * fine) * np.ones((256, 1)) - 800
    seen = 300 * float(kernel.mtf(frequency)) * np.cos(2 * np.pi * frequency * coarse) * np.ones((32, 1)) - 800
    middle = np.s_[6:-6, 6:-6]
    assert np.abs(scan_in_plane(image, kernel, spacing, 8) - seen)[middle].max() < 0.5
    noise = rng.normal(0, 20, seen.shape)
    found = consistency_scan_rmse(Moments().add((scan_in_plane(image, kernel, spacing, 8) - seen - noise)[middle]))
    assert found == pytest.approx(20, rel=0.1)
    sharper = (scan_in_plane(image, KERNELS["lung"], spacing, 8) - seen)[middle]
    assert np.abs(sharper).max() == pytest.approx(300 * (1 - float(kernel.mtf(frequency))), rel=0.2)


@pytest.mark.parametrize(("slice_mm", "sigma_mm", "number"), [(0.6, 0.29, 3), (0.3, 0.29, 5), (2.5, 0.3, 3)])
def test_a_clinical_slice_averages_its_neighbours_by_the_profile(slice_mm, sigma_mm, number):
    weights = slice_weights(slice_mm, sigma_mm)
    assert len(weights) == number and weights.sum() == pytest.approx(1) and weights == pytest.approx(weights[::-1])
    inside = stats.norm.cdf(slice_mm / 2, scale=sigma_mm) - stats.norm.cdf(-slice_mm / 2, scale=sigma_mm)
    assert weights[number // 2] == pytest.approx(inside, rel=0.05), "the profile over the slice's own tissue"


def test_rmse_is_in_hu_and_undefined_for_nothing():
    assert rmse(Moments().add(np.array([3, -4, 3, -4]))) == pytest.approx(np.sqrt(12.5))
    assert np.isnan(rmse(Moments())) and np.isnan(ssim(Moments()))


def test_ms_ssim_counts_the_lung_only_and_falls_with_noise(rng):
    truth = gaussian_filter(rng.normal(0, 1, (200, 220)), 3) * 1000 - 800
    mask = np.zeros(truth.shape)
    mask[50:120, 150:219] = 1
    noisy = truth + rng.normal(0, 150, truth.shape)
    assert ms_ssim_value(truth, truth, mask, 1400) == pytest.approx(1)
    assert ms_ssim_value(np.where(mask, truth, 500), truth, mask, 1400) == pytest.approx(1)
    values = [ms_ssim_value(truth + share * (noisy - truth), truth, mask, 1400) for share in (0.3, 1)]
    assert 1 > values[0] > values[1]


def test_ms_ssim_is_that_of_torchmetrics(rng):
    truth = gaussian_filter(rng.normal(0, 1, (181, 236)), 2) * 1500 - 800
    images = truth + rng.normal(0, 200, truth.shape), gaussian_filter(truth, 2), truth[::-1].copy(), -truth
    for image in images:
        pair = (torch.from_numpy(np.asarray(one, np.float32) + 1000.0).double()[None, None] for one in (image, truth))
        expected = multiscale_structural_similarity_index_measure(*pair, sigma=1.5, data_range=1400.0)
        assert ms_ssim_value(image, truth, np.ones(truth.shape), 1400) == pytest.approx(float(expected), abs=1e-5)


def test_ms_ssim_needs_lung_and_room_for_five_scales():
    small, large = np.zeros((175, 300)), np.zeros((176, 300))
    assert np.isnan(ms_ssim_value(small, small, np.ones(small.shape), 1400))
    assert np.isnan(ms_ssim_value(large, large, np.zeros(large.shape), 1400))
    assert ms_ssim_value(large, large, np.ones(large.shape), 1400) == pytest.approx(1, abs=1e-3)


def test_ms_ssim_of_a_large_slice_is_the_mean_over_its_tiles_by_their_lung(rng):
    truth = rng.normal(-800, 100, (200, 1500))
    noisy = truth + rng.normal(0, 100, truth.shape) * (np.arange(1500) >= 750)
    mask = np.ones(truth.shape)
    noise_alone = ms_ssim_value(noisy[:, 750:], truth[:, 750:], mask[:, 750:], 1400)
    assert ms_ssim_value(noisy, truth, mask, 1400) == pytest.approx((1 + noise_alone) / 2, abs=1e-3)
    mask[50:, :750] = 0
    share = 200 / (200 + 50)
    assert ms_ssim_value(noisy, truth, mask, 1400) == pytest.approx(1 - share + share * noise_alone, abs=1e-3)
