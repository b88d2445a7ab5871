"""Every step on a disk that fills up, or that cannot be written: one line that says what to do, and no half result."""

import contextlib
import os
import re
import subprocess
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from choosing import taken
from steps import contents, repeat
from test_kills import rules

pytestmark = pytest.mark.workflow
PAGE = 4096
NOBODY = 65534


def mount(folder: Path, options: str) -> bool:
    """Mount a disk in memory at `folder`, or mount it in another way; whether this user may."""
    folder.mkdir(parents=True, exist_ok=True)
    command = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", folder]
    return subprocess.run(command, capture_output=True, check=False).returncode == 0


@contextlib.contextmanager
def mounted(folder: Path, options: str) -> Iterator[bool]:
    """`mount`, until the end of the context."""
    done = mount(folder, options)
    try:
        yield done
    finally:
        if done:
            subprocess.run(["umount", folder], check=True)


def sizes(held: Any) -> list[int]:
    """Of the files of a result, bytes."""
    return (
        [len(file) for file in held.values()] if all_files(held) else [len(held) if isinstance(held, bytes) else 1000]
    )


def all_files(held: Any) -> bool:
    return isinstance(held, dict) and all(isinstance(file, bytes) for file in held.values())


def fill_and_repeat(rule: str, steps, runner, folder: Path, seed: int) -> list[str]:
    """Run a step where there is room for a part of its results only, and again with room; what was wrong."""
    whole = steps.whole(rule)
    files = [size for held in whole.values() for size in sizes(held)]
    share = np.random.default_rng(seed).uniform(0, 0.8)
    pages = max(1, int(share * sum(-(-size // PAGE) for size in files)))
    with mounted(folder, f"size={PAGE * pages}") as is_small:
        step = steps.prepare(rule, folder)
        full = runner.run(step, folder, largest_file=None if is_small else int(share * max(files)))
        wrong = []
        if full.code != 1 or len(full.errors) != 1 or not re.search("make room|free some", full.errors[0]):
            wrong.append(f"does not say in one line that the disk is full, and what to do ({full.code}): {full.said}")
        if "Traceback" in full.said or "Logging error" in full.said:
            wrong.append(f"shows its innards: {full.said}")
        found = contents(step, folder)
        wrong += [f"{name} is there, but not whole" for name, held in found.items() if held != whole[name]]
        if found == whole:
            wrong.append("found room for all")
        if is_small:
            mount(folder, "remount,size=1g")
        return wrong + repeat(step, folder, whole, runner)


@pytest.fixture(scope="module")
def filled(request, steps, runner, tmp_path_factory):
    """What was wrong with each step on a full disk, two at a time."""
    folder = tmp_path_factory.mktemp("full")
    with ThreadPoolExecutor(2) as pool:
        yield {
            rule: pool.submit(fill_and_repeat, rule, steps, runner, folder / rule, seed)
            for seed, rule in enumerate(rules())
            if rule in taken(request, "rule")
        }


@pytest.mark.quarters("rule", rules())
@pytest.mark.parametrize("rule", rules())
def test_a_full_disk_is_told_in_one_line_and_the_step_repeated_when_there_is_room(rule, filled):
    assert filled[rule].result() == []


@pytest.mark.parametrize("how", ["mounted read-only", "of someone else"])
def test_a_folder_that_cannot_be_written_is_told_in_one_line(how, steps, runner):
    """As soon as a step starts, not when it is done."""
    with tempfile.TemporaryDirectory() as name:
        folder, disk = Path(name), Path(name) / "disk"
        folder.chmod(0o755)
        with mounted(disk, "size=10m") if how == "mounted read-only" else contextlib.nullcontext(True) as done:
            if not done:
                pytest.skip("only root may mount a disk")
            for rule in rules():
                steps.prepare(rule, disk / rule)
            if how == "mounted read-only":
                assert mount(disk, "remount,ro")
                user, said = None, "can only be read; have it mounted for writing"
            else:
                for path in (disk, *(path for path in disk.rglob("*") if path.is_dir() and not path.is_symlink())):
                    path.chmod(0o555)
                user, said = (NOBODY if os.geteuid() == 0 else None), r"no right to .*; see `ls -ld "
            try:
                for rule in rules():
                    ended = runner.run(steps.by_rule[rule], disk / rule, user=user)
                    assert ended.code == 1 and len(ended.said.splitlines()) == 1, (rule, ended.said)
                    assert re.search(said, ended.errors[0]), (rule, ended.said)
            finally:
                if how == "of someone else":
                    for path in (disk, *(path for path in disk.rglob("*") if path.is_dir() and not path.is_symlink())):
                        path.chmod(0o755)
