"""The losses, against values worked out by hand or by an independent implementation."""

import numpy as np
import pytest
import torch
from skimage.metrics import structural_similarity

from microsr.training import losses


def constant(value, size):
    return torch.full((1, 1, size, size), float(value))


def random_image(size, seed=0):
    return torch.rand(2, 1, size, size, generator=torch.Generator().manual_seed(seed)) * 2 - 1


def test_f_is_the_mean_of_each_8x8_block():
    image = torch.arange(256.0).reshape(1, 1, 16, 16)
    pooled = losses.average_pool(image, 8)
    # First block: rows 0 to 7 of 16, columns 0 to 7: mean of 16 r + c = 16 * 3.5 + 3.5.
    assert pooled.shape == (1, 1, 2, 2)
    assert pooled[0, 0, 0, 0] == 59.5
    assert pooled[0, 0, 1, 1] == 16 * 11.5 + 11.5


def test_g_repeats_each_pixel_8x8_times():
    small = torch.tensor([[[[1.0, 2.0], [3.0, 4.0]]]])
    large = losses.nearest_upsample(small, 8)
    assert large.shape == (1, 1, 16, 16)
    assert (large[0, 0, :8, 8:] == 2).all() and (large[0, 0, 8:, :8] == 3).all()


def test_pooling_undoes_nearest_upsampling():
    a = random_image(6)
    assert torch.allclose(losses.average_pool(losses.nearest_upsample(a, 8), 8), a)


def test_downsample_loss_is_the_squared_difference_of_block_means():
    a, a_sr = constant(0.25, 4), torch.zeros(1, 1, 32, 32)
    a_sr[..., ::2] = 1.0  # every block has mean 0.5
    assert losses.downsample_loss(a, a_sr).item() == pytest.approx(0.0625)
    assert losses.downsample_loss(a, a_sr, "l1").item() == pytest.approx(0.25)


def test_upsample_loss_compares_every_uct_pixel_with_its_block():
    b = torch.zeros(1, 1, 16, 16)
    b[..., ::2] = 1.0
    b_lr = constant(0.5, 2)
    # Each pixel is 0.5 away from its block's value: a loss that pooled B first would give 0.
    assert losses.upsample_loss(b, b_lr).item() == pytest.approx(0.25)
    assert losses.upsample_loss(b, b_lr, "l1").item() == pytest.approx(0.5)


def test_ssim_agrees_with_an_independent_implementation():
    a, b = random_image(40, 0), random_image(40, 1)
    ours = losses.ssim(a[:1], b[:1]).item()
    _, image = structural_similarity(
        a[0, 0].numpy(), b[0, 0].numpy(), data_range=2.0, gaussian_weights=True, sigma=1.5,
        use_sample_covariance=False, full=True,
    )  # fmt: skip
    assert ours == pytest.approx(image[5:-5, 5:-5].mean(), abs=1e-5)


@pytest.mark.parametrize(("size", "taps"), [(4, 3), (7, 5), (8, 7), (12, 11)])
def test_the_window_of_a_small_patch_is_the_largest_odd_one_with_two_positions(size, taps):
    a, b = (random_image(size, seed)[:1] for seed in (0, 1))
    weights = np.exp(-((np.arange(taps) - taps // 2) ** 2) / (2 * 1.5**2))
    weights = np.outer(weights, weights) / weights.sum() ** 2
    found = []
    for row, column in np.ndindex(size - taps + 1, size - taps + 1):
        x, y = (image[0, 0].double().numpy()[row : row + taps, column : column + taps] for image in (a, b))
        mean_x, mean_y = (weights * x).sum(), (weights * y).sum()
        variances = (weights * x * x).sum() - mean_x**2 + (weights * y * y).sum() - mean_y**2
        covariance = (weights * x * y).sum() - mean_x * mean_y
        luminance = (2 * mean_x * mean_y + 0.02**2) / (mean_x**2 + mean_y**2 + 0.02**2)
        found.append(luminance * (2 * covariance + 0.06**2) / (variances + 0.06**2))
    assert losses.ssim(a, b).item() == pytest.approx(np.mean(found), abs=1e-5)


def test_ssim_of_two_constants_is_the_luminance_term():
    # (2 * 0.2 * 0.6 + c1) / (0.04 + 0.36 + c1) with c1 = (0.01 * 2)^2
    assert losses.ssim(constant(0.2, 16), constant(0.6, 16)).item() == pytest.approx(0.2404 / 0.4004, rel=1e-5)


@pytest.mark.parametrize("size", [4, 8, 11, 12, 32])
def test_ssim_fits_its_window_to_small_patches_and_is_finite_with_gradient(size):
    a = random_image(size).requires_grad_()
    with torch.autocast("cpu", torch.bfloat16):
        value = losses.ssim(a, random_image(size, 1))
    value.backward()
    assert value.dtype == torch.float32
    assert torch.isfinite(value) and torch.isfinite(a.grad).all()
    assert losses.ssim(a, a).item() == pytest.approx(1.0, abs=1e-5)


def test_ssim_losses_are_zero_for_consistent_pairs_and_pool_or_upsample_as_the_paper_says():
    a, b_lr = random_image(16), random_image(4)
    assert losses.clinical_ssim_loss(a, losses.nearest_upsample(a, 8)).item() == pytest.approx(0, abs=1e-5)
    assert losses.micro_ssim_loss(losses.nearest_upsample(b_lr, 8), b_lr).item() == pytest.approx(0, abs=1e-5)
    b = random_image(128)
    assert losses.clinical_ssim_loss(a, b).item() == pytest.approx(1 - losses.ssim(a, losses.average_pool(b, 8)).item())
    a_up = losses.nearest_upsample(a, 8)
    assert losses.micro_ssim_loss(b, a).item() == pytest.approx(1 - losses.ssim(b, a_up).item())


def test_gradient_penalty_is_half_the_mean_squared_gradient_at_real_patches_and_has_a_gradient_itself():
    """Verdicts w x^2 have the gradient 2 w x: half the mean of 4 w^2 x^2, whose derivative by w is the mean of 4 w
    x^2.
    """
    real, weight = random_image(6), torch.tensor(3.0, requires_grad=True)
    penalty = losses.gradient_penalty(lambda image: weight * image**2, real)
    assert penalty.item() == pytest.approx((18 * real**2).mean().item(), rel=1e-5)
    penalty.backward()
    assert weight.grad.item() == pytest.approx((12 * real**2).mean().item(), rel=1e-5)
    assert real.grad is None and not real.requires_grad


def test_adversarial_losses_are_least_squares():
    verdicts = torch.tensor([0.0, 1.0, 3.0])
    assert losses.generator_adversarial_loss(verdicts).item() == pytest.approx((1 + 0 + 4) / 3)
    # half of mean (real - 1)^2 + mean fake^2
    assert losses.discriminator_loss(verdicts, torch.tensor([1.0, 2.0])).item() == pytest.approx((5 / 3 + 2.5) / 2)


def test_cycle_loss_is_the_mean_absolute_difference():
    assert losses.cycle_loss(constant(0.5, 4), constant(-0.25, 4)).item() == pytest.approx(0.75)


def test_losses_are_float32_whatever_they_are_given():
    a, a_sr = random_image(4).bfloat16(), random_image(32).bfloat16()
    assert losses.downsample_loss(a, a_sr).dtype == torch.float32
    assert np.isfinite(losses.clinical_ssim_loss(a, a_sr).item())
