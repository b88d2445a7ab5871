"""Import: HU, calibration, sampling and geometry from the file on disk to the volume in the working format."""

import gc
import hashlib
import json
import tracemalloc

import numpy as np
import pandas as pd
import pytest
import SimpleITK as sitk

from microsr import cli
from microsr.config import ClinicalVolume, MicroVolume
from microsr.config.sheet import Scan
from microsr.core.errors import UserError
from microsr.preprocessing.volumes import import_as_is, import_clinical, import_micro, write_table
from microsr.volume.storage import Volume, open_mask, open_volume, write_volume


def save(path, array, spacing=(1.0, 1.0, 1.0), origin=(0.0, 0.0, 0.0)):
    path.parent.mkdir(parents=True, exist_ok=True)
    image = sitk.GetImageFromArray(np.asarray(array))
    image.SetSpacing(spacing)
    image.SetOrigin(origin)
    sitk.WriteImage(image, str(path))
    return Scan(path=str(path))


def clinical(scan, output, **settings):
    import_clinical(scan, "a", ClinicalVolume(**settings), output)
    return open_volume(output), open_mask(output)[:] > 0


def micro(scan, output, like=None, **settings):
    import_micro(scan, "a", MicroVolume.model_validate(settings), output, like)
    return open_volume(output), open_mask(output)[:] > 0


SET_POINTS = {"air_grey": 1000, "tissue_grey": 5000}
"""HU = -1000 + (grey - 1000) * 0.26"""


@pytest.fixture
def specimen():
    """Grey values [8, 60, 80]: walls of tissue (5000) 2 pixels thick every 8 pixels, air (1000) between."""
    row, column = np.indices((60, 80))
    walls = (row % 8 < 2) | (column % 8 < 2)
    return np.repeat(np.where(walls, 5000, 1000)[None], 8, axis=0).astype(np.uint16)


def test_clinical_import_keeps_hu_and_place(tmp_path, chest):
    scan = save(tmp_path / "in.nii.gz", np.rint(chest).astype(np.int16), (0.7, 0.8, 1.5), (5, -6, 7))
    volume, mask = clinical(scan, tmp_path / "clinical.ome.zarr")
    assert volume.unit == "HU" and volume.array.dtype == np.int16
    assert np.array_equal(volume.array[:], np.rint(chest))
    assert volume.spacing == pytest.approx((0.7, 0.8, 1.5)) and volume.origin == pytest.approx((5, -6, 7))
    assert volume.attributes["case"] == "a" and volume.attributes["modality"] == "clinical"
    assert mask.shape == volume.shape and mask[:, 32, 16].all() and not mask[:, 0, 0].any()


def test_how_it_was_made_lies_beside_the_volume(tmp_path, chest):
    scan = save(tmp_path / "in.nrrd", chest.astype(np.float32))
    clinical(scan, tmp_path / "clinical.ome.zarr", closing_mm=3)
    run = json.loads((tmp_path / "clinical.run.json").read_text(encoding="utf-8"))
    assert run["step"] == "volumes" and run["settings"]["closing_mm"] == 3
    assert run["settings"]["scan"]["path"] == scan.path
    assert run["inputs"] == {scan.path: hashlib.sha256((tmp_path / "in.nrrd").read_bytes()).hexdigest()}


def test_padding_becomes_air_and_never_lung(tmp_path, chest, write_dicom):
    """As RIDER: PixelPaddingValue -2000 stored, -3024 after rescaling; one value below it, without being declared."""
    stored = np.rint(chest) + 1024
    stored[:, :, :18] = -2000
    stored[:, 40:, 46:50] = -1900
    write_dicom(tmp_path / "in", stored, [(0, 0, i) for i in range(6)], pixel=(1, 1), tags={"0028|0120": "-2000"})
    volume, mask = clinical(Scan(path=str(tmp_path / "in")), tmp_path / "clinical.ome.zarr")
    padding = stored < -1000
    assert (volume.array[:][padding] == -1000).all() and not mask[padding].any()
    assert np.array_equal(volume.array[:][~padding], np.rint(chest)[~padding])
    assert mask.any()


def test_padding_at_a_tissue_value_is_left_alone(tmp_path, chest, write_dicom):
    stored = np.rint(chest)
    write_dicom(
        tmp_path / "in", stored, [(0, 0, i) for i in range(6)], pixel=(1, 1), rescale=(1, 0), tags={"0028|0120": "40"}
    )
    volume, _ = clinical(Scan(path=str(tmp_path / "in")), tmp_path / "clinical.ome.zarr")
    assert np.array_equal(volume.array[:], stored)


@pytest.mark.parametrize(
    "change", [lambda hu: hu + 1100, lambda hu: (hu + 1000) / 5, lambda hu: hu / 1000, lambda hu: hu * 200]
)
def test_values_that_are_not_hu_are_refused(tmp_path, chest, change):
    scan = save(tmp_path / "in.nrrd", change(chest).astype(np.float32))
    with pytest.raises(UserError, match=r"in\.nrrd: values from .* are not the HU"):
        clinical(scan, tmp_path / "clinical.ome.zarr")


def test_a_clinical_ct_without_lung_is_refused_by_its_name(tmp_path, chest):
    chest[chest < -500] = -1000
    with pytest.raises(UserError, match=r"in\.nrrd: holds no lung"):
        clinical(save(tmp_path / "in.nrrd", chest.astype(np.float32)), tmp_path / "clinical.ome.zarr")


def test_clinical_images_need_a_slice_distance(tmp_path, chest):
    image = np.rint(chest[0] + 2000).astype(np.uint16)
    sitk.WriteImage(sitk.GetImageFromArray(image), str(tmp_path / "a.png"))
    with pytest.raises(UserError, match="slice distance"):
        clinical(Scan(path=str(tmp_path / "a.png"), spacing="1"), tmp_path / "clinical.ome.zarr")


def test_chosen_slices_keep_their_place(tmp_path, chest):
    scan = save(tmp_path / "in.nrrd", np.rint(chest).astype(np.int16), (1, 1, 2.5))
    scan = scan.model_copy(update={"slices": "2:5"})
    volume, _ = clinical(scan, tmp_path / "clinical.ome.zarr")
    assert volume.shape[0] == 3 and volume.origin == pytest.approx((0, 0, 5))
    assert volume.attributes["slices"] == [2, 5]


def test_native_keeps_pixels_and_calibrates_them(tmp_path, specimen):
    scan = save(tmp_path / "in.nrrd", specimen, (0.05, 0.05, 0.06), (1, 2, 3))
    volume, mask = micro(scan, tmp_path / "micro.ome.zarr", sampling="native", calibration=SET_POINTS)
    assert np.array_equal(volume.array[:], np.where(specimen == 5000, 40, -1000))
    assert volume.spacing == pytest.approx((0.05, 0.05, 0.06)) and volume.origin == pytest.approx((1, 2, 3))
    assert mask.mean() > 0.95
    facts = volume.attributes["calibration"]
    assert facts["slope"] == pytest.approx(0.26) and facts["offset"] == pytest.approx(-1260)


def test_area_average_is_the_mean_of_its_pixels_in_place(tmp_path, specimen):
    """8 x 8 pixels hold 1 - (6/8)^2 tissue: -1000 + 1040 * 0.4375 = -545 HU; the centre moves by 3.5 pixels."""
    scan = save(tmp_path / "in.nrrd", specimen, (0.05, 0.05, 0.06))
    volume, _ = micro(scan, tmp_path / "m.ome.zarr", sampling="native", area_average=8, calibration=SET_POINTS)
    assert volume.shape == (8, 7, 10) and (volume.array[:] == -545).all()
    assert volume.spacing == pytest.approx((0.4, 0.4, 0.06))
    assert volume.origin == pytest.approx((0.175, 0.175, 0))


def test_matched_goes_to_an_eighth_of_the_clinical_pixel_in_all_directions(tmp_path, specimen):
    clinical_ct = Volume(np.zeros((2, 3, 3)), (0.8, 0.8, 2.0))
    write_volume(tmp_path / "clinical.ome.zarr", clinical_ct)
    scan = save(tmp_path / "in.nrrd", specimen, (0.05, 0.05, 0.05), (10, 20, 30))
    volume, mask = micro(scan, tmp_path / "m.ome.zarr", like=tmp_path / "clinical.ome.zarr", calibration=SET_POINTS)
    assert volume.spacing == pytest.approx((0.1, 0.1, 0.1))
    assert volume.shape == (4, 30, 40) and mask.shape == volume.shape
    assert volume.origin == pytest.approx((10.025, 20.025, 30.025))
    assert volume.array[:, 4:28, 4:36].mean() == pytest.approx(-545, abs=10), "density stays"


def test_a_dense_ball_stays_where_it_is(tmp_path):
    """The ball's centre of mass in patient coordinates, before and after resampling and averaging."""
    z, y, x = np.indices((30, 50, 60))
    ball = (z - 15) ** 2 + (y - 22) ** 2 + (x - 41) ** 2 < 64
    scan = save(tmp_path / "in.nrrd", np.where(ball, 5000, 1000).astype(np.uint16), (0.05, 0.05, 0.05), (1, 2, 3))
    expected = np.array([1 + 41 * 0.05, 2 + 22 * 0.05, 3 + 15 * 0.05])
    for name, settings in (("m", {"matched_spacing_mm": 0.08}), ("n", {"sampling": "native", "area_average": 3})):
        volume, _ = micro(scan, tmp_path / f"{name}.ome.zarr", calibration=SET_POINTS, **settings)
        weight = np.clip(volume.array[:] + 1000.0, 0, None)
        centre = [(weight * i).sum() / weight.sum() for i in np.indices(weight.shape)]
        assert volume.point(tuple(centre)) == pytest.approx(expected, abs=0.01)


def test_independent_slices_are_matched_in_plane_only(tmp_path, specimen):
    for number in range(3):
        image = sitk.GetImageFromArray(specimen[number] + np.uint16(number))
        sitk.WriteImage(image, str(tmp_path / f"slice{number}.png"))
    scan = Scan(path=str(tmp_path), spacing="0.05")
    volume, _ = micro(scan, tmp_path / "out" / "m.ome.zarr", matched_spacing_mm=0.1, calibration=SET_POINTS)
    assert volume.shape == (3, 30, 40) and volume.spacing[:2] == pytest.approx((0.1, 0.1))
    assert volume.attributes["independent_slices"] is True


def test_zero_padding_is_air_and_outside_and_bends_no_percentile(tmp_path, specimen):
    specimen = specimen + np.arange(80, dtype=np.uint16)  # spreads the percentiles
    padded = specimen.copy()
    padded[:, :20, :30] = 0
    settings = {"sampling": "native", "calibration": {"method": "percentile"}}
    volume, mask = micro(save(tmp_path / "p.nrrd", padded, (0.1, 0.1, 0.1)), tmp_path / "p.ome.zarr", **settings)
    assert (volume.array[:, :20, :30] == -1000).all() and not mask[:, :20, :30].any()
    whole, _ = micro(save(tmp_path / "w.nrrd", specimen, (0.1, 0.1, 0.1)), tmp_path / "w.ome.zarr", **settings)
    low, high = (v.attributes["calibration"]["low_grey"] for v in (volume, whole))
    assert low == pytest.approx(high, abs=10)
    averaged, mask = micro(
        save(tmp_path / "p.nrrd", padded, (0.1, 0.1, 0.1)), tmp_path / "a.ome.zarr", area_average=8, **settings
    )
    assert not mask[:, :3, :4].any() and (averaged.array[:, :3, :4] == -1000).all(), (
        "no new pixel mixes tissue and padding"
    )
    padded[:, :20, :30] = specimen[:, :20, :30]
    padded[:, :18, :26] = 0
    _, mask = micro(
        save(tmp_path / "p.nrrd", padded, (0.1, 0.1, 0.1)), tmp_path / "a.ome.zarr", area_average=8, **settings
    )
    assert not mask[:, :3, :4].any() and mask[:, 3:, 4:].all(), "not even one that is mostly tissue"


def test_mean_hu_is_reached_over_the_specimen(tmp_path, specimen):
    calibration = {**SET_POINTS, "mean_hu": -850}
    volume, mask = micro(
        save(tmp_path / "in.nrrd", specimen, (0.1, 0.1, 0.1)),
        tmp_path / "m.ome.zarr",
        sampling="native",
        calibration=calibration,
    )
    assert volume.array[:][mask].mean() == pytest.approx(-850, abs=1)
    assert volume.array[:].min() == -1000


def test_up_sampling_is_refused_with_the_way_out(tmp_path, specimen):
    scan = save(tmp_path / "in.nrrd", specimen, (0.1, 0.1, 0.1))
    with pytest.raises(
        UserError,
        match=r"in\.nrrd: its voxels of 0\.1 mm are coarser .* 0\.078 mm; set volumes\.micro\.sampling to native",
    ):
        micro(scan, tmp_path / "m.ome.zarr", matched_spacing_mm=0.078)
    with pytest.raises(UserError, match="--like"):
        micro(scan, tmp_path / "m.ome.zarr")
    micro(scan, tmp_path / "m.ome.zarr", matched_spacing_mm=0.095, calibration=SET_POINTS)


def test_a_uct_without_specimen_or_contrast_is_refused(tmp_path):
    flat = np.full((4, 40, 40), 700, np.uint16)
    flat[0, 0, 0] = 0
    with pytest.raises(UserError, match=r"in\.nrrd: has no contrast"):
        micro(save(tmp_path / "in.nrrd", flat, (0.1, 0.1, 0.1)), tmp_path / "m.ome.zarr", sampling="native")


def test_volumes_without_content_or_numbers_are_refused_and_leave_nothing(tmp_path):
    flat, holed = np.full((3, 40, 40), 7, np.int16), np.ones((3, 40, 40), np.float32)
    holed[2, 3, 4] = np.nan
    for array, match in ((flat, r"in\.nrrd: is constant \(7 everywhere\)"), (holed, r"in\.nrrd: holds .*NaN")):
        scan = save(tmp_path / "in.nrrd", array, (0.4, 0.4, 0.4))
        for imported in (
            lambda scan: clinical(scan, tmp_path / "out" / "c.ome.zarr"),
            lambda scan: micro(scan, tmp_path / "out" / "m.ome.zarr", sampling="native"),
            lambda scan: import_as_is(scan, "a", "truth", tmp_path / "out" / "t.ome.zarr"),
        ):
            with pytest.raises(UserError, match=match):
                imported(scan)
    assert list((tmp_path / "out").iterdir()) == []


def test_nothing_is_left_of_a_volume_whose_reading_fails_half_way(tmp_path, chest, write_dicom):
    files = write_dicom(tmp_path / "in", np.rint(chest), [(0, 0, i) for i in range(6)], pixel=(1, 1), rescale=(1, 0))
    files[4].write_bytes(files[4].read_bytes()[:-500])
    with pytest.raises(UserError, match=r"image4\.dcm: .*damaged"):
        import_as_is(Scan(path=str(tmp_path / "in")), "a", "truth", tmp_path / "out" / "t.ome.zarr")
    assert list((tmp_path / "out").iterdir()) == []


def peak(work):
    """Bytes that Python and NumPy hold at most, above those at the start."""
    gc.collect()
    tracemalloc.start()
    try:
        work()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("modality", ["clinical", "native", "matched", "truth"])
def test_memory_does_not_grow_with_the_slices(tmp_path, chest, specimen, modality):
    """A slice has 32 or 38 kB, and the images made of it on the way several times that; a few kB of it are kept."""
    settings = {"calibration": SET_POINTS, "matched_spacing_mm": 0.1}
    settings |= {"sampling": "native"} if modality == "native" else {}
    output, found = tmp_path / "out.ome.zarr", []
    work = {
        "clinical": lambda scan: import_clinical(scan, "a", ClinicalVolume(), output),
        "truth": lambda scan: import_as_is(scan, "a", "truth", output),
    }.get(modality, lambda scan: import_micro(scan, "a", MicroVolume.model_validate(settings), output))
    one = specimen if modality in ("native", "matched") else np.rint(chest).astype(np.int16)
    one = np.tile(one, (1, 2, 2))
    for count in (30, 30, 150):  # the first for what is imported and made once
        spacing = (0.5 if modality == "clinical" else 0.05,) * 3
        scan = save(tmp_path / "in.nii.gz", np.resize(one, (count, *one.shape[1:])), spacing)
        found.append(peak(lambda scan=scan: work(scan)))
    assert found[2] - found[1] < 120 * one[0].nbytes / 2


def test_truth_is_taken_as_it_is(tmp_path):
    array = np.arange(24, dtype=np.int16).reshape(2, 3, 4) - 1000
    import_as_is(save(tmp_path / "t.nii.gz", array, (0.08, 0.08, 0.6)), "a", "truth", tmp_path / "truth.ome.zarr")
    volume = open_volume(tmp_path / "truth.ome.zarr")
    assert np.array_equal(volume.array[:], array) and volume.unit == "HU"
    assert volume.attributes["modality"] == "truth" and (tmp_path / "truth.run.json").exists()


def test_table_1_says_what_the_headers_said(tmp_path, chest, specimen):
    scan = save(tmp_path / "c.nrrd", np.rint(chest).astype(np.int16), (0.625, 0.625, 0.6))
    clinical(scan.model_copy(update={"slices": "1:3"}), tmp_path / "clinical.ome.zarr")
    settings = {"sampling": "native", "area_average": 2, "calibration": SET_POINTS}
    micro(save(tmp_path / "m.nrrd", specimen, (0.05, 0.05, 0.06)), tmp_path / "micro.ome.zarr", **settings)
    write_table([tmp_path / "clinical.ome.zarr", tmp_path / "micro.ome.zarr"], tmp_path / "tables" / "volumes.csv")
    rows = pd.read_csv(tmp_path / "tables" / "volumes.csv")
    assert rows["modality"].tolist() == ["clinical", "micro"]
    assert rows[["columns_px", "rows_px", "slices"]].to_numpy().tolist() == [[64, 64, 6], [80, 60, 8]]
    assert rows["pixel_x_mm"].tolist() == [0.625, 0.05] and rows["slice_spacing_mm"].tolist() == [0.6, 0.06]


def test_the_command_takes_settings_as_flags(tmp_path, chest, specimen):
    source = save(tmp_path / "c.nrrd", np.rint(chest).astype(np.int16)).path
    common = [
        "--case",
        "a",
        "--input",
        source,
        "--slices",
        "1:4",
        "--output",
        str(tmp_path / "r" / "clinical.ome.zarr"),
    ]
    cli.main(["volumes", "clinical", *common, "--lung_below_hu", "-500.0", "--closing_mm", "2"])
    assert open_volume(tmp_path / "r" / "clinical.ome.zarr").shape == (3, 64, 64)
    source = save(tmp_path / "m.nrrd", specimen, (0.05, 0.05, 0.06)).path
    common = ["--case", "a", "--input", source, "--output", str(tmp_path / "r" / "micro.ome.zarr")]
    flags = ["--sampling", "native", "--area_average", "2", "--calibration.method", "percentile"]
    cli.main(["volumes", "micro", *common, *flags])
    run = json.loads((tmp_path / "r" / "micro.run.json").read_text(encoding="utf-8"))
    assert run["settings"]["area_average"] == 2 and run["settings"]["calibration"]["method"] == "percentile"


def test_the_command_ends_with_one_line(tmp_path, capsys):
    with pytest.raises(SystemExit) as end:
        cli.main(["volumes", "truth", "--case", "a", "--input", "none.nii", "--output", str(tmp_path / "t.ome.zarr")])
    assert end.value.code == 1
    assert capsys.readouterr().err == "volumes: error: none.nii: does not exist; correct the path\n"


@pytest.mark.parametrize(("day", "mean", "pooled_sd"), [("04", -665, 188), ("10", -700, 171), ("21", -750, 148)])
def test_rat_lung_has_the_density_that_was_measured_before(shared_data, tmp_path, day, mean, pooled_sd):
    """Percentiles 5 and 97 of the tissue mapped to -1000 and 40 HU, averaged 4 times, pooled 8 times further."""
    scan = Scan(path=str(shared_data / f"micro/rat_lung_slices/day{day}.png"), spacing="0.00148")
    settings = {"sampling": "native", "area_average": 4, "calibration": {"method": "percentile"}}
    volume, mask = micro(scan, tmp_path / "m.ome.zarr", **settings)
    assert volume.shape == (1, 350, 734) and volume.spacing[0] == pytest.approx(0.00592)
    hu, inside = volume.array[0].astype(float), mask[0]
    assert hu[inside].mean() == pytest.approx(mean, abs=40)
    tiles = [
        (hu[r : r + 8, c : c + 8].mean(), inside[r : r + 8, c : c + 8].mean())
        for r in range(0, 340, 8)
        for c in range(0, 720, 8)
    ]
    pooled = [value for value, share in tiles if share == 1]
    assert np.mean(pooled) == pytest.approx(mean, abs=40)
    assert np.std(pooled) == pytest.approx(pooled_sd, rel=0.15)


def test_rat_lung_is_scaled_to_the_density_of_the_patient(shared_data, tmp_path):
    scan = Scan(path=str(shared_data / "micro/rat_lung_slices/day04.png"), spacing="0.00148")
    calibration = {"method": "percentile", "mean_hu": -850}
    volume, mask = micro(scan, tmp_path / "m.ome.zarr", sampling="native", area_average=16, calibration=calibration)
    assert volume.array[0][mask[0]].mean() == pytest.approx(-850, abs=10)


def test_the_joint_is_matched_in_three_dimensions(shared_data, tmp_path):
    scan = Scan(path=str(shared_data / "micro/hrpqct_joint.nii"), slices="60:100")
    volume, mask = micro(scan, tmp_path / "m.ome.zarr", matched_spacing_mm=0.1)
    assert volume.spacing == pytest.approx((0.1, 0.1, 0.1))
    assert volume.shape == (24, 140, 236)
    facts = volume.attributes["calibration"]
    assert -200 < facts["air_grey"] < 200 and 1200 < facts["tissue_grey"] < 2200, "background and bone"
    assert 0.2 < mask.mean() < 0.8
    assert volume.array[:][mask].mean() > volume.array[:][~mask].mean() + 300


@pytest.mark.parametrize(
    ("modality", "spacing", "said"),
    [
        ("micro", (13, 13, 13), "are no uCT's (um for mm?)"), ("micro", (0.65, 0.65, 0.65), "are no uCT's"),
        ("micro", (13e-6, 13e-6, 13e-6), "are no uCT's (m for mm?)"), ("micro", (0.05, 0.05, 50), "are no uCT's"),
        ("clinical", (625, 625, 600), "are no clinical CT's (um for mm?)"),
        ("clinical", (0.6, 0.6, 600), "are no clinical CT's"),
    ],
)  # fmt: skip
def test_a_size_in_um_does_not_pass_as_mm(tmp_path, chest, modality, spacing, said):
    values = np.rint(chest if modality == "clinical" else chest + 2000).astype(np.int16)
    scan = save(tmp_path / "in.nii", values, spacing)
    run = {"clinical": lambda: import_clinical(scan, "a", ClinicalVolume(), tmp_path / "o.ome.zarr")}.get(
        modality, lambda: import_micro(scan, "a", MicroVolume(sampling="native"), tmp_path / "o.ome.zarr")
    )
    with pytest.raises(UserError, match="mm are no") as error:
        run()
    assert said in str(error.value) and not (tmp_path / "o.ome.zarr").exists()
