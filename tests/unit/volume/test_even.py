"""Tilted and unevenly spaced slices on an even grid: each new voxel has the value that the object has at its place,
which is known as the object is a formula; and dcm2niix makes the same of a real scan.
"""

import re
import shutil
import subprocess

import nibabel
import numpy as np
import pytest

from microsr import cli
from microsr.config import Cases
from microsr.config.sheet import Scan, read_sheet, sheet_text
from microsr.core.errors import UserError
from microsr.formats.readers import read_scan
from microsr.volume.even import OUTSIDE
from microsr.volume.storage import open_volume

ROWS, COLUMNS, PIXEL = 40, 36, (0.7, 0.9)
TILT = np.radians(18.5)
TILTED = r"1\0\0\0\0.94832366\-0.31730466"
"""Orientation of slices that a gantry tilts by 18.5 degrees; the table moves along z."""
UNEVEN = np.array([0, 2, 4, 5, 7.5, 10, 14])


def ramp(place):
    """A linear object, HU, which linear interpolation knows exactly."""
    return -700 + 3.0 * place[..., 0] - 5.0 * place[..., 1] + 7.0 * place[..., 2]


def waves(place):
    """A smooth object, HU: waves of 60 mm."""
    return -600 + 300 * np.sin(place @ [0.07, 0.06, 0.05])


def write(write_dicom, folder, positions, orientation, thing):
    """The object `thing` as a series, sampled where the header of each slice says its pixels are."""
    row, column = np.reshape([float(v) for v in orientation.split("\\")], (2, 3))
    y, x = np.indices((ROWS, COLUMNS))
    plane = x[..., None] * PIXEL[0] * row + y[..., None] * PIXEL[1] * column
    stored = np.stack([np.rint(thing(plane + position)) + 2000 for position in np.array(positions, float)])
    write_dicom(folder, stored.astype(int), positions, pixel=PIXEL, orientation=orientation, rescale=(1, -2000))
    return folder


SERIES = {
    "uneven": ([(-10.0, 5.0, z) for z in UNEVEN], r"1\0\0\0\1\0"),
    "tilted": ([(-10.0, 5.0, 3.0 * z) for z in range(8)], TILTED),
    "tilted the other way": ([(-10.0, 5.0, 3.0 * z) for z in range(8)], TILTED.replace("-", "")),
    "tilted and uneven": ([(-10.0, 5.0, z) for z in UNEVEN], TILTED),
    "sideways": ([(0.5 * z, 5.0, z) for z in UNEVEN], r"1\0\0\0\1\0"),
}


def places(volume):
    """Of each voxel, mm."""
    z, y, x = (index[..., None] for index in np.indices(volume.shape))
    axes = np.reshape(volume.direction, (3, 3)) * volume.spacing
    return np.array(volume.origin) + x * axes[:, 0] + y * axes[:, 1] + z * axes[:, 2]


@pytest.mark.parametrize("thing", [ramp, waves])
@pytest.mark.parametrize("name", SERIES)
def test_each_voxel_has_the_value_of_its_place(tmp_path, write_dicom, name, thing):
    positions, orientation = SERIES[name]
    folder = write(write_dicom, tmp_path / "in", positions, orientation, thing)
    with pytest.raises(UserError, match=r"slice gaps vary|gantry tilt"):
        read_scan(Scan(path=str(folder)))
    volume = read_scan(Scan(path=str(folder), resample="even"))
    array = np.asarray(volume.array)
    outside = array == OUTSIDE
    assert np.mean(~outside) > 0.4 and volume.attributes["source"]["padding"] == OUTSIDE
    error = np.abs(array - thing(places(volume)))[~outside]
    assert error.max() < (1.1 if thing is ramp else 5), "values are whole HU, before and after"
    matrix = np.reshape(volume.direction, (3, 3))
    assert np.allclose(matrix.T @ matrix, np.eye(3), atol=1e-6)
    normal = np.cross(*np.reshape([float(v) for v in orientation.split("\\")], (2, 3)))
    whole = (np.array(positions[-1]) - positions[0]) @ normal
    assert volume.spacing[2] * (len(array) - 1) == pytest.approx(whole, abs=0.5 * volume.spacing[2])


@pytest.mark.parametrize("name", SERIES)
def test_every_pixel_of_the_scan_is_within_the_grid(tmp_path, write_dicom, name):
    positions, orientation = SERIES[name]
    folder = write(write_dicom, tmp_path / "in", positions, orientation, ramp)
    volume = read_scan(Scan(path=str(folder), resample="even"))
    row, column = np.reshape([float(v) for v in orientation.split("\\")], (2, 3))
    axes = np.reshape(volume.direction, (3, 3)) * volume.spacing
    for position in (positions[0], positions[-1]):
        for x, y in ((0, 0), (COLUMNS - 1, 0), (0, ROWS - 1), (COLUMNS - 1, ROWS - 1)):
            corner = np.array(position) + x * PIXEL[0] * row + y * PIXEL[1] * column
            index = np.linalg.solve(axes, corner - np.array(volume.origin))[:2]
            assert (index > -0.01).all() and (index < np.array(volume.shape[:0:-1]) - 0.99).all()


def test_an_even_series_stays_as_it_is(tmp_path, write_dicom):
    folder = write(write_dicom, tmp_path / "in", [(0, 0, 2.0 * z) for z in range(4)], r"1\0\0\0\1\0", waves)
    one, other = (read_scan(Scan(path=str(folder), resample=how)) for how in (None, "even"))
    assert np.array_equal(np.asarray(one.array), np.asarray(other.array))
    assert (one.spacing, one.origin, one.direction) == (other.spacing, other.origin, other.direction)


def test_the_declared_padding_is_what_lies_outside(tmp_path, write_dicom):
    stored = np.full((4, 8, 8), 1000)
    positions = [(0.0, 0.0, 3.0 * z) for z in range(4)]
    write_dicom(tmp_path, stored, positions, orientation=TILTED, tags={"0028|0120": "-2000"})
    volume = read_scan(Scan(path=str(tmp_path), resample="even"))
    assert set(np.unique(np.asarray(volume.array))) == {-24, -3024}
    assert volume.attributes["source"]["padding"] == -3024


def test_a_slice_is_read_without_the_others(tmp_path, write_dicom, monkeypatch):
    folder = write(write_dicom, tmp_path / "in", *SERIES["tilted and uneven"], ramp)
    from microsr.formats import dicom

    asked, read = [], dicom._read_pixels
    monkeypatch.setattr(dicom, "_read_pixels", lambda path: asked.append(path.name) or read(path))
    volume = read_scan(Scan(path=str(folder), resample="even"))
    assert asked == []
    volume.array[3]
    assert len(asked) == 2


def test_many_slices_are_not_made_of_one_small_gap(tmp_path, write_dicom):
    positions = [(0, 0, z) for z in (0.0, 5.0, 5.1, 10.0, 15.0)]
    folder = write(write_dicom, tmp_path / "in", positions, r"1\0\0\0\1\0", ramp)
    assert read_scan(Scan(path=str(folder), resample="even")).shape[0] == 10


def test_only_dicom_is_resampled(tmp_path):
    nibabel.Nifti1Image(np.zeros((4, 4, 4), "i2"), np.diag([1, 1, 2, 1])).to_filename(tmp_path / "a.nii")
    with pytest.raises(UserError, match="only a DICOM series can be resampled"):
        read_scan(Scan(path=str(tmp_path / "a.nii"), resample="even", spacing="1x1x1"))


@pytest.mark.parametrize("positions", [UNEVEN, 3.0 * np.arange(6)])
def test_what_the_message_advises_gets_through(tmp_path, chest, write_dicom, positions):
    stored = np.resize(np.rint(chest).astype(int) + 1024, (len(positions), 64, 64))
    folder = tmp_path / "in"
    orientation = r"1\0\0\0\1\0" if positions is UNEVEN else TILTED
    write_dicom(folder, stored, [(0.0, 0.0, float(z)) for z in positions], pixel=(0.7, 0.7), orientation=orientation)
    with pytest.raises(UserError, match="<modality>_resample is even in the sheet") as error:
        read_scan(Scan(path=str(folder)))
    advised = re.search("--resample even", str(error.value))[0].split()
    for command in (
        f"info {folder}",
        f"volumes clinical --case a --input {folder} --output {tmp_path}/c.ome.zarr",
        f"superresolve {folder} --upsampler bicubic --output {tmp_path}/sr.nii",
        f"superresolve {folder} --upsampler bicubic --slices 1:3 --output {tmp_path}/dicom",
    ):
        cli.main([*command.split(), *advised])
    assert open_volume(tmp_path / "c.ome.zarr").array[:].min() >= -1500, "what is outside is air"
    sheet = tmp_path / "cases.tsv"
    sheet.write_text("case\tsplit\tclinical\tclinical_resample\na\ttrain\tin\teven\n")
    cases = read_sheet(Cases(sheet=str(sheet), data_root=str(tmp_path)))
    assert read_scan(cases[0].clinical).shape[0] >= len(positions)
    assert "\teven\t" in sheet_text(cases)


def test_another_word_than_even_is_refused(tmp_path):
    (tmp_path / "a.nii").touch()
    sheet = tmp_path / "cases.tsv"
    sheet.write_text("case\tsplit\tclinical\tclinical_resample\na\ttrain\ta.nii\todd\n")
    with pytest.raises(UserError, match="resample"):
        read_sheet(Cases(sheet=str(sheet), data_root=str(tmp_path)))


@pytest.mark.skipif(shutil.which("dcm2niix") is None, reason="dcm2niix is not installed")
def test_dcm2niix_makes_the_same_of_a_real_scan(tmp_path, shared_data):
    folder = shared_data / "hard/gantry_tilt_and_gaps"
    subprocess.run(
        ["dcm2niix", "-z", "n", "-f", "x", "-o", str(tmp_path), str(folder)], check=True, capture_output=True
    )
    (file,) = tmp_path.glob("x_Tilt_Eq*.nii")
    theirs = np.asarray(nibabel.load(file).dataobj).T[:, ::-1]  # its rows go up
    volume = read_scan(Scan(path=str(folder), resample="even"))
    ours = np.asarray(volume.array)
    assert ours.shape == theirs.shape
    assert volume.spacing == pytest.approx([float(v) for v in nibabel.load(file).header.get_zooms()], rel=1e-5)
    both = (ours > -1400) & (theirs > -1400)  # -1500 is outside
    assert both.mean() > 0.6
    assert np.abs(ours[both].astype(float) - theirs[both]).mean() < 1
    assert np.corrcoef(ours[both], theirs[both])[0, 1] > 0.9998
