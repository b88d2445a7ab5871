"""Two folders of results, bit for bit: which files differ, and in what.

Left out is what says how and when the work was done: logs, benchmarks, states of trainings, hidden files, the report,
and in records the times and the speed. Of the figure and table of efficiency, which show measured speed, only their
being there counts.
"""

import json
from pathlib import Path
from typing import Any

import yaml

LEFT_OUT = ("logs", "benchmarks", ".state")
"""Folders of an experiment that hold no result."""
TIMES = ("started", "seconds", "cpu_seconds", "attempts", "speed")
"""Of a record, run.json: when and how fast."""
TIMED = ("figures/efficiency", "tables/efficiency")
"""Results that show measured speed."""
SHOWN = 5
"""Differences of one file that are named."""


def differences(first: Path, second: Path, partial: bool = False) -> list[str]:
    """What differs between two folders results/<experiment>: a line a file, empty if nothing does.

    partial: the second holds a part of the results only; what it lacks does not count.

    Raises
    ------
    ValueError
        A folder holds no result: that two empty folders are the same says nothing.
    """
    files = [_files(folder) for folder in (first, second)]
    for folder, found in zip((first, second), files, strict=True):
        if not found:
            raise ValueError(f"{folder} holds no result")
    lines = [] if partial else [f"{name}: only in {first}" for name in sorted(files[0] - files[1])]
    lines += [f"{name}: only in {second}" for name in sorted(files[1] - files[0])]
    for name in sorted(files[0] & files[1]):
        if not name.startswith(TIMED) and (what := _difference(first / name, second / name)):
            lines.append(f"{name}: {what}")
    return lines


def _files(folder: Path) -> set[str]:
    """Names of the files that count, relative to the folder."""
    found = (path.relative_to(folder) for path in folder.rglob("*") if path.is_file())
    return {
        path.as_posix()
        for path in found
        if path.parts[0] not in LEFT_OUT
        and path.name != "report.html"
        and not any(part.startswith(".") for part in path.parts)
    }


def _difference(first: Path, second: Path) -> str | None:
    """What differs between two files; None if nothing that counts does."""
    contents = [path.read_bytes() for path in (first, second)]
    if contents[0] == contents[1]:
        return None
    if first.name.endswith("run.json"):
        return _values(*(_record(json.loads(content)) for content in contents))
    if first.name == "config.yaml":
        settings = [yaml.safe_load(content) for content in contents]
        for one in settings:
            one.pop("compute", None)  # how the work is done
        return _values(*settings)
    try:
        texts = [content.decode().splitlines() for content in contents]
    except UnicodeDecodeError:
        return _bytes(*contents)
    if len(texts[0]) != len(texts[1]):
        return f"{len(texts[0])} against {len(texts[1])} lines"
    lines = [number for number, (a, b) in enumerate(zip(*texts, strict=True), start=1) if a != b]
    if not lines:
        return "line ends differ"
    number = lines[0]
    first, second = (text[number - 1] for text in texts)
    return f"{len(lines)} of {len(texts[0])} lines, first line {number}: {first!r}, {second!r}"


def _record(run: dict[str, Any]) -> dict[str, Any]:
    """A record without times; the checksum of another record, which has times, does not count."""
    kept = {key: value for key, value in run.items() if key not in TIMES}
    inputs = kept.get("inputs", {})
    return kept | {"inputs": {path: "" if path.endswith("run.json") else sha for path, sha in inputs.items()}}


def _values(first: Any, second: Any) -> str | None:
    """The values that differ, by their dotted names."""
    found = [f"{name}: {a!r}, {b!r}" for name, a, b in _pairs(first, second) if a != b]
    more = f"; and {len(found) - SHOWN} more" if len(found) > SHOWN else ""
    return "; ".join(found[:SHOWN]) + more or None


def _pairs(first: Any, second: Any, name: str = "") -> list[tuple[str, Any, Any]]:
    if not (isinstance(first, dict) and isinstance(second, dict)):
        return [(name, first, second)]
    nowhere = "(not there)"
    keys = dict.fromkeys([*first, *second])
    return [
        pair
        for key in keys
        for pair in _pairs(first.get(key, nowhere), second.get(key, nowhere), f"{name}.{key}" if name else str(key))
    ]


def _bytes(first: bytes, second: bytes) -> str:
    if len(first) != len(second):
        return f"{len(first)} against {len(second)} bytes"
    differing = [number for number, (a, b) in enumerate(zip(first, second, strict=True)) if a != b]
    return f"{len(differing)} of {len(first)} bytes, the first at {differing[0]}"
