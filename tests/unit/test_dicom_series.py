"""The simulated clinical scan as DICOM: the project's own reader gives the same volume back, and nobody is invented."""

import numpy as np
import pydicom
import pytest

from microsr.config import Scan
from microsr.dicom_series import write_series
from microsr.readers import read_scan
from microsr.storage import Volume


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
