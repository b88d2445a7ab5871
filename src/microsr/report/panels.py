"""Figure of what each training made of the same clinical patches as it went on: the sample panels that it left for
TensorBoard.

In: the record of each training and the folder of its states. Out: a figure. The panels lie with the state, which no
step depends on and which may have been deleted; then the figure says so.
"""

from __future__ import annotations

import io
import json
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import IMAGES, EventAccumulator

from microsr.core.errors import UserError, brief
from microsr.core.progress import logger
from microsr.evaluation.names import method_name
from microsr.figures.style import GREY, PAGE, fitting, new_figure, save, styled

TAG = "clinical_and_superresolved"
"""Name under which `training.monitor.Board` shows them: a row of clinical patches, and the same super-resolved
below.
"""
STEPS = 6
"""Panels shown of each training, evenly spread."""
PATCHES = 2
"""Patches shown of each panel."""
NOTHING = 0.2
"""Height of a row without panels, inches."""


def make_panels(runs: dict[str, Path], states: dict[str, Path], output: Path) -> dict[str, list[int]]:
    """Write the figure, a row for each training, and return the steps shown of each.

    runs: method -> record of its training. states: method -> folder of the states of its trainings. output: path
    without extension.

    Raises
    ------
    UserError
        A record cannot be read.
    """
    found = {method: read_panels(path, states[method]) for method, path in runs.items()}
    for method, panels in found.items():
        if not panels:
            logger.warning("%s: no sample panels are kept in %s", method, states[method])
    save(draw_panels(found), output)
    return {method: list(panels) for method, panels in found.items()}


def read_panels(record: Path, states: Path) -> dict[int, np.ndarray]:
    """Step -> picture (grey, uint8 [rows, columns]) of the training that `record` tells of, at most STEPS; empty if
    none are kept.
    """
    folder = _folder(record, states)
    if folder is None or not (folder / "tensorboard").is_dir():
        return {}
    try:
        events = EventAccumulator(str(folder / "tensorboard"), size_guidance={IMAGES: 0}).Reload()
        if TAG not in events.Tags()["images"]:
            return {}
        kept = {event.step: event.encoded_image_string for event in events.Images(TAG)}
        last = sorted(kept)
        steps = sorted({last[round(n * (len(last) - 1) / (STEPS - 1))] for n in range(STEPS)})
        return {step: np.asarray(Image.open(io.BytesIO(kept[step])).convert("L")) for step in steps}
    except Exception as error:  # whatever a damaged file provokes: the figure is no reason to stop
        logger.warning("%s: its sample panels cannot be read (%s)", folder, brief(error))
        return {}


def _folder(record: Path, states: Path) -> Path | None:
    """The state of the training of this record: the one with its settings, patches and code."""
    try:
        run = json.loads(record.read_text(encoding="utf-8"))
        wanted = (run["settings"], sorted(run["inputs"].values()), run["code"]["fingerprint"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"{record}: is no record of a training ({brief(error)}); train again") from None
    for file in sorted(states.glob("*/settings.json")):
        try:
            told = json.loads(file.read_text(encoding="utf-8"))
            if (told["settings"], sorted(sha for _, sha in told["inputs"]), told["code"]) == wanted:
                return file.parent
        except (OSError, ValueError, KeyError, TypeError):
            continue
    return None


@styled
def draw_panels(found: dict[str, dict[int, np.ndarray]]) -> Figure:
    """Draw a row for each method: its panels by step, of each the first PATCHES patches; or a line that says that none
    are kept.
    """
    edge, gap, heading, foot = 0.04, 0.06, 0.3, 0.12
    aspects = [_aspect(panels) for panels in found.values() if panels]
    rest = (heading + foot) * len(found) + NOTHING * (len(found) - len(aspects))
    side = fitting((PAGE - 2 * edge - gap * (STEPS - 1)) / STEPS, rest, sum(aspects)) if aspects else 0.0
    heights = [side * _aspect(panels) if panels else NOTHING for panels in found.values()]
    height = rest + side * sum(aspects)
    figure = new_figure(PAGE, height)
    top = height
    for (method, panels), row in zip(found.items(), heights, strict=True):
        words = (
            f"{method_name(method)}" if panels else f"{method_name(method)}: no sample panels are kept of this training"
        )
        figure.text(edge / PAGE, (top - 0.04) / height, words, fontsize=8, fontweight="bold", va="top")
        top -= heading
        for column, (step, picture) in enumerate(panels.items()):
            left = edge + column * (side + gap)
            axes = figure.add_axes((left / PAGE, (top - row) / height, side / PAGE, row / height))
            axes.imshow(_first(picture), cmap="gray", vmin=0, vmax=255, aspect="auto", interpolation="antialiased")
            axes.set_axis_off()
            axes.set_title(f"step {step}", fontsize=6.5, color=GREY, pad=2, loc="left")
        top -= row + foot
    return figure


def _first(picture: np.ndarray) -> np.ndarray:
    """The first patches of a panel; a patch is as wide as its half of the panel is high."""
    return picture[:, : PATCHES * picture.shape[0] // 2]


def _aspect(panels: dict[int, np.ndarray]) -> float:
    rows, columns = _first(next(iter(panels.values()))).shape
    return rows / columns
