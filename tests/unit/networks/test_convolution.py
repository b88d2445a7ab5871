"""The project's own ways of a convolution compute what PyTorch's do, and are taken where they are faster only."""

import pytest
import torch
from torch.nn import functional

from microsr.networks import convolution
from microsr.networks.convolution import Conv2d, convolve


@pytest.fixture
def on_avx2(monkeypatch):
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: "AVX2")


@pytest.fixture
def calls(monkeypatch):
    """Counts the calls of each way of this module."""
    counted = {"winograd": 0, "winograd_weight_gradient": 0, "weight_gradient": 0}

    def counting(name, way):
        def count(*given):
            counted[name] += 1
            return way(*given)

        return count

    for name in counted:
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
    assert calls == {"winograd": 0, "winograd_weight_gradient": 0, "weight_gradient": 1}


@pytest.mark.parametrize("tiles", [3, 256])
def test_minimal_filtering_of_wide_layers_is_pytorchs_convolution(tiles, on_avx2, calls, monkeypatch):
    monkeypatch.setattr(convolution, "TILES", tiles)
    given = made(2, 128, 130, 8, 12, 3)
    for found, expected in zip(results(convolve, *given, 0), results(functional.conv2d, *given, 0), strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-9)
    assert calls == {"winograd": 2, "winograd_weight_gradient": 1, "weight_gradient": 0}


def test_in_float32_minimal_filtering_rounds_little_more_than_pytorchs(on_avx2):
    exact = made(1, 256, 256, 18, 18, 3)
    rounded = [x.detach().float().to(memory_format=torch.preserve_format).requires_grad_() for x in exact]
    wanted, theirs, own = (
        results(way, *given, 0)
        for way, given in ((functional.conv2d, exact), (functional.conv2d, rounded), (convolve, rounded))
    )
    for value, other, found in zip(wanted, theirs, own, strict=True):
        unit = torch.finfo(torch.float32).eps / 2 * value.norm()
        # Each sum of n terms is off by at most n units, by sqrt(n) of them in the mean; a tile adds 16 terms, some of them twice.
        limit = max(4 * (other.double() - value).norm(), 4 * 16**0.5 * unit)
        assert (found.double() - value).norm() < limit


def test_a_gradient_can_be_differentiated(on_avx2):
    x, weight, bias = made(1, 3, 2, 128, 4, 3)
    slopes = []
    for way in (convolve, functional.conv2d):
        (gradient,) = torch.autograd.grad(way(x, weight, bias, padding=1).square().sum(), x, create_graph=True)
        slopes.append(torch.autograd.grad(gradient.square().sum(), weight)[0])
    torch.testing.assert_close(*slopes, rtol=1e-10, atol=1e-9)


@pytest.mark.parametrize(
    "reason", ["another CPU", "bfloat16", "contiguous", "no gradient", "one channel", "small", "odd"]
)
def test_elsewhere_pytorchs_convolution_is_taken(reason, calls, monkeypatch):
    capability = "AVX512" if reason == "another CPU" else "AVX2"
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: capability)
    shape = {"one channel": (1, 1, 2, 128, 6, 3), "small": (1, 4, 2, 16, 6, 3), "odd": (1, 128, 128, 7, 8, 3)}
    x, weight, bias = made(*shape.get(reason, (1, 4, 2, 128, 6, 3)), dtype=torch.float32)
    if reason == "contiguous":
        x = x.detach().contiguous().requires_grad_()
    with torch.set_grad_enabled(reason != "no gradient"), torch.autocast("cpu", enabled=reason == "bfloat16"):
        y = convolve(x, weight, bias)
    if y.requires_grad:
        y.sum().backward()
    assert not any(calls.values())


def test_a_layer_with_stride_stays_as_it_is(on_avx2, calls):
    layer = Conv2d(4, 4, 3, stride=2).to(memory_format=torch.channels_last)
    layer(torch.randn(1, 4, 128, 8).to(memory_format=torch.channels_last)).sum().backward()
    assert not any(calls.values())
