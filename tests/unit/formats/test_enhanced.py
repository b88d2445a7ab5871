"""Enhanced CT by pydicom: frames in any order, with their own rescaling, packed or not; or refused with the true
reason.
"""

import io

import imagecodecs
import numpy as np
import pydicom
import pytest
from pydicom.dataset import Dataset, FileDataset, FileMetaDataset
from pydicom.encaps import encapsulate
from reading import read

from microsr.core.errors import UserError

SYNTAX = "1.2.840.10008.1.2.1"


@pytest.fixture
def values():
    return np.random.default_rng(0).integers(0, 3000, (4, 30, 25)).astype(np.uint16)


def item(**said):
    found = Dataset()
    for key, value in said.items():
        setattr(found, key, value)
    return found


def enhanced(
    values, syntax=SYNTAX, frames=None, order=None, positions=None, rescale=None, packed=None, kind="VOLUME", **said
):
    """A file with the frames in `order`; positions along z and rescaling of each frame."""
    count = len(values)
    order = order or list(range(count))
    positions = positions or [(1.0, 2.0, 10 + 1.5 * z) for z in range(count)]
    rescale = rescale or [(1, -1024)] * count
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = "1.2.840.10008.5.1.4.1.1.2.1"
    meta.MediaStorageSOPInstanceUID, meta.TransferSyntaxUID = "1.2.3", syntax
    data = FileDataset("", {}, file_meta=meta, preamble=bytes(128))
    data.is_little_endian, data.is_implicit_VR = True, syntax == "1.2.840.10008.1.2"
    data.SOPClassUID, data.SOPInstanceUID, data.Modality = meta.MediaStorageSOPClassUID, "1.2.3", "CT"
    data.PatientName, data.SeriesInstanceUID, data.NumberOfFrames = "Nobody^Secret", "1.2.4", frames or count
    data.SamplesPerPixel, data.PhotometricInterpretation = 1, "MONOCHROME2"
    data.Rows, data.Columns = values.shape[1:]
    data.BitsAllocated, data.BitsStored, data.HighBit, data.PixelRepresentation = 16, 16, 15, 0
    shared = item(
        PlaneOrientationSequence=[item(ImageOrientationPatient=[1, 0, 0, 0, 1, 0])],
        PixelMeasuresSequence=[item(PixelSpacing=[0.6, 0.5], SliceThickness=1.5)],
    )
    data.SharedFunctionalGroupsSequence = [shared]
    data.PerFrameFunctionalGroupsSequence = [
        item(
            PlanePositionSequence=[item(ImagePositionPatient=list(positions[z]))],
            PixelValueTransformationSequence=[item(RescaleSlope=rescale[z][0], RescaleIntercept=rescale[z][1])],
            CTImageFrameTypeSequence=[item(FrameType=["ORIGINAL", "PRIMARY", kind, "NONE"])],
        )
        for z in order
    ]
    chosen = [values[z] for z in order]
    data.PixelData = encapsulate([packed(i) for i in chosen]) if packed else np.stack(chosen).tobytes()
    if packed:
        data["PixelData"].is_undefined_length = True
    for key, value in said.items():
        setattr(data, key, value)
    stream = io.BytesIO()
    pydicom.dcmwrite(stream, data, write_like_original=False)
    return stream.getvalue()


def saved(folder, content):
    (folder / "a.dcm").write_bytes(content)
    return folder / "a.dcm"


def refused(match, path, **scan):
    with pytest.raises(UserError, match=match) as error:
        np.asarray(read(path, **scan).array)
    assert "\n" not in str(error.value) and "Secret" not in str(error.value) and path.parent.name in str(error.value)


@pytest.mark.parametrize("syntax", [SYNTAX, "1.2.840.10008.1.2"])
def test_frames_are_sorted_and_rescaled_one_by_one(tmp_path, values, syntax):
    rescale = [(1, -1024), (1, -1000), (2, -24), (0.5, 7)]
    path = saved(tmp_path, enhanced(values, syntax, order=[2, 0, 3, 1], rescale=rescale))
    volume = read(path)
    expected = [
        slope * image.astype(float) + intercept for image, (slope, intercept) in zip(values, rescale, strict=True)
    ]
    assert np.array_equal(volume.array, np.stack(expected)) and volume.array.dtype == np.float32
    assert volume.spacing == (0.5, 0.6, 1.5) and volume.origin == (1, 2, 10) and volume.unit == "grey"
    part = read(tmp_path, slices="1:3")
    assert np.array_equal(part.array, np.stack(expected)[1:3]) and part.origin == (1, 2, 11.5)
    assert np.asarray(read(saved(tmp_path, enhanced(values))).array).dtype == np.int32


@pytest.mark.parametrize(
    ("syntax", "packed"),
    [
        (
            "1.2.840.10008.1.2.4.90",
            lambda image: imagecodecs.jpeg2k_encode(image, codecformat="j2k", level=0, reversible=True),
        ),
        ("1.2.840.10008.1.2.4.80", imagecodecs.jpegls_encode),
        ("1.2.840.10008.1.2.4.70", lambda image: imagecodecs.ljpeg_encode(image)),
    ],
)
def test_packed_frames_are_read(tmp_path, values, syntax, packed):
    content = enhanced(values, syntax, packed=packed)
    volume = read(saved(tmp_path, content))
    assert np.array_equal(volume.array, values.astype(int) - 1024)
    place = content.index(packed(values[2]))
    refused("is damaged or truncated", saved(tmp_path, content[: place + 20]))


@pytest.mark.parametrize("cut", [1, 100, 5000])
def test_a_truncated_file_is_refused(tmp_path, values, cut):
    refused("6000 bytes of pixels expected", saved(tmp_path, enhanced(values)[:-cut]))


@pytest.mark.parametrize(
    ("said", "match"),
    [
        ({"positions": [(1, 2, 0), (1, 2, 1), (1, 2, 5), (1, 2, 6)]}, "slice gaps vary"),
        ({"positions": [(1, 2, 0), (1, 2, 1), (1, 2, 1), (1, 2, 2)]}, "two slices at one position"),
        ({"positions": [(1, z, z) for z in range(4)]}, "gantry tilt of 45.0 degrees"),
        ({"frames": 5}, "5 frames, 4 functional groups"),
        ({"rescale": [(0, 1)] * 4}, "frame 0 has an impossible place, size or rescaling"),
        ({"PhotometricInterpretation": "MONOCHROME1"}, "is in colour, or its values may be read inverted"),
        ({"HighBit": 12}, "its header: ValueError"),
        ({"SharedFunctionalGroupsSequence": [Dataset()]}, "frame 0 has no PixelMeasuresSequence"),
        (
            {"syntax": "1.2.840.10008.1.2.5", "packed": lambda image: image.tobytes()},
            r"packed in a way that is not supported \(1\.2",
        ),
    ],
)
def test_what_is_not_certain_is_refused(tmp_path, values, said, match):
    refused(match, saved(tmp_path, enhanced(values, **said)))


def test_uneven_frames_are_put_on_an_even_grid_when_asked(tmp_path, values):
    path = saved(tmp_path, enhanced(values, positions=[(1, 2, 0), (1, 2, 1), (1, 2, 5), (1, 2, 6)]))
    assert read(path, resample="even").array.shape[0] > 4
    assert read(path, slices="0:2").array.shape[0] == 2, "as the message advises"


def test_localizer_frames_and_a_directionless_frame_are_refused(tmp_path, values):
    refused("has frames that are localizers", saved(tmp_path, enhanced(values, kind="LOCALIZER")))
    shared = item(
        PlaneOrientationSequence=[item(ImageOrientationPatient=[1, 0, 0, 1, 0, 0])],
        PixelMeasuresSequence=[item(PixelSpacing=[0.6, 0.5])],
    )
    content = enhanced(values, SharedFunctionalGroupsSequence=[shared])
    refused("frame 0 has no two perpendicular directions", saved(tmp_path, content))


def test_an_enhanced_ct_beside_other_images_is_refused_and_read_alone(tmp_path, values, write_dicom):
    write_dicom(tmp_path, values[:2].astype(int), [(0, 0, 0), (0, 0, 1)])
    path = saved(tmp_path, enhanced(values))
    refused("is an enhanced CT, all slices in one file, among other images; give that file", tmp_path)
    assert read(path).shape == (4, 30, 25), "as the message advises"
