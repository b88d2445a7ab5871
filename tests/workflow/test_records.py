"""Every result has a record of how it was made, which names all that it was made from."""

import csv
import io
import json
import re
import shutil

import pytest

from microsr import cli
from microsr.core.provenance import find_run
from microsr.report.lineage import trace

pytestmark = pytest.mark.workflow
SMOKE = ["--configfile", "experiments/smoke.yaml"]
NO_RESULTS = ("logs", "benchmarks", ".state")
SETTINGS = ("config.yaml", "cases.tsv")
"""The experiment itself, as it runs."""
CHAINED = (
    "figures/comparison.png", "figures/losses.pdf", "figures/hallucination.png", "figures/validation.png",
    "figures/tiling.png", "figures/patches_train1_micro.png", "figures/domain.png", "figures/metrics_distribution.png",
    "tables/volumes.csv", "tables/summary.csv", "hallucinations/proposed/pooled/test1.ome.zarr",
)  # fmt: skip


def results_of(workflow):
    """All files of the results of the smoke experiment."""
    folder = workflow.folder / "results/smoke"
    return [
        path
        for path in folder.rglob("*")
        if path.is_file()
        and path.relative_to(folder).parts[0] not in (*NO_RESULTS, *SETTINGS)
        and not path.name.startswith(".")
        and not path.name.endswith("run.json")
    ]


def test_every_result_says_how_it_was_made(finished):
    files = results_of(finished)
    kinds = {path.relative_to(finished.folder / "results/smoke").parts[0] for path in files}
    assert kinds == {
        "figures", "tables", "simulated", "volumes", "patches", "models", "superresolved", "features", "hallucinations",
        "report.html",
    }  # fmt: skip
    without = [str(path) for path in files if find_run(path) is None]
    assert not without
    for path in {find_run(path) for path in files}:
        record = json.loads(path.read_text(encoding="utf-8"))
        assert record["record"] == path.relative_to(finished.folder).as_posix()
        assert re.fullmatch(r"[0-9a-f]{16}( [0-9a-f]{16})?", record["code"]["fingerprint"])
        assert {"settings", "platform", "started", "seconds"} <= set(record)
        assert {"numpy", "nibabel", "pydicom", "tifffile", "imagecodecs"} <= set(record["packages"])
        assert all(re.fullmatch("[0-9a-f]{64}", sha) for sha in record["inputs"].values())
        assert not [name for name in record["inputs"] if name.startswith("/")], "relative to the working folder"


def test_a_record_names_what_snakemake_gave_to_the_job(finished):
    """But for what orders jobs, and the pixel size that a training takes from the records of its patches."""
    done = finished.snakemake("--detailed-summary", *SMOKE)
    table = done.stdout[done.stdout.index("output_file") :]
    seen = 0
    for row in csv.DictReader(io.StringIO(table), delimiter="\t"):
        output = finished.folder / row["output_file"]
        if row["output_file"].endswith("run.json") or row["rule"] in ("all", "figures"):
            continue
        given = {name for name in row["input-file(s)"].split(",") if name not in ("", "-")}
        if row["rule"] == "train":
            given = {name for name in given if name.endswith((".npy", "micro_scans.csv"))}
        assert set(json.loads(find_run(output).read_text(encoding="utf-8"))["inputs"]) == given, row["output_file"]
        seen += 1
    assert seen > 80


def test_the_chain_of_a_result_goes_back_to_its_beginning(finished, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    for name in CHAINED:
        found = trace(finished.folder / "results/smoke" / name)
        inputs = [given for run in found["records"].values() for given in run["inputs"]]
        assert inputs and {given["state"] for given in inputs} == {"unchanged"}, name
        assert all(given["record"] for given in inputs), "simulated cases are made from nothing"
        assert {run["current_code"] for run in found["records"].values()} == {True}
        beginnings = {run["step"] for run in found["records"].values() if not run["inputs"]}
        assert beginnings == {"simulate"}, name


def test_results_that_were_moved_away_still_tell(finished, monkeypatch, tmp_path, capsys):
    place = tmp_path / "saved"
    shutil.copytree(finished.folder / "results/smoke", place)
    monkeypatch.chdir(tmp_path)
    cli.main(["provenance", str(place / "figures/comparison.png")])
    text = capsys.readouterr().out
    assert "amiss" not in text and "simulate, 20" in text and "NOT FOUND" not in text
    with (place / "tables/metrics.csv").open("a") as table:
        table.write("by hand\n")
    cli.main(["provenance", str(place / "figures/metrics.png"), "--json"])
    found = json.loads(capsys.readouterr().out)
    (given,) = found["records"]["results/smoke/figures/metrics.run.json"]["inputs"]
    assert given["state"] == "changed"
