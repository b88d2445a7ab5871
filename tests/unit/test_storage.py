"""The working format: what is written is read, slice by slice, in its place; other programs find the geometry too."""

import numpy as np
import pytest
import zarr

from microsr import UserError
from microsr.storage import Volume, create_volume, magnified_geometry, open_mask, open_volume, write_volume

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


def test_writing_again_replaces_what_was_there(volume, tmp_path):
    write_volume(tmp_path / "v.ome.zarr", volume, volume.array > 0)
    write_volume(tmp_path / "v.ome.zarr", Volume(np.zeros((1, 2, 2)), (1, 1, 1)))
    assert open_volume(tmp_path / "v.ome.zarr").shape == (1, 2, 2)
    with pytest.raises(UserError, match="has no mask"):
        open_mask(tmp_path / "v.ome.zarr")


def test_other_programs_find_scale_and_position(volume, tmp_path):
    write_volume(tmp_path / "v.ome.zarr", volume)
    scales = zarr.open_group(str(tmp_path / "v.ome.zarr"), mode="r").attrs["ome"]["multiscales"][0]
    assert [axis["name"] for axis in scales["axes"]] == ["z", "y", "x"]
    scale, translation = scales["datasets"][0]["coordinateTransformations"]
    assert scale["scale"] == [2.0, 0.6, 0.5] and translation["translation"] == [3.0, 2.0, 1.0]


def test_a_voxel_index_becomes_a_point_in_the_patient(volume):
    """Slice 1, row 2, column 3: 3 * 0.5 mm along x = (0, 1, 0), 2 * 0.6 mm along y = (-1, 0, 0), 2 mm along z."""
    assert volume.point((1, 2, 3)) == pytest.approx((1 - 1.2, 2 + 1.5, 3 + 2))


def test_some_slices_of_a_volume_stay_where_they_were(volume):
    part = volume.slices(1, 2)
    assert part.origin == pytest.approx((1, 2, 5)) and np.array_equal(part.array[0], volume.array[1])


def test_a_magnified_volume_covers_the_same_area(volume):
    """Pixel / 8; the outer edge of the first pixel stays, so its centre moves by (1 - 1/8) / 2 of a pixel towards it."""
    geometry = magnified_geometry(volume)
    assert geometry["spacing"] == pytest.approx((0.0625, 0.075, 2.0)) and geometry["direction"] == TURNED
    fine = Volume(np.zeros((2, 24, 32)), **geometry)
    assert fine.point((0, -0.5, -0.5)) == pytest.approx(volume.point((0, -0.5, -0.5)))
    assert fine.point((1, 23.5, 31.5)) == pytest.approx(volume.point((1, 2.5, 3.5)))


def test_a_volume_can_be_filled_slice_by_slice(volume, tmp_path):
    voxels, mask = create_volume(tmp_path / "v.ome.zarr", (2, 3, 4), volume, mask=True)
    voxels[1] = np.full((3, 4), 7)
    mask[1] = np.ones((3, 4))
    assert open_volume(tmp_path / "v.ome.zarr").array[:].sum() == 84
    assert open_mask(tmp_path / "v.ome.zarr")[:].sum() == 12


def test_what_is_no_volume_is_refused_in_one_line(tmp_path):
    (tmp_path / "empty").mkdir()
    for path in (tmp_path / "none.ome.zarr", tmp_path / "empty"):
        with pytest.raises(UserError, match="not a volume in the working format") as error:
            open_volume(path)
        assert "\n" not in str(error.value)
