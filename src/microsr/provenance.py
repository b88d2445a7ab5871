"""How a result was made: run.json beside it, and the version of the code that decides it."""

from __future__ import annotations

import ast
import contextlib
import functools
import hashlib
import importlib.metadata
import json
import os
import platform
import subprocess
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import microsr

SOURCE = Path(microsr.__file__).parent
NOT_DECISIVE = {"config", "provenance", "progress", "cli", "__init__", "__main__"}
"""Modules that decide no result by themselves: settings reach a step by value."""
PACKAGES = ("numpy", "scipy", "scikit-image", "SimpleITK", "pandas", "matplotlib", "zarr", "torch", "snakemake")


@functools.cache
def code_version(module: str, alone: bool = False) -> str:
    """Fingerprint of the code that decides a step's result: `microsr.<module>` and all of microsr that it imports.

    alone: without what it imports. Comments, docstrings and layout do not count.
    """
    found: dict[str, str] = {}
    todo = [module]
    while todo:
        name = todo.pop()
        path = SOURCE / f"{name}.py"
        if name in found or name in NOT_DECISIVE or not path.is_file():
            continue
        tree = ast.parse(path.read_text(encoding="utf-8"))
        todo += [] if alone else _imports(tree)
        found[name] = ast.dump(_without_docstrings(tree))
    digest = hashlib.sha256(json.dumps(sorted(found.items())).encode())
    return digest.hexdigest()[:16]


def _imports(tree: ast.Module) -> list[str]:
    names = []
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module == "microsr":
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and (node.module or "").startswith("microsr."):
            names.append(node.module.split(".")[1])
        elif isinstance(node, ast.Import):
            names += [a.name.split(".")[1] for a in node.names if a.name.startswith("microsr.")]
    return names


def _without_docstrings(tree: ast.Module) -> ast.Module:
    for node in ast.walk(tree):
        body = getattr(node, "body", None)
        if isinstance(body, list):
            kept = [s for s in body if not (isinstance(s, ast.Expr) and isinstance(s.value, ast.Constant))]
            node.body = kept or [ast.Pass()]
    return tree


def checksum(path: Path, stop: threading.Event | None = None) -> str:
    """SHA-256 of a file, or of a folder's files with their relative names; without value once `stop` is set."""
    path = Path(path)
    digest = hashlib.sha256()
    files = [path] if path.is_file() else sorted(p for p in path.rglob("*") if p.is_file() and p.name[:1] != ".")
    for file in files:
        if file is not path:
            digest.update(file.relative_to(path).as_posix().encode() + b"\0")
        with file.open("rb") as stream:
            while (block := stream.read(1 << 20)) and not (stop and stop.is_set()):
                digest.update(block)
    return digest.hexdigest()


@contextlib.contextmanager
def checksums_beside(paths: Iterable[Path]) -> Iterator[Callable[[], dict[Path, str]]]:
    """Checksums that are computed beside the work in this context, so that a large input is not read for them afterwards.

    Yields a function that waits for them and gives them by path. An error in the work stops them.
    """
    stop = threading.Event()
    with ThreadPoolExecutor(1) as pool:
        coming = {path: pool.submit(checksum, path, stop) for path in map(Path, paths)}
        try:
            yield lambda: {path: one.result() for path, one in coming.items()}
        except BaseException:
            stop.set()
            raise


def _git(*arguments: str) -> str | None:
    try:
        run = subprocess.run(
            ["git", "-C", str(SOURCE), *arguments], capture_output=True, text=True, timeout=10, check=True
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return run.stdout.strip()


def write_run(
    path: Path,
    step: str,
    settings: Mapping[str, Any],
    inputs: Iterable[Path] | Mapping[Path, str],
    started: float,
    **facts: Any,
) -> None:
    """Write run.json: settings, input checksums, code, package versions, platform and time, and further `facts`.

    step: name of the module that made the result. inputs: paths, or their checksums by path. started: time.time() at the start.
    """
    status = _git("status", "--porcelain")
    checksums = inputs if isinstance(inputs, Mapping) else {path: checksum(path) for path in inputs}
    record = {
        "step": step,
        "settings": dict(settings),
        "inputs": {str(path): found for path, found in checksums.items()},
        "code": {
            "microsr": microsr.__version__,
            "fingerprint": code_version(step),
            "commit": _git("rev-parse", "HEAD"),
            "uncommitted_changes": None if status is None else bool(status),
        },
        "packages": {"python": platform.python_version()} | {p: importlib.metadata.version(p) for p in PACKAGES},
        "platform": platform.platform(),
        "cpus": os.cpu_count(),
        "started": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(started)),
        "seconds": round(time.time() - started, 1),
        **facts,
    }
    write_atomically(path, json.dumps(record, indent=1, ensure_ascii=False) + "\n")


def write_atomically(path: Path, text: str) -> None:
    """Write a text file so that a reader sees the old one or the new one, never a part."""
    path = Path(path)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    temporary.write_text(text, encoding="utf-8")
    temporary.replace(path)
