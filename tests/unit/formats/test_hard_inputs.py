"""Hard inputs: each is read as an independent program reads it, or refused with its reason; which of the two, is said
here.

The faults that other tests cover are listed in docs/reliability.md.
"""

import imagecodecs
import numpy as np
import pydicom
import pytest
import SimpleITK as sitk
import tifffile
from independent import by_nrrd, by_tifffile

from microsr.config import Cases, ClinicalVolume, MicroVolume
from microsr.config.sheet import Scan, read_sheet
from microsr.core.errors import UserError
from microsr.formats.readers import read_scan
from microsr.preprocessing.volumes import import_clinical, import_micro

SYNTAXES = {
    "1.2.840.10008.1.2.4.90": imagecodecs.jpeg2k_decode, "1.2.840.10008.1.2.4.80": imagecodecs.jpegls_decode,
    "1.2.840.10008.1.2.4.70": imagecodecs.ljpeg_decode, "1.2.840.10008.1.2.4.57": imagecodecs.ljpeg_decode,
}  # fmt: skip


def by_pydicom_and_imagecodecs(path) -> np.ndarray:
    """Rescaled values of a file, whose pixels GDCM has no part in."""
    data = pydicom.dcmread(path, force=True)
    decode = SYNTAXES.get(str(data.file_meta.get("TransferSyntaxUID", "")))
    if decode is None:
        stored = data.pixel_array
    else:
        frame = next(pydicom.encaps.generate_pixel_data_frame(data.PixelData, 1))
        stored = decode(frame)
        if data.PixelRepresentation:
            shift = 16 - data.BitsStored
            stored = (stored.astype(np.uint16) << shift).view(np.int16) >> shift
    return stored * float(data.get("RescaleSlope", 1)) + float(data.get("RescaleIntercept", 0))


READ = (
    "0.dcm", "CT1_J2KR", "CT1_JLSL", "CT1_JPLL", "CT_small.dcm", "Testing_OrthogonalDirectionsTest.dcm",
    "bad_sequence.dcm", "HeadMRVolumeWithDirection.nhdr", "J2K_pixelrep_mismatch.dcm",
)  # fmt: skip
REFUSED = {
    "GDCM_NoPreambleDicomTest.dcm": "15 frames",
    "GDCM_gdcmNoSpacingTest.dcm": "no PixelSpacing",
    "GDCM_itkGDCMImageIOTest3_mono1.dcm": "MONOCHROME1",
    "HeadMRVolumeWithDirection.raw.gz": "no known format",
    "MR_truncated.dcm": "damaged, truncated",
    "SC_rgb_small_odd.dcm": "colour",
    "Testing_itkDCMTKNonSquare.dcm": "mosaic",
    "badVR.dcm": "frames",
    "rtplan.dcm": "no DICOM image",
    "shear.nii.gz": "sheared",
    "DCMTK_slopeIntercept.dcm": "without SliceThickness",
}
"""Files of ../shared/data/hard/single."""
OTHERWISE = ("J2K_pixelrep_mismatch.dcm",)
"""Read, but its header contradicts its codestream about the sign of the values; the codestream is right."""


def test_each_hard_file_is_expected(shared_data):
    assert {path.name for path in (shared_data / "hard/single").iterdir()} == {*READ, *REFUSED}
    assert {path.name for path in (shared_data / "hard").iterdir()} == {
        "single",
        "jpeg2000_series",
        "gantry_tilt_and_gaps",
    }


@pytest.mark.parametrize("name", READ)
def test_a_hard_file_is_read_as_by_another_program(shared_data, name):
    path = shared_data / "hard/single" / name
    volume = read_scan(Scan(path=str(path)))
    if name.endswith(".nhdr"):
        image = by_nrrd(path)
        assert np.array_equal(np.asarray(volume.array), image.array)
        assert volume.point((3, 2, 1)) == pytest.approx((image.affine @ (1, 2, 3, 1))[:3])
        return
    data = pydicom.dcmread(path, force=True)
    assert volume.point((0, 0, 0)) == pytest.approx([float(v) for v in data.ImagePositionPatient])
    x, y = (np.array([float(v) for v in data.ImageOrientationPatient[i : i + 3]]) for i in (0, 3))
    step = volume.point((0, 1, 1)) - volume.point((0, 0, 0))
    assert step == pytest.approx(x * float(data.PixelSpacing[1]) + y * float(data.PixelSpacing[0]), rel=1e-3, abs=1e-4)
    if name not in OTHERWISE:
        assert np.array_equal(volume.array[0], by_pydicom_and_imagecodecs(path))


@pytest.mark.parametrize("name", REFUSED)
def test_a_hard_file_is_refused_with_its_reason(shared_data, name):
    path = shared_data / "hard/single" / name
    with pytest.raises(UserError, match=REFUSED[name]) as error:
        np.asarray(read_scan(Scan(path=str(path))).array)
    assert str(path) in str(error.value) and "\n" not in str(error.value)


def test_each_slice_of_a_jpeg_2000_series_is_read_as_by_another_program(shared_data):
    folder = shared_data / "hard/jpeg2000_series"
    volume = read_scan(Scan(path=str(folder)))
    files = sorted(
        folder.iterdir(), key=lambda path: float(pydicom.dcmread(path, stop_before_pixels=True).ImagePositionPatient[2])
    )
    assert len(files) == 20
    for z, path in enumerate(files):
        assert np.array_equal(volume.array[z], by_pydicom_and_imagecodecs(path))
        place = [float(v) for v in pydicom.dcmread(path, stop_before_pixels=True).ImagePositionPatient]
        assert volume.point((z, 0, 0)) == pytest.approx(place, abs=0.01)


@pytest.fixture
def series(tmp_path, write_dicom):
    """A sound series of six slices."""
    stored = np.arange(6 * 4 * 5).reshape(6, 4, 5) + 100
    write_dicom(tmp_path / "scan", stored, [(-5.0, 7.0, 2.0 * z) for z in range(6)])
    return tmp_path / "scan"


def changed(path, **values):
    data = pydicom.dcmread(path)
    for keyword, value in values.items():
        setattr(data, keyword, value)
    data.save_as(path)


FAULTS = {
    "a slice cut off in its pixels": (lambda f: f[2].write_bytes(f[2].read_bytes()[:-20]), "image2.dcm: .*damaged"),
    "a slice cut off in its header": (lambda f: f[2].write_bytes(f[2].read_bytes()[:500]), "image2.dcm: .*damaged"),
    "an empty slice at the end": (lambda f: f[5].write_bytes(b""), "image5.dcm: is no DICOM file"),
    "a slice of zeros at the end": (lambda f: f[5].write_bytes(bytes(5000)), "image5.dcm: is no DICOM file"),
    "a slice missing": (lambda f: f[2].unlink(), "slice gaps vary"),
    "two slices in one place": (
        lambda f: changed(f[3], ImagePositionPatient=pydicom.dcmread(f[2]).ImagePositionPatient),
        "two slices at one position",
    ),
    "other pixel sizes": (lambda f: changed(f[2], PixelSpacing=[0.9, 0.9]), "differ in size or pixel spacing"),
    "more rows than pixels": (lambda f: changed(f[2], Rows=5), "image2.dcm: has 40 bytes of pixels, not 50"),
    "fewer rows than pixels": (lambda f: changed(f[2], Rows=3), "image2.dcm: has 40 bytes of pixels, not 30"),
    "bits that cannot be": (lambda f: changed(f[2], HighBit=7), "image2.dcm: .*highest bit"),
    "a slope of zero": (lambda f: changed(f[2], RescaleSlope=0), "image2.dcm: has an invalid rescale slope"),
    "several frames": (lambda f: changed(f[2], NumberOfFrames=2), "image2.dcm: .*frames"),
    "monochrome 1": (lambda f: changed(f[2], PhotometricInterpretation="MONOCHROME1"), "image2.dcm: is MONOCHROME1"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_faulty_slice_is_named(series, fault):
    spoil, match = FAULTS[fault]
    spoil(sorted(series.iterdir()))
    with pytest.raises(UserError, match=match) as error:
        np.asarray(read_scan(Scan(path=str(series))).array)
    assert "\n" not in str(error.value)


def test_other_files_beside_a_series_are_passed_over(series):
    (series / "LICENSE").write_text("who may use it")
    (series / "notes.txt").write_text("of the scan")
    assert read_scan(Scan(path=str(series))).shape == (6, 4, 5)


def test_an_8_bit_tiff_of_several_pages(tmp_path):
    stack = np.arange(3 * 8 * 9, dtype=np.uint8).reshape(3, 8, 9)
    tifffile.imwrite(tmp_path / "a.tif", stack, photometric="minisblack")
    volume = read_scan(Scan(path=str(tmp_path / "a.tif"), spacing="0.1x0.1x0.2"))
    assert volume.array.dtype == np.uint8 and np.array_equal(
        np.asarray(volume.array), by_tifffile(tmp_path / "a.tif").array
    )


def save(array: np.ndarray, path, spacing) -> Scan:
    image = sitk.GetImageFromArray(array)
    image.SetSpacing(spacing)
    sitk.WriteImage(image, str(path))
    return Scan(path=str(path))


@pytest.mark.parametrize("settings", [{"sampling": "native"}, {"matched_spacing_mm": 0.08}])
def test_a_clinical_ct_in_the_column_of_the_uct_is_refused(tmp_path, chest, settings):
    scan = save(np.rint(chest).astype(np.int16), tmp_path / "chest.nii", (0.7, 0.7, 1.0))
    with pytest.raises(UserError, match=r"chest\.nii: .*clinical CT.*column"):
        import_micro(scan, "a", MicroVolume.model_validate(settings), tmp_path / "m.ome.zarr")


def test_a_uct_in_the_column_of_the_clinical_ct_is_refused(tmp_path):
    grey = np.random.default_rng(0).choice([1000, 5000], (4, 40, 40)).astype(np.uint16)
    hu = np.random.default_rng(0).choice([-900, 40], (4, 40, 40)).astype(np.int16)
    for values, pixel, said in (
        (grey, 0.5, "not the HU of a chest CT"),
        (hu, 0.05, r"its pixels of 0\.05 mm are those of a uCT.*'micro'"),
    ):
        with pytest.raises(UserError, match=rf"specimen\.nii: .*{said}"):
            import_clinical(
                save(values, tmp_path / "specimen.nii", (pixel,) * 3), "a", ClinicalVolume(), tmp_path / "c.ome.zarr"
            )


SHEET = "case\tsplit\tclinical\none\ttrain\ta.nii\n"


@pytest.mark.parametrize(
    ("content", "match"),
    [
        (SHEET.replace("\t", ";").encode(), r"line 1: column 'case' is missing.*not by commas or semicolons"),
        (SHEET.replace("\t", ",").encode(), r"line 1: column 'case' is missing.*not by commas or semicolons"),
        (SHEET.encode("utf-16"), "is UTF-16.*save it as UTF-8"),
        (SHEET.encode("utf-16-be"), "control character|UTF-8"),
        ((SHEET + "zw\u00f6lf\ttrain\ta.nii\n").encode("cp1252"), "cannot be read as UTF-8 text.*save it as UTF-8"),
        (SHEET.replace("a.nii", '"a.nii').encode(), "line 2: .*quotation mark"),
        (SHEET.replace("a.nii", '"a\nb.nii"').encode(), "line 2: .*quotation mark"),
        (SHEET.replace("a.nii", "a\x00.nii").encode(), "line 2: .*control character"),
        (SHEET.replace("a.nii", "a" * 300).encode(), "line 2: .*does not exist"),
    ],
)
def test_a_sheet_that_a_spreadsheet_saved_otherwise_is_named(tmp_path, content, match):
    (tmp_path / "a.nii").touch()
    (tmp_path / "cases.tsv").write_bytes(content)
    with pytest.raises(UserError, match=match) as error:
        read_sheet(Cases(sheet=str(tmp_path / "cases.tsv"), data_root=str(tmp_path)))
    assert "\n" not in str(error.value) and "cases.tsv" in str(error.value)
