"""A DICOM segmentation by highdicom, of a CT and labels on its grid:

    .venv-validators/bin/python tests/validators/segmentation.py FOLDER LABELS.npy OUTPUT

Each number of the labels [slices, rows, columns], from 1 on, is a segment.
"""

import sys
from pathlib import Path

import highdicom
import numpy as np
import pydicom
from pydicom.sr.codedict import codes

NEEDED = ("StudyDate", "StudyTime", "AccessionNumber", "StudyID", "PatientBirthDate", "PatientSex")
"""What highdicom copies from the CT, where it may be missing."""


def main(folder: str, labels: str, output: str) -> None:
    """Write it."""
    images = [pydicom.dcmread(path) for path in sorted(Path(folder).iterdir())]
    for image in images:
        for keyword in NEEDED:
            setattr(image, keyword, image.get(keyword, None))
    held = np.load(labels)
    manual = highdicom.seg.SegmentAlgorithmTypeValues.MANUAL
    segments = [
        highdicom.seg.SegmentDescription(number, f"part {number}", codes.SCT.Tissue, codes.SCT.Bone, manual)
        for number in range(1, held.max() + 1)
    ]
    kind = highdicom.seg.SegmentationTypeValues.BINARY
    made_by = {"manufacturer": "nobody", "manufacturer_model_name": "test", "software_versions": "1"}
    highdicom.seg.Segmentation(
        images, held, kind, segments, highdicom.UID(), 1, highdicom.UID(), 1, device_serial_number="1", **made_by
    ).save_as(output)


if __name__ == "__main__":
    main(*sys.argv[1:])
