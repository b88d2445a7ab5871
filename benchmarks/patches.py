"""Patches a second: microsr's beside those of TorchIO's and MONAI's samplers, from the same volumes, in the same run.

    python3 -m venv bench
    bench/bin/pip install -r requirements.lock -r benchmarks/requirements.txt && bench/bin/pip install --no-deps -e .
    bench/bin/python benchmarks/patches.py --output patches.csv   # about 6 minutes; --seconds 0.2 --repeats 1 for a try

It makes a clinical-like and a uCT-like volume, so no data are needed. Every way delivers the same: batches of 2-D
patches, float32 in [-1, 1], drawn uniformly from the positions at which a patch lies wholly inside the mask; "as
drawn", and "turned" by a random symmetry of the square, as a training sees them. Each way runs in a process of its own
with one thread; the processes take turns, and the median of the repeats counts.

All is set for the peers' best: their volumes lie in memory, already normalised, and they are told the admissible
centres. They draw a new position each time; microsr draws from patches that its step `patches` has clipped before, so
the time of that step is stated, and so is the rate with it, in a training of one epoch and of the default number.
"""

from __future__ import annotations

import argparse
import functools
import itertools
import multiprocessing
import os
import platform
import statistics
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor
from torch.utils.data import DataLoader

from microsr import config
from microsr.physics import window
from microsr.preprocessing.patches import extract
from microsr.preprocessing.positions import admissible
from microsr.training import batches as sampling
from microsr.volume.storage import Volume, open_mask, open_volume, write_volume

WINDOW_HU = (-1000.0, 400.0)
PAPER = config.Patches(clinical_size=32, micro_size=256)
SMALL = config.Patches(clinical_size=16, micro_size=128)
BATCH = 8
SHAPES = {"clinical": (48, 512, 512), "micro": (16, 1024, 1024)}
QUEUE = 1000
"""Patches in TorchIO's queue: the longer, the less often it prepares its map of probabilities."""
CROPS = 64
"""Patches that MONAI crops in one call: the more, the less the fixed cost of a call weighs."""


def make_volume(folder: Path, modality: str) -> None:
    """A volume of noise in the working format; its mask is an ellipse over half of each slice."""
    shape = SHAPES[modality]
    row, column = (np.linspace(-1, 1, n) for n in shape[1:])
    ellipse = row[:, None] ** 2 + (column / 0.7) ** 2 < 0.9
    hu = np.random.default_rng(0).normal(-700, 200, shape).astype(np.int16)
    write_volume(folder / modality, Volume(hu, (0.1, 0.1, 1.0)), np.broadcast_to(ellipse, shape))


def clip_patches(folder: Path, modality: str, settings: config.Patches) -> float:
    """Run the step `patches` and return the seconds that it took."""
    output = patch_file(folder, modality, patch_size(modality, settings))
    started = time.perf_counter()
    extract("case", modality, folder / modality, 0, output, output.with_suffix(".csv"), settings)
    return time.perf_counter() - started


def patch_file(folder: Path, modality: str, size: int) -> Path:
    return folder / f"{modality}_{size}.npy"


def patch_size(modality: str, settings: config.Patches) -> int:
    return settings.clinical_size if modality == "clinical" else settings.micro_size


def microsr_stream(folder: Path, modality: str, size: int, turned: bool) -> Iterator[Tensor]:
    """What `Batches` draws a modality with."""
    stored = sampling.open_stored([patch_file(folder, modality, size)], "cpu")
    samples = PAPER.per_case // BATCH * BATCH
    stream = sampling.PatchStream(stored, samples=samples, augment=turned, window_hu=WINDOW_HU, seed=0, name=modality)
    for epoch in itertools.count():
        for first in range(0, samples, BATCH):
            yield stream.take(epoch, np.arange(first, first + BATCH))


def peer_image(folder: Path, modality: str) -> Tensor:
    """The volume as a peer has it in memory: float32 [1, slices, rows, columns] in [-1, 1]."""
    return window.normalise(torch.from_numpy(open_volume(folder / modality).array[:]), WINDOW_HU)[None]


def peer_centres(folder: Path, modality: str, size: int) -> np.ndarray:
    """Where the centre of a patch may lie for it to be wholly inside the mask: uint8 [slices, rows, columns]."""
    mask = open_mask(folder / modality)[:]
    centres, half = np.zeros_like(mask), size // 2
    for image, plane in zip(centres, mask, strict=True):
        allowed = admissible(plane, size, 1.0)
        image[half : half + len(allowed), half : half + allowed.shape[1]] = allowed
    return centres


def torchio_subject(folder: Path, modality: str, size: int) -> Any:
    import torchio

    centres = torchio.LabelMap(tensor=torch.from_numpy(peer_centres(folder, modality, size))[None])
    return torchio.Subject(image=torchio.ScalarImage(tensor=peer_image(folder, modality)), centres=centres)


def torchio_batch(patches: Iterable[Any], turned: bool) -> Tensor:
    """A batch of TorchIO's patches. Turned: flipped only, as TorchIO has no turns by 90 degrees that do not
    interpolate.
    """
    import torchio

    flip = torchio.RandomFlip(axes=(1, 2))
    return torch.cat([(flip(patch) if turned else patch)["image"].data for patch in patches])


def torchio_sampler(folder: Path, modality: str, size: int, turned: bool) -> Iterator[Tensor]:
    """The sampler alone, which prepares its map of probabilities once."""
    import torchio

    patches = torchio.WeightedSampler((1, size, size), "centres")(torchio_subject(folder, modality, size))
    while True:
        yield torchio_batch(itertools.islice(patches, BATCH), turned)


def torchio_queue(folder: Path, modality: str, size: int, turned: bool) -> Iterator[Tensor]:
    """The sampler through the queue, as TorchIO's documentation says for training."""
    import torchio

    subjects = torchio.SubjectsDataset([torchio_subject(folder, modality, size)])
    sampler = torchio.WeightedSampler((1, size, size), "centres")
    queue = torchio.Queue(subjects, max_length=QUEUE, samples_per_volume=QUEUE, sampler=sampler)
    collate = functools.partial(torchio_batch, turned=turned)
    while True:
        yield from DataLoader(queue, batch_size=BATCH, num_workers=0, collate_fn=collate)


def monai_item(folder: Path, modality: str, size: int) -> dict[str, Any]:
    from monai.data import set_track_meta

    set_track_meta(False)
    inside = np.flatnonzero(peer_centres(folder, modality, size))
    return {"image": peer_image(folder, modality), "inside": inside, "outside": np.zeros(1, np.int64)}


def monai_crops(folder: Path, modality: str, size: int, turned: bool) -> Iterator[Tensor]:
    """The random crop alone, many at a time."""
    from monai.transforms import Compose, RandCropByPosNegLabel, RandFlip, RandRotate90

    item = monai_item(folder, modality, size)
    crop = RandCropByPosNegLabel((1, size, size), pos=1, neg=0, num_samples=CROPS)
    turn = Compose([RandFlip(0.5, spatial_axis=1), RandRotate90(0.75, spatial_axes=(1, 2))] if turned else [])
    while True:
        patches = crop(item["image"], image=item["image"], fg_indices=item["inside"], bg_indices=item["outside"])
        for first in range(0, CROPS, BATCH):
            yield torch.cat([turn(patch) for patch in patches[first : first + BATCH]])


def monai_loader(folder: Path, modality: str, size: int, turned: bool) -> Iterator[Tensor]:
    """The random crop in a data set that is cached in memory, through MONAI's loader."""
    from monai import data
    from monai.transforms import Compose, RandCropByPosNegLabeld, RandFlipd, RandRotate90d

    crop = RandCropByPosNegLabeld(
        "image", "label", (1, size, size), pos=1, neg=0, num_samples=BATCH, image_key="image",
        fg_indices_key="inside", bg_indices_key="outside",
    )  # fmt: skip
    turns = [RandFlipd("image", 0.5, spatial_axis=1), RandRotate90d("image", 0.75, spatial_axes=(1, 2))]
    items = [monai_item(folder, modality, size)] * QUEUE
    cached = data.CacheDataset(items, Compose([crop, *(turns if turned else [])]), copy_cache=False, progress=False)
    while True:
        for batch in data.DataLoader(cached, batch_size=1, num_workers=0):
            yield batch["image"][:, 0]


WAYS: dict[str, Callable[[Path, str, int, bool], Iterator[Tensor]]] = {
    "microsr": microsr_stream,
    "TorchIO sampler": torchio_sampler,
    "TorchIO queue": torchio_queue,
    "MONAI crops": monai_crops,
    "MONAI loader": monai_loader,
}


@functools.cache
def batches_of(way: str, folder: Path, modality: str, turned: bool) -> Iterator[Tensor]:
    """The endless batches of a way; the first one is checked and dropped."""
    size = patch_size(modality, PAPER)
    batches = WAYS[way](folder, modality, size, turned)
    first = next(batches).squeeze()
    if first.dtype != torch.float32 or first.shape != (BATCH, size, size) or first.abs().max() > 1:
        raise ValueError(f"{way} delivers {first.dtype} {tuple(first.shape)} up to {first.abs().max()}")
    return batches


def start_worker() -> None:
    torch.set_num_threads(1)
    # The C library keeps freed memory only up to the size of the largest block that was freed: let it be a training's.
    torch.ones(30 << 20, dtype=torch.uint8)


def patches_a_second(way: str, folder: Path, modality: str, turned: bool, seconds: float) -> float:
    batches = batches_of(way, folder, modality, turned)
    started, elapsed, count = time.perf_counter(), 0.0, 0
    while elapsed < seconds:
        next(batches)
        count += 1
        elapsed = time.perf_counter() - started
    return count * BATCH / elapsed


def batch_milliseconds(folder: Path, settings: config.Patches, batch_size: int, steps: int) -> float:
    """Median time of `Batches.batch`: what a training step waits for its patches."""
    files = [[patch_file(folder, modality, patch_size(modality, settings))] for modality in SHAPES]
    batches = sampling.Batches(
        *files, patches_per_case=settings.per_case, batch_size=batch_size, mix_fraction=0.25, augment=True,
        window_hu=WINDOW_HU, seed=0,
    )  # fmt: skip
    times = []
    for step in range(steps):
        started = time.perf_counter()
        batches.batch(step)
        times.append(time.perf_counter() - started)
    return 1000 * statistics.median(times)


def measure(folder: Path, seconds: float, repeats: int) -> dict[tuple[str, str, str], float]:
    """Patches a second, median of the repeats, for each (work, modality, way); the ways take turns."""
    context = multiprocessing.get_context("spawn")
    pools = {way: ProcessPoolExecutor(1, mp_context=context, initializer=start_worker) for way in WAYS}
    rates: dict[tuple, list[float]] = {}
    for _, turned, modality in itertools.product(range(repeats), (False, True), SHAPES):
        for way in list(pools):
            try:
                rate = pools[way].submit(patches_a_second, way, folder, modality, turned, seconds).result()
            except ModuleNotFoundError as missing:
                print(f"{way}: {missing.name} is not installed; pip install -r benchmarks/requirements.txt")
                pools.pop(way).shutdown()
                continue
            rates.setdefault(("turned" if turned else "as drawn", modality, way), []).append(rate)
    for pool in pools.values():
        pool.shutdown()
    return {key: statistics.median(found) for key, found in rates.items()}


def tabulate(rates: dict[tuple[str, str, str], float], clipping: dict[str, float]) -> pd.DataFrame:
    """The rates, with those of microsr that include the seconds of `clipping`, and microsr's as a multiple of each."""
    rates = dict(rates)
    for work, modality, epochs in itertools.product(("as drawn", "turned"), SHAPES, (1, config.Train().epochs)):
        drawn = epochs * PAPER.per_case
        amortised = drawn / (clipping[modality] + drawn / rates[work, modality, "microsr"])
        rates[work, modality, f"microsr, clipped for {epochs} epoch{'s' * (epochs > 1)}"] = amortised
    rows = [(*key, rate, rates[*key[:2], "microsr"] / rate) for key, rate in rates.items()]
    return pd.DataFrame(rows, columns=["work", "modality", "way", "patches_per_second", "microsr_is_times_as_fast"])


def machine() -> str:
    """Processor and versions, in one line."""
    facts, versions = Path("/proc/cpuinfo"), []
    lines = facts.read_text(encoding="utf-8").splitlines() if facts.exists() else []
    names = [line.split(":")[1].strip() for line in lines if line.startswith("model name")] or [platform.machine()]
    for package in ("torch", "numpy", "torchio", "monai"):
        try:
            versions.append(f"{package} {metadata.version(package)}")
        except metadata.PackageNotFoundError:
            versions.append(f"no {package}")
    return f"{names[0]}, 1 of {os.cpu_count()} cores, Python {platform.python_version()}, {', '.join(versions)}"


def show(table: pd.DataFrame, folder: Path) -> None:
    """Print the table, the ratio to the best peer, and what a training step waits."""
    for work in ("as drawn", "turned"):
        rows = table[table["work"] == work]
        wide = rows.pivot(index="way", columns="modality", values=["patches_per_second", "microsr_is_times_as_fast"])
        print(f"\n{work}:\n{wide.loc[rows['way'].unique()].round(1).to_string()}")
        peers = rows[~rows["way"].str.startswith("microsr")]
        for modality, best in peers.groupby("modality")["microsr_is_times_as_fast"].min().items():
            print(f"{modality}: {best:.1f} times the best peer")
    print("\nBatches.batch, turned and with a quarter of the inputs mixed (median):")
    for settings, size in ((SMALL, 4), (PAPER, 8)):
        waited = batch_milliseconds(folder, settings, size, steps=300)
        sizes = f"{size} pairs of {settings.clinical_size} and {settings.micro_size} pixels"
        print(f"{sizes}: {waited:.2f} ms")


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=2.0, help="length of each measurement")
    parser.add_argument("--repeats", type=int, default=5, help="measurements of each, of which the median counts")
    parser.add_argument("--output", type=Path, help="where the table is written (.csv)")
    namespace = parser.parse_args()
    start_worker()
    print(machine())
    with tempfile.TemporaryDirectory() as name:
        folder, clipping = Path(name), {}
        for modality in SHAPES:
            make_volume(folder, modality)
            clipping[modality] = clip_patches(folder, modality, PAPER)
            clip_patches(folder, modality, SMALL)
            print(f"microsr patches, {modality}: {PAPER.per_case} patches clipped in {clipping[modality]:.2f} s")
        table = tabulate(measure(folder, namespace.seconds, namespace.repeats), clipping)
        show(table, folder)
    if namespace.output:
        table.assign(machine=machine()).to_csv(namespace.output, index=False)


if __name__ == "__main__":
    main()
