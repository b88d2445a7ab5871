"""A uCT down-sampled lies where the uCT lies, and its super-resolution is compared with the right slices of it."""

import json

import numpy as np
import pandas as pd
import pytest

from microsr import cli
from microsr.core.errors import UserError
from microsr.inference import superresolve
from microsr.inference.upsamplers import Bicubic
from microsr.physics.pooling import average_pool
from microsr.preprocessing.downsample import spread_evenly
from microsr.volume.storage import Volume, magnified_geometry, open_mask, open_volume, write_volume

TURNED = (0.0, -1.0, 0.0, 1.0, 0.0, 0.0, 0.0, 0.0, 1.0)


class Case:
    """A uCT of 11 slices of 83x97 pixels, turned by 90 degrees, its specimen without a border of 4 pixels and end
    slices.
    """

    def __init__(self, folder, **attributes):
        self.folder = folder
        rng = np.random.default_rng(0)
        self.micro = np.rint(rng.normal(-800, 150, (11, 83, 97)))
        self.specimen = np.zeros(self.micro.shape, bool)
        self.specimen[1:10, 4:-4, 4:-4] = True
        self.attributes = {"case": "c", **attributes}
        self.volume = Volume(
            self.micro, (0.05, 0.05, 0.04), (3.0, -2.0, 7.0), TURNED, "HU", {**self.attributes, "modality": "micro"}
        )

    def downsample(self, *flags):
        write_volume(self.folder / "micro.ome.zarr", self.volume, self.specimen)
        output = self.folder / "downsampled.ome.zarr"
        cli.main([
            "volumes", "downsample", "--micro", str(self.folder / "micro.ome.zarr"), "--output", str(output), "--debug",
            *flags,
        ])  # fmt: skip
        return open_volume(output), np.asarray(open_mask(output)) != 0

    def evaluate(self, sr, like, slices=None):
        facts = {"slices": list(range(like.shape[0])) if slices is None else slices}
        first = like.slices(facts["slices"][0], facts["slices"][0] + 1)
        geometry = magnified_geometry(first, 8)
        if len(facts["slices"]) > 1:
            step = facts["slices"][1] - facts["slices"][0]
            geometry["spacing"] = (*geometry["spacing"][:2], geometry["spacing"][2] * step)
        write_volume(self.folder / "sr", Volume(sr, **geometry, attributes=facts))
        output = self.folder / "out" / "t.csv"
        cli.main([
            "evaluate", "downsampled", "--case", "c", "--method", "m", "--training_set", "pooled", "--seed", "2",
            "--debug", "--superresolved", str(self.folder / "sr"), "--micro", str(self.folder / "micro.ome.zarr"),
            "--output", str(output), "--data_range_hu", "1400.0",
        ])  # fmt: skip
        table = pd.read_csv(output)
        assert set(table["protocol"]) == {"downsampled"} and set(table["seed"]) == {2}
        self.shown = json.loads((output.parent / "t.run.json").read_text(encoding="utf-8"))["micro_slices"]
        return dict(zip(table["metric"], table["value"], strict=True))


@pytest.fixture
def case(tmp_path):
    return Case(tmp_path)


def test_evenly_spaced_slices_are_all_the_same_distance_apart():
    assert spread_evenly(0, 60, 8) == [2, 10, 18, 26, 34, 42, 50, 58]
    assert spread_evenly(5, 7, 8) == [5, 6, 7]
    assert spread_evenly(0, 10, 1) == [5]
    assert spread_evenly(3, 3, 8) == [3]


def test_downsampling_averages_blocks_of_slices_that_it_names(case):
    volume, mask = case.downsample("--number", "3")
    assert volume.attributes["micro_slices"] == [1, 5, 9]
    assert volume.shape == (3, 10, 12)
    assert volume.array[1, 2, 3] == np.rint(case.micro[5, 16:24, 24:32].mean())
    expected = np.zeros((10, 12), bool)
    expected[1:9, 1:11] = True  # specimen rows 4 to 78: blocks 8 to 71; columns 4 to 92: blocks 8 to 87
    assert (mask == expected).all()


def test_memory_does_not_grow_with_the_slices(case, peak_memory):
    def peak(slices):
        case.volume = Volume(np.zeros((slices, 256, 256)), (0.05,) * 3)
        case.specimen = np.ones(case.volume.shape, bool)
        return peak_memory(lambda: case.downsample("--number", str(slices)))

    assert peak(40) - peak(8) < 32 * 8 * 32 * 32, "bytes, less than the slices as float64"


def test_magnified_the_downsampled_volume_lies_on_the_pixels_of_the_uct(case):
    volume, _ = case.downsample("--number", "3")
    magnified = Volume(None, **magnified_geometry(volume, 8))
    for slice_, z in enumerate(volume.attributes["micro_slices"]):
        for row, column in ((0, 0), (79, 95)):
            assert np.allclose(magnified.point((slice_, row, column)), case.volume.point((z, row, column)))


def test_the_uct_itself_gets_the_best_marks(case):
    volume, _ = case.downsample("--number", "3")
    best = case.evaluate(case.micro[[1, 5, 9], :80, :96], volume)
    assert case.shown == [1, 5, 9]
    assert best["psnr"] == np.inf and best["rmse"] == 0 and best["ssim"] == pytest.approx(1)
    assert np.isnan(best["ms_ssim"])  # too small for five scales
    worse = case.evaluate(case.micro[[1, 5, 9], :80, :96] + 10, volume)
    assert worse["rmse"] == pytest.approx(10) and worse["psnr"] == pytest.approx(20 * np.log10(140), abs=1e-3)
    assert case.evaluate(case.micro[[1, 6, 9], :80, :96], volume)["rmse"] > 50


def test_chosen_slices_are_compared_with_their_own(case):
    volume, _ = case.downsample("--number", "3")
    assert case.evaluate(case.micro[[1, 9], :80, :96], volume, [0, 2])["rmse"] == 0
    assert case.shown == [1, 9]
    assert case.evaluate(case.micro[[5], :80, :96], volume, [1])["rmse"] == 0
    assert case.shown == [5]


def test_only_blocks_wholly_in_the_specimen_count(case):
    volume, mask = case.downsample("--number", "3")
    wrong = np.where(np.kron(mask, np.ones((1, 8, 8))), case.micro[[1, 5, 9], :80, :96], 3000)
    assert case.evaluate(wrong, volume)["rmse"] == 0


def test_independent_slices_are_a_volume_too(tmp_path):
    case = Case(tmp_path, independent_slices=True)
    volume, _ = case.downsample()
    assert volume.attributes["independent_slices"] and volume.attributes["micro_slices"] == list(range(1, 9))
    assert case.evaluate(case.micro[1:9, :80, :96], volume)["rmse"] == 0
    case.volume, case.specimen = Volume(case.micro[:1], (0.05, 0.05, 0.05)), np.ones((1, 83, 97), bool)
    volume, _ = case.downsample()
    assert case.evaluate(case.micro[:1, :80, :96], volume)["rmse"] == 0


def test_the_ordinary_step_super_resolves_it(case):
    volume, _ = case.downsample("--number", "3")
    output = case.folder / "bicubic.ome.zarr"
    superresolve.superresolve(case.folder / "downsampled.ome.zarr", output, Bicubic(), "all", 128)
    sr = open_volume(output)
    assert sr.shape == (3, 80, 96) and sr.attributes["slices"] == [0, 1, 2]
    blurred = case.evaluate(np.asarray(sr.array), volume)
    spread = case.micro[[1, 5, 9], 8:72, 8:88].std()
    assert 0.9 * spread < blurred["rmse"] < 1.1 * spread  # white noise cannot be interpolated
    assert np.abs(average_pool(np.asarray(sr.array), 8) - volume.array)[:, 1:9, 1:11].mean() < 10


def test_what_does_not_fit_is_refused(case):
    volume, _ = case.downsample("--number", "3")
    truth = case.micro[[1, 5, 9], :80, :96]
    with pytest.raises(UserError, match=r"sr does not lie on the pixels of .*micro"):
        case.evaluate(truth, Volume(volume.array, volume.spacing, (3.0, -2.0, 7.0), volume.direction))
    with pytest.raises(UserError, match=r"sr does not lie on the pixels of .*micro"):
        case.evaluate(truth[:, :72], volume)
    case.volume = Volume(case.micro, case.volume.spacing, unit="grey")
    with pytest.raises(UserError, match="unit 'grey'"):
        case.downsample()
    case.volume, case.specimen[:] = Volume(case.micro, (0.05, 0.05, 0.04)), False
    with pytest.raises(UserError, match="no 8x8 block lies inside its specimen"):
        case.downsample()
    with pytest.raises(UserError, match="--number is 0"):
        case.downsample("--number", "0")


def test_slices_that_hold_no_specimen_are_refused(case):
    volume, _ = case.downsample("--number", "3")
    write_volume(case.folder / "micro.ome.zarr", case.volume, np.zeros(case.micro.shape, bool))
    with pytest.raises(UserError, match=r"none of its slices holds any specimen of .*micro"):
        case.evaluate(case.micro[[1], :80, :96], volume, [0])
