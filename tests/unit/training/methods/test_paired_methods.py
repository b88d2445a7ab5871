"""Regression and the posterior sampler: what they minimise, that a batch may be split, and what their models draw."""

import copy

import numpy as np
import pandas as pd
import pytest
import torch

from microsr import config
from microsr.core.files import write_csv
from microsr.inference.upsamplers import Generator, upsample_slice
from microsr.preprocessing.patch_files import SCAN_COLUMNS
from microsr.training import scores, train
from microsr.training.batches import Pairs
from microsr.training.methods.method import Setup
from microsr.training.methods.posterior import Posterior
from microsr.training.methods.regression import Regression

SIZES = (8, 64)
BOTH = pytest.mark.parametrize("kind", [Regression, Posterior])
SETTINGS = config.Train(network="compact", learning_rate=1e-3, batch_size=4, patches_per_case=8, epochs=2)


def some_pairs(n=4, seed=0):
    random = torch.Generator().manual_seed(seed)
    a, b = (torch.rand(n, 1, size, size, generator=random) * 1.6 - 0.8 for size in SIZES)
    return Pairs(a, b)


def made(kind, settings=SETTINGS, method=None, **options):
    own = method or {Regression: config.RegressionMethod, Posterior: config.PosteriorMethod}[kind]()
    return kind(Setup(settings, own, 1, scanner=config.Scanner(), **options), SIZES)


def weights(model):
    return torch.cat([p.detach().flatten() for p in model.g1.parameters()])


@BOTH
def test_gradients_gathered_over_parts_are_those_of_the_whole_batch(kind, in_float64):
    found = []
    for accumulate in (1, 2, 4):
        model = made(kind, accumulate=accumulate)
        model.optimisers = [torch.optim.SGD(model.g1.parameters(), 0.01, fused=True)]  # Adam magnifies rounding
        means = [model.step(step, some_pairs(seed=step), 0.01) for step in range(3)][-1]
        found.append((weights(model), {name: float(value) for name, value in means.items()}))
    (whole, means), start = found[0], weights(made(kind))
    for other, other_means in found[1:]:
        assert (other - whole).norm() < in_float64 * (whole - start).norm()
        assert other_means == pytest.approx(means, rel=in_float64, abs=in_float64)


@BOTH
def test_a_step_is_a_function_of_its_number(kind):
    one, other = made(kind), made(kind)
    for step in range(3):
        one.step(step, some_pairs(seed=step), 1e-3)
    other.load(copy.deepcopy(one.state()))
    again = [model.step(3, some_pairs(seed=3), 1e-3) for model in (one, other)]
    assert again[0] == again[1] and torch.equal(weights(one), weights(other))


@BOTH
def test_each_learns_what_can_be_learnt(kind):
    """B is a flat patch, 0.3 brighter than the scan's mean."""
    a = some_pairs().a
    pairs = Pairs(a, (a.mean((-2, -1), keepdim=True) + 0.3).expand(-1, -1, 64, 64).contiguous())
    model = made(kind)
    losses = [sum(value.item() for value in model.step(step, pairs, 2e-3).values()) for step in range(60)]
    assert losses[-1] < 0.3 * losses[0]


def test_regression_minimises_the_squared_error_and_draws_nothing():
    model, pairs = made(Regression), some_pairs()
    planes = [torch.zeros(4, 1, 8 * scale, 8 * scale) for scale in model.g1.noise_scales]
    with torch.no_grad():
        expected = torch.nn.functional.mse_loss(model.g1(pairs.a, planes), pairs.b)
    assert model.step(0, pairs, 1e-3)["regression_loss"].item() == pytest.approx(expected.item(), rel=1e-5)
    model.step(1, some_pairs(seed=1), 1e-3)
    with torch.no_grad():
        drawn = [torch.randn_like(plane) for plane in planes]
        assert torch.equal(model.g1(pairs.a, planes), model.g1(pairs.a, drawn))


def test_a_step_of_the_sampler_scores_two_draws_of_each_scan():
    model, pairs = made(Posterior), some_pairs()
    with torch.no_grad():
        draws = model.draws(pairs.a, range(8, 12))
        planes = [model.planes(model.g1, range(8, 12), use, (8, 8)) for use in (0, 1)]
        expected = torch.stack([model.g1(pairs.a, own) for own in planes])
    assert draws.shape == (2, 4, 1, 64, 64)
    assert torch.allclose(draws, expected, atol=1e-5) and not torch.allclose(draws[0], draws[1], atol=0.01)
    found = model.step(2, pairs, 1e-3)
    for name, scale in (("pool_score", [8]), ("neighbourhood_score", [8]), ("spectrum_score", [])):
        assert found[name].item() == pytest.approx(getattr(scores, name)(draws, pairs.b, 0.95, *scale).item(), rel=1e-4)


@pytest.mark.parametrize("key", ["pools", "neighbourhoods", "spectrum", "alpha"])
def test_each_setting_of_the_sampler_changes_what_is_learnt(key):
    changed = config.PosteriorMethod(**{key: 0.25})
    models = [made(Posterior), made(Posterior, method=changed)]
    for model in models:
        model.step(0, some_pairs(), 1e-3)
        model.step(1, some_pairs(seed=1), 1e-3)
    assert not torch.equal(*map(weights, models))


def test_a_sampler_of_a_network_that_draws_nothing_is_refused():
    settings = {"experiment": "x", "methods": {"p": {"kind": "posterior", "train": {"network": "resnet"}}}}
    with pytest.raises(train.UserError, match="network resnet draws nothing at random, so method p cannot sample"):
        config.load(settings)


def test_regression_begins_without_a_checkerboard():
    settings = SETTINGS.model_copy(update={"network": "resnet"})
    g1 = made(Regression, settings).g1.eval()
    with torch.inference_mode():
        image = g1(torch.full((1, 1, 24, 24), -0.8), [])
    assert image[..., 40:-40, 40:-40].std() < 1e-3


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """Pairs of one case, in files."""
    folder = tmp_path_factory.mktemp("pairs")
    random = np.random.default_rng(0)
    np.save(folder / "micro.npy", random.normal(-700, 150, (12, 64, 64)).astype(np.int16))
    np.save(folder / "scans.npy", random.normal(-700, 150, (24, 8, 8)).astype(np.int16))
    rows = [["a", "micro", 0, 0, 0, 64, "lung", 0.29]] * 24
    write_csv(folder / "scans.csv", pd.DataFrame(rows, columns=SCAN_COLUMNS))
    (folder / "micro.run.json").write_text('{"spacing_mm": [0.08, 0.08]}')
    names = {"micro": "micro.npy", "scans": "scans.npy", "scan_table": "scans.csv"}
    return {held: [folder / name] for held, name in names.items()}


@pytest.mark.parametrize("kind", ["regression", "posterior"])
def test_a_training_from_pairs_gives_a_model_that_magnifies(kind, files, tmp_path):
    model = tmp_path / "model"
    train.train(
        files, model, tmp_path / "state", settings=SETTINGS, method=config.KINDS[kind](), window_hu=(-1000.0, 400.0),
        seed=5, compute=config.Compute(device="cpu"), scanner=config.Scanner(),
    )  # fmt: skip
    facts = torch.load(model / "generator.pt", weights_only=True)["facts"]
    assert (facts["kind"], facts["steps"], facts["sampler"]) == (kind, 4, kind == "posterior")
    assert (facts["clinical_spacing_mm"], facts["micro_spacing_mm"]) == pytest.approx((0.64, 0.08))
    hu = np.random.default_rng(1).normal(-700, 150, (12, 14)).astype(np.float32)
    images = [upsample_slice(hu, 0, Generator(model / "generator.pt"), draw=draw) for draw in (0, 1)]
    assert images[0].shape == (96, 112)
    assert np.array_equal(*images) == (kind == "regression"), "draws differ where there is something to draw"


@pytest.mark.parametrize("kind", ["regression", "posterior"])
def test_a_model_of_neighbouring_slices_says_so_and_sees_them(kind, files, tmp_path):
    scans = np.load(files["scans"][0]).repeat(3, axis=0)
    np.save(tmp_path / "scans.npy", scans + 40 * (np.arange(len(scans)) % 3)[:, None, None].astype(np.int16))
    table = pd.read_csv(files["scan_table"][0]).assign(slice_mm=[0.5, 0.7] * 12, before=1, after=1)
    write_csv(tmp_path / "scans.csv", table)
    several = files | {"scans": [tmp_path / "scans.npy"], "scan_table": [tmp_path / "scans.csv"]}
    model, settings = tmp_path / "model", SETTINGS.model_copy(update={"start_steps": 1})
    train.train(
        several, model, tmp_path / "state", settings=settings, method=config.KINDS[kind](slices=3),
        window_hu=(-1000.0, 400.0), seed=5, compute=config.Compute(device="cpu"), scanner=config.Scanner(),
    )  # fmt: skip
    facts = torch.load(model / "generator.pt", weights_only=True)["facts"]
    assert facts["slices"] == 3 and facts["slice_mm"] == [0.5, 0.7]
    upsampler = Generator(model / "generator.pt")
    hu = np.random.default_rng(1).normal(-700, 150, (3, 12, 14)).astype(np.float32)
    image = upsample_slice(hu, 0, upsampler)
    assert image.shape == (96, 112)
    for k in (0, 2):
        other = hu.copy()
        other[k] += 100
        assert np.abs(upsample_slice(other, 0, upsampler) - image).max() > 0.01


def test_a_single_slice_says_nothing_of_neighbours(files, tmp_path):
    train.train(
        files, tmp_path, tmp_path / "state", settings=SETTINGS, method=config.PosteriorMethod(),
        window_hu=(-1000.0, 400.0), seed=5, compute=config.Compute(device="cpu"), scanner=config.Scanner(),
    )  # fmt: skip
    facts = torch.load(tmp_path / "generator.pt", weights_only=True)["facts"]
    assert not {"slices", "slice_mm"} & facts.keys()
