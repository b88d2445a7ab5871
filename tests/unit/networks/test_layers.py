"""The layers compute what PyTorch's own do, keep the memory order, and do not care how a batch is split."""

import pytest
import torch
from torch import nn
from torch.nn import functional

from microsr.networks.layers import InstanceNorm, NoiseConv, OneChannelConv, bicubic_upsample, bilinear_double, reflect

CHANNELS_LAST = torch.channels_last


def gradient(function, x):
    """Of a fixed random sum of the function's values."""
    y = function(x)
    weights = torch.randn(y.shape, generator=torch.Generator().manual_seed(1), dtype=y.dtype)
    return torch.autograd.grad(y, x, weights)[0]


@pytest.mark.parametrize(
    ("own", "torchs"),
    [
        (lambda x: reflect(x, 1), lambda x: functional.pad(x, (1,) * 4, mode="reflect")),
        (lambda x: reflect(x, 3), lambda x: functional.pad(x, (3,) * 4, mode="reflect")),
        (bilinear_double, lambda x: functional.interpolate(x, scale_factor=2, mode="bilinear", align_corners=False)),
        (
            lambda x: bicubic_upsample(x, 8),
            lambda x: functional.interpolate(x, scale_factor=8, mode="bicubic", antialias=True),
        ),
        (InstanceNorm(3, track=False), functional.instance_norm),
        (InstanceNorm(3), functional.instance_norm),
    ],
)
def test_values_and_gradients_are_those_of_pytorch(own, torchs):
    torch.manual_seed(0)
    x = torch.randn(2, 3, 9, 6).requires_grad_()
    torch.testing.assert_close(own(x), torchs(x), rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(gradient(own, x), gradient(torchs, x), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("layer", [lambda x: reflect(x, 1), bilinear_double, InstanceNorm(8)])
def test_channels_last_and_bfloat16_are_kept_both_ways(layer):
    x = torch.randn(2, 8, 6, 7).bfloat16().to(memory_format=CHANNELS_LAST).requires_grad_()
    with torch.autocast("cpu", torch.bfloat16):
        y = layer(x)
    (back,) = torch.autograd.grad(y, x, torch.ones_like(y))
    for found in (y, back):
        assert found.dtype == torch.bfloat16
        assert found.is_contiguous(memory_format=CHANNELS_LAST)


def test_statistics_of_bfloat16_images_are_computed_in_float32():
    x = (100 + torch.randn(1, 4, 64, 64)).bfloat16()
    norm = InstanceNorm(4)
    norm(x)
    norm.commit()
    mean = 0.9 * 0 + 0.1 * x.double().mean(dim=(0, 2, 3))
    assert (norm.running_mean - mean).abs().max() < 1e-4, "a bfloat16 near 100 is known to 0.25 only"


def test_running_statistics_are_pytorchs_and_do_not_depend_on_the_parts_of_a_batch():
    whole, parted, torchs = InstanceNorm(3), InstanceNorm(3), nn.InstanceNorm2d(3, track_running_stats=True)
    for step in range(3):
        x = step + torch.randn(6, 3, 8, 8)
        whole(x), torchs(x)
        for part in x.split(2):
            parted(part)
        whole.commit(), parted.commit()
    for norm in (whole, parted):
        torch.testing.assert_close(norm.running_mean, torchs.running_mean)
        torch.testing.assert_close(norm.running_var, torchs.running_var)
        torch.testing.assert_close(norm.eval()(x), torchs.eval()(x))
    before = whole.running_mean.clone()
    whole.commit()
    assert torch.equal(whole.running_mean, before), "nothing new was gathered"


def test_a_norm_goes_over_to_its_running_statistics_by_shares():
    norm = InstanceNorm(3)
    norm(2 + 3 * torch.randn(4, 3, 8, 8))
    norm.commit()
    x = torch.randn(2, 3, 8, 8)
    with torch.no_grad():
        own, fixed = norm(x), norm.eval()(x)
        norm.train().fixed = 0.25
        assert torch.allclose(norm(x), 0.75 * own + 0.25 * fixed, atol=1e-6)


def test_images_that_are_only_looked_at_leave_no_statistics():
    norm = InstanceNorm(3)
    with torch.no_grad():
        norm(5 + torch.randn(2, 3, 8, 8))
    norm.commit()
    assert norm.running_mean.abs().max() == 0


@pytest.mark.parametrize("border", [(True,) * 4, (True, False, False, True), (False,) * 4])
def test_a_convolution_of_a_doubled_image_is_one_at_half_its_size(border):
    torch.manual_seed(0)
    noisy = NoiseConv(5, 7)
    x, plane = torch.randn(2, 5, 9, 11), torch.randn(2, 1, 18, 22)
    with torch.no_grad():
        expected = noisy(bilinear_double(x), plane)
        assert torch.equal(noisy.double(x, plane, border), expected)
        noisy.fix()
        found = noisy.double(x, plane, border)
    top, bottom, left, right = (0 if there else 2 for there in border)
    inside = (..., slice(top, 18 - bottom), slice(left, 22 - right))
    assert (found - expected)[inside].abs().max() < 1e-5
    assert (found - expected).abs().max() > 1e-2 or all(border)


@pytest.mark.parametrize(("kernel", "columns"), [(7, 7), (7, 30), (3, 8), (9, 41)])
def test_a_convolution_to_one_channel_is_the_same_in_blocks(kernel, columns):
    torch.manual_seed(0)
    plain, x = nn.Conv2d(5, 1, kernel), torch.randn(2, 5, 12, columns)
    with torch.no_grad():
        expected, found = plain(x), OneChannelConv(plain)(x)
    assert found.shape == expected.shape
    assert torch.allclose(found, expected, atol=1e-5)
