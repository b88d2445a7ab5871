"""Benchmarks that nobody starts for months still start, on the smallest sizes, and their tables hold what is asked of
them.
"""

import importlib.util
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from microsr.physics.tissues import Tissue
from microsr.volume.storage import Volume, write_volume

BENCHMARKS = Path(__file__).parent.parent.parent.parent / "benchmarks"


def load(name):
    """A benchmark as a module."""
    spec = importlib.util.spec_from_file_location(name, BENCHMARKS / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def run(name, folder, *words):
    """Run a benchmark in a folder; the table that it writes."""
    command = [sys.executable, BENCHMARKS / f"{name}.py", "--repeats", "1", "--output", folder / "table.csv"]
    done = subprocess.run([*command, *words], cwd=folder, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return pd.read_csv(folder / "table.csv")


def test_the_import_of_a_scan_is_compared_with_simpleitk(tmp_path):
    """MetaImage, as its header is written by the benchmark itself and the readers refuse one that says too little."""
    volumes = load("volumes")
    volumes.SIZES = {"micro": (8, 96, 96)}
    volumes.make(tmp_path, 1, ["micro.mhd"])
    row = volumes.compare(tmp_path, "uCT, MetaImage, native", 1)
    assert row["megabytes"] == pytest.approx(8 * 96 * 96 * 2 / 1e6)
    assert (
        row["seconds"] > 0 and row["peer_seconds"] > 0 and row["times_the_peer"] == row["seconds"] / row["peer_seconds"]
    )


def test_starts_are_compared_with_numpys(tmp_path):
    table = run("startup", tmp_path, "--commands", "provenance", "info").set_index("command")
    peer = table.loc["python with NumPy"]
    assert peer["times_the_peer"] == 1
    assert table.loc["info", "modules"] > peer["modules"] > 50
    assert table.loc["info", "processor_seconds"] > table.loc["provenance", "processor_seconds"]


def test_every_command_has_its_start_measured():
    from microsr.cli import STEPS

    commands = load("startup").COMMANDS.values()
    assert {command.split()[0] for command in commands} == {"--help", *STEPS}


@pytest.mark.parametrize(
    "kind", ["cases", *(pytest.param(kind, marks=pytest.mark.nightly) for kind in ("slices", "patches", "steps"))]
)
def test_the_commands_whose_growth_is_measured_are_sound(tmp_path, kind):
    scaling = load("scaling")
    smallest, *_, largest = scaling.sizes(kind, 0)
    assert (smallest, largest) == (scaling.SMALLEST[kind], 8 * scaling.SMALLEST[kind])
    for step, command in scaling.KINDS[kind](tmp_path / "run", smallest).items():
        seconds, processor, peak = scaling.volumes.measure_command(command)
        assert seconds > 0 and processor > 0 and peak > 20, step


def test_growth_is_told_from_what_any_size_costs():
    scaling = load("scaling")
    runs = {"size": [8, 16, 32, 64], "peak_mb": [108, 116, 132, 164]}
    line = pd.DataFrame(runs | {"step": "a", "of": "slices", "processor_seconds": 2 + np.array(runs["size"]) / 8})
    square = line.assign(step="b", processor_seconds=2 + np.array(runs["size"]) ** 2 / 64)
    first, second = scaling.grow(pd.concat([line, square])).to_dict("records")
    assert (first["fixed_s"], first["ms_each"], first["exponent"]) == pytest.approx((2, 125, 1))
    assert (first["fixed_mb"], first["mb_each"]) == pytest.approx((100, 1))
    assert second["exponent"] == pytest.approx(2)


@pytest.mark.parametrize("network", ["compact", "efficient"])
def test_sixteen_draws_cost_at_most_eight_times_one_by_their_arithmetic(network):
    counted = load("draws").counted
    assert counted(network, True, 16) < 8 < counted(network, False, 16)


def test_draws_are_timed(tmp_path, capsys):
    draws = load("draws")
    draws.make_inputs(tmp_path, 16, 2)
    draws.work(tmp_path, "compact-True", 2, 2)
    found = json.loads(capsys.readouterr().out)
    assert found["seconds"] > 0 and found["memory_mb"] > 50


@pytest.mark.parametrize("surer", [False, True])
def test_coverage_of_a_tissue_is_compared_with_that_of_draws_that_look_like_it(surer, tmp_path):
    """Lines at random places, in the truth as in four draws; or in the draws half as many."""
    random = np.random.default_rng(0)

    def image(share):
        lines = (random.random((2, 1, 160)) < share) & np.ones((2, 160, 1), bool)
        return np.where(lines, -300, -800) + random.normal(0, 30, lines.shape), lines

    (truth, lines), draws = image(0.1), [image(0.05 if surer else 0.1)[0] for _ in range(4)]
    for name, values in (("truth", truth), ("labels", np.where(lines, Tissue.SEPTUM, Tissue.PARENCHYMA))):
        write_volume(tmp_path / f"volumes/a/{name}.ome.zarr", Volume(values.round().astype(np.int16), (0.1, 0.1, 1)))
    clinical = Volume(np.zeros((2, 20, 20), np.int16), (0.8, 0.8, 1))
    write_volume(tmp_path / "volumes/a/clinical.ome.zarr", clinical, np.ones(clinical.shape, bool))
    stem, facts = tmp_path / "superresolved/m/pooled", {"slices": [0, 1], "draws": 4}
    named = {"a": ("mean", sum(draws) / 4)} | {f"a_draw{k}": (f"draw{k}", draw) for k, draw in enumerate(draws)}
    for name, (holds, values) in named.items():
        volume = Volume(values.round().astype(np.int16), (0.1, 0.1, 1), attributes=facts | {"holds": holds})
        write_volume(stem / f"{name}.ome.zarr", volume)
    found = load("coverage").measure(tmp_path, "m", "pooled").set_index("tissue").loc["septum"]
    assert found["pixels"] == lines.sum()
    by_chance = found["draws that look like it"]
    assert by_chance < 0.5, "far below 3 of 5: a line in the truth is mostly in no draw"
    assert found["truth"] < 0.75 * by_chance if surer else found["truth"] == pytest.approx(by_chance, abs=0.1)
