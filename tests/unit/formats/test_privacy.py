"""Names and ids out of headers reach nothing that is written or said, whatever the format, the step and the error."""

import gzip
import json
import re
import zlib

import nibabel
import numpy as np
import pydicom
import pytest
import torch
from pydicom.datadict import DicomDictionary, keyword_for_tag
from pydicom.dataset import Dataset

from microsr import cli
from microsr.formats.dicom_series import write_series
from microsr.volume.storage import Volume

MARK, DATE, AGE, UID = "SENTINEL", "19010203", "097Y", "1.2.826.0.1.3680043.8.98765"
"""What texts, dates, ages and UIDs of the headers are."""
MARKS = [mark.encode() for mark in (MARK, DATE, AGE, UID)]
DECISIVE = (
    "ImageType",
    "Modality",
    "PatientPosition",
    "ConvolutionKernel",
    "SpecificCharacterSet",
    "TransferSyntaxUID",
)
VALUES = {
    **dict.fromkeys(("LO", "SH", "PN", "ST", "LT", "UT", "UC", "AE", "CS"), MARK), "DA": DATE, "DT": DATE, "AS": AGE,
    "UI": UID,
}  # fmt: skip


def fill(data):
    """A mark in every element that may hold a text, a date or a UID and does not decide the image."""
    for tag, (kind, *_) in DicomDictionary.items():
        keyword = keyword_for_tag(tag)
        group = tag >> 16
        if (
            kind in VALUES
            and group not in (0x0002, 0x0028, 0x7FE0)
            and group > 2
            and keyword not in (*DECISIVE, "SOPClassUID")
        ):
            data.add_new(tag, kind, VALUES[kind])
    item = Dataset()
    item.PatientID = MARK
    data.OtherPatientIDsSequence = [item]
    data.private_block(0x0029, MARK, create=True).add_new(1, "LO", MARK)
    data.file_meta.SourceApplicationEntityTitle = MARK
    data.file_meta.PrivateInformationCreatorUID, data.file_meta.PrivateInformation = UID, MARK.encode()
    data.preamble = MARK.encode().ljust(128, b"\0")


@pytest.fixture
def scan(tmp_path, chest):
    """A chest CT of someone, as DICOM."""
    files = write_series(
        tmp_path / "scan",
        Volume(np.clip(np.rint(chest), -1024, None).astype(np.int16), (0.6, 0.6, 1.0)),
        "x",
        1,
        "lung",
    )
    for path in files:
        data = pydicom.dcmread(path)
        number = data.InstanceNumber
        fill(data)
        data.SOPInstanceUID = data.file_meta.MediaStorageSOPInstanceUID = f"{UID}.{number}"
        data.save_as(path)
    assert len(pydicom.dcmread(files[0])) > 1000 and found(files[0].read_bytes())
    return tmp_path / "scan"


def found(content):
    """The marks in bytes, packed or not."""
    views = [content]
    if content[:2] == b"\x1f\x8b":
        views.append(gzip.decompress(content))
    for stream in re.finditer(rb"(?:stream\r?\n|[zi]TXt[^\0]*\0\0)", content):
        try:
            views.append(zlib.decompressobj().decompress(content[stream.end() :]))
        except zlib.error:
            continue
    return [
        mark for view in views for mark in (*MARKS, *(m.decode().encode("utf-16-le") for m in MARKS)) if mark in view
    ]


def nothing_in(folder):
    files = [path for path in folder.rglob("*") if path.is_file()]
    assert files
    for path in files:
        assert not found(path.read_bytes()), path
    return files


def say(capfd, *arguments, fails=False):
    """Run a command; what it prints has no mark."""
    try:
        cli.main([str(a) for a in arguments])
        failed = False
    except SystemExit as end:
        failed = bool(end.code)
    text = "".join(capfd.readouterr())
    assert failed == fails, text
    assert not any(mark.decode() in text for mark in MARKS), text
    return text


def import_clinical(capfd, scan, output, *more, fails=False):
    """As `say`, the import of a clinical CT."""
    given = ("--case", "a", "--input", scan, "--output", output)
    return say(capfd, "volumes", "clinical", *given, *more, fails=fails)


@pytest.mark.parametrize("way", ["bicubic", "network"])
def test_nothing_of_a_dicom_header_comes_out(scan, tmp_path, capfd, trained_model, way):
    out = tmp_path / "out"
    how = ["--upsampler", "bicubic"] if way == "bicubic" else ["--model", trained_model("compact")]
    log = ["--log", out / "logs/log"]
    import_clinical(capfd, scan, out / "clinical.ome.zarr", *log)
    (
        say(capfd, "info", scan),
        say(capfd, "info", scan, "--json"),
        say(capfd, "info", out / "clinical.ome.zarr", "--json"),
    )
    patches = [
        "--output",
        out / "patches.npy",
        "--index",
        out / "patches.csv",
        "--clinical_size",
        8,
        "--micro_size",
        64,
    ]
    volume = ["--volume", out / "clinical.ome.zarr"]
    say(
        capfd, "patches", "--case", "a", "--modality", "clinical", *volume, "--seed", 1, "--per_case", 5, *patches, *log
    )
    say(
        capfd, "superresolve", out / "clinical.ome.zarr", *how, "--output", out / "sr.ome.zarr", "--slices", "1:3", *log
    )
    for ending in ("", ".nii.gz", ".nrrd", ".mha", ".nii"):
        say(capfd, "export", out / "sr.ome.zarr", "--output", out / f"sr{ending}")
    say(capfd, "export", out / "clinical.ome.zarr", "--output", out / "with_source", "--source", scan)
    for ending in ("_dicom", ".nrrd"):
        say(capfd, "superresolve", scan, *how, "--output", out / f"direct{ending}", "--slices", "1:2", *log)
    say(capfd, "figures", "patches", *volume, "--index", out / "patches.csv", "--output", out / "figure", *log)
    files = nothing_in(out)
    assert {path.suffix for path in files} >= {".dcm", ".gz", ".nrrd", ".mha", ".json", ".png", ".pdf", ".npy"}
    for path in out.rglob("*.dcm"):
        data = pydicom.dcmread(path)
        assert not data.PatientName and not data.PatientID and not data.StudyDate


def test_errors_about_a_dicom_series_say_nothing_of_its_headers(scan, tmp_path, capfd):
    first, second, *_ = files = sorted(scan.iterdir())
    sound = {path: path.read_bytes() for path in files}

    def spoil(path, **values):
        data = pydicom.dcmread(path)
        for keyword, value in values.items():
            setattr(data, keyword, value)
        data.save_as(path)

    ways = [
        lambda: second.unlink(),
        lambda: second.write_bytes(sound[first]),
        lambda: second.write_bytes(sound[second][:-400]),
        lambda: second.write_bytes(sound[second][:1500]),
        lambda: spoil(second, PhotometricInterpretation=MARK),
        lambda: spoil(second, PhotometricInterpretation="MONOCHROME1"),
        lambda: spoil(second, RescaleSlope="0"),
        lambda: spoil(second, NumberOfFrames=3),
        lambda: spoil(second, ImageOrientationPatient=[1, 0, 0, 0, 0.5, 0.5]),
        lambda: spoil(second, PixelSpacing=[2, 2]),
        lambda: spoil(second, Rows=63),
    ]
    for way in ways:
        way()
        text = import_clinical(capfd, scan, tmp_path / "o/c.ome.zarr", fails=True)
        assert len(text.splitlines()) == 1, text
        for path, content in sound.items():
            path.write_bytes(content)


@pytest.mark.parametrize("name", ["a.nii", "a.nrrd", "a.mha"])
def test_remarks_in_other_headers_stay_there(tmp_path, chest, capfd, name):
    path, array = tmp_path / name, np.rint(chest).astype("<i2")
    if name == "a.nii":
        image = nibabel.Nifti1Image(array.T, np.diag([-0.6, -0.6, 1, 1]))
        image.header.set_xyzt_units("mm")
        for field in ("descrip", "aux_file", "db_name", "intent_name"):
            image.header[field] = MARK
        image.to_filename(path)
    elif name == "a.nrrd":
        head = (
            f"NRRD0004\n# {MARK}\ntype: int16\ndimension: 3\nspace: left-posterior-superior\nsizes: 64 64 6\n"
            f"space directions: (0.6,0,0) (0,0.6,0) (0,0,1)\ncontent: {MARK}\nendian: little\nencoding: raw\n"
            f"space origin: (0,0,0)\npatient:={MARK}\n\n"
        )
        path.write_bytes(head.encode() + array.tobytes())
    else:
        head = (
            f"ObjectType = Image\nNDims = 3\nBinaryData = True\nBinaryDataByteOrderMSB = False\nComment = {MARK}\nName "
            f"= {MARK}\nPatientRemark = {MARK}\nElementSpacing = 0.6 0.6 1\nDimSize = 64 64 6\nElementType = "
            "MET_SHORT\nElementDataFile = LOCAL\n"
        )
        path.write_bytes(head.encode() + array.tobytes())
    out = tmp_path / "out"
    import_clinical(capfd, path, out / "c.ome.zarr", "--log", out / "log")
    say(capfd, "info", path, "--json")
    for ending in (".nii.gz", ".nrrd", ".mha", ""):
        say(capfd, "export", out / "c.ome.zarr", "--output", out / f"c{ending}")
    nothing_in(out)
    content = path.read_bytes()
    for spoilt in (
        content[:100],
        content[:-50],
        content.replace(b"3", b"x", 3),
        content.replace(MARK.encode(), b'"' + MARK.encode() + b"\n"),
    ):
        path.write_bytes(spoilt)
        text = ""
        try:
            cli.main(["info", str(path)])
        except SystemExit:
            text = capfd.readouterr().err
        assert MARK not in text


def test_a_mark_is_found_wherever_it_may_hide():
    stream = b"PNG zTXtkey\0\0" + zlib.compress(MARK.encode())
    for content in (
        MARK.encode(),
        gzip.compress(DATE.encode()),
        b"<< >> stream\n" + zlib.compress(UID.encode()),
        stream,
        MARK.encode("utf-16-le"),
    ):
        assert found(b"..." * (content[:2] != b"\x1f\x8b") + content)
    assert not found(gzip.compress(b"nobody")) and not found(b"stream\n" + zlib.compress(b"nothing"))


class Payload:
    """Makes a folder when it is unpickled."""

    def __init__(self, marker):
        self.marker = marker

    def __reduce__(self):
        return (__import__("os").mkdir, (str(self.marker),))


def test_no_file_runs_code(tmp_path, capfd):
    marker = tmp_path / "ran"
    np.save(tmp_path / "patches.npy", np.array([Payload(marker)], object), allow_pickle=True)
    torch.save({"format": "microsr generator", "version": 2, "facts": Payload(marker)}, tmp_path / "generator.pt")
    torch.save({"state": Payload(marker)}, tmp_path / "features.pt")
    for name in ("patches.npy", "generator.pt", "features.pt"):
        say(capfd, "info", tmp_path / name, fails=True)
    assert not marker.exists()
    np.load(tmp_path / "patches.npy", allow_pickle=True)
    assert marker.exists(), "the code is live"


def test_what_says_how_it_was_made_names_files_only(scan, tmp_path, capfd):
    import_clinical(capfd, scan, tmp_path / "c.ome.zarr")
    run = json.loads((tmp_path / "c.run.json").read_text(encoding="utf-8"))
    assert list(run["inputs"]) == [str(scan)]
