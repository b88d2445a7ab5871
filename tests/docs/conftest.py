"""A folder in which the commands of the pages find what they name, made of a finished smoke experiment."""

import csv
import re
import shutil
import sys
from pathlib import Path

import pages
import pytest
import SimpleITK as sitk
import tifffile
from workflows import Workflow


@pytest.fixture(scope="session")
def desk(finished: Workflow, tmp_path_factory) -> Path:
    """A clone of its own with results, scans, a model, and the sheet and the experiment that docs/your-data.md
    writes.
    """
    folder = tmp_path_factory.mktemp("desk") / "clone"
    shutil.copytree(finished.folder, folder, symlinks=True)
    results, smoke = folder / "results", folder / "results/smoke"
    model = smoke / "models/proposed/pooled/generator.pt"
    simulated = smoke / "simulated/test1"
    (folder / ".venv").symlink_to(sys.prefix)
    for name in ("demo", "my"):
        (results / name).symlink_to("smoke")
    (smoke / "superresolved/proposed/pooled/p03.ome.zarr").symlink_to("test1.ome.zarr")
    shutil.copy(model, folder / "generator.pt")
    shutil.copy(smoke / "models/posterior/pooled/generator.pt", folder / "posterior.pt")
    shutil.copy(simulated / "clinical.nii.gz", folder / "scan.nii.gz")
    for name in ("SCAN", "scan_dicom", "p01/dicom", "p03/dicom", "case1/clinical_dicom", "test1/clinical_dicom"):
        shutil.copytree(simulated / "dicom", folder / name, ignore=shutil.ignore_patterns(".snakemake*"))
    specimen = sitk.GetArrayFromImage(sitk.ReadImage(smoke / "simulated/train1/micro.nii.gz"))
    tifffile.imwrite(folder / "p01/specimen.tif", specimen[:3], photometric="minisblack")
    (folder / "p02").mkdir()
    shutil.copy(simulated / "clinical.nii.gz", folder / "p02/chest.nii.gz")
    chest = sitk.ReadImage(folder / "p02/chest.nii.gz")
    sitk.WriteImage(sitk.Cast(chest > -900, sitk.sitkUInt8), folder / "p02/lobe.nii.gz")
    (folder / "p04").mkdir()
    sitk.WriteTransform(sitk.Euler3DTransform(), folder / "p04/clinical_to_micro.tfm")
    (folder / "case1/specimen.mha").touch()
    for experiment in ("real", "paper", "bone"):
        _pretend_files_of(folder / f"experiments/{experiment}.tsv", folder / "data")
    for name in ("L-sharp", "B-soft"):
        (folder / f"data/clinical/kernelpair_A0001_{name}.nii.gz").touch()
    for file in (folder / "experiments").glob("evaluation*.yaml"):  # which take Snakemake longest to plan
        text = file.read_text(encoding="utf-8")
        file.write_text(re.sub(r"\b(test_cases|repeats): \d+", r"\1: 1", text), encoding="utf-8")
    _write(folder / "my.tsv", "your-data.md", "tsv", "case\tsplit")
    _write(folder / "experiments/my.yaml", "your-data.md", "yaml", "experiment: my\n")
    return folder


def _pretend_files_of(sheet: Path, root: Path) -> None:
    """Empty files where a sheet names some: a dry run asks for no more."""
    with sheet.open(encoding="utf-8") as lines:
        for row in csv.DictReader(lines, delimiter="\t"):
            for modality in ("clinical", "micro", "repeat"):
                if row.get(modality):
                    (root / row[modality]).parent.mkdir(parents=True, exist_ok=True)
                    (root / row[modality]).touch()


def _write(path: Path, page: str, language: str, start: str) -> None:
    (text,) = (
        b.text for b in pages.BLOCKS if (b.page, b.language) == (page, language) and f"{b.text}\n".startswith(start)
    )
    path.write_text(f"{text}\n", encoding="utf-8")
