"""Zeiss TXM: an OLE container byte by byte, as [MS-CFB] says, with the streams that dxchange and txrm2tiff read."""

import struct
import sys

import numpy as np
import pytest
from compound import compound
from reading import read, refused


@pytest.fixture
def values():
    return np.random.default_rng(0).integers(0, 60000, (103, 12, 15)).astype(np.uint16)


def txm(path, values, kind=5, **streams):
    count, rows, columns = values.shape
    numbers = {"ImageWidth": columns, "ImageHeight": rows, "NoOfImages": count, "DataType": kind}
    said = {f"ImageInfo/{name}": struct.pack("<I", number) for name, number in numbers.items()}
    said |= {"ImageInfo/PixelSize": struct.pack("<f", 6.5), "SampleInfo/SampleID": b"A NAME".ljust(50, bytes(1))}
    said |= {f"ImageData{1 + z // 100}/Image{z + 1}": image.tobytes() for z, image in enumerate(values)}
    said |= {key.replace("__", "/"): value for key, value in streams.items()}
    path.write_bytes(compound({key: value for key, value in said.items() if value is not None}))
    return path


@pytest.mark.parametrize(("dtype", "kind"), [("u2", 5), ("f4", 10), ("u1", 3)])
def test_slices_are_read_from_their_streams(tmp_path, values, dtype, kind):
    stored = (values % 200).astype(dtype)
    volume = read(txm(tmp_path / "a.txm", stored, kind))
    assert np.array_equal(volume.array, stored) and volume.array.dtype == dtype
    assert volume.spacing == pytest.approx((0.0065,) * 3) and volume.attributes["source"]["format"] == "TXM"
    assert np.array_equal(read(tmp_path / "a.txm", slices="99:102").array, stored[99:102])


def test_large_slices_lie_in_streams_of_their_own(tmp_path):
    stored = np.random.default_rng(0).normal(0, 1, (3, 60, 70)).astype(np.float32)
    assert np.array_equal(read(txm(tmp_path / "a.txm", stored, 10)).array, stored)


def test_the_container_is_one_for_olefile(tmp_path, values):
    import olefile

    with olefile.OleFileIO(txm(tmp_path / "a.txm", values)) as store:
        assert store.exists("ImageData2/Image103") and not store.parsing_issues
        assert store.openstream("ImageData1/Image7").read() == values[6].tobytes()


@pytest.mark.parametrize(
    ("streams", "match"),
    [
        ({"ImageInfo__ImageWidth": None}, "it is no whole TXM"),
        ({"ImageInfo__DataType": struct.pack("<I", 9)}, "it is no whole TXM"),
        ({"ImageInfo__NoOfImages": struct.pack("<I", 0)}, "it has no whole slice"),
        ({"ImageData2__Image103": None}, "it has no whole slice 103 of 103"),
        ({"ImageData1__Image50": None}, "slice 49: "),
        ({"ImageData1__Image50": bytes(10)}, "slice 49: 360 bytes expected, 10 found"),
        ({"ImageInfo__PixelSize": None}, "has no voxel spacing"),
    ],
)
def test_what_is_not_whole_is_refused(tmp_path, values, streams, match):
    refused(match, txm(tmp_path / "a.txm", values, **streams))


@pytest.mark.parametrize("cut", [0.0, 0.01, 0.5, 0.95])
def test_a_truncated_file_is_refused(tmp_path, values, cut):
    path = txm(tmp_path / "a.txm", values)
    path.write_bytes(path.read_bytes()[: int(cut * path.stat().st_size)])
    refused("is damaged or truncated", path)


def test_a_size_of_the_sheet_does(tmp_path, values):
    path = txm(tmp_path / "a.txm", values, ImageInfo__PixelSize=None)
    assert read(path, spacing="0.1x0.2x0.3").spacing == (0.1, 0.2, 0.3)


def test_without_the_library_the_message_says_what_to_install(tmp_path, values, monkeypatch):
    monkeypatch.setitem(sys.modules, "olefile", None)
    refused(r"needs the library olefile, which is not installed", txm(tmp_path / "a.txm", values))
