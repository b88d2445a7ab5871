"""2-D images in folders: JPEG 2000 and BMP by Pillow or imagecodecs, and the log of a SkyScan."""

import struct
from functools import partial

import imagecodecs
import numpy as np
import pytest
import reading
from PIL import Image
from reading import read

SPACING = "0.013x0.012x0.011"
LOG = """[System]
Scanner=SkyScan1172
[Acquisition]
Image Pixel Size (um)=   26.00
[Reconstruction]
Reconstruction Program=NRecon
Sections Count=4
Section to Section Step=2
Pixel Size (um)=13.00145
"""


@pytest.fixture
def values():
    return np.random.default_rng(0).integers(0, 256, (4, 30, 41)).astype(np.uint8)


refused = partial(reading.refused, spacing=SPACING)


def save(values, folder, ending="bmp", name="s_rec"):
    folder.mkdir(exist_ok=True)
    for z, image in enumerate(values):
        Image.fromarray(image).save(folder / f"{name}{z:08}.{ending}")
    return folder


@pytest.mark.parametrize("name", ["s_rec", "a-"])
def test_bmp_slices_are_read(tmp_path, values, name):
    volume = read(save(values, tmp_path / "in", name=name), spacing=SPACING)
    assert np.array_equal(volume.array, values) and volume.spacing == (0.013, 0.012, 0.011)
    assert volume.attributes["source"] == {
        "format": "BMP", "size": [41, 30, 4], "spacing": [0.013, 0.012, 0.011], "spacing_from": "sheet",
    }  # fmt: skip


def test_a_bmp_from_the_top_down_is_read(tmp_path, values):
    path = save(values[:1], tmp_path / "in") / "s_rec00000000.bmp"
    content = bytearray(path.read_bytes())
    struct.pack_into("<i", content, 22, -30)
    path.write_bytes(content)
    assert np.array_equal(read(path, spacing="0.1").array[0], values[0][::-1])


@pytest.mark.parametrize("ending", ["bmp", "png", "tif"])
def test_the_log_of_a_skyscan_gives_the_voxel_size(tmp_path, values, ending):
    folder = save(values, tmp_path / "in", ending)
    (folder / "s_rec.log").write_bytes(LOG.replace("\n", "\r\n").encode())
    Image.fromarray(values[0, :9, :9]).save(folder / f"s_rec_spr.{ending}")
    volume = read(folder)
    assert np.array_equal(volume.array, values)
    assert volume.spacing == pytest.approx((0.01300145, 0.01300145, 0.0260029))
    assert volume.attributes["source"]["spacing_from"] == "file" and "independent_slices" not in volume.attributes
    assert read(folder, slices="1:3").origin == pytest.approx((0, 0, 0.0260029))
    assert read(folder, spacing="0.1x0.2x0.3").spacing == (0.1, 0.2, 0.3)
    assert read(folder, spacing="0.1").attributes["independent_slices"]


@pytest.mark.parametrize(
    ("name", "text"),
    [("other.log", LOG), ("s_rec.log", LOG.replace("13.00145", "")), ("s_rec.log", LOG.partition("[Recon")[0])],
)
def test_a_log_without_a_size_of_these_slices_gives_none(tmp_path, values, name, text):
    folder = save(values, tmp_path / "in")
    (folder / name).write_text(text)
    refused("2-D images have no pixel size of their own", folder, spacing=None)


@pytest.mark.parametrize(("dtype", "top"), [("u1", 255), ("u2", 65535), ("i2", 32767)])
@pytest.mark.parametrize("codec", ["jp2", "j2k"])
def test_jpeg_2000_slices_are_read(tmp_path, values, dtype, top, codec):
    stored = (values.astype(int) * (top // 255) - (20000 if dtype == "i2" else 0)).astype(dtype)
    for z, image in enumerate(stored):
        content = imagecodecs.jpeg2k_encode(image, level=0, reversible=True, codecformat=codec)
        (tmp_path / f"s{z}.{codec}").write_bytes(content)
    array = np.asarray(read(tmp_path, spacing=SPACING).array)
    assert np.array_equal(array, stored) and array.dtype == dtype


def test_jpeg_2000_by_pillow_is_read(tmp_path, values):
    folder = save(values.astype(np.uint16) * 200, tmp_path / "in", "jp2")
    assert np.array_equal(read(folder, spacing=SPACING).array, values.astype(np.uint16) * 200)


@pytest.mark.parametrize("size", [0, 30, 70, 400, -1])
@pytest.mark.parametrize("ending", ["bmp", "jp2"])
def test_a_truncated_image_is_refused(tmp_path, values, ending, size):
    folder = save(values, tmp_path / "in", ending)
    path = folder / f"s_rec00000002.{ending}"
    path.write_bytes(path.read_bytes()[:size])
    refused(f"s_rec00000002.{ending}: is damaged or truncated", folder)


def test_what_is_no_grey_image_is_refused(tmp_path, values):
    path = tmp_path / "a.bmp"
    Image.fromarray(np.stack([values[0]] * 3, axis=2)).save(path)
    refused("is a BMP of 24 bits or a packed one, not of 8 bits", path)
    image = Image.fromarray(values[0])
    image.putpalette([255 - v // 3 for v in range(768)])
    image.save(path)
    refused("its colours are no plain scale of greys", path)
    path = tmp_path / "a.jp2"
    Image.fromarray(np.stack([values[0]] * 3, axis=2)).save(path)
    refused(r"has 3 values in a pixel \(colour\)", path)
    content = bytearray(imagecodecs.jpeg2k_encode(values[0]))
    content[content.index(b"\xff\x4f\xff\x51") + 42] = 27
    path.write_bytes(content)
    refused("has 28 bits in a pixel, more than are read", path)


def test_images_of_several_kinds_must_be_alike(tmp_path, values):
    save(values[:2], tmp_path, "bmp", "a")
    save(values[2:, :20], tmp_path, "jp2", "b")
    refused("is 41x20 \\(uint8\\), the images before it are 41x30", tmp_path)
