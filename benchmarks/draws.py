"""What 16 draws of a scan cost, in times of one draw, and their memory.

By the G1 for many draws, which computes what does not hang on the noise once, and by the G1 of the other methods, in
the same run.

    python benchmarks/draws.py --output draws.csv      # about a minute a network on one core

A scan of noise and models of random weights, as neither time nor memory depends on what is in them. Each way runs in a
process of its own and takes the scan to volumes on disk, as `microsr superresolve` does with --draws; CPU seconds of
all threads count, as a machine that does other work spoils the clock's, and the time of the same command with one slice
fewer is taken off (loading, start). `arithmetic` is the same ratio counted, not timed.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from torch.utils.flop_counter import FlopCounterMode

from microsr.inference.draws import Draws
from microsr.inference.superresolve import superresolve
from microsr.inference.upsamplers import Generator
from microsr.networks.families import build_g1
from microsr.networks.model_file import save_generator
from microsr.volume.storage import Volume, write_volume


def make_inputs(folder: Path, size: int, slices: int) -> None:
    """A scan of lung-like noise, and a model of each kind."""
    hu = np.random.default_rng(0).normal(-800, 150, (slices, size, size)).astype(np.int16)
    write_volume(folder / "scan.ome.zarr", Volume(hu, (0.6, 0.6, 1.0)))
    facts = {"kind": "posterior", "window_hu": [-1000.0, 400.0], "seed": 1, "steps": 1, "provenance": {}}
    facts |= {"clinical_spacing_mm": None, "micro_spacing_mm": None}
    for network in ("compact", "efficient"):
        for sampler in (True, False):
            torch.manual_seed(0)
            own = facts | {"network": network, "sampler": sampler}
            save_generator(folder / f"{network}-{sampler}.pt", build_g1(network, 8, sampler), own)


def work(folder: Path, model: str, draws: int, slices: int) -> None:
    """Print CPU seconds and peak memory of so many slices."""
    upsampler = Generator(folder / f"{model}.pt", "cpu", "float32")
    began = time.process_time()
    output = folder / f"{model}-{draws}-{slices}.ome.zarr"
    superresolve(
        folder / "scan.ome.zarr", output, upsampler, list(range(slices)), draws=Draws(draws) if draws > 1 else None
    )
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(json.dumps({"seconds": time.process_time() - began, "memory_mb": memory}))


def measure(folder: Path, model: str, draws: int, slices: int) -> dict[str, float]:
    """`work` in a process of its own."""
    command = [sys.executable, __file__, "--work", str(folder), model, str(draws), str(slices)]
    return json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()[-1])


def counted(network: str, sampler: bool, draws: int) -> float:
    """Arithmetic of so many draws over that of one."""

    def planes(scales: tuple[int, ...]) -> list[torch.Tensor]:
        return [torch.zeros(1, 1, 64 * scale, 64 * scale) for scale in scales]

    with torch.device("meta"), torch.inference_mode():
        g1, a = build_g1(network, 8, sampler), torch.zeros(1, 1, 64, 64)
        with FlopCounterMode(display=False) as once:
            features = g1.trunk(a)
            shared = g1.share(a, features) if sampler else None
        with FlopCounterMode(display=False) as each:
            if sampler:
                g1.finish(shared, planes(g1.noise_scales))
            else:
                g1.magnify(a, features, planes(g1.noise_scales))
    first, again = once.get_total_flops(), each.get_total_flops()
    return (first + draws * again) / (first + again)


def main() -> None:
    """Measure and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--size", type=int, default=128, help="side of a slice, clinical pixels")
    parser.add_argument("--slices", type=int, default=3)
    parser.add_argument("--draws", type=int, default=16)
    parser.add_argument("--output", type=Path, help="table (.csv)")
    parser.add_argument("--work", nargs=4, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.work:
        folder, model, draws, slices = given.work
        work(Path(folder), model, int(draws), int(slices))
        return
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        make_inputs(Path(folder), given.size, given.slices)
        for network in ("compact", "efficient"):
            for sampler in (True, False):
                found = {}
                for draws in (1, 2, given.draws):
                    many, one = (measure(Path(folder), f"{network}-{sampler}", draws, n) for n in (given.slices, 1))
                    found[draws] = ((many["seconds"] - one["seconds"]) / (given.slices - 1), many["memory_mb"])
                rows.append(
                    {
                        "network": network, "g1": "for many draws" if sampler else "of other methods",
                        "seconds_one": found[1][0], "seconds_many": found[given.draws][0],
                        "ratio": found[given.draws][0] / found[1][0],
                        "arithmetic": counted(network, sampler, given.draws),
                        "memory_two_mb": found[2][1], "memory_many_mb": found[given.draws][1],
                    }
                )  # fmt: skip
    table = pd.DataFrame(rows)
    print(table.to_string(index=False, float_format="%.2f"))
    if given.output:
        table.to_csv(given.output, index=False)


if __name__ == "__main__":
    main()
