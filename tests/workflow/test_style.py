"""The workflow lints, everything is formatted, and every environment has the versions of the lock."""

import ast
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parent.parent.parent


def test_snakemake_lints(planned):
    done = planned.snakemake("--lint")
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize(
    "tool",
    [
        ["snakefmt", "--check", "Snakefile", "rules"],
        ["ruff", "check", "."],
        ["ruff", "format", "--check", "."],
        ["lint-imports"],
        ["mypy"],
    ],
)
def test_code_is_clean(tool):
    command = [str(Path(sys.executable).with_name(tool[0])), *tool[1:]]
    done = subprocess.run(
        command, cwd=ROOT, encoding="utf-8", stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False
    )
    assert done.returncode == 0, done.stdout


def set_and_changed(text: str) -> tuple[set[str], set[str]]:
    """Names in capitals that a rules file gives a value, and those whose value it changes."""
    given = set(re.findall(r"^ *(?:global )?([A-Z][A-Z_0-9]*)(?=(?:, *[A-Z_0-9]+)* *=[^=])", text, re.MULTILINE))
    given |= set(re.findall(r"^[A-Z_0-9, ]*\b([A-Z][A-Z_0-9]*) *=[^=]", text, re.MULTILINE))
    changed = set(re.findall(r"^ *([A-Z][A-Z_0-9]*)(?:\[[^\]\n]*\])? *(?:[-+|&*/]|//)=", text, re.MULTILINE))
    changed |= set(re.findall(r"^ *([A-Z][A-Z_0-9]*)\[[^\]\n]*\] *=[^=]", text, re.MULTILINE))
    methods = "append|extend|insert|add|update|setdefault|pop|popitem|remove|discard|clear|sort|reverse"
    changed |= set(re.findall(rf"\b([A-Z][A-Z_0-9]*)\.(?:{methods})\(", text))
    changed |= set(re.findall(r"^ *(?:del|global) ([A-Z][A-Z_0-9]*)", text, re.MULTILINE))
    return given, changed


@pytest.mark.parametrize(
    "line",
    [
        "A += [1]",
        "    A |= {}",
        "A.append(1)",
        "if x: A.update(y)",
        "A[1] = 2",
        "A['b'] += 3",
        "    global A",
        "del A[0]",
    ],
)
def test_what_counts_as_a_change(line):
    assert set_and_changed(line)[1] == {"A"}


def test_no_rules_file_changes_what_another_one_holds():
    """So that a name has the value that stands where it is made, whatever is included after it."""
    files = [ROOT / "Snakefile", *sorted((ROOT / "rules").glob("*.smk"))]
    found = {file.name: set_and_changed(file.read_text(encoding="utf-8")) for file in files}
    owners: dict[str, list[str]] = {}
    for name, (given, changed) in found.items():
        assert changed <= given, f"{name} changes {changed - given} of another file"
        for one in given:
            owners.setdefault(one, []).append(name)
    assert {one: names for one, names in owners.items() if len(names) > 1} == {}
    assert {"PLAN", "EXPERIMENT", "RESULTS", "WORKFLOW", "DEVICE", "NODES"} <= found["common.smk"][0]


def test_rules_say_no_error_of_their_own():
    """The catalogue of messages (docs/errors.md) is read from the package: rules stop with what it says."""
    text = "\n".join(file.read_text(encoding="utf-8") for file in (ROOT / "rules").glob("*.smk"))
    assert set(re.findall(r"\bstop\((.*)", text)) == {"message):", "error)"}
    assert len(re.findall(r"\bsys\.exit\b|\braise\b", text)) == 1, "in stop"


def lock() -> list[str]:
    lines = (ROOT / "requirements.lock").read_text(encoding="utf-8").splitlines()
    return [line for line in lines if line and not line.startswith("#")]


def test_the_lock_has_exact_versions_of_every_direct_requirement():
    assert all(line.count("==") == 1 for line in lock())
    direct = (ROOT / "requirements.in").read_text(encoding="utf-8").splitlines()
    direct = {line.lower() for line in direct if line and not line.startswith("#")}
    assert direct <= {line.lower() for line in lock()}


def needed() -> set[str]:
    """What the package depends on, in lower case."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    return {re.match(r"[\w-]+", name)[0].lower() for name in project["dependencies"]}


def test_what_the_package_needs_is_in_the_lock():
    assert needed() <= {line.split("==")[0].lower() for line in lock()}


# What is imported by another name than it is installed by.
INSTALLED_AS = {"pil": "pillow", "yaml": "pyyaml", "skimage": "scikit-image", "google_crc32c": "google-crc32c"}


def imported() -> set[str]:
    """The packages that the package imports anywhere, by the names that they are installed by, in lower case."""
    found = set()
    for path in (ROOT / "src").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                found |= {alias.name.split(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and not node.level:
                found.add(node.module.split(".")[0])
    names = {name.lower() for name in found - sys.stdlib_module_names - {"microsr"}}
    return {INSTALLED_AS.get(name, name) for name in names}


def test_what_the_package_imports_it_asks_for_and_nothing_else():
    """A package that another one brings along may stay away tomorrow. Snakemake runs the package, which does not import
    it.
    """
    assert imported() == needed() - {"snakemake"}


def test_what_the_package_imports_has_its_version_chosen():
    """Not left to what else is installed: requirements.in names it."""
    lines = (ROOT / "requirements.in").read_text(encoding="utf-8").splitlines()
    assert imported() <= {line.split("==")[0].lower() for line in lines}


@pytest.mark.parametrize("kind", ["cpu", "gpu"])
def test_conda_environments_have_the_versions_of_the_lock(kind):
    environment = yaml.safe_load((ROOT / f"envs/{kind}.yaml").read_text(encoding="utf-8"))
    from_pip = next(part["pip"] for part in environment["dependencies"] if isinstance(part, dict))
    assert [line for line in from_pip if "==" in line] == lock()


def test_a_conda_environment_gets_the_command(tmp_path):
    """The post-deploy script makes a `microsr` that runs with the environment's own Python."""
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin/python").symlink_to(sys.executable)
    for kind in ("cpu", "gpu"):
        subprocess.run(
            ["sh", ROOT / f"envs/{kind}.post-deploy.sh"],
            env={"CONDA_PREFIX": str(tmp_path), "PATH": "/bin:/usr/bin"},
            check=True,
        )
        assert f'"{tmp_path}/bin/python" -m microsr' in (tmp_path / "bin/microsr").read_text(encoding="utf-8")
