"""The pipeline on a real Slurm: as a whole, and a training through all that befalls one on a shared cluster."""

import json
import os
import re
import shutil
import signal
import subprocess
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import SimpleITK as sitk
import torch
from comparing import differences
from patience import limit
from workflows import training_in

pytestmark = pytest.mark.workflow
SMOKE = ("--configfile", "experiments/smoke.yaml")
MODEL = "results/smoke/models/cyclegan/pooled"
STATE = "results/smoke/.state/cyclegan/pooled"
SACCT = """#!/bin/sh
# In the place of Slurm's accounting, which this cluster lacks: it does not answer the first ten questions about jobs.
case "$*" in *--name*) ;; *) exit 1 ;; esac
echo >> "$0.asked"
[ "$(wc -l < "$0.asked")" -gt 10 ] && exec squeue --noheader --states all --format '%i|%T'
exit 1
"""


@pytest.fixture
def prepared(finished, tmp_path):
    """The finished smoke experiment in a folder of its own: a longer training finds its patches made."""
    folder = tmp_path / "clone"
    shutil.copytree(finished.folder, folder, symlinks=True)
    return replace(finished, folder=folder)


def training_of(epochs: int, retries: int = 0) -> list[str]:
    """Arguments for a training that saves its state twice a second or so."""
    compute = f"compute={{checkpoint_minutes: 0.01, retries: {retries}, device: cpu}}"
    return [f"{MODEL}/run.json", *SMOKE, "--config", f"train={{epochs: {epochs}}}", compute]


def last_step(folder: Path) -> int:
    """The step that the newest saved state is of; 0: none."""
    return max((int(path.stem[5:]) for path in folder.glob(f"{STATE}/*/step-*.pt")), default=0)


def attempts_in(folder: Path) -> int:
    """How many attempts the newest saved state knows of: those that came to save one."""
    try:
        newest = max(folder.glob(f"{STATE}/*/step-*.pt"), default=None)
        return len(torch.load(newest, weights_only=True)["state"]["attempts"]) if newest else 0
    except FileNotFoundError:  # it has just made room for a newer one
        return attempts_in(folder)


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return torch.load(folder / MODEL / "generator.pt", weights_only=True)["weights"]


@pytest.mark.nightly
def test_a_training_lives_through_all_that_befalls_it(slurm, prepared, tmp_path):
    """Too little memory, scancel, a lost node, preemption and a time limit; the weights are those of a quiet
    training.
    """
    folder, epochs = prepared.folder, 150
    quiet = replace(prepared, folder=tmp_path / "quiet")
    shutil.copytree(folder, quiet.folder, symlinks=True)
    alone = subprocess.Popen(
        quiet.command("--cores", "1", *training_of(epochs)), cwd=quiet.folder, env=quiet.environment(),
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    memory = "train:mem_mb=600 if attempt == 1 else 4000"
    said = slurm.submit(prepared, *training_of(epochs, retries=5), "--set-resources", memory, "train:runtime=60")

    def saves_after(number):
        """The job that runs, once an attempt after the first `number` that saved a state has saved its first."""
        return lambda: attempts_in(folder) > number and slurm.running("train")

    first = said.wait_for(lambda: slurm.running("train"), "a training")
    said.wait_for(lambda: slurm.state_of(first) not in ("PENDING", "CONFIGURING", "RUNNING", "COMPLETING"), "memory")
    before = attempts_in(folder)

    second = said.wait_for(saves_after(before), "a second attempt, with more memory")
    assert second != first
    slurm.ask("scancel", second)
    third = said.wait_for(saves_after(before + 1), "a third attempt")
    assert slurm.state_of(second) == "CANCELLED"

    slurm.ask("scontrol", "update", f"NodeName={slurm.node}", "State=DOWN", "Reason=test")
    said.wait_for(lambda: slurm.state_of(third) == "PENDING", "the job waits for a node")
    slurm.ask("scontrol", "update", f"NodeName={slurm.node}", "State=RESUME")
    assert said.wait_for(saves_after(before + 2), "the same job, after the node is back") == third

    urgent = slurm.ask(
        "sbatch", "--parsable", "-p", "urgent", "--exclusive", "-o", "/dev/null", "--wrap", "sleep 3"
    ).strip()
    said.wait_for(lambda: slurm.state_of(urgent) == "COMPLETED", "a job that comes first")
    assert said.wait_for(saves_after(before + 3), "the same job, after it was preempted") == third

    # A minute is all it has now, of which the process stalls for the most part: on a fast machine, too, it is not done
    # then.
    slurm.ask("scontrol", "update", f"JobId={third}", "TimeLimit=1")
    process = training_in(folder)
    os.kill(process, signal.SIGSTOP)
    said.wait_for(lambda: slurm.seconds_of(third) > 50, "most of the time is up")
    os.kill(process, signal.SIGCONT)
    said.wait_for(lambda: slurm.state_of(third) == "TIMEOUT", "the time limit")
    status, text = said.end()
    assert status == 0, text[-6000:]
    assert "exceeded memory limit" in text, "why the first attempt ended"
    record = json.loads((folder / MODEL / "run.json").read_text(encoding="utf-8"))
    starts = [attempt["start_step"] for attempt in record["attempts"]]
    assert starts[0] == 0 and len(starts) >= 5 and starts == sorted(set(starts)), "each went on where one before it was"
    assert alone.wait(timeout=limit(1200)) == 0
    one, other = weights(folder), weights(quiet.folder)
    assert all(torch.equal(one[name], other[name]) for name in one | other)
    history = [pd.read_csv(clone / MODEL / "history.csv") for clone in (folder, quiet.folder)]
    pd.testing.assert_frame_equal(*history, check_exact=True)


@pytest.mark.nightly
def test_a_main_process_that_is_killed_is_started_again(slurm, prepared):
    folder, arguments = prepared.folder, training_of(120)
    said = slurm.submit(prepared, *arguments)
    job = said.wait_for(lambda: last_step(folder) and slurm.running("train"), "a training")
    os.killpg(said.process.pid, signal.SIGKILL)
    said.process.wait()
    assert slurm.state_of(job) == "RUNNING", "nobody has told Slurm"
    status, text = slurm.submit(prepared, *arguments).end()
    assert status != 0 and "Directory cannot be locked" in text, (
        "as its jobs may live, which the user has to look after"
    )
    slurm.ask("scancel", job)
    prepared.run("--unlock", *SMOKE)
    status, text = slurm.submit(prepared, *arguments).end()
    assert status == 0, text[-6000:]
    starts = [
        attempt["start_step"]
        for attempt in json.loads((folder / MODEL / "run.json").read_text(encoding="utf-8"))["attempts"]
    ]
    assert starts[0] == 0 < starts[1]


@pytest.mark.nightly
def test_what_fails_for_good_shows_why_where_the_user_looks(slurm, workflow, chest, tmp_path):
    """A scan that is not in HU: its line of error is in what Snakemake says, and the other case is finished.

    Slurm's accounting does not answer at first, for longer than Snakemake has patience by itself: then it would wait
    for ever.
    """
    programs = tmp_path / "programs"
    programs.mkdir()
    (programs / "sacct").write_text(SACCT, encoding="utf-8")
    (programs / "sacct").chmod(0o755)
    for name, values in (("bad", np.full(chest.shape, 7)), ("good", chest)):
        scan = sitk.GetImageFromArray(values.astype(np.int16))
        sitk.WriteImage(scan, str(workflow.folder / f"{name}.nii.gz"))
    sheet = "case\tsplit\tclinical\tmicro\nbad\ttrain\tbad.nii.gz\tgood.nii.gz\ngood\ttest\tgood.nii.gz\t\n"
    (workflow.folder / "sheet.tsv").write_text(sheet)
    targets = [f"results/smoke/volumes/{case}/clinical.ome.zarr" for case in ("bad", "good")]
    settings = ("--config", "cases={sheet: sheet.tsv, data_root: .}", "--slurm-status-command", "sacct")
    status, text = slurm.submit(workflow, *targets, *SMOKE, *settings, programs=programs).end()
    assert len((programs / "sacct.asked").read_text(encoding="utf-8")) > 10
    assert status != 0 and "Traceback" not in text
    (line,) = [line for line in text.splitlines() if line.startswith("Failed: ")]
    assert line.startswith("Failed: bad.nii.gz: is constant") and "logs/volumes/bad/clinical.log" in line
    assert text.index(line) > text.rindex("Error in rule"), "below everything else"
    assert [(workflow.folder / target).exists() for target in targets] == [False, True]


def test_steps_that_share_jobs_make_what_one_machine_makes(slurm, workflow, finished):
    """A short run: a case is simulated and imported in one job, and super-resolved in another, which waits for it."""
    before, target = len(slurm.jobs()), "results/smoke/superresolved/bicubic/none/test1.ome.zarr"
    status, said = slurm.submit(workflow, target, *SMOKE).end()
    assert status == 0, said[-6000:]
    assert "To see how far the jobs are: tail -F results/smoke/logs/train" in said
    assert (workflow.folder / target).is_dir()
    assert differences(finished.folder / "results/smoke", workflow.folder / "results/smoke", partial=True) == []
    jobs, steps = slurm.jobs()[before:], int(re.findall(r"of (\d+) steps", said)[-1])
    assert {job["state"] for job in jobs} == {"COMPLETED"} and 1 < len(jobs) < steps, "small steps share jobs"
    assert max(int(job["cpus"]) for job in jobs) <= 4


@pytest.mark.nightly
def test_the_whole_experiment_is_that_of_one_machine(slurm, workflow, finished):
    before = len(slurm.jobs())
    status, said = slurm.submit(workflow, *SMOKE).end()
    assert status == 0, said[-6000:]
    assert differences(finished.folder / "results/smoke", workflow.folder / "results/smoke") == []
    jobs, steps = slurm.jobs()[before:], int(re.findall(r"of (\d+) steps", said)[-1])
    assert len(jobs) < steps / 2, "small steps share jobs"
    assert max(int(job["cpus"]) for job in jobs) == 4, "four of them side by side"
