"""The losses of the modified CycleGAN (Zheng et al. 2020, section 2), always computed in float32.

Images are [batch, 1, rows, columns], normalised to [-1, 1] by the intensity window. A is a clinical patch, B a uCT
patch, A_SR = G1(A) and B_LR = G2(B). f is average pooling by the
scale, g nearest-neighbour up-sampling by it; it is the ratio of the images' sizes, 8 in the paper.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import NamedTuple, Protocol

import torch
from torch import Tensor
from torch.nn import functional

from microsr.networks.layers import average_pool, keep_type, nearest_upsample

DATA_RANGE = 2.0
"""Width of [-1, 1]: the true data range of the normalised patches."""


class Images(NamedTuple):
    """What a loss in a module of its own may compare (docs/extending.md); of the networks' precision, so .float() comes
    first.
    """

    a: Tensor
    """Clinical patches, some of them average-pooled uCT (the mix)."""
    b: Tensor
    """uCT patches."""
    a_sr: Tensor
    """G1(A)."""
    b_lr: Tensor
    """G2(B)."""
    a_cycle: Tensor | None
    """G2(G1(A)); None without a cycle loss."""
    b_cycle: Tensor | None
    """G1(G2(B)); None without a cycle loss."""


class Loss(Protocol):
    """A loss of the generators in a module of its own (`core.registry.losses`)."""

    def __call__(self, images: Images) -> Tensor:
        """A scalar in float32, a mean over the batch, which may be cut into portions; it is weighted elsewhere."""
        ...


def _pixel_distance(a: Tensor, b: Tensor, norm: str) -> Tensor:
    return functional.mse_loss(a, b) if norm == "mse" else functional.l1_loss(a, b)


def _pool_to(a: Tensor, a_sr: Tensor) -> Tensor:
    """f(A_SR), of the size of A, in float32."""
    return average_pool(a_sr.float(), a_sr.shape[-1] // a.shape[-1])


def _magnify_to(b: Tensor, b_lr: Tensor) -> Tensor:
    """g(B_LR), of the size of B, in float32."""
    return nearest_upsample(b_lr.float(), b.shape[-1] // b_lr.shape[-1])


def downsample_loss(a: Tensor, a_sr: Tensor, norm: str = "mse") -> Tensor:
    """MSE(A, f(A_SR)) (Zheng et al. 2020, l_downsample); norm "l1" is the authors' later choice."""
    return _pixel_distance(a.float(), _pool_to(a, a_sr), norm)


def upsample_loss(b: Tensor, b_lr: Tensor, norm: str = "mse") -> Tensor:
    """MSE(B, g(B_LR)) (Zheng et al. 2020, l_upsample)."""
    return _pixel_distance(b.float(), _magnify_to(b, b_lr), norm)


def clinical_ssim_loss(a: Tensor, a_sr: Tensor) -> Tensor:
    """1 - SSIM(A, f(A_SR)) (Zheng et al. 2020, l_clinical-SSIM; formula from docs/paper.md)."""
    return 1 - ssim(a, _pool_to(a, a_sr))


def micro_ssim_loss(b: Tensor, b_lr: Tensor) -> Tensor:
    """1 - SSIM(B, g(B_LR)) (Zheng et al. 2020, l_micro-SSIM; formula from docs/paper.md)."""
    return 1 - ssim(b, _magnify_to(b, b_lr))


def cycle_loss(image: Tensor, cycled: Tensor) -> Tensor:
    """Mean absolute difference of an image and itself after both generators (Zhu et al. 2017, eq. 2)."""
    return functional.l1_loss(cycled.float(), image.float())


def start_loss(b: Tensor, restored: Tensor) -> Tensor:
    """MSE(B, G1(what the scanner would make of B)): what a start minimises. Beyond the paper."""
    return functional.mse_loss(restored.float(), b.float())


def generator_adversarial_loss(judged_fake: Tensor) -> Tensor:
    """Least squares: mean (D(fake) - 1)^2 (Mao et al. 2017)."""
    return (judged_fake.float() - 1).square().mean()


def discriminator_loss(judged_real: Tensor, judged_fake: Tensor) -> Tensor:
    """Least squares: half of mean (D(real) - 1)^2 + mean D(fake)^2 (Mao et al. 2017; the half is CycleGAN's)."""
    return ((judged_real.float() - 1).square().mean() + judged_fake.float().square().mean()) / 2


def gradient_penalty(discriminator: Callable[[Tensor], Tensor], real: Tensor) -> Tensor:
    """R1: half of the mean squared gradient of the verdicts at real patches, in float32 (Mescheder et al. 2018, eq. 9).

    Of a map of verdicts the sum is taken and of the gradient the mean over the pixels, so that the size of a patch does
    not matter.
    """
    with keep_type(real), torch.enable_grad():
        real = real.float().detach().requires_grad_()
        (gradient,) = torch.autograd.grad(discriminator(real).sum(), real, create_graph=True)
    return gradient.square().mean() / 2


@functools.cache
def _gaussian(size: int, sigma: float, device: torch.device) -> Tensor:
    x = torch.arange(size, device=device) - (size - 1) / 2
    weights = torch.exp(-(x**2) / (2 * sigma**2))
    return weights / weights.sum()


@functools.cache
def _window(size: int, taps: int, sigma: float, device: torch.device) -> Tensor:
    """A line's local means under a Gaussian of that many taps, wherever it fits wholly, as a matrix [size - taps + 1,
    size].
    """
    window = torch.zeros(size - taps + 1, size, device=device)
    for first in range(len(window)):
        window[first, first : first + taps] = _gaussian(taps, sigma, device)
    return window


def ssim(a: Tensor, b: Tensor, data_range: float = DATA_RANGE, sigma: float = 1.5) -> Tensor:
    """Mean structural similarity (Wang et al. 2004), K = (0.01, 0.03), Gaussian window 11 x 11, where it fits wholly.

    On patches smaller than 11 pixels the window is the largest odd size that leaves at least two positions.
    Returns a scalar in [-1, 1], 1 for equal images; differentiable.
    """
    a, b = a.float(), b.float()
    taps = min(11, (min(a.shape[-2:]) - 2) // 2 * 2 + 1)
    rows, columns = (_window(size, taps, sigma, a.device) for size in a.shape[-2:])

    def local_means(*images: Tensor) -> tuple[Tensor, ...]:
        # As products of matrices: a convolution of one channel takes ten times as long. Autocast would compute them in
        # bfloat16, where a variance is mostly rounding.
        with keep_type(a):
            return (rows @ (torch.cat(images) @ columns.T)).chunk(len(images))

    # Variances do not change with the level, but their rounding does. What needs no gradient stays out of what does.
    level_a, level_b = (image.detach().mean(dim=(-2, -1), keepdim=True) for image in (a, b))
    a, b = a - level_a, b - level_b
    (mean_a, square_a), (mean_b, square_b, product) = local_means(a, a * a), local_means(b, b * b, a * b)
    variance_a, variance_b = square_a - mean_a**2, square_b - mean_b**2
    covariance = product - mean_a * mean_b
    mean_a, mean_b = mean_a + level_a, mean_b + level_b
    c1, c2 = (0.01 * data_range) ** 2, (0.03 * data_range) ** 2
    luminance = (2 * mean_a * mean_b + c1) / (mean_a**2 + mean_b**2 + c1)
    structure = (2 * covariance + c2) / (variance_a + variance_b + c2)
    return (luminance * structure).mean()
