"""One Snakemake at a time for an experiment; the locks of a killed one are removed where that is certain."""

import socket
import subprocess
import sys
from pathlib import Path

import pytest

from microsr.workflow.lock import RUNNING, SUBMITS, drop_stale_locks

CLAIM = """
import sys, time
from pathlib import Path
from microsr.workflow.lock import claim
claim(Path(sys.argv[1]))
print(flush=True)
if sys.argv[2:]:
    time.sleep(600)
"""


@pytest.fixture
def clone(tmp_path, monkeypatch) -> Path:
    """A folder with Snakemake's locks of two experiments, a and b, and of one whose inputs are of another."""
    monkeypatch.chdir(tmp_path)
    locks = tmp_path / ".snakemake/locks"
    locks.mkdir(parents=True)
    for name in "ab":
        number = "ab".index(name)
        (locks / f"{number}.output.lock").write_text(f"results/{name}/t.csv\nresults/{name}/u.csv\n")
        (locks / f"{number}.input.lock").write_text(f"scans/x.nii\nresults/{name}/t.csv\n")
    (locks / "2.input.lock").write_text("results/b/t.csv\nresults/a/t.csv\n")
    return tmp_path


def left(clone):
    return sorted(path.name for path in (clone / ".snakemake/locks").iterdir())


EVERY = ["0.input.lock", "0.output.lock", "1.input.lock", "1.output.lock", "2.input.lock"]


def test_the_locks_of_a_killed_snakemake_are_removed_and_no_others(clone):
    with subprocess.Popen([sys.executable, "-c", CLAIM, "results/a", "wait"], stdout=subprocess.PIPE) as snakemake:
        snakemake.stdout.readline()
        assert not drop_stale_locks(Path("results/a")) and left(clone) == EVERY, "it is alive"
        snakemake.kill()
    assert drop_stale_locks(Path("results/a"))
    assert left(clone) == EVERY[2:]
    assert not drop_stale_locks(Path("results/a")) and not (clone / "results/a" / RUNNING).exists()


def test_one_that_ended_by_itself_leaves_nothing(clone):
    subprocess.run([sys.executable, "-c", CLAIM, "results/a"], check=True, stdout=subprocess.DEVNULL)
    assert not list((clone / "results/a").iterdir())
    assert not drop_stale_locks(Path("results/a")) and left(clone) == EVERY


@pytest.mark.parametrize(
    "said", ["process 1 on another-machine\n", f"process 1 on {socket.gethostname()}{SUBMITS}\n", "", "garbage"]
)
def test_locks_that_may_be_anothers_are_left_to_the_user(said, clone):
    running = clone / "results/a" / RUNNING
    running.parent.mkdir(parents=True)
    running.write_text(said)
    assert not drop_stale_locks(Path("results/a")) and left(clone) == EVERY and running.exists()
    running.write_text(f"process 1 on {socket.gethostname()}\n")
    assert drop_stale_locks(Path("results/a"))


def test_a_second_snakemake_of_the_same_experiment_is_refused(clone):
    with subprocess.Popen([sys.executable, "-c", CLAIM, "results/a", "wait"], stdout=subprocess.PIPE) as first:
        first.stdout.readline()
        second = subprocess.run([sys.executable, "-c", CLAIM, "results/a"], capture_output=True, text=True, check=False)
        other = subprocess.run([sys.executable, "-c", CLAIM, "results/b"], capture_output=True, text=True, check=False)
        first.kill()
    said = f"UserError: the experiment in results/a is being run by process {first.pid} on "
    assert second.returncode == 1 and said in second.stderr and other.returncode == 0
