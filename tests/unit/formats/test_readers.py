"""Volumes in: whatever the format, the values and the geometry are those of the file, or the file is refused with a
reason.
"""

import gzip
from dataclasses import replace

import numpy as np
import pydicom
import pytest
import SimpleITK as sitk
import tifffile
from reading import refused

from microsr.config.sheet import Scan
from microsr.core.errors import UserError
from microsr.formats.readers import read_scan

ANGLE = np.radians(20)
OBLIQUE = (np.cos(ANGLE), -np.sin(ANGLE), 0.0, np.sin(ANGLE), np.cos(ANGLE), 0.0, 0.0, 0.0, 1.0)


def read(path, **scan):
    """The volume with all of its voxels."""
    volume = read_scan(Scan(path=str(path), **scan))
    return replace(volume, array=np.asarray(volume.array))


@pytest.fixture
def values():
    return np.arange(4 * 5 * 6, dtype=np.int16).reshape(4, 5, 6) - 50


def save(values, path, spacing=(0.5, 0.6, 1.5), origin=(-10.0, 20.0, 3.0), direction=OBLIQUE):
    image = sitk.GetImageFromArray(values)
    image.SetSpacing(spacing)
    image.SetOrigin(origin)
    image.SetDirection(direction)
    sitk.WriteImage(image, str(path))
    return path


def replace_text(path, *pairs):
    content = path.read_bytes()
    for old, new in pairs:
        assert old in content
        content = content.replace(old, new)
    path.write_bytes(content)
    return path


@pytest.mark.parametrize("name", ["a.nii", "a.nii.gz", "a.nrrd", "a.nhdr", "a.mha", "a.mhd"])
def test_values_and_geometry_of_a_volume_file_are_kept(tmp_path, values, name):
    volume = read(save(values, tmp_path / name))
    assert np.array_equal(volume.array, values)
    assert volume.spacing == pytest.approx((0.5, 0.6, 1.5), rel=1e-6)
    assert volume.origin == pytest.approx((-10, 20, 3), rel=1e-6)
    assert volume.direction == pytest.approx(OBLIQUE, abs=1e-6)
    assert volume.unit == "grey"
    source = volume.attributes["source"]
    assert source["size"] == [6, 5, 4] and source["spacing"] == pytest.approx([0.5, 0.6, 1.5], rel=1e-6)


@pytest.mark.parametrize("name", ["a.nii.gz", "a.nrrd"])
def test_a_range_of_slices_stays_where_it_was(tmp_path, values, name):
    path = save(values, tmp_path / name)
    whole, part = read(path), read(path, slices="1:3")
    assert np.array_equal(part.array, values[1:3])
    assert part.origin == pytest.approx(tuple(whole.point((1, 0, 0))))
    assert part.attributes["slices"] == [1, 3]
    assert part.attributes["source"]["size"] == [6, 5, 4]
    assert read(path, slices="2:").shape[0] == 2 and read(path, slices=":1").shape[0] == 1


@pytest.mark.parametrize("slices", ["2:9", "3:3", "4:"])
def test_a_range_beyond_the_volume_is_refused(tmp_path, values, slices):
    refused("do not fit: the volume has 4 slices", save(values, tmp_path / "a.nrrd"), slices=slices)


def test_rescaling_in_a_nifti_header_is_applied(tmp_path, values):
    path = save(values, tmp_path / "a.nii")
    header = bytearray(path.read_bytes())
    header[112:120] = np.array([2, -99], "<f4").tobytes()  # scl_slope, scl_inter
    path.write_bytes(header)
    assert np.array_equal(read(path).array, 2.0 * values - 99)


def test_nifti_in_micrometres_becomes_millimetres(tmp_path, values):
    path = save(values, tmp_path / "a.nii", spacing=(50, 60, 70))
    header = bytearray(path.read_bytes())
    header[123] = 3  # xyzt_units: micrometres
    path.write_bytes(header)
    assert read(path).spacing == pytest.approx((0.05, 0.06, 0.07), rel=1e-5)


def test_sheet_spacing_overrides_the_file(tmp_path, values):
    path = save(values, tmp_path / "a.mha")
    volume = read(path, spacing="0.1x0.2x0.3")
    assert volume.spacing == (0.1, 0.2, 0.3)
    assert volume.attributes["source"]["spacing_from"] == "sheet"
    assert read(path, spacing="0.1").spacing == (0.1, 0.1, 1.5), "one number is the pixel size, not the slice distance"
    assert read(path, spacing="0.1x0.2").spacing == (0.1, 0.2, 1.5), "x, the distance of columns, comes first"
    refused("malformed", path, spacing="0.1x0")


@pytest.mark.parametrize(
    ("name", "pairs"),
    [
        ("a.mha", [(b"ElementSpacing = 0.5 0.25 1.5\n", b"")]),
        ("a.mha", [(b"ElementSpacing = 0.5 0.25 1.5", b"ElementSpacing = -0.5 0.25 1.5")]),
        ("a.nrrd", [(b"space: left-posterior-superior\n", b""),
                    (b"space directions: (0.5,0,0) (0,0.25,0) (0,0,1.5)\n", b""),
                    (b"space origin: (-10,20,3)\n", b"")]),
    ],
)  # fmt: skip
def test_a_volume_whose_header_has_no_spacing_is_refused_until_the_sheet_gives_it(tmp_path, values, name, pairs):
    path = save(values, tmp_path / name, (0.5, 0.25, 1.5), direction=np.eye(3).ravel())
    replace_text(path, *pairs)
    refused("spacing", path)
    if b"-0.5" not in path.read_bytes():
        assert read(path, spacing="0.1x0.1x0.2").spacing == (0.1, 0.1, 0.2)


def test_a_nifti_with_unset_spacing_is_refused_until_the_sheet_gives_it(tmp_path, values):
    path = save(values, tmp_path / "a.nii", (1, 1, 1), origin=(0, 0, 0))
    header = bytearray(path.read_bytes())
    header[123] = 0
    path.write_bytes(header)
    refused("no voxel spacing", path)
    assert read(path, spacing="1x1x1").spacing == (1, 1, 1)


def test_spacing_in_another_unit_that_itk_takes_for_mm_is_refused(tmp_path, values):
    path = save(values, tmp_path / "a.mhd", (50, 60, 70))
    refused("in um, not mm", replace_text(path, (b"ElementType", b"DistanceUnits = um\nElementType")))
    path = save(values, tmp_path / "a.nrrd", (50, 60, 70))
    refused("in um, not mm", replace_text(path, (b"kinds:", b'space units: "um" "um" "um"\nkinds:')))


def test_a_rescaling_that_itk_ignores_is_refused(tmp_path, values):
    path = save(values, tmp_path / "a.mhd")
    replace_text(path, (b"ElementType", b"ElementToIntensityFunctionSlope = 2\nElementType"))
    refused("rescaled", path)
    refused("rescaled", path, spacing="1x1x1")


@pytest.mark.parametrize("last", [b"0 0.3 1", b"0 0.6 0.8", b"0 -0.6 0.8"])
def test_sheared_axes_are_refused(tmp_path, values, last):
    path = save(values, tmp_path / "a.mhd", direction=np.eye(3).ravel())
    refused("sheared", replace_text(path, (b"= 1 0 0 0 1 0 0 0 1", b"= 1 0 0 0 1 0 " + last)))


@pytest.mark.parametrize("name", ["a.nii", "a.nrrd", "a.mha"])
def test_a_fourth_dimension_of_one_volume_is_none(tmp_path, values, name):
    sitk.WriteImage(sitk.JoinSeries([sitk.GetImageFromArray(values)]), str(tmp_path / name))
    volume = read(tmp_path / name)
    assert np.array_equal(volume.array, values) and volume.direction == tuple(np.eye(3).ravel())


def test_contradicting_nifti_transforms_are_refused(tmp_path, values):
    path = save(values, tmp_path / "a.nii", direction=np.eye(3).ravel())
    header = bytearray(path.read_bytes())
    shear = np.frombuffer(header[280:328], "<f4").reshape(3, 4).copy()
    shear[1, 2] = 0.4
    header[280:328] = shear.tobytes()
    path.write_bytes(header)
    refused("sheared", path)


@pytest.mark.parametrize("name", ["a.nii", "a.nii.gz", "a.nrrd", "a.mha", "a.tif", "a.png"])
def test_a_truncated_file_is_refused_and_never_filled_up(tmp_path, values, name):
    noise = np.random.default_rng(0).integers(0, 30000, (4, 50, 60)).astype(np.uint16)
    path = tmp_path / name
    sitk.WriteImage(sitk.GetImageFromArray(noise[0] if name == "a.png" else noise), str(path))
    content = path.read_bytes()
    path.write_bytes(content[: int(0.8 * len(content))])
    refused("damaged|truncated|readable", path, spacing="0.1x0.1x0.1")


def test_several_volumes_in_one_file_are_refused(tmp_path):
    image = sitk.JoinSeries([sitk.GetImageFromArray(np.full((2, 3, 4), i, np.int16)) for i in range(3)])
    sitk.WriteImage(image, str(tmp_path / "a.nii"))
    refused("4 dimensions", tmp_path / "a.nii")


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("name", ["a.nrrd", "a.nii", "a.nii.gz", "a.mha", "a.nhdr"])
def test_values_that_are_not_numbers_are_refused_when_they_are_read(tmp_path, values, name, value):
    holed = values.astype(np.float32)
    holed[1, 2, 3] = value
    path = save(holed, tmp_path / name)
    refused("NaN", path)
    array = read_scan(Scan(path=str(path))).array
    assert np.array_equal(array[0], values[0])
    with pytest.raises(UserError, match="NaN"):
        array[1]


def test_missing_and_unknown_files_are_refused(tmp_path):
    refused("does not exist", tmp_path / "none.nii")
    (tmp_path / "notes.txt").write_text("hello")
    refused("no known format", tmp_path / "notes.txt")
    refused("neither DICOM", tmp_path)


def test_a_tiff_stack_takes_its_spacing_from_the_sheet_alone(tmp_path, values):
    path = save(values, tmp_path / "a.tif", direction=np.eye(3).ravel())
    volume = read(path, spacing="0.05x0.05x0.06", slices="1:3")
    assert np.array_equal(volume.array, values[1:3])
    assert volume.spacing == (0.05, 0.05, 0.06) and volume.origin[2] == pytest.approx(0.06)
    assert "independent_slices" not in volume.attributes
    refused("spacing", path)
    refused("spacing", path, spacing="0.05x0.05")


def test_tiff_files_that_would_be_read_in_part_or_otherwise_are_refused(tmp_path):
    stack = np.arange(3 * 32 * 48, dtype=np.uint16).reshape(3, 32, 48)
    given = {"spacing": "0.1x0.1x0.1"}
    tifffile.imwrite(tmp_path / "white.tif", stack, photometric="miniswhite")
    refused("inverted", tmp_path / "white.tif", **given)
    tifffile.imwrite(tmp_path / "rgb.tif", np.zeros((8, 9, 3), np.uint8), photometric="rgb")
    refused("colour", tmp_path / "rgb.tif", **given)


@pytest.fixture
def images(tmp_path):
    folder = tmp_path / "images"
    folder.mkdir()
    for number in (10, 2, 1):
        image = np.full((4, 5), number, np.uint8)
        image[0, 0] = 0
        sitk.WriteImage(sitk.GetImageFromArray(image), str(folder / f"slice{number}.png"))
    return folder


def test_a_folder_of_images_is_sorted_as_people_count(images):
    volume = read(images, spacing="0.01")
    assert volume.array[:, 1, 1].tolist() == [1, 2, 10]
    assert volume.spacing[:2] == (0.01, 0.01)
    assert volume.attributes["independent_slices"] is True
    assert volume.attributes["source"]["spacing"] == [0.01, 0.01, None]
    assert read(images, spacing="0.01x0.02").spacing[:2] == (0.01, 0.02)


def test_a_slice_distance_makes_a_stack_of_a_folder_of_images(images):
    volume = read(images, spacing="0.01x0.02x0.5", slices="1:3")
    assert "independent_slices" not in volume.attributes
    assert volume.spacing == (0.01, 0.02, 0.5) and volume.origin == (0, 0, 0.5)
    assert volume.array[:, 1, 1].tolist() == [2, 10]


@pytest.fixture
def stack(tmp_path):
    """Writes images of these names: the folder."""

    def make(*names):
        for name in names:
            array = np.full((4, 5), len(list(tmp_path.iterdir())), np.uint8)
            sitk.WriteImage(sitk.GetImageFromArray(array), str(tmp_path / name))
        return tmp_path

    return make


@pytest.mark.parametrize(
    ("names", "said"),
    [
        (["s0.tif", "s1.tif", "s2.tif", "s4.tif", "s5.tif"], "missing between s2.tif and s4.tif (1 such gaps)"),
        ([f"a{n:04d}_rec.png" for n in (10, 20, 30, 50, 60, 90)], "missing between a0030_rec.png and a0050_rec.png (2"),
        (["x1.png", "x2.png", "x3.png", "y1.png", "y2.png"], "several names, as x1.png and y1.png"),
        (["s1.png", "s2.png", "s3.png", "mask.png"], "several names"),
        (["scan1_1.png", "scan1_2.png", "scan2_1.png"], "several names, as scan1_1.png and scan2_1.png"),
    ],
)
def test_gaps_and_mixtures_of_names_are_told(stack, caplog, names, said):
    folder = stack(*names)
    assert read(folder, spacing="0.013x0.013x0.013").shape[0] == len(names)
    assert said in caplog.text
    caplog.clear()
    assert read(folder, spacing="0.013").attributes["independent_slices"], "which have no distance"
    assert not caplog.text


@pytest.mark.parametrize(
    "names",
    [["s9.png", "s10.png", "s11.png"], ["010.png", "020.png", "030.png"], ["a.png"], ["r1_z1.png", "r1_z2.png"]],
)  # fmt: skip
def test_a_whole_stack_is_not_told_of(stack, caplog, names):
    read(stack(*names), spacing="0.013x0.013x0.013")
    assert not caplog.text


def test_a_gap_beside_the_chosen_slices_does_not_matter(stack, caplog):
    read(stack("s0.png", "s1.png", "s5.png"), spacing="0.1x0.1x0.1", slices="0:2")
    assert not caplog.text


def test_images_of_several_kinds_are_no_stack(stack):
    folder = stack("s0.png", "s1.tif")
    refused(r"several kinds \(PNG, TIFF\)", folder, spacing="0.1x0.1x0.1")


def test_images_without_pixel_size_or_of_several_sizes_are_refused(images):
    refused("pixel size", images)
    sitk.WriteImage(sitk.GetImageFromArray(np.eye(3, dtype=np.uint8)), str(images / "slice3.png"))
    with pytest.raises(UserError, match=r"slice3\.png: is 3x3"):
        read(images, spacing="0.01")


def test_a_colour_image_is_refused(tmp_path):
    sitk.WriteImage(sitk.GetImageFromArray(np.zeros((4, 5, 3), np.uint8), isVector=True), str(tmp_path / "a.png"))
    refused("colour", tmp_path / "a.png", spacing="0.01")


POSITIONS = [(-5.0, 7.0, -3.0), (-5.0, 7.0, -7.0), (-5.0, 7.0, -5.0)]
"""Not in order: slices 1, 2, 0 from below."""


@pytest.fixture
def stored():
    return np.arange(3 * 4 * 5).reshape(3, 4, 5) + 100


def test_dicom_slices_are_sorted_by_position_and_rescaled(tmp_path, stored, write_dicom):
    write_dicom(tmp_path, stored, POSITIONS, rescale=(2, -99), tags={"0028|0120": "-2000"})
    (tmp_path / "LICENSE").write_text("not an image")
    volume = read(tmp_path)
    assert np.array_equal(volume.array, 2 * stored[[1, 2, 0]] - 99)
    assert volume.spacing == pytest.approx((0.5, 0.7, 2.0))
    assert volume.origin == (-5, 7, -7)
    source = volume.attributes["source"]
    assert source["slice_thickness"] == 1.25 and source["padding"] == -4099
    assert not any("1.2.826" in str(v) for v in volume.attributes.values()), "no identifier leaves the header"


def test_each_dicom_slice_is_rescaled_by_its_own_header(tmp_path, stored, write_dicom):
    for number, slope in enumerate((1, 3, 2)):
        write_dicom(
            tmp_path, stored[number : number + 1], POSITIONS[number : number + 1], rescale=(slope, 0), name=f"s{number}"
        )
    assert np.array_equal(read(tmp_path).array, stored[[1, 2, 0]] * np.array([3, 2, 1])[:, None, None])


def test_slices_of_several_types_are_read_as_one(tmp_path, stored, write_dicom):
    files = write_dicom(tmp_path, stored, POSITIONS, rescale=(2, 0))
    header = pydicom.dcmread(files[1])
    header.RescaleSlope = "0.5"
    header.save_as(files[1])
    array = read_scan(Scan(path=str(tmp_path))).array
    assert {array[z].dtype for z in (0, 1, 2)} == {array.dtype} and array.dtype.kind == "f"


def test_only_the_chosen_slices_of_a_series_are_read_and_checked(tmp_path, stored, write_dicom):
    positions = [(0.0, 0.0, 0.0), (0.0, 0.0, 2.0), (0.0, 0.0, 7.0)]
    write_dicom(tmp_path, stored, positions)
    refused(r"slice gaps vary: (2|5)\.000 mm between", tmp_path)
    volume = read(tmp_path, slices=":2")
    assert volume.shape == (2, 4, 5) and volume.attributes["source"]["size"] == [5, 4, 3]


def test_one_of_several_series_is_chosen_by_its_uid(tmp_path, stored, write_dicom):
    write_dicom(tmp_path, stored, POSITIONS, series="1.2.3")
    write_dicom(tmp_path, stored[:1] + 7, POSITIONS[:1], series="1.2.4", name="scout", tags={"0008|0060": "CT"})
    refused(r"holds 2 series.*1\.2\.3 \(3 slices of 5x4.*1\.2\.4 \(1 slices", tmp_path)
    refused(r"has no series 1\.2\.5", tmp_path, series="1.2.5")
    assert read(tmp_path, series="1.2.3").shape == (3, 4, 5)
    one = read(tmp_path, series="1.2.4")
    assert one.shape == (1, 4, 5) and one.spacing[2] == 1.25, "a single slice is as thick as its header says"


@pytest.mark.parametrize(
    ("positions", "match"),
    [
        ([(0, 0, 0), (0, 0, 1), (0, 0, 1)], "two slices at one position"),
        ([(0, 0, 0), (0, 0.3, 1), (0, 0.6, 2)], "gantry tilt of 16.7 degrees"),
        ([(0, 0, 0), (0, 0, 1), (0, 0, 2.4)], "slice gaps vary"),
    ],
)
def test_slices_that_form_no_regular_grid_are_refused(tmp_path, stored, write_dicom, positions, match):
    write_dicom(tmp_path, stored, positions)
    refused(match, tmp_path)


def rounded(digits):
    """Axes turned by 7 and 4 degrees, as columns, whose cosines are rounded."""
    a, b = np.radians([7, 4])
    turn = np.array([[np.cos(a), -np.sin(a), 0], [np.sin(a), np.cos(a), 0], [0, 0, 1]])
    return (turn @ np.array([[1, 0, 0], [0, np.cos(b), -np.sin(b)], [0, np.sin(b), np.cos(b)]])).round(digits)


@pytest.mark.parametrize("kind", ["nrrd", "mhd", "dicom"])
def test_rounded_cosines_become_perpendicular_axes(tmp_path, values, stored, write_dicom, kind):
    axes = rounded(3)
    if kind == "dicom":
        path = tmp_path / "in"
        orientation = "\\".join(map(str, (*axes[:, 0], *axes[:, 1])))
        write_dicom(
            path, stored, [tuple(float(v) for v in 2 * z * axes[:, 2]) for z in range(3)], orientation=orientation
        )
    else:
        path = save(values, tmp_path / f"a.{kind}", direction=np.eye(3).ravel())
        if kind == "nrrd":
            given = [f"({','.join(map(str, step * axis))})" for step, axis in zip((0.5, 0.6, 1.5), axes.T, strict=True)]
            lines = [line if not line.startswith(b"space dir") else f"space directions: {' '.join(given)}".encode()
                     for line in path.read_bytes().split(b"\n", 8)]  # fmt: skip
            path.write_bytes(b"\n".join(lines))
        else:
            replace_text(path, (b"= 1 0 0 0 1 0 0 0 1", b"= " + " ".join(map(str, axes.T.ravel())).encode()))
    volume = read(path)
    matrix = np.reshape(volume.direction, (3, 3))
    assert np.allclose(matrix, axes, atol=2e-3) and np.allclose(matrix.T @ matrix, np.eye(3), atol=1e-6)


def test_a_missing_slice_is_noticed_in_a_long_series(tmp_path, write_dicom):
    stored = np.arange(30 * 4).reshape(30, 2, 2)
    files = write_dicom(tmp_path, stored, [(0, 0, 0.7 * i) for i in range(30)])
    assert read(tmp_path).spacing[2] == pytest.approx(0.7)
    files[12].unlink()
    refused("1.400 mm between image11.dcm and image13.dcm, 0.700 mm elsewhere", tmp_path)


def test_mixed_orientations_sizes_and_image_kinds_are_refused(tmp_path, stored, write_dicom):
    write_dicom(tmp_path / "o", stored, POSITIONS)
    write_dicom(tmp_path / "o", stored[:1], [(0, 0, 9)], orientation=r"1\0\0\0\0\-1", name="scout")
    refused("differ in orientation", tmp_path / "o")
    write_dicom(tmp_path / "s", stored, POSITIONS)
    write_dicom(tmp_path / "s", stored[:1, :2], [(0, 0, 9)], name="small")
    refused("differ in size", tmp_path / "s")
    write_dicom(tmp_path / "i", stored, POSITIONS)
    sitk.WriteImage(sitk.GetImageFromArray(np.eye(3, dtype=np.uint8)), str(tmp_path / "i" / "a.png"))
    refused("DICOM files and images", tmp_path / "i")


def test_a_truncated_slice_does_not_pass_as_a_missing_one(tmp_path, stored, write_dicom):
    files = write_dicom(tmp_path, stored, POSITIONS)
    files[1].write_bytes(files[1].read_bytes()[:-20])
    with pytest.raises(UserError, match=r"image1\.dcm: .*(damaged|truncated)"):
        read(tmp_path)


def test_monochrome1_is_refused_since_itk_inverts_its_values(tmp_path, stored, write_dicom):
    for file in write_dicom(tmp_path, stored, POSITIONS):
        replace_text(file, (b"MONOCHROME2 ", b"MONOCHROME1 "))
    by_itk = sitk.GetArrayFromImage(sitk.ReadImage(str(tmp_path / "image0.dcm")))
    assert not np.array_equal(by_itk[0], stored[0] - 1024)
    with pytest.raises(UserError, match="MONOCHROME1"):
        read(tmp_path)


def test_rider_is_read_as_its_headers_say(shared_data):
    folder = shared_data / "clinical" / "rider_lung_kernel_dicom"
    volume = read(folder, slices="100:102")
    assert volume.shape == (2, 512, 512)
    assert volume.spacing == pytest.approx((0.576172, 0.576172, 1.25))
    assert volume.origin == pytest.approx((-146.699997, -155.300003, -328.75 + 100 * 1.25))
    assert volume.attributes["source"]["size"] == [512, 512, 236]
    assert volume.attributes["source"]["padding"] == -3024
    by_itk = sitk.GetArrayFromImage(sitk.ReadImage(str(folder / "1-136.dcm")))[0]  # the first file is the highest slice
    assert np.array_equal(volume.array[0], by_itk)


READ = {
    "hard/jpeg2000_series": ((20, 512, 512), (0.9765625, 0.9765625, 2.0), (-1024, 1839)),
    "hard/single/0.dcm": ((1, 512, 512), (0.625, 0.625, 1.0), (-2048, 1502)),
    "hard/single/CT1_J2KR": ((1, 512, 512), (0.661468, 0.661468, 5.0), (-3024, 1254)),
    "hard/single/CT1_JLSL": ((1, 512, 512), (0.661468, 0.661468, 5.0), (-3024, 1254)),
    "hard/single/CT1_JPLL": ((1, 512, 512), (0.661468, 0.661468, 5.0), (-3024, 1254)),
    "hard/single/CT_small.dcm": ((1, 128, 128), (0.661468, 0.661468, 5.0), (-896, 1167)),
    "hard/single/J2K_pixelrep_mismatch.dcm": ((1, 512, 512), (0.431, 0.431, 5.0), (-2000, 1896)),
    "hard/single/Testing_OrthogonalDirectionsTest.dcm": ((1, 512, 512), (0.671875, 0.671875, 5.0), (-2048, 258)),
    "hard/single/bad_sequence.dcm": ((1, 512, 512), (0.287109375, 0.287109375, 1.0), (-1011, 1243)),
    "hard/single/HeadMRVolumeWithDirection.nhdr": ((42, 62, 48), (4, 4, 4), (0, 255)),
    "clinical/kernelpair_A0001_B-soft.nii.gz": ((40, 160, 160), (0.841797, 0.841797, 5.0), (-1024, 1245)),
    "micro/hrpqct_joint.nii": ((202, 232, 390), (0.0607, 0.0607, 0.060699), (-1530, 4047)),
}
REFUSED = {
    "hard/gantry_tilt_and_gaps": "slice gaps vary",
    "hard/single/GDCM_NoPreambleDicomTest.dcm": "15 frames",
    "hard/single/GDCM_gdcmNoSpacingTest.dcm": "no PixelSpacing",
    "hard/single/GDCM_itkGDCMImageIOTest3_mono1.dcm": "MONOCHROME1",
    "hard/single/HeadMRVolumeWithDirection.raw.gz": "no known format",
    "hard/single/MR_truncated.dcm": "damaged, truncated",
    "hard/single/SC_rgb_small_odd.dcm": "colour",
    "hard/single/Testing_itkDCMTKNonSquare.dcm": "mosaic",
    "hard/single/badVR.dcm": "frames",
    "hard/single/rtplan.dcm": "no DICOM image",
    "hard/single/shear.nii.gz": "sheared",
    "hard/single/DCMTK_slopeIntercept.dcm": "without SliceThickness",
    "hard/single": "cannot be read as a DICOM image",
    "micro/rat_lung_slices": "pixel size",
    "micro": "sub-folders",
}


@pytest.mark.parametrize("name", READ)
def test_hard_file_is_read_rightly(shared_data, capfd, name):
    shape, spacing, extremes = READ[name]
    volume = read(shared_data / name)
    assert volume.shape == shape
    assert volume.spacing == pytest.approx(spacing, rel=1e-5)
    assert (volume.array.min(), volume.array.max()) == extremes
    matrix = np.reshape(volume.direction, (3, 3))
    assert np.allclose(matrix.T @ matrix, np.eye(3), atol=1e-3)
    assert capfd.readouterr().err == "", "ITK's own warnings stay silent"


@pytest.mark.parametrize("name", REFUSED)
def test_hard_file_is_refused_with_its_reason(shared_data, name):
    with pytest.raises(UserError, match=REFUSED[name]) as error:
        read(shared_data / name)
    assert ("\n" not in str(error.value) and "hard" in str(error.value)) or "micro" in str(error.value)


def test_slope_2_intercept_minus_99_is_applied_once(shared_data):
    path = shared_data / "hard/single/DCMTK_slopeIntercept.dcm"
    volume = read(path, spacing="4x4x4")
    assert volume.array.min() == -99 and set(np.unique(volume.array) % 2) == {1}, "-99 + 2 x stored"


def test_a_tilted_but_even_part_of_a_series_is_still_refused(shared_data):
    refused("gantry tilt of 18.5 degrees", shared_data / "hard/gantry_tilt_and_gaps", slices=":10")


def test_rat_lung_images_are_independent_slices(shared_data):
    volume = read(shared_data / "micro/rat_lung_slices", spacing="0.00148")
    assert volume.shape == (3, 1400, 2936) and volume.array.dtype == np.uint8
    assert volume.attributes["independent_slices"]


def test_a_damaged_gzip_is_refused(tmp_path, values):
    path = save(values, tmp_path / "a.nii")
    packed = bytearray(gzip.compress(path.read_bytes()))
    packed[-6] ^= 0xFF  # checksum
    (tmp_path / "b.nii.gz").write_bytes(packed)
    refused("damaged", tmp_path / "b.nii.gz")
