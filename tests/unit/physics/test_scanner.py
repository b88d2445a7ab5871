"""The clinical scanner: MTF, blur, sampling and noise, against closed forms."""

import math

import numpy as np
import pytest

from microsr import config
from microsr.physics.scanner import KERNELS, Kernel, noise, operators, project, sampled_noise_power, sampling

NAMES = pytest.mark.parametrize("name", sorted(KERNELS))


def centres(count: int, step: float) -> np.ndarray:
    return (np.arange(count) - (count - 1) / 2) * step


@pytest.mark.parametrize(("name", "mtf50", "mtf10"), [("B30", 3.5, 5.9), ("D45", 5.6, 9.4), ("lung", 8.5, 14.3)])
def test_a_kernel_has_its_stated_mtf50_and_mtf10(name, mtf50, mtf10):
    kernel = KERNELS[name]
    f = np.linspace(0, 3, 30001)
    mtf = kernel.mtf(f)
    assert mtf[0] == pytest.approx(1)
    assert 10 * f[np.argmax(mtf < 0.5)] == pytest.approx(mtf50, rel=0.001)
    assert 10 * f[np.argmax(mtf < 0.1)] == pytest.approx(mtf10, rel=0.001)
    assert np.all(np.diff(mtf) <= 0)


def test_a_gaussian_mtf_has_the_sigma_of_a_gaussian():
    kernel = Kernel(5.0, 5.0 * math.sqrt(math.log(10) / math.log(2)))
    assert kernel.weights == pytest.approx((1, 0), abs=1e-9)
    assert kernel.sigmas[0] == pytest.approx(math.sqrt(math.log(2) / 2) / (math.pi * 0.5))


def test_a_ratio_outside_the_family_is_refused():
    with pytest.raises(ValueError, match=r"ratio must be 1\.56 to 1\.91"):
        Kernel(5.0, 7.0)


@NAMES
def test_the_psf_integrates_to_one_and_its_transform_is_the_mtf(name):
    kernel, step = KERNELS[name], 0.02
    axis = centres(501, step)
    psf = kernel.psf(np.hypot(axis[:, None], axis))
    assert psf.sum() * step**2 == pytest.approx(1, abs=1e-6)
    line = psf.sum(axis=0) * step
    for f in (0.2, 0.5, 0.9):
        assert (line * np.cos(2 * np.pi * f * axis)).sum() * step == pytest.approx(kernel.mtf(f), abs=1e-6)
    assert np.cumsum(line)[[200, 250, 270]] * step == pytest.approx(
        kernel.edge(axis[[200, 250, 270]] + step / 2), abs=1e-4
    )


@NAMES
def test_a_scanned_edge_has_the_kernels_mtf(name):
    kernel, fine = KERNELS[name], 0.625 / 8
    places = centres(512, fine)
    # samples much finer than the scanner's own, so that nothing aliases: the derivative of the edge is the line spread
    samples = np.arange(-8, 8, 0.05)
    x = np.broadcast_to(places > 0, (1, 4, 512)).astype(np.float32)
    edge = project(x, kernel, np.array([0.0]), samples, places[254:258], places)[0, 0]
    assert edge == pytest.approx(kernel.edge(samples), abs=0.01)
    line = np.diff(edge)
    middle = samples[:-1] + 0.025
    mtf50, mtf10 = (abs((line * np.exp(-2j * np.pi * f / 10 * middle)).sum()) for f in (kernel.mtf50, kernel.mtf10))
    assert mtf50 == pytest.approx(0.5, abs=0.006)
    assert mtf10 == pytest.approx(0.1, abs=0.005)


def test_samples_weigh_what_is_near_and_keep_a_flat_image_flat():
    weights = sampling(np.array([0.0, 1.0]), centres(41, 0.1), 0.3)
    assert weights.sum(axis=1) == pytest.approx(1)
    assert weights[0, 20] == pytest.approx(math.erf(0.05 / (0.3 * math.sqrt(2))), abs=1e-4)  # a Gaussian over one place
    flat = np.full((2, 41, 41), -850, np.float32)
    scanned = project(flat, KERNELS["D45"], centres(5, 0.6), centres(4, 0.6), centres(41, 0.1), centres(41, 0.1))
    assert scanned.shape == (2, 5, 4) and scanned == pytest.approx(-850, abs=0.01)


def test_what_lies_above_the_nyquist_limit_aliases():
    # 1 cycle/mm sampled at 0.625 mm is the wave of 0.6 cycles/mm, with the kernel's MTF at 1 cycle/mm
    kernel, places, pixels = KERNELS["lung"], centres(256, 0.625 / 8), centres(32, 0.625)
    wave = np.broadcast_to(np.cos(2 * np.pi * places), (1, 256, 256)).astype(np.float32)
    scanned = project(wave, kernel, pixels, pixels, places, places)[0, 16, 4:-4]
    box = np.sinc(0.625 / 8)  # the fine pixels are squares
    assert scanned == pytest.approx(kernel.mtf(1.0) * box * np.cos(2 * np.pi * pixels)[4:-4], abs=2e-3)


def test_the_operators_are_the_projection():
    axes = centres(3, 0.625), centres(4, 0.625), centres(32, 0.625 / 8), centres(40, 0.625 / 8)
    x = np.random.default_rng(0).normal(size=(1, 32, 40)).astype(np.float32)
    expected = sum(r @ x[0] @ c.T for r, c in operators(KERNELS["B30"], *axes))
    assert project(x, KERNELS["B30"], *axes)[0] == pytest.approx(expected, abs=1e-5)


def draw(shape, seed=1, slice_mm=100.0, **settings):
    return noise(shape, config.Scanner(**settings), slice_mm, np.random.default_rng(seed))


@pytest.mark.parametrize("shape", [(1500, 1, 1), (400, 16, 16), (60, 33, 70), (12, 128, 128)])
def test_noise_has_sd_one_and_no_mean_whatever_the_shape(shape):
    fields = draw(shape)
    assert fields.shape == shape and fields.dtype == np.float32
    assert fields.std() == pytest.approx(1, abs=0.03)
    assert fields.mean() == pytest.approx(0, abs=0.05)


@NAMES
def test_the_spectrum_of_the_noise_is_f_times_mtf_squared(name):
    # the whole correlated field is wanted here, so the pixel is small: no aliasing, and the closed form holds
    kernel, pixel, size = KERNELS[name], 0.25, 64
    fields = draw((600, size, size), kernel=name, pixel_mm=pixel)
    taper = np.hanning(size)[:, None] * np.hanning(size)
    power = (np.abs(np.fft.fft2(fields * taper)) ** 2).mean(axis=0) / np.sum(taper**2)
    f = np.hypot(np.fft.fftfreq(size, pixel)[:, None], np.fft.fftfreq(size, pixel))
    measured, expected = [], []
    for low, high in zip((0.2, 0.35, 0.5, 0.7, 0.9), (0.35, 0.5, 0.7, 0.9, 1.1), strict=True):
        ring = (f >= low) & (f < high)
        measured.append(power[ring].mean())
        expected.append((f[ring] * kernel.mtf(f[ring]) ** 2).mean())
    ratio = np.array(measured) / np.array(expected)
    strong = np.array(expected) > 0.1 * max(expected)
    assert ratio[strong] / ratio[0] == pytest.approx(1, abs=0.1)
    assert power[f < 0.05].mean() < 0.5 * max(measured)


def test_sampling_folds_the_noise_above_the_nyquist_limit():
    # the same spectrum by brute force: shape finely, then take every eighth pixel
    rng = np.random.default_rng(4)
    kernel, size, over = KERNELS["lung"], 16, 8
    f = np.hypot(np.fft.fftfreq(size * over, 0.625 / over)[:, None], np.fft.fftfreq(size * over, 0.625 / over))
    white = np.fft.fft2(rng.standard_normal((600, size * over, size * over), dtype=np.float32))
    fine = np.fft.ifft2(white * np.sqrt(f) * kernel.mtf(f)).real
    power = (np.abs(np.fft.fft2(fine[:, ::over, ::over])) ** 2).mean(axis=0)
    assert power / power.mean() == pytest.approx(sampled_noise_power(kernel, 0.625, (size, size)), rel=0.16)


def test_the_noise_of_a_small_patch_is_correlated_as_that_of_a_large_one():
    small, large = draw((3000, 4, 4)), draw((12, 256, 256), seed=2)
    for dy, dx in ((0, 1), (1, 1), (0, 2)):
        of_small = np.mean(small[:, : 4 - dy, : 4 - dx] * small[:, dy:, dx:])
        of_large = np.mean(large[:, : 256 - dy, : 256 - dx] * large[:, dy:, dx:])
        assert of_small == pytest.approx(of_large, abs=0.03)


def test_slices_correlate_as_the_slice_profile_says():
    fields = draw((30, 64, 64), slice_mm=0.6, slice_sigma_mm=0.29)
    for gap in (1, 2):
        expected = math.exp(-((gap * 0.6) ** 2) / (4 * 0.29**2))
        assert np.mean(fields[gap:] * fields[:-gap]) == pytest.approx(expected, abs=0.03)


def test_the_same_seed_gives_the_same_noise():
    assert np.array_equal(draw((2, 8, 8), seed=3), draw((2, 8, 8), seed=3))
    assert not np.array_equal(draw((2, 8, 8), seed=3), draw((2, 8, 8), seed=4))
