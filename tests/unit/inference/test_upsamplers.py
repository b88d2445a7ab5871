"""Super-resolution of a slice: no seams, in the right place, HU kept, noise that belongs to the slice."""

import numpy as np
import pytest
import torch

from microsr.core.errors import UserError
from microsr.inference import upsamplers
from microsr.inference.upsamplers import (
    Bicubic,
    Generator,
    Known,
    Magnifier,
    interpolation,
    standard_normal,
    tiles,
    upsample_slice,
)
from microsr.networks.model_file import load_generator
from microsr.volume.storage import Volume, magnified_geometry, write_volume


@pytest.fixture
def slice_hu():
    return np.random.default_rng(0).normal(-800, 200, (50, 61)).astype(np.float32)


@pytest.fixture
def upsampler(trained_model):
    """Gives an upsampler by its name."""

    def make(method, precision="float32"):
        return Bicubic() if method == "bicubic" else Generator(trained_model(method), "cpu", precision)

    return make


def test_nearest_makes_a_block_of_eight_by_eight_of_each_clinical_pixel(slice_hu):
    slice_hu[0, 0], slice_hu[-1, -1] = 3000.5, -3024.25  # no value is changed, at no border
    blocks = np.kron(slice_hu, np.ones((8, 8), np.float32))
    for tile in (16, 1000):
        assert np.array_equal(upsample_slice(slice_hu, 0, interpolation("nearest"), tile), blocks)


@pytest.mark.parametrize("method", ["bicubic", "compact", "efficient", "resnet"])
@pytest.mark.parametrize("tile", [16, 23])
def test_a_slice_in_tiles_equals_the_slice_in_one_piece(method, tile, slice_hu, upsampler):
    way = upsampler(method)
    whole = upsample_slice(slice_hu, 4, way, 1000)
    tiled = upsample_slice(slice_hu, 4, way, tile)
    assert whole.shape == (400, 488)
    assert np.abs(whole - tiled).max() < 2e-3  # HU
    assert whole.std() > 10


@pytest.mark.parametrize("method", ["compact", "resnet"])
def test_bfloat16_in_tiles_equals_the_slice_in_one_piece_to_its_own_precision(method, slice_hu, upsampler):
    way = upsampler(method, "bfloat16")
    whole, tiled = (upsample_slice(slice_hu, 4, way, tile) for tile in (1000, 19))
    assert np.abs(whole - tiled).max() < 1400 / 2**8  # one step of bfloat16 between 0.5 and 1, of a window of 1400 HU
    exact = upsample_slice(slice_hu, 4, upsampler(method), 1000)
    assert 0 < np.abs(whole - exact).mean() < 5


@pytest.mark.parametrize("method", ["bicubic", "compact", "efficient", "resnet"])
def test_without_a_halo_the_seams_would_show(method, slice_hu, upsampler):
    way = upsampler(method)
    whole = upsample_slice(slice_hu, 4, way, 1000)
    way.halo = 0
    assert np.abs(whole - upsample_slice(slice_hu, 4, way, 16)).max() > 1


@pytest.mark.parametrize("method", ["bicubic", "compact", "resnet"])
@pytest.mark.parametrize(
    ("rows", "columns"), [((1, 50), (2, 60)), ((30, 45), (20, 60)), ((12, 48), (0, 3)), ((0, 50), (0, 61))]
)
def test_a_region_is_cut_out_of_what_the_whole_slice_gives(method, rows, columns, slice_hu, upsampler):
    way = upsampler(method)
    whole = upsample_slice(slice_hu, 4, way, 1000)
    with Magnifier(way, 17, threads=2) as magnify:
        part = magnify(slice_hu, way.draw(4, slice_hu.shape), (slice(*rows), slice(*columns)))
    expected = whole[8 * rows[0] : 8 * rows[1], 8 * columns[0] : 8 * columns[1]]
    assert np.abs(part.numpy() - expected).max() < 2e-3


@pytest.mark.parametrize("method", ["compact", "resnet"])
def test_a_slice_too_large_for_one_piece_is_the_same(method, slice_hu, upsampler, monkeypatch):
    way = upsampler(method)
    whole = upsample_slice(slice_hu, 4, way, 32)
    monkeypatch.setattr(upsamplers, "PIECE", 20)
    assert np.abs(whole - upsample_slice(slice_hu, 4, way, 32)).max() < 2e-3


@pytest.mark.parametrize("method", ["compact", "efficient", "resnet"])
def test_upsampling_is_what_the_network_does_to_a_slice(method, slice_hu, upsampler, trained_model):
    way, hu = upsampler(method), np.clip(slice_hu, -1000, 400)  # what exceeds the window is added elsewhere
    g1, _ = load_generator(trained_model(method))  # as it is trained: nothing folded, no tiles
    with torch.no_grad():
        noise = [standard_normal(plane) for plane in way.draw(4, hu.shape)]
        a_sr = g1(torch.from_numpy((hu + 1000) / 700 - 1)[None, None], noise)
    assert np.abs(upsample_slice(hu, 4, way, 16) - ((a_sr[0, 0].numpy() + 1) * 700 - 1000)).max() < 2e-3


def test_bicubic_keeps_a_linear_ramp_in_place():
    ramp = np.tile(np.arange(20.0), (20, 1)).astype(np.float32) * 80
    up = upsample_slice(ramp, 0, Bicubic(), 7)
    # Pixel k of the fine grid has its centre at (k + 0.5) / 8 - 0.5 of the coarse one.
    expected = ((np.arange(160) + 0.5) / 8 - 0.5) * 80
    assert np.allclose(up[80, 24:-24], expected[24:-24], atol=1e-2)


def test_a_generators_noise_belongs_to_the_slice(slice_hu, upsampler):
    way = upsampler("compact")
    first, again, other = (upsample_slice(slice_hu, i, way, 64) for i in (1, 1, 2))
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)


def test_draws_of_a_slice_are_numbered_and_independent(slice_hu, upsampler):
    way = upsampler("compact")
    planes = [way.draw(3, (60, 50), number)[-1] for number in (0, 1, 2, 1)]
    assert torch.equal(planes[1], planes[3])
    assert torch.equal(planes[0], way.draw(3, (60, 50))[-1])
    for first, second in ((0, 1), (0, 2), (1, 2)):
        pair = [standard_normal(planes[i]).numpy().ravel() for i in (first, second)]
        assert abs(np.corrcoef(*pair)[0, 1]) < 0.01
    images = [upsample_slice(slice_hu, 4, way, 64, draw) for draw in (0, 1, 1)]
    assert np.array_equal(images[1], images[2])
    assert not np.array_equal(images[0], images[1])


def test_noise_is_standard_normal(upsampler):
    planes = upsampler("compact").draw(3, (60, 50))
    assert [tuple(plane.shape) for plane in planes] == [(1, 1, 60 * s, 50 * s) for s in (2, 4, 8)]
    noise = standard_normal(planes[-1]).numpy()
    assert abs(noise.mean()) < 0.01
    assert abs(noise.std() - 1) < 0.01
    assert abs((noise**4).mean() - 3) < 0.1
    neighbours = np.corrcoef(noise[0, 0, :, 1:].ravel(), noise[0, 0, :, :-1].ravel())[0, 1]
    assert abs(neighbours) < 0.01


def test_hu_beyond_the_window_are_kept(upsampler):
    way = upsampler("compact")
    soft, bone = np.full((24, 24), 400, np.float32), np.full((24, 24), 1500, np.float32)
    difference = upsample_slice(bone, 0, way, 64) - upsample_slice(soft, 0, way, 64)
    assert np.allclose(difference, 1100, atol=0.5)


@pytest.fixture
def known(tmp_path):
    """A truth, its scan, and the way to take the former."""
    clinical = Volume(np.full((3, 20, 30), -800, np.int16), (0.7, 0.7, 1.0))
    truth = np.random.default_rng(0).integers(-1000, 400, (3, 160, 240)).astype(np.int16)
    write_volume(tmp_path / "truth", Volume(truth, **magnified_geometry(clinical, 8)))
    return truth, clinical, Known(tmp_path / "truth", clinical, tmp_path / "clinical")


def test_what_is_known_is_taken_as_it_is_in_any_tiles(known):
    truth, clinical, way = known
    with Magnifier(way, 7, threads=2) as magnify:
        random = way.draw(1, clinical.shape[1:])
        assert np.array_equal(magnify(clinical.array[1], random, None, torch.int16).numpy(), truth[1])
        part = magnify(clinical.array[1], random, (slice(3, 18), slice(5, 30))).numpy()
    assert np.array_equal(part, truth[1, 24:144, 40:240])


def test_what_is_known_of_another_scan_or_in_another_unit_is_refused(known, tmp_path):
    truth, clinical, _ = known
    with pytest.raises(UserError, match=r"truth and .*clinical do not overlay"):
        Known(tmp_path / "truth", Volume(clinical.array, (0.8, 0.7, 1.0)), tmp_path / "clinical")
    write_volume(tmp_path / "grey", Volume(truth, **magnified_geometry(clinical, 8) | {"unit": "grey"}))
    with pytest.raises(UserError, match="grey has unit 'grey'"):
        Known(tmp_path / "grey", clinical, tmp_path / "clinical")


def test_int16_is_rounded_and_kept_within_its_range():
    hu = np.full((20, 20), 40000, np.float32)
    hu[:10] = -700.4
    with Magnifier(Bicubic()) as magnify:
        done = magnify(hu, [], None, torch.int16)
    assert done.dtype == torch.int16
    assert (done[0, 0], done[-1, -1]) == (-700, 32767)


def test_tiles_cover_a_region_once_and_have_no_halo_at_the_border():
    size, region = (40, 30), (slice(2, 39), slice(0, 30))
    covered = np.zeros(size, int)
    for tile in tiles(region, size, 9, 3):
        covered[tile.keep] += 1
        for axis, (keep, read) in enumerate(zip(tile.keep, tile.read, strict=True)):
            first, last = tile.sides[2 * axis : 2 * axis + 2]
            assert read.start == (keep.start - 3 if first else 0)
            assert read.stop == (keep.stop + 3 if last else size[axis])
            assert first or keep.start <= 3
    assert (covered[region] == 1).all()
    assert covered.sum() == 37 * 30


@pytest.mark.parametrize("method", ["compact", "efficient", "resnet"])
def test_neighbours_change_no_seam_and_no_place(method, slice_hu, trained_model):
    way = Generator(trained_model(method, slices=3), "cpu", "float32")
    stack = np.stack([slice_hu + 50, slice_hu, slice_hu[::-1]])
    whole, tiled = (upsample_slice(stack, 4, way, tile) for tile in (1000, 17))
    assert whole.shape == (400, 488) and np.abs(whole - tiled).max() < 2e-3
    with Magnifier(way, 17) as magnify:
        part = magnify(stack, way.draw(4, slice_hu.shape), (slice(12, 40), slice(0, 30))).numpy()
    assert np.abs(part - whole[96:320, :240]).max() < 2e-3
    for neighbour in (0, 2):
        other = stack.copy()
        other[neighbour, 20:30, 20:30] += 300
        change = np.abs(upsample_slice(other, 4, way, 1000) - whole)
        assert change.max() > 0.1 and change[:8].max() < 1e-3


def test_what_exceeds_the_window_is_that_of_the_slice_itself(trained_model):
    way = Generator(trained_model("compact", slices=3), "cpu", "float32")
    stack = np.full((3, 20, 20), -800.0, np.float32)
    plain = upsample_slice(stack, 0, way)
    stack[0, 8:12, 8:12] = 3000
    assert upsample_slice(stack, 0, way).max() < 600, "bone beside the slice"
    stack[0], stack[1, 8:12, 8:12] = -800, 3000
    assert upsample_slice(stack, 0, way).max() > 2000 > plain.max()
