"""The start of a training, in which G1 alone learns from pairs, and the strength of the random planes: both beyond the
paper.
"""

import signal

import numpy as np
import pandas as pd
import pytest
import torch

from microsr import config
from microsr.networks.families import build_g1
from microsr.networks.layers import average_pool
from microsr.training import train
from microsr.training.batches import Batches
from microsr.training.methods.cyclegan import CycleGAN
from microsr.training.methods.method import Setup

WINDOW = (-1000.0, 400.0)
SETTINGS = config.Train(
    network="compact",
    epochs=1,
    patches_per_case=8,
    batch_size=4,
    learning_rate=1e-3,
    precision="float32",
    start_steps=4,
)
"""Four steps of the start, then two of the rest."""
SCANNER = config.Scanner(noise_hu=60.0)


def batches(patches, start_noise=SCANNER, **changed):
    files = [patches / "clinical.npy"], [patches / "micro.npy"]
    facts = {
        "patches_per_case": 8,
        "batch_size": 4,
        "mix_fraction": 0.25,
        "augment": True,
        "window_hu": WINDOW,
        "seed": 5,
    }
    return Batches(*files, start_noise=start_noise, **facts | changed)


def run(patches, folder, minutes=1e9, method=None, **changed):
    """A training to its end; its model's weights and its history."""
    train.train(
        {name: [patches / f"{name}.npy"] for name in ("clinical", "micro")}, folder / "model", folder / "state",
        settings=SETTINGS.model_copy(update=changed), method=method or config.CycleGANMethod(), window_hu=WINDOW,
        seed=5, compute=config.Compute(device="cpu", checkpoint_minutes=minutes), scanner=SCANNER,
    )  # fmt: skip
    weights = torch.load(folder / "model/generator.pt", weights_only=True)["weights"]
    return weights, pd.read_csv(folder / "model/history.csv")


def equal(one, other):
    return all(torch.equal(one[name], other[name]) for name in one)


def test_a_pair_is_a_uct_patch_and_what_the_scanner_makes_of_it(patches):
    clean, noisy = batches(patches, start_noise=None), batches(patches)
    for step in (0, 1, 5):
        a, b = clean.pairs(step)
        assert torch.equal(a, average_pool(b, 8))
        noise = noisy.pairs(step).a - a
        assert torch.equal(noisy.pairs(step).b, b)
        assert float(noise.std()) * 700 == pytest.approx(SCANNER.noise_hu, rel=0.2)
    stored = np.sort(np.load(patches / "micro.npy").clip(*WINDOW).reshape(12, -1), axis=1)
    seen = ((clean.pairs(0).b + 1) * 700 - 1000).flatten(1).sort(1).values.numpy()
    assert all((np.abs(stored - image).max(1) < 1).any() for image in seen), "each is one of the file, turned"


def test_pairs_are_a_function_of_the_step_and_their_parts_those_of_the_whole(patches):
    whole = batches(patches).pairs(3)
    assert torch.equal(batches(patches).pairs(3).a, whole.a)
    parts = [batches(patches).pairs(3, slice(k, k + 2)) for k in (0, 2)]
    assert torch.equal(torch.cat([p.a for p in parts]), whole.a) and torch.equal(
        torch.cat([p.b for p in parts]), whole.b
    )
    assert not torch.equal(batches(patches).pairs(2).b, whole.b)
    assert not torch.equal(batches(patches, seed=6).pairs(3).a, whole.a)


def test_the_rest_sees_the_same_batches_with_and_without_a_start(patches, tmp_path, monkeypatch):
    seen = []
    plain = CycleGAN.step

    def step(self, number, batch, rate):
        seen.append((number, batch.a.sum().item(), rate))
        return plain(self, number, batch, rate)

    monkeypatch.setattr(CycleGAN, "step", step)
    run(patches, tmp_path / "with")
    with_start, seen[:] = list(seen), []
    run(patches, tmp_path / "without", start_steps=0)
    assert with_start == seen and len(seen) == 2


def test_only_g1_learns_in_the_start_and_its_loss_falls(patches):
    stream, rate = batches(patches), 1e-3
    model = CycleGAN(Setup(SETTINGS, config.CycleGANMethod(), 5), (8, 64))
    before = [{k: v.clone() for k, v in network.state_dict().items()} for network in model.nets]
    found = [float(model.start(0, stream.pairs(0), rate)["start_loss"]) for _ in range(20)]
    assert found[-1] < found[0], "little of noise can be learnt"
    same = [equal(old, network.state_dict()) for old, network in zip(before, model.nets, strict=True)]
    assert same == [False, True, True, True]
    for noisy, name in ((n, f"noisy.{k}.weight") for k, n in enumerate(model.nets.g1.noisy)):
        planes = torch.equal(noisy.weight[:, -1], before[0][name][:, -1])
        assert planes and not torch.equal(noisy.weight, before[0][name]), "the planes are off, so their weights stay"


def test_the_start_in_parts_is_the_whole_but_for_rounding(patches):
    pairs = batches(patches).pairs(0)
    found = []
    for accumulate in (1, 2):
        model = CycleGAN(Setup(SETTINGS, config.CycleGANMethod(), 5, accumulate=accumulate), (8, 64))
        losses = [float(model.start(0, pairs, 1e-3)["start_loss"]) for _ in range(3)]
        found.append(losses)
    assert found[0] == pytest.approx(found[1], rel=1e-4) and found[0][0] != found[0][2]


def test_the_history_tells_the_start_from_the_rest(patches, tmp_path):
    _, history = run(patches, tmp_path)
    assert list(history["step"]) == [1, 2, 3, 4, 5, 6]
    assert list(history["epoch"]) == [0, 0, 0, 0, 0.5, 1]
    assert history["start_loss"].notna().tolist() == [True] * 4 + [False] * 2
    assert history["downsample_loss"].notna().tolist() == [False] * 4 + [True] * 2
    facts = torch.load(tmp_path / "model/generator.pt", weights_only=True)["facts"]
    assert facts["steps"] == 6 and facts["provenance"]["settings"]["scanner"]["noise_hu"] == 60.0


def test_the_row_at_the_end_of_the_start_holds_the_start_alone(patches, tmp_path, monkeypatch):
    monkeypatch.setattr(train, "HISTORY_ROWS", 2)
    _, history = run(patches, tmp_path)
    assert list(history["step"]) == [3, 4, 6]
    assert history["start_loss"].notna().tolist() == [True, True, False]


@pytest.mark.parametrize("changed", [{}, {"ema_decay": 0.9, "network": "efficient"}])
def test_a_start_that_was_cut_off_goes_on_to_the_same_weights(changed, patches, tmp_path, monkeypatch):
    straight, history = run(patches, tmp_path / "straight", **changed)
    plain = CycleGAN.start

    def cut(self, number, *arguments):
        if number == 1:
            signal.raise_signal(signal.SIGTERM)
        return plain(self, number, *arguments)

    monkeypatch.setattr(CycleGAN, "start", cut)
    with pytest.raises(SystemExit):
        run(patches, tmp_path / "cut", **changed)
    monkeypatch.setattr(CycleGAN, "start", plain)
    weights, goes_on = run(patches, tmp_path / "cut", **changed)
    assert equal(straight, weights)
    pd.testing.assert_frame_equal(history, goes_on)


def test_the_noise_of_the_scanner_decides_a_training_with_a_start_only(patches, tmp_path, monkeypatch):
    one, _ = run(patches, tmp_path / "one")
    monkeypatch.setattr(f"{__name__}.SCANNER", config.Scanner(noise_hu=10.0))
    other, _ = run(patches, tmp_path / "other")
    assert not equal(one, other)


def test_the_gain_strengthens_the_planes_and_nothing_else():
    def weights(gain):
        settings = SETTINGS.model_copy(update={"noise_gain": gain})
        return CycleGAN(Setup(settings, config.CycleGANMethod(), 5), (8, 64)).nets

    plain, strong = weights(1.0), weights(4.0)
    for one, other in zip(plain[:2], strong[:2], strict=True):
        for name, value in one.state_dict().items():
            expected = value.clone()
            if "noisy" in name and name.endswith("weight"):
                expected[:, -1] *= 4
            assert torch.equal(other.state_dict()[name], expected), name
    assert all(equal(a.state_dict(), b.state_dict()) for a, b in zip(plain[2:], strong[2:], strict=True))
    assert build_g1("compact", 8).noise_scales == plain.g1.noise_scales
