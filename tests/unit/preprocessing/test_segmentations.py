"""DICOM segmentations as masks: each frame lies where it says, on the slices of the scan that it is of."""

import os
import subprocess
from pathlib import Path

import numpy as np
import pydicom
import pytest
import SimpleITK as sitk
from pydicom.dataset import Dataset, FileDataset, FileMetaDataset
from pydicom.sequence import Sequence

from microsr.config import ClinicalVolume
from microsr.config.sheet import Scan
from microsr.core.errors import UserError
from microsr.formats.dicom_series import write_series
from microsr.preprocessing.volumes import import_clinical
from microsr.volume.storage import Volume, open_mask

SHAPE = (5, 21, 23)
"""Slices, rows, columns: a frame of 483 bits ends within a byte."""
OBLIQUE = (0.8, 0.6, 0.0, -0.6, 0.8, 0.0, 0.0, 0.0, 1.0)
PLACE = {"spacing": (0.5, 0.6, 1.5), "origin": (-7.0, 9.0, 30.0), "direction": OBLIQUE}
FILE = {"mask": "file"}


@pytest.fixture
def scan(tmp_path):
    """Folder of a CT."""
    hu = np.random.default_rng(5).integers(-200, 1500, SHAPE).astype(np.int16)
    write_series(tmp_path / "scan", Volume(hu, **PLACE), "a", 1, "lung")
    return tmp_path / "scan"


@pytest.fixture
def labels():
    """Two segments in slices 1 to 3, [slices, rows, columns], none its own mirror image."""
    found = np.zeros(SHAPE, np.uint8)
    found[1:3, 3:9, 2:15] = 1
    found[2:4, 8:17, 14:20] = 2
    return found


def frames_of(labels):
    """(segment, slice, pixels) of each frame, as a workstation writes them: those that hold something."""
    return [(one, z, labels[z] == one) for one in (1, 2) for z in range(len(labels)) if (labels[z] == one).any()]


def item(**elements):
    found = Dataset()
    for keyword, value in elements.items():
        setattr(found, keyword, value)
    return Sequence([found])


def write_segmentation(path, scan, frames, kind="BINARY", flip=False, shift=0.0, **changes):
    """A SEG of `frames` on the grid of the CT in the folder `scan`, with pydicom alone.

    flip: rows are numbered from below, so that the normal points the other way. shift: mm along the slices' normal.
    """
    series = [pydicom.dcmread(one) for one in sorted(scan.iterdir())]
    first = series[0]
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = "1.2.840.10008.5.1.4.1.1.66.4"
    meta.MediaStorageSOPInstanceUID = pydicom.uid.generate_uid()
    meta.TransferSyntaxUID = changes.pop("syntax", pydicom.uid.ExplicitVRLittleEndian)
    data = FileDataset(str(path), {}, file_meta=meta, preamble=b"\0" * 128)
    data.is_little_endian, data.is_implicit_VR = True, False
    data.SOPClassUID, data.SOPInstanceUID = meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID
    data.Modality, data.SegmentationType, data.NumberOfFrames = "SEG", kind, len(frames)
    data.FrameOfReferenceUID = changes.pop("frame", first.FrameOfReferenceUID)
    data.Rows, data.Columns, data.SamplesPerPixel, data.PhotometricInterpretation = *SHAPE[1:], 1, "MONOCHROME2"
    axes = np.array(first.ImageOrientationPatient, float).reshape(2, 3)
    normal = np.cross(*axes)
    if flip:
        corner = axes[1] * float(first.PixelSpacing[0]) * (SHAPE[1] - 1)
        axes = axes * [[1], [-1]]
    shared = Dataset()
    shared.PlaneOrientationSequence = item(ImageOrientationPatient=[f"{v:.6g}" for v in axes.ravel()])
    shared.PixelMeasuresSequence = item(PixelSpacing=first.PixelSpacing, SliceThickness=first.SliceThickness)
    data.SharedFunctionalGroupsSequence = Sequence([shared])
    groups = []
    for segment, z, _ in frames:
        start = np.array(series[z].ImagePositionPatient, float) + shift * normal + (corner if flip else 0)
        group = Dataset()
        group.PlanePositionSequence = item(ImagePositionPatient=[f"{v:.8g}" for v in start])
        group.SegmentIdentificationSequence = item(ReferencedSegmentNumber=segment)
        groups.append(group)
    data.PerFrameFunctionalGroupsSequence = Sequence(groups)
    pixels = np.stack([image[::-1] if flip else image for *_, image in frames])
    data.PixelRepresentation = 0
    if kind == "BINARY":
        data.BitsAllocated, data.BitsStored, data.HighBit = 1, 1, 0
        packed = np.packbits(pixels.ravel(), bitorder="little").tobytes()
    else:
        data.BitsAllocated, data.BitsStored, data.HighBit = 8, 8, 7
        data.MaximumFractionalValue, data.SegmentationFractionalType = 200, "PROBABILITY"
        packed = (pixels * 100 + ~pixels * np.uint8(99)).astype(np.uint8).tobytes()  # a half and a little less
    data.PixelData = packed + b"\0" * (len(packed) % 2)
    data["PixelData"].VR = "OB"
    for keyword, value in changes.items():
        setattr(data, keyword, value)
    data.save_as(path, write_like_original=False)
    return path


VALIDATORS = Path(__file__).parents[3] / ".venv-validators/bin/python"
"""Made by `make validators`."""


def mask_of(tmp_path, scan, given, **words):
    output = tmp_path / "o" / "c.ome.zarr"
    import_clinical(Scan(path=str(scan), **words), "a", ClinicalVolume.model_validate(FILE), output, str(given))
    return open_mask(output)[:] > 0


@pytest.mark.parametrize("kind", ["BINARY", "FRACTIONAL"])
@pytest.mark.parametrize("flip", [False, True], ids=["as-scanned", "flipped"])
def test_the_frames_of_all_segments_lie_where_they_say(kind, flip, scan, labels, tmp_path):
    frames = frames_of(labels)[::-1]  # in no order of the slices
    given = write_segmentation(tmp_path / "seg.dcm", scan, frames, kind, flip)
    assert np.array_equal(mask_of(tmp_path, scan, given), labels != 0)


def test_what_highdicom_writes_lies_where_it_says(scan, labels, tmp_path):
    """An independent writer, whose dependencies exclude those of this environment."""
    if not VALIDATORS.exists():
        (pytest.fail if os.environ.get("CI") else pytest.skip)("no highdicom: make validators")
    np.save(tmp_path / "labels.npy", labels)
    script = Path(__file__).parents[2] / "validators/segmentation.py"
    command = [VALIDATORS, script, scan, tmp_path / "labels.npy", tmp_path / "seg.dcm"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert np.array_equal(mask_of(tmp_path, scan, tmp_path / "seg.dcm"), labels != 0)


def test_a_folder_that_holds_nothing_but_the_segmentation_is_one_too(scan, labels, tmp_path):
    (tmp_path / "seg").mkdir()
    write_segmentation(tmp_path / "seg/1.dcm", scan, frames_of(labels))
    assert np.array_equal(mask_of(tmp_path, scan, tmp_path / "seg"), labels != 0)


def test_of_a_part_of_the_scan_it_is_that_part(scan, labels, tmp_path):
    given = write_segmentation(tmp_path / "seg.dcm", scan, frames_of(labels))
    assert np.array_equal(mask_of(tmp_path, scan, given, slices="2:5"), labels[2:5] != 0)


def test_a_single_frame_is_one_slice(scan, labels, tmp_path):
    given = write_segmentation(tmp_path / "seg.dcm", scan, [(1, 3, labels[2] == 1)])
    found = mask_of(tmp_path, scan, given)
    assert np.array_equal(found[3], labels[2] == 1) and not found[[0, 1, 2, 4]].any()


def test_of_a_scan_that_is_no_dicom_the_places_alone_count(scan, labels, tmp_path):
    image = sitk.ReadImage(sitk.ImageSeriesReader.GetGDCMSeriesFileNames(str(scan)))
    sitk.WriteImage(image, str(tmp_path / "scan.nii.gz"))
    given = write_segmentation(tmp_path / "seg.dcm", scan, frames_of(labels))
    assert np.array_equal(mask_of(tmp_path, tmp_path / "scan.nii.gz", given), labels != 0)


def test_another_frame_of_reference_is_refused_and_the_way_out_works(scan, labels, tmp_path):
    given = write_segmentation(tmp_path / "seg.dcm", scan, frames_of(labels), frame=pydicom.uid.generate_uid())
    with pytest.raises(UserError, match=r"seg\.dcm: is in another frame of reference than .*scan.*as NIfTI") as error:
        mask_of(tmp_path, scan, given)
    assert "\n" not in str(error.value) and not (tmp_path / "o/c.ome.zarr").exists()
    image = sitk.GetImageFromArray(labels)
    image.CopyInformation(sitk.ReadImage(sitk.ImageSeriesReader.GetGDCMSeriesFileNames(str(scan))))
    sitk.WriteImage(image, str(tmp_path / "mask.nii.gz"))
    assert np.array_equal(mask_of(tmp_path, scan, tmp_path / "mask.nii.gz"), labels != 0)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"shift": 0.4}, r"its grid is not that of .*voxels .* apart"),
        (
            {"syntax": pydicom.uid.RLELossless, "PixelData": pydicom.encaps.encapsulate([b"\0\0"])},
            r"frames are packed .*; save it without compression or as NIfTI",
        ),
        ({"PixelData": b"\0" * 10}, r"is damaged .*its header: ValueError"),
        ({"SharedFunctionalGroupsSequence": None}, r"is damaged .*its header"),
        ({"NumberOfFrames": 9}, r"is damaged .*its header: ValueError"),
    ],
    ids=["moved", "packed", "cut", "without place", "too few places"],
)
def test_what_cannot_be_placed_or_read_is_refused_in_one_line(changes, message, scan, labels, tmp_path):
    given = write_segmentation(tmp_path / "seg.dcm", scan, frames_of(labels), **changes)
    with pytest.raises(UserError, match=message) as error:
        mask_of(tmp_path, scan, given)
    assert "\n" not in str(error.value)


def test_frames_between_the_slices_are_refused(scan, labels, tmp_path):
    frames = frames_of(labels)
    given = write_segmentation(tmp_path / "seg.dcm", scan, frames)
    data = pydicom.dcmread(given)
    place = data.PerFrameFunctionalGroupsSequence[-1].PlanePositionSequence[0]
    place.ImagePositionPatient[2] = float(place.ImagePositionPatient[2]) + 0.6
    data.save_as(given)
    with pytest.raises(
        UserError, match=r"seg\.dcm: its frames lie up to 0\.4 slice distances beside the scan's slices"
    ):
        mask_of(tmp_path, scan, given)


def test_a_segmentation_that_holds_nothing_is_said_to_be_empty(scan, labels, tmp_path):
    given = write_segmentation(tmp_path / "seg.dcm", scan, [(1, 2, np.zeros(SHAPE[1:], bool))])
    with pytest.raises(UserError, match="has nothing but 0 where"):
        mask_of(tmp_path, scan, given)
