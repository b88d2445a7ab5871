"""CPU seconds of an experiment by step, beside the number of its jobs: where the time of the demo goes.

    .venv/bin/python benchmarks/demo.py                              # of what lies in results/demo
    .venv/bin/python benchmarks/demo.py --run figures                # makes it first, and counts Snakemake itself too
    .venv/bin/python benchmarks/demo.py --run figures --isa avx2     # with the processor's instructions limited to AVX2
    .venv/bin/python benchmarks/demo.py --results results/long       # of another experiment

Each step writes into its record (run.json) what its process took of the processor, from its start to the end of its
work (`cpu_seconds`). A training that was stopped and went on counts with its last attempt only, a rule without a record
not at all. A job with several results has several records: it counts once. With --run, what Snakemake and all steps
took together is measured by the kernel; the difference is Snakemake's own and what processes take to end.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import time
from collections import defaultdict
from pathlib import Path

ROOT = Path(__file__).parent.parent
AVX2 = {"ONEDNN_MAX_CPU_ISA": "AVX2", "ATEN_CPU_CAPABILITY": "avx2", "MKL_ENABLE_INSTRUCTIONS": "AVX2"}
"""What tells PyTorch and its libraries to do as on a processor without AVX-512 and bfloat16 units."""
FLOAT32 = ["--config", "train={precision: float32}", "superresolve={precision: float32}"]


def by_step(results: Path) -> dict[str, tuple[int, float]]:
    """Of each step its jobs and their CPU seconds together, the largest first.

    results: folder of an experiment.
    """
    jobs: dict[str, set[tuple]] = defaultdict(set)
    for path in sorted(results.rglob("*run.json")):
        record = json.loads(path.read_text(encoding="utf-8"))
        if "cpu_seconds" in record:
            step = record["step"]
            step = "figures" if step.startswith("figures.") else step  # a score of small ones
            jobs[step].add((record["started"], str(record["inputs"]), record["cpu_seconds"]))
    sums = {step: (len(found), sum(seconds for *_, seconds in found)) for step, found in jobs.items()}
    return dict(sorted(sums.items(), key=lambda item: -item[1][1]))


def table(steps: dict[str, tuple[int, float]], total: float | None, clock: float | None) -> str:
    """The steps as a Markdown table. total: CPU seconds of everything, as measured; clock: seconds that passed."""
    rows = [(step, str(jobs), f"{seconds:.0f}") for step, (jobs, seconds) in steps.items()]
    known = sum(seconds for _, seconds in steps.values())
    if total is not None:
        rows.append(("Snakemake, and the ends of processes", "", f"{total - known:.0f}"))
    rows.append(
        ("**all**", str(sum(jobs for jobs, _ in steps.values())), f"**{total if total is not None else known:.0f}**")
    )
    lines = ["| step | jobs | CPU s |", "|---|---|---|", *(f"| {' | '.join(row)} |" for row in rows)]
    return "\n".join(lines) + ("" if clock is None else f"\n\n{clock / 60:.1f} minutes by the clock")


def run(target: str, isa: str, more: list[str]) -> tuple[float, float]:
    """Make a target of the workflow; CPU seconds of all its processes, and seconds that passed."""
    command = [sys.executable, "-m", "snakemake", "--cores", "all", target, *more]
    environment = os.environ | {"PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}
    if isa == "avx2":
        environment |= AVX2
        command += FLOAT32
    began = time.monotonic()
    subprocess.run(command, cwd=ROOT, env=environment, check=True)
    spent = resource.getrusage(resource.RUSAGE_CHILDREN)
    return spent.ru_utime + spent.ru_stime, time.monotonic() - began


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--results", type=Path, default=ROOT / "results/demo", help="folder of an experiment")
    parser.add_argument(
        "--run", metavar="TARGET", help="make this first, as `figures`; other arguments go to Snakemake"
    )
    parser.add_argument(
        "--isa", choices=["all", "avx2"], default="all", help="instructions that may be used, with --run"
    )
    ns, more = parser.parse_known_args()
    if more and ns.run is None:
        parser.error(f"unknown arguments: {' '.join(more)}")
    total, clock = run(ns.run, ns.isa, more) if ns.run else (None, None)
    print(table(by_step(ns.results), total, clock))


if __name__ == "__main__":
    main()
