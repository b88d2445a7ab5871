"""What stands at the front of the repository: how to cite it, its licence and changes, and hooks that need no
download.
"""

import re
import shlex
import subprocess
import sys
import tomllib
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


def test_what_contributors_are_told_to_run_and_to_read_exists():
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    targets = re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)
    assert {"env", "test"} <= set(re.findall(r"\bmake ([a-z]+)", text.replace("make an", ""))) <= set(targets)
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
