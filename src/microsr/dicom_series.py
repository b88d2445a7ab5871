"""A simulated clinical scan as a DICOM series: one CT image storage file a slice, as a scanner would send it."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pydicom
from pydicom.dataset import FileDataset, FileMetaDataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, generate_uid

from microsr import __version__
from microsr.storage import Volume

INTERCEPT = -1024
"""HU of the stored value 0; the slope is 1."""
UNKNOWN = (
    "PatientBirthDate", "PatientSex", "StudyDate", "StudyTime", "AccessionNumber", "ReferringPhysicianName", "StudyID",
    "SeriesNumber", "AcquisitionNumber", "KVP", "PositionReferenceIndicator",
)  # fmt: skip
"""Elements that a CT image must have, empty where there is nothing to say."""


def write_series(folder: Path, volume: Volume, case: str, seed: int, kernel: str) -> list[Path]:
    """Write `volume` (int16 HU from INTERCEPT on) into `folder`, which is emptied, one file a slice from the first on.

    The case's name stands where a patient's would. UIDs and bytes depend on nothing but the arguments.
    """
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    matrix = np.reshape(volume.direction, (3, 3))
    files = []
    for index, image in enumerate(volume.array):
        path = folder / f"slice{index + 1:04d}.dcm"
        data = _header(path, volume, case, seed)
        data.ConvolutionKernel = kernel
        data.SOPInstanceUID = data.file_meta.MediaStorageSOPInstanceUID = _uid(case, seed, "image", index)
        data.InstanceNumber = index + 1
        data.ImageOrientationPatient = [_decimal(v) for v in (*matrix[:, 0], *matrix[:, 1])]
        data.ImagePositionPatient = [_decimal(v) for v in volume.point((index, 0, 0))]
        data.SliceLocation = _decimal(volume.point((index, 0, 0)) @ matrix[:, 2])
        data.Rows, data.Columns = image.shape
        data.PixelData = (image.astype(np.int32) - INTERCEPT).astype("<u2").tobytes()
        data.save_as(path, write_like_original=False)
        files.append(path)
    return files


def _header(path: Path, volume: Volume, case: str, seed: int) -> FileDataset:
    """What all slices share."""
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = CTImageStorage
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    meta.ImplementationClassUID = _uid("microsr")
    meta.ImplementationVersionName = f"MICROSR_{__version__}"[:16]
    data = FileDataset(str(path), {}, file_meta=meta, preamble=b"\0" * 128)
    data.is_little_endian, data.is_implicit_VR = True, False
    data.SOPClassUID = CTImageStorage
    data.ImageType = ["DERIVED", "PRIMARY", "AXIAL"]
    data.Modality = "CT"
    data.Manufacturer = "microsr"
    data.ManufacturerModelName = "simulated scanner"
    data.SoftwareVersions = __version__
    data.SeriesDescription = "Simulated lung"
    data.PatientName = data.PatientID = case
    data.PatientIdentityRemoved = "YES"
    data.DeidentificationMethod = "simulated, no person"
    for empty in UNKNOWN:
        setattr(data, empty, None)
    data.PatientPosition = "HFS"
    data.BodyPartExamined = "CHEST"
    data.StudyInstanceUID = _uid(case, seed, "study")
    data.SeriesInstanceUID = _uid(case, seed, "series")
    data.FrameOfReferenceUID = _uid(case, seed, "frame")
    x, y, z = volume.spacing
    data.PixelSpacing = [_decimal(y), _decimal(x)]
    data.SliceThickness = data.SpacingBetweenSlices = _decimal(z)
    data.SamplesPerPixel = 1
    data.PhotometricInterpretation = "MONOCHROME2"
    data.BitsAllocated = data.BitsStored = 16
    data.HighBit = 15
    data.PixelRepresentation = 0
    data.RescaleIntercept, data.RescaleSlope, data.RescaleType = INTERCEPT, 1, "HU"
    return data


def _uid(*facts: object) -> str:
    return generate_uid(entropy_srcs=["microsr", *map(str, facts)])


def _decimal(value: float) -> pydicom.valuerep.DSfloat:
    """A decimal string of at most 16 characters."""
    return pydicom.valuerep.DSfloat(float(value), auto_format=True)
