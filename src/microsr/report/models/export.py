"""Write a trained model for other people and programs, with its card beside it.

In: generator.pt, or a model that was exported as safetensors. Out, by the output's ending: .safetensors, with its card
(.md); .onnx, with its card (.onnx.md); .zip, a package for bioimage.io; or, without an ending, a folder with
model.safetensors and README.md, as sites of models have it.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path

from microsr.core.errors import UserError
from microsr.core.files import replacing
from microsr.core.progress import logger
from microsr.core.provenance import write_atomically, write_run
from microsr.networks.safetensors_file import load_model, read_content, save_safetensors
from microsr.report.models.card import MARK, write_card
from microsr.report.models.description import Description, describe_model

WEIGHTS, CARD = "model.safetensors", "README.md"
"""Files of a folder."""
Writer = Callable[[Path, Path, Description], None]
"""Writes the model at a path, which has been read already, to another path, with its card."""


def export_model(
    model: Path,
    output: Path,
    title: str | None = None,
    license: str | None = None,
    trained_on: str | None = None,
    calibration: Sequence[Path] | None = None,
) -> None:
    """Write the model at `model` to `output`, with its card; the card's words as of `describe_model`.

    Raises
    ------
    UserError
        The model or a table of calibration cannot be read, the ending is not known, or `output` is the model itself.
    """
    started = time.time()
    model, output, tables = Path(model), Path(output), list(calibration or [])
    write = WRITERS.get(output.suffix.lower())
    if write is None:
        raise UserError(
            f"{output}: no model is written as {output.suffix}; give a name that ends in .safetensors, .onnx or .zip, "
            "or without ending for a folder"
        )
    if output.resolve() == model.resolve():
        raise UserError(f"{output}: is the model itself; give another name")
    known = describe_model(model, title or output.stem, license, trained_on, tables)
    write(model, output, known)
    settings = {"title": title, "license": license, "trained_on": trained_on}
    write_run(output, "export.model", settings, [model, *tables], started)
    logger.info("%s and its card are written; read the card before you pass the model on", output)


def _write_safetensors(model: Path, output: Path, known: Description) -> None:
    card = _card_beside(output)
    save_safetensors(output, read_content(model))
    write_atomically(card, write_card(known, output.name))


def _write_folder(model: Path, output: Path, known: Description) -> None:
    _check_ours(output, output.is_dir() and {path.name for path in output.iterdir()} <= {WEIGHTS, CARD})
    with replacing(output) as folder:
        folder.mkdir()
        save_safetensors(folder / WEIGHTS, read_content(model))
        write_atomically(folder / CARD, write_card(known, WEIGHTS))


def _write_onnx(model: Path, output: Path, known: Description) -> None:
    from microsr.networks.onnx_file import InHU, save_onnx

    card = _card_beside(output)
    g1, facts = load_model(model)
    save_onnx(output, InHU(g1, facts), facts)
    write_atomically(card, write_card(known, output.name))


def _write_package(model: Path, output: Path, known: Description) -> None:
    from microsr.networks.onnx_file import InHU
    from microsr.report.models.bioimageio import save_package

    g1, facts = load_model(model)
    save_package(output, InHU(g1, facts), known)


def _card_beside(output: Path) -> Path:
    """Where the card of a file is written."""
    # Of ONNX another card than of safetensors: it says how each is run.
    card = output.with_suffix(".md" if output.suffix.lower() == ".safetensors" else f"{output.suffix}.md")
    _check_ours(card, card.is_file() and MARK in card.read_text(encoding="utf-8", errors="replace"))
    return card


def _check_ours(output: Path, is_ours: bool) -> None:
    """Refuse to replace what is no earlier output of this kind."""
    if output.exists() and not is_ours:
        raise UserError(f"{output}: exists and is no earlier output of this kind; give another name, or remove it")


WRITERS: dict[str, Writer] = {
    ".safetensors": _write_safetensors,
    ".onnx": _write_onnx,
    ".zip": _write_package,
    "": _write_folder,
}
"""By the output's ending."""
