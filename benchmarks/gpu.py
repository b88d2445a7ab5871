"""What a GPU makes of the training and of super-resolution, in ten minutes: a table to send home.

    python3 -m venv gpu                   # with a PyTorch for the GPU's driver, if the default one is not (pytorch.org)
    gpu/bin/pip install -r requirements.lock && gpu/bin/pip install --no-deps -e .
    gpu/bin/python benchmarks/gpu.py --output gpu          # writes gpu.csv and gpu.md, and prints the latter

Nothing else is needed: no data, no Snakemake. It measures the training step of each family in float32, bfloat16 and
compiled; a super-resolved block of 16 slices of 4096x4096 from a clinical scan of 512x512x16, to a volume on disk;
whether a training that goes on from its state gives the same weights, and whether two processes learn what one does (on
two GPUs; with one it says so). A part that fails is a row of the table, and the exit status is then 1; one that would
begin after --minutes is not run. --device cpu --quick goes through all of it in small, as a test does. It has not been
run on a GPU yet.
"""

from __future__ import annotations

import argparse
import copy
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import SimpleITK as sitk
import torch

from microsr import config
from microsr.config import DEFAULT_SCALE as SCALE
from microsr.inference.superresolve import superresolve
from microsr.inference.upsamplers import Generator
from microsr.networks.devices import choose_algorithms, choose_device
from microsr.networks.families import build, build_g1
from microsr.networks.model_file import load_generator, save_generator
from microsr.training.batches import Batch
from microsr.training.distributed import Processes
from microsr.training.methods.cyclegan import CycleGAN
from microsr.training.methods.method import Setup
from microsr.training.passes import gigaflops_per_pair

NETWORKS = ("resnet", "efficient", "compact")
EPOCHS, CASES, PATCHES, BATCH = 200, 5, 2000, 8
"""Of experiments/paper.yaml."""
SMALL = 8, 2
"""Clinical pixels of a patch, and pairs of a step, of all in small."""
AGREE = 0.02
"""Two trainings agree if their weights are nearer than this share of the way that they have come: a GAN magnifies
rounding.
"""

Row = dict[str, Any]


def a_batch(n: int, clinical_size: int, device: str, seed: int = 0) -> Batch:
    """A batch of noise: the step's time does not depend on what is in it."""
    random = torch.Generator().manual_seed(seed)
    a, b = (torch.rand(n, 1, size, size, generator=random) * 2 - 1 for size in (clinical_size, SCALE * clinical_size))
    a, b = a.to(device), b.to(device)
    return Batch(a, a, b)


def a_model(network: str, size: int, device: str, **options: object) -> CycleGAN:
    """A training of the proposed method that has not begun."""
    settings = config.Train(network=network)
    setup = Setup(settings, config.CycleGANMethod(), 1, processes=Processes(device=device), **options)
    return CycleGAN(setup, (size, SCALE * size))


def finish(device: str) -> None:
    """Wait until the GPU has done what it was given."""
    if device == "cuda":
        torch.cuda.synchronize()


def gigabytes(device: str) -> float:
    """Most memory of the GPU since the last call; not a number on a CPU."""
    if device != "cuda":
        return float("nan")
    most = torch.cuda.max_memory_allocated() / 1e9
    torch.cuda.reset_peak_memory_stats()
    return most


def weights(model: CycleGAN) -> torch.Tensor:
    """All of them, in a row, on the CPU."""
    return torch.cat([p.detach().flatten().cpu() for network in model.nets for p in network.parameters()])


def training_step(network: str, precision: str, compiled: bool, device: str, quick: bool) -> Row:
    """Pairs a second and memory of a step of `BATCH` pairs of the paper's patches."""
    (size, pairs), repeats = (SMALL, 1) if quick else ((32, BATCH), 10)
    gigabytes(device)
    model, batch = a_model(network, size, device, precision=precision, compiled=compiled), a_batch(pairs, size, device)
    began = time.perf_counter()
    losses = model.step(0, batch, 1e-5)
    finish(device)
    first, times = time.perf_counter() - began, []
    for number in range(1, repeats + 1):
        began = time.perf_counter()
        losses = model.step(number, batch, 1e-5)
        finish(device)
        times.append(time.perf_counter() - began)
    if not all(value.isfinite() for value in losses.values()):
        raise RuntimeError(f"a loss is not finite: {losses}")
    seconds = statistics.median(times)
    counted = (
        gigaflops_per_pair(config.Train(network=network), config.CycleGANMethod().losses, (size, SCALE * size)) * pairs
    )
    steps = EPOCHS * CASES * PATCHES // BATCH
    return {
        "seconds": seconds,
        "first_seconds": first,
        "pairs_per_second": pairs / seconds,
        "tflop_per_second": counted / seconds / 1e3,
        "gpu_gb": gigabytes(device),
        "paper_yaml_hours_a_training": float("nan") if quick else steps * seconds / 3600,
    }


def block(network: str, device: str, quick: bool) -> Row:
    """A clinical scan to a volume on disk."""
    size, slices = (16, 2) if quick else (512, 16)
    gigabytes(device)
    with tempfile.TemporaryDirectory() as folder:
        scan, model, output = (Path(folder) / name for name in ("scan.nii", "generator.pt", "sr.ome.zarr"))
        image = sitk.GetImageFromArray(
            np.random.default_rng(0).normal(-800, 150, (slices, size, size)).astype(np.int16)
        )
        image.SetSpacing((0.6, 0.6, 1.0))
        sitk.WriteImage(image, str(scan))
        torch.manual_seed(0)
        facts = {"network": network, "window_hu": [-1000.0, 400.0], "seed": 1, "steps": 1, "provenance": {}}
        save_generator(model, build_g1(network, 8), facts | {"clinical_spacing_mm": None, "micro_spacing_mm": None})
        generator, began = Generator(model, device), time.perf_counter()
        superresolve(scan, output, generator, threads=torch.get_num_threads())
        seconds = time.perf_counter() - began
        if not output.exists():
            raise RuntimeError("no volume was written")
    pixels = slices * (SCALE * size) ** 2
    return {"seconds": seconds, "megapixels_per_second": pixels / seconds / 1e6, "gpu_gb": gigabytes(device)}


def resume(device: str, quick: bool) -> Row:
    """Four steps at once, against two, a state, and two more by another model that is given the state."""
    network, (size, pairs) = "compact", SMALL if quick else (32, BATCH)
    choose_algorithms(deterministic=True)
    whole, first, second = (a_model(network, size, device) for _ in range(3))
    start = weights(whole)
    for step in range(4):
        whole.step(step, a_batch(pairs, size, device, step), 1e-4)
    for model, steps in ((first, (0, 1)), (second, (2, 3))):
        if model is second:
            second.load(copy.deepcopy(first.state()))
        for step in steps:
            model.step(step, a_batch(pairs, size, device, step), 1e-4)
    choose_algorithms(deterministic=False)
    apart = agreement(weights(second), weights(whole), start)
    return {"apart": apart, "note": "the same bits" if apart == 0 else "not the same bits"}


def two_processes(device: str, quick: bool) -> Row:
    """A training by two processes, against one by one process."""
    if device == "cuda" and torch.cuda.device_count() < 2:
        return {"note": "not run: one GPU"}
    size, epochs = (8, 1) if quick else (32, 4)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        random = np.random.default_rng(0)
        for modality, side in (("clinical", size), ("micro", SCALE * size)):
            np.save(folder / f"{modality}.npy", random.normal(-700, 150, (12, side, side)).astype(np.int16))
        found, times = [], []
        for count in (1, 2):
            began = time.perf_counter()
            found.append(_trained(folder, count, device, epochs))
            times.append(time.perf_counter() - began)
    torch.manual_seed(1)
    start = _flat(build("compact", size, SCALE * size).g1)
    return {"seconds": times[1], "first_seconds": times[0], "apart": agreement(found[1], found[0], start)}


def _trained(folder: Path, processes: int, device: str, epochs: int) -> torch.Tensor:
    output = folder / f"model{processes}"
    step = [
        "microsr",
        "train",
        "--clinical",
        folder / "clinical.npy",
        "--micro",
        folder / "micro.npy",
        "--output",
        output,
    ]
    step += ["--state", folder / f"state{processes}", "--seed", 1, "--window_hu", -1000, 400, "--patches_per_case", 12]
    step += [
        "--epochs",
        epochs,
        "--batch_size",
        4,
        "--network",
        "compact",
        "--precision",
        "float32",
        "--device",
        device,
    ]
    torchrun = ["torch.distributed.run", "--standalone", "--nproc_per_node", processes, "-m", "--"]
    command = [sys.executable, "-m", *(torchrun if processes > 1 else []), *step]
    done = subprocess.run([str(part) for part in command], capture_output=True, text=True, timeout=300, check=False)
    if done.returncode:
        raise RuntimeError(done.stderr[-500:])
    return _flat(load_generator(output / "generator.pt")[0])


def _flat(network: torch.nn.Module) -> torch.Tensor:
    return torch.cat([p.detach().flatten() for p in network.parameters()])


def agreement(found: torch.Tensor, expected: torch.Tensor, start: torch.Tensor) -> float:
    """How far two trainings are apart, as a share of the way that they have come.

    Raises
    ------
    RuntimeError
        It is more than AGREE.
    """
    apart = float((found - expected).norm() / (expected - start).norm())
    if not apart <= AGREE:
        raise RuntimeError(f"the weights are apart by {apart:.3g} of the way of the training")
    return apart


def parts(device: str, quick: bool) -> Iterator[tuple[str, str, str, Callable[[], Row]]]:
    """What is measured: part, network, way, and the work."""
    yield "resume", "compact", "float32", lambda: resume(device, quick)
    yield "two processes", "compact", "float32", lambda: two_processes(device, quick)
    for network in NETWORKS:
        for way in ("float32", "bfloat16"):
            yield "step", network, way, lambda n=network, w=way: training_step(n, w, False, device, quick)
        yield "superresolve", network, "auto", lambda n=network: block(n, device, quick)
    for network in ("compact",) if quick else NETWORKS[::-1]:  # last: to compile takes minutes
        yield "step", network, "bfloat16 compiled", lambda n=network: training_step(n, "bfloat16", True, device, quick)


def main() -> int:
    """Measure, print the table and write it; 1 if a part failed."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", default="cuda", choices=["cuda", "cpu"])
    parser.add_argument("--quick", action="store_true", help="all parts in small: whether they run, not how fast")
    parser.add_argument("--without_compile", action="store_true", help="no compiled steps, which need a C++ compiler")
    parser.add_argument("--minutes", type=float, default=10, help="a part that would begin later is not run")
    parser.add_argument("--output", type=Path, help="path without ending: .csv and .md are written")
    arguments = parser.parse_args()
    device, began = choose_device(arguments.device), time.monotonic()
    choose_algorithms(deterministic=False)
    rows: list[Row] = []
    for part, network, way, work in parts(device, arguments.quick):
        if way.endswith("compiled") and arguments.without_compile:
            continue
        row: Row = {"part": part, "network": network, "way": way}
        if time.monotonic() - began > 60 * arguments.minutes:
            row["note"] = "not run: no time left"
        else:
            try:
                row |= work()
            except Exception as error:  # one part says nothing about the others
                row["note"] = f"failed: {type(error).__name__}: {' '.join(str(error).split())[:200]}"
        rows.append(row)
        print(row, flush=True)
    table = pd.DataFrame(rows)
    name = torch.cuda.get_device_name() if device == "cuda" else "CPU"
    steps = EPOCHS * CASES * PATCHES // BATCH
    counted = (
        gigaflops_per_pair(config.Train(network="resnet"), config.CycleGANMethod().losses, (32, 256)) * BATCH / 1e3
    )
    text = "\n".join([
        f"{name}, torch {torch.__version__}, {'small sizes, ' * arguments.quick}{(time.monotonic() - began) / 60:.1f} "
        "minutes",
        f"experiments/paper.yaml, counted: {counted:.2f} TFLOP a step, {steps} steps a training", "", markdown(table),
    ])  # fmt: skip
    print(text)
    if arguments.output is not None:
        table.to_csv(arguments.output.with_suffix(".csv"), index=False)
        arguments.output.with_suffix(".md").write_text(text + "\n", encoding="utf-8")
    return int(any(str(row.get("note", "")).startswith("failed") for row in rows))


def markdown(table: pd.DataFrame) -> str:
    """A table, numbers with three digits and nothing where there is none."""

    def shown(value: object) -> str:
        return "" if pd.isna(value) else f"{value:.3g}" if isinstance(value, float) else str(value)

    lines = [list(table.columns), ["---"] * len(table.columns), *([shown(v) for v in row] for row in table.to_numpy())]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


if __name__ == "__main__":
    sys.exit(main())
