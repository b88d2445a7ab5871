"""Snakemake on a copy of the workflow, so that a test may edit it and results stay out of the clone: for tests of any
folder.
"""

import fcntl
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from forked import Forking
from patience import limit

ROOT = Path(__file__).parent.parent
PARTS = ("Snakefile", "config.yaml", "rules", "experiments", "profiles", "report", "envs", "src")


def environment() -> dict[str, str]:
    """See `Workflow.environment`."""
    return {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "VIRTUAL_ENV")}


HANGS = 3000
"""Seconds, see `patience`, after which a Snakemake is ended: a whole run takes a tenth of it."""
FORKING = Forking(environment())


def pytest_unconfigure() -> None:
    """The process that forks is not needed any more."""
    FORKING.end()


@dataclass(frozen=True)
class Workflow:
    """A copy of the workflow in a folder of its own."""

    folder: Path

    def command(self, *arguments: str) -> list[str]:
        return [sys.executable, "-m", "snakemake", *arguments]

    def environment(self) -> dict[str, str]:
        """As in a shell where the environment is not activated, and no other copy of the package is in the way."""
        return environment()

    def started(self, *arguments: str) -> subprocess.CompletedProcess:
        """Run Snakemake in a process that starts from nothing, as a user does; stdout holds all that a user would
        see.
        """
        return subprocess.run(
            self.command(*arguments), cwd=self.folder, env=self.environment(), encoding="utf-8",
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False, timeout=limit(HANGS),
        )  # fmt: skip

    def snakemake(self, *arguments: str) -> subprocess.CompletedProcess:
        """What `started` gives, in half the time: by a process that has loaded Snakemake already."""
        with tempfile.NamedTemporaryFile() as said:
            code = FORKING.run(list(arguments), self.folder, self.environment(), Path(said.name), limit(HANGS))
            return subprocess.CompletedProcess(self.command(*arguments), code, said.read().decode("utf-8"))

    def run(self, *arguments: str) -> str:
        """Run Snakemake on two cores; what it said. Fails the test if Snakemake fails."""
        done = self.snakemake("--cores", "2", *arguments)
        assert done.returncode == 0, done.stdout[-6000:]
        return done.stdout

    def plan(self, *arguments: str) -> Counter:
        """How many jobs of each rule a dry run plans, by the rule's name."""
        done = self.snakemake("-n", *arguments)
        assert done.returncode == 0, done.stdout[-6000:]
        return Counter(re.findall(r"^(?:local)?rule (\w+):$", done.stdout, re.MULTILINE))

    def fails(self, *arguments: str) -> str:
        """The one line of error with which Snakemake stops."""
        done = self.snakemake("--cores", "1", *arguments)
        assert done.returncode != 0, done.stdout[-6000:]
        assert "Traceback" not in done.stdout, done.stdout[-6000:]
        lines = [line for line in done.stdout.splitlines() if re.match(r"(\w+: )?error: ", line)]
        assert len(lines) == 1, done.stdout[-6000:]
        return lines[0]

    def edit(self, path: str, old: str, new: str) -> None:
        file = self.folder / path
        text = file.read_text(encoding="utf-8")
        assert old in text
        file.write_text(text.replace(old, new, 1), encoding="utf-8")


def training_in(folder: Path) -> int | None:
    """The process id of `microsr train` that runs in a folder."""
    for process in Path("/proc").glob("[0-9]*"):
        try:
            command = (process / "cmdline").read_bytes().split(b"\0")
            here = (process / "cwd").resolve() == folder.resolve()
        except OSError:
            continue
        if here and b"train" in command and b"python" in command[0]:
            return int(process.name)
    return None


def copy_workflow(folder: Path) -> Workflow:
    for part in PARTS:
        source = ROOT / part
        if source.is_dir():
            shutil.copytree(source, folder / part, ignore=shutil.ignore_patterns("__pycache__", "*.egg-info"))
        else:
            folder.mkdir(parents=True, exist_ok=True)
            shutil.copy(source, folder / part)
    return Workflow(folder)


@pytest.fixture
def workflow(tmp_path: Path) -> Workflow:
    """A fresh copy."""
    return copy_workflow(tmp_path / "clone")


@pytest.fixture(scope="module")
def copied_workflow(tmp_path_factory: pytest.TempPathFactory) -> Workflow:
    """A copy for all tests of a module."""
    return copy_workflow(tmp_path_factory.mktemp("module") / "clone")


@dataclass(frozen=True)
class Planned(Workflow):
    """A copy that nobody changes: the same dry run is made once for all who ask."""

    known: dict[tuple[str, ...], subprocess.CompletedProcess] = field(default_factory=dict)

    def snakemake(self, *arguments: str) -> subprocess.CompletedProcess:
        """As ever; a plan has the commands of its jobs, asked for or not."""
        if "-n" in arguments:
            arguments = ("-n", "-p", *(word for word in arguments if word not in ("-n", "-p")))
            if arguments not in self.known:
                self.known[arguments] = super().snakemake(*arguments)
            return self.known[arguments]
        return super().snakemake(*arguments)


@pytest.fixture(scope="session")
def planned(tmp_path_factory: pytest.TempPathFactory) -> Planned:
    """A copy for dry runs, which leave nothing behind."""
    return Planned(copy_workflow(tmp_path_factory.mktemp("planned") / "clone").folder)


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Workflow:
    """A copy in which experiments/smoke.yaml has run to its end; a test that edits it works on a copy of its own.

    Of the processes of `pytest -n`, the first one runs it, the others take copies.
    """
    temporary = tmp_path_factory.getbasetemp()
    shared = (temporary.parent if "PYTEST_XDIST_WORKER" in os.environ else temporary) / "finished"
    shared.mkdir(exist_ok=True)
    with (shared / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (shared / "done").exists():
            done = copy_workflow(shared / "clone").started("--cores", "2", "--configfile", "experiments/smoke.yaml")
            assert done.returncode == 0, done.stdout[-6000:]
            (shared / "done").touch()
    folder = tmp_path_factory.mktemp("smoke") / "clone"
    shutil.copytree(shared / "clone", folder, symlinks=True)
    return Workflow(folder)
