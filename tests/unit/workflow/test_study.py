"""`microsr new` makes a folder that holds a valid study, `microsr run` hands its arguments to Snakemake."""

import re
import sys
from pathlib import Path

import pytest
import yaml

from microsr import cli
from microsr.config import load
from microsr.config.cases import Cases
from microsr.config.sheet import read_sheet
from microsr.core.errors import UserError
from microsr.core.folders import PACKAGE, package_alone, workflow_folder
from microsr.workflow import run

ROOT = Path(__file__).parent.parent.parent.parent


@pytest.fixture
def study(tmp_path):
    cli.main(["new", str(tmp_path / "lungs")])
    return tmp_path / "lungs"


def uncommented(study):
    """The settings with all that is commented out taken in."""
    text = (study / "config.yaml").read_text(encoding="utf-8")
    return yaml.safe_load(re.sub(r"(?m)^#(?! [^ ])", "", text))


def test_a_study_has_the_name_of_its_folder_and_valid_settings(study):
    assert load(yaml.safe_load((study / "config.yaml").read_text(encoding="utf-8"))).experiment == "lungs"
    assert "lungs" in (study / "README.md").read_text(encoding="utf-8").splitlines()[0]
    every = load(uncommented(study))
    assert every.cases.sheet == "cases.tsv" and every.train.epochs == 2 and every.superresolve.slices == "100:104"
    assert every.scanner.slice_sigma_mm == 0.42 and every.volumes.micro.calibration.method == "two_point"


def test_the_sheet_of_a_study_is_read_once_its_files_are_there(study):
    for name in ("p01/clinical_dicom", "p01/specimen.tif", "p02/chest.nii.gz", "p03/clinical_dicom"):
        (study / name).mkdir(parents=True)
    cases = read_sheet(Cases(sheet=str(study / "cases.tsv"), data_root=str(study)))
    assert [(case.case, case.split) for case in cases] == [("p01", "train"), ("p02", "train"), ("p03", "test")]


def test_a_study_has_all_that_its_files_name(study):
    assert (study / ".gitignore").exists() and (study / "schema.json").exists()
    for folder in ("experiments", "profiles/default", "profiles/slurm"):
        assert {file.name for file in (study / folder).iterdir()} == {f.name for f in (ROOT / folder).iterdir()}
    for file in (study / "config.yaml", *(study / "experiments").glob("*.yaml")):
        first = file.read_text(encoding="utf-8").splitlines()[0]
        assert (file.parent / first.partition("$schema=")[2]).resolve() == study / "schema.json"


def test_a_folder_that_is_no_name_of_an_experiment_is_a_study_all_the_same(tmp_path):
    cli.main(["new", str(tmp_path / "my lungs, again")])
    assert load(yaml.safe_load((tmp_path / "my lungs, again/config.yaml").read_text(encoding="utf-8")))


def test_nothing_is_overwritten(study, capsys):
    (study / "config.yaml").write_text("experiment: mine\n", encoding="utf-8")
    with pytest.raises(SystemExit):
        cli.main(["new", str(study)])
    assert f"{study}: is there already, and nothing is overwritten" in capsys.readouterr().err
    assert (study / "config.yaml").read_text(encoding="utf-8") == "experiment: mine\n"


@pytest.mark.parametrize(
    ("given", "added"),
    [
        ("", "--cores all"), ("-n", "--cores all"), ("--cores 2", ""), ("-c2 figures", ""), ("-j 3", ""),
        ("--workflow-profile profiles/slurm", ""), ("--workflow-profile=profiles/slurm", ""),
        ("--config a=1", "--cores all"),
    ],
)  # fmt: skip
def test_all_arguments_are_snakemakes(given, added, study, monkeypatch):
    monkeypatch.chdir(study)
    assert run.command(given.split()) == [sys.executable, "-m", "snakemake", *added.split(), *given.split()]


def test_a_folder_without_a_workflow_is_said_to_have_none(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit):
        cli.main(["run", "-n", "--debug-dag"])
    assert f"run: error: {tmp_path}: has no Snakefile; go into the folder" in capsys.readouterr().err
    assert run.command(["--snakefile", "elsewhere"])
    with pytest.raises(UserError):
        run.command(["figures"])


def test_settings_that_are_asked_for_as_a_result_are_told_from_one(study, monkeypatch):
    monkeypatch.chdir(study)
    (study / "results").mkdir()
    (study / "results/config.yaml").touch()
    for fine in (
        "all results/config.yaml -n",
        "no.yaml",
        "--configfile experiments/smoke.yaml",
        "-n --configfiles a.yaml",
    ):
        run.check_arguments(fine.split())
    with pytest.raises(UserError, match=r"smoke\.yaml: is a file of settings, .* --configfile experiments/smoke\.yaml"):
        run.check_arguments(["figures", "experiments/smoke.yaml"])


def test_run_says_what_it_is_for(capsys):
    cli.main(["run", "--help"])
    assert "microsr run --cores 2 figures" in capsys.readouterr().out


def test_the_workflow_of_a_clone_is_the_clones():
    assert (workflow_folder() / "Snakefile").samefile(ROOT / "Snakefile")


def test_the_package_alone_is_a_link_to_it(tmp_path):
    for _ in range(2):
        alone = package_alone(tmp_path / "hidden")
        assert [path.name for path in alone.iterdir()] == ["microsr"] and (alone / "microsr").samefile(PACKAGE)
    (alone / "microsr").unlink()
    (alone / "microsr").symlink_to(tmp_path)  # of a package that was elsewhere
    assert (package_alone(tmp_path / "hidden") / "microsr").samefile(PACKAGE)


def test_the_version_says_what_an_issue_needs(capsys):
    with pytest.raises(SystemExit) as ended:
        cli.main(["--version"])
    said = capsys.readouterr().out
    assert ended.value.code == 0 and said.startswith("microsr ") and "Python " in said and "torch " in said
    assert str(Path.home()) not in said, "no name of a user"
