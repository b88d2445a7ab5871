"""How many faults the tests see: mutants of the modules whose errors no user would notice, each run with its module's
own tests.

    python tests/mutation/run.py [--modules NAME ...] [--number 20] [--seed 17] [--least 0.95]

Of each module a sample is drawn, always the same one for a seed. A mutant is written into a copy of the repository, and
the tests `test_<module>.py`, wherever they lie, run on it up to the first failure: those that call the changed function
first, the quickest of them first of all. A mutant is seen if a test fails, or takes three times the processor time of
all tests without a fault. Mutants that compute the same are listed in equivalent.yaml with the reason, and are not
drawn. Printed are the mutants that nobody saw; the exit status is 1 if less than the share `--least` was seen.

Each run is a fork of a process that has loaded the libraries, which saves most of its time.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib
import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType

import pytest
import yaml
from mutants import Mutant, mutants

ROOT = Path(__file__).parents[2]
MODULES = (
    "training.losses", "training.batches", "volume.storage", "volume.slices", "preprocessing.resampling",
    "formats.readers", "evaluation.metrics", "evaluation.texture", "physics.spectrum", "physics.nullspace",
    "evaluation.structures", "evaluation.bronchioles", "evaluation.protocols.truth", "physics.moments",
    "physics.pooling", "training.checkpoint", "networks.model_file", "core.files", "evaluation.protocols.uncertainty",
    "preprocessing.registered.truth", "preprocessing.regions.given", "preprocessing.regions.values",
    "physics.noise_power",
)  # fmt: skip
"""Numbers that look right when they are wrong, and files that must be whole."""
TESTED_WITH = {
    "physics.moments": "metrics", "physics.pooling": "metrics", "networks.model_file": "checkpoint",
    "preprocessing.registered.truth": "registered", "preprocessing.regions.given": "regions",
    "preprocessing.regions.values": "regions",
}  # fmt: skip
"""Modules whose tests are those of another one, here without its package."""
SLOWER, SPARE_S = 3, 5
"""A mutant may take this many times the processor time of the tests without a fault, and so much more."""
WAITING = 20
"""It may take this many times that by the clock, which is only against waiting for ever."""
MEMORY_BYTES = 8 << 30
"""More than what is in use at the start: a fault in a size must not take the machine's memory."""


@dataclass
class Known:
    """What the tests do without a fault."""

    seconds: dict[str, float] = field(default_factory=dict)
    """By test; those that were skipped are not there."""
    called: dict[str, list[int]] = field(default_factory=dict)
    """The module's functions (their first lines) that a test calls in its own process."""
    modules: list[str] = field(default_factory=list)
    """What was imported."""
    cpu_s: float = 0.0


class Watch:
    """Pytest plugin that finds out what is `Known`."""

    def __init__(self, module: Path) -> None:
        self.known, self._module, self._calls = Known(), str(module), set()

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_protocol(self, item: pytest.Item) -> Iterator[None]:
        self._calls = set()
        sys.setprofile(self._note)
        before = time.process_time()
        try:
            return (yield)
        finally:
            sys.setprofile(None)
            self.known.called[item.nodeid] = sorted(self._calls)
            self.known.seconds[item.nodeid] = time.process_time() - before

    def _note(self, frame: FrameType, event: str, _: object) -> None:
        if event == "call" and frame.f_code.co_filename == self._module:
            self._calls.add(frame.f_code.co_firstlineno)


class Order:
    """Pytest plugin that runs the tests which call a mutant's function first, and quick ones before slow ones."""

    def __init__(self, known: Known, mutant: Mutant) -> None:
        self._known, self._lines = known, mutant.lines

    @pytest.hookimpl(trylast=True)
    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        items.sort(key=self._place)

    def _place(self, item: pytest.Item) -> tuple[bool, float]:
        first, last = self._lines
        calls = any(first <= line <= last for line in self._known.called.get(item.nodeid, ()))
        return not calls, self._known.seconds.get(item.nodeid, 0.0)


def copied(folder: Path) -> None:
    """What git knows of the repository, in a folder that mutants may be written into."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        check=True,
        capture_output=True,
    )
    for name in listed.stdout.decode().split("\0"):
        if name and (ROOT / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, folder / name)
    if (ROOT.parent / "shared").is_dir():
        (folder.parent / "shared").symlink_to(ROOT.parent / "shared")


def found(folder: Path, name: str) -> Path:
    """The one file below a folder whose path ends in `name`."""
    files = sorted(folder.rglob(name))
    if len(files) != 1:
        raise SystemExit(f"error: {len(files)} files {name} under {folder}, not one")
    return files[0]


def in_a_fork(work: Callable[[], int], cpu_s: float, clock_s: float) -> int | None:
    """Exit status of `work` in a process of its own, whose output nobody sees; None if it took too long.

    cpu_s, clock_s: how long it may take, of a processor and by the clock.
    """
    child = os.fork()
    if child == 0:
        code = 70
        with contextlib.suppress(BaseException):
            os.setsid()
            nowhere = os.open(os.devnull, os.O_RDWR)
            for stream in (0, 1, 2):
                os.dup2(nowhere, stream)
            resource.setrlimit(resource.RLIMIT_CPU, (int(cpu_s) + 1, int(cpu_s) + 2))
            size = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[0]) * resource.getpagesize()
            resource.setrlimit(resource.RLIMIT_AS, (size + MEMORY_BYTES, size + MEMORY_BYTES))
            code = work()
        os._exit(code)
    end = time.monotonic() + clock_s
    try:
        while (result := os.waitpid(child, os.WNOHANG))[0] == 0:
            if time.monotonic() > end:
                return None
            time.sleep(0.02)
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(child, signal.SIGKILL)
        with contextlib.suppress(ChildProcessError):
            os.waitpid(child, 0)
    return None if os.WIFSIGNALED(result[1]) else os.waitstatus_to_exitcode(result[1])


def tested(folder: Path, tests: list[Path], plugin: object) -> int:
    """Pytest's exit status of the tests of the copy in `folder`."""
    os.chdir(folder)
    os.environ["PYTHONPATH"] = str(folder / "src")
    sys.path.insert(0, str(folder / "src"))
    # provoked.py reads all of the code at the start, to judge a complete run, which this is not.
    arguments = ["-x", "-q", "-p", "no:cacheprovider", "-p", "no:provoked", "--tb=no", "--rootdir", str(folder)]
    code = int(pytest.main([*arguments, *map(str, tests)], plugins=[plugin]))
    loaded = Path(sys.modules["microsr"].__file__).resolve() if "microsr" in sys.modules else None
    if loaded is not None and not loaded.is_relative_to(folder.resolve()):
        return 71  # another copy of the package was tested
    return code


def without_fault(folder: Path, module: Path, tests: list[Path]) -> Known:
    """The tests pass; what is known of them. Their compiled code is left for the mutants."""
    notes = folder / "known.json"

    def work() -> int:
        watch = Watch(module)
        before = time.process_time()
        code = tested(folder, tests, watch)
        watch.known.cpu_s = time.process_time() - before
        own = {path.stem for path in (folder / "tests").rglob("*.py")} | {"microsr", "__main__"}
        watch.known.modules = [name for name in sys.modules if name.split(".")[0] not in own]
        notes.write_text(json.dumps(vars(watch.known)), encoding="utf-8")
        return code

    if (code := in_a_fork(work, 3600, 7200)) != 0:
        names = " ".join(str(path.relative_to(folder)) for path in tests)
        raise SystemExit(f"error: the tests fail without a fault (exit status {code}): {names}")
    return Known(**json.loads(notes.read_text(encoding="utf-8")))


def load(names: list[str]) -> None:
    """Import libraries here, so that no mutant has to; what cannot be imported on its own is left to them."""
    for name in names:
        if name not in sys.modules:
            with contextlib.suppress(BaseException):
                importlib.import_module(name)


def equivalents() -> list[dict[str, str]]:
    """The entries of equivalent.yaml: module (the end of its dotted name), before, after, reason.

    Before and after are the changed lines; without after, whatever becomes of them.
    """
    return yaml.safe_load((Path(__file__).parent / "equivalent.yaml").read_text(encoding="utf-8")) or []


def sample(source: str, module: str, number: int, seed: int) -> list[Mutant]:
    """Up to `number` mutants of a module's text, none known to be equivalent, in the order of the text."""
    every = mutants(source)
    for entry in (entry for entry in equivalents() if f".{module}".endswith(f".{entry['module']}")):
        before, after = (entry.get(key, "").strip() for key in ("before", "after"))
        others = [m for m in every if m.before(source) != before or (after and m.after(source) != after)]
        if len(others) == len(every):
            print(f"{module}: equivalent.yaml lists what is no fault any longer:\n- {before}\n+ {after}", flush=True)
        every = others
    chosen = sorted(every, key=lambda mutant: mutant.order(seed, source))[:number]
    return sorted(chosen, key=lambda mutant: mutant.start)


def survivors(folder: Path, name: str, number: int, seed: int) -> tuple[list[str], int]:
    """Of a module: the mutants that no test saw, as diffs, and how many there were in all."""
    *package, last = name.split(".")
    module = found(folder / "src", "/".join([*package, f"{last}.py"]))
    own = [f"test_{TESTED_WITH[name]}.py"] if name in TESTED_WITH else [*package, f"test_{last}.py"]
    tests = [found(folder / "tests", "/".join(own))]
    source = module.read_text(encoding="utf-8")
    known = without_fault(folder, module, tests)
    load(known.modules)
    chosen, left = sample(source, name, number, seed), []
    limit = SLOWER * known.cpu_s + SPARE_S
    try:
        for compiled in module.parent.glob(f"__pycache__/{last}.*"):
            compiled.unlink()
        sys.dont_write_bytecode, os.environ["PYTHONDONTWRITEBYTECODE"] = True, "1"
        for mutant in chosen:
            module.write_text(mutant.text(source), encoding="utf-8")
            code = in_a_fork(lambda m=mutant: tested(folder, tests, Order(known, m)), limit, WAITING * limit)
            if code not in (None, 0, 1, 2, 4):  # 2 and 4: the module or a conftest.py cannot even be imported
                raise SystemExit(f"error: pytest ended with {code}\n{mutant.diff(source, name)}")
            if code == 0:
                left.append(mutant.diff(source, str(module.relative_to(folder))))
                print(left[-1], flush=True)
    finally:
        sys.dont_write_bytecode = False
        os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
        module.write_text(source, encoding="utf-8")
    return left, len(chosen)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--modules", nargs="+", choices=MODULES, default=MODULES)
    parser.add_argument("--number", type=int, default=20, help="mutants of each module")
    parser.add_argument("--seed", type=int, default=17)
    parser.add_argument("--least", type=float, default=0.95, help="share of the mutants that must be seen")
    arguments = parser.parse_args()
    unseen = total = 0
    with tempfile.TemporaryDirectory(prefix="mutation") as temporary:
        folder = Path(temporary).resolve() / "repository"
        copied(folder)
        os.environ["TMPDIR"] = str(folder.parent)  # what ended processes leave goes with it
        tempfile.tempdir = None
        for name in arguments.modules:
            begin = time.monotonic()
            left, number = survivors(folder, name, arguments.number, arguments.seed)
            print(f"{name}: {number - len(left)} of {number} seen ({time.monotonic() - begin:.0f} s)", flush=True)
            unseen, total = unseen + len(left), total + number
    share = 1 - unseen / total
    print(f"{total - unseen} of {total} seen ({100 * share:.1f} %); at least {100 * arguments.least:g} % are asked for")
    return int(share < arguments.least)


if __name__ == "__main__":
    try:
        sys.exit(main())
    except Exception:
        traceback.print_exc()
        sys.exit(2)
