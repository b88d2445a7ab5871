"""CT values as DICOM: the project's own reader gives the same volume back, and no name is invented or on a wrong
volume.
"""

import dataclasses

import numpy as np
import pydicom
import pytest
from pydicom.sr.codedict import codes

from microsr.config.sheet import Scan
from microsr.core.errors import UserError
from microsr.formats.dicom_series import SPATIAL_RESAMPLING, DerivedSeries, write_series
from microsr.formats.readers import read_scan
from microsr.volume.storage import Volume, magnified_geometry


@pytest.fixture
def volume() -> Volume:
    hu = np.random.default_rng(0).integers(-1024, 3000, (4, 6, 5)).astype(np.int16)
    return Volume(hu, spacing=(0.625, 0.7, 0.6), origin=(-29.6875, 12.34567891234, -2.1))


def test_what_is_written_is_read_back(tmp_path, volume):
    files = write_series(tmp_path / "dicom", volume, "test1", 1, "lung")
    read = read_scan(Scan(path=str(tmp_path / "dicom")))
    assert len(files) == 4
    assert np.array_equal(read.array, volume.array)
    assert read.spacing == pytest.approx(volume.spacing) and read.origin == pytest.approx(volume.origin)
    assert read.direction == pytest.approx(volume.direction)


def test_a_tilted_grid_keeps_its_direction(tmp_path, volume):
    turned = (0.6, -0.8, 0.0, 0.8, 0.6, 0.0, 0.0, 0.0, 1.0)
    tilted = Volume(volume.array, spacing=volume.spacing, origin=volume.origin, direction=turned)
    write_series(tmp_path, tilted, "test1", 1, "lung")
    read = read_scan(Scan(path=str(tmp_path)))
    assert read.direction == pytest.approx(turned) and np.array_equal(read.array, volume.array)


def test_each_file_is_a_ct_image_with_its_kernel_and_thickness_and_the_cases_name_only(tmp_path, volume):
    files = write_series(tmp_path, volume, "test1", 1, "B30")
    headers = [pydicom.dcmread(f) for f in files]
    first = headers[0]
    assert first.file_meta.MediaStorageSOPClassUID == first.SOPClassUID == pydicom.uid.CTImageStorage
    assert (first.Modality, first.ConvolutionKernel, first.SliceThickness) == ("CT", "B30", 0.6)
    assert (str(first.PatientName), first.PatientID, first.PatientBirthDate) == ("test1", "test1", "")
    assert first.pixel_array[2, 3] * first.RescaleSlope + first.RescaleIntercept == volume.array[0, 2, 3]
    assert len({h.SOPInstanceUID for h in headers}) == 4 and len({h.SeriesInstanceUID for h in headers}) == 1
    assert [float(h.ImagePositionPatient[2]) for h in headers] == pytest.approx([-2.1, -1.5, -0.9, -0.3])


def test_case_and_seed_decide_every_byte_and_cases_have_uids_of_their_own(tmp_path, volume):
    one, same = (write_series(tmp_path / n, volume, "test1", 1, "lung") for n in "ab")
    assert [f.read_bytes() for f in one] == [f.read_bytes() for f in same]
    others = [write_series(tmp_path / n, volume, c, s, "lung") for n, c, s in (("c", "test2", 1), ("d", "test1", 2))]
    uids = {pydicom.dcmread(files[0]).SeriesInstanceUID for files in (one, *others)}
    assert len(uids) == 3


def test_a_shorter_series_leaves_no_slice_of_the_longer_one_before(tmp_path, volume):
    write_series(tmp_path / "dicom", volume, "test1", 1, "lung")
    write_series(tmp_path / "dicom", volume.slices(0, 2), "test1", 1, "lung")
    assert len(list((tmp_path / "dicom").iterdir())) == 2


def derive(folder, volume, source=None, **attributes):
    """Write a derived series and return its headers by number."""
    folder.mkdir()
    made_of = attributes.pop("made_of", None)
    series = attributes.pop("series", None)
    placed = dataclasses.replace(volume, attributes={**volume.attributes, **attributes})
    writer = DerivedSeries(folder, volume.shape, placed, source, series, made_of)
    for position, image in enumerate(volume.array):
        writer.write(position, image)
    return [pydicom.dcmread(path) for path in sorted(folder.iterdir())]


def enlarged(volume):
    """Eight times the rows and columns of a volume, in its place."""
    array = volume.array.repeat(8, axis=1).repeat(8, axis=2)
    return Volume(array, **magnified_geometry(volume, 8), attributes={"slices": list(range(volume.shape[0]))})


@pytest.fixture
def scan(tmp_path, volume):
    """Folder of a scan of someone, in which slices are in no order and thicker than they are apart."""
    write_series(tmp_path / "scan", volume, "p", 1, "lung")
    for number, path in enumerate(sorted((tmp_path / "scan").iterdir())):
        data = pydicom.dcmread(path)
        data.SpecificCharacterSet, data.PatientName, data.PatientID = "ISO_IR 192", "M\u00fcller^\u0141ukasz", "4711"
        data.PatientBirthDate, data.StudyDate, data.StudyDescription = "19500102", "20200304", "Thorax"
        data.PatientPosition, data.KVP, data.SeriesNumber, data.SliceThickness = "FFS", 120, 4, 1.5
        data.save_as(path.with_name(f"{(7 * number) % 4}.dcm"))
        path.unlink()
    return tmp_path / "scan"


def test_a_derived_series_says_that_it_is_derived_and_of_nobody(tmp_path, volume):
    first, *others = derive(tmp_path / "d", volume, derivation="8x by a network", description="Super-resolved \u00fc")
    assert first.SOPClassUID == pydicom.uid.CTImageStorage and list(first.ImageType) == [
        "DERIVED",
        "SECONDARY",
        "AXIAL",
    ]
    assert (first.DerivationDescription, first.SeriesDescription) == ("8x by a network", "Super-resolved ?")
    assert (first.PatientName, first.PatientID, first.StudyDate) == ("", "", "")
    assert (first.BurnedInAnnotation, first.RescaleType) == ("NO", "HU")
    assert "LossyImageCompression" not in first, "nothing is known of what it was made from"
    assert (first.RescaleSlope, first.RescaleIntercept, first.PixelRepresentation) == (1, 0, 1)
    assert (
        len({h.SOPInstanceUID for h in (first, *others)}) == 4
        and len({h.SeriesInstanceUID for h in (first, *others)}) == 1
    )
    assert np.array_equal(first.pixel_array, volume.array[0]) and "SourceImageSequence" not in first


def test_the_code_of_a_derivation_is_pydicoms():
    code = codes.cid7203.SpatialResampling
    assert (code.value, code.scheme_designator, code.meaning) == SPATIAL_RESAMPLING


def test_all_int16_hu_are_kept(tmp_path):
    hu = np.array([[[-32768, -1024, 0, 32767]]], np.int16)
    derive(tmp_path / "d", Volume(hu, (1, 1, 1)))
    assert np.array_equal(np.asarray(read_scan(Scan(path=str(tmp_path / "d"))).array[:]), hu)


def test_different_results_have_different_uids(tmp_path, volume):
    ways = [{}, {"case": "b"}, {"made_of": {"model": "1"}}, {"made_of": {"model": "2"}}]
    headers = [derive(tmp_path / str(i), volume, **way) for i, way in enumerate(ways)]
    moved = dataclasses.replace(volume, origin=(0.0, 0.0, 0.0))
    headers.append(derive(tmp_path / "moved", moved))
    for uid in ("SeriesInstanceUID", "SOPInstanceUID", "StudyInstanceUID"):
        assert len({h[0][uid].value for h in headers}) == 5
    again = derive(tmp_path / "again", volume)
    assert again[2].SOPInstanceUID == headers[0][2].SOPInstanceUID


def test_a_left_handed_volume_is_numbered_along_its_normal_and_keeps_its_place(tmp_path, volume):
    mirrored = dataclasses.replace(volume, direction=(1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, -1.0))
    headers = derive(tmp_path / "d", mirrored)
    assert [h.InstanceNumber for h in headers] == [1, 2, 3, 4]
    assert [float(h.ImagePositionPatient[2]) for h in headers] == pytest.approx([-3.9, -3.3, -2.7, -2.1])
    assert np.array_equal(headers[0].pixel_array, volume.array[3])


def test_a_series_derived_from_a_scan_says_how_it_was_taken_and_of_nobody(tmp_path, volume, scan):
    headers = derive(tmp_path / "d", enlarged(volume), scan)
    one = next(pydicom.dcmread(path) for path in scan.iterdir())
    for key in ("PatientPosition", "KVP", "SliceThickness"):
        assert headers[0][key].value == one[key].value, key
    for key in ("PatientName", "PatientID", "PatientBirthDate", "StudyDate"):
        assert one[key].value and not headers[0][key].value, key
    assert "StudyDescription" not in headers[0] and "SourceImageSequence" not in headers[0]
    uids = {
        data[key].value for data in headers for key in ("StudyInstanceUID", "FrameOfReferenceUID", "SOPInstanceUID")
    }
    theirs = {element.value for path in scan.iterdir() for element in pydicom.dcmread(path) if element.VR == "UI"}
    assert len(uids) == 6 and not uids & theirs


@pytest.mark.parametrize(
    ("keyword", "value", "kept"),
    [
        ("PatientPosition", "FFDR", "FFDR"), ("PatientPosition", "MILLER", ""), ("KVP", "100", 100),
        ("KVP", "", None), ("LossyImageCompression", "NAME", None),
        ("LossyImageCompressionMethod", "ISO_15444_1", "ISO_15444_1"), ("LossyImageCompressionMethod", "NAME", None),
        ("BodyPartExamined", "NAME", None),
    ],
)  # fmt: skip
def test_only_numbers_and_defined_terms_come_from_a_source(tmp_path, volume, scan, keyword, value, kept):
    for path in scan.iterdir():
        data = pydicom.dcmread(path)
        setattr(data, keyword, value)
        data.save_as(path)
    first, *_ = derive(tmp_path / "d", enlarged(volume), scan)
    assert first.get(keyword) == kept


def test_what_was_compressed_with_loss_once_says_so_ever_after(tmp_path, volume, scan):
    for path in scan.iterdir():
        data = pydicom.dcmread(path)
        data.LossyImageCompression, data.LossyImageCompressionRatio = "01", 10
        data.save_as(path)
    first, *_ = derive(tmp_path / "d", enlarged(volume), scan)
    assert (first.LossyImageCompression, first.LossyImageCompressionRatio) == ("01", 10)


def test_a_part_of_the_slices_and_of_their_area_is_derived_from_the_scan_too(tmp_path, volume, scan):
    corner = dataclasses.replace(
        volume.slices(2, 4), origin=tuple(volume.point((2, 3, 1))), array=volume.array[2:, 3:5, 1:]
    )
    headers = derive(tmp_path / "d", enlarged(corner), scan, corner=[3, 1])
    assert [h.KVP for h in headers] == [120, 120]
    with pytest.raises(UserError, match="does not lie where the volume does"):
        derive(tmp_path / "e", enlarged(corner), scan)


@pytest.mark.parametrize("change", [
    {"origin": (-29.0, 12.34567891234, -2.1)}, {"origin": (-29.6875, 12.34567891234, -1.8)},
    {"spacing": (0.7, 0.7, 0.6)}, {"spacing": (0.625, 0.7, 0.8)},
    {"direction": (0.6, -0.8, 0.0, 0.8, 0.6, 0.0, 0.0, 0.0, 1.0)},
], ids=["aside", "between slices", "pixels", "slice distance", "direction"])  # fmt: skip
def test_nothing_goes_onto_a_volume_that_lies_elsewhere(tmp_path, volume, scan, change):
    with pytest.raises(UserError, match="made from another series"):
        derive(tmp_path / "d", enlarged(dataclasses.replace(volume, **change)), scan)


def test_a_source_that_is_no_single_series_is_refused(tmp_path, volume, scan):
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="holds no such DICOM series"):
        derive(tmp_path / "a", enlarged(volume), tmp_path / "empty")
    with pytest.raises(UserError, match="does not exist"):
        derive(tmp_path / "b", enlarged(volume), tmp_path / "none")
    uid = pydicom.dcmread(next(scan.iterdir())).SeriesInstanceUID
    for index, path in enumerate(write_series(tmp_path / "other", volume, "q", 1, "lung")):
        path.rename(scan / f"other{index}.dcm")
    with pytest.raises(UserError, match="holds 2 series"):
        derive(tmp_path / "c", enlarged(volume), scan)
    assert derive(tmp_path / "d", enlarged(volume), scan, series=uid)[0].KVP == 120


def test_values_that_are_no_hu_are_refused(tmp_path, volume):
    with pytest.raises(UserError, match="a DICOM CT holds HU"):
        derive(tmp_path / "d", dataclasses.replace(volume, unit="grey"))


def test_a_source_whose_headers_say_too_little_is_refused(tmp_path, volume, scan, monkeypatch):
    file = min(scan.iterdir())
    data = pydicom.dcmread(file)
    del data.PixelSpacing
    data.save_as(file)
    with pytest.raises(UserError, match=f"{file.name}: has no PixelSpacing, as a series of single slices has"):
        derive(tmp_path / "a", enlarged(volume), scan)
    monkeypatch.setattr("microsr.formats.dicom_series.pydicom.dcmread", lambda path, **how: 1 / 0)
    with pytest.raises(UserError, match="has a damaged header; copy it again, or write the result without a source"):
        derive(tmp_path / "b", enlarged(volume), scan)
