"""Other scales than 8, from patches to metrics: every part takes the scale from its own data."""

import json

import numpy as np
import pytest
import torch

from microsr import cli, config
from microsr.core.errors import UserError
from microsr.evaluation import metrics, texture
from microsr.evaluation.protocols import downsampled
from microsr.inference.superresolve import superresolve
from microsr.inference.upsamplers import Bicubic, Generator, Nearest, upsample_slice
from microsr.networks.families import build_g1, draw_noise
from microsr.physics.moments import Moments
from microsr.physics.nullspace import Split
from microsr.physics.pooling import average_pool
from microsr.physics.scanner import KERNELS
from microsr.physics.spectrum import mean_power
from microsr.preprocessing import volumes
from microsr.preprocessing.downsample import downsample
from microsr.volume import alignment
from microsr.volume.storage import Volume, magnified_geometry, open_volume, write_volume

SCALES = pytest.mark.parametrize("scale", [2, 4, 16])
SPACING, ORIGIN = (0.64, 0.64, 0.6), (-20.0, 5.0, 30.0)


def noise(*shape, seed=0, sd=100.0):
    return np.random.default_rng(seed).normal(-700, sd, shape)


@pytest.fixture
def scan(tmp_path):
    """A clinical CT of three slices, imported."""
    array = noise(3, 20, 24).astype(np.int16)
    write_volume(tmp_path / "scan.ome.zarr", Volume(array, SPACING, ORIGIN), mask=np.ones(array.shape, bool))
    return tmp_path / "scan.ome.zarr"


@SCALES
def test_a_training_and_its_model_have_the_scale_of_the_patches(scale, scan, tmp_path, capsys):
    files = []
    for modality, size in (("clinical", 8), ("micro", 8 * scale)):
        np.save(tmp_path / f"{modality}.npy", noise(4, size, size).astype(np.int16))
        files += [f"--{modality}", str(tmp_path / f"{modality}.npy")]
    words = ["--network", "compact", "--epochs", "1", "--patches_per_case", "2", "--batch_size", "2"]
    places = ["--output", str(tmp_path / "model"), "--state", str(tmp_path / "state")]
    cli.main(["train", *files, *places, "--seed", "1", "--window_hu", "-1000", "400", "--start_steps", "1", *words])
    model = tmp_path / "model/generator.pt"
    assert Generator(model).scale == scale

    command = ["superresolve", str(scan), "--model", str(model), "--slices", "[1]"]
    cli.main([*command, "--output", str(tmp_path / "sr.ome.zarr"), "--scale", str(scale)])
    sr = open_volume(tmp_path / "sr.ome.zarr")
    assert sr.shape == (1, 20 * scale, 24 * scale) and sr.attributes["scale"] == scale
    assert sr.attributes["derivation"].startswith(f"Super-resolved {scale} times in-plane")
    assert sr.spacing == pytest.approx((0.64 / scale, 0.64 / scale, 0.6))
    ct = open_volume(scan)
    assert alignment.check_input(sr, tmp_path / "sr.ome.zarr", ct, scan, [1]) == scale

    cli.main(["info", str(model), "--json"])
    assert json.loads(capsys.readouterr().out)["scale"] == scale
    with pytest.raises(SystemExit):
        cli.main([*command, "--output", str(tmp_path / "other.ome.zarr"), "--scale", "8"])
    assert f"generator.pt is for a scale of {scale}, not of 8; give one of that scale" in capsys.readouterr().err
    assert not (tmp_path / "other.ome.zarr").exists()


@SCALES
@pytest.mark.parametrize("network", ["compact", "efficient"])
def test_a_sampler_s_tiles_are_exact_at_every_scale(network, scale):
    torch.manual_seed(0)
    g1 = build_g1(network, scale, sampler=True).eval()
    halo, reach = g1.magnify_halo, g1.trunk_halo
    side = 2 * (halo + reach) + 6
    a = torch.rand(1, 1, side, side) - 0.5
    planes = draw_noise(g1.noise_scales, 1, (side, side), torch.Generator().manual_seed(1), "cpu")
    with torch.no_grad():
        features = g1.trunk(a)
        whole = g1.magnify(a, features, planes)
        tile = slice(10 - halo, 14 + halo)
        cut = [plane[..., s * tile.start : s * tile.stop, s * tile.start : s * tile.stop]
               for s, plane in zip(g1.noise_scales, planes, strict=True)]  # fmt: skip
        part = g1.magnify(a[..., tile, tile], features[..., tile, tile], cut, (True,) * 4)
    middle = slice(10 * scale, 14 * scale)
    assert whole.shape[-1] == side * scale and (part - whole[..., middle, middle]).abs().max() < 1e-5


@pytest.mark.parametrize("ratio", [3, 1])
def test_patches_in_no_ratio_of_a_scale_are_refused(ratio, tmp_path):
    from microsr.training.batches import Batches

    for modality, size in (("clinical", 8), ("micro", 8 * ratio)):
        np.save(tmp_path / f"{modality}.npy", noise(4, size, size).astype(np.int16))
    with pytest.raises(UserError, match="not 2, 4, 8, 16 times the 8"):
        Batches(
            [tmp_path / "clinical.npy"], [tmp_path / "micro.npy"], patches_per_case=4, batch_size=2, mix_fraction=0.25,
            augment=False, window_hu=(-1000.0, 400.0), seed=1,
        )  # fmt: skip


@SCALES
def test_a_truth_on_its_scale_s_grid_scores_perfectly_and_bicubic_does_not(scale):
    truth = noise(32 * scale, 32 * scale, sd=300)
    clinical, mask = average_pool(truth, scale), np.ones((32, 32), bool)
    inside = metrics.magnify(mask, scale)
    assert inside.shape == truth.shape
    assert np.abs(metrics.pooled_difference(truth, clinical, mask)).max() < 1e-9
    assert metrics.rmse(Moments().add(metrics.truth_difference(truth, truth, inside))) == 0
    bicubic = upsample_slice(clinical.astype(np.float32), 0, Bicubic(scale))
    assert metrics.rmse(Moments().add(metrics.truth_difference(bicubic, truth, inside))) > 200
    assert np.array_equal(average_pool(upsample_slice(clinical.astype(np.float32), 0, Nearest(scale)), scale),
                          clinical.astype(np.float32))  # fmt: skip
    windows = [truth[:128, :128]] if scale == 16 else [truth[:64, :64]]
    power = mean_power(windows)
    assert metrics.spectrum_distance(power, power, scale) == 0
    smooth = mean_power([np.asarray(bicubic, float)[: len(windows[0]), : len(windows[0])]])
    assert metrics.spectrum_distance(smooth, power, scale) > 1


@SCALES
def test_a_pattern_with_the_period_of_a_clinical_pixel_is_a_checkerboard_at_every_scale(scale):
    windows = [noise(128, 128, seed=n, sd=30) for n in range(12)]
    pattern = np.tile(noise(scale, scale, seed=99, sd=20) + 700, (128 // scale, 128 // scale))
    assert metrics.checkerboard(mean_power(windows), scale) < 0.5
    assert metrics.checkerboard(mean_power([window + pattern for window in windows]), scale) > 1


@SCALES
def test_white_noise_has_its_own_spread_as_detail_at_every_scale(scale):
    detail = texture.detail_at(noise(64 * scale, 64 * scale, sd=50), np.ones((64, 64), bool))
    assert np.sqrt(np.mean(detail**2)) == pytest.approx(50, rel=0.1)


@SCALES
def test_what_the_scanner_measures_is_a_projection_at_every_scale(scale):
    image = noise(16 * scale, 12 * scale).astype(np.float32)
    split = Split(KERNELS["lung"], (0.64, 0.64), (16, 12), scale)
    once = split.project(image)
    assert once.shape == image.shape and np.abs(split.project(once) - once).max() < 0.5


@SCALES
def test_uct_is_matched_to_the_clinical_pixel_over_the_scale(scale, scan):
    found = volumes._target(config.MicroVolume(), scan, scale, "micro.tif")
    assert found == pytest.approx(0.64 / scale)


@SCALES
def test_a_uct_that_is_down_sampled_is_compared_with_itself_at_its_scale(scale, tmp_path):
    voxels = noise(3, 12 * scale + 1, 13 * scale).astype(np.int16)
    micro = Volume(voxels, (0.04, 0.04, 0.04), attributes={"case": "c"})
    write_volume(tmp_path / "micro.ome.zarr", micro, mask=np.ones(voxels.shape, bool))
    downsample(tmp_path / "micro.ome.zarr", tmp_path / "down.ome.zarr", 3, scale)
    low = open_volume(tmp_path / "down.ome.zarr")
    assert low.shape == (3, 12, 13) and low.spacing[0] == pytest.approx(0.04 * scale)
    superresolve(tmp_path / "down.ome.zarr", tmp_path / "sr.ome.zarr", Nearest(scale))
    names = ("c", "nearest", "none", "none")
    downsampled.evaluate(names, tmp_path / "sr.ome.zarr", tmp_path / "micro.ome.zarr", tmp_path / "table.csv",
                         config.Evaluate())  # fmt: skip
    assert "psnr" in (tmp_path / "table.csv").read_text(encoding="utf-8")


def test_a_volume_of_another_ratio_than_a_scale_lies_nowhere(scan, tmp_path):
    ct = open_volume(scan)
    sr = Volume(np.zeros((1, 60, 72), np.int16), **magnified_geometry(ct.slices(1, 2), 3), attributes={"slices": [1]})
    with pytest.raises(UserError, match="do not overlay; check the sheet's paths"):
        alignment.check_input(sr, tmp_path / "sr.ome.zarr", ct, scan, [1])
