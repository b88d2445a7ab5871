"""Tries spoilt inputs, each batch in a process of its own, so that a crash or a hang is seen and belongs to one input.

python tests/fuzz/fuzz_worker.py nifti 0 300        tries inputs 0 to 299 of a kind; a line of JSON each that went wrong
python tests/fuzz/fuzz_worker.py nifti 17 FOLDER    writes input 17 into a folder, to be looked at
"""

import faulthandler
import json
import os
import resource
import select
import shutil
import signal
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

sys.path.append(str(Path(__file__).parents[1]))

import fuzz_mutations
import fuzz_oracles
from patience import limit

ROOM = 3 << 30
"""Bytes of memory that an input may take, beyond what the program takes itself."""
PATIENCE = limit(60)
"""Seconds without an answer after which an input is said to hang."""
AT_ONCE = 2
"""Processes."""


def write(files: dict[str, bytes], folder: Path) -> None:
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)


def attempt(kind: str, number: int, seeds: Path) -> tuple[str, str]:
    """Outcome of an input, and what went wrong ("" if nothing did)."""
    target, files, sound = fuzz_mutations.mutated(kind, number, seeds)
    if files == sound:
        return "not spoilt", ""
    with tempfile.TemporaryDirectory(prefix="fuzz-") as name:
        folder, before = Path(name), Path(name) / "sound"
        (folder / "spoilt").mkdir()
        write(sound, before)
        write(files, folder / "spoilt")
        try:
            return fuzz_oracles.judge(kind, folder / "spoilt" / target, before / target), ""
        except fuzz_oracles.WrongError as error:
            return "wrong", str(error)
        except BaseException as error:  # all that is no UserError
            frames = [f"{Path(f.filename).name}:{f.lineno}" for f in traceback.extract_tb(error.__traceback__)]
            return "error", f"{type(error).__name__}: {str(error)[:300]} ({' '.join(frames[-6:])})"


def child(kind: str, numbers: list[int], seeds: Path, pipe: int) -> None:
    """Try inputs, and write before and after each what is done."""
    if hasattr(signal, "SIGINT"):
        signal.signal(signal.SIGINT, signal.SIG_IGN)
    silent = os.open(os.devnull, os.O_WRONLY)
    os.dup2(silent, 1), os.dup2(silent, 2)
    now = int(Path("/proc/self/statm").read_text(encoding="utf-8").split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (now + ROOM, now + ROOM))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    for number in numbers:
        os.write(pipe, f"{json.dumps({'started': number})}\n".encode())
        outcome, why = attempt(kind, number, seeds)
        os.write(pipe, f"{json.dumps({'number': number, 'outcome': outcome, 'why': why[:3000]})}\n".encode())


class Batch:
    """Inputs that one process after the other tries."""

    def __init__(self, kind: str, numbers: list[int], seeds: Path) -> None:
        self._kind, self._left, self._seeds = kind, numbers, seeds
        self._start()

    def _start(self) -> None:
        self.pipe, end = os.pipe()
        self._text, self._current, self._heard = b"", None, time.monotonic()
        self._process = os.fork()
        if not self._process:
            status = 1
            try:
                os.close(self.pipe)
                child(self._kind, self._left, self._seeds, end)
                status = 0
            finally:
                os._exit(status)
        os.close(end)

    def read(self) -> Iterator[dict]:
        """What there is to be heard; the inputs after one that ends the process are tried by another."""
        content = os.read(self.pipe, 65536)
        if not content:
            yield from self._ended("ended")
            return
        self._heard = time.monotonic()
        *lines, self._text = (self._text + content).split(b"\n")
        for line in map(json.loads, lines):
            if "started" in line:
                self._current = line["started"]
            else:
                self._left.remove(line["number"])
                self._current = None
                yield line

    def check(self) -> Iterator[dict]:
        """End a process that has hung for long."""
        if not self.done and time.monotonic() - self._heard > PATIENCE:
            os.kill(self._process, signal.SIGKILL)
            yield from self._ended("hang")

    def _ended(self, how: str) -> Iterator[dict]:
        _, status = os.waitpid(self._process, 0)
        os.close(self.pipe)
        self.pipe = -1
        if self._current is not None:
            self._left.remove(self._current)
            yield {"number": self._current, "outcome": "hang" if how == "hang" else "crash", "why": f"status {status}"}
            if self._left:
                self._start()
        elif self._left:
            yield {"number": self._left[0], "outcome": "crash", "why": f"between inputs, status {status}"}

    @property
    def done(self) -> bool:
        return self.pipe < 0


def run(kind: str, first: int, end: int, seeds: Path) -> tuple[Counter, list[dict]]:
    """Number of inputs by outcome, and what went wrong."""
    fuzz_mutations.mutated(kind, first, seeds)  # what is imported and written once
    batches = [Batch(kind, list(range(first + k, end, AT_ONCE)), seeds) for k in range(AT_ONCE)]
    outcomes, wrong = Counter(), []
    while running := [batch for batch in batches if not batch.done]:
        ready, _, _ = select.select([batch.pipe for batch in running], [], [], 1.0)
        found = [line for batch in running if batch.pipe in ready for line in batch.read()]
        found += [line for batch in running for line in batch.check()]
        for line in found:
            outcomes[line["outcome"]] += 1
            if line["outcome"] in ("wrong", "error", "crash", "hang"):
                wrong.append({"kind": kind, **line})
    return outcomes, wrong


def main(kind: str, first: str = "", end: str = "") -> None:
    faulthandler.enable()
    import microsr.info  # noqa: F401  # before any process is forked: each would import it again
    import microsr.training.train  # noqa: F401

    with tempfile.TemporaryDirectory(prefix="fuzz-seeds-") as seeds:
        if kind == "serve":
            for line in sys.stdin:
                one, begin, stop = line.split()
                (Path(seeds) / one).mkdir()
                outcomes, wrong = run(one, int(begin), int(stop), Path(seeds) / one)
                print(json.dumps({"outcomes": outcomes, "wrong": wrong}), flush=True)
        elif end.isdecimal():
            started = time.monotonic()
            outcomes, wrong = run(kind, int(first), int(end), Path(seeds))
            print(*map(json.dumps, wrong), sep="\n")
            print(kind, dict(outcomes), f"{time.monotonic() - started:.1f} s")
        else:
            target, files, _ = fuzz_mutations.mutated(kind, int(first), Path(seeds))
            shutil.rmtree(end, ignore_errors=True)
            write(files, Path(end))
            print(Path(end) / target)


if __name__ == "__main__":
    main(*sys.argv[1:])
