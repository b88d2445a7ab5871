"""Megapixels a second and memory of super-resolution, beside MONAI's sliding window with the same network in the same
run.

    python3 -m venv bench
    bench/bin/pip install -r requirements.lock -r benchmarks/requirements.txt && bench/bin/pip install --no-deps -e .
    bench/bin/python benchmarks/superresolve.py --threads 2 --output superresolve.csv      # about 10 minutes on 2 cores

It makes a scan of noise (NIfTI, HU) and models of random weights, so no data are needed: neither the time nor the
memory depends on what is in them. Each way runs in a process of its own and takes the scan to a volume on disk: microsr
as `microsr superresolve` does, to OME-Zarr with its pyramid; MONAI's `sliding_window_inference` slice by slice, with
its usual overlap of 0.25 and windows of --window pixels, the result kept as int16 and written by SimpleITK (MetaImage).
Both use the same precision, threads and device; MONAI's windows get noise of their own, drawn by torch. The processes
take turns, the median counts. Peak memory is the process's; the part of it that Python, PyTorch and the model take by
themselves is listed too.

The arithmetic is that of the network on the whole slice, once, and the share is that of the rate at which this machine
multiplies matrices of the same type, measured in the same run, both by CPU seconds of all threads, as a machine that
does other work spoils the clock's; likewise, by the clock, the share of the rate at which it writes a large file.
--slices 554 is a whole scan: microsr's memory stays what it is with 8, MONAI's grows by 34 MB a slice.
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import SimpleITK as sitk
import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from microsr.config import DEFAULT_SCALE as SCALE
from microsr.core.progress import logger
from microsr.inference.superresolve import superresolve
from microsr.inference.upsamplers import Bicubic, Generator
from microsr.networks.devices import choose_device, choose_precision
from microsr.networks.families import build_g1, draw_noise
from microsr.networks.model_file import load_generator, save_generator
from microsr.physics.window import normalise, to_hu

WINDOW_HU = (-1000.0, 400.0)
NETWORKS = ("efficient", "resnet", "compact")
MATRIX = {"cpu": 2048, "cuda": 8192}
WINDOWS = 4
"""Windows that MONAI puts through the network at once, its own example's number."""


def make_inputs(folder: Path, size: int, slices: int) -> None:
    """A scan of lung-like noise, and a model of each network."""
    generator = np.random.default_rng(0)
    image = sitk.GetImageFromArray(generator.normal(-800, 150, (slices, size, size)).astype(np.int16))
    image.SetSpacing((0.6, 0.6, 1.0))
    sitk.WriteImage(image, str(folder / "scan.nii"))
    facts = {"window_hu": list(WINDOW_HU), "seed": 1, "steps": 1, "provenance": {}}
    for network in NETWORKS:
        torch.manual_seed(0)
        spacings = {"clinical_spacing_mm": None, "micro_spacing_mm": None}
        save_generator(folder / f"{network}.pt", build_g1(network, 8), facts | spacings | {"network": network})


def by_microsr(folder: Path, arguments: argparse.Namespace, way: Bicubic | Generator) -> Path:
    """As `microsr superresolve` does it."""
    output = folder / "microsr.ome.zarr"
    tile = None if arguments.tile == 0 else arguments.tile
    superresolve(folder / "scan.nii", output, way, threads=arguments.threads, tile=tile)
    return output


@torch.inference_mode()
def by_monai(folder: Path, arguments: argparse.Namespace, model: tuple[torch.nn.Module, dict]) -> Path:
    """By MONAI's sliding window, in a plain program."""
    from monai.inferers import sliding_window_inference

    g1, device = model[0], choose_device(arguments.device)
    random = torch.Generator(device).manual_seed(1)
    bfloat16 = choose_precision(arguments.precision, device) == "bfloat16"

    def network(windows: Tensor) -> Tensor:
        with torch.autocast(device, torch.bfloat16, enabled=bfloat16):
            noise = draw_noise(g1.noise_scales, len(windows), tuple(windows.shape[-2:]), random, device)
            return g1(windows, noise).float()

    volume = sitk.GetArrayFromImage(sitk.ReadImage(str(folder / "scan.nii")))
    result = np.empty([n * scale for n, scale in zip(volume.shape, (1, SCALE, SCALE), strict=True)], np.int16)
    for index, hu in enumerate(volume):
        a = normalise(torch.from_numpy(hu.astype(np.float32))[None, None], WINDOW_HU).to(device)
        window = (arguments.window, arguments.window)
        a_sr = sliding_window_inference(a, window, WINDOWS, network, overlap=0.25)
        result[index] = to_hu(a_sr, WINDOW_HU)[0, 0].round().cpu().numpy()
    output = folder / "monai.mha"
    sitk.WriteImage(sitk.GetImageFromArray(result), str(output))
    return output


def peak_memory() -> float:
    """Of this process so far, megabytes."""
    (line,) = (
        line for line in Path("/proc/self/status").read_text(encoding="utf-8").splitlines() if line.startswith("VmHWM")
    )
    return int(line.split()[1]) * 1024 / 1e6


def child(arguments: argparse.Namespace) -> None:
    """One way, once; prints what it took as JSON."""
    folder, network = Path(arguments.folder), arguments.network[0]
    logger.setLevel("ERROR")
    torch.set_num_threads(arguments.threads)
    torch.backends.cudnn.benchmark = True
    device = choose_device(arguments.device)
    model = folder / f"{network}.pt"
    if arguments.child == "microsr":
        work, way = by_microsr, Bicubic() if network == "bicubic" else Generator(model, device, arguments.precision)
    else:
        importlib.import_module("monai.inferers")  # counted with what is there from the start

        g1, facts = load_generator(model)
        work, way = by_monai, (g1.to(device, memory_format=torch.channels_last), facts)
    start_memory, started, cpu = peak_memory(), time.perf_counter(), time.process_time()
    output = work(folder, arguments, way)
    seconds, cpu = time.perf_counter() - started, time.process_time() - cpu
    files = [output] if output.is_file() else [p for p in output.rglob("*") if p.is_file()]
    written = sum(file.stat().st_size for file in files)
    gpu = torch.cuda.max_memory_allocated() / 1e6 if device == "cuda" else 0.0
    print(json.dumps({
        "seconds": seconds, "cpu_seconds": seconds if device == "cuda" else cpu, "peak_mb": peak_memory(),
        "start_mb": start_memory, "gpu_mb": gpu, "written_mb": written / 1e6,
    }))  # fmt: skip


def run(way: str, network: str, folder: Path, arguments: argparse.Namespace) -> dict[str, float]:
    """One way in a process of its own."""
    flags = [f"--{key}={getattr(arguments, key)}" for key in ("threads", "device", "precision", "window", "tile")]
    command = [sys.executable, __file__, f"--child={way}", f"--folder={folder}", f"--network={network}", *flags]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"{' '.join(command)} failed:\n{done.stderr}")
    return json.loads(done.stdout.splitlines()[-1])


def matmul_rate(precision: str, device: str) -> float:
    """10^9 floating point operations a second, on a CPU a CPU second, of a product of large matrices: the best of
    several.
    """
    n, clock = MATRIX[device], time.process_time if device == "cpu" else time.perf_counter
    dtype = torch.bfloat16 if precision == "bfloat16" else torch.float32
    a, b = torch.randn(2, n, n, device=device).to(dtype)
    times = []
    for _ in range(10):
        started = clock()
        torch.matmul(a, b)
        if device == "cuda":
            torch.cuda.synchronize()
        times.append(clock() - started)
    return 2 * n**3 / min(times) / 1e9


def write_rate(folder: Path, megabytes: int = 1024) -> float:
    """Megabytes a second of a large file, until it is on the disk."""
    block = np.random.default_rng(0).bytes(1 << 24)
    started = time.perf_counter()
    with (folder / "block").open("wb") as stream:
        for _ in range(megabytes // 16):
            stream.write(block)
        stream.flush()
        os.fsync(stream.fileno())
    seconds = time.perf_counter() - started
    (folder / "block").unlink()
    return megabytes * 1.048576 / seconds


def gigaflops(network: str, size: int) -> float:
    """Of G1 on one slice."""
    g1, piece = build_g1(network, 8), 64
    noise = draw_noise(g1.noise_scales, 1, (piece, piece), torch.Generator(), "cpu")
    with FlopCounterMode(display=False) as counter, torch.inference_mode():
        g1(torch.zeros(1, 1, piece, piece), noise)
    return counter.get_total_flops() / 1e9 * (size / piece) ** 2


def rows(network: str, folder: Path, arguments: argparse.Namespace) -> list[dict[str, Any]]:
    """The table's rows of one network: microsr, and MONAI if it has one."""
    device = choose_device(arguments.device)
    precision = choose_precision(arguments.precision, device) if network != "bicubic" else "float32"
    ways = ["microsr"] if network == "bicubic" or arguments.alone else ["microsr", "monai"]
    runs: dict[str, list[dict[str, float]]] = {way: [] for way in ways}
    peaks, rates = [], []
    for _ in range(arguments.repeats):
        peaks.append(matmul_rate(precision, device))
        rates.append(write_rate(folder))
        for way in ways:
            runs[way].append(run(way, network, folder, arguments))
    megapixels = arguments.slices * (SCALE * arguments.size) ** 2 / 1e6
    found = []
    for way in ways:
        one = {key: statistics.median(r[key] for r in runs[way]) for key in runs[way][0]}
        row = {
            "network": network, "way": way, "precision": precision, "threads": arguments.threads, "device": device,
            "instructions": torch.backends.cpu.get_cpu_capability(), "slices": arguments.slices,
            "megapixels_per_second": megapixels / one["seconds"],
            "cpu_seconds_per_slice": one["cpu_seconds"] / arguments.slices, "peak_mb": one["peak_mb"],
            "of_which_at_start_mb": one["start_mb"], "gpu_mb": one["gpu_mb"],
            "written_mb_per_second": one["written_mb"] / one["seconds"],
            "share_of_write_rate": one["written_mb"] / one["seconds"] / max(rates),
        }  # fmt: skip
        if network != "bicubic":
            rate = gigaflops(network, arguments.size) * arguments.slices / one["cpu_seconds"]
            row |= {
                "gflop_per_cpu_second": rate,
                "matmul_gflop_per_cpu_second": max(peaks),
                "share_of_matmul": rate / max(peaks),
            }
        if len(ways) == 2:
            both = zip(runs["monai"], runs[way], strict=True)
            row["times_monais_speed"] = statistics.median(m["seconds"] / o["seconds"] for m, o in both)
            row["times_monais_memory"] = one["peak_mb"] / statistics.median(r["peak_mb"] for r in runs["monai"])
        found.append(row)
    return found


def main() -> None:
    """Measure, print the table, and write it where asked."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--network", nargs="+", default=[*NETWORKS, "bicubic"])
    parser.add_argument("--device", default="auto", choices=["auto", "cpu", "cuda"])
    parser.add_argument("--precision", default="auto", choices=["auto", "float32", "bfloat16"])
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--size", type=int, default=512, help="clinical pixels along a side")
    parser.add_argument("--slices", type=int, default=8)
    parser.add_argument(
        "--tile", type=int, default=0, help="microsr's tile, clinical pixels (default: 0, its own choice)"
    )
    parser.add_argument(
        "--window", type=int, default=96, help="MONAI's window, clinical pixels (default: its example's 96)"
    )
    parser.add_argument("--alone", action="store_true", help="without MONAI, which holds all slices in memory")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--folder", help="where to write (default: a temporary folder)")
    parser.add_argument("--output", type=Path, help="the table as .csv")
    parser.add_argument("--child", choices=["microsr", "monai"], help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.child:
        child(arguments)
        return
    torch.set_num_threads(arguments.threads)
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(dir=arguments.folder)))
        make_inputs(folder, arguments.size, arguments.slices)
        found = [row for network in arguments.network for row in rows(network, folder, arguments)]
    peer = "" if arguments.alone else f", MONAI {metadata.version('monai')}"
    print(
        f"{platform.processor() or platform.machine()}, torch {torch.__version__}{peer}; medians of "
        f"{arguments.repeats} runs"
    )
    table = pd.DataFrame(found)
    print(table.T.to_string(header=False, float_format=lambda value: f"{value:.4g}"))
    if arguments.output is not None:
        table.to_csv(arguments.output, index=False)


if __name__ == "__main__":
    main()
