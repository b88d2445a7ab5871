"""The package as it is built and installed: the source distribution, the wheel that is built of it, and the workflow in
the wheel, outside the clone.
"""

import json
import re
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import venv
import zipfile
from pathlib import Path

import pytest
from patience import limit
from workflows import ROOT, environment

from microsr.core.code_version import code_version

BUILD = "import sys; from setuptools import build_meta; print(getattr(build_meta, sys.argv[1])(sys.argv[2]))"
LEFT = shutil.ignore_patterns(
    ".git", ".venv*", ".snakemake", "results", "_build", "build", "__pycache__", "*.egg-info", ".*_cache", ".hypothesis"
)


def call(*command: object, folder: Path) -> str:
    """What a command says, which must succeed."""
    done = subprocess.run(
        list(map(str, command)), cwd=folder, env=environment(), encoding="utf-8", stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT, check=False, timeout=limit(900),
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-6000:]
    return done.stdout


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """The source distribution, and the wheel that is built of what it unpacks to."""
    folder = tmp_path_factory.mktemp("built")
    shutil.copytree(ROOT, folder / "clone", ignore=LEFT)
    (folder / "clone/results").mkdir()
    shutil.copy(ROOT / "results/README.md", folder / "clone/results")
    name = call(sys.executable, "-c", BUILD, "build_sdist", folder, folder=folder / "clone").splitlines()[-1]
    with tarfile.open(folder / name) as archive:
        archive.extractall(folder / "unpacked", filter="data")
    [unpacked] = (folder / "unpacked").iterdir()
    wheel = call(sys.executable, "-c", BUILD, "build_wheel", folder, folder=unpacked).splitlines()[-1]
    return unpacked, folder / wheel


@pytest.fixture(scope="module")
def installed(built, tmp_path_factory):
    """The `bin` of an environment with the wheel, which sees the packages that it needs in this one."""
    folder = tmp_path_factory.mktemp("environment")
    venv.create(folder / "venv", with_pip=False)
    python = folder / "venv/bin/python"
    call(
        sys.executable, "-m", "pip", "--python", python, "install", "--no-deps", "--no-index", "--quiet", built[1],
        folder=folder,
    )  # fmt: skip
    place = Path(sysconfig.get_path("purelib", vars={"base": str(folder / "venv")}))
    (place / "needed.pth").write_text(sysconfig.get_path("purelib") + "\n", encoding="utf-8")
    return folder / "venv/bin"


@pytest.fixture(scope="module")
def study(installed, tmp_path_factory):
    """A new study, outside the clone."""
    folder = tmp_path_factory.mktemp("somewhere")
    call(installed / "microsr", "new", "my-study", folder=folder)
    return folder / "my-study"


def tracked() -> set[str]:
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    return {name for name in listed.splitlines() if (ROOT / name).exists()}


def test_the_source_distribution_holds_all_that_is_in_git(built):
    if not (ROOT / ".git").exists():
        pytest.skip("this is no clone")
    held = {path.relative_to(built[0]).as_posix() for path in built[0].rglob("*") if path.is_file()}
    assert tracked() - held == set()


def test_the_wheel_holds_the_workflow_and_all_data_of_the_package(built):
    held = set(zipfile.ZipFile(built[1]).namelist())
    for name in ("Snakefile", "config.yaml", "rules", "envs", "experiments", "profiles", "report"):
        files = [ROOT / name] if (ROOT / name).is_file() else [f for f in (ROOT / name).rglob("*") if f.is_file()]
        wanted = {f"microsr/pipeline/{f.relative_to(ROOT).as_posix()}" for f in files if "__pycache__" not in f.parts}
        assert wanted and wanted <= held
    package = [f for f in (ROOT / "src/microsr").rglob("*") if f.is_file() and "__pycache__" not in f.parts]
    assert {f.relative_to(ROOT / "src").as_posix() for f in package} <= held
    assert {name.split("/")[0].partition("-")[0] for name in held} == {"microsr"}
    assert not [name for name in held if "__pycache__" in name]


def test_the_demo_draws_its_picture_outside_the_clone(installed, tmp_path):
    said = call(installed / "microsr", "demo", folder=tmp_path)
    assert said.startswith("demo: microsr-demo.png is written") and len(said.splitlines()) == 1
    [picture] = tmp_path.iterdir()
    assert picture.name == "microsr-demo.png" and picture.read_bytes().startswith(b"\x89PNG")


def test_a_study_runs_outside_the_clone(installed, study):
    """A lung is simulated, imported, cut into patches, and these are drawn, by the code that was installed."""
    figure = "results/smoke/figures/patches_train1_clinical.png"
    arguments = ("-c2", "--configfile", "experiments/smoke.yaml", "--", figure)
    said = call(installed / "microsr", "run", *arguments, folder=study)
    assert (study / figure).is_file(), said
    for record in (study / "results/smoke").rglob("*run.json"):
        code = json.loads(record.read_text(encoding="utf-8"))["code"]
        assert code["commit"] is None
    assert code["microsr"] and "installed" in call(installed / "microsr", "--version", folder=study)
    patches = json.loads((study / "results/smoke/patches/train1/clinical.run.json").read_text(encoding="utf-8"))
    assert patches["code"]["fingerprint"] == code_version("patches"), "the version is that of the clone's code"
    told = call(installed / "microsr", "provenance", figure, folder=study)
    assert "by the present code" in told and "OTHER CODE" not in told
    assert (study / "results/smoke/config.yaml").is_file(), "the run as a whole tells of itself, as in a clone"


def test_snakemake_alone_makes_the_whole_experiment_of_a_study(installed, study):
    said = call(installed / "python", "-m", "snakemake", "-n", "--quiet", "rules", folder=study)
    assert "write_report" in said and "train" in said


def test_an_environment_of_conda_gets_the_installed_code_and_nothing_beside_it(installed, study):
    command = [installed / "python", "-m", "snakemake", "-n", "--sdm", "conda"]
    subprocess.run(command, cwd=study, env=environment(), capture_output=True, check=False)  # there may be no conda
    [link] = (study / ".snakemake/microsr-alone").iterdir()
    assert (link / "pipeline/Snakefile").is_file()


def test_a_mistake_in_a_study_is_one_line(installed, study):
    def refused(*arguments: str) -> str:
        command = [installed / "microsr", "run", "-n", *arguments]
        done = subprocess.run(command, cwd=study, env=environment(), capture_output=True, text=True, check=False)
        [line] = [line for line in done.stderr.splitlines() if "error: " in line]
        assert done.returncode != 0 and "Traceback" not in done.stderr
        return line

    (study / "experiments/wrong.yaml").write_text("train: {epochs: 0}\n", encoding="utf-8")
    said = refused("--configfile", "experiments/wrong.yaml")
    assert said.startswith("error: experiments/wrong.yaml: train.epochs: ")
    assert "--configfile experiments/smoke.yaml" in refused("experiments/smoke.yaml")
    settings = study / "config.yaml"
    sound = settings.read_text(encoding="utf-8")
    settings.write_text(f"{sound}seed: -1\n", encoding="utf-8")
    said = refused()
    settings.write_text(sound, encoding="utf-8")  # the study is other tests' too
    assert said.startswith("error: config.yaml: seed: ")


def test_another_workflow_uses_the_installed_one_as_a_module(installed, tmp_path):
    """As docs/workflow-use.md shows it."""
    page = (ROOT / "docs/workflow-use.md").read_text(encoding="utf-8")
    snakefile, settings, *_ = re.findall(r"(?s)```text\n(.*?)```", page)
    (tmp_path / "Snakefile").write_text(snakefile, encoding="utf-8")
    (tmp_path / "settings.yaml").write_text(settings, encoding="utf-8")
    said = call(installed / "python", "-m", "snakemake", "-n", folder=tmp_path)
    planned = set(re.findall(r"(?m)^rule (\w+):", said))
    assert {"count", "lung_evaluate_known", "lung_simulate_test_case"} <= planned and "lung_train" not in planned
