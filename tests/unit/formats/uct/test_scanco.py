"""Scanco's ISQ and AIM: by py_aimio (the Calgary lab's library) where it writes them, else byte by byte and read by it
too.
"""

import struct

import numpy as np
import py_aimio
import pytest
from reading import read, refused


@pytest.fixture
def values():
    return np.random.default_rng(0).integers(-2000, 9000, (4, 5, 6)).astype(np.int16)


def isq(path, values, kind=3, blocks=2, lengths=(364, 300, 200)):
    """Header of 512 bytes, `blocks` more, then the voxels; lengths in um of the whole volume."""
    head = bytearray(512 * (blocks + 1))
    size = values.size * 2
    struct.pack_into("<16s7i", head, 0, b"CTDATA-HEADER_V1", kind, size, size // 512, 7, 99, 0, 0)
    struct.pack_into("<6i", head, 44, *values.shape[::-1], *lengths)
    struct.pack_into("<5i", head, 68, 50, 50, 1000, int(values.min()), int(values.max()))
    struct.pack_into("<i", head, 88, 4096)
    struct.pack_into("<40s", head, 128, b"A NAME OF A PATIENT".ljust(40))
    struct.pack_into("<i", head, 508, blocks)
    path.write_bytes(bytes(head) + values.astype("<i2").tobytes())
    return path


def aim_020(path, values, kind=0x20002, log=b"! Processing Log\n\0", size=(0.0607, 0.05, 0.04), position=(3, 4, 5)):
    """Pre-header, struct with VAX floats, log, voxels."""
    # An IEEE float of four times the value with its halves swapped
    vax = b"".join(struct.pack("<f", 4 * s)[2:] + struct.pack("<f", 4 * s)[:2] for s in size)
    described = struct.pack("<6i", 16, 0, 0, 0, 0, kind) + struct.pack("<6i", *position, *values.shape[::-1])
    described += bytes(5 * 12) + vax + bytes(140 - 24 - 24 - 60 - 12)
    path.write_bytes(struct.pack("<5i", 20, 140, len(log), values.nbytes, 0) + described + log + values.tobytes())
    return path


@pytest.mark.parametrize("name", ["a.isq", "A.ISQ", "C0001234.ISQ;1"])
def test_an_isq_is_read(tmp_path, values, name):
    path = isq(tmp_path / name, values)
    volume = read(path)
    assert np.array_equal(volume.array, values) and volume.array.dtype == np.int16
    assert volume.spacing == pytest.approx((0.364 / 6, 0.06, 0.05)) and volume.attributes["source"]["format"] == "ISQ"
    assert np.array_equal(volume.array[2], values[2])
    theirs = py_aimio.isq_info(str(path))
    assert theirs["dimensions"] == values.shape[::-1]
    assert [s / 1000 for s in theirs["spacing"]] == pytest.approx(volume.spacing)
    assert np.array_equal(np.fromfile(path, "<i2", offset=theirs["data_offset"]), values.ravel())
    assert "PATIENT" not in str(volume.attributes)


def test_an_aim_030_is_read(tmp_path, values):
    facts = {"element_size": (0.0607, 0.05, 0.04), "position": (3, 4, 5), "processing_log": "Mu_Scaling  8192\n"}
    py_aimio.write_aim(str(tmp_path / "a.aim"), values, facts)
    volume = read(tmp_path / "a.aim", slices="1:3")
    assert np.array_equal(volume.array, values[1:3]) and volume.spacing == pytest.approx((0.0607, 0.05, 0.04))
    assert volume.origin == pytest.approx((3 * 0.0607, 4 * 0.05, 6 * 0.04))


@pytest.mark.parametrize(("dtype", "kind"), [("<i2", 0x20002), ("i1", 0x10001), ("u1", 0x160001)])
def test_an_aim_020_is_read(tmp_path, values, dtype, kind):
    stored = (values % 100).astype(dtype)
    path = aim_020(tmp_path / "a.aim", stored, kind)
    volume = read(path)
    assert np.array_equal(volume.array, stored) and volume.spacing == pytest.approx((0.0607, 0.05, 0.04))
    assert volume.origin == pytest.approx((3 * 0.0607, 4 * 0.05, 5 * 0.04))
    if kind != 0x160001:
        theirs, facts = py_aimio.read_aim(str(path))
        assert np.array_equal(theirs, stored) and facts["element_size"] == pytest.approx(volume.spacing)


@pytest.mark.parametrize("size", [0, 100, 511, 1500, -1])
@pytest.mark.parametrize("kind", ["isq", "aim"])
def test_a_truncated_file_is_refused(tmp_path, values, kind, size):
    path = {"isq": isq, "aim": aim_020}[kind](tmp_path / f"a.{kind}", values)
    path.write_bytes(path.read_bytes()[: min(size, path.stat().st_size - 1)])
    refused("is damaged or truncated", path)


def test_what_is_no_reconstruction_is_refused(tmp_path, values):
    refused("holds projections or another kind of data \\(9\\)", isq(tmp_path / "a.isq", values, kind=9))
    packed = aim_020(tmp_path / "a.aim", values, kind=0x150001)
    refused("is an AIM of packed or other values \\(type 0x150001\\)", packed)
    refused("its header is not that of an AIM", isq(tmp_path / "b.aim", values))
    refused("its header is not that of an ISQ", aim_020(tmp_path / "b.isq", values))


def test_a_size_that_is_none_is_refused_until_the_sheet_gives_it(tmp_path, values):
    path = isq(tmp_path / "a.isq", values, lengths=(0, 0, 0))
    refused("has no voxel spacing, or an impossible one", path)
    assert read(path, spacing="0.1x0.2x0.3").spacing == (0.1, 0.2, 0.3)
