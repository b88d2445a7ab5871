"""The tissue network: it learns tissues, gives the same features for the same seed, and refuses what is not its own."""

import json

import numpy as np
import pytest
import SimpleITK as sitk
import torch
from scipy.ndimage import gaussian_filter

from microsr import cli
from microsr.core.errors import UserError
from microsr.evaluation import tissue_features
from microsr.physics.tissues import Tissue

SIDE = 128
STEPS = 40
"""After 25, half of the seeds miss vessels; after 40 none."""


@pytest.fixture(scope="module")
def painted():
    """Four slices: grainy parenchyma left, vessels (bright discs) on it, chest wall right; HU and labels, int."""
    rng = np.random.default_rng(0)
    hu = -850 + 300 * gaussian_filter(rng.standard_normal((4, SIDE, SIDE)), (0, 1, 1)) * 3.5
    labels = np.full(hu.shape, Tissue.PARENCHYMA, np.uint8)
    row, column = np.indices((SIDE, SIDE))
    for z in range(4):
        for y, x in rng.uniform(8, 90, (12, 2)):
            disc = np.hypot(row - y, column - x) < 5
            hu[z][disc], labels[z][disc] = 40, Tissue.VESSEL
    hu[:, :, 100:], labels[:, :, 100:] = 40, Tissue.OUTSIDE
    return np.rint(hu).astype(np.int16), labels


@pytest.fixture
def files(tmp_path, painted):
    for name, array in zip(("truth", "labels"), painted, strict=True):
        sitk.WriteImage(sitk.GetImageFromArray(array), str(tmp_path / f"{name}.nii.gz"))
    return tmp_path / "truth.nii.gz", tmp_path / "labels.nii.gz"


@pytest.fixture(autouse=True)
def few_steps(monkeypatch):
    monkeypatch.setattr(tissue_features, "BATCH", 8)
    monkeypatch.setattr(tissue_features, "STATISTICS", 64)


def command(files, output, seed=1):
    paths = ["--truth", str(files[0]), "--labels", str(files[1]), "--output", str(output)]
    paths += ["--feature_steps", str(STEPS)]
    cli.main(["features", *paths, "--seed", str(seed)])


def test_it_learns_tissues_and_says_how_well_on_slices_it_has_not_seen(files, tmp_path):
    command(files, tmp_path / "f" / "features.pt")
    network, facts = tissue_features.load(tmp_path / "f" / "features.pt")
    assert set(facts["recall"]) == {"parenchyma", "vessel"}  # chest wall does not count
    assert facts["balanced_accuracy"] == pytest.approx(np.mean(list(facts["recall"].values())))
    assert facts["balanced_accuracy"] > 0.9 and facts["held_out_slices"] == 1
    assert facts["window_hu"] == [-1000, 400] and not network.training
    assert json.loads((tmp_path / "f" / "features.run.json").read_text(encoding="utf-8"))["facts"] == facts


def test_the_held_out_slice_decides_the_accuracy_and_not_the_network(files, tmp_path, painted):
    command(files, tmp_path / "a.pt")
    labels = painted[1].copy()
    labels[3] = np.where(labels[3] == Tissue.VESSEL, Tissue.PARENCHYMA, labels[3])
    sitk.WriteImage(sitk.GetImageFromArray(labels), str(files[1]))
    command(files, tmp_path / "b.pt")
    (first, facts), (second, others) = (tissue_features.load(tmp_path / f"{name}.pt") for name in "ab")
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), second.parameters(), strict=True))
    assert set(facts["recall"]) == {"parenchyma", "vessel"} and set(others["recall"]) == {"parenchyma"}


def test_chest_wall_is_no_tissue_that_it_names(painted):
    network = tissue_features.train(*painted, 1, (-1000, 400), STEPS)
    found = network(torch.from_numpy(painted[0][:1, None].astype(np.float32))).argmax(dim=1)
    assert Tissue.OUTSIDE not in found


def test_the_same_seed_gives_the_same_features_and_another_seed_others(painted):
    windows = painted[0][:, :64, :64]
    found = [tissue_features.train(*painted, seed, (-1000, 400), STEPS).describe(windows) for seed in (1, 1, 2)]
    assert found[0].shape == (4, tissue_features.FEATURES) and found[0].dtype == np.float64
    assert np.array_equal(found[0], found[1]) and not np.allclose(found[0], found[2])


def test_training_takes_a_dozen_bytes_a_voxel(painted, peak_memory):
    def peak(times):
        truth, labels = (np.tile(array, (times, 1, 1)) for array in painted)
        return peak_memory(lambda: tissue_features.train(truth, labels, 1, (-1000, 400), STEPS))

    assert peak(16) - peak(4) < 12 * 12 * painted[0].size


def test_training_leaves_the_random_numbers_of_others_alone(painted):
    torch.manual_seed(3)
    expected = torch.rand(1)
    torch.manual_seed(3)
    tissue_features.train(*painted, 1, (-1000, 400), STEPS)
    assert torch.rand(1) == expected


def test_features_are_about_0_with_spread_1_on_the_lung_they_were_learned_from(painted):
    network = tissue_features.train(*painted, 1, (-1000, 400), STEPS)
    places = np.random.default_rng(4).integers((0, 0, 0), (4, 64, 36), (128, 3))
    found = network.describe(tissue_features.cut(painted[0], places, 64))
    assert np.abs(found.mean(axis=0)).mean() < 0.7
    assert 0.4 < found.std(axis=0).mean() < 1.6


def test_a_window_is_described_alone_whatever_else_is_described_with_it(painted):
    network = tissue_features.TissueNetwork((-1000, 400))
    windows = np.concatenate([painted[0][:, :64, :64]] * 40)
    assert np.allclose(network.describe(windows)[5], network.describe(windows[5:6])[0], atol=1e-6)


def test_values_beyond_the_window_do_not_count():
    network = tissue_features.TissueNetwork((-1000, 400))
    bone, metal = np.full((1, 64, 64), 400.0), np.full((1, 64, 64), 3000.0)
    assert np.array_equal(network.describe(bone), network.describe(metal))


def test_cut_takes_the_windows_in_the_order_of_the_places():
    array = np.arange(2 * 4 * 4).reshape(2, 4, 4)
    found = tissue_features.cut(array, np.array([[1, 2, 1], [0, 0, 0], [1, 0, 2]]), 2)
    assert found[:, 0, 0].tolist() == [16 + 9, 0, 16 + 2]


def test_what_does_not_fit_is_refused(files, tmp_path, painted):
    def refused(truth, labels, match):
        for path, array in zip(files, (truth, labels), strict=True):
            sitk.WriteImage(sitk.GetImageFromArray(array), str(path))
        with pytest.raises(UserError, match=match):
            tissue_features.learn(*files, tmp_path / "f.pt", 1, (-1000, 400), STEPS)

    truth, labels = painted
    refused(truth, labels[:3], "labels.nii.gz has shape .* give those of one case")
    refused(truth[:1], labels[:1], "at least 2 slices of 64x64")
    refused(truth[:, :62], labels[:, :62], "at least 2 slices of 64x64")
    refused(truth, labels + 5, r"holds the codes \[5, 6, 9\], not tissues 0 to 7")


def test_a_file_that_holds_no_features_is_refused(tmp_path):
    torch.save({"format": "microsr generator", "version": 1}, tmp_path / "generator.pt")
    (tmp_path / "broken.pt").write_bytes(b"x")
    for name in ("generator.pt", "broken.pt", "absent.pt"):
        with pytest.raises(UserError, match=f"{name} holds no tissue features"):
            tissue_features.load(tmp_path / name)
