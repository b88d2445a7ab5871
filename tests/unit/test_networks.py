"""Both families take A to 8 times its size and back, and what they promise about tiles and checkerboards holds."""

import pytest
import torch

from microsr import losses
from microsr.networks import CompactG1, ResnetG1, build, build_g1, draw_noise


def parameters(network):
    return sum(p.numel() for p in network.parameters())


def noise_for(network, size, seed=0):
    return draw_noise(network.noise_scales, 1, (size, size), torch.Generator().manual_seed(seed), "cpu")


@pytest.mark.parametrize("family", ["resnet", "compact"])
@pytest.mark.parametrize("size", [8, 16])
def test_generators_magnify_and_shrink_by_8_and_discriminators_give_a_map(family, size):
    g1, g2, d1, d2 = build(family, size, 8 * size)
    a, b = torch.zeros(1, 1, size, size), torch.zeros(1, 1, 8 * size, 8 * size)
    with torch.inference_mode():
        assert g1(a, noise_for(g1, size)).shape == b.shape
        assert g2(b, noise_for(g2, size)).shape == a.shape
        assert d1(b).shape[-1] >= 2
        assert d2(a).shape[-1] >= 1


def test_the_papers_networks_have_the_published_size():
    g1, g2, d1, _ = build("resnet", 32, 256)
    assert parameters(g1) == pytest.approx(0.8e6, rel=0.15)
    assert parameters(g2) == pytest.approx(12.9e6, rel=0.02)
    assert parameters(d1) == pytest.approx(2.77e6, rel=0.02)  # the 70x70 PatchGAN


@pytest.mark.parametrize("family", ["resnet", "compact"])
def test_nothing_beyond_the_halo_influences_a_pixel(family):
    torch.manual_seed(0)
    g1 = build_g1(family).eval()
    size = 2 * g1.halo + 3
    centre = size // 2
    a = torch.randn(1, 1, size, size).requires_grad_()
    g1(a, noise_for(g1, size))[0, 0, 8 * centre : 8 * centre + 8, 8 * centre : 8 * centre + 8].sum().backward()
    reached = a.grad[0, 0].nonzero()
    assert (reached - centre).abs().max() <= g1.halo
    # ... and the halo is not much larger than it must be.
    assert (reached - centre).abs().max() >= g1.halo - 4


@pytest.mark.parametrize("network", [ResnetG1, CompactG1])
def test_a_constant_patch_starts_without_a_checkerboard(network):
    torch.manual_seed(0)
    g1 = build("resnet", 32, 256).g1 if network is ResnetG1 else CompactG1()
    g1.eval()
    size = 2 * g1.halo + 8
    planes = [torch.zeros_like(p) for p in noise_for(g1, size)]
    with torch.inference_mode():
        out = g1(torch.full((1, 1, size, size), -0.8), planes)
    inner = out[..., 8 * g1.halo : -8 * g1.halo, 8 * g1.halo : -8 * g1.halo]
    assert inner.std() < 1e-3


def test_compact_generator_starts_near_bicubic():
    torch.manual_seed(0)
    a = torch.rand(1, 1, 16, 16)
    g1 = CompactG1()
    out = g1(a, noise_for(g1, 16))
    assert losses.downsample_loss(a, out).item() < 0.1


def test_noise_changes_the_compact_generators_texture():
    torch.manual_seed(0)
    g1, a = CompactG1(), torch.zeros(1, 1, 8, 8)
    assert not torch.equal(g1(a, noise_for(g1, 8, 0)), g1(a, noise_for(g1, 8, 1)))
    assert torch.equal(g1(a, noise_for(g1, 8, 1)), g1(a, noise_for(g1, 8, 1)))
