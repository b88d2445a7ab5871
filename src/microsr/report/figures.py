"""The report's figures: their section, title and caption, and the pictures made small enough to travel in one file.

In: the pipeline's .png figures and the captions of `snakemake --report` (report/*.rst), which are the page's captions
too.
"""

from __future__ import annotations

import base64
import io
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from docutils.core import publish_parts
from jinja2 import Environment
from PIL import Image

from microsr.core.errors import UserError, brief
from microsr.evaluation.names import MODALITY_NAMES

WIDEST = 1800
"""Pixels: a wider figure is scaled down; at its full size it lies in the folder `figures`."""
QUALITY = 88
"""Of WebP with losses: none can be seen, in letters either."""
FEW_COLOURS = 512
MOST_OF_A_KIND = 4
"""Figures of one kind that are shown, as of patches, which there are two of for each case."""

DATA, TRAINING, EVALUATION = "data", "training", "evaluation"
KINDS: dict[str, tuple[str, str]] = {
    "comparison": ("viewer", "Comparison"),
    "patches": (DATA, "Where patches were taken"),
    "calibration": (DATA, "Calibration of the uCT"),
    "domain": (DATA, "Clinical patches beside pooled uCT patches"),
    "scanner": (DATA, "The clinical scanner, measured"),
    "validation": (DATA, "The simulated lung and scanner beside the literature"),
    "network": (TRAINING, "Networks and losses"),
    "losses": (TRAINING, "Loss curves"),
    "panels": (TRAINING, "Sample panels over the training"),
    "metrics": (EVALUATION, "Metrics of each method"),
    "metrics_validation": (EVALUATION, "What each metric sees"),
    "bronchioles": (EVALUATION, "Bronchiole resolution"),
    "hallucination": (EVALUATION, "Hallucination maps"),
    "uncertainty": (EVALUATION, "Draws and their uncertainty"),
    "reliability": (EVALUATION, "Whether the spread of the draws can be believed"),
    "efficiency": (EVALUATION, "Quality against cost"),
    "tiling": (EVALUATION, "Tiles that cannot be seen"),
}
"""First word of a figure's file name, or all of it -> section of the report and title; others are in the evaluation."""

AS_TABLE = ("volumes",)
"""Kinds of figures that the page has as tables of its own."""


@dataclass(frozen=True)
class Shown:
    """A figure in the page. kind: a key of KINDS. caption: HTML. picture: a data: address. size: width and height,
    pixels.
    """

    name: str
    kind: str
    section: str
    title: str
    caption: str
    picture: str
    size: tuple[int, int]


def show_figures(paths: list[Path], captions: Path, settings: dict[str, Any]) -> tuple[list[Shown], dict[str, int]]:
    """The figures as the page shows them, in the order of KINDS, and how many of each kind are left out.

    captions: folder of report/*.rst. settings: what a caption may ask of the experiment (`snakemake.config`).

    Raises
    ------
    UserError
        A figure cannot be read.
    """
    order = list(KINDS)
    kinds: dict[str, list[Path]] = {}
    for path in paths:
        kind = path.stem if path.stem in KINDS else path.stem.partition("_")[0]
        kinds.setdefault(kind, []).append(path)
    for kind in AS_TABLE:
        kinds.pop(kind, None)
    shown, left_out = [], {}
    for kind in sorted(kinds, key=lambda kind: order.index(kind) if kind in order else len(order)):
        most = len(kinds[kind]) if kind in ("metrics", "network") else MOST_OF_A_KIND
        shown += [_show(path, kind, captions, settings) for path in kinds[kind][:most]]
        if len(kinds[kind]) > most:
            left_out[kind] = len(kinds[kind]) - most
    return shown, left_out


def _show(path: Path, kind: str, captions: Path, settings: dict[str, Any]) -> Shown:
    section, title = KINDS.get(kind, (EVALUATION, kind.replace("-", " ").capitalize()))
    rest = path.stem.removeprefix(kind).removeprefix("_")
    if kind == "patches":
        case, _, modality = rest.rpartition("_")
        title += f": {case}, {MODALITY_NAMES.get(modality, modality)}"
    else:
        title += f": {rest.replace('_', ' ')}" if rest else ""
    picture, size = shrink(path)
    return Shown(path.stem, kind, section, title, caption(captions / f"{kind}.rst", settings), picture, size)


def caption(file: Path, settings: dict[str, Any]) -> str:
    """A caption of `snakemake --report` as HTML; "" if there is none.

    Raises
    ------
    UserError
        It cannot be read.
    """
    if not file.is_file():
        return ""
    try:
        asked = SimpleNamespace(config=settings)
        text = Environment(autoescape=False).from_string(file.read_text(encoding="utf-8")).render(snakemake=asked)
        careful = {"file_insertion_enabled": False, "raw_enabled": False, "report_level": 5, "_disable_config": True}
        parts = publish_parts(text, writer="html5", settings_overrides=careful)
    except Exception as error:  # whatever a mistake in the caption provokes
        raise UserError(f"{file}: is no caption in reStructuredText ({brief(error)}); mend it") from None
    return parts["body"].strip()


def shrink(path: Path) -> tuple[str, tuple[int, int]]:
    """A picture as a data: address, WebP, without losses where it is a drawing of few colours; and its size in pixels.

    Raises
    ------
    UserError
        It cannot be read.
    """
    try:
        with Image.open(path) as opened:
            image = opened.convert("RGB")
    except OSError as error:
        raise UserError(f"{path}: is no picture ({brief(error)}); draw the figure again") from None
    if image.width > WIDEST:
        image = image.resize((WIDEST, round(image.height * WIDEST / image.width)), Image.Resampling.LANCZOS)
    few_colours = image.getcolors(FEW_COLOURS) is not None
    stream = io.BytesIO()
    image.save(stream, "WEBP", lossless=few_colours, quality=QUALITY, method=2 if few_colours else 4)
    return f"data:image/webp;base64,{base64.b64encode(stream.getvalue()).decode('ascii')}", image.size
