"""HDF5 and NeXus, by h5py itself."""

import sys

import h5py
import numpy as np
import pytest
from reading import read, refused

SPACING = "0.1x0.2x0.3"
SHAPE = (9, 20, 17)


@pytest.fixture
def values():
    return np.random.default_rng(0).integers(1, 60000, SHAPE).astype(np.uint16)


@pytest.mark.parametrize("name", ["a.h5", "a.hdf5", "a.hdf", "a.nxs"])
@pytest.mark.parametrize(
    "how", [{}, {"chunks": (4, 8, 8)}, {"chunks": (2, 8, 8), "compression": "gzip", "shuffle": True}]
)
def test_the_only_volume_is_read(tmp_path, values, name, how):
    with h5py.File(tmp_path / name, "w") as file:
        file.create_dataset("entry/data/data", data=values, **how)
        file.create_dataset("entry/angles", data=np.arange(9.0))
    volume = read(tmp_path / name, spacing=SPACING)
    assert np.array_equal(volume.array, values) and volume.spacing == (0.1, 0.2, 0.3)
    part = read(tmp_path / name, spacing=SPACING, slices="3:7", region="9:15,2:11")
    assert np.array_equal(part.array, values[3:7, 9:15, 2:11]) and part.origin == pytest.approx((0.2, 1.8, 0.9))


@pytest.mark.parametrize("dtype", ["u1", ">i2", "f4", ">f8"])
def test_values_keep_their_type(tmp_path, values, dtype):
    stored = (values % 100).astype(dtype)
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["v"] = stored
    array = np.asarray(read(tmp_path / "a.h5", spacing=SPACING).array)
    assert np.array_equal(array, stored) and array.dtype.isnative and array.dtype != np.float64


def nexus(path, values, steps=(13.0, 12.0, 11.0), unit="um", **how):
    """Two volumes, of which one is NeXus' default, with its axes."""
    with h5py.File(path, "w") as file:
        file.attrs["default"] = "entry"
        entry = file.create_group("entry")
        entry.attrs.update(NX_class="NXentry", default="reconstruction")
        entry["other/projections"] = values[::-1]
        data = entry.create_group("reconstruction")
        data.attrs.update(NX_class="NXdata", signal="volume", axes=["z", "y", "x"])
        data.create_dataset("volume", data=values, **how)
        for name, step, count in zip("zyx", steps, values.shape, strict=True):
            data[name] = step * np.arange(count)
            if unit:
                data[name].attrs["units"] = unit
    return path


def test_the_default_of_nexus_is_read_with_its_axes(tmp_path, values):
    volume = read(nexus(tmp_path / "a.nxs", values))
    assert np.array_equal(volume.array, values) and volume.spacing == pytest.approx((0.011, 0.012, 0.013))
    other = read(tmp_path / "a.nxs", series="/entry/other/projections", spacing=SPACING)
    assert np.array_equal(other.array, values[::-1])


def test_axes_without_a_unit_or_uneven_ones_give_no_size(tmp_path, values):
    path = nexus(tmp_path / "a.nxs", values, unit=None)
    refused("has no voxel spacing", path)
    nexus(path, values)
    with h5py.File(path, "a") as file:
        file["entry/reconstruction/y"][3] = 99
    refused("has no voxel spacing", path)
    assert read(path, spacing=SPACING).spacing == (0.1, 0.2, 0.3)


def test_the_size_of_ilastik_is_taken(tmp_path, values):
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["v"] = values
        file["v"].attrs["element_size_um"] = [13.0, 12.0, 11.0]
    assert read(tmp_path / "a.h5").spacing == pytest.approx((0.011, 0.012, 0.013))


def test_of_several_volumes_one_must_be_chosen(tmp_path, values):
    path = tmp_path / "a.h5"
    with h5py.File(path, "w") as file:
        file["a/one"], file["a/two"] = values, values[::-1]
    refused(r"holds 2 data sets of three dimensions; choose one by its path .*it has /a/one \(9x20x17\); /a/two", path)
    assert np.array_equal(read(path, series="/a/two", spacing=SPACING).array, values[::-1]), "as the message advises"
    refused("has no data set /a/three of three dimensions; it has /a/one", path, series="/a/three")
    with h5py.File(path, "w") as file:
        file["flat"] = values[0]
    refused("holds 0 data sets of three dimensions; .*it has none", path)


def test_what_holds_no_grey_values_is_refused(tmp_path, values):
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["v"] = values > 9
    refused("its data set holds no grey values", tmp_path / "a.h5", series="/v", spacing=SPACING)


@pytest.mark.parametrize("size", [0, 100, 3000])
def test_a_truncated_file_is_refused(tmp_path, values, size):
    path = nexus(tmp_path / "a.nxs", values)
    path.write_bytes(path.read_bytes()[:size])
    refused("is damaged or truncated", path)


def test_a_damaged_chunk_is_refused(tmp_path, values):
    path = nexus(tmp_path / "a.nxs", values, chunks=(4, 8, 8), compression="gzip")
    with h5py.File(path) as file:
        place = file["entry/reconstruction/volume"].id.get_chunk_info(3).byte_offset
    content = bytearray(path.read_bytes())
    content[place : place + 40] = bytes(40)
    path.write_bytes(content)
    refused("is damaged or truncated .*hdf5plugin", path)


def test_a_virtual_volume_needs_its_files(tmp_path, values):
    with h5py.File(tmp_path / "source.h5", "w") as file:
        file["v"] = values
    layout = h5py.VirtualLayout(SHAPE, "u2")
    layout[:] = h5py.VirtualSource("source.h5", "v", SHAPE)
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file.create_virtual_dataset("v", layout)
    assert np.array_equal(read(tmp_path / "a.h5", spacing=SPACING).array, values)
    (tmp_path / "source.h5").unlink()
    refused("its data set lies in other files, of which one is not there", tmp_path / "a.h5", spacing=SPACING)


def test_without_the_library_the_message_says_what_to_install(tmp_path, values, monkeypatch):
    path = nexus(tmp_path / "a.nxs", values)
    with monkeypatch.context() as without:
        without.setitem(sys.modules, "h5py", None)
        refused(
            r"needs the library h5py, which is not installed; install it: python -m pip install 'microsr\[uct\]'", path
        )
    assert read(path).shape == SHAPE
