"""What stands in a folder beside the slices, and slices that are not axial, repeated or missing: read right, or told.

The headers are pydicom's, the values are read by pydicom again.
"""

import logging
import re

import numpy as np
import pydicom
import pytest
from pydicom.dataset import FileDataset, FileMetaDataset
from pydicom.uid import UID_dictionary

from microsr import cli
from microsr.config.sheet import Scan
from microsr.core.errors import UserError
from microsr.formats.readers import read_scan
from microsr.inference.superresolve import superresolve
from microsr.inference.upsamplers import Bicubic

PLANES = {
    "axial": (r"1\0\0\0\1\0", (0.0, 0.0, 1.0)),
    "sagittal": (r"0\1\0\0\0\-1", (-1.0, 0.0, 0.0)),
    "coronal": (r"1\0\0\0\0\-1", (0.0, 1.0, 0.0)),
    "oblique": (r"1\0\0\0\0.70710678\-0.70710678", (0.0, 0.70710678, 0.70710678)),
}
"""Orientation of the slices, and their normal."""


@pytest.fixture
def stored(chest):
    """Stored values of a chest, [6, 64, 64]."""
    return np.rint(chest).astype(int) + 1024


@pytest.fixture
def scan(tmp_path, stored, write_dicom):
    """Writes a chest of six slices in a plane: their folder."""

    def make(plane="axial", **how):
        orientation, normal = PLANES[plane]
        positions = [tuple(float(v) for v in 1.25 * z * np.array(normal) + np.array([5, 6, 7])) for z in range(6)]
        write_dicom(tmp_path / "scan", stored, positions, pixel=(0.7, 0.7), orientation=orientation, **how)
        return tmp_path / "scan"

    return make


@pytest.fixture
def said(caplog):
    """What is logged."""
    caplog.set_level(logging.INFO, "microsr")
    return lambda: caplog.text


def change(path, **values):
    data = pydicom.dcmread(path)
    for keyword, value in values.items():
        setattr(data, keyword, value)
    data.save_as(path)


def write_object(path, sop_class, **values):
    """A DICOM file without pixels."""
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID = sop_class, "1.2.3.4"
    meta.TransferSyntaxUID = pydicom.uid.ExplicitVRLittleEndian
    data = FileDataset("", {}, file_meta=meta, preamble=b"\0" * 128)
    data.is_little_endian, data.is_implicit_VR = True, False
    data.SOPClassUID, data.SOPInstanceUID = sop_class, "1.2.3.4"
    data.StudyInstanceUID, data.SeriesInstanceUID, data.Modality = "1.2.3", "1.2.3.5", "OT"
    for keyword, value in values.items():
        setattr(data, keyword, value)
    data.save_as(path, write_like_original=False)


WITHOUT_PIXELS = sorted(
    uid
    for uid, (name, kind, *_) in UID_dictionary.items()
    if kind == "SOP Class" and "Storage" in name and name != "Media Storage Directory Storage"
    and not re.search("Image|Segmentation|Parametric|RT Dose|Photography|Surface Scan|Video|Commitment|Retired", name)
)  # fmt: skip


@pytest.mark.parametrize("sop_class", [*WITHOUT_PIXELS, "1.3.12.2.1107.5.9.1"])
def test_an_object_without_pixels_beside_a_series_is_passed_over(scan, said, sop_class):
    folder = scan()
    write_object(folder / "zz.dcm", sop_class)
    volume = read_scan(Scan(path=str(folder)))
    assert volume.shape == (6, 64, 64)
    assert "DICOM files are passed over: 1 without pixels" in said()


@pytest.mark.parametrize("sop_class", ["1.2.840.10008.5.1.4.1.1.2", "1.2.840.10008.5.1.4.1.1.7"])
def test_an_image_without_pixels_is_damaged(scan, sop_class):
    folder = scan()
    write_object(folder / "zz.dcm", sop_class)
    with pytest.raises(UserError, match=r"zz\.dcm: cannot be read as a DICOM image"):
        read_scan(Scan(path=str(folder)))


@pytest.mark.parametrize("kind", ["LOCALIZER", "SCOUT"])
def test_a_localizer_is_refused_by_itself_and_passed_over_beside_slices(scan, said, write_dicom, stored, kind):
    folder = scan()
    for series, name in (("1.2.7", "scout"), ("1.2.826.0.1.3680043.2.1", "same")):
        (file,) = write_dicom(folder, stored[:1], [(0, 0, 0)], orientation=r"1\0\0\0\0\-1", series=series, name=name)
        change(file, ImageType=["ORIGINAL", "PRIMARY", kind])
    assert read_scan(Scan(path=str(folder))).shape == (6, 64, 64)
    assert "passed over: 2 localizers" in said()
    for path, asked in ((folder / "scout0.dcm", {}), (folder, {"series": "1.2.7"})):
        with pytest.raises(UserError, match=r"scout0\.dcm: is a localizer by its ImageType"):
            read_scan(Scan(path=str(path), **asked))


def test_a_series_with_a_localizer_and_copies_can_be_the_source_of_a_result(scan, tmp_path, write_dicom, stored):
    folder = scan()
    (file,) = write_dicom(folder, stored[:1], [(0, 0, 0)], orientation=r"1\0\0\0\0\-1", series="1.2.7", name="scout")
    change(file, ImageType=["ORIGINAL", "PRIMARY", "LOCALIZER"])
    for path in list(folder.glob("image*")):
        (folder / f"{path.stem} copy.dcm").write_bytes(path.read_bytes())
    superresolve(folder, tmp_path / "sr", Bicubic(), "1:3")
    assert len(list((tmp_path / "sr").iterdir())) == 2


def test_copies_are_read_once(scan, said, stored):
    folder = scan()
    for path in list(folder.iterdir()):
        (folder / f"{path.stem} copy.dcm").write_bytes(path.read_bytes())
    change(folder / "image3 copy.dcm", SOPInstanceUID="1.2.3.99", PatientName="another")  # sent again by an archive
    volume = read_scan(Scan(path=str(folder)))
    assert np.array_equal(np.asarray(volume.array), stored - 1024) and volume.spacing[2] == pytest.approx(1.25)
    assert "passed over: 6 copies of others" in said()


def test_slices_of_one_uid_but_other_places_are_no_copies(scan):
    folder = scan()
    for path in folder.iterdir():
        change(path, SOPInstanceUID="1.2.3.99")
    assert read_scan(Scan(path=str(folder))).shape == (6, 64, 64)


def test_two_slices_in_one_place_that_differ_are_refused(scan):
    folder = scan()
    other = folder / "image2 other.dcm"
    other.write_bytes((folder / "image2.dcm").read_bytes())
    data = pydicom.dcmread(other)
    pixels = data.pixel_array.copy()
    pixels[0, 0] += 1
    data.PixelData = pixels.tobytes()
    data.save_as(other)
    with pytest.raises(UserError, match="two slices at one position"):
        read_scan(Scan(path=str(folder)))


@pytest.mark.parametrize("gone", [(3,), (1,), (1, 2), (2, 4)])
def test_the_advised_part_of_a_series_with_a_gap_gets_through(scan, tmp_path, capsys, gone):
    folder = scan()
    for number in gone:
        (folder / f"image{number}.dcm").unlink()
    with pytest.raises(UserError, match="slice gaps vary") as error:
        read_scan(Scan(path=str(folder)))
    advised = re.search(r"the even part (\d+:\d+)", str(error.value))[1]
    cli.main(["info", str(folder), "--slices", advised])
    capsys.readouterr()
    for command in (
        f"superresolve {folder} --upsampler bicubic --output {tmp_path}/sr.nii",
        f"volumes clinical --case a --input {folder} --output {tmp_path}/c.ome.zarr",
    ):
        cli.main([*command.split(), "--slices", advised])
    volume = read_scan(Scan(path=str(folder), slices=advised))
    assert volume.spacing[2] == pytest.approx(2.5 if gone == (2, 4) else 1.25)


def test_a_part_of_a_scan_is_super_resolved_in_its_place(scan, tmp_path):
    folder = scan()
    superresolve(folder, tmp_path / "whole.ome.zarr", Bicubic())
    superresolve(folder, tmp_path / "part.ome.zarr", Bicubic(), "2:5")
    from microsr.volume.storage import open_volume

    whole, part = open_volume(tmp_path / "whole.ome.zarr"), open_volume(tmp_path / "part.ome.zarr")
    assert part.attributes["slices"] == [2, 3, 4]
    assert np.array_equal(part.array[:], whole.array[2:5])
    assert part.point((0, 3, 4)) == pytest.approx(whole.point((2, 3, 4)))


@pytest.mark.parametrize("plane", PLANES)
def test_slices_that_are_not_axial_are_told_and_not_called_so(scan, tmp_path, caplog, plane):
    folder = scan(plane)
    superresolve(folder, tmp_path / "sr", Bicubic(), [2])
    warned = f"its slices are {plane}, not axial" in caplog.text
    assert warned == (plane != "axial")
    (file,) = (tmp_path / "sr").iterdir()
    kind = list(pydicom.dcmread(file).ImageType)
    assert kind == ["DERIVED", "SECONDARY", "AXIAL" if plane == "axial" else "OTHER"]


def test_a_derived_image_claims_nothing_that_is_not_known(tmp_path, chest):
    from microsr.volume.storage import Volume, write_volume

    write_volume(tmp_path / "c.ome.zarr", Volume(chest, (0.7, 0.7, 1.25), attributes={"case": "a"}))
    superresolve(tmp_path / "c.ome.zarr", tmp_path / "sr", Bicubic(), [0, 2, 4])
    data = pydicom.dcmread(sorted((tmp_path / "sr").iterdir())[0])
    assert data.PatientPosition in ("", None) and "BodyPartExamined" not in data
    assert (data.SliceThickness, data.SpacingBetweenSlices) == (1.25, 2.5), "thick as a slice, not as the gap"
    assert data.DerivationCodeSequence[0].CodeMeaning == "Spatial resampling"
    from microsr.inference.export import export

    export(tmp_path / "c.ome.zarr", tmp_path / "as_it_is")
    data = pydicom.dcmread(sorted((tmp_path / "as_it_is").iterdir())[0])
    assert "DerivationCodeSequence" not in data, "an import is not resampled"


def test_a_ct_slice_whose_header_is_lost_is_damaged_not_an_object_without_pixels(scan):
    folder = scan()
    write_object(folder / "zz.dcm", pydicom.uid.CTImageStorage)
    with pytest.raises(UserError, match="cannot be read as a DICOM image; it is damaged"):
        read_scan(Scan(path=str(folder)))
