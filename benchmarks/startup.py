"""Seconds of starting each command, beside those of starting Python with NumPy alone, in the same run.

    .venv/bin/python benchmarks/startup.py --output startup.csv      # about two minutes

A start is what a command does before its work: its modules are loaded, and its words are read. Each command is given a
file that does not exist, and ends when it finds that out; those that open no file at first (train, simulate, validate,
report) show their help instead. The peer, `python -c "import numpy"`, is what no command that computes can do without.
All are processes of their own that take turns, and the smallest of the repeats counts: other work on the machine only
adds. Beside the time on the clock stands the processor's, and the number of modules loaded. Compare ratios where
machines differ.
"""

from __future__ import annotations

import argparse
import os
import platform
import subprocess
import sys
import tempfile
import time
from importlib import metadata
from pathlib import Path

import pandas as pd

NAMES = "--case c --method m --training_set t --seed 1 --superresolved no.ome.zarr"
COMMANDS = {
    "--help": "--help",
    "info": "info no.ome.zarr",
    "provenance": "provenance no.ome.zarr",
    "gather": "gather no.ome.zarr --output out.ome.zarr",
    "export": "export no.ome.zarr --output out.nii",
    "volumes clinical": "volumes clinical --input no.nii --case c --output out.ome.zarr",
    "volumes micro": "volumes micro --input no.nii --case c --output out.ome.zarr",
    "patches": "patches --case c --modality micro --volume no.ome.zarr --seed 1 --output out.npy --index out.csv",
    "pairs": "pairs --case c --volume no.ome.zarr --index no.csv --seed 1 --output out.npy --table out.csv",
    "scanner": "scanner no.ome.zarr --output out.csv",
    "domain": "domain --clinical no.npy --micro no.npy --output out.csv",
    "evaluate metrics": f"evaluate metrics {NAMES} --clinical no.ome.zarr --micro no.ome.zarr --output out.csv",
    "evaluate downsampled": f"evaluate downsampled {NAMES} --micro no.ome.zarr --output out.csv",
    "evaluate collect": "evaluate collect --inputs no.csv --output out.csv",
    "evaluate summarise": "evaluate summarise --table no.csv --output out.csv",
    "figures typeset": "figures typeset --kind metrics --table no.csv --output out",
    "figures metrics": "figures metrics --table no.csv --output out",
    "simulate": "simulate --help",
    "scan": "scan no.nii --output out.nii --slice_spacing_mm 1",
    "channels": "channels no.ome.zarr --output out.ome.zarr",
    "demo": "demo --help",
    "new": "new --help",
    "run": "run --help",
    "superresolve": "superresolve no.ome.zarr --upsampler bicubic --output out.ome.zarr",
    "train": "train --help",
    "features": "features --help",
    "validate": "validate --help",
    "report": "report --help",
}
PEER = "python with NumPy"
MICROSR = """
import atexit, sys
from microsr.cli import main
atexit.register(lambda: print(len(sys.modules), file=sys.stderr))
main(sys.argv[1:])
"""


def started(code: str, words: list[str], folder: str) -> tuple[float, float, int]:
    """Seconds of a process on the clock and of the processor, and its modules, whose number is its last word."""
    before, began = os.times(), time.perf_counter()
    done = subprocess.run([sys.executable, "-c", code, *words], cwd=folder, capture_output=True, text=True)
    seconds, after = time.perf_counter() - began, os.times()
    if done.returncode not in (0, 1) or "Traceback" in done.stderr:  # 1: the file does not exist
        raise SystemExit(f"{' '.join(words)}: {done.stderr}")
    processor = after.children_user + after.children_system - before.children_user - before.children_system
    return seconds, processor, int(done.stderr.split()[-1])


def measure(commands: list[str], repeats: int) -> pd.DataFrame:
    """A row each: the peer and the commands, which take turns."""
    peer = "import sys, numpy; print(len(sys.modules), file=sys.stderr)"
    programs = {PEER: (peer, []), **{name: (MICROSR, COMMANDS[name].split()) for name in commands}}
    found: dict[str, list[tuple[float, float, int]]] = {name: [] for name in programs}
    with tempfile.TemporaryDirectory() as folder:
        for _ in range(repeats):
            for name, program in programs.items():
                found[name].append(started(*program, folder))
    best = {name: [min(one) for one in zip(*rows, strict=True)] for name, rows in found.items()}
    table = pd.DataFrame.from_dict(best, "index", columns=["seconds", "processor_seconds", "modules"])
    table["times_the_peer"] = table["processor_seconds"] / table.loc[PEER, "processor_seconds"]
    return table.rename_axis("command")


def machine() -> str:
    """Processor and versions, in one line."""
    facts = Path("/proc/cpuinfo")
    lines = facts.read_text(encoding="utf-8").splitlines() if facts.exists() else []
    names = [line.split(":")[1].strip() for line in lines if line.startswith("model name")] or [platform.machine()]
    versions = ", ".join(f"{package} {metadata.version(package)}" for package in ("numpy", "scipy", "torch"))
    return f"{names[0]}, {os.cpu_count()} cores, Python {platform.python_version()}, {versions}"


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--commands", nargs="+", choices=COMMANDS, default=list(COMMANDS), metavar="COMMAND")
    parser.add_argument("--repeats", type=int, default=3, help="starts of each, of which the quickest counts")
    parser.add_argument("--output", type=Path, help="where the table is written (.csv)")
    namespace = parser.parse_args()
    print(machine())
    table = measure(namespace.commands, namespace.repeats)
    print(table.to_string(float_format=lambda value: f"{value:.2f}"))
    if namespace.output:
        table.reset_index().assign(machine=machine()).to_csv(namespace.output, index=False)


if __name__ == "__main__":
    main()
