"""Single slices out of files: whatever the format, type, byte order and packing, what SimpleITK reads whole, bit for
bit.
"""

import dataclasses
import gzip
import itertools
import tempfile
import types
import zlib

import nibabel
import nrrd
import numpy as np
import pytest
import SimpleITK as sitk
import tifffile

from microsr.config.sheet import Scan
from microsr.core.errors import UserError
from microsr.formats import images, rawfile, readers
from microsr.formats.rawfile import cache_slices
from microsr.formats.readers import read_scan
from microsr.volume.slices import Slices

TYPES = ["u1", "i1", "u2", "i2", "u4", "i4", "u8", "i8", "f4", "f8"]
SPACING = "0.1x0.1x0.2"


def values(dtype, shape=(3, 4, 5)):
    """Made-up voxels over most of a type's range."""
    rng = np.random.default_rng(0)
    if np.dtype(dtype).kind == "f":
        return rng.normal(0, 1e4, shape).astype(dtype)
    limits = np.iinfo(dtype)
    return rng.integers(limits.min // 2, limits.max // 2, shape, dtype)


def by_sitk(path):
    array = sitk.GetArrayFromImage(sitk.ReadImage(str(path)))
    array = array.reshape(array.shape[-3:])
    return array.astype(np.float32) if array.dtype == np.float64 else array


@pytest.fixture
def by_slice(monkeypatch):
    """Reads a scan, and fails where it would be read whole."""

    def refuse(reader):
        raise AssertionError(f"{reader.GetFileName()} is read whole")

    monkeypatch.setattr(readers, "itk_array", refuse)
    return lambda path, **scan: read_scan(Scan(path=str(path), spacing=SPACING, **scan)).array


def same(array, expected):
    """All slices alone, backwards, and all at once."""
    assert isinstance(array, Slices) and array.shape == expected.shape and array.dtype == expected.dtype
    for z in reversed(range(len(expected))):
        assert array[z].dtype == expected.dtype and array[z].dtype.isnative
        assert np.array_equal(array[z], expected[z])
    assert np.array_equal(np.asarray(array), expected)


def save(array, path, packed=False):
    image = sitk.GetImageFromArray(array)
    image.SetSpacing((0.1, 0.1, 0.2))
    sitk.WriteImage(image, str(path), packed)
    return path


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("name", ["a.nii", "a.nii.gz", "a.nrrd", "a.nhdr", "a.mha", "a.mhd", "a.tif"])
def test_a_slice_is_what_sitk_reads_whole(tmp_path, by_slice, name, packed):
    for dtype in TYPES:
        if name == "a.tif" and dtype in ("u8", "i8", "f8"):
            continue  # SimpleITK writes no such TIFF
        path = save(values(dtype), tmp_path / name, packed)
        same(by_slice(path), by_sitk(path))
        same(by_slice(path, slices="1:3"), by_sitk(path)[1:3])


@pytest.mark.parametrize("scale", [(1, 0), (0, 0), (2, -99), (0.3, 0.1), (np.nan, 0), (-1, 1e-9)])
@pytest.mark.parametrize("name", ["a.nii", "a.nii.gz"])
def test_nifti_of_either_byte_order_is_rescaled_as_by_sitk(tmp_path, by_slice, scale, name):
    for dtype, order in itertools.product(TYPES, "<>"):
        array = values(dtype).T.astype(np.dtype(dtype).newbyteorder(order))
        header = nibabel.Nifti1Header(endianness=order)
        header.set_data_dtype(array.dtype)
        nibabel.Nifti1Image(array, np.eye(4), header, dtype=array.dtype).to_filename(tmp_path / "plain.nii")
        content = bytearray((tmp_path / "plain.nii").read_bytes())
        content[112:120] = np.array(scale, order + "f4").tobytes()  # scl_slope, scl_inter
        (tmp_path / name).write_bytes(gzip.compress(content) if name.endswith("gz") else content)
        same(by_slice(tmp_path / name), by_sitk(tmp_path / name))


def test_voxels_behind_an_extension_of_the_header(tmp_path, by_slice):
    image = nibabel.Nifti1Image(values("i2").T, np.eye(4))
    image.header.extensions.append(nibabel.nifti1.Nifti1Extension("comment", b"taken on a Monday"))
    image.to_filename(tmp_path / "a.nii")
    same(by_slice(tmp_path / "a.nii"), values("i2"))


def raw(path, array, text):
    path.with_suffix(".raw").write_bytes(array)
    path.write_text(text)
    return path


@pytest.mark.parametrize("order", "<>")
@pytest.mark.parametrize(
    ("dtype", "meta", "nrrd"),
    [
        ("i2", "SHORT", "short"),
        ("u2", "USHORT", "uint16"),
        ("i4", "LONG", "int"),
        ("f4", "FLOAT", "float"),
        ("f8", "DOUBLE", "double"),
    ],
)
def test_byte_order_and_skipped_bytes_of_metaimage_and_nrrd(tmp_path, by_slice, dtype, meta, nrrd, order):
    stored = values(dtype).astype(np.dtype(dtype).newbyteorder(order)).tobytes()
    head = "ObjectType = Image\nNDims = 3\nBinaryData = True\nElementSpacing = 1 1 1\nDimSize = 5 4 3\n"
    head += f"BinaryDataByteOrderMSB = {order == '>'}\nElementType = MET_{meta}\n"
    path = raw(tmp_path / "a.mhd", stored, f"{head}ElementDataFile = a.raw\n")
    same(by_slice(path), by_sitk(path))
    path = raw(tmp_path / "b.mhd", b"head" + stored, f"{head}HeaderSize = 4\nElementDataFile = b.raw\n")
    same(by_slice(path), by_sitk(path))
    path = raw(tmp_path / "p.mhd", zlib.compress(stored), f"{head}CompressedData = True\nElementDataFile = p.raw\n")
    same(by_slice(path), by_sitk(path))
    endian = "big" if order == ">" else "little"
    head = f"NRRD0004\ntype: {nrrd}\ndimension: 3\nsizes: 5 4 3\nspacings: 1 1 1\nendian: {endian}\n"
    path = raw(tmp_path / "c.nhdr", stored, f"{head}encoding: raw\ndata file: c.raw\n")
    same(by_slice(path), by_sitk(path))
    path = raw(tmp_path / "d.nhdr", gzip.compress(stored), f"{head}encoding: gzip\ndata file: d.raw\n")
    same(by_slice(path), by_sitk(path))


@pytest.mark.parametrize(
    "fields",
    [
        "",
        "BinaryData = True\n",
        "ObjectType = Image\nBinaryDataByteOrderMSB = True\n",
        "TransformMatrix = 0 1 0 1 0 0 0 0 1\n",
        "Offset = 7 8 9\n",
        "ElementSize = 3 3 3\nHeaderSize = -1\n",
    ],
)
def test_a_metaimage_written_by_hand_is_read_as_by_sitk(tmp_path, fields):
    array = values("i2").astype(">i2" if "MSB" in fields else "<i2")
    head = f"NDims = 3\nDimSize = 5 4 3\n{fields}ElementType = MET_SHORT\n"
    head += "" if "ElementSize" in fields else "ElementSpacing = 0.5 0.6 0.7\n"
    path = raw(tmp_path / "a.mhd", array.tobytes(), f"{head}ElementDataFile = a.raw\n")
    volume, theirs = read_scan(Scan(path=str(path))), sitk.ReadImage(str(path))
    assert np.array_equal(np.asarray(volume.array), array) and np.array_equal(by_sitk(path), array)
    assert (volume.spacing, volume.origin, volume.direction) == (
        theirs.GetSpacing(), theirs.GetOrigin(), theirs.GetDirection(),
    )  # fmt: skip


@pytest.mark.parametrize("name", ["a.nrrd", "a.nhdr"])
def test_an_nrrd_packed_with_bzip2_is_read_slice_by_slice(tmp_path, by_slice, name):
    array = values("i2", (3, 40, 50))
    nrrd.write(str(tmp_path / name), array.T, {"encoding": "bzip2", "spacings": [1, 1, 1]})
    same(by_slice(tmp_path / name), array)
    (file,) = [f for f in tmp_path.iterdir() if f.suffix != ".nhdr"]
    for kept_bytes in (0.5, 0.9):
        file.write_bytes(file.read_bytes()[: int(kept_bytes * file.stat().st_size)])
        with pytest.raises(UserError, match="damaged or truncated"):
            by_slice(tmp_path / name)


@pytest.mark.parametrize("encoding", ["ascii", "hex", "skipped", "list"])
def test_what_is_stored_in_an_unusual_way_is_read_whole(tmp_path, encoding):
    array = values("i2")
    head = "NRRD0004\ntype: short\ndimension: 3\nsizes: 5 4 3\nspacings: 1 1 1\nendian: little\n"
    if encoding == "ascii":
        text = " ".join(map(str, array.ravel()))
        (tmp_path / "a.nrrd").write_text(f"{head}encoding: ascii\n\n{text}\n")
    elif encoding == "hex":
        (tmp_path / "a.nrrd").write_text(f"{head}encoding: hex\n\n{array.tobytes().hex()}\n")
    elif encoding == "skipped":
        head += "encoding: raw\nbyte skip: 3\n\n"
        (tmp_path / "a.nrrd").write_bytes(head.encode() + b"abc" + array.tobytes())
    else:
        for z, image in enumerate(array):
            (tmp_path / f"{z}.raw").write_bytes(image.tobytes())
        (tmp_path / "a.nrrd").write_text(f"{head}encoding: raw\ndata file: LIST\n0.raw\n1.raw\n2.raw\n")
    same(read_scan(Scan(path=str(tmp_path / "a.nrrd"))).array, by_sitk(tmp_path / "a.nrrd"))
    assert np.array_equal(by_sitk(tmp_path / "a.nrrd"), array)


@pytest.mark.parametrize("compression", [None, "lzw", "zlib", "packbits"])
@pytest.mark.parametrize("dtype", ["u1", "i1", "u2", "i2", "u4", "i4", "f4"])
def test_pages_of_a_tiff_are_what_sitk_reads(tmp_path, by_slice, dtype, compression):
    options = {"predictor": True} if compression in ("lzw", "zlib") and dtype != "f4" else {}
    array = values(dtype, (3, 40, 50)) // (1000 if dtype == "f4" else 8)
    for order, extra in itertools.product("<>", ({}, options, {"rowsperstrip": 7})):
        path = tmp_path / "a.tif"
        tifffile.imwrite(
            path, array, photometric="minisblack", metadata=None, compression=compression, byteorder=order, **extra
        )
        same(by_slice(path), by_sitk(path))
        assert np.array_equal(by_sitk(path), array)


def test_strips_that_do_not_follow_each_other(tmp_path, by_slice):
    """Both strips of each page in the wrong order, as a program that mends a file may leave them."""
    path, array = tmp_path / "a.tif", values("u2", (3, 40, 50))
    tifffile.imwrite(path, array, photometric="minisblack", metadata=None, rowsperstrip=20)
    with tifffile.TiffFile(path) as tiff:
        tags = [page.tags["StripOffsets"] for page in tiff.pages]
        swapped = [(tag.valueoffset, tag.value[::-1]) for tag in tags]
    content = bytearray(path.read_bytes())
    for place, offsets in swapped:
        content[place : place + 8] = np.array(offsets, "<u4").tobytes()
    path.write_bytes(content)
    same(by_slice(path), by_sitk(path))
    assert np.array_equal(by_sitk(path), np.roll(array, 20, axis=1))


def test_a_tiff_that_is_not_upright_is_turned_as_by_sitk(tmp_path):
    tifffile.imwrite(
        tmp_path / "a.tif", values("u2"), photometric="minisblack", metadata=None, extratags=[(274, 3, 1, 4, False)]
    )
    same(read_scan(Scan(path=str(tmp_path / "a.tif"), spacing=SPACING)).array, by_sitk(tmp_path / "a.tif"))


@pytest.mark.parametrize("suffix", ["png", "tif"])
def test_images_are_read_when_they_are_asked_for(tmp_path, monkeypatch, suffix):
    for z, image in enumerate(values("u2")):
        sitk.WriteImage(sitk.GetImageFromArray(image), str(tmp_path / f"{z}.{suffix}"))
    asked, kind = [], images.KINDS[f".{suffix}"]
    noted = dataclasses.replace(kind, decode=lambda path: asked.append(path.stem) or kind.decode(path))
    monkeypatch.setitem(images.KINDS, f".{suffix}", noted)
    array = read_scan(Scan(path=str(tmp_path), spacing=SPACING)).array
    assert asked == []
    assert np.array_equal(array[1], values("u2")[1]) and asked == ["1"]
    same(array, values("u2"))


@pytest.mark.parametrize("name", ["a.nii.gz", "a.nrrd", "a.nhdr", "a.mha", "a.mhd", "a.tif"])
@pytest.mark.parametrize("kept_bytes", [0.8, 0.99])
def test_a_packed_file_that_ends_too_early_is_refused(tmp_path, name, kept_bytes):
    save(values("u2", (4, 50, 60)), tmp_path / name, packed=True)
    (file,) = [f for f in tmp_path.iterdir() if f.suffix not in (".nhdr", ".mhd")]
    content = file.read_bytes()
    file.write_bytes(content[: int(kept_bytes * len(content))])
    with pytest.raises(UserError, match=r"damaged|truncated"):
        np.asarray(read_scan(Scan(path=str(tmp_path / name), spacing=SPACING)).array)


@pytest.mark.parametrize("name", ["a.nii", "a.nrrd", "a.nhdr", "a.mha", "a.mhd", "a.nii.gz"])
def test_a_file_that_ends_too_early_is_refused_before_anything_is_read(tmp_path, name):
    save(values("u2"), tmp_path / name)
    (file,) = [f for f in tmp_path.iterdir() if f.suffix not in (".nhdr", ".mhd")]
    file.write_bytes(file.read_bytes()[:-9])
    with pytest.raises(UserError, match=r"truncated"):
        read_scan(Scan(path=str(tmp_path / name), spacing=SPACING))


def test_a_disk_without_room_is_not_filled_up(tmp_path, monkeypatch):
    path = save(values("u2"), tmp_path / "a.nii.gz")
    monkeypatch.setattr(rawfile.shutil, "disk_usage", lambda folder: types.SimpleNamespace(free=100))
    monkeypatch.setattr(rawfile, "_blocks", lambda layout: pytest.fail("it is unpacked"))
    with pytest.raises(UserError, match="no room to unpack it"):
        read_scan(Scan(path=str(path)))


def test_no_room_to_unpack_is_said_in_one_line(tmp_path, small_disk):
    path = save(values("u2", (10, 100, 100)), tmp_path / "a.nii.gz")
    with pytest.raises(UserError, match=r"a\.nii\.gz: .* has no room to unpack it \(0 MB needed\)"):
        read_scan(Scan(path=str(path)), small_disk(100))
    assert read_scan(Scan(path=str(path)), small_disk(400)).shape == (10, 100, 100)


def test_a_disk_that_fills_up_while_unpacking_is_said_too(tmp_path, small_files):
    path = save(values("u2", (10, 100, 100)), tmp_path / "a.mha", packed=True)
    with small_files(100), pytest.raises(UserError, match="no room to unpack it"):
        read_scan(Scan(path=str(path)), tmp_path)


def test_what_is_unpacked_leaves_no_file(tmp_path):
    array = read_scan(Scan(path=str(save(values("i2"), tmp_path / "a.nii.gz"))), tmp_path).array
    assert [file.name for file in tmp_path.iterdir()] == ["a.nii.gz"]
    assert np.array_equal(array[1], values("i2")[1])


def test_a_slow_slice_is_decoded_once_if_there_is_room_to_keep_it(tmp_path, small_disk):
    asked, images = [], values("i2", (3, 100, 100))
    slow = Slices(lambda z: asked.append(z) or images[z], images.shape, images.dtype)
    same(cache_slices(slow, tmp_path), images)
    assert sorted(asked) == [0, 1, 2]
    asked.clear()
    same(cache_slices(slow, small_disk(80)), images)
    assert len(asked) == 12


def test_the_systems_temporary_folder_is_the_default(tmp_path, monkeypatch, small_disk):
    path = save(values("u2", (10, 100, 100)), tmp_path / "a.nii.gz")
    monkeypatch.setattr(tempfile, "tempdir", str(small_disk(100)))
    with pytest.raises(UserError, match="no room"):
        read_scan(Scan(path=str(path)))
