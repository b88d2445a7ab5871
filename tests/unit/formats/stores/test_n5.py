"""N5: what tensorstore wrote is read, each level in its place, or refused with the true reason."""

import json
import logging

import numpy as np
import pytest
import tensorstore
from reading import read, refused
from serving import served

from microsr.config.sheet import Scan
from microsr.formats.readers import read_scan

SIZE = (17, 20, 9)
"""x, y, z"""
PACKED = [
    {"type": "raw"}, {"type": "gzip", "level": 6}, {"type": "gzip", "useZlib": True}, {"type": "bzip2"}, {"type": "xz"},
    {"type": "zstd"}, {"type": "blosc", "cname": "lz4", "clevel": 5, "shuffle": 1},
]  # fmt: skip


@pytest.fixture
def values():
    """[slices, rows, columns]"""
    return np.random.default_rng(0).integers(1, 60000, SIZE[::-1]).astype(np.uint16)


def write(path, values, compression=None, block=(8, 8, 4), **said):
    metadata = {
        "dimensions": values.shape[::-1], "blockSize": block, "dataType": values.dtype.name,
        "compression": compression or {"type": "gzip"},
    }  # fmt: skip
    spec = {"driver": "n5", "kvstore": {"driver": "file", "path": str(path)}, "metadata": metadata}
    tensorstore.open(spec, create=True).result().write(values.T).result()
    change(path, **said)
    return path


def change(path, **said):
    file = path / "attributes.json"
    file.write_text(json.dumps((json.loads(file.read_text()) if file.exists() else {}) | said))


@pytest.mark.parametrize("compression", PACKED)
def test_blocks_are_read_however_they_are_packed(tmp_path, values, compression):
    path = write(tmp_path / "a.n5", values, compression)
    assert np.array_equal(read(path, spacing="1x1x1").array, values)


@pytest.mark.parametrize("dtype", ["uint8", "int8", "int16", "int32", "float32", "float64"])
def test_values_keep_their_type(tmp_path, values, dtype):
    stored = (values % 100).astype(dtype)
    found = read(write(tmp_path / "a.n5", stored), spacing="1x1x1").array
    assert np.array_equal(found, stored)


def pyramid(path, values, **of_level):
    write(path / "s0", values, **of_level.get("s0", {}))
    write(path / "s1", np.ascontiguousarray(values[::2, ::2, ::2]), **of_level.get("s1", {}))
    change(path, n5="2.0.0")
    return path


UM = {"unit": "um", "dimensions": [11, 12, 13]}


@pytest.mark.parametrize(
    "of_level",
    [
        {"s0": {"pixelResolution": UM}, "s1": {"downsamplingFactors": [2, 2, 2]}},
        {"s0": {"pixelResolution": UM}, "s1": {"downsamplingFactors": [2, 2, 2], "pixelResolution": UM}},
        {"s0": {"resolution": [11, 12, 13], "units": ["um"] * 3},
         "s1": {"downsamplingFactors": [2, 2, 2], "resolution": [22, 24, 26], "units": ["um"] * 3}},
    ],
)  # fmt: skip
def test_a_level_is_read_in_its_place(tmp_path, values, of_level):
    path = pyramid(tmp_path / "a.n5", values, **of_level)
    fine, level = read(path), read(path, level=1)
    assert np.array_equal(fine.array, values) and np.array_equal(level.array, values[::2, ::2, ::2])
    assert fine.spacing == pytest.approx((0.011, 0.012, 0.013)) and fine.origin == (0, 0, 0)
    assert level.spacing == pytest.approx((0.022, 0.024, 0.026)) and level.origin == pytest.approx(
        (0.0055, 0.006, 0.0065)
    )
    assert level.attributes["source"]["levels"] == 2
    refused("has no level 2: it has 2, the finest is 0", path, level=2)


@pytest.mark.parametrize(
    "of_level",
    [
        {"s0": {"pixelResolution": UM}},
        {"s0": {"pixelResolution": [11, 12, 13]}, "s1": {"downsamplingFactors": [2, 2, 2]}},
        {"s0": {"pixelResolution": UM}, 
         "s1": {"downsamplingFactors": [4, 4, 4], "pixelResolution": {"unit": "um", "dimensions": [22, 24, 26]}}},
    ],
)  # fmt: skip
def test_a_level_whose_size_is_not_certain_is_refused_until_the_sheet_gives_it(tmp_path, values, of_level):
    path = pyramid(tmp_path / "a.n5", values, **of_level)
    refused("has no voxel spacing", path, level=1)
    assert read(path, level=1, spacing="0.1x0.2x0.3").spacing == (0.1, 0.2, 0.3)


def test_slices_and_a_region_of_a_url_read_only_their_blocks(tmp_path, values):
    write(tmp_path / "a.n5/s0", values, pixelResolution=UM)
    with served(tmp_path) as (address, asked):
        volume = read_scan(Scan(path=f"{address}/a.n5", slices="5:7", region="9:15,8:16"))
        assert np.array_equal(volume.array, values[5:7, 9:15, 8:16])
        assert [key for key in asked if key[-1].isdigit()] == ["/a.n5/s0/1/1/1"]
    assert volume.origin == pytest.approx((8 * 0.011, 9 * 0.012, 5 * 0.013))


def test_missing_blocks_are_told_and_a_slice_without_any_is_refused(tmp_path, values, caplog):
    path = write(tmp_path / "a.n5", values)
    (path / "0/2/1").unlink()  # x, y, z
    expected = values.copy()
    expected[4:8, 16:, :8] = 0
    with caplog.at_level(logging.WARNING):
        assert np.array_equal(read(path, spacing="1x1x1").array, expected)
    assert "lacks chunks, as 1 of 9 in slice 4" in caplog.text
    for block in path.glob("*/*/1"):
        block.unlink()
    refused("its slice 4 has no chunk at all", path, spacing="1x1x1")


@pytest.mark.parametrize("size", [3, 10, 40])
@pytest.mark.parametrize("compression", PACKED)
def test_a_truncated_block_is_refused(tmp_path, values, size, compression):
    path = write(tmp_path / "a.n5", values, compression)
    block = path / "1/1/1"
    block.write_bytes(block.read_bytes()[:size])
    refused("is damaged or truncated \\(its block 1/1/1: ", path, spacing="1x1x1")


@pytest.mark.parametrize(
    ("said", "message"),
    [
        ({"dimensions": [4, 5]}, "has 2 dimensions; give a data set of 3|attributes are not those of N5"),
        ({"dimensions": [17, 20, 0]}, "its attributes are not those of N5"),
        ({"dataType": "object"}, "its attributes are not those of N5"),
        (
            {"compression": {"type": "lz4"}},
            "is packed in a way that is not supported \\(supported: raw, gzip, bzip2, xz, zstd, blosc\\)",
        ),
        ({"axes": ["z", "y", "x"]}, "its axes are said to be others than x, y and z"),
    ],
)
def test_a_data_set_that_is_not_certain_is_refused(tmp_path, values, said, message):
    path = write(tmp_path / "a.n5", values)
    change(path, **said)
    refused(message, path, spacing="1x1x1")


def test_attributes_that_are_no_json_are_refused(tmp_path, values):
    path = write(tmp_path / "a.n5", values)
    (path / "attributes.json").write_text("{")
    refused("its attributes.json is no JSON", path)


def test_two_dimensions_are_refused(tmp_path, values):
    path = tmp_path / "a.n5"
    path.mkdir()
    change(path, dimensions=[4, 5], blockSize=[4, 5], dataType="uint8", compression={"type": "raw"})
    refused("has 2 dimensions; give a data set of 3, x, y and z", path)


def test_a_group_is_refused_and_the_data_set_in_it_is_read(tmp_path, values):
    write(tmp_path / "a.n5/volumes/raw", values)
    refused("is a folder of N5, but no data set; give the folder in it that holds s0", tmp_path / "a.n5")
    assert np.array_equal(read(tmp_path / "a.n5/volumes/raw", spacing="1x1x1").array, values), "as the message advises"
