"""The working format: what is written is read, slice by slice, in its place; other programs find the geometry too."""

from dataclasses import replace

import numpy as np
import ome_zarr_models
import pytest
import tensorstore
import zarr

from microsr.core.errors import UserError
from microsr.volume.storage import (
    Volume,
    create_volume,
    level_shapes,
    magnified_geometry,
    open_levels,
    open_mask,
    open_volume,
    write_slice,
    write_volume,
)

TURNED = (0.0, -1.0, 0.0, 1.0, 0.0, 0.0, 0.0, 0.0, 1.0)
"""x runs to posterior, y to the right: columns of the matrix are the axes."""


@pytest.fixture
def volume():
    array = np.arange(2 * 3 * 4).reshape(2, 3, 4) - 1000.4
    return Volume(array, (0.5, 0.6, 2.0), (1.0, 2.0, 3.0), TURNED, "HU", {"case": "a", "slices": [3, 5]})


def test_a_volume_comes_back_as_it_was_rounded_to_whole_hu(volume, tmp_path):
    write_volume(tmp_path / "v.ome.zarr", volume)
    back = open_volume(tmp_path / "v.ome.zarr")
    assert back.array.dtype == np.int16 and np.array_equal(back.array[:], np.rint(volume.array))
    for fact in ("spacing", "origin", "direction", "unit", "attributes"):
        assert getattr(back, fact) == getattr(volume, fact)


def test_values_beyond_int16_are_cut_and_do_not_wrap(tmp_path):
    write_volume(tmp_path / "v.ome.zarr", Volume(np.array([[[-1e6, 1e6]]]), (1, 1, 1)))
    assert open_volume(tmp_path / "v.ome.zarr").array[:].tolist() == [[[-32768, 32767]]]


def test_a_mask_lies_inside_its_volume(volume, tmp_path):
    mask = volume.array > -990
    write_volume(tmp_path / "v.ome.zarr", volume, mask)
    assert np.array_equal(open_mask(tmp_path / "v.ome.zarr")[:], mask)


def test_slices_are_read_one_at_a_time(volume, tmp_path):
    write_volume(tmp_path / "v.ome.zarr", volume)
    array = open_volume(tmp_path / "v.ome.zarr").array
    assert array.chunks[0] == 1 and array[1].shape == (3, 4)
    voxels, mask = create_volume(tmp_path / "large.ome.zarr", (2, 1024, 2048), volume, mask=True)
    assert voxels.chunks == mask.chunks == (1, 1024, 1024)


def test_writing_again_replaces_what_was_there(volume, tmp_path):
    write_volume(tmp_path / "v.ome.zarr", volume, volume.array > 0)
    write_volume(tmp_path / "v.ome.zarr", Volume(np.zeros((1, 2, 2)), (1, 1, 1)))
    assert open_volume(tmp_path / "v.ome.zarr").shape == (1, 2, 2)
    with pytest.raises(UserError, match="has no mask"):
        open_mask(tmp_path / "v.ome.zarr")


def test_other_programs_find_scale_and_position(volume, tmp_path):
    write_volume(tmp_path / "v.ome.zarr", volume)
    scales = zarr.open_group(str(tmp_path / "v.ome.zarr"), mode="r").attrs["ome"]["multiscales"][0]
    assert [axis["name"] for axis in scales["axes"]] == ["z", "x", "y"], "the patient's axes that they run along"
    scale, translation = scales["datasets"][0]["coordinateTransformations"]
    assert scale["scale"] == [2.0, 0.6, 0.5]
    assert translation["translation"] == pytest.approx([3.0, 1 - 2 * 0.6, 2.0]), "the rows run to the right, against x"


def test_a_voxel_index_becomes_a_point_in_the_patient(volume):
    """Slice 1, row 2, column 3: 3 * 0.5 mm along x = (0, 1, 0), 2 * 0.6 mm along y = (-1, 0, 0), 2 mm along z."""
    assert volume.point((1, 2, 3)) == pytest.approx((1 - 1.2, 2 + 1.5, 3 + 2))


def test_some_slices_of_a_volume_stay_where_they_were(volume):
    part = volume.slices(1, 2)
    assert part.origin == pytest.approx((1, 2, 5)) and np.array_equal(part.array[0], volume.array[1])


def test_a_magnified_volume_covers_the_same_area(volume):
    """Pixel / 8; the outer edge of the first pixel stays, so its centre moves by (1 - 1/8) / 2 of a pixel towards
    it.
    """
    geometry = magnified_geometry(volume, 8)
    assert geometry["spacing"] == pytest.approx((0.0625, 0.075, 2.0)) and geometry["direction"] == TURNED
    fine = Volume(np.zeros((2, 24, 32)), **geometry)
    assert fine.point((0, -0.5, -0.5)) == pytest.approx(volume.point((0, -0.5, -0.5)))
    assert fine.point((1, 23.5, 31.5)) == pytest.approx(volume.point((1, 2.5, 3.5)))


def test_a_volume_can_be_filled_slice_by_slice(volume, tmp_path):
    voxels, mask = create_volume(tmp_path / "v.ome.zarr", (2, 3, 4), volume, mask=True)
    voxels[1] = np.full((3, 4), 7)
    mask[1] = np.ones((3, 4))
    assert open_volume(tmp_path / "v.ome.zarr").array[1].sum() == 84
    assert open_mask(tmp_path / "v.ome.zarr")[1].sum() == 12


def test_a_chunk_that_is_missing_is_no_zeros(volume, tmp_path):
    """Zarr reads the fill value there; a slice of zeros is one all the same."""
    path = tmp_path / "v.ome.zarr"
    hu = np.stack([np.zeros((3, 1030)), np.ones((3, 1030))])
    write_volume(path, replace(volume, array=hu), mask=np.zeros(hu.shape, bool))
    (path / "0/c/1/0/1").unlink()
    (path / "labels/mask/0/c/0/0/0").unlink()
    array, mask = open_volume(path).array, open_mask(path)
    assert not array[0].any() and not mask[1].any()
    for stored, z in ((array, 1), (mask, 0)):
        for key in (z, z - 2, slice(None), (slice(z, z + 1), 0, slice(0, 3)), ...):
            with pytest.raises(UserError, match=rf"v\.ome\.zarr: its slice {z} is missing or not whole; copy it again"):
                stored[key]


def test_what_is_no_volume_is_refused_in_one_line(tmp_path):
    (tmp_path / "empty").mkdir()
    for path in (tmp_path / "none.ome.zarr", tmp_path / "empty"):
        with pytest.raises(UserError, match="not a volume in the working format") as error:
            open_volume(path)
        assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("fact", "value"),
    [
        ("spacing", [0.5, np.inf, 2.0]),
        ("spacing", [0.5, np.nan, 2.0]),
        ("spacing", [0.5, 0.0, 2.0]),
        ("spacing", [0.5, -0.6, 2.0]),
        ("spacing", [0.5, 0.6]),
        ("origin", [1.0, np.inf, 3.0]),
        ("origin", [1.0, np.nan, 3.0]),
        ("origin", [1.0, 2.0]),
        ("direction", [1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, np.inf]),
        ("direction", [1.0, 0.0, 0.0, 0.0, 1.0, 0.0]),
        ("direction", [1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, -0.6, 0.8]),
        ("direction", [2.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0]),
        ("unit", 3),
        ("attributes", {"slices": [0, -1]}),
        ("attributes", {"corner": [1]}),
        ("attributes", {"corner": [1, 2, 3]}),
        ("attributes", {"case": 7}),
        ("attributes", {"independent_slices": "yes"}),
    ],
)
def test_a_volume_of_an_impossible_place_or_kind_is_refused(volume, tmp_path, fact, value):
    path = tmp_path / "v.ome.zarr"
    write_volume(path, volume)
    group = zarr.open_group(str(path), mode="r+")
    group.attrs["microsr"] = group.attrs["microsr"] | {fact: value}
    with pytest.raises(UserError, match=rf"v\.ome\.zarr is not a volume in the working format \(.*{fact}"):
        open_volume(path)


def files_of(folder):
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def pyramid(path, slices, like, levels=3, count=4):
    """A volume of noise, 21 x 38 pixels, of which only `slices` are written."""
    create_volume(path, (count, 21, 38), like, levels=levels, mask=True)
    for z in slices:
        image = np.random.default_rng(z).normal(-850, 100, (21, 38)).astype(np.int16)
        write_slice(open_levels(path), z, image)
        write_slice(open_levels(path, "labels/mask"), z, (image > -850).astype(np.uint8))
    return path


def test_levels_are_halved_in_plane_until_the_longer_side_fits():
    assert level_shapes((554, 4096, 4096), None) == [(554, n, n) for n in (4096, 2048, 1024, 512)]
    assert level_shapes((3, 100, 1025), None) == [(3, 100, 1025), (3, 50, 513), (3, 25, 257)]
    assert level_shapes((3, 400, 512), None) == [(3, 400, 512)]
    assert level_shapes((3, 5, 1), 3) == [(3, 5, 1), (3, 3, 1), (3, 2, 1)]


def test_a_coarser_pixel_is_the_mean_of_the_full_pixels_under_it(volume, tmp_path):
    full, half, quarter = (
        level.array[:] for level in open_levels(pyramid(tmp_path / "v.ome.zarr", range(4), volume), mode="r")
    )
    assert half.shape == (4, 11, 19) and quarter.shape == (4, 6, 10)
    exact = full[:, :20].reshape(4, 10, 2, 19, 2).mean((2, 4))
    assert np.abs(half[:, :10] - exact).max() <= 0.5
    assert np.abs(half[:, 10] - full[:, 20].reshape(4, 19, 2).mean(2)).max() <= 0.5  # the odd row
    exact = full[:, :20, :36].reshape(4, 5, 4, 9, 4).mean((2, 4))
    assert np.abs(quarter[:, :5, :9] - exact).max() <= 0.5  # not the rounded mean of rounded means


def test_all_levels_cover_the_same_area(volume, tmp_path):
    """The outer edge of the first pixel is everywhere the same: the centre, less half a pixel."""
    pyramid(tmp_path / "v.ome.zarr", [], volume)
    for group in ("", "labels/mask"):
        datasets = zarr.open_group(str(tmp_path / "v.ome.zarr" / group), mode="r").attrs["ome"]["multiscales"][0][
            "datasets"
        ]
        scales, translations = (
            np.array([d["coordinateTransformations"][i][key] for d in datasets])
            for i, key in enumerate(("scale", "translation"))
        )
        assert np.allclose(scales, [[2, 0.6, 0.5], [2, 1.2, 1], [2, 2.4, 2]])
        assert np.allclose(translations - scales / 2 * [0, 1, 1], [3, 1 - 20 * 0.6 - 0.3, 2 - 0.25])


def test_the_formats_own_validator_accepts_a_volume_with_levels_and_mask(volume, tmp_path):
    path = pyramid(tmp_path / "v.ome.zarr", [0], volume)
    image = ome_zarr_models.open_ome_zarr(zarr.open_group(str(path), mode="r"), version="0.5")
    assert type(image).__name__ == "Image" and len(image.ome_attributes.multiscales[0].datasets) == 3
    assert image.labels is not None


def test_an_independent_reader_finds_the_same_values_at_each_level(volume, tmp_path):
    path = pyramid(tmp_path / "v.ome.zarr", range(4), volume)
    for level, ours in enumerate(open_levels(path, mode="r")):
        spec = {"driver": "zarr3", "kvstore": {"driver": "file", "path": str(path / str(level))}}
        theirs = tensorstore.open(spec, read=True).result()
        assert theirs.domain.labels == ("z", "x", "y")
        assert np.array_equal(theirs.read().result(), ours.array[:])


def test_the_same_arguments_give_the_same_bytes(volume, tmp_path):
    one, other = (files_of(pyramid(tmp_path / name, range(4), volume)) for name in ("a.ome.zarr", "b.ome.zarr"))
    assert one == other and len(one) > 20


def test_parts_written_apart_become_one_volume_by_moving_their_chunks(volume, tmp_path):
    whole = files_of(pyramid(tmp_path / "whole.ome.zarr", range(4), volume))
    first = pyramid(tmp_path / "first.ome.zarr", [0, 2], volume)
    second = pyramid(tmp_path / "second.ome.zarr", [1, 3], volume)
    for array in ("0", "1", "2", *(f"labels/mask/{level}" for level in range(3))):
        for chunks in (second / array / "c").iterdir():
            chunks.rename(first / array / "c" / chunks.name)
    assert files_of(first) == whole


def test_a_partly_written_volume_is_filled_further(volume, tmp_path):
    path = pyramid(tmp_path / "v.ome.zarr", [0, 1], volume)
    before = open_volume(path).array[:2]
    write_slice(open_levels(path), 2, np.full((21, 38), 7, np.int16))
    after = open_volume(path).array[:3]
    assert np.array_equal(after[:2], before) and (after[2] == 7).all()
    assert (open_levels(path, mode="r")[2][2] == 7).all()


def test_what_has_no_levels_is_refused(tmp_path):
    with pytest.raises(UserError, match="not a volume in the working format"):
        open_levels(tmp_path / "none.ome.zarr")
    assert not (tmp_path / "none.ome.zarr").exists()


@pytest.mark.parametrize("order", [(a, b, c) for a in (1, -1) for b in (1, -1) for c in (1, -1)])
@pytest.mark.parametrize(
    "key",
    [
        1, -1, slice(None), slice(1, 3), slice(2, 2), (2, slice(1, 4), slice(2, None)), (slice(0, 2), 3),
        (slice(None), slice(None, None, 2), -2), ([0, 2], slice(1, 3)), (..., 0), (slice(3), slice(5), slice(1, 6, 3)),
    ],
)  # fmt: skip
def test_what_is_stored_the_other_way_round_is_indexed_as_ever(tmp_path, order, key):
    array = np.arange(4 * 5 * 6).reshape(4, 5, 6)
    direction = tuple(map(float, np.diag(order).ravel()))
    write_volume(tmp_path / "v.ome.zarr", Volume(array, (0.5, 0.6, 2.0), (1.0, 2.0, 3.0), direction), array % 7 == 0)
    assert np.array_equal(open_volume(tmp_path / "v.ome.zarr").array[key], array[key])
    assert np.array_equal(open_mask(tmp_path / "v.ome.zarr")[key], array[key] % 7 == 0)


def test_a_missing_slice_is_that_of_the_volume_not_of_the_store(tmp_path):
    volume = Volume(np.ones((4, 3, 3)), (1, 1, 1), direction=(1.0, 0, 0, 0, 1, 0, 0, 0, -1))
    write_volume(tmp_path / "v.ome.zarr", volume)
    (tmp_path / "v.ome.zarr/0/c/0/0/0").unlink()
    array = open_volume(tmp_path / "v.ome.zarr").array
    assert array[0].all()
    with pytest.raises(UserError, match="slice 3 is missing"):
        array[3]


def test_two_places_in_one_store_are_refused(tmp_path):
    volume = Volume(np.ones((4, 3, 3)), (1, 1, 1), direction=(1.0, 0, 0, 0, 1, 0, 0, 0, -1))
    write_volume(tmp_path / "v.ome.zarr", volume)
    group = zarr.open_group(str(tmp_path / "v.ome.zarr"))
    group.attrs["microsr"] = group.attrs["microsr"] | {"first": [0.0, 0.0, 1.0]}
    with pytest.raises(UserError, match="gives two places"):
        open_volume(tmp_path / "v.ome.zarr")
