"""Steps of the pipeline, each as a command in a folder of its own, run by a process that has imported microsr
already.
"""

import base64
import contextlib
import faulthandler
import json
import multiprocessing
import os
import resource
import shlex
import signal
import sys
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from comparing import TIMES
from patience import limit

PRELOADED = [
    "steps", "microsr.cli", "microsr.simulation.simulate", "microsr.preprocessing.volumes", "microsr.volume.chunks",
    "microsr.preprocessing.downsample", "microsr.preprocessing.registered.truth", "microsr.preprocessing.patches",
    "microsr.preprocessing.checks.domain", "microsr.preprocessing.checks.scanner",
    "microsr.training.train", "microsr.inference.superresolve", "microsr.inference.gather", "microsr.inference.export",
    "microsr.simulation.validation.validate", "microsr.evaluation.tissue_features", "microsr.evaluation.evaluate",
    "microsr.evaluation.protocols.distribution", "microsr.evaluation.protocols.repeatability",
    "microsr.evaluation.protocols.downsampled", "microsr.evaluation.protocols.uncertainty",
    "microsr.figures.figures", "microsr.report.report",
    "torch.utils.tensorboard", "matplotlib.backends.backend_agg", "matplotlib.backends.backend_pdf",
]  # fmt: skip
SECONDS = 300
"""Patience with a step, see `limit`."""
CHANGES = {"os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.truncate", "os.link"}
"""System calls, by their names as audit events, that change a folder; beside those that open a file to write it."""
DIFFERENT = (*TIMES, "parts", "code")
"""What two records of the same result may differ in."""


@dataclass(frozen=True)
class Step:
    """A command of the workflow, and the files and folders that it reads and makes, relative to the folder it runs
    in.
    """

    rule: str
    command: tuple[str, ...]
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]

    def prepare(self, folder: Path, *made: Path) -> None:
        """Link the inputs from the first of the folders `made` that has them."""
        folder.mkdir(parents=True, exist_ok=True)
        for name in self.inputs:
            place = folder / name
            if place.exists():
                continue
            place.parent.mkdir(parents=True, exist_ok=True)
            place.symlink_to(next(root / name for root in made if (root / name).exists()))

    def making(self, rule: str, output: str, *more: str) -> "Step":
        """The same command for another output, with a record beside it."""
        command = [*self.command, *more]
        command[command.index("--output") + 1] = output
        return Step(
            rule,
            tuple(command),
            self.inputs,
            (output, f"{output.removesuffix('.ome.zarr').removesuffix('.pt')}.run.json"),
        )


def finished_steps(clone: Path) -> dict[str, Step]:
    """One command of each rule that has run in a clone of the workflow, from Snakemake's own records."""
    folder = clone / ".snakemake/metadata"
    outputs: dict[str, list[str]] = {}
    records: dict[str, dict[str, Any]] = {}
    for file in sorted(path for path in folder.rglob("*") if path.is_file()):
        name = "".join(part.removeprefix("@") for part in file.relative_to(folder).parts)
        record = json.loads(file.read_text(encoding="utf-8"))
        outputs.setdefault(record["shellcmd"], []).append(base64.urlsafe_b64decode(name).decode())
        if record["rule"] not in records or " --model " in record["shellcmd"]:  # a trained method before interpolation
            records[record["rule"]] = record
    found = {}
    for rule, record in records.items():
        program, *command = shlex.split(record["shellcmd"])
        assert program == "microsr", record["shellcmd"]
        found[rule] = Step(rule, tuple(command), tuple(record["input"]), tuple(sorted(outputs[record["shellcmd"]])))
    return found


def content(path: Path) -> Any:
    """What a file or folder holds, or None; of a record, what does not differ from run to run."""
    if path.is_dir():
        files = [file for file in path.rglob("*") if file.is_file() and file.name != ".snakemake_timestamp"]
        return {file.relative_to(path).as_posix(): file.read_bytes() for file in files}
    if not path.exists():
        return None
    if path.name.endswith("run.json"):
        with contextlib.suppress(ValueError):
            return {
                key: value
                for key, value in json.loads(path.read_text(encoding="utf-8")).items()
                if key not in DIFFERENT
            }
    return path.read_bytes()


def contents(step: Step, folder: Path) -> dict[str, Any]:
    """`content` of each output that is there."""
    found = {name: content(folder / name) for name in step.outputs}
    return {name: held for name, held in found.items() if held is not None}


def others(step: Step, folder: Path) -> list[str]:
    """Files in a step's folder that are neither inputs, outputs nor logs, but for states of a training."""
    known = [*step.inputs, *step.outputs]
    files = [path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_symlink() or path.is_file()]
    return [
        file
        for file in files
        if not any(file == name or file.startswith(f"{name}/") for name in known)
        and "/logs/" not in file
        and not ("/.state/" in file and not Path(file).name.startswith(".") and Path(file).name != "lock")
    ]


@dataclass(frozen=True)
class Ended:
    """How a step's process ended: exit code (negative: signal), what it said, seconds, changes of files that it
    made.
    """

    code: int
    said: str
    seconds: float
    changes: int

    @property
    def errors(self) -> list[str]:
        """Lines of error that it ended with."""
        return [line for line in self.said.splitlines() if ": error: " in line]


class Runner:
    """Starts steps in forked processes of one that has imported all of microsr."""

    def __init__(self, scratch: Path) -> None:
        self._context = multiprocessing.get_context("forkserver")
        self._context.set_forkserver_preload(PRELOADED)
        self._scratch, self._number = scratch, 0

    @contextlib.contextmanager
    def started(self, step: Step, folder: Path, **how: Any) -> Iterator[Callable[..., Ended]]:
        """A step that is running; yields what waits for its end. how: see `_work`."""
        self._number += 1
        note = self._scratch / f"{os.getpid()}-{step.rule}-{self._number}"
        process = self._context.Process(target=_work, args=(list(step.command), folder, note), kwargs=how)
        process.start()

        def end(after: float | None = None) -> Ended:
            """How it ended; after: seconds of its own time after which it is killed."""
            if after is not None:
                _wait_for_seconds(process, note, after)
                process.kill()
            process.join(limit(SECONDS))
            assert process.exitcode is not None, f"{step.rule} hangs"
            facts = (
                json.loads(note.with_suffix(".json").read_text(encoding="utf-8"))
                if note.with_suffix(".json").exists()
                else {}
            )
            said = note.read_text(encoding="utf-8") if note.exists() else ""
            return Ended(process.exitcode, said, facts.get("seconds", 0.0), facts.get("changes", 0))

        try:
            yield end
        finally:
            process.kill()
            process.join()

    def run(self, step: Step, folder: Path, **how: Any) -> Ended:
        """Run a step to its end; how: see `_work`, and `after`, seconds after which it is killed."""
        after = how.pop("after", None)
        with self.started(step, folder, **how) as end:
            return end(after)


def _wait_for_seconds(process: Any, note: Path, seconds: float) -> None:
    """Wait until a process has used the processor for so long, or has ended: so a busy machine kills at the same
    places.
    """
    ticks = os.sysconf("SC_CLK_TCK")
    began = None
    while process.is_alive():
        with contextlib.suppress(OSError, IndexError):
            fields = Path(f"/proc/{process.pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
            used = (int(fields[11]) + int(fields[12])) / ticks
            began = used if began is None else began
            if used - began >= seconds:
                return
        process.join(0.005)


def _work(
    command: list[str],
    folder: Path,
    note: Path,
    kill_at: int | None = None,
    largest_file: int | None = None,
    user: int | None = None,
) -> None:
    """Run a command of microsr in a folder, with what it says in the file `note`.

    kill_at: number of the change of a file at which the process is killed: right after a file was opened to be written,
    or before the others. largest_file: bytes. user: id of the user that it is run by.
    """
    os.setpgid(0, 0)
    os.chdir(folder)
    descriptor = os.open(note, os.O_WRONLY | os.O_CREAT, 0o666)
    os.dup2(descriptor, 1)
    os.dup2(descriptor, 2)
    faulthandler.enable()  # so that a fault of a library says in which threads it was
    if largest_file is not None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (largest_file, largest_file))
    if user is not None:
        os.setgid(user)
        os.setuid(user)
    counted = _Changes(kill_at)
    sys.addaudithook(counted)
    from microsr import cli

    code = 0
    try:
        cli.main(command)
    except SystemExit as ended:
        code = ended.code if isinstance(ended.code, int) else int(ended.code is not None)
    except BaseException:
        traceback.print_exc()
        code = 99
    counted.off = True
    sys.stderr.flush()
    used = sum(os.times()[:2])
    if largest_file is None and user is None:
        note.with_suffix(".json").write_text(json.dumps({"seconds": used, "changes": counted.count}))
    os._exit(code)


class _Changes:
    """An audit hook that counts what changes files, and kills the process at one of them."""

    def __init__(self, kill_at: int | None) -> None:
        self.count, self.off, self._kill_at = 0, False, kill_at

    def __call__(self, event: str, arguments: tuple) -> None:
        if self.off or not (event in CHANGES or (event == "open" and self._writes(arguments))):
            return
        self.count += 1
        if self.count == self._kill_at:
            self.off = True
            if event == "open":
                with contextlib.suppress(OSError, TypeError):
                    os.open(arguments[0], arguments[2], 0o666)
            os.kill(os.getpid(), signal.SIGKILL)

    @staticmethod
    def _writes(arguments: tuple) -> bool:
        path, _, flags = arguments
        return isinstance(path, str | bytes | os.PathLike) and bool(
            (flags or 0) & (os.O_WRONLY | os.O_RDWR | os.O_CREAT)
        )


def repeat(step: Step, folder: Path, whole: dict[str, Any], runner: Runner) -> list[str]:
    """Run a step again after something went wrong with it; what is wrong then. whole: what it makes."""
    again = runner.run(step, folder)
    if again.code != 0:
        return [f"fails when it is repeated: {again.said}"]
    found = contents(step, folder)
    wrong = [f"{name} differs when it is repeated" for name in step.outputs if found.get(name) != whole[name]]
    return wrong + [f"{name} is left over" for name in others(step, folder)]
