"""NIfTI as nibabel, other programs and people write it: values and place are those that nibabel reads."""

import gzip

import nibabel
import numpy as np
import pytest

from microsr.config.sheet import Scan
from microsr.core.errors import UserError
from microsr.formats.readers import read_scan

AFFINE = np.array([[-0.7, 0, 0, 16.8], [0, -0.6, 0, 11.5], [0, 0, 1.25, 100.25], [0, 0, 0, 1]])
"""RAS, as nibabel has it."""


def turned(digits=None):
    """AFFINE with the axes turned by 7 and 4 degrees, their cosines rounded."""
    a, b = np.radians([7, 4])
    turn = np.array([[np.cos(a), -np.sin(a), 0], [np.sin(a), np.cos(a), 0], [0, 0, 1]])
    turn = turn @ np.array([[1, 0, 0], [0, np.cos(b), -np.sin(b)], [0, np.sin(b), np.cos(b)]])
    affine = AFFINE.copy()
    affine[:3, :3] = (turn if digits is None else turn.round(digits)) * [0.7, 0.6, 1.25]
    return affine


def values(dtype="int16"):
    return (np.arange(6 * 5 * 4).reshape(6, 5, 4) - 50).astype(dtype)


def image(affine=AFFINE, kind=nibabel.Nifti1Image, array=None, sform=2, qform=0, unit=0):
    array = values() if array is None else array
    made = kind(array, affine, dtype=array.dtype)
    made.set_sform(affine, sform)
    if qform:
        made.set_qform(affine, qform)
    made.header["qform_code"] = qform
    made.header["xyzt_units"] = unit
    return made


def check(path, tolerance=1e-3, read=None):
    """Values, spacing and place as nibabel reads them; read: the file that nibabel gets."""
    theirs = nibabel.load(path if read is None else read)
    volume = read_scan(Scan(path=str(path)))
    assert np.allclose(np.asarray(volume.array), np.asarray(theirs.dataobj).T, rtol=1e-6)
    unit = {"micron": 1e-3, "meter": 1e3}.get(theirs.header.get_xyzt_units()[0], 1.0)
    affine = np.diag([-1, -1, 1, 1]) @ theirs.affine
    assert volume.spacing == pytest.approx(unit * np.linalg.norm(affine[:3, :3], axis=0), rel=1e-6)
    for i, j, k in np.ndindex(2, 2, 2):
        index = (5 * i, 4 * j, 3 * k)
        place = unit * (affine @ (*index, 1))[:3]
        assert np.abs(volume.point(index[::-1]) - place).max() <= tolerance * min(volume.spacing)
    return volume


def refused(path, match):
    with pytest.raises(UserError, match=match) as error:
        read_scan(Scan(path=str(path)))
    assert str(path.with_suffix("")) in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize("kind", [nibabel.Nifti1Image, nibabel.Nifti2Image])
@pytest.mark.parametrize(("sform", "qform"), [(2, 0), (1, 0), (0, 1), (1, 1), (2, 2)])
@pytest.mark.parametrize("unit", [0, 1, 2, 3])
def test_place_and_values_are_those_of_nibabel(tmp_path, kind, sform, qform, unit):
    for affine in (AFFINE, turned(), turned() @ np.diag([1, -1, 1, 1])):
        affine = np.diag([*[{1: 1e-3, 3: 1e3}.get(unit, 1.0)] * 3, 1]) @ affine
        image(affine, kind, sform=sform, qform=qform, unit=unit).to_filename(tmp_path / "a.nii")
        check(tmp_path / "a.nii")


@pytest.mark.parametrize("code", [(0, 0), (0, 5), (np.nan, 3), (2, -99), (1e-20, 3), (-1, 7), (1, 5)])
def test_an_intercept_counts_only_beside_a_slope(tmp_path, code):
    made = image()
    content = bytearray(made.to_bytes())
    content[112:120] = np.array(code, "<f4").tobytes()  # scl_slope, scl_inter
    (tmp_path / "a.nii").write_bytes(content)
    check(tmp_path / "a.nii")


def test_an_intercept_that_is_no_number_is_refused(tmp_path):
    content = bytearray(image().to_bytes())
    content[112:120] = np.array([2, np.inf], "<f4").tobytes()
    (tmp_path / "a.nii").write_bytes(content)
    refused(tmp_path / "a.nii", "its scl_inter is no number")


def test_a_file_is_packed_or_not_whatever_its_name(tmp_path):
    content = image().to_bytes()
    (tmp_path / "sound.nii").write_bytes(content)
    (tmp_path / "packed.nii").write_bytes(gzip.compress(content))
    (tmp_path / "plain.nii.gz").write_bytes(content)
    for name in ("packed.nii", "plain.nii.gz"):
        check(tmp_path / name, read=tmp_path / "sound.nii")


@pytest.mark.parametrize("digits", [3, 4, 5])
def test_rounded_cosines_become_the_nearest_rotation(tmp_path, digits):
    image(turned(digits)).to_filename(tmp_path / "a.nii.gz")
    volume = check(tmp_path / "a.nii.gz", tolerance=0.02)
    matrix = np.reshape(volume.direction, (3, 3))
    assert np.allclose(matrix.T @ matrix, np.eye(3), atol=1e-12)


@pytest.mark.parametrize("qform", [0, 1])
def test_sheared_axes_are_called_so(tmp_path, qform):
    sheared = AFFINE.copy()
    sheared[0, 1] = 0.1
    made = image(sheared, qform=0)
    if qform:
        made.set_qform(AFFINE, 1)
    made.to_filename(tmp_path / "a.nii.gz")
    refused(tmp_path / "a.nii.gz", "not perpendicular")


def test_two_places_are_refused(tmp_path):
    made = image()
    made.set_qform(turned(), 1)
    made.to_filename(tmp_path / "a.nii")
    refused(tmp_path / "a.nii", "sform and qform give different places")


def test_a_millimetre_without_a_unit_is_meant_where_the_volume_has_a_place(tmp_path):
    affine = np.diag([-1.0, -1, 1, 1])
    image(affine).to_filename(tmp_path / "nowhere.nii")
    refused(tmp_path / "nowhere.nii", "has no voxel spacing")
    affine[:3, 3] = 3, 0, 0
    for sform, qform in ((2, 0), (0, 1)):
        image(affine, sform=sform, qform=qform).to_filename(tmp_path / "a.nii")
        check(tmp_path / "a.nii")
    image(affine, sform=0, qform=0).to_filename(tmp_path / "unset.nii")
    refused(tmp_path / "unset.nii", "has no voxel spacing")


@pytest.mark.parametrize("kind", [nibabel.Nifti1Pair, nibabel.Nifti2Pair])
@pytest.mark.parametrize("ending", [".img", ".hdr", ".img.gz", ".hdr.gz"])
def test_a_pair_is_read_by_either_of_its_names(tmp_path, kind, ending):
    nibabel.save(image(turned(), kind), tmp_path / f"a.img{'.gz' if ending.endswith('.gz') else ''}")
    check(tmp_path / f"a{ending}")


def test_a_pair_that_is_none_is_refused_with_the_reason(tmp_path):
    nibabel.save(image(kind=nibabel.Nifti1Pair), tmp_path / "a.img")
    (tmp_path / "a.img").rename(tmp_path / "b.img")
    refused(tmp_path / "a.hdr", r"its voxels, a\.img, are not there")
    refused(tmp_path / "b.img", r"its header, b\.hdr, is not there")
    nibabel.save(nibabel.AnalyzeImage(values(), np.diag([0.7, 0.6, 1.25, 1])), tmp_path / "old.img")
    refused(tmp_path / "old.img", r"ANALYZE 7\.5, which does not say which side is left")


@pytest.mark.parametrize(
    ("dtype", "said"), [("c8", "complex numbers"), ([("R", "u1"), ("G", "u1"), ("B", "u1")], "colours")]
)
def test_voxels_that_are_no_grey_values_are_named(tmp_path, dtype, said):
    nibabel.Nifti1Image(np.zeros((4, 4, 4), dtype), AFFINE).to_filename(tmp_path / "a.nii")
    refused(tmp_path / "a.nii", f"its voxels are {said}")


def test_one_bit_a_voxel_is_named(tmp_path):
    content = bytearray(image().to_bytes())
    content[70:74] = np.array([1, 1], "<i2").tobytes()  # datatype, bitpix
    (tmp_path / "a.nii").write_bytes(content)
    refused(tmp_path / "a.nii", "its voxels are 1 bit")


@pytest.mark.parametrize(("place", "what"), [(70, "type"), (72, "type"), (40, "size"), (344, "format"), (123, "unit")])
def test_a_damaged_header_is_named(tmp_path, place, what):
    content = bytearray(image().to_bytes())
    content[place] = 99
    (tmp_path / "a.nii").write_bytes(content)
    refused(tmp_path / "a.nii", f"the {what} in its header is not valid in NIfTI")
