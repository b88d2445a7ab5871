"""TIFF as Fiji, OME's programs and scanners write it, by tifffile or Pillow, beside what Pillow or SimpleITK reads."""

import itertools
import re
from functools import partial

import numpy as np
import pytest
import reading
import SimpleITK as sitk
import tifffile
from PIL import Image, ImageOps, ImageSequence
from reading import read

from microsr.core.errors import UserError

SPACING = "0.013x0.012x0.011"
SHAPE = (4, 40, 50)


@pytest.fixture
def values():
    return np.random.default_rng(0).integers(0, 60000, SHAPE).astype(np.uint16)


refused = partial(reading.refused, spacing=SPACING)


def by_pillow(path):
    with Image.open(path) as image:
        return np.stack([np.array(frame) for frame in ImageSequence.Iterator(image)])


@pytest.mark.parametrize("packed", [None, "zstd", "lzma", "zlib", "lzw"])
@pytest.mark.parametrize("tile", [None, (16, 16), (32, 16)])
def test_tiles_and_ways_of_packing(tmp_path, values, packed, tile):
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, values, photometric="minisblack", metadata=None, compression=packed, tile=tile)
    volume = read(path, spacing=SPACING)
    assert np.array_equal(volume.array, values) and volume.array.dtype == np.uint16
    assert np.array_equal(by_pillow(path), values)
    assert volume.spacing == (0.013, 0.012, 0.011) and volume.attributes["source"]["format"] == "TIFF"


@pytest.mark.parametrize("packed", ["tiff_lzw", "tiff_adobe_deflate", "zstd", "lzma"])
def test_what_pillow_packed(tmp_path, values, packed):
    images = [Image.fromarray(image) for image in values]
    images[0].save(tmp_path / "a.tif", save_all=True, append_images=images[1:], compression=packed)
    assert np.array_equal(read(tmp_path / "a.tif", spacing=SPACING).array, values)


@pytest.mark.parametrize("dtype", ["<f8", ">f8", "<f4", "<f2", "<i8", ">u4", "|i1"])
@pytest.mark.parametrize("how", [{}, {"compression": "zstd"}, {"tile": (16, 16)}])
def test_types(tmp_path, values, dtype, how):
    stored = (values % 100).astype(dtype)
    tifffile.imwrite(
        tmp_path / "a.tif", stored, photometric="minisblack", metadata=None, byteorder=dtype[0].strip("|") or "<", **how
    )
    array = np.asarray(read(tmp_path / "a.tif", spacing=SPACING).array)
    assert np.array_equal(array, stored) and array.dtype == (
        np.float32 if "f" in dtype else np.dtype(dtype).newbyteorder("=")
    )


@pytest.mark.parametrize("order", "<>")
def test_all_slices_behind_one_page_as_fiji_writes_large_files(tmp_path, values, order):
    path = tmp_path / "a.tif"
    tifffile.imwrite(
        path,
        values,
        imagej=True,
        byteorder=order,
        metadata={"axes": "ZYX", "spacing": 13, "unit": "um"},
        resolution=(1 / 11, 1 / 12),
    )
    with tifffile.TiffFile(path) as file:
        (_, second, *_), first = (page.offset for page in file.pages), file.pages[0]
        place = first.offset + 2 + 12 * len(first.tags)
    content = bytearray(path.read_bytes())
    assert int.from_bytes(content[place : place + 4], {"<": "little", ">": "big"}[order]) == second
    content[place : place + 4] = bytes(4)  # no page after the first
    path.write_bytes(content)
    with tifffile.TiffFile(path) as file:
        assert len(file.pages) == 1
    volume = read(path)
    assert np.array_equal(volume.array, values)
    assert (
        volume.spacing == pytest.approx((0.011, 0.012, 0.013)) and volume.attributes["source"]["spacing_from"] == "file"
    )
    path.write_bytes(content[: len(content) // 2])
    refused("is truncated", path)


@pytest.mark.parametrize("unit", ["micron", "um", "\\u00B5m", "mm"])
def test_the_voxel_size_of_imagej_is_taken_where_it_has_a_unit(tmp_path, values, unit):
    path, factor = tmp_path / "a.tif", 1 if unit == "mm" else 0.001
    tifffile.imwrite(
        path, values, imagej=True, metadata={"axes": "ZYX", "spacing": 1.3, "unit": unit}, resolution=(1 / 1.1, 1 / 1.2)
    )
    assert read(path).spacing == pytest.approx((1.1 * factor, 1.2 * factor, 1.3 * factor), rel=1e-5)
    assert read(path, spacing="0.1x0.2x0.3").spacing == (0.1, 0.2, 0.3)


@pytest.mark.parametrize("metadata", [{"spacing": 1.3}, {"unit": "um"}, {"spacing": 1.3, "unit": "pixel"}])
def test_a_voxel_size_of_imagej_without_unit_or_distance_is_not_taken(tmp_path, values, metadata):
    tifffile.imwrite(
        tmp_path / "a.tif", values, imagej=True, metadata={"axes": "ZYX"} | metadata, resolution=(1 / 1.1, 1 / 1.2)
    )
    with pytest.raises(UserError, match="a TIFF stack has no voxel spacing of its own"):
        read(tmp_path / "a.tif")


@pytest.mark.parametrize(("unit", "factor"), [("µm", 0.001), ("mm", 1), ("nm", 1e-6), (None, 0.001)])
@pytest.mark.parametrize("how", [{}, {"tile": (16, 16), "compression": "zlib"}, {"bigtiff": True}])
def test_ome_tiff(tmp_path, values, unit, factor, how):
    sizes = {f"PhysicalSize{a}": s for a, s in zip("XYZ", (11, 12, 13), strict=True)}
    units = {f"PhysicalSize{a}Unit": unit for a in "XYZ"} if unit else {}
    path = tmp_path / "a.ome.tif"
    tifffile.imwrite(path, values, photometric="minisblack", metadata={"axes": "ZYX", **sizes, **units}, **how)
    volume = read(path)
    assert np.array_equal(volume.array, values)
    assert volume.spacing == pytest.approx((11 * factor, 12 * factor, 13 * factor))


def test_the_finest_level_of_an_ome_pyramid_is_read(tmp_path, values):
    path = tmp_path / "a.ome.tif"
    with tifffile.TiffWriter(path) as file:
        file.write(values, subifds=1, photometric="minisblack", tile=(16, 16), metadata={"axes": "ZYX"})
        file.write(values[:, ::2, ::2], subfiletype=1, photometric="minisblack", tile=(16, 16))
    assert np.array_equal(read(path, spacing=SPACING).array, values)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_turned_page_is_turned_back(tmp_path, values, orientation):
    path, values = tmp_path / "a.tif", (values // 256).astype(np.uint8)
    tag = [(274, 3, 1, orientation, False)]
    tifffile.imwrite(path, values, photometric="minisblack", metadata=None, extratags=tag)
    array = np.asarray(read(path, spacing=SPACING).array)
    for image, turned in zip(values, array, strict=True):
        stored = Image.fromarray(image)
        stored.getexif()[274] = orientation
        assert np.array_equal(turned, ImageOps.exif_transpose(stored))
    if orientation in (1, 4):  # the two that ITK knows
        assert np.array_equal(array, sitk.GetArrayFromImage(sitk.ReadImage(str(path))))


def test_a_slice_is_read_alone(tmp_path, values, monkeypatch):
    asked, decode = [], tifffile.TiffPage.asarray
    monkeypatch.setattr(
        tifffile.TiffPage, "asarray", lambda page, **how: asked.append(page.index) or decode(page, **how)
    )
    monkeypatch.setattr(
        tifffile.TiffFrame, "asarray", lambda page, **how: asked.append(page.index) or decode(page, **how)
    )
    tifffile.imwrite(tmp_path / "a.tif", values, photometric="minisblack", metadata=None, compression="zstd")
    volume = read(tmp_path / "a.tif", spacing=SPACING, slices="1:3")
    assert asked == []
    assert np.array_equal(volume.array[1], values[2]) and asked == [2]


def test_slices_behind_one_page_that_are_cut_off_are_refused(tmp_path):
    path = tmp_path / "a.tif"
    with tifffile.TiffWriter(path) as writer:
        writer.write(np.zeros((5, 40, 30), np.uint16), photometric="minisblack", truncate=True)
    assert read(path, spacing=SPACING).shape == (5, 40, 30)
    path.write_bytes(path.read_bytes()[:-3000])
    refused("is truncated; copy it again", path)


@pytest.mark.parametrize(
    ("how", "cut"), list(itertools.product([{}, {"compression": "zstd"}, {"tile": (16, 16)}], [0.3, 0.97]))
)
def test_a_truncated_file_is_refused(tmp_path, values, how, cut):
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, values, photometric="minisblack", metadata=None, **how)
    path.write_bytes(path.read_bytes()[: int(cut * path.stat().st_size)])
    refused("truncated|not a readable TIFF", path)


def test_a_tile_that_cannot_be_unpacked_is_refused(tmp_path, values):
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, values, photometric="minisblack", metadata=None, tile=(16, 16), compression="zstd")
    with tifffile.TiffFile(path) as file:
        place = file.pages[1].dataoffsets[2]
    content = bytearray(path.read_bytes())
    content[place : place + 8] = bytes(8)
    path.write_bytes(content)
    refused("is damaged or truncated", path)


def test_what_is_no_stack_is_refused(tmp_path, values):
    path = tmp_path / "a.tif"
    tifffile.imwrite(
        path, np.stack([values, values]), imagej=True, metadata={"axes": "ZCYX"[:1] + "CYX"} if False else {}
    )
    refused("are not one stack of slices \\(shape 2x4x40x50\\)", path)
    tifffile.imwrite(path, values, photometric="minisblack", metadata={"axes": "CYX"}, ome=True)
    refused("are not one stack of slices", path)
    tifffile.imwrite(path, values[0] > 9, photometric="minisblack")
    refused("has 1 bits a pixel, no grey values", path)
    with tifffile.TiffWriter(path) as file:
        for number, image in enumerate(values):
            tag = [(274, 3, 1, 1 + 3 * (number == 2), False)]
            file.write(image, photometric="minisblack", metadata=None, contiguous=False, extratags=tag)
    refused("its pages differ in size, type or orientation", path)


def test_a_file_of_a_set_is_refused(tmp_path, values):
    whole, path = tmp_path / "whole.ome.tif", tmp_path / "a.ome.tif"
    tifffile.imwrite(whole, values, photometric="minisblack", metadata={"axes": "ZYX"})
    with tifffile.TiffFile(whole) as file:
        text = file.ome_metadata
    planes = "".join(
        f'<TiffData IFD="{z % 2}" FirstZ="{z}" PlaneCount="1"><UUID '
        f'FileName="{n}.ome.tif">urn:uuid:{n}</UUID></TiffData>'
        for z, n in enumerate("aabb")
    )
    text = re.sub("<TiffData[^>]*/>", planes, text)
    tifffile.imwrite(path, values[:2], photometric="minisblack", metadata=None, description=text)
    refused("is one file of several of an OME-TIFF", path)
