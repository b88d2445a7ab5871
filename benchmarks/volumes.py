"""Seconds and memory of importing a full-size case, beside merely reading and writing the same files, in the same run.

    python3 -m venv bench
    bench/bin/pip install -r requirements.lock && bench/bin/pip install --no-deps -e .
    bench/bin/python benchmarks/volumes.py --output volumes.csv   # about 5 minutes; --share 0.05 --repeats 1 for a try

It makes a uCT (a round field of view, a specimen of noisy foam; 1024 x 1024 x 1082, 2.3 GB) and a chest CT (noise,
lungs with vessels, a table; 512 x 512 x 554, 290 MB) in a scratch folder, about 6 GB in all, so no data are needed.
`microsr volumes` finds the masks, calibrates, resamples, packs and writes; its peer is SimpleITK's ReadImage (for DICOM
ImageSeriesReader) and WriteImage to an uncompressed MetaImage. Both are processes of their own and are timed from their
start until all is on the disk (sync). They take turns, and the median of the repeats counts. The caches are not
dropped: the files have just been written, and lie in memory as far as there is room. Peak memory is the process's, with
the pages of its files (ru_maxrss).
"""

from __future__ import annotations

import argparse
import os
import platform
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path

import nibabel
import numpy as np
import pandas as pd
import SimpleITK as sitk

SIZES = {"micro": (1082, 1024, 1024), "clinical": (554, 512, 512)}
SPACINGS = {"micro": (0.05, 0.05, 0.05), "clinical": (0.68, 0.68, 0.625)}
CASES = {
    "clinical CT, NIfTI": ("clinical.nii", ["clinical"]),
    "clinical CT, DICOM": ("dicom", ["clinical"]),
    "uCT, MetaImage, native": ("micro.mhd", ["micro", "--sampling", "native"]),
    "uCT, MetaImage, matched to 0.078 mm": ("micro.mhd", ["micro", "--matched_spacing_mm", "0.078"]),
    "uCT, NIfTI, native": ("micro.nii", ["micro", "--sampling", "native"]),
}
USUAL = [name for name in CASES if name != "uCT, NIfTI, native"]
PEER = """
import sys, SimpleITK as sitk
source, output = sys.argv[1:]
if source.endswith("dicom"):
    reader = sitk.ImageSeriesReader()
    reader.SetFileNames(reader.GetGDCMSeriesFileNames(source))
    image = reader.Execute()
else:
    image = sitk.ReadImage(source)
sitk.WriteImage(image, output)
"""
DICOM_TAGS = {
    "0008|0016": "1.2.840.10008.5.1.4.1.1.2", "0008|0060": "CT", "0020|000d": "1.2.826.0.1.3680043.2.9",
    "0020|000e": "1.2.826.0.1.3680043.2.1", "0020|0037": r"1\0\0\0\1\0", "0018|0050": "0.625",
    "0028|1053": "1", "0028|1052": "-1024",
}  # fmt: skip


def speckle(random: np.random.Generator, image: np.ndarray, noise: np.ndarray) -> np.ndarray:
    """An image with noise, cut out of a larger one at a random place."""
    row, column = random.integers(0, np.array(noise.shape) - image.shape)
    return image + noise[row : row + image.shape[0], column : column + image.shape[1]]


def micro_slices(shape: tuple[int, int, int]) -> Iterator[np.ndarray]:
    """Grey values, int16: air 1000, tissue 5000, 0 outside the round field of view."""
    from scipy.ndimage import gaussian_filter, zoom

    random, size = np.random.default_rng(0), shape[1]
    foam = gaussian_filter(random.standard_normal((48, size // 2, size // 2)).astype(np.float32), 3, mode="wrap")
    walls = np.abs(foam) < np.quantile(np.abs(foam), 0.3)
    noise = random.normal(0, 250, (size + 64, size + 64)).astype(np.int16)
    row, column = np.indices(shape[1:]) / size - 0.5
    field, specimen = np.hypot(row, column) < 0.5, np.hypot(row / 0.4, column / 0.44) < 1
    for z in range(shape[0]):
        tissue = zoom(walls[z % 48], 2, order=0) & specimen
        yield np.where(field, speckle(random, np.where(tissue, 5000, 1000).astype(np.int16), noise), 0)


def clinical_slices(shape: tuple[int, int, int]) -> Iterator[np.ndarray]:
    """HU, int16: air with noise, a body with two lungs that grow and shrink along it, vessels, a table, -1024 at the
    corners.
    """
    from scipy.ndimage import gaussian_filter

    random, size = np.random.default_rng(0), shape[1]
    blobs = gaussian_filter(random.standard_normal((64, size, size)).astype(np.float32), 2, mode="wrap")
    vessels = blobs > np.quantile(blobs, 0.96)
    noise = random.normal(0, 40, (size + 64, size + 64)).astype(np.int16)
    row, column = np.indices(shape[1:]) / size - 0.5
    field, body = np.hypot(row, column) < 0.5, np.hypot(row / 0.37, column / 0.45) < 1
    for z in range(shape[0]):
        image = np.where(body, 40, -1000).astype(np.int16)
        width = max(np.sin(np.pi * (z / shape[0] - 0.1) / 0.7), 0.05) ** 0.5
        for side in (-0.25, 0.25):
            lung = np.hypot(row / (0.24 * width), (column - side) / (0.13 * width)) < 1
            image[lung] = np.where(vessels[z % 64], 30, -850)[lung]
        image[(row > 0.44) & (row < 0.46) & (np.abs(column) < 0.4)] = -200
        yield np.where(field, np.maximum(speckle(random, image, noise), -1024), -1024)


def make(folder: Path, share: float, files: list[str]) -> None:
    """The `files` of the cases, slice by slice; share: of the slices of a full-size case."""
    makers = {"micro": micro_slices, "clinical": clinical_slices}
    for modality in {"micro" if file.startswith("micro") else "clinical" for file in files}:
        slices, rows, columns = SIZES[modality]
        count = max(8, round(share * slices))
        raw = folder / f"{modality}.raw"
        with raw.open("wb") as stream:
            for image in makers[modality]((count, rows, columns)):
                stream.write(image)
        x, y, z = SPACINGS[modality]
        if f"{modality}.nii" in files:
            header = nibabel.Nifti1Header()
            header.set_data_dtype(np.int16)
            header.set_data_shape((columns, rows, count))
            header.set_zooms((x, y, z))
            header.set_sform(np.diag([-x, -y, z, 1]), 1)
            header.set_xyzt_units("mm")
            header["magic"], header["vox_offset"] = b"n+1", 352
            with (folder / f"{modality}.nii").open("wb") as stream, raw.open("rb") as voxels:
                stream.write(header.binaryblock.ljust(352, b"\0"))
                shutil.copyfileobj(voxels, stream)
        if "dicom" in files and modality == "clinical":
            (folder / "dicom").mkdir()
            for number, image in enumerate(np.memmap(raw, np.int16, shape=(count, rows, columns))):
                write_dicom(folder / "dicom" / f"{number:04}.dcm", image, number)
        (folder / f"{modality}.mhd").write_text(
            "ObjectType = Image\nNDims = 3\nBinaryData = True\nBinaryDataByteOrderMSB = False\n"
            f"ElementSpacing = {x} {y} {z}\nDimSize = {columns} {rows} {count}\n"
            f"ElementType = MET_SHORT\nElementDataFile = {modality}.raw\n"
        )


def write_dicom(path: Path, image: np.ndarray, number: int) -> None:
    slice_ = sitk.GetImageFromArray(image)
    slice_.SetSpacing(SPACINGS["clinical"][:2])
    place = {
        "0020|0032": f"0\\0\\{number * SPACINGS['clinical'][2]}",
        "0008|0018": f"1.2.826.0.1.3680043.2.1.{number + 1}",
    }
    for tag, value in (DICOM_TAGS | place).items():
        slice_.SetMetaData(tag, value)
    writer = sitk.ImageFileWriter()
    writer.KeepOriginalImageUIDOn()
    writer.SetFileName(str(path))
    writer.Execute(slice_)


def measure_command(command: list[str]) -> tuple[float, float, float]:
    """Seconds of a process until all is on the disk, those of its processor time, and its peak memory in MB."""
    os.sync()
    started = time.perf_counter()
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    errors = process.stderr.read()
    _, status, usage = os.wait4(process.pid, 0)
    os.sync()
    seconds = time.perf_counter() - started
    if status:
        raise SystemExit(f"{' '.join(command[:4])}: {errors}")
    return seconds, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1e3


def megabytes(path: Path) -> float:
    files = path.iterdir() if path.is_dir() else [path.with_suffix(".raw") if path.suffix == ".mhd" else path]
    return sum(file.stat().st_size for file in files) / 1e6


def compare(folder: Path, name: str, repeats: int) -> dict[str, float | str]:
    """A row of the table: microsr and its peer, which take turns."""
    file, flags = CASES[name]
    source = folder / file
    found: dict[str, list[tuple[float, float, float]]] = {"microsr": [], "peer": []}
    for repeat in range(repeats):
        output = folder / f"out{repeat}" / f"{flags[0]}.ome.zarr"
        command = [sys.executable, "-m", "microsr", "volumes", flags[0], "--case", "a", "--input", str(source)]
        found["microsr"].append(measure_command([*command, "--output", str(output), *flags[1:]]))
        shutil.rmtree(output.parent)
        found["peer"].append(measure_command([sys.executable, "-c", PEER, str(source), str(folder / "peer.mha")]))
        (folder / "peer.mha").unlink()
    (seconds, processor, peak), (peer_seconds, peer_processor, peer_peak) = (
        tuple(statistics.median(one) for one in zip(*rows, strict=True)) for rows in found.values()
    )
    return {
        "case": name,
        "megabytes": megabytes(source),
        "seconds": seconds,
        "peer_seconds": peer_seconds,
        "times_the_peer": seconds / peer_seconds,
        "megabytes_per_second": megabytes(source) / seconds,
        "processor_seconds": processor,
        "peer_processor_seconds": peer_processor,
        "peak_mb": peak,
        "peer_peak_mb": peer_peak,
    }


def machine() -> str:
    """Processor and versions, in one line."""
    facts = Path("/proc/cpuinfo")
    lines = facts.read_text(encoding="utf-8").splitlines() if facts.exists() else []
    names = [line.split(":")[1].strip() for line in lines if line.startswith("model name")] or [platform.machine()]
    versions = ", ".join(f"{package} {metadata.version(package)}" for package in ("SimpleITK", "numpy", "zarr"))
    return f"{names[0]}, {os.cpu_count()} cores, Python {platform.python_version()}, {versions}"


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--cases", nargs="+", choices=CASES, default=USUAL, metavar="CASE", help=f"of: {'; '.join(CASES)}"
    )
    parser.add_argument("--share", type=float, default=1.0, help="of the slices of a full-size case")
    parser.add_argument("--repeats", type=int, default=3, help="measurements of each, of which the median counts")
    parser.add_argument("--folder", type=Path, help="where to write (default: the system's temporary folder)")
    parser.add_argument("--output", type=Path, help="where the table is written (.csv)")
    parser.add_argument("--make", type=Path, help=argparse.SUPPRESS)
    namespace = parser.parse_args()
    files = [CASES[case][0] for case in namespace.cases]
    if namespace.make:
        make(namespace.make, namespace.share, files)
        return
    print(machine())
    with tempfile.TemporaryDirectory(dir=namespace.folder) as name:
        # In a process of its own, as the peak memory of a process counts from that of the one that starts it.
        made = [sys.executable, __file__, "--make", name, "--share", str(namespace.share), "--cases", *namespace.cases]
        subprocess.run(made, check=True)
        table = pd.DataFrame([compare(Path(name), case, namespace.repeats) for case in namespace.cases])
    print(table.set_index("case").T.to_string(float_format=lambda value: f"{value:.4g}"))
    if namespace.output:
        table.assign(machine=machine()).to_csv(namespace.output, index=False)


if __name__ == "__main__":
    main()
