"""Seconds of planning a large experiment, beside Snakemake's own for as many jobs of rules that do nothing, in the same
run.

    .venv/bin/python benchmarks/plan.py                  # 100 cases, 3 methods, leave-one-out; about a minute
    .venv/bin/python benchmarks/plan.py --profile        # and where the time goes (cProfile, which slows it down)

The experiment is a sheet of made-up small files; no job is run. The peer is a Snakefile with one rule for each of ours
and a job for each of our jobs, with as many inputs, outputs and connections, but no parameters, resources or patterns
to speak of; what a job depends on comes from a dictionary. Both are dry runs, `snakemake --dry-run` with all that it
says of each job, processes of their own that take turns, and the median of the repeats counts. Beside the time on the
clock stands the processor's, as other work on the machine lengthens the first.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter, defaultdict
from importlib import metadata
from pathlib import Path

ROOT = Path(__file__).parent.parent
HEADER = "case\tsplit\tclinical\tmicro\n"
EXPERIMENT = """
experiment: plan
cases: {sheet: sheet.tsv, data_root: data}
protocols: [leave_one_out]
"""
PEER = """
import json
INPUTS = json.load(open("inputs.json"))
OUTPUTS = json.load(open("outputs.json"))
rule all:
    default_target: True
    input: INPUTS["all"]["0"]
for name, number in OUTPUTS.items():
    rule:
        name: name
        input: lambda wildcards, name=name: INPUTS[name][wildcards.job]
        output: [f"out/{name}/{{job}}.{n}" for n in range(number)]
        wildcard_constraints: job=r"\\d+"
        shell: "touch {output}"
"""


def make_experiment(folder: Path, cases: int) -> list[str]:
    """Write the sheet and its files into a folder; what Snakemake is told of them."""
    rows = [HEADER]
    for number in range(cases):
        name = f"case{number}"
        (folder / "data" / name).mkdir(parents=True)
        for modality in ("clinical", "micro"):
            (folder / "data" / name / f"{modality}.nii.gz").write_bytes(b"made up")
        rows.append(f"{name}\ttrain\t{name}/clinical.nii.gz\t{name}/micro.nii.gz\n")
    (folder / "sheet.tsv").write_text("".join(rows), encoding="utf-8")
    (folder / "plan.yaml").write_text(EXPERIMENT, encoding="utf-8")
    shutil.copy(ROOT / "config.yaml", folder)
    return [
        "--snakefile",
        str(ROOT / "Snakefile"),
        "--directory",
        str(folder),
        "--configfile",
        str(folder / "plan.yaml"),
    ]


def make_peer(folder: Path, plan: str) -> list[str]:
    """Write a Snakefile of trivial rules with the jobs of a plan (the text of a dry run); what Snakemake is told of
    it.
    """
    jobs = []
    for block in re.split(r"(?m)^(?=(?:local)?rule \w+:$)", plan)[1:]:
        facts = dict(re.findall(r"(?m)^    (input|output): (.*)$", block))
        inputs, outputs = (facts.get(kind, "").split(", ") if kind in facts else [] for kind in ("input", "output"))
        jobs.append((re.match(r"(?:local)?rule (\w+)", block)[1], inputs, outputs))
    made: dict[str, str] = {}
    numbers: Counter[str] = Counter()
    for rule, _, outputs in jobs:
        for n, output in enumerate(outputs):
            made[output] = f"out/{rule}/{numbers[rule]}.{n}"
        numbers[rule] += 1
    inputs_of: dict[str, dict[str, list[str]]] = defaultdict(dict)
    (folder / "given").mkdir(parents=True)
    for rule, inputs, _ in jobs:
        found = []
        for path in inputs:
            if path not in made:  # a file of the sheet
                made[path] = f"given/{len(made)}"
                (folder / made[path]).touch()
            found.append(made[path])
        inputs_of[rule][str(len(inputs_of[rule]))] = found
    widest = {rule: max(len(outputs) for r, _, outputs in jobs if r == rule) for rule in inputs_of if rule != "all"}
    (folder / "inputs.json").write_text(json.dumps(inputs_of))
    (folder / "outputs.json").write_text(json.dumps(widest))
    (folder / "Snakefile").write_text(PEER)
    return ["--snakefile", str(folder / "Snakefile"), "--directory", str(folder)]


def plan(arguments: list[str]) -> tuple[float, float, str]:
    """Seconds of a dry run on the clock and of the processor, and what it said."""
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
    before, started = os.times(), time.perf_counter()
    done = subprocess.run(
        [sys.executable, "-m", "snakemake", "--dry-run", *arguments],
        env=environment, cwd=ROOT, capture_output=True, text=True,
    )  # fmt: skip
    seconds, after = time.perf_counter() - started, os.times()
    processor = after.children_user + after.children_system - before.children_user - before.children_system
    if done.returncode:
        raise SystemExit(f"{done.stdout[-2000:]}{done.stderr[-2000:]}")
    return seconds, processor, done.stdout + done.stderr


def jobs_of(text: str) -> int:
    return int(re.search(r"(?m)^total +(\d+)", text)[1])


def machine() -> str:
    """Cores and versions, in one line."""
    return f"{os.cpu_count()} cores, Python {platform.python_version()}, Snakemake {metadata.version('snakemake')}"


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", type=int, default=100)
    parser.add_argument("--repeats", type=int, default=3, help="measurements of each, of which the median counts")
    parser.add_argument("--profile", action="store_true", help="show where the time goes")
    namespace = parser.parse_args()
    print(machine())
    with tempfile.TemporaryDirectory() as name:
        ours, theirs = Path(name) / "ours", Path(name) / "peer"
        arguments = make_experiment(ours, namespace.cases)
        *_, text = plan(arguments)
        peer = make_peer(theirs, text)
        found: dict[str, list[tuple[float, float]]] = {"microsr": [], "peer": []}
        for _ in range(namespace.repeats):
            for which, told in (("microsr", arguments), ("peer", peer)):
                *seconds, said = plan(told)
                found[which].append(tuple(seconds))
                if jobs_of(said) != jobs_of(text):
                    raise SystemExit(f"{which} plans {jobs_of(said)} jobs, not {jobs_of(text)}")
        inputs = sum(
            len(i) for jobs in json.loads((theirs / "inputs.json").read_text()).values() for i in jobs.values()
        )
        print(f"{jobs_of(text)} jobs with {inputs} inputs; seconds on the clock, and of the processor:")
        medians = {which: [statistics.median(one) for one in zip(*rows, strict=True)] for which, rows in found.items()}
        for which, (clock, processor) in medians.items():
            print(f"{which:8} {clock:6.1f} {processor:6.1f}")
        print("ratio    {:6.2f} {:6.2f}".format(*(a / b for a, b in zip(*medians.values(), strict=True))))
        if namespace.profile:
            file = str(Path(name) / "profile")
            command = [sys.executable, "-m", "cProfile", "-o", file, "-m", "snakemake", "--dry-run"]
            subprocess.run([*command, *arguments], cwd=ROOT, check=True, stdout=subprocess.DEVNULL)
            subprocess.run(
                [sys.executable, "-m", "pstats", file],
                input="sort cumtime\nstats 60\nsort tottime\nstats 40\n",
                text=True,
            )


if __name__ == "__main__":
    main()
