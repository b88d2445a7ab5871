"""Bad input stops with one line that says what is wrong and where, before any work is lost."""

import json
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
import yaml
from snakemake.utils import update_config
from workflows import ROOT

from microsr.config import Cases, load
from microsr.config.sheet import read_sheet
from microsr.core.errors import UserError

PAPER = ["-n", "--configfile", "experiments/paper.yaml"]


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ("train: {epoch: 3}", "train.epoch: unknown key; allowed here: network, repeats, candidates, epochs"),
        ("experiments: demo", "experiments: unknown key; allowed here: experiment, "),
        (
            "patches: {clinical_size: 32, micro_size: 100}",
            "patches.micro_size is 100, must be scale x patches.clinical_size = 8 x 32 = 256",
        ),
        ("scale: 4", "patches.micro_size is 128, must be scale x patches.clinical_size = 4 x 16 = 64"),
        ("scale: 3", "scale: Input should be 2, 4, 8 or 16, not 3"),
        ("superresolve: {slices: some}", "superresolve.slices: "),
        ("simulate: {test_cases: 0}", "simulate.test_cases: "),
        ("protocols: [pooled, half]", "protocols.1: "),
        ("compute: {device: tpu}", "compute.device: "),
    ],
)
def test_a_wrong_setting_is_named_with_what_is_allowed(change, expected):
    whole = yaml.safe_load((ROOT / "config.yaml").read_text(encoding="utf-8"))
    update_config(whole, yaml.safe_load(change))
    with pytest.raises(UserError) as error:
        load(whole)
    assert expected in str(error.value) and "\n" not in str(error.value)


def test_the_workflow_stops_with_the_line_and_the_file_of_a_wrong_key(planned, tmp_path):
    """The way of all errors above from the reader to the terminal."""
    overlay = tmp_path / "mine.yaml"
    overlay.write_text("train: {learning_rat: 1}\n")
    assert "mine.yaml: train.learning_rat: unknown key" in planned.fails("--configfile", str(overlay))
    assert "train.epoch: unknown key; allowed here: network, " in planned.fails("--config", "train={epoch: 3}")
    assert not (planned.folder / "results").exists()


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (None, "cases.sheet: sheet.tsv does not exist"),
        ("", ": is empty"),
        ("case,split\n", "line 1: column 'case' is missing"),
        ("case\tsplit\tct\n", "line 1: column 'ct' is unknown"),
        ("case\tsplit\tclinical\na\ttrain\tscan\tscan\n", "line 2: has 4 tab-separated cells, the header has 3"),
        ("case\tsplit\tclinical\tmicro\na\ttraining\tscan\tscan\n", "line 2: split: "),
        ("case\tsplit\tclinical\tmicro\na\ttrain\tscan\tmissing.nii\n", "line 2: micro: missing.nii does not exist"),
        ("case\tsplit\tclinical\tmicro\na\ttrain\tscan\tscan\na\ttest\tscan\tscan\n", "line 3: case 'a' appears twice"),
        ("case\tsplit\tclinical\tmicro\na\ttest\t\tscan\n", "line 2: test case 'a' has no clinical CT"),
    ],
)
def test_a_malformed_sheet_is_named_with_its_line(tmp_path, monkeypatch, text, expected):
    monkeypatch.chdir(tmp_path)
    Path("scan").touch()
    if text is not None:
        Path("sheet.tsv").write_text(text, encoding="utf-8")
    with pytest.raises(UserError) as error:
        read_sheet(Cases(sheet="sheet.tsv", data_root="."))
    assert expected in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("case\tsplit\tct\n", "sheet.tsv, line 1: column 'ct' is unknown"),
        ("case\tsplit\tclinical\nb\ttest\tscan\n", "no case has split 'train'"),
        ("case\tsplit\tclinical\tmicro\na\ttrain\tscan\tscan\n", "no case to test on"),
        ("case\tsplit\tclinical\na\ttrain\tscan\nb\ttest\tscan\n", "'pooled' (cases: a) has no micro volume"),
        (
            "case\tsplit\tclinical\tmicro\na\ttrain\tscan\t\nb\ttrain\t\tscan\nc\ttest\tscan\t\n",
            "matched_spacing_mm: must be given, as case 'b' has uCT but no clinical CT",
        ),
    ],
)
def test_cases_that_do_not_allow_what_is_asked_for_stop_the_workflow(workflow, text, expected):
    (workflow.folder / "scan").touch()
    (workflow.folder / "sheet.tsv").write_text(text)
    line = workflow.fails(*PAPER, "--config", "cases={sheet: sheet.tsv, data_root: .}")
    assert expected in line
    assert not (workflow.folder / "results").exists()


@pytest.fixture
def volumes(workflow):
    """A workflow on one sheet: small volumes, to be made unusable one at a time."""
    chest = body()
    chest[:, 20:-20, 20:-20] -= 890
    write(workflow.folder / "clinical.nii.gz", chest, (0.6, 0.6, 1.0))
    foam = np.random.default_rng(1).choice([1000, 5000], (4, 300, 300), p=[0.7, 0.3]).astype(np.uint16)
    write(workflow.folder / "micro.nii.gz", foam, (0.075, 0.075, 0.075))
    rows = ["case\tsplit\tclinical\tmicro", "a\ttrain\tclinical.nii.gz\tmicro.nii.gz", "b\ttest\tclinical.nii.gz\t"]
    (workflow.folder / "sheet.tsv").write_text("\n".join(rows) + "\n")
    return workflow


def body():
    """Soft tissue in air, with noise, HU."""
    noise = np.random.default_rng(1).normal(0, 10, (4, 96, 96))
    noise[:, 8:-8, 8:-8] += 1040
    return (noise - 1000).astype(np.int16)


def write(path, array, spacing):
    image = sitk.GetImageFromArray(array)
    image.SetSpacing(spacing)
    sitk.WriteImage(image, str(path))


ON_SHEET = ["--configfile", "experiments/paper.yaml", "--config", "cases={sheet: sheet.tsv, data_root: .}"]


def test_a_volume_without_spacing_is_named(volumes):
    """A TIFF stack carries no pixel size, and the sheet gives none."""
    stack = sitk.ReadImage(str(volumes.folder / "micro.nii.gz"))
    sitk.WriteImage(stack, str(volumes.folder / "micro.tif"))
    volumes.edit("sheet.tsv", "micro.nii.gz", "micro.tif")
    line = volumes.fails("results/paper/volumes/a/micro.ome.zarr", *ON_SHEET)
    assert "micro.tif" in line and "spacing" in line


def test_a_volume_smaller_than_a_patch_is_named(volumes):
    random = np.random.default_rng(1)
    walls = np.kron(random.choice([1000, 5000], (4, 20, 20), p=[0.7, 0.3]), np.ones((1, 5, 5)))
    micro = walls + random.normal(0, 150, walls.shape)
    write(volumes.folder / "micro.nii.gz", micro.astype(np.uint16), (0.075, 0.075, 0.075))
    line = volumes.fails("results/paper/patches/a/micro.npy", *ON_SHEET)
    assert "volumes/a/micro.ome.zarr" in line and "256x256" in line
    assert "results/paper/volumes/a/clinical.ome.zarr" not in line
    assert (volumes.folder / "results/paper/volumes/a/clinical.ome.zarr").is_dir()  # work that was done stays


def test_an_empty_lung_mask_is_named(volumes):
    belly = body()
    write(volumes.folder / "clinical.nii.gz", belly, (0.6, 0.6, 1.0))
    line = volumes.fails("results/paper/patches/a/clinical.npy", *ON_SHEET)
    assert "lung" in line and ("clinical.nii.gz" in line or "clinical.ome.zarr" in line)


def test_a_truncated_file_is_named(volumes):
    whole = (volumes.folder / "clinical.nii.gz").read_bytes()
    (volumes.folder / "clinical.nii.gz").write_bytes(whole[: len(whole) // 2])
    line = volumes.fails("results/paper/volumes/a/clinical.ome.zarr", *ON_SHEET)
    assert "clinical.nii.gz" in line


def test_a_sheet_of_a_spreadsheet_and_names_of_any_kind_lead_to_the_import(volumes):
    """A byte-order mark, CRLF, a quoted cell, and a path with blanks, quotes, a dollar and letters of several
    scripts.
    """
    root = volumes.folder / 'Müller\'s "CT" & $HOME (肺)'
    root.mkdir()
    (volumes.folder / "clinical.nii.gz").rename(root / "scan; 1.nii.gz")
    cell = '"' + f"{root.name}/scan; 1.nii.gz".replace('"', '""') + '"'
    rows = ["case\tsplit\tclinical\tmicro", f"a\ttrain\t{cell}\tmicro.nii.gz", f"b\ttest\t{cell}\t"]
    (volumes.folder / "sheet.tsv").write_bytes(("\ufeff" + "\r\n".join(rows) + "\r\n").encode("utf-8"))
    volumes.run("results/paper/volumes/a/clinical.ome.zarr", *ON_SHEET)
    assert (volumes.folder / "results/paper/volumes/a/clinical.ome.zarr/zarr.json").is_file()
    record = json.loads((volumes.folder / "results/paper/volumes/a/clinical.run.json").read_text(encoding="utf-8"))
    assert root.name in record["settings"]["scan"]["path"]
