"""Training: the 25 % mix, the schedule, the pools, resuming, and what a trained model file holds."""

import functools
import signal

import numpy as np
import pandas as pd
import pytest
import torch

from microsr import config
from microsr.core.errors import UserError
from microsr.physics.window import normalise, to_hu
from microsr.training import losses, passes, train
from microsr.training.batches import Batches, is_mixed
from microsr.training.methods import cyclegan

WINDOW = (-1000.0, 400.0)
SETTINGS = config.Train(epochs=2, patches_per_case=12, batch_size=4, learning_rate=1e-3, precision="float32")


@pytest.fixture
def patch_files(tmp_path):
    random = np.random.default_rng(0)
    files = {"clinical": [], "micro": []}
    for case in range(2):
        for modality, size in (("clinical", 8), ("micro", 64)):
            path = tmp_path / f"case{case}_{modality}.npy"
            # Each case has its own grey level, so that a test sees where a patch came from.
            np.save(path, random.normal(-800 + 300 * case, 20, (12, size, size)).astype(np.int16))
            files[modality].append(path)
    return files


def batches(files, **changed):
    arguments = {
        "patches_per_case": 12, "batch_size": 4, "mix_fraction": 0.25, "augment": False, "window_hu": WINDOW, "seed": 5,
    } | changed  # fmt: skip
    return Batches(files["clinical"], files["micro"], **arguments)


def run(files, folder, settings=SETTINGS, method=None, seed=5, scanner=None):
    train.train(
        files, folder / "model", folder / "state", settings=settings, method=method or config.CycleGANMethod(),
        window_hu=WINDOW, seed=seed, compute=config.Compute(), scanner=scanner,
    )  # fmt: skip
    return torch.load(folder / "model" / "generator.pt", weights_only=True)["weights"]


def test_the_window_maps_to_minus_one_and_one_and_back():
    hu = torch.tensor([-1000.0, -300.0, 400.0, 3000.0, -3024.0])
    assert normalise(hu, WINDOW).tolist() == pytest.approx([-1, 0, 1, 1, -1], abs=1e-6)
    assert to_hu(torch.tensor([-1.0, 0.0, 1.0]), WINDOW).tolist() == pytest.approx([-1000, -300, 400])


@pytest.mark.parametrize(("fraction", "expected"), [(0.25, 250), (0.0, 0), (0.1, 100), (0.5, 500)])
def test_exactly_the_given_share_of_the_stream_is_mixed(fraction, expected):
    assert sum(is_mixed(n, fraction) for n in range(1000)) == expected


def test_every_fourth_clinical_input_is_an_average_pooled_uct_patch(patch_files):
    stream = batches(patch_files)
    pooled = torch.cat(
        [
            losses.average_pool(normalise(torch.from_numpy(np.load(f).astype(np.float32)), WINDOW)[:, None], 8)
            for f in patch_files["micro"]
        ]
    )
    for step in range(4):
        a, clinical, *_ = stream.batch(step)
        assert torch.equal(a[:3], clinical[:3])
        assert not torch.equal(a[3], clinical[3])
        assert (a[3] - pooled).abs().amax(dim=(1, 2, 3)).min() < 1e-6


def test_an_epoch_shows_each_patch_of_each_case_once(patch_files):
    stream = batches(patch_files, mix_fraction=0.0)
    assert stream.steps_per_epoch == 6
    seen = np.stack([p for step in range(6) for p in to_hu(stream.batch(step).clinical, WINDOW)[:, 0].numpy()])
    stored = np.concatenate([np.load(f) for f in patch_files["clinical"]])
    order = sorted(np.abs(stored - image).max(axis=(1, 2)).argmin() for image in seen)
    assert order == list(range(24))


def test_batches_depend_on_the_step_alone(patch_files):
    straight, resumed = batches(patch_files, augment=True), batches(patch_files, augment=True)
    for step in range(9):
        last = straight.batch(step)
    assert all(torch.equal(x, y) for x, y in zip(last, resumed.batch(8), strict=True))
    assert not torch.equal(last[2], batches(patch_files, augment=True, seed=6).batch(8)[2])


def test_the_learning_rate_is_constant_then_falls_to_zero():
    settings = config.Train(learning_rate=1.0, constant_fraction=0.5)
    rates = [train.learning_rate_at(step, 200, settings) for step in (0, 99, 100, 150, 199)]
    assert rates == pytest.approx([1, 1, 1, 0.5, 0.01])


def test_normalisation_is_free_then_fixed_evenly_until_the_middle_of_the_learning_rate_s_fall():
    settings = config.Train(constant_fraction=0.5)
    shares = [train.normalisation_fixed_at(step, 200, settings) for step in (0, 99, 100, 124, 149, 199)]
    assert shares == pytest.approx([0, 0, 0.02, 0.5, 1, 1])
    always = config.Train(constant_fraction=1.0)
    assert [train.normalisation_fixed_at(step, 200, always) for step in (0, 199)] == [0, 0]


def test_candidates_are_kept_at_even_steps_up_to_the_end(patch_files, tmp_path):
    assert train.candidate_steps(20, SETTINGS) == [20]
    assert train.candidate_steps(20, SETTINGS.model_copy(update={"candidates": 3, "start_steps": 5})) == [10, 15, 20]
    end = run(patch_files, tmp_path / "one")
    kept = SETTINGS.model_copy(update={"candidates": 3})
    with pytest.raises(FileNotFoundError, match=r"generator\.pt"):
        run(patch_files, tmp_path / "three", kept)
    models = [torch.load(tmp_path / f"three/model/generator.{n}.pt", weights_only=True) for n in (1, 2, 3)]
    assert [model["facts"]["steps"] for model in models] == [4, 8, 12]
    assert all(torch.equal(models[-1]["weights"][name], end[name]) for name in end), "to keep models changes none"
    assert all((one["weights"]["tail.bias"] != models[-1]["weights"]["tail.bias"]).any() for one in models[:2])
    assert not (tmp_path / "three/model/generator.pt").exists()


def test_a_history_row_has_a_column_for_each_loss_in_use(patch_files, tmp_path):
    run(patch_files, tmp_path)
    history = pd.read_csv(tmp_path / "model" / "history.csv")
    assert list(history.columns) == ["step", "epoch", "learning_rate", *passes.WEIGHT_OF, "D1", "D2", "skipped"]
    assert list(history["step"]) == list(range(1, 13))
    baseline = config.Experiment(experiment="x").methods["cyclegan"]
    run(patch_files, tmp_path / "baseline", method=baseline)
    columns = pd.read_csv(tmp_path / "baseline" / "model" / "history.csv").columns
    assert "cycle_micro" in columns and "downsample_loss" not in columns and "micro_ssim_loss" not in columns


def test_downsample_loss_alone_teaches_consistency(patch_files, tmp_path):
    only = config.Losses(adversarial=0, cycle=0, downsample=1, upsample=0, clinical_ssim=0, micro_ssim=0)
    settings = SETTINGS.model_copy(update={"epochs": 10})
    run(patch_files, tmp_path, settings=settings, method=config.CycleGANMethod(losses=only))
    history = pd.read_csv(tmp_path / "model" / "history.csv")
    assert history["downsample_loss"].iloc[-3:].mean() < history["downsample_loss"].iloc[:3].mean() / 2


@pytest.mark.parametrize(
    ("network", "number"), [("compact", signal.SIGTERM), ("compact", signal.SIGINT), ("resnet", signal.SIGUSR1)]
)
def test_a_training_stopped_by_a_signal_goes_on_to_the_same_weights(
    network, number, patch_files, tmp_path, monkeypatch, small_resnet
):
    # A pool that overflows, history rows of several steps, and a stop inside one: all of it must be in the state.
    monkeypatch.setattr(train, "HISTORY_ROWS", 4)
    changed = {"network": network, "pool_size": 3, "batch_size": 2, "patches_per_case": 6, "learning_rate": 1e-4}
    settings = SETTINGS.model_copy(update=changed)
    patch_run = functools.partial(run, patch_files, settings=settings)
    straight = patch_run(tmp_path / "straight")
    plain_step = cyclegan.CycleGAN.step

    def interrupted(self, step, *arguments):
        if step == 6:
            signal.raise_signal(number)
        return plain_step(self, step, *arguments)

    monkeypatch.setattr(cyclegan.CycleGAN, "step", interrupted)
    with pytest.raises(SystemExit) as stopped:
        patch_run(tmp_path / "resumed")
    assert stopped.value.code == train.STOPPED
    assert not (tmp_path / "resumed" / "model").exists()
    monkeypatch.setattr(cyclegan.CycleGAN, "step", plain_step)
    resumed = patch_run(tmp_path / "resumed")
    assert straight.keys() == resumed.keys()
    assert all(torch.equal(straight[name], resumed[name]) for name in straight)
    histories = [pd.read_csv(tmp_path / kind / "model" / "history.csv") for kind in ("straight", "resumed")]
    pd.testing.assert_frame_equal(*histories)


def test_diverged_losses_stop_the_training(patch_files, tmp_path):
    with pytest.raises(UserError, match=r"training diverged: .* at step"):
        run(patch_files, tmp_path, settings=SETTINGS.model_copy(update={"learning_rate": 1e30}))
