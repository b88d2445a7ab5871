"""Real volumes, end to end, with next to no training: experiments/real.yaml, matched.yaml and bone.yaml cut
short.
"""

import csv
import json

import numpy as np
import pandas as pd
import pydicom
import pytest

from microsr.volume import storage

pytestmark = [pytest.mark.workflow, pytest.mark.nightly]
SHORT = "methods: {cyclegan: null}\ntrain: {epochs: 1, patches_per_case: 16, start_steps: 0}\npatches: {per_case: 40}\n"


def run_short(workflow, experiment, shared_data):
    """The experiment on the real volumes, with seconds of training and with one trained method."""
    (workflow.folder / "short.yaml").write_text(SHORT + f"cases: {{data_root: {shared_data}}}\n")
    workflow.run("--configfile", f"experiments/{experiment}.yaml", "short.yaml")
    return workflow.folder / "results" / experiment


@pytest.fixture(scope="module")
def real(copied_workflow, shared_data):
    return run_short(copied_workflow, "real", shared_data)


@pytest.fixture(scope="module")
def matched(copied_workflow, shared_data):
    return run_short(copied_workflow, "matched", shared_data)


@pytest.fixture(scope="module")
def bone(copied_workflow, shared_data):
    return run_short(copied_workflow, "bone", shared_data)


@pytest.fixture(params=["real", "matched"])
def results(request):
    return request.getfixturevalue(request.param)


def test_real_volumes_lead_to_the_comparison_figure(results):
    assert (results / "figures/comparison.png").stat().st_size > 10_000
    metrics = pd.read_csv(results / "tables/metrics.csv").query("metric == 'consistency_rmse'")
    assert set(metrics["method"]) == {"proposed", "bicubic"}
    assert np.isfinite(metrics["value"]).all()
    assert (metrics.query("method == 'bicubic'")["value"] < 60).all()  # HU: below the noise of a lung kernel


def test_one_scan_in_two_kernels_is_compared_with_itself(real):
    metrics = pd.read_csv(real / "tables/metrics.csv").query("protocol == 'repeatability' and method == 'bicubic'")
    assert set(metrics["case"]) == {"kernel-pair"}
    values = metrics.set_index("metric")["value"]
    assert 50 < values["input_disagreement_rmse"] < 150, "a sharp and a soft kernel differ by about 100 HU"
    assert values["disagreement_rmse"] < values["input_disagreement_rmse"], (
        "interpolation between pixels averages noise"
    )


def test_the_scanner_model_explains_the_two_kernels(real):
    table = pd.read_csv(real / "tables/validation.csv").query("quantity == 'pair_explained'")
    assert table["measured"].max() > 90  # % of the variance of their difference


def test_the_superresolved_ct_overlays_its_input(results):
    with (results / "cases.tsv").open(encoding="utf-8") as sheet:
        name = next(row["case"] for row in csv.DictReader(sheet, delimiter="\t") if row["split"] == "test")
    clinical = storage.open_volume(results / f"volumes/{name}/clinical.ome.zarr")
    magnified = storage.open_volume(results / f"superresolved/proposed/pooled/{name}.ome.zarr")
    first = magnified.attributes["slices"][0]
    corner = clinical.point((first, -0.5, -0.5))
    assert magnified.point((0, -0.5, -0.5)) == pytest.approx(corner, abs=1e-6)
    assert magnified.spacing[:2] == pytest.approx([s / 8 for s in clinical.spacing[:2]])
    assert magnified.shape[1:] == tuple(8 * n for n in clinical.shape[1:])


def test_table_1_comes_from_the_headers(real):
    table = pd.read_csv(real / "tables/volumes.csv").set_index(["case", "modality"])
    chest, rat = table.loc["rider-middle", "clinical"], table.loc["rat-day04", "micro"]
    assert (chest["format"], chest["columns_px"], chest["rows_px"], chest["slices"]) == ("DICOM", 512, 512, 236)
    assert (chest["pixel_x_mm"], chest["slice_spacing_mm"]) == pytest.approx((0.576172, 1.25))
    assert (rat["columns_px"], rat["rows_px"]) == (2936, 1400)
    assert rat["pixel_x_mm"] == pytest.approx(0.00148)


def test_training_and_test_slices_are_at_least_25_mm_apart(real):
    def heights(name):
        volume = storage.open_volume(real / f"volumes/{name}/clinical.ome.zarr")
        return np.array([volume.point((z, 0, 0))[2] for z in range(volume.shape[0])])

    tested = heights("rider-middle")
    for trained in (heights("rider-base"), heights("rider-apex")):
        assert np.abs(trained[:, None] - tested).min() >= 25


def test_the_reader_is_told_that_it_is_rat_lung(real):
    drawn = json.loads((real / "figures/comparison.run.json").read_text(encoding="utf-8"))
    assert "rat lung" in drawn["settings"]["note"]


def test_matched_uct_has_an_eighth_of_the_clinical_pixel(matched):
    clinical = storage.open_volume(matched / "volumes/joint/clinical.ome.zarr")
    micro = storage.open_volume(matched / "volumes/joint/micro.ome.zarr")
    assert micro.spacing == pytest.approx([clinical.spacing[0] / 8] * 3, rel=1e-3)
    assert micro.shape[0] > 100


def test_nothing_that_is_written_names_the_patient(real, shared_data):
    header = pydicom.dcmread(
        next((shared_data / "clinical/rider_lung_kernel_dicom").glob("*.dcm")), stop_before_pixels=True
    )
    private = {str(header.PatientID), str(header.PatientName), header.StudyInstanceUID, header.SeriesInstanceUID} - {""}
    for file in real.rglob("*"):
        if file.suffix in (".json", ".csv", ".tsv", ".yaml", ".log"):
            text = file.read_text(encoding="utf-8")
            assert not [name for name in private if name in text], file


def test_the_scan_of_bone_has_its_truth_in_its_place_and_slices_that_were_not_trained_on(bone):
    names = [f"{case}/{kind}" for case in ("joint-upper", "joint-lower") for kind in ("clinical", "micro")]
    volumes = {name: storage.open_volume(bone / f"volumes/{name}.ome.zarr") for name in [*names, "joint-upper/truth"]}
    clinical, truth = volumes["joint-upper/clinical"], volumes["joint-upper/truth"]
    assert truth.point((0, -0.5, -0.5)) == pytest.approx(clinical.point((0, -0.5, -0.5)), abs=1e-3)
    pooled = truth.array[:].astype(float).reshape(len(truth.array), 29, 8, 48, 8).mean(axis=(2, 4))
    assert np.corrcoef(pooled.ravel(), clinical.array[:].ravel())[0, 1] > 0.9
    upper, lower = (
        [v.point((z, 0, 0))[2] for name, v in volumes.items() if part in name for z in (0, len(v.array) - 1)]
        for part in ("upper", "lower")
    )
    assert min(upper) - max(lower) > 0.5, "mm between them"


def test_metrics_of_bone_are_those_with_a_truth_and_none_of_lungs(bone):
    metrics = pd.read_csv(bone / "tables/metrics.csv")
    truth = metrics.query("protocol == 'truth' and metric == 'psnr'").set_index("method")["value"]
    assert {"bicubic", "proposed", "noise_free", "thick_truth"} <= set(truth.index)
    assert truth["thick_truth"] > truth["bicubic"] > 15
    assert not metrics["metric"].str.contains("airway|lumen|vessel|bronchiole|lesion").any()
