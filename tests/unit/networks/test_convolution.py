"""The project's own ways of a convolution compute what PyTorch's do, and are taken where they are faster only."""

import collections
import functools

import pytest
import torch
from torch import nn
from torch.nn import functional

from microsr.networks import convolution
from microsr.networks.convolution import ConvTranspose2d, convolve


@pytest.fixture
def on_avx2(monkeypatch):
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: "AVX2")


@pytest.fixture
def calls(monkeypatch):
    """Counts the calls of each way of this module."""
    ways = "winograd", "winograd_weight_gradient", "weight_gradient", "gradient_by_windows", "one_channels_gradient"
    counted = collections.Counter()

    def counting(name, way):
        def count(*given):
            counted[name] += 1
            return way(*given)

        return count

    for name in ways:
        monkeypatch.setattr(convolution, name, counting(name, getattr(convolution, name)))
    return counted


def results(way, x, weight, bias, padding):
    """Values and all gradients."""
    y = way(x, weight, bias, padding=padding)
    back = torch.randn(y.shape, dtype=y.dtype, generator=torch.Generator().manual_seed(1))
    return y, *torch.autograd.grad(y, (x, weight, bias), back)


def made(n, inputs, outputs, rows, columns, kernel, dtype=torch.float64):
    torch.manual_seed(0)
    x = torch.randn(n, inputs, rows, columns, dtype=dtype).to(memory_format=torch.channels_last).requires_grad_()
    weight = torch.randn(outputs, inputs, kernel, kernel, dtype=dtype).requires_grad_()
    return x, weight, torch.randn(outputs, dtype=dtype).requires_grad_()


@pytest.mark.parametrize(
    ("shape", "padding"),
    [
        ((2, 5, 3, 128, 9, 3), 1),
        ((1, 4, 6, 131, 7, 3), 0),
        ((1, 3, 1, 140, 12, 7), 0),
        ((1, 2, 2, 130, 6, 5), 2),
        ((1, 2, 3, 129, 5, 3), 2),
    ],
)
def test_a_large_images_gradients_are_pytorchs(shape, padding, on_avx2, calls):
    given = made(*shape)
    for found, expected in zip(
        results(convolve, *given, padding), results(functional.conv2d, *given, padding), strict=True
    ):
        torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-9)
    assert calls == {"weight_gradient": 1}


@pytest.mark.parametrize("tiles", [3, 256])
def test_minimal_filtering_of_wide_layers_is_pytorchs_convolution(tiles, on_avx2, calls, monkeypatch):
    monkeypatch.setattr(convolution, "TILES", tiles)
    given = made(2, 128, 130, 8, 12, 3)
    for found, expected in zip(results(convolve, *given, 0), results(functional.conv2d, *given, 0), strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-9)
    assert calls == {"winograd": 2, "winograd_weight_gradient": 1}


def test_in_float32_minimal_filtering_rounds_little_more_than_pytorchs(on_avx2):
    exact = made(1, 256, 256, 18, 18, 3)
    rounded = [x.detach().float().to(memory_format=torch.preserve_format).requires_grad_() for x in exact]
    wanted, theirs, own = (
        results(way, *given, 0)
        for way, given in ((functional.conv2d, exact), (functional.conv2d, rounded), (convolve, rounded))
    )
    for value, other, found in zip(wanted, theirs, own, strict=True):
        unit = torch.finfo(torch.float32).eps / 2 * value.norm()
        # Each sum of n terms is off by at most n units, by sqrt(n) of them in the mean; a tile adds 16 terms, some of
        # them twice.
        limit = max(4 * (other.double() - value).norm(), 4 * 16**0.5 * unit)
        assert (found.double() - value).norm() < limit


def test_a_gradient_can_be_differentiated(on_avx2):
    x, weight, bias = made(1, 3, 2, 128, 4, 3)
    slopes = []
    for way in (convolve, functional.conv2d):
        (gradient,) = torch.autograd.grad(way(x, weight, bias, padding=1).square().sum(), x, create_graph=True)
        slopes.append(torch.autograd.grad(gradient.square().sum(), weight)[0])
    torch.testing.assert_close(*slopes, rtol=1e-10, atol=1e-9)
    layer = ConvTranspose2d(48, 48, 3, stride=2).double().to(memory_format=torch.channels_last)
    x = torch.randn(1, 48, 4, 4, dtype=torch.float64).to(memory_format=torch.channels_last).requires_grad_()
    slopes = []
    for way in (layer, functools.partial(nn.ConvTranspose2d.forward, layer)):
        (gradient,) = torch.autograd.grad(way(x).square().sum(), x, create_graph=True)
        slopes.append(torch.autograd.grad(gradient.square().sum(), layer.weight)[0])
    torch.testing.assert_close(*slopes, rtol=1e-10, atol=1e-9)


@pytest.mark.parametrize("reason", ["another CPU", "bfloat16", "contiguous", "no gradient", "one channel", "small"])
def test_elsewhere_pytorchs_convolution_is_taken(reason, calls, monkeypatch):
    capability = "AVX512" if reason == "another CPU" else "AVX2"
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: capability)
    shape = {"one channel": (1, 1, 2, 62, 6, 3), "small": (1, 4, 2, 126, 6, 3)}
    x, weight, bias = made(*shape.get(reason, (1, 4, 2, 128, 6, 3)), dtype=torch.float32)
    if reason == "contiguous":
        x = x.detach().contiguous().requires_grad_()
    with torch.set_grad_enabled(reason != "no gradient"), torch.autocast("cpu", enabled=reason == "bfloat16"):
        y = convolve(x, weight, bias)
    if y.requires_grad:
        y.sum().backward()
    assert not calls


@pytest.mark.parametrize(
    ("shape", "padding", "stride", "way"),
    [
        ((2, 5, 48, 128, 9, 3), 0, 2, "gradient_by_windows"),
        ((1, 3, 50, 131, 8, 4), 1, 2, "gradient_by_windows"),
        ((1, 128, 129, 7, 8, 3), 0, 1, "gradient_by_windows"),
        ((2, 128, 128, 9, 12, 3), 1, 3, "gradient_by_windows"),
        ((1, 1, 3, 70, 11, 7), 0, 1, "gradient_by_windows"),
        ((2, 1, 3, 65, 10, 5), 2, 2, "gradient_by_windows"),
        ((2, 1, 3, 64, 10, 3), 1, 1, "weight_gradient"),
    ],
)
def test_gradients_of_strides_many_channels_and_one_are_pytorchs(shape, padding, stride, way, on_avx2, calls):
    given = made(*shape)
    own, theirs = (functools.partial(one, stride=stride) for one in (convolve, functional.conv2d))
    for found, expected in zip(results(own, *given, padding), results(theirs, *given, padding), strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-9)
    assert calls == {way: 1} | ({"one_channels_gradient": 1} if shape[1] == 1 else {})


@pytest.mark.parametrize("more", [0, 1])
@pytest.mark.parametrize("channels", [(50, 48), (47, 64)])
def test_a_transposed_convolutions_gradients_are_pytorchs(channels, more, on_avx2, calls):
    torch.manual_seed(0)
    layer = ConvTranspose2d(*channels, 3, stride=2, padding=1, output_padding=more).double()
    layer = layer.to(memory_format=torch.channels_last)
    x = torch.randn(2, channels[0], 18, 5, dtype=torch.float64).to(memory_format=torch.channels_last).requires_grad_()
    y = layer(x)
    back = torch.randn(y.shape, dtype=y.dtype)
    expected = nn.ConvTranspose2d.forward(layer, x)
    torch.testing.assert_close(y, expected)
    for one, other in zip(
        *(torch.autograd.grad(image, (x, layer.weight, layer.bias), back) for image in (y, expected)), strict=True
    ):
        torch.testing.assert_close(one, other, rtol=1e-10, atol=1e-9)
    assert calls == ({"gradient_by_windows": 1} if min(channels) >= 48 else {})


def test_a_judges_first_layer_gives_its_images_gradient_without_its_weights(on_avx2, calls):
    x, weight, bias = made(2, 1, 4, 64, 8, 4)
    slopes = [
        torch.autograd.grad(way(x, weight.detach(), bias.detach(), 1, 2).square().sum(), x)[0]
        for way in (convolve, lambda x, w, b, padding, stride: functional.conv2d(x, w, b, stride, padding))
    ]
    torch.testing.assert_close(*slopes, rtol=1e-10, atol=1e-9)
    assert calls == {"one_channels_gradient": 1}
