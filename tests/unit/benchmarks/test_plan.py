"""The benchmark of planning compares with a peer that has the same jobs, inputs and connections."""

import importlib.util
import json
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent.parent.parent
PLAN = """
rule patches:
    input: data/a.nii
    output: results/a.npy, results/a.csv
    jobid: 2
    reason: Missing output files: results/a.npy

rule patches:
    input: data/b.nii
    output: results/b.npy, results/b.csv
    jobid: 3

rule draw:
    output: results/network.png
    jobid: 4

rule train:
    input: results/a.npy, results/b.npy, data/a.nii
    output: results/model.pt
    jobid: 1

localrule all:
    input: results/model.pt, results/network.png, results/b.csv
    jobid: 0
"""


@pytest.fixture
def benchmark():
    spec = importlib.util.spec_from_file_location("plan", ROOT / "benchmarks/plan.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_peer_has_the_jobs_of_the_plan(benchmark, tmp_path):
    benchmark.make_peer(tmp_path, PLAN)
    inputs, outputs = (
        json.loads((tmp_path / f"{name}.json").read_text(encoding="utf-8")) for name in ("inputs", "outputs")
    )
    assert outputs == {"patches": 2, "draw": 1, "train": 1}
    first, second = inputs["patches"]["0"], inputs["patches"]["1"]
    assert len(first) == len(second) == 1 and first != second and all((tmp_path / p).is_file() for p in first + second)
    assert inputs["draw"] == {"0": []}
    assert inputs["train"] == {"0": ["out/patches/0.0", "out/patches/1.0", *first]}
    assert inputs["all"] == {"0": ["out/train/0.0", "out/draw/0.0", "out/patches/1.1"]}


def test_the_experiment_is_a_sheet_with_its_files(benchmark, tmp_path):
    arguments = benchmark.make_experiment(tmp_path, 2)
    assert str(tmp_path / "plan.yaml") in arguments
    header, *rows = (tmp_path / "sheet.tsv").read_text(encoding="utf-8").splitlines()
    assert header.split("\t") == ["case", "split", "clinical", "micro"] and len(rows) == 2
    for row in rows:
        assert all((tmp_path / "data" / path).is_file() for path in row.split("\t")[2:])
