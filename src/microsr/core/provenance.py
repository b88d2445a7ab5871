"""How a result was made: run.json beside it."""

from __future__ import annotations

import contextlib
import hashlib
import importlib.metadata
import json
import os
import platform
import shutil
import subprocess
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import microsr
from microsr.core.code_version import SOURCE, step_version
from microsr.core.files import replacing
from microsr.core.urls import checksum_of_reading, url

PACKAGES = (
    "numpy", "scipy", "scikit-image", "SimpleITK", "nibabel", "pydicom", "tifffile", "imagecodecs", "pandas",
    "matplotlib", "zarr", "torch", "torchmetrics", "pylinac", "snakemake", "snakemake-executor-plugin-slurm",
)  # fmt: skip
"""Whose versions a record names, where they are installed."""
RUN = "run.json"
ENDINGS = (".ome.zarr", ".npy", ".csv", ".png", ".pdf", ".pt")
"""Of what the pipeline works on: a record is named without them. Formats for other programs keep theirs."""


def run_file(result: Path) -> Path:
    """Where the record of a result is: `clinical.run.json` beside `clinical.ome.zarr`, `test1.nii.gz.run.json` beside
    `test1.nii.gz`.

    A step that fills a folder, as a model's, names its record run.json, which then is its own `run_file`.
    """
    result = Path(result)
    if result.name == RUN or result.name.endswith(f".{RUN}"):
        return result
    ending = next((e for e in ENDINGS if result.name.endswith(e)), "")
    return result.with_name(f"{result.name.removesuffix(ending)}.{RUN}")


def find_run(result: Path) -> Path | None:
    """The record of a result, or of a file inside it: its own, else that of its folder; None if there is none."""
    for path in (Path(result), *Path(result).parents):
        if not path.name:
            break
        for record in (run_file(path), path.with_name(RUN)):
            if record.is_file():
                return record
    return None


def checksum(path: Path, stop: threading.Event | None = None, slices: Sequence[int] | None = None) -> str:
    """SHA-256 of a file, or of a folder's files with their relative names; without value once `stop` is set.

    slices: of a volume in the working format, these alone, with all that it says of itself. Of a URL it is that of the
    metadata and chunks that this process has read of it so far.
    """
    if address := url(path):
        return checksum_of_reading(address)
    path = Path(path)
    digest = hashlib.sha256()
    files = [path] if path.is_file() else sorted(p for p in path.rglob("*") if p.is_file() and p.name[:1] != ".")
    if slices is not None:
        files = [file for file in files if _slice_of(file.relative_to(path)) in (None, *slices)]
    for file in files:
        if file is not path:
            digest.update(file.relative_to(path).as_posix().encode() + b"\0")
        with file.open("rb") as stream:
            while (block := stream.read(1 << 20)) and not (stop and stop.is_set()):
                digest.update(block)
    return digest.hexdigest()


def _slice_of(file: Path) -> int | None:
    """The slice that a file of a volume is a chunk of (level/c/slice/row/column); None of what is no chunk."""
    *_, letter, number, _, _ = ("", "", "", "", *file.parts)
    return int(number) if letter == "c" else None


@contextlib.contextmanager
def checksums_beside(paths: Iterable[str | Path]) -> Iterator[Callable[[], dict[Path, str]]]:
    """Checksums that are computed beside the work in this context, so that a large input is not read for them
    afterwards.

    Yields a function that waits for them and gives them by path. An error in the work stops them.
    """
    stop = threading.Event()
    with ThreadPoolExecutor(1) as pool:
        coming = {path: None if url(path) else pool.submit(checksum, path, stop) for path in map(Path, paths)}
        try:
            # What is read of a URL is known when it has been.
            yield lambda: {path: one.result() if one else checksum(path) for path, one in coming.items()}
        except BaseException:
            stop.set()
            raise


def _git(*arguments: str) -> str | None:
    """What git says of the clone that the code lies in; None of an installed package, although it may lie in another
    project's clone.
    """
    if not (SOURCE.parent.parent / ".git").exists():
        return None
    try:
        run = subprocess.run(
            ["git", "-C", str(SOURCE), *arguments], capture_output=True, text=True, timeout=10, check=True
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return run.stdout.strip()


def write_run(
    results: Path | Iterable[Path],
    step: str,
    settings: Mapping[str, Any],
    inputs: Iterable[Path] | Mapping[Path, str],
    started: float,
    slices_read: Mapping[Path, Sequence[int]] | None = None,
    **facts: Any,
) -> None:
    """Write run.json: settings, input checksums, code, package versions, platform, times, and further `facts`.

    results: what was made; each has its record in its `run_file`. step: one of `core.code_version.STEPS`. inputs:
    paths, or their checksums by path. started: time.time() at the start. slices_read: of inputs that are large volumes,
    the slices that count; only they are in the checksum. The processor's time is that of this process and of those it
    has waited for, since its start. Paths are written relative to the working folder, or absolute where they are given
    so and lie outside it.
    """
    slices_read = slices_read or {}
    if not isinstance(inputs, Mapping):
        inputs = {path: checksum(path, slices=slices_read.get(path)) for path in inputs}
    how = {
        "code": {
            "microsr": microsr.__version__,
            "fingerprint": step_version(step),
            **_commit(),
        },
        "packages": {"python": platform.python_version(), **_versions()},
        "platform": platform.platform(),
        "cpus": os.cpu_count(),
        "started": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(started)),
        "seconds": round(time.time() - started, 1),
        "cpu_seconds": round(sum(os.times()[:4]), 1),
        **facts,
    }
    for file in dict.fromkeys(map(run_file, [results] if isinstance(results, (str, Path)) else results)):
        here = absolute(file).is_relative_to(Path.cwd())  # else nothing says later what a relative path starts from
        record = {"record": _recorded_path(file, here), "step": step, "settings": dict(settings)}
        record["inputs"] = {_recorded_path(path, here): found for path, found in inputs.items()}
        if slices_read:
            record["slices_read"] = {_recorded_path(path, here): list(slices) for path, slices in slices_read.items()}
        write_atomically(file, json.dumps(record | how, indent=1, ensure_ascii=False) + "\n")


def _commit() -> dict[str, Any]:
    """The commit of the code, and whether it was changed since; both None where there is no clone."""
    status = _git("status", "--porcelain")
    return {
        "commit": _git("rev-parse", "HEAD"),
        "uncommitted_changes": None if status is None else bool(status),
    }


def describe_software() -> str:
    """What whoever looks into an error must know: versions, commit, machine; lines for `microsr --version`."""
    commit, packages = _commit(), _versions()
    changes = " with uncommitted changes" if commit["uncommitted_changes"] else ""
    clone = f"a clone at commit {commit['commit'][:12]}{changes}" if commit["commit"] else "installed"
    gpu = "nvidia-smi is there" if shutil.which("nvidia-smi") else "no nvidia-smi"
    return "\n".join(
        [
            f"microsr {microsr.__version__}, {clone}",
            f"Python {platform.python_version()}, {platform.platform()}, {os.cpu_count()} CPUs, {gpu}",
            ", ".join(f"{name} {version}" for name, version in packages.items()),
        ]
    )


def _recorded_path(path: Path, here: bool) -> str:
    """A path as a record names it. here: whether the record lies in the working folder."""
    if address := url(path):
        return address
    whole = absolute(path)
    if here and whole.is_relative_to(Path.cwd()):
        return whole.relative_to(Path.cwd()).as_posix()
    return (Path(path) if here else whole).as_posix()


def absolute(path: Path) -> Path:
    """The path from the root on, without `..`; links are not followed."""
    return Path(os.path.abspath(path))  # noqa: PTH100


def _versions() -> dict[str, str]:
    found = {}
    for package in PACKAGES:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            found[package] = importlib.metadata.version(package)
    return found


def write_atomically(path: Path, text: str) -> None:
    """Write a text file so that a reader sees the old one or the new one, never a part."""
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")
