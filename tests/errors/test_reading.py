"""Messages about volumes of foreign formats, as `microsr info` gives them."""

import numpy as np
import pydicom
import pytest
import SimpleITK as sitk
from pydicom.encaps import encapsulate
from pydicom.uid import JPEGLosslessSV1

from microsr.config.sheet import Scan
from microsr.core.errors import UserError
from microsr.formats import dicom, readers

META = {
    "ObjectType": "Image",
    "NDims": "3",
    "BinaryData": "True",
    "BinaryDataByteOrderMSB": "False",
    "TransformMatrix": "1 0 0 0 1 0 0 0 1",
    "Offset": "0 0 0",
    "ElementSpacing": "1 1 1",
    "DimSize": "4 4 2",
    "ElementType": "MET_SHORT",
    "ElementDataFile": "LOCAL",
}
"""A sound header of MetaImage."""


def meta(folder, extra="", **changes):
    """A MetaImage whose header differs from META; a value of None leaves a field out."""
    fields = {key: value for key, value in (META | changes).items() if value is not None}
    fields |= {"ElementDataFile": fields.pop("ElementDataFile")}  # which ends a header
    path = folder / "scan.mha"
    text = extra + "".join(f"{key} = {value}\n" for key, value in fields.items())
    path.write_bytes(text.encode() + np.arange(32, dtype="<i2").tobytes())
    return path


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"extra": "NDims = 3\n"}, "says a field of its header twice"),
        ({"Ofset": "0 0 0"}, "its field Offset is misspelt or damaged"),
        ({"BinaryData": "perhaps"}, "its BinaryData is neither True nor False"),
        ({"ElementType": None}, "has no ElementType, or its header is damaged"),
        (
            {"Position": "0 0 0"},
            "that of its first voxel (Offset) at most once",
        ),
        ({"DimSize": "4 4 x"}, "its DimSize is damaged"),
        ({"ElementSpacing": "1 one 1"}, "its ElementSpacing is damaged"),
        ({"Offset": "0 0 9e9"}, "the place of its first voxel is impossible"),
    ],
)
def test_a_damaged_metaimage_is_refused(refused, tmp_path, changes, said):
    assert said in refused("info", meta(tmp_path, **changes))


NRRD = ["NRRD0004", "type: int16", "dimension: 3", "sizes: 4 4 2", "encoding: raw", "endian: little"]
PLACED = ["space: left-posterior-superior", "space directions: (1,0,0) (0,1,0) (0,0,1)"]


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        (["spacings: 1 1_5 1"], "its spacings are damaged"),  # ITK reads 1, others 15
        ([*PLACED, "space origin: (0,0,1_5)"], "its place is damaged"),
        ([*PLACED, "space origin: (0,0,0,5)"], "is damaged"),
    ],
)
def test_a_damaged_nrrd_is_refused(refused, tmp_path, fields, said):
    path = tmp_path / "scan.nrrd"
    path.write_bytes("\n".join([*NRRD, *fields, "", ""]).encode() + bytes(64))
    assert said in refused("info", path)


@pytest.mark.parametrize("named", ["gone.raw", "part%02d.raw 1 2 1", "LIST"])
@pytest.mark.parametrize("kind", ["mhd", "nhdr"])
def test_voxels_that_are_not_there_are_named(refused, tmp_path, named, kind):
    path = tmp_path / f"scan.{kind}"
    if kind == "mhd":
        text = "".join(f"{key} = {value}\n" for key, value in (META | {"ElementDataFile": named}).items())
    else:
        text = "\n".join([*NRRD, "spacings: 1 1 1", f"data file: {named}", ""])
    path.write_text(text + "part01.raw\npart02.raw\n" * (named == "LIST"))
    if named != "gone.raw":
        (tmp_path / "part01.raw").write_bytes(bytes(32))
    name = "gone.raw" if named == "gone.raw" else "part02.raw"
    assert f"scan.{kind}: its voxels, {name}, are not there" in refused("info", path)


def test_an_nrrd_that_is_packed_in_another_way_is_refused(refused, tmp_path):
    path = tmp_path / "scan.nrrd"
    fields = [field if field != "encoding: raw" else "encoding: zrl" for field in NRRD]
    path.write_bytes("\n".join([*fields, "spacings: 1 1 1", "", ""]).encode() + bytes(64))
    assert "its encoding is not among those that are read (raw, gzip" in refused("info", path)


def test_a_nifti_with_two_spacings_is_refused(refused, tmp_path):
    path = tmp_path / "scan.nii"
    sitk.WriteImage(sitk.GetImageFromArray(np.zeros((2, 4, 4), np.int16)), str(path))
    head = bytearray(path.read_bytes())
    head[80:92] = np.array([2, 2, 2], "<f4").tobytes()
    path.write_bytes(head)
    assert "its sform and pixdim give different spacings" in refused("info", path)


def test_a_file_that_is_no_tiff_is_refused(refused, tmp_path):
    path = tmp_path / "stack.tif"
    path.write_bytes(b"no picture at all")
    assert f"{path}: is not a readable TIFF file" in refused("info", path)


def test_a_stack_among_images_is_refused(refused, tmp_path):
    sitk.WriteImage(sitk.GetImageFromArray(np.zeros((3, 8, 8), np.uint8)), str(tmp_path / "a.tif"))
    sitk.WriteImage(sitk.GetImageFromArray(np.zeros((8, 8), np.uint8)), str(tmp_path / "b.tif"))
    assert "a.tif: is a stack inside a folder of images" in refused("info", tmp_path, "--spacing", "0.01")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"series": ["1.2.3"]}, "has no series 1.2.3; choose one by its UID"),
        ({"ImagePositionPatient": None}, "has no ImagePositionPatient or ImageOrientationPatient"),
        ({"RescaleSlope": "0"}, "has an invalid rescale slope or intercept"),
        ({"ImagePositionPatient": [0, 0]}, "has no ImagePositionPatient or ImageOrientationPatient"),
    ],
)
def test_a_dicom_image_that_cannot_be_a_slice_is_refused(refused, tmp_path, write_dicom, change, said):
    files = write_dicom(tmp_path / "ct", np.full((3, 8, 8), 1000), [(0, 0, z) for z in range(3)])
    asked = ["--series", *change.pop("series")] if "series" in change else []
    for keyword, value in change.items():
        data = pydicom.dcmread(files[1])
        if value is None:
            delattr(data, keyword)
        else:
            setattr(data, keyword, value)
        data.save_as(files[1])
    assert said in refused("info", tmp_path / "ct", *asked)


def test_a_dicom_image_with_more_pixels_than_its_file_could_hold_is_refused(refused, tmp_path, write_dicom):
    (file,) = write_dicom(tmp_path / "ct", np.full((1, 8, 8), 1000), [(0, 0, 0)])
    data = pydicom.dcmread(file)
    data.Rows = data.Columns = 65000
    data.save_as(file)
    assert "has 65000x65000 pixels by its header, too many for its size" in refused("info", tmp_path / "ct")


def test_a_pixel_type_that_no_ct_has_is_refused(refused, tmp_path, write_dicom, monkeypatch):
    write_dicom(tmp_path / "ct", np.full((1, 8, 8), 1000), [(0, 0, 0)])
    monkeypatch.setattr(dicom, "TYPES", {})
    assert "has an unsupported pixel type (32-bit signed integer)" in refused("info", tmp_path / "ct")


def test_a_dicom_header_that_two_readers_read_differently_is_refused(refused, tmp_path, write_dicom, monkeypatch):
    write_dicom(tmp_path / "ct", np.full((1, 8, 8), 1000), [(0, 0, 0)])
    read = pydicom.dcmread

    def other(path, **how):
        data = read(path, **how)
        data.Rows = 9
        return data

    monkeypatch.setattr(pydicom, "dcmread", other)
    assert "has a damaged header; copy it again" in refused("info", tmp_path / "ct")
    monkeypatch.setattr(pydicom, "dcmread", lambda path, **how: pydicom.Dataset())
    assert "has a damaged header; copy it again" in refused("info", tmp_path / "ct")


def test_pixels_that_cannot_be_unpacked_are_refused(tmp_path, write_dicom):
    (file,) = write_dicom(tmp_path / "ct", np.full((1, 8, 8), 1000), [(0, 0, 0)])
    data = pydicom.dcmread(file)
    data.PixelData = encapsulate([b"no picture"])
    data["PixelData"].is_undefined_length = True
    data.file_meta.TransferSyntaxUID = JPEGLosslessSV1
    data.is_implicit_VR = False
    data.save_as(file)
    with pytest.raises(UserError, match=r"image0\.dcm: pixels cannot be read, the file is damaged or truncated"):
        readers.read_scan(Scan(path=str(tmp_path / "ct"))).array[0]


def test_voxels_that_itk_cannot_unpack_are_refused(tmp_path, monkeypatch):
    path = tmp_path / "a.tif"
    sitk.WriteImage(sitk.GetImageFromArray(np.zeros((64, 64), np.uint8)), str(path), useCompression=True)
    with monkeypatch.context() as small:
        small.setattr(readers.os, "sysconf", lambda name: 1)
        with pytest.raises(UserError, match=r"a\.tif: has 0 GB of voxels by its header, more than the memory"):
            readers.itk_array(readers.itk_reader(path))
    reader = readers.itk_reader(path)
    path.write_bytes(b"gone since")
    with pytest.raises(UserError, match=r"a\.tif: cannot be read, it is damaged or truncated"):
        readers.itk_array(reader)
