"""How the steps grow: seconds and peak memory against the number of slices, of patches and of cases.

    .venv/bin/python benchmarks/scaling.py --output scaling.csv  # about 15 minutes; --largest 0.1 --repeats 1 for a try

A step is run on four sizes, each double the one before. What is asked is not how fast it is but how it grows, so that
it is compared with itself: a line through processor seconds against size gives what each further slice, patch or case
costs, and what any size costs; the exponent of the last doubling, of what is above that, says whether it grows faster
than its input (1: it does not). Peak memory, the process's (ru_maxrss), is fitted in the same way. Each run is a
process of its own; of the repeats the quickest counts.

- slices: `microsr volumes clinical` of a chest CT of 192 x 192 pixels, `microsr superresolve` (bicubic) of it, and
`evaluate metrics`;
- patches: `microsr patches` and `microsr domain`, 32 x 32 and 256 x 256 pixels; `microsr train` (compact, 8 and 64
pixels, batch 4);
- cases: the dry run of `benchmarks/plan.py`, leave-one-out, whose inputs grow with the square of the cases.

No data are needed: the scans are those of `benchmarks/volumes.py`, of fewer pixels.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd

sys.path.insert(0, str(Path(__file__).parent))
import plan
import volumes

SIDE = 192
"""Pixels along a slice of the scans."""
LARGEST = {"slices": 128, "patches": 4000, "steps": 160, "cases": 48}
"""The largest size of each kind; the three others are its halves."""
SMALLEST = {"slices": 8, "patches": 16, "steps": 4, "cases": 2}
"""No size is below this."""
NAMES = ["--case", "a", "--method", "bicubic", "--training_set", "none", "--seed", "none"]


def make_scan(path: Path, modality: str, slices: int) -> None:
    """A scan of `benchmarks/volumes.py` of fewer pixels, MetaImage with its voxels in one file; path: of the header."""
    images = {"clinical": volumes.clinical_slices, "micro": volumes.micro_slices}[modality]((slices, SIDE, SIDE))
    x, y, z = volumes.SPACINGS[modality]
    with path.with_suffix(".raw").open("wb") as stream:
        for image in images:
            stream.write(np.asarray(image, "<i2"))
    path.write_text(
        "ObjectType = Image\nNDims = 3\nBinaryData = True\nBinaryDataByteOrderMSB = False\n"
        f"ElementSpacing = {x} {y} {z}\nDimSize = {SIDE} {SIDE} {slices}\nElementType = MET_SHORT\n"
        f"ElementDataFile = {path.stem}.raw\n",
        encoding="utf-8",
    )


def microsr(*words: object) -> list[str]:
    """The command of a step."""
    return [sys.executable, "-m", "microsr", *map(str, words)]


def prepare(folder: Path, slices: int) -> dict[str, Path]:
    """Imported volumes of both modalities, of `slices` slices."""
    found = {}
    for modality, flags in (("clinical", []), ("micro", ["--sampling", "native"])):
        make_scan(folder / f"{modality}.mhd", modality, slices)
        found[modality] = folder / f"{modality}.ome.zarr"
        command = microsr("volumes", modality, "--case", "a", "--input", folder / f"{modality}.mhd")
        subprocess.run([*command, "--output", found[modality], *flags], check=True, capture_output=True)
    return found


def of_slices(folder: Path, count: int) -> dict[str, list[str]]:
    """The steps that go from slice to slice, on `count` of them."""
    folder.mkdir()
    given = prepare(folder, count)
    result = folder / "sr.ome.zarr"
    return {
        "volumes clinical": microsr(
            *("volumes", "clinical", "--case", "a"),
            *("--input", folder / "clinical.mhd", "--output", folder / "again.ome.zarr"),
        ),
        "superresolve": microsr(
            *("superresolve", given["clinical"], "--upsampler", "bicubic", "--threads", 1, "--output", result)
        ),
        "evaluate metrics": microsr(
            *("evaluate", "metrics", *NAMES, "--superresolved", result, "--clinical", given["clinical"]),
            *("--micro", given["micro"], "--output", folder / "metrics.csv"),
        ),
    }  # fmt: skip


def of_patches(folder: Path, count: int) -> dict[str, list[str]]:
    """The steps that draw patches or look at all of them."""
    folder.mkdir()
    given = prepare(folder, 16)
    commands = {}
    sizes = ["--clinical_size", 16, "--micro_size", 128, "--inside", 0.5, "--per_case", count]
    for modality, volume in given.items():
        out = ["--output", folder / f"{modality}.npy", "--index", folder / f"{modality}.csv"]
        commands[f"patches {modality}"] = microsr(
            "patches", "--case", "a", "--modality", modality, "--volume", volume, "--seed", 1, *out, *sizes
        )
    patches = ["--clinical", folder / "clinical.npy", "--micro", folder / "micro.npy"]
    return commands | {"domain": microsr("domain", *patches, "--output", folder / "domain.csv")}


def of_steps(folder: Path, count: int) -> dict[str, list[str]]:
    """A training of `count` steps of 4 patches."""
    draw = of_patches(folder, 64)
    for name in ("patches clinical", "patches micro"):
        subprocess.run(draw[name], check=True, capture_output=True)
    state = folder / "state"
    return {
        "train": microsr(
            *("train", "--clinical", folder / "clinical.npy", "--micro", folder / "micro.npy"),
            *("--output", folder / "model", "--state", state, "--seed", 1, "--window_hu", -1000, 400),
            *("--network", "compact", "--precision", "float32"),
            *("--epochs", 1, "--patches_per_case", 4 * count, "--batch_size", 4, "--threads", 1),
        )
    }  # fmt: skip


def of_cases(folder: Path, count: int) -> dict[str, list[str]]:
    """The plan of an experiment of `count` cases."""
    return {
        "dry run": [sys.executable, "-m", "snakemake", "--dry-run", "--quiet", *plan.make_experiment(folder, count)]
    }


KINDS: dict[str, Callable[[Path, int], dict[str, list[str]]]] = {
    "slices": of_slices,
    "patches": of_patches,
    "steps": of_steps,
    "cases": of_cases,
}
"""What grows, and the commands for a size, in the order in which they need one another."""


def sizes(kind: str, share: float) -> list[int]:
    """Four sizes, each double the one before."""
    smallest = max(SMALLEST[kind], round(share * LARGEST[kind] / 8))
    return [smallest * 2**k for k in range(4)]


def measure(kinds: list[str], share: float, repeats: int) -> pd.DataFrame:
    """Each step on each size: seconds, processor seconds and peak memory."""
    rows = []
    with tempfile.TemporaryDirectory() as name:
        for kind in kinds:
            for size in sizes(kind, share):
                found: dict[str, list[tuple[float, float, float]]] = {}
                for repeat in range(repeats):
                    folder = Path(name) / f"{kind}{size}.{repeat}"
                    for step, command in KINDS[kind](folder, size).items():
                        found.setdefault(step, []).append(volumes.measure_command(command))
                for step, each in found.items():
                    best = (min(one) for one in zip(*each, strict=True))
                    rows.append((step, kind, size, *best))
    return pd.DataFrame(rows, columns=["step", "of", "size", "seconds", "processor_seconds", "peak_mb"])


def grow(table: pd.DataFrame) -> pd.DataFrame:
    """How each step grows: what any size costs, what each further unit costs, and the exponent of the last doubling."""
    rows = []
    for (step, kind), runs in table.groupby(["step", "of"], sort=False):
        slope, fixed = np.polyfit(runs["size"], runs["processor_seconds"], 1)
        memory, base = np.polyfit(runs["size"], runs["peak_mb"], 1)
        # The differences of doublings do not know what any size costs: they double where a step grows with its input.
        before, last = np.diff(runs["processor_seconds"])[-2:]
        exponent = np.log2(last / before) if min(before, last) > 0 else np.nan
        rows.append((step, kind, fixed, 1000 * slope, exponent, base, memory))
    columns = ["step", "of", "fixed_s", "ms_each", "exponent", "fixed_mb", "mb_each"]
    return pd.DataFrame(rows, columns=columns)


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--of", nargs="+", choices=KINDS, default=list(KINDS), metavar="KIND", help=f"of: {', '.join(KINDS)}"
    )
    parser.add_argument("--largest", type=float, default=1.0, help="share of the largest sizes")
    parser.add_argument("--repeats", type=int, default=2, help="runs of each, of which the quickest counts")
    parser.add_argument("--output", type=Path, help="where the single runs are written (.csv)")
    namespace = parser.parse_args()
    print(volumes.machine())
    table = measure(namespace.of, namespace.largest, namespace.repeats)
    print(table.to_string(index=False, float_format=lambda value: f"{value:.2f}"), "\n")
    print(grow(table).to_string(index=False, float_format=lambda value: f"{value:.3g}"))
    if namespace.output:
        table.assign(machine=volumes.machine()).to_csv(namespace.output, index=False)


if __name__ == "__main__":
    main()
