"""The script for a GPU goes through all its parts on a CPU, in small, and tells what fails."""

import importlib.util
import sys
from pathlib import Path

import pandas as pd
import pytest
import torch

ROOT = Path(__file__).parent.parent.parent.parent


@pytest.fixture
def benchmark():
    spec = importlib.util.spec_from_file_location("gpu", ROOT / "benchmarks/gpu.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def run(benchmark, monkeypatch, output):
    flags = ["--device", "cpu", "--quick", "--without_compile", "--output", str(output)]
    monkeypatch.setattr(sys, "argv", ["gpu.py", *flags])
    return benchmark.main(), pd.read_csv(output.with_suffix(".csv"))


def test_all_parts_run_on_a_cpu_in_small(benchmark, monkeypatch, small_resnet, tmp_path):
    status, table = run(benchmark, monkeypatch, tmp_path / "gpu")
    assert status == 0, table.to_string()
    assert set(table["part"]) == {"resume", "two processes", "step", "superresolve"}
    assert table.set_index("part")["apart"]["resume"] == 0
    steps = table[table["part"] == "step"]
    assert len(steps) == 6
    assert (steps["pairs_per_second"] > 0).all()
    assert (table[table["part"] == "superresolve"]["megapixels_per_second"] > 0).all()
    text = (tmp_path / "gpu.md").read_text(encoding="utf-8")
    assert "TFLOP a step, 250000 steps a training" in text
    assert text.count("\n| ") == len(table) + 2


def test_a_part_that_fails_is_a_row_and_ends_in_1(benchmark, monkeypatch, tmp_path):
    def parts(device, quick):
        yield "resume", "compact", "float32", lambda: benchmark.agreement(*torch.tensor([[2.0], [1.0], [0.0]]))
        yield "step", "compact", "float32", lambda: {"seconds": 1.0}

    monkeypatch.setattr(benchmark, "parts", parts)
    status, table = run(benchmark, monkeypatch, tmp_path / "gpu")
    assert status == 1
    assert table["note"][0].startswith("failed: RuntimeError: the weights are apart by 1")
    assert table["seconds"][1] == 1
