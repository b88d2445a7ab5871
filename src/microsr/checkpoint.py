"""Training state on disk, so that a killed training goes on where it was, and the trained model as one file.

The state lives in a folder that Snakemake does not know (it deletes the outputs of a failed job), one sub-folder for each
fingerprint of settings, data and code: a changed setting never continues from an old state. Both kinds of file are torch's
zip archives, written whole or not at all; reading checks their checksums, to which torch.load pays no heed.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import os
import pickle
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import torch
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError
from torch import Tensor, nn

from microsr import SCALE, UserError, config
from microsr.networks import FAMILIES, build_g1
from microsr.progress import logger
from microsr.provenance import checksum, write_atomically

KEPT = 2
STATE, MODEL, VERSION = "microsr training state", "microsr generator", 2
GIVE = "give the generator.pt of a trained model"
ZIP = b"PK\x03\x04"
NAMED = 3
"""Differences that a line names before it says how many more there are."""


def _rising(window: list[float]) -> list[float]:
    if not window[0] < window[1]:
        raise ValueError("must rise from the first value to the second")
    return window


class Facts(BaseModel):
    """What a model file says about its model beside the weights."""

    model_config = ConfigDict(strict=True, allow_inf_nan=False)

    network: str
    """Family, as in train.network."""
    window_hu: Annotated[list[float], Field(min_length=2, max_length=2), AfterValidator(_rising)]
    """HU that G1 sees as -1 and 1."""
    seed: Annotated[int, Field(ge=0)]
    """Of the training; decides the noise of super-resolution too."""
    steps: Annotated[int, Field(ge=0)]
    """Trained for."""
    clinical_spacing_mm: Annotated[float, Field(gt=0)] | None
    """Pixel spacing of the clinical patches; None: unknown."""
    micro_spacing_mm: Annotated[float, Field(gt=0)] | None
    """Pixel spacing of the uCT patches; None: unknown."""
    provenance: dict[str, Any]
    """Settings, code, version, and the training set's files with their checksums."""


class _ModelFile(BaseModel):
    """What a model file holds beside its format and version."""

    model_config = ConfigDict(strict=True, arbitrary_types_allowed=True)

    facts: Facts
    architecture: dict[str, Any]
    weights: dict[str, Tensor]


def identify(settings: Mapping[str, Any], inputs: Sequence[Path], code: str) -> dict[str, Any]:
    """What makes a training what it is, as plain JSON values: settings, [short name, SHA-256] of each input, code version."""
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
    """What keeps the training with this `identity` and state folder from going on from the newest state in another folder.

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
    _write(path, {"format": STATE, "state": state})
    # A state beyond this step was too damaged to go on from; counted in, it would push a good one out.
    kept = sorted(other for other in folder.glob("step-*.pt") if other <= path)[-KEPT:]
    for other in set(folder.glob("step-*.pt")).difference(kept):
        other.unlink()


def load_state(folder: Path, device: torch.device | str) -> dict[str, Any] | None:
    """The newest undamaged state in `folder`, its tensors on `device`, or None; a warning names damaged ones."""
    damaged, state = [], None
    for path in sorted(folder.glob("step-*.pt"), reverse=True):
        try:
            state = _read(path, device)["state"]
            break
        except (PermissionError, MemoryError, torch.OutOfMemoryError):
            raise  # the file may be sound
        except Exception as error:  # whatever a damaged file provokes, the one before it is worth a try
            damaged.append(f"{path} is damaged ({_reason(error)})")
    if damaged:
        done = "no readable state is left; starting fresh"
        if state is not None:
            done = f"going on from the one before it, step {int(path.stem.removeprefix('step-'))}"
        logger.warning("%s; %s", "; ".join(damaged), done)
    return state


def save_generator(path: Path, g1: nn.Module, facts: dict[str, Any]) -> None:
    """Write G1 as one self-contained file that torch.load(weights_only=True) reads: weights, architecture, `Facts`.

    Raises
    ------
    OSError
        The disk is full, say; a file that was there before is untouched.
    """
    Facts.model_validate(facts)
    weights = {name: tensor.detach().cpu().clone() for name, tensor in g1.state_dict().items()}
    parts = {"facts": facts, "architecture": _architecture(facts["network"], g1), "weights": weights}
    _write(path, {"format": MODEL, "version": VERSION, **parts})


def load_generator(path: Path) -> tuple[nn.Module, dict[str, Any]]:
    """G1 in evaluation mode on the CPU, and the `Facts` it was saved with; runs no code from the file.

    Raises
    ------
    UserError
        The file is missing, damaged, foreign, of another format version, or does not fit this program's networks.
    """
    saved = _read_model(path)
    facts, network = saved["facts"], saved["facts"]["network"]
    try:
        g1 = build_g1(network)
    except KeyError:
        known = ", ".join(FAMILIES)
        raise UserError(f"{path} has a '{network}' network, this program knows {known}; update microsr") from None
    for key, own in _architecture(network, g1).items():
        if (theirs := saved["architecture"].get(key)) != own:
            raise UserError(
                f"{path} was trained with a {network} G1 whose {key} is {theirs}, in this program it is {own}; "
                "use the microsr that trained it, or train it again"
            )
    try:
        g1.load_state_dict(saved["weights"])
    except RuntimeError as error:
        reason = str(error).splitlines()[1].strip()[:200]
        raise UserError(f"{path} has weights that do not fit its {network} G1 ({reason}); train it again") from None
    for name, weight in saved["weights"].items():
        if not weight.isfinite().all():
            raise UserError(
                f"{path} has weights that are not finite ({name}); train it again, at a lower learning rate"
            )
    return g1.eval(), facts


def _architecture(network: str, g1: nn.Module) -> dict[str, Any]:
    return {
        "network": network,
        "class": type(g1).__name__,
        "parameters": sum(p.numel() for p in g1.parameters()),
        "halo": g1.halo,
        "noise_scales": list(g1.noise_scales),
        "scale": SCALE,
    }


def _read_model(path: Path) -> dict[str, Any]:
    """Content of a model file of this version, each part there and of its type."""
    if not path.exists():
        raise UserError(f"{path} does not exist; train a model first")
    if path.is_dir():
        raise UserError(f"{path} is a folder; {GIVE}")
    if path.stat().st_size == 0:
        raise UserError(f"{path} is empty; train it again")
    with path.open("rb") as stream:
        if stream.read(len(ZIP)) != ZIP and not zipfile.is_zipfile(stream):
            raise UserError(f"{path} is no microsr model; {GIVE}")
    try:
        saved = _read(path, "cpu")
    except MemoryError:
        raise
    except pickle.UnpicklingError:
        raise UserError(
            f"{path} holds more than weights and plain values, perhaps code; it was not run; {GIVE}"
        ) from None
    except Exception as error:  # whatever a damaged file provokes
        raise UserError(
            f"{path} is damaged or no model file ({_reason(error)}); copy it again, or train it again"
        ) from None
    held = saved.get("format") if isinstance(saved, dict) else None
    if held == STATE:
        raise UserError(f"{path} is the state of an unfinished training; finish it and give its generator.pt")
    if held != MODEL:
        raise UserError(f"{path} is no microsr model; {GIVE}")
    version = saved.get("version")
    if version != VERSION:
        cure = "update microsr" if isinstance(version, int) and version > VERSION else "train it again"
        raise UserError(f"{path} has format version {version}, this program reads {VERSION}; {cure}")
    try:
        _ModelFile.model_validate(saved)
    except ValidationError as error:
        raise UserError(f"{config.describe(error, str(path))}; train it again") from None
    return saved


def _read(path: Path, device: torch.device | str) -> Any:
    """What `_write` wrote, its tensors on `device`; any exception may come out of a damaged or foreign file."""
    with path.open("rb") as stream:
        if not zipfile.is_zipfile(stream):
            raise ValueError("its end is missing")
        with zipfile.ZipFile(stream) as archive:
            # torch.load takes a record with a folder's mark (0x10) for an empty one, without a word.
            folders = (entry.filename for entry in archive.infolist() if entry.external_attr & 0x10)
            if broken := archive.testzip() or next(folders, None):
                raise ValueError(f"its part {broken} is broken")
    return torch.load(path, map_location=device, weights_only=True)


def _reason(error: Exception) -> str:
    return (str(error) or type(error).__name__).splitlines()[0][:100]


def _write(path: Path, content: dict[str, Any]) -> None:
    """Write a file so that even after a power cut a reader finds the old one or the new one."""
    serialised = io.BytesIO()  # onto a full disk torch.save itself fails with an internal error
    torch.save(content, serialised)
    temporary = path.with_name(f".{path.name}.part")
    try:
        with temporary.open("wb") as stream:
            stream.write(serialised.getbuffer())
            stream.flush()
            os.fsync(stream.fileno())
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    with contextlib.suppress(OSError):  # not every network file system can
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
