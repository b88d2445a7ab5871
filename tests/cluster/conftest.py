"""A real Slurm on this machine: munged, slurmctld and slurmd from Debian's packages, with a node that claims eight
CPUs.
"""

import os
import shutil
import signal
import socket
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from patience import limit, wait_for
from workflows import Workflow

CONF = Path("/etc/slurm/slurm.conf")
OURS = "# Written by the tests of microsr."
NEEDED = ("munged", "slurmctld", "slurmd", "sbatch", "srun", "scontrol", "squeue", "scancel", "runuser")
SETTINGS = """{ours}
ClusterName=test
SlurmctldHost={host}(127.0.0.1)
SlurmUser=root
AuthType=auth/munge
AuthInfo=cred_expire=15
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.log
SlurmctldPort={ports[0]}
SlurmdPort={ports[1]}
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU_Memory
JobAcctGatherType=jobacct_gather/linux
JobAcctGatherFrequency=task=2
JobAcctGatherParams=OverMemoryKill
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
SlurmdParameters=config_overrides
SchedulerParameters=batch_sched_delay=0,sched_interval=2,bf_interval=5
MinJobAge=3600
KillWait={patience}
NodeName={host} NodeAddr=127.0.0.1 CPUs=8 RealMemory=64000
PartitionName=normal Nodes={host} Default=YES PriorityTier=1 State=UP
PartitionName=urgent Nodes={host} PriorityTier=10 State=UP
"""
FLAGS = (
    "--workflow-profile", "profiles/slurm", "--slurm-no-account", "--slurm-status-command", "squeue",
    "--slurm-init-seconds-before-status-checks", "1", "--seconds-between-status-checks", "1",
    "--max-status-checks-per-second", "10", "--latency-wait", "10",
)  # fmt: skip
"""The profile as users have it; this cluster has no accounting, and tests do not wait long to ask how a job is."""


def outcome(*command: str) -> str:
    """What a command prints; fails the test if the command fails."""
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{' '.join(command)}: {done.stdout}{done.stderr}"
    return done.stdout


@dataclass(frozen=True)
class Submission:
    """A Snakemake that submits to the cluster, running in the background; `said` is the file that it speaks into."""

    process: subprocess.Popen
    said: Path

    def wait_for(self, condition: Callable[[], object], what: str, seconds: float = 600) -> object:
        """What `condition` gives once it is true."""
        try:
            return wait_for(condition, lambda: self.process.poll() is None, seconds, every=0.3)
        except AssertionError as error:
            pytest.fail(f"{what}: {error}\n{self.post_mortem()}")

    def end(self, seconds: float = 1500) -> tuple[int, str]:
        """Exit status, and all that a user has seen."""
        try:
            status = self.process.wait(timeout=limit(seconds))
        except subprocess.TimeoutExpired:
            pytest.fail(f"Snakemake has not ended within {seconds} s\n{self.post_mortem()}")
        return status, self.said.read_text(encoding="utf-8")

    def post_mortem(self) -> str:
        """For a person who looks for what is wrong: jobs, node, processes, logs of jobs, and what Snakemake said; it is
        ended.
        """
        commands = (
            ("squeue", "--states", "all", "--format", "%i|%T|%r|%M|%k"), ("sinfo", "-N", "--long"),
            ("ps", "-e", "-o", "pid,ppid,stat,wchan:20,etimes,args", "--forest"),
        )  # fmt: skip
        found = [subprocess.run(one, capture_output=True, text=True, check=False).stdout for one in commands]
        found += [
            log.read_text(encoding="utf-8")[-2000:] for log in self.said.parent.glob("results/slurm_logs/**/*.log")
        ]
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGABRT)  # it then says where each of its threads is
            self.process.wait()
        return "\n".join([*found, self.said.read_text(encoding="utf-8")[-6000:]])


@dataclass(frozen=True)
class Slurm:
    """The cluster, which is one node, and what was submitted to it in a test."""

    node: str
    submitted: list[subprocess.Popen] = field(default_factory=list)

    def submit(self, workflow: Workflow, *arguments: str, programs: Path | None = None) -> Submission:
        """Start a Snakemake that submits. programs: a folder whose programs it takes in the place of others of that
        name.
        """
        environment = workflow.environment() | {"PYTHONFAULTHANDLER": "1"}
        if programs is not None:
            environment["PATH"] = f"{programs}{os.pathsep}{environment['PATH']}"
        said = workflow.folder / "said.txt"
        with said.open("w") as output:
            process = subprocess.Popen(
                workflow.command(*FLAGS, *arguments), cwd=workflow.folder, env=environment,
                stdout=output, stderr=subprocess.STDOUT, start_new_session=True,
            )  # fmt: skip
        self.submitted.append(process)
        return Submission(process, said)

    def jobs(self, state: str = "all") -> list[dict[str, str]]:
        """Jobs in a state, oldest first: their number, state, partition, CPUs and what they are."""
        lines = outcome(
            "squeue", "--noheader", "--states", state, "--sort", "i", "--format", "%i|%T|%P|%C|%k"
        ).splitlines()
        return [dict(zip(("id", "state", "partition", "cpus", "what"), line.split("|"), strict=True)) for line in lines]

    def running(self, rule: str) -> str | None:
        """The number of the job that runs a rule."""
        return next((job["id"] for job in self.jobs("RUNNING") if f"rule_{rule}" in job["what"]), None)

    def ask(self, *command: str) -> str:
        """What one of Slurm's commands prints."""
        return outcome(*command)

    def seconds_of(self, job: str) -> int:
        """How long a job has run for."""
        minutes, seconds = outcome("squeue", "--noheader", "--jobs", job, "--format", "%M").strip().split(":")[-2:]
        return 60 * int(minutes) + int(seconds)

    def state_of(self, job: str) -> str:
        return next(one["state"] for one in self.jobs() if one["id"] == job)


@pytest.fixture
def slurm(cluster: Slurm) -> Iterator[Slurm]:
    """The cluster; nothing that a test submitted is left when it ends."""
    yield cluster
    for process in cluster.submitted:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
    cluster.submitted.clear()
    outcome("scancel", "--user", "root")


@pytest.fixture(scope="session")
def cluster() -> Iterator[Slurm]:
    """The cluster, with its daemons running; without the packages or rights, tests are skipped, but fail in CI."""
    missing = [name for name in NEEDED if shutil.which(name) is None]
    reason = f"no Slurm: {', '.join(missing)} not found" if missing else None
    if reason is None and os.geteuid() != 0:
        reason = "only root can start Slurm's daemons"
    if reason is None and CONF.exists() and OURS not in CONF.read_text(encoding="utf-8"):
        reason = f"this machine has a Slurm of its own ({CONF}), which is left alone"
    if reason is not None:
        (pytest.fail if os.environ.get("CI") else pytest.skip)(reason)
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as name:
        folder, node = Path(name), socket.gethostname().partition(".")[0]
        folder.chmod(0o755)
        for part in ("state", "spool"):
            (folder / part).mkdir()
        CONF.parent.mkdir(parents=True, exist_ok=True)
        settings = SETTINGS.format(
            ours=OURS, host=node, folder=folder, ports=(free_port(), free_port()), patience=round(limit(15))
        )
        CONF.write_text(settings, encoding="utf-8")  # not elsewhere: jobs do not inherit SLURM_CONF
        started = []
        try:
            if subprocess.run(["munge", "-n"], capture_output=True, check=False).returncode:
                Path("/run/munge").mkdir(exist_ok=True)
                shutil.chown("/run/munge", "munge")
                started.append(subprocess.Popen(["runuser", "-u", "munge", "--", "munged", "--foreground"]))
                until(lambda: subprocess.run(["munge", "-n"], capture_output=True, check=False).returncode == 0, folder)
            started.append(subprocess.Popen(["slurmctld", "-D"], stderr=subprocess.DEVNULL))
            started.append(subprocess.Popen(["slurmd", "-D"], stderr=subprocess.DEVNULL))
            until(lambda: "idle" in sinfo(), folder)
            yield Slurm(node)
        finally:
            for daemon in started[::-1]:
                daemon.terminate()
                daemon.wait(timeout=limit(60))
            CONF.unlink()


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]


def sinfo() -> str:
    return subprocess.run(["sinfo", "--noheader"], capture_output=True, text=True, check=False).stdout


def until(condition: Callable[[], bool], folder: Path) -> None:
    """Wait for the cluster to come up; what its daemons said if it does not."""
    try:
        wait_for(condition, seconds=60, every=0.2)
    except AssertionError:
        logs = {log.name: log.read_text(encoding="utf-8")[-2000:] for log in folder.glob("*.log")}
        pytest.fail(f"the cluster does not come up: {logs}")
