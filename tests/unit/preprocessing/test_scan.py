"""`microsr scan`: a uCT volume seen by the simulated clinical scanner, in its place, and what is known of it."""

import json

import numpy as np
import pydicom
import pytest
import SimpleITK as sitk

from microsr import cli
from microsr.config import Calibration, MicroVolume, Scanner
from microsr.config.sheet import Scan
from microsr.core.errors import UserError
from microsr.formats.readers import read_scan
from microsr.physics.scanner import KERNELS, noise
from microsr.preprocessing import scan
from microsr.preprocessing.pairs import View as PatchView
from microsr.preprocessing.scan import scan_micro
from microsr.preprocessing.volumes import import_micro
from microsr.volume.slices import Slices
from microsr.volume.storage import Volume, open_volume, write_volume

VOXEL = 0.05
STATED = Scanner(kernel="D45", pixel_mm=8 * VOXEL, slice_sigma_mm=0.2, noise_hu=25.0)
IN_HU = MicroVolume(calibration=Calibration(method="none"))
TURNED = (0.0, 0.8, 0.6, -1.0, 0.0, 0.0, 0.0, -0.6, 0.8)


def save(path, values, spacing=(VOXEL,) * 3, origin=(0.0, 0.0, 0.0), direction=None):
    image = sitk.GetImageFromArray(np.asarray(values))
    image.SetSpacing(spacing)
    image.SetOrigin(origin)
    image.SetDirection(direction or np.eye(3).ravel().tolist())
    sitk.WriteImage(image, str(path))
    return path


def scanned(
    folder,
    micro,
    slice_mm=5 * VOXEL,
    scanner=STATED,
    settings=IN_HU,
    seed=1,
    case="a",
    wanted=("noise_free",),
    **of_scan,
):
    """What the scan of `micro` gives, by the outputs' names."""
    outputs = {name: folder / f"{name}.nrrd" for name in ("clinical", *wanted)}
    scan_micro(Scan(path=str(micro), **of_scan), outputs, case, seed, settings, scanner, slice_mm)
    return {name: sitk.ReadImage(str(path)) for name, path in outputs.items()}


def values_of(image):
    return sitk.GetArrayFromImage(image).astype(float)


def speckle(shape=(43, 88, 96)):
    return np.random.default_rng(5).integers(-1000, 100, shape).astype(np.int16)


def test_a_scan_is_the_one_that_pairs_are_made_with(tmp_path):
    """Which is the simulated lungs' (test_pairs.py): the same slices and pixels, to the rounding."""
    values = speckle()
    found = values_of(scanned(tmp_path, save(tmp_path / "m.nii", values))["noise_free"])
    view = PatchView(Volume(values, (VOXEL,) * 3), STATED.pixel_mm, STATED.slice_sigma_mm, scale=8)
    assert found.shape == (8, 11, 12)
    for z in (0, 3, 7):  # clinical slices that are centred on a uCT slice
        expected = view.scan((5 * z + 2, 0, 0), 88, [(STATED.kernel, STATED.slice_sigma_mm)])[0]
        assert np.ptp(found[z]) > 10
        assert found[z, :, :11] == pytest.approx(expected, abs=1)


def test_a_wire_and_a_sheet_show_the_kernels_psf_and_the_slice_profile(tmp_path):
    kernel, scanner = KERNELS["B30"], Scanner(kernel="B30", pixel_mm=0.2, slice_sigma_mm=0.3, noise_hu=0)
    values = np.zeros((40, 81, 81), np.int16)
    values[:, 40, 40] = 30000
    wire = values_of(scanned(tmp_path, save(tmp_path / "wire.nii", values), 0.5, scanner)["noise_free"])
    middle = 40 * VOXEL
    pixels = (np.arange(wire.shape[2]) + 0.5) * 0.2 - VOXEL / 2
    distance = np.hypot(pixels - middle, pixels[np.abs(pixels - middle).argmin()] - middle)
    expected = 30000 * VOXEL**2 * kernel.psf(distance)
    assert wire[1, np.abs(pixels - middle).argmin()] == pytest.approx(expected, abs=1.0)
    assert expected.max() > 30

    values = np.zeros((81, 20, 20), np.int16)
    values[40] = 3000
    sheet = values_of(scanned(tmp_path, save(tmp_path / "sheet.nii", values), 0.1, scanner)["noise_free"])
    places = (np.arange(len(sheet)) + 0.5) * 0.1 - VOXEL / 2 - middle
    profile = 3000 * VOXEL * np.exp(-((places / 0.3) ** 2) / 2) / (0.3 * np.sqrt(2 * np.pi))
    assert sheet[:, 2, 2] == pytest.approx(profile, abs=2.5)


def test_noise_has_the_stated_sd_and_the_scanners_grain_and_hangs_on_case_and_seed(tmp_path):
    micro = save(tmp_path / "m.nii", np.full((40, 400, 400), 40, np.int16))
    found = scanned(tmp_path, micro, wanted=("noise_free", "repeat"))
    still, first, second = (values_of(found[name]) for name in ("noise_free", "clinical", "repeat"))
    assert (still == 40).all()
    for noisy in (first, second):
        assert np.std(noisy - still) == pytest.approx(25, rel=0.05)
    assert abs(np.corrcoef(first.ravel(), second.ravel())[0, 1]) < 0.05
    expected = noise(first.shape, STATED, 5 * VOXEL, np.random.default_rng(0))
    neighbours = [np.corrcoef(x[:, :, 1:].ravel(), x[:, :, :-1].ravel())[0, 1] for x in (first, expected)]
    slices = [np.corrcoef(x[1:].ravel(), x[:-1].ravel())[0, 1] for x in (first, expected)]
    assert neighbours[0] == pytest.approx(neighbours[1], abs=0.04)
    assert slices[0] == pytest.approx(slices[1], abs=0.04)
    again, other, later = (
        values_of(scanned(tmp_path, micro, **how)["clinical"]) for how in ({}, {"case": "b"}, {"seed": 2})
    )
    assert np.array_equal(first, again) and not np.array_equal(first, other) and not np.array_equal(first, later)


def centroid(image, above):
    """Where the mass of an image's values over `above` lies, mm."""
    weight = np.maximum(values_of(image) - above, 0)
    z, y, x = (float((weight * grid).sum() / weight.sum()) for grid in np.indices(weight.shape))
    return np.array(image.TransformContinuousIndexToPhysicalPoint((x, y, z)))


@pytest.mark.parametrize("direction", [None, TURNED, (-1.0, 0, 0, 0, 1.0, 0, 0, 0, -1.0)])
def test_all_that_is_written_lies_where_the_uct_does(tmp_path, direction):
    z, y, x = np.indices((60, 96, 104))
    ball = np.where((z - 22) ** 2 + (y - 60) ** 2 + (x - 37) ** 2 < 15**2, 1000, -1000).astype(np.int16)
    micro = save(tmp_path / "m.nii", ball, (0.05, 0.05, 0.06), (11.0, -7.0, 30.0), direction)
    wanted = ("truth", "thick_truth", "noise_free")
    still = STATED.model_copy(update={"noise_hu": 0.0})
    expected = centroid(sitk.ReadImage(str(micro)), -900)
    for part in ({}, {"slices": "5:58", "region": "8:96,3:"}):
        found = scanned(tmp_path, micro, 0.15, still, wanted=wanted, **part)
        for name, image in found.items():
            assert centroid(image, -900) == pytest.approx(expected, abs=0.04), name
    truth = found["truth"]
    assert truth.GetSpacing() == pytest.approx((VOXEL, VOXEL, 0.15))
    assert truth.GetSize()[:2] == tuple(8 * n for n in found["clinical"].GetSize()[:2])


def test_the_truth_is_the_uct_and_the_thick_truth_its_mean_over_the_profile(tmp_path):
    values = speckle((44, 88, 96))
    found = scanned(tmp_path, save(tmp_path / "m.nii", values), 4 * VOXEL, wanted=("truth", "thick_truth"))
    between = values_of(found["truth"])[3]  # centred between two slices: half of the sum of both and their neighbours
    mean = -0.0625 * values[12] + 0.5625 * values[13] + 0.5625 * values[14] - 0.0625 * values[15]
    assert between == pytest.approx(mean, abs=1)
    places = (np.arange(44) - 13.5) * VOXEL
    weights = np.exp(-((places / STATED.slice_sigma_mm) ** 2) / 2)
    thick = np.tensordot(weights / weights.sum(), values, 1)
    assert values_of(found["thick_truth"])[3] == pytest.approx(thick, abs=4)


def test_the_truth_has_the_pixels_of_the_scale(tmp_path):
    micro, outputs = (
        save(tmp_path / "m.nii", speckle((20, 40, 48))),
        {"clinical": tmp_path / "c.nii", "truth": tmp_path / "t.nii"},
    )
    scan_micro(Scan(path=str(micro)), outputs, "a", 1, IN_HU, STATED, 0.25, scale=4)
    clinical, truth = (sitk.ReadImage(str(path)) for path in outputs.values())
    assert truth.GetSize()[:2] == tuple(4 * n for n in clinical.GetSize()[:2])
    assert truth.GetSpacing() == pytest.approx((0.1, 0.1, 0.25))
    with pytest.raises(UserError, match=r"choose pixel_mm of at least 0\.8"):
        scan_micro(Scan(path=str(micro)), outputs, "a", 1, IN_HU, STATED, 0.25, scale=16)


@pytest.mark.parametrize("name", ["c.nii", "c.nii.gz", "c.nrrd", "c.mha", "c.ome.zarr", "series"])
def test_every_clinical_format_holds_the_same_scan_in_the_same_place(tmp_path, name, capsys):
    micro = save(tmp_path / "m.nii", speckle((40, 64, 72)), origin=(3.0, 4.0, 5.0), direction=TURNED)
    words = ["--slice_spacing_mm", "0.5", "--pixel_mm", "0.4", "--calibration.method", "none", "--kernel", "B30"]
    for output in (name, "reference.mha"):
        cli.main(["scan", str(micro), "--output", str(tmp_path / output), *words])
    found, reference = (read_scan(Scan(path=str(tmp_path / output))) for output in (name, "reference.mha"))
    assert np.array_equal(found.array[:], reference.array[:]) and found.shape == (4, 8, 9)
    for key in ("spacing", "origin", "direction"):
        assert getattr(found, key) == pytest.approx(getattr(reference, key), abs=1e-5), key
    record = json.loads(next(tmp_path.glob(f"{name.removesuffix('.ome.zarr')}*run.json")).read_text())
    assert record["step"] == "scan" and record["settings"]["kernel"] == "B30"
    assert list(record["inputs"]) == [str(micro)]


def test_a_dicom_series_says_that_it_is_simulated_and_how(tmp_path):
    micro = save(tmp_path / "m.nii", speckle((40, 64, 72)))
    outputs = {"clinical": tmp_path / "series"}
    uids = []
    for values in (speckle((40, 64, 72)), speckle((40, 64, 72)) + 1):
        save(micro, values)
        scan_micro(Scan(path=str(micro)), outputs, "a", 1, IN_HU, STATED, 0.5)
        data = pydicom.dcmread(tmp_path / "series/slice0001.dcm")
        uids.append(data.SeriesInstanceUID)
    assert data.ImageType[:2] == ["DERIVED", "SECONDARY"] and data.ConvolutionKernel == "D45"
    assert data.SliceThickness == pytest.approx(0.471, abs=0.001) and data.SpacingBetweenSlices == 0.5
    assert "uCT" in data.SeriesDescription and "noise 25 HU" in data.DerivationDescription and not data.PatientName
    assert uids[0] != uids[1], "of another uCT"


def grey_specimen(path):
    """A block of tissue of 30000 in air of 8000, uint16, and what is 0 outside the field."""
    values = np.full((40, 80, 80), 8000, np.float32)
    values[:, 20:60, 20:60] = 30000
    values += np.random.default_rng(1).normal(0, 300, values.shape)
    values[:, :6] = 0
    return save(path, values.astype(np.uint16))


def test_grey_values_are_calibrated_as_in_the_import(tmp_path):
    micro, settings = grey_specimen(tmp_path / "m.nii"), MicroVolume(sampling="native")
    found = values_of(scanned(tmp_path, micro, settings=settings)["noise_free"])
    assert found[2, 5, 5] == pytest.approx(40, abs=30) and found[2, 9, 1] == pytest.approx(-1000, abs=15)
    assert found[2, 0, 5] == pytest.approx(-1000, abs=15), "outside the field there is air"
    import_micro(Scan(path=str(micro)), "a", settings, tmp_path / "imported.ome.zarr")
    record = json.loads((tmp_path / "clinical.nrrd.run.json").read_text())
    facts = open_volume(tmp_path / "imported.ome.zarr").attributes["calibration"]
    assert record["calibration"] == facts
    again = values_of(scanned(tmp_path, tmp_path / "imported.ome.zarr", settings=settings)["noise_free"])
    assert again == pytest.approx(found, abs=1), "an imported uCT is in HU already"


def test_slices_pass_through_one_by_one(tmp_path, monkeypatch, peak_memory):
    """Each is read once, and the memory does not grow with their number."""
    read = []

    def load(z):
        read.append(z)
        return np.full((128, 128), z % 7, np.int16)

    def run(count):
        read.clear()
        volume = Volume(Slices(load, (count, 128, 128), np.int16), (VOXEL,) * 3, attributes={"source": {}})
        monkeypatch.setattr(scan, "read_scan", lambda *_: volume)
        outputs = {"clinical": tmp_path / "c.nii", "thick_truth": tmp_path / "t.nii"}
        scan_micro(Scan(path=str(tmp_path / "x")), outputs, "a", 1, MicroVolume(), STATED, 0.5)

    monkeypatch.setattr(scan, "_open_hu", lambda volume, *_: ((lambda z: volume.array[z].astype(np.float32)), {}))
    (tmp_path / "x").write_bytes(b"")
    short, long = peak_memory(lambda: run(100)), peak_memory(lambda: run(500))
    assert long < short + 10e6  # 400 slices of float32 are 26 MB
    assert sorted(read) == sorted([*range(500), 250]), "the middle one for its plausibility, too"


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ({"scanner": Scanner(pixel_mm=0.03)}, "coarser than pixel_mm 0.03: .* at least 0.05"),
        ({"slice_mm": 0.02}, "coarser than slice_spacing_mm 0.02: .* at least 0.05"),
        ({"scanner": Scanner(pixel_mm=0.2), "wanted": ["truth"]}, "truth's, 0.025 mm .* at least 0.4, or leave"),
        ({"scanner": Scanner(pixel_mm=3.0)}, "is 2.4 x 2 x 1 mm large, less than one clinical voxel of 3 x 3 x 0.25"),
        ({"slice_mm": 1.5}, "less than one clinical voxel"),
        ({"slices": "3:4"}, "its slices have no neighbours"),
        ({"spacing": "0.7"}, "are those of a clinical CT, not of a uCT"),
    ],
)
def test_what_makes_no_scan_is_refused_and_nothing_is_written(tmp_path, how, message):
    micro = save(tmp_path / "m.nii", speckle((20, 40, 48)))
    with pytest.raises(UserError, match=message):
        scanned(tmp_path, micro, **how)
    assert [path.name for path in tmp_path.iterdir()] == ["m.nii"]


def test_what_fails_half_way_leaves_nothing(tmp_path):
    values = speckle((20, 40, 48)).astype(np.float32)
    values[17, 3, 3] = np.nan
    micro = save(tmp_path / "m.nii", values)
    (tmp_path / "clinical.nrrd").write_text("of before")
    with pytest.raises(UserError, match="not numbers"):
        scanned(tmp_path, micro, wanted=("truth", "repeat"))
    assert {path.name for path in tmp_path.iterdir()} == {"m.nii", "clinical.nrrd"}
    assert (tmp_path / "clinical.nrrd").read_text() == "of before"


def test_grey_values_are_not_taken_for_hu(tmp_path):
    micro = grey_specimen(tmp_path / "m.nii")
    with pytest.raises(UserError, match="above 10000, so they are no HU; calibrate it"):
        scanned(tmp_path, micro)
    scanned(tmp_path, micro, settings=MicroVolume())  # as advised


def test_no_output_takes_the_place_of_another_thing(tmp_path):
    micro = save(tmp_path / "m.nii", speckle((20, 40, 48)))
    clinical = tmp_path / "c.nii"
    for outputs in ({"clinical": micro}, {"clinical": clinical, "truth": clinical}):
        with pytest.raises(UserError, match="give each output a name of its own"):
            scan_micro(Scan(path=str(micro)), outputs, "a", 1, IN_HU, STATED, 0.25)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/thesis.txt").write_text("x")
    with pytest.raises(UserError, match="exists and is no earlier output"):
        scan_micro(Scan(path=str(micro)), {"clinical": tmp_path / "mine"}, "a", 1, IN_HU, STATED, 0.25)


def test_a_working_volume_that_is_not_in_hu_is_calibrated(tmp_path):
    write_volume(tmp_path / "grey.ome.zarr", Volume(speckle((20, 40, 48)), (VOXEL,) * 3, unit="grey"))
    found = scanned(tmp_path, tmp_path / "grey.ome.zarr", settings=IN_HU)
    assert found["clinical"].GetSize() == (6, 5, 4)
