"""The step export: what leaves in a foreign format holds the same HU, and falls on the scan it was made from."""

import json

import numpy as np
import pydicom
import pytest
import SimpleITK as sitk
import torch

from microsr import cli
from microsr.core.errors import UserError
from microsr.core.provenance import run_file
from microsr.formats import outputs
from microsr.formats.dicom_series import write_series
from microsr.inference.export import export
from microsr.networks.layers import bicubic_upsample
from microsr.volume.storage import Volume, create_volume, magnified_geometry, open_levels, open_volume, write_volume

ENDINGS = [".ome.zarr", ".nii", ".nii.gz", ".nrrd", ".mha", ""]
OVERLAYS = 5.0
"""HU, root mean square, that a super-resolved volume may differ from its input once it is averaged onto the input's
grid.
"""


def direction(mirror):
    """An oblique direction, about z and then about x; mirrored: left-handed, slices run the other way."""
    (c, s), (d, e) = ((np.cos(a), np.sin(a)) for a in (0.4, 0.25))
    matrix = np.array([[c, -s, 0], [s, c, 0], [0, 0, 1]]) @ np.array([[1, 0, 0], [0, d, -e], [0, e, d]])
    return tuple(float(v) for v in (matrix @ np.diag([1, 1, -1 if mirror else 1])).ravel())


@pytest.fixture(params=[False, True], ids=["oblique", "left-handed"])
def clinical(request):
    """A scan with structures a few pixels wide, about 200 HU strong, unlike in every direction."""
    z, r, c = np.meshgrid(np.arange(6.0), np.arange(30.0), np.arange(36.0), indexing="ij")
    hu = -700 + 150 * np.sin(0.7 * c + 0.3 * z) + 150 * np.cos(0.5 * r - 0.9 * z) + 10 * z
    return Volume(
        np.rint(hu).astype(np.int16),
        (0.7, 0.8, 1.5),
        (-100.0, 50.0, 30.0),
        direction(request.param),
        attributes={"case": "x"},
    )


def superresolved(clinical, path, shift=(0.0, 0.0)):
    """Bicubic super-resolution; shift: clinical pixels (row, column) by which its geometry is wrong."""
    up = bicubic_upsample(torch.from_numpy(clinical.array.astype(np.float32))[:, None], 8)[:, 0].numpy()
    geometry = magnified_geometry(clinical, 8)
    geometry["origin"] = tuple(geometry["origin"] + clinical.point((0, *shift)) - clinical.point((0, 0, 0)))
    write_volume(path, Volume(up, **geometry, attributes={"slices": list(range(6))}))
    return path


def read(path):
    """An image of SimpleITK, read without microsr except for OME-Zarr, which ITK does not know."""
    if path.suffix == ".zarr":
        volume = open_volume(path)
        return image_of(Volume(volume.array[:], volume.spacing, volume.origin, volume.direction))
    if not path.is_dir():
        return sitk.ReadImage(str(path))
    reader = sitk.ImageSeriesReader()
    reader.SetFileNames(reader.GetGDCMSeriesFileNames(str(path)))
    return reader.Execute()


def image_of(volume):
    image = sitk.GetImageFromArray(volume.array)
    image.SetSpacing(volume.spacing), image.SetOrigin(volume.origin), image.SetDirection(volume.direction)
    return image


def deviation(path, clinical):
    """Root mean square HU between the input and the output averaged, and placed by its own geometry, on the input's
    grid.
    """
    averaged = sitk.BinShrink(sitk.Cast(read(path), sitk.sitkFloat32), [8, 8, 1])
    nowhere = -9999.0
    placed = sitk.Resample(averaged, image_of(clinical), sitk.Transform(), sitk.sitkLinear, nowhere)
    found = sitk.GetArrayFromImage(placed)
    inside = found != nowhere
    assert inside.mean() > 0.7
    return float(np.sqrt(np.mean((found - clinical.array)[inside] ** 2)))


@pytest.mark.parametrize("ending", ENDINGS)
def test_the_output_falls_on_its_input(ending, clinical, tmp_path):
    export(superresolved(clinical, tmp_path / "sr.ome.zarr"), tmp_path / f"out{ending}")
    assert deviation(tmp_path / f"out{ending}", clinical) < OVERLAYS


@pytest.mark.parametrize("ending", ENDINGS)
@pytest.mark.parametrize("shift", [(0.5, 0.0), (0.0, -0.5)])
def test_half_a_pixel_aside_is_noticed(ending, shift, clinical, tmp_path):
    export(superresolved(clinical, tmp_path / "sr.ome.zarr", shift), tmp_path / f"out{ending}")
    assert deviation(tmp_path / f"out{ending}", clinical) > 4 * OVERLAYS


@pytest.fixture
def stored(tmp_path):
    """A volume in the working format, and its values."""
    array = np.random.default_rng(0).normal(-850, 100, (5, 600, 20)).astype(np.int16)
    write_volume(
        tmp_path / "v.ome.zarr",
        Volume(array, (0.5, 0.6, 1.5), (1.0, 2.0, 3.0), attributes={"case": "a", "slices": [2, 4, 6, 8, 10]}),
    )
    return tmp_path / "v.ome.zarr", array


@pytest.mark.parametrize("ending", ENDINGS)
def test_the_command_writes_chosen_slices_in_their_place_and_says_how(ending, stored, tmp_path):
    path, array = stored
    out = tmp_path / f"out{ending}"
    cli.main(["export", str(path), "--output", str(out), "--slices", "1:4"])
    image = read(out)
    assert np.array_equal(sitk.GetArrayFromImage(image), array[1:4])
    assert image.GetOrigin() == pytest.approx((1, 2, 4.5)) and image.GetSpacing() == pytest.approx((0.5, 0.6, 1.5))
    run = json.loads(run_file(out).read_text(encoding="utf-8"))
    assert run["step"] == "export" and run["settings"]["slices"] == "1:4" and list(run["inputs"]) == [str(path)]


def test_an_exported_ome_zarr_knows_its_slices_and_has_coarser_levels(stored, tmp_path):
    export(stored[0], tmp_path / "out.ome.zarr", slices="1:4")
    assert open_volume(tmp_path / "out.ome.zarr").attributes == {"case": "a", "slices": [4, 6, 8]}
    assert [level.shape for level in open_levels(tmp_path / "out.ome.zarr", mode="r")] == [(3, 600, 20), (3, 300, 10)]


def test_the_range_that_an_import_took_is_no_list_of_slices(tmp_path):
    volume = Volume(np.zeros((2, 4, 4), np.int16), (1, 1, 1), attributes={"source": {}, "slices": [7, 9]})
    write_volume(tmp_path / "v.ome.zarr", volume)
    export(tmp_path / "v.ome.zarr", tmp_path / "out.ome.zarr", slices="1:2")
    assert open_volume(tmp_path / "out.ome.zarr").attributes["slices"] == [7, 9]


def test_a_series_that_is_exported_with_its_source_says_how_it_was_taken(tmp_path):
    scan = Volume(
        np.random.default_rng(0).normal(-850, 100, (4, 8, 9)).astype(np.int16), (0.5, 0.6, 1.5), (1.0, 2.0, 3.0)
    )
    for path in write_series(tmp_path / "scan", scan, "p7", 1, "lung"):
        data = pydicom.dcmread(path)
        data.KVP = 100
        data.save_as(path)
    write_volume(tmp_path / "v.ome.zarr", scan)
    cli.main(
        ["export", str(tmp_path / "v.ome.zarr"), "--output", str(tmp_path / "out"), "--source", str(tmp_path / "scan")]
    )
    header = pydicom.dcmread(tmp_path / "out/slice0001.dcm")
    assert header.KVP == 100 and not header.PatientID
    with pytest.raises(UserError, match="only DICOM refers to a source"):
        export(tmp_path / "v.ome.zarr", tmp_path / "out.nii", source=tmp_path / "scan")


def test_series_of_different_values_have_different_uids(stored, tmp_path):
    path, array = stored
    export(path, tmp_path / "one")
    write_volume(
        path, Volume(array + np.int16(1), (0.5, 0.6, 1.5), (1.0, 2.0, 3.0), attributes=open_volume(path).attributes)
    )
    export(path, tmp_path / "two")
    uids = [pydicom.dcmread(tmp_path / name / "slice0001.dcm").SeriesInstanceUID for name in ("one", "two")]
    assert uids[0] != uids[1]


def test_an_export_that_was_stopped_goes_on_unless_the_volume_changed(stored, tmp_path, monkeypatch, caplog):
    path, array = stored
    caplog.set_level("INFO")

    def stopped_at(count):
        def write(self, image):
            if self.done == count:
                raise KeyboardInterrupt
            original(self, image)

        original = outputs.Partial.write
        with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
            patch.setattr(outputs.Partial, "write", write)
            export(path, tmp_path / "out.nii")

    stopped_at(3)
    export(path, tmp_path / "out.nii")
    assert "continues at slice 4 of 5" in caplog.text
    stopped_at(3)
    write_volume(path, Volume(array[::-1], (0.5, 0.6, 1.5), (1.0, 2.0, 3.0), attributes=open_volume(path).attributes))
    export(path, tmp_path / "out.nii")
    assert "was begun with another volume, its 3 slices cannot be used" in caplog.text
    assert np.array_equal(sitk.GetArrayFromImage(read(tmp_path / "out.nii")), array[::-1])


@pytest.mark.parametrize(("flags", "problem"), [
    (["--output", "out.png"], "no known format"),
    (["--output", "out.nii", "--format", "nrrd"], "its ending is not that of it"),
    (["--output", "out.nii", "--slices", "3:9"], "slices 3:9 do not fit: the volume has 5"),
    (["--output", "out.nii", "--slices", "three"], "must be first:end"),
    (["--output", "v.ome.zarr"], "is the volume itself"),
])  # fmt: skip
def test_a_wrong_command_ends_with_one_line(flags, problem, stored, monkeypatch, caplog):
    path, array = stored
    monkeypatch.chdir(path.parent)
    with pytest.raises(SystemExit):
        cli.main(["export", "v.ome.zarr", *flags])
    (line,) = [r.getMessage() for r in caplog.records if r.levelname == "ERROR"]
    assert problem in line and "\n" not in line
    assert np.array_equal(open_volume(path).array[:], array)


def test_float_volumes_are_refused(stored, tmp_path):
    create_volume(tmp_path / "f.ome.zarr", (1, 2, 2), {"spacing": (1, 1, 1)}, dtype="float32")
    with pytest.raises(UserError, match="holds float32, only int16 is exported"):
        export(tmp_path / "f.ome.zarr", tmp_path / "f.nii")
