"""Snakemake itself is killed, runs twice at once, or finds a disk that it cannot write: nothing is spoilt, and a line
says what to do.
"""

import os
import re
import shutil
import signal
import subprocess
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from patience import limit, wait_for
from steps import content
from test_full_disk import mount, mounted
from workflows import HANGS

from microsr.core.files import remove

pytestmark = pytest.mark.workflow
SMOKE = ("--configfile", "experiments/smoke.yaml")
NETWORK = "results/{}/figures/network.png"
KILLS = 4


def start(workflow, *arguments: str) -> subprocess.Popen:
    """Snakemake on two cores, with its jobs in a process group of its own."""
    return subprocess.Popen(
        workflow.command("--cores", "2", *arguments, *SMOKE), cwd=workflow.folder, env=workflow.environment(),
        encoding="utf-8", stdout=subprocess.PIPE, stderr=subprocess.STDOUT, start_new_session=True,
    )  # fmt: skip


def end(process: subprocess.Popen, number: int = signal.SIGKILL) -> str:
    """Send a signal to Snakemake and all its jobs; what they said until then."""
    os.killpg(process.pid, number)
    said = process.communicate(timeout=limit(HANGS))[0]
    return said


def records(folder: Path) -> set[str]:
    """The records of a folder in which files come and go."""
    return {f"{at}/{name}" for at, _, names in os.walk(folder) for name in names if name.endswith("run.json")}


def results(folder: Path) -> dict[str, object]:
    """`content` of every result, but for logs, benchmarks and states."""
    found = {}
    for path in folder.rglob("*"):
        name = path.relative_to(folder).as_posix()
        if path.is_file() and not name.startswith(("logs/", "benchmarks/", ".state/")):
            found[name] = content(path)
    return found


def test_a_workflow_that_is_killed_again_and_again_ends_as_one_that_never_was(workflow, finished):
    """kill -9 of Snakemake and its jobs at chance moments; each time the same command goes on, and nobody says
    --unlock.
    """
    random = np.random.default_rng(0)
    target = "results/smoke/tables/domain.csv"
    made = workflow.folder / "results/smoke"
    for kill in range(KILLS):
        before = records(made)
        snakemake = start(workflow, target)
        wait_for(lambda before=before: records(made) - before, lambda process=snakemake: process.poll() is None)
        time.sleep(random.uniform(0, 1))
        said = end(snakemake)
        assert snakemake.returncode == -signal.SIGKILL, f"it was to be killed (number {kill}): {said}"
    said = workflow.run(target, *SMOKE)
    assert "The lock of a Snakemake that was killed is removed." in said
    found, whole = results(made), results(finished.folder / "results/smoke")
    assert len(found) > 50
    assert [name for name in found if found[name] != whole.get(name)] == []
    assert "Nothing to be done" in workflow.run(target, *SMOKE)


def test_two_experiments_in_one_clone_run_side_by_side(workflow):
    both = [start(workflow, NETWORK.format(name), "--config", f"experiment={name}") for name in "ab"]
    said = [process.communicate(timeout=limit(HANGS))[0] for process in both]
    assert [process.returncode for process in both] == [0, 0], said
    pictures = [(workflow.folder / NETWORK.format(name)).read_bytes() for name in "ab"]
    assert pictures[0] == pictures[1]


def test_a_second_snakemake_of_the_same_experiment_is_refused_and_the_first_is_not_disturbed(workflow, finished):
    target = NETWORK.format("smoke")
    first = start(workflow, target)
    running = workflow.folder / "results/smoke/.running"
    wait_for(running.exists, lambda: first.poll() is None)
    os.killpg(first.pid, signal.SIGSTOP)
    try:
        by_snakemake = workflow.snakemake("--cores", "1", target, *SMOKE)
        assert by_snakemake.returncode != 0 and "Directory cannot be locked" in by_snakemake.stdout
        assert "Traceback" not in by_snakemake.stdout
        remove(workflow.folder / ".snakemake/locks")  # as a Snakemake of another experiment does when it ends
        line = workflow.fails(target, *SMOKE)
        assert re.fullmatch(
            rf"error: the experiment in results/smoke is being run by process {first.pid} on .*; wait for it, or "
            "end it",
            line,
        )
    finally:
        os.killpg(first.pid, signal.SIGCONT)
    said = first.communicate(timeout=limit(HANGS))[0]
    assert first.returncode == 0, said
    assert not running.exists()
    assert (workflow.folder / target).read_bytes() == (finished.folder / target).read_bytes()


def test_results_that_cannot_be_written_are_told_in_one_line(workflow):
    with mounted(workflow.folder / "results", "size=1m,ro") as done:
        if not done:
            if os.geteuid() == 0:
                pytest.skip("this container lets nobody mount a disk")
            (workflow.folder / "results").chmod(0o555)
        line = workflow.fails(NETWORK.format("smoke"), *SMOKE)
        assert re.search("results/smoke/.running: .*(can only be read; have it mounted for writing|no right to )", line)


def test_a_disk_that_fills_up_under_the_workflow_is_told_and_gone_on_with(workflow, finished):
    target = "results/smoke/volumes/train1/clinical.ome.zarr"
    with mounted(workflow.folder / "results", "size=300k") as done:
        if not done:
            pytest.skip("only root may mount a disk")
        full = workflow.snakemake("--cores", "2", target, *SMOKE)
        assert full.returncode != 0
        said = [line for line in full.stdout.splitlines() if line.startswith("simulate: error: ")]
        assert len(said) == 1 and re.search(
            r"the disk of .*results/smoke/simulated/train1 is full .*; make room, then", said[0]
        )
        mount(workflow.folder / "results", "remount,size=1g")
        workflow.run(target, *SMOKE)
        whole = finished.folder / target
        assert content(workflow.folder / target) == content(whole)


def test_a_training_that_diverges_is_tried_once_for_each_start_of_the_workflow(finished, tmp_path):
    folder = tmp_path / "clone"
    shutil.copytree(finished.folder, folder, symlinks=True)
    copy = replace(finished, folder=folder)
    target = "results/smoke/models/cyclegan/pooled/generator.pt"
    settings = ("--config", "train={learning_rate: 1.0e+30, epochs: 4}")
    for _ in range(2):
        said = copy.snakemake("--cores", "2", target, *SMOKE, *settings)
        assert said.returncode != 0
        errors = [line for line in said.stdout.splitlines() if line.startswith("train: error: ")]
        assert len(errors) == 3 and len(set(errors)) == 1 and "training diverged" in errors[0], said.stdout[-6000:]
        assert sum(line.startswith("train cyclegan/pooled: not tried again") for line in said.stdout.splitlines()) == 2
