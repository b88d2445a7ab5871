"""`microsr provenance --crate`: an experiment as a Workflow Run RO-Crate, made of its records."""

import hashlib
import json
import os
import subprocess
import zipfile
from pathlib import Path

import numpy as np
import pytest

from microsr import cli
from microsr.core.errors import UserError
from microsr.core.provenance import checksum, write_run
from microsr.report.crate import write_crate
from microsr.volume.storage import Volume, write_volume

ROOT = Path(__file__).parent.parent.parent.parent
VALIDATORS = ROOT / ".venv-validators/bin/python"


@pytest.fixture(scope="module")
def experiment(tmp_path_factory):
    """A working folder in which an experiment was run: a scan of a person, its volume, a model and a figure."""
    folder = tmp_path_factory.mktemp("work")
    before = Path.cwd()
    os.chdir(folder)
    try:
        results = Path("results/x")
        for name in ("volumes", "models/proposed/pooled", "figures", "logs", ".state"):
            (results / name).mkdir(parents=True)
        scan = folder.parent / "home" / "jane.doe" / "p01" / "scan.nii"
        scan.parent.mkdir(parents=True, exist_ok=True)
        scan.write_text("scan", encoding="utf-8")
        volume, model = results / "volumes/clinical.ome.zarr", results / "models/proposed/pooled/generator.pt"
        figure = results / "figures/comparison.png"
        write_volume(volume, Volume(np.full((3, 4, 4), -800.0), (1, 1, 1)))
        write_run(volume, "volumes", {"closing_mm": 4.0, "like": None}, [scan], 1.7e9)
        model.write_text("model", encoding="utf-8")
        write_run(model.with_name("run.json"), "train", {"losses": {"cycle": 10}}, [volume], 1.7e9 + 60)
        figure.write_text("figure", encoding="utf-8")
        write_run(figure, "figures.comparison", {}, [volume, model], 1.7e9 + 120, slices_read={volume: [1]})
        (results / "logs/a.log").write_text("log", encoding="utf-8")
        (results / "config.yaml").write_text("experiment: x\ncases: {data_root: /home/jane.doe}\n", encoding="utf-8")
        (results / "cases.tsv").write_text("case\tsplit\tclinical\n1\ttrain\t/home/jane.doe/p01\n", encoding="utf-8")
        yield results.absolute()
    finally:
        os.chdir(before)


@pytest.fixture(scope="module")
def crate(experiment):
    cli.main(["provenance", str(experiment), "--crate", str(experiment.parent / "crate")])
    return experiment.parent / "crate"


@pytest.fixture(scope="module")
def graph(crate):
    text = (crate / "ro-crate-metadata.json").read_text(encoding="utf-8")
    return {entity["@id"]: entity for entity in json.loads(text)["@graph"]}


def ids(value):
    """The ids that a property names."""
    return [one["@id"] for one in (value if isinstance(value, list) else [value])]


def test_the_crate_holds_what_it_says_with_its_checksums(crate, graph):
    files = {path.relative_to(crate).as_posix() for path in crate.rglob("*") if path.is_file()}
    named = {i for i, e in graph.items() if "File" in (e["@type"] if isinstance(e["@type"], list) else [e["@type"]])}
    folders = [i for i, e in graph.items() if e["@type"] == "Dataset" and i != "./"]
    assert {f for f in files if not f.startswith(tuple(folders))} == named | {"ro-crate-metadata.json"}
    assert {"figures/comparison.png", "models/proposed/pooled/generator.pt", "workflow/Snakefile"} <= named
    for name in named:
        assert graph[name]["sha256"] == hashlib.sha256((crate / name).read_bytes()).hexdigest()
    assert named | set(folders) == set(ids(graph["./"]["hasPart"]))


def test_each_step_is_an_action_with_inputs_settings_software_and_results(graph, experiment):
    train = graph["#models/proposed/pooled/run.json"]
    assert train["startTime"] == "2023-11-14T22:14:20+00:00" and train["name"] == "microsr train"
    given = [graph[i] for i in ids(train["object"])]
    volume = next(e for e in given if e["name"] == "volumes/clinical.ome.zarr")
    assert volume["sha256"] == checksum(experiment / "volumes/clinical.ome.zarr")
    assert ("losses.cycle", "10") in [(e["name"], e.get("value")) for e in given]
    software = graph[train["instrument"]["@id"]]
    assert "numpy" in [graph[i]["name"] for i in ids(software["softwareRequirements"])]
    assert ids(train["result"]) == ["models/proposed/pooled/generator.pt"]
    assert ids(graph["#figures/comparison.run.json"]["result"]) == ["figures/comparison.png"]
    assert "figures/comparison.png" in ids(graph["#run"]["result"]) and "config.yaml" in ids(graph["#run"]["object"])


def test_an_input_of_which_slices_were_read_has_no_checksum_of_its_own(experiment, tmp_path):
    (experiment / "models/proposed/pooled/run.json").rename(tmp_path / "run.json")
    try:
        write_crate(experiment, tmp_path / "crate")
    finally:
        (tmp_path / "run.json").rename(experiment / "models/proposed/pooled/run.json")
    metadata = json.loads((tmp_path / "crate/ro-crate-metadata.json").read_text(encoding="utf-8"))
    [volume] = [e for e in metadata["@graph"] if e["@id"] == "#volumes/clinical.ome.zarr"]
    assert "sha256" not in volume


def test_every_entity_that_is_named_is_there(graph):
    def named(value):
        if isinstance(value, dict):
            yield from [value["@id"]] if set(value) == {"@id"} else [i for v in value.values() for i in named(v)]
        elif isinstance(value, list):
            yield from (i for one in value for i in named(one))

    assert {i for e in graph.values() for i in named(e) if not i.startswith("http")} <= set(graph)


def test_no_person_is_named(crate, graph):
    for file in crate.rglob("*"):
        assert not file.is_file() or b"jane" not in file.read_bytes(), file
    assert not {"agent", "author", "creator", "publisher"} & {key for entity in graph.values() for key in entity}
    assert [e["name"] for i, e in graph.items() if i.startswith("#original-")] == ["p01/scan.nii"]


def test_a_zip_holds_the_same(experiment, crate):
    write_crate(experiment, experiment.parent / "crate.zip")
    files = {path.relative_to(crate).as_posix() for path in crate.rglob("*") if path.is_file()}
    held = zipfile.ZipFile(experiment.parent / "crate.zip").namelist()
    assert {name for name in held if not name.endswith("/")} == files
    assert {path.name for path in experiment.parent.iterdir()} == {"x", "crate", "crate.zip"}, "nothing else is left"


def test_what_is_no_experiment_is_refused_and_nothing_overwritten(experiment, crate, tmp_path):
    with pytest.raises(UserError, match="is not the folder of an experiment"):
        write_crate(experiment / "figures", tmp_path / "crate")
    with pytest.raises(UserError, match="is there already"):
        write_crate(experiment, crate)


def test_the_crate_is_a_valid_workflow_run_crate(crate):
    """By rocrate-validator, whose dependencies exclude those of this environment."""
    if not VALIDATORS.exists():
        (pytest.fail if os.environ.get("CI") else pytest.skip)("no rocrate-validator: make validators")
    command = [VALIDATORS, ROOT / "tests/validators/crate.py", crate, "REQUIRED"]
    done = subprocess.run(command, cwd=crate.parent, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
