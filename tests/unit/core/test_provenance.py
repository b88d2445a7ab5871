"""Records, run.json: where they are, what they name, and the checksums in them."""

import importlib.metadata
import json
from pathlib import Path

import numpy as np
import pytest

from microsr.core import provenance
from microsr.core.provenance import checksum, checksums_beside, find_run, run_file, write_run
from microsr.volume.storage import Volume, create_volume, write_volume


def test_checksums_beside_the_work_are_those_after_it(tmp_path):
    (tmp_path / "a").write_bytes(bytes(3 << 20))
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "b").write_text("b")
    paths = [tmp_path / "a", tmp_path / "folder"]
    with checksums_beside(map(str, paths)) as checksums:
        pass
    assert checksums() == {path: checksum(path) for path in paths}


def test_an_error_does_not_wait_for_them(tmp_path, monkeypatch):
    stopped = []
    monkeypatch.setattr(provenance, "checksum", lambda path, stop: stopped.append(stop.wait(20)))
    with pytest.raises(ValueError, match="in the work"), checksums_beside([tmp_path]):
        raise ValueError("in the work")
    assert stopped == [True]


@pytest.fixture
def volume(tmp_path):
    """A volume of three slices with a mask, of several chunks a slice."""
    path = tmp_path / "v.ome.zarr"
    values = np.random.default_rng(0).normal(-800, 50, (3, 20, 1100))
    write_volume(path, Volume(values, (1, 1, 1)), values > -800)
    return path


def test_the_checksum_of_a_slice_is_that_of_its_voxels_its_mask_and_the_metadata(volume):
    before = {which: checksum(volume, slices=which) for which in ((), (0,), (1,), (0, 1))}
    assert len(set(before.values())) == 4
    chunk = volume / "0/c/1/0/1"
    chunk.write_bytes(chunk.read_bytes()[::-1])
    changed = {which for which, was in before.items() if checksum(volume, slices=which) != was}
    assert changed == {(1,), (0, 1)}
    (volume / "labels/mask/0/c/0/0/0").unlink()
    assert checksum(volume, slices=[0]) != before[0,]
    assert checksum(volume, slices=()) == before[()]
    create_volume(volume, (3, 20, 1100), Volume(None, (2, 2, 2)))
    assert checksum(volume, slices=()) != before[()]


@pytest.mark.parametrize(
    ("result", "record"),
    [
        ("volumes/a/clinical.ome.zarr", "volumes/a/clinical.run.json"),
        ("patches/a/micro.npy", "patches/a/micro.run.json"),
        ("patches/a/micro.csv", "patches/a/micro.run.json"),
        ("figures/losses.pdf", "figures/losses.run.json"),
        ("tables/metrics/m/s/a.images.bronchioles.csv", "tables/metrics/m/s/a.images.bronchioles.run.json"),
        ("superresolved/m/s/a.repeat.ome.zarr", "superresolved/m/s/a.repeat.run.json"),
        ("superresolved/m/s/a.nii.gz", "superresolved/m/s/a.nii.gz.run.json"),
        ("superresolved/m/s/a_dicom", "superresolved/m/s/a_dicom.run.json"),
        ("models/m/s/run.json", "models/m/s/run.json"),
        ("figures/losses.run.json", "figures/losses.run.json"),
    ],
)
def test_a_record_is_named_after_its_result(result, record):
    assert run_file(Path(result)) == Path(record)


def test_the_record_of_a_file_is_its_own_before_that_of_its_folder(tmp_path):
    for folder in ("model", "case/dicom", "a_dicom"):
        (tmp_path / folder).mkdir(parents=True)
    for record in ("model/run.json", "case/run.json", "a_dicom.run.json", "case/labels.run.json"):
        (tmp_path / record).touch()
    for result, record in {
        "model/generator.pt": "model/run.json",
        "case/dicom": "case/run.json",
        "case/dicom/1.dcm": "case/run.json",
        "case/labels.csv": "case/labels.run.json",
        "a_dicom/1.dcm": "a_dicom.run.json",
        "a_dicom.run.json": "a_dicom.run.json",
    }.items():
        assert find_run(tmp_path / result) == tmp_path / record
    assert find_run(tmp_path / "scan.nii.gz") is None


@pytest.fixture
def here(tmp_path, monkeypatch):
    """A working folder with results/ and an input, and an input outside of it."""
    (tmp_path / "work/results").mkdir(parents=True)
    (tmp_path / "work/scan.nii").write_text("scan")
    (tmp_path / "other.nii").write_text("other")
    monkeypatch.chdir(tmp_path / "work")
    return tmp_path / "work"


def read(path):
    return json.loads(Path(path).read_text(encoding="utf-8"))


def test_paths_are_relative_to_the_working_folder_where_they_lie_in_it(here):
    given = [here / "scan.nii", Path("../other.nii"), here.parent / "other.nii"]
    write_run(Path("results/table.csv"), "evaluate.collect", {}, given, 0.0)
    record = read("results/table.run.json")
    assert record["record"] == "results/table.run.json"
    assert list(record["inputs"]) == ["scan.nii", "../other.nii", str(here.parent / "other.nii")]
    assert record["inputs"]["scan.nii"] == checksum(Path("scan.nii"))


def test_a_record_outside_the_working_folder_names_whole_paths(here):
    write_run(here.parent / "table.csv", "evaluate.collect", {}, [Path("scan.nii")], 0.0)
    assert list(read("../table.run.json")["inputs"]) == [str(here / "scan.nii")]


def test_each_of_several_results_has_a_record(here):
    results = [Path("results/figure.png"), Path("results/figure.pdf"), Path("results/costs.csv")]
    write_run(results, "figures.losses", {}, [], 0.0, losses=["cycle"])
    records = [read(f"results/{name}.run.json") for name in ("figure", "costs")]
    assert (
        records[0].pop("record") == "results/figure.run.json" and records[1].pop("record") == "results/costs.run.json"
    )
    assert records[0] == records[1] and records[0]["losses"] == ["cycle"]
    assert len(list(Path("results").iterdir())) == 2


def test_a_package_that_is_missing_is_left_out(here, monkeypatch):
    there = importlib.metadata.version

    def version(package):
        if package in ("snakemake", "torch"):
            raise importlib.metadata.PackageNotFoundError(package)
        return there(package)

    monkeypatch.setattr(importlib.metadata, "version", version)
    write_run(Path("results/table.csv"), "evaluate.collect", {}, [], 0.0)
    packages = read("results/table.run.json")["packages"]
    assert {"python", "numpy", "nibabel", "imagecodecs", "pydicom", "tifffile"} <= set(packages)
    assert not {"snakemake", "torch"} & set(packages)
