"""Super-resolution of slices: no seams, right place, HU kept."""

import numpy as np
import pytest
import SimpleITK as sitk
import torch

from microsr import UserError
from microsr.checkpoint import save_generator
from microsr.layers import InstanceNorm
from microsr.networks import build
from microsr.storage import Volume, open_volume, write_volume
from microsr.superresolve import Bicubic, Generator, superresolve, upsample_slice


@pytest.fixture
def slice_hu():
    return np.random.default_rng(0).normal(-800, 200, (50, 61)).astype(np.float32)


def trained(tmp_path, family, spacing=None):
    """A generator file with random weights, and instance norm statistics as if some patches had been seen."""
    torch.manual_seed(0)
    g1 = build(family, 16, 128).g1
    for _ in range(3):
        if not g1.noise_scales:
            g1(torch.randn(2, 1, 16, 16))
            for norm in (module for module in g1.modules() if isinstance(module, InstanceNorm)):
                norm.commit()
    path = tmp_path / "generator.pt"
    facts = {"network": family, "window_hu": [-1000.0, 400.0], "seed": 3, "steps": 1, "provenance": {}}
    save_generator(path, g1, facts | {"clinical_spacing_mm": spacing, "micro_spacing_mm": None})
    return Generator(path, "cpu")


@pytest.mark.parametrize("method", ["bicubic", "compact", "efficient", "resnet"])
@pytest.mark.parametrize("tile", [16, 23])
def test_a_slice_in_tiles_equals_the_slice_in_one_piece(method, tile, slice_hu, tmp_path):
    upsampler = Bicubic() if method == "bicubic" else trained(tmp_path, method)
    whole = upsample_slice(slice_hu, 4, upsampler, 1000)
    tiled = upsample_slice(slice_hu, 4, upsampler, tile)
    assert whole.shape == (400, 488)
    assert np.abs(whole - tiled).max() < 0.05  # HU
    assert whole.std() > 10


def test_bicubic_keeps_a_linear_ramp_in_place(slice_hu):
    ramp = np.tile(np.arange(20.0), (20, 1)).astype(np.float32) * 80
    up = upsample_slice(ramp, 0, Bicubic(), 7)
    # Pixel k of the fine grid has its centre at (k + 0.5) / 8 - 0.5 of the coarse one.
    expected = ((np.arange(160) + 0.5) / 8 - 0.5) * 80
    assert np.allclose(up[80, 24:-24], expected[24:-24], atol=1e-2)


def test_a_generators_noise_belongs_to_the_slice(slice_hu, tmp_path):
    upsampler = trained(tmp_path, "compact")
    first, again, other = (upsample_slice(slice_hu, i, upsampler, 64) for i in (1, 1, 2))
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)


def test_hu_beyond_the_window_are_kept(tmp_path):
    upsampler = trained(tmp_path, "compact")
    soft, bone = np.full((24, 24), 400, np.float32), np.full((24, 24), 1500, np.float32)
    difference = upsample_slice(bone, 0, upsampler, 64) - upsample_slice(soft, 0, upsampler, 64)
    assert np.allclose(difference, 1100, atol=0.5)


def test_the_super_resolved_volume_overlays_its_input(tmp_path):
    # An oblique, left-handed direction: columns, rows and slices run along rotated axes, slices backwards.
    c, s = np.cos(0.3), np.sin(0.3)
    direction = (c, -s, 0.0, s, c, 0.0, 0.0, 0.0, -1.0)
    array = np.full((6, 20, 24), -900, np.int16)
    array[3, 8:12, 10:14] = 0
    volume = Volume(array, (0.7, 0.7, 1.5), (-100.0, 50.0, 30.0), direction, attributes={"case": "x"})
    write_volume(tmp_path / "clinical.ome.zarr", volume)
    superresolve(tmp_path / "clinical.ome.zarr", tmp_path / "sr.ome.zarr", Bicubic(), [2, 3, 4], 16)
    sr = open_volume(tmp_path / "sr.ome.zarr")
    assert sr.shape == (3, 160, 192)
    assert sr.spacing == pytest.approx((0.0875, 0.0875, 1.5))
    assert sr.attributes["slices"] == [2, 3, 4]

    def centroid(v, threshold):
        """Of the bright square, in patient coordinates, computed by SimpleITK from the geometry alone."""
        image = sitk.GetImageFromArray(np.asarray(v.array[:]))
        image.SetSpacing(v.spacing), image.SetOrigin(v.origin), image.SetDirection(v.direction)
        shape = sitk.LabelShapeStatisticsImageFilter()
        shape.Execute(image > threshold)
        return np.array(shape.GetCentroid(1))

    assert centroid(sr, -450) == pytest.approx(centroid(volume, -450), abs=0.02)


def test_a_missing_slice_is_named(tmp_path):
    write_volume(tmp_path / "c.ome.zarr", Volume(np.zeros((4, 16, 16), np.int16), (1, 1, 1)))
    with pytest.raises(UserError, match=r"superresolve.slices: 4 does not exist.*0 to 3"):
        superresolve(tmp_path / "c.ome.zarr", tmp_path / "o.ome.zarr", Bicubic(), [1, 4], 16)


@pytest.mark.parametrize(("pixel", "warns"), [(0.6, False), (0.9, True)])
def test_pixels_of_another_size_than_the_trained_ones_are_warned_of(pixel, warns, tmp_path, caplog):
    write_volume(tmp_path / "c.ome.zarr", Volume(np.zeros((1, 16, 16), np.int16), (pixel, pixel, 1)))
    superresolve(tmp_path / "c.ome.zarr", tmp_path / "o.ome.zarr", trained(tmp_path, "compact", 0.625), "all", 16)
    assert ("the model was trained on 0.625 mm" in caplog.text) == warns
