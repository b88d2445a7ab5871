"""All families take A to 8 times its size and back, and what they promise about tiles and checkerboards holds."""

import pytest
import torch
from torch.nn.utils.parametrize import is_parametrized

from microsr.core.errors import UserError
from microsr.networks import families
from microsr.networks.families import FAMILIES, build, build_g1, draw_noise, own_slice
from microsr.training import losses


def parameters(network):
    return sum(p.numel() for p in network.parameters())


def noise_for(network, size, seed=0):
    return draw_noise(network.noise_scales, 1, (size, size), torch.Generator().manual_seed(seed), "cpu")


@pytest.mark.parametrize("family", FAMILIES)
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


@pytest.mark.parametrize("family", FAMILIES)
def test_nothing_beyond_the_halo_influences_a_pixel(family):
    torch.manual_seed(0)
    g1 = build_g1(family, 8).eval()
    size = 2 * g1.halo + 3
    centre = size // 2
    a = torch.randn(1, 1, size, size).requires_grad_()
    g1(a, noise_for(g1, size))[0, 0, 8 * centre : 8 * centre + 8, 8 * centre : 8 * centre + 8].sum().backward()
    reached = a.grad[0, 0].nonzero()
    assert (reached - centre).abs().max() <= g1.halo
    # ... and the halo is not much larger than it must be.
    assert (reached - centre).abs().max() >= g1.halo - 4


@pytest.mark.parametrize("family", FAMILIES)
def test_a_constant_patch_starts_without_a_checkerboard(family):
    torch.manual_seed(0)
    g1 = build(family, 32, 256).g1.eval()
    size = 2 * g1.halo + 8
    planes = [torch.zeros_like(p) for p in noise_for(g1, size)]
    with torch.inference_mode():
        out = g1(torch.full((1, 1, size, size), -0.8), planes)
    inner = out[..., 8 * g1.halo : -8 * g1.halo, 8 * g1.halo : -8 * g1.halo]
    assert inner.std() < 1e-3


@pytest.mark.parametrize("family", ["efficient", "compact"])
def test_light_generators_start_near_bicubic(family):
    torch.manual_seed(0)
    a = torch.rand(1, 1, 16, 16)
    g1 = build_g1(family, 8)
    out = g1(a, noise_for(g1, 16))
    assert losses.downsample_loss(a, out).item() < 0.1


@pytest.mark.parametrize("family", ["efficient", "compact"])
def test_noise_changes_the_light_generators_texture(family):
    torch.manual_seed(0)
    g1, a = build_g1(family, 8), torch.zeros(1, 1, 8, 8)
    assert not torch.equal(g1(a, noise_for(g1, 8, 0)), g1(a, noise_for(g1, 8, 1)))
    assert torch.equal(g1(a, noise_for(g1, 8, 1)), g1(a, noise_for(g1, 8, 1)))


@pytest.mark.parametrize("family", ["efficient", "compact"])
def test_a_sampler_shares_what_does_not_hang_on_the_noise(family):
    torch.manual_seed(0)
    g1, a = build_g1(family, 8, sampler=True).eval(), torch.rand(1, 1, 24, 24) * 2 - 1
    with torch.inference_mode():
        whole = [g1(a, noise_for(g1, 24, seed)) for seed in (0, 1)]
        features = g1.trunk(a)
        shared = g1.share(a, features)
        again = [g1.finish(shared, noise_for(g1, 24, seed)) for seed in (0, 1)]
    assert all(torch.equal(one, other) for one, other in zip(whole, again, strict=True))
    assert not torch.allclose(*whole, atol=1e-3)
    assert losses.downsample_loss(a, whole[0]).item() < 0.1
    total = [one.numel() for one in g1.parameters()]
    assert sum(total) < 1.3 * parameters(build_g1(family, 8))


@pytest.mark.parametrize("family", ["efficient", "compact"])
@pytest.mark.parametrize("fixed", [False, True])
def test_a_samplers_tile_is_that_of_the_whole(family, fixed):
    torch.manual_seed(0)
    g1, a = build_g1(family, 8, sampler=True).eval(), torch.rand(1, 1, 30, 30) * 2 - 1
    noise, halo = noise_for(g1, 30), g1.magnify_halo
    with torch.inference_mode():
        whole, features = g1(a, noise), g1.trunk(a)
        if fixed:
            g1.fix()
        for top, bottom, left, right in ((6, 18, 0, 12), (14, 30, 8, 30)):
            sides = (top > 0, bottom < 30, left > 0, right < 30)
            read = (top - halo * sides[0], bottom + halo * sides[1], left - halo * sides[2], right + halo * sides[3])

            def cut(x, scale=1, read=read):
                return x[..., scale * read[0] : scale * read[1], scale * read[2] : scale * read[3]]

            planes = [cut(plane, scale) for plane, scale in zip(noise, g1.noise_scales, strict=True)]
            tile = g1.magnify(cut(a), cut(features), planes, sides)
            assert torch.allclose(tile, whole[..., 8 * top : 8 * bottom, 8 * left : 8 * right], atol=1e-5)


@pytest.mark.parametrize(("family", "spectral", "expected"), [
    ("resnet", None, False), ("resnet", True, True), ("efficient", None, True), ("efficient", False, False),
])  # fmt: skip
def test_discriminators_are_spectrally_normalised_where_that_is_wanted(family, spectral, expected):
    nets = build(family, 16, 128, spectral)
    weights = [m for d in (nets.d1, nets.d2) for m in d.modules() if isinstance(m, torch.nn.Conv2d)]
    assert all(is_parametrized(m, "weight") == expected for m in weights)
    assert not any(is_parametrized(m) for m in nets.g1.modules())


@pytest.mark.parametrize("sampler", [False, True])
@pytest.mark.parametrize("family", FAMILIES)
def test_a_generator_of_neighbours_adds_to_the_slice_itself(family, sampler):
    torch.manual_seed(0)
    g1 = build_g1(family, 8, sampler, slices=5).eval()
    a = torch.randn(2, 5, 12, 12).requires_grad_()
    planes = [torch.cat([plane, plane]) for plane in noise_for(g1, 12)]
    image = g1(a, planes)
    assert image.shape == (2, 1, 96, 96) and torch.equal(own_slice(a), a[:, 2:3])
    image[0, 0, 40:56, 40:56].sum().backward()
    reached = a.grad.abs().sum((2, 3))
    assert (reached[0] > 0).all() and (reached[1] == 0).all(), "each slice of its own scan"
    single = parameters(build_g1(family, 8, sampler))
    first = next(p for p in g1.parameters() if p.ndim == 4)
    assert parameters(g1) - single == first[:, 1:].numel(), "the first convolution alone"


def test_a_family_that_sees_single_slices_is_refused_neighbours(monkeypatch):
    monkeypatch.setattr(families, "family_of", lambda _: families.COMPACT._replace(neighbours=False))
    build_g1("compact", 8)
    with pytest.raises(UserError, match=r"network compact sees single slices; set methods.<name>.slices to 1, or take"):
        build_g1("compact", 8, slices=3)
