"""Hallucination maps: what each method shows wrongly, split into what the scanner measured and what it could not see.

In: the clinical CT, the truth, per method the super-resolved CT and the volume that `microsr evaluate metrics --maps`
writes.
Out: a figure; clinical CT and truth, then a row a method: its image, its measurable error and its hallucination (Bhadra
et al., IEEE TMI 2021).
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from microsr import config
from microsr.config import Figures
from microsr.core.errors import UserError
from microsr.evaluation.metrics import magnify
from microsr.evaluation.names import method_name
from microsr.figures.figure import Record
from microsr.figures.pictures.comparison import choose_slice, crop_inset, require_insets
from microsr.figures.style import (
    GREY,
    PAGE,
    bare,
    fitting,
    grey_bar,
    new_figure,
    orient_radiologically,
    save,
    scale_bar,
    styled,
)
from microsr.volume.alignment import check_overlay, held_slices, scale_of
from microsr.volume.storage import Volume, open_mask, open_volume

ERROR_HU = 400.0
"""The colours of an error reach to this many HU on either side of 0."""
COLOUR_MAP = "RdBu_r"


def make_hallucination(
    clinical: Path,
    truth: Path,
    superresolved: dict[str, Path],
    maps: dict[str, Path],
    settings: Figures,
    output: Path,
) -> dict[str, Any]:
    """Write the figure of one case and return the slice and the field that it shows, and the slice read of each large
    volume.

    superresolved, maps: method -> volume, the same methods in both. The field is the first of settings.insets, or the
    square inside the lung in which the clinical CT has most structure. output: path without extension.

    Raises
    ------
    UserError
        The volumes do not belong together, or the lung has no room for the field.
    """
    if set(maps) != set(superresolved):
        raise UserError(f"maps of {', '.join(maps)} but images of {', '.join(superresolved)}; give both of each method")
    ct, mask, true = open_volume(clinical), open_mask(clinical), open_volume(truth)
    volumes = {path: open_volume(path) for path in (*superresolved.values(), *maps.values())}
    slices = {path: held_slices(volume, path, ct, clinical) for path, volume in volumes.items()}
    scale = scale_of(true, ct)
    for path, volume in volumes.items():
        check_overlay(volume, path, true, true.shape, truth, slices[path])
    index = choose_slice(mask, slices, settings.slice)
    lung, pixels = np.asarray(mask[index]) > 0, np.asarray(ct.array[index], np.float32)
    field = require_insets(settings.insets, pixels, lung, clinical, index)[0]

    def crop(image: Any) -> np.ndarray:
        return crop_inset(image, field, scale, "the first one")

    target, inside = crop(true.array[index]), crop(magnify(lung, scale)).astype(bool)
    rows = {}
    for name, path in superresolved.items():
        image, null = (crop(volumes[one].array[slices[one].index(index)]) for one in (path, maps[name]))
        rows[name] = image, np.where(inside, image - target, 0) - null, null
    seen = pixels[field.row : field.row + field.size, field.column : field.column + field.size]
    save(draw_hallucination(seen, target, rows, ct, settings.display_window_hu), output)
    drawn = {truth: [index]} | {path: [held.index(index)] for path, held in slices.items()}
    return {"slice": index, "field": field.model_dump(), "slices_read": drawn}


@styled
def draw_hallucination(
    clinical: np.ndarray,
    truth: np.ndarray,
    rows: dict[str, tuple[np.ndarray, np.ndarray, np.ndarray]],
    volume: Volume,
    window: tuple[float, float],
) -> Figure:
    """Draw clinical CT and truth on the left and a row of image, measurable error and hallucination for each method.

    clinical: HU [size, size]; truth and rows: HU [scale * size, scale * size]. volume: gives the pixel size and the
    direction. Errors share one symmetric colour scale, whose ends are ERROR_HU; the number in a panel is its root mean
    square.
    """
    edge, gap, head, foot = 0.12, 0.06, 0.22, 0.44
    lines = max(len(rows), 2)
    column_width = (PAGE - 2 * edge - 4 * gap - 0.2) / 4
    side = fitting(column_width, head + foot + 0.19 * lines, lines)
    height = head + foot + lines * (side + 0.19)
    figure = new_figure(PAGE, height)
    extent = len(clinical) * volume.spacing[0], len(clinical) * volume.spacing[1]

    def panel(row: int, column: int, image: np.ndarray, title: str, error: bool = False) -> Axes:
        left = edge + column * (column_width + gap) + (0.2 if column else 0)
        bottom = height - head - row * (side + 0.19) - side
        axes = figure.add_axes((left / PAGE, bottom / height, side / PAGE, side / height))
        limits = (-ERROR_HU, ERROR_HU) if error else window
        axes.imshow(image, cmap=COLOUR_MAP if error else "gray", vmin=limits[0], vmax=limits[1],
                    interpolation="nearest", extent=(0, extent[0], extent[1], 0))  # fmt: skip
        axes.set_title(title, loc="left", pad=3)
        if error:
            rms = np.sqrt(np.mean(np.square(image, dtype=float)))
            axes.text(0.97, 0.03, f"{rms:.0f} HU", transform=axes.transAxes, ha="right", va="bottom", fontsize=6,
                      bbox={"facecolor": "white", "alpha": 0.8, "linewidth": 0, "pad": 1.2})  # fmt: skip
        bare(axes, GREY if error else None)
        for spine in axes.spines.values():
            spine.set_linewidth(0.5)
        orient_radiologically(axes, volume.direction)
        return axes

    scale_bar(panel(0, 0, clinical, "Clinical CT"), extent[0])
    panel(1, 0, truth, "Truth")
    for row, (name, (image, measured, null)) in enumerate(rows.items()):
        panel(row, 1, image, method_name(name))
        panel(row, 2, measured, "Measurable error", error=True)
        panel(row, 3, null, "Hallucination (null space)", error=True)
    grey_bar(figure, (edge / PAGE, 0.2 / height, column_width / PAGE, 0.08 / height), window)
    left, width = edge + 0.2 + 2 * (column_width + gap), 2 * column_width + gap
    _colour_bar(figure, (left / PAGE, 0.2 / height, width / PAGE, 0.08 / height))
    return figure


def _colour_bar(figure: Figure, box: tuple[float, float, float, float]) -> None:
    axes = figure.add_axes(box, label="colour scale")
    axes.imshow(np.linspace(0, 1, 256)[None], cmap=COLOUR_MAP, aspect="auto", extent=(-ERROR_HU, ERROR_HU, 0, 1))
    ticks = (-ERROR_HU, -ERROR_HU / 2, 0, ERROR_HU / 2, ERROR_HU)
    axes.set_xticks(ticks, [f"{tick:+g}".replace("-", "−").replace("+0", "0") for tick in ticks])
    axes.set_yticks([])
    axes.set_title("super-resolved − truth (HU)", fontsize=6.5, pad=2)
    for spine in axes.spines.values():
        spine.set(visible=True, linewidth=0.5)


def arguments(parser: argparse.ArgumentParser) -> None:
    """Flags of `microsr figures hallucination`."""
    parser.add_argument("--clinical", required=True, type=Path, help="clinical CT with its lung mask (OME-Zarr)")
    parser.add_argument("--truth", required=True, type=Path, help="truth on the super-resolved grid (OME-Zarr)")
    parser.add_argument(
        "--superresolved", required=True, nargs="+", metavar="NAME=PATH", help="super-resolved CT, in order"
    )
    parser.add_argument(
        "--maps", required=True, nargs="+", metavar="NAME=PATH", help="volumes of `microsr evaluate metrics --maps`"
    )
    config.add_flags(parser, config.Figures)


def draw(ns: argparse.Namespace) -> Record:
    """Draw the figure from its command line."""
    settings = config.from_flags(ns, config.Figures)
    superresolved = config.named_paths(ns.superresolved, "superresolved")
    maps = config.named_paths(ns.maps, "maps")
    shown = make_hallucination(ns.clinical, ns.truth, superresolved, maps, settings, ns.output)
    volumes = [ns.clinical, ns.truth, *superresolved.values(), *maps.values()]
    return Record(settings.model_dump(mode="json"), volumes, shown)
