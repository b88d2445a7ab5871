"""Training state on disk, so that a killed training goes on where it was.

The state lives in a folder that Snakemake does not know (it deletes the outputs of a failed job), one sub-folder for
each fingerprint of settings, data and code: a changed setting never continues from an old state. The files are archives
as a model's is (see `model_file`).
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from microsr.core.progress import logger
from microsr.core.provenance import checksum, write_atomically
from microsr.networks.model_file import STATE, read_archive, reason, write_archive

KEPT = 2
NAMED = 3
"""Differences that a line names before it says how many more there are."""


def identify(settings: Mapping[str, Any], inputs: Sequence[Path], code: str) -> dict[str, Any]:
    """What makes a training what it is, as plain JSON values: settings, [short name, SHA-256] of each input, code
    version.
    """
    files = [["/".join(path.parts[-2:]), checksum(path)] for path in inputs]
    return json.loads(json.dumps({"settings": settings, "inputs": files, "code": code}))


def state_folder(state: Path, identity: Mapping[str, Any]) -> Path:
    """The sub-folder of `state` for the training with this `identity`; a new one gets the identity as settings.json.

    Names of files do not count: data that were moved are the same data.
    """
    content = [identity["settings"], [sha for _, sha in identity["inputs"]], identity["code"]]
    folder = state / hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:16]
    folder.mkdir(parents=True, exist_ok=True)
    if not (folder / "settings.json").exists():
        write_atomically(folder / "settings.json", json.dumps(identity, indent=1, ensure_ascii=False) + "\n")
    return folder


def explain_fresh(folder: Path, identity: Mapping[str, Any]) -> str | None:
    """What keeps the training with this `identity` and state folder from going on from the newest state in another
    folder.

    One line; None where `folder` has a state itself, or no folder beside it has one.
    """
    states = sorted(folder.parent.glob("*/step-*.pt"), key=lambda path: path.stat().st_mtime)
    if not states or any(path.parent == folder for path in states):
        return None
    other = states[-1].parent
    try:
        found = _differences(json.loads((other / "settings.json").read_text(encoding="utf-8")), identity)
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return f"the training in {other.name} does not say how it was made"
    more = f", and {len(found) - NAMED} more" if len(found) > NAMED else ""
    return f"{', '.join(found[:NAMED])}{more} (compared with the training in {other.name})"


def _differences(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    was, now = _leaves(old["settings"]), _leaves(new["settings"])
    pairs = {key: (was.get(key, "not there"), now.get(key, "not there")) for key in was | now}
    found = [f"{key} was {before}, now {after}" for key, (before, after) in pairs.items() if before != after]
    (names, sums), (new_names, new_sums) = (zip(*identity["inputs"], strict=True) for identity in (old, new))
    gone = {name for name, sha in zip(names, sums, strict=True) if sha not in new_sums}
    added = {name for name, sha in zip(new_names, new_sums, strict=True) if sha not in sums}
    found += [f"the patches of {name} changed" for name in sorted(gone & added)]
    found += [f"the patches of {name} are gone" for name in sorted(gone - added)]
    found += [f"the patches of {name} are new" for name in sorted(added - gone)]
    if sums != new_sums and not gone | added:
        found.append("the patches are in another order")
    return found + (["the training code changed"] if old["code"] != new["code"] else [])


def _leaves(settings: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    found = {}
    for key, value in settings.items():
        found |= _leaves(value, f"{prefix}{key}.") if isinstance(value, dict) else {f"{prefix}{key}": value}
    return found


def save_state(folder: Path, step: int, state: dict[str, Any]) -> None:
    """Write the state after `step` steps, and only then drop all but the newest two.

    Raises
    ------
    OSError
        The disk is full, say; the states already there are untouched.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for remains in folder.glob(".step-*.part"):  # of an attempt that was killed while writing
        remains.unlink()
    path = folder / f"step-{step:09d}.pt"
    write_archive(path, {"format": STATE, "state": state})
    # A state beyond this step was too damaged to go on from; counted in, it would push a good one out.
    kept = sorted(other for other in folder.glob("step-*.pt") if other <= path)[-KEPT:]
    for other in set(folder.glob("step-*.pt")).difference(kept):
        other.unlink()


def load_state(folder: Path, device: torch.device | str) -> dict[str, Any] | None:
    """The newest undamaged state in `folder`, its tensors on `device`, or None; a warning names damaged ones."""
    damaged, state = [], None
    for path in sorted(folder.glob("step-*.pt"), reverse=True):
        try:
            state = read_archive(path, device)["state"]
            break
        except (PermissionError, MemoryError, torch.OutOfMemoryError):
            raise  # the file may be sound
        except Exception as error:  # whatever a damaged file provokes, the one before it is worth a try
            damaged.append(f"{path} is damaged ({reason(error)})")
    if damaged:
        done = "no readable state is left; starting fresh"
        if state is not None:
            done = f"going on from the one before it, step {int(path.stem.removeprefix('step-'))}"
        logger.warning("%s; %s", "; ".join(damaged), done)
    return state
