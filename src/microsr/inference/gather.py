"""Put the blocks of slices that several jobs made of one super-resolved volume together, as one job would have made it.

In: the volumes of `microsr superresolve --parts N --part K`, each of the full size with its own slices' chunks only,
and their run.json. Out: one volume that has all chunks, and run.json. Nothing is computed or, on one disk, copied:
files are linked.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any

from microsr.core.errors import UserError
from microsr.core.files import link_or_copy, replacing
from microsr.core.provenance import run_file, write_run

SAME = ("settings", "inputs")
"""What the records of all parts must agree in."""


def gather(parts: list[Path], output: Path) -> None:
    """Make the volume `output` of its `parts`, which stay as they are.

    Raises
    ------
    UserError
        A part is missing, is there twice, or was made in another way than the others.
    """
    started = time.time()
    records = [_record(part) for part in parts]
    first = records[0]
    for part, record in zip(parts, records, strict=True):
        if differing := [key for key in SAME if record[key] != first[key]]:
            raise UserError(f"{part} and {parts[0]} differ in their {' and '.join(differing)}; make the parts again")
    numbers = sorted(record["part"][0] for record in records)
    count = first["part"][1]
    if numbers != list(range(1, count + 1)) or any(record["part"][1] != count for record in records):
        raise UserError(f"{output}: needs parts 1 to {count}, each once; given are {numbers}")

    with replacing(output) as whole:
        for part in parts:
            _link(part, whole)
    made = [{key: record[key] for key in ("part", "device", "platform", "started", "seconds")} for record in records]
    write_run(output, "superresolve", first["settings"], first["inputs"], started, parts=made)


def _record(part: Path) -> dict[str, Any]:
    file = run_file(part)
    try:
        record = json.loads(file.read_text(encoding="utf-8"))
        if len(record["part"]) != 2:
            raise ValueError("its part is not one of a number")
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(
            f"{file}: does not say which part it is ({error}); make {part} with `microsr superresolve --parts N --part "
            "K`"
        ) from None
    return record


def _link(part: Path, whole: Path) -> None:
    """Put the files of a part in their places in the whole."""
    for file in sorted(part.rglob("*")):
        place = whole / file.relative_to(part)
        if file.is_dir():
            place.mkdir(parents=True, exist_ok=True)
        elif not place.exists():
            link_or_copy(file, place)


def arguments(parser: argparse.ArgumentParser) -> None:
    """Flags of `microsr gather`."""
    parser.add_argument("parts", type=Path, nargs="+", help="volumes of `microsr superresolve --parts N --part K`")
    parser.add_argument("--output", type=Path, required=True, help="whole volume, OME-Zarr")


def main(namespace: argparse.Namespace) -> None:
    """Run `microsr gather`."""
    gather(namespace.parts, namespace.output)
