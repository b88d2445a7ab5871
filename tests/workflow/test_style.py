"""The workflow lints, everything is formatted, and every environment has the versions of the lock."""

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
    "tool", [["snakefmt", "--check", "Snakefile", "rules"], ["ruff", "check", "."], ["ruff", "format", "--check", "."]]
)
def test_code_is_clean(tool):
    command = [str(Path(sys.executable).with_name(tool[0])), *tool[1:]]
    done = subprocess.run(
        command, cwd=ROOT, encoding="utf-8", stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False
    )
    assert done.returncode == 0, done.stdout


def lock() -> list[str]:
    lines = (ROOT / "requirements.lock").read_text(encoding="utf-8").splitlines()
    return [line for line in lines if line and not line.startswith("#")]


def test_the_lock_has_exact_versions_of_every_direct_requirement():
    assert all(line.count("==") == 1 for line in lock())
    direct = (ROOT / "requirements.in").read_text(encoding="utf-8").splitlines()
    direct = {line.lower() for line in direct if line and not line.startswith("#")}
    assert direct <= {line.lower() for line in lock()}


def test_what_the_package_needs_is_in_the_lock():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    needed = {name.split(">")[0].lower() for name in project["dependencies"]}
    assert needed <= {line.split("==")[0].lower() for line in lock()}


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
