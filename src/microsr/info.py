"""Say what a file or folder is: a scan, a volume (whole or partly written), a patch set, a model, a training's state.

In: any of these. Out: text for people, or JSON. Nothing is read whole but a model; of a volume three slices.
"""

from __future__ import annotations

import argparse
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import ValidationError

from microsr import config
from microsr.config.sheet import Scan
from microsr.core.errors import UserError
from microsr.core.provenance import checksum, find_run
from microsr.core.urls import url
from microsr.formats.outputs import read_journal
from microsr.formats.stores.kinds import is_store
from microsr.volume.storage import Volume, is_volume, open_levels, open_mask, open_volume

STATE = re.compile(r"step-(\d+)\.pt")
"""Name of a training's state, and its step."""
MODELS = (".pt", ".safetensors")
"""Endings of model files."""


def arguments(parser: argparse.ArgumentParser) -> None:
    """Flags of `microsr info`."""
    parser.add_argument(
        "path",
        type=Path,
        help="scan (file, folder or URL), volume, patches (.npy), model (.pt, .safetensors) or training state",
    )
    parser.add_argument("--json", action="store_true", help="the same as JSON")
    parser.add_argument("--series", help="DICOM SeriesInstanceUID, or path of a data set in HDF5, if there are several")
    parser.add_argument("--slices", help="of a scan: range of slices first:end, end excluded")
    parser.add_argument("--spacing", help="of images without one: mm as X, XxY or XxYxZ")
    parser.add_argument("--resample", help="even: put DICOM slices that are uneven or tilted on an even grid")
    parser.add_argument("--level", type=int, help="resolution level of an OME-Zarr or N5 store, 0 the finest")


def main(namespace: argparse.Namespace) -> None:
    """Run `microsr info`."""
    words = {name: getattr(namespace, name) for name in ("series", "slices", "spacing", "resample", "level")}
    found = describe(namespace.path, **words)
    if namespace.json:
        print(json.dumps(found, indent=1, ensure_ascii=False))
        return
    lines = _lines(found)
    width = max(len(name) for name, _ in lines)
    print("\n".join(f"{name:{width}}  {text}" for name, text in lines))


def describe(path: Path, **words: Any) -> dict[str, Any]:
    """What is at `path`, as plain JSON values; "kind" says which of the below it is. Lengths in mm, in the order x, y,
    z.

    words: series, slices, spacing, resample and level of a scan, as the case sheet gives them.

    Raises
    ------
    UserError
        There is nothing, or nothing that microsr knows.
    """
    path = Path(path)
    unfinished = path.with_name(path.name.removesuffix(".partial"))
    if (path.name.endswith(".partial") or not path.exists()) and (journal := read_journal(unfinished)):
        found = _partial(unfinished, journal)
    elif not path.exists() and not url(path):
        raise UserError(f"{path}: does not exist; correct the path")
    elif is_volume(path):
        found = _volume(path)
    elif path.suffix == ".npy":
        found = _patches(path)
    elif not url(path) and not is_store(path) and (states := _states(path)):
        found = _training(states)
    elif path.suffix in MODELS:
        found = _model(path)
    else:
        try:
            scan = Scan(path=str(path), **words)
        except ValidationError as error:
            raise UserError(config.describe(error, "command line")) from None
        found = _scan(scan)
    return json.loads(json.dumps({"path": url(path) or str(path), **found}, default=_plain))


def _plain(value: Any) -> Any:
    return value.item() if isinstance(value, np.generic) else str(value)


def _volume(path: Path) -> dict[str, Any]:
    volume = open_volume(path)
    attributes = dict(volume.attributes)
    source = attributes.pop("source", None)
    try:
        mask = open_mask(path) is not None
    except UserError:
        mask = False
    return {
        "kind": "volume",
        "format": "OME-Zarr",
        **{key: attributes.pop(key) for key in ("case", "modality") if key in attributes},
        **_grid(volume),
        "levels": len(open_levels(path, mode="r")),
        "mask": mask,
        **attributes,
        **({"imported from": source} if source else {}),
        **_read_making(path),
    }


def _scan(scan: Scan) -> dict[str, Any]:
    from microsr.formats.readers import read_scan

    volume = read_scan(scan)
    attributes = dict(volume.attributes)
    source = attributes.pop("source", {})
    return {"kind": "scan", "format": source.get("format"), **_grid(volume), **attributes, "header": source}


def _grid(volume: Volume) -> dict[str, Any]:
    """Geometry, unit and values."""
    chosen = sorted({int(z) for z in np.linspace(0, volume.shape[0] - 1, 3)})
    images = [np.asarray(volume.array[z]) for z in chosen]
    return {
        "size": list(volume.shape[::-1]),
        "spacing": volume.spacing,
        "origin": volume.origin,
        "direction": volume.direction,
        "unit": volume.unit,
        "type": str(images[0].dtype),
        "values": {
            "slices": chosen,
            "lowest": min(image.min() for image in images),
            "mean": round(float(np.mean([image.mean() for image in images])), 1),
            "highest": max(image.max() for image in images),
        },
    }


def _partial(output: Path, journal: dict[str, Any]) -> dict[str, Any]:
    facts = dict(journal["fingerprint"]["output"])
    shape = facts.pop("shape")
    attributes = facts.pop("attributes")
    return {
        "kind": "partly written volume",
        "will be": str(output),
        "slices written": journal["done"],
        "slices in all": shape[0],
        "size": shape[::-1],
        **facts,
        **attributes,
        "how to go on": "give the command that wrote it again",
    }


def _patches(path: Path) -> dict[str, Any]:
    from microsr.preprocessing.patch_files import open_patches, read_index

    patches = open_patches(path)
    found: dict[str, Any] = {"kind": "patches", "number": len(patches), "size": list(patches.shape[:0:-1])}
    found["type"] = str(patches.dtype)
    few = patches[np.linspace(0, len(patches) - 1, 100).astype(int)]
    found["values"] = {"lowest": few.min(), "mean": round(float(few.mean()), 1), "highest": few.max()}
    index = path.with_suffix(".csv")
    if index.is_file():
        table = read_index(index)
        found["from slices"] = [table["slice"].min(), table["slice"].max()]
    return found | {"checksum": checksum(path)} | _read_making(path)


def _model(path: Path) -> dict[str, Any]:
    # Only here, as above: PyTorch takes seconds to load, and what is asked of may be no model.
    from microsr.networks.safetensors_file import load_model

    g1, facts = load_model(path)
    provenance = facts.pop("provenance")
    return {
        "kind": "model",
        "method": facts.pop("kind", "cyclegan"),
        "network": facts.pop("network"),
        "scale": g1.scale,
        "parameters": sum(p.numel() for p in g1.parameters()),
        "halo": g1.halo,
        **facts,
        "trained on": [one[0] for one in _list(provenance.get("inputs")) if _list(one)],
        "settings": provenance.get("settings"),
        "microsr": provenance.get("microsr"),
        "code": provenance.get("code"),
        "checksum": checksum(path),
    }


def _list(value: Any) -> list:
    return list(value) if isinstance(value, list | tuple) else []


def _states(path: Path) -> list[Path]:
    """The states that a training may go on from, if `path` is one of them or their folder."""
    if path.is_file():
        return [path] if STATE.fullmatch(path.name) else []
    return sorted(file for file in path.iterdir() if STATE.fullmatch(file.name))


def _training(states: list[Path]) -> dict[str, Any]:
    found: dict[str, Any] = {
        "kind": "state of an unfinished training",
        "step": int(STATE.fullmatch(states[-1].name)[1]),
        "files": [file.name for file in states],
    }
    try:
        identity = json.loads((states[-1].parent / "settings.json").read_text(encoding="utf-8"))
        found |= {"trained on": [name for name, _ in identity["inputs"]], "settings": identity["settings"]}
        found["code"] = identity["code"]
    except (OSError, ValueError, KeyError, TypeError):
        found["settings"] = None
    return found


def _read_making(path: Path) -> dict[str, Any]:
    """How it was made, from the run.json beside it."""
    record = find_run(path)
    try:
        run = json.loads(record.read_text(encoding="utf-8")) if record else {}
        chosen = {key: run[key] for key in ("step", "settings", "started", "seconds")}
        return {"made by": chosen | {"inputs": list(run["inputs"]), "code": run["code"]}}
    except (OSError, ValueError, KeyError, TypeError):
        return {}


def _lines(facts: dict[str, Any], before: str = "") -> list[tuple[str, str]]:
    """Names and values for people: a name for each level of a nested fact."""
    lines = []
    for key, value in facts.items():
        name = f"{before}{key}"
        if isinstance(value, dict):
            lines += _lines(value, f"{name}.")
        else:
            lines.append((name, _text(value) + (" mm" if key in ("spacing", "origin") else "")))
    return lines


def _text(value: Any) -> str:
    if value is None:
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value + 0.0:.6g}"  # no -0
    if isinstance(value, list):
        if len(value) > 12:
            return f"{_text(value[:3])} ... {_text(value[-1])} ({len(value)})"
        return " ".join(map(_text, value)) or "none"
    return str(value)
