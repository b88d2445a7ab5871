"""What a message advises works: the command is given again with what it asks for, and gets through.

Of a series with gaps or tilt: tests/unit/formats/test_dicom_kinds.py and test_even.py.
"""

import re

import nibabel
import numpy as np
import pydicom
import pytest
import tifffile

from microsr.cli import main
from microsr.volume.storage import Volume, write_volume


@pytest.fixture
def specimen():
    """Grey values of a uCT with plain air and tissue, [12, 60, 60]."""
    row, column = np.indices((60, 60))
    inside = np.hypot(row - 30, column - 30) < 22
    noise = np.random.default_rng(0).normal(0, 60, (12, 60, 60))
    return np.rint(np.where(inside, 5000, 1000) + noise).astype(np.uint16)


def nifti(path, array, spacing, unit="mm", affine=None):
    image = nibabel.Nifti1Image(array.T, np.diag([*spacing, 1.0]) if affine is None else affine, dtype=array.dtype)
    image.header.set_xyzt_units(unit)
    image.to_filename(path)
    return path


def no_size(folder, chest, specimen, write_dicom):
    path = nifti(folder / "a.nii", np.rint(chest).astype("i2"), (1, 1, 1), "unknown")
    return f"info {path}", "<modality>_spacing in the sheet, or --spacing", "--spacing 0.7x0.7x1"


def no_size_of_a_stack(folder, chest, specimen, write_dicom):
    tifffile.imwrite(folder / "a.tif", specimen, photometric="minisblack")
    return f"info {folder}/a.tif", "or --spacing", "--spacing 0.05x0.05x0.05"


def no_size_of_images(folder, chest, specimen, write_dicom):
    for z, image in enumerate(specimen):
        tifffile.imwrite(folder / f"{z}.tif", image, photometric="minisblack")
    return f"info {folder}", "X or XxY for independent slices, XxYxZ for a stack", "--spacing 0.05"


def no_thickness(folder, chest, specimen, write_dicom):
    (file,) = write_dicom(folder, np.rint(chest[:1]).astype(int) + 1024, [(0, 0, 0)])
    data = pydicom.dcmread(file)
    del data.SliceThickness
    data.save_as(file)
    return f"info {file}", "or --spacing", "--spacing 0.7x0.7x1"


def several_series(folder, chest, specimen, write_dicom):
    stored = np.rint(chest).astype(int) + 1024
    for series in ("1.2.3", "1.2.4"):
        write_dicom(folder, stored, [(0, 0, z) for z in range(6)], series=series, name=series)
    return f"info {folder}", "command: --series", "--series 1.2.4"


def in_micrometres(folder, chest, specimen, write_dicom):
    path = nifti(folder / "a.nii", specimen, (50, 50, 50))
    command = f"volumes micro --case a --input {path} --output {folder}/o.ome.zarr --sampling native"
    return command, "um for mm.*--spacing", "--spacing 0.05x0.05x0.05"


def too_coarse(how):
    def make(folder, chest, specimen, write_dicom):
        path = nifti(folder / "a.nii", specimen, (0.1, 0.1, 0.1))
        command = f"volumes micro --case a --input {path} --output {folder}/o.ome.zarr"
        asked = "volumes.micro.sampling to native, or a larger matched_spacing_mm"
        if how == "native":
            return f"{command} --matched_spacing_mm 0.05", asked, "--sampling native"
        return command, "or volumes.micro.matched_spacing_mm", "--matched_spacing_mm 0.2"

    return make


def not_square(folder, chest, specimen, write_dicom):
    write_volume(folder / "like.ome.zarr", Volume(chest, (0.7, 0.8, 1.0)))
    path = nifti(folder / "a.nii", specimen, (0.05, 0.05, 0.05))
    command = f"volumes micro --case a --input {path} --output {folder}/o.ome.zarr --like {folder}/like.ome.zarr"
    return command, "set volumes.micro.matched_spacing_mm", "--matched_spacing_mm 0.09"


def no_peak(folder, chest, specimen, write_dicom):
    values = np.random.default_rng(0).uniform(1000, 5000, specimen.shape).astype("u2")
    values[specimen < 3000] = 0
    path = nifti(folder / "a.nii", values, (0.05, 0.05, 0.05))
    command = f"volumes micro --case a --input {path} --output {folder}/o.ome.zarr --sampling native"
    return command, "or use the method percentile", "--calibration.method percentile"


def in_parts(folder, chest, specimen, write_dicom):
    write_volume(folder / "c.ome.zarr", Volume(chest, (0.7, 0.7, 1.0)))
    command = f"superresolve {folder}/c.ome.zarr --upsampler bicubic --part 1 --parts 2 --output {folder}/out"
    return f"{command}.nii", "only OME-Zarr can be written in parts", ("out.nii", "out.ome.zarr")


def unevenly(folder, chest, specimen, write_dicom):
    write_volume(folder / "c.ome.zarr", Volume(chest, (0.7, 0.7, 1.0)))
    superresolve = f"superresolve {folder}/c.ome.zarr --upsampler bicubic --output {folder}/out.nii"
    return f"{superresolve} --slices [0,2,5]", "evenly spaced", ("[0,2,5]", "[0,2,4]")


CASES = {
    "no size": no_size, "no size of a stack": no_size_of_a_stack, "no size of images": no_size_of_images,
    "no thickness": no_thickness, "several series": several_series, "in micrometres": in_micrometres,
    "too coarse": too_coarse("native"), "no target": too_coarse("target"), "not square": not_square, "no peak": no_peak,
    "in parts": in_parts, "unevenly": unevenly,
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_what_is_advised_gets_through(refused, tmp_path, chest, specimen, write_dicom, name):
    command, said, advice = CASES[name](tmp_path, chest, specimen, write_dicom)
    message = refused(*command.split())
    assert re.search(said, message), message
    again = command.replace(*advice) if isinstance(advice, tuple) else f"{command} {advice}"
    main(again.split())


@pytest.mark.parametrize("source", ["nifti", "tiff"])
def test_the_sheet_takes_what_is_advised_too(tmp_path, chest, specimen, source):
    from microsr.config import Cases
    from microsr.config.sheet import read_sheet
    from microsr.formats.readers import read_scan

    if source == "nifti":
        nifti(tmp_path / "a.nii", np.rint(chest).astype("i2"), (1, 1, 1), "unknown")
    else:
        tifffile.imwrite(tmp_path / "a.tif", specimen, photometric="minisblack")
    name = "a.nii" if source == "nifti" else "a.tif"
    (tmp_path / "s.tsv").write_text(f"case\tsplit\tmicro\tmicro_spacing\na\ttrain\t{name}\t0.1x0.2x0.3\n")
    (case,) = read_sheet(Cases(sheet=str(tmp_path / "s.tsv"), data_root=str(tmp_path)))
    assert read_scan(case.micro).spacing == (0.1, 0.2, 0.3)
