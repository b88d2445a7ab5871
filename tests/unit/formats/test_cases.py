"""The inputs of ../shared/data/cases: each is read as the independent reader named beside it reads it, or told of."""

import json

import numpy as np
import pytest
import zarr

from microsr.config import MicroVolume
from microsr.config.sheet import Scan
from microsr.core.errors import UserError
from microsr.formats.readers import read_scan
from microsr.inference.superresolve import open_input, superresolve
from microsr.inference.upsamplers import interpolation
from microsr.preprocessing.volumes import import_micro

READ = (
    "dcm_copies", "dcm_sagittal", "obj_67", "mhd_matrix_only", "mhd_minimal", "nrrd_bz2", "nii_1mm_no_units",
    "nii_gz_named_nii", "nii_pair", "nii_ras_lefthand", "nii_rounded", "nii_sagittal_storage", "nii_slope0",
    "ome_zarr_0.5", "ome_zarr_0.5_mm_hu", "tif_imagej_one_ifd", "tif_tiled", "tif_zstd", "sky_bmp", "jp2_folder",
    "dcm_enhanced",
)  # fmt: skip
REFUSED = {
    "dcm_localizer": "is a localizer by its ImageType",
    "dcm_missing": r"take the even part 0:3 by .*--slices",
    "mhd_noraw": r"its voxels, gone\.raw, are not there",
    "n5": "has no voxel spacing",
    "nhdr_noraw": r"its voxels, .*, are not there",
    "nii_sheared": r"its axes are not perpendicular \(sheared\)",
}  # fmt: skip


@pytest.mark.parametrize("name", READ)
def test_a_case_is_read_as_by_another_program(shared_data, name):
    folder = shared_data / "cases" / name
    case = json.loads((folder / "expected.json").read_text(encoding="utf-8"))
    volume = read_scan(Scan(path=str(folder / case["input"]), spacing=case.get("give")))
    assert list(volume.shape[::-1]) == case["size"]
    assert volume.spacing == pytest.approx(case["spacing"], rel=1e-5)
    assert volume.origin == pytest.approx(case["origin"], abs=1e-4)
    assert volume.direction == pytest.approx(case["direction"], abs=2e-3)
    for i, j, k, value in case["values_ijk"]:
        assert volume.array[k][j, i] == pytest.approx(value, abs=1e-3)


@pytest.mark.parametrize("name", REFUSED)
def test_a_case_is_refused_for_its_true_reason(shared_data, name):
    folder = shared_data / "cases" / name
    case = json.loads((folder / "expected.json").read_text(encoding="utf-8"))
    with pytest.raises(UserError, match=REFUSED[name]) as error:
        np.asarray(read_scan(Scan(path=str(folder / case["input"]), spacing=case.get("give"))).array)
    assert "\n" not in str(error.value) and str(folder) in str(error.value)


@pytest.mark.parametrize("name", ["dcm_sagittal", "nii_sagittal_storage"])
def test_a_case_that_is_not_axial_is_told(shared_data, caplog, name):
    folder = shared_data / "cases" / name
    case = json.loads((folder / "expected.json").read_text(encoding="utf-8"))
    volume = open_input(folder / case["input"], "1:3")
    assert "its slices are sagittal, not axial" in caplog.text
    assert volume.shape == tuple(case["size"][::-1])


def test_a_uct_in_micrometres_is_refused(shared_data, tmp_path):
    scan = Scan(path=str(shared_data / "cases/tif_spacing_um/in.tif"), spacing="13x13x13")
    for settings in ({"sampling": "native"}, {"matched_spacing_mm": 0.08}):
        with pytest.raises(UserError, match=r"voxels of 13 x 13 x 13 mm are no uCT's \(um for mm\?\)"):
            import_micro(scan, "a", MicroVolume.model_validate(settings), tmp_path / "m.ome.zarr")


def test_a_slice_that_is_missing_in_a_folder_is_told(shared_data, caplog):
    volume = read_scan(Scan(path=str(shared_data / "cases/folder_gap/in"), spacing="0.013x0.013x0.013"))
    assert volume.shape[0] == 5 and "missing between s2.tif and s4.tif" in caplog.text


def test_an_n5_is_read_with_the_spacing_that_its_message_asks_for(shared_data):
    volume = read_scan(Scan(path=str(shared_data / "cases/n5/in.n5"), spacing="0.013x0.013x0.013"))
    assert volume.spacing == (0.013, 0.013, 0.013) and np.ptp(np.asarray(volume.array)) > 0


def test_a_flipped_case_is_in_its_place_in_ome_zarr(shared_data, tmp_path):
    """The value at voxel (i, j, k) of the scan is found by scale and translation alone."""
    folder = shared_data / "cases/nii_ras_lefthand"
    case = json.loads((folder / "expected.json").read_text(encoding="utf-8"))
    superresolve(folder / case["input"], tmp_path / "out.ome.zarr", interpolation("nearest"))
    scales = json.loads((tmp_path / "out.ome.zarr/zarr.json").read_text(encoding="utf-8"))["attributes"]["ome"]
    scale, shift = (
        np.array(list(part.values())[-1] if "scale" in part else part["translation"])
        for part in scales["multiscales"][0]["datasets"][0]["coordinateTransformations"]
    )
    stored = zarr.open_array(str(tmp_path / "out.ome.zarr/0"), mode="r")
    axes = np.reshape(case["direction"], (3, 3)) * case["spacing"]
    for i, j, k, value in case["values_ijk"]:
        place = np.array(case["origin"]) + axes @ [i, j, k]
        z, y, x = (place[::-1] - shift) / scale
        assert stored[round(z), int(y), int(x)] == value


def test_each_case_is_expected(shared_data):
    told = {"folder_gap", "tif_spacing_um"}
    assert {path.name for path in (shared_data / "cases").iterdir() if path.is_dir()} == {*READ, *REFUSED, *told}


def test_an_enhanced_ct_becomes_dicom_slices(shared_data, tmp_path):
    folder = shared_data / "cases/dcm_enhanced/in"
    superresolve(folder, tmp_path / "out", interpolation("nearest"))
    assert len(list((tmp_path / "out").iterdir())) == 6
