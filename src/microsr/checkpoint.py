"""Training state on disk, so that a killed training goes on where it was, and the trained model as one file.

The state lives in a folder that Snakemake does not know (it deletes the outputs of a failed job), one sub-folder for each
fingerprint of settings, data and code: a changed setting never continues from an old state. A file is written under a
temporary name, flushed, then renamed; the last two are kept, and an unreadable newest one is passed over.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import torch

from microsr import UserError
from microsr.networks import build_g1
from microsr.progress import logger

KEPT = 2
FORMAT, VERSION = "microsr generator", 1


def save_state(folder: Path, step: int, state: dict[str, Any]) -> None:
    """Write the state after `step` steps and drop all but the newest two."""
    folder.mkdir(parents=True, exist_ok=True)
    _write(folder / f"step-{step:09d}.pt", state)
    for old in sorted(folder.glob("step-*.pt"))[:-KEPT]:
        old.unlink()


def load_state(folder: Path, device: torch.device | str) -> dict[str, Any] | None:
    """The newest readable state in `folder`, or None where there is none."""
    for path in sorted(folder.glob("step-*.pt"), reverse=True):
        try:
            return torch.load(path, map_location=device, weights_only=True)
        except Exception as error:  # whatever a damaged file provokes, the one before it is worth a try
            logger.warning("%s is unreadable (%s); trying the one before it", path, type(error).__name__)
    return None


def save_generator(path: Path, g1: torch.nn.Module, facts: dict[str, Any]) -> None:
    """Write G1 as one self-contained file: weights, network family, intensity window, provenance.

    facts: network, window_hu, seed and more; plain values only.
    """
    weights = {name: tensor.detach().cpu().clone() for name, tensor in g1.state_dict().items()}
    _write(path, {"format": FORMAT, "version": VERSION, "facts": facts, "weights": weights})


def load_generator(path: Path) -> tuple[torch.nn.Module, dict[str, Any]]:
    """G1 in evaluation mode on the CPU, and the facts it was saved with; runs no code from the file.

    Raises
    ------
    UserError
        The file is damaged, foreign, or of a newer format.
    """
    try:
        saved = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise UserError(f"{path} does not exist; train a model first") from None
    except Exception as error:
        raise UserError(f"{path} is damaged or no model file ({type(error).__name__}); train it again") from None
    if not isinstance(saved, dict) or saved.get("format") != FORMAT:
        raise UserError(f"{path} is not a microsr generator; give the generator.pt of a trained model")
    if saved["version"] != VERSION:
        raise UserError(f"{path} has format version {saved['version']}, this program reads {VERSION}; update microsr")
    g1 = build_g1(saved["facts"]["network"])
    try:
        g1.load_state_dict(saved["weights"])
    except RuntimeError:
        raise UserError(
            f"{path} does not fit this version's {saved['facts']['network']} network; train it again"
        ) from None
    return g1.eval(), saved["facts"]


def _write(path: Path, content: dict[str, Any]) -> None:
    temporary = path.with_name(f".{path.name}.part")
    with temporary.open("wb") as stream:
        torch.save(content, stream)
        stream.flush()
        os.fsync(stream.fileno())
    temporary.replace(path)
