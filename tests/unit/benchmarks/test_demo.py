"""benchmarks/demo.py: where the time of an experiment goes, from the records of its steps."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from microsr.core.provenance import run_file, write_run

ROOT = Path(__file__).parent.parent.parent.parent


def record(folder, name, step, cpu, started="2026-01-01T00:00:00Z", inputs=("a",)):
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    content = {"step": step, "started": started, "inputs": dict.fromkeys(inputs, "sha")} | cpu
    path.write_text(json.dumps(content), encoding="utf-8")


def printed(*arguments):
    command = [sys.executable, str(ROOT / "benchmarks/demo.py"), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True)


def test_each_job_counts_once_and_the_largest_step_comes_first(tmp_path):
    record(tmp_path, "models/proposed/pooled/run.json", "train", {"cpu_seconds": 400.2})
    record(tmp_path, "models/cyclegan/pooled/run.json", "train", {"cpu_seconds": 300.0}, inputs=("b",))
    for name in ("maps.run.json", "table.run.json"):  # two results of one job
        record(tmp_path, name, "evaluate", {"cpu_seconds": 14.0})
    record(tmp_path, "other.run.json", "evaluate", {"cpu_seconds": 15.0}, started="2026-01-01T00:00:01Z")
    record(tmp_path, "figures/a.run.json", "figures.losses", {"cpu_seconds": 2.0})
    record(tmp_path, "figures/b.run.json", "figures", {"cpu_seconds": 3.0})
    record(tmp_path, "old.run.json", "volumes", {})
    done = printed("--results", tmp_path)
    assert done.stdout.splitlines() == [
        "| step | jobs | CPU s |", "|---|---|---|", "| train | 2 | 700 |", "| evaluate | 2 | 29 |",
        "| figures | 2 | 5 |", "| **all** | 6 | **734** |",
    ]  # fmt: skip


def test_what_it_reads_is_what_a_step_writes(tmp_path):
    (tmp_path / "input").touch()
    write_run(tmp_path / "table.csv", "evaluate.collect", {}, [tmp_path / "input"], 0.0)
    spent = json.loads(run_file(tmp_path / "table.csv").read_text(encoding="utf-8"))["cpu_seconds"]
    assert spent > 0
    assert f"| evaluate.collect | 1 | {spent:.0f} |" in printed("--results", tmp_path).stdout


@pytest.mark.parametrize("words", [["--what"], ["--isa", "sse"]])
def test_what_it_does_not_know_is_refused(words):
    assert printed(*words).returncode == 2
