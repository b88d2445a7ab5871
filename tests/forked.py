"""Snakemake without its start: a process that has loaded it forks for each run, which goes on as `python -m snakemake`
would.

    python forked.py            reads one run a line from its standard input, answers each with its exit code

A run is a JSON object: `arguments`, `folder` (working folder), `environment` and `output` (the file that takes stdout
and stderr). Each run is a process of its own: what it imports, sets and changes ends with it. Nothing of microsr is
loaded before the fork, as every copy of the workflow has its own.
"""

import contextlib
import importlib
import json
import os
import runpy
import select
import signal
import subprocess
import sys
import threading
from pathlib import Path

PRELOADED = (
    "snakemake.cli", "snakemake.report.html_reporter", "snakemake.executors.dryrun", "snakemake.executors.local",
    "snakemake.executors.touch", "snakemake.linting.rules", "snakemake.linting.snakefiles",
    "snakemake_executor_plugin_slurm", "snakemake_executor_plugin_slurm_jobstep", "smart_open", "requests", "jinja2",
    "pygments.formatters.html", "docutils.core", "tqdm", "yaml", "pydantic", "numpy",
)  # fmt: skip
"""What a run loads, but for the workflow's own package."""


class Forking:
    """The process that forks; it starts when it is asked for the first time."""

    def __init__(self, environment: dict[str, str]) -> None:
        """environment: in which Snakemake is loaded; each run has one of its own."""
        self._environment = environment
        self._process: subprocess.Popen | None = None
        self._lock = threading.Lock()

    def run(
        self, arguments: list[str], folder: Path, environment: dict[str, str], output: Path, seconds: float = 3600
    ) -> int:
        """Run Snakemake to its end, with what it says in a file; its exit code, negative for a signal.

        Raises TimeoutError if it has not ended after so many seconds; it is killed then.
        """
        asked = {"arguments": arguments, "folder": str(folder), "environment": environment, "output": str(output)}
        with self._lock:
            if self._process is None:
                self._process = subprocess.Popen(
                    [sys.executable, __file__], stdin=subprocess.PIPE, stdout=subprocess.PIPE, encoding="utf-8",
                    env=self._environment, start_new_session=True,
                )  # fmt: skip
            stdin, stdout = self._process.stdin, self._process.stdout
            assert stdin is not None and stdout is not None
            try:
                stdin.write(json.dumps(asked) + "\n")
                stdin.flush()
                if not select.select([stdout], [], [], seconds)[0]:
                    raise TimeoutError(
                        f"Snakemake has not ended after {seconds:.0f} s: {output.read_text(encoding='utf-8')[-6000:]}"
                    )
                return int(stdout.readline())
            except BaseException:  # a test that is out of time: nobody else may get this run's answer
                self.end()
                raise

    def end(self) -> None:
        """End the process, and a run that goes on."""
        if self._process is not None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)
            self._process.communicate()
            self._process = None


def serve() -> dict | None:
    """Fork for each run that is asked for. Gives it to the fork; None to the first process, when no more are asked
    for.
    """
    questions, answers = os.fdopen(os.dup(0), encoding="utf-8"), os.fdopen(os.dup(1), "w", encoding="utf-8")
    nothing = os.open(os.devnull, os.O_RDWR)
    os.dup2(nothing, 0)
    while line := questions.readline():
        asked = json.loads(line)
        child = os.fork()
        if child == 0:
            for ours in (questions, answers):
                os.close(ours.fileno())
            os.close(nothing)
            return asked
        answers.write(f"{os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])}\n")
        answers.flush()
    return None


def become(asked: dict) -> None:
    """Make this process one that has just begun to run `python -m snakemake`, in its folder and environment."""
    os.chdir(asked["folder"])
    output = os.open(asked["output"], os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o666)
    os.dup2(output, 1)
    os.dup2(output, 2)
    os.close(output)
    os.environ.clear()
    os.environ.update(asked["environment"])
    sys.argv = ["snakemake", *asked["arguments"]]
    sys.path[0] = asked["folder"]
    workflow = sys.modules["snakemake.workflow"].Workflow
    assert isinstance(workflow._rundir, str), "the working folder as it was when Snakemake was loaded"
    workflow._rundir = asked["folder"]
    assert not [name for name in sys.modules if name.split(".")[0] == "microsr"], "every copy loads its own"


if __name__ == "__main__":
    for name in PRELOADED:
        importlib.import_module(name)
    run = serve()
    if run is not None:
        become(run)
        runpy.run_module("snakemake", run_name="__main__", alter_sys=True)
