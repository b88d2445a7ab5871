"""The training step: equal however its batch is split, and each option does what its name says."""

import copy
import functools

import numpy as np
import pytest
import torch

from microsr import config
from microsr.networks.families import build
from microsr.training import losses, passes
from microsr.training.batches import Batch
from microsr.training.methods import cyclegan
from microsr.training.methods.cyclegan import CycleGAN
from microsr.training.methods.method import Setup
from microsr.training.passes import gigaflops_per_pair

SIZES = (8, 64)


def a_batch(n=4, seed=0):
    random = torch.Generator().manual_seed(seed)
    a = torch.rand(n, 1, 8, 8, generator=random) * 2 - 1
    b = torch.rand(n, 1, 64, 64, generator=random) * 2 - 1
    return Batch(a, a.clone(), b)


def a_model(network="compact", losses_used=None, **options):
    train = {key: options.pop(key) for key in ("ema_decay", "gradient_penalty", "spectral_norm") if key in options}
    settings = config.Train(
        network=network, learning_rate=1e-3, pool_size=options.pop("pool_size", 2), batch_size=4, **train
    )
    method = config.CycleGANMethod(losses=losses_used or config.Losses())
    return CycleGAN(Setup(settings, method, 1, scanner=config.Scanner(), **options), SIZES)


def weights(model):
    return torch.cat([p.detach().flatten() for network in model.nets for p in network.parameters()])


@pytest.mark.parametrize("network", ["resnet", "efficient", "compact"])
def test_gradients_gathered_over_parts_are_those_of_the_whole_batch(network, small_resnet, in_float64):
    found = []
    for accumulate in (1, 2, 4):
        model = a_model(network, accumulate=accumulate)
        weights_of = [one.param_groups[0]["params"] for one in model.optimisers]
        model.optimisers = [torch.optim.SGD(one, 0.01, fused=True) for one in weights_of]  # Adam magnifies rounding
        for step in range(1 if network == "resnet" else 3):  # instance norm makes rounding grow with every step
            means = model.step(step, a_batch(seed=step), 0.01)
        running = torch.cat([b.flatten() for b in model.nets.g1.buffers()] + [torch.zeros(1)])
        found.append((weights(model), running, {k: float(v) for k, v in means.items()}))
    (whole, running, means), start = found[0], weights(a_model(network))
    for other, other_running, other_means in found[1:]:
        # Rounding only, measured by how far the steps have come.
        assert (other - whole).norm() < in_float64 * (whole - start).norm()
        torch.testing.assert_close(other_running, running, rtol=in_float64, atol=in_float64)
        assert other_means == pytest.approx(means, rel=in_float64, abs=in_float64)


def test_a_step_evaluates_each_network_as_often_as_its_losses_need(monkeypatch):
    model = a_model()
    calls = []
    for name, network in zip(model.nets._fields, model.nets, strict=True):
        network.register_forward_hook(lambda module, inputs, out, name=name: calls.append((name, len(inputs[0]))))
    model.step(0, a_batch(), 1e-4)
    assert sorted(calls) == [("d1", 4), ("d1", 8), ("d2", 4), ("d2", 8), ("g1", 4), ("g1", 4), ("g2", 8)]


def test_the_discriminators_learn_from_their_own_loss_alone():
    model, reference = a_model(pool_size=0), a_model()
    gradients = []
    step = model.optimisers[1].step
    model.optimisers[1].step = lambda: (gradients.extend(p.grad.clone() for p in model.nets.d1.parameters()), step())
    model.step(0, a_batch(), 1e-4)
    cyclegan.refresh_spectral_norm(reference.nets.d1)
    with torch.no_grad():
        fake = reference.nets.g1(a_batch().a, reference.planes(reference.nets.g1, range(4), 0, (8, 8)))
    losses.discriminator_loss(reference.nets.d1(a_batch().b), reference.nets.d1(fake)).backward()
    for found, expected in zip(gradients, reference.nets.d1.parameters(), strict=True):
        torch.testing.assert_close(found, expected.grad, rtol=1e-3, atol=1e-6)


def test_bfloat16_changes_a_step_by_rounding_only():
    exact, rounded = (a_model("efficient", precision=precision) for precision in ("float32", "bfloat16"))
    one, other = (model.step(0, a_batch(), 1e-4) for model in (exact, rounded))
    assert one.keys() == other.keys()
    for name in one:
        assert float(other[name]) == pytest.approx(float(one[name]), rel=0.05, abs=0.01), name
        assert other[name].dtype == torch.float32
    assert not torch.equal(weights(exact), weights(rounded))


def test_the_averaged_weights_follow_the_trained_ones():
    model = a_model(ema_decay=0.9)
    start = {k: v.clone() for k, v in model.nets.g1.state_dict().items()}
    expected = copy.deepcopy(start)
    for step in range(30):
        model.step(step, a_batch(seed=step), 1e-3)
        decay = min(0.9, (1 + step) / (10 + step))
        for name, value in model.nets.g1.state_dict().items():
            expected[name] = decay * expected[name] + (1 - decay) * value
    for name, value in model.generator().items():
        torch.testing.assert_close(value, expected[name], rtol=1e-4, atol=1e-6)
        assert not torch.equal(value, model.nets.g1.state_dict()[name])
    assert a_model().generator().keys() == start.keys()


def test_the_gradient_penalty_flattens_the_discriminators_at_real_patches():
    def slope(model):
        return losses.gradient_penalty(model.nets.d1, a_batch(seed=99).b).item()

    free, held = a_model(spectral_norm=False), a_model(spectral_norm=False, gradient_penalty=1000.0)
    for step in range(10):
        free.step(step, a_batch(seed=step), 1e-3)
        found = held.step(step, a_batch(seed=step), 1e-3)
    assert {"D1_penalty", "D2_penalty"} <= found.keys()
    assert slope(held) < 0.3 * slope(free)


def test_the_gradient_penalty_is_half_the_mean_squared_slope_of_a_linear_discriminator():
    kernel = torch.tensor([[0.5, -1.0], [2.0, 0.25]]).view(1, 1, 2, 2)
    verdicts = lambda image: torch.nn.functional.conv2d(image, kernel, stride=2)  # noqa: E731
    for size in (8, 16):
        penalty = losses.gradient_penalty(verdicts, torch.randn(3, 1, size, size))
        assert penalty.item() == pytest.approx(kernel.square().mean().item() / 2)


def test_spectral_norm_follows_the_weights_by_one_power_iteration_a_step(monkeypatch):
    def largest_norm(model):
        for step in range(40):
            model.step(step, a_batch(seed=step), 1e-3)
        weights = (m.weight.flatten(1) for m in model.nets.d1.modules() if isinstance(m, torch.nn.Conv2d))
        return max(torch.linalg.matrix_norm(weight, 2).item() for weight in weights)

    assert largest_norm(a_model()) < 1.2
    monkeypatch.setattr(cyclegan, "refresh_spectral_norm", lambda network: network.eval())
    assert largest_norm(a_model()) > 1.3


@pytest.mark.parametrize("parts", [1, 2])
def test_a_step_whose_gradient_is_not_finite_is_left_out(parts, monkeypatch):
    """As when a generated image is constant: each instance norm magnifies its gradient, until it overflows."""
    model = a_model(accumulate=parts, ema_decay=0.5)
    before = weights(model)
    for step in range(4):
        overflows = step == 2
        weight = next(model.nets.g1.parameters())
        hook = weight.register_hook(lambda gradient: gradient * torch.inf) if overflows else None
        found = model.step(step, a_batch(seed=step), 1e-3)
        assert found["skipped"] == overflows
        assert all(value.isfinite() for value in found.values())
        assert torch.equal(weights(model), before) == overflows
        before = weights(model)
        if hook is not None:
            hook.remove()
    for optimiser in model.optimisers:
        assert {int(state["step"]) for state in optimiser.state.values()} == {3}


def test_looking_at_examples_changes_nothing(small_resnet):
    looked, plain = a_model("resnet"), a_model("resnet")
    for step in range(3):
        shown = looked.superresolve(a_batch().a)
        assert shown.shape == (4, 1, 64, 64)
        looked.step(step, a_batch(seed=step), 1e-4)
        plain.step(step, a_batch(seed=step), 1e-4)
    assert torch.equal(weights(looked), weights(plain))
    assert all(torch.equal(x, y) for x, y in zip(looked.nets.g1.buffers(), plain.nets.g1.buffers(), strict=True))


def test_instance_norm_uses_running_statistics_once_they_are_fixed(small_resnet):
    model = a_model("resnet")
    model.step(0, a_batch(), 1e-4)
    a = a_batch().a[:1]

    def effect_of_brightness():
        with torch.no_grad():
            return (model.nets.g1(a + 5) - model.nets.g1(a))[..., 30:34, 30:34].abs().max().item()

    forgotten = effect_of_brightness()
    model.fix_normalisation()
    assert effect_of_brightness() > 10 * forgotten


def test_normalisation_is_fixed_little_by_little(small_resnet):
    """At once, G1 made constant images within ten steps, of which G2's norms make infinite gradients."""
    model = a_model("resnet")
    model.step(0, a_batch(), 1e-4)

    def made(share):
        model.fix_normalisation(share)
        with torch.no_grad():
            return model.nets.g1(a_batch().a)

    own, little, all_fixed, again = made(0.0), made(0.02), made(1.0), made(0.0)
    assert torch.equal(own, again) and not torch.equal(own, all_fixed)
    assert 0 < (little - own).abs().mean() < 0.2 * (all_fixed - own).abs().mean()

    def statistics():
        return [value.clone() for name, value in model.nets.g1.named_buffers() if "running" in name]

    for share, follow in ((0.5, True), (1.0, False)):
        model.fix_normalisation(share)
        before = statistics()
        model.step(1, a_batch(seed=1), 1e-4)
        assert [not torch.equal(x, y) for x, y in zip(before, statistics(), strict=True)] == [follow] * len(before)


def test_the_arithmetic_of_a_step_is_that_of_its_networks():
    """Two evaluations of a generator forwards and twice as much backwards, but for the first layer's input."""
    used = config.Losses(adversarial=0)
    nets = build("resnet", 16, 128)
    sizes = {"g1": (1, 1, 16, 16), "g2": (1, 1, 128, 128), "d1": (2, 1, 128, 128), "d2": (2, 1, 16, 16)}
    times = {"g1": 6, "g2": 6, "d1": 3, "d2": 3}
    forward = 0.0
    for name, network in zip(nets._fields, nets, strict=True):
        with torch.no_grad(), passes.FlopCounterMode(display=False) as counter:
            network(torch.zeros(sizes[name]))
        forward += times[name] * counter.get_total_flops() / 1e9
    settings = config.Train(network="resnet")
    counted = gigaflops_per_pair(settings, used, (16, 128))
    assert counted == pytest.approx(forward, rel=0.02)
    assert gigaflops_per_pair(settings, used, (32, 256)) == pytest.approx(4 * counted, rel=0.05)


def test_the_efficient_step_takes_a_tenth_of_the_papers_arithmetic_at_most():
    for sizes in ((16, 128), (32, 256)):
        resnet, efficient, compact = (
            gigaflops_per_pair(config.Train(network=network), config.Losses(), sizes)
            for network in ("resnet", "efficient", "compact")
        )
        assert compact < efficient < resnet / 10


def test_the_pool_returns_older_images_half_of_the_time():
    pool, random = cyclegan.ImagePool(10), np.random.default_rng(0)
    for number in range(10):
        assert pool.query(torch.full((1, 1), float(number)), random).item() == number
    older = sum(pool.query(torch.full((1, 1), float(n)), random).item() != n for n in range(10, 410))
    assert len(pool.images) == 10
    assert older == pytest.approx(200, abs=40)


def test_a_compiled_step_computes_what_the_plain_one_does(monkeypatch):
    """As torch.compile traces it, on PyTorch's own kernels: to generate code takes minutes and a C++ compiler."""
    monkeypatch.setattr(cyclegan.torch, "compile", functools.partial(torch.compile, backend="eager"))
    plain, compiled = a_model(), a_model(compiled=True)
    for step in range(2):
        one, other = (model.step(step, a_batch(seed=step), 1e-4) for model in (plain, compiled))
    assert {k: v.item() for k, v in other.items()} == pytest.approx({k: v.item() for k, v in one.items()}, rel=1e-4)
    torch.testing.assert_close(weights(compiled), weights(plain), rtol=1e-3, atol=1e-4)
