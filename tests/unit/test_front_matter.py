"""What stands at the front of the repository: how to cite it, its licence and changes, and hooks that need no
download.
"""

import importlib
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest
import yaml

from microsr import __version__

ROOT = Path(__file__).parent.parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
CITATION = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
HOOKS = {
    hook["id"]: hook
    for repository in yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text(encoding="utf-8"))["repos"]
    for hook in repository["hooks"]
}

# The Citation File Format 1.2.0, as far as the file uses it.
REQUIRED = {"cff-version", "message", "title", "authors"}
OPTIONAL = {
    "abstract",
    "type",
    "version",
    "license",
    "keywords",
    "references",
    "url",
    "date-released",
    "repository-code",
}
OF_REFERENCE = {"type", "title", "authors", "year", "identifiers", "url", "notes", "doi"}
OF_AUTHOR = ({"name"}, {"family-names", "given-names"})


def test_versions_and_licence_agree():
    changes = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    newest = re.search(r"^## \[(\d+\.\d+\.\d+)\] - (unreleased|\d{4}-\d\d-\d\d)$", changes, re.MULTILINE)
    assert __version__ == PROJECT["version"] == CITATION["version"] == newest[1]
    assert PROJECT["license"] == CITATION["license"] == "MIT" and PROJECT["license-files"] == ["LICENSE"]
    licence = (ROOT / "LICENSE").read_text(encoding="utf-8")
    assert licence.startswith(
        "MIT License\n\nCopyright (c) 2026 The microsr developers\n\nPermission is hereby granted"
    )
    assert "WITHOUT WARRANTY OF ANY KIND" in licence


def test_the_citation_is_in_the_citation_file_format_and_names_the_paper():
    assert set(CITATION) >= REQUIRED and set(CITATION) <= REQUIRED | OPTIONAL
    assert CITATION["cff-version"] == "1.2.0" and CITATION["type"] == "software"
    [paper] = CITATION["references"]
    assert set(paper) >= {"type", "title", "authors"} and set(paper) <= OF_REFERENCE
    assert all(set(author) in OF_AUTHOR for author in [*CITATION["authors"], *paper["authors"]])
    for value in [*(CITATION[key] for key in ("message", "title", "abstract", "version")), paper["title"]]:
        assert isinstance(value, str), "a version such as 0.1 would be read as a number"
    assert len(set(CITATION["keywords"])) == len(CITATION["keywords"])
    assert (paper["type"], paper["year"], paper["authors"][0]["family-names"]) == ("article", 2020, "Zheng")
    [identifier] = paper["identifiers"]
    assert set(identifier) == {"type", "value", "description"} and identifier["type"] == "other"
    assert identifier["value"] == "arXiv:2004.03272" and paper["url"].endswith("/2004.03272")


VALIDATORS = ROOT / ".venv-validators/bin"
"""Made by `make validators`."""


def test_the_citation_is_valid_by_its_own_validator():
    if not VALIDATORS.exists():
        (pytest.fail if os.environ.get("CI") else pytest.skip)("no cffconvert: make validators")
    command = [VALIDATORS / "cffconvert", "--validate", "-i", ROOT / "CITATION.cff"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_ci_runs_what_contributors_run():
    [workflow] = (ROOT / ".github/workflows").iterdir()
    steps = yaml.safe_load(workflow.read_text(encoding="utf-8"))["jobs"]["test"]["steps"]
    assert any(step.get("run", "").startswith(".ci/run") for step in steps)


def test_an_issue_is_asked_for_the_version_and_the_record():
    form = yaml.safe_load((ROOT / ".github/ISSUE_TEMPLATE/problem.yml").read_text(encoding="utf-8"))
    labels = {field["attributes"].get("label"): field for field in form["body"]}
    assert {"microsr --version", "run.json"} <= set(labels)
    assert labels["microsr --version"]["validations"] == {"required": True}
    assert len({field["id"] for field in form["body"] if "id" in field}) == len(form["body"]) - 1


def test_the_catalogue_is_told_how_the_workflow_is_deployed():
    usage = yaml.safe_load((ROOT / ".snakemake-workflow-catalog.yml").read_text(encoding="utf-8"))["usage"]
    assert usage["software-stack-deployment"]["conda"] is True and set(usage) == {
        "mandatory-flags",
        "software-stack-deployment",
        "report",
    }


def test_a_deposit_holds_the_commit_and_says_what_the_citation_says(tmp_path):
    clone, crate = tmp_path / "clone", tmp_path / "demo.crate.zip"
    (clone / ".ci").mkdir(parents=True)
    for name in ("CITATION.cff", "requirements.lock", ".ci/archive.py"):
        shutil.copy(ROOT / name, clone / name)
    crate.write_text("crate", encoding="utf-8")
    git = ["git", "-c", "user.name=a", "-c", "user.email=a@example.org", "-C", str(clone)]
    for words in (["init", "-q"], ["add", "."], ["commit", "-qm", "a"]):
        subprocess.run([*git, *words], check=True)
    command = [sys.executable, clone / ".ci/archive.py", tmp_path / "dist/a.zip", crate]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    archive = zipfile.ZipFile(tmp_path / "dist/a.zip")
    folder = f"microsr-{__version__}/"
    names = {name.removeprefix(folder) for name in archive.namelist() if not name.endswith("/")}
    assert names == {"CITATION.cff", "requirements.lock", ".ci/archive.py", ".zenodo.json", "crates/demo.crate.zip"}
    said = json.loads(archive.read(f"{folder}.zenodo.json"))
    assert (said["title"], said["version"], said["license"]) == (CITATION["title"], __version__, "MIT")
    assert said["creators"] == CITATION["authors"] and said["upload_type"] == "software"
    assert [one["identifier"] for one in said["related_identifiers"]] == ["arXiv:2004.03272"]
    (clone / "requirements.lock").write_text("", encoding="utf-8")
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 1 and "error: not as committed" in done.stderr


@pytest.fixture
def release(tmp_path, monkeypatch):
    """The release check, on files that a test may change."""
    monkeypatch.syspath_prepend(ROOT / ".ci")
    check = importlib.import_module("release_check")
    pages = ("CITATION.cff", "CHANGELOG.md", "README.md", "docs/getting-started.md")
    for name in ("pyproject.toml", "src/microsr/__init__.py", *pages):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, tmp_path / name)
    monkeypatch.setattr(check, "ROOT", tmp_path)
    return check


def edit(file, old, new):
    text = file.read_text(encoding="utf-8")
    assert re.search(old, text)
    file.write_text(re.sub(old, new, text, count=1), encoding="utf-8")


def test_a_release_has_one_version_and_one_date(release, tmp_path):
    assert release.check_versions() == __version__
    edit(tmp_path / "CHANGELOG.md", r"## \[(.*)\] - \S+", r"## [\1] - 2030-01-31")
    edit(tmp_path / "CITATION.cff", r"\nversion: .*", r"\g<0>\ndate-released: 2030-01-31")
    assert release.check_dates() == "2030-01-31"
    edit(tmp_path / "CITATION.cff", "2030-01-31", "2030-02-01")
    with pytest.raises(release.NotHeldError, match=r"CITATION\.cff 2030-02-01"):
        release.check_dates()
    edit(tmp_path / "CHANGELOG.md", "2030-01-31", "unreleased")
    with pytest.raises(release.NotHeldError, match="'unreleased' where the date"):
        release.check_dates()
    edit(tmp_path / "src/microsr/__init__.py", r'"\d.*"', '"9.9.9"')
    with pytest.raises(release.NotHeldError, match=r"__init__\.py says 9.9.9"):
        release.check_versions()


def test_a_release_is_of_the_commit_that_was_tested(release, monkeypatch):
    monkeypatch.setattr(release, "said", lambda *_: "0123456789abcdef\n")
    assert release.check_tests("0123456") == "said of 0123456"
    for tested in (None, "fedcba"):
        with pytest.raises(release.NotHeldError, match="TESTED=0123456789ab"):
            release.check_tests(tested)


def test_what_contributors_are_told_to_run_and_to_read_exists():
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    targets = re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)
    assert {"env", "test"} <= set(re.findall(r"\bmake ([a-z-]+)", text.replace("make an", ""))) <= set(targets)
    links = re.findall(r"\]\(((?!http)[^)#]+)", text)
    assert links and all((ROOT / link).exists() for link in links)


def hook_on(name: str, files: list[str], folder: Path) -> subprocess.CompletedProcess:
    """A hook on files, as pre-commit runs it in the activated environment."""
    path = f"{Path(sys.executable).parent}:/usr/bin:/bin"
    return subprocess.run(
        [*shlex.split(HOOKS[name]["entry"]), *files], cwd=folder, env={"PATH": path, "HOME": str(folder)}, check=False,
        encoding="utf-8", stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    )  # fmt: skip


def test_hooks_need_no_download():
    assert all(hook["language"] == "system" for hook in HOOKS.values())
    assert not re.search(r"repo: (?!local)", (ROOT / ".pre-commit-config.yaml").read_text(encoding="utf-8"))


@pytest.mark.parametrize("name", HOOKS)
def test_every_hook_passes_on_what_is_in_git(name):
    if not (ROOT / ".git").exists():
        pytest.skip("this is no clone")
    listed = subprocess.run(
        ["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout.splitlines()
    files = [file for file in listed if re.search(HOOKS[name]["files"], file) and (ROOT / file).is_file()]
    assert files
    done = hook_on(name, files, ROOT)
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize(
    ("name", "file", "content", "said"),
    [
        ("ruff-check", "a.py", "import os\n", "unused"),
        ("ruff-format", "a.py", "x = [1,2]\n", "reformatted"),
        ("snakefmt", "rules/a.smk", "rule a:\n  output: 'b'\n", "would be changed"),
        ("yaml", "a.yaml", "a: [1, 2\n", "expected"),
        ("large-files", "a.bin", "0" * 2_100_000, "larger than 2 MB - a.bin"),
    ],
)
def test_every_hook_stops_a_fault(name, file, content, said, tmp_path):
    sound = tmp_path / "sound.yaml"
    sound.write_text("a: 1\n", encoding="utf-8")
    path = tmp_path / file
    path.parent.mkdir(exist_ok=True)
    path.write_text(content, encoding="utf-8")
    assert re.search(HOOKS[name]["files"], file) and not re.search(HOOKS[name]["files"] or "$^", "README.md")
    done = hook_on(name, ["sound.yaml", file] if name in ("yaml", "large-files") else [file], tmp_path)
    assert done.returncode != 0 and said in done.stdout, done.stdout
